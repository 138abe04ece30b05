#include "llama-kv-mixed-packer.h"

#include "ggml-backend.h"
#include "ggml-qlutattn.h"
#include "llama-impl.h"
#include "llama-kv-mixed-rotation.h"

#include <algorithm>

int64_t llama_kv_mixed_side::row_width() const {
    return ggml_is_qlutattn(packed->type) ? packed->ne[0] * packed->ne[2] : packed->ne[0];
}

bool llama_kv_mixed_packer::prepare(scratch & scr, const std::vector<const llama_kv_mixed_side *> & sides,
                                    const std::vector<llama_kv_mixed_pack> & packs) {
    for (const auto & p : packs) {
        for (uint32_t cell : p.packed) {
            scr.tiles.emplace(std::make_pair(p.stream, cell / GGML_QLUTATTN_TILE), scr.tiles.size());
        }
    }
    scr.n_rows = scr.tiles.size() * GGML_QLUTATTN_TILE;
    if (scr.tiles.empty()) {
        return true;
    }
    for (const auto & p : packs) {
        scr.n_rows += p.packed.empty() ? 0 : p.f16.size();
    }
    int64_t width = 0;
    for (const auto * side : sides) {
        width = std::max(width, side->row_width());
    }
    scr.buffer.reset(ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), ggml_row_size(GGML_TYPE_F16, width) * scr.n_rows));
    return scr.buffer != nullptr;
}

std::vector<llama_kv_mixed_packer::inputs> llama_kv_mixed_packer::new_inputs(ggml_context * ctx, const std::vector<llama_kv_mixed_pack> & packs,
                                                                             const scratch & scr) {
    const auto new_idxs = [ctx](size_t n) {
        ggml_tensor * res = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n);
        ggml_set_input(res);
        return res;
    };
    std::vector<inputs> res;
    uint32_t            first = scr.tiles.size() * GGML_QLUTATTN_TILE;
    for (const auto & p : packs) {
        inputs in;
        for (uint32_t cell : p.packed) {
            in.row_values.push_back(scr.tiles.at({ p.stream, cell / GGML_QLUTATTN_TILE }) * GGML_QLUTATTN_TILE + cell % GGML_QLUTATTN_TILE);
        }
        bool is_contiguous = p.packed.empty();
        for (size_t i = 0; i < p.f16.size(); i++) {
            in.row_values.push_back(p.packed.empty() ? p.f16[i] : first + i);
            is_contiguous = is_contiguous && p.f16[i] == p.f16[0] + i;
        }
        if (!p.packed.empty() && !p.f16.empty()) {
            in.f16   = new_idxs(p.f16.size());
            in.first = first;
            first += p.f16.size();
        }
        const size_t n = in.row_values.size(); // what is left of the tile repeats them, so that no other value has a part in its scales
        for (size_t i = n; i < GGML_QLUTATTN_TILE; i++) {
            in.row_values.push_back(in.row_values[i - n]);
        }
        if (!p.by.empty()) {
            in.by = new_idxs(GGML_QLUTATTN_TILE);
            for (size_t i = 0; i < GGML_QLUTATTN_TILE; i++) {
                in.by_values.push_back(p.by[i % n]);
            }
        }
        if (!is_contiguous || n < GGML_QLUTATTN_TILE) {
            in.rows = new_idxs(GGML_QLUTATTN_TILE);
        }
        res.push_back(std::move(in));
    }
    return res;
}

ggml_tensor * llama_kv_mixed_view_tile(ggml_context * ctx, ggml_tensor * packed, uint32_t stream, uint32_t tile) {
    const size_t row = tile * GGML_QLUTATTN_TILE;
    if (!ggml_is_qlutattn(packed->type)) {
        return ggml_view_2d(ctx, packed, packed->ne[0], GGML_QLUTATTN_TILE, packed->nb[1], stream * packed->nb[2] + row * packed->nb[1]);
    }
    return ggml_view_3d(ctx, packed, GGML_QLUTATTN_TILE, GGML_QLUTATTN_TILE, packed->ne[2], packed->nb[1], packed->nb[2],
                        stream * packed->nb[3] + row * packed->nb[1]);
}

ggml_tensor * llama_kv_mixed_view_as_tile(ggml_context * ctx, ggml_tensor * rows, size_t first, const ggml_tensor * packed) {
    const size_t offset = first * rows->nb[1];
    if (!ggml_is_qlutattn(packed->type)) {
        return ggml_view_2d(ctx, rows, packed->ne[0], GGML_QLUTATTN_TILE, rows->nb[1], offset);
    }
    return ggml_view_3d(ctx, rows, GGML_QLUTATTN_TILE, GGML_QLUTATTN_TILE, packed->ne[2], rows->nb[1], GGML_QLUTATTN_TILE * rows->nb[0], offset);
}

// The other half of the last tile repeats channels: zeros would not fit the scale that a token's channels share.
ggml_tensor * llama_kv_mixed_pad_rows(ggml_context * ctx, ggml_tensor * rows, const ggml_tensor * packed) {
    const int64_t n_pad = ggml_is_qlutattn(packed->type) ? packed->ne[0] * packed->ne[2] - rows->ne[0] : 0;
    if (n_pad == 0) {
        return rows;
    }
    return ggml_concat(ctx, rows, ggml_view_2d(ctx, rows, n_pad, rows->ne[1], rows->nb[1], (rows->ne[0] - n_pad) * rows->nb[0]), 0);
}

// keys of tokens that were moved differently are turned to fit one tile
static ggml_tensor * turn(ggml_context * ctx, ggml_tensor * rows, const llama_kv_mixed_side & side, ggml_tensor * rot, ggml_tensor * by) {
    if (!by || side.rope.n_rot == 0) {
        return rows;
    }
    ggml_tensor * cur = ggml_cont(ctx, ggml_view_2d(ctx, rows, side.f16->ne[0], rows->ne[1], rows->nb[1], 0));
    return llama_kv_mixed_pad_rows(ctx, side.rope.turn_rows(ctx, cur, rot, by), side.packed);
}

static ggml_tensor * view_stream(ggml_context * ctx, ggml_tensor * f16, uint32_t stream, size_t first, size_t n) {
    return ggml_view_2d(ctx, f16, f16->ne[0], n, f16->nb[1], stream * f16->nb[2] + first * f16->nb[1]);
}

void llama_kv_mixed_packer::build(ggml_context * ctx, ggml_cgraph * gf, const llama_kv_mixed_side & side,
                                  const std::vector<llama_kv_mixed_pack> & packs, const std::vector<inputs> & in, const scratch & scr,
                                  ggml_tensor * rot) {
    ggml_tensor * rows = nullptr;
    if (scr.buffer) {
        rows = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, side.row_width(), scr.n_rows);
        ggml_backend_tensor_alloc(scr.buffer.get(), rows, ggml_backend_buffer_get_base(scr.buffer.get()));
        for (const auto & [from, i] : scr.tiles) {
            ggml_tensor * to = llama_kv_mixed_view_as_tile(ctx, rows, i * GGML_QLUTATTN_TILE, side.packed);
            ggml_build_forward_expand(gf, ggml_cpy(ctx, llama_kv_mixed_view_tile(ctx, side.packed, from.first, from.second), to));
        }
    }
    for (size_t i = 0; i < packs.size(); i++) {
        if (in[i].f16) {
            ggml_tensor * from = ggml_get_rows(ctx, view_stream(ctx, side.f16, packs[i].stream, 0, side.f16->ne[1]), in[i].f16);
            from               = llama_kv_mixed_pad_rows(ctx, from, side.packed);
            ggml_tensor * to   = ggml_view_2d(ctx, rows, from->ne[0], from->ne[1], rows->nb[1], in[i].first * rows->nb[1]);
            ggml_build_forward_expand(gf, ggml_cpy(ctx, from, to));
        }
    }
    for (size_t i = 0; i < packs.size(); i++) {
        const auto &  p = packs[i];
        ggml_tensor * from;
        if (!p.packed.empty()) {
            from = turn(ctx, ggml_get_rows(ctx, rows, in[i].rows), side, rot, in[i].by);
        } else if (in[i].rows) {
            from =
                llama_kv_mixed_pad_rows(ctx, ggml_get_rows(ctx, view_stream(ctx, side.f16, p.stream, 0, side.f16->ne[1]), in[i].rows), side.packed);
        } else {
            from = llama_kv_mixed_pad_rows(ctx, view_stream(ctx, side.f16, p.stream, p.f16[0], GGML_QLUTATTN_TILE), side.packed);
        }
        ggml_build_forward_expand(
            gf, ggml_cpy(ctx, llama_kv_mixed_view_as_tile(ctx, from, 0, side.packed), llama_kv_mixed_view_tile(ctx, side.packed, p.stream, p.tile)));
    }
}

bool llama_kv_mixed_packer::pack(const std::vector<const llama_kv_mixed_side *> & sides, const std::vector<llama_kv_mixed_pack> & packs,
                                 int64_t rot_k) {
    scratch scr;
    if (!prepare(scr, sides, packs)) {
        LLAMA_LOG_ERROR("%s: no memory to repack %zu tiles\n", __func__, scr.tiles.size());
        return false;
    }
    const size_t n_tensors = 1 + 3 * packs.size() + sides.size() * (1 + 3 * scr.tiles.size() + 36 * packs.size());

    const ggml_init_params params = {
        /*.mem_size   =*/n_tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(n_tensors, false),
        /*.mem_buffer =*/nullptr,
        /*.no_alloc   =*/true,
    };
    ggml_context_ptr ctx_ptr(ggml_init(params));
    if (!ctx_ptr) {
        return false;
    }
    ggml_context *             ctx = ctx_ptr.get();
    ggml_cgraph *              gf  = ggml_new_graph_custom(ctx, n_tensors, false);
    const std::vector<inputs>  in  = new_inputs(ctx, packs, scr);
    llama_kv_mixed_cpu::inputs data;
    std::vector<float>         matrix;
    ggml_tensor *              rot = nullptr;
    if (rot_k > 0 && std::any_of(packs.begin(), packs.end(), [](const auto & p) { return !p.by.empty(); })) {
        matrix = llama_kv_mixed_rotation(rot_k);
        rot    = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, rot_k, rot_k);
        ggml_set_input(rot);
        data.emplace_back(rot, matrix.data());
    }
    for (const auto * side : sides) {
        build(ctx, gf, *side, packs, in, scr, rot);
    }
    for (size_t i = 0; i < packs.size(); i++) {
        if (in[i].rows) {
            data.emplace_back(in[i].rows, in[i].row_values.data());
        }
        if (in[i].f16) {
            data.emplace_back(in[i].f16, packs[i].f16.data());
        }
        if (in[i].by) {
            data.emplace_back(in[i].by, in[i].by_values.data());
        }
    }
    if (!cpu.compute(gf, data)) {
        LLAMA_LOG_ERROR("%s: packing %zu tiles failed\n", __func__, packs.size());
        return false;
    }
    return true;
}

bool llama_kv_mixed_packer::unpack(const llama_kv_mixed_side & side, const std::vector<uint32_t> & tiles, ggml_tensor * rows) {
    const size_t n_tensors = 3 * tiles.size();

    const ggml_init_params params = {
        /*.mem_size   =*/n_tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(n_tensors, false),
        /*.mem_buffer =*/nullptr,
        /*.no_alloc   =*/true,
    };
    ggml_context_ptr ctx(ggml_init(params));
    if (!ctx) {
        return false;
    }
    ggml_cgraph * gf = ggml_new_graph_custom(ctx.get(), n_tensors, false);
    for (size_t i = 0; i < tiles.size(); i++) {
        ggml_tensor * to = llama_kv_mixed_view_as_tile(ctx.get(), rows, i * GGML_QLUTATTN_TILE, side.packed);
        ggml_build_forward_expand(gf, ggml_cpy(ctx.get(), llama_kv_mixed_view_tile(ctx.get(), side.packed, 0, tiles[i]), to));
    }
    if (!cpu.compute(gf, {})) {
        LLAMA_LOG_ERROR("%s: unpacking %zu tiles failed\n", __func__, tiles.size());
        return false;
    }
    return true;
}
