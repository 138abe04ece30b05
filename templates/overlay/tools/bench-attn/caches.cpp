#include "caches.h"

#include "ggml-qlutattn.h"

#include <algorithm>
#include <stdexcept>

// splitmix64; twelve 16-bit integers summed are nearly Gaussian
std::vector<float> random_values(uint64_t seed, size_t n) {
    std::vector<float> values(n);
    const auto         next = [&] {
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);
        z          = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z          = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    };
    for (float & value : values) {
        int32_t sum = -12 * 32768 + 6;
        for (int i = 0; i < 3; ++i) {
            const uint64_t r = next();
            sum += (int32_t) (r & 0xffff) + (int32_t) (r >> 16 & 0xffff) + (int32_t) (r >> 32 & 0xffff) + (int32_t) (r >> 48);
        }
        value = (float) sum / 65536.0f;
    }
    return values;
}

caches::caches(machine & m, const geometry & shape, int64_t n_kv) : shape(shape), n_kv(n_kv), m(m) {}

ggml_tensor * caches::like(ggml_context * ctx, ggml_type type) const {
    return ggml_is_qlutattn(type) ? ggml_new_tensor_3d(ctx, type, 128, n_kv, shape.n_embd_kv() / 128) :
                                    ggml_new_tensor_2d(ctx, type, shape.n_embd_kv(), n_kv);
}

ggml_tensor * caches::source(ggml_context * ctx, bool is_value) {
    ggml_tensor * t = made(GGML_TYPE_F16, is_value);
    return ggml_view_3d(ctx, t, 128, n_kv, shape.n_embd_kv() / 128, t->nb[1], 128 * t->nb[0], 0);
}

ggml_tensor * caches::conversion(ggml_context * ctx, ggml_tensor * to, bool is_value) {
    return ggml_cpy(ctx, ggml_is_qlutattn(to->type) ? source(ctx, is_value) : made(GGML_TYPE_F16, is_value), to);
}

// Rows are pieces of one long list of random values, each from another place: as good as new ones, and quicker.
void caches::fill(ggml_tensor * t, uint64_t seed) const {
    const size_t             width  = t->ne[0];
    const std::vector<float> values = random_values(seed, (1 << 18) + width);
    std::vector<ggml_fp16_t> halves(values.size());
    std::transform(values.begin(), values.end(), halves.begin(), ggml_fp32_to_fp16);
    for (int64_t token = 0; token < t->ne[1]; ++token) {
        const size_t at = (size_t) token * 7919 * 31 % (1 << 18);
        std::copy_n(halves.begin() + at, width, (ggml_fp16_t *) ((char *) t->data + token * t->nb[1]));
    }
}

ggml_tensor * caches::made(ggml_type type, bool is_value) {
    const auto key   = std::make_pair(type, is_value);
    const auto found = entries.find(key);
    if (found != entries.end()) {
        return found->second.tensor;
    }
    ggml_init_params params = { ggml_tensor_overhead() * 8 + ggml_graph_overhead_custom(4, false), nullptr, true };
    entry            e;
    e.ctx.reset(ggml_init(params));
    e.tensor = like(e.ctx.get(), type);
    e.buffer.reset(ggml_backend_alloc_ctx_tensors(e.ctx.get(), m.get()));
    if (!e.buffer) {
        throw std::runtime_error("there is not enough memory for " + std::to_string(n_kv) + " keys as " + ggml_type_name(type));
    }
    if (type == GGML_TYPE_F16) {
        fill(e.tensor, is_value ? 2 : 1);
    } else {
        ggml_cgraph * graph = ggml_new_graph_custom(e.ctx.get(), 4, false);
        ggml_build_forward_expand(graph, conversion(e.ctx.get(), e.tensor, is_value));
        m.compute(graph);
    }
    return entries.emplace(key, std::move(e)).first->second.tensor;
}
