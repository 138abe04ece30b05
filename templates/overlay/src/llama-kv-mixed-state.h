#pragma once

// Saved states of mixed KV caches. A state is read completely and checked before the cache changes.
//
//   magic, version
//   is_whole, type_k, type_v, rot_k, rot_v, n_layer, n_stream      u32
//   for each layer: il, head_dim, head_dim_v, n_head_kv             u32
//   for each stream: n_f16, n_tiles                                 u32
//     for each f16 cell: cell, token; for each tile: tile, GGML_QLUTATTN_TILE tokens
//     for each layer, K then V: rows of the f16 cells, then tiles
//   checksum of all this                                            u64
//
// A token is a position (-1: no token) and, in the state of a whole cache, the number and ids of its sequences. The state of one sequence
// has no ids: it can be loaded as any sequence.

#include "llama-kv-cache-mixed.h"
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
        std::vector<llama_seq_id> seq_ids;
    };

    struct saved_stream {
        uint32_t                          stream;
        std::vector<uint32_t>             cells; // as saved, then as assigned
        std::vector<token>                tokens;
        std::vector<uint32_t>             tiles;
        std::vector<std::vector<token>>   tile_tokens;
        std::vector<std::vector<uint8_t>> data; // [2*layer + side]
    };

    const llama_seq_id        seq_id;
    std::vector<saved_stream> streams;

    static void write_stream(const llama_kv_cache_mixed & kv, llama_kv_mixed_writer & out, uint32_t s, llama_seq_id seq_id);

    void read_stream(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, saved_stream & to) const;
    void assign_cells(const llama_kv_cache_mixed & kv, saved_stream & s) const;

    token read_token(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, uint32_t stream) const;
};
