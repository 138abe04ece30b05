#include "llama-memory-hybrid-mixed.h"

#include "llama-cparams.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-mixed-block.h"
#include "llama-model.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

static constexpr uint32_t RECR_STATE_MAGIC = 0x524b4c51; // QLKR

llama_memory_i * llama_memory_hybrid_mixed_new(const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams,
                                               const llama_memory_i::layer_filter_cb & filter_attn,
                                               const llama_memory_i::layer_filter_cb & filter_recr) {
    const auto & hparams = model.hparams;
    const auto   is_recr = [&hparams](int32_t il) {
        return hparams.is_recr(il);
    };
    const auto is_attn = [&hparams](int32_t il) {
        return !hparams.is_recr(il);
    };
    const auto n_seq_max = std::max<uint32_t>(1, cparams.n_seq_max);

    auto attn = std::make_unique<llama_kv_cache_mixed>(model, params.type_k, params.type_v, cparams, filter_attn ? filter_attn : is_attn, nullptr);
    auto recr = std::make_unique<llama_memory_recurrent>(model, GGML_TYPE_F32, GGML_TYPE_F32, cparams.offload_kqv, n_seq_max, cparams.n_seq_max,
                                                         cparams.n_rs_seq, filter_recr ? filter_recr : is_recr);

    return new llama_memory_hybrid_mixed(std::move(attn), std::move(recr));
}

llama_memory_hybrid_mixed::llama_memory_hybrid_mixed(std::unique_ptr<llama_kv_cache_mixed> attn, std::unique_ptr<llama_memory_recurrent> recr) :
    attn(std::move(attn)), recr(std::move(recr)) {}

// as upstream's llama_memory_hybrid; empty on failure
std::vector<llama_ubatch> llama_memory_hybrid_mixed::split(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) const {
    const bool     unified = attn->get_layout().n_stream == 1;
    // the last tokens of a sequence stay together, so that all of them can be taken back
    const uint32_t n_last  = recr->n_rs_seq > 0 ? recr->n_rs_seq + 1 : 0;

    std::vector<llama_ubatch> res;
    balloc.split_reset();
    while (true) {
        auto ubatch = embd_all ? balloc.split_seq(n_ubatch) : llama_kv_cache_mixed_split_equal(balloc, n_ubatch, !unified, n_last);
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

llama_memory_context_ptr llama_memory_hybrid_mixed::init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) {
    const auto ubatches = split(balloc, n_ubatch, embd_all);
    auto       plans    = recr->prepare(ubatches) ? attn->prepare(ubatches) : llama_kv_cache_mixed::plans();
    if (plans.empty()) {
        return std::make_unique<llama_memory_hybrid_mixed_context>(LLAMA_MEMORY_STATUS_FAILED_PREPARE);
    }
    return std::make_unique<llama_memory_hybrid_mixed_context>(std::make_unique<llama_kv_cache_mixed_context>(attn.get(), std::move(plans), ubatches),
                                                               std::make_unique<llama_memory_recurrent_context>(recr.get(), ubatches));
}

llama_memory_context_ptr llama_memory_hybrid_mixed::init_full() {
    return std::make_unique<llama_memory_hybrid_mixed_context>(attn->init_full(), recr->init_full());
}

llama_memory_context_ptr llama_memory_hybrid_mixed::init_update(llama_context * lctx, bool optimize) {
    return std::make_unique<llama_memory_hybrid_mixed_context>(attn->init_update(lctx, optimize), recr->init_update(lctx, optimize));
}

//
// sequences
//

bool llama_memory_hybrid_mixed::get_can_shift() const {
    return attn->get_can_shift(); // a recurrent state always can
}

void llama_memory_hybrid_mixed::clear(bool data) {
    attn->clear(data);
    recr->clear(data);
}

bool llama_memory_hybrid_mixed::seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    // the recurrent part first: it can refuse, and then nothing has changed
    return recr->seq_rm(seq_id, p0, p1) && attn->seq_rm(seq_id, p0, p1);
}

void llama_memory_hybrid_mixed::seq_cp(llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) {
    attn->seq_cp(seq_id_src, seq_id_dst, p0, p1);
    recr->seq_cp(seq_id_src, seq_id_dst, p0, p1);
}

void llama_memory_hybrid_mixed::seq_keep(llama_seq_id seq_id) {
    attn->seq_keep(seq_id);
    recr->seq_keep(seq_id);
}

void llama_memory_hybrid_mixed::seq_add(llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift) {
    attn->seq_add(seq_id, p0, p1, shift); // logs the reason if it cannot
    if (attn->get_can_shift()) {
        recr->seq_add(seq_id, p0, p1, shift);
    }
}

void llama_memory_hybrid_mixed::seq_div(llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) {
    attn->seq_div(seq_id, p0, p1, d); // logs the reason if it cannot
    if (attn->get_can_shift()) {
        recr->seq_div(seq_id, p0, p1, d);
    }
}

// positions that both parts have

llama_pos llama_memory_hybrid_mixed::seq_pos_min(llama_seq_id seq_id) const {
    return std::max(attn->seq_pos_min(seq_id), recr->seq_pos_min(seq_id));
}

llama_pos llama_memory_hybrid_mixed::seq_pos_max(llama_seq_id seq_id) const {
    return std::min(attn->seq_pos_max(seq_id), recr->seq_pos_max(seq_id));
}

std::map<ggml_backend_buffer_type_t, size_t> llama_memory_hybrid_mixed::memory_breakdown() const {
    auto res = attn->memory_breakdown();
    for (const auto & [buft, size] : recr->memory_breakdown()) {
        res[buft] += size;
    }
    return res;
}

//
// saved states: the recurrent part as a block, which can be put back, then the mixed cache, which changes only if its state is good
//

static bool has_attn(llama_state_seq_flags flags) {
    return (flags & LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) == 0;
}

// a sequence has one recurrent state, which upstream asserts
static void check_recr_state(const std::vector<uint8_t> & state, llama_seq_id seq_id) {
    uint32_t n_cells = 0;
    if (state.size() >= sizeof(n_cells)) {
        memcpy(&n_cells, state.data(), sizeof(n_cells));
    }
    if (seq_id >= 0 && n_cells > 1) {
        throw std::runtime_error(format("the state of the recurrent layers is damaged: a sequence has %u of them", n_cells));
    }
}

void llama_memory_hybrid_mixed::state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) const {
    llama_kv_mixed_write_block(io, RECR_STATE_MAGIC, *recr, seq_id, flags);
    if (has_attn(flags)) {
        attn->state_write(io, seq_id, flags);
    }
}

void llama_memory_hybrid_mixed::state_read(llama_io_read_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) {
    const auto state = llama_kv_mixed_read_block(io, RECR_STATE_MAGIC);
    check_recr_state(state, seq_id);
    llama_kv_mixed_load_block(*recr, state, seq_id, flags, [&]() {
        if (has_attn(flags)) {
            attn->state_read(io, seq_id, flags);
        }
    });
}

//
// llama_memory_hybrid_mixed_context
//

llama_memory_hybrid_mixed_context::llama_memory_hybrid_mixed_context(llama_memory_status status) : status(status) {}

llama_memory_hybrid_mixed_context::llama_memory_hybrid_mixed_context(llama_memory_context_ptr attn, llama_memory_context_ptr recr) :
    attn(std::move(attn)), recr(std::move(recr)), status(llama_memory_status_combine(this->attn->get_status(), this->recr->get_status())) {}

bool llama_memory_hybrid_mixed_context::next() {
    const bool attn_has = attn->next();
    const bool recr_has = recr->next();
    GGML_ASSERT(attn_has == recr_has);
    return attn_has;
}

bool llama_memory_hybrid_mixed_context::apply() {
    return attn->apply() && recr->apply();
}

llama_memory_status llama_memory_hybrid_mixed_context::get_status() const {
    return status;
}

const llama_ubatch & llama_memory_hybrid_mixed_context::get_ubatch() const {
    return recr->get_ubatch();
}
