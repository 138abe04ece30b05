#include "llama-kv-mixed-convert.h"

#include "ggml-backend.h"
#include "ggml-qlutattn.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

int64_t llama_kv_mixed_saved_side::n_columns() const {
    return ggml_is_qlutattn(type) ? GGML_PAD(n_embd, GGML_QLUTATTN_TILE) / GGML_QLUTATTN_TILE : 1;
}

size_t llama_kv_mixed_saved_side::column_size() const {
    return ggml_is_qlutattn(type) ? ggml_row_size(type, GGML_QLUTATTN_TILE) * GGML_QLUTATTN_TILE : row_size() * GGML_QLUTATTN_TILE;
}

namespace {

// the tensors of a cache with one stream
struct storage {
    llama_kv_mixed_side side;
    ggml_tensor *       unpacked; // f16 [row_width, n*TILE]

    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buffer;

    storage(ggml_type type, int64_t n_embd, int64_t n_columns, uint32_t n_rows, uint32_t n_tiles, uint32_t n_unpacked) {
        const ggml_init_params params = { 3 * ggml_tensor_overhead(), nullptr, true };
        ctx.reset(ggml_init(params));
        const int64_t n_packed = (int64_t) std::max<uint32_t>(n_tiles, 1) * GGML_QLUTATTN_TILE;
        if (ctx) {
            side.f16    = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F16, n_embd, std::max<uint32_t>(n_rows, 1), 1);
            side.packed = ggml_is_qlutattn(type) ? ggml_new_tensor_4d(ctx.get(), type, GGML_QLUTATTN_TILE, n_packed, n_columns, 1) :
                                                   ggml_new_tensor_3d(ctx.get(), type, n_embd, n_packed, 1);
            unpacked    = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F16, side.row_width(), std::max<uint32_t>(n_unpacked, 1) * GGML_QLUTATTN_TILE);
            buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), ggml_backend_cpu_buffer_type()));
        }
        if (!buffer) {
            throw std::runtime_error("there is no memory to convert the state of the KV cache");
        }
        ggml_backend_buffer_clear(buffer.get(), 0);
    }

    uint8_t * row(uint32_t i) const { return (uint8_t *) side.f16->data + i * side.f16->nb[1]; }

    uint8_t * column(uint32_t tile, int64_t i) const {
        const ggml_tensor * t = side.packed;
        return (uint8_t *) t->data + tile * GGML_QLUTATTN_TILE * t->nb[1] + (ggml_is_qlutattn(t->type) ? i * t->nb[2] : 0);
    }
};

} // namespace

void llama_kv_mixed_saved_side::convert(llama_kv_mixed_packer & packer, const llama_kv_mixed_conversion & how) {
    uint32_t n_tiles = how.n_tiles;
    for (const auto & p : how.packs) {
        n_tiles = std::max(n_tiles, p.tile + 1);
    }
    std::vector<uint32_t> opened; // tiles that are unpacked
    for (uint32_t cell : how.unpacked) {
        if (opened.empty() || opened.back() != cell / GGML_QLUTATTN_TILE) {
            opened.push_back(cell / GGML_QLUTATTN_TILE);
        }
    }
    const storage   s(type, n_embd, n_columns(), how.n_rows + how.unpacked.size(), n_tiles, opened.size());
    const uint8_t * from = data.data();
    memcpy(s.side.f16->data, from, how.n_rows * row_size());
    from += how.n_rows * row_size();
    for (uint32_t tile = 0; tile < how.n_tiles; tile++) {
        for (int64_t i = 0; i < n_columns(); i++, from += column_size()) {
            memcpy(s.column(tile, i), from, column_size());
        }
    }

    bool ok = opened.empty() || packer.unpack(s.side, opened, s.unpacked);
    for (size_t i = 0, k = 0; i < how.unpacked.size() && ok; i++) {
        k += opened[k] != how.unpacked[i] / GGML_QLUTATTN_TILE;
        const size_t row = k * GGML_QLUTATTN_TILE + how.unpacked[i] % GGML_QLUTATTN_TILE;
        memcpy(s.row(how.n_rows + i), (const uint8_t *) s.unpacked->data + row * s.unpacked->nb[1], row_size());
    }
    ok = ok && (how.packs.empty() || packer.pack({ &s.side }, how.packs, 0));
    if (!ok) {
        throw std::runtime_error("there is no memory to convert the state of the KV cache");
    }

    data.clear();
    for (uint32_t row : how.rows) {
        data.insert(data.end(), s.row(row), s.row(row) + row_size());
    }
    for (uint32_t tile : how.tiles) {
        for (int64_t i = 0; i < n_columns(); i++) {
            data.insert(data.end(), s.column(tile, i), s.column(tile, i) + column_size());
        }
    }
}
