// What a query gets beside others, in the range where keys are split: the same bits, however many there are. Prints the number of items of work
// for each number of queries, for 8 and for 1 kv heads.

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-qlutattn.h"
#include "qlutattn-op.h"
#include "random_floats.h"

#include <algorithm>
#include <cstdio>
#include <vector>

static constexpr int HEAD_DIM = 128;
static constexpr int GROUP    = 4;
static constexpr int WINDOW   = 700;
static constexpr int PACKED   = 16384;

struct problem {
    ggml_context_ptr        ctx;
    ggml_tensor *           result;
    ggml_backend_buffer_ptr buffer;
    ggml_cgraph *           graph;
};

static void fill(ggml_tensor * tensor, const std::vector<float> & values) {
    if (tensor->type == GGML_TYPE_F32) {
        memcpy(tensor->data, values.data(), ggml_nbytes(tensor));
    } else {
        ggml_fp32_to_fp16_row(values.data(), (ggml_fp16_t *) tensor->data, ggml_nelements(tensor));
    }
}

// each query sees more of the window than the one before, at both ends
static std::vector<float> window_mask(int n_queries) {
    std::vector<float> mask(n_queries * WINDOW, -INFINITY);
    for (int i = 0; i < n_queries; i++) {
        std::fill_n(mask.begin() + i * WINDOW + 40 - 2 * i, WINDOW - 60 + 3 * i, 0.0f);
    }
    return mask;
}

static problem make(ggml_backend_t cpu, int n_queries, int n_head_kv) {
    problem       p;
    const int64_t channels = HEAD_DIM * n_head_kv;
    p.ctx.reset(ggml_init({ ggml_tensor_overhead() * 32 + ggml_graph_overhead(), nullptr, true }));
    ggml_context * ctx = p.ctx.get();
    ggml_tensor *  q   = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, HEAD_DIM, n_queries, GROUP * n_head_kv);
    ggml_tensor *  k   = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, HEAD_DIM, WINDOW, n_head_kv);
    ggml_tensor *  v   = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, HEAD_DIM, WINDOW, n_head_kv);
    ggml_tensor *  m   = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, WINDOW, n_queries);
    ggml_tensor *  kf  = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, GGML_QLUTATTN_TILE, PACKED, channels / GGML_QLUTATTN_TILE);
    ggml_tensor *  vf  = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, GGML_QLUTATTN_TILE, PACKED, channels / GGML_QLUTATTN_TILE);
    ggml_tensor *  kp  = ggml_cpy(ctx, kf, ggml_new_tensor(ctx, GGML_TYPE_QLUTATTN_K4_128x128, 3, kf->ne));
    ggml_tensor *  vp  = ggml_cpy(ctx, vf, ggml_new_tensor(ctx, GGML_TYPE_QLUTATTN_V4_128x128, 3, vf->ne));
    p.result           = ggml_flash_attn_ext_mixed(ctx, q, k, v, m, kp, vp, nullptr, nullptr, n_head_kv, HEAD_DIM, 0.09f, 0.0f, 0.0f);
    p.graph            = ggml_new_graph(ctx);
    ggml_build_forward_expand(p.graph, p.result);
    p.buffer.reset(ggml_backend_alloc_ctx_tensors(ctx, cpu));

    std::vector<float> queries;
    for (int h = 0; h < GROUP * n_head_kv; h++) { // a query is the same among any number of them
        const std::vector<float> of_head = random_floats(HEAD_DIM * n_queries, 100 + h);
        queries.insert(queries.end(), of_head.begin(), of_head.end());
    }
    fill(q, queries);
    int seed = 0;
    for (ggml_tensor * tensor : { k, v, kf, vf }) {
        fill(tensor, random_floats(ggml_nelements(tensor), seed++));
    }
    fill(m, window_mask(n_queries));
    ggml_backend_graph_compute(cpu, p.graph);
    return p;
}

int main() {
    ggml_backend_ptr   cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    std::vector<float> alone; // the first query's
    for (int n_queries : { 1, 2, 3, 5, 8, 16 }) {
        const problem p         = make(cpu.get(), n_queries, 2);
        const float * first     = (const float *) p.result->data;
        const size_t  per_query = HEAD_DIM * GROUP * 2;
        if (alone.empty()) {
            alone.assign(first, first + per_query);
        }
        if (memcmp(alone.data(), first, per_query * sizeof(float)) != 0) {
            printf("%d queries: the first gets other bits\n", n_queries);
            return 1;
        }
        printf("%d queries:", n_queries);
        for (int n_head_kv : { 1, 8 }) {
            ggml_tensor q       = *p.result->src[0];
            ggml_tensor result  = *p.result;
            q.ne[2]             = GROUP * n_head_kv;
            result.src[0]       = &q;
            result.op_params[3] = n_head_kv;
            printf(" %d", (int) qlutattn_op(&result).n_items());
        }
        printf(" items\n");
    }
    return 0;
}
