#pragma once

// What is recorded of a node and of a graph.

#include "ggml.h"

#include <cstdint>

struct ggml_cgraph;

// what a graph is for, by the number of tokens in it
enum graph_kind : uint8_t {
    GRAPH_DECODE, // one token
    GRAPH_SMALL_BATCH,
    GRAPH_PREFILL,
    GRAPH_OTHER, // no product of matrices and no attention, as when a cache is packed
    GRAPH_KINDS,
};

constexpr uint32_t PROFILE_SMALL_BATCH = 32; // its largest number of tokens

// one node on one thread; times are ticks of profile_clock
struct profile_event {
    uint64_t   begin;
    uint64_t   end;    // 0: not yet
    uint64_t   passed; // the barrier behind it; 0: not yet
    uint64_t   bytes;  // that the whole node reads and writes
    uint64_t   flops;
    int32_t    node;
    uint16_t   ith;
    graph_kind kind;
    uint8_t    n_fused;  // nodes computed along with it
    uint8_t    op;
    uint8_t    variant;  // of GGML_OP_UNARY and GGML_OP_GLU
    uint8_t    fused_op; // of the last fused node
    uint8_t    type_a;   // types that tell how the node is computed
    uint8_t    type_b;   // (GGML_TYPE_COUNT: none)
    bool       is_cut;   // the node had not ended when the profile was written
    uint32_t   ne[3][4]; // shapes of the result and of the first two sources; all 0: none
    char       name[GGML_MAX_NAME];
};

// a call of ggml_graph_compute
struct graph_event {
    uint64_t   begin;
    uint64_t   end; // 0: not yet
    uint32_t   n_nodes;
    uint32_t   n_tokens;
    uint16_t   n_threads;
    graph_kind kind;
    int8_t     status; // ggml_status
};

// all of an event that does not change from run to run of the node
void describe_node(profile_event & event, const ggml_cgraph * graph, int node, int n_fused);

// tokens of a graph: queries of its first product of matrices or attention; 0 if it has none
uint32_t count_tokens(const ggml_cgraph * graph);
