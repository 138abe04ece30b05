#pragma once

#include "case.h"

// Adds cases in which every two values of two different parameters meet at least once, where they can (a covering array
// of strength two, found greedily; the seed gives another one).
void add_cover(std::vector<align_case> & cases, uint64_t seed);
