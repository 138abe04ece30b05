#pragma once

// Settings of packed KV caches (type_k, type_v of llama_context_params: GGML_TYPE_QLUTATTN_*), and of attention in 8 bits over f16 ones.
//
// They stand here, and not in llama_context_params, so that programs and bindings built for upstream's structs go on working.
// A context takes them when it is made, and keeps them: for contexts that differ, set them before each llama_init_from_model.
// They hold for the process, and may be called from any thread; threads that make contexts that differ must take turns.
//
// What was not set is taken from the environment, LLAMA_ARG_KV_WINDOW, LLAMA_ARG_KV_SINK, LLAMA_ARG_ATTN_INT8 and LLAMA_ARG_ATTN_INT8_SMOOTHING,
// when a context is made. A value there that makes no sense is an error where it would be used.

#include "llama.h"

#define LLAMA_QLUTATTN_KV_WINDOW 256 // what holds where nothing is set
#define LLAMA_QLUTATTN_KV_SINK   128

#ifdef __cplusplus
extern "C" {
#endif

// the newest tokens of each sequence that stay in f16
LLAMA_API void     llama_qlutattn_set_kv_window(uint32_t n_tokens);
LLAMA_API uint32_t llama_qlutattn_get_kv_window(void); // of the next context

// the first tokens of each sequence that stay in f16
LLAMA_API void     llama_qlutattn_set_kv_sink(uint32_t n_tokens);
LLAMA_API uint32_t llama_qlutattn_get_kv_sink(void); // of the next context

// Whether batches of more than 64 tokens of a sequence attend to f16 keys and values in 8 bits: those of f16 caches, and of the f16 part of packed
// ones. Off unless set; it needs flash attention.
LLAMA_API void llama_qlutattn_set_attn_int8(bool on);
LLAMA_API bool llama_qlutattn_get_attn_int8(void); // of the next context

// how much of the mean of 128 keys is taken off them before they are rounded, from 0 to 1, which is the default
LLAMA_API void  llama_qlutattn_set_attn_int8_smoothing(float share);
LLAMA_API float llama_qlutattn_get_attn_int8_smoothing(void); // of the next context

#ifdef __cplusplus
}
#endif
