// Prints one digest per stock operation, computed by the ggml that this program is linked with. Two builds of ggml whose output is the
// same give bit-identical results. It compiles against a pristine ggml: nothing of QLUTATTN is used.

#include "ggml-cpu.h"
#include "ggml.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

static uint32_t random_state = 1;

// uniform in [-1, 1), from integers only
static float random_value() {
    random_state = random_state * 1664525u + 1013904223u;
    return (float) (int32_t) random_state / 2147483648.0f;
}

static void fill(ggml_tensor * t) {
    std::vector<float> values(ggml_nelements(t));
    for (float & v : values) {
        v = random_value();
    }
    if (t->type == GGML_TYPE_F32) {
        memcpy(t->data, values.data(), ggml_nbytes(t));
    } else if (t->type == GGML_TYPE_F16) {
        ggml_fp32_to_fp16_row(values.data(), (ggml_fp16_t *) t->data, values.size());
    } else {
        std::vector<float> importance(t->ne[0], 1.0f);
        ggml_quantize_chunk(t->type, values.data(), t->data, 0, ggml_nrows(t), t->ne[0], importance.data());
    }
}

static void digest(const char * what, const char * type, const void * data, size_t n) {
    uint64_t hash = 14695981039346656037ull;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ ((const uint8_t *) data)[i]) * 1099511628211ull;
    }
    printf("%-16s %-10s %016" PRIx64 "\n", what, type, hash);
}

static void compute(ggml_context * ctx, ggml_tensor * result, const char * what, const char * type) {
    for (int n_threads : { 1, 2 }) {
        ggml_cgraph * graph = ggml_new_graph(ctx);
        ggml_build_forward_expand(graph, result);
        ggml_graph_compute_with_ctx(ctx, graph, n_threads);
        digest(what, type, result->data, ggml_nbytes(result));
    }
}

int main() {
    ggml_init_params params = { 256u << 20, nullptr, false };
    ggml_cpu_init();

    for (int id = 0; id < GGML_TYPE_COUNT; id++) {
        const ggml_type          type   = (ggml_type) id;
        const ggml_type_traits * traits = ggml_get_type_traits(type);
        // ids without a type, integers, and packed types, which have no to_float
        if (traits->blck_size == 0 || !(traits->is_quantized || type == GGML_TYPE_F16) || !traits->to_float) {
            continue;
        }
        ggml_context * ctx = ggml_init(params);
        ggml_tensor *  a   = ggml_new_tensor_2d(ctx, type, 512, 32);
        ggml_tensor *  b   = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 512, 8);
        fill(a);
        fill(b);
        digest("quantize", ggml_type_name(type), a->data, ggml_nbytes(a));
        std::vector<float> values(512 * 32);
        traits->to_float(a->data, values.data(), values.size());
        digest("to_float", ggml_type_name(type), values.data(), values.size() * sizeof(float));
        compute(ctx, ggml_mul_mat(ctx, a, b), "mul_mat", ggml_type_name(type));

        ggml_tensor * rows = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 4);
        for (int i = 0; i < 4; i++) {
            ((int32_t *) rows->data)[i] = i * 7;
        }
        compute(ctx, ggml_get_rows(ctx, a, rows), "get_rows", ggml_type_name(type));
        ggml_free(ctx);
    }

    for (ggml_type type : { GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q5_1, GGML_TYPE_IQ4_NL }) {
        ggml_context * ctx = ggml_init(params);
        ggml_tensor *  src = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 256, 16);
        fill(src);
        compute(ctx, ggml_cpy(ctx, src, ggml_new_tensor_2d(ctx, type, 256, 16)), "cpy", ggml_type_name(type));
        ggml_free(ctx);
    }

    for (ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 }) {
        for (int n_q : { 1, 64 }) {
            ggml_context * ctx  = ggml_init(params);
            ggml_tensor *  q    = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 128, n_q, 8);
            ggml_tensor *  k    = ggml_new_tensor_3d(ctx, type, 128, 768, 2);
            ggml_tensor *  v    = ggml_new_tensor_3d(ctx, type, 128, 768, 2);
            ggml_tensor *  mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, 768, n_q);
            fill(q);
            fill(k);
            fill(v);
            fill(mask);
            compute(ctx, ggml_flash_attn_ext(ctx, q, k, v, mask, 1.0f / sqrtf(128), 8.0f, 0.0f), "flash_attn_ext", ggml_type_name(type));
            ggml_free(ctx);
        }
    }

    ggml_context * ctx = ggml_init(params);
    ggml_tensor *  x   = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 128, 8, 16);
    ggml_tensor *  pos = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 16);
    fill(x);
    for (int i = 0; i < 16; i++) {
        ((int32_t *) pos->data)[i] = i;
    }
    compute(ctx, ggml_rope(ctx, x, pos, 128, 0), "rope", "f32");
    compute(ctx, ggml_soft_max(ctx, x), "soft_max", "f32");
    compute(ctx, ggml_rms_norm(ctx, x, 1e-5f), "rms_norm", "f32");
    compute(ctx, ggml_clamp(ctx, ggml_dup(ctx, x), -0.5f, 0.5f), "clamp", "f32");
    ggml_free(ctx);
    return 0;
}
