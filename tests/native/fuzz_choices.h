// What an input of fuzz_attn chooses: shapes, types, layouts, masks and kinds of data.

#pragma once

#include "ggml-qlutattn.h"
#include "ggml.h"
#include "qlutattn-config.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

static constexpr int         TILE           = GGML_QLUTATTN_TILE;
static constexpr int         MAX_HEAD       = 640;
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
    int       head_dim_k;
    int       head_dim_v;
    int       n_head_kv;
    int       group;
    int       n_q;
    int       n_batch;
    int       n_threads;
    int       n_shift; // sets of turned queries
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
    int n_cols(bool is_k) const { return (n_head_kv * (is_k ? head_dim_k : head_dim_v) + TILE - 1) / TILE; }
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
    s.head_dim_k = s.head_dim_v = 64 << in.below(3);
    s.n_head_kv                 = in.between(1, 4);
    s.group                     = in.maybe() ? in.between(1, 4) : in.between(1, 20);
    s.n_q                       = in.maybe() ? in.between(1, 3) : in.between(1, 40);
    s.n_batch                   = in.between(1, 2);
    s.n_threads                 = in.below(4) == 0 ? 3 : 2;
    s.window                    = choose_segment(in, in.maybe() ? in.between(0, 600) : in.between(0, 20));
    s.packed                    = choose_segment(in, in.between(0, 6) * TILE);
    s.k                         = choose_packing(in, true);
    s.v                         = choose_packing(in, false);
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
    s.scale                     = scale < 4 ? scales[scale] : 1.0f / sqrtf(s.head_dim_k);
    s.softcap                   = caps[in.below(4)];
    const bool has_masks        = (s.window.n == 0 || s.window.mask != MASK_NONE) && (s.packed.n == 0 || s.packed.mask != MASK_NONE);
    s.max_bias                  = in.below(3) == 0 && has_masks ? in.between(1, 16) : 0.0f;
    s.sinks                     = in.below(3);

    // any other head sizes; the choices come last, so that inputs from before there were any still mean the same
    const int others = in.below(8);
    if (others == 1 || others == 2) {
        s.head_dim_k = 64 * in.between(1, 10);
        s.head_dim_v = others == 1 ? s.head_dim_k : 64 * in.between(1, 10);
    } else if (s.head_dim_k == 64) {
        s.n_head_kv += s.n_head_kv % 2;
    }
    s.n_shift = in.below(8) == 1 ? in.between(1, 15) : 0;

    // few enough of everything
    const auto n_tiles = [&] {
        return s.packed.n / TILE * std::max(s.n_cols(true), s.n_cols(false)) * s.n_batch;
    };
    if (n_tiles() > MOST_TILES) {
        s.n_head_kv = s.head_dim_k == 64 ? 2 : 1;
        s.n_batch   = n_tiles() > MOST_TILES ? 1 : s.n_batch;
    }
    while (n_tiles() > MOST_TILES && s.packed.n > TILE) {
        s.packed.n -= TILE;
    }
    const auto too_much = [&] {
        const int64_t head_dim = std::max(s.head_dim_k, s.head_dim_v);
        return (int64_t) s.n_q * s.n_head() * s.n_batch * (s.window.n + s.packed.n) * head_dim > MOST_PRODUCTS;
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
