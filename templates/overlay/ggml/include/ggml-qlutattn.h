#pragma once

// QLUTATTN: key/value caches of 1, 2, 4 and 8 bits whose attention is computed straight from the packed codes.

#include "ggml.h"

// edge of a packed tile: GGML_QLUTATTN_TILE tokens x GGML_QLUTATTN_TILE channels
#define GGML_QLUTATTN_TILE 128

#ifdef __cplusplus
extern "C" {
#endif

// whether a type is one of GGML_TYPE_QLUTATTN_*
GGML_API bool ggml_is_qlutattn(enum ggml_type type);

// whether it is one of GGML_TYPE_QLUTATTN_K*, those for keys; the others are for values
GGML_API bool ggml_is_qlutattn_k(enum ggml_type type);

// Attention over two segments of keys and values under one softmax: f16 tokens (a window of recent ones), then packed tiles.
//
//   q       [head_dim_k, n_q,      n_head,    n_batch]   f32
//   k       [head_dim_k, n_kv,     n_head_kv, n_batch]   f16
//   v       [head_dim_v, n_kv,     n_head_kv, n_batch]   f16; k and v are both NULL when there is no f16 segment
//   kp      [TILE,       n_packed, n_columns, n_batch]   GGML_TYPE_QLUTATTN_K*, TILE is GGML_QLUTATTN_TILE
//   vp      [TILE,       n_packed, n_columns, n_batch]   GGML_TYPE_QLUTATTN_V*; both NULL when there is no packed segment;
//           n_packed is a multiple of TILE, and may be 0, as n_kv may; one of the two may be f16, as k and v are
//           v and vp are both NULL where the values of a token are the first head_dim_v channels of its keys (latent attention)
//   mask    [n_kv,     >= n_q, n_head or a divisor, n_batch or a divisor]   f16, contiguous, or NULL: the f16 segment
//   maskp   [n_packed, >= n_q, ...]                    likewise: the packed segment
//   sinks   [n_head] f32, or NULL: one more logit per head in the softmax's denominator
//   result  [head_dim_v, n_head, n_q, n_batch]   f32
//
// The head sizes are multiples of 64, from 64 to 640. In packed tensors heads follow each other without gaps: n_columns is n_head_kv*head_dim/TILE,
// rounded up, and channel c of kv head h is channel h*head_dim + c of a row of tiles. Only half of the last column may be unused.
//
// score = scale*(q.k), softcapped when logit_softcap is not 0, plus the ALiBi slope (1 when max_bias is 0) times the mask.
// n_head is a multiple of n_head_kv. A row with no visible key gives zeros.
// clang-format off
GGML_API struct ggml_tensor * ggml_flash_attn_ext_mixed(
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
        float                 logit_softcap);
// clang-format on

// Other queries for tiles whose tokens were moved since they were packed (K-shift): RoPE looks at the distance of two tokens alone, so that turning
// the query back is the same as turning the packed keys. To be called once, before the node is computed.
//
//   q_shifted   [head_dim_k, n_q, n_head, n_shift*n_batch]   f32, 1 to 15 sets: set s (from 1 on) of batch b is at (s - 1)*n_batch + b
//   tile_shift  [n_packed/TILE, n_batch]   i32: which set the keys of a tile are multiplied by; 0 is q
//
// Keys in f16, of either segment, are multiplied by q.
GGML_API void ggml_flash_attn_ext_mixed_set_shifts(struct ggml_tensor * op, struct ggml_tensor * q_shifted, struct ggml_tensor * tile_shift);

// Computes with the f16 segment in 8 bits where a KV block of TILE keys serves enough rows to pay for making it 8 bits: with more than 64 queries
// (n_q), so that the few of a draft get what they get one by one. Queries, keys, weights and values are then int8; what is not finite, and keys
// that do not fill a KV block, stay f16. To be called once, before the node is computed.
//
// smoothing, from 0 to 1: how much of the mean of a KV block's keys is taken off them first, and given back to the scores.
GGML_API void ggml_flash_attn_ext_mixed_set_int8(struct ggml_tensor * op, float smoothing);

// Attention over f16 keys and values in 8 bits (SageAttention), as above: q, k, v, mask and the result as in ggml_flash_attn_ext_mixed.
// With up to 64 queries it is attention in f16.
// clang-format off
GGML_API struct ggml_tensor * ggml_flash_attn_ext_sage(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k,
        struct ggml_tensor  * v,
        struct ggml_tensor  * mask,
        float                 scale,
        float                 max_bias,
        float                 logit_softcap,
        float                 smoothing_factor);
// clang-format on

// Whether a graph node may run on a device: nodes without packed tensors may; packed tensors go through ggml_cpy of whole tiles from and to
// f16 or f32, views, and ggml_flash_attn_ext_mixed, on the CPU. Logs what it refuses, and why.
GGML_API bool ggml_qlutattn_supports_op(const struct ggml_tensor * op, bool is_cpu);

#ifdef __cplusplus
}
#endif
