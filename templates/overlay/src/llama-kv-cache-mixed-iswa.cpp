#include "llama-kv-cache-mixed-iswa.h"

#include "llama-cparams.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-mixed-block.h"
#include "llama-kv-mixed-state.h"
#include "llama-model.h"

#include <algorithm>

llama_kv_cache_mixed_iswa::llama_kv_cache_mixed_iswa(const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams,
                                                     const layer_filter_cb & filter, const layer_reuse_cb & reuse) :
    unified(cparams.kv_unified) {
    const auto & hparams = model.hparams;

    const bool has_swa     = hparams.swa_type != LLAMA_SWA_TYPE_NONE;
    const auto filter_part = [&, has_swa](bool is_other) {
        return [&, has_swa, is_other](int32_t il) {
            return (!filter || filter(il)) && (has_swa ? hparams.is_swa(il) : llama_kv_cache_mixed_on_device(model, il)) == is_other;
        };
    };

    // as in upstream's llama_kv_cache_iswa
    uint32_t size_swa = cparams.n_ctx_seq;
    if (has_swa && params.swa_full) {
        LLAMA_LOG_WARN("%s: the cache of the layers with a sliding window is as long as the context (--swa-full), in f16\n", __func__);
    } else if (has_swa) {
        size_swa = GGML_PAD(std::min(cparams.n_ctx_seq, hparams.n_swa * (unified ? cparams.n_seq_max : 1) + cparams.n_ubatch), 256);
    }

    LLAMA_LOG_INFO("%s: layers %s: packed\n", __func__, has_swa ? "that see all tokens" : "on the CPU");
    base = std::make_unique<llama_kv_cache_mixed>(model, params.type_k, params.type_v, cparams, filter_part(false), reuse);

    const std::string others = has_swa ? format("with a sliding window of %u tokens", hparams.n_swa) : "on a device (packed with --no-kv-offload)";
    LLAMA_LOG_INFO("%s: layers %s: f16, %u cells\n", __func__, others.c_str(), size_swa);
    swa = std::make_unique<llama_kv_cache>(model, hparams, GGML_TYPE_F16, GGML_TYPE_F16, !cparams.flash_attn, cparams.offload_kqv, unified, size_swa,
                                           cparams.n_seq_max, 1, hparams.n_swa, hparams.swa_type, nullptr, filter_part(true), reuse, nullptr);
}

llama_memory_context_ptr llama_kv_cache_mixed_iswa::init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool /*embd_all*/) {
    const auto ubatches   = llama_kv_cache_mixed_split(balloc, n_ubatch, unified || base->get_layout().n_stream == 1);
    auto       plans      = base->prepare(ubatches);
    auto       sinfos_swa = plans.empty() ? llama_kv_cache::slot_info_vec_t() : swa->prepare(ubatches);
    if (sinfos_swa.empty()) {
        return std::make_unique<llama_kv_cache_mixed_iswa_context>(LLAMA_MEMORY_STATUS_FAILED_PREPARE);
    }
    return std::make_unique<llama_kv_cache_mixed_iswa_context>(std::make_unique<llama_kv_cache_mixed_context>(base.get(), std::move(plans), ubatches),
                                                               std::make_unique<llama_kv_cache_context>(swa.get(), std::move(sinfos_swa), ubatches));
}

llama_memory_context_ptr llama_kv_cache_mixed_iswa::init_full() {
    return std::make_unique<llama_kv_cache_mixed_iswa_context>(base->init_full(), swa->init_full());
}

llama_memory_context_ptr llama_kv_cache_mixed_iswa::init_update(llama_context * lctx, bool optimize) {
    return std::make_unique<llama_kv_cache_mixed_iswa_context>(base->init_update(lctx, optimize), swa->init_update(lctx, optimize));
}

bool llama_kv_cache_mixed_iswa::get_can_shift() const {
    return base->get_can_shift() && swa->get_can_shift();
}

void llama_kv_cache_mixed_iswa::clear(bool data) {
    base->clear(data);
    swa->clear(data);
}

bool llama_kv_cache_mixed_iswa::seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    const bool base_ok = base->seq_rm(seq_id, p0, p1);
    const bool swa_ok  = swa->seq_rm(seq_id, p0, p1);
    return base_ok && swa_ok;
}

void llama_kv_cache_mixed_iswa::seq_cp(llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) {
    base->seq_cp(seq_id_src, seq_id_dst, p0, p1);
    swa->seq_cp(seq_id_src, seq_id_dst, p0, p1);
}

void llama_kv_cache_mixed_iswa::seq_keep(llama_seq_id seq_id) {
    base->seq_keep(seq_id);
    swa->seq_keep(seq_id);
}

void llama_kv_cache_mixed_iswa::seq_add(llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift) {
    base->seq_add(seq_id, p0, p1, shift); // logs the reason if it cannot
    if (get_can_shift()) {
        swa->seq_add(seq_id, p0, p1, shift);
    }
}

void llama_kv_cache_mixed_iswa::seq_div(llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) {
    base->seq_div(seq_id, p0, p1, d); // logs the reason if it cannot
    if (get_can_shift()) {
        swa->seq_div(seq_id, p0, p1, d);
    }
}

// base has all tokens of a sequence, swa the newest ones

llama_pos llama_kv_cache_mixed_iswa::seq_pos_min(llama_seq_id seq_id) const {
    return swa->seq_pos_min(seq_id);
}

llama_pos llama_kv_cache_mixed_iswa::seq_pos_max(llama_seq_id seq_id) const {
    return swa->seq_pos_max(seq_id);
}

std::map<ggml_backend_buffer_type_t, size_t> llama_kv_cache_mixed_iswa::memory_breakdown() const {
    auto res = base->memory_breakdown();
    for (const auto & [buft, size] : swa->memory_breakdown()) {
        res[buft] += size;
    }
    return res;
}

//
// saved states: that of the base, then that of upstream's cache as a block of its own, with its own checksum
//

static constexpr uint32_t SWA_STATE_MAGIC = 0x504b4c51; // QLKP

void llama_kv_cache_mixed_iswa::state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) const {
    if ((flags & LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) == 0) {
        base->state_write(io, seq_id, flags);
    }
    llama_kv_mixed_write_block(io, SWA_STATE_MAGIC, *swa, seq_id, flags);
}

void llama_kv_cache_mixed_iswa::state_read(llama_io_read_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) {
    std::unique_ptr<llama_kv_mixed_state> state;
    if ((flags & LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) == 0) {
        state = std::make_unique<llama_kv_mixed_state>(*base, io, seq_id);
    }
    llama_kv_mixed_load_block(*swa, llama_kv_mixed_read_block(io, SWA_STATE_MAGIC), seq_id, flags, [&]() {
        if (state) {
            state->load(*base);
        }
    });
}

//
// llama_kv_cache_mixed_iswa_context
//

llama_kv_cache_mixed_iswa_context::llama_kv_cache_mixed_iswa_context(llama_memory_status status) : status(status) {}

llama_kv_cache_mixed_iswa_context::llama_kv_cache_mixed_iswa_context(llama_memory_context_ptr base, llama_memory_context_ptr swa) :
    base(std::move(base)), swa(std::move(swa)), status(llama_memory_status_combine(this->base->get_status(), this->swa->get_status())) {}

bool llama_kv_cache_mixed_iswa_context::next() {
    const bool base_has = base->next();
    const bool swa_has  = swa->next();
    GGML_ASSERT(base_has == swa_has);
    return base_has;
}

bool llama_kv_cache_mixed_iswa_context::apply() {
    return base->apply() && swa->apply();
}

llama_memory_status llama_kv_cache_mixed_iswa_context::get_status() const {
    return status;
}

const llama_ubatch & llama_kv_cache_mixed_iswa_context::get_ubatch() const {
    return base->get_ubatch();
}
