#pragma once

// Attention of a block of query rows to a range of keys, one KV block at a time: scores, softmax, values (as FlashAttention does it).
// Each side of a segment, K or V, is f16 or packed.

#include "tbl.h"

constexpr int QLUTATTN_MAX_HEAD = 256; // head sizes: 64, 128, 256
constexpr int QLUTATTN_KV_BLOCK = PACK_SIZE;

// keys and values under one mask
struct qlutattn_segment {
    const ggml_tensor * k; // NULL if the segment is empty
    const ggml_tensor * v;
    const ggml_tensor * mask;

    int64_t n_tokens() const { return k ? k->ne[1] : 0; }
};

// one query of one head
struct qlutattn_row {
    const float * q;
    float         slope; // ALiBi
    int64_t       iq;    // which row of the mask
    int64_t       ih;    // which head

    // online softmax, in units of exp(score - M)
    float M; // largest score so far
    float S; // sum so far
};

// Rows that share a kv head, and all the memory that a thread needs for them.
struct qlutattn_query_block {
    // what they attend to
    float   scale;
    float   softcap;
    int     head_dim;
    int64_t ikv;
    int64_t i3; // batch

    int          n_rows;
    qlutattn_row rows[QLUTATTN_ROWS];

    alignas(64) float out[QLUTATTN_ROWS][QLUTATTN_MAX_HEAD];    // sums of weight * value
    alignas(64) float scores[QLUTATTN_ROWS][QLUTATTN_KV_BLOCK]; // of a KV block; then the weights exp(score - M)
    alignas(64) float mask[QLUTATTN_KV_BLOCK];
    alignas(64) float lane_scale[PACK_SIZE];
    alignas(64) float lane_offset[PACK_SIZE];
    qlutattn_acc  acc;
    qlutattn_qvec q_qvec[2][QLUTATTN_ROWS]; // queries, quantized, per tile of a head
    qlutattn_qvec p_qvec[QLUTATTN_ROWS];    // weights, quantized
};

// let the rows of a block attend to tokens first..last of a segment; a packed side is read in whole tiles
void qlutattn_attend(qlutattn_query_block & block, const qlutattn_segment & segment, int64_t first, int64_t last);
