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

// 2^k exp(r), |r| <= ln 2 / 2, by the polynomial of Cephes's expf (Stephen L. Moshier)
static bool rough_sum(const float * x, float max, int exponent, double & sum) {
    float   sums[LANES] = {}, worst[LANES] = {}, least[LANES] = {};
    int32_t bits;
    memcpy(&bits, &ROUGH_SHIFT, sizeof(bits));
    const int32_t bias = exponent + 127 - bits;
    for (int i = 0; i < BLOCK; i += LANES) {
        for (int j = 0; j < LANES; ++j) {
            const float d       = x[i + j] - max;
            const float shifted = d * 1.44269504f + ROUGH_SHIFT;
            const float k       = shifted - ROUGH_SHIFT;
            const float r       = (d - k * 0.693359375f) + k * 2.12194440e-4f;

            float p = 1.9875691500e-4f;
            p       = p * r + 1.3981999507e-3f;
            p       = p * r + 8.3334519073e-3f;
            p       = p * r + 4.1665795894e-2f;
            p       = p * r + 1.6666665459e-1f;
            p       = p * r + 5.0000001201e-1f;
            p       = p * (r * r) + r + 1.0f;

            uint32_t power;
            memcpy(&power, &shifted, sizeof(power));
            power = (power + (uint32_t) bias) << 23;
            float scale;
            memcpy(&scale, &power, sizeof(scale));
            const float units   = p * scale;
            const float rounded = (units + ROUGH_SHIFT) - ROUGH_SHIFT;
            const float error   = fabsf(units - rounded) + units * ROUGH_ERROR;
            worst[j]            = error > worst[j] ? error : worst[j];
            least[j]            = d < least[j] ? d : least[j];
            sums[j] += rounded;
        }
    }
    bool is_sure = true;
    sum          = 0;
    for (int j = 0; j < LANES; ++j) {
        is_sure = is_sure && worst[j] < 0.5f && least[j] > ROUGH_LOWEST;
        sum += sums[j];
    }
    return is_sure && sum == sum;
}

static double sum_any_order(const float * x, int64_t n) {
    double  sums[LANES] = {};
    int64_t i           = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; ++j) {
            sums[j] += x[i + j];
        }
    }
    double sum = 0;
    for (; i < n; ++i) {
        sum += x[i];
    }
    for (int j = 0; j < LANES; ++j) {
        sum += sums[j];
    }
    return sum;
}

static void divide(const float * x, int64_t n, float by, float * y) {
    for (int64_t i = 0; i < n; ++i) {
        y[i] = x[i] / by;
    }
}

static const select_kernels KERNELS = { NAME, range,       at_least,  values_at_least, count_at_least, block_maxima,
                                        exp,  rounded_sum, rough_sum, sum_any_order,   divide };
