#include "llama-kv-mixed-rotation.h"

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
