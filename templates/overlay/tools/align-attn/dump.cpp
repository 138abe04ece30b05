#include "dump.h"

#include "ggml-cpp.h"
#include "gguf.h"

#include <algorithm>
#include <cstring>

static constexpr size_t MAX_CASES = 120;
static constexpr size_t MAX_BYTES = 90 * 1024 * 1024;

// What a case covers: it is kept if some of this is not covered by the cases before it.
static std::vector<std::string> features_of(const align_case & c) {
    const std::string pair = c.label_k() + c.label_v();
    const std::string dims = "-d" + std::to_string(c.dims.k) + "v" + std::to_string(c.dims.v);
    const std::string what = c.poison == poison_kind::none ? name_of(c.data) : name_of(c.poison);
    const std::string bits = c.poison == poison_kind::nan_v || c.poison == poison_kind::inf_v ? c.label_v() : c.label_k();
    return { pair,
             what + bits,
             what + "-" + c.label_v(),
             c.label_k() + dims,
             c.label_v() + dims,
             "s" + std::to_string(c.n_shift),
             "b" + std::to_string(c.n_batch),
             c.is_int8() ? "i" + std::to_string(c.smoothing) + what : "",
             what + (c.src_f32 ? "-f32" : "-f16") };
}

static size_t size_of(const align_case & c, const case_data & d) {
    const size_t tiles = (size_t) c.n_packed() * (c.side_k().n_embd() + c.side_v().n_embd()) / 2;
    return 4 * (2 * d.q.size() + d.q_shifted.size() + 2 * (d.kp.size() + d.vp.size())) + 2 * (d.k.size() + d.v.size() + d.mask.size()) + tiles;
}

void dump::add(const verdict & v, const case_data & data, const device_result & run) {
    const size_t bytes = size_of(v.c, data);
    bool         fresh = false;
    for (const std::string & f : features_of(v.c)) {
        fresh |= std::find(features.begin(), features.end(), f) == features.end();
    }
    if (!fresh || run.out.empty() || bytes > MAX_BYTES / 36 || entries.size() >= MAX_CASES || size + bytes > MAX_BYTES) {
        return;
    }
    for (const std::string & f : features_of(v.c)) {
        features.push_back(f);
    }
    size += bytes;
    entries.push_back({ v, data, run });
}

namespace {

struct writer {
    gguf_context_ptr gguf;
    ggml_context_ptr ctx;

    void add(const std::string & name, ggml_type type, std::vector<int64_t> ne, const void * data) {
        ne.resize(4, 1);
        ggml_tensor * t = ggml_new_tensor_4d(ctx.get(), type, ne[0], ne[1], ne[2], ne[3]);
        ggml_set_name(t, name.c_str());
        memcpy(t->data, data, ggml_nbytes(t));
        gguf_add_tensor(gguf.get(), t);
    }

    void add_f16(const std::string & name, const std::vector<int64_t> & ne, const std::vector<float> & values) {
        std::vector<ggml_fp16_t> h(values.size());
        ggml_fp32_to_fp16_row(values.data(), h.data(), (int64_t) values.size());
        add(name, GGML_TYPE_F16, ne, h.data());
    }

    void write_values(const std::string & name, ggml_type type, const std::vector<int64_t> & ne, const std::vector<float> & values) {
        if (type == GGML_TYPE_F32) {
            add(name, type, ne, values.data());
        } else {
            add_f16(name, ne, values);
        }
    }
};

// [n_embd, n_tokens, n_batch] as [width, n_tokens, n_embd/width rounded up, n_batch]
std::vector<float> by_width(const align_case & c, const side_shape & side, const std::vector<float> & values, int64_t n_tokens, int64_t width) {
    std::vector<float> out;
    for (int64_t b = 0; b < c.n_batch; ++b) {
        for (int64_t first = 0; first < side.n_embd(); first += width) {
            for (int64_t t = 0; t < n_tokens; ++t) {
                const float * row = values.data() + (b * n_tokens + t) * side.n_embd();
                for (int64_t i = first; i < first + width; ++i) {
                    out.push_back(row[side.channel_at(i)]);
                }
            }
        }
    }
    return out;
}

// the columns [first, first + n) of the mask
std::vector<float> mask_part(const align_case & c, const case_data & d, int64_t first, int64_t n) {
    std::vector<float> out;
    for (size_t row = 0; row < d.mask.size() / c.n_kv(); ++row) {
        out.insert(out.end(), d.mask.begin() + row * c.n_kv() + first, d.mask.begin() + row * c.n_kv() + first + n);
    }
    return out;
}

void add_case(writer & w, const std::string & i, const verdict & v, const case_data & d, const device_result & run) {
    const align_case & c   = v.c;
    const std::string  key = "case." + i + ".";
    const std::string  t   = "c" + i + ".";
    gguf_context *     g   = w.gguf.get();
    gguf_set_val_str(g, (key + "id").c_str(), c.id.c_str());
    gguf_set_val_str(g, (key + "type_k").c_str(), ggml_type_name(c.type_k()));
    gguf_set_val_str(g, (key + "type_v").c_str(), ggml_type_name(c.type_v()));
    gguf_set_val_str(g, (key + "kernel_k").c_str(), v.kernel_k.c_str());
    gguf_set_val_str(g, (key + "kernel_v").c_str(), v.kernel_v.c_str());
    gguf_set_val_f32(g, (key + "scale").c_str(), c.scale());
    gguf_set_val_f32(g, (key + "max_bias").c_str(), c.max_bias());
    gguf_set_val_f32(g, (key + "logit_softcap").c_str(), c.logit_softcap());
    if (c.is_int8()) {
        gguf_set_val_f32(g, (key + "smoothing").c_str(), (float) c.smoothing / 100);
    }
    gguf_set_val_u32(g, (key + "n_head_kv").c_str(), (uint32_t) c.n_head_kv);
    gguf_set_val_u32(g, (key + "head_dim").c_str(), (uint32_t) c.dims.k);
    gguf_set_val_u32(g, (key + "head_dim_v").c_str(), (uint32_t) c.dims.v);

    w.add(t + "q", GGML_TYPE_F32, { c.dims.k, c.n_q, c.n_head(), c.n_batch }, d.q.data());
    if (c.n_shift > 0) {
        w.add(t + "q_shifted", GGML_TYPE_F32, { c.dims.k, c.n_q, c.n_head(), c.n_shift * c.n_batch }, d.q_shifted.data());
        w.add(t + "tile_shift", GGML_TYPE_I32, { c.n_tiles, c.n_batch }, d.tile_shift.data());
    }
    if (c.n_f16 > 0) {
        w.add_f16(t + "k", { c.dims.k, c.n_f16, c.n_head_kv, c.n_batch }, by_width(c, c.side_k(), d.k, c.n_f16, c.dims.k));
        w.add_f16(t + "v", { c.dims.v, c.n_f16, c.n_head_kv, c.n_batch }, by_width(c, c.side_v(), d.v, c.n_f16, c.dims.v));
        if (!d.mask.empty()) {
            w.add_f16(t + "mask", { c.n_f16, c.n_q, d.mask_heads, d.mask_batches }, mask_part(c, d, c.n_packed(), c.n_f16));
        }
    }
    if (c.n_tiles > 0) {
        const std::vector<int64_t> shape_k = { TILE, c.n_packed(), c.side_k().n_cols(), c.n_batch };
        const std::vector<int64_t> shape_v = { TILE, c.n_packed(), c.side_v().n_cols(), c.n_batch };
        const ggml_type            type    = c.src_f32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
        w.write_values(t + "ksrc", type, shape_k, by_width(c, c.side_k(), d.kp, c.n_packed(), TILE));
        w.write_values(t + "vsrc", type, shape_v, by_width(c, c.side_v(), d.vp, c.n_packed(), TILE));
        if (c.k) {
            w.add(t + "kp", GGML_TYPE_I8, { (int64_t) run.kp.size() }, run.kp.data());
            w.write_values(t + "ku", c.unpacked_k(), shape_k, run.ku);
        }
        if (c.v) {
            w.add(t + "vp", GGML_TYPE_I8, { (int64_t) run.vp.size() }, run.vp.data());
            w.write_values(t + "vu", c.unpacked_v(), shape_v, run.vu);
        }
        if (!d.mask.empty()) {
            w.add_f16(t + "maskp", { c.n_packed(), c.n_q, d.mask_heads, d.mask_batches }, mask_part(c, d, 0, c.n_packed()));
        }
    }
    if (c.sinks) {
        w.add(t + "sinks", GGML_TYPE_F32, { c.n_head() }, d.sinks.data());
    }
    w.add(t + "out", GGML_TYPE_F32, { c.dims.v, c.n_head(), c.n_q, c.n_batch }, run.out.data());
}

} // namespace

bool dump::write(const std::string & path) const {
    writer w;
    w.gguf.reset(gguf_init_empty());
    w.ctx.reset(ggml_init({ size + entries.size() * 16 * (ggml_tensor_overhead() + 64) + 1024 * 1024, nullptr, false }));
    gguf_set_val_u32(w.gguf.get(), "qlutattn.dump.version", 2);
    gguf_set_val_u32(w.gguf.get(), "qlutattn.dump.n_cases", (uint32_t) entries.size());
    for (size_t i = 0; i < entries.size(); ++i) {
        add_case(w, std::to_string(i), entries[i].v, entries[i].data, entries[i].run);
    }
    return gguf_write_to_file(w.gguf.get(), path.c_str(), false);
}
