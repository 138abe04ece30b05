// Verbs of ggml-select.cpp for AVX-512 (F, BW, DQ, VL); included inside a namespace.

static constexpr const char * NAME = "avx512";

static int64_t at_least(const float * x, int64_t n, float threshold, int32_t first, int32_t * indices) {
    const __m512  limit = _mm512_set1_ps(threshold);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int64_t       count = 0;
    int64_t       i     = 0;
    for (; i + 64 <= n; i += 64) {
        __mmask16 found[4];
        for (int j = 0; j < 4; ++j) {
            found[j] = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + i + 16 * j), limit, _CMP_GE_OQ);
        }
        if (!(found[0] | found[1] | found[2] | found[3])) {
            continue;
        }
        for (int j = 0; j < 4; ++j) {
            // compressed in a register, since compressing to memory is slow on some CPUs; of what is stored behind, the next store is on top
            const __m512i index = _mm512_add_epi32(lanes, _mm512_set1_epi32(first + (int32_t) i + 16 * j));
            _mm512_storeu_si512(indices + count, _mm512_maskz_compress_epi32(found[j], index));
            count += count_bits(found[j]);
        }
    }
    return count + at_least_scalar(x + i, n - i, threshold, first + (int32_t) i, indices + count);
}

// exp of 8 values <= 0, as libm_expf() computes it
static __m256 exp8(__m256 value) {
    const __m512d x     = _mm512_cvtps_pd(_mm256_max_ps(value, _mm256_set1_ps(EXP_LOWEST)));
    const __m512d scale = _mm512_set1_pd(EXP_SCALE);
    const __m512d shift = _mm512_set1_pd(EXP_SHIFT);
    const __m512d k     = _mm512_fmadd_pd(scale, x, shift);
    const __m512d r     = _mm512_fmsub_pd(scale, x, _mm512_sub_pd(k, shift));
    const __m512i bits  = _mm512_castpd_si512(k);
    const __m512i left  = _mm512_permutex2var_epi64(_mm512_loadu_si512(EXP_TABLE), bits, _mm512_loadu_si512(EXP_TABLE + 8));
    const __m512i right = _mm512_permutex2var_epi64(_mm512_loadu_si512(EXP_TABLE + 16), bits, _mm512_loadu_si512(EXP_TABLE + 24));
    const __m512i table = _mm512_mask_mov_epi64(left, _mm512_test_epi64_mask(bits, _mm512_set1_epi64(16)), right);
    const __m512d power = _mm512_castsi512_pd(_mm512_add_epi64(table, _mm512_slli_epi64(bits, 47)));
    const __m512d high  = _mm512_fmadd_pd(_mm512_set1_pd(EXP_C0), r, _mm512_set1_pd(EXP_C1));
    const __m512d low   = _mm512_fmadd_pd(_mm512_set1_pd(EXP_C2), r, _mm512_set1_pd(1));
    return _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_fmadd_pd(high, _mm512_mul_pd(r, r), low), power));
}

static void exp(const float * x, int64_t n, float max, float * e) {
    const __m256 most = _mm256_set1_ps(max);
    int64_t      i    = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(e + i, exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), most)));
    }
    exp_scalar(x + i, n - i, max, e + i);
}

static void block_maxima(const float * x, int64_t n_blocks, float * maxima) {
    for (int64_t b = 0; b < n_blocks; ++b) {
        __m512 max = _mm512_set1_ps(-INFINITY);
        for (int i = 0; i < SMALL_BLOCK; i += 16) {
            max = _mm512_max_ps(_mm512_loadu_ps(x + b * SMALL_BLOCK + i), max); // the second if one is NaN
        }
        maxima[b] = _mm512_reduce_max_ps(max);
    }
}

static int values_at_least(const float * x, float threshold, float * values) {
    const __m512 limit = _mm512_set1_ps(threshold);
    int          count = 0;
    for (int i = 0; i < BLOCK; i += 16) {
        const __m512    v     = _mm512_loadu_ps(x + i);
        const __mmask16 found = _mm512_cmp_ps_mask(v, limit, _CMP_GE_OQ);
        _mm512_storeu_ps(values + count, _mm512_maskz_compress_ps(found, v));
        count += count_bits(found);
    }
    return count;
}

static bool rounded_sum(const float * terms, double unit, double & sum) {
    const __m512d shift   = _mm512_set1_pd(ROUNDING_SHIFT * unit);
    __m512d       sums[2] = { _mm512_setzero_pd(), _mm512_setzero_pd() };
    __m512d       worst   = _mm512_setzero_pd();
    for (int i = 0; i < BLOCK; i += 16) {
        for (int j = 0; j < 2; ++j) {
            const __m512d term    = _mm512_cvtps_pd(_mm256_loadu_ps(terms + i + 8 * j));
            const __m512d rounded = _mm512_sub_pd(_mm512_add_pd(term, shift), shift);
            sums[j]               = _mm512_add_pd(sums[j], rounded);
            worst                 = _mm512_max_pd(worst, _mm512_abs_pd(_mm512_sub_pd(term, rounded)));
        }
    }
    sum = _mm512_reduce_add_pd(_mm512_add_pd(sums[0], sums[1]));
    return _mm512_reduce_max_pd(worst) < unit / 2;
}
