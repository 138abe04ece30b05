#pragma once

#include <arm_neon.h>

#ifdef __ARM_FEATURE_DOTPROD
#    define QLUTATTN_SIMD "neon-dotprod"
#else
#    define QLUTATTN_SIMD "neon"
#endif

namespace qlutattn_simd {

constexpr int WIDTH      = 16;
constexpr int LEVEL_BIAS = 0;
constexpr int DOT_ROWS   = 4;
constexpr int LUT_ROWS   = 4;

typedef uint8x16_t bytes;
typedef int32x4_t  sums32;

struct sums16 {
    uint16x8_t first;
    uint16x8_t last;
};

static inline bytes load(const uint8_t * p) {
    return vld1q_u8(p);
}

static inline bytes table(const void * p) {
    return vld1q_u8((const uint8_t *) p);
}

static inline bytes low(bytes v) {
    return vandq_u8(v, vdupq_n_u8(15));
}

static inline bytes high(bytes v) {
    return vshrq_n_u8(v, 4);
}

static inline bytes pick(bytes t, bytes n) {
    return vqtbl1q_u8(t, n);
}

static inline bytes four(const uint8_t * p) {
    return vreinterpretq_u8_s32(vld1q_dup_s32((const int32_t *) p));
}

static inline sums32 zero32() {
    return vdupq_n_s32(0);
}

static inline sums32 dot(sums32 s, bytes l, bytes x) {
    const int8x16_t a = vreinterpretq_s8_u8(l);
    const int8x16_t b = vreinterpretq_s8_u8(x);
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(s, a, b);
#else
    // products fit 16 bits; neighbours are added pairwise, twice
    const int16x8_t lo = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    const int16x8_t hi = vmull_high_s8(a, b);
    return vaddq_s32(s, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
#endif
}

static inline void store(int32_t * p, sums32 s) {
    vst1q_s32(p, s);
}

static inline sums16 zero16() {
    return { vdupq_n_u16(0), vdupq_n_u16(0) };
}

static inline sums16 add(sums16 s, bytes v) {
    return { vaddw_u8(s.first, vget_low_u8(v)), vaddw_high_u8(s.last, v) };
}

static inline void store(int32_t * p, sums16 s) {
    vst1q_s32(p + 0, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(s.first))));
    vst1q_s32(p + 4, vreinterpretq_s32_u32(vmovl_high_u16(s.first)));
    vst1q_s32(p + 8, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(s.last))));
    vst1q_s32(p + 12, vreinterpretq_s32_u32(vmovl_high_u16(s.last)));
}

} // namespace qlutattn_simd
