#pragma once

// The bookkeeping of the mixed KV cache: which cell holds which token. No tensors here.

#include "ggml-qlutattn.h"
#include "llama-cparams.h"
#include "llama-kv-cells.h"

#include <array>
#include <bitset>
#include <cstdint>
#include <vector>

// what the cells of a cache are for
struct llama_kv_mixed_layout {
    uint32_t n_stream; // sequences have a stream each, or share the only one
    uint32_t n_cells;  // tokens of a stream, at most
    uint32_t n_f16;    // f16 cells of a stream
    uint32_t n_tiles;  // tiles of a stream
    uint32_t n_sink;   // tokens at positions below this are never packed
    uint32_t n_window; // nor are this many of the newest tokens of each sequence

    // room for what must stay in f16, for tokens that do not fill a tile yet, and for a ubatch
    static llama_kv_mixed_layout make(uint32_t n_cells, uint32_t n_ubatch, uint32_t n_seq_max, bool unified, uint32_t n_sink, uint32_t n_window);
};

// a tile to fill, and the f16 cells whose tokens it takes
struct llama_kv_mixed_pack {
    uint32_t stream;
    uint32_t tile;

    std::array<uint32_t, GGML_QLUTATTN_TILE> cells;
};

// the cells of a stream; token i of tile t is cell t*GGML_QLUTATTN_TILE + i of packed
struct llama_kv_mixed_stream {
    llama_kv_cells f16;
    llama_kv_cells packed;

    uint32_t n_used() const { return f16.get_used() + packed.get_used(); }

    bool tile_is_free(uint32_t tile) const;

    // to an f16 cell; ext: the other parts of an M-RoPE position
    void add(uint32_t cell, llama_pos pos, const llama_kv_cell_ext & ext, int32_t n_seq_id, const llama_seq_id * seq_id);
    void pack(const llama_kv_mixed_pack & p);
    void clear();

    // a range of positions is from p0 to p1 - 1; all sequences: seq_id -1
    void seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1);
    void seq_cp(llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1);
    void seq_cp(const llama_kv_mixed_stream & src, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1); // replaces all that is here
    void seq_keep(llama_seq_id seq_id);

    llama_pos seq_pos_min(llama_seq_id seq_id) const;
    llama_pos seq_pos_max(llama_seq_id seq_id) const;
};

// what has to happen before a ubatch is computed
struct llama_kv_mixed_plan {
    std::vector<llama_kv_mixed_pack> packs;  // first, tokens leave f16 cells ..

    uint32_t                           s0;   // .. then those of the ubatch get theirs, in the streams from s0 on:
    std::vector<std::vector<uint32_t>> idxs; // [stream of the ubatch][token]

    uint32_t n_stream() const { return idxs.size(); }
};

// Plans a batch, ubatch by ubatch, on a copy of the bookkeeping: what is decided for one counts for the next.
class llama_kv_mixed_planner {
  public:
    llama_kv_mixed_planner(const llama_kv_mixed_layout & layout, const std::vector<llama_kv_mixed_stream> & streams);

    // decide what happens to a stream before n tokens join it; false if they do not fit
    bool add(uint32_t stream, uint32_t n, const llama_pos * pos, const int32_t * n_seq_id, llama_seq_id * const * seq_id,
             std::vector<llama_kv_mixed_pack> & packs, std::vector<uint32_t> & idxs);

  private:
    using seq_set = std::bitset<LLAMA_MAX_SEQ>;

    struct cell {
        llama_pos pos = -1; // -1: free
        seq_set   seqs;
    };

    // what planning needs to know of a stream; f16 cells are named by their index
    struct snapshot {
        bool                   is_loaded = false;
        uint32_t               n_used    = 0; // cells, f16 and packed
        uint32_t               n_free    = 0; // f16 cells
        std::vector<cell>      f16;
        std::vector<uint32_t>  free_tiles;    // the next one to fill is the last
        std::vector<llama_pos> pos_max;       // [seq_id]
    };

    const llama_kv_mixed_layout &              layout;
    const std::vector<llama_kv_mixed_stream> & streams;
    std::vector<snapshot>                      snapshots; // [stream]

    static seq_set sequences(const llama_kv_cells & cells, uint32_t i);

    void    load(uint32_t stream);
    int64_t age(const snapshot & s, const cell & c) const;
    bool    is_sink(const cell & c) const;
    bool    may_be_packed(const snapshot & s, const cell & c) const;

    // pack tokens outside of sinks and window, tiles of one set of sequences only; returns the cells of those that fill no tile, by position
    std::vector<uint32_t> pack_old(uint32_t stream, std::vector<llama_kv_mixed_pack> & packs);
    // all used f16 cells, the ones to give up first at the front
    std::vector<uint32_t> cells_by_age(const snapshot & s) const;
    void                  pack(uint32_t stream, std::vector<uint32_t> & cells, uint32_t n_free_wanted, std::vector<llama_kv_mixed_pack> & packs);
    // give n tokens the lowest free f16 cells
    void                  place(snapshot & s, uint32_t n, const llama_pos * pos, const int32_t * n_seq_id, llama_seq_id * const * seq_id,
                                std::vector<uint32_t> & idxs) const;
};
