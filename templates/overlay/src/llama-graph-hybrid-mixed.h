#pragma once

// The inputs of a hybrid model's graph whose attention layers have a mixed KV cache.

#include "llama-graph.h"

class llama_memory_recurrent_context;

// upstream's function that makes the input of the recurrent layers
using llm_build_rs_inp_fn = std::unique_ptr<llm_graph_input_rs>(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                const llama_memory_recurrent_context * mctx);

// the inputs for a context of a hybrid memory with a mixed cache, or null for a context of another memory
std::unique_ptr<llm_graph_input_mem_hybrid> llm_build_inp_mem_hybrid_mixed(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                           const llama_hparams & hparams, const llama_cparams & cparams,
                                                                           const llama_memory_context_i * mctx, llm_build_rs_inp_fn * build_rs_inp);

// likewise, for latent attention
std::unique_ptr<llm_graph_input_mem_hybrid_k> llm_build_inp_mem_hybrid_k_mixed(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                               const llama_hparams & hparams, const llama_cparams & cparams,
                                                                               const llama_memory_context_i * mctx,
                                                                               llm_build_rs_inp_fn *          build_rs_inp);
