// The mixed KV cache through the C API, against upstream's f16 cache fed with the same calls. Prints one line of JSON per finding.
//
//   kv_cache MODEL SCENARIO K V [key=value ...]

#include "kv_driver.h"
#include "kv_churn.h"
#include "kv_convert.h"
#include "kv_images.h"

#include "ggml-backend.h"

#include <unistd.h>

// Upstream's f16 cache. Its flash attention adds up in f16 where a batch has few tokens, which is more than what packing loses in some models
// whose attention hardly matters: ref_fa_off=1 does without it.
static context_ptr new_reference(llama_model * model) {
    llama_context_params params = params_of(GGML_TYPE_F16, GGML_TYPE_F16);
    if (option("ref_fa_off", 0)) {
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    return new_context(model, params);
}

// how far the logits are from those of f16
static void scenario_logits(llama_model * model, ggml_type k, ggml_type v) {
    const auto                     tokens = random_tokens(option("n", 700), 1, n_vocab(model));
    const int                      n      = option("batch", 64);
    const logits                   ref    = decode_all(new_reference(model).get(), tokens, n);
    const logits                   got    = decode_all(new_context(model, k, v).get(), tokens, n);
    // what attention is worth here: logits of the same tokens without the first half of the text
    const std::vector<llama_token> tail(tokens.begin() + tokens.size() / 2, tokens.end());
    const logits                   blind = decode_all(new_reference(model).get(), tail, n);
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

// text, then tokens of which each may see all others, as those of an image do; window=2048: all in f16, where masks show to the last digit
static void scenario_noncausal(llama_model * model, ggml_type k, ggml_type v) {
    const int n = option("n", 300);
    logits    found[2];
    for (bool packed : { false, true }) {
        auto ctx = packed ? new_context(model, k, v) : new_context(model, GGML_TYPE_F16, GGML_TYPE_F16);
        check(!decode(ctx.get(), random_tokens(n, 1), 0).empty(), "decoding failed");
        llama_set_causal_attn(ctx.get(), false);
        found[packed] = decode(ctx.get(), random_tokens(n, 2), n, 0, true);
        check(!found[packed].empty(), "decoding failed");
    }
    printf("{\"nmse\": %g}\n", nmse(found[1], found[0]));
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

    // what the restored contexts are fed as well: two texts of their own would part where two tokens are nearly as likely
    auto twin = new_context(model, k, v);
    decode(twin.get(), random_tokens(n, 3), 0, seq_id);
    if (seq_id > 0) {
        decode(twin.get(), random_tokens(300, 4), 0, 0);
    }
    check_same(follow(twin.get(), head.tokens, n, seq_id), head.after, "the same calls to another context");
    const auto expected = generate(twin.get(), head.after.back(), n + before, seq_id, after);

    for (bool whole : { false, true }) {
        const auto state = save(ctx.get(), whole, seq_id);
        auto       other = new_context(model, k, v);
        // what is there already goes
        check(!decode(other.get(), random_tokens(400, 5), 0, seq_id).empty(), "decoding failed");
        check(restore(other.get(), whole, seq_id, state), "the state was refused");
        check(save(other.get(), whole, seq_id) == state, "a restored state is not the same when saved again");
        const auto rest = follow(other.get(), expected.tokens, n + before, seq_id);
        if (option("exact", 1)) {
            check_same(rest, expected.after, whole ? "whole state" : "state of a sequence");
        }
        double worst = 0; // where cells lie elsewhere, the same sums are taken in another order
        for (int i = 0; i < after; i++) {
            worst = std::max(worst, nmse(rest[i], expected.after[i]));
        }
        printf("{\"whole\": %d, \"state_bytes\": %zu, \"tokens\": %d, \"worst\": %g}\n", whole, state.size(), after, worst);
    }

    // into another sequence
    if (seq_id > 0) {
        const auto state = save(ctx.get(), false, seq_id);
        check(restore(ctx.get(), false, 0, state), "the state was refused by another sequence");
        const auto a = decode(ctx.get(), { 7 }, n + before, 0);
        const auto b = decode(ctx.get(), { 7 }, n + before, seq_id);
        // where sums are taken in another order, a query can be rounded to other codes
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
        const auto text = generate(one.get(), last, n, 0, 50);
        check_same(follow(two.get(), text.tokens, n, 0), text.after, "session file");
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
            check(log_errors.find("error loading state") != std::string::npos, "a damaged state was refused without a message");
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

// a packed cache and upstream's, given the same calls
struct twin_caches {
    const int n_seq  = option("seqs", 1);
    const int n_ctx  = option("ctx", 2048);
    const int forget = option("forget", -1); // the packed cache misses this removal

    context_ptr  packed;
    context_ptr  f16;
    std::mt19937 rng;

    std::vector<int> n_used; // cells of each sequence, counted here
    int              n_tokens   = 0;
    int              n_removals = 0;
    double           worst      = 0; // nmse of a batch
    double           sum        = 0;
    int              n_sums     = 0;

    twin_caches(llama_model * model, ggml_type k, ggml_type v) :
        packed(new_context(model, k, v)), f16(new_context(model, GGML_TYPE_F16, GGML_TYPE_F16)), rng(option("seed", 1)), n_used(n_seq, 0) {}

    int pos_max(int s) const { return llama_memory_seq_pos_max(llama_get_memory(f16.get()), s); }

    template <typename F> void on_both(F f) {
        f(llama_get_memory(packed.get()));
        f(llama_get_memory(f16.get()));
    }

    void decode_some(int s, int end);
    void remove_some(int s, int end, bool is_tail);
    void copy(int s);
    void keep(int s);
    void clear();
    void check_positions(int s);
};

// decode up to 300 tokens, or remove a sequence that is too long for them
void twin_caches::decode_some(int s, int end) {
    const int n     = 1 + (rng() % 4 ? rng() % 40 : rng() % 300);
    int       total = 0;
    for (int used : n_used) {
        total += used;
    }
    const bool unified = option("unified", 0);
    if ((unified ? total + n > n_ctx * n_seq * 7 / 10 : n_used[s] + n > n_ctx * 7 / 10) || end + n > 60000) {
        on_both([&](llama_memory_t memory) { llama_memory_seq_rm(memory, s, -1, -1); });
        n_used[s] = 0;
        return;
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
}

void twin_caches::remove_some(int s, int end, bool is_tail) {
    const int p0 = is_tail ? std::max(0, end - 1 - (int) (rng() % 200)) : rng() % end;
    const int p1 = is_tail ? -1 : p0 + 1 + rng() % 100;
    for (auto * ctx : { packed.get(), f16.get() }) {
        if (ctx == f16.get() || n_removals != forget) {
            check(llama_memory_seq_rm(llama_get_memory(ctx), s, p0, p1), "seq_rm refused");
        }
    }
    n_removals++;
}

void twin_caches::copy(int s) {
    const int to = (s + 1) % n_seq;
    on_both([&](llama_memory_t memory) {
        llama_memory_seq_rm(memory, to, -1, -1);
        llama_memory_seq_cp(memory, s, to, -1, -1);
    });
    n_used[to] = n_used[s];
}

void twin_caches::keep(int s) {
    on_both([&](llama_memory_t memory) { llama_memory_seq_keep(memory, s); });
    if (option("unified", 0)) {
        for (int i = 0; i < n_seq; i++) {
            n_used[i] = i == s ? n_used[i] : 0;
        }
    }
}

void twin_caches::clear() {
    on_both([&](llama_memory_t memory) { llama_memory_clear(memory, rng() % 2); });
    std::fill(n_used.begin(), n_used.end(), 0);
}

void twin_caches::check_positions(int s) {
    const auto memory = llama_get_memory(packed.get());
    if (forget < 0) {
        for (int i = 0; i < n_seq; i++) {
            check(llama_memory_seq_pos_min(memory, i) == llama_memory_seq_pos_min(llama_get_memory(f16.get()), i) &&
                      llama_memory_seq_pos_max(memory, i) == pos_max(i),
                  "positions of sequence " + std::to_string(i) + " differ");
        }
    } else if (n_removals > forget && llama_memory_seq_pos_max(memory, s) != pos_max(s)) {
        check(false, "positions differ");
    }
}

// a long random run
static void scenario_random(llama_model * model, ggml_type k, ggml_type v) {
    twin_caches caches(model, k, v);
    while (caches.n_tokens < option("tokens", 15000)) {
        const int s    = caches.rng() % caches.n_seq;
        const int what = caches.rng() % 100;
        const int end  = caches.pos_max(s) + 1;
        if (what < 70) {
            caches.decode_some(s, end);
        } else if (what < 92 && end > 0) {
            caches.remove_some(s, end, what < 82);
        } else if (what < 96 && caches.n_seq > 1) {
            caches.copy(s);
        } else if (what == 98) {
            caches.keep(s);
        } else if (what == 99 && caches.rng() % 10 == 0) {
            caches.clear();
        }
        caches.check_positions(s);
    }
    printf("{\"tokens\": %d, \"removals\": %d, \"nmse\": %g, \"worst\": %g}\n", caches.n_tokens, caches.n_removals, caches.sum / caches.n_sums,
           caches.worst);
}

static size_t resident() {
    size_t pages = 0;
    size_t all   = 0;
    FILE * file  = fopen("/proc/self/statm", "r");
    check(file && fscanf(file, "%zu %zu", &all, &pages) == 2, "no /proc/self/statm");
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

// the size of the cache as logged, and what the process grows by
static void scenario_memory(llama_model * model, ggml_type k, ggml_type v) {
    const size_t before = resident();
    auto         ctx    = new_context(model, k, v);
    const size_t grown  = resident() - before;
    double       mib, share;
    size_t       f16, packed, full;
    const char * size = strstr(log_size.c_str(), "size = ");
    check(size && sscanf(size, "size = %lf MiB: f16 part %zu bytes, packed part %zu bytes; f16 alone would take %zu bytes (%lf", &mib, &f16, &packed,
                         &full, &share) == 5,
          "the cache does not log its size: " + log_size);
    printf("{\"f16_bytes\": %zu, \"packed_bytes\": %zu, \"full_bytes\": %zu, \"share\": %g, \"resident\": %zu}\n", f16, packed, full, share, grown);
}

// the size of the caches of ever longer contexts, in percent of f16's
static void scenario_sizes(llama_model * model, ggml_type k, ggml_type v) {
    for (int n = 256; n <= option("longest", 4096); n += 256) {
        llama_context_params params = params_of(k, v);
        params.n_ctx                = n;
        log_size.clear();
        const context_ptr ctx      = new_context(model, params);
        double            share    = 100;
        const char *      measured = strstr(log_size.c_str(), "bytes (");
        check(measured ? sscanf(measured, "bytes (%lf", &share) == 1 : log_size.find("is f16: packed ones") != std::string::npos,
              "the cache does not log its size: " + log_size);
        printf("{\"ctx\": %d, \"upstream\": %d, \"share\": %g}\n", n, !measured, share);
    }
}

// a context that is not supported is refused with one sentence
static void scenario_refuse(llama_model * model, ggml_type k, ggml_type v) {
    llama_context_params params = params_of(k, v);
    if (option("fa_off", 0)) {
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    log_errors.clear();
    context_ptr ctx(llama_init_from_model(model, params), llama_free);
    check(ctx == nullptr, "a context that must be refused was made");
    printf("%s", log_errors.c_str());
}

// any model: the context is refused with one sentence, or its logits are near those of f16
static void scenario_any(llama_model * model, ggml_type k, ggml_type v) {
    log_errors.clear();
    const bool can = context_ptr(llama_init_from_model(model, params_of(k, v)), llama_free) != nullptr;
    printf("%s", log_errors.c_str());
    if (can) {
        scenario_logits(model, k, v);
    }
}

int main(int argc, char ** argv) {
    return run_scenario(argc, argv,
                        {
                            { "logits",    scenario_logits    },
                            { "batches",   scenario_batches   },
                            { "restore",   scenario_restore   },
                            { "damage",    scenario_damage    },
                            { "leak",      scenario_leak      },
                            { "random",    scenario_random    },
                            { "refuse",    scenario_refuse    },
                            { "any",       scenario_any       },
                            { "memory",    scenario_memory    },
                            { "sizes",     scenario_sizes     },
                            { "images",    scenario_images    },
                            { "noncausal", scenario_noncausal },
                            { "churn",     scenario_churn     },
                            { "cuts",      scenario_cuts      },
                            { "gaps",      scenario_gaps      },
                            { "convert",   scenario_convert   },
    });
}
