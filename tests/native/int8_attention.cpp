// Attention over f16 in 8 bits: the bits that a query gets depend neither on the number of threads nor on the queries beside it, and up to 64 queries
// get those of f16.

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-qlutattn.h"
#include "random_floats.h"

#include <cstdio>
#include <cstring>
#include <vector>

static constexpr int HEAD_DIM  = 128;
static constexpr int N_HEAD    = 4;
static constexpr int N_HEAD_KV = 2;
static constexpr int N_KV      = 5 * GGML_QLUTATTN_TILE + 40;
static constexpr int MANY      = 300;

static void fill(ggml_tensor * tensor, const std::vector<float> & values) {
    ggml_fp32_to_fp16_row(values.data(), (ggml_fp16_t *) tensor->data, ggml_nelements(tensor));
}

// the result [HEAD_DIM, N_HEAD, n_queries]; smoothing below 0 is f16
static std::vector<float> attend(ggml_backend_t cpu, int n_queries, int n_threads, float smoothing) {
    ggml_context_ptr owner(ggml_init({ ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true }));
    ggml_context *   ctx   = owner.get();
    ggml_tensor *    q     = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, HEAD_DIM, N_HEAD, n_queries);
    ggml_tensor *    k     = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, HEAD_DIM, N_KV, N_HEAD_KV);
    ggml_tensor *    v     = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, HEAD_DIM, N_KV, N_HEAD_KV);
    ggml_tensor *    m     = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, N_KV, n_queries);
    ggml_tensor *    qp    = ggml_permute(ctx, q, 0, 2, 1, 3);
    ggml_tensor *    out   = smoothing < 0.0f ?
                                 ggml_flash_attn_ext_mixed(ctx, qp, k, v, m, nullptr, nullptr, nullptr, nullptr, N_HEAD_KV, HEAD_DIM, 0.09f, 0, 0) :
                                 ggml_flash_attn_ext_sage(ctx, qp, k, v, m, 0.09f, 0, 0, smoothing);
    ggml_cgraph *    graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, out);
    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx, cpu));

    const std::vector<float> queries = random_floats(HEAD_DIM * N_HEAD * MANY, 1);
    memcpy(q->data, queries.data(), ggml_nbytes(q));
    fill(k, random_floats(ggml_nelements(k), 2));
    fill(v, random_floats(ggml_nelements(v), 3));
    std::vector<float> mask(N_KV * n_queries, 0.0f);
    for (int i = 0; i < n_queries; i++) {
        for (int t = 2 * i + 3; t < N_KV; t++) {
            mask[i * N_KV + t] = -INFINITY;
        }
    }
    fill(m, mask);
    auto * reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu));
    ((ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"))(cpu, n_threads);
    ggml_backend_graph_compute(cpu, graph);
    const float * data = (const float *) out->data;
    return std::vector<float>(data, data + ggml_nelements(out));
}

// whether the queries that both have got the same bits
static bool is_same(const std::vector<float> & a, const std::vector<float> & b) {
    return memcmp(a.data(), b.data(), std::min(a.size(), b.size()) * sizeof(float)) == 0;
}

static int fail(const char * what, int n) {
    printf("%s: %d\n", what, n);
    return 1;
}

int main() {
    ggml_backend_ptr cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    for (const float smoothing : { 0.0f, 1.0f }) {
        const std::vector<float> many = attend(cpu.get(), MANY, 1, smoothing);
        for (int n_threads : { 2, 5 }) {
            if (!is_same(many, attend(cpu.get(), MANY, n_threads, smoothing))) {
                return fail("other bits with more threads", n_threads);
            }
        }
        for (int n_queries : { 65, 100 }) {
            if (!is_same(many, attend(cpu.get(), n_queries, 2, smoothing))) {
                return fail("other bits with fewer queries", n_queries);
            }
        }
        if (is_same(many, attend(cpu.get(), MANY, 2, -1.0f))) {
            return fail("the bits of f16", MANY);
        }
        for (int n_queries : { 1, 64 }) {
            if (!is_same(attend(cpu.get(), n_queries, 2, smoothing), attend(cpu.get(), n_queries, 2, -1.0f))) {
                return fail("not the bits of f16", n_queries);
            }
        }
    }
    return 0;
}
