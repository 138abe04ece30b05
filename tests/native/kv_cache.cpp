// The mixed KV cache through the C API, against upstream's f16 cache fed with the same calls. Prints one line of JSON per finding.
//
//   kv_cache MODEL SCENARIO K V [key=value ...]

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

static std::map<std::string, std::string> options;

static int option(const char * name, int otherwise) {
    auto it = options.find(name);
    return it == options.end() ? otherwise : atoi(it->second.c_str());
}

static std::string log_errors;
static std::string log_size; // what the cache says of its size

static void on_log(enum ggml_log_level level, const char * text, void *) {
    static enum ggml_log_level last = GGML_LOG_LEVEL_NONE;
    last                            = level == GGML_LOG_LEVEL_CONT ? last : level;
    if (last == GGML_LOG_LEVEL_ERROR) {
        log_errors += text;
    }
    if (strstr(text, "packed part")) {
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

static ggml_type type_of(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * its = ggml_type_name((ggml_type) i);
        if (its && name == its) {
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
    res.n_ubatch             = option("ubatch", 512);
    res.n_seq_max            = option("seqs", 1);
    res.n_threads            = option("threads", 1);
    res.n_threads_batch      = option("threads", 1);
    res.flash_attn_type      = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    res.type_k               = type_k;
    res.type_v               = type_v;
    res.kv_unified           = option("unified", 0);
    res.swa_full             = option("swa_full", 0);
    res.kv_window            = option("window", 64);
    res.kv_sink              = option("sink", 16);
    return res;
}

static context_ptr new_context(llama_model * model, ggml_type type_k, ggml_type type_v) {
    context_ptr res(llama_init_from_model(model, params_of(type_k, type_v)), llama_free);
    check(res != nullptr, "no context");
    return res;
}

using logits = std::vector<float>;

static int n_vocab(const llama_model * model) {
    return llama_vocab_n_tokens(llama_model_get_vocab(model));
}

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

static std::vector<llama_token> random_tokens(int n, int seed, int n_vocab = 400) {
    std::mt19937             rng(seed);
    std::vector<llama_token> res(n);
    for (auto & token : res) {
        token = rng() % std::min(n_vocab, 400);
    }
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

// how far the logits are from those of f16
static void scenario_logits(llama_model * model, ggml_type k, ggml_type v) {
    const auto                     tokens = random_tokens(option("n", 700), 1, n_vocab(model));
    const int                      n      = option("batch", 64);
    const logits                   ref    = decode_all(new_context(model, GGML_TYPE_F16, GGML_TYPE_F16).get(), tokens, n);
    const logits                   got    = decode_all(new_context(model, k, v).get(), tokens, n);
    // what attention is worth here: logits of the same tokens without the first half of the text
    const std::vector<llama_token> tail(tokens.begin() + tokens.size() / 2, tokens.end());
    const logits                   blind = decode_all(new_context(model, GGML_TYPE_F16, GGML_TYPE_F16).get(), tail, n);
    const logits                   ref_tail(ref.end() - blind.size(), ref.end());
    const logits                   got_tail(got.end() - blind.size(), got.end());
    printf("{\"nmse\": %g, \"nmse_tail\": %g, \"nmse_blind\": %g}\n", nmse(got, ref), nmse(got_tail, ref_tail), nmse(blind, ref_tail));
}

// the same text in batches of several sizes
static void scenario_batches(llama_model * model, ggml_type k, ggml_type v) {
    const auto   tokens = random_tokens(option("n", 900), 2);
    const logits ref    = decode_all(new_context(model, GGML_TYPE_F16, GGML_TYPE_F16).get(), tokens, 512);
    for (int n : { 1, 7, 128, 513 }) {
        printf("{\"batch\": %d, \"nmse\": %g}\n", n, nmse(decode_all(new_context(model, k, v).get(), tokens, n), ref));
    }
}

static std::vector<uint8_t> save(llama_context * ctx, bool whole, int seq_id) {
    std::vector<uint8_t> res(whole ? llama_state_get_size(ctx) : llama_state_seq_get_size(ctx, seq_id));
    const size_t n = whole ? llama_state_get_data(ctx, res.data(), res.size()) : llama_state_seq_get_data(ctx, res.data(), res.size(), seq_id);
    check(n == res.size() && n > 0, "the state has not the size that was said");
    return res;
}

static bool restore(llama_context * ctx, bool whole, int seq_id, const std::vector<uint8_t> & data) {
    return (whole ? llama_state_set_data(ctx, data.data(), data.size()) : llama_state_seq_set_data(ctx, data.data(), data.size(), seq_id)) ==
           data.size();
}

// generate n tokens greedily; all logits
static std::vector<logits> generate(llama_context * ctx, logits last, int pos, int seq_id, int n) {
    std::vector<logits> res;
    for (int i = 0; i < n; i++) {
        last = decode(ctx, { best(last) }, pos + i, seq_id);
        check(!last.empty(), "decoding failed");
        res.push_back(last);
    }
    return res;
}

static void check_same(const std::vector<logits> & a, const std::vector<logits> & b, const std::string & what) {
    check(a.size() == b.size(), what);
    for (size_t i = 0; i < a.size(); i++) {
        check(same(a[i], b[i]), what + ": token " + std::to_string(i) + " differs");
    }
}

// generation goes on after a state was saved and restored as if nothing had happened
static void scenario_restore(llama_model * model, ggml_type k, ggml_type v) {
    const int seq_id = option("seqs", 1) - 1;
    const int n      = option("n", 700);
    const int before = option("before", 150);
    const int after  = option("after", 300);

    auto         ctx  = new_context(model, k, v);
    const logits last = decode(ctx.get(), random_tokens(n, 3), 0, seq_id);
    if (seq_id > 0) {
        check(!decode(ctx.get(), random_tokens(300, 4), 0, 0).empty(), "decoding failed");
    }
    const auto head = generate(ctx.get(), last, n, seq_id, before);

    for (bool whole : { false, true }) {
        const auto state = save(ctx.get(), whole, seq_id);
        auto       other = new_context(model, k, v);
        // what is there already goes
        check(!decode(other.get(), random_tokens(400, 5), 0, seq_id).empty(), "decoding failed");
        check(restore(other.get(), whole, seq_id, state), "the state was refused");
        check(save(other.get(), whole, seq_id) == state, "a restored state is not the same when saved again");
        const auto rest = generate(other.get(), head.back(), n + before, seq_id, after);

        auto twin = new_context(model, k, v);
        decode(twin.get(), random_tokens(n, 3), 0, seq_id);
        if (seq_id > 0) {
            decode(twin.get(), random_tokens(300, 4), 0, 0);
        }
        generate(twin.get(), last, n, seq_id, before);
        const auto expected = generate(twin.get(), head.back(), n + before, seq_id, after);
        if (option("exact", 1)) {
            check_same(rest, expected, whole ? "whole state" : "state of a sequence");
        }
        double worst = 0; // where cells lie elsewhere, the same sums are taken in another order
        for (int i = 0; i < after; i++) {
            worst = std::max(worst, nmse(rest[i], expected[i]));
        }
        printf("{\"whole\": %d, \"state_bytes\": %zu, \"tokens\": %d, \"worst\": %g}\n", whole, state.size(), after, worst);
    }

    // into another sequence
    if (seq_id > 0) {
        const auto state = save(ctx.get(), false, seq_id);
        check(restore(ctx.get(), false, 0, state), "the state was refused by another sequence");
        const auto a = decode(ctx.get(), { 7 }, n + before, 0);
        const auto b = decode(ctx.get(), { 7 }, n + before, seq_id);
        check(nmse(a, b) < 1e-6, "a restored copy answers otherwise");
    }

    // a session file
    const std::string              path   = options["file"];
    const std::vector<llama_token> tokens = random_tokens(n, 3);
    if (!path.empty()) {
        auto one = new_context(model, k, v);
        auto two = new_context(model, k, v);
        decode(one.get(), tokens, 0, 0);
        check(llama_state_save_file(one.get(), path.c_str(), tokens.data(), tokens.size()), "the session was not saved");
        std::vector<llama_token> loaded(2048);
        size_t                   count = 0;
        check(llama_state_load_file(two.get(), path.c_str(), loaded.data(), loaded.size(), &count) && count == tokens.size(),
              "the session was not loaded");
        check_same(generate(two.get(), last, n, 0, 50), generate(one.get(), last, n, 0, 50), "session file");
    }
}

// damaged and foreign states are refused, and nothing changes
static void scenario_damage(llama_model * model, ggml_type k, ggml_type v) {
    const int    n   = option("n", 500);
    auto         ctx = new_context(model, k, v);
    std::mt19937 rng(option("seed", 1));
    check(!decode(ctx.get(), random_tokens(n, 6), 0, 0).empty(), "decoding failed");
    int n_refused = 0;

    for (bool whole : { false, true }) {
        const auto   good = save(ctx.get(), whole, 0);
        // the context's own head, before the cache's, is upstream's
        const size_t head = whole ? 16 : 8;

        std::vector<std::vector<uint8_t>> bad;
        for (int i = 0; i < option("times", 150); i++) {
            auto         flipped = good;
            // mostly in what describes the data
            const size_t where   = head + (i % 2 ? rng() % (good.size() - head) : rng() % 2048);
            flipped[where] ^= 1 << (rng() % 8);
            bad.push_back(flipped);
            auto cut = good;
            cut.resize(head + rng() % (good.size() - head));
            bad.push_back(cut);
        }
        for (size_t i = head; i < head + 256; i += 4) {
            auto huge = good;
            memset(huge.data() + i, 0xff, 4);
            bad.push_back(huge);
        }
        auto f16 = new_context(model, GGML_TYPE_F16, GGML_TYPE_F16);
        decode(f16.get(), random_tokens(n, 6), 0, 0);
        bad.push_back(save(f16.get(), whole, 0));
        log_errors.clear();
        check(!restore(f16.get(), whole, 0, good), "upstream's cache took a packed state");

        for (const auto & data : bad) {
            log_errors.clear();
            check(!restore(ctx.get(), whole, 0, data), "a damaged state was taken");
            check(log_errors.find("error loading state") != std::string::npos, "a damaged state was refused without a word");
            n_refused++;
        }
        check(save(ctx.get(), whole, 0) == good, "a refused state changed the context");
    }
    printf("{\"refused\": %d}\n", n_refused);
}

// two sequences, each beside different others: bit by bit the same
static void scenario_leak(llama_model * model, ggml_type k, ggml_type v) {
    const int           n = option("n", 600);
    std::vector<logits> first;
    for (int other = 0; other < 3; other++) {
        auto                ctx = new_context(model, k, v);
        std::vector<logits> got;
        logits              a = decode(ctx.get(), random_tokens(n, 7), 0, 0);
        // the other sequence has as many tokens but never the same
        logits              b = decode(ctx.get(), random_tokens(n, 100 + other), 0, 1);
        got.push_back(a);
        for (int i = 0; i < 300; i++) {
            llama_batch batch = llama_batch_init(2, 0, 1);
            batch.n_tokens    = 2;
            for (int s = 0; s < 2; s++) {
                batch.token[s]     = s ? (i * 31 + other * 17) % 400 : (i * 13) % 400;
                batch.pos[s]       = n + i;
                batch.n_seq_id[s]  = 1;
                batch.seq_id[s][0] = s;
                batch.logits[s]    = 1;
            }
            check(llama_decode(ctx.get(), batch) == 0, "decoding failed");
            llama_batch_free(batch);
            const float * data = llama_get_logits_ith(ctx.get(), 0);
            got.emplace_back(data, data + n_vocab(model));
        }
        if (first.empty()) {
            first = got;
        }
        check_same(got, first, "a sequence beside another one");
        (void) b;
    }
    printf("{\"tokens\": %zu}\n", first.size());
}

// the same calls to a packed cache and to upstream's, for long
static void scenario_random(llama_model * model, ggml_type k, ggml_type v) {
    const int    n_seq  = option("seqs", 1);
    const int    n_ctx  = option("ctx", 2048);
    const int    forget = option("forget", -1); // the packed cache misses this removal
    std::mt19937 rng(option("seed", 1));

    auto            packed = new_context(model, k, v);
    auto            f16    = new_context(model, GGML_TYPE_F16, GGML_TYPE_F16);
    llama_context * both[] = { packed.get(), f16.get() };

    std::vector<int> n_used(n_seq, 0); // cells, counted by hand
    int              n_tokens   = 0;
    int              n_removals = 0;
    double           worst      = 0;
    double           sum        = 0;
    int              n_sums     = 0;
    const auto       pos_max    = [&](int s) {
        return llama_memory_seq_pos_max(llama_get_memory(f16.get()), s);
    };

    while (n_tokens < option("tokens", 15000)) {
        const int s    = rng() % n_seq;
        const int what = rng() % 100;
        const int end  = pos_max(s) + 1;
        if (what < 70) {
            const int n     = 1 + (rng() % 4 ? rng() % 40 : rng() % 300);
            int       total = 0;
            for (int used : n_used) {
                total += used;
            }
            const bool unified = option("unified", 0);
            if ((unified ? total + n > n_ctx * n_seq * 7 / 10 : n_used[s] + n > n_ctx * 7 / 10) || end + n > 60000) {
                for (auto * ctx : both) {
                    llama_memory_seq_rm(llama_get_memory(ctx), s, -1, -1);
                }
                n_used[s] = 0;
                continue;
            }
            const auto   tokens = random_tokens(n, rng());
            const logits a      = decode(packed.get(), tokens, end, s);
            const logits b      = decode(f16.get(), tokens, end, s);
            check(!a.empty() && !b.empty(), "decoding failed after " + std::to_string(n_tokens) + " tokens");
            n_used[s] += n;
            n_tokens += n;
            const double err = nmse(a, b);
            worst            = std::max(worst, err);
            sum += err;
            n_sums++;
        } else if (what < 92 && end > 0) {
            // a tail, a part, or all
            const int p0 = what < 82 ? std::max(0, end - 1 - (int) (rng() % 200)) : rng() % end;
            const int p1 = what < 82 ? -1 : p0 + 1 + rng() % 100;
            for (auto * ctx : both) {
                if (ctx == f16.get() || n_removals != forget) {
                    check(llama_memory_seq_rm(llama_get_memory(ctx), s, p0, p1), "seq_rm said no");
                }
            }
            n_removals++;
        } else if (what < 96 && n_seq > 1) {
            const int to = (s + 1) % n_seq;
            for (auto * ctx : both) {
                llama_memory_seq_rm(llama_get_memory(ctx), to, -1, -1);
                llama_memory_seq_cp(llama_get_memory(ctx), s, to, -1, -1);
            }
            n_used[to] = n_used[s];
        } else if (what == 98) {
            for (auto * ctx : both) {
                llama_memory_seq_keep(llama_get_memory(ctx), s);
            }
            if (option("unified", 0)) {
                for (int i = 0; i < n_seq; i++) {
                    n_used[i] = i == s ? n_used[i] : 0;
                }
            }
        } else if (what == 99 && rng() % 10 == 0) {
            for (auto * ctx : both) {
                llama_memory_clear(llama_get_memory(ctx), rng() % 2);
            }
            std::fill(n_used.begin(), n_used.end(), 0);
        }
        if (forget < 0) {
            for (int i = 0; i < n_seq; i++) {
                check(llama_memory_seq_pos_min(llama_get_memory(packed.get()), i) == llama_memory_seq_pos_min(llama_get_memory(f16.get()), i) &&
                          llama_memory_seq_pos_max(llama_get_memory(packed.get()), i) == pos_max(i),
                      "positions of sequence " + std::to_string(i) + " differ");
            }
        } else if (n_removals > forget && llama_memory_seq_pos_max(llama_get_memory(packed.get()), s) != pos_max(s)) {
            check(false, "positions differ");
        }
    }
    printf("{\"tokens\": %d, \"removals\": %d, \"nmse\": %g, \"worst\": %g}\n", n_tokens, n_removals, sum / n_sums, worst);
}

static size_t resident() {
    size_t pages = 0;
    size_t all   = 0;
    FILE * file  = fopen("/proc/self/statm", "r");
    check(file && fscanf(file, "%zu %zu", &all, &pages) == 2, "no /proc/self/statm");
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

// the size of the cache as it says, and what the process grows by
static void scenario_memory(llama_model * model, ggml_type k, ggml_type v) {
    const size_t before = resident();
    auto         ctx    = new_context(model, k, v);
    const size_t grown  = resident() - before;
    double       mib, share;
    size_t       f16, packed, full;
    const char * size = strstr(log_size.c_str(), "size = ");
    check(size && sscanf(size, "size = %lf MiB: f16 part %zu bytes, packed part %zu bytes; f16 alone would take %zu bytes (%lf", &mib, &f16, &packed,
                         &full, &share) == 5,
          "the cache does not say its size: " + log_size);
    printf("{\"f16_bytes\": %zu, \"packed_bytes\": %zu, \"full_bytes\": %zu, \"share\": %g, \"resident\": %zu}\n", f16, packed, full, share, grown);
}

// a context that cannot be had is refused in words
static void scenario_refuse(llama_model * model, ggml_type k, ggml_type v) {
    llama_context_params params = params_of(k, v);
    if (option("fa_off", 0)) {
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    log_errors.clear();
    context_ptr ctx(llama_init_from_model(model, params), llama_free);
    check(ctx == nullptr, "a context that cannot be had");
    printf("%s", log_errors.c_str());
}

// any model: the context is refused in words, or its logits are near those of f16
static void scenario_any(llama_model * model, ggml_type k, ggml_type v) {
    log_errors.clear();
    const bool can = context_ptr(llama_init_from_model(model, params_of(k, v)), llama_free) != nullptr;
    printf("%s", log_errors.c_str());
    if (can) {
        scenario_logits(model, k, v);
    }
}

// what cannot be done with a packed cache
static void scenario_shift(llama_model * model, ggml_type k, ggml_type v) {
    auto ctx = new_context(model, k, v);
    auto mem = llama_get_memory(ctx.get());
    check(!decode(ctx.get(), random_tokens(300, 8), 0, 0).empty(), "decoding failed");
    const auto before = save(ctx.get(), false, 0);
    check(!llama_memory_can_shift(mem), "packed keys can be shifted");
    log_errors.clear();
    llama_memory_seq_add(mem, 0, 100, -1, -50);
    llama_memory_seq_div(mem, 0, 100, -1, 2);
    printf("%s", log_errors.c_str());
    check(save(ctx.get(), false, 0) == before, "a shift that was refused changed the cache");
}

int main(int argc, char ** argv) {
    check(argc >= 5, "usage: kv_cache MODEL SCENARIO K V [key=value ...]");
    for (int i = 5; i < argc; i++) {
        const char * eq = strchr(argv[i], '=');
        check(eq != nullptr, argv[i]);
        options[std::string((const char *) argv[i], eq)] = eq + 1;
    }
    llama_log_set(on_log, nullptr);
    ggml_backend_load_all();
    llama_backend_init();
    model_ptr model(llama_model_load_from_file(argv[1], llama_model_default_params()), llama_model_free);
    check(model != nullptr, "no model");
    const std::string scenario = argv[2];
    const ggml_type   k        = type_of(argv[3]);
    const ggml_type   v        = type_of(argv[4]);

    const std::map<std::string, void (*)(llama_model *, ggml_type, ggml_type)> scenarios = {
        { "logits",  scenario_logits  },
        { "batches", scenario_batches },
        { "restore", scenario_restore },
        { "damage",  scenario_damage  },
        { "leak",    scenario_leak    },
        { "random",  scenario_random  },
        { "refuse",  scenario_refuse  },
        { "any",     scenario_any     },
        { "shift",   scenario_shift   },
        { "memory",  scenario_memory  },
    };
    check(scenarios.count(scenario), "no scenario " + scenario);
    scenarios.at(scenario)(model.get(), k, v);
    return 0;
}
