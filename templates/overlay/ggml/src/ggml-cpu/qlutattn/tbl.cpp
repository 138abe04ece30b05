// Preparing x, choosing an implementation, and the last step in float.
// The lookup of sums of products follows T-MAC; accumulating bytes in 16 bits follows FAISS's 4-bit fast scan.

#include "tbl.h"

#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "tbl-acc.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

// the kernel named in the environment, if this build has it
static const std::string & forced_kernel() {
    static const std::string name = [] {
        const char *      env = getenv("GGML_QLUTATTN_KERNEL");
        const std::string wanted(env ? env : "");
        if (wanted.empty() || wanted == "dot" || wanted == "dot-scalar") {
            return wanted;
        }
#ifdef GGML_USE_TMAC
        if (wanted == "lut" || wanted == "lut-scalar") {
            return wanted;
        }
#endif
        GGML_LOG_WARN("qlutattn: this build has no kernel '%s', GGML_QLUTATTN_KERNEL is ignored\n", env);
        return std::string();
    }();
    return name;
}

static bool is_scalar_forced() {
    static const bool forced = forced_kernel().find("-scalar") != std::string::npos;
    return forced;
}

qlutattn_kernel qlutattn_get_kernel(enum ggml_type type) {
    const std::string & forced = forced_kernel();
    if (!forced.empty()) {
        return forced[0] == 'l' ? QLUTATTN_KERNEL_LUT : QLUTATTN_KERNEL_DOT;
    }
#ifdef GGML_USE_TMAC
    return qlutattn_get_kernel_config(type)->layout == QLUTATTN_LAYOUT_LOOKUP ? QLUTATTN_KERNEL_LUT : QLUTATTN_KERNEL_DOT;
#else
    GGML_UNUSED(type);
    return QLUTATTN_KERNEL_DOT;
#endif
}

extern "C" const char * ggml_qlutattn_kernel_name(enum ggml_type type) {
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(type);
    if (!config) {
        return nullptr;
    }
    const qlutattn_kernel    kernel      = qlutattn_get_kernel(type);
    const bool               is_simd     = !is_scalar_forced() && qlutattn_has_simd(*config, kernel);
    static const std::string simd        = qlutattn_simd_name() ? qlutattn_simd_name() : "scalar";
    static const std::string dot         = QLUTATTN_DOT_MAX < 127 ? "dot7-" : "dot-";
    static const std::string names[2][2] = {
        { "lut-scalar",   "lut-" + simd },
        { dot + "scalar", dot + simd    }
    };
    return names[kernel == QLUTATTN_KERNEL_DOT][is_simd].c_str();
}

// below this x counts as zero, so that the inverse of the step stays finite
static constexpr float QLUTATTN_TINY = 1e-30f;

// the largest magnitude of n values, n a multiple of 16; NaN or infinite values give a result that is not finite
static float max_magnitude(const float * values, int n) {
    float max[16] = { 0 }; // 16 independent maxima, so that compilers vectorise
    float sum[16] = { 0 }; // stays 0 as long as values are finite
    for (int i = 0; i < n; i += 16) {
        for (int j = 0; j < 16; j++) {
            const float magnitude = std::fabs(values[i + j]);
            max[j]                = magnitude > max[j] ? magnitude : max[j];
            sum[j] += values[i + j] * 0.0f;
        }
    }
    for (int j = 1; j < 16; j++) {
        max[0] = max[j] > max[0] ? max[j] : max[0];
        sum[0] += sum[j];
    }
    return max[0] + sum[0];
}

// round values to integers of magnitude up to top, with one step for all, and add the bias; returns the step
static float quantise(const float * values, int n, float top, int bias, uint8_t * units) {
    const float max = max_magnitude(values, n);
    if (!(max >= QLUTATTN_TINY) || std::isinf(max)) {
        memset(units, bias, n);
        return max < QLUTATTN_TINY ? 0.0f : NAN;
    }
    // adding and subtracting 1.5*2^23 rounds to the nearest integer, ties to even
    const float round   = 12582912.0f;
    const float inverse = top / max;
    for (int i = 0; i < n; i++) {
        units[i] = (uint8_t) ((int32_t) ((values[i] * inverse + round) - round) + bias);
    }
    return max / top;
}

// the table entries of x: entry n of nibble g is the sum of level*x over the nibble's depths, their codes being the bit fields of n
template <int bits> static void fill_entries(const int8_t * levels, const float * x, int n_depth, float * entries) {
    constexpr int per_nibble = 4 / bits;
    float         of[per_nibble][16]; // the level that field i of n selects
    for (int i = 0; i < per_nibble; i++) {
        for (int n = 0; n < 16; n++) {
            of[i][n] = levels[n >> (i * bits) & ((1 << bits) - 1)];
        }
    }
    for (int g = 0; g < n_depth / per_nibble; g++) {
        for (int n = 0; n < 16; n++) {
            float entry = of[0][n] * x[g * per_nibble];
            for (int i = 1; i < per_nibble; i++) {
                entry += of[i][n] * x[g * per_nibble + i];
            }
            entries[g * 16 + n] = entry;
        }
    }
}

void qlutattn_tbl_build(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const float * x, int n_depth, qlutattn_tbl & tbl) {
    float sum[16] = { 0 };
    for (int d = 0; d < n_depth; d += 16) {
        for (int j = 0; j < 16; j++) {
            sum[j] += x[d + j];
        }
    }
    tbl.sum = 0.0f;
    for (int j = 0; j < 16; j++) {
        tbl.sum += sum[j];
    }

    if (kernel == QLUTATTN_KERNEL_DOT) {
        tbl.step      = quantise(x, n_depth, QLUTATTN_DOT_MAX, 0, tbl.units) / QLUTATTN_LEVEL_UNIT;
        tbl.units_sum = 0;
        for (int d = 0; d < n_depth; d++) {
            tbl.units_sum += (int8_t) tbl.units[d];
        }
        return;
    }
    alignas(64) float entries[PACK_SIZE * 16];
    switch (config.bits) {
        case 1:
            fill_entries<1>(config.levels, x, n_depth, entries);
            break;
        case 2:
            fill_entries<2>(config.levels, x, n_depth, entries);
            break;
        case 4:
            fill_entries<4>(config.levels, x, n_depth, entries);
            break;
    }
    tbl.step = quantise(entries, n_depth / config.depths_per_nibble() * 16, 127.0f, QLUTATTN_LUT_BIAS, tbl.units) / QLUTATTN_LEVEL_UNIT;
}

void qlutattn_tbl_mul(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const void * tile, const qlutattn_span & span,
                      const qlutattn_tbl * const * tbls, int n_rows, float * const * y) {
    GGML_ASSERT(n_rows <= QLUTATTN_ROWS);
    alignas(64) qlutattn_acc acc;

    if (!is_scalar_forced() && qlutattn_has_simd(config, kernel)) {
        qlutattn_acc_simd(config, kernel, (const uint8_t *) tile, span, tbls, n_rows, acc);
    } else {
        qlutattn_acc_scalar(config, kernel, (const uint8_t *) tile, span, tbls, n_rows, acc);
    }

    alignas(64) float scales[PACK_SIZE];
    alignas(64) float offsets[PACK_SIZE];
    ggml_cpu_fp16_to_fp32(config.scales(tile) + span.lane0, scales, span.n_lanes);
    ggml_cpu_fp16_to_fp32(config.offsets(tile) + span.lane0, offsets, span.n_lanes);
    for (int r = 0; r < n_rows; r++) {
        const float step = tbls[r]->step;
        const float sum  = tbls[r]->sum;
        for (int i = 0; i < span.n_lanes; i++) {
            y[r][i] += scales[i] * (step * acc[r][i]) + offsets[i] * sum;
        }
    }
}
