#include "qlutattn.h"

#include "attend.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "qlutattn-op.h"

#include <algorithm>
#include <cmath>
#include <cstring>

size_t ggml_flash_attn_ext_mixed_work_size(const struct ggml_tensor * node, int n_threads) {
    const qlutattn_op op(node);
    const size_t      partials = op.is_split() ? op.n_heads * op.n_rows * op.n_kv_splits * op.state_floats() * sizeof(float) : 0;
    return qlutattn_block_size(op.block_shape()) * n_threads + alignof(qlutattn_query_block) + partials;
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

// the rows of a kv head from the first one on, with an empty softmax state
static void start_rows(const qlutattn_op & op, qlutattn_rows & rows, int64_t first, int64_t ikv, int64_t i3) {
    rows.n = std::min<int64_t>(QLUTATTN_ROWS, op.n_rows - first);
    for (int r = 0; r < rows.n; r++) {
        const int64_t iq = (first + r) / op.group;
        const int64_t ih = ikv * op.group + (first + r) % op.group;
        const float * q  = (const float *) ((const char *) op.q->data + iq * op.q->nb[1] + ih * op.q->nb[2] + i3 * op.q->nb[3]);
        rows.at[r]       = { q, alibi_slope(op.max_bias, op.q->ne[2], ih), iq, ih, -INFINITY, 0.0f };
    }
    std::fill_n(rows.out, rows.n * op.head_dim_v, 0.0f);
}

// make block a run of blocks of a kv head, from its block first on
static void start_run(const qlutattn_op & op, qlutattn_query_block & block, int64_t first, int64_t ikv, int64_t i3) {
    block.scale     = op.scale;
    block.softcap   = op.softcap;
    block.smoothing = op.smoothing;
    block.shifts    = op.shifts;
    block.ikv       = ikv;
    block.i3        = i3;
    block.k_tiles   = qlutattn_get_head_tiles(op.head_dim_k, ikv, op.head_dim_k);
    block.v_tiles   = qlutattn_get_head_tiles(op.packed.v ? op.head_dim_v : op.head_dim_k, ikv, op.head_dim_v);
    block.n_run     = std::min(op.run, op.n_blocks - first);
    for (int i = 0; i < block.n_run; i++) {
        start_rows(op, block.run[i], (first + i) * QLUTATTN_ROWS, ikv, i3);
    }
}

static void attend_to_split(qlutattn_query_block & block, const qlutattn_segment & segment, int64_t i, int64_t n_keys) {
    qlutattn_attend(block, segment, i * n_keys, std::min(segment.n_tokens(), (i + 1) * n_keys));
}

// merge another softmax state (M, S, other) of the same row
static void merge_state(qlutattn_row & row, float * out, float M, float S, const float * other, int head_dim_v) {
    if (S == 0.0f) {
        return; // no visible key
    }
    const float M_new       = std::max(row.M, M);
    const float scale       = expf(row.M - M_new);
    const float other_scale = expf(M - M_new);
    for (int c = 0; c < head_dim_v; c++) { // vectorized
        out[c] = out[c] * scale + other[c] * other_scale;
    }
    row.S = row.S * scale + S * other_scale;
    row.M = M_new;
}

// the sink is merged last: a logit without a value
static void write_result(const qlutattn_op & op, qlutattn_row & row, float * out, int64_t i3) {
    if (op.sinks) {
        const float zeros[QLUTATTN_MAX_HEAD] = { 0 };
        merge_state(row, out, ((const float *) op.sinks->data)[row.ih], 1.0f, zeros, op.head_dim_v);
    }
    float *     result  = (float *) ((char *) op.dst->data + row.ih * op.dst->nb[1] + row.iq * op.dst->nb[2] + i3 * op.dst->nb[3]);
    const float inverse = row.S == 0.0f ? 0.0f : 1.0f / row.S;
    for (int c = 0; c < op.head_dim_v; c++) { // vectorized
        result[c] = out[c] * inverse;
    }
}

static void write_results(const qlutattn_op & op, qlutattn_rows & rows, int64_t i3) {
    for (int r = 0; r < rows.n; r++) {
        write_result(op, rows.at[r], rows.out + r * op.head_dim_v, i3);
    }
}

void ggml_compute_forward_flash_attn_ext_mixed(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const qlutattn_op op(dst);

    GGML_ASSERT(params->wsize >= ggml_flash_attn_ext_mixed_work_size(dst, params->nth));
    const size_t           block_size = qlutattn_block_size(op.block_shape());
    char *                 blocks     = (char *) GGML_PAD((uintptr_t) params->wdata, alignof(qlutattn_query_block));
    qlutattn_query_block & block      = qlutattn_place_block(blocks + params->ith * block_size, op.block_shape());
    float *                partials   = (float *) (blocks + params->nth * block_size); // [i3][ikv][row][kv_split][M, S, out]

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    const int64_t n_items = op.n_items();
    for (int64_t item = params->ith; item < n_items; item = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t kv_split = item % op.n_kv_splits;
        const int64_t first    = item / op.n_kv_splits % op.n_runs * op.run; // block
        const int64_t head     = item / op.n_kv_splits / op.n_runs;          // of all batches
        const int64_t i3       = head / op.n_head_kv;
        start_run(op, block, first, head % op.n_head_kv, i3);
        if (!op.is_split()) {
            qlutattn_attend(block, op.window, 0, op.window.n_tokens());
            qlutattn_attend(block, op.packed, 0, op.packed.n_tokens());
            for (int i = 0; i < block.n_run; i++) {
                write_results(op, block.run[i], i3);
            }
            continue;
        }
        if (kv_split < op.n_kv_splits_window) {
            attend_to_split(block, op.window, kv_split, op.split_window);
        } else {
            attend_to_split(block, op.packed, kv_split - op.n_kv_splits_window, op.split_packed);
        }
        const qlutattn_rows & rows = block.run[0];
        for (int r = 0; r < rows.n; r++) {
            float * partial = partials + ((head * op.n_rows + first * QLUTATTN_ROWS + r) * op.n_kv_splits + kv_split) * op.state_floats();
            partial[0]      = rows.at[r].M;
            partial[1]      = rows.at[r].S;
            memcpy(partial + 2, rows.out + r * op.head_dim_v, op.head_dim_v * sizeof(float));
        }
    }
    if (!op.is_split()) {
        return;
    }
    ggml_barrier(params->threadpool);

    const int64_t n_rows = op.n_heads * op.n_rows;
    for (int64_t i = params->ith; i < n_rows; i += params->nth) {
        const int64_t head                   = i / op.n_rows;
        const int64_t in_head                = i % op.n_rows;
        const int64_t ih                     = head % op.n_head_kv * op.group + in_head % op.group;
        qlutattn_row  row                    = { nullptr, 0.0f, in_head / op.group, ih, -INFINITY, 0.0f };
        float         out[QLUTATTN_MAX_HEAD] = { 0 };
        for (int64_t kv_split = 0; kv_split < op.n_kv_splits; kv_split++) {
            const float * partial = partials + (i * op.n_kv_splits + kv_split) * op.state_floats();
            merge_state(row, out, partial[0], partial[1], partial + 2, op.head_dim_v);
        }
        write_result(op, row, out, head / op.n_head_kv);
    }
}
