// The vector kernels: one algorithm each, in the verbs of tbl-simd.h.

#include "tbl-acc.h"

#include <cstring>

#include "tbl-simd.h"

#ifndef QLUTATTN_SIMD

const char * qlutattn_simd_name() {
    return nullptr;
}

bool qlutattn_has_simd(const qlutattn_kernel_config &, qlutattn_kernel) {
    return false;
}

void qlutattn_acc_simd(const qlutattn_kernel_config &, qlutattn_kernel, const uint8_t *, const qlutattn_span &, const qlutattn_tbl * const *, int,
                       qlutattn_acc &) {}

#else

using namespace qlutattn_simd;

// the dot order: a chunk is 32/bits depths of 16 lanes; field i of a byte (bits i*bits on) is one of the depths 4*i .. 4*i + 3
static constexpr int DOT_LANES = 16;

static void unbias(int32_t * sums, int n, int32_t bias) {
    for (int i = 0; i < n; i++) {
        sums[i] -= bias;
    }
}

// Codes become levels once for all rows; a 32-bit sum takes four neighbouring depths of one lane.
template <int bits, int n_rows>
static void dot_rows(const qlutattn_kernel_config & config, const uint8_t * codes, const qlutattn_span & span, const qlutattn_tbl * const * tbls,
                     qlutattn_acc & acc, int row0) {
    constexpr int fields = 4 / bits;  // of a nibble
    constexpr int depths = 32 / bits; // of a chunk

    bytes levels[fields];             // the level of each field, for every nibble
    for (int f = 0; f < fields; f++) {
        uint8_t biased[16];
        for (int n = 0; n < 16; n++) {
            biased[n] = (uint8_t) (config.levels[n >> (f * bits) & ((1 << bits) - 1)] + LEVEL_BIAS);
        }
        levels[f] = table(biased);
    }
    const int n_chunks = span.n_depth / depths;

    for (int lane = 0; lane < span.n_lanes; lane += WIDTH / 4) {
        const int       at    = span.lane0 + lane;
        const uint8_t * chunk = codes + (at / DOT_LANES * (PACK_SIZE / depths) + span.depth0 / depths) * PACK_CHUNK_SIZE + at % DOT_LANES * 4;

        sums32 sums[n_rows];
        for (int r = 0; r < n_rows; r++) {
            sums[r] = zero32();
        }
        for (int i = 0; i < n_chunks; i++) {
            const bytes v          = load(chunk + i * PACK_CHUNK_SIZE);
            const bytes nibbles[2] = { low(v), high(v) };
            for (int f = 0; f < 2 * fields; f++) {
                const bytes l = pick(levels[f % fields], nibbles[f / fields]);
                for (int r = 0; r < n_rows; r++) {
                    sums[r] = dot(sums[r], l, four(tbls[row0 + r]->units + i * depths + 4 * f));
                }
            }
        }
        for (int r = 0; r < n_rows; r++) {
            store(acc[row0 + r] + lane, sums[r]);
        }
    }
    for (int r = 0; r < n_rows; r++) {
        unbias(acc[row0 + r], span.n_lanes, LEVEL_BIAS * tbls[row0 + r]->units_sum);
    }
}

// A chunk is one nibble of all 128 lanes: lanes 0..63 low, 64..127 high. 16-bit sums hold 128 bytes without overflow.
template <int n_rows>
static void lut_rows(const qlutattn_kernel_config & config, const uint8_t * codes, const qlutattn_span & span, const qlutattn_tbl * const * tbls,
                     qlutattn_acc & acc, int row0) {
    const int  per_nibble = config.depths_per_nibble();
    const int  n_nibbles  = span.n_depth / per_nibble;
    const bool want_low   = span.lane0 == 0;
    const bool want_high  = span.lane0 + span.n_lanes == PACK_SIZE;

    codes += span.depth0 / per_nibble * PACK_CHUNK_SIZE;
    for (int lane = 0; lane < 64; lane += WIDTH) {
        sums16 first[n_rows];
        sums16 last[n_rows];
        for (int r = 0; r < n_rows; r++) {
            first[r] = zero16();
            last[r]  = zero16();
        }
        for (int g = 0; g < n_nibbles; g++) {
            const bytes v = load(codes + g * PACK_CHUNK_SIZE + lane);
            const bytes a = low(v);
            const bytes b = high(v);
            for (int r = 0; r < n_rows; r++) {
                const bytes entries = table(tbls[row0 + r]->units + g * 16);
                first[r]            = add(first[r], pick(entries, a));
                last[r]             = add(last[r], pick(entries, b));
            }
        }
        for (int r = 0; r < n_rows; r++) {
            if (want_low) {
                store(acc[row0 + r] + lane, first[r]);
            }
            if (want_high) {
                store(acc[row0 + r] + lane + 64 - span.lane0, last[r]);
            }
        }
    }
    for (int r = 0; r < n_rows; r++) {
        unbias(acc[row0 + r], span.n_lanes, QLUTATTN_LUT_BIAS * n_nibbles);
    }
}

template <int n_rows, typename... Args> static void by_kernel(qlutattn_kernel kernel, int bits, Args &... args) {
    if (kernel == QLUTATTN_KERNEL_LUT) {
        lut_rows<n_rows>(args...);
        return;
    }
    switch (bits) {
        case 1:
            dot_rows<1, n_rows>(args...);
            break;
        case 2:
            dot_rows<2, n_rows>(args...);
            break;
        case 4:
            dot_rows<4, n_rows>(args...);
            break;
    }
}

const char * qlutattn_simd_name() {
    return QLUTATTN_SIMD;
}

bool qlutattn_has_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel) {
    return kernel == QLUTATTN_KERNEL_DOT ? config.layout == QLUTATTN_LAYOUT_DOT : config.layout == QLUTATTN_LAYOUT_LOOKUP;
}

void qlutattn_acc_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                       const qlutattn_tbl * const * tbls, int n_rows, qlutattn_acc & acc) {
    const int step = kernel == QLUTATTN_KERNEL_DOT ? DOT_ROWS : LUT_ROWS;
    for (int r = 0; r < n_rows;) {
        if (n_rows - r >= step && step == 4) {
            by_kernel<4>(kernel, config.bits, config, codes, span, tbls, acc, r);
            r += 4;
        } else if (n_rows - r >= 2) {
            by_kernel<2>(kernel, config.bits, config, codes, span, tbls, acc, r);
            r += 2;
        } else {
            by_kernel<1>(kernel, config.bits, config, codes, span, tbls, acc, r);
            r += 1;
        }
    }
}

#endif
