#pragma once

#include "reference.h"

// A run of a kv head's channels in one column of tiles. A head begins where the one before it ends.
struct head_part {
    int64_t column;
    int64_t in_tile;       // the first channel there,
    int64_t in_head;       // and in the head
    int64_t n;
    bool    is_half_empty; // the other half of the column belongs to no head
};

// 128 tokens of the f16 segment that are computed in 8 bits, for one kv head.
struct int8_block {
    struct part {
        int64_t in_head; // a column of a tile
        int64_t n;
        double  size;    // times the sum of |q| there: a bound of the terms that make up a score
    };

    int64_t             first;   // token
    std::vector<part>   parts;
    std::vector<double> mean;    // [dims.k]: what is taken off the keys
    std::vector<double> q_noise; // [part][TILE]: variance of a score per squared rounding step of that part of the query
    std::vector<double> k_noise; // [part][TILE]: the same per squared norm of that part of the query: the rounding of the key
    std::vector<double> p_noise; // [dims.v]: variance of a channel per squared rounding step of the weights
    std::vector<double> v_noise; // [dims.v]: the same per sum of the squared weights: the rounding of the values
};

// Everything that belongs to one kv head of one batch, packed tokens first.
struct head_values {
    std::vector<head_part> k_parts;
    std::vector<head_part> v_parts;

    std::vector<double>     k;       // [n_kv][dims.k]
    std::vector<double>     v;       // [n_kv][dims.v]
    std::vector<double>     v_size;  // |scale*level| + |offset|: what binary32 rounds, also where the two cancel; |v| in the f16 segment
    std::vector<double>     k_size;  // [part][n_kv]: times the sum of |q| of that part: a bound of the terms that make up a score
    std::vector<double>     k_noise; // [part][n_packed]: (a) variance of a token's product per squared rounding step of that part of the query,
                                     //                   (b) variance of the token's lane
    std::vector<double>     k_scale; // [part][n_packed], where values are keys: what a token's weight is multiplied by before it is rounded:
                                     //                   (a) its scale, (b) the square root of k_noise
    std::vector<double>     v_noise; // [tile][dims.v]: (a) variance of a channel per squared rounding step of that tile's weights,
                                     //                   (b) variance of the channel's lane
    std::vector<int8_block> int8;    // (a) only
};

// The original values of a kv head.
head_values original_values(const align_case & c, const case_data & data, int64_t batch, int64_t head_kv);

// The values that the codes stand for, and those of the f16 segment.
head_values decoded_values(const align_case & c, const case_data & data, const packed_side & k, const packed_side & v, int64_t batch,
                           int64_t head_kv);
