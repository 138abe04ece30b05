// See docs/formats.md of the qlutattn project: the steps below carry its numbers.

#include "qlutattn-pack.h"

#include "ggml-impl.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cmath>
#include <cstring>

static constexpr float       F16_MAX = 65504.0f;
static constexpr ggml_fp16_t F16_NAN = 0x7e00;

// the sum of 128 values as a fixed tree; overwrites them
static float tree_sum(float * s) {
    for (int w = PACK_SIZE / 2; w > 0; w /= 2) {
        for (int i = 0; i < w; i++) {
            s[i] += s[i + w];
        }
    }
    return s[0];
}

// the code whose level is nearest to u (in level units); a tie takes the lower level
static inline int nearest_code(const qlutattn_kernel_config & config, float u) {
    int code = 0;
    for (int k = 0; k + 1 < 1 << config.bits; k++) {
        code += u > 0.5f * (config.levels[k] + config.levels[k + 1]);
    }
    return code;
}

static bool is_representable(const float * x) {
    bool ok = true;
    for (int i = 0; i < PACK_SIZE; i++) {
        ok = ok && std::fabs(x[i]) <= F16_MAX; // false for NaN
    }
    return ok;
}

static void fit_lane(const qlutattn_kernel_config & config, const float * x, ggml_fp16_t & scale, ggml_fp16_t & offset) {
    float r[PACK_SIZE];
    float s[PACK_SIZE];
    float t[PACK_SIZE];

    if (!is_representable(x)) { // 1: poisoned, on purpose
        scale  = F16_NAN;
        offset = 0;
        return;
    }

    memcpy(s, x, sizeof(s)); // 2
    offset             = GGML_CPU_FP32_TO_FP16(tree_sum(s) * (1.0f / PACK_SIZE));
    const float centre = GGML_CPU_FP16_TO_FP32(offset);
    for (int i = 0; i < PACK_SIZE; i++) {
        r[i] = x[i] - centre;
        s[i] = r[i] * r[i];
    }

    const float start = config.rms_to_scale * sqrtf(tree_sum(s) * (1.0f / PACK_SIZE)); // 3
    if (start == 0.0f) {
        scale = 0;
        return;
    }

    const float inverse = QLUTATTN_LEVEL_UNIT / start; // 4
    for (int i = 0; i < PACK_SIZE; i++) {
        const float level = config.levels[nearest_code(config, r[i] * inverse)];
        s[i]              = r[i] * level;
        t[i]              = level * level;
    }
    const float fitted = QLUTATTN_LEVEL_UNIT * tree_sum(s) / tree_sum(t);

    scale = GGML_CPU_FP32_TO_FP16(std::min(fitted, F16_MAX)); // 5
}

void qlutattn_pack_scales(const qlutattn_kernel_config & config, const float * lanes, ggml_fp16_t * scales, ggml_fp16_t * offsets) {
    for (int lane = 0; lane < PACK_SIZE; lane++) {
        fit_lane(config, lanes + lane * PACK_SIZE, scales[lane], offsets[lane]);
    }
}

// the byte and the bit of a code in the order of its type
static inline void put_code(const qlutattn_kernel_config & config, uint8_t * codes, int lane, int depth, int code) {
    const int bits = config.bits;

    if (config.layout == QLUTATTN_LAYOUT_LOOKUP) {
        const int per_nibble = config.depths_per_nibble();
        codes[depth / per_nibble * PACK_CHUNK_SIZE + lane % 64] |= code << (lane / 64 * 4 + depth % per_nibble * bits);
        return;
    }
    const int per_chunk = 32 / bits;
    const int in_chunk  = depth % per_chunk;
    const int chunk     = lane / 16 * (PACK_SIZE / per_chunk) + depth / per_chunk;
    codes[chunk * PACK_CHUNK_SIZE + lane % 16 * 4 + in_chunk % 4] |= code << (in_chunk / 4 * bits);
}

void qlutattn_pack_weights(const qlutattn_kernel_config & config, const float * lanes, const ggml_fp16_t * scales, const ggml_fp16_t * offsets,
                           uint8_t * codes) {
    memset(codes, 0, config.code_bytes());
    for (int lane = 0; lane < PACK_SIZE; lane++) {
        const float scale = GGML_CPU_FP16_TO_FP32(scales[lane]);
        if (scale == 0.0f || scales[lane] == F16_NAN) {
            continue;                                      // all codes 0
        }
        const float inverse = QLUTATTN_LEVEL_UNIT / scale; // 6
        const float centre  = GGML_CPU_FP16_TO_FP32(offsets[lane]);
        for (int depth = 0; depth < PACK_SIZE; depth++) {
            const float r = lanes[lane * PACK_SIZE + depth] - centre;
            put_code(config, codes, lane, depth, nearest_code(config, r * inverse));
        }
    }
}

static inline float load(enum ggml_type type, const char * p) {
    return type == GGML_TYPE_F16 ? GGML_CPU_FP16_TO_FP32(*(const ggml_fp16_t *) p) : *(const float *) p;
}

void ggml_compute_forward_dup_f16_qlutattn(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const struct ggml_tensor *     src    = dst->src[0];
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(dst->type);

    GGML_ASSERT(config);
    GGML_ASSERT(src->type == GGML_TYPE_F16 || src->type == GGML_TYPE_F32);
    GGML_ASSERT(ggml_are_same_shape(src, dst));
    GGML_ASSERT(dst->ne[0] == PACK_SIZE && dst->ne[1] % PACK_SIZE == 0);
    GGML_ASSERT(dst->nb[1] * PACK_SIZE == config->tile_bytes());

    // one transposition: K is read as it lies (lane = token), V across (lane = channel)
    const size_t nb_lane  = config->lane_is_token ? src->nb[1] : src->nb[0];
    const size_t nb_depth = config->lane_is_token ? src->nb[0] : src->nb[1];

    const int64_t n_tiles = dst->ne[1] / PACK_SIZE;
    const int64_t n       = n_tiles * dst->ne[2] * dst->ne[3];

    float lanes[PACK_SIZE * PACK_SIZE];
    for (int64_t i = params->ith; i < n; i += params->nth) {
        const int64_t i1 = i % n_tiles * PACK_SIZE;
        const int64_t i2 = i / n_tiles % dst->ne[2];
        const int64_t i3 = i / n_tiles / dst->ne[2];

        const char * from = (const char *) src->data + i1 * src->nb[1] + i2 * src->nb[2] + i3 * src->nb[3];
        char *       tile = (char *) dst->data + i1 * dst->nb[1] + i2 * dst->nb[2] + i3 * dst->nb[3];

        for (int lane = 0; lane < PACK_SIZE; lane++) {
            for (int depth = 0; depth < PACK_SIZE; depth++) {
                lanes[lane * PACK_SIZE + depth] = load(src->type, from + lane * nb_lane + depth * nb_depth);
            }
        }
        qlutattn_pack_scales(*config, lanes, config->scales(tile), config->offsets(tile));
        qlutattn_pack_weights(*config, lanes, config->scales(tile), config->offsets(tile), (uint8_t *) tile);
    }
}
