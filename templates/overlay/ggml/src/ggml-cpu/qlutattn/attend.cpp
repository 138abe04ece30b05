#include "attend.h"

#include "attend-f16.h"
#include "attend-softmax.h"
#include "ggml-impl.h"
#include "simd-f32.h"

#include <algorithm>
#include <cmath>

namespace f32 = qlutattn_f32;

qlutattn_head_tiles qlutattn_get_head_tiles(int head_dim, int64_t ikv, int n) {
    qlutattn_head_tiles tiles;
    tiles.n = 0;
    for (int in_head = 0; in_head < n;) {
        const int64_t channel    = ikv * head_dim + in_head;
        const int     channel0   = channel % PACK_SIZE;
        const int     n_channels = std::min(PACK_SIZE - channel0, n - in_head);
        tiles.spans[tiles.n++]   = { channel / PACK_SIZE, channel0, n_channels, in_head };
        in_head += n_channels;
    }
    return tiles;
}

// How many columns of tiles a head lies in. One of whole tiles begins with a tile; else it begins or ends within one, and never both.
static int n_spans(int head_dim) {
    return (head_dim + PACK_SIZE - 1) / PACK_SIZE;
}

static size_t qvec_bytes(const qlutattn_block_shape & shape) {
    return (size_t) shape.n_sets * n_spans(shape.head_dim_k) * QLUTATTN_ROWS * sizeof(qlutattn_qvec);
}

static size_t out_bytes(const qlutattn_block_shape & shape) {
    return QLUTATTN_ROWS * shape.head_dim_v * sizeof(float);
}

size_t qlutattn_block_size(const qlutattn_block_shape & shape) {
    const size_t int8 = shape.is_int8 ? qlutattn_int8_size(shape.head_dim_k, shape.head_dim_v) : 0;
    return sizeof(qlutattn_query_block) + shape.n_run * (qvec_bytes(shape) + out_bytes(shape)) + int8;
}

qlutattn_query_block & qlutattn_place_block(void * memory, const qlutattn_block_shape & shape) {
    qlutattn_query_block & block = *(qlutattn_query_block *) memory;
    block.head_dim_k             = shape.head_dim_k;
    block.head_dim_v             = shape.head_dim_v;
    block.is_int8                = shape.is_int8;
    char * free                  = (char *) (&block + 1);
    for (int i = 0; i < shape.n_run; i++) {
        block.run[i].q_qvec = (qlutattn_qvec *) free;
        block.run[i].out    = (float *) (free + qvec_bytes(shape));
        free += qvec_bytes(shape) + out_bytes(shape);
    }
    if (shape.is_int8) {
        block.int8 = qlutattn_place_int8(free, shape.head_dim_k, shape.head_dim_v);
    }
    return block;
}

// the rows of a query block to which some key of a KV block is visible
struct qlutattn_visible_rows {
    int                 n = 0;
    int                 rows[QLUTATTN_ROWS];
    const ggml_fp16_t * masks[QLUTATTN_ROWS]; // NULL where all keys are visible and the mask is 0

    // keys outside of these are hidden from all of them
    int first_key = QLUTATTN_KV_BLOCK;
    int last_key  = 0;
};

static const ggml_fp16_t * mask_at(const ggml_tensor * mask, const qlutattn_row & row, int64_t i3, int64_t token) {
    return (const ggml_fp16_t *) ((const char *) mask->data + row.iq * mask->nb[1] + row.ih % mask->ne[2] * mask->nb[2] +
                                  i3 % mask->ne[3] * mask->nb[3]) +
           token;
}

static constexpr ggml_fp16_t F16_MINUS_INFINITY = 0xfc00;

// let first_key..last_key cover the visible keys of one more row
static void widen_to_visible(qlutattn_visible_rows & visible, const ggml_fp16_t * mask, int n) {
    int first = 0;
    while (first < visible.first_key && mask[first] == F16_MINUS_INFINITY) {
        first++;
    }
    int last = n;
    while (last > visible.last_key && mask[last - 1] == F16_MINUS_INFINITY) {
        last--;
    }
    visible.first_key = std::min(visible.first_key, first);
    visible.last_key  = std::max(visible.last_key, last);
}

static qlutattn_visible_rows visible_rows(const qlutattn_query_block & block, const ggml_tensor * mask, int64_t token, int n) {
    constexpr ggml_fp16_t sign = 0x8000;

    qlutattn_visible_rows visible;
    if (!mask) {
        visible.first_key = 0;
        visible.last_key  = n;
    }
    const ggml_fp16_t * last_mask = nullptr; // of the last row: rows of a query often share one
    bool                any       = true;
    bool                all_zero  = true;
    for (int r = 0; r < block.rows->n; r++) {
        const ggml_fp16_t * row_mask = mask ? mask_at(mask, block.rows->at[r], block.i3, token) : nullptr;
        if (row_mask != last_mask) {
            last_mask                = row_mask;
            ggml_fp16_t not_zero     = 0;
            ggml_fp16_t not_infinity = 0;
            for (int i = 0; i < n; i++) { // vectorized
                not_zero |= row_mask[i];
                not_infinity |= row_mask[i] ^ F16_MINUS_INFINITY;
            }
            any      = not_infinity != 0;
            all_zero = (not_zero & ~sign) == 0;
            if (any) {
                widen_to_visible(visible, row_mask, n);
            }
        }
        if (any) {
            visible.rows[visible.n]    = r;
            visible.masks[visible.n++] = all_zero ? nullptr : row_mask;
        }
    }
    return visible;
}

// The keys or the values of a KV block: tiles of a packed tensor, tiles of 8 bits made of f16, or f16 itself.
struct kv_side {
    const qlutattn_kernel_config * config; // NULL: f16
    const qlutattn_head_tiles *    tiles;  // of this head
    const char *                   data;   // the first column of tiles, or the first token
    size_t                         nb;     // from a column to the next, or from a token

    const char * tile(int64_t column) const { return data + column * nb; }
};

static kv_side side_at(const ggml_tensor * t, const qlutattn_query_block & block, const qlutattn_head_tiles & tiles, int64_t token) {
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(t->type);
    const char *                   data   = (const char *) t->data + token * t->nb[1] + block.i3 * t->nb[3];
    return config ? kv_side{ config, &tiles, data, t->nb[2] } : kv_side{ nullptr, nullptr, data + block.ikv * t->nb[2], t->nb[1] };
}

static float f32_dot(const float * x, const float * y, int n) {
    f32::vec sum = f32::broadcast(0.0f);
    for (int i = 0; i < n; i += f32::WIDTH) {
        sum = f32::fma(f32::load(x + i), f32::load(y + i), sum);
    }
    return f32::reduce_add(sum);
}

// the scales (times level_scale) and offsets of a tile's lanes, as f32
static void load_lanes(qlutattn_query_block & block, const qlutattn_kernel_config & config, const char * tile, const qlutattn_span & span,
                       float level_scale) {
    for (int i = 0; i < span.n_lanes; i += f32::WIDTH) {
        f32::store(block.lane_scale + i, f32::mul(f32::from_f16(config.scales(tile) + span.lane0 + i), f32::broadcast(level_scale)));
        f32::store(block.lane_offset + i, config.has_offset ? f32::from_f16(config.offsets(tile) + span.lane0 + i) : f32::broadcast(0.0f));
    }
}

// y[i] = scale[i]*(d*acc[i]) + offset[i]*sum + base, or added to y[i]
template <bool add_to_y>
static void accumulate_lanes(const qlutattn_query_block & block, const int32_t * acc, int n, float d, float sum, float base, float * y) {
    for (int i = 0; i < n; i += f32::WIDTH) {
        const f32::vec scaled = f32::mul(f32::from_i32(acc + i), f32::broadcast(d));
        const f32::vec before = add_to_y ? f32::load(y + i) : f32::broadcast(base);
        const f32::vec offset = f32::fma(f32::load(block.lane_offset + i), f32::broadcast(sum), before);
        f32::store(y + i, f32::fma(f32::load(block.lane_scale + i), scaled, offset));
    }
}

// y[i] = factor times (the tile times the vector of visible row i, plus base[i]), or without base, added to y[i]
template <bool add_to_y>
static void accumulate_tile(qlutattn_query_block & block, const qlutattn_visible_rows & visible, const qlutattn_kernel_config & config,
                            const char * tile, const qlutattn_span & span, const qlutattn_qvec * qvecs, float factor, const float * base,
                            float * const * y) {
    const qlutattn_qvec * x[QLUTATTN_ROWS];
    for (int i = 0; i < visible.n; i++) {
        x[i] = qvecs + visible.rows[i];
    }
    qlutattn_tile_gemm(config, qlutattn_get_kernel(config.type), tile, span, x, visible.n, block.acc);
    load_lanes(block, config, tile, span, config.level_scale());
    for (int i = 0; i < visible.n; i++) {
        accumulate_lanes<add_to_y>(block, block.acc[i], span.n_lanes, x[i]->d * factor, x[i]->sum * factor, add_to_y ? 0.0f : base[i] * factor, y[i]);
    }
}

// the set of queries that a tile's keys are multiplied by
static int set_of_tile(const qlutattn_query_block & block, int64_t token) {
    const ggml_tensor * tiles = block.shifts.tiles;
    if (!tiles) {
        return 0;
    }
    const int set = ((const int32_t *) ((const char *) tiles->data + block.i3 * tiles->nb[1]))[token / PACK_SIZE];
    GGML_ASSERT(set >= 0 && set < block.shifts.n_sets());
    return set;
}

static const float * query_of(const qlutattn_query_block & block, int r, int set) {
    const qlutattn_row & row = block.rows->at[r];
    if (set == 0) {
        return row.q;
    }
    const ggml_tensor * q = block.shifts.q;
    return (const float *) ((const char *) q->data + row.iq * q->nb[1] + row.ih * q->nb[2] +
                            ((set - 1) * block.shifts.n_batch + block.i3) * q->nb[3]);
}

// the queries of a set, quantized when they are first asked for: those of span i from i*QLUTATTN_ROWS on
static const qlutattn_qvec * quantized_queries(qlutattn_query_block & block, const qlutattn_kernel_config & config, const qlutattn_head_tiles & tiles,
                                               int set) {
    qlutattn_qvec * qvecs = block.rows->q_qvec + set * n_spans(block.head_dim_k) * QLUTATTN_ROWS;
    if (block.rows->quantized_sets >> set & 1) {
        return qvecs;
    }
    const qlutattn_kernel kernel = qlutattn_get_kernel(config.type);
    for (int i = 0; i < tiles.n; i++) {
        const qlutattn_head_tiles::span & at = tiles.spans[i];
        for (int r = 0; r < block.rows->n; r++) {
            qlutattn_quantize_x(config, kernel, query_of(block, r, set) + at.in_head, at.n_channels, qvecs[i * QLUTATTN_ROWS + r]);
        }
    }
    block.rows->quantized_sets |= 1u << set;
    return qvecs;
}

// q.k of a KV block, scaled: with a softcap, by what stands within its tanh. mean, or NULL, is what the keys of tiles lack.
static void compute_scores(qlutattn_query_block & block, const qlutattn_visible_rows & visible, const kv_side & k, const float * mean, int set,
                           int n) {
    float *       scores[QLUTATTN_ROWS];
    const float * q[QLUTATTN_ROWS];
    float         base[QLUTATTN_ROWS];
    for (int i = 0; i < visible.n; i++) {
        scores[i] = block.scores[visible.rows[i]];
        q[i]      = block.rows->at[visible.rows[i]].q;
        base[i]   = mean ? f32_dot(q[i], mean, block.head_dim_k) : 0.0f;
    }
    const float scale = block.softcap == 0.0f ? block.scale : block.scale / block.softcap;
    if (!k.config) {
        qlutattn_compute_scores_f16(k.data, k.nb, n, block.head_dim_k, q, visible.n, scale, scores);
        return;
    }
    const qlutattn_qvec * qvecs = quantized_queries(block, *k.config, *k.tiles, set);
    for (int i = 0; i < k.tiles->n; i++) {
        const qlutattn_head_tiles::span & at   = k.tiles->spans[i];
        const qlutattn_span               span = { at.channel0, at.n_channels, 0, PACK_SIZE };
        const auto                        fill = i == 0 ? accumulate_tile<false> : accumulate_tile<true>;
        fill(block, visible, *k.config, k.tile(at.column), span, qvecs + i * QLUTATTN_ROWS, scale, base, scores);
    }
}

// out += weights times the values of a KV block
static void accumulate_pv(qlutattn_query_block & block, const qlutattn_visible_rows & visible, const kv_side & v, int n) {
    float *       out[QLUTATTN_ROWS];
    const float * weights[QLUTATTN_ROWS];
    for (int i = 0; i < visible.n; i++) {
        out[i]     = block.out(visible.rows[i]);
        weights[i] = block.scores[visible.rows[i]];
    }
    if (!v.config) {
        qlutattn_accumulate_pv_f16(v.data, v.nb, n, block.head_dim_v, weights, visible.n, out);
        return;
    }
    for (int t = 0; t < v.tiles->n; t++) {
        const qlutattn_head_tiles::span & at   = v.tiles->spans[t];
        const qlutattn_span               span = { 0, PACK_SIZE, at.channel0, at.n_channels };
        accumulate_tile<true>(block, visible, *v.config, v.tile(at.column), span, block.p_qvec, 1.0f, nullptr, out);
        for (int i = 0; i < visible.n; i++) {
            out[i] += at.n_channels;
        }
    }
}

// The weights of a tile's tokens times their scales, quantized; sum is that of the weights times the offsets. A weight of 0 hides a scale or an
// offset that is not finite.
static void quantize_scaled_weights(const qlutattn_query_block & block, const float * weights, qlutattn_qvec & qvec) {
    constexpr float tiny = 1e-30f;

    alignas(64) float scaled[PACK_SIZE];
    f32::vec          largest = f32::broadcast(0.0f);
    f32::vec          sum     = f32::broadcast(0.0f);
    for (int i = 0; i < PACK_SIZE; i += f32::WIDTH) {
        const f32::vec weight = f32::load(weights + i);
        const f32::vec x      = f32::unless_zero(weight, f32::mul(weight, f32::load(block.lane_scale + i)));
        f32::store(scaled + i, x);
        largest = f32::max(x, largest);
        sum     = f32::add(sum, f32::unless_zero(weight, f32::mul(weight, f32::load(block.lane_offset + i))));
    }
    const float max  = f32::reduce_max(largest);
    const bool  some = max >= tiny && !std::isinf(max);
    const float id   = some ? QLUTATTN_QMAX_TRANSPOSED / max : 0.0f;
    for (int i = 0; i < PACK_SIZE; i += f32::WIDTH) {
        f32::store_i8(qvec.qs + i, f32::mul(f32::load(scaled + i), f32::broadcast(id)));
    }
    qvec.sum = f32::reduce_add(sum);
    qvec.d   = some ? max / QLUTATTN_QMAX_TRANSPOSED : std::isinf(max) ? NAN : 0.0f;
}

// out += weights times the first channels of the keys of a KV block
static void accumulate_pk(qlutattn_query_block & block, const qlutattn_visible_rows & visible, const kv_side & k) {
    const qlutattn_qvec * x[QLUTATTN_ROWS];
    for (int i = 0; i < block.v_tiles.n; i++) {
        const qlutattn_head_tiles::span & at   = block.v_tiles.spans[i];
        const qlutattn_span               span = { at.channel0, at.n_channels, 0, PACK_SIZE };
        const char *                      tile = k.tile(at.column);
        load_lanes(block, *k.config, tile, span, k.config->level_scale());
        for (int r = 0; r < visible.n; r++) {
            qlutattn_qvec & qvec = block.p_qvec[r];
            quantize_scaled_weights(block, block.scores[visible.rows[r]], qvec);
            qlutattn_spread(*k.config, qvec);
            x[r] = &qvec;
        }
        qlutattn_tile_gemm_transposed(*k.config, tile, span, x, visible.n, block.acc);
        for (int r = 0; r < visible.n; r++) {
            float * out = block.out(visible.rows[r]) + at.in_head;
            for (int c = 0; c < span.n_depth; c += f32::WIDTH) {
                const f32::vec y = f32::add(f32::load(out + c), f32::broadcast(x[r]->sum));
                f32::store(out + c, f32::fma(f32::from_i32(block.acc[r] + c), f32::broadcast(x[r]->d), y));
            }
        }
    }
}

// what the rows of a run attend to together
struct kv_block {
    kv_side       k;
    kv_side       v;    // where values are keys, and keys are packed: unused
    bool          is_pk;
    const float * mean; // or NULL
    int           set;  // of queries
    int           n_tokens;
};

// The rows that are computed now, with their masks from the first token of the KV block on.
static void attend_to_kv_block(qlutattn_query_block & block, const qlutattn_visible_rows & visible, kv_block kv) {
    const qlutattn_kernel_config * v_config = kv.is_pk ? nullptr : kv.v.config;
    const qlutattn_kernel          v_kernel = v_config ? qlutattn_get_kernel(v_config->type) : QLUTATTN_KERNEL_DOT;
    const int                      qmax     = v_config ? qlutattn_qmax(*v_config, v_kernel) : 0;
    const bool                     is_f16   = !kv.k.config && !v_config;

    // Tiles are read whole, but f16 keys from the first visible one on. The weights stay in the same lanes of vectors, so that
    // what a row gets does not depend on the others.
    const int first_key = is_f16 ? visible.first_key / f32::MAX_WIDTH * f32::MAX_WIDTH : 0;
    const int n         = (is_f16 ? visible.last_key : kv.n_tokens) - first_key;
    if (is_f16) {
        kv.k.data += first_key * kv.k.nb;
        kv.v.data += first_key * kv.v.nb;
    }
    compute_scores(block, visible, kv.k, kv.mean, kv.set, n);
    for (int i = 0; i < visible.n; i++) {
        const int       r    = visible.rows[i];
        qlutattn_qvec * qvec = v_config ? &block.p_qvec[r] : nullptr;
        qlutattn_online_softmax(block, r, visible.masks[i] ? visible.masks[i] + first_key : nullptr, n, qmax, qvec);
        if (v_config) {
            qlutattn_build_lut(*v_config, v_kernel, n, *qvec);
        }
    }
    if (kv.is_pk) {
        accumulate_pk(block, visible, kv.k);
    } else {
        accumulate_pv(block, visible, kv.v, n);
    }
}

// Makes a KV block of f16 8 bits, unless some of it is not finite: then f16 says what comes of that.
static void make_int8(qlutattn_query_block & block, kv_block & kv) {
    const qlutattn_int8_tile & made = block.int8;
    if (!qlutattn_make_int8(made, { kv.k.data, kv.k.nb, block.head_dim_k }, { kv.v.data, kv.v.nb, block.head_dim_v }, block.smoothing)) {
        return;
    }
    kv.k    = { made.k_config, &made.k_tiles, made.k, made.k_config->tile_bytes() };
    kv.v    = { made.v_config, &made.v_tiles, made.v, made.v_config->tile_bytes() };
    kv.mean = block.smoothing != 0.0f ? made.mean : nullptr;
}

void qlutattn_attend(qlutattn_query_block & block, const qlutattn_segment & segment, int64_t first, int64_t last) {
    for (int i = 0; i < block.n_run; i++) {
        block.run[i].quantized_sets = 0;
    }
    for (int64_t token = first; token < last; token += QLUTATTN_KV_BLOCK) {
        const int n_tokens = std::min<int64_t>(QLUTATTN_KV_BLOCK, last - token);
        kv_block  kv       = { side_at(segment.k, block, block.k_tiles, token), {}, false, nullptr, 0, n_tokens };
        kv.v               = segment.v ? side_at(segment.v, block, block.v_tiles, token) : kv.k;
        kv.is_pk           = !segment.v && kv.k.config;
        kv.set             = kv.k.config ? set_of_tile(block, token) : 0;
        bool may_be_int8   = block.is_int8 && !kv.k.config && !kv.v.config && n_tokens == QLUTATTN_KV_BLOCK;
        for (int i = 0; i < block.n_run; i++) {
            block.rows                          = &block.run[i];
            const qlutattn_visible_rows visible = visible_rows(block, segment.mask, token, n_tokens);
            if (visible.n == 0) {
                continue;
            }
            if (may_be_int8) { // once for the run
                make_int8(block, kv);
                may_be_int8 = false;
            }
            attend_to_kv_block(block, visible, kv);
        }
    }
}
