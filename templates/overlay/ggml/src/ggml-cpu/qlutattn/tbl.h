#pragma once

// Tile times vectors, straight from the codes: y[lane] = sum over depth of value(lane, depth) * x[depth].
//
// x is quantized once, to integers (docs/align.md of the qlutattn project derives the error). From there on a kernel is exact: it gives
// acc[lane] = sum over depth of int_level(lane, depth) * qs[depth], and value = scale*level_scale*int_level + offset makes
// y = scale * (level_scale*d*acc) + offset * sum(x). So every implementation of a kernel gives the same integers, and the tests compare
// implementations without a tolerance. K is multiplied by x of both signs (queries), V by x >= 0 (softmax weights).

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

// x, quantized for one tile's depths: x = d * qs, nearly (as block_q8_1, but all of a tile's depths share one scale)
struct qlutattn_qvec {
    float   d;    // the scale; NaN when x is not finite
    float   sum;  // sum of x, for the offsets
    int32_t bias; // by how much a vector kernel's sums are too large

    alignas(64) int8_t qs[PACK_SIZE];
    alignas(64) uint8_t lut[PACK_SIZE / 4 * 16]; // lut kernel, 1 bit: [nibble][16], the sum of the qs that a nibble of codes selects;
                                                 // transposed product: [four lanes][16], their qs four times
};

typedef int32_t qlutattn_acc[QLUTATTN_ROWS][PACK_SIZE];

// the kernel that attention uses for a type: what its configuration says, or what the environment forces (qlutattn-env.h)
qlutattn_kernel qlutattn_get_kernel(enum ggml_type type);

// reached through ggml_backend_reg_get_proc_address, for align_attn: the arithmetic ("lut"; "dot", x in 8 bits; "dot7", x in 7 bits) and the
// implementation, as in "lut-avx2", or NULL when the type is not packed
extern "C" const char * ggml_qlutattn_kernel_name(enum ggml_type type);

// the largest magnitude of qs for a kernel
int qlutattn_qmax(const qlutattn_kernel_config & config, qlutattn_kernel kernel);

// quantize x (n_depth values, a multiple of 16) into qvec, and build its lut: ready for qlutattn_tile_gemm
void qlutattn_quantize_x(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const float * x, int n_depth, qlutattn_qvec & qvec);

// lut and bias of a qvec whose d, sum and qs are there
void qlutattn_build_lut(const qlutattn_kernel_config & config, qlutattn_kernel kernel, int n_depth, qlutattn_qvec & qvec);

// acc[r][0..n_lanes) = the integer products with qvecs[r], for n_rows <= QLUTATTN_ROWS rows; lanes count from span.lane0
void qlutattn_tile_gemm(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const void * tile, const qlutattn_span & span,
                        const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc);

// The transposed product of a tile of K, y[depth] = sum over lanes of value(lane, depth) * x[lane] with x >= 0, for values that are read from
// keys. Each lane has a scale of its own, so that x already has it: acc[r][0..span.n_depth) = sum over all lanes of int_level(lane, depth) * qs[lane].
void qlutattn_tile_gemm_transposed(const qlutattn_kernel_config & config, const void * tile, const qlutattn_span & span,
                                   const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc);

// the largest magnitude of its qs
constexpr int QLUTATTN_QMAX_TRANSPOSED = 127;

// what the transposed product needs of a qvec whose qs are there
void qlutattn_spread(const qlutattn_kernel_config & config, qlutattn_qvec & qvec);
