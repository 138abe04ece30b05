#pragma once

// Fills the tiles of a mixed KV cache, as planned. A graph of its own on the CPU, computed before that of the ubatch: a ubatch that fails leaves
// no tile incomplete.

#include "ggml-cpp.h"
#include "llama-kv-mixed-cells.h"
#include "llama-kv-mixed-cpu.h"
#include "llama-kv-mixed-rope.h"

#include <map>
#include <utility>
#include <vector>

// keys or values of a layer
struct llama_kv_mixed_side {
    ggml_tensor * f16;             // [n_embd, n_f16, n_stream], n_embd with padded heads
    ggml_tensor * packed;          // tiles [TILE, n_tiles*TILE, n_columns, n_stream], or f16 [n_embd, n_tiles*TILE, n_stream], or null

    llama_kv_mixed_rope rope = {}; // how its rows are turned; those of values are not

    int64_t row_width() const;     // channels of a row of tiles, or of a packed row in f16
};

// a tile of the packed part: [TILE, TILE, columns], or [n_embd, TILE] in f16
ggml_tensor * llama_kv_mixed_view_tile(ggml_context * ctx, ggml_tensor * packed, uint32_t stream, uint32_t tile);

// TILE rows, from the first one on, in the shape of a tile
ggml_tensor * llama_kv_mixed_view_as_tile(ggml_context * ctx, ggml_tensor * rows, size_t first, const ggml_tensor * packed);

// rows of whole tiles
ggml_tensor * llama_kv_mixed_pad_rows(ggml_context * ctx, ggml_tensor * rows, const ggml_tensor * packed);

class llama_kv_mixed_packer {
  public:
    explicit llama_kv_mixed_packer(llama_kv_mixed_cpu & cpu) : cpu(cpu) {}

    // rot_k: the size of the matrix that rotates keys, 0: none; false, with a message and nothing changed, if there is no memory for it
    bool pack(const std::vector<const llama_kv_mixed_side *> & sides, const std::vector<llama_kv_mixed_pack> & packs, int64_t rot_k);

    // unpack tiles, one after the other, to f16 rows [at least n_embd, n*TILE]; false, with a message, if there is no memory for it
    bool unpack(const llama_kv_mixed_side & side, const std::vector<uint32_t> & tiles, ggml_tensor * rows);

  private:
    // Rows in f16 that packs with packed cells take their tokens from: the tiles that are given up, unpacked, then f16 cells. One piece of
    // memory that each side uses in its turn.
    struct scratch {
        std::map<std::pair<uint32_t, uint32_t>, uint32_t> tiles;  // (stream, tile): its place among the tiles here
        uint32_t                                          n_rows;
        ggml_backend_buffer_ptr                           buffer; // null: nothing is repacked
    };

    // the rows of a pack, as inputs of the graph
    struct inputs {
        ggml_tensor *        rows = nullptr;  // in the f16 cells or in scratch; null: consecutive f16 cells
        std::vector<int32_t> row_values;
        ggml_tensor *        f16   = nullptr; // f16 cells that go through scratch, or null
        uint32_t             first = 0;       // their place there
        ggml_tensor *        by    = nullptr; // by how much the rows are turned, or null
        std::vector<int32_t> by_values;
    };

    llama_kv_mixed_cpu & cpu;

    static bool prepare(scratch & scr, const std::vector<const llama_kv_mixed_side *> & sides, const std::vector<llama_kv_mixed_pack> & packs);
    static void build(ggml_context * ctx, ggml_cgraph * gf, const llama_kv_mixed_side & side, const std::vector<llama_kv_mixed_pack> & packs,
                      const std::vector<inputs> & in, const scratch & scr, ggml_tensor * rot);

    static std::vector<inputs> new_inputs(ggml_context * ctx, const std::vector<llama_kv_mixed_pack> & packs, const scratch & scr);
};
