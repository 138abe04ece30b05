// The scalar packer. The steps have the numbers of docs/formats.md of the qlutattn project.

#include "ggml-impl.h"
#include "pack-tile.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// the sum of PACK_SIZE values as a fixed tree; overwrites them
static float tree_sum(float * s) {
    for (int w = PACK_SIZE / 2; w > 0; w /= 2) {
        for (int i = 0; i < w; i++) {
            s[i] += s[i + w];
        }
    }
    return s[0];
}

// the code of u, an integer in level units: how many thresholds are not greater
static inline int choose_code(const qlutattn_kernel_config & config, int u) {
    const int clamped = std::min(std::max(u, -128), 127);
    int       code    = 0;
    for (int k = 0; k + 1 < 1 << config.bits; k++) {
        code += qlutattn_pack_threshold(config.levels, k) <= clamped;
    }
    return code;
}

// 8 bits: the largest magnitude becomes 127; scale and codes of a lane.
static void pack_lane_linear(const float * x, ggml_fp16_t & scale, uint8_t * codes) {
    float largest = 0.0f;
    for (int i = 0; i < PACK_SIZE; i++) {
        largest = std::max(largest, std::fabs(x[i]));
    }
    scale = GGML_CPU_FP32_TO_FP16(largest * QLUTATTN_PACK_LINEAR);
    if (scale == 0) {
        return;
    }
    const float inverse = QLUTATTN_LEVEL_UNIT / GGML_CPU_FP16_TO_FP32(scale);
    for (int i = 0; i < PACK_SIZE; i++) {
        codes[i] = (uint8_t) std::min(std::max((int) std::nearbyint(x[i] * inverse), -128), 127);
    }
}

// Scale, offset (0 for a type that has none) and codes of a lane.
static void pack_lane(const qlutattn_kernel_config & config, const float * x, ggml_fp16_t & scale, ggml_fp16_t & offset, uint8_t * codes) {
    float r[PACK_SIZE];
    float s[PACK_SIZE];

    memset(codes, 0, PACK_SIZE);
    for (int i = 0; i < PACK_SIZE; i++) { // 1: poisoned, on purpose
        if (!(std::fabs(x[i]) <= QLUTATTN_F16_MAX)) {
            scale  = QLUTATTN_F16_NAN;
            offset = 0;
            return;
        }
    }

    if (config.is_linear()) {
        offset = 0;
        pack_lane_linear(x, scale, codes);
        return;
    }
    memcpy(s, x, sizeof(s)); // 2
    offset             = config.has_offset ? GGML_CPU_FP32_TO_FP16(tree_sum(s) * (1.0f / PACK_SIZE)) : 0;
    const float centre = GGML_CPU_FP16_TO_FP32(offset);
    for (int i = 0; i < PACK_SIZE; i++) {
        r[i] = x[i] - centre;
        s[i] = r[i] * r[i];
    }

    const float start = config.rms_to_scale * sqrtf(tree_sum(s) * (1.0f / PACK_SIZE)); // 3
    scale             = 0;
    if (start == 0.0f) {
        return;
    }

    const float fine = QLUTATTN_PACK_FINE * QLUTATTN_LEVEL_UNIT / start; // 4
    int32_t     num  = 0;
    int32_t     den  = 0;
    for (int i = 0; i < PACK_SIZE; i++) {
        const int v     = (int) std::nearbyint(r[i] * fine);
        const int level = config.levels[choose_code(config, v >> 4)];
        num += v * level;
        den += level * level;
    }
    const float fitted = start * (float) num / (float) (QLUTATTN_PACK_FINE * den);

    scale = GGML_CPU_FP32_TO_FP16(std::min(fitted, QLUTATTN_F16_MAX)); // 5
    if (scale == 0) {
        return;
    }

    const float coarse = QLUTATTN_LEVEL_UNIT / GGML_CPU_FP16_TO_FP32(scale); // 6
    for (int i = 0; i < PACK_SIZE; i++) {
        codes[i] = choose_code(config, (int) std::nearbyint(r[i] * coarse - 0.5f));
    }
}

// store a code at its byte and bit in the order of its type
static inline void store_code(const qlutattn_kernel_config & config, uint8_t * codes, int lane, int depth, int code) {
    const int bits = config.bits;

    if (config.layout == QLUTATTN_LAYOUT_LOOKUP) {
        const int per_nibble = config.depths_per_nibble();
        codes[depth / per_nibble * PACK_CHUNK_SIZE + lane % PACK_CHUNK_SIZE] |= code << (lane / PACK_CHUNK_SIZE * 4 + depth % per_nibble * bits);
        return;
    }
    const int per_chunk = 32 / bits;
    const int in_chunk  = depth % per_chunk;
    const int chunk     = lane / QLUTATTN_DOT_LANES * (PACK_SIZE / per_chunk) + depth / per_chunk;
    codes[chunk * PACK_CHUNK_SIZE + lane % QLUTATTN_DOT_LANES * 4 + in_chunk % 4] |= code << (in_chunk / 4 * bits);
}

static inline float load(const qlutattn_pack_source & source, int lane, int depth) {
    const char * p = source.data + lane * source.nb_lane + depth * source.nb_depth;
    return source.type == GGML_TYPE_F16 ? GGML_CPU_FP16_TO_FP32(*(const ggml_fp16_t *) p) : *(const float *) p;
}

void qlutattn_pack_tile_scalar(const qlutattn_kernel_config & config, const qlutattn_pack_source & source, void * tile) {
    memset(tile, 0, config.code_bytes());
    for (int lane = 0; lane < PACK_SIZE; lane++) {
        float       x[PACK_SIZE];
        uint8_t     codes[PACK_SIZE];
        ggml_fp16_t offset;
        for (int depth = 0; depth < PACK_SIZE; depth++) {
            x[depth] = load(source, lane, depth);
        }
        pack_lane(config, x, config.scales(tile)[lane], offset, codes);
        if (config.has_offset) {
            config.offsets(tile)[lane] = offset;
        }
        for (int depth = 0; depth < PACK_SIZE; depth++) {
            store_code(config, (uint8_t *) tile, lane, depth, codes[depth]);
        }
    }
}
