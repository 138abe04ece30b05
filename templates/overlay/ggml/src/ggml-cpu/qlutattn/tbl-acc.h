#pragma once

// qlutattn_tile_gemm in each implementation.

#include "tbl.h"

// one scalar form for every width and order: the reference of the tests
void qlutattn_tile_gemm_scalar(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                               const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc);

void qlutattn_tile_gemm_transposed_scalar(const qlutattn_kernel_config & config, const uint8_t * codes, const qlutattn_span & span,
                                          const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc);

// "avx2", ...: the instruction set of the vector code, or NULL if this build has none
const char * qlutattn_simd_name();

// whether this build has vector code for a kernel and a type
bool qlutattn_has_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel);

// whether products are accumulated in 16 bits, so that two neighbouring x * int_level together must fit: x86 without VNNI adds two products
// of an unsigned and a signed byte in 16 bits
bool qlutattn_simd_is_acc16();

// the parts of a qvec that only the vector code needs: bias, lut
void qlutattn_build_lut_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel, int n_depth, qlutattn_qvec & qvec);

void qlutattn_tile_gemm_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                             const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc);

// the transposed product: whether there is vector code, the part of a qvec that it needs, and itself
bool qlutattn_has_simd_transposed(const qlutattn_kernel_config & config);
void qlutattn_spread_simd(qlutattn_qvec & qvec);
void qlutattn_tile_gemm_transposed_simd(const qlutattn_kernel_config & config, const uint8_t * codes, const qlutattn_span & span,
                                        const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc);
