// Tokens of the mixed KV cache that move to other positions, against upstream's f16 cache given the same calls. Prints a line of JSON per finding.
//
//   kv_shift MODEL SCENARIO K V [key=value ...]

#include "kv_driver.h"

#include "ggml-backend.h"

#include <functional>

// a packed cache and upstream's, given the same calls
struct twins {
    llama_model * model;
    ggml_type     k;
    ggml_type     v;
    context_ptr   packed;
    context_ptr   f16;
    int           seed = 10;

    twins(llama_model * model, ggml_type k, ggml_type v) :
        model(model), k(k), v(v), packed(new_context(model, k, v)), f16(new_context(model, GGML_TYPE_F16, GGML_TYPE_F16)) {
        check(llama_memory_can_shift(llama_get_memory(packed.get())), "the cache says that it cannot shift");
    }

    int end() const { return llama_memory_seq_pos_max(llama_get_memory(packed.get()), 0) + 1; }

    void on_both(const std::function<void(llama_memory_t)> & f) const {
        f(llama_get_memory(packed.get()));
        f(llama_get_memory(f16.get()));
    }

    void check_positions() const {
        for (auto * f : { llama_memory_seq_pos_min, llama_memory_seq_pos_max }) {
            check(f(llama_get_memory(packed.get()), 0) == f(llama_get_memory(f16.get()), 0), "positions differ");
        }
    }

    // decode n tokens, 32 at a time, on both; how far their logits are apart
    double decode_some(int n) {
        logits a;
        logits b;
        for (int i = 0; i < n; i += 32) {
            const auto tokens = random_tokens(std::min(32, n - i), seed++, n_vocab(model));
            const int  pos    = end();
            for (auto & [ctx, to] : {
                     std::pair<llama_context *, logits *>{ packed.get(), &a },
                        { f16.get(),    &b }
            }) {
                const logits l = decode(ctx, tokens, pos, 0, true);
                check(!l.empty(), "decoding failed");
                to->insert(to->end(), l.begin(), l.end());
            }
        }
        check_positions();
        return nmse(a, b);
    }

    // go on in a new context with the saved state
    void restore_packed() {
        const auto state = save(packed.get(), option("whole", 0), 0);
        packed           = new_context(model, k, v);
        check(restore(packed.get(), option("whole", 0), 0, state), "the state was refused");
        check(save(packed.get(), option("whole", 0), 0) == state, "a restored state is not the same when saved again");
    }
};

// what servers do when a context is full, again and again
static void scenario_context(llama_model * model, ggml_type k, ggml_type v) {
    const int keep    = option("keep", 16);
    const int discard = option("discard", 512);
    twins     t(model, k, v);
    t.decode_some(option("n", 1200));
    const double still = t.decode_some(256);
    for (int round = 0; round < option("rounds", 3); round++) {
        t.on_both([&](llama_memory_t memory) {
            check(llama_memory_seq_rm(memory, 0, keep, keep + discard), "seq_rm refused");
            llama_memory_seq_add(memory, 0, keep + discard, -1, -discard);
        });
        t.check_positions();
        if (option("save", 0)) {
            t.restore_packed(); // with keys that are not turned yet
        }
        const double moved = t.decode_some(discard);
        if (option("save", 0)) {
            t.restore_packed();
        }
        printf("{\"round\": %d, \"still\": %g, \"moved\": %g}\n", round, still, moved);
    }
}

// a prompt whose middle was cut in several places is used again; beside it, what the same holes cost where nothing moves
static void scenario_reuse(llama_model * model, ggml_type k, ggml_type v) {
    double err[2];
    for (const bool move : { false, true }) {
        twins     t(model, k, v);
        const int gap = option("gap", 150);
        t.decode_some(option("n", 1500));
        for (int p0 = 100; p0 + gap < t.end(); p0 += move ? 400 - gap : 400) {
            t.on_both([&](llama_memory_t memory) {
                check(llama_memory_seq_rm(memory, 0, p0, p0 + gap), "seq_rm refused");
                llama_memory_seq_add(memory, 0, p0 + gap, -1, move ? -gap : 0);
            });
        }
        err[move] = t.decode_some(256);
    }
    printf("{\"still\": %g, \"moved\": %g}\n", err[0], err[1]);
}

// self-extend: positions are divided. Upstream's seq_div records shifts of the wrong sign, so its cache gets one seq_add per token.
static void scenario_divide(llama_model * model, ggml_type k, ggml_type v) {
    const int d  = option("by", 4);
    const int p1 = option("until", 640);
    double    err[2];
    for (const bool move : { false, true }) {
        twins t(model, k, v);
        t.decode_some(option("n", 1000));
        if (move) {
            llama_memory_seq_div(llama_get_memory(t.packed.get()), 0, 0, p1, d);
            for (int p = 0; p < p1; p++) {
                llama_memory_seq_add(llama_get_memory(t.f16.get()), 0, p, p + 1, p / d - p);
            }
            t.on_both([&](llama_memory_t memory) { llama_memory_seq_add(memory, 0, p1, -1, p1 / d - p1); });
            t.check_positions();
        }
        err[move] = t.decode_some(256);
    }
    printf("{\"still\": %g, \"moved\": %g}\n", err[0], err[1]);
}

// All tokens move by the same distance: no answer changes but for rounding. Many times: more shifts than a stream can have.
static void scenario_many(llama_model * model, ggml_type k, ggml_type v) {
    twins  t(model, k, v);
    double still = t.decode_some(option("n", 600));
    double worst = 0;
    for (int i = 0; i < option("times", 40); i++) {
        t.on_both([&](llama_memory_t memory) { llama_memory_seq_add(memory, 0, 0, -1, 3 + i % 5); });
        worst = std::max(worst, t.decode_some(64));
        if (i % 8 == 7) {
            const int first = t.end() - 600;
            t.on_both([&](llama_memory_t memory) {
                check(llama_memory_seq_rm(memory, 0, -1, first), "seq_rm refused");
                llama_memory_seq_add(memory, 0, 0, -1, -first);
            });
        }
    }
    printf("{\"still\": %g, \"moved\": %g}\n", still, worst);
}

// Kullback-Leibler divergence of the next token's distribution from that of other logits
static double divergence(const float * ref, const float * got, int n) {
    const auto log_sum = [n](const float * l) {
        const float max = *std::max_element(l, l + n);
        double      sum = 0;
        for (int i = 0; i < n; i++) {
            sum += std::exp((double) l[i] - max);
        }
        return max + std::log(sum);
    };
    const double ref_sum = log_sum(ref);
    const double got_sum = log_sum(got);
    double       res     = 0;
    for (int i = 0; i < n; i++) {
        const double log_p = ref[i] - ref_sum;
        res += std::exp(log_p) * (log_p - (got[i] - got_sum));
    }
    return res;
}

// What a shift costs a trained model: mean divergence from f16, over the same tokens, after a context's first half was dropped and its second
// one moved, and where the second one was at the beginning from the start.
static void scenario_divergence(llama_model * model, ggml_type k, ggml_type v) {
    const auto tokens    = tokens_of_file(model, options["file"]);
    const int  n         = option("n", 1024);
    const int  vocab     = n_vocab(model);
    double     sums[2]   = {};
    int        counts[2] = {};
    for (size_t first = 0; first + n + n / 2 <= tokens.size() && counts[0] < option("chunks", 8) * n / 2; first += n + n / 2) {
        const auto part = [&](int from, int to) {
            return std::vector<llama_token>(tokens.begin() + first + from, tokens.begin() + first + to);
        };

        logits after[2][2]; // [moved][cache]
        for (const bool is_packed : { false, true }) {
            auto ctx = new_context(model, is_packed ? k : GGML_TYPE_F16, is_packed ? v : GGML_TYPE_F16);
            auto mem = llama_get_memory(ctx.get());
            decode(ctx.get(), part(n / 2, n), 0);
            after[0][is_packed] = decode(ctx.get(), part(n, n + n / 2), n / 2, 0, true);
            llama_memory_clear(mem, true);
            decode(ctx.get(), part(0, n), 0);
            check(llama_memory_seq_rm(mem, 0, 0, n / 2), "seq_rm refused");
            llama_memory_seq_add(mem, 0, n / 2, -1, -n / 2);
            after[1][is_packed] = decode(ctx.get(), part(n, n + n / 2), n / 2, 0, true);
        }
        for (const int moved : { 0, 1 }) {
            for (int i = 0; i < n / 2; i++) {
                sums[moved] += divergence(after[moved][0].data() + (size_t) i * vocab, after[moved][1].data() + (size_t) i * vocab, vocab);
                counts[moved]++;
            }
        }
    }
    check(counts[0] > 0, "the text is too short");
    printf("{\"tokens\": %d, \"still\": %g, \"moved\": %g}\n", counts[0], sums[0] / counts[0], sums[1] / counts[1]);
}

int main(int argc, char ** argv) {
    return run_scenario(argc, argv,
                        {
                            { "context",    scenario_context    },
                            { "reuse",      scenario_reuse      },
                            { "divide",     scenario_divide     },
                            { "many",       scenario_many       },
                            { "divergence", scenario_divergence },
    });
}
