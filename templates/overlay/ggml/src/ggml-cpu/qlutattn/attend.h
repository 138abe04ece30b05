#pragma once

// Attention of a block of query rows to a range of keys, one KV block at a time: scores, softmax, values (as FlashAttention does it).
// Each side of a segment, K or V, is f16 or packed.

#include "attend-int8.h"
#include "tbl.h"

constexpr int QLUTATTN_KV_BLOCK = PACK_SIZE;
constexpr int QLUTATTN_MAX_RUN  = 32; // blocks of rows that share a KV block of f16 made 8 bits

// keys and values under one mask
struct qlutattn_segment {
    const ggml_tensor * k; // NULL if the segment is empty
    const ggml_tensor * v; // NULL beside k: the first channels of k
    const ggml_tensor * mask;

    int64_t n_tokens() const { return k ? k->ne[1] : 0; }
};

// Queries that tiles name instead of the rows' own: set s, from 1 on. Without any, the tensors are NULL.
struct qlutattn_shifts {
    const ggml_tensor * q;     // as the op's q, the sets of a batch n_batch apart
    const ggml_tensor * tiles; // [tile, batch]: which set
    int64_t             n_batch;

    int n_sets() const { return q ? 1 + q->ne[3] / n_batch : 1; } // with the rows' own
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

// As many rows of a kv head as a kernel takes, with what they keep from one KV block to the next.
struct qlutattn_rows {
    int             n;
    qlutattn_row    at[QLUTATTN_ROWS];
    float *         out;            // sums of weight * value: [row][head_dim_v]
    qlutattn_qvec * q_qvec;         // queries, quantized: [set][span of K][QLUTATTN_ROWS]
    uint32_t        quantized_sets; // bit s: those of set s are there
};

// what decides how much memory a thread needs
struct qlutattn_block_shape {
    int  head_dim_k;
    int  head_dim_v;
    int  n_sets;
    int  n_run;   // blocks of rows that go through the keys together
    bool is_int8; // f16 is made 8 bits
};

// Rows that share a kv head, and all the memory that a thread needs for them: this, and what qlutattn_place_block places behind it.
struct qlutattn_query_block {
    // what they attend to
    float               scale;
    float               softcap;
    int                 head_dim_k;
    int                 head_dim_v;
    int64_t             ikv;
    int64_t             i3; // batch
    qlutattn_head_tiles k_tiles;
    qlutattn_head_tiles v_tiles;
    qlutattn_shifts     shifts;

    bool               is_int8;
    float              smoothing; // the share of the mean that is taken off f16 keys
    qlutattn_int8_tile int8;      // f16 as tiles of 8 bits

    int             n_run;
    qlutattn_rows   run[QLUTATTN_MAX_RUN];
    qlutattn_rows * rows;                                       // of the run, those that are computed now

    alignas(64) float scores[QLUTATTN_ROWS][QLUTATTN_KV_BLOCK]; // of a KV block; then the weights exp(score - M)
    alignas(64) float lane_scale[PACK_SIZE];
    alignas(64) float lane_offset[PACK_SIZE];
    qlutattn_acc  acc;
    qlutattn_qvec p_qvec[QLUTATTN_ROWS]; // weights, quantized

    float * out(int r) { return rows->out + r * head_dim_v; }
};

// bytes of a block, a multiple of its alignment
size_t qlutattn_block_size(const qlutattn_block_shape & shape);

// a block in memory of that size
qlutattn_query_block & qlutattn_place_block(void * memory, const qlutattn_block_shape & shape);

// let the run of a block attend to tokens first..last of a segment; a packed side is read in whole tiles
void qlutattn_attend(qlutattn_query_block & block, const qlutattn_segment & segment, int64_t first, int64_t last);
