#pragma once

#include "case.h"
#include "data.h"
#include "device.h"

#include <cmath>

// The result of one case. A number that was not measured is NaN.
struct verdict {
    align_case c;

    std::string kernel_k;
    std::string kernel_v;

    double nmse_codes    = NAN; // against (a)
    double nmse_values   = NAN; // against (b)
    double bound_values  = NAN;
    double nmse_upstream = NAN; // the mixed op against (c)
    double nmse_sanity   = NAN; // upstream against (b)
    double nmse_torch    = NAN; // (d) against (b)
    double max_abs_err   = NAN; // against (a), and
    double tolerance     = NAN; // the tolerance of the element that comes closest to its own, or passes it
    double worst_ratio   = NAN; // error / tolerance there

    double seconds = 0;

    std::vector<std::string> faults; // why it failed, the first reason first

    bool        ok() const { return faults.empty(); }
    std::string kernel() const;
};

// Runs a case and judges it; `run` receives the device's result for the dump.
verdict judge(device & dev, const align_case & c, const case_data & data, int n_threads, device_result & run);
