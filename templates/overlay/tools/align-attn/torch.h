#pragma once

#include "case.h"
#include "data.h"

// libtorch's scaled_dot_product_attention in float64 on the original values, laid out as the result of the mixed op.
// Empty where libtorch is not built in, or has no such attention (softcap).
std::vector<double> run_torch(const align_case & c, const case_data & data);

// its version, or an empty string
std::string torch_version();
