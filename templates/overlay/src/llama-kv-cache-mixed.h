#pragma once

// A KV cache of two parts: f16 cells for sinks, a window of recent tokens and the tokens of the ubatch, and packed tiles for the rest.
// docs/kv-cache.md of the project describes the lifecycle of a token.

#include "ggml-cpp.h"
#include "llama-arch.h"
#include "llama-batch.h"
#include "llama-kv-mixed-packer.h"
#include "llama-kv-mixed-planner.h"
#include "llama-memory.h"

#include <map>
#include <string>
#include <vector>

struct llama_cparams;
struct llama_hparams;
struct llama_model;

// whether a context with these types has a mixed cache
bool llama_kv_cache_is_mixed(ggml_type type_k, ggml_type type_v);

// The number of channels of a head in a mixed cache: those of the model, padded with zeros to a multiple of 64. Rotation spreads the values
// over all of them, and they lose less than without the zeros.
uint32_t llama_kv_cache_mixed_head_size(uint32_t n_embd_head);

// the number of values that upstream's cache has of a token in a layer
uint32_t llama_kv_cache_mixed_n_embd(const llama_hparams & hparams, uint32_t il);

// Whether a context can have a mixed cache; logs the reason if not. Enables flash attention where it is set to auto.
bool llama_kv_cache_mixed_check(const llama_model & model, llama_context_params & params);

// what the cells of a mixed cache of these layers are for
llama_kv_mixed_layout llama_kv_cache_mixed_layout(const llama_hparams & hparams, ggml_type type_k, ggml_type type_v, const llama_cparams & cparams,
                                                  const llama_memory_i::layer_filter_cb & filter);

// why a context without tiles has none, with the arithmetic
std::string llama_kv_cache_mixed_why_f16(const llama_kv_mixed_layout & layout, uint32_t n_ubatch);

// Makes the types f16 where a mixed cache would have no tiles, and padded heads: upstream's cache is smaller. Logs that.
void llama_kv_cache_mixed_choose(const llama_model & model, llama_memory_params & params, const llama_cparams & cparams);

// whether a layer is on a device, and its keys and values with it if they are offloaded
bool llama_kv_cache_mixed_on_device(const llama_model & model, uint32_t il);

// The cache that llama_model::create_memory makes; sliding-window layers and those on a device stay in f16, in upstream's own cache. reuse, if it is set, gives
// the layer whose keys and values another layer uses, or -1.
llama_memory_i * llama_kv_cache_mixed_new(const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams,
                                          const llama_memory_i::layer_filter_cb & filter, const llama_memory_i::layer_reuse_cb & reuse);

// split a batch for a cache; empty on failure
std::vector<llama_ubatch> llama_kv_cache_mixed_split(llama_batch_allocr & balloc, uint32_t n_ubatch, bool unified);

// a part of a batch with as many tokens of each sequence; the last ones of a sequence stay together
llama_ubatch llama_kv_cache_mixed_split_equal(llama_batch_allocr & balloc, uint32_t n_ubatch, bool sequential, uint32_t n_last);

class llama_kv_cache_mixed : public llama_memory_i {
  public:
    llama_kv_cache_mixed(const llama_model & model, ggml_type type_k, ggml_type type_v, const llama_cparams & cparams, const layer_filter_cb & filter,
                         const layer_reuse_cb & reuse);

    // llama_memory_i

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

    // in llama-kv-mixed-state.cpp
    void state_write(llama_io_write_i & io, llama_seq_id seq_id = -1, llama_state_seq_flags flags = 0) const override;
    void state_read(llama_io_read_i & io, llama_seq_id seq_id = -1, llama_state_seq_flags flags = 0) override;

    // for llama_kv_cache_mixed_context

    using plans = std::vector<llama_kv_mixed_plan>;

    // plan the changes to the cache before each ubatch; empty if the ubatches do not fit
    plans prepare(const std::vector<llama_ubatch> & ubatches);

    // pack tiles and assign cells to the tokens of a ubatch, as planned; false, with nothing changed, if packing failed
    bool apply(const llama_kv_mixed_plan & plan, const llama_ubatch & ubatch);

    // whether the keys of tokens that moved still have to be turned
    bool has_shift() const;

    // turn them; false, with nothing changed, if that failed (in llama-kv-cache-mixed-shift.cpp)
    bool apply_shift();

    const llama_kv_mixed_layout & get_layout() const { return layout; }

    const llama_kv_mixed_stream & get_stream(uint32_t stream) const { return streams[stream]; }

    uint32_t stream_of(llama_seq_id seq_id) const {
        GGML_ASSERT(seq_id >= 0 && (uint32_t) seq_id < (layout.n_stream == 1 ? LLAMA_MAX_SEQ : layout.n_stream));
        return layout.n_stream == 1 ? 0 : seq_id;
    }

    using side = llama_kv_mixed_side;

    struct layer {
        uint32_t il;
        int64_t  head_dim; // of K, padded, as that of V: see llama_kv_cache_mixed_head_size
        int64_t  head_dim_v;
        int64_t  n_head_kv;

        side k;
        side v;

        bool is_latent() const { return !v.f16; } // values are the first channels of keys, and v is empty
    };

    bool has_layer(int32_t il) const { return layer_ids.count(il) > 0; }

    // of a layer of the model
    const layer & get_layer(int32_t il) const { return layers[layer_ids.at(il)]; }

    // size of the Hadamard matrix that rotates keys (and queries) or values, 0: no rotation
    int64_t n_rot_k() const { return rot_k; }

    int64_t n_rot_v() const { return rot_v; }

  private:
    const llama_hparams & hparams;
    const llm_arch        arch;
    const bool            no_alloc;
    const ggml_type       type_k;
    const ggml_type       type_v;

    llama_kv_mixed_layout              layout;
    std::vector<llama_kv_mixed_stream> streams;
    std::vector<layer>                 layers;
    std::map<int32_t, size_t>          layer_ids; // index of a layer of the model; layers that share keys and values have the same

    int64_t rot_k = 0;
    int64_t rot_v = 0;

    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buf;

    llama_kv_mixed_cpu    cpu;
    llama_kv_mixed_packer packer;

    side new_side(const char * name, uint32_t il, ggml_type type, int64_t n_embd) const;
    void add_layers(const llama_model & model, const llama_cparams & cparams, const layer_filter_cb & filter, const layer_reuse_cb & reuse);
    void allocate();
    void set_rotation();
    void print_size(uint32_t n_ubatch) const;

    std::vector<const side *> sides() const; // of all layers, K before V

    friend class llama_kv_mixed_state;
};

class llama_kv_cache_mixed_context : public llama_memory_context_i {
  public:
    // a failure, or nothing to update
    explicit llama_kv_cache_mixed_context(llama_memory_status status);

    // a full cache, or an update
    explicit llama_kv_cache_mixed_context(llama_kv_cache_mixed * kv);

    // a batch
    llama_kv_cache_mixed_context(llama_kv_cache_mixed * kv, llama_kv_cache_mixed::plans plans, std::vector<llama_ubatch> ubatches);

    bool next() override;
    bool apply() override;

    llama_memory_status  get_status() const override;
    const llama_ubatch & get_ubatch() const override;

    const llama_kv_cache_mixed & get_kv() const { return *kv; }

    // the plan of the current ubatch
    const llama_kv_mixed_plan & get_plan() const { return plans[i_cur]; }

    // cells that the graph of the current ubatch attends to, in each stream
    uint32_t get_n_f16() const { return n_f16; }

    uint32_t get_n_packed() const { return n_packed; }

    // how far those cells' tiles have moved: the different shifts of each stream of the current ubatch, without 0
    const std::vector<std::vector<llama_pos>> & get_shifts() const { return shifts; }

  private:
    const llama_memory_status status;

    llama_kv_cache_mixed * kv = nullptr;

    size_t                      i_cur = 0;
    llama_kv_cache_mixed::plans plans;
    std::vector<llama_ubatch>   ubatches;

    uint32_t n_f16    = 0;
    uint32_t n_packed = 0;

    std::vector<std::vector<llama_pos>> shifts; // [stream of the ubatch]

    void find_shifts();
};
