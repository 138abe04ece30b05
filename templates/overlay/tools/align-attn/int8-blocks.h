#pragma once

#include "head-values.h"

// What is computed in 8 bits although it is f16: the whole KV blocks of the f16 segment, of which a kv head's keys and values are all finite.
// Only the shape of a case and its values decide; docs/align.md derives the variances.
std::vector<int8_block> int8_blocks_of(const align_case & c, const head_values & head);
