#pragma once

// Sums over nodes that were computed, per kind of graph, operation and layer.

#include "profile-event.h"

#include <cstdint>
#include <unordered_map>

constexpr int PROFILE_NO_LAYER = -1;

// nodes that are counted together
struct profile_key {
    graph_kind kind    : 4;
    uint8_t    n_fused : 4;
    uint8_t    op;
    uint8_t    variant;
    uint8_t    fused_op;
    uint8_t    type_a;
    uint8_t    type_b;
    int16_t    layer;

    bool operator==(const profile_key & other) const;
};

struct profile_key_hash {
    size_t operator()(const profile_key & key) const;
};

// ticks; a node's own time is that of the graph's first thread, from its begin until the barrier behind it is passed
struct profile_sums {
    uint64_t calls = 0;
    uint64_t time  = 0;
    uint64_t busy  = 0; // of that, until the node has ended on the first thread
    uint64_t bytes = 0;
    uint64_t flops = 0;

    uint64_t all_threads = 0; // the time of all threads together
    uint64_t all_waits   = 0; // of that, at the barrier

    void add(const profile_event & event);
    void add(const profile_sums & other);
};

struct graph_sums {
    uint64_t graphs  = 0;
    uint64_t tokens  = 0;
    uint64_t time    = 0;
    uint64_t threads = 0; // of the graph with most

    void add(const graph_sums & other);
};

class profile_totals {
  public:
    // events of a thread in their order: a node without a layer of its own in its name is in that of the node before it
    void add(const profile_event & event);
    void add(const graph_event & event);
    void add(const profile_totals & other);

    const std::unordered_map<profile_key, profile_sums, profile_key_hash> & nodes() const { return sums; }

    const graph_sums & graphs(graph_kind kind) const { return of_kind[kind]; }

    // of all graphs
    uint64_t first_begin = UINT64_MAX;
    uint64_t last_end    = 0;

  private:
    std::unordered_map<profile_key, profile_sums, profile_key_hash> sums;

    graph_sums of_kind[GRAPH_KINDS];
    int        last_node  = 0;
    int        last_layer = PROFILE_NO_LAYER;
};

// the layer in a tensor's name, as in "Qcur-3", "cache_k_l3 (view)" or "cache_k_l3 (copy of Kcur-3)"; PROFILE_NO_LAYER if none
int layer_of(const char * name);
