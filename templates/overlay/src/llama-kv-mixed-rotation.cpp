#include "llama-kv-mixed-rotation.h"

#include "ggml.h"

#include <cmath>

std::vector<float> llama_kv_mixed_rotation(int64_t n) {
    std::vector<float> res(n * n);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            int64_t bits = i & j;
            float   sign = 1.0f;
            for (; bits; bits &= bits - 1) {
                sign = -sign;
            }
            res[i * n + j] = sign / std::sqrt((float) n);
        }
    }
    return res;
}

// as upstream's llama_mul_mat_hadamard, which older upstreams do not have
ggml_tensor * llama_kv_mixed_rotate(ggml_context * ctx, ggml_tensor * x, ggml_tensor * rot) {
    if (!rot) {
        return x;
    }
    const int64_t n = rot->ne[0];

    ggml_tensor * cur = ggml_is_contiguous(x) ? ggml_reshape_2d(ctx, x, n, ggml_nelements(x) / n) : ggml_cont_2d(ctx, x, n, ggml_nelements(x) / n);
    cur               = ggml_mul_mat(ctx, rot, cur);
    ggml_mul_mat_set_hint(cur, GGML_HINT_SRC0_IS_HADAMARD);
    return ggml_reshape_4d(ctx, cur, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}
