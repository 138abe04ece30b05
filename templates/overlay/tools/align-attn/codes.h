#pragma once

#include "case.h"
#include "data.h"

// The tile as docs/formats.md describes it, read by a decoder that shares nothing with the kernels.
struct tile_codes {
    uint8_t code[128][128]; // [lane][depth]
    double  scale[128];
    double  offset[128];
};

double f16_value(uint16_t bits);
size_t tile_bytes(int bits);
int    n_levels(int bits);
double level_of(int bits, int code); // in units of the scale

void read_tile(const uint8_t * bytes, int bits, tile_codes & tile);

// A packed tensor of a case, decoded; no tiles if it is f16. Index of a tile: (batch*n_cols + column)*n_tiles + tile.
struct packed_side {
    int                     bits = 0;
    std::vector<tile_codes> tiles;
};

packed_side decode(const align_case & c, int bits, const std::vector<uint8_t> & bytes);

// Checks scales, offsets and codes against their source, lane by lane, in float64.
// Returns an empty string, or the first thing that is wrong in words.
std::string check_pack(const align_case & c, bool is_k, const packed_side & side, const std::vector<float> & source);
