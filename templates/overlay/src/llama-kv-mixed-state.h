#pragma once

// Saved states of mixed KV caches. A state is read whole and checked before the cache changes.
//
//   magic, version
//   is_whole, type_k, type_v, rot_k, rot_v, n_layer, n_stream      u32
//   for each layer: il, head_dim, n_head_kv                         u32
//   for each stream: n_f16, n_tiles                                 u32
//     for each f16 cell: cell, token; for each tile: tile, 128 tokens
//     for each layer, K then V: rows of the f16 cells, then tiles
//   checksum of all this                                            u64
//
// A token is its position (-1: none) and, in the state of a whole cache, its sequences. A sequence's state has none: it can become any.

#include "llama-io.h"
#include "llama-kv-cache-mixed.h"

#include <cstdint>
#include <vector>

// the checksum after one more piece of data, which counts as one: the same bytes in other pieces have another sum
uint64_t llama_kv_mixed_sum(uint64_t sum, const void * data, size_t size);

// passes data on, and sums it up
class llama_kv_mixed_writer {
  public:
    explicit llama_kv_mixed_writer(llama_io_write_i & io) : io(io) {}

    void write(const void * data, size_t size);
    void write_u32(uint32_t value);
    void write_checksum();

  private:
    llama_io_write_i & io;
    uint64_t           sum = 0;
};

class llama_kv_mixed_reader {
  public:
    explicit llama_kv_mixed_reader(llama_io_read_i & io) : io(io) {}

    void     read(void * data, size_t size);
    uint32_t read_u32();
    void     check_checksum();

  private:
    llama_io_read_i & io;
    uint64_t          sum = 0;
};

// a state that was read, and fits the cache
class llama_kv_mixed_state {
  public:
    // throws, in words
    llama_kv_mixed_state(const llama_kv_cache_mixed & kv, llama_io_read_i & io, llama_seq_id seq_id);

    void put(llama_kv_cache_mixed & kv) const;

    static void write(const llama_kv_cache_mixed & kv, llama_io_write_i & io, llama_seq_id seq_id);

  private:
    struct token {
        llama_pos                 pos;
        std::vector<llama_seq_id> seq_ids;
    };

    struct saved_stream {
        uint32_t                          stream;
        std::vector<uint32_t>             cells; // as saved, then where they go
        std::vector<token>                tokens;
        std::vector<uint32_t>             tiles;
        std::vector<std::vector<token>>   tile_tokens;
        std::vector<std::vector<uint8_t>> data; // [2*layer + side]
    };

    const llama_seq_id        seq_id;
    std::vector<saved_stream> streams;

    void read_stream(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, saved_stream & to) const;
    void place(const llama_kv_cache_mixed & kv, saved_stream & s) const;

    token read_token(const llama_kv_cache_mixed & kv, llama_kv_mixed_reader & in, uint32_t stream) const;
};

// the state of another cache inside ours: upstream's for the layers with a sliding window
void                 llama_kv_mixed_write_part(llama_io_write_i & io, const llama_memory_i & part, llama_seq_id seq_id, llama_state_seq_flags flags);
std::vector<uint8_t> llama_kv_mixed_read_part(llama_io_read_i & io);

// put such a state into its cache, which stays what it was if that throws
void llama_kv_mixed_put_part(llama_memory_i & part, const std::vector<uint8_t> & data, llama_seq_id seq_id, llama_state_seq_flags flags);
