#pragma once

// A KV block of f16 as tiles of 8 bits, made when many rows are to share it (as SageAttention does on a GPU). A share of the mean of its keys is
// taken off them first: then a channel that is large in all keys takes nothing from the others' precision. A score gets it back as q times that share.

#include "qlutattn-config.h"

constexpr int QLUTATTN_MAX_HEAD  = 640; // head sizes are multiples of 64 up to this
constexpr int QLUTATTN_MAX_SPANS = QLUTATTN_MAX_HEAD / PACK_SIZE;

// The tiles of a kv head, which begins where the one before it ends: a run of its channels, 64 or 128, in each column of tiles that it touches.
struct qlutattn_head_tiles {
    struct span {
        int64_t column;
        int     channel0; // the first channel in the column
        int     n_channels;
        int     in_head;  // the first channel in the head
    };

    int  n;
    span spans[QLUTATTN_MAX_SPANS];
};

// those of a head's first n channels
qlutattn_head_tiles qlutattn_get_head_tiles(int head_dim, int64_t ikv, int n);

// The tiles, in a thread's memory: of one head, column after column.
struct qlutattn_int8_tile {
    const qlutattn_kernel_config * k_config;
    const qlutattn_kernel_config * v_config;
    qlutattn_head_tiles            k_tiles;
    qlutattn_head_tiles            v_tiles;
    char *                         k;
    char *                         v;
    float *                        mean;   // what the keys lack: [head_dim_k]
    ggml_fp16_t *                  column; // the source of a tile: [PACK_SIZE][PACK_SIZE]
};

// bytes that the tiles need, a multiple of 64
size_t qlutattn_int8_size(int head_dim_k, int head_dim_v);

// the tiles in memory of that size
qlutattn_int8_tile qlutattn_place_int8(char * memory, int head_dim_k, int head_dim_v);

// PACK_SIZE keys or values of f16
struct qlutattn_int8_source {
    const char * data;
    size_t       nb; // from one token to the next
    int          head_dim;
};

// Makes the tiles; false if a value is not finite, or too far from the mean for f16.
bool qlutattn_make_int8(const qlutattn_int8_tile & to, const qlutattn_int8_source & k, const qlutattn_int8_source & v, float smoothing);
