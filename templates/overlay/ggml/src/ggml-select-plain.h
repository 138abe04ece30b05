// Verbs of ggml-select.cpp over blocks as plain loops, for where they are not written in intrinsics; included inside a namespace.

static float max_of_block(const float * x) {
    float max[LANES];
    for (int j = 0; j < LANES; ++j) {
        max[j] = x[j];
    }
    for (int i = LANES; i < BLOCK; i += LANES) {
        for (int j = 0; j < LANES; ++j) {
            max[j] = x[i + j] > max[j] ? x[i + j] : max[j];
        }
    }
    float result = max[0];
    for (int j = 1; j < LANES; ++j) {
        result = max[j] > result ? max[j] : result;
    }
    return result;
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
