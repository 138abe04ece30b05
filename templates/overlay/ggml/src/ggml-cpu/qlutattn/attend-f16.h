#pragma once

// The f16 side of a KV block: keys and values are widened to f32 once for several rows.

#include "ggml.h"

// scores[r][i] = scale * q[r] . k[i], for n keys of head_dim f16; key i is at k + i*stride. Up to 3 more scores than n are written.
void qlutattn_compute_scores_f16(const char * k, size_t stride, int n, int head_dim, const float * const * q, int n_rows, float scale,
                                 float * const * scores);

// out[r] += the sum of weights[r][i] * v[i]. A weight of 0 hides what is not finite in its value.
void qlutattn_accumulate_pv_f16(const char * v, size_t stride, int n, int head_dim, const float * const * weights, int n_rows, float * const * out);
