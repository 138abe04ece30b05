#pragma once

// Work is divided into items: (query block, KV split). A query block is up to QLUTATTN_ROWS (query, head) pairs that share a kv head, so that the
// codes of a tile are unpacked once for several of them. Keys are split, as flash-decoding does, when the blocks are too few for many threads: in
// decode, and for the few queries of a draft or of several slots. Each item leaves the usual online softmax state (max, sum, output), and states of
// one row are merged in order. Where to split follows from the shapes of keys alone: what a row gets depends neither on the number of threads nor,
// as long as keys are split, on how many rows there are.
//
// Where f16 is made 8 bits, an item is a run of blocks, which go through the keys together: a KV block is made once for all of them. That is done
// for more queries than a draft has, so that a token that is verified still sees what it would see alone.

#include "attend.h"
#include "ggml-impl.h"

#include <algorithm>
#include <cstring>

constexpr int QLUTATTN_MIN_ITEMS = 128;       // with fewer blocks, keys are split: two items for each of 64 threads
constexpr int QLUTATTN_MIN_SPLIT = 256;       // keys: fewer would not repay the states to be merged

constexpr int QLUTATTN_MAX_DRAFT      = 64;   // queries: f16 is made 8 bits for more
constexpr int QLUTATTN_INT8_ITEMS     = 64;   // runs are as long as leaves so many items,
constexpr int QLUTATTN_MIN_RUN        = 4;    // but no shorter than this,
constexpr int QLUTATTN_MAX_RUN_VALUES = 4096; // and no longer than this over the head size: their state is to stay in the second cache

// the op's sources and parameters, by name, and how its work is divided
struct qlutattn_op {
    const ggml_tensor * q;
    const ggml_tensor * sinks;
    const ggml_tensor * dst;
    qlutattn_segment    window; // f16
    qlutattn_segment    packed; // at least one side of it
    qlutattn_shifts     shifts;

    float   scale;
    float   max_bias;
    float   softcap;
    int64_t n_head_kv;
    bool    is_int8; // f16 is made 8 bits
    float   smoothing;

    int64_t head_dim_k;
    int64_t head_dim_v;
    int64_t group;        // query heads of a kv head
    int64_t n_rows;       // rows of a kv head
    int64_t n_blocks;     // blocks of rows of a kv head
    int64_t n_heads;      // kv heads, of all batches
    int64_t run;          // blocks of an item
    int64_t n_runs;       // of a kv head
    int64_t split_window; // keys of a split of the window
    int64_t split_packed;
    int64_t n_kv_splits_window;
    int64_t n_kv_splits; // of a block, the window's first; 1 if not split

    explicit qlutattn_op(const ggml_tensor * op) :
        q(op->src[0]),
        sinks(op->src[4]),
        dst(op),
        window({ op->src[1], op->src[2], op->src[3] }),
        packed({ op->src[5], op->src[6], op->src[7] }),
        shifts({ op->src[8], op->src[9], op->src[0]->ne[3] }) {
        memcpy(&scale, (const float *) op->op_params + 0, sizeof(float));
        memcpy(&max_bias, (const float *) op->op_params + 1, sizeof(float));
        memcpy(&softcap, (const float *) op->op_params + 2, sizeof(float));
        memcpy(&smoothing, (const float *) op->op_params + 5, sizeof(float));
        n_head_kv          = ggml_get_op_params_i32(op, 3);
        is_int8            = ggml_get_op_params_i32(op, 4) != 0 && q->ne[1] > QLUTATTN_MAX_DRAFT;
        head_dim_k         = q->ne[0];
        head_dim_v         = op->ne[0];
        group              = q->ne[2] / n_head_kv;
        n_rows             = group * q->ne[1];
        n_blocks           = (n_rows + QLUTATTN_ROWS - 1) / QLUTATTN_ROWS;
        n_heads            = n_head_kv * q->ne[3];
        run                = is_int8 ? run_of() : 1;
        n_runs             = ceil_div(n_blocks, run);
        split_window       = split_of(window.n_tokens());
        split_packed       = split_of(packed.n_tokens());
        n_kv_splits_window = ceil_div(window.n_tokens(), split_window);
        n_kv_splits        = std::max<int64_t>(1, n_kv_splits_window + ceil_div(packed.n_tokens(), split_packed));
        if (is_int8 || n_blocks * n_heads >= QLUTATTN_MIN_ITEMS) {
            n_kv_splits = 1;
        }
    }

    static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

    // so many keys, in whole KV blocks, that the splits of a segment are enough items with a single block of rows
    int64_t split_of(int64_t n_tokens) const {
        return std::max<int64_t>(QLUTATTN_MIN_SPLIT, GGML_PAD(ceil_div(n_tokens * n_heads, QLUTATTN_MIN_ITEMS), QLUTATTN_KV_BLOCK));
    }

    int64_t run_of() const {
        const int64_t most = std::min<int64_t>(QLUTATTN_MAX_RUN, QLUTATTN_MAX_RUN_VALUES / std::max(head_dim_k, head_dim_v));
        return std::min(n_blocks, std::clamp<int64_t>(n_blocks * n_heads / QLUTATTN_INT8_ITEMS, QLUTATTN_MIN_RUN, most));
    }

    bool    is_split() const { return n_kv_splits > 1; }
    int64_t n_items() const { return n_kv_splits * n_runs * n_heads; }
    int64_t state_floats() const { return 2 + head_dim_v; } // of a row in a partial result

    qlutattn_block_shape block_shape() const { return { (int) head_dim_k, (int) head_dim_v, shifts.n_sets(), (int) run, is_int8 }; }
};
