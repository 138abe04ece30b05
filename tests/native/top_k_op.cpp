// ggml_top_k on the CPU: the indices that std::partial_sort gives, the first two swapped as upstream does. Prints how many rows agreed.

#include "logits_kinds.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml.h"

#include <cstdio>
#include <cstring>

int main() {
    generator        random(23);
    ggml_backend_ptr cpu(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    int              rows = 0;
    for (const kind & k : kinds()) {
        for (int n : { 1, 40, 1000, 20000 }) {
            for (int top : { 1, 2, 40, 300 }) {
                constexpr int    N_ROWS = 3;
                const int        n_top  = std::min(top, n);
                ggml_context_ptr ctx(ggml_init({ ggml_tensor_overhead() * 8 + ggml_graph_overhead(), nullptr, true }));
                ggml_tensor *    x      = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n, N_ROWS);
                ggml_tensor *    result = ggml_top_k(ctx.get(), x, n_top);
                ggml_cgraph *    graph  = ggml_new_graph(ctx.get());
                ggml_build_forward_expand(graph, result);
                ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(ctx.get(), cpu.get()));
                std::vector<row>        data(N_ROWS, row(n));
                for (int r = 0; r < N_ROWS; ++r) {
                    k.fill(data[r], random);
                    memcpy((char *) x->data + r * x->nb[1], data[r].data(), n * sizeof(float));
                }
                ggml_backend_graph_compute(cpu.get(), graph);
                for (int r = 0; r < N_ROWS; ++r, ++rows) {
                    std::vector<int32_t> expected(n);
                    for (int i = 0; i < n; ++i) {
                        expected[i] = i;
                    }
                    std::partial_sort(expected.begin(), expected.begin() + n_top, expected.end(),
                                      [&](int32_t a, int32_t b) { return data[r][a] > data[r][b]; });
                    if (n_top > 1) {
                        std::swap(expected[0], expected[1]);
                    }
                    if (memcmp(expected.data(), (char *) result->data + r * result->nb[1], n_top * sizeof(int32_t)) != 0) {
                        printf("%d of %d, %s: other indices\n", n_top, n, k.name);
                        return 1;
                    }
                }
            }
        }
    }
    printf("%d rows agree\n", rows);
    return 0;
}
