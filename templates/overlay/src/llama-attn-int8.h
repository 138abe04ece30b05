#pragma once

// Attention in 8 bits over f16 keys and values (llama-qlutattn.h): which contexts have it, and its node.

#include "ggml.h"
#include "llama.h"

struct llama_cparams;
struct llama_hparams;
struct llama_model;

// Whether a context may be made as far as this setting is concerned; logs what it means for the context, or why it may not.
bool llama_attn_int8_check(const llama_model & model, llama_context_params & params);

// Attention over a cache that is f16 and on the CPU, as ggml_flash_attn_ext has it; NULL where it is not asked for, or does not fit.
ggml_tensor * llm_build_attn_int8(ggml_context * ctx, const llama_cparams & cparams, const llama_hparams & hparams, ggml_tensor * q, ggml_tensor * k,
                                  ggml_tensor * v, ggml_tensor * mask, ggml_tensor * sinks, float scale);
