#include "reference.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>

namespace {

// Everything that belongs to one kv head of one batch, packed tokens first.
struct head_values {
    std::vector<double> k;       // [n_kv][head_dim]
    std::vector<double> v;       // likewise
    std::vector<double> v_size;  // |scale*level| + |offset|: what binary32 rounds, also where the two cancel; |v| in the f16 segment
    std::vector<double> k_norm;  // [n_kv]
    std::vector<double> k_noise; // [part][n_packed]: variance of a token's score per squared rounding step of that part of the query
    std::vector<double> v_noise; // [tile][head_dim]: variance of a channel per squared rounding step of that tile's weights
};

struct attention {
    const align_case & c;
    const case_data &  data;
    bool               on_codes;
    kernel_kind        kernel_k = kernel_kind::lut;
    kernel_kind        kernel_v = kernel_kind::lut;

    std::vector<head_values> heads; // [n_batch][n_head_kv]
    reference                ref;

    int64_t d() const { return c.head_dim; }
    int64_t part_depth() const { return std::min<int64_t>(c.head_dim, 128); } // a kv head of 256 has two parts, each a tile of its own
    int64_t n_parts() const { return d() / part_depth(); }

    attention(const align_case & c, const case_data & data, bool on_codes) : c(c), data(data), on_codes(on_codes) {}

    void load_values() {
        heads.resize(c.n_batch * c.n_head_kv);
        for (int64_t b = 0; b < c.n_batch; ++b) {
            for (int64_t h = 0; h < c.n_head_kv; ++h) {
                head_values & head = heads[b * c.n_head_kv + h];
                for (int64_t t = 0; t < c.n_kv(); ++t) {
                    const bool    packed = t < c.n_packed();
                    const int64_t row    = packed ? b * c.n_packed() + t : b * c.n_f16 + t - c.n_packed();
                    const float * k      = (packed ? data.kp : data.k).data() + row * c.n_embd() + h * d();
                    const float * v      = (packed ? data.vp : data.v).data() + row * c.n_embd() + h * d();
                    head.k.insert(head.k.end(), k, k + d());
                    head.v.insert(head.v.end(), v, v + d());
                }
                for (double x : head.v) {
                    head.v_size.push_back(std::fabs(x));
                }
            }
        }
    }

    void finish_values() {
        for (head_values & head : heads) {
            for (int64_t t = 0; t < c.n_kv(); ++t) {
                double sum = 0;
                for (int64_t i = 0; i < d(); ++i) {
                    sum += head.k[t * d() + i] * head.k[t * d() + i];
                }
                head.k_norm.push_back(std::sqrt(sum));
            }
        }
    }

    // Replaces the packed tokens by what their codes stand for, and notes how much a rounding step counts.
    void load_codes(const packed_side & k, const packed_side & v) {
        const int64_t depth = part_depth();
        for (int64_t b = 0; b < c.n_batch; ++b) {
            for (int64_t h = 0; h < c.n_head_kv; ++h) {
                head_values & head = heads[b * c.n_head_kv + h];
                head.k_noise.assign(n_parts() * c.n_packed(), 0.0);
                head.v_noise.assign(c.n_tiles * d(), 0.0);
                for (int64_t tile = 0; tile < c.n_tiles; ++tile) {
                    for (int64_t part = 0; part < n_parts(); ++part) {
                        const int64_t      channel = h * d() + part * depth;
                        const int64_t      index   = (b * c.n_cols() + channel / 128) * c.n_tiles + tile;
                        const tile_codes & kt      = k.tiles[index];
                        const tile_codes & vt      = v.tiles[index];
                        for (int64_t token = 0; token < 128; ++token) {
                            double squares = 0;
                            for (int64_t i = 0; i < depth; ++i) {
                                const int64_t at    = (tile * 128 + token) * d() + part * depth + i;
                                const int     lane  = (int) ((channel + i) % 128);
                                const double  level = level_of(k.bits, kt.code[token][lane]);
                                head.k[at]          = kt.scale[token] * level + kt.offset[token];
                                const double spread = vt.scale[lane] * level_of(v.bits, vt.code[lane][token]);
                                head.v[at]          = spread + vt.offset[lane];
                                head.v_size[at]     = std::fabs(spread) + std::fabs(vt.offset[lane]);
                                squares += level * level;
                            }
                            const double n                                         = kernel_k == kernel_kind::dot ? squares : depth * k.bits / 4.0;
                            head.k_noise[part * c.n_packed() + tile * 128 + token] = kt.scale[token] * kt.scale[token] * n / 12;
                        }
                        for (int64_t i = 0; i < depth; ++i) {
                            const int lane    = (int) ((channel + i) % 128);
                            double    squares = 0;
                            for (int token = 0; token < 128; ++token) {
                                const double level = level_of(v.bits, vt.code[lane][token]);
                                squares += level * level;
                            }
                            const double n                              = kernel_v == kernel_kind::dot ? squares : 128 * v.bits / 4.0;
                            head.v_noise[tile * d() + part * depth + i] = vt.scale[lane] * vt.scale[lane] * n / 12;
                        }
                    }
                }
            }
        }
    }

    // How much of the result's error a unit of relative squared error in the lanes of K and V makes.
    void load_spread() {
        for (int64_t b = 0; b < c.n_batch; ++b) {
            for (int64_t h = 0; h < c.n_head_kv; ++h) {
                head_values & head = heads[b * c.n_head_kv + h];
                head.k_noise.assign(n_parts() * c.n_packed(), 0.0);
                head.v_noise.assign(c.n_tiles * d(), 0.0);
                for (int64_t tile = 0; tile < c.n_tiles; ++tile) {
                    for (int64_t part = 0; part < n_parts(); ++part) {
                        const int64_t channel = h * part_depth() * n_parts() + part * part_depth();
                        for (int64_t token = 0; token < 128; ++token) {
                            head.k_noise[part * c.n_packed() + tile * 128 + token] =
                                variance(data.kp, (b * c.n_packed() + tile * 128 + token) * c.n_embd() + channel / 128 * 128, 1);
                        }
                        for (int64_t i = 0; i < part_depth(); ++i) {
                            head.v_noise[tile * d() + part * part_depth() + i] =
                                variance(data.vp, (b * c.n_packed() + tile * 128) * c.n_embd() + channel + i, c.n_embd());
                        }
                    }
                }
            }
        }
    }

    static double variance(const std::vector<float> & x, int64_t from, int64_t step) {
        double sum     = 0;
        double squares = 0;
        for (int i = 0; i < 128; ++i) {
            sum += x[from + i * step];
        }
        for (int i = 0; i < 128; ++i) {
            const double r = x[from + i * step] - sum / 128;
            squares += r * r;
        }
        return squares / 128;
    }

    struct row_scratch {
        std::vector<double>  score, p, weight, w1, w2, mean_size, first, second;
        std::vector<int64_t> tokens; // the visible ones
    };

    // The squared rounding step that a kernel takes for x, in units of x; 0 where docs/align.md calls it exact.
    template <typename T> static double squared_step(const T * x, int64_t n, int bits, kernel_kind kernel) {
        double largest = 0;
        double nibble  = 0;
        bool   alike   = true; // all that is not 0 has the same size,
        bool   alone   = true; // and stands alone in its nibble
        for (int64_t i = 0; i < n; ++i) {
            largest = std::max(largest, (double) std::fabs(x[i]));
        }
        for (int64_t g = 0; g < n; g += 4 / bits) {
            double sum   = 0;
            int    count = 0;
            for (int64_t i = g; i < g + 4 / bits; ++i) {
                sum += std::fabs(x[i]);
                count += x[i] != 0;
                alike &= x[i] == 0 || std::fabs(x[i]) == largest;
            }
            alone &= count <= 1;
            nibble = std::max(nibble, sum);
        }
        if (alike && (alone || kernel == kernel_kind::dot)) {
            return 0.0;
        }
        const double step = (kernel == kernel_kind::dot ? largest : nibble * level_of(bits, n_levels(bits) - 1)) / 127;
        return step * step;
    }

    double score_of(const float * q, const double * k) const {
        double sum[4] = { 0, 0, 0, 0 };
        for (int64_t i = 0; i < d(); i += 4) {
            for (int j = 0; j < 4; ++j) {
                sum[j] += (double) q[i + j] * k[i + j];
            }
        }
        const double s = (sum[0] + sum[1] + sum[2] + sum[3]) * (double) c.scale();
        return c.softcap ? (double) c.logit_softcap() * std::tanh(s / (double) c.logit_softcap()) : s;
    }

    void compute_row(int64_t row, row_scratch & s) {
        const int64_t i = row % c.n_q;
        const int64_t h = row / c.n_q % c.n_head();
        const int64_t b = row / c.n_q / c.n_head();
        const float * q = data.q.data() + row * d();
        const float * mask =
            data.mask.empty() ? nullptr : data.mask.data() + ((b % data.mask_batches * data.mask_heads + h % data.mask_heads) * c.n_q + i) * c.n_kv();
        const double  slope = slope_of(c, h);
        const int64_t at    = ((b * c.n_q + i) * c.n_head() + h) * d();

        const head_values & head = heads[b * c.n_head_kv + h / c.group];

        // the scores of the visible keys, and their largest
        double largest = c.sinks ? (double) data.sinks[h] : (double) -INFINITY;
        bool   nan     = false;
        s.tokens.clear();
        for (int64_t t = 0; t < c.n_kv(); ++t) {
            if (mask && mask[t] == -INFINITY) {
                continue;
            }
            s.score[t] = score_of(q, head.k.data() + t * d()) + (mask ? slope * (double) mask[t] : 0.0);
            nan |= std::isnan(s.score[t]);
            largest = std::max(largest, s.score[t]);
            s.tokens.push_back(t);
        }
        ref.seen[at / d()] = !s.tokens.empty();
        if (s.tokens.empty()) {
            return; // zeros
        }
        double sum = c.sinks ? std::exp((double) data.sinks[h] - largest) : 0.0;
        std::fill(s.p.begin(), s.p.end(), 0.0);
        for (int64_t t : s.tokens) {
            s.p[t] = nan ? (double) NAN : std::exp(s.score[t] - largest);
            sum += s.p[t];
        }
        double * out = ref.out.data() + at;
        std::fill(s.mean_size.begin(), s.mean_size.end(), 0.0);
        for (int64_t t : s.tokens) {
            s.p[t] /= sum;
            const double   p = s.p[t];
            const double * v = head.v.data() + t * d();
            const double * z = head.v_size.data() + t * d();
            for (int64_t x = 0; x < d(); ++x) {
                out[x] += p * v[x];
                s.mean_size[x] += p * z[x];
            }
        }

        // the error of each score: its variance w1, and what is bounded absolutely, w2
        double norm_q = 0;
        for (int64_t x = 0; x < d(); ++x) {
            norm_q += (double) q[x] * q[x];
        }
        double       step[2]     = { 0, 0 };
        const double scale       = c.scale();
        double       largest_var = 0;
        for (int64_t part = 0; part < n_parts(); ++part) {
            const float * x = q + part * part_depth();
            if (on_codes) {
                step[part] = squared_step(x, part_depth(), c.bits_k, kernel_k);
            } else {
                for (int64_t j = 0; j < part_depth(); ++j) {
                    step[part] += (double) x[j] * x[j];
                }
            }
        }
        for (int64_t t : s.tokens) {
            double var = 0;
            for (int64_t part = 0; part < n_parts() && t < c.n_packed(); ++part) {
                var += step[part] * head.k_noise[part * c.n_packed() + t];
            }
            s.w1[t]     = scale * scale * var;
            largest_var = std::max(largest_var, s.w1[t]);
        }
        const double sigma3 = 3 * std::sqrt(largest_var);
        const double curve  = std::min(2.0, std::exp(sigma3) - 1 - sigma3);
        for (int64_t t : s.tokens) {
            const double binary32 = 0x1p-21 * (scale * std::sqrt(norm_q) * head.k_norm[t] + (mask ? std::fabs(slope * (double) mask[t]) : 0.0));
            s.w1[t] *= s.p[t] * s.p[t];
            s.w2[t] = s.p[t] == 0 ? 0.0 : s.p[t] * (curve + binary32);
        }
        std::fill(s.first.begin(), s.first.end(), 0.0);
        std::fill(s.second.begin(), s.second.end(), 0.0);
        for (int64_t t : s.tokens) {
            if (!on_codes && t >= c.n_packed()) {
                break;
            }
            const double   w1 = s.w1[t];
            const double   w2 = s.w2[t];
            const double * v  = head.v.data() + t * d();
            for (int64_t x = 0; x < d(); ++x) {
                const double away = v[x] - out[x];
                s.first[x] += w1 * away * away;
                s.second[x] += w2 * std::fabs(away);
            }
        }

        // the error of the weights
        std::fill(s.weight.begin(), s.weight.end(), 0.0);
        for (int64_t tile = 0; tile < c.n_tiles; ++tile) {
            const double * p = s.p.data() + tile * 128;
            double         e = 0;
            if (on_codes) {
                e = squared_step(p, 128, c.bits_v, kernel_v);
            } else {
                for (int t = 0; t < 128; ++t) {
                    e += p[t] * p[t];
                }
            }
            if (e != 0) {
                for (int64_t x = 0; x < d(); ++x) {
                    s.weight[x] += e * head.v_noise[tile * d() + x];
                }
            }
        }
        for (int64_t x = 0; x < d(); ++x) {
            if (on_codes) {
                ref.noise[at + x]     = s.first[x] + s.weight[x];
                ref.tolerance[at + x] = 6 * std::sqrt(ref.noise[at + x]) + 2e-5 * (std::fabs(out[x]) + s.mean_size[x]) + s.second[x];
            } else {
                ref.k_error[at + x] = s.first[x];
                ref.v_error[at + x] = s.weight[x];
            }
        }
    }

    reference run() {
        const size_t n = (size_t) (c.n_rows() * d());
        ref.out.assign(n, 0.0);
        ref.tolerance.assign(on_codes ? n : 0, 0.0);
        ref.noise.assign(on_codes ? n : 0, 0.0);
        ref.k_error.assign(on_codes ? 0 : n, 0.0);
        ref.v_error.assign(on_codes ? 0 : n, 0.0);
        ref.seen.assign((size_t) c.n_rows(), 0);

        std::atomic<int64_t> next{ 0 };
        const auto           work = [&] {
            row_scratch s;
            for (std::vector<double> * v : { &s.score, &s.p, &s.w1, &s.w2 }) {
                v->resize(c.n_kv());
            }
            for (std::vector<double> * v : { &s.weight, &s.mean_size, &s.first, &s.second }) {
                v->resize(d());
            }
            for (int64_t row = next++; row < c.n_rows(); row = next++) {
                compute_row(row, s);
            }
        };
        const int64_t            n_threads = c.cost() < 1000000 ? 1 : std::min<int64_t>(std::max(1u, std::thread::hardware_concurrency()), 8);
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
    attention a(c, data, true);
    a.kernel_k = kernel_k;
    a.kernel_v = kernel_v;
    a.load_values();
    a.load_codes(k, v);
    a.finish_values();
    return a.run();
}

reference attention_on_values(const align_case & c, const case_data & data) {
    attention a(c, data, false);
    a.load_values();
    a.load_spread();
    a.finish_values();
    return a.run();
}
