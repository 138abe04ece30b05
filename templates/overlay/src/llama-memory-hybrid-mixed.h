#pragma once

// The memory of hybrid models with a packed KV cache: a mixed cache for the attention layers beside upstream's memory for the recurrent ones.

#include "llama-batch.h"
#include "llama-kv-cache-mixed.h"
#include "llama-memory-recurrent.h"
#include "llama-memory.h"

#include <memory>
#include <vector>

// what llama_model::create_memory makes; a filter that is null leaves it to the model's layers whether they are recurrent
llama_memory_i * llama_memory_hybrid_mixed_new(const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams,
                                               const llama_memory_i::layer_filter_cb & filter_attn,
                                               const llama_memory_i::layer_filter_cb & filter_recr);

class llama_memory_hybrid_mixed : public llama_memory_i {
  public:
    llama_memory_hybrid_mixed(std::unique_ptr<llama_kv_cache_mixed> attn, std::unique_ptr<llama_memory_recurrent> recr);

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

  private:
    const std::unique_ptr<llama_kv_cache_mixed>   attn;
    const std::unique_ptr<llama_memory_recurrent> recr;

    std::vector<llama_ubatch> split(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) const;
};

class llama_memory_hybrid_mixed_context : public llama_memory_context_i {
  public:
    // a failure
    explicit llama_memory_hybrid_mixed_context(llama_memory_status status);

    // both parts, and the ubatches if there are any
    llama_memory_hybrid_mixed_context(llama_memory_context_ptr attn, llama_memory_context_ptr recr);

    bool next() override;
    bool apply() override;

    llama_memory_status  get_status() const override;
    const llama_ubatch & get_ubatch() const override;

    const llama_kv_cache_mixed_context * get_attn() const { return static_cast<const llama_kv_cache_mixed_context *>(attn.get()); }

    const llama_memory_recurrent_context * get_recr() const { return static_cast<const llama_memory_recurrent_context *>(recr.get()); }

  private:
    const llama_memory_context_ptr attn;
    const llama_memory_context_ptr recr;
    const llama_memory_status      status;
};
