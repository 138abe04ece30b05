#include "unpack.h"

#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "pack-tile.h"

#include <algorithm>
#include <cstring>

#if defined(__AVX2__)
#    include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include <arm_neon.h>
#endif

// levels of the codes at bit `shift` of the bytes of a chunk
static inline void look_up(const int8_t * levels, const uint8_t * codes, int shift, int mask, int8_t * out) {
#if defined(__AVX2__)
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) levels));
    for (int i = 0; i < PACK_CHUNK_SIZE; i += 32) {
        const __m256i bytes = _mm256_loadu_si256((const __m256i *) (codes + i));
        const __m256i index = _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift)), _mm256_set1_epi8((char) mask));
        _mm256_storeu_si256((__m256i *) (out + i), _mm256_shuffle_epi8(table, index));
    }
#elif defined(__ARM_NEON) && defined(__aarch64__)
    const int8x16_t table = vld1q_s8(levels);
    for (int i = 0; i < PACK_CHUNK_SIZE; i += 16) {
        const uint8x16_t index = vandq_u8(vshlq_u8(vld1q_u8(codes + i), vdupq_n_s8((int8_t) -shift)), vdupq_n_u8((uint8_t) mask));
        vst1q_s8(out + i, vqtbl1q_s8(table, index));
    }
#else
    for (int i = 0; i < PACK_CHUNK_SIZE; i++) {
        out[i] = levels[codes[i] >> shift & mask];
    }
#endif
}

// the levels of a tile, token by token: [token][channel]
typedef int8_t tile_levels[PACK_SIZE][PACK_SIZE];

// a chunk is one nibble of all lanes
static void read_lookup(const qlutattn_kernel_config & config, const int8_t * levels, const uint8_t * codes, tile_levels & out) {
    const int per_nibble = config.depths_per_nibble();
    for (int depth = 0; depth < PACK_SIZE; depth++) {
        int8_t row[PACK_SIZE]; // of all lanes
        for (int half = 0; half < 2; half++) {
            look_up(levels, codes + depth / per_nibble * PACK_CHUNK_SIZE, half * 4 + depth % per_nibble * config.bits, (1 << config.bits) - 1,
                    row + half * PACK_CHUNK_SIZE);
        }
        if (!config.lane_is_token) {
            memcpy(out[depth], row, PACK_SIZE);
            continue;
        }
        for (int lane = 0; lane < PACK_SIZE; lane++) {
            out[lane][depth] = row[lane];
        }
    }
}

// a chunk is 32/bits depths of QLUTATTN_DOT_LANES lanes, four depths of a lane side by side
static void read_dot(const qlutattn_kernel_config & config, const int8_t * levels, const uint8_t * codes, tile_levels & out) {
    const int per_chunk = 32 / config.bits;
    for (int lane = 0; lane < PACK_SIZE; lane += QLUTATTN_DOT_LANES) {
        for (int depth = 0; depth < PACK_SIZE; depth += 4) {
            const int chunk = lane / QLUTATTN_DOT_LANES * (PACK_SIZE / per_chunk) + depth / per_chunk;
            int8_t    part[QLUTATTN_DOT_LANES][4];
            if (config.is_linear()) {
                memcpy(part[0], codes + chunk * PACK_CHUNK_SIZE, PACK_CHUNK_SIZE);
            } else {
                look_up(levels, codes + chunk * PACK_CHUNK_SIZE, depth % per_chunk / 4 * config.bits, (1 << config.bits) - 1, part[0]);
            }
            if (config.lane_is_token) {
                for (int l = 0; l < QLUTATTN_DOT_LANES; l++) {
                    memcpy(&out[lane + l][depth], part[l], 4);
                }
                continue;
            }
            for (int k = 0; k < 4; k++) {
                for (int l = 0; l < QLUTATTN_DOT_LANES; l++) {
                    out[depth + k][lane + l] = part[l][k];
                }
            }
        }
    }
}

static void store_row(const float * row, enum ggml_type type, char * dst) {
    if (type == GGML_TYPE_F32) {
        std::copy_n(row, PACK_SIZE, (float *) dst);
        return;
    }
    float limited[PACK_SIZE];
    for (int c = 0; c < PACK_SIZE; c++) { // comparisons that leave NaN as it is
        const float x = row[c] > QLUTATTN_F16_MAX ? QLUTATTN_F16_MAX : row[c];
        limited[c]    = x < -QLUTATTN_F16_MAX ? -QLUTATTN_F16_MAX : x;
    }
    ggml_cpu_fp32_to_fp16(limited, (ggml_fp16_t *) dst, PACK_SIZE);
}

void qlutattn_unpack_tile(const qlutattn_kernel_config & config, const void * tile, enum ggml_type type, void * dst, size_t nb_row) {
    alignas(64) tile_levels levels;
    alignas(16) int8_t      table[16] = { 0 };
    if (!config.is_linear()) {
        std::copy_n(config.levels, 1 << config.bits, table);
    }
    const auto read = config.layout == QLUTATTN_LAYOUT_LOOKUP ? read_lookup : read_dot;
    read(config, table, (const uint8_t *) tile, levels);

    float scale[PACK_SIZE]; // of a level unit
    float offset[PACK_SIZE] = { 0.0f };
    ggml_cpu_fp16_to_fp32(config.scales(tile), scale, PACK_SIZE);
    if (config.has_offset) {
        ggml_cpu_fp16_to_fp32(config.offsets(tile), offset, PACK_SIZE);
    }
    for (int i = 0; i < PACK_SIZE; i++) { // vectorized
        scale[i] *= 1.0f / QLUTATTN_LEVEL_UNIT;
    }

    for (int token = 0; token < PACK_SIZE; token++) {
        float row[PACK_SIZE];
        for (int c = 0; c < PACK_SIZE; c++) { // vectorized
            const int lane = config.lane_is_token ? token : c;
            row[c]         = scale[lane] * levels[token][c] + offset[lane];
        }
        store_row(row, type, (char *) dst + token * nb_row);
    }
}

void ggml_compute_forward_dup_qlutattn(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const struct ggml_tensor *     src    = dst->src[0];
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(src->type);

    GGML_ASSERT(config);
    GGML_ASSERT(dst->type == GGML_TYPE_F16 || dst->type == GGML_TYPE_F32);
    GGML_ASSERT(dst->nb[0] == ggml_type_size(dst->type));
    GGML_ASSERT(ggml_are_same_shape(src, dst));
    GGML_ASSERT(src->ne[0] == PACK_SIZE && src->ne[1] % PACK_SIZE == 0);
    GGML_ASSERT(src->nb[1] * PACK_SIZE == config->tile_bytes());

    const int64_t n_tiles = src->ne[1] / PACK_SIZE;
    const auto    data_at = [=](const struct ggml_tensor * t, int64_t i) {
        const int64_t col = i / n_tiles;
        return (char *) t->data + i % n_tiles * PACK_SIZE * t->nb[1] + col % t->ne[2] * t->nb[2] + col / t->ne[2] * t->nb[3];
    };
    for (int64_t i = params->ith; i < n_tiles * src->ne[2] * src->ne[3]; i += params->nth) {
        qlutattn_unpack_tile(*config, data_at(src, i), dst->type, data_at(dst, i), dst->nb[1]);
    }
}
