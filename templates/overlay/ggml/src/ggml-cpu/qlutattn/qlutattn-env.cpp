#include "qlutattn-env.h"

#include "ggml-impl.h"

#include <cstdlib>
#include <cstring>

struct forced_kernel {
    const char *    name;
    qlutattn_kernel kernel;
    bool            is_scalar;
};

static constexpr forced_kernel FORCED_KERNELS[] = {
#ifdef GGML_USE_TMAC
    { "lut",        QLUTATTN_KERNEL_LUT, false },
    { "lut-scalar", QLUTATTN_KERNEL_LUT, true  },
#endif
    { "dot",        QLUTATTN_KERNEL_DOT, false },
    { "dot-scalar", QLUTATTN_KERNEL_DOT, true  },
};

// what the environment forces, or NULL; it is read once
static const forced_kernel * get_forced_kernel() {
    static const forced_kernel * const forced = []() -> const forced_kernel * {
        const char * env = getenv("GGML_QLUTATTN_KERNEL");
        if (!env || !*env) {
            return nullptr;
        }
        for (const forced_kernel & known : FORCED_KERNELS) {
            if (strcmp(env, known.name) == 0) {
                return &known;
            }
        }
#ifdef GGML_USE_TMAC
        const char * names = "lut, dot, lut-scalar or dot-scalar";
#else
        const char * names = "dot or dot-scalar";
#endif
        GGML_LOG_WARN("qlutattn: this build has no kernel '%s', GGML_QLUTATTN_KERNEL is ignored: set it to %s\n", env, names);
        return nullptr;
    }();
    return forced;
}

bool qlutattn_forced_kernel(qlutattn_kernel & kernel) {
    const forced_kernel * forced = get_forced_kernel();
    if (forced) {
        kernel = forced->kernel;
    }
    return forced != nullptr;
}

bool qlutattn_is_scalar_forced() {
    const forced_kernel * forced = get_forced_kernel();
    return forced && forced->is_scalar;
}
