#include "bounds.h"

#include <cmath>

// The squared errors of a Lloyd-Max quantiser for unit Gaussian values at 1, 2 and 4 bits. Everything that is Gaussian in its lane comes
// to 0.95 to 0.97 of them, since the scale is fitted to the 128 values at hand.
static double gaussian(int bits) {
    return bits == 16 ? 0.0 : bits == 1 ? 0.363 : bits == 2 ? 0.1175 : 0.0095;
}

// K lanes with outlier channels, of the query that hardly looks at those: the scale follows the outliers. Measured.
static double beside_outliers(int bits) {
    return bits == 16 ? 0.0 : bits == 1 ? 0.07 : bits == 2 ? 0.2 : 0.017;
}

unit_error expected_error(const align_case & c) {
    return { c.data == data_kind::outlier ? beside_outliers(c.bits_k) : gaussian(c.bits_k), gaussian(c.bits_v) };
}

double slack_of(const align_case & c) {
    const double rows = (double) c.n_q * c.group;
    if (c.data == data_kind::onehot && rows < 4) {
        return rows < 2 ? 12.0 : 3.0; // one or two tokens' error is all there is
    }
    // few rows share the errors of few keys; an outlier channel counts for as many as 256 others
    const double few = 1.0 + 1.0 / std::sqrt(rows);
    return (c.data == data_kind::outlier ? 1.7 : 1.1) * few;
}
