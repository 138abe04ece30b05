#pragma once

#include "ggml.h"

#include <cstddef>
#include <string>
#include <vector>

// Lanes and depth of a tile. Stated again, not GGML_QLUTATTN_TILE: what is proven here must not follow a mistake there.
constexpr int TILE = 128;

// Bytes of a tile: the codes, then an f16 scale and maybe an f16 offset of each lane.
constexpr size_t tile_bytes(int bits, bool has_offset) {
    return 2048 * (size_t) bits + (has_offset ? 512 : 256);
}

// The packed types, independent of the kernels' own table: what tiles are decoded and judged by.
struct tile_format {
    ggml_type        type;
    const char *     label; // as in the id of a case: k4
    bool             is_k;
    int              bits;
    bool             has_offset;
    bool             is_lookup; // the order of codes: lookup, or dot
    double           rms_to_scale;
    std::vector<int> levels;    // in units of 1/64 of the scale; none at 8 bits, whose codes are int8 levels themselves

    size_t code_bytes() const { return 2048 * (size_t) bits; }
    size_t tile_bytes() const { return ::tile_bytes(bits, has_offset); }
    bool   is_linear() const { return levels.empty(); }
    int    n_levels() const { return (int) levels.size(); }
    double level(int code) const { return (is_linear() ? (int8_t) code : levels[code]) / 64.0; } // in units of the scale
};

// all types, in the order of formats.toml
const std::vector<tile_format> & all_formats();

// the types for K, or those for V, likewise
const std::vector<const tile_format *> & formats_of(bool is_k);

// the default of a case: the format with the most bits
const tile_format * usual_format(bool is_k);

// one K and one V type after another: the first of both, the second of both, ...
struct format_pair {
    const tile_format * k;
    const tile_format * v;
};

std::vector<format_pair> format_pairs();
