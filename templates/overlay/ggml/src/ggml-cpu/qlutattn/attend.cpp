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

size_t qlutattn_block_size(int head_dim_k, int head_dim_v, int n_sets) {
    return sizeof(qlutattn_query_block) + QLUTATTN_ROWS * (head_dim_v * sizeof(float) + n_sets * n_spans(head_dim_k) * sizeof(qlutattn_qvec));
}

qlutattn_query_block & qlutattn_place_block(void * memory, int head_dim_k, int head_dim_v, int n_sets) {
    qlutattn_query_block & block = *(qlutattn_query_block *) memory;
    block.head_dim_k             = head_dim_k;
    block.head_dim_v             = head_dim_v;
    block.q_qvec                 = (qlutattn_qvec *) (&block + 1);
    block.out_of_rows            = (float *) (block.q_qvec + n_sets * n_spans(head_dim_k) * QLUTATTN_ROWS);
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
    for (int r = 0; r < block.n_rows; r++) {
        const ggml_fp16_t * row_mask = mask ? mask_at(mask, block.rows[r], block.i3, token) : nullptr;
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

static const char * tile_at(const ggml_tensor * packed, const qlutattn_query_block & block, int64_t column, int64_t token) {
    return (const char *) packed->data + token * packed->nb[1] + column * packed->nb[2] + block.i3 * packed->nb[3];
}

static const char * token_at(const ggml_tensor * f16, const qlutattn_query_block & block, int64_t token) {
    return (const char *) f16->data + token * f16->nb[1] + block.ikv * f16->nb[2] + block.i3 * f16->nb[3];
}

// the scales (times level_scale) and offsets of a tile's lanes, as f32
static void load_lanes(qlutattn_query_block & block, const qlutattn_kernel_config & config, const char * tile, const qlutattn_span & span,
                       float level_scale) {
    for (int i = 0; i < span.n_lanes; i += f32::WIDTH) {
        f32::store(block.lane_scale + i, f32::mul(f32::from_f16(config.scales(tile) + span.lane0 + i), f32::broadcast(level_scale)));
        f32::store(block.lane_offset + i, config.has_offset ? f32::from_f16(config.offsets(tile) + span.lane0 + i) : f32::broadcast(0.0f));
    }
}

// y[i] = scale[i]*(d*acc[i]) + offset[i]*sum, or added to y[i]
template <bool add_to_y> static void accumulate_lanes(const qlutattn_query_block & block, const int32_t * acc, int n, float d, float sum, float * y) {
    for (int i = 0; i < n; i += f32::WIDTH) {
        const f32::vec scaled = f32::mul(f32::from_i32(acc + i), f32::broadcast(d));
        const f32::vec before = add_to_y ? f32::load(y + i) : f32::broadcast(0.0f);
        const f32::vec offset = f32::fma(f32::load(block.lane_offset + i), f32::broadcast(sum), before);
        f32::store(y + i, f32::fma(f32::load(block.lane_scale + i), scaled, offset));
    }
}

// y[i] = factor times the tile times the vector of visible row i, or added to y[i]
template <bool add_to_y>
static void accumulate_tile(qlutattn_query_block & block, const qlutattn_visible_rows & visible, const qlutattn_kernel_config & config,
                            const char * tile, const qlutattn_span & span, const qlutattn_qvec * qvecs, float factor, float * const * y) {
    const qlutattn_qvec * x[QLUTATTN_ROWS];
    for (int i = 0; i < visible.n; i++) {
        x[i] = qvecs + visible.rows[i];
    }
    qlutattn_tile_gemm(config, qlutattn_get_kernel(config.type), tile, span, x, visible.n, block.acc);
    load_lanes(block, config, tile, span, config.level_scale());
    for (int i = 0; i < visible.n; i++) {
        accumulate_lanes<add_to_y>(block, block.acc[i], span.n_lanes, x[i]->d * factor, x[i]->sum * factor, y[i]);
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
    const qlutattn_row & row = block.rows[r];
    if (set == 0) {
        return row.q;
    }
    const ggml_tensor * q = block.shifts.q;
    return (const float *) ((const char *) q->data + row.iq * q->nb[1] + row.ih * q->nb[2] +
                            ((set - 1) * block.shifts.n_batch + block.i3) * q->nb[3]);
}

// the queries of a set, quantized when they are first asked for: those of span i from i*QLUTATTN_ROWS on
static const qlutattn_qvec * quantized_queries(qlutattn_query_block & block, const qlutattn_kernel_config & config, int set) {
    qlutattn_qvec * qvecs = block.q_qvec + set * n_spans(block.head_dim_k) * QLUTATTN_ROWS;
    if (block.quantized_sets >> set & 1) {
        return qvecs;
    }
    const qlutattn_kernel kernel = qlutattn_get_kernel(config.type);
    for (int i = 0; i < block.k_tiles.n; i++) {
        const qlutattn_head_tiles::span & at = block.k_tiles.spans[i];
        for (int r = 0; r < block.n_rows; r++) {
            qlutattn_quantize_x(config, kernel, query_of(block, r, set) + at.in_head, at.n_channels, qvecs[i * QLUTATTN_ROWS + r]);
        }
    }
    block.quantized_sets |= 1u << set;
    return qvecs;
}

// q.k of a KV block, scaled: with a softcap, by what stands within its tanh
static void compute_scores(qlutattn_query_block & block, const qlutattn_visible_rows & visible, const ggml_tensor * k, int64_t token, int n) {
    float *       scores[QLUTATTN_ROWS];
    const float * q[QLUTATTN_ROWS];
    for (int i = 0; i < visible.n; i++) {
        scores[i] = block.scores[visible.rows[i]];
        q[i]      = block.rows[visible.rows[i]].q;
    }
    const float                    scale  = block.softcap == 0.0f ? block.scale : block.scale / block.softcap;
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(k->type);
    if (!config) {
        qlutattn_compute_scores_f16(token_at(k, block, token), k->nb[1], n, block.head_dim_k, q, visible.n, scale, scores);
        return;
    }
    const qlutattn_qvec * qvecs = quantized_queries(block, *config, set_of_tile(block, token));
    for (int i = 0; i < block.k_tiles.n; i++) {
        const qlutattn_head_tiles::span & at   = block.k_tiles.spans[i];
        const qlutattn_span               span = { at.channel0, at.n_channels, 0, PACK_SIZE };
        const auto                        fill = i == 0 ? accumulate_tile<false> : accumulate_tile<true>;
        fill(block, visible, *config, tile_at(k, block, at.column, token), span, qvecs + i * QLUTATTN_ROWS, scale, scores);
    }
}

// out += weights times the values of a KV block
static void accumulate_pv(qlutattn_query_block & block, const qlutattn_visible_rows & visible, const ggml_tensor * v, int64_t token, int n) {
    float *       out[QLUTATTN_ROWS];
    const float * weights[QLUTATTN_ROWS];
    for (int i = 0; i < visible.n; i++) {
        out[i]     = block.out(visible.rows[i]);
        weights[i] = block.scores[visible.rows[i]];
    }
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(v->type);
    if (!config) {
        qlutattn_accumulate_pv_f16(token_at(v, block, token), v->nb[1], n, block.head_dim_v, weights, visible.n, out);
        return;
    }
    for (int t = 0; t < block.v_tiles.n; t++) {
        const qlutattn_head_tiles::span & at   = block.v_tiles.spans[t];
        const qlutattn_span               span = { 0, PACK_SIZE, at.channel0, at.n_channels };
        accumulate_tile<true>(block, visible, *config, tile_at(v, block, at.column, token), span, block.p_qvec, 1.0f, out);
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
static void accumulate_pk(qlutattn_query_block & block, const qlutattn_visible_rows & visible, const qlutattn_kernel_config & config,
                          const ggml_tensor * k, int64_t token) {
    const qlutattn_qvec * x[QLUTATTN_ROWS];
    for (int i = 0; i < block.v_tiles.n; i++) {
        const qlutattn_head_tiles::span & at   = block.v_tiles.spans[i];
        const qlutattn_span               span = { at.channel0, at.n_channels, 0, PACK_SIZE };
        const char *                      tile = tile_at(k, block, at.column, token);
        load_lanes(block, config, tile, span, config.level_scale());
        for (int r = 0; r < visible.n; r++) {
            qlutattn_qvec & qvec = block.p_qvec[r];
            quantize_scaled_weights(block, block.scores[visible.rows[r]], qvec);
            qlutattn_spread(config, qvec);
            x[r] = &qvec;
        }
        qlutattn_tile_gemm_transposed(config, tile, span, x, visible.n, block.acc);
        for (int r = 0; r < visible.n; r++) {
            float * out = block.out(visible.rows[r]) + at.in_head;
            for (int c = 0; c < span.n_depth; c += f32::WIDTH) {
                const f32::vec y = f32::add(f32::load(out + c), f32::broadcast(x[r]->sum));
                f32::store(out + c, f32::fma(f32::from_i32(block.acc[r] + c), f32::broadcast(x[r]->d), y));
            }
        }
    }
}

void qlutattn_attend(qlutattn_query_block & block, const qlutattn_segment & segment, int64_t first, int64_t last) {
    if (first >= last) {
        return;
    }
    block.quantized_sets                    = 0;
    const qlutattn_kernel_config * k_config = qlutattn_get_kernel_config(segment.k->type);
    const ggml_tensor *            v        = segment.v ? segment.v : segment.k;
    const qlutattn_kernel_config * v_config = segment.v ? qlutattn_get_kernel_config(v->type) : nullptr;
    const qlutattn_kernel          v_kernel = v_config ? qlutattn_get_kernel(v_config->type) : QLUTATTN_KERNEL_DOT;
    const int                      qmax     = v_config ? qlutattn_qmax(*v_config, v_kernel) : 0;
    const bool                     is_f16   = !k_config && !v_config;

    for (int64_t token = first; token < last; token += QLUTATTN_KV_BLOCK) {
        const int                   n_tokens = std::min<int64_t>(QLUTATTN_KV_BLOCK, last - token);
        const qlutattn_visible_rows visible  = visible_rows(block, segment.mask, token, n_tokens);
        if (visible.n == 0) {
            continue;
        }
        // Tiles are read whole, but f16 keys from the first visible one on. The weights stay in the same lanes of vectors, so that
        // what a row gets does not depend on the others.
        const int first_key = is_f16 ? visible.first_key / f32::MAX_WIDTH * f32::MAX_WIDTH : 0;
        const int n         = (is_f16 ? visible.last_key : n_tokens) - first_key;
        compute_scores(block, visible, segment.k, token + first_key, n);
        for (int i = 0; i < visible.n; i++) {
            const int       r    = visible.rows[i];
            qlutattn_qvec * qvec = v_config ? &block.p_qvec[r] : nullptr;
            qlutattn_online_softmax(block, r, visible.masks[i] ? visible.masks[i] + first_key : nullptr, n, qmax, qvec);
            if (v_config) {
                qlutattn_build_lut(*v_config, v_kernel, n, *qvec);
            }
        }
        if (k_config && !segment.v) {
            accumulate_pk(block, visible, *k_config, v, token);
        } else {
            accumulate_pv(block, visible, v, token + first_key, n);
        }
    }
}
