#pragma once

#include "case.h"

// The relative squared error of packed values: of K as it reaches the scores, and of V.
struct unit_error {
    double k;
    double v;
};

unit_error expected_error(const align_case & c);

// How far (b) may be above the expected error: never more than about twice what was measured.
double slack_of(const align_case & c);
