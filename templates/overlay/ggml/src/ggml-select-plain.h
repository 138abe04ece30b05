// Verbs of ggml-select.cpp over blocks as plain loops, for where they are not written in intrinsics; included inside a namespace.

static void block_maxima(const float * x, int64_t n_blocks, float * maxima) {
    for (int64_t b = 0; b < n_blocks; ++b) {
        const float * block = x + b * SMALL_BLOCK;
        float         max[LANES];
        for (int j = 0; j < LANES; ++j) {
            max[j] = block[j] > -INFINITY ? block[j] : -INFINITY;
        }
        for (int i = LANES; i < SMALL_BLOCK; i += LANES) {
            for (int j = 0; j < LANES; ++j) {
                max[j] = block[i + j] > max[j] ? block[i + j] : max[j];
            }
        }
        maxima[b] = *std::max_element(max, max + LANES);
    }
}

static int values_at_least(const float * x, float threshold, float * values) {
    int count = 0;
    for (int i = 0; i < BLOCK; ++i) {
        values[count] = x[i];
        count += x[i] >= threshold;
    }
    return count;
}

static bool rounded_sum(const float * terms, double unit, double & sum) {
    const double shift = ROUNDING_SHIFT * unit;
    double       sums[LANES], errors[LANES];
    for (int j = 0; j < LANES; ++j) {
        sums[j]   = 0;
        errors[j] = 0;
    }
    for (int i = 0; i < BLOCK; i += LANES) {
        for (int j = 0; j < LANES; ++j) {
            const double term    = terms[i + j];
            const double rounded = (term + shift) - shift;
            const double error   = fabs(term - rounded);
            sums[j] += rounded;
            errors[j] = error > errors[j] ? error : errors[j];
        }
    }
    double worst = 0;
    sum          = 0;
    for (int j = 0; j < LANES; ++j) {
        sum += sums[j];
        worst = errors[j] > worst ? errors[j] : worst;
    }
    return worst < unit / 2;
}
