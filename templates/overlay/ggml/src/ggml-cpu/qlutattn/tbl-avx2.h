#pragma once

#include <immintrin.h>

#define QLUTATTN_SIMD "avx2"

namespace qlutattn_simd {

constexpr int WIDTH      = 32;
constexpr int LEVEL_BIAS = 128;
constexpr int DOT_ROWS   = 4; // rows that share the unpacked codes in registers
constexpr int LUT_ROWS   = 2;

typedef __m256i bytes;
typedef __m256i sums32;

// 16-bit sums of bytes: `mixed` adds the pairs (even byte + 256 * odd byte) as they are, `odd` the odd bytes; the even ones are the difference
struct sums16 {
    __m256i mixed;
    __m256i odd;
};

static inline bytes load(const uint8_t * p) {
    return _mm256_loadu_si256((const __m256i *) p);
}

static inline bytes table(const void * p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) p));
}

static inline bytes low(bytes v) {
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

static inline bytes high(bytes v) {
    return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

static inline bytes pick(bytes t, bytes n) {
    return _mm256_shuffle_epi8(t, n);
}

static inline bytes four(const uint8_t * p) {
    int32_t x;
    memcpy(&x, p, sizeof(x));
    return _mm256_set1_epi32(x);
}

static inline sums32 zero32() {
    return _mm256_setzero_si256();
}

static inline sums32 dot(sums32 s, bytes l, bytes x) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(s, l, x);
#else
    // |sum of two products| <= 2*255*64, which 16 bits hold
    return _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(l, x), _mm256_set1_epi16(1)));
#endif
}

static inline void store(int32_t * p, sums32 s) {
    _mm256_storeu_si256((__m256i *) p, s);
}

static inline sums16 zero16() {
    return { _mm256_setzero_si256(), _mm256_setzero_si256() };
}

static inline sums16 add(sums16 s, bytes v) {
    return { _mm256_add_epi16(s.mixed, v), _mm256_add_epi16(s.odd, _mm256_srli_epi16(v, 8)) };
}

static inline void store(int32_t * p, sums16 s) {
    const __m256i even = _mm256_sub_epi16(s.mixed, _mm256_slli_epi16(s.odd, 8));
    const __m256i lo   = _mm256_unpacklo_epi16(even, s.odd); // lanes 0..7 and 16..23
    const __m256i hi   = _mm256_unpackhi_epi16(even, s.odd); // lanes 8..15 and 24..31
    store(p + 0, _mm256_cvtepu16_epi32(_mm256_castsi256_si128(lo)));
    store(p + 8, _mm256_cvtepu16_epi32(_mm256_castsi256_si128(hi)));
    store(p + 16, _mm256_cvtepu16_epi32(_mm256_extracti128_si256(lo, 1)));
    store(p + 24, _mm256_cvtepu16_epi32(_mm256_extracti128_si256(hi, 1)));
}

} // namespace qlutattn_simd
