#include "llama-attn-int8.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-qlutattn.h"
#include "llama-cparams.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-cache-mixed.h"
#include "llama-model.h"
#include "llama-qlutattn-settings.h"
#include "llama-qlutattn.h"

#include <string>

static constexpr int64_t MAX_HEAD_SIZE = 640; // of ggml_flash_attn_ext_sage

static bool is_head_size(int64_t n) {
    return n > 0 && n <= MAX_HEAD_SIZE && n % 64 == 0;
}

// whether the CPU backend has the op: it can be left out of a build
static bool is_built() {
    ggml_context_ptr ctx(ggml_init({ 8 * ggml_tensor_overhead(), nullptr, true }));
    ggml_tensor *    q  = ggml_new_tensor_4d(ctx.get(), GGML_TYPE_F32, 64, 1, 1, 1);
    ggml_tensor *    kv = ggml_new_tensor_4d(ctx.get(), GGML_TYPE_F16, 64, 128, 1, 1);
    ggml_tensor *    op = ggml_flash_attn_ext_sage(ctx.get(), q, kv, kv, nullptr, 1.0f, 0.0f, 0.0f, 1.0f);
    return ggml_backend_dev_supports_op(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), op);
}

static std::string reason_of_params(const llama_context_params & params) {
    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        return "needs flash attention: leave out -fa off, or set flash_attn_type to enabled";
    }
    const bool is_f16 = params.type_k == GGML_TYPE_F16 && params.type_v == GGML_TYPE_F16;
    if (!is_f16 && !llama_kv_cache_is_mixed(params.type_k, params.type_v)) {
        return format("is for caches of f16 and of packed types, not of %s for K and %s for V: leave out -ctk and -ctv, or --attn-int8",
                      ggml_type_name(params.type_k), ggml_type_name(params.type_v));
    }
    return is_built() ? "" : "is not in this build (GGML_QLUTATTN=OFF): leave out --attn-int8";
}

// why a layer with keys and values cannot have it; empty if it can
static std::string reason_of_layer(const llama_model & model, const llama_context_params & params, uint32_t il) {
    const auto & hparams   = model.hparams;
    const bool   is_packed = llama_kv_cache_is_mixed(params.type_k, params.type_v) && !hparams.is_swa(il); // heads are padded there
    if (params.offload_kqv && llama_kv_cache_mixed_on_device(model, il)) {
        return format("stays on the CPU, and layer %u is on %s: add --no-kv-offload (offload_kqv = false), or offload no layer, -ngl 0", il,
                      ggml_backend_dev_name(model.dev_layer(il)));
    }
    if (!is_packed && (!is_head_size(hparams.n_embd_head_k(il)) || !is_head_size(hparams.n_embd_head_v(il)))) {
        return format("needs heads of a multiple of 64 channels, up to %d, and layer %u has %u for K and %u for V: leave out --attn-int8",
                      (int) MAX_HEAD_SIZE, il, hparams.n_embd_head_k(il), hparams.n_embd_head_v(il));
    }
    return "";
}

static bool refuse(const std::string & why) {
    LLAMA_LOG_ERROR("llama_attn_int8_check: 8-bit attention %s\n", why.c_str());
    return false;
}

bool llama_attn_int8_check(const llama_model & model, llama_context_params & params) {
    const std::string error = llama_qlutattn_attn_int8_error();
    if (!error.empty()) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, error.c_str());
        return false;
    }
    if (!llama_qlutattn_get_attn_int8()) {
        return true;
    }
    const bool  is_draft = params.ctx_type == LLAMA_CONTEXT_TYPE_MTP || params.ctx_other;
    std::string reason   = reason_of_params(params);
    uint32_t    n_layers = 0;
    uint32_t    n_int8   = 0;
    for (uint32_t il = 0; reason.empty() && il < model.hparams.n_layer_all; il++) {
        if (!model.hparams.has_kv(il) || model.hparams.n_head_kv(il) == 0 || model.hparams.is_recr(il)) {
            continue;
        }
        n_layers++;
        n_int8 += reason_of_layer(model, params, il).empty();
    }
    for (uint32_t il = 0; n_layers > 0 && n_int8 == 0 && reason.empty(); il++) {
        reason = model.hparams.n_head_kv(il) > 0 && !model.hparams.is_recr(il) ? reason_of_layer(model, params, il) : "";
    }
    if (!reason.empty() && !is_draft) {
        return refuse(reason);
    }
    if (n_int8 == 0) {
        LLAMA_LOG_WARN("%s: 8-bit attention has no effect on this context: it %s\n", __func__,
                       reason.empty() ? "has no keys and values" : reason.c_str());
        return true;
    }
    LLAMA_LOG_WARN("%s: batches of more than 64 tokens of a sequence attend to f16 keys and values in 8 bits in %u of %u layers, smoothing %g\n",
                   __func__, n_int8, n_layers, llama_qlutattn_get_attn_int8_smoothing());
    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_AUTO) {
        LLAMA_LOG_INFO("%s: enabling flash_attn since 8-bit attention needs it\n", __func__);
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    }
    return true;
}

// keys or values in a cache: not those that a graph computes and keeps nowhere, which may be on any device
static bool is_f16_on_cpu(const ggml_tensor * t) {
    const ggml_backend_buffer_t buffer = t->view_src ? t->view_src->buffer : t->buffer;
    return t->type == GGML_TYPE_F16 && t->nb[0] == sizeof(ggml_fp16_t) && is_head_size(t->ne[0]) && buffer && ggml_backend_buffer_is_host(buffer);
}

ggml_tensor * llm_build_attn_int8(ggml_context * ctx, const llama_cparams & cparams, const llama_hparams & hparams, ggml_tensor * q, ggml_tensor * k,
                                  ggml_tensor * v, ggml_tensor * mask, ggml_tensor * sinks, float scale) {
    if (!cparams.attn_int8 || !is_f16_on_cpu(k) || !is_f16_on_cpu(v) || !mask || mask->type != GGML_TYPE_F16) {
        return nullptr;
    }
    ggml_tensor * res = ggml_flash_attn_ext_mixed(ctx, q, k, v, mask, nullptr, nullptr, nullptr, sinks, k->ne[2], v->ne[0], scale,
                                                  hparams.f_max_alibi_bias, hparams.attn_soft_cap ? hparams.f_attn_logit_softcapping : 0.0f);
    ggml_flash_attn_ext_mixed_set_int8(res, cparams.attn_int8_smoothing);
    return res;
}
