#pragma once

#include "logits.h"

#include <cstdint>
#include <string>
#include <vector>

// A chain of samplers on logits of a vocabulary, and the times that it took, of both sides.
struct sampling_row {
    std::string chain;
    std::string logits;
    int32_t     n_vocab;

    std::vector<double> stock;           // seconds of computing per token: llama.cpp's own code
    std::vector<double> select;          // the same tokens from the row of logits
    int64_t             n_tokens    = 0; // that both sides drew
    int64_t             n_different = 0; // where they were not the same
    int64_t             kept        = 0; // candidates at the end of the chain, of the last token

    std::string id() const { return chain + "-" + std::to_string(n_vocab) + "-" + logits; }
};

// The chains that the bench knows: greedy, top-k, default, top-p, min-p.
const std::vector<std::string> & known_chains();

// How long a row is measured.
struct sampling_params {
    double seconds    = 2;
    int    min_rounds = 5;
};

// Draws tokens on both sides in turns. Before each, the logits are copied to where the sampler reads them, as a model writes them there.
void measure_row(sampling_row & row, const std::vector<logits_row> & logits, const sampling_params & params);

double quantile(std::vector<double> values, double at);
