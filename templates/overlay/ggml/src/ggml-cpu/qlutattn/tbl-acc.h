#pragma once

// The integer part of a product, in each implementation: acc[r][lane] = sum of units of row r that the codes of the lane select (lut) or
// multiply (dot). Lanes count from span.lane0.

#include "tbl.h"

typedef int32_t qlutattn_acc[QLUTATTN_ROWS][PACK_SIZE];

// one plain form for every width and order: what the tests trust
void qlutattn_acc_scalar(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                         const qlutattn_tbl * const * tbls, int n_rows, qlutattn_acc & acc);

// "avx2", ...: the instruction set of the vector code, or NULL if this build has none
const char * qlutattn_simd_name();

// whether this build has vector code for a kernel on a type's order of codes
bool qlutattn_has_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel);

void qlutattn_acc_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                       const qlutattn_tbl * const * tbls, int n_rows, qlutattn_acc & acc);
