// Rounding x, and choosing a kernel and its implementation.

#include "tbl.h"

#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "simd-f32.h"
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
    return qlutattn_get_kernel_config(type)->kernel;
#else
    GGML_UNUSED(type);
    return QLUTATTN_KERNEL_DOT;
#endif
}

int qlutattn_units_max(const qlutattn_kernel_config & config, qlutattn_kernel kernel) {
    if (kernel == QLUTATTN_KERNEL_LUT) {
        return 63; // the sum of four fits a byte
    }
    return config.bits == 4 && config.lane_is_token && qlutattn_simd_is_narrow() ? 64 : 127;
}

extern "C" const char * ggml_qlutattn_kernel_name(enum ggml_type type) {
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(type);
    if (!config) {
        return nullptr;
    }
    const qlutattn_kernel    kernel      = qlutattn_get_kernel(type);
    const bool               is_simd     = !is_scalar_forced() && qlutattn_has_simd(*config, kernel);
    static const std::string simd        = qlutattn_simd_name() ? qlutattn_simd_name() : "scalar";
    static const std::string names[3][2] = {
        { "lut-scalar",  "lut-" + simd  },
        { "dot-scalar",  "dot-" + simd  },
        { "dot7-scalar", "dot7-" + simd },
    };
    const int arithmetic = kernel == QLUTATTN_KERNEL_LUT ? 0 : qlutattn_units_max(*config, kernel) == 127 ? 1 : 2;
    return names[arithmetic][is_simd].c_str();
}

// below this x counts as zero, so that the inverse of the step stays finite
static constexpr float QLUTATTN_TINY = 1e-30f;

void qlutattn_tbl_build(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const float * x, int n_depth, qlutattn_tbl & tbl) {
    namespace f32 = qlutattn_f32;

    f32::vec largest = f32::set(0.0f);
    f32::vec sum     = f32::set(0.0f);
    f32::vec poison  = f32::set(0.0f); // stays 0 as long as x is finite
    for (int d = 0; d < n_depth; d += f32::WIDTH) {
        const f32::vec v = f32::load(x + d);
        largest          = f32::max(f32::max(v, f32::sub(f32::set(0.0f), v)), largest);
        sum              = f32::add(sum, v);
        poison           = f32::fma(v, f32::set(0.0f), poison);
    }
    const float top = qlutattn_units_max(config, kernel);
    const float max = f32::largest(largest) + f32::total(poison);
    tbl.sum         = f32::total(sum);
    tbl.step        = max / top;
    if (max >= QLUTATTN_TINY && !std::isinf(max)) {
        for (int d = 0; d < n_depth; d += f32::WIDTH) {
            f32::store_units(tbl.units + d, f32::mul(f32::load(x + d), f32::set(top / max)));
        }
    } else {
        tbl.step = max < QLUTATTN_TINY ? 0.0f : NAN;
        memset(tbl.units, 0, n_depth);
    }
    qlutattn_tbl_finish(config, kernel, n_depth, tbl);
}

void qlutattn_tbl_finish(const qlutattn_kernel_config & config, qlutattn_kernel kernel, int n_depth, qlutattn_tbl & tbl) {
    if (!is_scalar_forced() && qlutattn_has_simd(config, kernel)) {
        qlutattn_finish_simd(config, kernel, n_depth, tbl);
    }
}

void qlutattn_tbl_mul(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const void * tile, const qlutattn_span & span,
                      const qlutattn_tbl * const * tbls, int n_rows, qlutattn_acc & acc) {
    GGML_ASSERT(n_rows <= QLUTATTN_ROWS);
    if (!is_scalar_forced() && qlutattn_has_simd(config, kernel)) {
        qlutattn_acc_simd(config, kernel, (const uint8_t *) tile, span, tbls, n_rows, acc);
    } else {
        qlutattn_acc_scalar(config, kernel, (const uint8_t *) tile, span, tbls, n_rows, acc);
    }
}
