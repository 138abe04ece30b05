#include "bounds.h"

// The starting points are the squared errors of a Lloyd-Max quantiser for unit Gaussian values: 0.363, 0.1175 and 0.0095 at
// 1, 2 and 4 bits (docs/formats.md has the levels).
static double gaussian(int bits) {
    return bits == 1 ? 0.363 : bits == 2 ? 0.1175 : 0.0095;
}

unit_error expected_error(const align_case & c) {
    return { gaussian(c.bits_k), gaussian(c.bits_v) };
}

double slack_of(const align_case & c) {
    (void) c;
    return 2.0;
}
