#pragma once

// Tile times vectors, straight from the codes: y[lane] = sum over depth of value(lane, depth) * x[depth].
//
// x is rounded once, to integers (docs/align.md of the qlutattn project derives the error). From there on a kernel is exact: it gives
// acc[lane] = sum over depth of factor(lane, depth) * units[depth], and value = scale*factor_size*factor + offset makes
// y = scale * (factor_size*step*acc) + offset * sum(x). So every implementation of a kernel gives the same integers, and the tests compare
// implementations without a tolerance. K meets x of both signs (queries), V meets x >= 0 (softmax weights).

#include "qlutattn-config.h"

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

// x, rounded for one tile's depths: x = step * units, nearly
struct qlutattn_tbl {
    float   step; // what one unit is worth; NaN when x is not finite
    float   sum;  // sum of x, for the offsets
    int32_t bias; // what a vector kernel's sums are too large by

    alignas(64) int8_t units[PACK_SIZE];
    alignas(64) uint8_t tables[PACK_SIZE / 4 * 16]; // lut, 1 bit: [nibble][16], the sum of the units that a nibble selects
};

typedef int32_t qlutattn_acc[QLUTATTN_ROWS][PACK_SIZE];

// the kernel that attention uses for a type: what its configuration says, or what GGML_QLUTATTN_KERNEL in the environment
// forces (lut, dot, lut-scalar, dot-scalar)
qlutattn_kernel qlutattn_get_kernel(enum ggml_type type);

// reached through ggml_backend_reg_get_proc_address, for align_attn: the arithmetic ("lut"; "dot", x in 8 bits; "dot7", x in 7 bits) and the
// implementation, as in "lut-avx2", or NULL when the type is not packed
extern "C" const char * ggml_qlutattn_kernel_name(enum ggml_type type);

// the magnitude to which a kernel rounds x
int qlutattn_units_max(const qlutattn_kernel_config & config, qlutattn_kernel kernel);

// round x (n_depth values, a multiple of 16) into tbl, ready for qlutattn_tbl_mul
void qlutattn_tbl_build(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const float * x, int n_depth, qlutattn_tbl & tbl);

// the rest of the above for a tbl whose step, sum and units are there
void qlutattn_tbl_finish(const qlutattn_kernel_config & config, qlutattn_kernel kernel, int n_depth, qlutattn_tbl & tbl);

// acc[r][0..n_lanes) = the integer products with tbls[r], for n_rows <= QLUTATTN_ROWS rows; lanes count from span.lane0
void qlutattn_tbl_mul(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const void * tile, const qlutattn_span & span,
                      const qlutattn_tbl * const * tbls, int n_rows, qlutattn_acc & acc);
