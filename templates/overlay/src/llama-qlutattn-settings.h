#pragma once

#include <string>

// what is wrong with the settings of llama-qlutattn.h in the environment, in one sentence; empty if nothing is
std::string llama_qlutattn_settings_error();
