#pragma once

// A lane: what one thread records. A thread that ends leaves its lane to the next one.

#include "profile-event.h"
#include "profile-totals.h"

#include <atomic>
#include <cstddef>
#include <mutex>
#include <vector>

// The newest entries. One thread appends, without a lock; the oldest are taken off under the lane's mutex.
template <typename T> class profile_ring {
  public:
    explicit profile_ring(size_t capacity) { grow(capacity); }

    size_t capacity() const { return slots.size(); }

    size_t size() const { return head.load(std::memory_order_acquire) - tail; }

    // the i-th of those that are there, oldest first
    T & at(size_t i) { return slots[(tail + i) & (slots.size() - 1)]; }

    // the slot of the next entry, and its publication
    T & next() { return slots[head.load(std::memory_order_relaxed) & (slots.size() - 1)]; }

    void push() { head.store(head.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

    void drop() { tail++; }

    // to a power of two
    void grow(size_t capacity) {
        size_t n_slots = 1;
        while (n_slots < capacity) {
            n_slots *= 2;
        }
        std::vector<T> larger(n_slots);
        const size_t   n = size();
        for (size_t i = 0; i < n; ++i) {
            larger[i] = at(i);
        }
        slots.swap(larger);
        tail = 0;
        head.store(n, std::memory_order_release);
    }

  private:
    std::vector<T>        slots;
    size_t                tail = 0;
    std::atomic<uint64_t> head{ 0 };
};

constexpr size_t PROFILE_GRAPHS = 8192; // of a lane, at most

struct graph_profile_lane {
    graph_profile_lane(int index, int ith, size_t capacity) : index(index), ith(ith), events(capacity), graphs(PROFILE_GRAPHS) {}

    const int index;
    const int ith;                      // place in its team of the thread that it was made for

    std::mutex                  mutex;  // of what leaves the rings; never taken while nodes are computed
    profile_ring<profile_event> events;
    profile_ring<graph_event>   graphs; // that this thread has called for
    profile_totals              totals; // of what has left the rings
    uint64_t                    n_dropped = 0;

    // of the graph in progress
    std::atomic<bool>   is_computing{ false };
    bool                is_in_node = false;
    int                 place      = 0; // of the thread in its team
    graph_kind          kind       = GRAPH_OTHER;
    const ggml_cgraph * graph      = nullptr;
    profile_event *     last       = nullptr; // whose barrier is not passed yet
};
