#pragma once

#include "ggml-qlutattn.h"
#include "machine.h"

#include <cstdint>
#include <string>
#include <vector>

// Sizes of a model's attention. The default is Llama-3-8B's.
struct geometry {
    int64_t n_head     = 32;
    int64_t n_head_kv  = 8;
    int64_t head_dim   = 128;
    int64_t head_dim_v = 128;
    bool    is_latent  = false; // values are the first channels of keys
    bool    by_head    = true;  // stock caches: each head's tokens side by side; else each token's heads, as llama.cpp stores them

    int64_t head_size(bool is_value) const { return is_value ? head_dim_v : head_dim; }
    int64_t n_columns(bool is_value) const { return (n_head_kv * head_size(is_value) + GGML_QLUTATTN_TILE - 1) / GGML_QLUTATTN_TILE; } // of tiles
};

enum class work_kind {
    decode,  // the newest query, or few of them: drafted tokens, a few slots
    prefill, // PREFILL_QUERIES queries, causal
    pack,    // f16 -> the type
};

static constexpr int64_t PREFILL_QUERIES = 512;

const char * work_name(work_kind work);
bool         parse_work(const std::string & name, work_kind & work);

// The types of keys and values: f16, q8_0, q4_0, K<bits>V<bits>, K<bits>V<bits>+w<tokens>, w<tokens>; letters of a type's name follow its bits.
// K<bits>V<bits>+q<sets> has tiles that were moved: each meets one of so many sets of turned queries, or q itself, in turns.
// With +int8, what is f16 is computed in 8 bits: f16+int8, w<tokens>+int8, K<bits>V<bits>+w<tokens>+int8.
// Of a pack row, the one type that is made: f16, q8_0, q4_0, K<bits>, V<bits>.
struct cache_kind {
    std::string name;
    ggml_type   type_k = GGML_TYPE_COUNT; // COUNT: none, in a pack row
    ggml_type   type_v = GGML_TYPE_COUNT;
    int64_t     window = 0;               // the newest tokens, as f16
    int         shifts = 0;               // sets of turned queries
    bool        int8   = false;           // f16 by ggml_flash_attn_ext_mixed_set_int8

    bool is_upstream() const;             // stock types by stock ops
    bool is_window() const { return window > 0 && type_k == GGML_TYPE_F16; }
};

bool parse_cache(const std::string & name, cache_kind & cache);

// The types that packing makes for these caches, one after another.
std::vector<cache_kind> packed_kinds(const std::vector<cache_kind> & caches);

// One line of the result: what is timed, and its times.
struct bench_row {
    work_kind  work;
    int64_t    n_kv;
    int        n_threads;
    cache_kind cache;
    int64_t    n_queries = 1; // of decode

    std::string         kernel;
    size_t              bytes  = 0; // that the op has to read: the cache, or the source of packing
    int64_t             n_int8 = 0; // multiply-adds that the op has to do; neither is known of upstream's quantized types and of packing
    int64_t             n_f32  = 0;
    std::vector<double> seconds;    // of each round
    std::vector<double> floor;      // of reading (pack: copying) those bytes and no more, in the same rounds

    int64_t     n_q() const { return work == work_kind::decode ? n_queries : work == work_kind::prefill ? PREFILL_QUERIES : 0; }
    double      seconds_at_peak(const machine_rates & rates) const; // of its multiply-adds alone; NaN if that is not known
    std::string group() const;                                      // rows of a group are timed in turns
    std::string id() const;
};

double quantile(std::vector<double> values, double at);
