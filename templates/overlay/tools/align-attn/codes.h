#pragma once

#include "case.h"
#include "data.h"

// The tile as docs/formats.md describes it, read by a decoder that shares nothing with the kernels.
struct tile_codes {
    uint8_t code[TILE][TILE]; // [lane][depth]
    double  scale[TILE];
    double  offset[TILE];     // 0 where the format has none
};

double f16_value(uint16_t bits);
void   read_tile(const uint8_t * bytes, const tile_format & format, tile_codes & tile);

// A packed tensor of a case, decoded; no tiles if it is f16. Index of a tile: (batch*n_cols + column)*n_tiles + tile.
struct packed_side {
    const tile_format *     format = nullptr;
    std::vector<tile_codes> tiles;
};

packed_side decode(const align_case & c, const tile_format * format, const side_shape & shape, const std::vector<uint8_t> & bytes);

// The least-squares scale of a lane's values by the steps of docs/formats.md, in float64, and the codes that follow from it.
double fit_lane(const double * r, const tile_format & format, int * codes);

// Checks scales, offsets and codes against their source, lane by lane, in float64.
// Returns an empty string, or a description of the first error.
std::string check_pack(const align_case & c, bool is_k, const packed_side & side, const std::vector<float> & source);

// Checks unpacked tiles, [TILE, n_packed, n_cols, n_batch], against the values that the codes stand for, in the same way.
std::string check_unpack(const align_case & c, bool is_k, const packed_side & side, const std::vector<float> & values);
