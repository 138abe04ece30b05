#pragma once

// What is written of a profile: a trace (.json) or a table (.txt).

#include "profile-clock.h"
#include "profile-lane.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

using profile_lanes = std::vector<std::unique_ptr<graph_profile_lane>>;

// an operation or a layer
struct profile_row {
    std::string  name;
    profile_sums sums;
};

// the graphs of a kind
struct profile_section {
    const char *             name;
    graph_sums               graphs;
    profile_sums             all;
    std::vector<profile_row> operations; // those that take longest first
    std::vector<profile_row> layers;     // in their order, last what is in none
};

struct profile_report {
    const char *                 clock;
    double                       ns_per_tick;
    uint64_t                     now;           // tick
    uint64_t                     n_events  = 0;
    uint64_t                     n_dropped = 0; // of these
    uint64_t                     wall      = 0; // ticks from the first graph's begin to the last one's end
    std::vector<profile_section> sections;

    double ms(uint64_t ticks) const { return (double) ticks * ns_per_tick / 1e6; }
};

// the operation of a node with its types, such as "MUL_MAT q4_0" or "RMS_NORM+MUL"
std::string operation_name(uint8_t op, uint8_t variant, uint8_t n_fused, uint8_t fused_op, uint8_t type_a, uint8_t type_b);

const char * kind_name(graph_kind kind);

// whether a profile can be written there; says why not, on stderr
bool check_profile_path(const char * path);

void write_profile(const std::string & path, const profile_lanes & lanes, const profile_clock & clock);

void write_table(FILE * file, const profile_report & report);
void write_trace(FILE * file, const profile_report & report, const profile_lanes & lanes, const profile_clock & clock);
