// The hooks: start, the lanes of the threads, and what a thread records.

#ifndef GGML_GRAPH_PROFILER
#    define GGML_GRAPH_PROFILER
#endif
#include "graph-profiler.h"

#include "ggml-impl.h"
#include "profile-clock.h"
#include "profile-lane.h"
#include "profile-report.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

namespace {

constexpr size_t ALL_EVENTS   = 1 << 19; // of all threads of a graph, each with
constexpr size_t MOST_EVENTS  = 1 << 16;
constexpr size_t LEAST_EVENTS = 1 << 13;

constexpr std::chrono::milliseconds PATIENCE{ 200 };

struct profiler {
    std::string   path;
    profile_clock clock;

    std::mutex                                       mutex; // of the lists
    std::vector<std::unique_ptr<graph_profile_lane>> lanes;
    std::vector<graph_profile_lane *>                unused;

    graph_profile_lane * new_lane(int ith, int n_threads);
    void                 write(bool is_aborting);
};

// A lane that a thread has ended with, if it was made for the same place in the team; else a new one.
graph_profile_lane * profiler::new_lane(int ith, int n_threads) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto                        found = std::find_if(unused.begin(), unused.end(), [=](auto * lane) { return lane->ith == ith; });
    if (found != unused.end()) {
        graph_profile_lane * lane = *found;
        unused.erase(found);
        return lane;
    }
    const size_t capacity = std::clamp(ALL_EVENTS / n_threads, LEAST_EVENTS, MOST_EVENTS);
    lanes.push_back(std::make_unique<graph_profile_lane>((int) lanes.size(), ith, capacity));
    return lanes.back().get();
}

// Threads of a graph that has just ended may still record that they have passed its last barrier.
void profiler::write(bool is_aborting) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto                        deadline = std::chrono::steady_clock::now() + PATIENCE;
    for (const auto & lane : lanes) {
        while (!is_aborting && lane->is_computing.load(std::memory_order_acquire) && std::chrono::steady_clock::now() < deadline) {
            std::this_thread::yield();
        }
    }
    write_profile(path, lanes, clock);
}

profiler * the_profiler = nullptr; // never deleted: threads may outlive the end of main

void (*former_handler)(int) = SIG_DFL;

struct own_lane {
    graph_profile_lane * lane = nullptr;

    ~own_lane() {
        if (lane) {
            const std::lock_guard<std::mutex> lock(the_profiler->mutex);
            the_profiler->unused.push_back(lane);
        }
    }
};

thread_local own_lane mine;

// GGML_ABORT in a node: outside of a graph something else may be broken, such as the heap. Threads may fail in the same node: the first
// one writes, and the others wait for the end.
void write_and_abort(int number) {
    static std::atomic<bool> is_writing{ false };
    static thread_local bool is_writer = false;
    if (!is_writer && mine.lane && mine.lane->is_computing) {
        while (is_writing.exchange(true)) {
            std::this_thread::sleep_for(PATIENCE);
        }
        is_writer = true;
        the_profiler->write(true);
    }
    signal(number, former_handler);
    if (former_handler != SIG_DFL && former_handler != SIG_IGN) {
        former_handler(number);
    }
}

// what GGML_PROFILE asks for; NULL if nothing, or if it cannot be written
profiler * start() {
    const char * path = getenv("GGML_PROFILE");
    if (!path || !*path) {
        return nullptr;
    }
    if (!check_profile_path(path)) {
        return nullptr;
    }
    the_profiler       = new profiler;
    the_profiler->path = path;
    atexit([] { the_profiler->write(false); });
    former_handler = signal(SIGABRT, write_and_abort);
    if (former_handler == SIG_ERR) {
        former_handler = SIG_DFL;
    }
    return the_profiler;
}

profiler * get_profiler() {
    static profiler * const started = start();
    return started;
}

graph_profile_lane * get_lane(profiler & p, int ith, int n_threads) {
    if (!mine.lane) {
        mine.lane = p.new_lane(ith, n_threads);
    }
    return mine.lane;
}

// Before the nodes, so that recording them allocates nothing and drops nothing. Half of what is there goes, or more if it must.
void make_room(graph_profile_lane & lane, size_t n_nodes) {
    const size_t n_needed = lane.events.size() + n_nodes + 1; // one is being written
    if (n_needed <= lane.events.capacity()) {
        return;
    }
    const std::lock_guard<std::mutex> lock(lane.mutex);
    const size_t                      n_gone = std::min(lane.events.size(), std::max(lane.events.size() / 2, n_needed - lane.events.capacity()));
    for (size_t i = 0; i < n_gone; ++i) {
        lane.totals.add(lane.events.at(0));
        lane.events.drop();
    }
    lane.n_dropped += n_gone;
    if (n_needed - n_gone > lane.events.capacity()) {
        lane.events.grow(n_needed - n_gone);
    }
}

graph_kind kind_of(uint32_t n_tokens) {
    if (n_tokens == 0) {
        return GRAPH_OTHER;
    }
    return n_tokens == 1 ? GRAPH_DECODE : n_tokens <= PROFILE_SMALL_BATCH ? GRAPH_SMALL_BATCH : GRAPH_PREFILL;
}

} // namespace

void graph_profile_enter(const ggml_cgraph * graph, int n_threads) {
    profiler * p = get_profiler();
    if (!p) {
        return;
    }
    graph_profile_lane & lane = *get_lane(*p, 0, n_threads);
    if (lane.graphs.size() == lane.graphs.capacity()) {
        const std::lock_guard<std::mutex> lock(lane.mutex);
        lane.totals.add(lane.graphs.at(0));
        lane.graphs.drop();
    }
    make_room(lane, graph->n_nodes);
    const uint32_t n_tokens = count_tokens(graph);
    lane.graphs.next() = { p->clock.ticks(), 0, (uint32_t) graph->n_nodes, n_tokens, (uint16_t) n_threads, kind_of(n_tokens), GGML_STATUS_SUCCESS };
    lane.graphs.push();
    lane.is_computing = true;
}

void graph_profile_leave(ggml_status status) {
    profiler * p = get_profiler();
    if (!p) {
        return;
    }
    graph_event & graph = mine.lane->graphs.at(mine.lane->graphs.size() - 1);
    graph.status        = (int8_t) status;
    graph.end           = p->clock.ticks();
    mine.lane->is_computing.store(false, std::memory_order_release);
    if (status != GGML_STATUS_SUCCESS) {
        p->write(false);
    }
}

graph_profile_lane * graph_profile_begin(const ggml_cgraph * graph, int ith, int n_threads) {
    profiler * p = get_profiler();
    if (!p) {
        return nullptr;
    }
    graph_profile_lane & lane = *get_lane(*p, ith, n_threads);
    if (ith > 0) {
        make_room(lane, graph->n_nodes);
        lane.is_computing = true;
    }
    lane.kind  = kind_of(count_tokens(graph));
    lane.graph = graph;
    lane.last  = nullptr;
    lane.place = ith;
    return &lane;
}

void graph_profile_begin_node(graph_profile_lane * lane, int node) {
    profile_event & event = lane->events.next();
    event.node            = node;
    event.begin           = the_profiler->clock.ticks();
    lane->is_in_node      = true;
    if (lane->last) {
        lane->last->passed = event.begin;
    }
}

void graph_profile_end_node(graph_profile_lane * lane, int n_fused) {
    profile_event & event = lane->events.next();
    event.end             = the_profiler->clock.ticks();
    event.passed          = 0;
    lane->is_in_node      = false;
    event.ith             = (uint16_t) lane->place;
    event.kind            = lane->kind;
    describe_node(event, lane->graph, event.node, n_fused); // now, and not before: while other threads may still be at work on the node
    lane->last = &event;
    lane->events.push();
}

void graph_profile_end_graph(graph_profile_lane * lane) {
    if (lane->last) {
        lane->last->passed = the_profiler->clock.ticks();
        lane->last         = nullptr;
    }
    if (lane->place > 0) {
        lane->is_computing.store(false, std::memory_order_release);
    }
}
