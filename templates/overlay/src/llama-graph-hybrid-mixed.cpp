#include "llama-graph-hybrid-mixed.h"

#include "llama-cparams.h"
#include "llama-graph-mixed.h"
#include "llama-memory-hybrid-mixed.h"

namespace {

// upstream's input of hybrid models (base), whose parts look after themselves here
template <typename base> class input_mem_hybrid_mixed : public base {
  public:
    using base::inp_attn;
    using base::inp_rs;

    template <typename attn>
    input_mem_hybrid_mixed(const llama_cparams & cparams, std::unique_ptr<attn> inp_attn, std::unique_ptr<llm_graph_input_rs> inp_rs) :
        base(cparams, std::move(inp_attn), std::move(inp_rs), nullptr) {}

    void set_input(const llama_ubatch * ubatch) override {
        inp_attn->set_input(ubatch);
        inp_rs->set_input(ubatch);
    }

    bool can_reuse(const llm_graph_params & params) override {
        const auto * mctx_mixed = static_cast<const llama_memory_hybrid_mixed_context *>(params.mctx);

        // ask both: each of them stores the new context
        llm_graph_params part = params;
        part.mctx             = mctx_mixed->get_attn();
        const bool attn_can   = inp_attn->can_reuse(part);
        part.mctx             = mctx_mixed->get_recr();
        const bool recr_can   = inp_rs->can_reuse(part);
        return attn_can && recr_can;
    }
};

} // namespace

std::unique_ptr<llm_graph_input_mem_hybrid> llm_build_inp_mem_hybrid_mixed(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                           const llama_hparams & hparams, const llama_cparams & cparams,
                                                                           const llama_memory_context_i * mctx, llm_build_rs_inp_fn * build_rs_inp) {
    const auto * mctx_mixed = dynamic_cast<const llama_memory_hybrid_mixed_context *>(mctx);
    if (!mctx_mixed) {
        return nullptr;
    }
    auto inp_rs   = build_rs_inp(ctx, ubatch, mctx_mixed->get_recr());
    auto inp_attn = llm_build_attn_inp_kv_mixed(ctx, ubatch, hparams, cparams, mctx_mixed->get_attn());
    return std::make_unique<input_mem_hybrid_mixed<llm_graph_input_mem_hybrid>>(cparams, std::move(inp_attn), std::move(inp_rs));
}

std::unique_ptr<llm_graph_input_mem_hybrid_k> llm_build_inp_mem_hybrid_k_mixed(ggml_context * ctx, const llama_ubatch & ubatch,
                                                                               const llama_hparams & hparams, const llama_cparams & cparams,
                                                                               const llama_memory_context_i * mctx,
                                                                               llm_build_rs_inp_fn *          build_rs_inp) {
    const auto * mctx_mixed = dynamic_cast<const llama_memory_hybrid_mixed_context *>(mctx);
    if (!mctx_mixed) {
        return nullptr;
    }
    auto inp_rs   = build_rs_inp(ctx, ubatch, mctx_mixed->get_recr());
    auto inp_attn = llm_build_attn_inp_k_mixed(ctx, ubatch, hparams, cparams, mctx_mixed->get_attn());
    return std::make_unique<input_mem_hybrid_mixed<llm_graph_input_mem_hybrid_k>>(cparams, std::move(inp_attn), std::move(inp_rs));
}
