#include "bounds.h"

#include "codes.h"
#include "data.h"
#include "rng.h"

#include <cmath>
#include <map>

static constexpr int LANES = 4096;

// A lane becomes what its codes stand for; returns its variance (around 0 where the format has no offset).
static double pack(const tile_format & format, double * x) {
    double mean    = 0;
    double squares = 0;
    int    codes[128];
    for (int i = 0; i < 128; ++i) {
        mean += format.has_offset ? x[i] / 128 : 0.0;
    }
    for (int i = 0; i < 128; ++i) {
        x[i] -= mean;
        squares += x[i] * x[i] / 128;
    }
    const double scale = fit_lane(x, format, codes);
    for (int i = 0; i < 128; ++i) {
        x[i] = mean + scale * format.level(codes[i]);
    }
    return squares;
}

// What packing loses of Gaussian lanes: the squared error, relative to their variance.
static double lost_of_gauss(const tile_format & format) {
    rng    random("gauss");
    double lost  = 0;
    double whole = 0;
    for (int lane = 0; lane < LANES; ++lane) {
        double x[128];
        double packed[128];
        for (int i = 0; i < 128; ++i) {
            x[i] = packed[i] = random.gauss();
        }
        whole += pack(format, packed);
        for (int i = 0; i < 128; ++i) {
            lost += (packed[i] - x[i]) * (packed[i] - x[i]) / 128;
        }
    }
    return lost / whole;
}

// The same as attention sees it, of K lanes with outlier channels and the query that hardly looks at those. The scale follows the outliers, so that
// the errors of the others grow with the scores, and the keys that weigh most have the largest ones: only attention itself shows how much that is.
static double lost_of_outliers(const tile_format & format) {
    constexpr int rounds   = 32;
    constexpr int keys     = 128;
    constexpr int queries  = 32;
    constexpr int channels = 8; // of V

    static double exact[keys][128];
    static double packed[keys][128];
    static double v[keys][channels];
    rng           random("outliers");
    double        lost  = 0;
    double        whole = 0;
    for (int round = 0; round < rounds; ++round) {
        double variance[keys];
        for (int t = 0; t < keys; ++t) {
            for (int i = 0; i < 128; ++i) {
                exact[t][i] = packed[t][i] = random.gauss() * k_size(data_kind::outlier, i);
            }
            variance[t] = pack(format, packed[t]);
            for (double & x : v[t]) {
                x = random.gauss();
            }
        }
        for (int row = 0; row < queries; ++row) {
            double q[128];
            double size = 0;
            for (int i = 0; i < 128; ++i) {
                q[i] = random.gauss() * q_size(data_kind::outlier, i);
                size += q[i] * q[i];
            }
            double p[2][keys]; // of the exact keys, then of the packed ones
            double sum[2]           = { 0, 0 };
            double out[2][channels] = { { 0 }, { 0 } };
            for (int which = 0; which < 2; ++which) {
                for (int t = 0; t < keys; ++t) {
                    double score = 0;
                    for (int i = 0; i < 128; ++i) {
                        score += q[i] * (which ? packed : exact)[t][i];
                    }
                    p[which][t] = std::exp(score / std::sqrt(128.0));
                    sum[which] += p[which][t];
                }
                for (int t = 0; t < keys; ++t) {
                    p[which][t] /= sum[which];
                    for (int c = 0; c < channels; ++c) {
                        out[which][c] += p[which][t] * v[t][c];
                    }
                }
            }
            for (int c = 0; c < channels; ++c) {
                lost += (out[1][c] - out[0][c]) * (out[1][c] - out[0][c]);
                for (int t = 0; t < keys; ++t) { // as reference.cpp has it: the first order, the score's variance being this times the loss
                    whole += p[0][t] * p[0][t] * size * variance[t] / 128 * (v[t][c] - out[0][c]) * (v[t][c] - out[0][c]);
                }
            }
        }
    }
    return lost / whole;
}

static double expected(const tile_format * format, bool has_outliers) {
    static std::map<std::pair<const tile_format *, bool>, double> known;
    if (!format) {
        return 0.0; // f16
    }
    const auto [at, is_new] = known.insert({
        { format, has_outliers },
        0.0
    });
    if (is_new) {
        at->second = has_outliers ? lost_of_outliers(*format) : lost_of_gauss(*format);
    }
    return at->second;
}

unit_error expected_error(const align_case & c) {
    return { expected(c.k, c.data == data_kind::outlier), expected(c.v, false) };
}

double slack_of(const align_case & c) {
    const double rows = (double) c.n_q * c.group;
    if (c.data == data_kind::onehot && rows < 4) {
        return rows < 2 ? 12.0 : 3.0; // one or two tokens' error is all there is
    }
    // few rows share the errors of few keys; an outlier channel counts for as many as 256 others
    const double few = 1.0 + 1.0 / std::sqrt(rows);
    return (c.data == data_kind::outlier ? 1.3 : 1.1) * few;
}
