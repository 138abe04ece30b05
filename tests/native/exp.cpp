// The vector exp of the softmax against binary64, over every 307th float from -103 to 0: prints the largest error in units in the last place.

#include "simd-f32.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

int main() {
    namespace f32 = qlutattn_f32;

    constexpr uint32_t minus_zero = 0x80000000;
    constexpr uint32_t last       = 0xc2ce0000; // -103
    constexpr uint32_t step       = 307;

    double worst = 0.0;
    float  at    = 0.0f;
    for (uint32_t bits = minus_zero; bits < last; bits += step * f32::WIDTH) {
        float x[f32::WIDTH];
        float y[f32::WIDTH];
        for (int i = 0; i < f32::WIDTH; i++) {
            x[i] = from_bits(bits + step * i);
        }
        f32::store(y, f32::exp(f32::load(x)));
        for (int i = 0; i < f32::WIDTH; i++) {
            const double exact = std::exp((double) x[i]);
            if (y[i] == 0.0f && exact < std::ldexp(1.0, -126)) {
                continue;
            }
            int          exponent;
            std::frexp(exact, &exponent);
            const double unit  = std::ldexp(1.0, std::max(exponent - 24, -149)); // subnormal results have the smallest
            const double error = std::fabs(y[i] - exact) / unit;
            if (!(error <= worst)) {
                worst = error;
                at    = x[i];
            }
        }
    }
    float hidden[f32::WIDTH];
    f32::store(hidden, f32::exp(f32::broadcast(-INFINITY)));
    printf("exp(-inf) = %g; off by %.3f at most, at %.9g\n", hidden[0], worst, at);
    return hidden[0] == 0.0f && worst <= 2.0 ? 0 : 1;
}
