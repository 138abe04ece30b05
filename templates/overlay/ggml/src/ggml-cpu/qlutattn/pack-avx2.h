#pragma once

// The verbs of pack-simd.h for AVX2; builds for AVX-512 use them, too.

#include <immintrin.h>

#define QLUTATTN_PACK_SIMD "avx2"

namespace qlutattn_pack_simd {

typedef __m256  floats;
typedef __m256i ints;
typedef __m256i words;
typedef __m256i bytes;   // in 128 bits: lanes 0..3 and 8..11, then lanes 4..7 and 12..15
typedef __m256i nibbles; // 16-bit parts, lanes as in bytes

static inline floats load(const ggml_fp16_t * p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
}

static inline floats load(const float * p) {
    return _mm256_loadu_ps(p);
}

static inline void store(float * p, floats v) {
    _mm256_storeu_ps(p, v);
}

static inline void store_f16(ggml_fp16_t * p, floats v) {
    _mm_storeu_si128((__m128i *) p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

static inline floats broadcast(float x) {
    return _mm256_set1_ps(x);
}

static inline floats add(floats a, floats b) {
    return _mm256_add_ps(a, b);
}

static inline floats sub(floats a, floats b) {
    return _mm256_sub_ps(a, b);
}

static inline floats mul(floats a, floats b) {
    return _mm256_mul_ps(a, b);
}

static inline floats div(floats a, floats b) {
    return _mm256_div_ps(a, b);
}

static inline floats min(floats a, floats b) {
    return _mm256_min_ps(a, b);
}

static inline floats sqrt(floats v) {
    return _mm256_sqrt_ps(v);
}

static inline ints round(floats v) {
    return _mm256_cvtps_epi32(v);
}

static inline floats to_floats(ints v) {
    return _mm256_cvtepi32_ps(v);
}

static inline ints magnitude(floats v) {
    return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
}

static inline ints max(ints a, ints b) {
    return _mm256_max_epi32(a, b);
}

static inline floats as_floats(ints v) {
    return _mm256_castsi256_ps(v);
}

static inline ints zero_ints() {
    return _mm256_setzero_si256();
}

static inline bytes zero_bytes() {
    return _mm256_setzero_si256();
}

static inline words pair(ints first, ints second) {
    return _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
}

static inline words shr4(words w) {
    return _mm256_srai_epi16(w, 4);
}

static inline bytes narrow(words first, words last) {
    return _mm256_packs_epi16(first, last);
}

static inline words widen_first(bytes v) {
    return _mm256_srai_epi16(_mm256_unpacklo_epi8(v, v), 8);
}

static inline words widen_last(bytes v) {
    return _mm256_srai_epi16(_mm256_unpackhi_epi8(v, v), 8);
}

static inline ints madd(ints s, words a, words b) {
    return _mm256_add_epi32(s, _mm256_madd_epi16(a, b));
}

static inline bytes broadcast(int8_t x) {
    return _mm256_set1_epi8(x);
}

static inline bytes broadcast16(const int8_t * p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) p));
}

static inline bytes lookup16(bytes t, bytes n) {
    return _mm256_shuffle_epi8(t, n);
}

static inline bytes high_nibbles(bytes v) {
    return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

static inline bytes greater(bytes a, bytes b) {
    return _mm256_cmpgt_epi8(a, b);
}

static inline bytes sub(bytes a, bytes b) {
    return _mm256_sub_epi8(a, b);
}

static inline bytes bit_or(bytes a, bytes b) {
    return _mm256_or_si256(a, b);
}

template <int n> static inline bytes shl(bytes v) {
    return _mm256_slli_epi16(v, n);
}

static inline void interleave(uint8_t * p, bytes a, bytes b) {
    _mm256_storeu_si256((__m256i *) p, _mm256_unpacklo_epi16(a, b));
    _mm256_storeu_si256((__m256i *) (p + 32), _mm256_unpackhi_epi16(a, b));
}

static inline nibbles pair_dot(bytes v, int x, int y) {
    return _mm256_maddubs_epi16(v, _mm256_set1_epi16((int16_t) (x | y << 8)));
}

static inline nibbles add(nibbles a, nibbles b) {
    return _mm256_add_epi16(a, b);
}

static inline __m256i in_order(nibbles a, nibbles b) {
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

static inline void store_low(uint8_t * p, uint8_t * q, nibbles a, nibbles b) {
    const __m256i v = in_order(a, b);
    _mm_storeu_si128((__m128i *) p, _mm256_castsi256_si128(v));
    _mm_storeu_si128((__m128i *) q, _mm256_extracti128_si256(v, 1));
}

static inline void merge_high(uint8_t * p, uint8_t * q, nibbles a, nibbles b) {
    const __m256i v = _mm256_slli_epi16(in_order(a, b), 4);
    _mm_storeu_si128((__m128i *) p, _mm_or_si128(_mm_loadu_si128((const __m128i *) p), _mm256_castsi256_si128(v)));
    _mm_storeu_si128((__m128i *) q, _mm_or_si128(_mm_loadu_si128((const __m128i *) q), _mm256_extracti128_si256(v, 1)));
}

static inline void prefetch(const char * p) {
    _mm_prefetch(p, _MM_HINT_T1);
}

static inline void transpose(const char * p, size_t nb, ggml_fp16_t * q) {
    __m256i a[8]; // lane i in the first half, lane i + 8 in the last
    __m256i b[8];
    for (int i = 0; i < 8; i++) {
        const __m128i first = _mm_loadu_si128((const __m128i *) (p + i * nb));
        a[i]                = _mm256_inserti128_si256(_mm256_castsi128_si256(first), _mm_loadu_si128((const __m128i *) (p + (i + 8) * nb)), 1);
    }
    for (int i = 0; i < 4; i++) { // depths 0..3 and 4..7 of two lanes
        b[i]     = _mm256_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
        b[i + 4] = _mm256_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4) { // two depths of four lanes
        a[i]     = _mm256_unpacklo_epi32(b[i], b[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32(b[i], b[i + 1]);
        a[i + 2] = _mm256_unpacklo_epi32(b[i + 2], b[i + 3]);
        a[i + 3] = _mm256_unpackhi_epi32(b[i + 2], b[i + 3]);
    }
    for (int i = 0; i < 8; i += 4) { // a depth of eight lanes
        __m256i * out = (__m256i *) (q + i * 16);
        _mm256_storeu_si256(out + 0, _mm256_unpacklo_epi64(a[i], a[i + 2]));
        _mm256_storeu_si256(out + 1, _mm256_unpackhi_epi64(a[i], a[i + 2]));
        _mm256_storeu_si256(out + 2, _mm256_unpacklo_epi64(a[i + 1], a[i + 3]));
        _mm256_storeu_si256(out + 3, _mm256_unpackhi_epi64(a[i + 1], a[i + 3]));
    }
}

} // namespace qlutattn_pack_simd
