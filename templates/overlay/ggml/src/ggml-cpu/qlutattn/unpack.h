#pragma once

// Tiles back to f16 or f32: value = scale*level/QLUTATTN_LEVEL_UNIT + offset. The product is exact in binary32 and the sum is rounded once, so
// every build gives the same bits.

#include "ggml-cpu-impl.h"
#include "qlutattn-config.h"

// Decode a tile to rows of tokens: the PACK_SIZE channels of token i are at dst + i*nb_row, as f16 or f32. f16 values beyond the largest become
// the largest, so that a tile can be packed again; a lane that was poisoned gives NaN.
void qlutattn_unpack_tile(const qlutattn_kernel_config & config, const void * tile, enum ggml_type type, void * dst, size_t nb_row);

// ggml_cpy of tiles [PACK_SIZE, n_tokens, n_cols, n_batch] to f16 or f32 of the same shape, whose rows are contiguous
void ggml_compute_forward_dup_qlutattn(const struct ggml_compute_params * params, struct ggml_tensor * dst);
