#pragma once

// qlutattn_tbl_mul in each implementation.

#include "tbl.h"

// one plain form for every width and order: what the tests trust
void qlutattn_acc_scalar(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                         const qlutattn_tbl * const * tbls, int n_rows, qlutattn_acc & acc);

// "avx2", ...: the instruction set of the vector code, or NULL if this build has none
const char * qlutattn_simd_name();

// whether this build has vector code for a kernel and a type
bool qlutattn_has_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel);

// whether x*factor must fit 15 bits in pairs, as where x86 adds two products of an unsigned and a signed byte in 16 bits
bool qlutattn_simd_is_narrow();

// the parts of a tbl that only the vector code needs: bias, tables
void qlutattn_finish_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel, int n_depth, qlutattn_tbl & tbl);

void qlutattn_acc_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                       const qlutattn_tbl * const * tbls, int n_rows, qlutattn_acc & acc);
