// The K-shift of a mixed KV cache: turns the keys of tokens whose positions changed, where their queries are not turned instead.

#include "ggml-qlutattn.h"
#include "llama-impl.h"
#include "llama-kv-cache-mixed.h"
#include "llama-kv-mixed-rotation.h"
#include "llama-kv-mixed-shift.h"

#include <algorithm>

namespace {

// a graph on the CPU, and the data of its inputs
struct shift_graph {
    ggml_context_ptr ctx_ptr;
    ggml_context *   ctx;
    ggml_cgraph *    gf;
    ggml_tensor *    rot = nullptr; // Hadamard matrix, or null: keys are not rotated

    llama_kv_mixed_cpu::inputs inputs;

    explicit shift_graph(size_t n_tensors) {
        const ggml_init_params params = {
            /*.mem_size   =*/n_tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(n_tensors, false),
            /*.mem_buffer =*/nullptr,
            /*.no_alloc   =*/true,
        };
        ctx_ptr.reset(ggml_init(params));
        ctx = ctx_ptr.get();
        GGML_ASSERT(ctx);
        gf = ggml_new_graph_custom(ctx, n_tensors, false);
    }

    ggml_tensor * input(ggml_type type, int64_t ne0, int64_t ne1, const void * data) {
        ggml_tensor * res = ggml_new_tensor_2d(ctx, type, ne0, ne1);
        ggml_set_input(res);
        inputs.emplace_back(res, data);
        return res;
    }

    // decode a tile: the first n_embd channels of its tokens, [n_embd, TILE] f32
    ggml_tensor * unpack(ggml_tensor * packed, ggml_tensor * tile, int64_t n_embd) const {
        ggml_tensor * rows = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, tile->ne[2] * GGML_QLUTATTN_TILE, GGML_QLUTATTN_TILE);
        ggml_tensor * cur  = ggml_cpy(ctx, tile, llama_kv_mixed_view_as_tile(ctx, rows, 0, packed));
        return ggml_cont(ctx, ggml_view_2d(ctx, cur, n_embd, GGML_QLUTATTN_TILE, rows->nb[1], 0));
    }

    ggml_tensor * pack(ggml_tensor * rows, ggml_tensor * packed, ggml_tensor * tile) const {
        return ggml_cpy(ctx, llama_kv_mixed_view_as_tile(ctx, llama_kv_mixed_pad_rows(ctx, rows, packed), 0, packed), tile);
    }
};

// what one stream needs of the graph, for all layers
struct stream_shift {
    uint32_t             stream;
    llama_kv_mixed_shift plan;

    ggml_tensor *              f16_cells    = nullptr;
    ggml_tensor *              f16_by       = nullptr;
    ggml_tensor *              packed_cells = nullptr;
    ggml_tensor *              packed_by    = nullptr;
    std::vector<ggml_tensor *> turns_by;

    void add_inputs(shift_graph & graph) {
        if (!plan.f16.cells.empty()) {
            f16_cells = graph.input(GGML_TYPE_I32, plan.f16.cells.size(), 1, plan.f16.cells.data());
            f16_by    = graph.input(GGML_TYPE_I32, plan.f16.by.size(), 1, plan.f16.by.data());
        }
        if (!plan.packed.cells.empty()) {
            packed_cells = graph.input(GGML_TYPE_I32, plan.packed.cells.size(), 1, plan.packed.cells.data());
            packed_by    = graph.input(GGML_TYPE_I32, plan.packed.by.size(), 1, plan.packed.by.data());
        }
        for (const auto & turn : plan.turns) {
            turns_by.push_back(graph.input(GGML_TYPE_I32, turn.by.size(), 1, turn.by.data()));
        }
    }

    // cells of f16 keys [n_embd, n_cells, n_stream]
    void turn_cells(shift_graph & graph, const llama_kv_cache_mixed::layer & layer, ggml_tensor * keys, ggml_tensor * cells, ggml_tensor * by) const {
        if (cells) {
            ggml_tensor * all  = ggml_view_2d(graph.ctx, keys, keys->ne[0], keys->ne[1], keys->nb[1], stream * keys->nb[2]);
            ggml_tensor * rows = layer.k.rope.turn_rows(graph.ctx, ggml_get_rows(graph.ctx, all, cells), graph.rot, by);
            ggml_build_forward_expand(graph.gf, ggml_set_rows(graph.ctx, all, rows, cells));
        }
    }

    void turn_tiles(shift_graph & graph, const llama_kv_cache_mixed::layer & layer) const {
        for (size_t i = 0; i < plan.turns.size(); i++) {
            ggml_tensor * packed = layer.k.packed;
            ggml_tensor * tile   = llama_kv_mixed_view_tile(graph.ctx, packed, stream, plan.turns[i].tile);
            ggml_tensor * rows   = layer.k.rope.turn_rows(graph.ctx, graph.unpack(packed, tile, layer.k.f16->ne[0]), graph.rot, turns_by[i]);
            ggml_build_forward_expand(graph.gf, graph.pack(rows, packed, tile));
        }
    }
};

} // namespace

bool llama_kv_cache_mixed::has_shift() const {
    return std::any_of(streams.begin(), streams.end(), llama_kv_mixed_needs_shift);
}

// one graph for all keys
bool llama_kv_cache_mixed::apply_shift() {
    std::vector<stream_shift> shifts;
    size_t                    n_tensors = 64;
    for (uint32_t s = 0; s < layout.n_stream; s++) {
        if (llama_kv_mixed_needs_shift(streams[s])) {
            shifts.push_back({ s, llama_kv_mixed_plan_shift(streams[s], ggml_is_qlutattn(type_k)) });
            n_tensors += 8 + (2 + shifts.back().plan.turns.size()) * (1 + layers.size() * 32);
        }
    }
    shift_graph              graph(n_tensors);
    const std::vector<float> matrix = llama_kv_mixed_rotation(rot_k);
    graph.rot                       = rot_k > 0 ? graph.input(GGML_TYPE_F32, rot_k, rot_k, matrix.data()) : nullptr;
    for (auto & shift : shifts) {
        shift.add_inputs(graph);
    }
    for (const auto & l : layers) {
        if (l.k.rope.n_rot == 0) {
            continue;
        }
        for (const auto & shift : shifts) {
            shift.turn_cells(graph, l, l.k.f16, shift.f16_cells, shift.f16_by);
            shift.turn_cells(graph, l, l.k.packed, shift.packed_cells, shift.packed_by);
            shift.turn_tiles(graph, l);
        }
    }
    if (ggml_graph_n_nodes(graph.gf) > 0 && !cpu.compute(graph.gf, graph.inputs)) {
        LLAMA_LOG_ERROR("%s: turning the keys of tokens that moved failed\n", __func__);
        return false;
    }
    for (const auto & shift : shifts) {
        auto & stream     = streams[shift.stream];
        stream.tile_shift = shift.plan.tile_shift;
        stream.f16.reset_shift();
        stream.packed.reset_shift();
    }
    return true;
}
