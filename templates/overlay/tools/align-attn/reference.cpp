#include "reference.h"

#include "head-values.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>

namespace {

// The squared rounding step that a kernel takes for x, in units of x; 0 where docs/align.md calls it exact.
template <typename T> double squared_step(const T * x, int64_t n, kernel_kind kernel) {
    double max_abs    = 0;
    bool   is_uniform = true; // all values that are not 0 have the same magnitude
    for (int64_t i = 0; i < n; ++i) {
        max_abs = std::max(max_abs, (double) std::fabs(x[i]));
    }
    for (int64_t i = 0; i < n; ++i) {
        is_uniform &= x[i] == 0 || std::fabs(x[i]) == max_abs;
    }
    const double step = is_uniform ? 0.0 : max_abs / (kernel == kernel_kind::lut ? 63 : kernel == kernel_kind::dot7 ? 64 : 127);
    return step * step;
}

template <typename T> double squared_norm(const T * x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum += (double) x[i] * (double) x[i];
    }
    return sum;
}

struct attention {
    const align_case & c;
    const case_data &  data;
    kernel_kind        kernel_k = kernel_kind::lut;
    kernel_kind        kernel_v = kernel_kind::lut;

    std::vector<head_values> heads; // [n_batch][n_head_kv]
    reference                ref;

    attention(const align_case & c, const case_data & data) : c(c), data(data) {}

    int64_t dk() const { return c.dims.k; }
    int64_t dv() const { return c.dims.v; }

    // The working memory for a row: one query of a head.
    struct row {
        const head_values * head;
        const float *       q;
        int64_t             index; // of q
        const float *       mask;  // or nullptr
        double              slope;
        double              sink;  // its logit, -inf when there is none
        double *            out;

        std::vector<int64_t> tokens; // the visible ones
        std::vector<double>  score;
        std::vector<double>  p;
        double               p_sink;
        double               log_sum; // of exp(score), so that log p = score - log_sum

        std::vector<double> size;     // [dims.v] sum of p * v_size
        std::vector<double> first;    // [dims.v] sum of w1 * (v - out)^2
        std::vector<double> second;   // [dims.v] sum of w2 * |v - out|
        std::vector<double> reach;    // [dims.v] largest |v - out|
        std::vector<double> weight;   // [dims.v] what the weights of V bring
        std::vector<double> w1, w2;

        explicit row(const align_case & c) :
            score(c.n_kv()),
            p(c.n_kv()),
            size(c.dims.v),
            first(c.dims.v),
            second(c.dims.v),
            reach(c.dims.v),
            weight(c.dims.v),
            w1(c.n_kv()),
            w2(c.n_kv()) {}
    };

    // which queries a token meets
    int set_of(const row & r, int64_t t) const {
        return c.k && c.n_shift > 0 && t < c.n_packed() ? data.tile_shift[r.index / c.n_q / c.n_head() * c.n_tiles + t / TILE] : 0;
    }

    const float * query_of(const row & r, int set) const {
        return set == 0 ? r.q : data.q_shifted.data() + ((set - 1) * c.n_rows() + r.index) * dk();
    }

    double score_of(const float * q, const double * k) const {
        double sum[4] = { 0, 0, 0, 0 };
        for (int64_t i = 0; i < dk(); i += 4) {
            for (int j = 0; j < 4; ++j) {
                sum[j] += (double) q[i + j] * k[i + j];
            }
        }
        const double s = (sum[0] + sum[1] + sum[2] + sum[3]) * (double) c.scale();
        return c.softcap ? (double) c.logit_softcap() * std::tanh(s / (double) c.logit_softcap()) : s;
    }

    // Scores, weights and the result. Returns false when nothing is visible.
    bool attend(row & r) const {
        double max_score = r.sink;
        bool   nan       = false;
        r.tokens.clear();
        for (int64_t t = 0; t < c.n_kv(); ++t) {
            if (r.mask && r.mask[t] == -INFINITY) {
                continue;
            }
            r.score[t] = score_of(query_of(r, set_of(r, t)), r.head->k.data() + t * dk()) + (r.mask ? r.slope * (double) r.mask[t] : 0.0);
            nan |= std::isnan(r.score[t]);
            max_score = std::max(max_score, r.score[t]);
            r.tokens.push_back(t);
        }
        if (r.tokens.empty()) {
            return false;
        }
        double sum = r.p_sink = std::exp(r.sink - max_score);
        std::fill(r.p.begin(), r.p.end(), 0.0);
        for (int64_t t : r.tokens) {
            r.p[t] = nan ? (double) NAN : std::exp(r.score[t] - max_score);
            sum += r.p[t];
        }
        for (int64_t t : r.tokens) {
            r.p[t] /= sum;
            const double * v = r.head->v.data() + t * dv();
            for (int64_t x = 0; x < dv(); ++x) {
                r.out[x] += r.p[t] * v[x];
            }
        }
        r.p_sink /= sum;
        r.log_sum = max_score + std::log(sum);
        return true;
    }

    // The variance that V's lanes have for one tile's weights after the other; `square` gives that of the weights.
    template <typename F> void add_v_noise(row & r, F square) const {
        std::fill(r.weight.begin(), r.weight.end(), 0.0);
        for (int64_t tile = 0; tile < c.n_tiles; ++tile) {
            const double   e     = square(r.p.data() + tile * TILE);
            const double * noise = r.head->v_noise.data() + tile * dv();
            for (int64_t x = 0; e != 0 && x < dv(); ++x) {
                r.weight[x] += e * noise[x];
            }
        }
    }

    // The same where values are keys: the weights have the lanes' scales, part by part, before they are rounded.
    template <typename F> void add_latent_noise(row & r, F square) const {
        std::fill(r.weight.begin(), r.weight.end(), 0.0);
        for (size_t part = 0; part < r.head->k_parts.size(); ++part) {
            const head_part & p = r.head->k_parts[part];
            for (int64_t tile = 0; c.k && tile < c.n_tiles; ++tile) {
                double scaled[TILE];
                for (int64_t i = 0; i < TILE; ++i) {
                    const int64_t t = tile * TILE + i;
                    scaled[i]       = r.p[t] == 0 ? 0.0 : r.p[t] * r.head->k_scale[part * c.n_packed() + t];
                }
                const double e = square(scaled);
                for (int64_t x = p.in_head; x < std::min<int64_t>(p.in_head + p.n, dv()); ++x) {
                    r.weight[x] += e * r.head->v_noise[tile * dv() + x];
                }
            }
        }
    }

    template <typename F> void add_weight_noise(row & r, F square) const { c.is_latent ? add_latent_noise(r, square) : add_v_noise(r, square); }

    // Where values are keys, the rounding of a channel of q moves the weights by that channel's keys, in all tokens alike.
    void add_own_channel(row & r, const std::vector<double> & step) const {
        const double scale = (double) c.scale();
        for (size_t part = 0; part < r.head->k_parts.size() && c.is_latent && c.k; ++part) {
            const head_part & p = r.head->k_parts[part];
            for (int64_t x = p.in_head; x < std::min<int64_t>(p.in_head + p.n, dv()); ++x) {
                double moved = 0;
                for (int64_t t : r.tokens) {
                    const double v = r.head->v[t * dv() + x];
                    moved += t < c.n_packed() && r.p[t] != 0 ? r.p[t] * (v - r.out[x]) * v : 0.0;
                }
                r.first[x] += scale * scale * step[part] / 12 * moved * moved;
            }
        }
    }

    // What 8 bits add where the segment is f16: variances of the scores, and the magnitudes that are summed.
    void add_int8_scores(const row & r, std::vector<double> & var, std::vector<double> & summed) const {
        for (const int8_block & block : r.head->int8) {
            for (size_t part = 0; part < block.parts.size(); ++part) {
                const int8_block::part & p    = block.parts[part];
                const float *            x    = r.q + p.in_head;
                const double             step = squared_step(x, p.n, kernel_kind::dot);
                const double             norm = squared_norm(x, p.n);
                const double             size = std::accumulate(x, x + p.n, 0.0, [](double sum, float y) { return sum + std::fabs((double) y); });
                for (int64_t i = 0; i < TILE; ++i) {
                    var[block.first + i] += step * block.q_noise[part * TILE + i] + norm * block.k_noise[part * TILE + i];
                    summed[block.first + i] += size * p.size;
                }
            }
        }
    }

    // and of the result; where values are keys, see add_own_channel
    void add_int8_values(row & r) const {
        for (const int8_block & block : r.head->int8) {
            for (const int8_block::part & p : block.parts) {
                const double step = squared_step(r.q + p.in_head, p.n, kernel_kind::dot);
                for (int64_t x = p.in_head; c.is_latent && x < std::min(p.in_head + p.n, dv()); ++x) {
                    double moved = 0;
                    for (int64_t t = block.first; t < block.first + TILE; ++t) {
                        const double v = r.head->v[t * dv() + x];
                        moved += r.p[t] * (v - r.out[x]) * (v - block.mean[x]);
                    }
                    r.weight[x] += (double) c.scale() * c.scale() * step / 12 * moved * moved;
                }
            }
        }
        for (const int8_block & block : r.head->int8) {
            const double * p    = r.p.data() + block.first;
            const double   step = squared_step(p, TILE, kernel_kind::dot);
            const double   norm = squared_norm(p, TILE);
            for (int64_t x = 0; x < dv(); ++x) {
                r.weight[x] += step * block.p_noise[x] + norm * block.v_noise[x];
            }
        }
    }

    // (a): docs/align.md derives it.
    void add_tolerance(row & r, int64_t at) {
        const std::vector<head_part> & parts = r.head->k_parts;
        std::vector<double>            step; // [set][part]
        std::vector<double>            size;
        const double                   scale       = std::fabs((double) c.scale());
        double                         largest_var = 0;
        std::vector<double>            var_int8(c.n_kv(), 0.0);
        std::vector<double>            summed_int8(c.n_kv(), 0.0);
        add_int8_scores(r, var_int8, summed_int8);
        for (int set = 0; set <= c.n_shift; ++set) {
            for (const head_part & p : parts) {
                const float * x = query_of(r, set) + p.in_head;
                step.push_back(squared_step(x, p.n, kernel_k));
                size.push_back(std::accumulate(x, x + p.n, 0.0, [](double sum, float y) { return sum + std::fabs((double) y); }));
            }
        }
        for (int64_t t : r.tokens) {
            double       var    = var_int8[t];
            double       summed = summed_int8[t]; // magnitudes that binary32 sums up to the score
            const size_t first  = set_of(r, t) * parts.size();
            for (size_t part = 0; part < parts.size(); ++part) {
                var += t < c.n_packed() ? step[first + part] * r.head->k_noise[part * c.n_packed() + t] : 0.0;
                summed += size[first + part] * r.head->k_size[part * c.n_kv() + t];
            }
            const double binary32 = 0x1p-22 * (scale * summed + (r.mask ? std::fabs(r.slope * (double) r.mask[t]) : 0.0));

            r.w1[t]     = std::isfinite(binary32) ? scale * scale * var + binary32 * binary32 : 0.0;
            largest_var = std::max(largest_var, r.w1[t]);
        }
        const double sigma  = std::sqrt(largest_var);
        const double bound  = 3 * sigma * (1 + 2 * std::min(1.0, sigma));
        const auto   excess = [&](double p, double score) { // p * (exp(bound) - 1 - bound), also where p is 0 in binary64
            return bound < 1 ? p * (std::expm1(bound) - bound) :
                                 std::max(0.0, std::exp(std::min(score - r.log_sum + bound, 300.0)) - p * (1 + bound));
        };
        for (int64_t t : r.tokens) {
            r.w1[t] *= r.p[t] * r.p[t];
            r.w2[t] = excess(r.p[t], r.score[t]);
        }
        const double w2_sink = excess(r.p_sink, r.sink); // the sink is one more token, of value 0
        for (int64_t x = 0; x < dv(); ++x) {
            r.size[x]   = 0;
            r.first[x]  = 0;
            r.second[x] = c.sinks ? w2_sink * std::fabs(r.out[x]) : 0.0;
            r.reach[x]  = c.sinks ? std::fabs(r.out[x]) : 0.0;
        }
        for (int64_t t : r.tokens) {
            const double   p  = r.p[t];
            const double   w1 = r.w1[t];
            const double   w2 = r.w2[t];
            const double * v  = r.head->v.data() + t * dv();
            const double * z  = r.head->v_size.data() + t * dv();
            for (int64_t x = 0; x < dv(); ++x) {
                const double away = std::fabs(v[x] - r.out[x]);
                r.size[x] += p * z[x];
                r.first[x] += w1 * away * away;
                r.second[x] += w2 * away;
                r.reach[x] = std::max(r.reach[x], away);
            }
        }
        add_own_channel(r, step);
        add_weight_noise(r, [&](const double * p) { return squared_step(p, TILE, kernel_v); });
        add_int8_values(r);
        for (int64_t x = 0; x < dv(); ++x) {
            const double noise = r.first[x] + r.weight[x];

            ref.noise[at + x]     = noise;
            ref.tolerance[at + x] = 6 * std::sqrt(noise) + 2e-5 * (std::fabs(r.out[x]) + r.size[x]) + std::min(r.second[x], r.reach[x]);
        }
    }

    // (b): to first order, like add_tolerance, but for errors of the values instead of roundings of the vectors.
    void add_sensitivity(row & r, int64_t at) {
        const double scale = (double) c.scale();
        std::fill(r.first.begin(), r.first.end(), 0.0);
        for (int64_t t : r.tokens) {
            if (t >= c.n_packed()) {
                break;
            }
            double var = 0;
            for (size_t part = 0; part < r.head->k_parts.size(); ++part) {
                const head_part & p = r.head->k_parts[part];
                var += squared_norm(query_of(r, set_of(r, t)) + p.in_head, p.n) * r.head->k_noise[part * c.n_packed() + t];
            }
            const double   w1 = scale * scale * var * r.p[t] * r.p[t];
            const double * v  = r.head->v.data() + t * dv();
            for (int64_t x = 0; x < dv(); ++x) {
                r.first[x] += w1 * (v[x] - r.out[x]) * (v[x] - r.out[x]);
            }
        }
        add_weight_noise(r, [](const double * p) { return squared_norm(p, TILE); });
        for (int64_t x = 0; x < dv(); ++x) {
            ref.k_error[at + x] = r.first[x];
            ref.v_error[at + x] = r.weight[x];
        }
    }

    reference run(bool on_codes) {
        const size_t n = (size_t) (c.n_rows() * dv());
        ref.out.assign(n, 0.0);
        ref.seen.assign((size_t) c.n_rows(), 0);
        for (std::vector<double> * v : { &ref.tolerance, &ref.noise }) {
            v->assign(on_codes ? n : 0, 0.0);
        }
        for (std::vector<double> * v : { &ref.k_error, &ref.v_error }) {
            v->assign(on_codes ? 0 : n, 0.0);
        }

        std::atomic<int64_t> next{ 0 };
        const auto           work = [&] {
            row r(c);
            for (int64_t index = next++; index < c.n_rows(); index = next++) {
                const int64_t i  = index % c.n_q;
                const int64_t h  = index / c.n_q % c.n_head();
                const int64_t b  = index / c.n_q / c.n_head();
                const int64_t at = ((b * c.n_q + i) * c.n_head() + h) * dv();
                const int64_t m  = (b % data.mask_batches * data.mask_heads + h % data.mask_heads) * c.n_q + i;

                r.head  = &heads[b * c.n_head_kv + h / c.group];
                r.index = index;
                r.q     = data.q.data() + index * dk();
                r.mask  = data.mask.empty() ? nullptr : data.mask.data() + m * c.n_kv();
                r.slope = slope_of(c, h);
                r.sink  = c.sinks ? (double) data.sinks[h] : (double) -INFINITY;
                r.out   = ref.out.data() + at;
                if (!attend(r)) {
                    continue; // zeros, and no tolerance
                }
                ref.seen[at / dv()] = 1;
                if (on_codes) {
                    add_tolerance(r, at);
                } else {
                    add_sensitivity(r, at);
                }
            }
        };
        const int64_t            n_cpus    = std::min<int64_t>(std::max(1u, std::thread::hardware_concurrency()), 8);
        const int64_t            n_threads = c.cost() < 1000000 ? 1 : n_cpus;
        std::vector<std::thread> threads;
        for (int64_t i = 1; i < n_threads; ++i) {
            threads.emplace_back(work);
        }
        work();
        for (std::thread & thread : threads) {
            thread.join();
        }
        return std::move(ref);
    }
};

} // namespace

double slope_of(const align_case & c, int64_t head) {
    if (c.max_bias() == 0.0f) {
        return 1.0;
    }
    const int64_t power = (int64_t) 1 << (int64_t) std::floor(std::log2((double) c.n_head()));
    const double  bias  = c.max_bias();
    return head < power ? std::pow(2.0, -bias / power * (head + 1)) : std::pow(2.0, -bias / 2 / power * (2 * (head - power) + 1));
}

reference attention_on_codes(const align_case & c, const case_data & data, const packed_side & k, const packed_side & v, kernel_kind kernel_k,
                             kernel_kind kernel_v) {
    attention a(c, data);
    a.kernel_k = kernel_k;
    a.kernel_v = kernel_v;
    for (int64_t i = 0; i < c.n_batch * c.n_head_kv; ++i) {
        a.heads.push_back(decoded_values(c, data, k, v, i / c.n_head_kv, i % c.n_head_kv));
    }
    return a.run(true);
}

reference attention_on_values(const align_case & c, const case_data & data) {
    attention a(c, data);
    for (int64_t i = 0; i < c.n_batch * c.n_head_kv; ++i) {
        a.heads.push_back(original_values(c, data, i / c.n_head_kv, i % c.n_head_kv));
    }
    return a.run(false);
}
