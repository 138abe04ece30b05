#include "head-values.h"

#include <cmath>

static void load(const align_case & c, const case_data & data, int64_t b, int64_t h, head_values & head) {
    const int64_t d = c.head_dim;
    for (int64_t t = 0; t < c.n_kv(); ++t) {
        const bool    packed = t < c.n_packed();
        const int64_t row    = packed ? b * c.n_packed() + t : b * c.n_f16 + t - c.n_packed();
        const float * k      = (packed ? data.kp : data.k).data() + row * c.n_embd() + h * d;
        const float * v      = (packed ? data.vp : data.v).data() + row * c.n_embd() + h * d;
        head.k.insert(head.k.end(), k, k + d);
        head.v.insert(head.v.end(), v, v + d);
    }
    head.k_noise.assign(n_parts(c) * c.n_packed(), 0.0);
    head.v_noise.assign(c.n_tiles * d, 0.0);
}

// mean squared distance from the mean of a lane of 128 values
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

head_values original_values(const align_case & c, const case_data & data, int64_t b, int64_t h) {
    head_values head;
    load(c, data, b, h, head);
    const int64_t depth = part_depth(c);
    for (int64_t tile = 0; tile < c.n_tiles; ++tile) {
        for (int64_t part = 0; part < n_parts(c); ++part) {
            const int64_t channel = h * c.head_dim + part * depth;
            const int64_t first   = (b * c.n_packed() + tile * 128) * c.n_embd();
            for (int64_t token = 0; token < 128; ++token) {
                const int64_t lane = first + token * c.n_embd() + channel / 128 * 128;

                head.k_noise[part * c.n_packed() + tile * 128 + token] = variance(data.kp, lane, 1);
            }
            for (int64_t i = 0; i < depth; ++i) {
                head.v_noise[tile * c.head_dim + part * depth + i] = variance(data.vp, first + channel + i, c.n_embd());
            }
        }
    }
    return head;
}

head_values decoded_values(const align_case & c, const case_data & data, const packed_side & k, const packed_side & v, int64_t b, int64_t h) {
    head_values head;
    load(c, data, b, h, head);
    const int64_t depth = part_depth(c);
    head.k_size.assign(n_parts(c) * c.n_kv(), 0.0);
    for (double x : head.v) {
        head.v_size.push_back(std::fabs(x));
    }

    for (int64_t part = 0; part < n_parts(c); ++part) {
        for (int64_t t = c.n_packed(); t < c.n_kv(); ++t) {
            for (int64_t i = 0; i < depth; ++i) {
                head.k_size[part * c.n_kv() + t] = std::max(head.k_size[part * c.n_kv() + t], std::fabs(head.k[t * c.head_dim + part * depth + i]));
            }
        }
        for (int64_t tile = 0; tile < c.n_tiles; ++tile) {
            const int64_t      channel       = h * c.head_dim + part * depth;
            const int64_t      index         = (b * c.n_cols() + channel / 128) * c.n_tiles + tile;
            const tile_codes & kt            = k.tiles[index];
            const tile_codes & vt            = v.tiles[index];
            double             k_levels[128] = { 0 }; // of each token, sum of squared levels
            double             v_levels[128] = { 0 }; // of each channel
            for (int64_t token = 0; token < 128; ++token) {
                for (int64_t i = 0; i < depth; ++i) {
                    const int64_t at      = (tile * 128 + token) * c.head_dim + part * depth + i;
                    const int     lane    = (int) ((channel + i) % 128);
                    const double  k_level = level_of(k.bits, kt.code[token][lane]);
                    const double  v_level = level_of(v.bits, vt.code[lane][token]);
                    head.k[at]            = kt.scale[token] * k_level + kt.offset[token];
                    head.v[at]            = vt.scale[lane] * v_level + vt.offset[lane];
                    head.v_size[at]       = std::fabs(vt.scale[lane] * v_level) + std::fabs(vt.offset[lane]);
                    k_levels[token] += k_level * k_level;
                    v_levels[i] += v_level * v_level;
                }
            }
            for (int64_t token = 0; token < 128; ++token) {
                const double  scale = kt.scale[token];
                const int64_t t     = tile * 128 + token;

                head.k_noise[part * c.n_packed() + t] = scale * scale * k_levels[token] / 12;
                head.k_size[part * c.n_kv() + t]      = 2 * scale + std::fabs(kt.offset[token]);
            }
            for (int64_t i = 0; i < depth; ++i) {
                const double scale = vt.scale[(channel + i) % 128];

                head.v_noise[tile * c.head_dim + part * depth + i] = scale * scale * v_levels[i] / 12;
            }
        }
    }
    return head;
}
