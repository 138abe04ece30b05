#pragma once

// Attention over an f16 segment and a packed segment under one softmax: GGML_OP_FLASH_ATTN_EXT_MIXED.

#include "ggml-cpu-impl.h"

#ifdef __cplusplus
extern "C" {
#endif

void ggml_compute_forward_flash_attn_ext_mixed(const struct ggml_compute_params * params, struct ggml_tensor * dst);

// bytes of params->wdata that the op needs
size_t ggml_flash_attn_ext_mixed_work_size(const struct ggml_tensor * op, int n_threads);

#ifdef __cplusplus
}
#endif
