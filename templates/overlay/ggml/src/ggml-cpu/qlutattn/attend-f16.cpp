#include "attend-f16.h"

#include "simd-f32.h"

namespace f32 = qlutattn_f32;

static const ggml_fp16_t * token_at(const char * data, size_t stride, int i) {
    return (const ggml_fp16_t *) (data + i * stride);
}

// four keys at a time; past the last one, the last one is repeated
template <int n_rows>
static void compute_scores(const char * k, size_t stride, int n, int head_dim, const float * const * q, float * const * scores) {
    for (int i = 0; i < n; i += 4) {
        const ggml_fp16_t * keys[4];
        f32::vec            sums[n_rows][4];
        for (int j = 0; j < 4; j++) {
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
            for (int j = 0; j < 4; j++) {
                const f32::vec key = f32::from_f16(keys[j] + d);
                for (int r = 0; r < n_rows; r++) {
                    sums[r][j] = f32::fma(key, x[r], sums[r][j]);
                }
            }
        }
        for (int r = 0; r < n_rows; r++) {
            f32::reduce_add4(scores[r] + i, sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
        }
    }
}

// two vectors of channels at a time, over all tokens
template <int n_rows>
static void accumulate_pv(const char * v, size_t stride, int n, int head_dim, const float * const * weights, float * const * out) {
    for (int c = 0; c < head_dim; c += 2 * f32::WIDTH) {
        f32::vec sums[n_rows][2];
        for (int r = 0; r < n_rows; r++) {
            sums[r][0] = f32::load(out[r] + c);
            sums[r][1] = f32::load(out[r] + c + f32::WIDTH);
        }
        for (int i = 0; i < n; i++) {
            const f32::vec a = f32::from_f16(token_at(v, stride, i) + c);
            const f32::vec b = f32::from_f16(token_at(v, stride, i) + c + f32::WIDTH);
            for (int r = 0; r < n_rows; r++) {
                const f32::vec weight = f32::broadcast(weights[r][i]);
                sums[r][0]            = f32::fma(weight, a, sums[r][0]);
                sums[r][1]            = f32::fma(weight, b, sums[r][1]);
            }
        }
        for (int r = 0; r < n_rows; r++) {
            f32::store(out[r] + c, sums[r][0]);
            f32::store(out[r] + c + f32::WIDTH, sums[r][1]);
        }
    }
}

static bool is_finite(const char * v, size_t stride, int n, int head_dim) {
    constexpr ggml_fp16_t exponent = 0x7c00;
    bool                  finite   = true;
    for (int i = 0; i < n; i++) {
        const ggml_fp16_t * value = token_at(v, stride, i);
        bool                all   = true;
        for (int d = 0; d < head_dim; d++) {
            all &= (value[d] & exponent) != exponent;
        }
        finite &= all;
    }
    return finite;
}

void qlutattn_compute_scores_f16(const char * k, size_t stride, int n, int head_dim, const float * const * q, int n_rows, float * const * scores) {
    int r = 0;
    for (; r + 2 <= n_rows; r += 2) {
        compute_scores<2>(k, stride, n, head_dim, q + r, scores + r);
    }
    if (r < n_rows) {
        compute_scores<1>(k, stride, n, head_dim, q + r, scores + r);
    }
}

void qlutattn_accumulate_pv_f16(const char * v, size_t stride, int n, int head_dim, const float * const * weights, int n_rows, float * const * out) {
    if (!is_finite(v, stride, n, head_dim)) {
        for (int r = 0; r < n_rows; r++) {
            for (int i = 0; i < n; i++) {
                if (weights[r][i] != 0.0f) {
                    const float * weight = weights[r] + i;
                    accumulate_pv<1>(v + i * stride, stride, 1, head_dim, &weight, out + r);
                }
            }
        }
        return;
    }
    int r = 0;
    for (; r + 4 <= n_rows; r += 4) {
        accumulate_pv<4>(v, stride, n, head_dim, weights + r, out + r);
    }
    for (; r < n_rows; r++) {
        accumulate_pv<1>(v, stride, n, head_dim, weights + r, out + r);
    }
}
