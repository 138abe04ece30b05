#pragma once

// One tile: PACK_SIZE lanes of f16 or f32 to codes, scales and offsets, by the steps of docs/formats.md of the qlutattn project ("Packing").
// All arithmetic is binary32 in a fixed order without fused multiply-adds (these sources are compiled with -ffp-contract=off), or integer,
// so that every form gives the same bytes on every machine.

#include "qlutattn-config.h"

// v, of which the scale is fitted, has steps of 1/QLUTATTN_PACK_FINE of a level unit
constexpr int QLUTATTN_PACK_FINE = 16;

// 8 bits: scale per largest magnitude of a lane, which becomes 127 level units
constexpr float QLUTATTN_PACK_LINEAR = (float) QLUTATTN_LEVEL_UNIT / 127;

constexpr float       QLUTATTN_F16_MAX = 65504.0f;
constexpr ggml_fp16_t QLUTATTN_F16_NAN = 0x7e00;

// the source of a tile: a value is at data + lane*nb_lane + depth*nb_depth
struct qlutattn_pack_source {
    enum ggml_type type; // f16 or f32
    const char *   data;
    size_t         nb_lane;
    size_t         nb_depth;
    const char *   next; // data of the tile that comes after this one, or NULL
};

// code k + 1 begins here, in level units: at the midpoint of two levels, halves rounded away from 0
inline int qlutattn_pack_threshold(const int8_t * levels, int k) {
    const int sum = levels[k] + levels[k + 1];
    return (sum + (sum > 0) - (sum < 0)) / 2;
}

// the scalar form, the reference of the tests
void qlutattn_pack_tile_scalar(const qlutattn_kernel_config & config, const qlutattn_pack_source & source, void * tile);

// the vector form, and whether this build has it for a type
bool qlutattn_pack_has_simd(const qlutattn_kernel_config & config);
void qlutattn_pack_tile_simd(const qlutattn_kernel_config & config, const qlutattn_pack_source & source, void * tile);
