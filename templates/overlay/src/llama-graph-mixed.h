#pragma once

// The graph over a mixed KV cache: inputs, and attention over f16 cells and tiles.

#include "llama-graph.h"

class llama_kv_cache_mixed_context;

class llm_graph_input_attn_kv_mixed : public llm_graph_input_attn_kv {
  public:
    llm_graph_input_attn_kv_mixed(ggml_context * ctx, const llama_ubatch & ubatch, const llama_hparams & hparams, const llama_cparams & cparams,
                                  const llama_kv_cache_mixed_context * mctx);

    void set_input(const llama_ubatch * ubatch) override;

    bool can_reuse(const llm_graph_params & params) override;

    bool can_reuse(const llm_graph_params & params, const llama_kv_cache_mixed_context * mctx);

    bool has_layer(int il) const;

    // q, k and v as the model made them (after RoPE): rotate, store the keys and values of the ubatch, attend, and rotate back; result
    // [n_embd_head*n_head, n_tokens]. k and v are null in layers that use the keys and values of another one. kq_b, or null, is added to the scores:
    // [n_f16 + n_packed, n_tokens, n_head]. v_mla, or null, makes values of the size that follows out of latent ones.
    ggml_tensor * build_attn(ggml_context * ctx, ggml_cgraph * gf, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, ggml_tensor * kq_b,
                             ggml_tensor * sinks, ggml_tensor * v_mla, float kq_scale, int il) const;

  private:
    const llama_kv_cache_mixed_context * mctx_mixed;

    uint32_t n_shift() const { return turns ? turns->ne[0] / self_k_idxs->ne[0] : 0; }

    void          set_shifts() const;
    ggml_tensor * build_shifted(ggml_context * ctx, ggml_tensor * q, int il) const;

    const uint32_t n_stream;
    const uint32_t s0;                   // first stream

    ggml_tensor * mask_f16    = nullptr; // f16 [n_f16, n_tokens/n_stream, 1, n_stream]
    ggml_tensor * mask_packed = nullptr; // f16 [n_packed, ..], or null

    // where tiles have moved (K-shift), or null
    ggml_tensor * turns      = nullptr; // i32 [n_tokens*n_shift]: by how many positions queries are turned, for shift after shift
    ggml_tensor * tile_shift = nullptr; // i32 [n_packed/TILE, n_stream]: which of those queries a tile's keys are for, 0: those as they are

    ggml_tensor * rot_k = nullptr;      // f32 [n_rot, n_rot], or null; self_k_rot and self_v_rot stay null
    ggml_tensor * rot_v = nullptr;
};

// for models whose scores have a bias that depends on how far two tokens are apart (T5)
class llm_graph_input_pos_bucket_mixed : public llm_graph_input_i {
  public:
    llm_graph_input_pos_bucket_mixed(ggml_context * ctx, const llama_ubatch & ubatch, const llama_hparams & hparams,
                                     const llama_kv_cache_mixed_context * mctx);

    void set_input(const llama_ubatch * ubatch) override;

    ggml_tensor * pos_bucket; // i32 [n_f16 + n_packed, n_tokens]

  private:
    const llama_kv_cache_mixed_context * mctx_mixed;
    const uint32_t                       n_buckets;
};

// for models with latent attention (MLA): values are the first channels of keys
class llm_graph_input_attn_k_mixed : public llm_graph_input_attn_k {
  public:
    explicit llm_graph_input_attn_k_mixed(std::unique_ptr<llm_graph_input_attn_kv_mixed> rows);

    void set_input(const llama_ubatch * ubatch) override;

    bool can_reuse(const llm_graph_params & params) override;

    std::unique_ptr<llm_graph_input_attn_kv_mixed> rows;
};

// For models with sliding-window layers (T is llm_graph_input_attn_kv_iswa) or layers on a device (T is llm_graph_input_attn_kv): those use swa,
// with upstream's cache, the others use base.
template <typename T> class llm_graph_input_attn_parts_mixed : public T {
  public:
    llm_graph_input_attn_parts_mixed(std::unique_ptr<llm_graph_input_attn_kv_mixed> base, std::unique_ptr<llm_graph_input_attn_kv> swa);

    void set_input(const llama_ubatch * ubatch) override;

    bool can_reuse(const llm_graph_params & params) override;

    std::unique_ptr<llm_graph_input_attn_kv_mixed> base;
    std::unique_ptr<llm_graph_input_attn_kv>       swa;
};

// the inputs for a context of a mixed cache, or null for a context of another cache
std::unique_ptr<llm_graph_input_attn_kv> llm_build_attn_inp_kv_mixed(ggml_context * ctx, const llama_ubatch & ubatch, const llama_hparams & hparams,
                                                                     const llama_cparams & cparams, const llama_memory_context_i * mctx);

std::unique_ptr<llm_graph_input_pos_bucket_mixed> llm_build_inp_pos_bucket_mixed(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                                 const llama_hparams & hparams, const llama_memory_context_i * mctx);

std::unique_ptr<llm_graph_input_attn_k> llm_build_attn_inp_k_mixed(ggml_context * ctx, const llama_ubatch & ubatch, const llama_hparams & hparams,
                                                                   const llama_cparams & cparams, const llama_memory_context_i * mctx);

std::unique_ptr<llm_graph_input_attn_kv_iswa> llm_build_attn_inp_kv_iswa_mixed(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                               const llama_hparams & hparams, const llama_cparams & cparams,
                                                                               const llama_memory_context_i * mctx);

// the input of layers with or without a sliding window, or null if inp is not of a mixed cache
llm_graph_input_attn_kv * llm_attn_inp_k_rows(llm_graph_input_attn_k * inp); // the input of latent attention, or null likewise
llm_graph_input_attn_kv * llm_attn_inp_kv_iswa_part(llm_graph_input_attn_kv_iswa * inp, bool is_swa);

// the part that a layer uses, or inp itself where it has no parts
llm_graph_input_attn_kv * llm_attn_inp_kv_part(llm_graph_input_attn_kv * inp, int il);
