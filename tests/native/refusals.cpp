// Gives packed tensors to operations that must refuse them, and prints for each whether the CPU backend supports it (supports_op), the status
// of computing it, and whether a message was logged; then makes attention of types for the wrong side, which must end the process.

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-qlutattn.h"
#include "ggml.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

static std::string logged;

static void try_op(ggml_backend_t backend, const char * name, ggml_tensor * (*make)(ggml_context * ctx, ggml_tensor * packed, ggml_tensor * rows)) {
    ggml_init_params params = { ggml_tensor_overhead() * 64 + ggml_graph_overhead(), nullptr, true };
    ggml_context *   ctx    = ggml_init(params);
    ggml_tensor *    packed = ggml_new_tensor_2d(ctx, GGML_TYPE_QLUTATTN_K4_128x128, 128, 128);
    ggml_tensor *    rows   = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 128, 128);
    ggml_set_name(packed, "cache_k");
    ggml_tensor * result = make(ctx, packed, rows);

    ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, result);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, backend);
    ggml_backend_buffer_clear(buffer, 0);

    logged.clear();
    const bool        supported = ggml_backend_supports_op(backend, result);
    const ggml_status status    = ggml_backend_graph_compute(backend, graph);
    const bool        words     = logged.find("qlutattn: ") != std::string::npos;
    printf("%s supports=%d status=%d words=%d\n", name, supported, status, words);
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
}

// The op with keys and values of one type each.
static ggml_tensor * attention(ggml_context * ctx, ggml_type type_k, ggml_type type_v) {
    return ggml_flash_attn_ext_mixed(ctx, ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 128, 1, 1), nullptr, nullptr, nullptr,
                                     ggml_new_tensor_3d(ctx, type_k, 128, 128, 1), ggml_new_tensor_3d(ctx, type_v, 128, 128, 1), nullptr, nullptr, 1,
                                     128, 1.0f, 0.0f, 0.0f);
}

// Makes the op with these types in a process of its own, which must end with a message.
static void try_types(const char * name, ggml_type type_k, ggml_type type_v) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        ggml_set_abort_callback([](const char * message) { _exit(strstr(message, "GGML_TYPE_QLUTATTN_K*") ? 3 : 4); });
        ggml_context * ctx = ggml_init({ ggml_tensor_overhead() * 8, nullptr, true });
        attention(ctx, type_k, type_v);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("%s exit=%d\n", name, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

int main() {
    ggml_log_set([](enum ggml_log_level, const char * text, void *) { logged += text; }, nullptr);
    ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);

    try_op(backend, "cpy", [](ggml_context * ctx, ggml_tensor * packed, ggml_tensor * rows) { return ggml_cpy(ctx, rows, packed); });
    try_op(backend, "get_rows", [](ggml_context * ctx, ggml_tensor * packed, ggml_tensor *) {
        return ggml_get_rows(ctx, packed, ggml_new_tensor_1d(ctx, GGML_TYPE_I32, 1));
    });
    try_op(backend, "set_rows", [](ggml_context * ctx, ggml_tensor * packed, ggml_tensor * rows) {
        return ggml_set_rows(ctx, packed, rows, ggml_new_tensor_1d(ctx, GGML_TYPE_I64, 128));
    });
    try_op(backend, "mul_mat", [](ggml_context * ctx, ggml_tensor * packed, ggml_tensor * rows) { return ggml_mul_mat(ctx, packed, rows); });
    try_op(backend, "add", [](ggml_context * ctx, ggml_tensor * packed, ggml_tensor * rows) { return ggml_add(ctx, packed, rows); });
    try_op(backend, "unpack", [](ggml_context * ctx, ggml_tensor * packed, ggml_tensor * rows) { return ggml_cpy(ctx, packed, rows); });
    try_op(backend, "transpose_while_unpacking",
           [](ggml_context * ctx, ggml_tensor * packed, ggml_tensor * rows) { return ggml_cpy(ctx, packed, ggml_transpose(ctx, rows)); });
    try_op(backend, "half_tiles", [](ggml_context * ctx, ggml_tensor *, ggml_tensor * rows) {
        ggml_tensor * two = ggml_new_tensor_2d(ctx, GGML_TYPE_QLUTATTN_K4_128x128, 128, 256);
        return ggml_cpy(ctx, rows, ggml_view_2d(ctx, two, 128, 128, two->nb[1], 64 * two->nb[1]));
    });
    try_op(backend, "unpack_half_tiles", [](ggml_context * ctx, ggml_tensor *, ggml_tensor * rows) {
        ggml_tensor * two = ggml_new_tensor_2d(ctx, GGML_TYPE_QLUTATTN_K4_128x128, 128, 256);
        return ggml_cpy(ctx, ggml_view_2d(ctx, two, 128, 128, two->nb[1], 64 * two->nb[1]), rows);
    });
    try_op(backend, "flash_attn_ext", [](ggml_context * ctx, ggml_tensor * packed, ggml_tensor * rows) {
        return ggml_flash_attn_ext(ctx, rows, packed, packed, nullptr, 1.0f, 0.0f, 0.0f);
    });
    try_op(backend, "one_row", [](ggml_context * ctx, ggml_tensor * packed, ggml_tensor * rows) {
        return ggml_cpy(ctx, ggml_view_2d(ctx, rows, 128, 1, rows->nb[1], 0), ggml_view_2d(ctx, packed, 128, 1, packed->nb[1], 0));
    });

    try_op(backend, "attention", [](ggml_context * ctx, ggml_tensor *, ggml_tensor *) {
        return attention(ctx, GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_QLUTATTN_V4_128x128);
    });
    try_op(backend, "swapped_sides", [](ggml_context * ctx, ggml_tensor *, ggml_tensor *) {
        ggml_tensor * op = attention(ctx, GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_QLUTATTN_V4_128x128);
        std::swap(op->src[5], op->src[6]);
        return op;
    });
    try_types("types_right", GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_QLUTATTN_V2_128x128);
    try_types("types_v_and_v", GGML_TYPE_QLUTATTN_V4_128x128, GGML_TYPE_QLUTATTN_V4_128x128);
    try_types("types_k_and_k", GGML_TYPE_QLUTATTN_K4_128x128, GGML_TYPE_QLUTATTN_K4_128x128);
    try_types("types_f16_and_k", GGML_TYPE_F16, GGML_TYPE_QLUTATTN_K4_128x128);

    ggml_backend_free(backend);
    return 0;
}
