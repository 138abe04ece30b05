#pragma once

#include "reference.h"

// Everything that belongs to one kv head of one batch, packed tokens first.
struct head_values {
    std::vector<double> k;       // [n_kv][head_dim]
    std::vector<double> v;       // likewise
    std::vector<double> v_size;  // |scale*level| + |offset|: what binary32 rounds, also where the two cancel; |v| in the f16 segment
    std::vector<double> k_size;  // [part][n_kv]: times the sum of |q| of that part: a bound of the terms that make up a score
    std::vector<double> k_noise; // [part][n_packed]: (a) variance of a token's product per squared rounding step of that part of the query,
                                 //                   (b) variance of the token's lane
    std::vector<double> v_noise; // [tile][head_dim]: (a) variance of a channel per squared rounding step of that tile's weights,
                                 //                   (b) variance of the channel's lane
};

// A kv head of 256 has two parts, each in a tile of its own; others have one.
inline int64_t part_depth(const align_case & c) {
    return c.head_dim < TILE ? c.head_dim : TILE;
}

inline int64_t n_parts(const align_case & c) {
    return c.head_dim / part_depth(c);
}

// The original values of a kv head.
head_values original_values(const align_case & c, const case_data & data, int64_t batch, int64_t head_kv);

// The values that the codes stand for, and those of the f16 segment.
head_values decoded_values(const align_case & c, const case_data & data, const packed_side & k, const packed_side & v, int64_t batch,
                           int64_t head_kv);
