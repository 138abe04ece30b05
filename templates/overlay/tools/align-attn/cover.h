#pragma once

#include "case.h"

// Adds cases in which every two values of two different parameters meet at least once, where they can (a covering array
// of strength two, found greedily; the seed gives another one). No case costs more than max_cost. Without shifts, no case has any.
void add_cover(std::vector<align_case> & cases, uint64_t seed, int64_t max_cost, const std::vector<head_dims> & dims,
               const std::vector<int> & shifts);
