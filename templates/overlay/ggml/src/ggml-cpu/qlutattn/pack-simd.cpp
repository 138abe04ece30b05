// The vector form of the packer, in the verbs of pack-simd.h.
//
// Lanes are side by side in registers, and the loops run over the depth: so the fixed summation tree, the square root, the divisions and the
// fit are plain vector arithmetic without a horizontal step, V is read in its own order, and only K is transposed, as f16, before it is widened.
// A strip of 16 lanes (8 KiB of residuals) stays in the L1 cache. Codes are chosen on bytes: 16 lanes of two depths at once.
//
// Measured: 32 instructions per 8 values (AVX2, 4 bits), a third of them to fit the scale, so packing is bound by instructions once data are in
// the cache. The processor's own prefetching does not follow 128 rows that are far apart: prefetching the next tile made packing 1.3 times as
// fast, and packing the heads of a token one after the other (qlutattn-pack.cpp) twice as fast, where heads share rows.

#include "pack-tile.h"

#include <cmath>
#include <cstring>

#include "pack-simd.h"

#ifndef QLUTATTN_PACK_SIMD

bool qlutattn_pack_has_simd(const qlutattn_kernel_config &) {
    return false;
}

void qlutattn_pack_tile_simd(const qlutattn_kernel_config &, const qlutattn_pack_source &, void *) {}

#else

using namespace qlutattn_pack_simd;

static constexpr int STRIP   = QLUTATTN_DOT_LANES;
static constexpr int FLOATS  = 8; // lanes of a register
static constexpr int COLUMNS = STRIP / FLOATS;

// Step 6 and the first half of step 4: codes of signed bytes. Of 16 levels, no more than one threshold is between two multiples of 16, so that
// the upper nibble determines how many are below, and which one to compare with.
template <int bits> struct code_quantizer {
    bytes limits[3]; // 1 and 2 bits: the largest integers below each threshold
    bytes n_below;   // 4 bits, by upper nibble: how many thresholds are below
    bytes limit_of;  // and the limit of the one that may be between
    bytes levels;

    explicit code_quantizer(const int8_t * level) {
        constexpr int n = 1 << bits;

        int8_t all_levels[16] = { 0 };
        memcpy(all_levels, level, n);
        levels = broadcast16(all_levels);

        int8_t limit[n - 1];
        for (int k = 0; k + 1 < n; k++) {
            limit[k] = (int8_t) (qlutattn_pack_threshold(level, k) - 1);
        }
        if (bits < 4) {
            for (int k = 0; k + 1 < n && k < 3; k++) {
                limits[k] = broadcast(limit[k]);
            }
            return;
        }
        int8_t count[16];
        int8_t within[16];
        for (int i = 0; i < 16; i++) { // i is the upper nibble of the bytes from start on
            const int start = (i ^ 8) * 16 - 128;
            count[i]        = 0;
            within[i]       = 127;
            for (int k = 0; k + 1 < n; k++) {
                if (limit[k] < start) {
                    count[i]++;
                } else if (limit[k] < start + 15) {
                    GGML_ASSERT(within[i] == 127);
                    within[i] = limit[k];
                }
            }
        }
        n_below  = broadcast16(count);
        limit_of = broadcast16(within);
    }

    bytes operator()(bytes u) const {
        if (bits < 4) {
            bytes codes = sub(zero_bytes(), greater(u, limits[0]));
            for (int k = 1; k + 1 < 1 << bits; k++) {
                codes = sub(codes, greater(u, limits[k]));
            }
            return codes;
        }
        const bytes group = high_nibbles(u);
        return sub(lookup16(n_below, group), greater(u, lookup16(limit_of, group)));
    }
};

// Codes of 8 bits are the rounded values themselves.
template <> struct code_quantizer<8> {
    explicit code_quantizer(const int8_t *) {}
};

// node i of the fixed summation tree over the depth, at the level with w nodes
template <int w, typename source> static inline floats tree(const source & at, int i) {
    if constexpr (w == PACK_SIZE) {
        return at(i);
    } else {
        return add(tree<2 * w>(at, i), tree<2 * w>(at, i + w));
    }
}

template <typename source> static inline floats tree_sum(const source & at) {
    floats s[8];
    for (int i = 0; i < 8; i++) {
        s[i] = tree<8>(at, i);
    }
    for (int w = 4; w > 0; w /= 2) {
        for (int i = 0; i < w; i++) {
            s[i] = add(s[i], s[i + w]);
        }
    }
    return s[0];
}

// round(r * id), of two depths
static inline words quantize(const float * r, floats id) {
    return pair(round(mul(load(r), id)), round(mul(load(r + STRIP), id)));
}

// round(r * id - 0.5), of two depths
static inline words quantize_below(const float * r, floats id) {
    const floats half = broadcast(0.5f);
    return pair(round(sub(mul(load(r), id), half)), round(sub(mul(load(r + STRIP), id), half)));
}

// the work memory of a strip
struct pack_strip {
    alignas(64) float r[PACK_SIZE * STRIP];            // [depth][lane]: the values, then the residuals
    alignas(64) float sums[STRIP];                     // not finite where a lane is poisoned
    alignas(64) float starts[STRIP];
    alignas(64) ggml_fp16_t no_offsets[STRIP] = { 0 }; // the offsets of a type that has none
    floats coarse[COLUMNS];
    bool   zeroed[STRIP];                              // lanes whose codes are all 0: poisoned, or of scale 0
    bool   any_zeroed;
};

// The rows of the next tile's source that are prefetched while a strip is fitted, as many as a strip has lanes.
struct prefetch_rows {
    const char * rows;
    size_t       nb;
};

// The lanes whose codes are 0, and what stands beside them.
static void mark_zeroed(pack_strip & strip, ggml_fp16_t * scales, ggml_fp16_t * offsets) {
    strip.any_zeroed = false;
    for (int i = 0; i < STRIP; i++) {
        const bool poisoned = !(std::fabs(strip.sums[i]) < INFINITY);
        const bool zero     = strip.starts[i] == 0.0f || scales[i] == 0;
        strip.zeroed[i]     = poisoned || zero;
        strip.any_zeroed |= strip.zeroed[i];
        scales[i]  = poisoned ? QLUTATTN_F16_NAN : zero ? 0 : scales[i];
        offsets[i] = poisoned ? 0 : offsets[i];
    }
}

// Steps 1 to 5. x is [depth][lane]; a lane that is poisoned has a sum that is not finite.
template <int bits, typename T>
static void fit_strip(const qlutattn_kernel_config & config, const code_quantizer<bits> & quantizer, const T * x, const prefetch_rows & next,
                      pack_strip & strip, ggml_fp16_t * scales, ggml_fp16_t * offsets) {
    const floats mean    = broadcast(1.0f / PACK_SIZE);
    const floats centred = broadcast(config.has_offset ? 1.0f / PACK_SIZE : 0.0f);
    floats       start[COLUMNS];
    floats       fine[COLUMNS];
    ints         num[COLUMNS];
    ints         den[COLUMNS];

    for (int c = 0; c < COLUMNS; c++) {
        float *      r   = strip.r + c * FLOATS;
        const floats sum = tree_sum([&](int i) {
            const floats v = load(x + i * STRIP + c * FLOATS);
            store(r + i * STRIP, v);
            return v;
        });
        store(strip.sums + c * FLOATS, sum);
        store_f16(offsets + c * FLOATS, mul(sum, centred));

        const floats centre  = load(offsets + c * FLOATS);
        const floats squares = tree_sum([&](int i) {
            const floats v = sub(load(r + i * STRIP), centre);
            store(r + i * STRIP, v);
            return mul(v, v);
        });
        start[c]             = mul(broadcast(config.rms_to_scale), sqrt(mul(squares, mean)));
        store(strip.starts + c * FLOATS, start[c]);
        fine[c] = div(broadcast((float) (QLUTATTN_PACK_FINE * QLUTATTN_LEVEL_UNIT)), start[c]);
        num[c]  = zero_ints();
        den[c]  = zero_ints();
    }

    static_assert(COLUMNS == 2 && QLUTATTN_PACK_FINE == 16, "widen_first, widen_last and shr4 below");
    const float * r = strip.r;
    for (int row = 0; row < STRIP; row++) {
        for (int line = 0; line < 4; line++, r += 2 * STRIP) {
            prefetch(next.rows + row * next.nb + line * 64);
            const words v0     = quantize(r, fine[0]);
            const words v1     = quantize(r + FLOATS, fine[1]);
            const bytes levels = lookup16(quantizer.levels, quantizer(narrow(shr4(v0), shr4(v1))));
            const words l0     = widen_first(levels);
            const words l1     = widen_last(levels);
            num[0]             = madd(num[0], v0, l0);
            num[1]             = madd(num[1], v1, l1);
            den[0]             = madd(den[0], l0, l0);
            den[1]             = madd(den[1], l1, l1);
        }
    }

    for (int c = 0; c < COLUMNS; c++) {
        const floats fitted = div(mul(start[c], to_floats(num[c])), mul(broadcast((float) QLUTATTN_PACK_FINE), to_floats(den[c])));
        store_f16(scales + c * FLOATS, min(fitted, broadcast(QLUTATTN_F16_MAX)));
        strip.coarse[c] = div(broadcast((float) QLUTATTN_LEVEL_UNIT), load(scales + c * FLOATS));
    }
    mark_zeroed(strip, scales, offsets);
}

// Steps 1 to 5 of 8 bits, likewise.
template <typename T> static void fit_strip_linear(const T * x, const prefetch_rows & next, pack_strip & strip, ggml_fp16_t * scales) {
    for (int c = 0; c < COLUMNS; c++) {
        ints largest[4] = { zero_ints(), zero_ints(), zero_ints(), zero_ints() };
        for (int depth = 0; depth < PACK_SIZE; depth += 4) {
            for (int i = 0; i < 4; i++) {
                const floats v = load(x + (depth + i) * STRIP + c * FLOATS);
                store(strip.r + (depth + i) * STRIP + c * FLOATS, v);
                largest[i] = max(largest[i], magnitude(v));
            }
            prefetch(next.rows + depth / 8 * next.nb + (2 * c + depth / 4 % 2) * 64);
        }
        const floats most = as_floats(max(max(largest[0], largest[1]), max(largest[2], largest[3])));
        store(strip.sums + c * FLOATS, most);
        store(strip.starts + c * FLOATS, most);
        store_f16(scales + c * FLOATS, mul(most, broadcast(QLUTATTN_PACK_LINEAR)));
        strip.coarse[c] = div(broadcast((float) QLUTATTN_LEVEL_UNIT), load(scales + c * FLOATS));
    }
    mark_zeroed(strip, scales, strip.no_offsets);
}

// Step 6: the codes of two depths. It is passed by value, so that stores of codes do not make compilers load it again.
template <int bits> struct strip_codes {
    code_quantizer<bits> quantizer;
    floats               coarse[COLUMNS];
    const float *        residuals;

    strip_codes(const code_quantizer<bits> & quantizer, const pack_strip & strip) : quantizer(quantizer), residuals(strip.r) {
        for (int c = 0; c < COLUMNS; c++) {
            coarse[c] = strip.coarse[c];
        }
    }

    bytes operator()(int depth) const {
        const float * r = residuals + depth * STRIP;
        if constexpr (bits == 8) {
            return narrow(quantize(r, coarse[0]), quantize(r + FLOATS, coarse[1]));
        } else {
            return quantizer(narrow(quantize_below(r, coarse[0]), quantize_below(r + FLOATS, coarse[1])));
        }
    }
};

// Step 6, in the dot order: a chunk is 32/bits depths of the strip. Fields are shifted in from the last one on.
template <int bits> static void store_codes_dot(const strip_codes<bits> codes, uint8_t * out) {
    constexpr int depths = 32 / bits;
    for (int depth = 0; depth < PACK_SIZE; depth += depths) {
        bytes a = codes(depth + depths - 4);
        bytes b = codes(depth + depths - 2);
        for (int i = depths - 8; i >= 0; i -= 4) {
            a = bit_or(shl<bits % 8>(a), codes(depth + i));
            b = bit_or(shl<bits % 8>(b), codes(depth + i + 2));
        }
        interleave(out + depth / depths * PACK_CHUNK_SIZE, a, b);
    }
}

// Step 6, in the lookup order of 1 bit: a chunk is a nibble, four depths, of all lanes; the first half in the low nibbles, which are written
// first.
static void store_codes_lookup(const strip_codes<1> codes, bool is_high, uint8_t * out) {
    for (int depth = 0; depth < PACK_SIZE; depth += 8) {
        nibbles of[2];
        for (int i = 0; i < 2; i++) {
            const bytes first = codes(depth + i * 4);
            const bytes last  = codes(depth + i * 4 + 2);
            of[i]             = add(pair_dot(first, 1, 2), pair_dot(last, 4, 8));
        }
        uint8_t * p = out + depth / 4 * PACK_CHUNK_SIZE;
        if (is_high) {
            merge_high(p, p + PACK_CHUNK_SIZE, of[0], of[1]);
        } else {
            store_low(p, p + PACK_CHUNK_SIZE, of[0], of[1]);
        }
    }
}

static void clear_zeroed_lanes(const qlutattn_kernel_config & config, const pack_strip & strip, int lane0, uint8_t * codes) {
    for (int i = 0; i < STRIP; i++) {
        if (!strip.zeroed[i]) {
            continue;
        }
        if (config.layout == QLUTATTN_LAYOUT_DOT) {
            uint8_t * p = codes + lane0 / STRIP * (4 * config.bits * PACK_CHUNK_SIZE) + i * 4;
            for (int chunk = 0; chunk < 4 * config.bits; chunk++) {
                memset(p + chunk * PACK_CHUNK_SIZE, 0, 4);
            }
        } else {
            uint8_t * p = codes + lane0 % PACK_CHUNK_SIZE + i;
            for (int chunk = 0; chunk < 32 * config.bits; chunk++) {
                p[chunk * PACK_CHUNK_SIZE] &= lane0 < PACK_CHUNK_SIZE ? 0xf0 : 0x0f;
            }
        }
    }
}

// values of any type and strides as f32; what poisons a lane becomes NaN
template <typename T> static void gather_strip(const qlutattn_pack_source & source, int lane0, float * x) {
    for (int i = 0; i < STRIP; i++) {
        const char * from = source.data + (lane0 + i) * source.nb_lane;
        for (int depth = 0; depth < PACK_SIZE; depth++) {
            const T value = *(const T *) (from + depth * source.nb_depth);
            float   v;
            if constexpr (sizeof(T) == sizeof(float)) {
                v = value;
            } else {
                v = ggml_fp16_to_fp32(value);
            }
            x[depth * STRIP + i] = std::fabs(v) <= QLUTATTN_F16_MAX ? v : NAN;
        }
    }
}

// two adjacent strips
static void copy_strips(const char * from, size_t nb, ggml_fp16_t * first, ggml_fp16_t * second) {
    constexpr size_t size = STRIP * sizeof(ggml_fp16_t);
    for (int depth = 0; depth < PACK_SIZE; depth += 4) {
        for (int i = 0; i < 4; i++, from += nb) {
            memcpy(first + (depth + i) * STRIP, from, size);
            memcpy(second + (depth + i) * STRIP, from + size, size);
        }
    }
}

template <int bits> static void pack_tile(const qlutattn_kernel_config & config, const qlutattn_pack_source & source, void * tile) {
    const code_quantizer<bits> quantizer(config.levels);

    const bool              is_f16 = source.type == GGML_TYPE_F16;
    pack_strip              strip;
    alignas(64) ggml_fp16_t rows[2][PACK_SIZE * STRIP]; // [depth][lane] of two strips
    alignas(64) float       gathered[PACK_SIZE * STRIP];

    for (int lane0 = 0; lane0 < PACK_SIZE; lane0 += STRIP) {
        const char *        from    = source.data + lane0 * source.nb_lane;
        const size_t        nb_row  = source.next ? (config.lane_is_token ? source.nb_lane : source.nb_depth) : 0;
        const prefetch_rows next    = { source.next ? source.next + lane0 * nb_row : source.data, nb_row };
        ggml_fp16_t *       scales  = config.scales(tile) + lane0;
        ggml_fp16_t *       offsets = config.has_offset ? config.offsets(tile) + lane0 : strip.no_offsets;
        uint8_t *           codes   = (uint8_t *) tile;

        const auto fit = [&](const auto * x) {
            if constexpr (bits == 8) {
                fit_strip_linear(x, next, strip, scales);
            } else {
                fit_strip(config, quantizer, x, next, strip, scales, offsets);
            }
        };
        if (is_f16 && (source.nb_lane == sizeof(ggml_fp16_t) || source.nb_depth == sizeof(ggml_fp16_t))) {
            ggml_fp16_t * x = rows[lane0 / STRIP % 2];
            if (source.nb_depth == sizeof(ggml_fp16_t)) {
                for (int depth = 0; depth < PACK_SIZE; depth += 8) {
                    transpose(from + depth * sizeof(ggml_fp16_t), source.nb_lane, x + depth * STRIP);
                }
            } else if (lane0 % (2 * STRIP) == 0) {
                // a cache line is two strips wide, and would not stay until the second one where rows are a power of two apart
                copy_strips(from, source.nb_depth, rows[0], rows[1]);
            }
            fit(x);
        } else {
            if (is_f16) {
                gather_strip<ggml_fp16_t>(source, lane0, gathered);
            } else {
                gather_strip<float>(source, lane0, gathered);
            }
            fit(gathered);
        }

        if (config.layout == QLUTATTN_LAYOUT_DOT) {
            store_codes_dot<bits>({ quantizer, strip }, codes + lane0 / STRIP * (4 * bits * PACK_CHUNK_SIZE));
        } else if constexpr (bits == 1) {
            store_codes_lookup({ quantizer, strip }, lane0 >= PACK_CHUNK_SIZE, codes + lane0 % PACK_CHUNK_SIZE);
        }
        if (strip.any_zeroed) {
            clear_zeroed_lanes(config, strip, lane0, codes);
        }
    }
}

bool qlutattn_pack_has_simd(const qlutattn_kernel_config & config) {
    return config.layout == QLUTATTN_LAYOUT_DOT || config.bits == 1;
}

void qlutattn_pack_tile_simd(const qlutattn_kernel_config & config, const qlutattn_pack_source & source, void * tile) {
    switch (config.bits) {
        case 1:
            pack_tile<1>(config, source, tile);
            break;
        case 2:
            pack_tile<2>(config, source, tile);
            break;
        case 4:
            pack_tile<4>(config, source, tile);
            break;
        case 8:
            pack_tile<8>(config, source, tile);
            break;
    }
}

#endif
