// Refuses ops that packed tensors do not support. A row of a tile can not be decoded on its own, so whatever works on rows (get_rows, set_rows,
// mul_mat, ...) is refused; and only the CPU backend has kernels.

#include "ggml-qlutattn.h"

#include "ggml-impl.h"

static const struct ggml_tensor * packed_source(const struct ggml_tensor * op) {
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        if (op->src[i] && ggml_is_qlutattn(op->src[i]->type)) {
            return op->src[i];
        }
    }
    return NULL;
}

// f16 or f32 rows into whole tiles
static bool is_pack(const struct ggml_tensor * op) {
    const struct ggml_tensor * src = op->src[0];
    return (op->op == GGML_OP_CPY || op->op == GGML_OP_DUP) && src && ggml_is_qlutattn(op->type) &&
           (src->type == GGML_TYPE_F16 || src->type == GGML_TYPE_F32) && ggml_are_same_shape(src, op) && op->ne[0] == GGML_QLUTATTN_TILE &&
           op->ne[1] % GGML_QLUTATTN_TILE == 0 && op->nb[1] == ggml_type_size(op->type);
}

// the same bytes elsewhere
static bool is_copy(const struct ggml_tensor * op) {
    const struct ggml_tensor * src = op->src[0];
    return (op->op == GGML_OP_CPY || op->op == GGML_OP_DUP || op->op == GGML_OP_CONT) && src && src->type == op->type &&
           ggml_are_same_shape(src, op) && ggml_is_contiguous(src) && ggml_is_contiguous(op);
}

static bool is_view(const struct ggml_tensor * op) {
    return op->op == GGML_OP_NONE || op->op == GGML_OP_VIEW || op->op == GGML_OP_RESHAPE || op->op == GGML_OP_PERMUTE || op->op == GGML_OP_TRANSPOSE;
}

bool ggml_qlutattn_supports_op(const struct ggml_tensor * op, bool is_cpu) {
    const bool                 is_attention = op->op == GGML_OP_FLASH_ATTN_EXT_MIXED;
    const struct ggml_tensor * packed       = ggml_is_qlutattn(op->type) ? op : packed_source(op);
    if (!packed && !is_attention) {
        return true;
    }
#ifdef GGML_USE_QLUTATTN
    if (!is_cpu) {
        return false; // not logged: the scheduler asks every backend, and finds the CPU
    }
    if (is_attention || is_view(op) || is_pack(op) || is_copy(op)) {
        return true;
    }
    GGML_LOG_ERROR(
        "qlutattn: %s cannot use the %s tensor '%s': packed caches are written by ggml_cpy from f16 or f32 rows, %d at a time, and read by "
        "ggml_flash_attn_ext_mixed, nothing else\n",
        ggml_op_desc(op), ggml_type_name(packed->type), packed->name, GGML_QLUTATTN_TILE);
    return false;
#else
    GGML_UNUSED(is_cpu);
    if (is_view(op)) {
        return true;
    }
    GGML_LOG_ERROR("qlutattn: %s needs packed caches, and this build has none (GGML_QLUTATTN=OFF)\n", ggml_op_desc(op));
    return false;
#endif
}
