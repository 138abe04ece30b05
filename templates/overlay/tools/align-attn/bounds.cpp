#include "bounds.h"

#include "codes.h"
#include "data.h"
#include "rng.h"

#include <cmath>
#include <map>
#include <utility>

static constexpr int LANES = 4096;

// Replaces a lane by the values of its codes; returns its variance (around 0 where the format has no offset).
static double pack_and_unpack(const tile_format & format, double * x) {
    double mean    = 0;
    double squares = 0;
    int    codes[TILE];
    for (int i = 0; i < TILE; ++i) {
        mean += format.has_offset ? x[i] / TILE : 0.0;
    }
    for (int i = 0; i < TILE; ++i) {
        x[i] -= mean;
        squares += x[i] * x[i] / TILE;
    }
    const double scale = fit_lane(x, format, codes);
    for (int i = 0; i < TILE; ++i) {
        x[i] = mean + scale * format.level(codes[i]);
    }
    return squares;
}

// The squared error that packing causes in Gaussian lanes, relative to their variance.
static double gaussian_distortion(const tile_format & format) {
    rng    random("gauss");
    double error = 0;
    double power = 0;
    for (int lane = 0; lane < LANES; ++lane) {
        double x[TILE];
        double packed[TILE];
        for (int i = 0; i < TILE; ++i) {
            x[i] = packed[i] = random.gauss();
        }
        power += pack_and_unpack(format, packed);
        for (int i = 0; i < TILE; ++i) {
            error += (packed[i] - x[i]) * (packed[i] - x[i]) / TILE;
        }
    }
    return error / power;
}

// The same of the result of attention, for K lanes with outlier channels and queries that are small there. The scale of a lane follows its
// outliers, so that the errors of the other channels grow with the scores, and the keys with the most weight have the largest errors:
// only attention itself shows how much that is.
static double outlier_distortion(const tile_format & format) {
    constexpr int rounds   = 32;
    constexpr int keys     = 128;
    constexpr int queries  = 32;
    constexpr int channels = 8; // of V

    static double exact[keys][TILE];
    static double packed[keys][TILE];
    static double v[keys][channels];
    rng           random("outliers");
    double        error = 0;
    double        power = 0;
    for (int round = 0; round < rounds; ++round) {
        double variance[keys];
        for (int t = 0; t < keys; ++t) {
            for (int i = 0; i < TILE; ++i) {
                exact[t][i] = packed[t][i] = random.gauss() * k_size(data_kind::outlier, i);
            }
            variance[t] = pack_and_unpack(format, packed[t]);
            for (double & x : v[t]) {
                x = random.gauss();
            }
        }
        for (int row = 0; row < queries; ++row) {
            double q[TILE];
            double size = 0;
            for (int i = 0; i < TILE; ++i) {
                q[i] = random.gauss() * q_size(data_kind::outlier, i);
                size += q[i] * q[i];
            }
            double p[2][keys]; // of the exact keys, then of the packed ones
            double sum[2]           = { 0, 0 };
            double out[2][channels] = { { 0 }, { 0 } };
            for (int which = 0; which < 2; ++which) {
                for (int t = 0; t < keys; ++t) {
                    double score = 0;
                    for (int i = 0; i < TILE; ++i) {
                        score += q[i] * (which ? packed : exact)[t][i];
                    }
                    p[which][t] = std::exp(score / std::sqrt((double) TILE));
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
                error += (out[1][c] - out[0][c]) * (out[1][c] - out[0][c]);
                // as in reference.cpp: to first order, where the variance of the score is this times the distortion
                for (int t = 0; t < keys; ++t) {
                    power += p[0][t] * p[0][t] * size * variance[t] / TILE * (v[t][c] - out[0][c]) * (v[t][c] - out[0][c]);
                }
            }
        }
    }
    return error / power;
}

static double distortion_of(const tile_format * format, bool has_outliers) {
    static std::map<std::pair<const tile_format *, bool>, double> known;
    if (!format) {
        return 0.0; // f16
    }
    const auto [at, is_new] = known.insert({
        { format, has_outliers },
        0.0
    });
    if (is_new) {
        at->second = has_outliers ? outlier_distortion(*format) : gaussian_distortion(*format);
    }
    return at->second;
}

distortion expected_distortion(const align_case & c) {
    return { distortion_of(c.k, c.data == data_kind::outlier), distortion_of(c.is_latent ? c.k : c.v, false) };
}

double slack_of(const align_case & c) {
    const double rows = (double) c.n_q * c.group;
    if (c.data == data_kind::onehot && rows < 4) {
        return rows < 2 ? 12.0 : 3.0; // one or two tokens' error is all there is
    }
    // few rows share the errors of few keys; an outlier channel counts for as many as 256 others. Beside V of 8 bits nothing else makes errors:
    // their energy is that of as many tokens as there are rows
    const bool   only_k = c.k && c.v && c.v->is_linear() && !c.k->is_linear() && (c.data == data_kind::onehot || c.data == data_kind::outlier);
    const double few    = 1.0 + (only_k ? 3.0 * std::sqrt(2.0) : 1.0) / std::sqrt(rows);
    return (c.data == data_kind::outlier ? 1.3 : 1.1) * few;
}
