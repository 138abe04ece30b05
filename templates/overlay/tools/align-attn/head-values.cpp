#include "head-values.h"

#include "bounds.h"
#include "int8-blocks.h"

#include <algorithm>
#include <cmath>

static std::vector<head_part> parts_of(const side_shape & side, int64_t h) {
    std::vector<head_part> parts;
    for (int64_t in_head = 0; in_head < side.head_dim; in_head += parts.back().n) {
        const int64_t channel = h * side.head_dim + in_head;
        const int64_t n       = std::min(TILE - channel % TILE, side.head_dim - in_head);
        parts.push_back({ channel / TILE, channel % TILE, in_head, n, channel / TILE * TILE + TILE > side.n_embd() });
    }
    return parts;
}

static void load(const align_case & c, const case_data & data, int64_t b, int64_t h, head_values & head) {
    head.k_parts = parts_of(c.side_k(), h);
    head.v_parts = parts_of(c.side_v(), h);
    for (int64_t t = 0; t < c.n_kv(); ++t) {
        const bool    packed = t < c.n_packed();
        const int64_t row    = packed ? b * c.n_packed() + t : b * c.n_f16 + t - c.n_packed();
        const float * k      = (packed ? data.kp : data.k).data() + row * c.side_k().n_embd() + h * c.dims.k;
        const float * v      = (packed ? data.vp : data.v).data() + row * c.side_v().n_embd() + h * c.dims.v;
        head.k.insert(head.k.end(), k, k + c.dims.k);
        head.v.insert(head.v.end(), v, v + c.dims.v);
    }
    head.k_noise.assign(head.k_parts.size() * c.n_packed(), 0.0);
    head.v_noise.assign(c.n_tiles * c.dims.v, c.is_latent && c.k ? 1.0 : 0.0);
    head.k_scale.assign(c.is_latent ? head.k_noise.size() : 0, 0.0);
}

// mean squared distance of the n values of a lane from their mean, or from 0 where the format has no offset
static double variance(const tile_format * format, const std::vector<float> & x, int64_t from, int64_t step, int64_t n = TILE) {
    double sum     = 0;
    double squares = 0;
    for (int64_t i = 0; i < n && (!format || format->has_offset); ++i) {
        sum += x[from + i * step];
    }
    for (int64_t i = 0; i < n; ++i) {
        const double r = x[from + i * step] - sum / n;
        squares += r * r;
    }
    return squares / n;
}

head_values original_values(const align_case & c, const case_data & data, int64_t b, int64_t h) {
    head_values head;
    load(c, data, b, h, head);
    const int64_t n_embd_k = c.side_k().n_embd();
    const int64_t n_embd_v = c.side_v().n_embd();
    for (int64_t t = 0; t < c.n_packed(); ++t) {
        for (size_t part = 0; part < head.k_parts.size(); ++part) {
            const head_part & p    = head.k_parts[part];
            const int64_t     lane = (b * c.n_packed() + t) * n_embd_k + p.column * TILE;

            head.k_noise[part * c.n_packed() + t] = variance(c.k, data.kp, lane, 1, p.is_half_empty ? TILE / 2 : TILE);
        }
    }
    if (c.is_latent) {
        std::transform(head.k_noise.begin(), head.k_noise.end(), head.k_scale.begin(), [](double variance) { return std::sqrt(variance); });
        return head;
    }
    for (int64_t tile = 0; tile < c.n_tiles; ++tile) {
        const int64_t first = (b * c.n_packed() + tile * TILE) * n_embd_v + h * c.dims.v;
        for (int64_t i = 0; i < c.dims.v; ++i) {
            head.v_noise[tile * c.dims.v + i] = variance(c.v, data.vp, first + i, n_embd_v);
        }
    }
    return head;
}

// a part of a kv head in a tile of K
static void decode_keys(const align_case & c, const tile_codes & from, const tile_format & format, int64_t tile, size_t part, head_values & head) {
    const head_part & p = head.k_parts[part];
    for (int64_t token = 0; token < TILE; ++token) {
        const double  scale  = from.scale[token];
        const int64_t t      = tile * TILE + token;
        double        levels = 0; // sum of squares
        for (int64_t i = 0; i < p.n; ++i) {
            const double level                   = format.level(from.code[token][p.in_tile + i]);
            head.k[t * c.dims.k + p.in_head + i] = scale * level + from.offset[token];
            levels += level * level;
        }
        head.k_noise[part * c.n_packed() + t] = scale * scale * levels / 12;
        head.k_size[part * c.n_kv() + t]      = 2 * scale + std::fabs(from.offset[token]);
    }
}

// the values that lie in a part of a kv head in a tile of K
static void decode_latent(const align_case & c, const tile_codes & from, const tile_format & format, int64_t tile, size_t part, head_values & head) {
    const head_part & p = head.k_parts[part];
    for (int64_t i = 0; i < p.n && p.in_head + i < c.dims.v; ++i) {
        double levels = 0; // sum of squares
        for (int64_t token = 0; token < TILE; ++token) {
            const double  level  = format.level(from.code[token][p.in_tile + i]);
            const double  scaled = from.scale[token] * level;
            const int64_t t      = tile * TILE + token;
            const int64_t at     = t * c.dims.v + p.in_head + i;

            head.v[at]                            = scaled + from.offset[token];
            head.v_size[at]                       = std::fabs(scaled) + std::fabs(from.offset[token]);
            head.k_scale[part * c.n_packed() + t] = from.scale[token];
            levels += level * level;
        }
        head.v_noise[tile * c.dims.v + p.in_head + i] = levels / 12;
    }
}

// likewise of V
static void decode_values(const align_case & c, const tile_codes & from, const tile_format & format, int64_t tile, const head_part & p,
                          head_values & head) {
    for (int64_t i = 0; i < p.n; ++i) {
        const double scale  = from.scale[p.in_tile + i];
        const double offset = from.offset[p.in_tile + i];
        double       levels = 0; // sum of squares
        for (int64_t token = 0; token < TILE; ++token) {
            const double  level = format.level(from.code[p.in_tile + i][token]);
            const int64_t at    = (tile * TILE + token) * c.dims.v + p.in_head + i;
            head.v[at]          = scale * level + offset;
            head.v_size[at]     = std::fabs(scale * level) + std::fabs(offset);
            levels += level * level;
        }
        head.v_noise[tile * c.dims.v + p.in_head + i] = scale * scale * levels / 12;
    }
}

head_values decoded_values(const align_case & c, const case_data & data, const packed_side & k, const packed_side & v, int64_t b, int64_t h) {
    head_values head;
    load(c, data, b, h, head);
    head.int8 = int8_blocks_of(c, head);
    head.k_size.assign(head.k_parts.size() * c.n_kv(), 0.0);
    const int64_t k_f16 = c.k ? c.n_packed() : 0; // keys are f16 from here on
    for (double x : head.v) {
        head.v_size.push_back(std::fabs(x));
    }
    for (size_t part = 0; part < head.k_parts.size(); ++part) {
        const head_part & p = head.k_parts[part];
        for (int64_t t = k_f16; t < c.n_kv(); ++t) {
            double & size = head.k_size[part * c.n_kv() + t];
            for (int64_t i = 0; i < p.n; ++i) {
                size = std::max(size, std::fabs(head.k[t * c.dims.k + p.in_head + i]));
            }
        }
        for (int64_t tile = 0; c.k && tile < c.n_tiles; ++tile) {
            const tile_codes & codes = k.tiles[(b * c.side_k().n_cols() + p.column) * c.n_tiles + tile];
            decode_keys(c, codes, *c.k, tile, part, head);
            if (c.is_latent) {
                decode_latent(c, codes, *c.k, tile, part, head);
            }
        }
    }
    for (const head_part & p : head.v_parts) {
        for (int64_t tile = 0; c.v && tile < c.n_tiles; ++tile) {
            decode_values(c, v.tiles[(b * c.side_v().n_cols() + p.column) * c.n_tiles + tile], *c.v, tile, p, head);
        }
    }
    return head;
}
