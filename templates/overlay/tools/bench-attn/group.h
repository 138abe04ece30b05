#pragma once

#include "caches.h"

// How rows are measured.
struct bench_params {
    bool   is_cold    = false; // the CPU's caches are evicted before each run; else each run follows one of the same row
    double seconds    = 10;    // for all rows of a group together
    int    min_rounds = 5;
    bool   count_only = false; // run each row once, for an instruction counter
};

// Time rows that differ in their cache only, in turns.
void measure_group(machine & m, caches & kv, const std::vector<bench_row *> & rows, const bench_params & e);
