#pragma once

// The largest values of a row, and sums over its exponentials, without sorting it: what choosing the next token needs.
//
// Every result is what the plain loop over the row gives, to the last bit: thresholds drop only what that loop would not have kept,
// and sums round as if the terms were added one by one.

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_select_range {
    float max; // of all but NaN; -INFINITY if there is nothing else
    float min; // likewise; INFINITY
    bool  has_nan;
};

// The kernels in use: avx512, avx2, neon or scalar. GGML_SELECT_KERNEL in the environment names others.
GGML_API const char * ggml_select_kernel(void);
// Takes other kernels from now on, for tests and benchmarks; false where this CPU or build does not have them. Not while others select.
GGML_API bool         ggml_select_set_kernel(const char * name);

GGML_API struct ggml_select_range ggml_select_find_range(const float * x, int64_t n);

// The indices of the values >= threshold, in order. There is room for n.
GGML_API int64_t ggml_select_at_least(const float * x, int64_t n, float threshold, int32_t * indices);
// The values themselves.
GGML_API int64_t ggml_select_values_at_least(const float * x, int64_t n, float threshold, float * values);

// The indices of the largest values, at least k, and not many more if they are spread over the row, in order. There is room for n.
// 0 where that would be slow.
GGML_API int64_t ggml_select_largest(const float * x, int64_t n, int64_t k, int32_t * indices);

// The indices of all values that std::partial_sort() of the k largest would move, in order: sorting these alone gives the same k
// indices in the same order, ties included, since the algorithm looks at the others and leaves them. There is room for n; 1 <= k <= n.
GGML_API int64_t ggml_select_top_candidates(const float * x, int64_t n, int64_t k, int32_t * indices);

// e[i] = expf(x[i] - max), for x[i] <= max; e may be x
GGML_API void  ggml_select_exp(const float * x, int64_t n, float max, float * e);
// the sum of expf(x[i] - max) in float, added in order
GGML_API float ggml_select_exp_sum(const float * x, int64_t n, float max);

// Terms >= 0, added in order, in double: the sum, or the first index where the sum reaches a target, n if it never does.
GGML_API double  ggml_select_sum(const float * terms, int64_t n);
GGML_API int64_t ggml_select_reach(const float * terms, int64_t n, double target);
// The same in float, from a sum so far, which is replaced: by the sum over all terms, or where the target is reached, by the sum there.
GGML_API int64_t ggml_select_reach_f32(const float * terms, int64_t n, float target, float * sum);
// Adds terms to a sum in float if that has the same result in every order and stays below a limit; otherwise returns false.
GGML_API bool    ggml_select_add_f32(const float * terms, int64_t n, float limit, float * sum);
// y[i] = x[i] / by; y may be x
GGML_API void    ggml_select_divide(const float * x, int64_t n, float by, float * y);
// The sum in an order that is fast, in double.
GGML_API double  ggml_select_sum_any_order(const float * terms, int64_t n);

#ifdef __cplusplus
}
#endif
