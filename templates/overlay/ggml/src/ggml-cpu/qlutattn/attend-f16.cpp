#include "attend-f16.h"

#include "simd-f32.h"

namespace f32 = qlutattn_f32;

// Blocks whose sums stay in registers: rows x keys of the scores, rows x vectors of channels of the values.
constexpr int SCORE_KEYS = 4;
constexpr int SCORE_ROWS = f32::N_REGISTERS >= 32 ? 4 : 3;
constexpr int VALUE_ROWS = 4;
constexpr int VALUE_VECS = f32::N_REGISTERS >= 32 ? 4 : 2;

static const ggml_fp16_t * token_at(const char * data, size_t stride, int i) {
    return (const ggml_fp16_t *) (data + i * stride);
}

// past the last key, the last one is repeated
template <int n_rows>
static void compute_scores(const char * k, size_t stride, int n, int head_dim, const float * const * q, float scale, float * const * scores) {
    for (int i = 0; i < n; i += SCORE_KEYS) {
        const ggml_fp16_t * keys[SCORE_KEYS];
        f32::vec            sums[n_rows][SCORE_KEYS];
        for (int j = 0; j < SCORE_KEYS; j++) {
            keys[j] = token_at(k, stride, std::min(i + j, n - 1));
            for (int r = 0; r < n_rows; r++) {
                sums[r][j] = f32::broadcast(0.0f);
            }
        }
        for (int d = 0; d < head_dim; d += f32::WIDTH) {
            f32::vec x[n_rows];
            for (int r = 0; r < n_rows; r++) {
                x[r] = f32::load(q[r] + d);
            }
            for (int j = 0; j < SCORE_KEYS; j++) {
                const f32::vec key = f32::from_f16(keys[j] + d);
                for (int r = 0; r < n_rows; r++) {
                    sums[r][j] = f32::fma(key, x[r], sums[r][j]);
                }
            }
        }
        for (int r = 0; r < n_rows; r++) {
            f32::reduce_add4(scores[r] + i, sums[r][0], sums[r][1], sums[r][2], sums[r][3], scale);
        }
    }
}

// channels c.. of the rows, without the tokens whose weight is 0: those may be anything
template <int n_rows, int n_vecs>
static void accumulate_seen(const char * v, size_t stride, int n, int c, const float * const * weights, float * const * out) {
    for (int r = 0; r < n_rows; r++) {
        for (int i = 0; i < n; i++) {
            if (weights[r][i] != 0.0f) {
                const ggml_fp16_t * value  = token_at(v, stride, i) + c;
                const f32::vec      weight = f32::broadcast(weights[r][i]);
                for (int j = 0; j < n_vecs; j++) {
                    float * to = out[r] + c + j * f32::WIDTH;
                    f32::store(to, f32::fma(weight, f32::from_f16(value + j * f32::WIDTH), f32::load(to)));
                }
            }
        }
    }
}

template <int n_rows, int n_vecs>
static void accumulate_pv(const char * v, size_t stride, int n, int head_dim, const float * const * weights, float * const * out) {
    for (int c = 0; c < head_dim; c += n_vecs * f32::WIDTH) {
        f32::vec sums[n_rows][n_vecs];
        for (int r = 0; r < n_rows; r++) {
            for (int j = 0; j < n_vecs; j++) {
                sums[r][j] = f32::load(out[r] + c + j * f32::WIDTH);
            }
        }
        for (int i = 0; i < n; i++) {
            const ggml_fp16_t * value = token_at(v, stride, i) + c;
            f32::vec            x[n_vecs];
            for (int j = 0; j < n_vecs; j++) {
                x[j] = f32::from_f16(value + j * f32::WIDTH);
            }
            for (int r = 0; r < n_rows; r++) {
                const f32::vec weight = f32::broadcast(weights[r][i]);
                for (int j = 0; j < n_vecs; j++) {
                    sums[r][j] = f32::fma(weight, x[j], sums[r][j]);
                }
            }
        }
        // 0 times a value that is not finite is NaN, so such a value shows in the sums, whoever sees it
        f32::vec check = f32::broadcast(0.0f);
        for (int r = 0; r < n_rows; r++) {
            for (int j = 0; j < n_vecs; j++) {
                check = f32::fma(sums[r][j], f32::broadcast(0.0f), check);
            }
        }
        if (f32::reduce_add(check) != 0.0f) {
            accumulate_seen<n_rows, n_vecs>(v, stride, n, c, weights, out);
            continue;
        }
        for (int r = 0; r < n_rows; r++) {
            for (int j = 0; j < n_vecs; j++) {
                f32::store(out[r] + c + j * f32::WIDTH, sums[r][j]);
            }
        }
    }
}

void qlutattn_compute_scores_f16(const char * k, size_t stride, int n, int head_dim, const float * const * q, int n_rows, float scale,
                                 float * const * scores) {
    int r = 0;
    for (; r + SCORE_ROWS <= n_rows; r += SCORE_ROWS) {
        compute_scores<SCORE_ROWS>(k, stride, n, head_dim, q + r, scale, scores + r);
    }
    for (; r + 2 <= n_rows; r += 2) {
        compute_scores<2>(k, stride, n, head_dim, q + r, scale, scores + r);
    }
    if (r < n_rows) {
        compute_scores<1>(k, stride, n, head_dim, q + r, scale, scores + r);
    }
}

void qlutattn_accumulate_pv_f16(const char * v, size_t stride, int n, int head_dim, const float * const * weights, int n_rows, float * const * out) {
    int r = 0;
    for (; r + VALUE_ROWS <= n_rows; r += VALUE_ROWS) {
        accumulate_pv<VALUE_ROWS, VALUE_VECS>(v, stride, n, head_dim, weights + r, out + r);
    }
    for (; r < n_rows; r++) {
        accumulate_pv<1, 4>(v, stride, n, head_dim, weights + r, out + r);
    }
}
