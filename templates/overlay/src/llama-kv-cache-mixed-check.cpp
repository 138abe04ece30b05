// Which models and context parameters a mixed KV cache supports.

#include "ggml-qlutattn.h"
#include "llama-cparams.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-cache-mixed-iswa.h"
#include "llama-kv-cache-mixed.h"
#include "llama-model.h"
#include "llama-qlutattn-settings.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

static constexpr uint32_t MAX_HEAD_SIZE = 640; // of ggml_flash_attn_ext_mixed

bool llama_kv_cache_is_mixed(ggml_type type_k, ggml_type type_v) {
    return ggml_is_qlutattn(type_k) || ggml_is_qlutattn(type_v);
}

static bool is_type_of_side(ggml_type type, char side) {
    return type == GGML_TYPE_F16 || (ggml_is_qlutattn(type) && ggml_type_name(type)[strlen("qlutattn_")] == side);
}

// by name, since older upstreams do not have all of them
static bool is_one_of(const llama_model & model, std::initializer_list<const char *> names) {
    const std::string name = llm_arch_name(model.arch);
    return std::find(names.begin(), names.end(), name) != names.end();
}

// models with a cache of keys for an indexer, or with one that is compressed for it
static bool has_index(const llama_model & model) {
    return is_one_of(model, { "deepseek32", "deepseek4", "dots3note", "glm-dsa", "glm5-next", "hy_v4", "minimax-m3", "qwen4exp" });
}

// older upstreams have no router layer
template <typename T> static auto has_router_layer(const T & hparams, int) -> decltype(hparams.router_layer >= 0) {
    return hparams.router_layer >= 0;
}

template <typename T> static bool has_router_layer(const T & /*hparams*/, long) {
    return false;
}

static bool is_draft(const llama_context_params & params) {
    return params.ctx_type == LLAMA_CONTEXT_TYPE_MTP || params.ctx_other;
}

// the bytes that the keys or values of a token take in a layer once they are packed
static size_t packed_size(ggml_type type, uint32_t n_head_kv, uint32_t n_embd_head) {
    const uint32_t n_embd = n_head_kv * llama_kv_cache_mixed_head_size(n_embd_head);
    return ggml_row_size(type, ggml_is_qlutattn(type) ? GGML_PAD(n_embd, GGML_QLUTATTN_TILE) : n_embd);
}

// layers of hybrid models can have no keys
static bool is_packed(const llama_hparams & hparams, uint32_t il) {
    return hparams.has_kv(il) && hparams.n_head_kv(il) > 0 && !hparams.is_swa(il);
}

// why these layers cannot be packed; empty if they can
static std::string reason_of_layers(const llama_hparams & hparams, uint32_t first, uint32_t behind, ggml_type type_k, ggml_type type_v) {
    size_t packed = 0;
    size_t f16    = 0;
    for (uint32_t il = first; il < behind; il++) {
        if (!is_packed(hparams, il)) {
            continue;
        }
        const uint32_t head_k = hparams.n_embd_head_k(il);
        const uint32_t head_v = hparams.n_embd_head_v(il);
        if (std::max(head_k, head_v) > MAX_HEAD_SIZE) {
            return format("packed caches need heads of at most %u channels: layer %u has %u for K and %u for V; use f16, q8_0 or q4_0", MAX_HEAD_SIZE,
                          il, head_k, head_v);
        }
        packed += packed_size(type_k, hparams.n_head_kv(il), head_k);
        packed += hparams.is_mla() ? 0 : packed_size(type_v, hparams.n_head_kv(il), head_v);
        f16 += ggml_row_size(GGML_TYPE_F16, llama_kv_cache_mixed_n_embd(hparams, il));
    }
    if (f16 == 0) {
        return "every layer has a sliding window, which is kept in f16: there is nothing to pack; use f16, q8_0 or q4_0";
    }
    if (packed >= f16) {
        return format("packed, a token would take %zu bytes instead of %zu, since %s: use f16, q8_0 or q4_0", packed, f16,
                      hparams.is_mla() ? "this model's values are part of its keys, and those are f16" : "small heads are padded to tiles");
    }
    return "";
}

// why these parameters cannot have a mixed cache; empty if they can
static std::string reason_of_params(const llama_model & model, const llama_context_params & params) {
    if (!is_type_of_side(params.type_k, 'k') || !is_type_of_side(params.type_v, 'v')) {
        return format("the cache types %s for K and %s for V do not go together: K needs f16 or a qlutattn_k* type, V f16 or a qlutattn_v* type",
                      ggml_type_name(params.type_k), ggml_type_name(params.type_v));
    }
    if (model.arch == LLM_ARCH_GROK) {
        return "Grok models run without flash attention, which packed caches need: use f16";
    }
    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        return "packed caches need flash attention: leave out -fa off, or set flash_attn_type to enabled";
    }
    return llama_qlutattn_settings_error();
}

// the layers of a context, from the first to before the second, as llama_model::create_memory has them
static std::pair<uint32_t, uint32_t> layers_of(const llama_hparams & hparams, llama_context_type ctx_type) {
    if (hparams.n_layer_nextn == 0 || hparams.n_layer() == 0 || has_router_layer(hparams, 0)) {
        return { 0, hparams.n_layer_all };
    }
    return ctx_type == LLAMA_CONTEXT_TYPE_MTP ? std::pair(hparams.n_layer(), hparams.n_layer_all) : std::pair(0u, hparams.n_layer());
}

bool llama_kv_cache_mixed_on_device(const llama_model & model, uint32_t il) {
    return ggml_backend_dev_type(model.dev_layer(il)) != GGML_BACKEND_DEVICE_TYPE_CPU;
}

// whether layers on a device can be left to upstream's cache: each layer has keys and values of its own, and all have the same attention
static bool can_leave_layers(const llama_model & model) {
    const auto & hparams = model.hparams;
    for (uint32_t il = 0; il < hparams.n_layer_all; il++) {
        if (!is_packed(hparams, il)) {
            return false;
        }
    }
    return hparams.n_layer_nextn == 0 && !hparams.is_mla() && !llm_arch_is_hybrid(model.arch) && !llama_model_has_encoder(&model);
}

// why these layers cannot have packed caches where they are; empty if some can
static std::string reason_of_devices(const llama_model & model, uint32_t first, uint32_t behind) {
    std::vector<uint32_t> on_device;
    bool                  is_any_left = false;
    for (uint32_t il = first; il < behind; il++) {
        if (is_packed(model.hparams, il)) {
            const bool is_on_device = llama_kv_cache_mixed_on_device(model, il);
            is_any_left             = is_any_left || !is_on_device;
            if (is_on_device) {
                on_device.push_back(il);
            }
        }
    }
    if (on_device.empty() || (is_any_left && can_leave_layers(model))) {
        return "";
    }
    return format("packed caches stay on the CPU, and layer %u is on %s: add --no-kv-offload (offload_kqv = false), or offload no layer, -ngl 0",
                  on_device[0], ggml_backend_dev_name(model.dev_layer(on_device[0])));
}

// why a context of this model cannot have a mixed cache; empty if it can
static std::string reason_of_model(const llama_model & model, const llama_context_params & params) {
    const auto & hparams       = model.hparams;
    const auto [first, behind] = layers_of(hparams, params.ctx_type);

    if (has_index(model)) {
        return "models that attend to keys which an index picks one by one cannot have packed caches: use f16, q8_0 or q4_0";
    }
    if (llama_model_has_encoder(&model) && !is_one_of(model, { "eagle3" }) && params.n_seq_max > 1 && !params.kv_unified) {
        return "the sequences of an encoder-decoder model need one cache: add --kv-unified (kv_unified = true), or use one sequence, -np 1";
    }
    if (params.ctx_type == LLAMA_CONTEXT_TYPE_MTP && behind - first > 1) {
        return "several draft heads that take turns in filling the same cells cannot have packed caches: use f16, q8_0 or q4_0";
    }
    const std::string reason = params.offload_kqv ? reason_of_devices(model, first, behind) : "";
    return reason.empty() ? reason_of_layers(hparams, first, behind, params.type_k, params.type_v) : reason;
}

// why the cache is f16 whatever its types are; empty if it is not
static std::string reason_for_f16(const llama_model & model) {
    if (llm_arch_is_recurrent(model.arch)) {
        return "a recurrent model has no keys and values to pack";
    }
    if (is_one_of(model, { "gemma4-assistant" })) {
        return "this draft model reads the cache of its target";
    }
    if (is_one_of(model, { "dflash" })) {
        return "DFlash draft models write keys and values outside of attention";
    }
    return "";
}

// whether a draft model can read the cache of its target
static bool can_share(const llama_model & model, const llama_context_params & params) {
    return !is_one_of(model, { "gemma4-assistant" }) || !params.ctx_other ||
           !dynamic_cast<const llama_kv_cache_mixed_iswa *>(llama_get_memory(params.ctx_other));
}

static bool use_f16(llama_context_params & params, const std::string & why) {
    LLAMA_LOG_WARN("llama_kv_cache_mixed_check: the cache of this context is f16: %s\n", why.c_str());
    params.type_k = GGML_TYPE_F16;
    params.type_v = GGML_TYPE_F16;
    return true;
}

static bool refuse(const std::string & why) {
    LLAMA_LOG_ERROR("llama_kv_cache_mixed_check: %s\n", why.c_str());
    return false;
}

bool llama_kv_cache_mixed_check(const llama_model & model, llama_context_params & params) {
    if (!can_share(model, params)) {
        return refuse("this draft model reads the cache of its target, which must not be packed then: use f16 for the target");
    }
    if (!llama_kv_cache_is_mixed(params.type_k, params.type_v)) {
        return true;
    }
    const std::string f16 = reason_for_f16(model);
    if (!f16.empty()) {
        return use_f16(params, f16);
    }
    const std::string of_params = reason_of_params(model, params);
    if (!of_params.empty()) {
        return refuse(of_params);
    }
    const std::string of_model = reason_of_model(model, params);
    if (!of_model.empty()) {
        return is_draft(params) ? use_f16(params, of_model) : refuse(of_model);
    }
    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_AUTO) {
        LLAMA_LOG_INFO("%s: enabling flash_attn since packed caches need it\n", __func__);
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    }
    return true;
}

static bool is_padded(const llama_hparams & hparams, uint32_t il) {
    return llama_kv_cache_mixed_head_size(hparams.n_embd_head_k(il)) != hparams.n_embd_head_k(il) ||
           llama_kv_cache_mixed_head_size(hparams.n_embd_head_v(il)) != hparams.n_embd_head_v(il);
}

void llama_kv_cache_mixed_choose(const llama_model & model, llama_memory_params & params, const llama_cparams & cparams) {
    if (!llama_kv_cache_is_mixed(params.type_k, params.type_v)) {
        return;
    }
    const auto & hparams = model.hparams;
    const auto   layers  = layers_of(hparams, params.ctx_type);
    const auto   filter  = [&](int32_t il) {
        return (uint32_t) il >= layers.first && (uint32_t) il < layers.second && is_packed(hparams, il) && !hparams.is_recr(il);
    };
    for (uint32_t il = layers.first; il < layers.second; il++) {
        if (!filter(il) || !is_padded(hparams, il)) {
            continue;
        }
        const auto layout = llama_kv_cache_mixed_layout(hparams, params.type_k, params.type_v, cparams, filter);
        if (layout.n_tiles == 0) {
            LLAMA_LOG_WARN(
                "%s: the KV cache of this context is f16: packed ones, whose heads of %u channels for K and %u for V are padded, would not be "
                "smaller: %s\n",
                __func__, hparams.n_embd_head_k(il), hparams.n_embd_head_v(il), llama_kv_cache_mixed_why_f16(layout, cparams.n_ubatch).c_str());
            params.type_k = GGML_TYPE_F16;
            params.type_v = GGML_TYPE_F16;
            return;
        }
    }
}
