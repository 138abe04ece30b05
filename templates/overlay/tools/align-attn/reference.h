#pragma once

#include "case.h"
#include "codes.h"
#include "data.h"

// The arithmetic of the kernel that multiplies packed tiles: it decides which rounding errors are allowed.
// The largest |x| is rounded to 63 (lut), 127 (dot) or 64 (dot7).
enum class kernel_kind { lut, dot, dot7 };

// One value per element of the result, [head_dim_v, n_head, n_q, n_batch], innermost first.
struct reference {
    std::vector<double>  out;
    std::vector<double>  tolerance; // (a) only: docs/align.md, and
    std::vector<double>  noise;     // the variance that it follows from
    std::vector<double>  k_error;   // (b) only: mean squared error of the result per unit of relative squared error in packed K,
    std::vector<double>  v_error;   // and in packed V
    std::vector<uint8_t> seen;      // per row [n_head, n_q, n_batch]: some key is visible
};

// (a): float64 attention on the values that the codes stand for.
reference attention_on_codes(const align_case & c, const case_data & data, const packed_side & k, const packed_side & v, kernel_kind kernel_k,
                             kernel_kind kernel_v);

// (b): float64 attention on the original values.
reference attention_on_values(const align_case & c, const case_data & data);

// ALiBi's slope of a head
double slope_of(const align_case & c, int64_t head);
