#pragma once

// Vectors of f32 for everything around the integer kernels: scores, softmax, the f16 segment.
//
//   WIDTH, vec              floats of a vector, and the vector
//   N_REGISTERS             vectors that the processor can hold
//   load(p), store(p, v)    WIDTH floats
//   broadcast(x)            x in every lane
//   add, sub, mul, fma      a+b, a-b, a*b, a*b+c
//   max(a, b)               b where one of them is NaN
//   from_i32(p)             WIDTH int32
//   from_f16(p)             WIDTH f16
//   store_f16(p, v)         rounded to f16, ties to even
//   apply_mask(m, v)        v, and -inf where m is -inf
//   unless_zero(w, v)       v, and 0 where w is 0
//   exp(v)                  for v <= 0: within 2 ulp (measured by tests/native/exp.cpp of the project), but results below 2^-126 may be 0
//   first(v)                the first lane
//   round(v)                to the nearest integer, ties to even
//   times_power(v, n)       v * 2^n for integers n up to 0
//   EXP_ZERO                exp(this) is 0
//   store_i8(p, v)          rounded to int8, ties to even; |v| must not exceed 127
//   reduce_add(v)           the sum of all lanes
//   reduce_max(v)           the largest of all lanes
//   reduce_add4(p, a, b, c, d, x)  the sums of four vectors, times x, to four floats

#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace qlutattn_f32 {

constexpr int MAX_WIDTH = 16; // of any instruction set

#if defined(__AVX512F__) && defined(__AVX512DQ__)

constexpr int   WIDTH       = 16;
constexpr int   N_REGISTERS = 32;
typedef __m512  vec;
constexpr float EXP_ZERO = -104.0f; // e^this is 0

// clang-format off
static inline vec  load(const float * p)             { return _mm512_loadu_ps(p); }
static inline void store(float * p, vec v)           { _mm512_storeu_ps(p, v); }
static inline vec  broadcast(float x)                { return _mm512_set1_ps(x); }
static inline vec  add(vec a, vec b)                 { return _mm512_add_ps(a, b); }
static inline vec  sub(vec a, vec b)                 { return _mm512_sub_ps(a, b); }
static inline vec  mul(vec a, vec b)                 { return _mm512_mul_ps(a, b); }
static inline vec  fma(vec a, vec b, vec c)          { return _mm512_fmadd_ps(a, b, c); }
static inline vec  max(vec a, vec b)                 { return _mm512_max_ps(a, b); }
static inline vec  from_i32(const int32_t * p)       { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
static inline vec  from_f16(const ggml_fp16_t * p)   { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }
static inline void store_f16(ggml_fp16_t * p, vec v) { _mm256_storeu_si256((__m256i *) p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
static inline void store_i8(int8_t * p, vec v)       { _mm_storeu_si128((__m128i *) p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v))); }
static inline vec  round(vec v)                      { return _mm512_roundscale_ps(v, 0); }
static inline vec  times_power(vec v, vec n)         { return _mm512_scalef_ps(v, n); }
static inline float first(vec v)                     { return _mm512_cvtss_f32(v); }
static inline float reduce_add(vec v)                { return _mm512_reduce_add_ps(v); }
static inline float reduce_max(vec v)                { return _mm512_reduce_max_ps(v); }
// clang-format on

static inline vec unless_zero(vec w, vec v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_NEQ_UQ), v);
}

static inline vec apply_mask(vec m, vec v) {
    const vec masked = broadcast(-INFINITY);
    return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(m, masked, _CMP_EQ_OQ), masked);
}

static inline void reduce_add4(float * p, vec a, vec b, vec c, vec d, float x) {
    const vec    ab   = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const vec    cd   = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const vec    abcd = add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee)); // the four sums in each quarter
    const __m256 s    = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(p, _mm_mul_ps(_mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)), _mm_set1_ps(x)));
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

constexpr int   WIDTH       = 8;
constexpr int   N_REGISTERS = 16;
typedef __m256  vec;
constexpr float EXP_ZERO = -88.0f; // 2^-127, which has an exponent of 0 here

// clang-format off
static inline vec  load(const float * p)             { return _mm256_loadu_ps(p); }
static inline void store(float * p, vec v)           { _mm256_storeu_ps(p, v); }
static inline vec  broadcast(float x)                { return _mm256_set1_ps(x); }
static inline vec  add(vec a, vec b)                 { return _mm256_add_ps(a, b); }
static inline vec  sub(vec a, vec b)                 { return _mm256_sub_ps(a, b); }
static inline vec  mul(vec a, vec b)                 { return _mm256_mul_ps(a, b); }
static inline vec  fma(vec a, vec b, vec c)          { return _mm256_fmadd_ps(a, b, c); }
static inline vec  max(vec a, vec b)                 { return _mm256_max_ps(a, b); }
static inline vec  from_i32(const int32_t * p)       { return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *) p)); }
static inline vec  from_f16(const ggml_fp16_t * p)   { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)); }
static inline void store_f16(ggml_fp16_t * p, vec v) { _mm_storeu_si128((__m128i *) p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
static inline vec  round(vec v)                      { return _mm256_round_ps(v, 0); }
static inline float first(vec v)                     { return _mm256_cvtss_f32(v); }
// clang-format on

static inline vec times_power(vec v, vec n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return mul(v, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

static inline void store_i8(int8_t * p, vec v) {
    const __m256i i32 = _mm256_cvtps_epi32(v);
    const __m128i i16 = _mm_packs_epi32(_mm256_castsi256_si128(i32), _mm256_extracti128_si256(i32, 1));
    _mm_storel_epi64((__m128i *) p, _mm_packs_epi16(i16, i16));
}

static inline float reduce_add(vec v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s        = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float reduce_max(vec v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s        = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

static inline vec unless_zero(vec w, vec v) {
    return _mm256_and_ps(_mm256_cmp_ps(w, _mm256_setzero_ps(), _CMP_NEQ_UQ), v);
}

static inline vec apply_mask(vec m, vec v) {
    const vec masked = broadcast(-INFINITY);
    return _mm256_blendv_ps(v, masked, _mm256_cmp_ps(m, masked, _CMP_EQ_OQ));
}

static inline void reduce_add4(float * p, vec a, vec b, vec c, vec d, float x) {
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(p, _mm_mul_ps(_mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)), _mm_set1_ps(x)));
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

constexpr int       WIDTH       = 4;
constexpr int       N_REGISTERS = 32;
typedef float32x4_t vec;
constexpr float     EXP_ZERO = -88.0f; // 2^-127, which has an exponent of 0 here

// clang-format off
static inline vec  load(const float * p)             { return vld1q_f32(p); }
static inline void store(float * p, vec v)           { vst1q_f32(p, v); }
static inline vec  broadcast(float x)                { return vdupq_n_f32(x); }
static inline vec  add(vec a, vec b)                 { return vaddq_f32(a, b); }
static inline vec  sub(vec a, vec b)                 { return vsubq_f32(a, b); }
static inline vec  mul(vec a, vec b)                 { return vmulq_f32(a, b); }
static inline vec  fma(vec a, vec b, vec c)          { return vfmaq_f32(c, a, b); }
static inline vec  max(vec a, vec b)                 { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vec  from_i32(const int32_t * p)       { return vcvtq_f32_s32(vld1q_s32(p)); }
static inline vec  from_f16(const ggml_fp16_t * p)   { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline void store_f16(ggml_fp16_t * p, vec v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
static inline vec  round(vec v)                      { return vrndnq_f32(v); }
static inline float first(vec v)                     { return vgetq_lane_f32(v, 0); }
static inline float reduce_add(vec v)                { return vaddvq_f32(v); }
static inline float reduce_max(vec v)                { return vmaxnmvq_f32(v); }
// clang-format on

static inline vec times_power(vec v, vec n) {
    const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return mul(v, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}

static inline void store_i8(int8_t * p, vec v) {
    const int16x4_t i16 = vqmovn_s32(vcvtnq_s32_f32(v));
    const int8x8_t  i8  = vqmovn_s16(vcombine_s16(i16, i16));
    vst1_lane_s32((int32_t *) p, vreinterpret_s32_s8(i8), 0);
}

static inline vec unless_zero(vec w, vec v) {
    return vbslq_f32(vceqzq_f32(w), broadcast(0.0f), v);
}

static inline vec apply_mask(vec m, vec v) {
    const vec masked = broadcast(-INFINITY);
    return vbslq_f32(vceqq_f32(m, masked), masked, v);
}

static inline void reduce_add4(float * p, vec a, vec b, vec c, vec d, float x) {
    vst1q_f32(p, vmulq_n_f32(vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)), x));
}

#else

constexpr int   WIDTH       = 8;
constexpr int   N_REGISTERS = 16;
constexpr float EXP_ZERO    = -104.0f;

struct vec {
    float at[WIDTH];
};

// a vector whose lane i is f(i)
template <typename F> static inline vec generate(F f) {
    vec v;
    for (int i = 0; i < WIDTH; i++) {
        v.at[i] = f(i);
    }
    return v;
}

// clang-format off
static inline vec  load(const float * p)             { return generate([=](int i) { return p[i]; }); }
static inline void store(float * p, vec v)           { memcpy(p, v.at, sizeof(v)); }
static inline vec  broadcast(float x)                { return generate([=](int) { return x; }); }
static inline vec  add(vec a, vec b)                 { return generate([=](int i) { return a.at[i] + b.at[i]; }); }
static inline vec  sub(vec a, vec b)                 { return generate([=](int i) { return a.at[i] - b.at[i]; }); }
static inline vec  mul(vec a, vec b)                 { return generate([=](int i) { return a.at[i] * b.at[i]; }); }
static inline vec  fma(vec a, vec b, vec c)          { return generate([=](int i) { return a.at[i] * b.at[i] + c.at[i]; }); }
static inline vec  max(vec a, vec b)                 { return generate([=](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; }); }
static inline vec  from_i32(const int32_t * p)       { return generate([=](int i) { return (float) p[i]; }); }
static inline vec  from_f16(const ggml_fp16_t * p)   { return generate([=](int i) { return ggml_fp16_to_fp32(p[i]); }); }
static inline vec  round(vec v)                      { return generate([=](int i) { return nearbyintf(v.at[i]); }); }
static inline vec  times_power(vec v, vec n)         { return generate([=](int i) { return ldexpf(v.at[i], (int) std::max(-200.0f, n.at[i])); }); }
static inline float first(vec v)                     { return v.at[0]; }
static inline vec  unless_zero(vec w, vec v)         { return generate([=](int i) { return w.at[i] == 0.0f ? 0.0f : v.at[i]; }); }
static inline vec  apply_mask(vec m, vec v)          { return generate([=](int i) { return m.at[i] == -INFINITY ? -INFINITY : v.at[i]; }); }
// clang-format on

static inline void store_f16(ggml_fp16_t * p, vec v) {
    ggml_fp32_to_fp16_row(v.at, p, WIDTH);
}

static inline void store_i8(int8_t * p, vec v) {
    // adding and subtracting 1.5*2^23 rounds to the nearest integer, ties to even; NaN, which no integer stands for, becomes 0
    for (int i = 0; i < WIDTH; i++) {
        const float rounded = (v.at[i] + 12582912.0f) - 12582912.0f;
        p[i]                = rounded == rounded ? (int8_t) std::min(127.0f, std::max(-128.0f, rounded)) : 0;
    }
}

static inline float reduce_add(vec v) {
    float sum = 0.0f;
    for (int i = 0; i < WIDTH; i++) {
        sum += v.at[i];
    }
    return sum;
}

static inline float reduce_max(vec v) {
    return *std::max_element(v.at, v.at + WIDTH);
}

static inline void reduce_add4(float * p, vec a, vec b, vec c, vec d, float x) {
    p[0] = reduce_add(a) * x;
    p[1] = reduce_add(b) * x;
    p[2] = reduce_add(c) * x;
    p[3] = reduce_add(d) * x;
}

#endif

// e^v = 2^n e^x, |x| <= ln(2)/2, with a polynomial whose relative error is at most 9.2e-8
static inline vec exp(vec v) {
    v           = max(broadcast(EXP_ZERO), v);
    const vec n = round(mul(v, broadcast(0x1.715476p+0f)));
    const vec x = fma(n, broadcast(-0x1.7f7d1cp-20f), fma(n, broadcast(-0x1.62e4p-1f), v));
    vec       y = fma(x, broadcast(0x1.0fa820p-7f), broadcast(0x1.573a6cp-5f));
    y           = fma(x, y, broadcast(0x1.555a6cp-3f));
    y           = fma(x, y, broadcast(0x1.fffdc6p-2f));
    y           = fma(x, y, broadcast(0x1.fffff6p-1f));
    return times_power(fma(x, y, broadcast(1.0f)), n);
}

} // namespace qlutattn_f32
