#pragma once

// Saved states of mixed KV caches. A state is read completely, checked and made to fit before the cache changes.
//
//   magic, version
//   is_whole, type_k, type_v, rot_k, rot_v, has_ext                 u32
//   n_layer, is_unified, n_stream                                   u32
//   for each layer: il, head_dim, head_dim_v, n_head_kv             u32
//   for each stream: n_f16, n_tiles                                 u32
//     for each f16 cell: cell, token; for each tile: tile, shift, GGML_QLUTATTN_TILE tokens
//     for each layer, K then V: rows of the f16 cells, then tiles
//   checksum of all this                                            u64
//
// A token is a position (-1: no token), by how much of that its key still has to be turned, the other parts of an M-RoPE position (x, y) where
// has_ext is set, and, in the state of a whole cache, the number and ids of its sequences. The state of one sequence has no ids: it can be loaded as any sequence.
//
// A cache with fewer f16 cells packs the oldest of the saved tokens, one with fewer tiles merges them, and one without tiles unpacks them.

#include "llama-kv-cache-mixed.h"
#include "llama-kv-mixed-convert.h"
#include "llama-kv-mixed-io.h"

#include <cstdint>
#include <vector>

// a state that was read and checked against a cache
class llama_kv_mixed_state {
  public:
    // throws std::runtime_error with one sentence if the state is damaged or does not fit the cache
    llama_kv_mixed_state(const llama_kv_cache_mixed & kv, llama_io_read_i & io, llama_seq_id seq_id);

    void load(llama_kv_cache_mixed & kv) const;

    static void write(const llama_kv_cache_mixed & kv, llama_io_write_i & io, llama_seq_id seq_id);

  private:
    struct token {
        llama_pos                 pos;
        llama_pos                 shift = 0;
        llama_kv_cell_ext         ext   = {};
        std::vector<llama_seq_id> seq_ids;
    };

    using tile_tokens = std::vector<token>; // [GGML_QLUTATTN_TILE]

    struct saved_stream {
        uint32_t                               stream;
        std::vector<uint32_t>                  cells; // as saved, then as assigned
        std::vector<token>                     tokens;
        std::vector<uint32_t>                  tiles;
        std::vector<llama_pos>                 shifts;
        std::vector<tile_tokens>               in_tiles;
        std::vector<llama_kv_mixed_saved_side> sides; // as llama_kv_cache_mixed::sides
    };

    // what a cache has left for a stream beside the tokens that stay
    struct room {
        std::vector<bool> cells;
        std::vector<bool> tiles;
        uint32_t          n_cells;
        uint32_t          n_tiles;
        uint32_t          n_tokens;
    };

    const llama_seq_id        seq_id;
    bool                      has_ext;
    std::vector<saved_stream> streams;

    static void write_stream(const llama_kv_cache_mixed & kv, llama_kv_mixed_writer & out, uint32_t s, llama_seq_id seq_id);

    llama_pos read_shift(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in) const;
    uint32_t  read_head(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in); // the number of streams
    void      read_stream(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, saved_stream & to) const;
    void      read_sides(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, saved_stream & to) const;
    token     read_token(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, uint32_t stream) const;

    room        find_room(const llama_kv_cache_mixed & kv, uint32_t stream) const;
    void        assign_cells(const llama_kv_cache_mixed & kv, saved_stream & s) const;
    static void convert(saved_stream & s, const llama_kv_mixed_conversion & how);
    static void merge_tiles(saved_stream & s);
    static void unpack_tiles(saved_stream & s, uint32_t n_kept);
    static void pack_oldest(saved_stream & s, uint32_t n_cells, uint32_t n_sink);
};
