#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#ifdef __ARM_FEATURE_MATMUL_INT8
#    define QLUTATTN_SIMD "neon-i8mm"
#    define QLUTATTN_MATRIX
#    define QLUTATTN_DOT_BLOCKS
#elif defined(__ARM_FEATURE_DOTPROD)
#    define QLUTATTN_SIMD "neon-dotprod"
#    define QLUTATTN_DOT_BLOCKS
#else
#    define QLUTATTN_SIMD "neon"
#endif

namespace qlutattn_simd {

constexpr int  WIDTH         = 16;
constexpr int  DOT_ROWS      = 4;
constexpr int  LUT_ROWS      = 4;
constexpr bool ACC16         = false;
constexpr bool BOTH_SIGNED   = true;
constexpr int  SIGNED_OFFSET = 0;

typedef uint8x16_t bytes;
typedef int32x4_t  sums32;

#ifdef __ARM_FEATURE_DOTPROD
typedef int32x4_t products;
#else
struct products {
    int16x8_t lo;
    int16x8_t hi;
};
#endif

struct sums16 {
    uint16x8_t first;
    uint16x8_t last;
};

static inline bytes load(const uint8_t * p) {
    return vld1q_u8(p);
}

template <bool to_first_cache> static inline void prefetch(const uint8_t * p) {
    __builtin_prefetch(p, 0, to_first_cache ? 3 : 2);
}

static inline bytes broadcast16(const void * p) {
    return vld1q_u8((const uint8_t *) p);
}

static inline bytes low_nibbles(bytes v) {
    return vandq_u8(v, vdupq_n_u8(15));
}

static inline bytes high_nibbles(bytes v) {
    return vshrq_n_u8(v, 4);
}

static inline bytes lookup16(bytes t, bytes n) {
    return vqtbl1q_u8(t, n);
}

static inline bytes broadcast4(const int8_t * p) {
    int32_t x;
    memcpy(&x, p, sizeof(x));
    return vreinterpretq_u8_s32(vdupq_n_s32(x));
}

static inline bytes repeat4(const uint8_t * p) {
    static const uint8_t each_four_times[16] = { 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3 };
    return vqtbl1q_u8(broadcast4((const int8_t *) p), vld1q_u8(each_four_times));
}

static inline bytes bit_mask4(int first) {
    return vreinterpretq_u8_u32(vdupq_n_u32(0x08040201u << first));
}

static inline bytes test(bytes v, bytes m) {
    return vandq_u8(vtstq_u8(v, m), vdupq_n_u8(2));
}

static inline bytes broadcast4_parts(const uint8_t * p) {
    return broadcast4((const int8_t *) p);
}

static inline bytes add(bytes a, bytes b) {
    return vaddq_u8(a, b);
}

static inline void store(uint8_t * p, bytes v) {
    vst1q_u8(p, v);
}

static inline sums32 broadcast32(int32_t i) {
    return vdupq_n_s32(i);
}

#ifdef __ARM_FEATURE_DOTPROD
static inline products begin(sums32 s) {
    return s;
}

static inline products mul_add(products p, bytes u, bytes i) {
    return vdotq_s32(p, vreinterpretq_s8_u8(u), vreinterpretq_s8_u8(i));
}

static inline sums32 end(sums32, products p) {
    return p;
}
#else
static inline products begin(sums32) {
    return { vdupq_n_s16(0), vdupq_n_s16(0) };
}

static inline products mul_add(products p, bytes u, bytes i) {
    const int8x16_t a = vreinterpretq_s8_u8(u);
    const int8x16_t b = vreinterpretq_s8_u8(i);
    return { vmlal_s8(p.lo, vget_low_s8(a), vget_low_s8(b)), vmlal_high_s8(p.hi, a, b) };
}

// neighbours fit 16 bits together: products of levels up to 10 are four, up to 61 two, up to 128 one
static inline sums32 end(sums32 s, products p) {
    return vpadalq_s16(s, vpaddq_s16(p.lo, p.hi));
}
#endif

static inline bytes as_unsigned(bytes v) {
    return v;
}

static inline bytes beside(bytes x, bytes) {
    return x;
}

#ifdef QLUTATTN_DOT_BLOCKS
static inline bytes load(const int8_t * p) {
    return load((const uint8_t *) p);
}

static inline bytes load8(const void * p) {
    return vcombine_u8(vld1_u8((const uint8_t *) p), vdup_n_u8(0));
}

static inline bytes repeat(int i) {
    return vdupq_n_u8((uint8_t) i);
}

static inline bytes all_ones_if(bytes v, bytes m) {
    return vtstq_u8(v, m);
}

static inline sums32 minus_twice(sums32 s, sums32 t) {
    return vsubq_s32(s, vaddq_s32(t, t));
}
#endif

#ifdef QLUTATTN_MATRIX
static inline bytes in_turns(bytes a, bytes b) {
    return vzip1q_u8(a, b);
}

static inline bytes first_lanes(bytes a, bytes b) {
    return vreinterpretq_u8_u32(vzip1q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}

static inline bytes last_lanes(bytes a, bytes b) {
    return vreinterpretq_u8_u32(vzip2q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}

static inline bytes first_halves(bytes a, bytes b) {
    return vreinterpretq_u8_u64(vzip1q_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
}

static inline bytes last_halves(bytes a, bytes b) {
    return vreinterpretq_u8_u64(vzip2q_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
}

static inline sums32 first_halves(sums32 s, sums32 t) {
    return vreinterpretq_s32_u8(first_halves(vreinterpretq_u8_s32(s), vreinterpretq_u8_s32(t)));
}

static inline sums32 last_halves(sums32 s, sums32 t) {
    return vreinterpretq_s32_u8(last_halves(vreinterpretq_u8_s32(s), vreinterpretq_u8_s32(t)));
}

static inline sums32 matmul(sums32 s, bytes x, bytes f) {
    return vmmlaq_s32(s, vreinterpretq_s8_u8(x), vreinterpretq_s8_u8(f));
}
#elif defined(QLUTATTN_DOT_BLOCKS)
template <int i> static inline sums32 mul_add_part(sums32 s, bytes v, bytes x) {
    return vdotq_laneq_s32(s, vreinterpretq_s8_u8(v), vreinterpretq_s8_u8(x), i);
}
#endif

static inline void store(int32_t * p, sums32 s) {
    vst1q_s32(p, s);
}

static inline void store_parts(int32_t * p, sums32 s, sums32 t) {
    vst1q_s32(p, s);
    vst1q_s32(p + 4, t);
}

static inline sums16 zero16() {
    return { vdupq_n_u16(0), vdupq_n_u16(0) };
}

static inline sums16 add(sums16 s, bytes v) {
    return { vaddw_u8(s.first, vget_low_u8(v)), vaddw_high_u8(s.last, v) };
}

static inline void store_twice(int32_t * p, sums16 s, int32_t i) {
    const int32x4_t less = vdupq_n_s32(i);
    store(p + 0, vsubq_s32(vreinterpretq_s32_u32(vshll_n_u16(vget_low_u16(s.first), 1)), less));
    store(p + 4, vsubq_s32(vreinterpretq_s32_u32(vshll_high_n_u16(s.first, 1)), less));
    store(p + 8, vsubq_s32(vreinterpretq_s32_u32(vshll_n_u16(vget_low_u16(s.last), 1)), less));
    store(p + 12, vsubq_s32(vreinterpretq_s32_u32(vshll_high_n_u16(s.last, 1)), less));
}

} // namespace qlutattn_simd
