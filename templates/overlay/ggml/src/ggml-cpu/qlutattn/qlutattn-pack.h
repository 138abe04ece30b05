#pragma once

// The packer: ggml_cpy of f16 or f32 rows into tiles.

#include "ggml-cpu-impl.h"
#include "pack-tile.h"

// src and dst have the shape [PACK_SIZE, n_tokens, n_cols, n_batch]; src may have any strides
void ggml_compute_forward_dup_f16_qlutattn(const struct ggml_compute_params * params, struct ggml_tensor * dst);

typedef void (*qlutattn_pack_function)(const qlutattn_kernel_config & config, const qlutattn_pack_source & source, void * tile);

// the form of the packer that is used for a type
qlutattn_pack_function qlutattn_get_packer(const qlutattn_kernel_config & config);
