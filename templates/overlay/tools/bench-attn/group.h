#pragma once

#include "caches.h"

// How long to measure, and of what.
struct effort {
    bool   is_cold    = false; // every run finds the caches full of other things; else it follows a run of the same row
    double seconds    = 10;    // for all rows of a group together
    int    min_rounds = 5;
    bool   count_only = false; // run each row once, for an instruction counter
};

// Time rows that differ in their cache only, in turns.
void measure_group(machine & m, caches & kv, const std::vector<bench_row *> & rows, const effort & e);
