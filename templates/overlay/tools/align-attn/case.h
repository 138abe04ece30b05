#pragma once

#include "formats.h"
#include "ggml.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

// what the values look like
enum class data_kind {
    gauss,    // unit Gaussian
    outlier,  // four channels of each 128 are 16 times larger
    constant, // K: one value per token, V: one value per channel, so that the lanes have no spread; zeros where a format has no offset
    tiny,     // 2^-17, subnormal in f16
    kmax,     // K up to 6e4
    vmax,     // V up to 6e4
    biased,   // K: four channels of each 128 are 16 plus the Gaussian
    onehot,   // queries and weights whose rounding to int8 is exact, see docs/align.md
};

// one token with values that cannot be packed
enum class poison_kind {
    none,
    nan_k, // in the packed segment
    inf_k,
    nan_v,
    inf_v,
    over_k,    // larger than any f16
    nan_k_f16, // in the f16 segment
    inf_k_f16,
    nan_v_f16,
    inf_v_f16,
};

enum class mask_kind {
    none,
    causal,
    holes,
    rows, // some rows see nothing at all, some see one segment only
};

// how a tensor lies in memory
enum class layout {
    plain,
    permuted, // tokens outside heads, as llama.cpp stores them
    view,     // part of a larger tensor
    transposed,
};

// head sizes
struct head_dims {
    int k;
    int v;
};

// K or V of a case, which have head sizes of their own
struct side_shape {
    int head_dim;
    int n_head_kv;

    int64_t n_embd() const { return (int64_t) n_head_kv * head_dim; }
    int64_t n_cols() const { return (n_embd() + TILE - 1) / TILE; } // the last column may be half empty

    // the channel that stands at a place of a row of tiles: a half that no head has repeats the other one, as caches do
    int64_t channel_at(int64_t place) const { return place < n_embd() ? place : place - TILE / 2; }
};

struct align_case {
    std::string id;

    const tile_format * k = usual_format(true); // NULL: this side of the packed segment is f16
    const tile_format * v = usual_format(false);

    bool is_latent = false;  // the values of a token are the first channels of its keys; v is NULL

    int       n_tiles   = 1; // packed tokens / TILE
    int       n_f16     = 0; // tokens in the f16 segment
    int       n_q       = 1;
    int       group     = 1; // query heads per kv head
    int       n_head_kv = 1;
    head_dims dims      = { 128, 128 };
    int       n_batch   = 1;
    int       n_threads = 1;
    int       n_shift   = 0; // sets of queries for tiles that were moved

    mask_kind mask       = mask_kind::none;
    bool      mask_heads = false; // a mask per head and batch, with unused rows
    bool      bias       = false; // added to each score that is seen, up to 6 times 4
    bool      alibi      = false;
    bool      softcap    = false;
    bool      sinks      = false;
    bool      negative   = false; // the scale

    layout lay_q      = layout::plain;
    layout lay_f16    = layout::plain;
    layout lay_src    = layout::plain;
    layout lay_packed = layout::plain;

    bool src_f32   = false; // what is packed: f32 or f16
    int  smoothing = -1;    // percent of the mean of f16 keys that is taken off them, in 8 bits; negative: they stay f16
    bool empty     = false; // an absent segment is an empty tensor, not NULL

    data_kind   data          = data_kind::gauss;
    poison_kind poison        = poison_kind::none;
    bool        poison_masked = false; // no query sees the poisoned token

    bool is_int8() const { return smoothing >= 0; }

    int64_t n_packed() const { return TILE * (int64_t) n_tiles; }
    int64_t n_kv() const { return n_packed() + n_f16; }
    int64_t n_head() const { return (int64_t) n_head_kv * group; }
    int64_t n_rows() const { return n_batch * n_head() * n_q; }
    int64_t cost() const { return n_rows() * n_kv() * std::max(dims.k, dims.v); } // multiplications of q.k, or of weights and V

    side_shape side_k() const { return { dims.k, n_head_kv }; }
    side_shape side_v() const { return { dims.v, n_head_kv }; }

    ggml_type   type_k() const { return k ? k->type : GGML_TYPE_F16; }
    ggml_type   type_v() const { return is_latent ? type_k() : v ? v->type : GGML_TYPE_F16; }
    ggml_type   unpacked_k() const { return src_f32 ? GGML_TYPE_F32 : GGML_TYPE_F16; } // what tiles are unpacked to
    ggml_type   unpacked_v() const { return src_f32 ? GGML_TYPE_F16 : GGML_TYPE_F32; }
    std::string label_k() const { return k ? k->label : "k16"; }
    std::string label_v() const { return is_latent ? "vk" : v ? v->label : "v16"; }
    float       scale() const;
    float       max_bias() const { return alibi ? 8.0f : 0.0f; }
    float       logit_softcap() const { return softcap ? 8.0f : 0.0f; }
};

const char * name_of(data_kind kind);
const char * name_of(poison_kind kind);
const char * name_of(mask_kind kind);

// All cases, in a fixed order, each with a unique id.
std::vector<align_case> make_cases();
