#include "peak.h"

#include "simd-f32.h"
#include "tbl-simd.h"

#include <atomic>

namespace f32 = qlutattn_f32;

// N_A x N_B products are added up at a time, which covers their latency; each is another one, so that none is computed once for several.
static constexpr int N_A     = 4;
static constexpr int N_B     = f32::N_REGISTERS >= 32 ? 3 : 2;
static constexpr int N_STEPS = 1 << 16;
static constexpr int N_TABLE = 8;    // steps until the operands repeat

static std::atomic<uint32_t> g_kept; // results, lest they are optimised away

// add(sum, i, a, b) returns the sum and the product of two operands of table entry i
template <typename sum, typename F> static void add_products(sum (&sums)[N_A][N_B], F add) {
    for (int i = 0; i < N_STEPS; i++) {
        for (int a = 0; a < N_A; a++) {
            for (int b = 0; b < N_B; b++) {
                sums[a][b] = add(sums[a][b], i % N_TABLE, a, N_A + b);
            }
        }
    }
}

int64_t multiply_add_f32() {
    alignas(64) static float operands[N_TABLE][N_A + N_B][f32::WIDTH];

    f32::vec sums[N_A][N_B];
    for (auto & row : sums) {
        for (f32::vec & sum : row) {
            sum = f32::broadcast(0.0f);
        }
    }
    add_products(sums, [](f32::vec sum, int i, int a, int b) { return f32::fma(f32::load(operands[i][a]), f32::load(operands[i][b]), sum); });
    for (const auto & row : sums) {
        for (const f32::vec & sum : row) {
            g_kept += (uint32_t) f32::reduce_add(sum);
        }
    }
    return (int64_t) N_STEPS * N_A * N_B * f32::WIDTH;
}

#ifndef QLUTATTN_SIMD

int64_t multiply_add_int8() {
    return 0;
}

#else

// with ACC16, the 16-bit sums are not widened, which kernels have to do for every four products or more
int64_t multiply_add_int8() {
    using namespace qlutattn_simd;

    alignas(64) static uint8_t operands[N_TABLE][N_A + N_B][WIDTH];
    alignas(64) int32_t        kept[WIDTH / 4];
#    ifdef QLUTATTN_MATRIX
    constexpr int multiply_adds = 2 * WIDTH; // of an instruction
    sums32        sums[N_A][N_B];
#    else
    constexpr int multiply_adds = WIDTH;
    products      sums[N_A][N_B];
#    endif
    for (auto & row : sums) {
        for (auto & sum : row) {
#    ifdef QLUTATTN_MATRIX
            sum = two_rows(0, 0);
#    else
            sum = begin(broadcast32(0));
#    endif
        }
    }
    add_products(sums, [](auto sum, int i, int a, int b) {
#    ifdef QLUTATTN_MATRIX
        return matmul(sum, load(operands[i][a]), load(operands[i][b]));
#    else
        return mul_add(sum, load(operands[i][a]), load(operands[i][b]));
#    endif
    });
    for (const auto & row : sums) {
        for (const auto & sum : row) {
#    ifdef QLUTATTN_MATRIX
            store(kept, sum);
#    else
            store(kept, end(broadcast32(0), sum));
#    endif
            g_kept += kept[0];
        }
    }
    return (int64_t) N_STEPS * N_A * N_B * multiply_adds;
}

#endif
