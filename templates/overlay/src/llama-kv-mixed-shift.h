#pragma once

// Bookkeeping of the K-shift: tokens of a mixed KV cache move to other positions. No tensors here.
//
// RoPE is relative, so a packed key that moves by d is left as it is, and its query is turned by -d instead: nothing is lost. A tile has
// one shift for all of its tokens. Where its tokens moved by different distances, the odd ones are decoded, turned and packed again.
// Keys in f16 are turned in place.

#include "llama-kv-mixed-cells.h"

#include <array>
#include <cstdint>
#include <vector>

// tiles of a stream have at most this many different shifts beside 0: each costs one more set of turned queries
constexpr uint32_t LLAMA_KV_MIXED_MAX_SHIFTS = 15;

// a tile to decode, turn and pack again; by[i]: by how many positions the key of token i is turned
struct llama_kv_mixed_turn {
    uint32_t tile;

    std::array<llama_pos, GGML_QLUTATTN_TILE> by;
};

// keys in f16 to turn in place
struct llama_kv_mixed_turned_cells {
    std::vector<int32_t>   cells;
    std::vector<llama_pos> by; // [cell]
};

// what has to happen to a stream's keys before the next ubatch
struct llama_kv_mixed_shift {
    llama_kv_mixed_turned_cells      f16;
    llama_kv_mixed_turned_cells      packed;     // where the packed part has its keys in f16
    std::vector<llama_kv_mixed_turn> turns;      // where it has tiles
    std::vector<llama_pos>           tile_shift; // of each tile, afterwards
};

llama_kv_mixed_shift llama_kv_mixed_plan_shift(const llama_kv_mixed_stream & stream, bool has_packed_keys);

// whether something has to happen: tokens moved, or a stream has too many different shifts (a loaded state brings its own)
bool llama_kv_mixed_needs_shift(const llama_kv_mixed_stream & stream);

// the different shifts of those of a stream's first n tiles that have tokens, without 0, in ascending order
std::vector<llama_pos> llama_kv_mixed_shifts_of(const llama_kv_mixed_stream & stream, uint32_t n);
