// The settings of llama-qlutattn.h: what was set, else what the environment says, else what llama.cpp's tools default to.

#include "llama-qlutattn.h"

#include "llama-impl.h"
#include "llama-qlutattn-settings.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <optional>

namespace {

template <typename T> struct setting {
    const char * env;
    const char * wanted;
    std::optional<T> (*parse)(const char * text);
    const T           otherwise;
    std::atomic<T>    value{};
    std::atomic<bool> is_set{ false };

    void operator=(T x) {
        value  = x;
        is_set = true;
    }

    const char * in_env() const {
        const char * text = getenv(env);
        return !is_set && text && *text ? text : nullptr;
    }

    T get() const {
        if (is_set) {
            return value;
        }
        const char * text = in_env();
        return text ? parse(text).value_or(otherwise) : otherwise;
    }

    std::string error() const {
        const char * text = in_env();
        if (!text || parse(text)) {
            return "";
        }
        return format("%s in the environment is '%s': set it to %s, or remove it", env, text, wanted);
    }
};

std::optional<uint32_t> parse_tokens(const char * text) {
    int32_t      n_tokens = 0; // positions are int32
    const char * end      = text + strlen(text);
    const auto   found    = std::from_chars(text, end, n_tokens);
    return found.ec == std::errc() && found.ptr == end && n_tokens >= 0 ? std::optional<uint32_t>(n_tokens) : std::nullopt;
}

// the words of llama.cpp's tools
std::optional<bool> parse_switch(const char * text) {
    const auto is_one_of = [&](std::initializer_list<const char *> words) {
        return std::any_of(words.begin(), words.end(), [&](const char * word) { return strcmp(word, text) == 0; });
    };
    if (is_one_of({ "on", "enabled", "true", "1" })) {
        return true;
    }
    return is_one_of({ "off", "disabled", "false", "0" }) ? std::optional<bool>(false) : std::nullopt;
}

std::optional<float> parse_share(const char * text) {
    char *      end   = nullptr;
    const float share = strtof(text, &end);
    return end != text && *end == '\0' && share >= 0.0f && share <= 1.0f ? std::optional<float>(share) : std::nullopt;
}

setting<uint32_t> kv_window{ "LLAMA_ARG_KV_WINDOW", "a number of tokens, 0 or more", parse_tokens, LLAMA_QLUTATTN_KV_WINDOW };
setting<uint32_t> kv_sink{ "LLAMA_ARG_KV_SINK", "a number of tokens, 0 or more", parse_tokens, LLAMA_QLUTATTN_KV_SINK };
setting<bool>     attn_int8{ "LLAMA_ARG_ATTN_INT8", "on or off", parse_switch, false };
setting<float>    attn_int8_smoothing{ "LLAMA_ARG_ATTN_INT8_SMOOTHING", "a number from 0 to 1", parse_share, 1.0f };

} // namespace

void llama_qlutattn_set_kv_window(uint32_t n_tokens) {
    kv_window = std::min<uint32_t>(n_tokens, INT32_MAX);
}

void llama_qlutattn_set_kv_sink(uint32_t n_tokens) {
    kv_sink = std::min<uint32_t>(n_tokens, INT32_MAX);
}

void llama_qlutattn_set_attn_int8(bool on) {
    attn_int8 = on;
}

void llama_qlutattn_set_attn_int8_smoothing(float share) {
    attn_int8_smoothing = std::min(std::max(share, 0.0f), 1.0f);
}

uint32_t llama_qlutattn_get_kv_window(void) {
    return kv_window.get();
}

uint32_t llama_qlutattn_get_kv_sink(void) {
    return kv_sink.get();
}

bool llama_qlutattn_get_attn_int8(void) {
    return attn_int8.get();
}

float llama_qlutattn_get_attn_int8_smoothing(void) {
    return attn_int8_smoothing.get();
}

std::string llama_qlutattn_settings_error() {
    const std::string error = kv_window.error();
    return error.empty() ? kv_sink.error() : error;
}

std::string llama_qlutattn_attn_int8_error() {
    const std::string error = attn_int8.error();
    return error.empty() && attn_int8.get() ? attn_int8_smoothing.error() : error;
}
