#pragma once

#include <string>

// Writes the logits that a model gives after each of the first tokens of a text: the vocabulary's size as int32, then rows of float32.
// Throws std::runtime_error where the model or the text cannot be read.
void record_logits(const std::string & model, const std::string & text, const std::string & path);
