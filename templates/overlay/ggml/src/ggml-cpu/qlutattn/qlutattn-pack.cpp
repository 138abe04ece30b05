#include "qlutattn-pack.h"

#include "ggml-impl.h"
#include "qlutattn-env.h"

qlutattn_pack_function qlutattn_get_packer(const qlutattn_kernel_config & config) {
    return !qlutattn_is_scalar_forced() && qlutattn_pack_has_simd(config) ? qlutattn_pack_tile_simd : qlutattn_pack_tile_scalar;
}

void ggml_compute_forward_dup_f16_qlutattn(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    const struct ggml_tensor *     src    = dst->src[0];
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(dst->type);

    GGML_ASSERT(config);
    GGML_ASSERT(src->type == GGML_TYPE_F16 || src->type == GGML_TYPE_F32);
    GGML_ASSERT(ggml_are_same_shape(src, dst));
    GGML_ASSERT(dst->ne[0] == PACK_SIZE && dst->ne[1] % PACK_SIZE == 0);
    GGML_ASSERT(dst->nb[1] * PACK_SIZE == config->tile_bytes());

    // K is read along its rows (lane = token), V across them (lane = channel)
    const size_t nb_lane  = config->lane_is_token ? src->nb[1] : src->nb[0];
    const size_t nb_depth = config->lane_is_token ? src->nb[0] : src->nb[1];

    const auto    pack_tile = qlutattn_get_packer(*config);
    const int64_t n_tiles   = dst->ne[1] / PACK_SIZE;
    const int64_t n         = n_tiles * dst->ne[2] * dst->ne[3];

    // columns that are adjacent in memory (heads of one token) are packed one after the other
    const bool by_column = src->nb[2] < src->nb[1];
    const auto data_at   = [=](const struct ggml_tensor * t, int64_t i) {
        const int64_t inner = by_column ? t->ne[2] : n_tiles;
        const int64_t outer = by_column ? n_tiles : t->ne[2];
        const int64_t first = i % inner;
        const int64_t then  = i / inner % outer;
        return (char *) t->data + (by_column ? then : first) * PACK_SIZE * t->nb[1] + (by_column ? first : then) * t->nb[2] +
               i / inner / outer * t->nb[3];
    };
    // each thread packs neighbours, which share pages and lines that are fetched in pairs
    const int64_t end = n * (params->ith + 1) / params->nth;
    for (int64_t i = n * params->ith / params->nth; i < end; i++) {
        const char * next = i + 1 < end ? data_at(src, i + 1) : nullptr;
        char *       to   = data_at(dst, i);

        const qlutattn_pack_source source = { src->type, data_at(src, i), nb_lane, nb_depth, next };
        pack_tile(*config, source, to);
    }
}
