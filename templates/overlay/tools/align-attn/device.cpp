#include "device.h"

#include "arena.h"

#include "ggml-qlutattn.h"

#include <cstring>
#include <stdexcept>
#include <tuple>

device::device() : backend(start_cpu_backend()) {
    find_cpu_function(backend.get(), "ggml_backend_set_n_threads", set_n_threads);
    find_cpu_function(backend.get(), "ggml_qlutattn_kernel_name", name_function);
}

std::string device::kernel_name(ggml_type type) const {
    if (type == GGML_TYPE_F16) {
        return "f16";
    }
    const std::string name = name_of_kernel(name_function, type);
    for (const char * known : { "lut-", "dot-", "dot7-" }) {
        if (name.rfind(known, 0) == 0) {
            return name;
        }
    }
    throw std::runtime_error("the CPU backend names an unknown kernel for " + std::string(ggml_type_name(type)) + ": " + name);
}

void device::compute(ggml_cgraph * graph, int n_threads) {
    set_n_threads(backend.get(), n_threads);
    if (ggml_backend_graph_compute(backend.get(), graph) != GGML_STATUS_SUCCESS) {
        throw std::runtime_error("the CPU backend failed to compute a graph");
    }
}

namespace {

// A tensor of this shape and memory layout; a view of a larger tensor where the layout asks for it.
ggml_tensor * place(ggml_context * ctx, ggml_type type, layout lay, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3) {
    switch (lay) {
        case layout::plain:
            return ggml_new_tensor_4d(ctx, type, ne0, ne1, ne2, ne3);
        case layout::permuted:
            return ggml_permute(ctx, ggml_new_tensor_4d(ctx, type, ne0, ne2, ne1, ne3), 0, 2, 1, 3);
        case layout::view:
            {
                ggml_tensor * all = ggml_new_tensor_4d(ctx, type, ne0, ne1 + 256, ne2 + 1, ne3 + 1);
                return ggml_view_4d(ctx, all, ne0, ne1, ne2, ne3, all->nb[1], all->nb[2], all->nb[3], TILE * all->nb[1]);
            }
        case layout::transposed:
            return ggml_permute(ctx, ggml_new_tensor_4d(ctx, type, ne1, ne0, ne2, ne3), 1, 0, 2, 3);
    }
    return nullptr;
}

// one side of the packed segment
ggml_tensor * place_packed(ggml_context * ctx, const align_case & c, ggml_type type, const side_shape & side) {
    return type == GGML_TYPE_F16 ? place(ctx, type, c.lay_f16, side.head_dim, c.n_packed(), c.n_head_kv, c.n_batch) :
                                   place(ctx, type, c.lay_packed, TILE, c.n_packed(), side.n_cols(), c.n_batch);
}

void store(ggml_tensor * t, int64_t i0, int64_t i1, int64_t i2, int64_t i3, float x) {
    char * at = (char *) t->data + i0 * t->nb[0] + i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3];
    if (t->type == GGML_TYPE_F16) {
        const ggml_fp16_t h = ggml_fp32_to_fp16(x);
        memcpy(at, &h, sizeof(h));
    } else {
        memcpy(at, &x, sizeof(x));
    }
}

// values: [n_embd, n_tokens, n_batch]; t: [width, n_tokens, n_embd/width rounded up, n_batch]
void store_tokens(ggml_tensor * t, const side_shape & side, const std::vector<float> & values, int64_t n_tokens, int64_t first, float scale = 1.0f) {
    const int64_t width  = t->ne[0];
    const int64_t n_embd = side.n_embd();
    for (int64_t b = 0; b < t->ne[3]; ++b) {
        for (int64_t token = 0; token < n_tokens; ++token) {
            for (int64_t i = 0; i < width * t->ne[2]; ++i) {
                const float x = scale * values[(b * n_tokens + token) * n_embd + side.channel_at(i)];
                store(t, i % width, first + token, i / width, b, x);
            }
        }
    }
}

void store_q(ggml_tensor * t, const std::vector<float> & q) {
    const float * row = q.data();
    for (int64_t b = 0; b < t->ne[3]; ++b) {
        for (int64_t h = 0; h < t->ne[2]; ++h) {
            for (int64_t i = 0; i < t->ne[1]; ++i) {
                for (int64_t d = 0; d < t->ne[0]; ++d) {
                    store(t, d, i, h, b, *row++);
                }
            }
        }
    }
}

// the columns [first, first + ne[0]) of the mask; rows beyond the queries keep what the arena left in them
void store_mask(ggml_tensor * t, const case_data & data, int64_t n_q, int64_t n_kv, int64_t first) {
    for (int64_t b = 0; b < data.mask_batches; ++b) {
        for (int64_t h = 0; h < data.mask_heads; ++h) {
            for (int64_t i = 0; i < n_q; ++i) {
                const float * row = data.mask.data() + ((b * data.mask_heads + h) * n_q + i) * n_kv + first;
                for (int64_t x = 0; x < t->ne[0]; ++x) {
                    store(t, x, i, h, b, row[x]);
                }
            }
        }
    }
}

std::vector<uint8_t> load_tiles(const ggml_tensor * t, arena & memory) {
    std::vector<uint8_t> bytes;
    const size_t         size = t->ne[1] * t->nb[1];
    for (int64_t b = 0; b < t->ne[3]; ++b) {
        for (int64_t column = 0; column < t->ne[2]; ++column) {
            uint8_t * at = (uint8_t *) t->data + column * t->nb[2] + b * t->nb[3];
            bytes.insert(bytes.end(), at, at + size);
            memory.expect(at, size);
        }
    }
    return bytes;
}

// the values of unpacked tiles; reading them expects that they changed
std::vector<float> load_values(const ggml_tensor * t, arena & memory) {
    std::vector<float> values;
    for (int64_t b = 0; b < t->ne[3]; ++b) {
        for (int64_t column = 0; column < t->ne[2]; ++column) {
            for (int64_t token = 0; token < t->ne[1]; ++token) {
                uint8_t * at = (uint8_t *) t->data + token * t->nb[1] + column * t->nb[2] + b * t->nb[3];
                memory.expect(at, TILE * t->nb[0]);
                for (int64_t i = 0; i < TILE; ++i) {
                    float x;
                    if (t->type == GGML_TYPE_F16) {
                        ggml_fp16_t h;
                        memcpy(&h, at + i * sizeof(h), sizeof(h));
                        x = ggml_fp16_to_fp32(h);
                    } else {
                        memcpy(&x, at + i * sizeof(x), sizeof(x));
                    }
                    values.push_back(x);
                }
            }
        }
    }
    return values;
}

// The tensors and graphs of a case; a tensor that the case does not have is null.
struct mixed_graph {
    ggml_context_ptr ctx;
    ggml_cgraph *    pack;
    ggml_cgraph *    unpack;
    ggml_cgraph *    attend;

    ggml_tensor * q;
    ggml_tensor * q_shifted;
    ggml_tensor * tile_shift;
    ggml_tensor * k;    // f16 segment
    ggml_tensor * v;
    ggml_tensor * ksrc; // what is packed
    ggml_tensor * vsrc;
    ggml_tensor * kp;   // packed segment
    ggml_tensor * vp;
    ggml_tensor * ku;   // the packed segment, unpacked again
    ggml_tensor * vu;
    ggml_tensor * mask;
    ggml_tensor * maskp;
    ggml_tensor * sinks;
    ggml_tensor * out;
};

mixed_graph build_mixed(const align_case & c, const case_data & data) {
    mixed_graph      g;
    ggml_init_params params = { ggml_tensor_overhead() * 64 + 4 * ggml_graph_overhead_custom(16, false), nullptr, true };
    g.ctx.reset(ggml_init(params));
    ggml_context * ctx = g.ctx.get();

    const bool      packed   = c.n_tiles > 0;
    const bool      with_kp  = packed || c.empty;
    const bool      with_f16 = c.n_f16 > 0 || c.empty;
    const bool      masked   = !data.mask.empty();
    const ggml_type src_type = c.src_f32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
    const layout    lay_to   = c.lay_src == layout::transposed ? layout::plain : c.lay_src; // rows must be contiguous
    const int64_t   rows     = c.n_q + (c.mask_heads ? 3 : 0);                              // unused rows hold NaN

    const auto new_mask = [&](int64_t n_kv) {
        return ggml_new_tensor_4d(ctx, GGML_TYPE_F16, n_kv, rows, data.mask_heads, data.mask_batches);
    };

    g.q          = place(ctx, GGML_TYPE_F32, c.lay_q, c.dims.k, c.n_q, c.n_head(), c.n_batch);
    g.q_shifted  = c.n_shift > 0 ? place(ctx, GGML_TYPE_F32, c.lay_q, c.dims.k, c.n_q, c.n_head(), c.n_shift * c.n_batch) : nullptr;
    g.tile_shift = c.n_shift > 0 ? ggml_new_tensor_2d(ctx, GGML_TYPE_I32, c.n_tiles, c.n_batch) : nullptr;
    g.k          = with_f16 ? place(ctx, GGML_TYPE_F16, c.lay_f16, c.dims.k, c.n_f16, c.n_head_kv, c.n_batch) : nullptr;
    g.v          = with_f16 && !c.is_latent ? place(ctx, GGML_TYPE_F16, c.lay_f16, c.dims.v, c.n_f16, c.n_head_kv, c.n_batch) : nullptr;
    g.ksrc       = packed && c.k ? place(ctx, src_type, c.lay_src, TILE, c.n_packed(), c.side_k().n_cols(), c.n_batch) : nullptr;
    g.vsrc       = packed && c.v ? place(ctx, src_type, c.lay_src, TILE, c.n_packed(), c.side_v().n_cols(), c.n_batch) : nullptr;
    g.kp         = with_kp ? place_packed(ctx, c, c.type_k(), c.side_k()) : nullptr;
    g.vp         = with_kp && !c.is_latent ? place_packed(ctx, c, c.type_v(), c.side_v()) : nullptr;
    g.ku         = g.ksrc ? place(ctx, c.unpacked_k(), lay_to, TILE, c.n_packed(), c.side_k().n_cols(), c.n_batch) : nullptr;
    g.vu         = g.vsrc ? place(ctx, c.unpacked_v(), lay_to, TILE, c.n_packed(), c.side_v().n_cols(), c.n_batch) : nullptr;
    g.mask       = masked && with_f16 ? new_mask(c.n_f16) : nullptr;
    g.maskp      = masked && with_kp ? new_mask(c.n_packed()) : nullptr;
    g.sinks      = c.sinks ? ggml_new_tensor_1d(ctx, GGML_TYPE_F32, c.n_head()) : nullptr;

    g.pack   = ggml_new_graph_custom(ctx, 16, false);
    g.unpack = ggml_new_graph_custom(ctx, 16, false);
    for (auto [src, packed, values] : { std::make_tuple(g.ksrc, g.kp, g.ku), std::make_tuple(g.vsrc, g.vp, g.vu) }) {
        if (src) {
            ggml_build_forward_expand(g.pack, ggml_cpy(ctx, src, packed));
            ggml_build_forward_expand(g.unpack, ggml_cpy(ctx, packed, values));
        }
    }
    g.attend = ggml_new_graph_custom(ctx, 16, false);
    g.out    = ggml_flash_attn_ext_mixed(ctx, g.q, g.k, g.v, g.mask, g.kp, g.vp, g.maskp, g.sinks, c.n_head_kv, c.dims.v, c.scale(), c.max_bias(),
                                         c.logit_softcap());
    if (g.q_shifted) {
        ggml_flash_attn_ext_mixed_set_shifts(g.out, g.q_shifted, g.tile_shift);
    }
    if (c.is_int8()) {
        ggml_flash_attn_ext_mixed_set_int8(g.out, (float) c.smoothing / 100);
    }
    ggml_build_forward_expand(g.attend, g.out);
    return g;
}

void store_inputs(const mixed_graph & g, const align_case & c, const case_data & data) {
    store_q(g.q, data.q);
    if (g.q_shifted) {
        store_q(g.q_shifted, data.q_shifted);
        memcpy(g.tile_shift->data, data.tile_shift.data(), ggml_nbytes(g.tile_shift));
    }
    if (g.k) {
        store_tokens(g.k, c.side_k(), data.k, c.n_f16, 0);
        if (g.v) {
            store_tokens(g.v, c.side_v(), data.v, c.n_f16, 0);
        }
    }
    if (c.n_tiles > 0) {
        store_tokens(g.ksrc ? g.ksrc : g.kp, c.side_k(), data.kp, c.n_packed(), 0);
        if (g.vsrc || g.vp) {
            store_tokens(g.vsrc ? g.vsrc : g.vp, c.side_v(), data.vp, c.n_packed(), 0);
        }
    }
    if (g.mask) {
        store_mask(g.mask, data, c.n_q, c.n_kv(), c.n_packed());
    }
    if (g.maskp) {
        store_mask(g.maskp, data, c.n_q, c.n_kv(), 0);
    }
    if (g.sinks) {
        memcpy(g.sinks->data, data.sinks.data(), data.sinks.size() * sizeof(float));
    }
}

// the first node of the graphs that the backend does not support, or null
ggml_tensor * find_unsupported(ggml_backend_t backend, const mixed_graph & g) {
    for (ggml_cgraph * graph : { g.pack, g.unpack, g.attend }) {
        for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
            if (!ggml_backend_supports_op(backend, ggml_graph_node(graph, i))) {
                return ggml_graph_node(graph, i);
            }
        }
    }
    return nullptr;
}

} // namespace

device_result device::run_mixed(const align_case & c, const case_data & data, int n_threads) {
    device_result     result;
    const mixed_graph g = build_mixed(c, data);
    if (const ggml_tensor * node = find_unsupported(backend.get(), g)) {
        result.faults.push_back(std::string("the CPU backend refuses ") + ggml_op_desc(node));
        return result;
    }

    arena memory(g.ctx.get());
    store_inputs(g, c, data);
    memory.snapshot();
    if (c.n_tiles > 0) {
        compute(g.pack, n_threads);
        result.kp = g.ksrc ? load_tiles(g.kp, memory) : std::vector<uint8_t>();
        result.vp = g.vsrc ? load_tiles(g.vp, memory) : std::vector<uint8_t>();
        memory.compare("pack", result.faults);
        compute(g.unpack, n_threads);
        result.ku = g.ksrc ? load_values(g.ku, memory) : std::vector<float>();
        result.vu = g.vsrc ? load_values(g.vu, memory) : std::vector<float>();
        memory.compare("unpack", result.faults);
    }
    compute(g.attend, n_threads);
    const float * x = (const float *) g.out->data;
    result.out.assign(x, x + ggml_nelements(g.out));
    memory.expect(g.out->data, ggml_nbytes(g.out));
    memory.compare("attention", result.faults);
    return result;
}

std::vector<float> device::run_upstream(const align_case & c, const case_data & data, float v_scale) {
    ggml_init_params params = { ggml_tensor_overhead() * 16 + ggml_graph_overhead_custom(16, false), nullptr, true };
    ggml_context_ptr owner(ggml_init(params));
    ggml_context *   ctx = owner.get();

    // With fewer queries than its block size, upstream accumulates in V's type: f16 is too coarse for long sequences.
    const ggml_type type_v = c.n_q < 64 && c.n_kv() > 512 ? GGML_TYPE_F32 : GGML_TYPE_F16;

    ggml_tensor * q     = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, c.dims.k, c.n_q, c.n_head(), c.n_batch);
    ggml_tensor * k     = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, c.dims.k, c.n_kv(), c.n_head_kv, c.n_batch);
    ggml_tensor * v     = ggml_new_tensor_4d(ctx, type_v, c.dims.v, c.n_kv(), c.n_head_kv, c.n_batch);
    ggml_tensor * sinks = c.sinks ? ggml_new_tensor_1d(ctx, GGML_TYPE_F32, c.n_head()) : nullptr;
    ggml_tensor * mask  = nullptr;
    if (!data.mask.empty()) {
        mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, c.n_kv(), c.n_q, data.mask_heads, data.mask_batches);
    } else if (c.logit_softcap() != 0.0f) {
        // A mask of zeros: without one, upstreams before PR 29034 put weight on the padding of their last block of keys.
        mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, c.n_kv(), c.n_q);
    }
    ggml_tensor * out = ggml_flash_attn_ext(ctx, q, k, v, mask, c.scale(), c.max_bias(), c.logit_softcap());
    ggml_flash_attn_ext_add_sinks(out, sinks);

    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx, backend.get()));
    store_q(q, data.q);
    store_tokens(k, c.side_k(), turned_keys(c, data), c.n_packed(), 0);
    store_tokens(k, c.side_k(), data.k, c.n_f16, c.n_packed());
    store_tokens(v, c.side_v(), data.vp, c.n_packed(), 0, v_scale);
    store_tokens(v, c.side_v(), data.v, c.n_f16, c.n_packed(), v_scale);
    if (!data.mask.empty()) {
        store_mask(mask, data, c.n_q, c.n_kv(), 0);
    } else if (mask) {
        memset(mask->data, 0, ggml_nbytes(mask));
    }
    if (sinks) {
        memcpy(sinks->data, data.sinks.data(), data.sinks.size() * sizeof(float));
    }
    ggml_cgraph * graph = ggml_new_graph_custom(ctx, 16, false);
    ggml_build_forward_expand(graph, out);
    compute(graph, 2);
    const float *      x = (const float *) out->data;
    std::vector<float> values(x, x + ggml_nelements(out));
    for (float & y : values) {
        y /= v_scale;
    }
    return values;
}
