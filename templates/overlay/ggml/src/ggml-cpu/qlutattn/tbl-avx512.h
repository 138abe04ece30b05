#pragma once

#include <immintrin.h>

#ifdef __AVX512VNNI__
#    define QLUTATTN_SIMD "avx512-vnni"
#else
#    define QLUTATTN_SIMD "avx512"
#endif

namespace qlutattn_simd {

constexpr int WIDTH      = 64;
constexpr int LEVEL_BIAS = 128;
constexpr int DOT_ROWS   = 4;
constexpr int LUT_ROWS   = 4;

typedef __m512i bytes;
typedef __m512i sums32;

// as in tbl-avx2.h
struct sums16 {
    __m512i mixed;
    __m512i odd;
};

static inline bytes load(const uint8_t * p) {
    return _mm512_loadu_si512(p);
}

static inline bytes table(const void * p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) p));
}

static inline bytes low(bytes v) {
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

static inline bytes high(bytes v) {
    return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}

static inline bytes pick(bytes t, bytes n) {
    return _mm512_shuffle_epi8(t, n);
}

static inline bytes four(const uint8_t * p) {
    int32_t x;
    memcpy(&x, p, sizeof(x));
    return _mm512_set1_epi32(x);
}

static inline sums32 zero32() {
    return _mm512_setzero_si512();
}

static inline sums32 dot(sums32 s, bytes l, bytes x) {
#ifdef __AVX512VNNI__
    return _mm512_dpbusd_epi32(s, l, x);
#else
    return _mm512_add_epi32(s, _mm512_madd_epi16(_mm512_maddubs_epi16(l, x), _mm512_set1_epi16(1)));
#endif
}

static inline void store(int32_t * p, sums32 s) {
    _mm512_storeu_si512(p, s);
}

static inline sums16 zero16() {
    return { _mm512_setzero_si512(), _mm512_setzero_si512() };
}

static inline sums16 add(sums16 s, bytes v) {
    return { _mm512_add_epi16(s.mixed, v), _mm512_add_epi16(s.odd, _mm512_srli_epi16(v, 8)) };
}

static inline void store(int32_t * p, sums16 s) {
    const __m512i even = _mm512_sub_epi16(s.mixed, _mm512_slli_epi16(s.odd, 8));
    const __m512i lo   = _mm512_unpacklo_epi16(even, s.odd); // of each 16 lanes the first 8
    const __m512i hi   = _mm512_unpackhi_epi16(even, s.odd); // and the last 8
    // 16 lanes are part i of lo, then part i of hi
    const __m512i ab   = _mm512_permutex2var_epi64(lo, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), hi);
    const __m512i cd   = _mm512_permutex2var_epi64(lo, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), hi);
    store(p + 0, _mm512_cvtepu16_epi32(_mm512_castsi512_si256(ab)));
    store(p + 16, _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(ab, 1)));
    store(p + 32, _mm512_cvtepu16_epi32(_mm512_castsi512_si256(cd)));
    store(p + 48, _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(cd, 1)));
}

} // namespace qlutattn_simd
