#pragma once

// Plans what has to happen in a mixed KV cache before each ubatch of a batch. No tensors here.

#include "llama-kv-mixed-cells.h"

#include <bitset>
#include <cstdint>
#include <limits>
#include <map>
#include <vector>

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

    static constexpr llama_pos FREE = -1;
    static constexpr llama_pos KEPT = -2; // see llama_kv_mixed_kept

    static constexpr llama_pos NEVER = std::numeric_limits<llama_pos>::max();

    struct cell {
        llama_pos pos = FREE;
        seq_set   seqs;
    };

    // what planning needs to know of a stream; cells are named by their index
    struct snapshot {
        bool                   is_loaded = false;
        uint32_t               n_used    = 0; // cells, f16 and packed
        uint32_t               n_free    = 0; // f16 cells, without those that are kept
        std::vector<cell>      f16;
        std::vector<uint32_t>  free_tiles;    // the next one to fill is the last
        std::vector<llama_pos> pos_max;       // [seq_id]
        std::vector<llama_pos> pos_before;    // the same, before the batch

        // packed cells are looked at only when tiles have to be merged; until then, what was planned for them is kept aside
        bool                                  has_packed = false;
        std::vector<cell>                     packed;
        std::vector<llama_pos>                tile_shift;
        std::map<uint32_t, std::vector<cell>> filled; // [tile]
    };

    // a tile that is not full
    struct partial_tile {
        uint32_t  tile;
        uint32_t  n; // tokens
        seq_set   seqs;
        llama_pos shift;
    };

    using tile_list = std::vector<partial_tile>;

    const llama_kv_mixed_layout &              layout;
    const std::vector<llama_kv_mixed_stream> & streams;
    std::vector<snapshot>                      snapshots; // [stream]

    static seq_set      sequences(const llama_kv_cells & cells, uint32_t i);
    static llama_seq_id first_sequence(const seq_set & seqs);

    void    load(uint32_t stream);
    int64_t age(const snapshot & s, const cell & c) const;
    bool    is_sink(const cell & c) const;
    bool    may_be_packed(const snapshot & s, const cell & c) const;

    // pack tokens outside of sinks and window, tiles of one set of sequences only; returns the cells of those that fill no tile, by position
    std::vector<uint32_t> pack_old(uint32_t stream, std::vector<llama_kv_mixed_pack> & packs);
    // Pack what falls due among the tokens of a small ubatch, and keep its f16 cells: queries before that still see them. Where tokens are
    // verified, or decoded with those of other sequences, each sees what it would see if it were decoded alone.
    void                  pack_ahead(uint32_t stream, llama_seq_id seq_id, llama_pos pos_last, std::vector<llama_kv_mixed_pack> & packs);
    // tiles of a sequence that are due later than this keep their f16 cells; no tile does where a batch up to a position is a part of a prompt
    llama_pos             keep_after(const snapshot & s, llama_seq_id seq_id, llama_pos pos_last) const;
    void                  release_kept(snapshot & s) const;
    // all used f16 cells, the ones to give up first at the front
    std::vector<uint32_t> cells_by_age(const snapshot & s) const;
    void                  pack(uint32_t stream, std::vector<uint32_t> & cells, uint32_t n_free_wanted, std::vector<llama_kv_mixed_pack> & packs,
                               llama_pos keep_after = NEVER);
    // pack until n f16 cells are free, into the tiles that are free
    bool                  pack_into_free_tiles(uint32_t stream, uint32_t n, std::vector<llama_kv_mixed_pack> & packs);
    // the same, where tiles that have lost tokens must be repacked for that
    bool                  make_room(uint32_t stream, uint32_t n, std::vector<llama_kv_mixed_pack> & packs);

    void      load_packed(uint32_t stream);
    tile_list partial_tiles(const snapshot & s) const; // the emptiest first
    // merge tiles until this many become free, those of the same sequences only or any, and those that were moved by as much only or any
    void      merge(uint32_t stream, uint32_t n_wanted, bool any_seqs, bool any_shift, std::vector<llama_kv_mixed_pack> & packs);
    // fill the holes of tiles with tokens of f16 cells, until n f16 cells are free
    bool      absorb(uint32_t stream, uint32_t n, std::vector<llama_kv_mixed_pack> & packs);
    // Move the tokens of tiles and of f16 cells to as few of these tiles as possible. A tile gets the shift that most of its tokens have, and the
    // keys of the others are turned.
    void      gather(uint32_t stream, tile_list tiles, const std::vector<uint32_t> & f16, std::vector<llama_kv_mixed_pack> & packs);

    // give n tokens the lowest free f16 cells
    void place(snapshot & s, uint32_t n, const llama_pos * pos, const int32_t * n_seq_id, llama_seq_id * const * seq_id,
               std::vector<uint32_t> & idxs) const;
};
