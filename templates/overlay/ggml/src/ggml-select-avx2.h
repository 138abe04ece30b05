// Verbs of ggml-select.cpp for AVX2 and FMA; included inside a namespace.

static constexpr const char * NAME = "avx2";

static int64_t at_least(const float * x, int64_t n, float threshold, int32_t first, int32_t * indices) {
    const __m256 limit = _mm256_set1_ps(threshold);
    int64_t      count = 0;
    int64_t      i     = 0;
    for (; i + 32 <= n; i += 32) {
        uint32_t found = 0;
        for (int j = 0; j < 4; ++j) {
            const __m256 v = _mm256_loadu_ps(x + i + 8 * j);
            found |= (uint32_t) _mm256_movemask_ps(_mm256_cmp_ps(v, limit, _CMP_GE_OQ)) << 8 * j;
        }
        for (; found; found &= found - 1) {
            indices[count++] = first + (int32_t) i + lowest_bit(found);
        }
    }
    return count + at_least_scalar(x + i, n - i, threshold, first + (int32_t) i, indices + count);
}

// exp of 4 values <= 0, as libm_expf() computes it
static __m128 exp4(__m128 value) {
    const __m256d x     = _mm256_cvtps_pd(_mm_max_ps(value, _mm_set1_ps(EXP_LOWEST)));
    const __m256d scale = _mm256_set1_pd(EXP_SCALE);
    const __m256d shift = _mm256_set1_pd(EXP_SHIFT);
    const __m256d k     = _mm256_fmadd_pd(scale, x, shift);
    const __m256d r     = _mm256_fmsub_pd(scale, x, _mm256_sub_pd(k, shift));
    const __m256i bits  = _mm256_castpd_si256(k);
    const __m256i index = _mm256_and_si256(bits, _mm256_set1_epi64x(31));
    const __m256i table = _mm256_i64gather_epi64((const long long *) EXP_TABLE, index, 8);
    const __m256d power = _mm256_castsi256_pd(_mm256_add_epi64(table, _mm256_slli_epi64(bits, 47)));
    const __m256d high  = _mm256_fmadd_pd(_mm256_set1_pd(EXP_C0), r, _mm256_set1_pd(EXP_C1));
    const __m256d low   = _mm256_fmadd_pd(_mm256_set1_pd(EXP_C2), r, _mm256_set1_pd(1));
    return _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_fmadd_pd(high, _mm256_mul_pd(r, r), low), power));
}

static void exp(const float * x, int64_t n, float max, float * e) {
    const __m128 most = _mm_set1_ps(max);
    int64_t      i    = 0;
    for (; i + 4 <= n; i += 4) {
        _mm_storeu_ps(e + i, exp4(_mm_sub_ps(_mm_loadu_ps(x + i), most)));
    }
    exp_scalar(x + i, n - i, max, e + i);
}

static void block_maxima(const float * x, int64_t n_blocks, float * maxima) {
    for (int64_t b = 0; b < n_blocks; ++b) {
        __m256 max = _mm256_set1_ps(-INFINITY);
        for (int i = 0; i < SMALL_BLOCK; i += 8) {
            max = _mm256_max_ps(_mm256_loadu_ps(x + b * SMALL_BLOCK + i), max); // the second if one is NaN
        }
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(max), _mm256_extractf128_ps(max, 1));
        four        = _mm_max_ps(four, _mm_movehl_ps(four, four));
        maxima[b]   = _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    }
}

static int values_at_least(const float * x, float threshold, float * values) {
    const __m256 limit = _mm256_set1_ps(threshold);
    int          count = 0;
    for (int i = 0; i < BLOCK; i += 8) {
        uint32_t found = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + i), limit, _CMP_GE_OQ));
        for (; found; found &= found - 1) {
            values[count++] = x[i + lowest_bit(found)];
        }
    }
    return count;
}

static bool rounded_sum(const float * terms, double unit, double & sum) {
    const __m256d shift   = _mm256_set1_pd(ROUNDING_SHIFT * unit);
    const __m256d sign    = _mm256_set1_pd(-0.0);
    __m256d       sums[4] = { _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd() };
    __m256d       worst   = _mm256_setzero_pd();
    for (int i = 0; i < BLOCK; i += 16) {
        for (int j = 0; j < 4; ++j) {
            const __m256d term    = _mm256_cvtps_pd(_mm_loadu_ps(terms + i + 4 * j));
            const __m256d rounded = _mm256_sub_pd(_mm256_add_pd(term, shift), shift);
            sums[j]               = _mm256_add_pd(sums[j], rounded);
            worst                 = _mm256_max_pd(worst, _mm256_andnot_pd(sign, _mm256_sub_pd(term, rounded)));
        }
    }
    double lanes[4], errors[4];
    _mm256_storeu_pd(lanes, _mm256_add_pd(_mm256_add_pd(sums[0], sums[1]), _mm256_add_pd(sums[2], sums[3])));
    _mm256_storeu_pd(errors, worst);
    sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
    return *std::max_element(errors, errors + 4) < unit / 2;
}
