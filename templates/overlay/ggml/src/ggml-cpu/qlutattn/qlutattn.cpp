// A work item is a block of rows that share a kv head: up to QLUTATTN_ROWS of its (query, head of the group) pairs. A tile is unpacked once
// and used for all rows of the block. Each row keeps the usual online softmax state (max, sum, output); an item is done by one thread from
// the first key to the last, so results do not depend on the number of threads.

#include "qlutattn.h"

#include "ggml-impl.h"
#include "simd-mappings.h"
#include "tbl.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

static constexpr int QLUTATTN_ROWS     = 16;
static constexpr int QLUTATTN_F16_STEP = 64;  // tokens of the f16 segment taken at once
static constexpr int QLUTATTN_MAX_HEAD = 256; // head sizes: 64, 128, 256

// one query of one head
struct qlutattn_row {
    const float * q;
    float *       out;
    float         slope; // ALiBi
    float         sink;
    int64_t       iq;    // which row of the mask
    int64_t       ih;    // which head

    float M; // largest score so far
    float S; // sum of exp(score - M)
    float acc[QLUTATTN_MAX_HEAD];
    float scores[PACK_SIZE];

    bool        sees; // whether the keys at hand have one that the mask shows
    qlutattn_tbl k_tbl[2];
};

// everything that a thread needs, in params->wdata
struct qlutattn_work {
    qlutattn_row      rows[QLUTATTN_ROWS];
    qlutattn_unpacked unpacked;
    qlutattn_tbl      v_tbl;

    alignas(64) float k[QLUTATTN_F16_STEP * QLUTATTN_MAX_HEAD];
    alignas(64) float v[QLUTATTN_F16_STEP * QLUTATTN_MAX_HEAD];
};

size_t ggml_flash_attn_ext_mixed_work_size(int n_threads) {
    return sizeof(qlutattn_work) * n_threads + alignof(qlutattn_work);
}

// the op's sources and parameters, by name
struct qlutattn_op {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const ggml_tensor * sinks;
    const ggml_tensor * kp;
    const ggml_tensor * vp;
    const ggml_tensor * maskp;
    ggml_tensor *       dst;

    float   scale;
    float   max_bias;
    float   softcap;
    int64_t n_head_kv;

    int64_t head_dim() const { return q->ne[0]; }
    int64_t group() const { return q->ne[2] / n_head_kv; }

    explicit qlutattn_op(ggml_tensor * op) :
        q(op->src[0]), k(op->src[1]), v(op->src[2]), mask(op->src[3]), sinks(op->src[4]), kp(op->src[5]), vp(op->src[6]), maskp(op->src[7]), dst(op) {
        memcpy(&scale, (const float *) op->op_params + 0, sizeof(float));
        memcpy(&max_bias, (const float *) op->op_params + 1, sizeof(float));
        memcpy(&softcap, (const float *) op->op_params + 2, sizeof(float));
        n_head_kv = ggml_get_op_params_i32(op, 3);
        if (softcap != 0.0f) {
            scale /= softcap;
        }
    }
};

static const ggml_fp16_t * mask_row(const ggml_tensor * mask, const qlutattn_row & row, int64_t i3, int64_t token) {
    if (!mask) {
        return nullptr;
    }
    return (const ggml_fp16_t *) ((const char *) mask->data + row.iq * mask->nb[1] + row.ih % mask->ne[2] * mask->nb[2] +
                                  i3 % mask->ne[3] * mask->nb[3]) + token;
}

static bool sees_any(const ggml_fp16_t * mask, int n) {
    constexpr ggml_fp16_t minus_infinity = 0xfc00;
    for (int i = 0; mask && i < n; i++) {
        if (mask[i] != minus_infinity) {
            return true;
        }
    }
    return !mask;
}

// turn the n products q.k in row.scores into weights exp(score - M), and the state so far into units of the new M.
// A masked key weighs exactly 0 whatever its product; a visible NaN makes the row NaN.
static void softmax_step(const qlutattn_op & op, qlutattn_row & row, const ggml_fp16_t * mask, int n, int head_dim) {
    float M = row.M;
    for (int i = 0; i < n; i++) {
        const float m = mask ? GGML_CPU_FP16_TO_FP32(mask[i]) : 0.0f;
        float       s = row.scores[i] * op.scale;
        if (op.softcap != 0.0f) {
            s = op.softcap * tanhf(s);
        }
        s             = m == -INFINITY ? -INFINITY : s + row.slope * m;
        row.scores[i] = s;
        M             = s > M ? s : M;
    }
    for (int i = 0; i < n; i++) {
        const bool masked = mask && GGML_CPU_FP16_TO_FP32(mask[i]) == -INFINITY;
        row.scores[i]     = masked ? 0.0f : expf(row.scores[i] - M);
    }
    if (row.M != M) {
        const float rescale = expf(row.M - M);
        ggml_vec_scale_f32(head_dim, row.acc, rescale);
        row.S *= rescale;
        row.M = M;
    }
    for (int i = 0; i < n; i++) {
        row.S += row.scores[i];
    }
}

static void attend_f16(const qlutattn_op & op, qlutattn_work & work, int n_rows, int64_t ikv, int64_t i3) {
    const int     head_dim = op.head_dim();
    const int64_t n_kv     = op.k ? op.k->ne[1] : 0;

    for (int64_t token = 0; token < n_kv; token += QLUTATTN_F16_STEP) {
        const int n = std::min<int64_t>(QLUTATTN_F16_STEP, n_kv - token);
        for (int i = 0; i < n; i++) {
            const char * k = (const char *) op.k->data + (token + i) * op.k->nb[1] + ikv * op.k->nb[2] + i3 * op.k->nb[3];
            const char * v = (const char *) op.v->data + (token + i) * op.v->nb[1] + ikv * op.v->nb[2] + i3 * op.v->nb[3];
            ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) k, work.k + i * head_dim, head_dim);
            ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) v, work.v + i * head_dim, head_dim);
        }
        for (int r = 0; r < n_rows; r++) {
            qlutattn_row &      row  = work.rows[r];
            const ggml_fp16_t * mask = mask_row(op.mask, row, i3, token);
            if (!sees_any(mask, n)) {
                continue;
            }
            for (int i = 0; i < n; i++) {
                ggml_vec_dot_f32(head_dim, &row.scores[i], 0, work.k + i * head_dim, 0, row.q, 0, 1);
            }
            softmax_step(op, row, mask, n, head_dim);
            for (int i = 0; i < n; i++) {
                if (row.scores[i] != 0.0f) {
                    ggml_vec_mad_f32(head_dim, row.acc, work.v + i * head_dim, row.scores[i]);
                }
            }
        }
    }
}

// A kv head as pieces of tiles: two tiles at head size 256, one at 128, half a tile at 64.
struct qlutattn_pieces {
    int n;      // pieces
    int length; // channels of a piece
    int first;  // its first channel in the tile
    int64_t column;

    qlutattn_pieces(int64_t head_dim, int64_t ikv) :
        n(std::max<int64_t>(1, head_dim / PACK_SIZE)),
        length(std::min<int64_t>(head_dim, PACK_SIZE)),
        first(ikv * head_dim % PACK_SIZE),
        column(ikv * head_dim / PACK_SIZE) {}
};

static const char * tile_at(const ggml_tensor * packed, int64_t token, int64_t column, int64_t i3) {
    return (const char *) packed->data + token * packed->nb[1] + column * packed->nb[2] + i3 * packed->nb[3];
}

static void ggml_flash_attn_ext_qlutattn_segmented(const qlutattn_op & op, qlutattn_work & work, int n_rows, int64_t ikv, int64_t i3) {
    const int64_t n_packed = op.kp ? op.kp->ne[1] : 0;
    if (n_packed == 0) {
        return;
    }
    const qlutattn_kernel_config & k_config = *qlutattn_get_kernel_config(op.kp->type);
    const qlutattn_kernel_config & v_config = *qlutattn_get_kernel_config(op.vp->type);
    const qlutattn_kernel          k_kernel = qlutattn_get_kernel(op.kp->type);
    const qlutattn_kernel          v_kernel = qlutattn_get_kernel(op.vp->type);

    const qlutattn_pieces pieces(op.head_dim(), ikv);
    const qlutattn_span   k_span = { pieces.first, pieces.length };
    const qlutattn_span   v_span = { 0, PACK_SIZE };

    for (int r = 0; r < n_rows; r++) {
        for (int p = 0; p < pieces.n; p++) {
            qlutattn_tbl_build(k_config, k_kernel, work.rows[r].q + p * PACK_SIZE, pieces.length, work.rows[r].k_tbl[p]);
        }
    }

    for (int64_t token = 0; token < n_packed; token += PACK_SIZE) {
        bool any = false;
        for (int r = 0; r < n_rows; r++) {
            qlutattn_row & row = work.rows[r];
            row.sees           = sees_any(mask_row(op.maskp, row, i3, token), PACK_SIZE);
            any                = any || row.sees;
            memset(row.scores, 0, sizeof(row.scores));
        }
        if (!any) {
            continue;
        }

        for (int p = 0; p < pieces.n; p++) {
            const char * tile = tile_at(op.kp, token, pieces.column + p, i3);
            qlutattn_unpack(k_config, k_kernel, tile, k_span, work.unpacked);
            for (int r = 0; r < n_rows; r++) {
                qlutattn_row & row = work.rows[r];
                if (row.sees) {
                    qlutattn_tbl_mul(k_config, k_kernel, tile, work.unpacked, row.k_tbl[p], pieces.length, 0, PACK_SIZE, row.scores);
                }
            }
        }

        for (int r = 0; r < n_rows; r++) {
            qlutattn_row & row = work.rows[r];
            if (row.sees) {
                softmax_step(op, row, mask_row(op.maskp, row, i3, token), PACK_SIZE, op.head_dim());
            }
        }

        for (int p = 0; p < pieces.n; p++) {
            const char * tile = tile_at(op.vp, token, pieces.column + p, i3);
            qlutattn_unpack(v_config, v_kernel, tile, v_span, work.unpacked);
            for (int r = 0; r < n_rows; r++) {
                qlutattn_row & row = work.rows[r];
                if (row.sees) {
                    qlutattn_tbl_build(v_config, v_kernel, row.scores, PACK_SIZE, work.v_tbl);
                    qlutattn_tbl_mul(
                        v_config, v_kernel, tile, work.unpacked, work.v_tbl, PACK_SIZE, pieces.first, pieces.length, row.acc + p * PACK_SIZE);
                }
            }
        }
    }
}

static float alibi_slope(float max_bias, int64_t n_head, int64_t head) {
    if (max_bias <= 0.0f) {
        return 1.0f;
    }
    const uint32_t n_head_log2 = 1u << (uint32_t) floor(log2(n_head));
    const float    m0          = powf(2.0f, -max_bias / n_head_log2);
    const float    m1          = powf(2.0f, -(max_bias / 2.0f) / n_head_log2);
    return head < n_head_log2 ? powf(m0, head + 1) : powf(m1, 2 * (head - n_head_log2) + 1);
}

static void start_row(const qlutattn_op & op, qlutattn_row & row, int64_t iq, int64_t ih, int64_t i3) {
    row.q     = (const float *) ((const char *) op.q->data + iq * op.q->nb[1] + ih * op.q->nb[2] + i3 * op.q->nb[3]);
    row.out   = (float *) ((char *) op.dst->data + ih * op.dst->nb[1] + iq * op.dst->nb[2] + i3 * op.dst->nb[3]);
    row.slope = alibi_slope(op.max_bias, op.q->ne[2], ih);
    row.iq    = iq;
    row.ih    = ih;
    row.M     = -INFINITY;
    row.S     = 0.0f;
    memset(row.acc, 0, sizeof(row.acc));
    if (op.sinks) { // a key without a value
        row.M = ((const float *) op.sinks->data)[ih];
        row.S = 1.0f;
    }
}

void ggml_compute_forward_flash_attn_ext_mixed(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const qlutattn_op op(dst);

    const int64_t n_rows   = op.group() * op.q->ne[1]; // of a kv head
    const int64_t n_blocks = (n_rows + QLUTATTN_ROWS - 1) / QLUTATTN_ROWS;
    const int64_t n_items  = n_blocks * op.n_head_kv * op.q->ne[3];

    GGML_ASSERT(params->wsize >= ggml_flash_attn_ext_mixed_work_size(params->nth));
    qlutattn_work * works = (qlutattn_work *) GGML_PAD((uintptr_t) params->wdata, alignof(qlutattn_work));
    qlutattn_work & work  = works[params->ith];

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    for (int64_t item = params->ith; item < n_items; item = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t i3    = item / n_blocks / op.n_head_kv;
        const int64_t ikv   = item / n_blocks % op.n_head_kv;
        const int64_t first = item % n_blocks * QLUTATTN_ROWS;
        const int     n     = std::min<int64_t>(QLUTATTN_ROWS, n_rows - first);

        for (int r = 0; r < n; r++) {
            const int64_t iq = (first + r) / op.group();
            const int64_t ih = ikv * op.group() + (first + r) % op.group();
            start_row(op, work.rows[r], iq, ih, i3);
        }
        attend_f16(op, work, n, ikv, i3);
        ggml_flash_attn_ext_qlutattn_segmented(op, work, n, ikv, i3);

        for (int r = 0; r < n; r++) {
            const qlutattn_row & row     = work.rows[r];
            const float          inverse = row.S == 0.0f ? 0.0f : 1.0f / row.S;
            for (int c = 0; c < op.head_dim(); c++) {
                row.out[c] = row.acc[c] * inverse;
            }
        }
    }
}
