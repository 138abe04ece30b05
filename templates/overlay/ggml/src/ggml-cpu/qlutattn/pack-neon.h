#pragma once

#include <arm_neon.h>

#define QLUTATTN_PACK_SIMD "neon"

namespace qlutattn_pack_simd {

struct floats {
    float32x4_t v[2];
};

struct ints {
    int32x4_t v[2];
};

struct words {
    int16x8_t v[2];
};

// lanes 0..7, then lanes 8..15
struct bytes {
    uint8x16_t v[2];
};

typedef uint8x16_t nibbles;

static inline floats load(const ggml_fp16_t * p) {
    const float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(p));
    return {
        { vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h) }
    };
}

static inline floats load(const float * p) {
    return {
        { vld1q_f32(p), vld1q_f32(p + 4) }
    };
}

static inline void store(float * p, floats f) {
    vst1q_f32(p, f.v[0]);
    vst1q_f32(p + 4, f.v[1]);
}

static inline void store_f16(ggml_fp16_t * p, floats f) {
    vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(f.v[0]), f.v[1])));
}

static inline floats broadcast(float x) {
    return {
        { vdupq_n_f32(x), vdupq_n_f32(x) }
    };
}

static inline floats add(floats a, floats b) {
    return {
        { vaddq_f32(a.v[0], b.v[0]), vaddq_f32(a.v[1], b.v[1]) }
    };
}

static inline floats sub(floats a, floats b) {
    return {
        { vsubq_f32(a.v[0], b.v[0]), vsubq_f32(a.v[1], b.v[1]) }
    };
}

static inline floats mul(floats a, floats b) {
    return {
        { vmulq_f32(a.v[0], b.v[0]), vmulq_f32(a.v[1], b.v[1]) }
    };
}

static inline floats div(floats a, floats b) {
    return {
        { vdivq_f32(a.v[0], b.v[0]), vdivq_f32(a.v[1], b.v[1]) }
    };
}

static inline floats min(floats a, floats b) {
    return {
        { vminq_f32(a.v[0], b.v[0]), vminq_f32(a.v[1], b.v[1]) }
    };
}

static inline floats sqrt(floats f) {
    return {
        { vsqrtq_f32(f.v[0]), vsqrtq_f32(f.v[1]) }
    };
}

static inline ints round(floats f) {
    return {
        { vcvtnq_s32_f32(f.v[0]), vcvtnq_s32_f32(f.v[1]) }
    };
}

static inline floats to_floats(ints i) {
    return {
        { vcvtq_f32_s32(i.v[0]), vcvtq_f32_s32(i.v[1]) }
    };
}

static inline int32x4_t magnitude(float32x4_t v) {
    return vandq_s32(vreinterpretq_s32_f32(v), vdupq_n_s32(0x7fffffff));
}

static inline ints magnitude(floats f) {
    return {
        { magnitude(f.v[0]), magnitude(f.v[1]) }
    };
}

static inline ints max(ints a, ints b) {
    return {
        { vmaxq_s32(a.v[0], b.v[0]), vmaxq_s32(a.v[1], b.v[1]) }
    };
}

static inline floats as_floats(ints i) {
    return {
        { vreinterpretq_f32_s32(i.v[0]), vreinterpretq_f32_s32(i.v[1]) }
    };
}

static inline ints zero_ints() {
    return {
        { vdupq_n_s32(0), vdupq_n_s32(0) }
    };
}

static inline bytes zero_bytes() {
    return {
        { vdupq_n_u8(0), vdupq_n_u8(0) }
    };
}

static inline words pair(ints a, ints b) {
    return {
        { vreinterpretq_s16_s32(vsliq_n_s32(a.v[0], b.v[0], 16)), vreinterpretq_s16_s32(vsliq_n_s32(a.v[1], b.v[1], 16)) }
    };
}

static inline words shr4(words w) {
    return {
        { vshrq_n_s16(w.v[0], 4), vshrq_n_s16(w.v[1], 4) }
    };
}

static inline bytes narrow(words first, words last) {
    return {
        { vreinterpretq_u8_s8(vqmovn_high_s16(vqmovn_s16(first.v[0]), first.v[1])),
         vreinterpretq_u8_s8(vqmovn_high_s16(vqmovn_s16(last.v[0]), last.v[1])) }
    };
}

static inline words widen(uint8x16_t v) {
    const int8x16_t s = vreinterpretq_s8_u8(v);
    return {
        { vmovl_s8(vget_low_s8(s)), vmovl_high_s8(s) }
    };
}

static inline words widen_first(bytes b) {
    return widen(b.v[0]);
}

static inline words widen_last(bytes b) {
    return widen(b.v[1]);
}

static inline int32x4_t madd(int32x4_t s, int16x8_t a, int16x8_t b) {
    return vaddq_s32(s, vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)));
}

static inline ints madd(ints s, words a, words b) {
    return {
        { madd(s.v[0], a.v[0], b.v[0]), madd(s.v[1], a.v[1], b.v[1]) }
    };
}

static inline bytes broadcast(int8_t x) {
    return {
        { vdupq_n_u8((uint8_t) x), vdupq_n_u8((uint8_t) x) }
    };
}

static inline bytes broadcast16(const int8_t * p) {
    const uint8x16_t t = vreinterpretq_u8_s8(vld1q_s8(p));
    return {
        { t, t }
    };
}

static inline bytes lookup16(bytes t, bytes n) {
    return {
        { vqtbl1q_u8(t.v[0], n.v[0]), vqtbl1q_u8(t.v[1], n.v[1]) }
    };
}

static inline bytes high_nibbles(bytes b) {
    return {
        { vshrq_n_u8(b.v[0], 4), vshrq_n_u8(b.v[1], 4) }
    };
}

static inline uint8x16_t greater(uint8x16_t a, uint8x16_t b) {
    return vcgtq_s8(vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b));
}

static inline bytes greater(bytes a, bytes b) {
    return {
        { greater(a.v[0], b.v[0]), greater(a.v[1], b.v[1]) }
    };
}

static inline bytes sub(bytes a, bytes b) {
    return {
        { vsubq_u8(a.v[0], b.v[0]), vsubq_u8(a.v[1], b.v[1]) }
    };
}

static inline bytes bit_or(bytes a, bytes b) {
    return {
        { vorrq_u8(a.v[0], b.v[0]), vorrq_u8(a.v[1], b.v[1]) }
    };
}

template <int n> static inline bytes shl(bytes b) {
    return {
        { vshlq_n_u8(b.v[0], n), vshlq_n_u8(b.v[1], n) }
    };
}

static inline void interleave(uint8_t * p, bytes a, bytes b) {
    for (int i = 0; i < 2; i++) {
        const uint16x8_t x = vreinterpretq_u16_u8(a.v[i]);
        const uint16x8_t y = vreinterpretq_u16_u8(b.v[i]);
        vst1q_u8(p + i * 32, vreinterpretq_u8_u16(vzip1q_u16(x, y)));
        vst1q_u8(p + i * 32 + 16, vreinterpretq_u8_u16(vzip2q_u16(x, y)));
    }
}

static inline nibbles pair_dot(bytes b, int x, int y) {
    const uint8x16_t first  = vuzp1q_u8(b.v[0], b.v[1]);
    const uint8x16_t second = vuzp2q_u8(b.v[0], b.v[1]);
    return vmlaq_u8(vmulq_u8(first, vdupq_n_u8((uint8_t) x)), second, vdupq_n_u8((uint8_t) y));
}

static inline nibbles add(nibbles a, nibbles b) {
    return vaddq_u8(a, b);
}

static inline void store_low(uint8_t * p, uint8_t * q, nibbles a, nibbles b) {
    vst1q_u8(p, a);
    vst1q_u8(q, b);
}

static inline void merge_high(uint8_t * p, uint8_t * q, nibbles a, nibbles b) {
    store_low(p, q, vsliq_n_u8(vld1q_u8(p), a, 4), vsliq_n_u8(vld1q_u8(q), b, 4));
}

static inline void prefetch(const char * p) {
    __builtin_prefetch(p, 0, 2);
}

// 8 depths of 8 lanes, to rows of 16 lanes
static inline void transpose_8x8(const char * p, size_t nb, ggml_fp16_t * q) {
    uint16x8_t a[8];
    uint16x8_t b[8];
    for (int i = 0; i < 8; i++) {
        a[i] = vld1q_u16((const uint16_t *) (p + i * nb));
    }
    for (int i = 0; i < 8; i += 2) { // even and odd depths of two lanes
        b[i]     = vtrn1q_u16(a[i], a[i + 1]);
        b[i + 1] = vtrn2q_u16(a[i], a[i + 1]);
    }
    for (int i = 0; i < 4; i++) { // lanes 0..3 (i = 0, 1) and 4..7, of the depths i%2 and 4 + i%2, then 2 more
        const uint32x4_t x = vreinterpretq_u32_u16(b[i / 2 * 4 + i % 2]);
        const uint32x4_t y = vreinterpretq_u32_u16(b[i / 2 * 4 + i % 2 + 2]);
        a[i]               = vreinterpretq_u16_u32(vtrn1q_u32(x, y));
        a[i + 4]           = vreinterpretq_u16_u32(vtrn2q_u32(x, y));
    }
    for (int i = 0; i < 4; i++) { // depths i and i + 4
        const uint64x2_t x = vreinterpretq_u64_u16(a[i / 2 * 4 + i % 2]);
        const uint64x2_t y = vreinterpretq_u64_u16(a[i / 2 * 4 + i % 2 + 2]);
        vst1q_u16(q + i * 16, vreinterpretq_u16_u64(vtrn1q_u64(x, y)));
        vst1q_u16(q + (i + 4) * 16, vreinterpretq_u16_u64(vtrn2q_u64(x, y)));
    }
}

static inline void transpose(const char * p, size_t nb, ggml_fp16_t * q) {
    transpose_8x8(p, nb, q);
    transpose_8x8(p + 8 * nb, nb, q + 8);
}

} // namespace qlutattn_pack_simd
