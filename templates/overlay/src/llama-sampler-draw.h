#pragma once

// One token of a row of logits, drawn as a chain of a filter, a few samplers and dist does, with no array of candidates: where many are
// kept, writing and sorting them is most of the work, and only the neighbours of the drawn one need an order.

#include "llama-sampler-select.h"

#include <cstdint>
#include <vector>

// What may come between the filter and dist; behind min-p only temperatures.
struct llama_select_step {
    enum { TEMP, TOP_K, MIN_P } what;

    float   value; // temperature, or p
    int64_t keep;  // k, or min_keep
};

using llama_select_steps = std::vector<llama_select_step>;

// share: the random number of dist. Both return LLAMA_TOKEN_NULL where NaN or infinities need upstream's own code, or where the rounding
// of a sum could decide which token it is.
llama_token llama_select_draw_top_p(const llama_select_source & from, float p, int64_t min_keep, const llama_select_steps & steps, double share);
llama_token llama_select_draw_min_p(const llama_select_source & from, float p, int64_t min_keep, const llama_select_steps & steps, double share);
