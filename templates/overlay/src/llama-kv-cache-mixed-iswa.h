#pragma once

// A mixed KV cache beside upstream's f16 cache for other layers: those with a sliding window, or, in a model without one, those on a device.

#include "llama-kv-cache-mixed.h"
#include "llama-kv-cache.h"

class llama_kv_cache_mixed_iswa : public llama_memory_i {
  public:
    llama_kv_cache_mixed_iswa(const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams,
                              const layer_filter_cb & filter, const layer_reuse_cb & reuse);

    llama_memory_context_ptr init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) override;
    llama_memory_context_ptr init_full() override;
    llama_memory_context_ptr init_update(llama_context * lctx, bool optimize) override;

    bool get_can_shift() const override;

    void clear(bool data) override;

    bool seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) override;
    void seq_cp(llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) override;
    void seq_keep(llama_seq_id seq_id) override;
    void seq_add(llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift) override;
    void seq_div(llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) override;

    llama_pos seq_pos_min(llama_seq_id seq_id) const override;
    llama_pos seq_pos_max(llama_seq_id seq_id) const override;

    std::map<ggml_backend_buffer_type_t, size_t> memory_breakdown() const override;

    void state_write(llama_io_write_i & io, llama_seq_id seq_id = -1, llama_state_seq_flags flags = 0) const override;
    void state_read(llama_io_read_i & io, llama_seq_id seq_id = -1, llama_state_seq_flags flags = 0) override;

    llama_kv_cache_mixed * get_base() const { return base.get(); }

    llama_kv_cache * get_swa() const { return swa.get(); }

  private:
    const bool unified;

    std::unique_ptr<llama_kv_cache_mixed> base;
    std::unique_ptr<llama_kv_cache>       swa; // of the other layers
};

class llama_kv_cache_mixed_iswa_context : public llama_memory_context_i {
  public:
    // a failure
    explicit llama_kv_cache_mixed_iswa_context(llama_memory_status status);

    // both parts, and the ubatches if there are any
    llama_kv_cache_mixed_iswa_context(llama_memory_context_ptr base, llama_memory_context_ptr swa);

    bool next() override;
    bool apply() override;

    llama_memory_status  get_status() const override;
    const llama_ubatch & get_ubatch() const override;

    const llama_kv_cache_mixed_context * get_base() const { return static_cast<const llama_kv_cache_mixed_context *>(base.get()); }

    const llama_kv_cache_context * get_swa() const { return static_cast<const llama_kv_cache_context *>(swa.get()); }

  private:
    const llama_memory_context_ptr base;
    const llama_memory_context_ptr swa;
    const llama_memory_status      status;
};
