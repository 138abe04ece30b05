// The mixed attention op: checks its sources, once, and makes the node.

#include "ggml-qlutattn.h"

#include "ggml-impl.h"

// a mask for n_kv keys that can be spread over the heads and batches of q
static void check_mask(const struct ggml_tensor * mask, const struct ggml_tensor * q, int64_t n_kv) {
    if (mask) {
        GGML_ASSERT(mask->type == GGML_TYPE_F16);
        GGML_ASSERT(ggml_is_contiguous(mask));
        GGML_ASSERT(mask->ne[0] == n_kv);
        GGML_ASSERT(mask->ne[1] >= q->ne[1]);
        GGML_ASSERT(q->ne[2] % mask->ne[2] == 0);
        GGML_ASSERT(q->ne[3] % mask->ne[3] == 0);
    }
}

static void check_f16(const struct ggml_tensor * t, const struct ggml_tensor * q, int64_t n_kv, int64_t n_head_kv, int64_t head_dim) {
    GGML_ASSERT(t->type == GGML_TYPE_F16);
    GGML_ASSERT(t->nb[0] == sizeof(ggml_fp16_t));
    GGML_ASSERT(t->ne[0] == head_dim && t->ne[1] == n_kv && t->ne[2] == n_head_kv && t->ne[3] == q->ne[3]);
}

// one side of the packed segment
static void check_packed(const struct ggml_tensor * t, const struct ggml_tensor * q, int64_t n_packed, int64_t n_head_kv, int64_t head_dim,
                         bool is_k) {
    if (t->type == GGML_TYPE_F16) {
        check_f16(t, q, n_packed, n_head_kv, head_dim);
        return;
    }
    const int64_t n_columns = (n_head_kv * head_dim + GGML_QLUTATTN_TILE - 1) / GGML_QLUTATTN_TILE;
    GGML_ASSERT(ggml_is_qlutattn(t->type));
    GGML_ASSERT(ggml_is_qlutattn_k(t->type) == is_k && "keys need a type of GGML_TYPE_QLUTATTN_K*, values one of GGML_TYPE_QLUTATTN_V*");
    GGML_ASSERT(t->nb[1] == t->nb[0] && t->nb[0] == ggml_type_size(t->type)); // a tile is contiguous
    GGML_ASSERT(t->ne[0] == GGML_QLUTATTN_TILE && t->ne[1] == n_packed && n_packed % GGML_QLUTATTN_TILE == 0);
    GGML_ASSERT(t->ne[2] == n_columns && t->ne[3] == q->ne[3]);
}

static bool is_head_size(int64_t head_dim) {
    return head_dim % 64 == 0 && head_dim >= 64 && head_dim <= 640;
}

// clang-format off
struct ggml_tensor * ggml_flash_attn_ext_mixed(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k,
        struct ggml_tensor  * v,
        struct ggml_tensor  * mask,
        struct ggml_tensor  * kp,
        struct ggml_tensor  * vp,
        struct ggml_tensor  * maskp,
        struct ggml_tensor  * sinks,
        int64_t               n_head_kv,
        int64_t               head_dim_v,
        float                 scale,
        float                 max_bias,
        float                 logit_softcap) {
    // clang-format on
    const int64_t n_kv     = k ? k->ne[1] : 0;
    const int64_t n_packed = kp ? kp->ne[1] : 0;

    GGML_ASSERT(q->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float));
    GGML_ASSERT(is_head_size(q->ne[0]) && is_head_size(head_dim_v) && "head sizes must be multiples of 64, from 64 to 640");
    GGML_ASSERT(n_head_kv > 0 && q->ne[2] % n_head_kv == 0);
    GGML_ASSERT((k || !v) && (kp || !vp));
    if ((k || kp) && !v && !vp) {
        GGML_ASSERT(head_dim_v <= q->ne[0] && "values that are the first channels of keys cannot have more of them");
    } else {
        GGML_ASSERT(!k == !v && !kp == !vp);
    }

    if (k) {
        check_f16(k, q, n_kv, n_head_kv, q->ne[0]);
        if (v) {
            check_f16(v, q, n_kv, n_head_kv, head_dim_v);
        }
    }
    if (kp) {
        check_packed(kp, q, n_packed, n_head_kv, q->ne[0], true);
        if (vp) {
            check_packed(vp, q, n_packed, n_head_kv, head_dim_v, false);
        }
    }
    check_mask(mask, q, n_kv);
    check_mask(maskp, q, n_packed);
    if (sinks) {
        GGML_ASSERT(sinks->type == GGML_TYPE_F32 && ggml_is_contiguous(sinks) && sinks->ne[0] == q->ne[2]);
    }
    if (max_bias > 0.0f) {
        GGML_ASSERT((n_kv == 0 || mask) && (n_packed == 0 || maskp));
    }

    const int64_t        ne[4]  = { head_dim_v, q->ne[2], q->ne[1], q->ne[3] };
    struct ggml_tensor * result = ggml_new_tensor(ctx, GGML_TYPE_F32, 4, ne);

    const float params[] = { scale, max_bias, logit_softcap };
    ggml_set_op_params(result, params, sizeof(params));
    ggml_set_op_params_i32(result, 3, (int32_t) n_head_kv);

    result->op     = GGML_OP_FLASH_ATTN_EXT_MIXED;
    result->src[0] = q;
    result->src[1] = k;
    result->src[2] = v;
    result->src[3] = mask;
    result->src[4] = sinks;
    result->src[5] = kp;
    result->src[6] = vp;
    result->src[7] = maskp;

    return result;
}

void ggml_flash_attn_ext_mixed_set_shifts(struct ggml_tensor * op, struct ggml_tensor * q_shifted, struct ggml_tensor * tile_shift) {
    GGML_ASSERT(op->op == GGML_OP_FLASH_ATTN_EXT_MIXED);
    const struct ggml_tensor * q  = op->src[0];
    const struct ggml_tensor * kp = op->src[5];

    GGML_ASSERT(kp && "shifts need a packed segment");
    GGML_ASSERT(q_shifted->type == GGML_TYPE_F32 && q_shifted->nb[0] == sizeof(float));
    GGML_ASSERT(q_shifted->ne[0] == q->ne[0] && q_shifted->ne[1] == q->ne[1] && q_shifted->ne[2] == q->ne[2]);
    GGML_ASSERT(q_shifted->ne[3] % q->ne[3] == 0 && q_shifted->ne[3] / q->ne[3] <= 15 && "there may be 1 to 15 shifts");
    GGML_ASSERT(tile_shift->type == GGML_TYPE_I32 && tile_shift->nb[0] == sizeof(int32_t));
    GGML_ASSERT(tile_shift->ne[0] * GGML_QLUTATTN_TILE == kp->ne[1] && tile_shift->ne[1] == q->ne[3]);

    op->src[8] = q_shifted;
    op->src[9] = tile_shift;
}

void ggml_flash_attn_ext_mixed_set_int8(struct ggml_tensor * op, float smoothing) {
    GGML_ASSERT(op->op == GGML_OP_FLASH_ATTN_EXT_MIXED);
    GGML_ASSERT(smoothing >= 0.0f && smoothing <= 1.0f);

    ggml_set_op_params_i32(op, 4, 1);
    ggml_set_op_params_f32(op, 5, smoothing);
}

// clang-format off
struct ggml_tensor * ggml_flash_attn_ext_sage(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k,
        struct ggml_tensor  * v,
        struct ggml_tensor  * mask,
        float                 scale,
        float                 max_bias,
        float                 logit_softcap,
        float                 smoothing_factor) {
    // clang-format on
    struct ggml_tensor * result =
        ggml_flash_attn_ext_mixed(ctx, q, k, v, mask, NULL, NULL, NULL, NULL, k->ne[2], v->ne[0], scale, max_bias, logit_softcap);
    ggml_flash_attn_ext_mixed_set_int8(result, smoothing_factor);
    return result;
}
