#pragma once

// The hooks of the graph profiler in the CPU backend's threads. Without GGML_GRAPH_PROFILER they are nothing, and each stands on a
// line that was empty: the object code of ggml-cpu.c is then that of the unpatched file, line numbers in assertions included.

#ifdef GGML_GRAPH_PROFILER
#    define GGML_PROFILE(...) __VA_ARGS__

#    include "ggml.h"

#    ifdef __cplusplus
extern "C" {
#    endif

struct ggml_cgraph;
struct graph_profile_lane;

// what calls ggml_graph_compute: before any thread begins, and when all have ended
void graph_profile_enter(const struct ggml_cgraph * graph, int n_threads);
void graph_profile_leave(enum ggml_status status);

// a thread that computes the graph: where it records, or NULL if GGML_PROFILE asks for nothing; its end is behind the last barrier
struct graph_profile_lane * graph_profile_begin(const struct ggml_cgraph * graph, int ith, int n_threads);
void                        graph_profile_end_graph(struct graph_profile_lane * lane);

// a node, which begins when the barrier behind the one before is passed; those fused with it follow it in the graph
void graph_profile_begin_node(struct graph_profile_lane * lane, int node);
void graph_profile_end_node(struct graph_profile_lane * lane, int n_fused);

static inline void graph_profile_end(struct graph_profile_lane * lane) {
    if (lane) {
        graph_profile_end_graph(lane);
    }
}

static inline void graph_profile_before(struct graph_profile_lane * lane, int node) {
    if (lane) {
        graph_profile_begin_node(lane, node);
    }
}

static inline void graph_profile_after(struct graph_profile_lane * lane, int n_fused) {
    if (lane) {
        graph_profile_end_node(lane, n_fused);
    }
}

#    ifdef __cplusplus
}
#    endif
#else
#    define GGML_PROFILE(...)
#endif
