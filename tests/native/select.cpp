// The kernels of ggml-select.cpp against plain loops.
//
//   select         rows of many kinds and lengths
//   select exp     every float from -150 to 0 through exp
//
// Prints a JSON object for each kernel that this CPU has.

#include "logits_kinds.h"

#include "ggml-select.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

// of ggml.c, which this program does without
extern "C" void ggml_log_internal(enum ggml_log_level, const char *, ...) {}

namespace {

const char * const KERNELS[] = { "avx512", "avx2", "neon", "scalar" };

void check(bool same, const char * what, const char * kind, size_t n) {
    if (!same) {
        printf("%s: %s of %zu logits, %s, is not what the plain loop gives\n", ggml_select_kernel(), what, n, kind);
        exit(1);
    }
}

void check_sums(const row & x, float max, const char * kind) {
    const int64_t n = x.size();
    row           e(n), expected(n);
    float         sum        = 0;
    double        sum_double = 0;
    ggml_select_exp(x.data(), n, max, e.data());
    for (int64_t i = 0; i < n; ++i) {
        expected[i] = expf(x[i] - max);
        sum += expected[i];
        sum_double += expected[i];
    }
    check(memcmp(e.data(), expected.data(), n * sizeof(float)) == 0, "exp", kind, n);
    check(ggml_select_exp_sum(x.data(), n, max) == sum, "exp_sum", kind, n);
    check(ggml_select_sum(e.data(), n) == sum_double, "sum", kind, n);
    for (double share : { 0.0, 0.3, 0.95, 1.0, 2.0 }) {
        int64_t at     = 0;
        double  so_far = 0;
        while (at < n && (so_far += e[at]) < share * sum_double) {
            ++at;
        }
        check(ggml_select_reach(e.data(), n, share * sum_double) == at, "reach", kind, n);
        float single = 0.25f, found = 0.25f;
        for (at = 0; at < n && (single += e[at]) < (float) share * sum;) {
            ++at;
        }
        check(ggml_select_reach_f32(e.data(), n, (float) share * sum, &found) == at && found == single, "reach_f32", kind, n);
    }
}

// What is computed in any order.
void check_any_order(const row & x, float max, const char * kind) {
    const int64_t n = x.size();
    row           e(n), quotients(n);
    ggml_select_exp(x.data(), n, max, e.data());
    double exact = 0;
    for (float term : e) {
        exact += term;
    }
    check(std::fabs(ggml_select_sum_any_order(e.data(), n) - exact) <= 1e-13 * (double) n * exact, "sum_any_order", kind, n);
    ggml_select_divide(e.data(), n, 3.7f, quotients.data());
    for (int64_t i = 0; i < n; ++i) {
        check(quotients[i] == e[i] / 3.7f, "divide", kind, n);
    }
    for (float start : { 0.0f, 1e-3f, 0.3f, 5.0f, 1000.0f }) {
        for (float limit : { 0.9f, 900.0f, INFINITY }) {
            float found = start, there = start, back = start;
            for (int64_t i = 0; i < n; ++i) {
                there += e[i];
                back += e[n - 1 - i];
            }
            const bool is_added = ggml_select_add_f32(e.data(), n, limit, &found);
            check(is_added ? found == there && found == back && found < limit : found == start, "add_f32", kind, n);
        }
    }
}

void check_row(const row & x, const char * kind, generator & random) {
    const int64_t     n     = x.size();
    ggml_select_range range = { -INFINITY, INFINITY, false };
    for (float v : x) {
        range.max     = v > range.max ? v : range.max;
        range.min     = v < range.min ? v : range.min;
        range.has_nan = range.has_nan || v != v;
    }
    const ggml_select_range found = ggml_select_find_range(x.data(), n);
    check(found.max == range.max && found.min == range.min && found.has_nan == range.has_nan, "range", kind, n);

    std::vector<int32_t> indices(n), expected;
    row                  values(n);
    for (float threshold : { -INFINITY, -1.0f, x[below(random, (int) n)], range.max, INFINITY }) {
        expected.clear();
        for (int64_t i = 0; i < n; ++i) {
            if (x[i] >= threshold) {
                expected.push_back((int32_t) i);
            }
        }
        const int64_t count = ggml_select_at_least(x.data(), n, threshold, indices.data());
        check(count == (int64_t) expected.size() && std::equal(expected.begin(), expected.end(), indices.begin()), "at_least", kind, n);
        const auto is_value = [&](int32_t i, float value) {
            return memcmp(&x[i], &value, sizeof(value)) == 0;
        };
        const int64_t n_values = ggml_select_values_at_least(x.data(), n, threshold, values.data());
        check(n_values == count && std::equal(expected.begin(), expected.end(), values.begin(), is_value), "values_at_least", kind, n);
    }
    for (int64_t k : { 1, 2, 40, 128, 256, 3000 }) {
        k                 = std::min(k, n);
        const auto larger = [&](int32_t a, int32_t b) {
            return x[a] > x[b];
        };
        expected.resize(n);
        for (int64_t i = 0; i < n; ++i) {
            expected[i] = (int32_t) i;
        }
        std::partial_sort(expected.begin(), expected.begin() + k, expected.end(), larger);
        const int64_t count = ggml_select_top_candidates(x.data(), n, k, indices.data());
        check(count >= k && count <= n, "number of candidates", kind, n);
        std::partial_sort(indices.begin(), indices.begin() + k, indices.begin() + count, larger);
        check(std::equal(expected.begin(), expected.begin() + k, indices.begin()), "top", kind, n);
        const int64_t n_largest = range.has_nan ? 0 : ggml_select_largest(x.data(), n, k, indices.data());
        if (n_largest > 0) {
            const int32_t least   = *std::max_element(indices.begin(), indices.begin() + n_largest, larger);
            const int64_t reached = std::count_if(x.begin(), x.end(), [&](float v) { return v >= x[least]; });
            check(n_largest >= k && n_largest == reached, "largest", kind, n);
        }
    }
    if (!range.has_nan && std::isfinite(range.max)) {
        check_sums(x, range.max, kind);
        check_any_order(x, range.max, kind);
    }
}

int kernels() {
    for (const char * name : KERNELS) {
        if (!ggml_select_set_kernel(name)) {
            continue;
        }
        generator random(17);
        long      rows = 0;
        for (const kind & k : kinds()) {
            for (int n : { 1, 2, 15, 16, 63, 64, 65, 127, 128, 129, 1000, 4096, 9973, 40000 }) {
                row x(n);
                k.fill(x, random);
                check_row(x, k.name, random);
                rows++;
            }
        }
        printf("{\"kernel\":\"%s\",\"rows\":%ld}\n", ggml_select_kernel(), rows);
    }
    return 0;
}

// Every float from -150 to 0, alone and in sums.
int all_of_exp() {
    constexpr uint32_t FIRST = 0x80000000u, LAST = 0xc3160000u, STEP = 1 << 16;
    for (const char * name : KERNELS) {
        if (!ggml_select_set_kernel(name)) {
            continue;
        }
        row  x(STEP), e(STEP);
        long different = 0;
        for (uint32_t first = FIRST; first < LAST; first += STEP) {
            for (uint32_t i = 0; i < STEP; ++i) {
                const uint32_t bits = first + i;
                memcpy(&x[i], &bits, sizeof(bits));
            }
            ggml_select_exp(x.data(), STEP, 0.0f, e.data());
            float sum = 0;
            for (uint32_t i = 0; i < STEP; ++i) {
                different += e[i] != expf(x[i]);
                sum += expf(x[i]);
            }
            different += ggml_select_exp_sum(x.data(), STEP, 0.0f) != sum;
        }
        printf("{\"kernel\":\"%s\",\"different\":%ld}\n", ggml_select_kernel(), different);
    }
    return 0;
}

} // namespace

int main(int argc, char ** argv) {
    return argc > 1 && std::string(argv[1]) == "exp" ? all_of_exp() : kernels();
}
