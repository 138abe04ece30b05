#pragma once

// Settings of packed KV caches (type_k, type_v of llama_context_params: GGML_TYPE_QLUTATTN_*).
//
// They stand here, and not in llama_context_params, so that programs and bindings built for upstream's structs go on working.
// A context takes them when it is made, and keeps them: for contexts that differ, set them before each llama_init_from_model.
// They hold for the process, and may be called from any thread; threads that make contexts that differ must take turns.
//
// What was not set is taken from the environment, LLAMA_ARG_KV_WINDOW and LLAMA_ARG_KV_SINK, when a context is made.
// A value there that is no number of tokens is an error where the context has a packed cache.

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

#ifdef __cplusplus
}
#endif
