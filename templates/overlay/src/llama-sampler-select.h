#pragma once

// Filters of llama-sampler.cpp for many candidates, which select by thresholds (ggml-select.h) and sort only what they keep.
//
// Each leaves what the filter of the same name leaves: the same candidates in the same order, ties included, which std::sort and
// std::partial_sort put in an order of their own. So these sort the same elements as upstream, less those that cannot matter.
// Each returns false, with nothing done, where there is nothing to gain or a NaN or an infinity needs upstream's own code.

#include "llama.h"

#include <random>

// What is filtered: a row of logits where a token is its index, or an array of candidates and its logits.
struct llama_select_source {
    const float *            logits;
    int64_t                  n;
    const llama_token_data * data = nullptr;

    llama_token_data operator[](int64_t i) const { return data ? data[i] : llama_token_data{ (llama_token) i, logits[i], 0.0f }; }
};

// Whether to select from so many.
bool llama_select_is_on(int64_t n);

// From a source into an array with room for all candidates, its own source for instance.
bool llama_select_top_k(const llama_select_source & from, int32_t k, llama_token_data_array * cur_p);
bool llama_select_min_p(const llama_select_source & from, float p, size_t min_keep, llama_token_data_array * cur_p);
bool llama_select_greedy(const llama_select_source & from, llama_token_data_array * cur_p); // keeps the selected one

// With has_ties_by_token, candidates with equal logits may stand by token; it is set where some do. Sorting them as upstream does
// takes as long as upstream: llama_select_untie() does it for the one token that is drawn, if that has a tie at all.
bool        llama_select_top_p(const llama_select_source & from, float p, size_t min_keep, llama_token_data_array * cur_p, bool * has_ties_by_token);
// Of the tokens with a token's logit, the one that upstream's order has in its place by token; of a row of logits.
llama_token llama_select_untie(const llama_select_source & from, llama_token token);

// Of the tokens with a logit, the one that has the rank, from 0, in upstream's order of the k largest.
llama_token llama_select_tied(const llama_select_source & from, float logit, int64_t rank, int64_t k);

// Sorts values from the largest down.
void llama_select_sort(float * values, int64_t n);

// From an array into itself.
bool llama_select_top_k(llama_token_data_array * cur_p, int32_t k);
bool llama_select_top_p(llama_token_data_array * cur_p, float p, size_t min_keep);
bool llama_select_min_p(llama_token_data_array * cur_p, float p, size_t min_keep);
bool llama_select_dist(llama_token_data_array * cur_p, std::mt19937 & rng);
