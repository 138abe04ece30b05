#include "bounds.h"

#include "codes.h"
#include "data.h"
#include "rng.h"

#include <cmath>
#include <map>

static constexpr int LANES = 4096;

// What packing loses of random lanes, relative to their size: squared errors as a query sees them that looks at each depth with a given size.
static double measured(const tile_format & format, data_kind kind) {
    rng    random("bounds");
    double lost  = 0;
    double whole = 0;
    for (int lane = 0; lane < LANES; ++lane) {
        double x[128];
        double mean    = 0;
        double squares = 0;
        double seen    = 0; // |q|^2
        int    codes[128];
        for (int i = 0; i < 128; ++i) {
            x[i] = random.gauss() * k_size(kind, i);
            mean += format.has_offset ? x[i] / 128 : 0.0;
        }
        for (int i = 0; i < 128; ++i) {
            x[i] -= mean;
            squares += x[i] * x[i];
        }
        const double scale = fit_lane(x, format, codes);
        for (int i = 0; i < 128; ++i) {
            const double error = (x[i] - scale * format.level(codes[i])) * q_size(kind, i);
            lost += error * error;
            seen += q_size(kind, i) * q_size(kind, i);
        }
        whole += seen * squares / 128;
    }
    return lost / whole;
}

static double expected(const tile_format * format, data_kind kind) {
    static std::map<std::pair<const tile_format *, data_kind>, double> known;
    if (!format) {
        return 0.0; // f16
    }
    const auto [at, is_new] = known.insert({
        { format, kind },
        0.0
    });
    if (is_new) {
        at->second = measured(*format, kind);
    }
    return at->second;
}

// Of outliers only K's are special: the scale follows them, and the query hardly looks at them.
unit_error expected_error(const align_case & c) {
    return { expected(c.k, c.data == data_kind::outlier ? data_kind::outlier : data_kind::gauss), expected(c.v, data_kind::gauss) };
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
