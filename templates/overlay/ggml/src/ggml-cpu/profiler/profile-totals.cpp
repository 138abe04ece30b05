#include "profile-totals.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

bool profile_key::operator==(const profile_key & other) const {
    return profile_key_hash()(*this) == profile_key_hash()(other);
}

// all of the key, so that it is the identity too
size_t profile_key_hash::operator()(const profile_key & key) const {
    static_assert(sizeof(profile_key) == sizeof(uint64_t));
    uint64_t bits;
    memcpy(&bits, &key, sizeof(bits));
    return bits;
}

void profile_sums::add(const profile_event & event) {
    if (event.ith == 0) {
        calls += 1;
        time += event.passed - event.begin;
        busy += event.end - event.begin;
        bytes += event.bytes;
        flops += event.flops;
    }
    all_threads += event.passed - event.begin;
    all_waits += event.passed - event.end;
}

void profile_sums::add(const profile_sums & other) {
    calls += other.calls;
    time += other.time;
    busy += other.busy;
    bytes += other.bytes;
    flops += other.flops;
    all_threads += other.all_threads;
    all_waits += other.all_waits;
}

void graph_sums::add(const graph_sums & other) {
    graphs += other.graphs;
    tokens += other.tokens;
    time += other.time;
    threads = std::max(threads, other.threads);
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

int layer_of(const char * name) {
    for (const char * at = strpbrk(name, "-_"); at; at = strpbrk(at + 1, "-_")) {
        const char * digits = at + (*at == '_' && at[1] == 'l' ? 2 : 1);
        if ((*at == '-' || digits == at + 2) && is_digit(*digits)) {
            char *     end   = nullptr;
            const long layer = strtol(digits, &end, 10);
            if (strchr(" )", *end) && layer < 32768) { // '\0' too
                return (int) layer;
            }
        }
    }
    return PROFILE_NO_LAYER;
}

// whether only ggml has named it, so that the name says nothing of where it is
static bool is_nameless(const char * name) {
    return name[0] == '\0' || name[0] == ' ' || name[0] == '(' || strncmp(name, "node_", 5) == 0;
}

void profile_totals::add(const profile_event & event) {
    if (event.node <= last_node) {
        last_layer = PROFILE_NO_LAYER; // another graph
    }
    last_node = event.node;
    if (!is_nameless(event.name)) {
        last_layer = layer_of(event.name);
    }
    sums[{ event.kind, std::min<uint8_t>(event.n_fused, 15), event.op, event.variant, event.fused_op, event.type_a, event.type_b,
           (int16_t) last_layer }]
        .add(event);
}

void profile_totals::add(const graph_event & event) {
    of_kind[event.kind].add({ 1, event.n_tokens, event.end - event.begin, event.n_threads });
    first_begin = std::min(first_begin, event.begin);
    last_end    = std::max(last_end, event.end);
}

void profile_totals::add(const profile_totals & other) {
    for (const auto & [key, more] : other.sums) {
        sums[key].add(more);
    }
    for (int kind = 0; kind < GRAPH_KINDS; ++kind) {
        of_kind[kind].add(other.of_kind[kind]);
    }
    first_begin = std::min(first_begin, other.first_begin);
    last_end    = std::max(last_end, other.last_end);
}
