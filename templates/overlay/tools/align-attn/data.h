#pragma once

#include "case.h"

// The inputs of a case as plain arrays, before they get a layout. Innermost first:
struct case_data {
    std::vector<float> q;          // [head_dim_k, n_q, n_head, n_batch]
    std::vector<float> q_shifted;  // [head_dim_k, n_q, n_head, n_batch, n_shift]
    std::vector<int>   tile_shift; // [n_tiles, n_batch]: 0 is q; empty without shifts

    std::vector<float> k;          // [n_embd of K, n_f16, n_batch], exact in f16
    std::vector<float> v;          // likewise
    std::vector<float> kp;         // [n_embd of K, n_packed, n_batch], exact in f16 unless the source is f32
    std::vector<float> vp;         // likewise
    std::vector<float> mask;       // [n_kv, n_q, mask_heads, mask_batches], the packed tokens first; empty: no mask

    int64_t mask_heads   = 1;
    int64_t mask_batches = 1;

    std::vector<float> sinks;  // [n_head] or empty

    int64_t poison_token = -1; // position in the whole sequence
};

// How large K or Q is at a channel.
float k_size(data_kind kind, int64_t channel);
float q_size(data_kind kind, int64_t channel);

case_data make_data(const align_case & c);

// kp as q itself meets it: where a tile has turned queries, its keys turned back.
std::vector<float> turned_keys(const align_case & c, const case_data & data);
