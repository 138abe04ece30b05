#include "llama-kv-mixed-rope.h"

#include "ggml.h"
#include "llama-cparams.h"
#include "llama-hparams.h"
#include "llama-kv-cache-mixed.h"
#include "llama-kv-mixed-rotation.h"
#include "llama-model.h"

#include <cmath>

// older upstreams do not know which layers have RoPE, and turn the keys of all of them
template <typename T> static auto has_rope(const T & hparams, uint32_t il, int) -> decltype(hparams.has_rope(il)) {
    return hparams.has_rope(il);
}

template <typename T> static bool has_rope(const T & /*hparams*/, uint32_t /*il*/, long) {
    return true;
}

llama_kv_mixed_rope llama_kv_mixed_rope::make(const llama_model & model, const llama_cparams & cparams, uint32_t il) {
    const auto & hparams = model.hparams;

    llama_kv_mixed_rope res = {};
    if (hparams.rope_type == LLAMA_ROPE_TYPE_NONE || !has_rope(hparams, il, 0)) {
        return res;
    }
    res.head_dim    = llama_kv_cache_mixed_head_size(hparams.n_embd_head_k(il));
    res.n_rot       = hparams.n_rot(il);
    res.n_nope      = hparams.n_lora_kv > 0 ? hparams.n_embd_head_k(il) - res.n_rot : 0; // as in upstream's build_graph_shift
    res.type        = hparams.rope_type;
    res.n_ctx_orig  = cparams.n_ctx_orig_yarn;
    res.freq_base   = model.get_rope_freq_base(cparams, il);
    res.freq_scale  = model.get_rope_freq_scale(cparams, il);
    res.ext_factor  = cparams.yarn_ext_factor;
    // ggml_rope_ext scales by this much where YaRN extrapolates: keys were scaled when they were made
    res.attn_factor = res.ext_factor != 0.0f ? 1.0f / (1.0f + 0.1f * logf(1.0f / res.freq_scale)) : 1.0f;
    res.beta_fast   = cparams.yarn_beta_fast;
    res.beta_slow   = cparams.yarn_beta_slow;
    res.factors     = model.get_rope_factors(cparams, il);
    return res;
}

ggml_tensor * llama_kv_mixed_rope::turn(ggml_context * ctx, ggml_tensor * x, ggml_tensor * pos) const {
    const auto rope = [&](ggml_tensor * t) {
        return ggml_rope_ext(ctx, t, pos, factors, n_rot, type, n_ctx_orig, freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow);
    };
    if (n_nope == 0) {
        return rope(x);
    }
    const size_t  offset = n_nope * x->nb[0];
    ggml_tensor * part   = rope(ggml_view_3d(ctx, x, n_rot, x->ne[1], x->ne[2], x->nb[1], x->nb[2], offset));
    return ggml_set(ctx, x, part, x->nb[1], x->nb[2], x->nb[3], offset);
}

ggml_tensor * llama_kv_mixed_rope::turn_rows(ggml_context * ctx, ggml_tensor * rows, ggml_tensor * rot, ggml_tensor * pos) const {
    ggml_tensor * cur = ggml_reshape_3d(ctx, rows, head_dim, rows->ne[0] / head_dim, rows->ne[1]);
    cur               = llama_kv_mixed_rotate(ctx, cur, rot);
    cur               = turn(ctx, cur, pos);
    cur               = llama_kv_mixed_rotate(ctx, cur, rot);
    return ggml_reshape_2d(ctx, cur, rows->ne[0], rows->ne[1]);
}
