#include "ggml-select.h"

#include "ggml-impl.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#    if defined(__GNUC__) && !defined(__clang__)
// of gcc's own intrinsics, whose undefined vectors it takes for a mistake
#        pragma GCC diagnostic ignored "-Wuninitialized"
#        pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#    endif
#    include <immintrin.h>
#    if defined(_MSC_VER) && !defined(__clang__)
#        include <intrin.h>
#    endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#    include <arm_neon.h>
#endif

namespace {

constexpr int BLOCK       = 128; // terms that are summed together
constexpr int SMALL_BLOCK = 64;  // values with a maximum
constexpr int LANES       = 16;  // independent accumulators in plain loops, which compilers turn into vectors

struct select_kernels {
    const char * name;
    void (*range)(const float * x, int64_t n, ggml_select_range & result);
    int64_t (*at_least)(const float * x, int64_t n, float threshold, int32_t first, int32_t * indices);
    // of BLOCK values; there is room for all
    int (*values_at_least)(const float * x, float threshold, float * values);
    int64_t (*count_at_least)(const float * x, int64_t n, float threshold);
    // of SMALL_BLOCK values each, all but NaN
    void (*block_maxima)(const float * x, int64_t n_blocks, float * maxima);
    void (*exp)(const float * x, int64_t n, float max, float * e);
    // The sum of BLOCK terms, each rounded to a multiple of unit, to even; false if one lay half way between two, where the direction
    // depends on what it is added to. Adding ROUNDING_SHIFT units to a term, and taking them off, leaves no digit below a unit.
    bool (*rounded_sum)(const float * terms, double unit, double & sum);
    // The sum of the exponentials of BLOCK values less max, each rounded to a multiple of 2^-exponent, in these units, -40 <= exponent <= 120.
    // From exponentials that are a bit wrong: false where that could change what one is rounded to.
    bool (*rough_sum)(const float * x, float max, int exponent, double & sum);
    double (*sum_any_order)(const float * terms, int64_t n);
    void (*divide)(const float * x, int64_t n, float by, float * y);
};

constexpr double ROUNDING_SHIFT = 0x1.8p52;  // in the middle of the doubles whose last digit is 1
constexpr float  ROUGH_SHIFT    = 0x1.8p23f; // likewise of the floats
constexpr float  ROUGH_ERROR    = 0x1p-21f;  // relative, of rough exponentials
constexpr float  ROUGH_LOWEST   = -40.0f;    // below, a power of two may be subnormal

int64_t at_least_scalar(const float * x, int64_t n, float threshold, int32_t first, int32_t * indices) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i) {
        indices[count] = first + (int32_t) i;
        count += x[i] >= threshold;
    }
    return count;
}

void exp_scalar(const float * x, int64_t n, float max, float * e) {
    for (int64_t i = 0; i < n; ++i) {
        e[i] = expf(x[i] - max);
    }
}

// expf() of glibc, musl and bionic for x <= 0, where they have fused multiply-adds (Arm's optimized-routines, MIT licence):
// x = (k + r) ln 2/32, exp(x) = 2^(k/32) (C0 r^3 + C1 r^2 + C2 r + 1) in double. start_kernels() checks that this libm agrees.
constexpr double EXP_SCALE  = 0x1.71547652b82fep+0 * 32;
constexpr double EXP_SHIFT  = 0x1.8p52;
constexpr double EXP_C0     = 0x1.c6af84b912394p-5 / 32 / 32 / 32;
constexpr double EXP_C1     = 0x1.ebfce50fac4f3p-3 / 32 / 32;
constexpr double EXP_C2     = 0x1.62e42ff0c52d6p-1 / 32;
constexpr float  EXP_LOWEST = -150.0f; // from there down exp is 0 in float

// 2^(i/32) as bits, less i << 47, so that k << 47 is all there is to add
// clang-format off
constexpr uint64_t EXP_TABLE[32] = {
    0x3ff0000000000000, 0x3fefd9b0d3158574, 0x3fefb5586cf9890f, 0x3fef9301d0125b51,
    0x3fef72b83c7d517b, 0x3fef54873168b9aa, 0x3fef387a6e756238, 0x3fef1e9df51fdee1,
    0x3fef06fe0a31b715, 0x3feef1a7373aa9cb, 0x3feedea64c123422, 0x3feece086061892d,
    0x3feebfdad5362a27, 0x3feeb42b569d4f82, 0x3feeab07dd485429, 0x3feea47eb03a5585,
    0x3feea09e667f3bcd, 0x3fee9f75e8ec5f74, 0x3feea11473eb0187, 0x3feea589994cce13,
    0x3feeace5422aa0db, 0x3feeb737b0cdc5e5, 0x3feec49182a3f090, 0x3feed503b23e255d,
    0x3feee89f995ad3ad, 0x3feeff76f2fb5e47, 0x3fef199bdd85529c, 0x3fef3720dcef9069,
    0x3fef5818dcfba487, 0x3fef7c97337b9b5f, 0x3fefa4afa2a490da, 0x3fefd0765b6e4540,
};
// clang-format on

// each set of kernels, compiled for its own CPUs

namespace scalar {
constexpr const char * NAME = "scalar";

int64_t at_least(const float * x, int64_t n, float threshold, int32_t first, int32_t * indices) {
    return at_least_scalar(x, n, threshold, first, indices);
}

void exp(const float * x, int64_t n, float max, float * e) {
    exp_scalar(x, n, max, e);
}

#include "ggml-select-plain.h"

#include "ggml-select-kernels.h"
} // namespace scalar

#if defined(__x86_64__) || defined(_M_X64)

#    if defined(_MSC_VER) && !defined(__clang__)
inline int lowest_bit(uint32_t bits) {
    unsigned long at;
    _BitScanForward(&at, bits);
    return (int) at;
}

inline int count_bits(uint32_t bits) {
    return (int) __popcnt(bits);
}
#    else
#        define lowest_bit(bits) __builtin_ctz(bits)
#        define count_bits(bits) __builtin_popcount(bits)
#    endif

#    if defined(__clang__)
#        pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#    elif defined(__GNUC__)
#        pragma GCC push_options
#        pragma GCC target("avx2,fma")
#    endif
namespace avx2 {
#    include "ggml-select-avx2.h"
#    include "ggml-select-kernels.h"
} // namespace avx2
#    if defined(__clang__)
#        pragma clang attribute pop
#        pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt"))), apply_to = function)
#    elif defined(__GNUC__)
#        pragma GCC pop_options
#        pragma GCC push_options
#        pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt")
#    endif
namespace avx512 {
#    include "ggml-select-avx512.h"
#    include "ggml-select-kernels.h"
} // namespace avx512
#    if defined(__clang__)
#        pragma clang attribute pop
#    elif defined(__GNUC__)
#        pragma GCC pop_options
#    endif

#    if defined(_MSC_VER) && !defined(__clang__)
bool has_avx2() {
    int id[4];
    __cpuid(id, 1);
    const bool saves_ymm = (id[2] & (1 << 27)) && (_xgetbv(0) & 6) == 6;
    const bool has_fma   = id[2] & (1 << 12);
    __cpuidex(id, 7, 0);
    return saves_ymm && has_fma && (id[1] & (1 << 5));
}

bool has_avx512() {
    int id[4];
    __cpuidex(id, 7, 0);
    const int wanted = 1 << 16 | 1 << 17 | 1 << 30 | (int) (1u << 31);
    return has_avx2() && (_xgetbv(0) & 0xe6) == 0xe6 && (id[1] & wanted) == wanted;
}
#    else
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#    endif

#elif defined(__aarch64__) || defined(_M_ARM64)

namespace neon {
#    include "ggml-select-neon.h"
#    include "ggml-select-plain.h"
#    include "ggml-select-kernels.h"
} // namespace neon

#endif

// the kernels that this CPU can run, best first
std::vector<const select_kernels *> find_kernels() {
    std::vector<const select_kernels *> found;
#if defined(__x86_64__) || defined(_M_X64)
    if (has_avx512()) {
        found.push_back(&avx512::KERNELS);
    }
    if (has_avx2()) {
        found.push_back(&avx2::KERNELS);
    }
#elif defined(__aarch64__) || defined(_M_ARM64)
    found.push_back(&neon::KERNELS);
#endif
    found.push_back(&scalar::KERNELS);
    return found;
}

// What differs between sums in float and in double: the distance between neighbours from 1 to 2, and adding a term.
struct in_float {
    static constexpr double unit = 0x1p-23;

    static double add(double sum, float term) { return (float) sum + term; }
};

struct in_double {
    static constexpr double unit = 0x1p-52;

    static double add(double sum, float term) { return sum + term; }
};

// A sum that is rounded as if terms were added one by one: between two powers of two all sums are multiples of one unit, so that
// each term of a block is rounded to units by itself, and their order does not matter.
template <typename in> struct ordered_sum {
    const select_kernels & kernels;
    double                 value = 0;

    // Of how many blocks the terms are added one by one, after one where that was necessary: the next ones are likely to be alike.
    int n_plain = 0;

    // no smaller than this, so that no unit is subnormal
    static constexpr double LEAST = 0x1p-100;

    // the power of two below the value
    double binade() const { return std::ldexp(1.0, std::ilogb(value)); }

    // Adds BLOCK terms unless a power of two is reached or a term is half way between two units.
    bool add_block(const float * terms) {
        if (value < LEAST || n_plain > 0) {
            n_plain = std::max(0, n_plain - 1);
            return false;
        }
        const double low = binade();
        double       added;
        if (!kernels.rounded_sum(terms, low * in::unit, added)) {
            n_plain = 3;
            return false;
        }
        if (value + added >= 2 * low) {
            return false;
        }
        value += added;
        return true;
    }

    void add(const float * terms, int64_t n) {
        if (n == BLOCK && add_block(terms)) {
            return;
        }
        double sum = value;
        for (int64_t i = 0; i < n; ++i) {
            sum = in::add(sum, terms[i]);
        }
        value = sum;
    }

    // Adds terms until a target is reached, and returns the index of the last one, or n.
    int64_t add_until(const float * terms, int64_t n, double target) {
        for (int64_t i = 0; i < n;) {
            const int64_t end    = std::min<int64_t>(i + BLOCK, n);
            const double  before = value;
            if (end - i == BLOCK && add_block(terms + i)) {
                if (value < target) {
                    i = end;
                    continue;
                }
                value = before;
            }
            double sum = value;
            for (; i < end; ++i) {
                sum = in::add(sum, terms[i]);
                if (sum >= target) {
                    value = sum;
                    return i;
                }
            }
            value = sum;
        }
        return n;
    }
};

// The sum of exponentials, and what follows from its size.
struct sum_of_exp {
    const select_kernels & kernels;
    const float            max;
    ordered_sum<in_float>  sum{ kernels };
    double                 low    = 0;         // the power of two below the sum, when it is large enough
    int                    digits = 0;         // of fractions, that it has room for
    float                  lowest = -INFINITY; // what lies below rounds to nothing

    // BLOCK logits, which are lost
    void add_block(float * logits) {
        double units;
        if (low > 0 && kernels.rough_sum(logits, max, digits, units)) {
            const double value = sum.value + units * low * in_float::unit;
            if (value < 2 * low) {
                sum.value = value;
                return;
            }
        }
        kernels.exp(logits, BLOCK, max, logits);
        sum.add(logits, BLOCK);
        if (sum.value >= 2 * low && sum.value > sum.LEAST) {
            low    = sum.binade();
            digits = 23 - std::ilogb(low);
            lowest = max + (float) std::log(low * in_float::unit / 2) - 0.01f - 1e-6f * std::fabs(max);
        }
    }
};

float exp_sum(const select_kernels & kernels, const float * x, int64_t n, float max) {
    sum_of_exp        result{ kernels, max };
    alignas(64) float logits[2 * BLOCK];
    int               n_logits = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        if (n - i >= BLOCK) {
            n_logits += kernels.values_at_least(x + i, result.lowest, logits + n_logits);
        } else {
            n_logits = (int) (std::copy(x + i, x + n, logits + n_logits) - logits);
        }
        if (n_logits >= BLOCK) {
            result.add_block(logits);
            n_logits = (int) (std::copy(logits + BLOCK, logits + n_logits, logits) - logits);
        }
    }
    kernels.exp(logits, n_logits, max, logits);
    result.sum.add(logits, n_logits);
    return (float) result.sum.value;
}

// Whether the kernels agree with libm and with plain sums, on values that are spread over all that exp has.
bool is_exact(const select_kernels & kernels) {
    constexpr int      n = 16 * BLOCK;
    std::vector<float> x(n), e(n);
    uint32_t           state = 1;
    for (int i = 0; i < n; ++i) {
        state = state * 1664525 + 1013904223;
        x[i]  = -(float) (state >> 8) * 0x1p-24f * (i % 2 ? 110.0f : 4.0f);
    }
    x[n / 2] = 0;
    kernels.exp(x.data(), n, 0.0f, e.data());
    float  sum        = 0;
    double sum_double = 0;
    for (int i = 0; i < n; ++i) {
        if (e[i] != expf(x[i])) {
            return false;
        }
        sum += e[i];
        sum_double += e[i];
    }
    ordered_sum<in_double> in_blocks{ kernels };
    for (int i = 0; i < n; i += BLOCK) {
        in_blocks.add(e.data() + i, BLOCK);
    }
    return exp_sum(kernels, x.data(), n, 0.0f) == sum && in_blocks.value == sum_double;
}

// Kernels with an exp that this libm does not agree with get libm's.
const select_kernels * checked(const select_kernels & kernels) {
    static select_kernels with_libm;
    if (is_exact(kernels)) {
        return &kernels;
    }
    with_libm     = kernels;
    with_libm.exp = exp_scalar;
    return is_exact(with_libm) ? &with_libm : &scalar::KERNELS;
}

const select_kernels * kernels_named(const char * name) {
    for (const select_kernels * kernels : find_kernels()) {
        if (strcmp(kernels->name, name) == 0) {
            return checked(*kernels);
        }
    }
    return nullptr;
}

const select_kernels * start_kernels() {
    const char * env = getenv("GGML_SELECT_KERNEL");
    if (env && *env) {
        if (const select_kernels * forced = kernels_named(env)) {
            return forced;
        }
        std::string names;
        for (const select_kernels * kernels : find_kernels()) {
            names += (names.empty() ? "" : " or ") + std::string(kernels->name);
        }
        GGML_LOG_WARN("select: there is no kernel '%s' here, GGML_SELECT_KERNEL is ignored: set it to %s\n", env, names.c_str());
    }
    return checked(*find_kernels().front());
}

const select_kernels *& current() {
    static const select_kernels * kernels = start_kernels();
    return kernels;
}

bool is_nan(float x) {
    return x != x;
}

// A threshold that rises with the k-th largest value of what was seen so far.
struct rising_threshold {
    const int64_t      k;
    std::vector<float> largest; // the k largest, and what was added since
    float              value = -INFINITY;

    void add(float x) {
        if (!is_nan(x)) {
            largest.push_back(x);
        }
    }

    void raise() {
        std::nth_element(largest.begin(), largest.begin() + k - 1, largest.end(), std::greater<float>());
        largest.resize(k);
        value = largest[k - 1];
    }
};

// The algorithm keeps a heap of the k largest so far, and moves what is larger than the least of them. So a value may be left out
// if it is not larger than the k-th largest of some part of the row before it.
int64_t top_with_ties(const select_kernels & kernels, const float * x, int64_t n, int64_t k, int32_t * indices) {
    constexpr int64_t MIN_STEP = 256, MAX_STEP = 4096;
    rising_threshold  threshold{ k, {} };

    const bool    has_order = std::none_of(x, x + k, is_nan); // in the heap of the first k
    const int64_t first     = has_order ? std::min(n, std::max(2 * k, MIN_STEP)) : n;
    for (int64_t i = 0; i < first; ++i) {
        indices[i] = (int32_t) i;
    }
    if (first == n) {
        return n;
    }
    threshold.largest.reserve(first + MAX_STEP);
    std::for_each(x, x + first, [&](float v) { threshold.add(v); });
    threshold.raise();

    const int64_t enough = k + std::max<int64_t>(16, k / 2);
    int64_t       count  = first;
    for (int64_t i = first, step = first; i < n; i += step) {
        step                = std::min({ i, MAX_STEP, n - i });
        const float   above = std::nextafterf(threshold.value, INFINITY);
        const int64_t added = kernels.at_least(x + i, step, above, (int32_t) i, indices + count);
        for (int64_t j = count; j < count + added; ++j) {
            threshold.add(x[indices[j]]);
        }
        count += added;
        if ((int64_t) threshold.largest.size() >= enough) {
            threshold.raise();
        }
    }
    return count;
}

// A threshold that at least k of these reach, and not many more if there is one.
float threshold_for(const select_kernels & kernels, const float * x, int64_t n, int64_t k) {
    ggml_select_range range;
    kernels.range(x, n, range);
    float reached = range.min, missed = range.max;
    for (int i = 0; i < 24; ++i) {
        const float   middle            = reached + (missed - reached) / 2;
        const int64_t count             = kernels.count_at_least(x, n, middle);
        (count >= k ? reached : missed) = middle;
        if (count >= k && count <= k + 2 + k / 16) {
            break;
        }
    }
    return reached;
}

// Where the k largest and the next are all different, their order is the same for every algorithm. At least k values reach what the
// maxima of k blocks reach. Returns 0 for rows with ties, or too short, or with most values in few blocks.
int64_t top_without_ties(const select_kernels & kernels, const float * x, int64_t n, int64_t k, int32_t * indices) {
    const int64_t n_blocks = n / SMALL_BLOCK;
    const int64_t rest     = n_blocks * SMALL_BLOCK;
    if (n_blocks < 2 * k || std::any_of(x, x + k, is_nan)) {
        return 0;
    }
    static thread_local std::vector<float>   maxima, values;
    static thread_local std::vector<int32_t> blocks;
    maxima.resize(n_blocks);
    kernels.block_maxima(x, n_blocks, maxima.data());
    const float threshold = threshold_for(kernels, maxima.data(), n_blocks, k);
    if (!(threshold > -INFINITY) || kernels.count_at_least(maxima.data(), n_blocks, threshold) > 2 * k + 16) {
        return 0;
    }
    blocks.resize(n_blocks);
    blocks.resize(kernels.at_least(maxima.data(), n_blocks, threshold, 0, blocks.data()));
    int64_t count = 0;
    for (int32_t block : blocks) {
        const int32_t first = block * SMALL_BLOCK;
        count += kernels.at_least(x + first, SMALL_BLOCK, threshold, first, indices + count);
    }
    count += kernels.at_least(x + rest, n - rest, threshold, (int32_t) rest, indices + count);

    values.resize(count);
    std::transform(indices, indices + count, values.begin(), [&](int32_t i) { return x[i]; });
    const auto sorted_end = values.begin() + std::min(count, k + 1);
    std::partial_sort(values.begin(), sorted_end, values.end(), std::greater<float>());
    return std::adjacent_find(values.begin(), sorted_end) == sorted_end ? count : 0;
}

} // namespace

const char * ggml_select_kernel(void) {
    return current()->name;
}

bool ggml_select_set_kernel(const char * name) {
    const select_kernels * kernels = kernels_named(name);
    if (kernels) {
        current() = kernels;
    }
    return kernels != nullptr;
}

struct ggml_select_range ggml_select_find_range(const float * x, int64_t n) {
    ggml_select_range result;
    current()->range(x, n, result);
    return result;
}

int64_t ggml_select_at_least(const float * x, int64_t n, float threshold, int32_t * indices) {
    return current()->at_least(x, n, threshold, 0, indices);
}

int64_t ggml_select_values_at_least(const float * x, int64_t n, float threshold, float * values) {
    const select_kernels & kernels = *current();
    int64_t                count   = 0;
    int64_t                i       = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        count += kernels.values_at_least(x + i, threshold, values + count);
    }
    for (; i < n; ++i) {
        const float value = x[i];
        if (value >= threshold) {
            values[count++] = value;
        }
    }
    return count;
}

int64_t ggml_select_largest(const float * x, int64_t n, int64_t k, int32_t * indices) {
    const select_kernels &                 kernels  = *current();
    const int64_t                          n_blocks = n / SMALL_BLOCK;
    static thread_local std::vector<float> maxima;
    if (n_blocks < k) {
        return 0;
    }
    maxima.resize(n_blocks);
    kernels.block_maxima(x, n_blocks, maxima.data());
    const float threshold = threshold_for(kernels, maxima.data(), n_blocks, k);
    if (!(threshold > -INFINITY)) {
        return 0;
    }
    int64_t count = 0;
    for (int64_t block = 0; block < n_blocks; ++block) {
        if (maxima[block] >= threshold) {
            const int64_t first = block * SMALL_BLOCK;
            count += kernels.at_least(x + first, SMALL_BLOCK, threshold, (int32_t) first, indices + count);
        }
    }
    const int64_t rest = n_blocks * SMALL_BLOCK;
    return count + kernels.at_least(x + rest, n - rest, threshold, (int32_t) rest, indices + count);
}

int64_t ggml_select_top_candidates(const float * x, int64_t n, int64_t k, int32_t * indices) {
    const select_kernels & kernels = *current();
    const int64_t          count   = top_without_ties(kernels, x, n, k, indices);
    return count ? count : top_with_ties(kernels, x, n, k, indices);
}

void ggml_select_exp(const float * x, int64_t n, float max, float * e) {
    current()->exp(x, n, max, e);
}

float ggml_select_exp_sum(const float * x, int64_t n, float max) {
    return exp_sum(*current(), x, n, max);
}

double ggml_select_sum(const float * terms, int64_t n) {
    ordered_sum<in_double> sum{ *current() };
    for (int64_t i = 0; i < n; i += BLOCK) {
        sum.add(terms + i, std::min<int64_t>(BLOCK, n - i));
    }
    return sum.value;
}

int64_t ggml_select_reach(const float * terms, int64_t n, double target) {
    return ordered_sum<in_double>{ *current() }.add_until(terms, n, target);
}

int64_t ggml_select_reach_f32(const float * terms, int64_t n, float target, float * sum) {
    ordered_sum<in_float> so_far{ *current(), *sum };
    const int64_t         at = so_far.add_until(terms, n, target);
    *sum                     = (float) so_far.value;
    return at;
}

bool ggml_select_add_f32(const float * terms, int64_t n, float limit, float * sum) {
    const select_kernels &      kernels = *current();
    const ordered_sum<in_float> so_far{ kernels, *sum };
    if (so_far.value < so_far.LEAST) {
        return false;
    }
    const double low   = so_far.binade();
    double       value = so_far.value;
    for (int64_t i = 0; i < n; i += BLOCK) {
        float         padded[BLOCK] = {};
        const float * block         = terms + i;
        if (n - i < BLOCK) {
            std::copy(terms + i, terms + n, padded);
            block = padded;
        }
        double added;
        if (!kernels.rounded_sum(block, low * in_float::unit, added)) {
            return false;
        }
        value += added;
    }
    if (value >= 2 * low || value >= limit) {
        return false;
    }
    *sum = (float) value;
    return true;
}

double ggml_select_sum_any_order(const float * terms, int64_t n) {
    return current()->sum_any_order(terms, n);
}

void ggml_select_divide(const float * x, int64_t n, float by, float * y) {
    current()->divide(x, n, by, y);
}
