#include "llama-graph-mixed.h"

#include "ggml-backend.h"
#include "ggml-qlutattn.h"
#include "llama-cparams.h"
#include "llama-kv-cache-mixed-iswa.h"
#include "llama-kv-cache-mixed.h"
#include "llama-kv-mixed-rotation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

static constexpr ggml_fp16_t MASK_KEEP = 0x0000; // 0
static constexpr ggml_fp16_t MASK_DROP = 0xfc00; // -infinity

static ggml_tensor * new_input(ggml_context * ctx, ggml_type type, const char * name, int64_t ne0, int64_t ne1 = 1, int64_t ne3 = 1) {
    ggml_tensor * res = ggml_new_tensor_4d(ctx, type, ne0, ne1, 1, ne3);
    ggml_set_input(res);
    ggml_set_name(res, name);
    return res;
}

static uint32_t count_streams(const llama_kv_cache_mixed_context * mctx, const llama_ubatch & ubatch) {
    return mctx->get_kv().get_layout().n_stream == 1 ? 1 : ubatch.n_seqs_unq;
}

// the largest number of different shifts in a stream
static uint32_t count_shifts(const llama_kv_cache_mixed_context * mctx) {
    size_t res = 0;
    for (const auto & shifts : mctx->get_shifts()) {
        res = std::max(res, shifts.size());
    }
    return res;
}

llm_graph_input_attn_kv_mixed::llm_graph_input_attn_kv_mixed(ggml_context * ctx, const llama_ubatch & ubatch, const llama_hparams & hparams,
                                                             const llama_cparams & cparams, const llama_kv_cache_mixed_context * mctx) :
    llm_graph_input_attn_kv(hparams, cparams, nullptr), mctx_mixed(mctx), n_stream(count_streams(mctx, ubatch)), s0(mctx->get_plan().s0) {
    const auto &  kv       = mctx->get_kv();
    const int64_t n_tokens = ubatch.n_tokens;

    self_k_idxs = new_input(ctx, GGML_TYPE_I64, "attn_inp_idxs", n_tokens);
    mask_f16    = new_input(ctx, GGML_TYPE_F16, "attn_inp_mask_f16", mctx->get_n_f16(), n_tokens / n_stream, n_stream);
    if (mctx->get_n_packed() > 0) {
        mask_packed = new_input(ctx, GGML_TYPE_F16, "attn_inp_mask_packed", mctx->get_n_packed(), n_tokens / n_stream, n_stream);
    }
    if (const uint32_t n = count_shifts(mctx)) {
        turns      = new_input(ctx, GGML_TYPE_I32, "attn_inp_turns", n_tokens * n);
        tile_shift = new_input(ctx, GGML_TYPE_I32, "attn_inp_tile_shift", mctx->get_n_packed() / GGML_QLUTATTN_TILE, n_stream);
    }
    if (kv.n_rot_k() > 0) {
        rot_k = new_input(ctx, GGML_TYPE_F32, "attn_inp_k_rot", kv.n_rot_k(), kv.n_rot_k());
    }
    if (kv.n_rot_v() > 0) {
        rot_v = new_input(ctx, GGML_TYPE_F32, "attn_inp_v_rot", kv.n_rot_v(), kv.n_rot_v());
    }
}

bool llm_graph_input_attn_kv_mixed::can_reuse(const llm_graph_params & params) {
    return can_reuse(params, static_cast<const llama_kv_cache_mixed_context *>(params.mctx));
}

bool llm_graph_input_attn_kv_mixed::can_reuse(const llm_graph_params & params, const llama_kv_cache_mixed_context * mctx) {
    mctx_mixed = mctx;

    return self_k_idxs->ne[0] == params.ubatch.n_tokens && n_stream == count_streams(mctx, params.ubatch) && s0 == mctx->get_plan().s0 &&
           mask_f16->ne[0] == mctx->get_n_f16() && n_shift() == count_shifts(mctx) && (mask_packed ? mask_packed->ne[0] : 0) == mctx->get_n_packed();
}

bool llm_graph_input_attn_kv_mixed::has_layer(int il) const {
    return mctx_mixed->get_kv().has_layer(il);
}

// Whether a cell of a token's own sequence is later than the token; parts of an image are at the same position.
static bool is_later(const llama_kv_cells & cells, uint32_t cell, const llama_ubatch & ubatch, int64_t token) {
    const llama_pos pos = cells.pos_get(cell);
    if (pos != ubatch.pos[token] || !ubatch.is_pos_2d()) {
        return pos > ubatch.pos[token];
    }
    return cells.ext_get(cell).is_2d_gt(ubatch.pos[2 * ubatch.n_tokens + token], ubatch.pos[ubatch.n_tokens + token]);
}

// What all tokens of a sequence see, whose first one is at pos_min: their own cells. Returns those that may be later than some token.
static std::vector<uint32_t> set_mask_row(ggml_fp16_t * row, int64_t n_cells, const llama_kv_cells & cells, llama_seq_id seq_id, llama_pos pos_min) {
    std::vector<uint32_t> late;
    for (int64_t i = 0; i < n_cells; i++) {
        const bool is_own = !cells.is_empty(i) && cells.seq_has(i, seq_id);
        row[i]            = is_own ? MASK_KEEP : MASK_DROP;
        if (is_own && cells.pos_get(i) >= pos_min) {
            late.push_back(i);
        }
    }
    return late;
}

// ALiBi: what is seen counts less the further away it is; the op multiplies by the slope of the head
static void add_distances(ggml_fp16_t * row, int64_t n_cells, const llama_kv_cells & cells, llama_pos pos) {
    for (int64_t i = 0; i < n_cells; i++) {
        if (row[i] == MASK_KEEP) {
            row[i] = ggml_fp32_to_fp16(-std::abs(cells.pos_get(i) - pos));
        }
    }
}

// The mask of a stream's first cells: a token sees those of its own sequence that are not later.
static void set_mask(ggml_tensor * mask, uint32_t stream, const llama_kv_cells & cells, const llama_ubatch & ubatch, bool causal, bool alibi) {
    const int64_t n_cells  = mask->ne[0];
    const int64_t n_tokens = mask->ne[1];
    const int64_t first    = stream * n_tokens;

    GGML_ASSERT(ggml_backend_buffer_is_host(mask->buffer));
    ggml_fp16_t * rows = (ggml_fp16_t *) ((char *) mask->data + stream * mask->nb[3]);

    // tokens of a sequence differ only in the cells that are later than the earliest of them
    struct seq_mask {
        llama_pos                pos_min;
        std::vector<ggml_fp16_t> row = {};
        std::vector<uint32_t>    late; // cells
    };

    std::map<llama_seq_id, seq_mask> seqs;
    for (int64_t i = 0; i < n_tokens; i++) {
        auto it            = seqs.emplace(ubatch.seq_id[first + i][0], seq_mask{ ubatch.pos[first + i], {}, {} }).first;
        it->second.pos_min = std::min(it->second.pos_min, ubatch.pos[first + i]);
    }
    for (auto & [seq_id, s] : seqs) {
        s.row.resize(n_cells);
        s.late = set_mask_row(s.row.data(), n_cells, cells, seq_id, s.pos_min);
    }

    for (int64_t i = 0; i < n_tokens; i++) {
        const seq_mask & s   = seqs.at(ubatch.seq_id[first + i][0]);
        ggml_fp16_t *    row = rows + i * n_cells;

        std::copy(s.row.begin(), s.row.end(), row);
        if (causal) {
            for (uint32_t cell : s.late) {
                if (is_later(cells, cell, ubatch, first + i)) {
                    row[cell] = MASK_DROP;
                }
            }
        }
        if (alibi) {
            add_distances(row, n_cells, cells, ubatch.pos[first + i]);
        }
    }
}

// Queries before a tile is due see its tokens in the f16 cells that are kept for them.
static void set_mask_of_kept(ggml_tensor * mask_f16, ggml_tensor * mask_packed, uint32_t stream, const llama_kv_mixed_stream & cells,
                             const llama_ubatch & ubatch) {
    const int64_t n_tokens = mask_f16->ne[1];
    for (int64_t i = 0; i < n_tokens; i++) {
        ggml_fp16_t * f16    = (ggml_fp16_t *) ((char *) mask_f16->data + stream * mask_f16->nb[3] + i * mask_f16->nb[1]);
        ggml_fp16_t * packed = (ggml_fp16_t *) ((char *) mask_packed->data + stream * mask_packed->nb[3] + i * mask_packed->nb[1]);
        for (const auto & kept : cells.kept) {
            if (ubatch.pos[stream * n_tokens + i] < kept.until) {
                for (uint32_t k = 0; k < GGML_QLUTATTN_TILE; k++) {
                    f16[kept.cells[k]] = std::exchange(packed[kept.tile * GGML_QLUTATTN_TILE + k], MASK_DROP);
                }
            }
        }
    }
}

// whether images are non-causal in layers with a sliding window only; older upstreams do not tell them apart
template <typename T> static auto is_swa_only(const T & hparams, int) -> decltype(hparams.non_causal_type, bool()) {
    return (int) hparams.non_causal_type == 1; // LLAMA_NON_CAUSAL_TYPE_SWA_ONLY
}

template <typename T> static bool is_swa_only(const T &, long) {
    return false;
}

void llm_graph_input_attn_kv_mixed::set_shifts() const {
    const int64_t n_tokens = self_k_idxs->ne[0];
    const int64_t n_tps    = n_tokens / n_stream;
    const int64_t n_tiles  = tile_shift->ne[0];

    std::vector<int32_t> turns_data(turns->ne[0], 0);
    std::vector<int32_t> tiles_data(n_tiles * n_stream, 0);
    for (uint32_t s = 0; s < n_stream; s++) {
        const auto & shifts = mctx_mixed->get_shifts()[s];
        for (size_t i = 0; i < shifts.size(); i++) {
            std::fill_n(turns_data.begin() + i * n_tokens + s * n_tps, n_tps, -shifts[i]);
        }
        const auto & of_tiles = mctx_mixed->get_kv().get_stream(s0 + s).tile_shift;
        for (int64_t t = 0; t < n_tiles; t++) {
            const auto it               = std::find(shifts.begin(), shifts.end(), of_tiles[t]);
            tiles_data[s * n_tiles + t] = it == shifts.end() ? 0 : it - shifts.begin() + 1;
        }
    }
    ggml_backend_tensor_set(turns, turns_data.data(), 0, ggml_nbytes(turns));
    ggml_backend_tensor_set(tile_shift, tiles_data.data(), 0, ggml_nbytes(tile_shift));
}

void llm_graph_input_attn_kv_mixed::set_input(const llama_ubatch * ubatch) {
    const auto & kv   = mctx_mixed->get_kv();
    const auto & plan = mctx_mixed->get_plan();

    const bool causal = cparams.causal_attn || is_swa_only(hparams, 0);

    // inputs that no layer uses are not allocated
    if (self_k_idxs->buffer) {
        std::vector<int64_t> idxs;
        for (uint32_t s = 0; s < plan.n_stream(); s++) {
            for (uint32_t idx : plan.idxs[s]) {
                idxs.push_back((int64_t) (plan.s0 + s) * kv.get_layout().n_f16 + idx);
            }
        }
        GGML_ASSERT((int64_t) idxs.size() == self_k_idxs->ne[0]);
        ggml_backend_tensor_set(self_k_idxs, idxs.data(), 0, ggml_nbytes(self_k_idxs));
    }
    for (uint32_t s = 0; s < n_stream; s++) {
        const auto & stream = kv.get_stream(s0 + s);
        if (mask_f16->buffer) {
            set_mask(mask_f16, s, stream.f16, *ubatch, causal, hparams.use_alibi);
        }
        if (mask_packed && mask_packed->buffer) {
            set_mask(mask_packed, s, stream.packed, *ubatch, causal, hparams.use_alibi);
            set_mask_of_kept(mask_f16, mask_packed, s, stream, *ubatch);
        }
    }
    if (turns && turns->buffer) {
        set_shifts();
    }
    for (ggml_tensor * rot : { rot_k, rot_v }) {
        if (rot && rot->buffer) {
            ggml_backend_tensor_set(rot, llama_kv_mixed_rotation(rot->ne[0]).data(), 0, ggml_nbytes(rot));
        }
    }
}

// the first n tokens of f16 storage [n_embd, n_all, n_stream] as [head_dim, n, n_head_kv, n_stream]
static ggml_tensor * view_f16(ggml_context * ctx, ggml_tensor * t, int64_t head_dim, int64_t n, uint32_t s0, int64_t n_stream) {
    return ggml_view_4d(ctx, t, head_dim, n, t->ne[0] / head_dim, n_stream, t->nb[1], head_dim * t->nb[0], t->nb[2], s0 * t->nb[2]);
}

static ggml_tensor * view_packed(ggml_context * ctx, ggml_tensor * t, int64_t head_dim, int64_t n, uint32_t s0, int64_t n_stream) {
    if (!ggml_is_qlutattn(t->type)) {
        return view_f16(ctx, t, head_dim, n, s0, n_stream);
    }
    return ggml_view_4d(ctx, t, t->ne[0], n, t->ne[2], n_stream, t->nb[1], t->nb[2], t->nb[3], s0 * t->nb[3]);
}

static ggml_tensor * store(ggml_context * ctx, ggml_tensor * t, ggml_tensor * cur, ggml_tensor * idxs) {
    GGML_ASSERT(ggml_row_size(cur->type, cur->ne[0]) == cur->nb[1]); // the heads of a token lie side by side
    cur = ggml_view_2d(ctx, cur, cur->ne[0] * cur->ne[1], cur->ne[2], cur->nb[2], 0);
    t   = ggml_reshape_2d(ctx, t, t->ne[0], t->ne[1] * t->ne[2]);
    return ggml_set_rows(ctx, t, cur, idxs);
}

// heads as the cache has them
static ggml_tensor * pad_heads(ggml_context * ctx, ggml_tensor * t, int64_t head_dim) {
    return t->ne[0] == head_dim ? t : ggml_pad(ctx, t, head_dim - t->ne[0], 0, 0, 0);
}

// The mask of a part, for each head, with the bias of its keys: columns of kq_b [n_kv, n_tokens, n_head] from the first on. As in upstream, a model
// with a bias has one stream.
static ggml_tensor * add_bias(ggml_context * ctx, ggml_tensor * mask, ggml_tensor * kq_b, int64_t first) {
    ggml_tensor * part = ggml_view_3d(ctx, kq_b, mask->ne[0], kq_b->ne[1], kq_b->ne[2], kq_b->nb[1], kq_b->nb[2], first * kq_b->nb[0]);
    return ggml_add(ctx, ggml_cast(ctx, part, GGML_TYPE_F16), mask);
}

// the queries for each of the shifts: [head_dim, n_tokens/n_stream, n_head, n_stream*n_shift]
ggml_tensor * llm_graph_input_attn_kv_mixed::build_shifted(ggml_context * ctx, ggml_tensor * q, int il) const {
    const auto &  layer = mctx_mixed->get_kv().get_layer(il);
    const int64_t n_tps = q->ne[2] / n_stream;

    ggml_tensor * cur = ggml_repeat_4d(ctx, q, q->ne[0], q->ne[1], turns->ne[0], 1);
    cur               = llama_kv_mixed_rotate(ctx, pad_heads(ctx, layer.k.rope.turn(ctx, cur, turns), layer.head_dim), rot_k);
    return ggml_view_4d(ctx, cur, cur->ne[0], n_tps, cur->ne[1], cur->ne[2] / n_tps, cur->nb[2], cur->nb[1], cur->nb[2] * n_tps, 0);
}

ggml_tensor * llm_graph_input_attn_kv_mixed::build_attn(ggml_context * ctx, ggml_cgraph * gf, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v,
                                                        ggml_tensor * kq_b, ggml_tensor * sinks, ggml_tensor * v_mla, float kq_scale, int il) const {
    const auto &  layer       = mctx_mixed->get_kv().get_layer(il);
    const int64_t n_tokens    = q->ne[2];
    const int64_t n_head      = q->ne[1];
    const int64_t n_f16       = mask_f16->ne[0];
    const int64_t n_embd_head = hparams.n_embd_head_v(il);

    const int64_t n_tps     = n_tokens / n_stream;
    ggml_tensor * q_shifted = turns && layer.k.rope.n_rot > 0 ? build_shifted(ctx, q, il) : nullptr;
    q                       = llama_kv_mixed_rotate(ctx, pad_heads(ctx, q, layer.head_dim), rot_k);
    ggml_build_forward_expand(gf, q);
    if (k) {
        k = llama_kv_mixed_rotate(ctx, pad_heads(ctx, k, layer.head_dim), rot_k);
        ggml_build_forward_expand(gf, store(ctx, layer.k.f16, k, self_k_idxs));
        if (!layer.is_latent()) {
            v = llama_kv_mixed_rotate(ctx, pad_heads(ctx, v, layer.head_dim_v), rot_v);
            ggml_build_forward_expand(gf, store(ctx, layer.v.f16, v, self_k_idxs));
        }
    }

    q = ggml_view_4d(ctx, q, q->ne[0], n_tps, n_head, n_stream, q->nb[2], q->nb[1], q->nb[2] * n_tps, 0);

    ggml_tensor * mask  = mask_f16;
    ggml_tensor * maskp = mask_packed;
    if (kq_b) {
        GGML_ASSERT(kq_scale == 1.0f); // upstream scales the bias, too
        mask  = add_bias(ctx, mask_f16, kq_b, 0);
        maskp = mask_packed ? add_bias(ctx, mask_packed, kq_b, n_f16) : nullptr;
    }

    ggml_tensor * kp = nullptr;
    ggml_tensor * vp = nullptr;
    if (mask_packed) {
        kp = view_packed(ctx, layer.k.packed, layer.head_dim, mask_packed->ne[0], s0, n_stream);
        vp = layer.is_latent() ? nullptr : view_packed(ctx, layer.v.packed, layer.head_dim_v, mask_packed->ne[0], s0, n_stream);
    }
    ggml_tensor * k_f16 = view_f16(ctx, layer.k.f16, layer.head_dim, n_f16, s0, n_stream);
    ggml_tensor * v_f16 = layer.is_latent() ? nullptr : view_f16(ctx, layer.v.f16, layer.head_dim_v, n_f16, s0, n_stream);
    ggml_tensor * res   = ggml_flash_attn_ext_mixed(ctx, q, k_f16, v_f16, mask, kp, vp, maskp, sinks, layer.n_head_kv, layer.head_dim_v, kq_scale,
                                                    hparams.f_max_alibi_bias, hparams.attn_soft_cap ? hparams.f_attn_logit_softcapping : 0.0f);

    if (q_shifted) {
        ggml_flash_attn_ext_mixed_set_shifts(res, q_shifted, tile_shift);
    }
    if (cparams.attn_int8) {
        ggml_flash_attn_ext_mixed_set_int8(res, cparams.attn_int8_smoothing);
    }

    res = llama_kv_mixed_rotate(ctx, res, rot_v);
    if (n_embd_head != layer.head_dim_v) {
        res = ggml_cont(ctx, ggml_view_3d(ctx, res, n_embd_head, n_head, n_tokens, res->nb[1], res->nb[2], 0));
    }
    if (v_mla) { // one product for each head, as upstream
        res = ggml_mul_mat(ctx, v_mla, ggml_permute(ctx, ggml_reshape_3d(ctx, res, n_embd_head, n_head, n_tokens), 0, 2, 1, 3));
        res = ggml_cont(ctx, ggml_permute(ctx, res, 0, 2, 1, 3));
    }
    res = ggml_reshape_2d(ctx, res, res->ne[0] * n_head, n_tokens);
    ggml_build_forward_expand(gf, res);
    return res;
}

//
// models with a bias for each distance of two tokens
//

llm_graph_input_pos_bucket_mixed::llm_graph_input_pos_bucket_mixed(ggml_context * ctx, const llama_ubatch & ubatch, const llama_hparams & hparams,
                                                                   const llama_kv_cache_mixed_context * mctx) :
    pos_bucket(new_input(ctx, GGML_TYPE_I32, "attn_inp_pos_bucket", mctx->get_n_f16() + mctx->get_n_packed(), ubatch.n_tokens)),
    mctx_mixed(mctx),
    n_buckets(hparams.n_rel_attn_bkts) {}

// where a cell's token is; the mask hides empty cells
static llama_pos position_of(const llama_kv_cells & cells, uint32_t i) {
    return cells.is_empty(i) ? -1 : cells.pos_get(i);
}

void llm_graph_input_pos_bucket_mixed::set_input(const llama_ubatch * ubatch) {
    const auto & stream = mctx_mixed->get_kv().get_stream(mctx_mixed->get_plan().s0);

    std::vector<llama_pos> cells; // of both parts
    for (uint32_t i = 0; i < mctx_mixed->get_n_f16(); i++) {
        cells.push_back(position_of(stream.f16, i));
    }
    for (uint32_t i = 0; i < mctx_mixed->get_n_packed(); i++) {
        cells.push_back(position_of(stream.packed, i));
    }
    for (const auto & kept : stream.kept) {
        for (uint32_t k = 0; k < GGML_QLUTATTN_TILE; k++) {
            cells[kept.cells[k]] = position_of(stream.packed, kept.tile * GGML_QLUTATTN_TILE + k);
        }
    }

    std::vector<int32_t> data;
    data.reserve(ggml_nelements(pos_bucket));
    for (uint32_t i = 0; i < ubatch->n_tokens; i++) {
        for (llama_pos pos : cells) {
            data.push_back(llama_relative_position_bucket(pos, ubatch->pos[i], n_buckets, false));
        }
    }
    ggml_backend_tensor_set(pos_bucket, data.data(), 0, ggml_nbytes(pos_bucket));
}

std::unique_ptr<llm_graph_input_pos_bucket_mixed> llm_build_inp_pos_bucket_mixed(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                                 const llama_hparams & hparams, const llama_memory_context_i * mctx) {
    const auto * mctx_mixed = dynamic_cast<const llama_kv_cache_mixed_context *>(mctx);
    return mctx_mixed ? std::make_unique<llm_graph_input_pos_bucket_mixed>(ctx, ubatch, hparams, mctx_mixed) : nullptr;
}

//
// models with latent attention
//

llm_graph_input_attn_k_mixed::llm_graph_input_attn_k_mixed(std::unique_ptr<llm_graph_input_attn_kv_mixed> rows) :
    llm_graph_input_attn_k(rows->hparams, rows->cparams, nullptr), rows(std::move(rows)) {}

void llm_graph_input_attn_k_mixed::set_input(const llama_ubatch * ubatch) {
    rows->set_input(ubatch);
}

bool llm_graph_input_attn_k_mixed::can_reuse(const llm_graph_params & params) {
    return rows->can_reuse(params);
}

std::unique_ptr<llm_graph_input_attn_k> llm_build_attn_inp_k_mixed(ggml_context * ctx, const llama_ubatch & ubatch, const llama_hparams & hparams,
                                                                   const llama_cparams & cparams, const llama_memory_context_i * mctx) {
    const auto * mctx_mixed = dynamic_cast<const llama_kv_cache_mixed_context *>(mctx);
    if (!mctx_mixed) {
        return nullptr;
    }
    return std::make_unique<llm_graph_input_attn_k_mixed>(std::make_unique<llm_graph_input_attn_kv_mixed>(ctx, ubatch, hparams, cparams, mctx_mixed));
}

llm_graph_input_attn_kv * llm_attn_inp_k_rows(llm_graph_input_attn_k * inp) {
    auto * mixed = dynamic_cast<llm_graph_input_attn_k_mixed *>(inp);
    return mixed ? mixed->rows.get() : nullptr;
}

//
// models with layers that have upstream's cache
//

template <typename T>
llm_graph_input_attn_parts_mixed<T>::llm_graph_input_attn_parts_mixed(std::unique_ptr<llm_graph_input_attn_kv_mixed> base,
                                                                      std::unique_ptr<llm_graph_input_attn_kv>       swa) :
    T(base->hparams, base->cparams, nullptr), base(std::move(base)), swa(std::move(swa)) {}

template <typename T> void llm_graph_input_attn_parts_mixed<T>::set_input(const llama_ubatch * ubatch) {
    base->set_input(ubatch);
    swa->set_input(ubatch);
}

template <typename T> bool llm_graph_input_attn_parts_mixed<T>::can_reuse(const llm_graph_params & params) {
    const auto * mctx = static_cast<const llama_kv_cache_mixed_iswa_context *>(params.mctx);

    llm_graph_params params_swa = params;
    params_swa.mctx             = mctx->get_swa();

    // call both: each of them stores the new context
    const bool base_can = base->can_reuse(params, mctx->get_base());
    const bool swa_can  = swa->can_reuse(params_swa);
    return base_can && swa_can;
}

template <typename T>
static std::unique_ptr<llm_graph_input_attn_parts_mixed<T>> build_parts(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                        const llama_hparams & hparams, const llama_cparams & cparams,
                                                                        const llama_memory_context_i * mctx) {
    const auto * mctx_mixed = dynamic_cast<const llama_kv_cache_mixed_iswa_context *>(mctx);
    if (!mctx_mixed) {
        return nullptr;
    }
    const auto *  mctx_swa = mctx_mixed->get_swa();
    const int64_t n_stream = cparams.kv_unified ? 1 : ubatch.n_seqs_unq;

    auto swa              = std::make_unique<llm_graph_input_attn_kv>(hparams, cparams, mctx_swa);
    swa->self_k_idxs      = mctx_swa->build_input_k_idxs(ctx, ubatch);
    swa->self_v_idxs      = mctx_swa->build_input_v_idxs(ctx, ubatch);
    swa->self_kq_mask     = new_input(ctx, GGML_TYPE_F16, "attn_inp_kq_mask_swa", mctx_swa->get_n_kv(), ubatch.n_tokens / n_stream, n_stream);
    swa->self_kq_mask_cnv = swa->self_kq_mask;

    auto base = std::make_unique<llm_graph_input_attn_kv_mixed>(ctx, ubatch, hparams, cparams, mctx_mixed->get_base());
    return std::make_unique<llm_graph_input_attn_parts_mixed<T>>(std::move(base), std::move(swa));
}

std::unique_ptr<llm_graph_input_attn_kv> llm_build_attn_inp_kv_mixed(ggml_context * ctx, const llama_ubatch & ubatch, const llama_hparams & hparams,
                                                                     const llama_cparams & cparams, const llama_memory_context_i * mctx) {
    if (const auto * mctx_mixed = dynamic_cast<const llama_kv_cache_mixed_context *>(mctx)) {
        return std::make_unique<llm_graph_input_attn_kv_mixed>(ctx, ubatch, hparams, cparams, mctx_mixed);
    }
    return build_parts<llm_graph_input_attn_kv>(ctx, ubatch, hparams, cparams, mctx);
}

std::unique_ptr<llm_graph_input_attn_kv_iswa> llm_build_attn_inp_kv_iswa_mixed(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                               const llama_hparams & hparams, const llama_cparams & cparams,
                                                                               const llama_memory_context_i * mctx) {
    return build_parts<llm_graph_input_attn_kv_iswa>(ctx, ubatch, hparams, cparams, mctx);
}

llm_graph_input_attn_kv * llm_attn_inp_kv_iswa_part(llm_graph_input_attn_kv_iswa * inp, bool is_swa) {
    auto * parts = dynamic_cast<llm_graph_input_attn_parts_mixed<llm_graph_input_attn_kv_iswa> *>(inp);
    return !parts ? nullptr : is_swa ? parts->swa.get() : parts->base.get();
}

llm_graph_input_attn_kv * llm_attn_inp_kv_part(llm_graph_input_attn_kv * inp, int il) {
    auto * parts = dynamic_cast<llm_graph_input_attn_parts_mixed<llm_graph_input_attn_kv> *>(inp);
    return !parts ? inp : parts->base->has_layer(il) ? parts->base.get() : parts->swa.get();
}
