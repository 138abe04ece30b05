#pragma once

#include "machine.h"
#include "row.h"

// The results of a run.
struct bench_result {
    std::vector<machine_rates> rates; // for each number of threads
    std::vector<bench_row>     rows;
    bool                       is_cold = false;
    bool                       by_head = true;

    const machine_rates & rates_of(int n_threads) const;
};

// Returns false when the file cannot be written.
bool write_json(const bench_result & r, const std::string & path);
