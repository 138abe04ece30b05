// Contexts with and without attention in 8 bits, through the C API: prints their logits' difference, or why a context is refused.
//
//   attn_int8 MODEL TYPE_K TYPE_V FLASH_ATTN   (-1 auto, 0 off, 1 on)

#include "ggml-backend.h"
#include "llama-qlutattn.h"
#include "llama.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static constexpr int N_TOKENS = 300;

static std::string errors;
static std::string said; // about 8 bits

static void on_log(enum ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        errors += text;
    } else if (strstr(text, "llama_attn_int8_check")) {
        said += text;
    }
}

static ggml_type type_of(const char * name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * type_name = ggml_type_name((ggml_type) i);
        if (type_name && strcmp(type_name, name) == 0) {
            return (ggml_type) i;
        }
    }
    exit(2);
}

// the logits of the last of some tokens, decoded in batches of so many
static std::vector<float> logits_of(llama_model * model, const llama_context_params & params, int n_batch) {
    llama_context * ctx = llama_init_from_model(model, params);
    if (!ctx) {
        printf("refused: %s", errors.c_str());
        exit(0);
    }
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (int i = 0; i < N_TOKENS; i += n_batch) {
        std::vector<llama_token> tokens;
        for (int t = i; t < i + n_batch && t < N_TOKENS; t++) {
            tokens.push_back(5 + t * 37 % (n_vocab - 10));
        }
        if (llama_decode(ctx, llama_batch_get_one(tokens.data(), tokens.size())) != 0) {
            exit(3);
        }
    }
    const float *      last = llama_get_logits_ith(ctx, -1);
    std::vector<float> logits(last, last + n_vocab);
    llama_free(ctx);
    return logits;
}

static double difference(const std::vector<float> & a, const std::vector<float> & b) {
    double error = 0;
    double size  = 0;
    for (size_t i = 0; i < a.size(); i++) {
        error += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return error / size;
}

int main(int argc, char ** argv) {
    if (argc != 5) {
        return 2;
    }
    llama_log_set(on_log, nullptr);
    ggml_backend_load_all();
    llama_model *        model  = llama_model_load_from_file(argv[1], llama_model_default_params());
    llama_context_params params = llama_context_default_params();
    params.n_ctx                = 2048;
    params.type_k               = type_of(argv[2]);
    params.type_v               = type_of(argv[3]);
    params.flash_attn_type      = (llama_flash_attn_type) atoi(argv[4]);

    if (llama_qlutattn_get_attn_int8()) { // in the environment
        logits_of(model, params, N_TOKENS);
        printf("%s", said.c_str());
        return 0;
    }
    const std::vector<float> f16       = logits_of(model, params, N_TOKENS);
    const std::vector<float> short_f16 = logits_of(model, params, 50);
    llama_qlutattn_set_attn_int8(true);
    const std::vector<float> int8 = logits_of(model, params, N_TOKENS);
    printf("%s", said.c_str());
    printf("%g %g\n", difference(int8, f16), difference(logits_of(model, params, 50), short_f16));
    llama_qlutattn_set_attn_int8(false);
    printf("%g\n", difference(logits_of(model, params, N_TOKENS), f16));
    return 0;
}
