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

static bool is_float(const struct ggml_tensor * t) {
    return t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_F32;
}

// [TILE, n*TILE, n_cols, n_batch], and no view that starts within a tile
static bool is_whole_tiles(const struct ggml_tensor * t) {
    const size_t tile_bytes = ggml_type_size(t->type) * GGML_QLUTATTN_TILE;
    return ggml_is_qlutattn(t->type) && t->ne[0] == GGML_QLUTATTN_TILE && t->ne[1] % GGML_QLUTATTN_TILE == 0 && t->nb[1] == ggml_type_size(t->type) &&
           t->nb[2] % tile_bytes == 0 && t->nb[3] % tile_bytes == 0 && t->view_offs % tile_bytes == 0;
}

// f16 or f32 rows into whole tiles, or the reverse
static bool is_pack_or_unpack(const struct ggml_tensor * op) {
    const struct ggml_tensor * src = op->src[0];
    if ((op->op != GGML_OP_CPY && op->op != GGML_OP_DUP) || !src || !ggml_are_same_shape(src, op)) {
        return false;
    }
    return (is_float(src) && is_whole_tiles(op)) || (is_whole_tiles(src) && is_float(op) && op->nb[0] == ggml_type_size(op->type));
}

// the same bytes elsewhere
static bool is_copy(const struct ggml_tensor * op) {
    const struct ggml_tensor * src = op->src[0];
    return (op->op == GGML_OP_CPY || op->op == GGML_OP_DUP || op->op == GGML_OP_CONT) && src && src->type == op->type &&
           ggml_are_same_shape(src, op) && ggml_is_contiguous(src) && ggml_is_contiguous(op);
}

// attention whose packed keys have a type for keys, and whose values one for values
static bool is_attention(const struct ggml_tensor * op) {
    const struct ggml_tensor * kp = op->src[5];
    const struct ggml_tensor * vp = op->src[6];
    return op->op == GGML_OP_FLASH_ATTN_EXT_MIXED && !(kp && ggml_is_qlutattn(kp->type) && !ggml_is_qlutattn_k(kp->type)) &&
           !(vp && ggml_is_qlutattn_k(vp->type));
}

static bool is_view(const struct ggml_tensor * op) {
    return op->op == GGML_OP_NONE || op->op == GGML_OP_VIEW || op->op == GGML_OP_RESHAPE || op->op == GGML_OP_PERMUTE || op->op == GGML_OP_TRANSPOSE;
}

bool ggml_qlutattn_supports_op(const struct ggml_tensor * op, bool is_cpu) {
    const struct ggml_tensor * packed = ggml_is_qlutattn(op->type) ? op : packed_source(op);
    if (!packed && op->op != GGML_OP_FLASH_ATTN_EXT_MIXED) {
        return true;
    }
#ifdef GGML_USE_QLUTATTN
    if (!is_cpu) {
        return false; // not logged: the scheduler asks every backend, and finds the CPU
    }
    if (is_attention(op) || is_view(op) || is_pack_or_unpack(op) || is_copy(op)) {
        return true;
    }
    GGML_LOG_ERROR(
        "qlutattn: %s cannot use the %s tensor '%s': packed caches are written by ggml_cpy from f16 or f32 rows, %d at a time from the start of a "
        "tile, and read by ggml_flash_attn_ext_mixed, as what they are, keys or values, or by ggml_cpy of whole tiles to f16 or f32 rows, nothing else\n",
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
