// What the scenarios of kv_cache.cpp drive the cache with, through the C API: options, contexts, decoding, saved states.

#pragma once

#include "ggml-backend.h"
#include "ggml.h"
#include "kv_device.h"
#include "llama-qlutattn.h"
#include "llama.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

static std::map<std::string, std::string> options;

static int option(const char * name, int otherwise) {
    auto it = options.find(name);
    return it == options.end() ? otherwise : atoi(it->second.c_str());
}

static std::string log_errors;
static std::string log_warnings;
static std::string log_size; // the line about the size of the cache, or about why it is f16

static void on_log(enum ggml_log_level level, const char * text, void *) {
    static enum ggml_log_level last = GGML_LOG_LEVEL_NONE;
    last                            = level == GGML_LOG_LEVEL_CONT ? last : level;
    if (last == GGML_LOG_LEVEL_ERROR) {
        log_errors += text;
    }
    if (last == GGML_LOG_LEVEL_WARN) {
        log_warnings += text;
    }
    if (strstr(text, "packed part") || strstr(text, "the KV cache of this context is f16")) {
        log_size = text;
    }
    if (getenv("KV_VERBOSE")) {
        fputs(text, stderr);
    }
}

static void check(bool ok, const std::string & what) {
    if (!ok) {
        fflush(stdout);
        fprintf(stderr, "FAILED: %s\n%s", what.c_str(), log_errors.c_str());
        exit(1);
    }
}

// the options of a driver, from an argument on; then the library is started
static void read_options(int argc, char ** argv, int first) {
    for (int i = first; i < argc; i++) {
        const char * eq = strchr(argv[i], '=');
        check(eq != nullptr, argv[i]);
        options[std::string((const char *) argv[i], eq)] = eq + 1;
    }
    llama_log_set(on_log, nullptr);
    ggml_backend_load_all();
    llama_backend_init();
}

static ggml_type type_of(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * type_name = ggml_type_name((ggml_type) i);
        if (type_name && name == type_name) {
            return (ggml_type) i;
        }
    }
    check(false, "no type " + name);
    return GGML_TYPE_COUNT;
}

using model_ptr   = std::unique_ptr<llama_model, decltype(&llama_model_free)>;
using context_ptr = std::unique_ptr<llama_context, decltype(&llama_free)>;

static llama_context_params params_of(ggml_type type_k, ggml_type type_v) {
    llama_context_params res = llama_context_default_params();
    res.n_ctx                = option("ctx", 2048) * option("seqs", 1);
    res.n_batch              = res.n_ctx;
    res.n_ubatch             = option("ubatch", 256);
    res.n_seq_max            = option("seqs", 1);
    res.n_threads            = option("threads", 1);
    res.n_threads_batch      = option("threads", 1);
    res.flash_attn_type      = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    res.type_k               = type_k;
    res.type_v               = type_v;
    res.kv_unified           = option("unified", 0);
    res.n_rs_seq             = option("rs", 0);
    res.swa_full             = option("swa_full", 0);
    llama_qlutattn_set_kv_window(option("window", 64));
    llama_qlutattn_set_kv_sink(option("sink", 16));
    return res;
}

static int n_vocab(const llama_model * model) {
    return llama_vocab_n_tokens(llama_model_get_vocab(model));
}

static std::vector<llama_token> random_tokens(int n, int seed, int n_vocab = 400) {
    std::mt19937             rng(seed);
    std::vector<llama_token> res(n);
    for (auto & token : res) {
        token = rng() % std::min(n_vocab, 400);
    }
    return res;
}

// the text that the decoder of an encoder-decoder model looks at, in all sequences
static void encode(llama_context * ctx) {
    const auto tokens = random_tokens(50, 99);
    const int  n_seq  = llama_n_seq_max(ctx);

    llama_batch batch = llama_batch_init(tokens.size(), 0, n_seq);
    batch.n_tokens    = tokens.size();
    for (size_t i = 0; i < tokens.size(); i++) {
        batch.token[i]    = tokens[i];
        batch.pos[i]      = i;
        batch.n_seq_id[i] = n_seq;
        batch.logits[i]   = 1;
        for (int s = 0; s < n_seq; s++) {
            batch.seq_id[i][s] = s;
        }
    }
    check(llama_encode(ctx, batch) == 0, "encoding failed");
    llama_batch_free(batch);
}

static context_ptr new_context(llama_model * model, const llama_context_params & params) {
    context_ptr res(llama_init_from_model(model, params), llama_free);
    check(res != nullptr, "no context");
    if (llama_model_has_encoder(model)) {
        encode(res.get());
    }
    return res;
}

static context_ptr new_context(llama_model * model, ggml_type type_k, ggml_type type_v) {
    return new_context(model, params_of(type_k, type_v));
}

using logits = std::vector<float>;

// decode tokens of a sequence from a position on; the logits of the last one, or of all
static logits decode(llama_context * ctx, const std::vector<llama_token> & tokens, int pos, int seq_id = 0, bool all = false) {
    llama_batch batch = llama_batch_init(tokens.size(), 0, 1);
    batch.n_tokens    = tokens.size();
    for (size_t i = 0; i < tokens.size(); i++) {
        batch.token[i]     = tokens[i];
        batch.pos[i]       = pos + i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = seq_id;
        batch.logits[i]    = all || i + 1 == tokens.size();
    }
    const int rc = llama_decode(ctx, batch);
    llama_batch_free(batch);
    if (rc != 0) {
        return {};
    }
    const float * data = all ? llama_get_logits(ctx) : llama_get_logits_ith(ctx, -1);
    return logits(data, data + (all ? tokens.size() : 1) * n_vocab(llama_get_model(ctx)));
}

// a text in tokens
static std::vector<llama_token> tokens_of_file(const llama_model * model, const std::string & path) {
    std::ifstream     file(path);
    std::stringstream text;
    text << file.rdbuf();
    check(file.good(), "cannot read " + path);
    const std::string        data = text.str();
    std::vector<llama_token> res(data.size());
    res.resize(std::max(0, llama_tokenize(llama_model_get_vocab(model), data.c_str(), data.size(), res.data(), res.size(), false, false)));
    return res;
}

// |a - b|^2 / |b - mean of b|^2
static double nmse(const logits & a, const logits & b) {
    double mean = 0;
    for (float x : b) {
        check(std::isfinite(x), "a logit is not finite");
        mean += x / b.size();
    }
    double err = 0;
    double ref = 0;
    for (size_t i = 0; i < b.size(); i++) {
        err += (a[i] - b[i]) * (a[i] - b[i]);
        ref += (b[i] - mean) * (b[i] - mean);
    }
    return a.size() == b.size() ? err / ref : INFINITY;
}

static bool same(const logits & a, const logits & b) {
    return a.size() == b.size() && !a.empty() && memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

static llama_token best(const logits & l) {
    return std::max_element(l.begin(), l.end()) - l.begin();
}

// decode all tokens in batches; logits of all
static logits decode_all(llama_context * ctx, const std::vector<llama_token> & tokens, int n_batch) {
    logits res;
    for (size_t i = 0; i < tokens.size(); i += n_batch) {
        const std::vector<llama_token> part(tokens.begin() + i, tokens.begin() + std::min(tokens.size(), i + n_batch));
        const logits                   l = decode(ctx, part, i, 0, true);
        check(!l.empty(), "decoding failed");
        res.insert(res.end(), l.begin(), l.end());
    }
    return res;
}

static std::vector<uint8_t> save(llama_context * ctx, bool whole, int seq_id) {
    std::vector<uint8_t> res(whole ? llama_state_get_size(ctx) : llama_state_seq_get_size(ctx, seq_id));
    const size_t n = whole ? llama_state_get_data(ctx, res.data(), res.size()) : llama_state_seq_get_data(ctx, res.data(), res.size(), seq_id);
    check(n == res.size() && n > 0, "the state does not have the size that was announced");
    return res;
}

static bool restore(llama_context * ctx, bool whole, int seq_id, const std::vector<uint8_t> & data) {
    return (whole ? llama_state_set_data(ctx, data.data(), data.size()) : llama_state_seq_set_data(ctx, data.data(), data.size(), seq_id)) ==
           data.size();
}

// a text, and the logits after each of its tokens
struct generation {
    std::vector<llama_token> tokens;
    std::vector<logits>      after;
};

// decode tokens one by one; the logits after each
static std::vector<logits> follow(llama_context * ctx, const std::vector<llama_token> & tokens, int pos, int seq_id) {
    std::vector<logits> res;
    for (size_t i = 0; i < tokens.size(); i++) {
        res.push_back(decode(ctx, { tokens[i] }, pos + i, seq_id));
        check(!res.back().empty(), "decoding failed");
    }
    return res;
}

// generate n tokens greedily
static generation generate(llama_context * ctx, logits last, int pos, int seq_id, int n) {
    generation res;
    for (int i = 0; i < n; i++) {
        res.tokens.push_back(best(last));
        last = follow(ctx, { res.tokens.back() }, pos + i, seq_id).front();
        res.after.push_back(last);
    }
    return res;
}

static void check_same(const std::vector<logits> & a, const std::vector<logits> & b, const std::string & what) {
    check(a.size() == b.size(), what);
    for (size_t i = 0; i < a.size(); i++) {
        check(same(a[i], b[i]), what + ": token " + std::to_string(i) + " differs");
    }
}

using scenario_map = std::map<std::string, void (*)(llama_model *, ggml_type, ggml_type)>;

// what a driver is: PROGRAM MODEL SCENARIO K V [key=value ...]; with port=N, and ngl=N, the model's last layers are on a device
static int run_scenario(int argc, char ** argv, const scenario_map & scenarios) {
    check(argc >= 5, "usage: " + std::string(argv[0]) + " MODEL SCENARIO K V [key=value ...]");
    read_options(argc, argv, 5);
    const int          port     = option("port", 0);
    llama_model_params of_model = llama_model_default_params();
    if (port) {
        check(start_device(port), "the device does not answer");
        of_model.n_gpu_layers = option("ngl", 99);
    }
    model_ptr model(llama_model_load_from_file(argv[1], of_model), llama_model_free);
    check(model != nullptr, "no model");
    check(scenarios.count(argv[2]), "no scenario " + std::string(argv[2]));
    scenarios.at(argv[2])(model.get(), type_of(argv[3]), type_of(argv[4]));
    if (port) {
        fflush(stdout);
        _Exit(0); // past the device's thread
    }
    return 0;
}
