#pragma once

// The configuration of each packed type: one table, one lookup function, used by the packer and by attention alike.
// The table is generated from formats.toml (qlutattn-config.cpp); docs/formats.md of the qlutattn project describes the tile.

#include "ggml-qlutattn.h"

#include <cstddef>
#include <cstdint>

// lanes of a tile, and its depth
constexpr int PACK_SIZE = GGML_QLUTATTN_TILE;

// bytes of codes in one chunk: one nibble of every lane (lookup order), or four bytes of QLUTATTN_DOT_LANES lanes (dot order)
constexpr int PACK_CHUNK_SIZE = 64;

// lanes of a chunk in the dot order
constexpr int QLUTATTN_DOT_LANES = 16;

static_assert(PACK_CHUNK_SIZE == PACK_SIZE / 2, "a chunk in the lookup order is one nibble of every lane");
static_assert(PACK_CHUNK_SIZE == 4 * QLUTATTN_DOT_LANES, "a chunk in the dot order is four bytes of each of its lanes");

// value = scale * level / QLUTATTN_LEVEL_UNIT, + offset where a type has offsets
constexpr int QLUTATTN_LEVEL_UNIT = 64;

enum qlutattn_layout {
    QLUTATTN_LAYOUT_LOOKUP, // a chunk is one nibble (4/bits neighbouring depths) of all lanes: the first half of them low, the other high
    QLUTATTN_LAYOUT_DOT,    // a chunk is 32/bits depths of QLUTATTN_DOT_LANES lanes, four depths of one lane side by side
};

enum qlutattn_kernel {
    QLUTATTN_KERNEL_LUT, // uint8 tables of 16 partial sums, looked up with nibbles of codes
    QLUTATTN_KERNEL_DOT, // integer levels times x, both int8
};

struct qlutattn_kernel_config {
    enum ggml_type       type;
    bool                 lane_is_token; // K: lane = token, depth = head dimension; V: lane = channel, depth = token
    int                  bits;
    enum qlutattn_layout layout;
    enum qlutattn_kernel kernel;       // the fastest, as measured
    bool                 has_offset;   // beside the scale of a lane; without, it counts as 0
    const int8_t *       levels;       // [1 << bits], ascending, symmetric; NULL at 8 bits, whose codes are their levels
    const int8_t *       int_levels;   // levels / level_gcd, what kernels multiply by: small, so that sums of products fit 16 bits
    int                  level_gcd;    // the greatest common divisor of the levels
    float                rms_to_scale; // where the encoder starts: scale per root mean square of a lane

    bool   is_linear() const { return levels == nullptr; }
    int8_t int_level(uint8_t code) const { return is_linear() ? (int8_t) code : int_levels[code]; }

    int   depths_per_nibble() const { return 4 / bits; }
    float level_scale() const { return (float) level_gcd / QLUTATTN_LEVEL_UNIT; } // value = scale * level_scale * int_level + offset

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
