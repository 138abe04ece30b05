// What llama.cpp prints about the caches of contexts of a model: MODEL TOKENS SEQUENCES UNIFIED UBATCH TYPE_K/TYPE_V...
// One line per pair: its name, then the lines of the log about sizes, or why it is refused.

#include "ggml-backend.h"
#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

static std::string found;

static void on_log(enum ggml_log_level level, const char * text, void *) {
    if (strstr(text, "size =") || strstr(text, "cache of this context is f16") || level == GGML_LOG_LEVEL_ERROR) {
        found += std::string(" | ") + std::string(text, strcspn(text, "\n"));
    }
}

static ggml_type type_of(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * known = ggml_type_name((ggml_type) i);
        if (known && name == known) {
            return (ggml_type) i;
        }
    }
    fprintf(stderr, "no type %s\n", name.c_str());
    exit(2);
}

int main(int argc, char ** argv) {
    if (argc < 7) {
        return 2;
    }
    llama_log_set(on_log, nullptr);
    ggml_backend_load_all();
    llama_model_params mparams = llama_model_default_params();
    mparams.n_gpu_layers       = 0;
    llama_model * model        = llama_model_load_from_file(argv[1], mparams);
    if (!model) {
        return 2;
    }
    for (int i = 6; i < argc; i++) {
        const std::string    pair    = argv[i];
        llama_context_params cparams = llama_context_default_params();
        cparams.n_ctx                = atoi(argv[2]);
        cparams.n_seq_max            = atoi(argv[3]);
        cparams.kv_unified           = atoi(argv[4]);
        cparams.n_batch              = 2048;
        cparams.n_ubatch             = atoi(argv[5]);
        cparams.flash_attn_type      = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        cparams.swa_full             = false;
        cparams.type_k               = type_of(pair.substr(0, pair.find('/')));
        cparams.type_v               = type_of(pair.substr(pair.find('/') + 1));

        found.clear();
        llama_context * ctx = llama_init_from_model(model, cparams);
        printf("%s %s%s\n", pair.c_str(), ctx ? "made" : "refused", found.c_str());
        llama_free(ctx);
    }
    llama_model_free(model);
}
