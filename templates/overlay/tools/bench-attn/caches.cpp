#include "caches.h"

#include "ggml-qlutattn.h"
#include "rng.h"

#include <algorithm>
#include <stdexcept>

std::vector<float> random_values(uint64_t seed, size_t n) {
    rng                random(seed);
    std::vector<float> values(n);
    for (float & value : values) {
        value = random.gauss();
    }
    return values;
}

caches::caches(machine & m, const geometry & shape, int64_t n_kv) : shape(shape), n_kv(n_kv), m(m) {}

ggml_tensor * caches::new_tensor(ggml_context * ctx, ggml_type type, bool is_value) const {
    if (ggml_is_qlutattn(type)) {
        return ggml_new_tensor_3d(ctx, type, GGML_QLUTATTN_TILE, n_kv, shape.n_columns(is_value));
    }
    if (shape.by_head) {
        return ggml_new_tensor_3d(ctx, type, shape.head_size(is_value), n_kv, shape.n_head_kv);
    }
    return ggml_permute(ctx, ggml_new_tensor_3d(ctx, type, shape.head_size(is_value), shape.n_head_kv, n_kv), 0, 2, 1, 3);
}

ggml_tensor * caches::conversion(ggml_context * ctx, ggml_tensor * to, bool is_value) {
    ggml_tensor * from = source(is_value);
    const size_t  part = to->ne[0] * from->nb[0]; // of a token, for a head or a column of tiles
    if (to->view_src) {                           // permuted; ggml quantises to contiguous tensors only
        return ggml_cpy(ctx, ggml_view_3d(ctx, from, to->ne[0], to->ne[2], to->ne[1], part, from->nb[1], 0), to->view_src);
    }
    return ggml_cpy(ctx, ggml_view_3d(ctx, from, to->ne[0], to->ne[1], to->ne[2], from->nb[1], part, 0), to);
}

// Rows are slices of one long list of random values, each from another offset: quicker than new values for each row.
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

void caches::allocate(entry & e) const {
    e.buffer.reset(ggml_backend_alloc_ctx_tensors(e.ctx.get(), m.get()));
    if (!e.buffer) {
        throw std::runtime_error("there is not enough memory for " + std::to_string(n_kv) + " keys as " + ggml_type_name(e.tensor->type));
    }
}

ggml_tensor * caches::source(bool is_value) {
    entry & e = sources[is_value];
    if (!e.tensor) {
        e.ctx.reset(ggml_init({ ggml_tensor_overhead(), nullptr, true }));
        e.tensor = ggml_new_tensor_2d(e.ctx.get(), GGML_TYPE_F16, shape.n_columns(is_value) * GGML_QLUTATTN_TILE, n_kv);
        allocate(e);
        fill(e.tensor, is_value ? 2 : 1);
    }
    return e.tensor;
}

ggml_tensor * caches::get(ggml_type type, bool is_value) {
    entry & e = entries[{ type, is_value }];
    if (!e.tensor) {
        e.ctx.reset(ggml_init({ ggml_tensor_overhead() * 8 + ggml_graph_overhead_custom(8, false), nullptr, true }));
        e.tensor = new_tensor(e.ctx.get(), type, is_value);
        allocate(e);
        ggml_cgraph * graph = ggml_new_graph_custom(e.ctx.get(), 8, false);
        ggml_build_forward_expand(graph, conversion(e.ctx.get(), e.tensor, is_value));
        m.compute(graph);
    }
    return e.tensor;
}
