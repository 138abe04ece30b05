// Verbs of ggml-select.cpp for NEON; included inside a namespace.

static constexpr const char * NAME = "neon";

static int64_t at_least(const float * x, int64_t n, float threshold, int32_t first, int32_t * indices) {
    const float32x4_t limit = vdupq_n_f32(threshold);
    int64_t           count = 0;
    int64_t           i     = 0;
    for (; i + 16 <= n; i += 16) {
        const uint32x4_t a = vorrq_u32(vcgeq_f32(vld1q_f32(x + i), limit), vcgeq_f32(vld1q_f32(x + i + 4), limit));
        const uint32x4_t b = vorrq_u32(vcgeq_f32(vld1q_f32(x + i + 8), limit), vcgeq_f32(vld1q_f32(x + i + 12), limit));
        if (vmaxvq_u32(vorrq_u32(a, b))) {
            count += at_least_scalar(x + i, 16, threshold, first + (int32_t) i, indices + count);
        }
    }
    return count + at_least_scalar(x + i, n - i, threshold, first + (int32_t) i, indices + count);
}

// libm's own: two lanes of double gain nothing
static void exp(const float * x, int64_t n, float max, float * e) {
    exp_scalar(x, n, max, e);
}
