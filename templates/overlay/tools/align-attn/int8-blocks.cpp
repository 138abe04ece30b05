#include "int8-blocks.h"

#include <algorithm>
#include <cmath>

static constexpr int64_t MAX_DRAFT = 64; // with so many queries and fewer, f16 stays f16

static bool all_finite(const std::vector<double> & x, int64_t first, int64_t n) {
    return std::all_of(x.begin() + first, x.begin() + first + n, [](double y) { return std::isfinite(y); });
}

// The step between two codes of a lane with this largest magnitude, and what the largest value loses if the scale is rounded down, as one step.
static double step_of(double largest) {
    const double scale = ggml_fp16_to_fp32(ggml_fp32_to_fp16((float) (largest * 64 / 127)));
    return std::max(scale / 64, 2 * (largest - scale / 64 * 127));
}

// the distance of two neighbours in f16
static double f16_step(double x) {
    return std::max(0x1p-24, std::exp2(std::floor(std::log2(std::max(x, 0x1p-30))) - 10));
}

static void round_keys(const align_case & c, const head_values & head, int8_block & block) {
    const int64_t dk = c.dims.k;
    for (int64_t from = 0; from < dk; from += TILE) {
        const int64_t n = std::min<int64_t>(TILE, dk - from);

        std::vector<double> mean(n, 0.0);
        double              largest = 0;
        for (int64_t t = block.first; t < block.first + TILE; ++t) {
            for (int64_t i = 0; i < n; ++i) {
                mean[i] += head.k[t * dk + from + i] * c.smoothing / 100 / TILE;
                largest = std::max(largest, std::fabs(head.k[t * dk + from + i]));
            }
        }
        block.parts.push_back({ from, n, 2 * largest });
        block.mean.insert(block.mean.end(), mean.begin(), mean.end());
        for (int64_t t = block.first; t < block.first + TILE; ++t) {
            double most    = 0;
            double squares = 0;
            for (int64_t i = 0; i < n; ++i) {
                const double x = head.k[t * dk + from + i] - mean[i];
                most           = std::max(most, std::fabs(x));
                squares += x * x;
            }
            const double step  = step_of(most);
            const double round = c.smoothing > 0 ? f16_step(most) : 0.0; // the difference is f16
            block.q_noise.push_back(squares / 12);
            block.k_noise.push_back((step * step + round * round) / 12);
        }
    }
}

static void round_values(const align_case & c, const head_values & head, int8_block & block) {
    const int64_t dv = c.dims.v;
    for (int64_t x = 0; x < dv; ++x) {
        double most    = 0;
        double squares = 0;
        for (int64_t t = block.first; t < block.first + TILE; ++t) {
            const double v = head.v[t * dv + x];
            most           = std::max(most, std::fabs(v));
            squares += v * v;
        }
        block.p_noise.push_back(squares / 12);
        block.v_noise.push_back(step_of(most) * step_of(most) / 12);
    }
}

std::vector<int8_block> int8_blocks_of(const align_case & c, const head_values & head) {
    std::vector<int8_block> blocks;
    for (int64_t first = c.n_packed(); c.is_int8() && c.n_q > MAX_DRAFT && first + TILE <= c.n_kv(); first += TILE) {
        if (all_finite(head.k, first * c.dims.k, TILE * c.dims.k) && all_finite(head.v, first * c.dims.v, TILE * c.dims.v)) {
            blocks.push_back({ first, {}, {}, {}, {}, {}, {} });
            round_keys(c, head, blocks.back());
            round_values(c, head, blocks.back());
        }
    }
    return blocks;
}
