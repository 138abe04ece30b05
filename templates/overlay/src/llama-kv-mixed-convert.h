#pragma once

// Saved tokens made to fit a cache that has other numbers of f16 cells and tiles than the one that they were saved from.

#include "llama-kv-mixed-packer.h"

#include <cstddef>
#include <cstdint>
#include <vector>

// What becomes of the f16 rows and tiles of a saved stream: first tiles are unpacked, then tiles are filled, then some of all that are kept.
struct llama_kv_mixed_conversion {
    uint32_t n_rows;                           // f16 rows of the stream
    uint32_t n_tiles;                          // its tiles

    std::vector<uint32_t>            unpacked; // packed cells that become rows, behind the others
    std::vector<llama_kv_mixed_pack> packs;    // tiles to fill: those that are there, and new ones behind them
    std::vector<uint32_t>            rows;     // what is kept
    std::vector<uint32_t>            tiles;
};

// the saved keys or values of a layer: the f16 rows, then the tiles
struct llama_kv_mixed_saved_side {
    ggml_type            type; // of the packed part
    int64_t              n_embd;
    std::vector<uint8_t> data;

    size_t  row_size() const { return ggml_row_size(GGML_TYPE_F16, n_embd); }
    int64_t n_columns() const;   // blocks of memory of a tile
    size_t  column_size() const; // bytes of each

    // throws std::runtime_error if there is no memory for it
    void convert(llama_kv_mixed_packer & packer, const llama_kv_mixed_conversion & how);
};
