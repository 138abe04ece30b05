#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#ifdef __AVX512VNNI__
#    define QLUTATTN_SIMD "avx512-vnni"
#else
#    define QLUTATTN_SIMD "avx512"
#endif

namespace qlutattn_simd {

constexpr int WIDTH    = 64;
constexpr int DOT_ROWS = 8;
constexpr int LUT_ROWS = 4;
#ifdef __AVX512VNNI__
constexpr bool ACC16       = false;
constexpr bool BOTH_SIGNED = false;
#else
constexpr bool ACC16       = true;
constexpr bool BOTH_SIGNED = false;
#endif
constexpr int SIGNED_OFFSET = ACC16 ? 0 : 128;

typedef __m512i bytes;
typedef __m512i sums32;
typedef __m512i products; // as in tbl-avx2.h

// as in tbl-avx2.h
struct sums16 {
    __m512i mixed;
    __m512i odd;
};

static inline bytes load(const uint8_t * p) {
    return _mm512_loadu_si512(p);
}

template <bool to_first_cache> static inline void prefetch(const uint8_t * p) {
    _mm_prefetch((const char *) p, to_first_cache ? _MM_HINT_T0 : _MM_HINT_T1);
}

static inline bytes broadcast16(const void * p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) p));
}

static inline bytes low_nibbles(bytes v) {
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

static inline bytes high_nibbles(bytes v) {
    return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}

static inline bytes lookup16(bytes t, bytes n) {
    return _mm512_shuffle_epi8(t, n);
}

static inline bytes repeat4(const uint8_t * p) {
    const __m512i each = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) p));
    return _mm512_shuffle_epi8(each, _mm512_broadcast_i32x4(_mm_setr_epi32(0x00000000, 0x04040404, 0x08080808, 0x0c0c0c0c)));
}

static inline bytes bit_mask4(int first) {
    return _mm512_set1_epi32((int) (0x08040201u << first));
}

static inline bytes test(bytes v, bytes m) {
    return _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(v, m), _mm512_set1_epi8(2));
}

static inline bytes broadcast4(const int8_t * p) {
    int32_t x;
    memcpy(&x, p, sizeof(x));
    return _mm512_set1_epi32(x);
}

static inline bytes broadcast4_parts(const uint8_t * p) {
    const __m512i all = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *) p));
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), all);
}

static inline bytes add(bytes a, bytes b) {
    return _mm512_add_epi8(a, b);
}

static inline void store(uint8_t * p, bytes v) {
    _mm512_storeu_si512(p, v);
}

static inline sums32 broadcast32(int32_t i) {
    return _mm512_set1_epi32(i);
}

static inline products begin(sums32 s) {
    return ACC16 ? _mm512_setzero_si512() : s;
}

static inline products mul_add(products p, bytes u, bytes i) {
#ifdef __AVX512VNNI__
    return _mm512_dpbusd_epi32(p, u, i);
#else
    return _mm512_add_epi16(p, _mm512_maddubs_epi16(u, i));
#endif
}

// as in tbl-avx2.h
static inline bytes as_unsigned(bytes v) {
    return ACC16 ? _mm512_abs_epi8(v) : _mm512_xor_si512(v, _mm512_set1_epi8((char) 0x80));
}

static inline bytes beside(bytes x, bytes v) {
    return ACC16 ? _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(v), _mm512_setzero_si512(), x) : x;
}

static inline sums32 end(sums32 s, products p) {
    return ACC16 ? _mm512_add_epi32(s, _mm512_madd_epi16(p, _mm512_set1_epi16(1))) : p;
}

static inline void store(int32_t * p, sums32 s) {
    _mm512_storeu_si512(p, s);
}

static inline void store_parts(int32_t * p, sums32 s, sums32 t) {
    const __m512i halves = _mm512_add_epi32(_mm512_shuffle_i32x4(s, t, 0x44), _mm512_shuffle_i32x4(s, t, 0xee)); // two parts of s, two of t
    const __m256i first  = _mm512_castsi512_si256(_mm512_shuffle_i32x4(halves, halves, 0x88));
    const __m256i second = _mm512_castsi512_si256(_mm512_shuffle_i32x4(halves, halves, 0xdd));
    _mm256_storeu_si256((__m256i *) p, _mm256_add_epi32(first, second));
}

static inline sums16 zero16() {
    return { _mm512_setzero_si512(), _mm512_setzero_si512() };
}

static inline sums16 add(sums16 s, bytes v) {
    return { _mm512_add_epi16(s.mixed, v), _mm512_add_epi16(s.odd, _mm512_srli_epi16(v, 8)) };
}

static inline void store_twice(int32_t * p, sums16 s, int32_t i) {
    const __m512i odd  = _mm512_slli_epi16(s.odd, 1);
    const __m512i even = _mm512_slli_epi16(_mm512_sub_epi16(s.mixed, _mm512_slli_epi16(s.odd, 8)), 1);
    const __m512i lo   = _mm512_unpacklo_epi16(even, odd); // of each 16 lanes the first 8
    const __m512i hi   = _mm512_unpackhi_epi16(even, odd); // and the last 8
    // 16 lanes are part i of lo, then part i of hi
    const __m512i ab   = _mm512_permutex2var_epi64(lo, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), hi);
    const __m512i cd   = _mm512_permutex2var_epi64(lo, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), hi);
    const __m512i less = _mm512_set1_epi32(i);
    store(p + 0, _mm512_sub_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(ab)), less));
    store(p + 16, _mm512_sub_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(ab, 1)), less));
    store(p + 32, _mm512_sub_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(cd)), less));
    store(p + 48, _mm512_sub_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(cd, 1)), less));
}

} // namespace qlutattn_simd
