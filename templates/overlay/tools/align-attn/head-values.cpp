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

// mean squared distance of a lane of TILE values from their mean, or from 0 where the format has no offset
static double variance(const tile_format * format, const std::vector<float> & x, int64_t from, int64_t step) {
    double sum     = 0;
    double squares = 0;
    for (int i = 0; i < TILE && (!format || format->has_offset); ++i) {
        sum += x[from + i * step];
    }
    for (int i = 0; i < TILE; ++i) {
        const double r = x[from + i * step] - sum / TILE;
        squares += r * r;
    }
    return squares / TILE;
}

head_values original_values(const align_case & c, const case_data & data, int64_t b, int64_t h) {
    head_values head;
    load(c, data, b, h, head);
    const int64_t depth = part_depth(c);
    for (int64_t tile = 0; tile < c.n_tiles; ++tile) {
        for (int64_t part = 0; part < n_parts(c); ++part) {
            const int64_t channel = h * c.head_dim + part * depth;
            const int64_t first   = (b * c.n_packed() + tile * TILE) * c.n_embd();
            for (int64_t token = 0; token < TILE; ++token) {
                const int64_t lane = first + token * c.n_embd() + channel / TILE * TILE;

                head.k_noise[part * c.n_packed() + tile * TILE + token] = variance(c.k, data.kp, lane, 1);
            }
            for (int64_t i = 0; i < depth; ++i) {
                head.v_noise[tile * c.head_dim + part * depth + i] = variance(c.v, data.vp, first + channel + i, c.n_embd());
            }
        }
    }
    return head;
}

// the part of a kv head that lies from `first` on in a tile of K
static void decode_keys(const align_case & c, const tile_codes & from, const tile_format & format, int64_t tile, int64_t part, int64_t first,
                        head_values & head) {
    const int64_t depth = part_depth(c);
    for (int64_t token = 0; token < TILE; ++token) {
        const double  scale  = from.scale[token];
        const int64_t t      = tile * TILE + token;
        double        levels = 0; // sum of squares
        for (int64_t i = 0; i < depth; ++i) {
            const double level                        = format.level(from.code[token][first + i]);
            head.k[t * c.head_dim + part * depth + i] = scale * level + from.offset[token];
            levels += level * level;
        }
        head.k_noise[part * c.n_packed() + t] = scale * scale * levels / 12;
        head.k_size[part * c.n_kv() + t]      = 2 * scale + std::fabs(from.offset[token]);
    }
}

// likewise of V
static void decode_values(const align_case & c, const tile_codes & from, const tile_format & format, int64_t tile, int64_t part, int64_t first,
                          head_values & head) {
    const int64_t depth = part_depth(c);
    for (int64_t i = 0; i < depth; ++i) {
        const double scale  = from.scale[first + i];
        const double offset = from.offset[first + i];
        double       levels = 0; // sum of squares
        for (int64_t token = 0; token < TILE; ++token) {
            const double  level = format.level(from.code[first + i][token]);
            const int64_t at    = (tile * TILE + token) * c.head_dim + part * depth + i;
            head.v[at]          = scale * level + offset;
            head.v_size[at]     = std::fabs(scale * level) + std::fabs(offset);
            levels += level * level;
        }
        head.v_noise[tile * c.head_dim + part * depth + i] = scale * scale * levels / 12;
    }
}

head_values decoded_values(const align_case & c, const case_data & data, const packed_side & k, const packed_side & v, int64_t b, int64_t h) {
    head_values head;
    load(c, data, b, h, head);
    const int64_t depth = part_depth(c);
    head.k_size.assign(n_parts(c) * c.n_kv(), 0.0);
    const int64_t k_f16 = c.k ? c.n_packed() : 0; // keys are f16 from here on
    for (double x : head.v) {
        head.v_size.push_back(std::fabs(x));
    }

    for (int64_t part = 0; part < n_parts(c); ++part) {
        for (int64_t t = k_f16; t < c.n_kv(); ++t) {
            for (int64_t i = 0; i < depth; ++i) {
                head.k_size[part * c.n_kv() + t] = std::max(head.k_size[part * c.n_kv() + t], std::fabs(head.k[t * c.head_dim + part * depth + i]));
            }
        }
        for (int64_t tile = 0; tile < c.n_tiles; ++tile) {
            const int64_t channel = h * c.head_dim + part * depth;
            const int64_t index   = (b * c.n_cols() + channel / TILE) * c.n_tiles + tile;
            if (c.k) {
                decode_keys(c, k.tiles[index], *c.k, tile, part, channel % TILE, head);
            }
            if (c.v) {
                decode_values(c, v.tiles[index], *c.v, tile, part, channel % TILE, head);
            }
        }
    }
    return head;
}
