#include "record.h"

#include "cli.h"

#include "llama.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <vector>

void record_logits(const std::string & model_path, const std::string & text_path, const std::string & path) {
    constexpr int32_t N_ROWS = 256;
    std::ifstream     in(text_path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    if (!in || text.str().empty()) {
        throw std::runtime_error("cannot read the text " + text_path);
    }
    llama_model_params           model_params = llama_model_default_params();
    std::shared_ptr<llama_model> model(llama_model_load_from_file(model_path.c_str(), model_params), llama_model_free);
    if (!model) {
        throw std::runtime_error("cannot load the model " + model_path);
    }
    const llama_vocab *      vocab = llama_model_get_vocab(model.get());
    const std::string        read  = text.str().substr(0, 16 * N_ROWS);
    std::vector<llama_token> tokens(read.size() + 1);
    tokens.resize(std::max(0, llama_tokenize(vocab, read.data(), read.size(), tokens.data(), tokens.size(), true, false)));
    tokens.resize(std::min<size_t>(tokens.size(), N_ROWS));

    llama_context_params params = llama_context_default_params();
    params.n_ctx                = N_ROWS;
    params.n_batch              = 1;
    std::shared_ptr<llama_context> context(llama_init_from_model(model.get(), params), llama_free);
    if (!context) {
        throw std::runtime_error("cannot make a context for " + model_path);
    }
    const int32_t n_vocab = llama_vocab_n_tokens(vocab);
    std::ofstream out(path, std::ios::binary);
    out.write((const char *) &n_vocab, sizeof(n_vocab));
    for (llama_token token : tokens) {
        if (llama_decode(context.get(), llama_batch_get_one(&token, 1)) != 0) {
            throw std::runtime_error("cannot run the model " + model_path);
        }
        out.write((const char *) llama_get_logits_ith(context.get(), -1), n_vocab * sizeof(float));
    }
    out.close();
    check_written(out.good(), path);
}
