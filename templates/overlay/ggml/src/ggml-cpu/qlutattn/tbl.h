#pragma once

// Tile times vectors, straight from the codes: y[lane] = sum over depth of value(lane, depth) * x[depth].
//
// A kernel rounds each x once, to integers (docs/align.md of the qlutattn project derives the error), and is exact integer arithmetic from
// there to the last step, which applies the lane's scale and offset in float. So every implementation of a kernel gives the same
// integers, and the tests compare implementations without a tolerance.

#include "qlutattn-config.h"

// table entries are stored as unsigned bytes, which add up in 16 bits without sign extension
constexpr int QLUTATTN_LUT_BIAS = 128;

// the magnitude that the dot kernel rounds x to: without VNNI, x86 adds two products of an unsigned and a signed byte in 16 bits
#if defined(__AVX2__) && !defined(__AVXVNNI__) && !defined(__AVX512VNNI__)
constexpr int QLUTATTN_DOT_MAX = 64;
#else
constexpr int QLUTATTN_DOT_MAX = 127;
#endif

// rows (vectors) that one call takes
constexpr int QLUTATTN_ROWS = 16;

// The part of a tile that a product uses: all of it, or half at head size 64, where two kv heads share a tile (half of the depth for K, half of
// the lanes for V).
struct qlutattn_span {
    int depth0;
    int n_depth;
    int lane0;
    int n_lanes;
};

// x, prepared for one tile's depths
struct qlutattn_tbl {
    float   step;      // what one integer unit is worth; NaN when x is not finite
    float   sum;       // sum of x, for the offsets
    int32_t units_sum; // dot: sum of units, for levels that a kernel keeps biased

    // lut: [nibble][16] table entries, rounded to -127..127, plus QLUTATTN_LUT_BIAS;
    // dot: x itself, rounded to int8 of magnitude up to QLUTATTN_DOT_MAX
    alignas(64) uint8_t units[PACK_SIZE * 16];
};

// the kernel that attention uses for a type: the one that the type's order of codes suits, or what GGML_QLUTATTN_KERNEL in the environment
// forces (lut, dot, lut-scalar, dot-scalar)
qlutattn_kernel qlutattn_get_kernel(enum ggml_type type);

// reached through ggml_backend_reg_get_proc_address, for align_attn: the arithmetic ("lut"; "dot", x in 8 bits; "dot7", x in 7 bits) and the
// implementation, as in "lut-avx2", or NULL when the type is not packed
extern "C" const char * ggml_qlutattn_kernel_name(enum ggml_type type);

void qlutattn_tbl_build(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const float * x, int n_depth, qlutattn_tbl & tbl);

// y[r][0..n_lanes) += the product with tbls[r], for n_rows <= QLUTATTN_ROWS rows
void qlutattn_tbl_mul(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const void * tile, const qlutattn_span & span,
                      const qlutattn_tbl * const * tbls, int n_rows, float * const * y);
