#pragma once

#include <string>

// what is wrong with window and sink in the environment (llama-qlutattn.h), in one sentence; empty if nothing is
std::string llama_qlutattn_settings_error();

// the same of attention in 8 bits
std::string llama_qlutattn_attn_int8_error();
