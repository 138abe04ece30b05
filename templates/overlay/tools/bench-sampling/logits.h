#pragma once

#include <cstdint>
#include <string>
#include <vector>

using logits_row = std::vector<float>;

// Rows of logits that the bench can make: gauss, peaked, flat.
const std::vector<std::string> & made_logits();

// Rows like a model's: for gauss, a normal distribution of deviation 3; for peaked, one of deviation 2 and thirty tokens above it; for
// flat, one of deviation 0.1. The same on every machine.
std::vector<logits_row> make_logits(const std::string & name, int32_t n_vocab, int n_rows);

// Rows that a model gave (record.h). Throws std::runtime_error where the file holds none.
std::vector<logits_row> read_logits(const std::string & path);

// A row for a larger vocabulary: its own tokens, and new ones with logits like those of its less likely half.
logits_row widen(const logits_row & row, int32_t n_vocab, uint64_t seed);
