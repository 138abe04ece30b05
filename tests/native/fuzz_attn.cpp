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

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml-qlutattn.h"
#include "ggml.h"
#include "pack-tile.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

static constexpr int         TILE           = 128;
static constexpr ggml_fp16_t MINUS_INFINITY = 0xfc00;
static constexpr int64_t     MOST_PRODUCTS  = 1 << 21; // of q and k in a case, so that it takes some ten milliseconds
static constexpr int64_t     MOST_TILES     = 6;       // of K, and as many of V

// bytes that choose, zeros when they run out
struct choices {
    const uint8_t * data;
    size_t          size;

    int below(int n) {
        const int high = byte();
        return (high * 256 + byte()) % n;
    }

    int between(int low, int high) { return low + below(high - low + 1); }

    bool maybe() { return byte() & 1; }

    int byte() { return size > 0 ? (size--, *data++) : 0; }
};

// splitmix64
struct generator {
    uint64_t state;

    uint64_t bits() {
        uint64_t z = state += 0x9e3779b97f4a7c15;
        z          = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z          = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

    int below(int n) { return bits() % n; }

    float uniform() { return (int32_t) bits() / 2147483648.0f; } // [-1, 1)
};

enum data_kind { DATA_PLAIN, DATA_FEW, DATA_LARGE, DATA_TINY, DATA_SCALES, DATA_SPECIAL, DATA_BITS, DATA_KINDS };
enum mask_kind { MASK_NONE, MASK_CAUSAL, MASK_HOLES, MASK_ROWS, MASK_VALUES, MASK_BITS, MASK_KINDS };

// where a tensor's elements are: its dimensions from the innermost out, and what lies before and behind in each
struct layout {
    int order[4]  = { 0, 1, 2, 3 };
    int before[4] = { 0 };
    int behind[4] = { 0 };
};

struct segment {
    int       n;       // tokens
    bool      is_null; // an empty segment is no tensors, or empty ones
    mask_kind mask;
    bool      mask_heads;
    bool      mask_batches;
    int       mask_spare; // rows that no query has
};

// how the tiles of K or V come about
struct packing {
    ggml_type type;
    bool      is_f16; // no tiles: this side of the packed segment is like the window's
    bool      is_raw; // any bytes
    bool      poison; // raw: scales and offsets are any bytes too
    ggml_type source;
    data_kind data;
    layout    source_layout;
    layout    packed_layout;
    layout    f16_layout;
};

struct settings {
    int       head_dim;
    int       n_head_kv;
    int       group;
    int       n_q;
    int       n_batch;
    int       n_threads;
    segment   window;
    segment   packed;
    packing   k;
    packing   v;
    data_kind q_data;
    data_kind k_data;
    data_kind v_data;
    layout    q_layout;
    layout    k_layout;
    layout    v_layout;
    float     scale;
    float     max_bias;
    float     softcap;
    int       sinks; // none, plain, large

    int n_head() const { return n_head_kv * group; }
    int n_cols() const { return n_head_kv * head_dim / TILE; }
};

// which dimensions may lie inside which: not at all, all but the first, all
static layout choose_layout(choices & in, int first_free, int token_unit) {
    static const int orders[][4] = {
        { 0, 1, 2, 3 },
        { 0, 2, 1, 3 },
        { 0, 1, 3, 2 },
        { 0, 3, 2, 1 },
        { 1, 0, 2, 3 },
        { 1, 2, 0, 3 },
        { 2, 0, 1, 3 }
    };
    layout at;
    std::copy_n(orders[in.below(first_free == 0 ? 7 : 4)], 4, at.order);
    const int pads = in.byte();
    for (int i = 0; i < 4; i++) {
        const int unit = i == 1 ? token_unit : 1;
        at.before[i]   = pads >> i & 1 ? in.below(3) * unit : 0;
        at.behind[i]   = pads >> (4 + i) & 1 ? in.below(3) * unit : 0;
    }
    return at;
}

// the packed types of a side
static std::vector<ggml_type> types_of(bool is_k) {
    std::vector<ggml_type> types;
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const qlutattn_kernel_config * config = qlutattn_get_kernel_config((ggml_type) i);
        if (config && config->lane_is_token == is_k) {
            types.push_back(config->type);
        }
    }
    return types;
}

static packing choose_packing(choices & in, bool is_k) {
    static const std::vector<ggml_type> types[] = { types_of(false), types_of(true) };

    packing p;
    p.type                       = types[is_k][in.below((int) types[is_k].size())];
    p.is_f16                     = in.below(4) == 0;
    p.is_raw                     = in.maybe();
    p.poison                     = in.below(4) == 0;
    p.source                     = in.maybe() ? GGML_TYPE_F32 : GGML_TYPE_F16;
    p.data                       = (data_kind) in.below(DATA_KINDS);
    p.source_layout              = choose_layout(in, 0, 1);
    // a tile lies as it is: elements of a row, then the rows of a tile
    static const int orders[][4] = {
        { 0, 1, 2, 3 },
        { 0, 1, 3, 2 }
    };
    p.packed_layout = choose_layout(in, 1, TILE);
    std::copy_n(orders[in.below(2)], 4, p.packed_layout.order);
    p.packed_layout.before[0] = p.packed_layout.behind[0] = 0;
    p.f16_layout                                          = choose_layout(in, 1, 1);
    return p;
}

static segment choose_segment(choices & in, int n) {
    segment s;
    s.n            = n;
    s.is_null      = in.maybe();
    s.mask         = (mask_kind) in.below(MASK_KINDS);
    s.mask_heads   = in.maybe();
    s.mask_batches = in.maybe();
    s.mask_spare   = in.below(3);
    return s;
}

static settings choose(choices & in) {
    settings s;
    s.head_dim  = 64 << in.below(3);
    s.n_head_kv = in.between(1, 4);
    s.group     = in.maybe() ? in.between(1, 4) : in.between(1, 20);
    s.n_q       = in.maybe() ? in.between(1, 3) : in.between(1, 40);
    s.n_batch   = in.between(1, 2);
    s.n_threads = in.below(4) == 0 ? 3 : 2;
    s.window    = choose_segment(in, in.maybe() ? in.between(0, 600) : in.between(0, 20));
    s.packed    = choose_segment(in, in.between(0, 6) * TILE);
    s.k         = choose_packing(in, true);
    s.v         = choose_packing(in, false);
    s.v.is_f16 &= !s.k.is_f16; // one of the two at most
    s.q_data   = (data_kind) in.below(DATA_KINDS);
    s.k_data   = (data_kind) in.below(DATA_KINDS);
    s.v_data   = (data_kind) in.below(DATA_KINDS);
    s.q_layout = choose_layout(in, 1, 1);
    s.k_layout = choose_layout(in, 1, 1);
    s.v_layout = choose_layout(in, 1, 1);

    static const float scales[] = { 1.0f, -0.5f, 0.0f, 100.0f };
    static const float caps[]   = { 0.0f, 0.0f, 30.0f, 0.5f };
    const int          scale    = in.below(8);
    s.scale                     = scale < 4 ? scales[scale] : 1.0f / sqrtf(s.head_dim);
    s.softcap                   = caps[in.below(4)];
    const bool has_masks        = (s.window.n == 0 || s.window.mask != MASK_NONE) && (s.packed.n == 0 || s.packed.mask != MASK_NONE);
    s.max_bias                  = in.below(3) == 0 && has_masks ? in.between(1, 16) : 0.0f;
    s.sinks                     = in.below(3);

    // whole tiles, and few enough of everything
    if (s.head_dim == 64) {
        s.n_head_kv += s.n_head_kv % 2;
    }
    if (s.packed.n / TILE * s.n_cols() * s.n_batch > MOST_TILES) {
        s.n_head_kv = s.head_dim == 64 ? 2 : 1;
        s.n_batch   = s.packed.n / TILE * s.n_cols() * s.n_batch > MOST_TILES ? 1 : s.n_batch;
    }
    const auto too_much = [&] {
        return (int64_t) s.n_q * s.n_head() * s.n_batch * (s.window.n + s.packed.n) * s.head_dim > MOST_PRODUCTS;
    };
    while (too_much() && s.n_q > 1 && s.n_q >= s.group) {
        s.n_q--;
    }
    while (too_much() && s.group > 1) {
        s.group--;
    }
    while (too_much() && s.n_q > 1) {
        s.n_q--;
    }
    return s;
}

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
    fprintf(stderr, "\n  head size %d, kv heads %d, group %d, queries %d, batch %d, threads %d, window %d (mask %d), packed %d (mask %d)",
            now.head_dim, now.n_head_kv, now.group, now.n_q, now.n_batch, now.n_threads, now.window.n, now.window.mask, now.packed.n,
            now.packed.mask);
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
    block_ptr            q, k, v, mask, kp, vp, k_source, v_source, maskp, sinks, result;
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

    block_ptr make_packed(const packing & how, block_ptr & source) {
        if (how.is_f16) {
            block_ptr b = tensor(GGML_TYPE_F16, s.head_dim, s.packed.n, s.n_head_kv, s.n_batch, how.f16_layout);
            fill(*b, random, how.data);
            input(b);
            return b;
        }
        block_ptr b = tensor(how.type, TILE, s.packed.n, s.n_cols(), s.n_batch, how.packed_layout);
        if (how.is_raw) {
            fill_tiles(*b, random, how.poison);
            input(b);
            return b;
        }
        source = tensor(how.source, TILE, s.packed.n, s.n_cols(), s.n_batch, how.source_layout);
        fill(*source, random, how.data);
        input(source);

        // what must come of it, by the scalar packer
        b->remember();
        const qlutattn_kernel_config & config = *qlutattn_get_kernel_config(how.type);
        const size_t *                 nb     = source->t->nb;
        std::vector<uint8_t>           tile(config.tile_bytes());
        for (int64_t i3 = 0; i3 < s.n_batch; i3++) {
            for (int64_t i2 = 0; i2 < s.n_cols(); i2++) {
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

    void make() {
        q = tensor(GGML_TYPE_F32, s.head_dim, s.n_q, s.n_head(), s.n_batch, s.q_layout);
        fill(*q, random, s.q_data);
        input(q);
        if (s.window.n > 0 || !s.window.is_null) {
            k = tensor(GGML_TYPE_F16, s.head_dim, s.window.n, s.n_head_kv, s.n_batch, s.k_layout);
            v = tensor(GGML_TYPE_F16, s.head_dim, s.window.n, s.n_head_kv, s.n_batch, s.v_layout);
            fill(*k, random, s.k_data);
            fill(*v, random, s.v_data);
            input(k);
            input(v);
        }
        mask = make_mask(s.window);
        if (s.packed.n > 0 || !s.packed.is_null) {
            kp = make_packed(s.k, k_source);
            vp = make_packed(s.v, v_source);
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
                                                      data(sinks), s.n_head_kv, s.scale, s.max_bias, s.softcap);
        result            = std::make_unique<block>(out, layout());
        graph             = ggml_new_graph(ctx);
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

    void check_rows() const;
};

// What may come of a row: NaN or not, and the span of each channel.
struct outlook {
    bool  sees_any = false;
    bool  is_nan   = false; // sees a poisoned K lane
    bool  is_tame  = true;  // else anything may come of it
    float low[256];
    float high[256];
    bool  wild[256]     = { false }; // sees an infinite or NaN value
    bool  poisoned[256] = { false }; // sees a tile with a poisoned V lane

    outlook() {
        std::fill_n(low, 256, INFINITY);
        std::fill_n(high, 256, -INFINITY);
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
                for (int c = 0; c < s.head_dim; c += TILE) {
                    const auto [offset, radius] = lane(*p.kp, token / TILE, (ikv * s.head_dim + c) / TILE, i3, token % TILE);
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
            for (int64_t c = ikv * s.head_dim; c < (ikv + 1) * s.head_dim; c++) {
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
        const float                    level  = (float) config.levels[(1 << config.bits) - 1] / QLUTATTN_LEVEL_UNIT;
        const float                    offset = config.has_offset ? ggml_fp16_to_fp32(config.offsets(data)[i]) : 0.0f;
        return { offset, std::fabs(ggml_fp16_to_fp32(config.scales(data)[i])) * level };
    }
};

void problem::check_rows() const {
    const block * m  = mask_of(mask);
    const block * mp = mask_of(maskp);

    for (int64_t i3 = 0; i3 < s.n_batch; i3++) {
        for (int64_t ikv = 0; ikv < s.n_head_kv; ikv++) {
            const facts about(*this, ikv, i3);
            for (int64_t ih = ikv * s.group; ih < (ikv + 1) * s.group; ih++) {
                for (int64_t iq = 0; iq < s.n_q; iq++) {
                    outlook o;
                    float   key = 0.0f; // largest
                    for (int64_t token = 0; token < s.window.n; token++) {
                        if (o.see(mask_value(m, token, iq, ih, i3))) {
                            o.is_tame &= std::isfinite(about.k_size[token]);
                            key = std::max(key, about.k_size[token]);
                            for (int c = 0; c < s.head_dim; c++) {
                                o.take(c, about.values[token * s.head_dim + c], 0.0f);
                            }
                        }
                    }
                    for (int64_t tile = 0; tile < s.packed.n / TILE; tile++) {
                        bool seen = false;
                        for (int64_t token = tile * TILE; token < (tile + 1) * TILE; token++) {
                            if (o.see(mask_value(mp, token, iq, ih, i3))) {
                                seen = true;
                                if (kp->t->type == GGML_TYPE_F16) {
                                    o.is_tame &= std::isfinite(about.kp_size[token]);
                                }
                                o.is_nan |= std::isnan(about.kp_size[token]);
                                o.is_tame &= !std::isinf(about.kp_size[token]);
                                key = std::max(key, about.kp_size[token]);
                                for (int c = 0; c < s.head_dim && !about.vp_values.empty(); c++) {
                                    o.take(c, about.vp_values[token * s.head_dim + c], 0.0f);
                                }
                            }
                        }
                        for (int c = 0; c < s.head_dim && seen && about.vp_values.empty(); c++) {
                            // a tile's weights are rounded to integers with a step of about 1/64 of the largest of them, or less: 128 halves of
                            // that are the largest weight once more
                            const float radius = about.v_radius[tile * s.head_dim + c];
                            o.take(c, about.v_offset[tile * s.head_dim + c], 2.0f * radius);
                            o.poisoned[c] |= std::isnan(radius);
                        }
                    }
                    float length = 0.0f; // of q: sum of magnitudes
                    for (int c = 0; c < s.head_dim; c++) {
                        length += std::fabs(*q->at<float>(c, iq, ih, i3));
                    }
                    // no score overflows, nor the sum of q times the levels of a lane, which its scale multiplies; false for NaN
                    o.is_tame &= length * std::max(key, 1.0f) < 1e28f;
                    if (sinks) {
                        for (int c = 0; c < s.head_dim; c++) {
                            o.take(c, 0.0f, 0.0f);
                        }
                    }
                    for (int c = 0; c < s.head_dim; c++) {
                        const float y     = *result->at<float>(c, ih, iq, i3);
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
                                wrong(o.is_nan ? "a visible K lane is poisoned, the row must be NaN" :
                                                 "a V lane is poisoned, the channel must be NaN");
                            }
                        } else if (!o.wild[c] && !(y >= o.low[c] - slack && y <= o.high[c] + slack)) {
                            fprintf(stderr, "fuzz_attn: visible values go from %g to %g\n", o.low[c], o.high[c]);
                            wrong("outside of what the visible values span");
                        }
                    }
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
