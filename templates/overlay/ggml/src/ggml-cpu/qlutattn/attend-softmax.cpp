#include "attend-softmax.h"

#include "simd-f32.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace f32 = qlutattn_f32;

// scores + slope*mask, and -inf where the mask is, whatever the product
static void add_mask(const ggml_fp16_t * mask, float slope, float * scores, int n) {
    const auto add = [&](int i, f32::vec m) {
        f32::store(scores + i, f32::apply_mask(m, f32::fma(m, f32::broadcast(slope), f32::load(scores + i))));
    };
    int i = 0;
    for (; i + f32::WIDTH <= n; i += f32::WIDTH) {
        add(i, f32::from_f16(mask + i));
    }
    if (i < n) {
        alignas(64) float rest[f32::WIDTH];
        for (int j = 0; j < f32::WIDTH; j++) {
            rest[j] = i + j < n ? ggml_fp16_to_fp32(mask[i + j]) : -INFINITY;
        }
        add(i, f32::load(rest));
    }
}

// the largest of n scores, a multiple of the vector width, NaN left out
static float max_score(const float * scores, int n) {
    f32::vec max = f32::broadcast(-INFINITY);
    for (int i = 0; i < n; i += f32::WIDTH) {
        max = f32::max(f32::load(scores + i), max);
    }
    return f32::reduce_max(max);
}

static void rescale(qlutattn_row & row, float * out, int head_dim_v, float new_max) {
    const float scale = f32::first(f32::exp(f32::broadcast(row.M - new_max)));
    for (int c = 0; c < head_dim_v; c += f32::WIDTH) {
        f32::store(out + c, f32::mul(f32::load(out + c), f32::broadcast(scale)));
    }
    row.S *= scale;
    row.M = new_max;
}

// scores become weights exp(score - M); returns their sum
static float weigh(float * scores, int n, float largest) {
    const f32::vec M   = f32::broadcast(std::max(-FLT_MAX, largest)); // with -inf, the weights of -inf are 0
    f32::vec       sum = f32::broadcast(0.0f);
    for (int i = 0; i < n; i += f32::WIDTH) {
        const f32::vec weight = f32::exp(f32::sub(f32::load(scores + i), M));
        f32::store(scores + i, weight);
        sum = f32::add(sum, weight);
    }
    return f32::reduce_add(sum);
}

// qs = qmax times the weights, of which that of the largest score is 1; returns the sum of the weights
static float quantize_weights(const float * scores, int n, float largest, int qmax, int8_t * qs) {
    const f32::vec M   = f32::broadcast(std::max(-FLT_MAX, largest)); // as above
    f32::vec       sum = f32::broadcast(0.0f);
    for (int i = 0; i < n; i += f32::WIDTH) {
        const f32::vec weight = f32::exp(f32::sub(f32::load(scores + i), M));
        f32::store_i8(qs + i, f32::mul(weight, f32::broadcast(qmax)));
        sum = f32::add(sum, weight);
    }
    return f32::reduce_add(sum);
}

void qlutattn_online_softmax(qlutattn_query_block & block, int r, const ggml_fp16_t * mask, int n, int qmax, qlutattn_qvec * qvec) {
    qlutattn_row & row    = block.rows->at[r];
    float *        scores = block.scores[r];
    if (block.softcap != 0.0f) {
        for (int i = 0; i < n; i++) {
            scores[i] = tanhf(scores[i]) * block.softcap;
        }
    }
    const int padded = (n + f32::WIDTH - 1) / f32::WIDTH * f32::WIDTH;
    std::fill(scores + n, scores + padded, -INFINITY);
    if (mask) {
        add_mask(mask, row.slope, scores, n);
    }
    const float largest = max_score(scores, padded);
    if (largest > row.M) {
        rescale(row, block.out(r), block.head_dim_v, largest);
    }
    if (!qvec) {
        row.S += weigh(scores, padded, row.M);
        return;
    }
    // Quantized weights are those of the KV block alone, so that the vectors need not wait for its weight beside the blocks before.
    constexpr float tiny   = 1e-30f; // below this, it is nothing
    const float     weight = f32::first(f32::exp(f32::broadcast(largest - row.M)));
    qvec->d                = weight >= tiny ? weight / qmax : 0.0f;
    qvec->sum              = weight * quantize_weights(scores, padded, largest, qmax, qvec->qs);
    row.S += qvec->sum;
}
