#pragma once

// How the keys of a layer are turned when their tokens move.

#include <cstdint>

struct ggml_context;
struct ggml_tensor;
struct llama_cparams;
struct llama_model;

struct llama_kv_mixed_rope {
    int64_t head_dim; // channels of a head in the cache, padded
    int32_t n_nope;   // channels of a head before those with RoPE
    int32_t n_rot;    // channels with RoPE, 0: the layer has none
    int32_t type;
    int32_t n_ctx_orig;
    float   freq_base;
    float   freq_scale;
    float   ext_factor;
    float   attn_factor; // so that a turn keeps lengths
    float   beta_fast;
    float   beta_slow;

    ggml_tensor * factors; // of the frequencies, or null

    static llama_kv_mixed_rope make(const llama_model & model, const llama_cparams & cparams, uint32_t il);

    // x [head_dim, n_head, n] f32, contiguous; vector i is turned by pos[i] positions, pos [n] i32
    ggml_tensor * turn(ggml_context * ctx, ggml_tensor * x, ggml_tensor * pos) const;

    // the same for rows of keys as the cache has them, rotated by rot unless that is null: [heads*head_dim, n] f32
    ggml_tensor * turn_rows(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * rot, ggml_tensor * pos) const;
};
