#pragma once

#include "case.h"

// The relative squared error of packed values: of K as it reaches the scores, and of V.
struct distortion {
    double k;
    double v;
};

distortion expected_distortion(const align_case & c);

// The factor by which the error of (b) may exceed what is expected: at most about twice the measured one.
double slack_of(const align_case & c);
