// A context beside another one, as a draft context is beside its target. Says whether its cache is packed, and what was logged.
//
//   kv_draft TARGET TARGET_K TARGET_V DRAFT K V [key=value ...]
//
// DRAFT may be "mtp": the draft head of the target. decode=0: it needs hidden states of its target, and nothing is decoded.

#include "kv_driver.h"

#include "ggml-backend.h"

static model_ptr load(const char * path) {
    llama_model_params params = llama_model_default_params();
    params.load_mtp           = true;
    model_ptr res(llama_model_load_from_file(path, params), llama_model_free);
    check(res != nullptr, "no model");
    return res;
}

int main(int argc, char ** argv) {
    check(argc >= 7, "usage: kv_draft TARGET TARGET_K TARGET_V DRAFT K V [key=value ...]");
    read_options(argc, argv, 7);
    const bool      is_mtp = !strcmp(argv[4], "mtp");
    const model_ptr target = load(argv[1]);
    const model_ptr draft  = is_mtp ? model_ptr(nullptr, llama_model_free) : load(argv[4]);
    const auto      ctx    = new_context(target.get(), type_of(argv[2]), type_of(argv[3]));

    llama_context_params params = params_of(type_of(argv[5]), type_of(argv[6]));
    params.ctx_other            = ctx.get();
    params.ctx_type             = is_mtp ? LLAMA_CONTEXT_TYPE_MTP : LLAMA_CONTEXT_TYPE_DEFAULT;
    if (option("fa_off", 0)) {
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    log_size.clear();
    log_errors.clear();
    log_warnings.clear();
    const context_ptr beside(llama_init_from_model(is_mtp ? target.get() : draft.get(), params), llama_free);
    printf("%s: %s%s\n", !beside ? "refused" : log_size.empty() ? "f16" : "packed", log_warnings.c_str(), log_errors.c_str());
    if (beside && !is_mtp && option("decode", 1)) {
        // on its own, it computes what the same context computes without a target
        params.ctx_other = nullptr;
        const context_ptr alone(llama_init_from_model(draft.get(), params), llama_free);
        const auto        tokens = random_tokens(option("n", 400), 1, n_vocab(draft.get()));
        check(!alone || same(decode(beside.get(), tokens, 0), decode(alone.get(), tokens, 0)), "a context beside another one computes other logits");
    }
    return 0;
}
