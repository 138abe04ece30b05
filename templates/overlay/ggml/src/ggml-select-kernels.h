// What is the same for all kernels of ggml-select.cpp; included for each instruction set, at the end of its namespace.

static void range(const float * x, int64_t n, ggml_select_range & result) {
    float max[LANES], min[LANES], nans[LANES];
    for (int j = 0; j < LANES; ++j) {
        max[j]  = -INFINITY;
        min[j]  = INFINITY;
        nans[j] = 0;
    }
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; ++j) {
            const float v = x[i + j];
            max[j]        = v > max[j] ? v : max[j];
            min[j]        = v < min[j] ? v : min[j];
            nans[j]       = v == v ? nans[j] : 1.0f;
        }
    }
    for (; i < n; ++i) {
        const float v = x[i];
        max[0]        = v > max[0] ? v : max[0];
        min[0]        = v < min[0] ? v : min[0];
        nans[0]       = v == v ? nans[0] : 1.0f;
    }
    result = { max[0], min[0], nans[0] != 0 };
    for (int j = 1; j < LANES; ++j) {
        result.max     = max[j] > result.max ? max[j] : result.max;
        result.min     = min[j] < result.min ? min[j] : result.min;
        result.has_nan = result.has_nan || nans[j] != 0;
    }
}

static int64_t count_at_least(const float * x, int64_t n, float threshold) {
    int32_t counts[LANES] = {};
    int64_t i             = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; ++j) {
            counts[j] += x[i + j] >= threshold;
        }
    }
    int64_t count = 0;
    for (; i < n; ++i) {
        count += x[i] >= threshold;
    }
    for (int j = 0; j < LANES; ++j) {
        count += counts[j];
    }
    return count;
}

static const select_kernels KERNELS = { NAME, range, at_least, values_at_least, count_at_least, block_maxima, exp, rounded_sum };
