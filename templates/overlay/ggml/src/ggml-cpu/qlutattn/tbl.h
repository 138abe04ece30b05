#pragma once

// Tile times vector, straight from the codes: y[lane] = sum over depth of value(lane, depth) * x[depth].
//
// Both kernels round x once, to integers (docs/align.md of the qlutattn project derives the error), and are exact integer arithmetic
// from there to the last step, which applies the lane's scale and offset in float. So every implementation of a kernel gives the same
// integers, and the tests compare kernels without a tolerance of their own.
//
// A span is a range of the depth: the whole tile, or half of it at head size 64, where two kv heads share a tile.

#include "qlutattn-config.h"

struct qlutattn_span {
    int depth0;  // 0 or 64
    int n_depth; // 128 or 64
};

// x, prepared for one tile's span
struct qlutattn_tbl {
    float step; // what one integer unit is worth; NaN when x is not finite
    float sum;  // sum of x, for the offsets

    // lut: [nibble][16] table entries, rounded to int8; dot: x itself, rounded to int8
    alignas(64) int8_t units[PACK_SIZE * 16];
};

// the codes of one tile's span, unpacked once and used for every row that attends to it:
// lut: nibbles [n_depth*bits/4][PACK_SIZE]; dot: levels [n_depth][PACK_SIZE]
struct qlutattn_unpacked {
    alignas(64) uint8_t at[PACK_SIZE * PACK_SIZE];
};

void qlutattn_tbl_build(const qlutattn_kernel_config & config, enum qlutattn_kernel kernel, const float * x, int n_depth, qlutattn_tbl & tbl);

void qlutattn_unpack(
    const qlutattn_kernel_config & config, enum qlutattn_kernel kernel, const void * tile, qlutattn_span span, qlutattn_unpacked & unpacked);

// y[0..n_lanes) += the product for the lanes from lane0 on
void qlutattn_tbl_mul(
    const qlutattn_kernel_config & config,
    enum qlutattn_kernel           kernel,
    const void *                   tile,
    const qlutattn_unpacked &      unpacked,
    const qlutattn_tbl &           tbl,
    int                            n_depth,
    int                            lane0,
    int                            n_lanes,
    float *                        y);
