// A libFuzzer target on packing and mixed attention, as one graph on the CPU backend.
//
// The first bytes of an input choose shapes, types, layouts, masks and kinds of data; a generator seeded with all bytes makes the data, and the
// remaining bytes are written over some of it. Any input is valid. Beside what the sanitizers see, this is checked:
//
//   - packed tiles are those of the scalar packer, byte by byte, and every byte around them, and of all sources, is what it was;
//   - the result is the same, bit by bit, on one thread and on several;
//   - a row with no visible key is zeros; a row that sees only finite keys and values of reasonable size stays within what these values span;
//   - a visible poisoned K lane makes its row NaN, a poisoned V lane its channel, and hidden ones nothing (docs/align.md, "What is not finite").
//
// Each tensor has memory of its own that ends with its last byte, so that AddressSanitizer sees reads and writes beyond it.

#include "fuzz_problem.h"

// What may come of a row: NaN or not, and the span of each channel.
struct outlook {
    bool  sees_any = false;
    bool  is_nan   = false; // sees a poisoned K lane
    bool  is_tame  = true;  // else anything may come of it
    float low[MAX_HEAD];
    float high[MAX_HEAD];
    bool  wild[MAX_HEAD]     = { false }; // sees an infinite or NaN value
    bool  poisoned[MAX_HEAD] = { false }; // sees a tile with a poisoned V lane

    outlook() {
        std::fill_n(low, MAX_HEAD, INFINITY);
        std::fill_n(high, MAX_HEAD, -INFINITY);
    }

    void take(int c, float value, float radius) {
        wild[c] |= !std::isfinite(value) || !std::isfinite(radius);
        low[c]  = std::min(low[c], value - radius);
        high[c] = std::max(high[c], value + radius);
    }

    // whether the token is visible
    bool see(float mask) {
        if (mask == -INFINITY) {
            return false;
        }
        sees_any = true;
        is_tame &= std::isfinite(mask);
        return true;
    }
};

// what a kv head looks like in numbers
struct facts {
    std::vector<float> k_size;    // [token] of the window: largest magnitude, or NaN
    std::vector<float> values;    // [token][channel] of the window
    std::vector<float> kp_size;   // [token] packed
    std::vector<float> vp_values; // [token][channel] packed, if it is f16
    std::vector<float> v_offset;  // [tile][channel]
    std::vector<float> v_radius;  // [tile][channel]

    facts(const problem & p, int64_t ikv, int64_t i3) {
        const settings & s = p.s;
        if (p.k) {
            k_size = sizes(*p.k, ikv, i3);
            values = all(*p.v, ikv, i3);
        }
        if (!p.kp) {
            return;
        }
        if (p.kp->t->type == GGML_TYPE_F16) {
            kp_size = sizes(*p.kp, ikv, i3);
        } else {
            for (int64_t token = 0; token < s.packed.n; token++) {
                float size = 0.0f;
                for (int c = 0; c < s.head_dim_k; c += TILE / 2) { // by halves: one of whole tiles counts twice
                    const auto [offset, radius] = lane(*p.kp, token / TILE, (ikv * s.head_dim_k + c) / TILE, i3, token % TILE);
                    size += std::fabs(offset) + radius;
                }
                kp_size.push_back(size);
            }
        }
        if (p.vp->t->type == GGML_TYPE_F16) {
            vp_values = all(*p.vp, ikv, i3);
            return;
        }
        for (int64_t tile = 0; tile < s.packed.n / TILE; tile++) {
            for (int64_t c = ikv * s.head_dim_v; c < (ikv + 1) * s.head_dim_v; c++) {
                const auto [offset, radius] = lane(*p.vp, tile, c / TILE, i3, c % TILE);
                v_offset.push_back(offset);
                v_radius.push_back(radius);
            }
        }
    }

    // [token][channel] of an f16 tensor
    static std::vector<float> all(const block & b, int64_t ikv, int64_t i3) {
        std::vector<float> to;
        for (int64_t token = 0; token < b.t->ne[1]; token++) {
            for (int64_t c = 0; c < b.t->ne[0]; c++) {
                to.push_back(ggml_fp16_to_fp32(*b.at<ggml_fp16_t>(c, token, ikv, i3)));
            }
        }
        return to;
    }

    // [token] of an f16 tensor: the largest magnitude; NaN if one is not finite
    static std::vector<float> sizes(const block & b, int64_t ikv, int64_t i3) {
        const std::vector<float> from = all(b, ikv, i3);
        std::vector<float>       to(b.t->ne[1], 0.0f);
        for (size_t i = 0; i < from.size(); i++) {
            float & size = to[i / b.t->ne[0]];
            size         = std::isfinite(from[i]) && !std::isnan(size) ? std::max(size, std::fabs(from[i])) : NAN;
        }
        return to;
    }

    // offset of a lane, and the largest magnitude of scale * level
    static std::pair<float, float> lane(const block & b, int64_t tile, int64_t column, int64_t i3, int i) {
        const qlutattn_kernel_config & config = *qlutattn_get_kernel_config(b.t->type);
        const void *                   data   = b.at<void>(0, tile * TILE, column, i3);
        const float                    level  = (config.is_linear() ? 128.0f : (float) config.levels[(1 << config.bits) - 1]) / QLUTATTN_LEVEL_UNIT;
        const float                    offset = config.has_offset ? ggml_fp16_to_fp32(config.offsets(data)[i]) : 0.0f;
        return { offset, std::fabs(ggml_fp16_to_fp32(config.scales(data)[i])) * level };
    }
};

// what may come of query iq of head ih, and the largest key that it sees
static outlook expect(const problem & p, const facts & about, int64_t iq, int64_t ih, int64_t i3, float & key) {
    const settings & s  = p.s;
    const block *    m  = mask_of(p.mask);
    const block *    mp = mask_of(p.maskp);
    outlook          o;
    key = 0.0f;
    for (int64_t token = 0; token < s.window.n; token++) {
        if (o.see(mask_value(m, token, iq, ih, i3))) {
            o.is_tame &= std::isfinite(about.k_size[token]);
            key = std::max(key, about.k_size[token]);
            for (int c = 0; c < s.head_dim_v; c++) {
                o.take(c, about.values[token * s.head_dim_v + c], 0.0f);
            }
        }
    }
    for (int64_t tile = 0; tile < s.packed.n / TILE; tile++) {
        bool seen = false;
        for (int64_t token = tile * TILE; token < (tile + 1) * TILE; token++) {
            if (o.see(mask_value(mp, token, iq, ih, i3))) {
                seen = true;
                if (p.kp->t->type == GGML_TYPE_F16) {
                    o.is_tame &= std::isfinite(about.kp_size[token]);
                }
                o.is_nan |= std::isnan(about.kp_size[token]);
                o.is_tame &= !std::isinf(about.kp_size[token]);
                key = std::max(key, about.kp_size[token]);
                for (int c = 0; c < s.head_dim_v && !about.vp_values.empty(); c++) {
                    o.take(c, about.vp_values[token * s.head_dim_v + c], 0.0f);
                }
            }
        }
        for (int c = 0; c < s.head_dim_v && seen && about.vp_values.empty(); c++) {
            // a tile's weights are rounded to integers with a step of about 1/64 of the largest of them, or less: 128 halves of
            // that are the largest weight once more
            const float radius = about.v_radius[tile * s.head_dim_v + c];
            o.take(c, about.v_offset[tile * s.head_dim_v + c], 2.0f * radius);
            o.poisoned[c] |= std::isnan(radius);
        }
    }
    return o;
}

// the result of query iq of head ih is what its outlook allows
static void check_row(const problem & p, const outlook & o, int64_t iq, int64_t ih, int64_t i3) {
    for (int c = 0; c < p.s.head_dim_v; c++) {
        const float y     = *p.result->at<float>(c, ih, iq, i3);
        const float slack = 1e-4f * std::max(std::fabs(o.low[c]), std::fabs(o.high[c]));
        const auto  wrong = [&](const char * why) {
            fail("channel %d of query %d, head %d, batch %d is %g: %s", c, (int) iq, (int) ih, (int) i3, y, why);
        };
        if (!o.sees_any) {
            if (y != 0.0f) {
                wrong("a row that sees nothing must be zeros");
            }
        } else if (!o.is_tame) {
            continue;
        } else if (o.is_nan || o.poisoned[c]) {
            if (!std::isnan(y)) {
                wrong(o.is_nan ? "a visible K lane is poisoned, the row must be NaN" : "a V lane is poisoned, the channel must be NaN");
            }
        } else if (!o.wild[c] && !(y >= o.low[c] - slack && y <= o.high[c] + slack)) {
            fprintf(stderr, "fuzz_attn: visible values go from %g to %g\n", o.low[c], o.high[c]);
            wrong("outside of what the visible values span");
        }
    }
}

// sum of magnitudes of a query, and of those that may take its place
float problem::length_of_queries(int64_t iq, int64_t ih, int64_t i3) const {
    float length = 0.0f;
    for (int c = 0; c < s.head_dim_k; c++) {
        length += std::fabs(*q->at<float>(c, iq, ih, i3));
        for (int set = 0; q_shifted && set < s.n_shift; set++) {
            length += std::fabs(*q_shifted->at<float>(c, iq, ih, set * s.n_batch + i3));
        }
    }
    return length;
}

void problem::check_rows() const {
    for (int64_t i3 = 0; i3 < s.n_batch; i3++) {
        for (int64_t ikv = 0; ikv < s.n_head_kv; ikv++) {
            const facts about(*this, ikv, i3);
            for (int64_t ih = ikv * s.group; ih < (ikv + 1) * s.group; ih++) {
                for (int64_t iq = 0; iq < s.n_q; iq++) {
                    float       key; // the largest
                    outlook     o      = expect(*this, about, iq, ih, i3, key);
                    const float length = length_of_queries(iq, ih, i3);
                    // no score overflows, nor the sum of q times the levels of a lane, which its scale multiplies; false for NaN
                    o.is_tame &= length * std::max(key, 1.0f) < 1e28f;
                    for (int c = 0; c < s.head_dim_v && sinks; c++) {
                        o.take(c, 0.0f, 0.0f);
                    }
                    check_row(*this, o, iq, ih, i3);
                }
            }
        }
    }
}

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
    ggml_cpu_init(); // the scalar packer reads the f16 tables
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    choices   in     = { data, size };
    generator random = { 0 };
    for (size_t i = 0; i < size; i++) {
        random.state = (random.state ^ data[i]) * 1099511628211ull + 1;
    }
    now = choose(in);
    problem                    p(now, random, in);
    const std::vector<uint8_t> alone = p.compute(1);
    p.check_rows();
    const std::vector<uint8_t> together = p.compute(now.n_threads);
    const size_t               differs  = std::mismatch(alone.begin(), alone.end(), together.begin()).first - alone.begin();
    if (differs < alone.size()) {
        fail("%d threads give another result than one, from byte %zu on", now.n_threads, differs);
    }
    return 0;
}
