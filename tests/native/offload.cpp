// Generates on a model whose layers are on a device, and prints the tokens, and where the operations ran:
// offload MODEL PORT K V [ngl=N] [nkvo=1] [fa_off=1] [key=value ...]; with a port, the device is this machine, behind ggml's RPC backend.

#include "ggml-backend.h"
#include "kv_device.h"
#include "kv_driver.h"

static std::map<std::string, int> ran; // "operation buffer"

static void note(const char * what, const ggml_tensor * t) {
    check(t->buffer != nullptr, std::string(t->name) + " has no buffer");
    ran[std::string(what) + (ggml_backend_buffer_is_host(t->buffer) ? " CPU" : " device")]++;
}

static bool on_node(ggml_tensor * t, bool ask, void *) {
    if (ask) {
        note(ggml_op_name(t->op), t);
        for (int i = 0; t->op == GGML_OP_FLASH_ATTN_EXT_MIXED && i < GGML_MAX_SRC; i++) {
            if (t->src[i]) {
                note("source", t->src[i]);
            }
        }
    }
    return false;
}

int main(int argc, char ** argv) {
    check(argc >= 5, "usage: offload MODEL PORT K V [key=value ...]");
    for (int i = 5; i < argc; i++) {
        const std::string text                  = argv[i];
        options[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
    }
    llama_log_set(on_log, nullptr);
    ggml_backend_load_all();
    llama_backend_init();
    if (atoi(argv[2]) != 0) {
        check(start_device(atoi(argv[2])), "the device does not answer");
    }

    llama_model_params of_model = llama_model_default_params();
    of_model.n_gpu_layers       = option("ngl", 99);
    model_ptr model(llama_model_load_from_file(argv[1], of_model), llama_model_free);
    check(model != nullptr, "no model");

    llama_context_params params = params_of(type_of(argv[3]), type_of(argv[4]));
    params.offload_kqv          = !option("nkvo", 0);
    params.cb_eval              = on_node;
    if (option("fa_off", 0)) {
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    context_ptr ctx(llama_init_from_model(model.get(), params), llama_free);
    if (!ctx) {
        fputs(log_errors.c_str(), stdout);
        fflush(stdout);
        _Exit(2); // past the device's thread
    }
    const logits     prompt = decode_all(ctx.get(), random_tokens(500, 1), 200);
    const int        n      = n_vocab(model.get());
    const generation text   = generate(ctx.get(), logits(prompt.end() - n, prompt.end()), 500, 0, 32);
    printf("{\"tokens\": [");
    for (size_t i = 0; i < text.tokens.size(); i++) {
        printf("%s%d", i ? ", " : "", text.tokens[i]);
    }
    printf("], \"ran\": {");
    const char * separator = "";
    for (const auto & [what, times] : ran) {
        printf("%s\"%s\": %d", separator, what.c_str(), times);
        separator = ", ";
    }
    printf("}}\n");
    fflush(stdout);
    _Exit(0);
}
