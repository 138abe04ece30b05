// The scalar kernels, for every bit width and either order of the codes: the ones that the tests trust.
// The lookup of sums of products follows T-MAC; accumulating bytes in 16 bits follows FAISS's 4-bit fast scan.

#include "tbl.h"

#include "ggml-impl.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// below this x counts as zero, so that 127/max stays finite
static constexpr float QLUTATTN_TINY = 1e-30f;

// the code of one lane at one depth
static inline uint8_t code_at(const qlutattn_kernel_config & config, const uint8_t * codes, int lane, int depth) {
    const int bits = config.bits;
    const int mask = (1 << bits) - 1;

    if (config.layout == QLUTATTN_LAYOUT_LOOKUP) {
        const int     per_nibble = config.depths_per_nibble();
        const uint8_t byte       = codes[depth / per_nibble * PACK_CHUNK_SIZE + lane % 64];
        return byte >> (lane / 64 * 4 + depth % per_nibble * bits) & mask;
    }
    const int     per_chunk = 32 / bits; // depths of a chunk
    const int     in_chunk  = depth % per_chunk;
    const uint8_t byte      = codes[(depth / per_chunk * 8 + lane / 16) * PACK_CHUNK_SIZE + lane % 16 * 4 + in_chunk % 4];
    return byte >> (in_chunk / 4 * bits) & mask;
}

void qlutattn_unpack(
    const qlutattn_kernel_config & config, enum qlutattn_kernel kernel, const void * tile, qlutattn_span span, qlutattn_unpacked & unpacked) {
    const uint8_t * codes = (const uint8_t *) tile;

    if (kernel == QLUTATTN_KERNEL_DOT) {
        for (int d = 0; d < span.n_depth; d++) {
            for (int lane = 0; lane < PACK_SIZE; lane++) {
                unpacked.at[d * PACK_SIZE + lane] = (uint8_t) config.levels[code_at(config, codes, lane, span.depth0 + d)];
            }
        }
        return;
    }
    const int per_nibble = config.depths_per_nibble();
    for (int g = 0; g < span.n_depth / per_nibble; g++) {
        for (int lane = 0; lane < PACK_SIZE; lane++) {
            uint8_t nibble = 0;
            for (int i = 0; i < per_nibble; i++) {
                nibble |= code_at(config, codes, lane, span.depth0 + g * per_nibble + i) << (i * config.bits);
            }
            unpacked.at[g * PACK_SIZE + lane] = nibble;
        }
    }
}

// round values to int8 with one step for all; returns the step
static float quantise(const float * values, int n, int8_t * units) {
    float max    = 0.0f;
    bool  finite = true;
    for (int i = 0; i < n; i++) {
        max    = std::max(max, std::fabs(values[i]));
        finite = finite && std::isfinite(values[i]);
    }
    if (!finite || max < QLUTATTN_TINY) {
        memset(units, 0, n);
        return finite ? 0.0f : NAN;
    }
    const float inverse = 127.0f / max;
    for (int i = 0; i < n; i++) {
        units[i] = (int8_t) lrintf(values[i] * inverse);
    }
    return max / 127.0f;
}

void qlutattn_tbl_build(const qlutattn_kernel_config & config, enum qlutattn_kernel kernel, const float * x, int n_depth, qlutattn_tbl & tbl) {
    tbl.sum = 0.0f;
    for (int d = 0; d < n_depth; d++) {
        tbl.sum += x[d];
    }
    if (kernel == QLUTATTN_KERNEL_DOT) {
        tbl.step = quantise(x, n_depth, tbl.units) / QLUTATTN_LEVEL_UNIT;
        return;
    }
    // entry n of nibble g: the sum over its depths of level[code] * x, the codes being the bit fields of n
    const int per_nibble = config.depths_per_nibble();
    const int n_nibbles  = n_depth / per_nibble;
    const int mask       = (1 << config.bits) - 1;

    float entries[PACK_SIZE * 16];
    for (int g = 0; g < n_nibbles; g++) {
        for (int n = 0; n < 16; n++) {
            float entry = 0.0f;
            for (int i = 0; i < per_nibble; i++) {
                entry += config.levels[n >> (i * config.bits) & mask] * x[g * per_nibble + i];
            }
            entries[g * 16 + n] = entry;
        }
    }
    tbl.step = quantise(entries, n_nibbles * 16, tbl.units) / QLUTATTN_LEVEL_UNIT;
}

void qlutattn_tbl_mul(
    const qlutattn_kernel_config & config,
    enum qlutattn_kernel           kernel,
    const void *                   tile,
    const qlutattn_unpacked &      unpacked,
    const qlutattn_tbl &           tbl,
    int                            n_depth,
    int                            lane0,
    int                            n_lanes,
    float *                        y) {
    int32_t acc[PACK_SIZE] = { 0 };

    if (kernel == QLUTATTN_KERNEL_DOT) {
        const int8_t * levels = (const int8_t *) unpacked.at;
        for (int d = 0; d < n_depth; d++) {
            for (int i = 0; i < n_lanes; i++) {
                acc[i] += levels[d * PACK_SIZE + lane0 + i] * tbl.units[d];
            }
        }
    } else {
        const int n_nibbles = n_depth / config.depths_per_nibble();
        for (int g = 0; g < n_nibbles; g++) {
            for (int i = 0; i < n_lanes; i++) {
                acc[i] += tbl.units[g * 16 + unpacked.at[g * PACK_SIZE + lane0 + i]];
            }
        }
    }

    const ggml_fp16_t * scales  = config.scales(tile) + lane0;
    const ggml_fp16_t * offsets = config.offsets(tile) + lane0;
    for (int i = 0; i < n_lanes; i++) {
        y[i] += GGML_CPU_FP16_TO_FP32(scales[i]) * (tbl.step * acc[i]) + GGML_CPU_FP16_TO_FP32(offsets[i]) * tbl.sum;
    }
}
