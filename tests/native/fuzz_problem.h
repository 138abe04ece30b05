// The tensors that fuzz_attn's choices stand for, each in memory of its own, and packing and attention on them as one graph.

#pragma once

#include "fuzz_choices.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "pack-tile.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>

static settings now; // for the message

[[noreturn]] static void fail(const char * format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "fuzz_attn: ");
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    const auto told = [](const char * name, const packing & p) {
        fprintf(stderr, ", %s %s %s", name, ggml_type_name(p.is_f16 ? GGML_TYPE_F16 : p.type),
                p.is_f16 ? "" :
                p.is_raw ? "of any bytes" :
                           ggml_type_name(p.source));
    };
    fprintf(stderr,
            "\n  head sizes %d and %d, kv heads %d, group %d, queries %d, batch %d, threads %d, shifts %d, window %d (mask %d), packed %d (mask %d)",
            now.head_dim_k, now.head_dim_v, now.n_head_kv, now.group, now.n_q, now.n_batch, now.n_threads, now.n_shift, now.window.n, now.window.mask,
            now.packed.n, now.packed.mask);
    told("K", now.k);
    told("V", now.v);
    fprintf(stderr, ", scale %g, max_bias %g, softcap %g, sinks %d\n", now.scale, now.max_bias, now.softcap, now.sinks);
    abort();
}

// a tensor in memory of its own
struct block {
    ggml_tensor *        t;
    uint8_t *            bytes;
    size_t               size;
    std::vector<uint8_t> expected;

    block(ggml_tensor * t, const layout & at) : t(t) {
        size_t stride = ggml_type_size(t->type);
        size_t first  = 0;
        size          = ggml_nelements(t) > 0 ? stride : 0;
        for (int i : at.order) {
            const int64_t n = i == 0 ? t->ne[0] / ggml_blck_size(t->type) : t->ne[i];
            t->nb[i]        = stride;
            first += at.before[i] * stride;
            size += size > 0 ? (n - 1) * stride : 0;
            stride *= n + at.before[i] + at.behind[i];
        }
        size += first;
        if (posix_memalign((void **) &bytes, 64, std::max<size_t>(size, 1))) {
            abort();
        }
        memset(bytes, 0xff, size);
        t->data = bytes + first;
    }

    block(const block &) = delete;
    ~block() { free(bytes); }

    void remember() { expected.assign(bytes, bytes + size); }

    template <typename T> T * at(int64_t i0, int64_t i1, int64_t i2, int64_t i3) const {
        return (T *) ((char *) t->data + i0 * t->nb[0] + i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3]);
    }

    void check(const char * what) const {
        if (size == 0 || memcmp(expected.data(), bytes, size) == 0) {
            return;
        }
        const size_t wrong = std::mismatch(expected.begin(), expected.end(), bytes).first - expected.begin();
        fail("%s: byte %zu is %02x, not %02x (its tensor begins at byte %zu)", what, wrong, bytes[wrong], expected[wrong],
             (size_t) ((uint8_t *) t->data - bytes));
    }
};

typedef std::unique_ptr<block> block_ptr;

static float make_value(generator & random, data_kind kind, bool is_f32) {
    static const float specials[] = { NAN, INFINITY, -INFINITY, 65504.0f, -65504.0f, 65505.0f, 1e38f, -0.0f, 1e-40f, 6e-8f };
    switch (kind) {
        case DATA_FEW:
            return random.below(3) - 1;
        case DATA_LARGE:
            return random.uniform() * 65504.0f;
        case DATA_TINY:
            return random.uniform() * (is_f32 ? 1e-39f : 1e-6f);
        case DATA_SCALES:
            return ldexpf(random.uniform(), random.below(40) - 24);
        case DATA_SPECIAL:
            return random.below(256) == 0 ? specials[random.below(10)] : random.uniform();
        default:
            return random.uniform();
    }
}

// every element of an f16 or f32 tensor
static void fill(block & b, generator & random, data_kind kind) {
    const bool is_f32 = b.t->type == GGML_TYPE_F32;
    for (int64_t i3 = 0; i3 < b.t->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < b.t->ne[2]; i2++) {
            for (int64_t i1 = 0; i1 < b.t->ne[1]; i1++) {
                for (int64_t i0 = 0; i0 < b.t->ne[0]; i0++) {
                    if (kind == DATA_BITS) {
                        const uint32_t bits = random.bits();
                        memcpy(b.at<void>(i0, i1, i2, i3), &bits, is_f32 ? 4 : 2);
                    } else if (is_f32) {
                        *b.at<float>(i0, i1, i2, i3) = make_value(random, kind, true);
                    } else {
                        *b.at<ggml_fp16_t>(i0, i1, i2, i3) = ggml_fp32_to_fp16(make_value(random, kind, false));
                    }
                }
            }
        }
    }
}

// tiles of any codes, their scales and offsets finite or anything
static void fill_tiles(block & b, generator & random, bool poison) {
    const qlutattn_kernel_config & config = *qlutattn_get_kernel_config(b.t->type);
    for (int64_t i3 = 0; i3 < b.t->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < b.t->ne[2]; i2++) {
            for (int64_t i1 = 0; i1 < b.t->ne[1]; i1 += TILE) {
                uint8_t * tile = b.at<uint8_t>(0, i1, i2, i3);
                for (size_t i = 0; i < config.tile_bytes(); i += 2) {
                    uint16_t bits = random.bits();
                    if (i >= config.code_bytes() && !(poison && random.below(4) == 0)) {
                        bits &= bits & 0x4000 ? 0xbfff : 0xffff; // below 2
                    }
                    memcpy(tile + i, &bits, 2);
                }
            }
        }
    }
}

static void fill_mask(block & b, generator & random, mask_kind kind) {
    const int64_t shift = b.t->ne[0] - b.t->ne[1] + random.below(3);
    for (int64_t row = 0; row < b.t->ne[1] * b.t->ne[2] * b.t->ne[3]; row++) {
        ggml_fp16_t * to    = (ggml_fp16_t *) b.t->data + row * b.t->ne[0];
        const int     whole = random.below(4);
        for (int64_t i = 0; i < b.t->ne[0]; i++) {
            bool        hidden = false;
            ggml_fp16_t value  = 0;
            switch (kind) {
                case MASK_CAUSAL:
                    hidden = i > row % b.t->ne[1] + shift;
                    break;
                case MASK_HOLES:
                    hidden = random.below(2);
                    break;
                case MASK_ROWS: // none, all, one, some tiles
                    hidden = whole == 0 || (whole == 2 && i != row % b.t->ne[0]) || (whole == 3 && i / TILE % 2 == row % 2);
                    break;
                case MASK_VALUES:
                    hidden = random.below(4) == 0;
                    value  = ggml_fp32_to_fp16(random.uniform() * 20.0f);
                    break;
                default:
                    value = random.bits();
            }
            to[i] = hidden ? MINUS_INFINITY : value;
        }
    }
}

static const block * mask_of(const block_ptr & mask) {
    return mask && mask->t->ne[0] > 0 ? mask.get() : nullptr;
}

static float mask_value(const block * mask, int64_t token, int64_t iq, int64_t ih, int64_t i3) {
    return mask ? ggml_fp16_to_fp32(*mask->at<ggml_fp16_t>(token, iq, ih % mask->t->ne[2], i3 % mask->t->ne[3])) : 0.0f;
}

struct problem {
    settings       s;
    generator      random;
    choices        rest;
    ggml_context * ctx = nullptr;

    std::vector<block *> inputs;
    block_ptr            q, q_shifted, tile_shift, k, v, mask, kp, vp, k_source, v_source, maskp, sinks, result;
    ggml_cgraph *        graph = nullptr;

    problem(const settings & s, generator random, choices rest) : s(s), random(random), rest(rest) {
        ggml_init_params params = { ggml_tensor_overhead() * 32 + ggml_graph_overhead(), nullptr, true };
        ctx                     = ggml_init(params);
        make();
    }

    problem(const problem &) = delete;
    ~problem() { ggml_free(ctx); }

    block_ptr tensor(ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3, const layout & at = layout()) {
        return std::make_unique<block>(ggml_new_tensor_4d(ctx, type, ne0, ne1, ne2, ne3), at);
    }

    // bytes of the input over the data, and the whole remembered
    void input(block_ptr & b) {
        for (size_t i = 0; b->size > 0 && i < rest.size && random.below(2); i += 16) {
            const size_t to = random.bits() % b->size;
            // only over elements that are contiguous, the gaps stay as they are
            if (ggml_is_contiguous(b->t)) {
                memcpy(b->bytes + to, rest.data + i, std::min({ (size_t) 16, rest.size - i, b->size - to }));
            }
        }
        b->remember();
        inputs.push_back(b.get());
    }

    block_ptr make_mask(const segment & seg) {
        if (seg.mask == MASK_NONE || (seg.n == 0 && seg.is_null)) {
            return nullptr;
        }
        const int rows = s.n_q + seg.mask_spare;
        block_ptr b    = tensor(GGML_TYPE_F16, seg.n, rows, seg.mask_heads ? s.n_head() : 1, seg.mask_batches ? s.n_batch : 1);
        fill_mask(*b, random, seg.mask);
        b->remember();
        inputs.push_back(b.get());
        return b;
    }

    block_ptr make_packed(const packing & how, bool is_k, block_ptr & source) {
        if (how.is_f16) {
            block_ptr b = tensor(GGML_TYPE_F16, is_k ? s.head_dim_k : s.head_dim_v, s.packed.n, s.n_head_kv, s.n_batch, how.f16_layout);
            fill(*b, random, how.data);
            input(b);
            return b;
        }
        block_ptr b = tensor(how.type, TILE, s.packed.n, s.n_cols(is_k), s.n_batch, how.packed_layout);
        if (how.is_raw) {
            fill_tiles(*b, random, how.poison);
            input(b);
            return b;
        }
        source = tensor(how.source, TILE, s.packed.n, s.n_cols(is_k), s.n_batch, how.source_layout);
        fill(*source, random, how.data);
        input(source);

        // what must come of it, by the scalar packer
        b->remember();
        const qlutattn_kernel_config & config = *qlutattn_get_kernel_config(how.type);
        const size_t *                 nb     = source->t->nb;
        std::vector<uint8_t>           tile(config.tile_bytes());
        for (int64_t i3 = 0; i3 < s.n_batch; i3++) {
            for (int64_t i2 = 0; i2 < s.n_cols(is_k); i2++) {
                for (int64_t i1 = 0; i1 < s.packed.n; i1 += TILE) {
                    qlutattn_pack_source from = {};
                    from.type                 = how.source;
                    from.data                 = source->at<char>(0, i1, i2, i3);
                    from.nb_lane              = config.lane_is_token ? nb[1] : nb[0];
                    from.nb_depth             = config.lane_is_token ? nb[0] : nb[1];
                    qlutattn_pack_tile_scalar(config, from, tile.data());
                    memcpy(b->expected.data() + (b->at<uint8_t>(0, i1, i2, i3) - b->bytes), tile.data(), tile.size());
                }
            }
        }
        return b;
    }

    void make_shifts(ggml_tensor * out) {
        q_shifted  = tensor(GGML_TYPE_F32, s.head_dim_k, s.n_q, s.n_head(), s.n_shift * s.n_batch, s.q_layout);
        tile_shift = tensor(GGML_TYPE_I32, s.packed.n / TILE, s.n_batch, 1, 1);
        fill(*q_shifted, random, s.q_data);
        input(q_shifted);
        for (int64_t i = 0; i < ggml_nelements(tile_shift->t); i++) {
            ((int32_t *) tile_shift->t->data)[i] = random.below(s.n_shift + 1);
        }
        tile_shift->remember();
        inputs.push_back(tile_shift.get());
        ggml_flash_attn_ext_mixed_set_shifts(out, q_shifted->t, tile_shift->t);
    }

    void make() {
        q = tensor(GGML_TYPE_F32, s.head_dim_k, s.n_q, s.n_head(), s.n_batch, s.q_layout);
        fill(*q, random, s.q_data);
        input(q);
        if (s.window.n > 0 || !s.window.is_null) {
            k = tensor(GGML_TYPE_F16, s.head_dim_k, s.window.n, s.n_head_kv, s.n_batch, s.k_layout);
            v = tensor(GGML_TYPE_F16, s.head_dim_v, s.window.n, s.n_head_kv, s.n_batch, s.v_layout);
            fill(*k, random, s.k_data);
            fill(*v, random, s.v_data);
            input(k);
            input(v);
        }
        mask = make_mask(s.window);
        if (s.packed.n > 0 || !s.packed.is_null) {
            kp = make_packed(s.k, true, k_source);
            vp = make_packed(s.v, false, v_source);
        }
        maskp = make_mask(s.packed);
        if (s.sinks) {
            sinks = tensor(GGML_TYPE_F32, s.n_head(), 1, 1, 1);
            fill(*sinks, random, s.sinks == 1 ? DATA_PLAIN : DATA_LARGE);
            sinks->remember();
            inputs.push_back(sinks.get());
        }

        const auto data = [](const block_ptr & b) {
            return b ? b->t : nullptr;
        };
        const auto pack = [&](const block_ptr & source, const block_ptr & b) {
            return source ? ggml_cpy(ctx, source->t, b->t) : data(b);
        };
        ggml_tensor * out = ggml_flash_attn_ext_mixed(ctx, q->t, data(k), data(v), data(mask), pack(k_source, kp), pack(v_source, vp), data(maskp),
                                                      data(sinks), s.n_head_kv, s.head_dim_v, s.scale, s.max_bias, s.softcap);
        if (kp && s.n_shift > 0) {
            make_shifts(out);
        }
        result = std::make_unique<block>(out, layout());
        graph  = ggml_new_graph(ctx);
        ggml_build_forward_expand(graph, out);
    }

    // the result, everything else checked
    std::vector<uint8_t> compute(int n_threads) {
        static ggml_backend_t backends[4];
        ggml_backend_t &      backend = backends[n_threads];
        if (!backend) {
            backend                       = ggml_backend_cpu_init();
            ggml_threadpool_params params = ggml_threadpool_params_default(n_threads);
            params.poll                   = 0; // the fuzzer has better use for the cores
            ggml_backend_cpu_set_n_threads(backend, n_threads);
            ggml_backend_cpu_set_threadpool(backend, ggml_threadpool_new(&params));
        }
        memset(result->bytes, 0xff, result->size);
        for (const auto & [b, source] : { std::make_pair(&kp, &k_source), std::make_pair(&vp, &v_source) }) {
            if (*source) {
                memset((*b)->bytes, 0xff, (*b)->size);
            }
        }
        if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) {
            fail("the CPU backend refused the graph");
        }
        for (block * b : inputs) {
            b->check("a source of the graph has changed");
        }
        for (const auto & [b, source] : { std::make_pair(&kp, &k_source), std::make_pair(&vp, &v_source) }) {
            if (*source) {
                (*b)->check(b == &kp ? "packed K is not what the scalar packer makes" : "packed V is not what the scalar packer makes");
            }
        }
        return std::vector<uint8_t>(result->bytes, result->bytes + result->size);
    }

    float length_of_queries(int64_t iq, int64_t ih, int64_t i3) const;
    void  check_rows() const;
};
