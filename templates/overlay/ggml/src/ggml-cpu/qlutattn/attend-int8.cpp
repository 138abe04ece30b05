#include "attend-int8.h"

#include "pack-tile.h"
#include "qlutattn-pack.h"
#include "simd-f32.h"

#include <algorithm>
#include <cstring>

namespace f32 = qlutattn_f32;

static int n_columns(int head_dim) {
    return (head_dim + PACK_SIZE - 1) / PACK_SIZE;
}

static constexpr size_t COLUMN_BYTES = PACK_SIZE * PACK_SIZE * sizeof(ggml_fp16_t);

size_t qlutattn_int8_size(int head_dim_k, int head_dim_v) {
    const qlutattn_kernel_config & config = *qlutattn_get_kernel_config(GGML_TYPE_QLUTATTN_K8_128x128);
    return (n_columns(head_dim_k) + n_columns(head_dim_v)) * config.tile_bytes() + head_dim_k * sizeof(float) + COLUMN_BYTES;
}

qlutattn_int8_tile qlutattn_place_int8(char * memory, int head_dim_k, int head_dim_v) {
    qlutattn_int8_tile t;
    t.k_config = qlutattn_get_kernel_config(GGML_TYPE_QLUTATTN_K8_128x128);
    t.v_config = qlutattn_get_kernel_config(GGML_TYPE_QLUTATTN_V8_128x128);
    t.k_tiles  = qlutattn_get_head_tiles(head_dim_k, 0, head_dim_k);
    t.v_tiles  = qlutattn_get_head_tiles(head_dim_v, 0, head_dim_v);
    t.k        = memory;
    t.v        = t.k + n_columns(head_dim_k) * t.k_config->tile_bytes();
    t.mean     = (float *) (t.v + n_columns(head_dim_v) * t.v_config->tile_bytes());
    t.column   = (ggml_fp16_t *) (t.mean + head_dim_k);
    return t;
}

static const ggml_fp16_t * token_at(const qlutattn_int8_source & source, int token, int channel) {
    return (const ggml_fp16_t *) (source.data + token * source.nb) + channel;
}

// share times the mean over the tokens, of a head's channels
static void take_mean(const qlutattn_int8_source & source, float share, float * mean) {
    constexpr int vecs = 64 / f32::WIDTH; // head sizes are multiples of 64
    for (int c = 0; c < source.head_dim; c += 64) {
        f32::vec sums[vecs];
        for (int i = 0; i < vecs; i++) {
            sums[i] = f32::broadcast(0.0f);
        }
        for (int token = 0; token < PACK_SIZE; token++) {
            for (int i = 0; i < vecs; i++) {
                sums[i] = f32::add(sums[i], f32::from_f16(token_at(source, token, c + i * f32::WIDTH)));
            }
        }
        for (int i = 0; i < vecs; i++) {
            f32::store(mean + c + i * f32::WIDTH, f32::mul(sums[i], f32::broadcast(share / PACK_SIZE)));
        }
    }
}

// channels c.. of the source less the mean, if there is one: a column of a tile, with zeros where the head has ended
static void copy_column(const qlutattn_int8_source & source, int c, int n, const float * mean, ggml_fp16_t * column) {
    for (int token = 0; token < PACK_SIZE; token++) {
        const ggml_fp16_t * from = token_at(source, token, c);
        ggml_fp16_t *       to   = column + token * PACK_SIZE;
        if (mean) {
            for (int i = 0; i < n; i += f32::WIDTH) {
                f32::store_f16(to + i, f32::sub(f32::from_f16(from + i), f32::load(mean + c + i)));
            }
        } else {
            memcpy(to, from, n * sizeof(ggml_fp16_t));
        }
        std::fill(to + n, to + PACK_SIZE, 0);
    }
}

static bool is_finite(const qlutattn_kernel_config & config, const char * tile) {
    constexpr ggml_fp16_t exponent = 0x7c00;

    const ggml_fp16_t * scales = config.scales(tile);
    return std::none_of(scales, scales + PACK_SIZE, [](ggml_fp16_t scale) { return (scale & exponent) == exponent; });
}

static bool make_tiles(const qlutattn_kernel_config & config, const qlutattn_head_tiles & tiles, const qlutattn_int8_source & source,
                       const float * mean, ggml_fp16_t * column, char * to) {
    const qlutattn_pack_function pack = qlutattn_get_packer(config);
    for (int i = 0; i < tiles.n; i++, to += config.tile_bytes()) {
        const qlutattn_head_tiles::span & at   = tiles.spans[i];
        const char *                      data = (const char *) token_at(source, 0, at.in_head);
        size_t                            nb   = source.nb;
        if (mean || at.n_channels < PACK_SIZE) {
            copy_column(source, at.in_head, at.n_channels, mean, column);
            data = (const char *) column;
            nb   = PACK_SIZE * sizeof(ggml_fp16_t);
        }
        const size_t nb_lane  = config.lane_is_token ? nb : sizeof(ggml_fp16_t);
        const size_t nb_depth = config.lane_is_token ? sizeof(ggml_fp16_t) : nb;
        pack(config, { GGML_TYPE_F16, data, nb_lane, nb_depth, nullptr }, to);
        if (!is_finite(config, to)) {
            return false;
        }
    }
    return true;
}

bool qlutattn_make_int8(const qlutattn_int8_tile & to, const qlutattn_int8_source & k, const qlutattn_int8_source & v, float smoothing) {
    if (smoothing != 0.0f) {
        take_mean(k, smoothing, to.mean);
    }
    return make_tiles(*to.k_config, to.k_tiles, k, smoothing != 0.0f ? to.mean : nullptr, to.column, to.k) &&
           make_tiles(*to.v_config, to.v_tiles, v, nullptr, to.column, to.v);
}
