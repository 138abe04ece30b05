#pragma once

// The bookkeeping of the mixed KV cache: which cell holds which token. No tensors here.

#include "ggml-qlutattn.h"
#include "llama-cparams.h"
#include "llama-kv-cells.h"

#include <cstdint>
#include <vector>

// what the cells of a cache are for
struct llama_kv_mixed_layout {
    uint32_t n_stream; // sequences have a stream each, or share the only one
    uint32_t n_seq_max;
    uint32_t n_cells;  // tokens of a stream, at most
    uint32_t n_f16;    // f16 cells of a stream
    uint32_t n_tiles;  // tiles of a stream; 0: all tokens are in f16
    uint32_t n_sink;   // tokens at positions below this are never packed
    uint32_t n_window; // nor are this many of the newest tokens of each sequence
    double   share;    // what f16 cells and tiles take of upstream's f16 cache; there are no tiles where that is 1 or more

    // the size of a token in this cache, with what its heads are padded by, in units of one in upstream's f16 cache
    struct shares {
        double f16;
        double packed;
    };

    // Room for what must stay in f16, for tokens that do not fill a tile yet, and for a ubatch. Without tiles where those would not make the cache
    // smaller than upstream's.
    static llama_kv_mixed_layout make(uint32_t n_cells, uint32_t n_ubatch, uint32_t n_seq_max, bool unified, uint32_t n_sink, uint32_t n_window,
                                      const shares & shares);
};

// A tile to fill, and the cells whose tokens it takes: first those of tiles that are given up (or of this one), then f16 cells. Together they are
// at most GGML_QLUTATTN_TILE. All tiles of a plan are read before any of them is filled.
struct llama_kv_mixed_pack {
    uint32_t  stream;
    uint32_t  tile;
    llama_pos shift = 0; // of the tile

    std::vector<uint32_t> packed;
    std::vector<uint32_t> f16;

    std::vector<llama_pos> by; // by how many positions the keys of these tokens are turned, so that they fit the tile's shift; empty: none is

    llama_pos kept_until = -1; // not -1: the f16 cells are kept, see llama_kv_mixed_kept
};

// The tokens of a tile that was packed before it is due, since it falls due among tokens that are decoded together. Queries before a position
// still see the f16 cells, and later ones the tile: what a query sees does not depend on how a batch is cut, nor on tokens that are taken back.
struct llama_kv_mixed_kept {
    uint32_t              tile;
    std::vector<uint32_t> cells; // of the tile's tokens, empty to the bookkeeping
    llama_pos             until; // queries at this position and later ones see the tile
    llama_seq_id          seq_id;
};

// the cells of a stream; token i of tile t is cell t*GGML_QLUTATTN_TILE + i of packed
struct llama_kv_mixed_stream {
    llama_kv_cells f16;
    llama_kv_cells packed;

    std::vector<llama_pos> tile_shift; // how far the tokens of a tile were moved since their keys were rotated

    std::vector<llama_kv_mixed_kept> kept;

    void resize(const llama_kv_mixed_layout & layout);

    uint32_t n_used() const { return f16.get_used() + packed.get_used(); }

    bool tile_is_free(uint32_t tile) const;

    // the number of f16 cells up to the last one that is used or kept
    uint32_t n_f16_max() const;

    // what is kept for queries that cannot come any more: the first token of a batch is never taken back
    void release_kept();

    // to an f16 cell; ext: the other parts of an M-RoPE position
    void add(uint32_t cell, llama_pos pos, const llama_kv_cell_ext & ext, int32_t n_seq_id, const llama_seq_id * seq_id);
    // fill tiles; packs of other streams are left out
    void pack(const std::vector<llama_kv_mixed_pack> & packs, uint32_t stream);
    void clear();

    // a range of positions is from p0 to p1 - 1; all sequences: seq_id -1
    void seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1);
    void seq_cp(llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1);
    void seq_cp(const llama_kv_mixed_stream & src, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1); // replaces all that is here
    void seq_keep(llama_seq_id seq_id);
    // positions change at once, keys before the next ubatch
    void seq_add(llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift);
    void seq_div(llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d);

    bool has_shift() const { return f16.get_has_shift() || packed.get_has_shift(); }

    llama_pos seq_pos_min(llama_seq_id seq_id) const;
    llama_pos seq_pos_max(llama_seq_id seq_id) const;
};
