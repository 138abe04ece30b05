#pragma once

// The packer: f16 or f32 rows to tiles of codes, scales and offsets. Everything is binary32 arithmetic in a fixed order without fused
// multiply-adds (this file's sources are compiled with -ffp-contract=off), so that the same input gives the same bytes on every machine.

#include "ggml-cpu-impl.h"
#include "qlutattn-config.h"

// fit the scale and offset of each of the 128 lanes of a tile; lanes is [PACK_SIZE][PACK_SIZE], lane-major
void qlutattn_pack_scales(const qlutattn_kernel_config & config, const float * lanes, ggml_fp16_t * scales, ggml_fp16_t * offsets);

// choose the codes of a tile, given the scales and offsets, and store them in the order of the type; codes has config.code_bytes()
void qlutattn_pack_weights(const qlutattn_kernel_config & config, const float * lanes, const ggml_fp16_t * scales, const ggml_fp16_t * offsets,
                           uint8_t * codes);

// ggml_cpy from f16 (or f32) to a packed type: src and dst have the shape [128, n_tokens, n_cols, n_batch]; src may have any strides
void ggml_compute_forward_dup_f16_qlutattn(const struct ggml_compute_params * params, struct ggml_tensor * dst);
