#include "case.h"
#include "cover.h"

#include <cmath>
#include <set>

const char * name_of(data_kind kind) {
    static const char * const names[] = { "gauss", "outlier", "const", "tiny", "kmax", "vmax", "biased", "onehot" };
    return names[(int) kind];
}

const char * name_of(poison_kind kind) {
    static const char * const names[] = { "", "nank", "infk", "nanv", "infv", "overk", "nankf16", "infkf16", "nanvf16", "infvf16" };
    return names[(int) kind];
}

const char * name_of(mask_kind kind) {
    static const char * const names[] = { "all", "causal", "holes", "rows" };
    return names[(int) kind];
}

float align_case::scale() const {
    const float unit = (negative ? -1.0f : 1.0f) / std::sqrt((float) dims.k);
    return data == data_kind::tiny ? 16.0f * unit : unit;
}

static const std::vector<head_dims> EQUAL_DIMS = {
    { 64,  64  },
    { 128, 128 },
    { 256, 256 }
};

// of one and a half tiles and more; different for K and V; and those of latent attention
static const std::vector<head_dims> OTHER_DIMS = {
    { 192, 192 },
    { 320, 320 },
    { 512, 512 },
    { 576, 512 },
    { 128, 64  },
    { 64,  128 },
    { 192, 128 }
};

static std::string make_id(const align_case & c) {
    std::string id = c.label_k() + c.label_v();
    id += "-t" + std::to_string(c.n_tiles) + "-w" + std::to_string(c.n_f16) + "-q" + std::to_string(c.n_q);
    id += "-g" + std::to_string(c.group) + "-h" + std::to_string(c.n_head_kv) + "-d" + std::to_string(c.dims.k);
    id += c.dims.v != c.dims.k ? "v" + std::to_string(c.dims.v) : "";
    id += c.data == data_kind::onehot ? "" : std::string("-") + name_of(c.mask);
    id += c.mask_heads ? "-mh" : "";
    id += c.bias ? "-bias" : "";
    id += c.alibi ? "-alibi" : "";
    id += c.softcap ? "-cap" : "";
    id += c.sinks ? "-sinks" : "";
    id += c.n_shift > 0 ? "-s" + std::to_string(c.n_shift) : "";
    id += c.is_int8() ? "-i" + std::to_string(c.smoothing) : "";
    id += c.negative ? "-neg" : "";
    id += c.n_batch > 1 ? "-b" + std::to_string(c.n_batch) : "";
    id += c.n_threads > 1 ? "-j" + std::to_string(c.n_threads) : "";
    id += c.src_f32 ? "-f32" : "";
    id += c.empty ? "-empty" : "";
    const int lay[] = { (int) c.lay_q, (int) c.lay_f16, (int) c.lay_src, (int) c.lay_packed };
    if (lay[0] + lay[1] + lay[2] + lay[3] > 0) {
        id += "-l";
        for (int l : lay) {
            id += std::to_string(l);
        }
    }
    id += c.poison == poison_kind::none ? std::string("-") + name_of(c.data) : std::string("-") + name_of(c.poison);
    id += c.poison_masked ? "-unseen" : "";
    return id;
}

// Every code of a tile decides some output by itself: queries 0..127 see one token each, and the query heads of a group (or the
// row) choose the depths; queries 128..255 weigh one token of each nibble equally.
static void add_onehot(std::vector<align_case> & cases) {
    align_case c;
    c.data  = data_kind::onehot;
    c.sinks = true;
    int n   = 0;
    for (const tile_format * k : formats_of(true)) {
        for (const tile_format * v : formats_of(false)) {
            c.k = k;
            c.v = v;
            for (int d : { 64, 128, 256 }) {
                c.dims      = { d, d };
                c.n_head_kv = d == 64 ? 2 : 1;
                c.n_tiles   = 1;
                c.n_q       = 256;
                c.group     = 4;
                c.n_f16     = n % 3 == 0 ? 1 : 0;
                c.n_threads = 1 + n % 2;
                cases.push_back(c);
                // the same codes through the other shapes: few queries, many tiles, no group
                static const int n_qs[]   = { 1, 2, 33 };
                static const int tiles[]  = { 2, 32, 2, 2, 2 };
                static const int groups[] = { 1, 8, 4, 1 };
                c.n_q                     = n_qs[n % 3];
                c.n_tiles                 = tiles[n % 5];
                c.group                   = groups[n % 4];
                c.n_f16                   = n % 2 == 0 ? 127 : 0;
                c.n_threads               = n % 3 == 2 ? 4 : 1;
                if (c.cost() > 3e7) {
                    c.n_tiles = 2;
                }
                cases.push_back(c);
                n++;
            }
        }
    }
    c.dims      = { 128, 128 };
    c.n_head_kv = 2;
    c.n_tiles   = 2;
    c.n_q       = 512;
    c.group     = 1;
    c.n_f16     = 0;
    for (const auto & [k, v] : format_pairs()) {
        c.k = k;
        c.v = v;
        cases.push_back(c);
    }
}

static void add_poison(std::vector<align_case> & cases) {
    static const poison_kind kinds[] = {
        poison_kind::nan_k,     poison_kind::inf_k,     poison_kind::nan_v,     poison_kind::inf_v,     poison_kind::over_k,
        poison_kind::nan_k_f16, poison_kind::inf_k_f16, poison_kind::nan_v_f16, poison_kind::inf_v_f16,
    };
    int n = 0;
    for (const tile_format * k : formats_of(true)) {
        for (const tile_format * v : formats_of(false)) {
            for (poison_kind kind : kinds) {
                static const int n_f16[] = { 1, 127, 7 };
                static const int n_qs[]  = { 1, 2, 33, 5 };
                static const int dims[]  = { 128, 64, 256 };
                align_case       c;
                c.k             = k;
                c.v             = v;
                c.poison        = kind;
                c.n_tiles       = 1 + n % 2;
                c.n_f16         = n_f16[n % 3];
                c.n_q           = n_qs[n % 4];
                c.dims          = { dims[(n / 2) % 3], dims[(n / 2) % 3] };
                c.n_head_kv     = c.dims.k == 64 ? 2 : 1;
                c.group         = n % 5 == 0 ? 4 : 1;
                c.mask          = n % 3 == 1 ? mask_kind::none : mask_kind::holes;
                c.poison_masked = n % 6 == 0;
                c.src_f32       = kind == poison_kind::over_k || n % 2 == 0;
                c.n_threads     = n % 7 == 0 ? 2 : 1;
                c.lay_src       = n % 4 == 3 ? layout::transposed : layout::plain;
                cases.push_back(c);
                n += 1 + (n % 9 == 8);
            }
        }
    }
}

// one side of the packed segment is f16
static void add_one_sided(std::vector<align_case> & cases) {
    static const poison_kind poisons[] = { poison_kind::nan_k, poison_kind::nan_v, poison_kind::inf_v };
    int                      n         = 0;
    for (const auto & [k, v] : format_pairs()) {
        for (bool packs_k : { true, false }) {
            for (int head_dim : { 64, 128, 256 }) {
                align_case c;
                c.k         = packs_k ? k : nullptr;
                c.v         = packs_k ? nullptr : v;
                c.dims      = { head_dim, head_dim };
                c.n_head_kv = 2;
                c.n_tiles   = 2;
                c.n_f16     = n % 2 == 0 ? 127 : 0;
                c.group     = 4;
                c.lay_f16   = n % 3 == 0 ? layout::permuted : n % 3 == 1 ? layout::view : layout::plain;
                c.n_batch   = 1 + n % 2;
                c.n_threads = 1 + n % 3;
                cases.push_back(c);
                c.n_q   = 33;
                c.group = 1 + n % 3;
                c.mask  = n % 2 == 0 ? mask_kind::holes : mask_kind::rows;
                c.sinks = n % 3 == 0;
                cases.push_back(c);
                c.mask          = mask_kind::holes;
                c.poison        = poisons[n % 3];
                c.poison_masked = n / 3 % 2 == 0;
                c.n_q           = 5;
                cases.push_back(c);
                n++;
            }
        }
    }
}

static void add_special(std::vector<align_case> & cases) {
    align_case c;
    c.n_tiles = 0;
    c.n_f16   = 0;
    c.n_q     = 2;
    c.group   = 4;
    for (bool empty : { false, true }) { // nothing to attend to: zeros
        c.empty = empty;
        for (bool sinks : { false, true }) {
            c.sinks = sinks;
            cases.push_back(c);
        }
    }

    c          = align_case();
    c.negative = true; // the keys that look least alike weigh most
    for (int n_f16 : { 0, 1, 127 }) {
        c.n_f16 = n_f16;
        c.n_q   = n_f16 == 1 ? 33 : 1;
        cases.push_back(c);
    }

    c         = align_case();
    c.n_tiles = 32;
    c.mask    = mask_kind::causal;
    for (const auto & [k, v] : format_pairs()) { // large cases
        c.k         = k;
        c.v         = v;
        c.n_q       = k->bits == 4 ? 512 : 128;
        c.n_f16     = k->bits == 1 ? 0 : k->bits == 2 ? 128 : 511;
        c.n_threads = std::min(k->bits, 4);
        cases.push_back(c);
    }
    c.n_tiles   = 1;
    c.group     = 8;
    c.n_f16     = 1;
    c.n_threads = 2;
    cases.push_back(c);
}

// tiles that two heads share, heads that begin within a tile, and a last column that is half empty
static void add_other_dims(std::vector<align_case> & cases) {
    int n = 0;
    for (const auto & [k, v] : format_pairs()) {
        for (const head_dims & dims : OTHER_DIMS) {
            align_case c;
            c.k         = k;
            c.v         = v;
            c.dims      = dims;
            c.n_tiles   = 2;
            c.n_head_kv = 1 + n % 3;
            c.group     = n % 2 == 0 ? 4 : 1;
            c.n_q       = n % 4 == 1 ? 33 : 1;
            c.n_f16     = n % 5 == 0 ? 127 : 0;
            c.n_threads = 1 + n % 2;
            cases.push_back(c);
            c.data    = data_kind::onehot;
            c.sinks   = true;
            c.n_q     = 256;
            c.group   = 2;
            c.n_f16   = 0;
            c.n_tiles = 1;
            cases.push_back(c);
            c.data          = data_kind::gauss;
            c.poison        = n % 2 == 0 ? poison_kind::nan_k : poison_kind::nan_v;
            c.poison_masked = n % 3 == 0;
            c.n_q           = 5;
            c.n_f16         = 7;
            cases.push_back(c);
            n++;
        }
    }
}

// tiles that were moved by different distances
static void add_shifts(std::vector<align_case> & cases) {
    int n = 0;
    for (const tile_format * k : formats_of(true)) {
        for (const head_dims & dims : EQUAL_DIMS) {
            for (int n_shift : { 1, 2, 15 }) {
                align_case c;
                c.k         = n == 4 ? nullptr : k; // f16 keys have one set of queries
                c.v         = formats_of(false)[n % formats_of(false).size()];
                c.dims      = dims;
                c.n_shift   = n_shift;
                c.n_tiles   = n_shift == 15 ? 32 : 2 + n % 3;
                c.n_head_kv = dims.k == 64 ? 2 : 1;
                c.n_batch   = 1 + n % 2;
                c.n_f16     = n % 3 == 0 ? 127 : 0;
                c.group     = n % 4 == 0 ? 1 : 4;
                c.n_q       = n % 5 == 0 ? 33 : 1;
                c.mask      = n % 2 == 0 ? mask_kind::none : mask_kind::holes;
                c.n_threads = 1 + n % 3;
                c.lay_q     = n % 3 == 1 ? layout::permuted : layout::plain;
                cases.push_back(c);
                n++;
            }
        }
    }
}

// values that are the first channels of keys
static void add_latent(std::vector<align_case> & cases) {
    static const head_dims dims[] = {
        { 576, 512 },
        { 192, 128 },
        { 128, 128 },
        { 128, 64  },
        { 64,  64  },
        { 320, 192 }
    };
    static const data_kind   data[]    = { data_kind::gauss, data_kind::tiny, data_kind::kmax };
    static const poison_kind poisons[] = { poison_kind::nan_k, poison_kind::inf_k, poison_kind::over_k, poison_kind::nan_k_f16 };
    static const mask_kind   masks[]   = { mask_kind::none, mask_kind::causal, mask_kind::holes, mask_kind::rows };
    int                      n         = 0;
    for (const tile_format * k : formats_of(true)) {
        for (const head_dims & d : dims) {
            for (int n_q : { 1, 2, 5, 33 }) {
                align_case c;
                c.is_latent = true;
                c.k         = n == 3 ? nullptr : k; // f16 keys, as in the window
                c.v         = nullptr;
                c.dims      = d;
                c.n_q       = n_q;
                c.n_tiles   = n % 5 == 4 ? 32 : 1 + n % 3;
                c.n_f16     = n % 3 == 0 ? 127 : 0;
                c.n_head_kv = d.k == 576 ? 1 : 1 + n % 3;
                c.group     = n_q == 33 ? 1 : n % 2 == 0 ? 16 : 5;
                c.n_batch   = 1 + n % 2;
                c.n_threads = 1 + n % 3;
                c.mask      = masks[n % 4];
                c.sinks     = n % 4 == 1;
                c.softcap   = n % 7 == 3;
                c.data      = data[n % 3];
                c.src_f32   = n % 2 == 0;
                if (n % 4 == 2 && c.n_tiles < 32) {
                    c.data          = data_kind::gauss;
                    c.n_f16         = 7;
                    c.poison        = poisons[n / 4 % 4];
                    c.poison_masked = n / 16 % 2 == 0;
                    c.src_f32       = true;
                }
                if (c.n_tiles == 32) {
                    c.n_batch   = 1;
                    c.n_head_kv = d.k == 576 ? 1 : 2;
                    c.group     = n_q == 33 ? 1 : 4;
                }
                cases.push_back(c);
                n++;
            }
        }
    }
}

// heads that add a bias to each score, as those of T5
static void add_bias(std::vector<align_case> & cases) {
    int n = 0;
    for (const auto & [k, v] : format_pairs()) {
        for (int n_q : { 1, 5, 33 }) {
            align_case c;
            c.k          = n % 4 == 3 ? nullptr : k;
            c.v          = n % 4 == 1 ? nullptr : v;
            c.mask       = n % 3 == 0 ? mask_kind::holes : mask_kind::causal;
            c.mask_heads = true;
            c.bias       = true;
            c.alibi      = n % 7 == 5;
            c.n_q        = n_q;
            c.n_tiles    = 1 + n % 3;
            c.n_f16      = n % 4 == 2 ? 0 : 127;
            c.n_head_kv  = 2;
            c.group      = 1 + n % 2 * 3;
            c.dims       = EQUAL_DIMS[n % EQUAL_DIMS.size()];
            c.n_batch    = 1 + n % 2;
            c.n_threads  = 1 + n % 3;
            cases.push_back(c);
            n++;
        }
    }
}

// f16 in 8 bits: alone and beside tiles, whole KV blocks and parts of one, more queries than a draft has and no more
static void add_int8(std::vector<align_case> & cases) {
    static const int         n_f16[]   = { 128, 300, 640 };
    static const int         n_qs[]    = { 65, 128, 64, 96 };
    static const data_kind   data[]    = { data_kind::biased, data_kind::gauss, data_kind::outlier, data_kind::kmax, data_kind::vmax };
    static const mask_kind   masks[]   = { mask_kind::causal, mask_kind::none, mask_kind::holes, mask_kind::rows };
    static const layout      layouts[] = { layout::plain, layout::permuted, layout::view };
    static const poison_kind poisons[] = { poison_kind::nan_k_f16, poison_kind::inf_k_f16, poison_kind::nan_v_f16, poison_kind::inf_v_f16 };
    int                      n         = 0;
    for (const std::vector<head_dims> & all : { EQUAL_DIMS, OTHER_DIMS }) {
        for (const head_dims & dims : all) {
            for (int smoothing : { 0, 50, 100, 100 }) {
                align_case c;
                c.smoothing = smoothing;
                c.dims      = dims;
                c.k         = formats_of(true)[n % formats_of(true).size()];
                c.v         = formats_of(false)[n / 2 % formats_of(false).size()];
                c.n_tiles   = n % 3 == 1 ? 2 : 0;
                c.n_f16     = n_f16[n % 3];
                c.n_q       = n_qs[n % 4];
                c.n_head_kv = 1 + n % 2;
                c.group     = n % 5 == 0 ? 4 : 1;
                c.n_batch   = n % 7 == 3 ? 2 : 1;
                c.n_threads = 1 + n % 3;
                c.mask      = masks[n % 4];
                c.data      = data[n % 5];
                c.lay_f16   = layouts[n % 3];
                c.alibi     = n % 8 == 4;
                c.softcap   = n % 6 == 2;
                c.sinks     = n % 5 == 2;
                c.is_latent = n % 4 == 3 && dims.v <= dims.k && c.n_tiles == 0;
                c.v         = c.is_latent ? nullptr : c.v;
                if ((c.data == data_kind::biased && c.n_tiles > 0) || (c.data == data_kind::outlier && c.side_k().n_embd() < TILE)) {
                    c.data = data_kind::gauss; // what packing loses of the others is not known
                }
                cases.push_back(c);
                c.data          = data_kind::gauss;
                c.mask          = mask_kind::holes;
                c.alibi         = false;
                c.n_q           = 65;
                c.n_f16         = 384;
                c.poison        = poisons[n % 4];
                c.poison_masked = n / 4 % 2 == 0 && n % 4 != 1; // upstream's own result follows a hidden infinite key
                cases.push_back(c);
                n++;
            }
        }
    }
    align_case c;
    c.smoothing = 100;
    c.n_tiles   = 0;
    c.n_q       = 512;
    c.n_f16     = 1024;
    c.mask      = mask_kind::causal;
    c.group     = 4;
    c.n_threads = 2;
    cases.push_back(c);
}

std::vector<align_case> make_cases() {
    std::vector<align_case> cases;
    add_cover(cases, 1, 35000000, EQUAL_DIMS, {});
    add_cover(cases, 2, 10000000, EQUAL_DIMS, {});
    add_latent(cases);
    add_cover(cases, 3, 10000000, OTHER_DIMS, { 0, 1, 3 });
    add_onehot(cases);
    add_one_sided(cases);
    add_poison(cases);
    add_special(cases);
    add_other_dims(cases);
    add_shifts(cases);
    add_bias(cases);
    add_int8(cases);

    std::set<std::string> seen;
    for (align_case & c : cases) {
        const std::string id = make_id(c);
        c.id                 = id;
        for (int n = 2; !seen.insert(c.id).second; ++n) {
            c.id = id + "-" + std::to_string(n);
        }
    }
    return cases;
}
