#include "attend.h"

#include "attend-f16.h"
#include "ggml-impl.h"
#include "simd-f32.h"

#include <cmath>
#include <cstring>

namespace f32 = qlutattn_f32;

// A kv head as pieces of tiles: two tiles at head size 256, one at 128, half a tile at 64.
struct qlutattn_pieces {
    int     n;      // pieces
    int     length; // channels of a piece
    int     first;  // its first channel in the tile
    int64_t column;

    qlutattn_pieces(const qlutattn_block & block) :
        n(std::max(1, block.head_dim / PACK_SIZE)),
        length(std::min(block.head_dim, PACK_SIZE)),
        first(block.ikv * block.head_dim % PACK_SIZE),
        column(block.ikv * block.head_dim / PACK_SIZE) {}
};

// the rows of a block that see something of a step
struct qlutattn_seeing {
    int                 n = 0;
    int                 rows[QLUTATTN_ROWS];
    const ggml_fp16_t * masks[QLUTATTN_ROWS]; // NULL where all is visible and the mask 0
};

static const ggml_fp16_t * mask_at(const ggml_tensor * mask, const qlutattn_row & row, int64_t i3, int64_t token) {
    return (const ggml_fp16_t *) ((const char *) mask->data + row.iq * mask->nb[1] + row.ih % mask->ne[2] * mask->nb[2] +
                                  i3 % mask->ne[3] * mask->nb[3]) +
           token;
}

static qlutattn_seeing seeing_rows(const qlutattn_block & block, const ggml_tensor * mask, int64_t token, int n) {
    constexpr ggml_fp16_t minus_infinity = 0xfc00;
    constexpr ggml_fp16_t sign           = 0x8000;

    qlutattn_seeing     seeing;
    const ggml_fp16_t * last = nullptr; // the mask of the last row: rows of a query often share one
    bool                any  = true;
    bool                all  = true;
    for (int r = 0; r < block.n_rows; r++) {
        const ggml_fp16_t * its = mask ? mask_at(mask, block.rows[r], block.i3, token) : nullptr;
        if (its != last) {
            last                 = its;
            ggml_fp16_t not_zero = 0;
            ggml_fp16_t visible  = 0;
            for (int i = 0; i < n; i++) {
                not_zero |= its[i];
                visible |= its[i] ^ minus_infinity;
            }
            any = visible != 0;
            all = (not_zero & ~sign) == 0;
        }
        if (any) {
            seeing.rows[seeing.n]    = r;
            seeing.masks[seeing.n++] = all ? nullptr : its;
        }
    }
    return seeing;
}

static const char * tile_at(const ggml_tensor * packed, const qlutattn_block & block, const qlutattn_pieces & pieces, int piece, int64_t token) {
    return (const char *) packed->data + token * packed->nb[1] + (pieces.column + piece) * packed->nb[2] + block.i3 * packed->nb[3];
}

static const char * token_at(const ggml_tensor * f16, const qlutattn_block & block, int64_t token) {
    return (const char *) f16->data + token * f16->nb[1] + block.ikv * f16->nb[2] + block.i3 * f16->nb[3];
}

// the scales (times factor) and offsets of a tile's lanes, as f32
static void load_lanes(qlutattn_block & block, const qlutattn_kernel_config & config, const char * tile, const qlutattn_span & span, float factor) {
    for (int i = 0; i < span.n_lanes; i += f32::WIDTH) {
        f32::store(block.lane_scale + i, f32::mul(f32::from_f16(config.scales(tile) + span.lane0 + i), f32::set(factor)));
        f32::store(block.lane_offset + i, config.has_offset ? f32::from_f16(config.offsets(tile) + span.lane0 + i) : f32::set(0.0f));
    }
}

// y[i] += scale[i]*(step*acc[i]) + offset[i]*sum
static void add_lanes(const qlutattn_block & block, const int32_t * acc, int n, float step, float sum, float * y) {
    for (int i = 0; i < n; i += f32::WIDTH) {
        const f32::vec scaled = f32::mul(f32::from_i32(acc + i), f32::set(step));
        const f32::vec offset = f32::fma(f32::load(block.lane_offset + i), f32::set(sum), f32::load(y + i));
        f32::store(y + i, f32::fma(f32::load(block.lane_scale + i), scaled, offset));
    }
}

static void add_products(qlutattn_block & block, const qlutattn_seeing & seeing, const qlutattn_kernel_config & config, const char * tile,
                         const qlutattn_span & span, const qlutattn_tbl * tbls, float * const * y) {
    const qlutattn_tbl * its[QLUTATTN_ROWS];
    for (int i = 0; i < seeing.n; i++) {
        its[i] = tbls + seeing.rows[i];
    }
    qlutattn_tbl_mul(config, qlutattn_get_kernel(config.type), tile, span, its, seeing.n, block.acc);
    load_lanes(block, config, tile, span, config.factor_size());
    for (int i = 0; i < seeing.n; i++) {
        add_lanes(block, block.acc[i], span.n_lanes, its[i]->step, its[i]->sum, y[i]);
    }
}

// q.k of a step
static void find_scores(qlutattn_block & block, const qlutattn_seeing & seeing, const ggml_tensor * k, int64_t token, int n) {
    float *       scores[QLUTATTN_ROWS];
    const float * q[QLUTATTN_ROWS];
    for (int i = 0; i < seeing.n; i++) {
        scores[i] = block.scores[seeing.rows[i]];
        q[i]      = block.rows[seeing.rows[i]].q;
    }
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(k->type);
    if (!config) {
        qlutattn_f16_scores(token_at(k, block, token), k->nb[1], n, block.head_dim, q, seeing.n, scores);
        return;
    }
    for (int i = 0; i < seeing.n; i++) {
        memset(scores[i], 0, sizeof(block.scores[0]));
    }
    const qlutattn_pieces pieces(block);
    const qlutattn_span   span = { pieces.first, pieces.length, 0, PACK_SIZE };
    for (int p = 0; p < pieces.n; p++) {
        add_products(block, seeing, *config, tile_at(k, block, pieces, p, token), span, block.k_tbl[p], scores);
    }
}

// scores become softcapped, scaled and masked; the largest of n is returned, NaN left out. After the last of n come -inf, to a multiple of the
// vectors' width. A masked key is -inf whatever its product.
static float finish_scores(qlutattn_block & block, const qlutattn_row & row, const ggml_fp16_t * mask, float * scores, int n) {
    const int padded = (n + f32::WIDTH - 1) / f32::WIDTH * f32::WIDTH;
    float     factor = block.scale;
    if (block.softcap != 0.0f) {
        factor = block.softcap;
        for (int i = 0; i < n; i++) {
            scores[i] = tanhf(scores[i] * (block.scale / block.softcap));
        }
    }
    if (mask) {
        int i = 0;
        for (; i + f32::WIDTH <= n; i += f32::WIDTH) {
            f32::store(block.mask + i, f32::from_f16(mask + i));
        }
        for (; i < n; i++) {
            block.mask[i] = ggml_fp16_to_fp32(mask[i]);
        }
    }
    std::fill(scores + n, scores + padded, scores[n - 1]); // -inf only at the end: the factor may be 0 or negative
    std::fill(block.mask + n, block.mask + padded, -INFINITY);

    f32::vec largest = f32::set(-INFINITY);
    for (int i = 0; i < padded; i += f32::WIDTH) {
        f32::vec s = f32::mul(f32::load(scores + i), f32::set(factor));
        if (mask) {
            const f32::vec m = f32::load(block.mask + i);
            s                = f32::unless_masked(m, f32::fma(m, f32::set(row.slope), s));
        }
        f32::store(scores + i, s);
        largest = f32::max(s, largest);
    }
    std::fill(scores + n, scores + padded, -INFINITY);
    return f32::largest(largest);
}

// Scores become weights exp(score - M), and the row's state comes to units of the new M. With a tbl, weights are rounded into it instead.
static void find_weights(qlutattn_block & block, int r, const ggml_fp16_t * mask, int n, int top, qlutattn_tbl * tbl) {
    qlutattn_row & row     = block.rows[r];
    float *        scores  = block.scores[r];
    const float    largest = finish_scores(block, row, mask, scores, n);
    if (largest > row.M) {
        const float rescale = expf(row.M - largest);
        for (int c = 0; c < block.head_dim; c += f32::WIDTH) {
            f32::store(block.out[r] + c, f32::mul(f32::load(block.out[r] + c), f32::set(rescale)));
        }
        row.S *= rescale;
        row.M = largest;
    }
    f32::vec sum = f32::set(0.0f);
    if (!tbl) {
        for (int i = 0; i < n; i += f32::WIDTH) {
            const f32::vec weight = f32::exp(f32::sub(f32::load(scores + i), f32::set(row.M)));
            f32::store(scores + i, weight);
            sum = f32::add(sum, weight);
        }
        row.S += f32::total(sum);
        return;
    }
    constexpr float tiny   = 1e-30f; // below this, weights are nothing beside those that came before
    const float     weight = expf(largest - row.M);
    const float     units  = weight >= tiny ? top / weight : 0.0f;
    for (int i = 0; i < n; i += f32::WIDTH) {
        const f32::vec weights = f32::exp(f32::sub(f32::load(scores + i), f32::set(row.M)));
        f32::store_units(tbl->units + i, f32::mul(weights, f32::set(units)));
        sum = f32::add(sum, weights);
    }
    tbl->sum  = f32::total(sum);
    tbl->step = weight >= tiny ? weight / top : 0.0f;
    row.S += tbl->sum;
}

// values of a step, weighed
static void add_values(qlutattn_block & block, const qlutattn_seeing & seeing, const ggml_tensor * v, int64_t token, int n) {
    float *       out[QLUTATTN_ROWS];
    const float * weights[QLUTATTN_ROWS];
    for (int i = 0; i < seeing.n; i++) {
        out[i]     = block.out[seeing.rows[i]];
        weights[i] = block.scores[seeing.rows[i]];
    }
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(v->type);
    if (!config) {
        qlutattn_f16_values(token_at(v, block, token), v->nb[1], n, block.head_dim, weights, seeing.n, out);
        return;
    }
    const qlutattn_pieces pieces(block);
    const qlutattn_span   span = { 0, PACK_SIZE, pieces.first, pieces.length };
    for (int p = 0; p < pieces.n; p++) {
        add_products(block, seeing, *config, tile_at(v, block, pieces, p, token), span, block.v_tbl, out);
        for (int i = 0; i < seeing.n; i++) {
            out[i] += PACK_SIZE;
        }
    }
}

void qlutattn_attend(qlutattn_block & block, const qlutattn_segment & segment, int64_t first, int64_t last) {
    if (first >= last) {
        return;
    }
    const qlutattn_kernel_config * k_config = qlutattn_get_kernel_config(segment.k->type);
    const qlutattn_kernel_config * v_config = qlutattn_get_kernel_config(segment.v->type);
    if (k_config) {
        const qlutattn_pieces pieces(block);
        const qlutattn_kernel kernel = qlutattn_get_kernel(k_config->type);
        for (int p = 0; p < pieces.n; p++) {
            for (int r = 0; r < block.n_rows; r++) {
                qlutattn_tbl_build(*k_config, kernel, block.rows[r].q + p * PACK_SIZE, pieces.length, block.k_tbl[p][r]);
            }
        }
    }
    const qlutattn_kernel v_kernel = v_config ? qlutattn_get_kernel(v_config->type) : QLUTATTN_KERNEL_DOT;
    const int             top      = v_config ? qlutattn_units_max(*v_config, v_kernel) : 0;

    for (int64_t token = first; token < last; token += QLUTATTN_STEP) {
        const int             n      = std::min<int64_t>(QLUTATTN_STEP, last - token);
        const qlutattn_seeing seeing = seeing_rows(block, segment.mask, token, n);
        if (seeing.n == 0) {
            continue;
        }
        find_scores(block, seeing, segment.k, token, n);
        for (int i = 0; i < seeing.n; i++) {
            const int      r   = seeing.rows[i];
            qlutattn_tbl * tbl = v_config ? &block.v_tbl[r] : nullptr;
            find_weights(block, r, seeing.masks[i], n, top, tbl);
            if (v_config) {
                qlutattn_tbl_finish(*v_config, v_kernel, n, *tbl);
            }
        }
        add_values(block, seeing, segment.v, token, n);
    }
}
