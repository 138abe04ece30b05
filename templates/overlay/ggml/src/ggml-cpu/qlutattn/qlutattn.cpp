// Work is cut into items: (block of rows, run of keys). A block is up to QLUTATTN_ROWS (query, head) pairs that share a kv head, so that the
// codes of a tile are taken apart once for all of them. Keys are cut into runs only when the rows of a kv head fit one block (decode), by a
// rule that looks at shapes alone; each item leaves the usual online softmax state (max, sum, output), and states of one row are merged in
// order. So results do not depend on the number of threads.

#include "qlutattn.h"

#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "tbl.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

static constexpr int QLUTATTN_MAX_HEAD = 256;  // head sizes: 64, 128, 256
static constexpr int QLUTATTN_STEP     = 128;  // keys taken at once: a tile, or as many of the f16 segment
static constexpr int QLUTATTN_RUN      = 2048; // keys of a packed run
static constexpr int QLUTATTN_RUN_F16  = 512;  // keys of an f16 run

// the state of one row: units of exp(score - M)
struct qlutattn_state {
    float M; // largest score so far
    float S; // sum of exp(score - M)
    float acc[QLUTATTN_MAX_HEAD];
};

// one query of one head
struct qlutattn_row {
    const float * q;
    float         slope; // ALiBi
    int64_t       iq;    // which row of the mask
    int64_t       ih;    // which head

    qlutattn_tbl k_tbl[2];
    alignas(64) float scores[QLUTATTN_STEP];
    qlutattn_state state;
};

// everything that a thread needs
struct qlutattn_work {
    qlutattn_row rows[QLUTATTN_ROWS];
    qlutattn_tbl v_tbl[QLUTATTN_ROWS];
    alignas(64) float mask[QLUTATTN_STEP];
    alignas(64) float k[QLUTATTN_STEP * QLUTATTN_MAX_HEAD];
    alignas(64) float v[QLUTATTN_STEP * QLUTATTN_MAX_HEAD];
};

// the op's sources and parameters, by name, and how its work is cut
struct qlutattn_op {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const ggml_tensor * sinks;
    const ggml_tensor * kp;
    const ggml_tensor * vp;
    const ggml_tensor * maskp;
    const ggml_tensor * dst;

    float   scale;
    float   max_bias;
    float   softcap;
    int64_t n_head_kv;

    int64_t head_dim;
    int64_t group;    // query heads of a kv head
    int64_t n_kv;     // keys of the f16 segment
    int64_t n_packed; // keys of the packed segment
    int64_t n_rows;   // rows of a kv head
    int64_t n_blocks; // blocks of rows of a kv head
    int64_t n_runs_f16;
    int64_t n_runs;   // runs of a block, the f16 ones first; 1 if not cut

    explicit qlutattn_op(const ggml_tensor * op) :
        q(op->src[0]), k(op->src[1]), v(op->src[2]), mask(op->src[3]), sinks(op->src[4]), kp(op->src[5]), vp(op->src[6]), maskp(op->src[7]), dst(op) {
        memcpy(&scale, (const float *) op->op_params + 0, sizeof(float));
        memcpy(&max_bias, (const float *) op->op_params + 1, sizeof(float));
        memcpy(&softcap, (const float *) op->op_params + 2, sizeof(float));
        n_head_kv = ggml_get_op_params_i32(op, 3);
        if (softcap != 0.0f) {
            scale /= softcap;
        }
        head_dim   = q->ne[0];
        group      = q->ne[2] / n_head_kv;
        n_kv       = k ? k->ne[1] : 0;
        n_packed   = kp ? kp->ne[1] : 0;
        n_rows     = group * q->ne[1];
        n_blocks   = (n_rows + QLUTATTN_ROWS - 1) / QLUTATTN_ROWS;
        n_runs_f16 = (n_kv + QLUTATTN_RUN_F16 - 1) / QLUTATTN_RUN_F16;
        n_runs     = n_blocks == 1 ? std::max<int64_t>(1, n_runs_f16 + (n_packed + QLUTATTN_RUN - 1) / QLUTATTN_RUN) : 1;
    }

    bool    is_cut() const { return n_runs > 1; }
    int64_t n_items() const { return n_runs * n_blocks * n_head_kv * q->ne[3]; }
    int64_t state_floats() const { return 2 + head_dim; } // of a row in a partial result
};

size_t ggml_flash_attn_ext_mixed_work_size(const struct ggml_tensor * node, int n_threads) {
    const qlutattn_op op(node);
    const size_t      partials = op.is_cut() ? op.n_items() * op.n_rows * op.state_floats() * sizeof(float) : 0;
    return sizeof(qlutattn_work) * n_threads + alignof(qlutattn_work) + partials;
}

static const ggml_fp16_t * mask_row(const ggml_tensor * mask, const qlutattn_row & row, int64_t i3, int64_t token) {
    if (!mask) {
        return nullptr;
    }
    return (const ggml_fp16_t *) ((const char *) mask->data + row.iq * mask->nb[1] + row.ih % mask->ne[2] * mask->nb[2] +
                                  i3 % mask->ne[3] * mask->nb[3]) +
           token;
}

static bool sees_any(const ggml_fp16_t * mask, int n) {
    constexpr ggml_fp16_t minus_infinity = 0xfc00;
    bool                  any            = !mask;
    for (int i = 0; mask && i < n; i++) {
        any |= mask[i] != minus_infinity;
    }
    return any;
}

// the largest of n values, NaN left out
static float max_of(const float * values, int n) {
    float max[16];
    std::fill_n(max, 16, -INFINITY);
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int j = 0; j < 16; j++) {
            max[j] = values[i + j] > max[j] ? values[i + j] : max[j];
        }
    }
    for (; i < n; i++) {
        max[0] = values[i] > max[0] ? values[i] : max[0];
    }
    return *std::max_element(max, max + 16);
}

// Turn the n products q.k in row.scores into weights exp(score - M), and the state so far into units of the new M.
// A masked key weighs exactly 0 whatever its product; a visible NaN makes the row NaN.
static void softmax_step(const qlutattn_op & op, qlutattn_row & row, const ggml_fp16_t * mask, float * mask_f32, int n) {
    float * scores = row.scores;
    for (int i = 0; i < n; i++) {
        scores[i] *= op.scale;
    }
    if (op.softcap != 0.0f) {
        for (int i = 0; i < n; i++) {
            scores[i] = op.softcap * tanhf(scores[i]);
        }
    }
    if (mask) {
        ggml_cpu_fp16_to_fp32(mask, mask_f32, n);
        const float slope = row.slope;
        for (int i = 0; i < n; i++) {
            scores[i] = mask_f32[i] == -INFINITY ? -INFINITY : scores[i] + slope * mask_f32[i];
        }
    }
    qlutattn_state & state = row.state;
    const float      M     = std::max(state.M, max_of(scores, n));
    if (state.M != M) {
        const float rescale = expf(state.M - M);
        ggml_vec_scale_f32(op.head_dim, state.acc, rescale);
        state.S *= rescale;
        state.M = M;
    }
    state.S += ggml_vec_soft_max_f32(n, scores, scores, M);
    if (mask) { // where M is infinite or NaN, masked keys are still nothing
        for (int i = 0; i < n; i++) {
            scores[i] = mask_f32[i] == -INFINITY ? 0.0f : scores[i];
        }
    }
}

static void attend_f16(const qlutattn_op & op, qlutattn_work & work, int n_rows, int64_t ikv, int64_t i3, int64_t first, int64_t last) {
    const int head_dim = op.head_dim;

    for (int64_t token = first; token < last; token += QLUTATTN_STEP) {
        const int n = std::min<int64_t>(QLUTATTN_STEP, last - token);

        bool ready = false;
        for (int r = 0; r < n_rows; r++) {
            qlutattn_row &      row  = work.rows[r];
            const ggml_fp16_t * mask = mask_row(op.mask, row, i3, token);
            if (!sees_any(mask, n)) {
                continue;
            }
            for (int i = 0; i < n && !ready; i++) { // widened once, for all rows
                const char * k = (const char *) op.k->data + (token + i) * op.k->nb[1] + ikv * op.k->nb[2] + i3 * op.k->nb[3];
                const char * v = (const char *) op.v->data + (token + i) * op.v->nb[1] + ikv * op.v->nb[2] + i3 * op.v->nb[3];
                ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) k, work.k + i * head_dim, head_dim);
                ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) v, work.v + i * head_dim, head_dim);
            }
            ready = true;
            for (int i = 0; i < n; i++) {
                ggml_vec_dot_f32(head_dim, &row.scores[i], 0, work.k + i * head_dim, 0, row.q, 0, 1);
            }
            softmax_step(op, row, mask, work.mask, n);
            for (int i = 0; i < n; i++) {
                if (row.scores[i] != 0.0f) {
                    ggml_vec_mad_f32(head_dim, row.state.acc, work.v + i * head_dim, row.scores[i]);
                }
            }
        }
    }
}

// A kv head as pieces of tiles: two tiles at head size 256, one at 128, half a tile at 64.
struct qlutattn_pieces {
    int     n;      // pieces
    int     length; // channels of a piece
    int     first;  // its first channel in the tile
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

static void ggml_flash_attn_ext_qlutattn_segmented(const qlutattn_op & op, qlutattn_work & work, int n_rows, int64_t ikv, int64_t i3, int64_t first,
                                                   int64_t last) {
    if (first >= last) {
        return;
    }
    const qlutattn_kernel_config & k_config = *qlutattn_get_kernel_config(op.kp->type);
    const qlutattn_kernel_config & v_config = *qlutattn_get_kernel_config(op.vp->type);
    const qlutattn_kernel          k_kernel = qlutattn_get_kernel(op.kp->type);
    const qlutattn_kernel          v_kernel = qlutattn_get_kernel(op.vp->type);

    const qlutattn_pieces pieces(op.head_dim, ikv);
    const qlutattn_span   k_span = { pieces.first, pieces.length, 0, PACK_SIZE };
    const qlutattn_span   v_span = { 0, PACK_SIZE, pieces.first, pieces.length };

    for (int r = 0; r < n_rows; r++) {
        for (int p = 0; p < pieces.n; p++) {
            qlutattn_tbl_build(k_config, k_kernel, work.rows[r].q + p * PACK_SIZE, pieces.length, work.rows[r].k_tbl[p]);
        }
    }

    for (int64_t token = first; token < last; token += PACK_SIZE) {
        // the rows that see a key of this tile
        qlutattn_row *       seeing[QLUTATTN_ROWS];
        const qlutattn_tbl * tbls[QLUTATTN_ROWS];
        float *              y[QLUTATTN_ROWS];
        int                  n = 0;
        for (int r = 0; r < n_rows; r++) {
            qlutattn_row & row = work.rows[r];
            if (sees_any(mask_row(op.maskp, row, i3, token), PACK_SIZE)) {
                memset(row.scores, 0, sizeof(row.scores));
                seeing[n++] = &row;
            }
        }
        if (n == 0) {
            continue;
        }

        for (int p = 0; p < pieces.n; p++) {
            for (int r = 0; r < n; r++) {
                tbls[r] = &seeing[r]->k_tbl[p];
                y[r]    = seeing[r]->scores;
            }
            qlutattn_tbl_mul(k_config, k_kernel, tile_at(op.kp, token, pieces.column + p, i3), k_span, tbls, n, y);
        }
        for (int r = 0; r < n; r++) {
            softmax_step(op, *seeing[r], mask_row(op.maskp, *seeing[r], i3, token), work.mask, PACK_SIZE);
            qlutattn_tbl_build(v_config, v_kernel, seeing[r]->scores, PACK_SIZE, work.v_tbl[r]);
            tbls[r] = &work.v_tbl[r];
        }
        for (int p = 0; p < pieces.n; p++) {
            for (int r = 0; r < n; r++) {
                y[r] = seeing[r]->state.acc + p * PACK_SIZE;
            }
            qlutattn_tbl_mul(v_config, v_kernel, tile_at(op.vp, token, pieces.column + p, i3), v_span, tbls, n, y);
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
    row.q       = (const float *) ((const char *) op.q->data + iq * op.q->nb[1] + ih * op.q->nb[2] + i3 * op.q->nb[3]);
    row.slope   = alibi_slope(op.max_bias, op.q->ne[2], ih);
    row.iq      = iq;
    row.ih      = ih;
    row.state.M = -INFINITY;
    row.state.S = 0.0f;
    memset(row.state.acc, 0, sizeof(row.state.acc));
}

// add another state of the same row
static void merge(qlutattn_state & state, float M, float S, const float * acc, int head_dim) {
    if (S == 0.0f) {
        return; // saw nothing
    }
    const float M_new = std::max(state.M, M);
    const float mine  = expf(state.M - M_new);
    const float its   = expf(M - M_new);
    for (int c = 0; c < head_dim; c++) {
        state.acc[c] = state.acc[c] * mine + acc[c] * its;
    }
    state.S = state.S * mine + S * its;
    state.M = M_new;
}

// the sink joins the sum last: a logit without a value
static void finish_row(const qlutattn_op & op, qlutattn_state & state, int64_t iq, int64_t ih, int64_t i3) {
    if (op.sinks) {
        const float zeros[QLUTATTN_MAX_HEAD] = { 0 };
        merge(state, ((const float *) op.sinks->data)[ih], 1.0f, zeros, op.head_dim);
    }
    float *     out     = (float *) ((char *) op.dst->data + ih * op.dst->nb[1] + iq * op.dst->nb[2] + i3 * op.dst->nb[3]);
    const float inverse = state.S == 0.0f ? 0.0f : 1.0f / state.S;
    for (int c = 0; c < op.head_dim; c++) {
        out[c] = state.acc[c] * inverse;
    }
}

void ggml_compute_forward_flash_attn_ext_mixed(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const qlutattn_op op(dst);

    GGML_ASSERT(params->wsize >= ggml_flash_attn_ext_mixed_work_size(dst, params->nth));
    qlutattn_work * works    = (qlutattn_work *) GGML_PAD((uintptr_t) params->wdata, alignof(qlutattn_work));
    qlutattn_work & work     = works[params->ith];
    float *         partials = (float *) (works + params->nth); // [i3][ikv][row][run][M, S, acc]

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    const int64_t n_items = op.n_items();
    for (int64_t item = params->ith; item < n_items; item = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t run   = item % op.n_runs;
        const int64_t block = item / op.n_runs % op.n_blocks;
        const int64_t head  = item / op.n_runs / op.n_blocks; // of all batches
        const int64_t ikv   = head % op.n_head_kv;
        const int64_t i3    = head / op.n_head_kv;
        const int64_t first = block * QLUTATTN_ROWS;
        const int     n     = std::min<int64_t>(QLUTATTN_ROWS, op.n_rows - first);

        for (int r = 0; r < n; r++) {
            start_row(op, work.rows[r], (first + r) / op.group, ikv * op.group + (first + r) % op.group, i3);
        }
        if (!op.is_cut()) {
            attend_f16(op, work, n, ikv, i3, 0, op.n_kv);
            ggml_flash_attn_ext_qlutattn_segmented(op, work, n, ikv, i3, 0, op.n_packed);
            for (int r = 0; r < n; r++) {
                finish_row(op, work.rows[r].state, work.rows[r].iq, work.rows[r].ih, i3);
            }
            continue;
        }
        if (run < op.n_runs_f16) {
            const int64_t from = run * QLUTATTN_RUN_F16;
            attend_f16(op, work, n, ikv, i3, from, std::min<int64_t>(op.n_kv, from + QLUTATTN_RUN_F16));
        } else {
            const int64_t from = (run - op.n_runs_f16) * QLUTATTN_RUN;
            ggml_flash_attn_ext_qlutattn_segmented(op, work, n, ikv, i3, from, std::min<int64_t>(op.n_packed, from + QLUTATTN_RUN));
        }
        for (int r = 0; r < n; r++) {
            float * partial = partials + ((head * op.n_rows + r) * op.n_runs + run) * op.state_floats();
            memcpy(partial, &work.rows[r].state, op.state_floats() * sizeof(float));
        }
    }
    if (!op.is_cut()) {
        return;
    }
    ggml_barrier(params->threadpool);

    const int64_t n_states = op.n_head_kv * op.q->ne[3] * op.n_rows;
    for (int64_t i = params->ith; i < n_states; i += params->nth) {
        const int64_t  head  = i / op.n_rows;
        const int64_t  row   = i % op.n_rows;
        qlutattn_state state = { -INFINITY, 0.0f, { 0 } };
        for (int64_t run = 0; run < op.n_runs; run++) {
            const float * partial = partials + (i * op.n_runs + run) * op.state_floats();
            merge(state, partial[0], partial[1], partial + 2, op.head_dim);
        }
        const int64_t ikv = head % op.n_head_kv;
        finish_row(op, state, row / op.group, ikv * op.group + row % op.group, head / op.n_head_kv);
    }
}
