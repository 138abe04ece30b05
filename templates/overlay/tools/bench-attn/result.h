#pragma once

#include "machine.h"
#include "row.h"

// The results of a run.
struct bench_result {
    std::vector<bandwidth> bandwidths;
    std::vector<bench_row> rows;
    bool                   is_cold = false;
    bool                   by_head = true;
};

// Returns false when the file cannot be written.
bool write_json(const bench_result & r, const std::string & path);
