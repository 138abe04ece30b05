// For -include: AVX-512's intrinsics as plain code by SIMDe (Debian's libsimde-dev), so that tbl-avx512.h runs on any x86 with AVX2.

#include <immintrin.h>
#include <string.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

// what SIMDe's release in Debian 12 lacks or has wrong
#undef _mm512_madd_epi16
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)

template <typename Half, typename Element, int n> static inline simde__m512i emulated_widen(Half a) {
    Element narrow[n];
    int32_t wide[16];
    memcpy(narrow, &a, sizeof(narrow));
    for (int i = 0; i < 16; i++) {
        wide[i] = narrow[i];
    }
    return simde_mm512_loadu_si512(wide);
}
#define _mm512_cvtepu8_epi32(a)  emulated_widen<__m128i, uint8_t, 16>(a)
#define _mm512_cvtepu16_epi32(a) emulated_widen<__m256i, uint16_t, 16>(a)

#define __m512i simde__m512i
#define __AVX512F__ 1
#define __AVX512BW__ 1
#ifdef EMULATED_VNNI
#define __AVX512VNNI__ 1
#endif
