#pragma once

// The configuration of each packed type: one table, one lookup function, used by the packer and by attention alike.
// The table is generated from formats.toml (qlutattn-config.cpp); docs/formats.md of the qlutattn project explains the tile.

#include "ggml-qlutattn.h"

#include <cstddef>
#include <cstdint>

// lanes of a tile, and its depth
constexpr int PACK_SIZE = GGML_QLUTATTN_TILE;

// bytes of codes in one chunk: one nibble of every lane (lookup order), or four bytes of 16 lanes (dot order)
constexpr int PACK_CHUNK_SIZE = 64;

// value = scale * level / QLUTATTN_LEVEL_UNIT, + offset where a type has offsets
constexpr int QLUTATTN_LEVEL_UNIT = 64;

enum qlutattn_layout {
    QLUTATTN_LAYOUT_LOOKUP, // a chunk is one nibble (4/bits neighbouring depths) of all lanes
    QLUTATTN_LAYOUT_DOT,    // a chunk is 32/bits depths of 16 lanes, four depths of one lane side by side
};

enum qlutattn_kernel {
    QLUTATTN_KERNEL_LUT, // int8 tables of 16 entries, looked up with nibbles
    QLUTATTN_KERNEL_DOT, // int8 levels times int8 x
};

struct qlutattn_kernel_config {
    enum ggml_type       type;
    bool                 lane_is_token; // K: lane = token, depth = head dimension; V: lane = channel, depth = token
    int                  bits;
    enum qlutattn_layout layout;
    enum qlutattn_kernel kernel;       // the fastest, as measured
    bool                 has_offset;   // beside the scale of a lane; without, it counts as 0
    const int8_t *       levels;       // [1 << bits], ascending, symmetric
    const int8_t *       factors;      // levels / level_factor, what kernels multiply by: small, so that sums of products fit 16 bits
    int                  level_factor; // the largest common divisor of the levels
    float                rms_to_scale; // where the encoder starts: scale per root mean square of a lane

    int   depths_per_nibble() const { return 4 / bits; }
    float factor_size() const { return (float) level_factor / QLUTATTN_LEVEL_UNIT; } // value = scale * factor_size * factor + offset

    constexpr size_t code_bytes() const { return (size_t) PACK_SIZE * PACK_SIZE * bits / 8; }
    constexpr size_t tile_bytes() const { return code_bytes() + (has_offset ? 2 : 1) * PACK_SIZE * sizeof(ggml_fp16_t); }

    // the parts of a tile; NULL for the offsets of a type that has none
    const ggml_fp16_t * scales(const void * tile) const { return (const ggml_fp16_t *) ((const char *) tile + code_bytes()); }
    const ggml_fp16_t * offsets(const void * tile) const { return has_offset ? scales(tile) + PACK_SIZE : nullptr; }
    ggml_fp16_t *       scales(void * tile) const { return (ggml_fp16_t *) ((char *) tile + code_bytes()); }
    ggml_fp16_t *       offsets(void * tile) const { return has_offset ? scales(tile) + PACK_SIZE : nullptr; }
};

// the configuration of a type, or NULL when the type is none of GGML_TYPE_QLUTATTN_*
const qlutattn_kernel_config * qlutattn_get_kernel_config(enum ggml_type type);
