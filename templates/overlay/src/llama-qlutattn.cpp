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
#include <optional>

namespace {

constexpr int64_t UNSET = -1;

struct setting {
    const char *         env;
    const uint32_t       otherwise;
    std::atomic<int64_t> set{ UNSET };

    // positions are int32
    void operator=(uint32_t n_tokens) { set = std::min<uint32_t>(n_tokens, INT32_MAX); }

    const char * in_env() const {
        const char * text = getenv(env);
        return set == UNSET && text && *text ? text : nullptr;
    }

    static std::optional<uint32_t> parse(const char * text) {
        int32_t      n_tokens = 0;
        const char * end      = text + strlen(text);
        const auto   found    = std::from_chars(text, end, n_tokens);
        return found.ec == std::errc() && found.ptr == end && n_tokens >= 0 ? std::optional<uint32_t>(n_tokens) : std::nullopt;
    }

    uint32_t get() const {
        const int64_t n_tokens = set;
        if (n_tokens != UNSET) {
            return n_tokens;
        }
        const char * text = in_env();
        return text ? parse(text).value_or(otherwise) : otherwise;
    }

    std::string error() const {
        const char * text = in_env();
        if (!text || parse(text)) {
            return "";
        }
        return format("%s in the environment is '%s': set it to a number of tokens, 0 or more, or remove it", env, text);
    }
};

setting kv_window{ "LLAMA_ARG_KV_WINDOW", LLAMA_QLUTATTN_KV_WINDOW };
setting kv_sink{ "LLAMA_ARG_KV_SINK", LLAMA_QLUTATTN_KV_SINK };

} // namespace

void llama_qlutattn_set_kv_window(uint32_t n_tokens) {
    kv_window = n_tokens;
}

void llama_qlutattn_set_kv_sink(uint32_t n_tokens) {
    kv_sink = n_tokens;
}

uint32_t llama_qlutattn_get_kv_window(void) {
    return kv_window.get();
}

uint32_t llama_qlutattn_get_kv_sink(void) {
    return kv_sink.get();
}

std::string llama_qlutattn_settings_error() {
    const std::string error = kv_window.error();
    return error.empty() ? kv_sink.error() : error;
}
