#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define QLUTATTN_SIMD "avx2"

namespace qlutattn_simd {

constexpr int WIDTH    = 32;
constexpr int DOT_ROWS = 4;
constexpr int LUT_ROWS = 2;
#ifdef __AVXVNNI__
constexpr bool ACC16       = false;
constexpr bool BOTH_SIGNED = false;
#else
constexpr bool ACC16       = true;
constexpr bool BOTH_SIGNED = false;
#endif
constexpr int SIGNED_OFFSET = ACC16 ? 0 : 128;

typedef __m256i bytes;
typedef __m256i sums32;
typedef __m256i products; // 16-bit sums of two where ACC16, else 32-bit sums of four

// 16-bit sums of bytes: `mixed` adds the pairs (even byte + 256 * odd byte) as they are, `odd` the odd bytes; the even ones are the difference
struct sums16 {
    __m256i mixed;
    __m256i odd;
};

static inline bytes load(const uint8_t * p) {
    return _mm256_loadu_si256((const __m256i *) p);
}

template <bool to_first_cache> static inline void prefetch(const uint8_t * p) {
    _mm_prefetch((const char *) p, to_first_cache ? _MM_HINT_T0 : _MM_HINT_T1);
}

static inline bytes broadcast16(const void * p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) p));
}

static inline bytes low_nibbles(bytes v) {
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

static inline bytes high_nibbles(bytes v) {
    return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

static inline bytes lookup16(bytes t, bytes n) {
    return _mm256_shuffle_epi8(t, n);
}

static inline bytes repeat4(const uint8_t * p) {
    const __m256i each = _mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *) p));
    return _mm256_shuffle_epi8(each,
                               _mm256_setr_epi32(0x00000000, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505, 0x06060606, 0x07070707));
}

static inline bytes bit_mask4(int first) {
    return _mm256_set1_epi32((int) (0x08040201u << first));
}

static inline bytes test(bytes v, bytes m) {
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(v, m), m), _mm256_set1_epi8(2));
}

static inline bytes broadcast4(const int8_t * p) {
    int32_t x;
    memcpy(&x, p, sizeof(x));
    return _mm256_set1_epi32(x);
}

static inline bytes broadcast4_parts(const uint8_t * p) {
    const __m256i both = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *) p));
    return _mm256_permutevar8x32_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}

static inline bytes add(bytes a, bytes b) {
    return _mm256_add_epi8(a, b);
}

static inline void store(uint8_t * p, bytes v) {
    _mm256_storeu_si256((__m256i *) p, v);
}

static inline sums32 broadcast32(int32_t i) {
    return _mm256_set1_epi32(i);
}

static inline products begin(sums32 s) {
    return ACC16 ? _mm256_setzero_si256() : s;
}

static inline products mul_add(products p, bytes u, bytes i) {
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(p, u, i);
#else
    return _mm256_add_epi16(p, _mm256_maddubs_epi16(u, i));
#endif
}

// With ACC16 the magnitudes, and x with their signs: two products of 127*127 fit 16 bits.
static inline bytes as_unsigned(bytes v) {
    return ACC16 ? _mm256_abs_epi8(v) : _mm256_xor_si256(v, _mm256_set1_epi8((char) 0x80));
}

static inline bytes beside(bytes x, bytes v) {
    return ACC16 ? _mm256_sign_epi8(x, v) : x;
}

static inline sums32 end(sums32 s, products p) {
    return ACC16 ? _mm256_add_epi32(s, _mm256_madd_epi16(p, _mm256_set1_epi16(1))) : p;
}

static inline void store(int32_t * p, sums32 s) {
    _mm256_storeu_si256((__m256i *) p, s);
}

static inline void store_parts(int32_t * p, sums32 s, sums32 t) {
    store(p, _mm256_add_epi32(_mm256_permute2x128_si256(s, t, 0x20), _mm256_permute2x128_si256(s, t, 0x31)));
}

static inline sums16 zero16() {
    return { _mm256_setzero_si256(), _mm256_setzero_si256() };
}

static inline sums16 add(sums16 s, bytes v) {
    return { _mm256_add_epi16(s.mixed, v), _mm256_add_epi16(s.odd, _mm256_srli_epi16(v, 8)) };
}

static inline void store_twice(int32_t * p, sums16 s, int32_t i) {
    const __m256i even = _mm256_sub_epi16(s.mixed, _mm256_slli_epi16(s.odd, 8));
    const __m256i lo   = _mm256_unpacklo_epi16(_mm256_slli_epi16(even, 1), _mm256_slli_epi16(s.odd, 1)); // lanes 0..7 and 16..23
    const __m256i hi   = _mm256_unpackhi_epi16(_mm256_slli_epi16(even, 1), _mm256_slli_epi16(s.odd, 1)); // lanes 8..15 and 24..31
    const __m256i less = _mm256_set1_epi32(i);
    store(p + 0, _mm256_sub_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(lo)), less));
    store(p + 8, _mm256_sub_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(hi)), less));
    store(p + 16, _mm256_sub_epi32(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(lo, 1)), less));
    store(p + 24, _mm256_sub_epi32(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(hi, 1)), less));
}

} // namespace qlutattn_simd
