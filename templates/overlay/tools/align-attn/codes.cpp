#include "codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

double f16_value(uint16_t bits) {
    const int    exponent = bits >> 10 & 31;
    const int    mantissa = bits & 1023;
    const double sign     = bits >> 15 ? -1.0 : 1.0;
    if (exponent == 31) {
        return mantissa ? (double) NAN : sign * (double) INFINITY;
    }
    return sign * (exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24));
}

// lookup: chunk g holds 4/bits depths of all lanes, a nibble a lane.
static int read_lookup(const uint8_t * bytes, int bits, int lane, int depth) {
    const int per_nibble = 4 / bits;
    const int nibble     = bytes[64 * (depth / per_nibble) + lane % 64] >> (lane < 64 ? 0 : 4);
    return nibble >> bits * (depth % per_nibble) & ((1 << bits) - 1);
}

// dot: chunk 4*bits*L + B holds 32/bits depths of 16 lanes, four bytes a lane.
static int read_dot(const uint8_t * bytes, int bits, int lane, int depth) {
    const int per_chunk = 32 / bits;
    const int chunk     = lane / 16 * (TILE / per_chunk) + depth / per_chunk;
    const int byte      = bytes[64 * chunk + 4 * (lane % 16) + depth % 4];
    return byte >> bits * (depth % per_chunk / 4) & ((1 << bits) - 1);
}

void read_tile(const uint8_t * bytes, const tile_format & format, tile_codes & tile) {
    const auto read = format.is_lookup ? read_lookup : read_dot;
    for (int lane = 0; lane < TILE; ++lane) {
        for (int depth = 0; depth < TILE; ++depth) {
            tile.code[lane][depth] = (uint8_t) read(bytes, format.bits, lane, depth);
        }
        const uint8_t * meta = bytes + format.code_bytes() + 2 * lane;
        tile.scale[lane]     = f16_value((uint16_t) (meta[0] | meta[1] << 8));
        tile.offset[lane]    = format.has_offset ? f16_value((uint16_t) (meta[256] | meta[257] << 8)) : 0.0;
    }
}

packed_side decode(const align_case & c, const tile_format * format, const side_shape & shape, const std::vector<uint8_t> & bytes) {
    packed_side side;
    side.format = format;
    if (!format) {
        return side; // nothing was packed
    }
    side.tiles.resize(c.n_batch * shape.n_cols() * c.n_tiles);
    for (size_t i = 0; i < side.tiles.size(); ++i) {
        read_tile(bytes.data() + i * format->tile_bytes(), *format, side.tiles[i]);
    }
    return side;
}

namespace {

// Half the distance between neighbouring f16 numbers around x.
double half_step(double x) {
    int exponent = -14;
    if (x != 0.0) {
        std::frexp(x, &exponent);
        exponent = std::max(exponent - 1, -14);
    }
    return std::ldexp(0.5, exponent - 10);
}

// The code of a value in level units, which is rounded down, clamped to int8 and compared with the midpoints, halves away from 0;
// at 8 bits, the nearest int8.
int code_of(const tile_format & format, double u) {
    if (format.is_linear()) {
        return (uint8_t) (int8_t) std::min(std::max(std::nearbyint(u), -128.0), 127.0);
    }
    const double clamped = std::min(std::max(std::floor(u), -128.0), 127.0);
    int          code    = 0;
    for (int k = 0; k + 1 < format.n_levels(); ++k) {
        code += std::round(32 * (format.level(k) + format.level(k + 1))) <= clamped;
    }
    return code;
}

// the error that binary32 may make in a value in level units
double rounding_error(double u) {
    return 1e-5 * (1 + std::fabs(u));
}

// The least-squares scale of the codes that the starting scale leads to, with values rounded to 1/16 of a level unit. `swap` moves up to four
// values that lie between two codes within rounding, bit by bit, to the other one; returns how many there are. `slack` is how much
// the scale may differ because other values lie between two sixteenths. At 8 bits the largest magnitude becomes 127.
int fit_scale(const double * r, const tile_format & format, int swap, double & scale, double & slack) {
    slack = 0.0;
    if (format.is_linear()) {
        scale = std::fabs(*std::max_element(r, r + TILE, [](double x, double y) { return std::fabs(x) < std::fabs(y); })) * 64 / 127;
        return 0;
    }
    double sum = 0;
    for (int i = 0; i < TILE; ++i) {
        sum += r[i] * r[i];
    }
    const double s = format.rms_to_scale * std::sqrt(sum / TILE);
    scale          = 0.0;
    if (s == 0.0) {
        return 0;
    }
    int    n_near = 0;
    double num    = 0;
    double den    = 0;
    double loose  = 0;
    for (int i = 0; i < TILE; ++i) {
        const double v     = 1024 * r[i] / s;
        const double error = 16 * rounding_error(v / 16);
        const auto   code  = [&](double x) {
            return code_of(format, std::nearbyint(x) / 16);
        };
        double taken = v;
        if (code(v - error) != code(v + error)) {
            taken = n_near < 4 && swap >> n_near & 1 ? v + error : v - error;
            n_near++;
        } else if (std::nearbyint(v - error) != std::nearbyint(v + error)) {
            loose += std::fabs(format.level(code(v)));
        }
        const double level = 64 * format.level(code(taken));
        num += std::nearbyint(taken) * level;
        den += level * level;
    }
    scale = std::min(s * num / (16 * den), 65504.0);
    slack = s * 64 * loose / (16 * den);
    return std::min(n_near, 4);
}

std::string check_lane(const double * x, const tile_format & format, const uint8_t * code, double scale, double offset) {
    char   text[160];
    bool   poisoned = false;
    double sum      = 0;
    double sum_abs  = 0;
    bool   all_zero = true;
    for (int i = 0; i < TILE; ++i) {
        poisoned |= !(std::fabs(x[i]) <= 65504.0);
        all_zero &= code[i] == 0;
        sum += x[i];
        sum_abs += std::fabs(x[i]);
    }
    if (poisoned) {
        return std::isnan(scale) && offset == 0.0 && all_zero ? "" : "a lane with NaN, Inf or more than 65504 is not marked";
    }
    const double mean = format.has_offset ? sum / TILE : 0.0;
    if (!(std::fabs(offset - mean) <= half_step(offset) * 1.001 + 1e-6 * sum_abs / TILE)) {
        snprintf(text, sizeof(text), "offset %.9g instead of %.9g", offset, mean);
        return text;
    }
    double r[TILE];
    for (int i = 0; i < TILE; ++i) {
        r[i] = x[i] - offset;
    }
    double want   = 0;
    double slack  = 0;
    bool   fits   = false;
    int    n_near = fit_scale(r, format, 0, want, slack);
    for (int swap = 0; swap < 1 << n_near && !fits; ++swap) {
        double other = want;
        if (swap > 0) {
            fit_scale(r, format, swap, other, slack);
        }
        fits = std::fabs(scale - other) <= half_step(scale) * 1.001 + 2e-6 * std::fabs(other) + slack;
    }
    if (!fits) {
        snprintf(text, sizeof(text), "scale %.9g instead of %.9g", scale, want);
        return text;
    }
    if (scale == 0.0) {
        return all_zero ? "" : "codes in a lane whose scale is 0";
    }
    for (int i = 0; i < TILE; ++i) {
        const double u     = 64 * r[i] / scale;
        const double error = rounding_error(u);
        if (code[i] != code_of(format, u - error) && code[i] != code_of(format, u + error)) {
            snprintf(text, sizeof(text), "code %d at depth %d is not that of %.6g (scale %.6g, offset %.6g)", code[i], i, x[i], scale, offset);
            return text;
        }
    }
    return "";
}

std::string name_of_tile(const align_case & c, bool is_k, size_t i) {
    const int64_t n_cols = (is_k ? c.side_k() : c.side_v()).n_cols();
    return std::string(is_k ? "K" : "V") + ": tile " + std::to_string(i % c.n_tiles) + ", column " + std::to_string(i / c.n_tiles % n_cols) +
           ", batch " + std::to_string(i / c.n_tiles / n_cols);
}

// whether an unpacked value is the one that a code stands for, rounded to its type; f16 beyond the largest number is that number
bool is_rounded(double want, float found, ggml_type type) {
    if (std::isnan(want)) {
        return std::isnan(found);
    }
    if (type == GGML_TYPE_F32) {
        return found == (float) want;
    }
    const double limited = std::min(std::max(want, -65504.0), 65504.0);
    return std::fabs(found - limited) <= half_step(limited) * 1.001;
}

} // namespace

double fit_lane(const double * r, const tile_format & format, int * codes) {
    double scale;
    double slack;
    fit_scale(r, format, 0, scale, slack);
    for (int i = 0; i < TILE; ++i) {
        codes[i] = scale == 0.0 ? 0 : code_of(format, 64 * r[i] / scale);
    }
    return scale;
}

std::string check_pack(const align_case & c, bool is_k, const packed_side & side, const std::vector<float> & source) {
    const side_shape shape = is_k ? c.side_k() : c.side_v();
    for (size_t i = 0; i < side.tiles.size(); ++i) {
        const int64_t tile   = (int64_t) i % c.n_tiles;
        const int64_t column = (int64_t) i / c.n_tiles % shape.n_cols();
        const int64_t batch  = (int64_t) i / c.n_tiles / shape.n_cols();
        for (int lane = 0; lane < TILE; ++lane) {
            double x[TILE];
            for (int depth = 0; depth < TILE; ++depth) {
                const int64_t token   = tile * TILE + (is_k ? lane : depth);
                const int64_t channel = shape.channel_at(column * TILE + (is_k ? depth : lane));
                x[depth]              = source[(batch * c.n_packed() + token) * shape.n_embd() + channel];
            }
            const tile_codes & t     = side.tiles[i];
            const std::string  wrong = check_lane(x, *side.format, t.code[lane], t.scale[lane], t.offset[lane]);
            if (!wrong.empty()) {
                return "pack " + name_of_tile(c, is_k, i) + ", lane " + std::to_string(lane) + ": " + wrong;
            }
        }
    }
    return "";
}

std::string check_unpack(const align_case & c, bool is_k, const packed_side & side, const std::vector<float> & values) {
    const ggml_type type  = is_k ? c.unpacked_k() : c.unpacked_v();
    const float *   found = values.data();
    for (size_t i = 0; i < side.tiles.size(); ++i) {
        const tile_codes & t = side.tiles[i];
        for (int token = 0; token < TILE; ++token) {
            for (int channel = 0; channel < TILE; ++channel) {
                const int    lane  = is_k ? token : channel;
                const int    depth = is_k ? channel : token;
                const double want  = t.scale[lane] * side.format->level(t.code[lane][depth]) + t.offset[lane];
                const float  x     = *found++;
                if (!is_rounded(want, x, type)) {
                    char text[120];
                    snprintf(text, sizeof(text), ", token %d, channel %d: %.9g instead of %.9g", token, channel, (double) x, want);
                    return "unpack " + name_of_tile(c, is_k, i) + text;
                }
            }
        }
    }
    return "";
}
