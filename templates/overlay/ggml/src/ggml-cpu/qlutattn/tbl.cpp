// Quantizing x, and choosing a kernel and its implementation.

#include "tbl.h"

#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "qlutattn-env.h"
#include "simd-f32.h"
#include "tbl-acc.h"

#include <cmath>
#include <cstring>
#include <string>

qlutattn_kernel qlutattn_get_kernel(enum ggml_type type) {
    const qlutattn_kernel_config & config = *qlutattn_get_kernel_config(type);
    qlutattn_kernel                kernel = QLUTATTN_KERNEL_DOT;
    if (config.is_linear() || qlutattn_forced_kernel(kernel)) {
        return kernel; // a table of 8-bit codes would have more entries than a lane has codes
    }
#ifdef GGML_USE_TMAC
    return config.kernel;
#else
    return kernel;
#endif
}

// whether a product is computed by the vector code
static bool uses_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel) {
    return !qlutattn_is_scalar_forced() && qlutattn_has_simd(config, kernel);
}

int qlutattn_qmax(const qlutattn_kernel_config & config, qlutattn_kernel kernel) {
    if (kernel == QLUTATTN_KERNEL_LUT) {
        return 63; // the sum of four fits a byte
    }
    return config.bits == 4 && config.lane_is_token && qlutattn_simd_is_acc16() ? 64 : 127;
}

extern "C" const char * ggml_qlutattn_kernel_name(enum ggml_type type) {
    const qlutattn_kernel_config * config = qlutattn_get_kernel_config(type);
    if (!config) {
        return nullptr;
    }
    const qlutattn_kernel    kernel      = qlutattn_get_kernel(type);
    static const std::string simd        = qlutattn_simd_name() ? qlutattn_simd_name() : "scalar";
    static const std::string names[3][2] = {
        { "lut-scalar",  "lut-" + simd  },
        { "dot-scalar",  "dot-" + simd  },
        { "dot7-scalar", "dot7-" + simd },
    };
    const int arithmetic = kernel == QLUTATTN_KERNEL_LUT ? 0 : qlutattn_qmax(*config, kernel) == 127 ? 1 : 2;
    return names[arithmetic][uses_simd(*config, kernel)].c_str();
}

// below this x counts as zero, so that 1/d stays finite
static constexpr float QLUTATTN_TINY = 1e-30f;

void qlutattn_quantize_x(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const float * x, int n_depth, qlutattn_qvec & qvec) {
    namespace f32 = qlutattn_f32;

    f32::vec vmax   = f32::broadcast(0.0f);
    f32::vec sum    = f32::broadcast(0.0f);
    f32::vec poison = f32::broadcast(0.0f); // stays 0 as long as x is finite
    for (int i = 0; i < n_depth; i += f32::WIDTH) {
        const f32::vec v = f32::load(x + i);
        vmax             = f32::max(f32::max(v, f32::sub(f32::broadcast(0.0f), v)), vmax);
        sum              = f32::add(sum, v);
        poison           = f32::fma(v, f32::broadcast(0.0f), poison);
    }
    const float qmax = qlutattn_qmax(config, kernel);
    const float amax = f32::reduce_max(vmax) + f32::reduce_add(poison);
    qvec.sum         = f32::reduce_add(sum);
    qvec.d           = amax / qmax;
    if (amax >= QLUTATTN_TINY && !std::isinf(amax)) {
        for (int i = 0; i < n_depth; i += f32::WIDTH) {
            f32::store_i8(qvec.qs + i, f32::mul(f32::load(x + i), f32::broadcast(qmax / amax)));
        }
    } else {
        qvec.d = amax < QLUTATTN_TINY ? 0.0f : NAN;
        memset(qvec.qs, 0, n_depth);
    }
    qlutattn_build_lut(config, kernel, n_depth, qvec);
}

void qlutattn_build_lut(const qlutattn_kernel_config & config, qlutattn_kernel kernel, int n_depth, qlutattn_qvec & qvec) {
    if (uses_simd(config, kernel)) {
        qlutattn_build_lut_simd(config, kernel, n_depth, qvec);
    }
}

void qlutattn_tile_gemm(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const void * tile, const qlutattn_span & span,
                        const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc) {
    GGML_ASSERT(n_rows <= QLUTATTN_ROWS);
    if (uses_simd(config, kernel)) {
        qlutattn_tile_gemm_simd(config, kernel, (const uint8_t *) tile, span, qvecs, n_rows, acc);
    } else {
        qlutattn_tile_gemm_scalar(config, kernel, (const uint8_t *) tile, span, qvecs, n_rows, acc);
    }
}

static bool uses_simd_transposed(const qlutattn_kernel_config & config) {
    return !qlutattn_is_scalar_forced() && qlutattn_has_simd_transposed(config);
}

void qlutattn_spread(const qlutattn_kernel_config & config, qlutattn_qvec & qvec) {
    if (uses_simd_transposed(config)) {
        qlutattn_spread_simd(qvec);
    }
}

void qlutattn_tile_gemm_transposed(const qlutattn_kernel_config & config, const void * tile, const qlutattn_span & span,
                                   const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc) {
    GGML_ASSERT(n_rows <= QLUTATTN_ROWS && config.lane_is_token);
    if (uses_simd_transposed(config)) {
        qlutattn_tile_gemm_transposed_simd(config, (const uint8_t *) tile, span, qvecs, n_rows, acc);
    } else {
        qlutattn_tile_gemm_transposed_scalar(config, (const uint8_t *) tile, span, qvecs, n_rows, acc);
    }
}
