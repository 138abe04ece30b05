#include "llama-kv-cache-mixed.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-qlutattn.h"
#include "llama-cparams.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-cache-mixed-iswa.h"
#include "llama-kv-mixed-shift.h"
#include "llama-model.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>

uint32_t llama_kv_cache_mixed_head_size(uint32_t n_embd_head) {
    return GGML_PAD(n_embd_head, 64);
}

uint32_t llama_kv_cache_mixed_n_embd(const llama_hparams & hparams, uint32_t il) {
    return hparams.n_embd_k_gqa(il) + (hparams.is_mla() ? 0 : hparams.n_embd_v_gqa(il));
}

static double mib(size_t size) {
    return size / 1024.0 / 1024.0;
}

llama_memory_i * llama_kv_cache_mixed_new(const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams,
                                          const llama_memory_i::layer_filter_cb & filter, const llama_memory_i::layer_reuse_cb & reuse) {
    bool has_others = model.hparams.swa_type != LLAMA_SWA_TYPE_NONE;
    for (uint32_t il = 0; cparams.offload_kqv && il < model.hparams.n_layer_all; il++) {
        has_others = has_others || ((!filter || filter(il)) && llama_kv_cache_mixed_on_device(model, il));
    }
    if (has_others) {
        return new llama_kv_cache_mixed_iswa(model, params, cparams, filter, reuse);
    }
    return new llama_kv_cache_mixed(model, params.type_k, params.type_v, cparams, filter, reuse);
}

// Upstreams before 0.3.34 of llama-cpp-python have split_equal without the number of tokens to keep for the end.
[[maybe_unused]] static llama_ubatch split_equal(llama_batch_allocr & balloc, llama_ubatch (llama_batch_allocr::*split)(uint32_t, bool, uint32_t),
                                                 uint32_t n_ubatch, bool sequential, uint32_t n_last) {
    return (balloc.*split)(n_ubatch, sequential, n_last);
}

[[maybe_unused]] static llama_ubatch split_equal(llama_batch_allocr & balloc, llama_ubatch (llama_batch_allocr::*split)(uint32_t, bool),
                                                 uint32_t n_ubatch, bool sequential, uint32_t /*n_last*/) {
    return (balloc.*split)(n_ubatch, sequential);
}

llama_ubatch llama_kv_cache_mixed_split_equal(llama_batch_allocr & balloc, uint32_t n_ubatch, bool sequential, uint32_t n_last) {
    return split_equal(balloc, &llama_batch_allocr::split_equal, n_ubatch, sequential, n_last);
}

std::vector<llama_ubatch> llama_kv_cache_mixed_split(llama_batch_allocr & balloc, uint32_t n_ubatch, bool unified) {
    std::vector<llama_ubatch> res;

    balloc.split_reset();
    while (true) {
        auto ubatch = unified ? balloc.split_simple(n_ubatch) : llama_kv_cache_mixed_split_equal(balloc, n_ubatch, true, 0);
        if (ubatch.n_tokens == 0) {
            break;
        }
        res.push_back(std::move(ubatch));
    }
    if (balloc.get_n_used() < balloc.get_n_tokens()) {
        res.clear();
    }
    return res;
}

//
// llama_kv_cache_mixed
//

llama_kv_mixed_layout llama_kv_cache_mixed_layout(const llama_hparams & hparams, ggml_type type_k, ggml_type type_v, const llama_cparams & cparams,
                                                  const llama_memory_i::layer_filter_cb & filter) {
    size_t     packed   = 0;
    size_t     f16      = 0;
    size_t     upstream = 0;
    const auto add      = [&](ggml_type type, int64_t n_embd) {
        packed += ggml_row_size(type, ggml_is_qlutattn(type) ? GGML_PAD(n_embd, GGML_QLUTATTN_TILE) : n_embd);
        f16 += ggml_row_size(GGML_TYPE_F16, n_embd);
    };
    for (uint32_t il = 0; il < hparams.n_layer_all; il++) {
        if (hparams.has_kv(il) && (!filter || filter(il))) {
            add(type_k, (int64_t) hparams.n_head_kv(il) * llama_kv_cache_mixed_head_size(hparams.n_embd_head_k(il)));
            if (!hparams.is_mla()) {
                add(type_v, (int64_t) hparams.n_head_kv(il) * llama_kv_cache_mixed_head_size(hparams.n_embd_head_v(il)));
            }
            upstream += ggml_row_size(GGML_TYPE_F16, llama_kv_cache_mixed_n_embd(hparams, il));
        }
    }
    const double unit = std::max<size_t>(upstream, 1);
    return llama_kv_mixed_layout::make(cparams.n_ctx_seq, cparams.n_ubatch, cparams.n_seq_max, cparams.kv_unified, cparams.kv_sink, cparams.kv_window,
                                       { f16 / unit, packed / unit });
}

std::string llama_kv_cache_mixed_why_f16(const llama_kv_mixed_layout & layout, uint32_t n_ubatch) {
    const uint64_t n_seq  = layout.n_seq_max / layout.n_stream;
    const uint64_t n_keep = (uint64_t) layout.n_sink + layout.n_window + GGML_QLUTATTN_TILE;
    return format(
        "%llu sequence(s) × (%u sinks + a window of %u + %d) + a ubatch of %u = %llu f16 cells, at most the %u tokens of the context, and "
        "tiles for all of them would take %.0f %% of what f16 takes: for a packed cache use a larger -c, fewer sequences (-np), or a smaller "
        "--kv-window, --kv-sink or -ub",
        (unsigned long long) n_seq, layout.n_sink, layout.n_window, GGML_QLUTATTN_TILE, n_ubatch, (unsigned long long) (n_seq * n_keep + n_ubatch),
        layout.n_cells, 100.0 * layout.share);
}

llama_kv_cache_mixed::llama_kv_cache_mixed(const llama_model & model, ggml_type type_k, ggml_type type_v, const llama_cparams & cparams,
                                           const layer_filter_cb & filter, const layer_reuse_cb & reuse) :
    hparams(model.hparams),
    arch(model.arch),
    no_alloc(model.hparams.no_alloc),
    type_k(type_k),
    type_v(type_v),
    layout(llama_kv_cache_mixed_layout(hparams, type_k, type_v, cparams, filter)),
    streams(layout.n_stream),
    cpu(&cparams),
    packer(cpu) {
    for (auto & stream : streams) {
        stream.resize(layout);
    }
    add_layers(model, cparams, filter, reuse);

    set_rotation();
    allocate();
    print_size(cparams.n_ubatch);
}

// the largest power of two that divides all of some head sizes
static int64_t common_power_of_two(const std::vector<int64_t> & sizes) {
    int64_t bits = 0;
    for (int64_t size : sizes) {
        bits |= size;
    }
    return bits & -bits;
}

// As upstream rotates quantised caches: whole heads for K, 64 channels for V. Padded heads of V are rotated as a whole, too, so that
// channels of zeros take their share of the others' errors.
void llama_kv_cache_mixed::set_rotation() {
    const char * disable = getenv("LLAMA_ATTN_ROT_DISABLE");
    if (disable && atoi(disable)) {
        return;
    }
    std::vector<int64_t> sizes_k;
    std::vector<int64_t> sizes_v;
    bool                 is_padded = true;
    for (const auto & l : layers) {
        sizes_k.push_back(l.head_dim);
        sizes_v.push_back(l.head_dim_v);
        is_padded = is_padded && l.head_dim_v != hparams.n_embd_head_v(l.il);
    }
    rot_k = ggml_is_qlutattn(type_k) ? common_power_of_two(sizes_k) : 0;
    rot_v = !ggml_is_qlutattn(type_v) ? 0 : is_padded ? common_power_of_two(sizes_v) : 64;
    if (hparams.is_mla()) { // values are channels of keys
        rot_k = rot_v = 64;
    }
}

llama_kv_cache_mixed::side llama_kv_cache_mixed::new_side(const char * name, uint32_t il, ggml_type type, int64_t n_embd) const {
    side res = {};
    res.f16  = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F16, n_embd, layout.n_f16, layout.n_stream);
    ggml_format_name(res.f16, "cache_%s_f16_l%u", name, il);
    if (layout.n_tiles > 0) {
        const int64_t n_packed = layout.n_tiles * GGML_QLUTATTN_TILE;
        if (ggml_is_qlutattn(type)) {
            const int64_t n_columns = GGML_PAD(n_embd, GGML_QLUTATTN_TILE) / GGML_QLUTATTN_TILE;
            res.packed              = ggml_new_tensor_4d(ctx.get(), type, GGML_QLUTATTN_TILE, n_packed, n_columns, layout.n_stream);
        } else {
            res.packed = ggml_new_tensor_3d(ctx.get(), type, n_embd, n_packed, layout.n_stream);
        }
        ggml_format_name(res.packed, "cache_%s_packed_l%u", name, il);
    }
    return res;
}

void llama_kv_cache_mixed::add_layers(const llama_model & model, const llama_cparams & cparams, const layer_filter_cb & filter,
                                      const layer_reuse_cb & reuse) {
    const ggml_init_params params = {
        /*.mem_size   =*/4 * hparams.n_layer_all * ggml_tensor_overhead(),
        /*.mem_buffer =*/nullptr,
        /*.no_alloc   =*/true,
    };
    ctx.reset(ggml_init(params));
    if (!ctx) {
        throw std::runtime_error("failed to create the ggml context of the KV cache");
    }
    for (uint32_t il = 0; il < hparams.n_layer_all; il++) {
        if (!hparams.has_kv(il) || (filter && !filter(il))) {
            continue;
        }
        layer res      = {};
        res.il         = il;
        res.n_head_kv  = hparams.n_head_kv(il);
        res.head_dim   = llama_kv_cache_mixed_head_size(hparams.n_embd_head_k(il));
        res.head_dim_v = llama_kv_cache_mixed_head_size(hparams.n_embd_head_v(il));
        res.k          = new_side("k", il, type_k, res.n_head_kv * res.head_dim);
        res.v          = hparams.is_mla() ? side() : new_side("v", il, type_v, res.n_head_kv * res.head_dim_v);
        layer_ids[il]  = layers.size();
        res.k.rope     = llama_kv_mixed_rope::make(model, cparams, il);
        layers.push_back(res);
    }
    for (uint32_t il = 0; reuse && il < hparams.n_layer_all; il++) {
        const int32_t source = (!filter || filter(il)) ? reuse(il) : -1;
        if (source >= 0) {
            layer_ids[il] = layer_ids.at(source);
        }
    }
    if (layers.empty()) {
        throw std::runtime_error("no layer of this model has keys and values to pack");
    }
}

void llama_kv_cache_mixed::allocate() {
    ggml_backend_buffer_type_t buft = ggml_backend_cpu_buffer_type();
    if (no_alloc) {
        buf.reset(ggml_backend_buft_alloc_buffer(buft, 0));
        for (ggml_tensor * t = ggml_get_first_tensor(ctx.get()); t; t = ggml_get_next_tensor(ctx.get(), t)) {
            t->buffer = buf.get(); // so that the scheduler does not allocate it
        }
    } else {
        buf.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft));
    }
    if (!buf) {
        throw std::runtime_error("failed to allocate the KV cache");
    }
    ggml_backend_buffer_clear(buf.get(), 0);
}

void llama_kv_cache_mixed::print_size(uint32_t n_ubatch) const {
    size_t f16    = 0;
    size_t packed = 0;
    size_t full   = 0;
    for (const side * s : sides()) {
        f16 += ggml_nbytes(s->f16);
        packed += s->packed ? ggml_nbytes(s->packed) : 0;
    }
    for (const auto & l : layers) {
        full += ggml_row_size(GGML_TYPE_F16, llama_kv_cache_mixed_n_embd(hparams, l.il)) * layout.n_cells * layout.n_stream;
    }
    LLAMA_LOG_INFO(
        "%s: %u tokens in %u stream(s), %zu layers, K %s, V %s: %u f16 cells (%.2f MiB, for %u sinks, a window of %u, and the ubatch) and "
        "%u tiles of %d tokens (%.2f MiB) per stream\n",
        __func__, layout.n_cells, layout.n_stream, layers.size(), ggml_type_name(type_k), ggml_type_name(type_v), layout.n_f16,
        mib(f16 / layout.n_stream), layout.n_sink, layout.n_window, layout.n_tiles, GGML_QLUTATTN_TILE, mib(packed / layout.n_stream));
    // llama.cpp's tools show no INFO of the library unless they are asked to
    LLAMA_LOG_WARN("%s: size = %.2f MiB: f16 part %zu bytes, packed part %zu bytes; f16 alone would take %zu bytes (%.1f %% of it)\n", __func__,
                   mib(f16 + packed), f16, packed, full, 100.0 * (f16 + packed) / full);
    if (layout.n_tiles == 0) {
        LLAMA_LOG_WARN("%s: all tokens of this context stay in f16: %s\n", __func__, llama_kv_cache_mixed_why_f16(layout, n_ubatch).c_str());
    }
    const auto padded = std::find_if(layers.begin(), layers.end(), [this](const layer & l) {
        return l.head_dim != hparams.n_embd_head_k(l.il) || l.head_dim_v != hparams.n_embd_head_v(l.il);
    });
    if (padded != layers.end()) {
        LLAMA_LOG_INFO("%s: heads of %u channels for K and %u for V are padded to %d and %d: the figures above include that\n", __func__,
                       hparams.n_embd_head_k(padded->il), hparams.n_embd_head_v(padded->il), (int) padded->head_dim, (int) padded->head_dim_v);
    }
    LLAMA_LOG_INFO("%s: rotation of K by %d, of V by %d channels\n", __func__, (int) rot_k, (int) rot_v);
}

std::vector<const llama_kv_mixed_side *> llama_kv_cache_mixed::sides() const {
    std::vector<const llama_kv_mixed_side *> res;
    for (const auto & l : layers) {
        res.push_back(&l.k);
        if (!l.is_latent()) {
            res.push_back(&l.v);
        }
    }
    return res;
}

//
// batches
//

llama_memory_context_ptr llama_kv_cache_mixed::init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool /*embd_all*/) {
    auto ubatches = llama_kv_cache_mixed_split(balloc, n_ubatch, layout.n_stream == 1);
    auto res      = prepare(ubatches);
    if (res.empty()) {
        return std::make_unique<llama_kv_cache_mixed_context>(LLAMA_MEMORY_STATUS_FAILED_PREPARE);
    }
    return std::make_unique<llama_kv_cache_mixed_context>(this, std::move(res), std::move(ubatches));
}

llama_memory_context_ptr llama_kv_cache_mixed::init_full() {
    return std::make_unique<llama_kv_cache_mixed_context>(this);
}

llama_memory_context_ptr llama_kv_cache_mixed::init_update(llama_context * /*lctx*/, bool /*optimize*/) {
    if (has_shift()) {
        return std::make_unique<llama_kv_cache_mixed_context>(this);
    }
    return std::make_unique<llama_kv_cache_mixed_context>(LLAMA_MEMORY_STATUS_NO_UPDATE);
}

llama_kv_cache_mixed::plans llama_kv_cache_mixed::prepare(const std::vector<llama_ubatch> & ubatches) {
    for (auto & stream : streams) {
        stream.release_kept();
    }
    plans                  res;
    llama_kv_mixed_planner planner(layout, streams);

    for (const auto & ubatch : ubatches) {
        const uint32_t n_stream = layout.n_stream == 1 ? 1 : ubatch.n_seqs_unq;
        const uint32_t n_tokens = ubatch.n_tokens / n_stream;
        GGML_ASSERT(n_tokens * n_stream == ubatch.n_tokens);

        llama_kv_mixed_plan plan;
        plan.s0 = stream_of(ubatch.seq_id_unq[0]);
        plan.idxs.resize(n_stream);
        for (uint32_t s = 0; s < n_stream; s++) {
            const uint32_t first = s * n_tokens;
            GGML_ASSERT(layout.n_stream == 1 || stream_of(ubatch.seq_id[first][0]) == plan.s0 + s);
            if (!planner.add(plan.s0 + s, n_tokens, ubatch.pos + first, ubatch.n_seq_id + first, ubatch.seq_id + first, plan.packs, plan.idxs[s])) {
                return {};
            }
        }
        res.push_back(std::move(plan));
    }
    return res;
}

// where a token is in an image, for masks
static llama_kv_cell_ext position_ext(const llama_ubatch & ubatch, uint32_t i) {
    llama_kv_cell_ext res;
    if (ubatch.is_pos_2d()) {
        res.y = ubatch.pos[ubatch.n_tokens + i];
        res.x = ubatch.pos[ubatch.n_tokens * 2 + i];
    }
    return res;
}

bool llama_kv_cache_mixed::apply(const llama_kv_mixed_plan & plan, const llama_ubatch & ubatch) {
    if (!plan.packs.empty()) {
        if (!packer.pack(sides(), plan.packs, rot_k)) {
            return false;
        }
        for (uint32_t s = 0; s < layout.n_stream; s++) {
            streams[s].pack(plan.packs, s);
        }
    }
    uint32_t i = 0;
    for (uint32_t s = 0; s < plan.n_stream(); s++) {
        for (uint32_t cell : plan.idxs[s]) {
            streams[plan.s0 + s].add(cell, ubatch.pos[i], position_ext(ubatch, i), ubatch.n_seq_id[i], ubatch.seq_id[i]);
            i++;
        }
    }
    return true;
}

//
// sequences
//

// as upstream's cache
bool llama_kv_cache_mixed::get_can_shift() const {
    return arch != LLM_ARCH_STEP35 && hparams.n_pos_per_embd() == 1;
}

void llama_kv_cache_mixed::clear(bool data) {
    for (auto & stream : streams) {
        stream.clear();
    }
    if (data) {
        ggml_backend_buffer_clear(buf.get(), 0);
    }
}

// as upstream: a negative end of a range of positions is open
static void resolve_range(llama_pos & p0, llama_pos & p1) {
    p0 = std::max(p0, 0);
    p1 = p1 < 0 ? std::numeric_limits<llama_pos>::max() : p1;
}

bool llama_kv_cache_mixed::seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    resolve_range(p0, p1);
    for (uint32_t s = 0; s < layout.n_stream; s++) {
        if (seq_id < 0 || stream_of(seq_id) == s) {
            streams[s].seq_rm(seq_id, p0, p1);
        }
    }
    return true;
}

void llama_kv_cache_mixed::seq_cp(llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) {
    if (seq_id_src == seq_id_dst) {
        return;
    }
    resolve_range(p0, p1);

    const uint32_t s0 = stream_of(seq_id_src);
    const uint32_t s1 = stream_of(seq_id_dst);
    if (s0 == s1) {
        streams[s0].seq_cp(seq_id_src, seq_id_dst, p0, p1);
        return;
    }
    streams[s1].seq_cp(streams[s0], seq_id_src, seq_id_dst, p0, p1);
    for (const side * s : sides()) {
        for (ggml_tensor * t : { s->f16, s->packed }) {
            if (t) {
                const size_t size = t->nb[ggml_is_qlutattn(t->type) ? 3 : 2]; // of a stream
                memcpy((char *) t->data + s1 * size, (const char *) t->data + s0 * size, size);
            }
        }
    }
}

void llama_kv_cache_mixed::seq_keep(llama_seq_id seq_id) {
    streams[stream_of(seq_id)].seq_keep(seq_id);
}

void llama_kv_cache_mixed::seq_add(llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift) {
    if (!get_can_shift()) {
        LLAMA_LOG_ERROR("%s: the tokens of sequence %d stay where they are: this model's positions cannot be shifted\n", __func__, seq_id);
        return;
    }
    resolve_range(p0, p1);
    if (shift != 0) {
        streams[stream_of(seq_id)].seq_add(seq_id, p0, p1, shift);
    }
}

void llama_kv_cache_mixed::seq_div(llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) {
    if (!get_can_shift()) {
        LLAMA_LOG_ERROR("%s: the tokens of sequence %d stay where they are: this model's positions cannot be shifted\n", __func__, seq_id);
        return;
    }
    resolve_range(p0, p1);
    if (d != 1) {
        streams[stream_of(seq_id)].seq_div(seq_id, p0, p1, d);
    }
}

llama_pos llama_kv_cache_mixed::seq_pos_min(llama_seq_id seq_id) const {
    return streams[stream_of(seq_id)].seq_pos_min(seq_id);
}

llama_pos llama_kv_cache_mixed::seq_pos_max(llama_seq_id seq_id) const {
    return streams[stream_of(seq_id)].seq_pos_max(seq_id);
}

std::map<ggml_backend_buffer_type_t, size_t> llama_kv_cache_mixed::memory_breakdown() const {
    ggml_backend_buffer_type_t buft = ggml_backend_buffer_get_type(buf.get());
    return {
        { buft, no_alloc ? ggml_backend_alloc_ctx_tensors_from_buft_size(ctx.get(), buft) : ggml_backend_buffer_get_size(buf.get()) }
    };
}

//
// llama_kv_cache_mixed_context
//

llama_kv_cache_mixed_context::llama_kv_cache_mixed_context(llama_memory_status status) : status(status) {}

llama_kv_cache_mixed_context::llama_kv_cache_mixed_context(llama_kv_cache_mixed * kv) :
    status(LLAMA_MEMORY_STATUS_SUCCESS), kv(kv), plans(1), n_f16(kv->get_layout().n_f16), n_packed(kv->get_layout().n_tiles * GGML_QLUTATTN_TILE) {
    plans[0].s0 = 0;
    plans[0].idxs.resize(kv->get_layout().n_stream);
    find_shifts();
}

llama_kv_cache_mixed_context::llama_kv_cache_mixed_context(llama_kv_cache_mixed * kv, llama_kv_cache_mixed::plans plans,
                                                           std::vector<llama_ubatch> ubatches) :
    status(LLAMA_MEMORY_STATUS_SUCCESS), kv(kv), plans(std::move(plans)), ubatches(std::move(ubatches)) {}

bool llama_kv_cache_mixed_context::next() {
    return ++i_cur < ubatches.size();
}

bool llama_kv_cache_mixed_context::apply() {
    if (ubatches.empty()) {
        return !kv || kv->apply_shift(); // an update, or none here
    }
    if (!kv->apply(plans[i_cur], ubatches[i_cur])) {
        return false;
    }
    // rounded up, so that most graphs have the shape of the one before and are reused
    n_f16    = 0;
    n_packed = 0;
    for (uint32_t s = 0; s < plans[i_cur].n_stream(); s++) {
        const auto & stream = kv->get_stream(plans[i_cur].s0 + s);
        n_f16               = std::max<uint32_t>(n_f16, GGML_PAD(stream.n_f16_max(), GGML_QLUTATTN_TILE));
        n_packed            = std::max<uint32_t>(n_packed, GGML_PAD(stream.packed.used_max_p1(), GGML_QLUTATTN_TILE));
    }
    find_shifts();
    return true;
}

void llama_kv_cache_mixed_context::find_shifts() {
    shifts.clear();
    for (uint32_t s = 0; s < plans[i_cur].n_stream(); s++) {
        shifts.push_back(llama_kv_mixed_shifts_of(kv->get_stream(plans[i_cur].s0 + s), n_packed / GGML_QLUTATTN_TILE));
        if (shifts.back().size() > LLAMA_KV_MIXED_MAX_SHIFTS) {
            shifts.back().resize(LLAMA_KV_MIXED_MAX_SHIFTS); // a full cache before the update that limits them
        }
    }
}

llama_memory_status llama_kv_cache_mixed_context::get_status() const {
    return status;
}

const llama_ubatch & llama_kv_cache_mixed_context::get_ubatch() const {
    return ubatches[i_cur];
}
