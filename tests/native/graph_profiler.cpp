// Computes graphs for the graph profiler to record: graph_profiler THREADS WORK, where WORK is
//   nodes     one graph with a node of each kind whose bytes and operations are counted in a way of its own
//   layers    graphs of one token and of many, with names as llama.cpp gives them
//   many N    N graphs, more than a ring holds
//   large N   a graph of N nodes, more than a ring holds
//   two       graphs from two callers at once, each with a thread pool for each graph
//   stopped   a graph that its abort callback ends
//   aborted   a graph in which GGML_ABORT ends the program

#include "ggml-cpu.h"
#include "ggml.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

static ggml_context * new_context(size_t n_nodes) {
    return ggml_init({ (ggml_tensor_overhead() + 512) * n_nodes + ggml_graph_overhead_custom(2 * n_nodes, false) + (64u << 20), nullptr, false });
}

static ggml_tensor * zeros(ggml_context * ctx, ggml_type type, int64_t a, int64_t b = 1, int64_t c = 1) {
    ggml_tensor * t = ggml_new_tensor_3d(ctx, type, a, b, c);
    memset(t->data, 0, ggml_nbytes(t));
    return t;
}

static void compute(ggml_context * ctx, ggml_cgraph * graph, int n_threads) {
    ggml_graph_compute_with_ctx(ctx, graph, n_threads);
}

static void compute_nodes(int n_threads) {
    ggml_context *             ctx = new_context(64);
    ggml_tensor *              x   = zeros(ctx, GGML_TYPE_F32, 64, 8);
    std::vector<ggml_tensor *> out = {
        ggml_mul_mat(ctx, zeros(ctx, GGML_TYPE_Q8_0, 64, 32), x),
        ggml_get_rows(ctx, zeros(ctx, GGML_TYPE_F16, 64, 1000), zeros(ctx, GGML_TYPE_I32, 5)),
        ggml_set_rows(ctx, zeros(ctx, GGML_TYPE_F16, 64, 1000), zeros(ctx, GGML_TYPE_F32, 64, 1), zeros(ctx, GGML_TYPE_I64, 1)),
        ggml_cpy(ctx, x, zeros(ctx, GGML_TYPE_F16, 64, 8)),
        ggml_mul(ctx, ggml_rms_norm(ctx, x, 1e-5f), zeros(ctx, GGML_TYPE_F32, 64)),
        ggml_silu(ctx, x),
        ggml_swiglu(ctx, x),
        ggml_flash_attn_ext(ctx, zeros(ctx, GGML_TYPE_F32, 64, 3, 4), zeros(ctx, GGML_TYPE_F16, 64, 256, 2), zeros(ctx, GGML_TYPE_F16, 64, 256, 2),
                            zeros(ctx, GGML_TYPE_F16, 256, 3), 1.0f, 0.0f, 0.0f),
        ggml_add(ctx, x, x),
        ggml_mul_mat_id(ctx, zeros(ctx, GGML_TYPE_F16, 64, 32, 6), zeros(ctx, GGML_TYPE_F32, 64, 2, 1), zeros(ctx, GGML_TYPE_I32, 2, 1)),
    };
    ggml_cgraph * graph = ggml_new_graph(ctx);
    for (size_t i = 0; i < out.size(); ++i) {
        ggml_format_name(out[i], "out\"%zu", i); // a quote that a trace must not be broken by
        ggml_build_forward_expand(graph, out[i]);
    }
    compute(ctx, graph, n_threads);
    ggml_free(ctx);
}

// two layers of a product, an addition without a name and a copy into a cache; then a product outside of all layers
static ggml_cgraph * new_layers(ggml_context * ctx, int64_t n_tokens) {
    ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_tensor * x     = zeros(ctx, GGML_TYPE_F32, 128, n_tokens);
    ggml_tensor * w     = zeros(ctx, GGML_TYPE_F32, 128, 128);
    for (int layer = 0; layer < 2; ++layer) {
        ggml_tensor * cache = zeros(ctx, GGML_TYPE_F16, 128, n_tokens);
        ggml_format_name(cache, "cache_k_l%d", layer);
        ggml_tensor * y = ggml_mul_mat(ctx, w, x);
        ggml_format_name(y, "ffn_out-%d", layer);
        ggml_build_forward_expand(graph, ggml_cpy(ctx, y, ggml_view_tensor(ctx, cache)));
        x = ggml_add(ctx, y, x);
        ggml_build_forward_expand(graph, x);
    }
    x = ggml_mul_mat(ctx, w, x);
    ggml_set_name(x, "result_output");
    ggml_build_forward_expand(graph, x);
    return graph;
}

static void compute_layers(int n_threads) {
    ggml_context * ctx = new_context(256);
    for (int64_t n_tokens : { 1, 1, 1, 4, 64 }) {
        compute(ctx, new_layers(ctx, n_tokens), n_threads);
    }
    ggml_free(ctx);
}

static void compute_many(int n_threads, int n_graphs) {
    ggml_context * ctx   = new_context(256);
    ggml_cgraph *  graph = new_layers(ctx, 1);
    ggml_cplan     plan  = ggml_graph_plan(graph, n_threads, nullptr);
    plan.work_data       = (uint8_t *) malloc(plan.work_size + 1);
    for (int i = 0; i < n_graphs; ++i) {
        ggml_graph_compute(graph, &plan);
    }
    free(plan.work_data);
    ggml_free(ctx);
}

static void compute_large(int n_threads, int n_nodes) {
    ggml_context * ctx   = new_context(n_nodes);
    ggml_cgraph *  graph = ggml_new_graph_custom(ctx, n_nodes, false);
    ggml_tensor *  x     = zeros(ctx, GGML_TYPE_F32, 4);
    for (int i = 0; i < n_nodes; ++i) {
        x = ggml_scale_inplace(ctx, x, 0.5f);
    }
    ggml_build_forward_expand(graph, x);
    compute(ctx, graph, n_threads);
    ggml_free(ctx);
}

static void compute_two(int n_threads) {
    std::vector<std::thread> callers;
    for (int i = 0; i < 2; ++i) {
        callers.emplace_back([=] { compute_many(n_threads, 100); });
    }
    for (std::thread & caller : callers) {
        caller.join();
    }
    compute_layers(n_threads);
}

static void compute_stopped(int n_threads) {
    static int     n_asked = 0;
    ggml_context * ctx     = new_context(256);
    ggml_cgraph *  graph   = new_layers(ctx, 1);
    ggml_cplan     plan    = ggml_graph_plan(graph, n_threads, nullptr);
    plan.work_data         = (uint8_t *) malloc(plan.work_size + 1);
    plan.abort_callback    = [](void *) {
        return ++n_asked == 3;
    };
    const ggml_status status = ggml_graph_compute(graph, &plan);
    printf("status=%d\n", status);
    fflush(stdout);
    _Exit(status == GGML_STATUS_ABORTED ? 0 : 1); // nothing is written at exit: it was when the graph ended
}

static void compute_aborted(int n_threads) {
    ggml_context * ctx   = new_context(256);
    ggml_cgraph *  graph = new_layers(ctx, 1);
    ggml_tensor *  last  = ggml_graph_node(graph, -1);
    ggml_tensor *  bad =
        ggml_map_custom1(ctx, last, [](ggml_tensor *, const ggml_tensor *, int, int, void *) { GGML_ABORT("a node that fails"); }, 1, nullptr);
    ggml_set_name(bad, "bad-7");
    ggml_build_forward_expand(graph, bad);
    compute(ctx, graph, n_threads);
}

int main(int argc, char ** argv) {
    const int         n_threads = atoi(argv[1]);
    const std::string work      = argv[2];
    const int         n         = argc > 3 ? atoi(argv[3]) : 0;
    if (work == "nodes") {
        compute_nodes(n_threads);
    } else if (work == "layers") {
        compute_layers(n_threads);
    } else if (work == "many") {
        compute_many(n_threads, n);
    } else if (work == "large") {
        compute_large(n_threads, n);
    } else if (work == "two") {
        compute_two(n_threads);
    } else if (work == "stopped") {
        compute_stopped(n_threads);
    } else if (work == "aborted") {
        compute_aborted(n_threads);
    }
    return 0;
}
