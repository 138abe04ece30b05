// Contexts that lose tokens again and again in the middle of tiles.

#pragma once

#include "kv_driver.h"

#include <chrono>

// a packed cache, beside upstream's f16 cache with the same calls if that is asked for
struct churned {
    std::vector<context_ptr> contexts;
    std::vector<int>         end;            // of each sequence
    int                      n_appended = 0;
    double                   seconds    = 0; // of the packed cache's decoding
    double                   worst      = 0; // nmse of a batch
    double                   sum        = 0;
    int                      n_sums     = 0;
    std::mt19937             rng{ 1 };

    churned(llama_model * model, ggml_type k, ggml_type v) : end(option("seqs", 1), 0) {
        contexts.push_back(new_context(model, k, v));
        if (option("compare", 1)) {
            contexts.push_back(new_context(model, GGML_TYPE_F16, GGML_TYPE_F16));
        }
    }

    // false if the packed cache is full
    bool append(int seq_id, int n) {
        const auto          tokens = random_tokens(n, rng());
        std::vector<logits> res;
        for (auto & ctx : contexts) {
            const auto start = std::chrono::steady_clock::now();
            res.push_back(decode(ctx.get(), tokens, end[seq_id], seq_id));
            if (ctx == contexts[0]) {
                seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
                if (res[0].empty()) {
                    return false;
                }
            }
            check(!res.back().empty(), "upstream's cache is full");
        }
        if (res.size() > 1) {
            const double err = nmse(res[0], res[1]);
            worst            = std::max(worst, err);
            sum += err;
            n_sums++;
        }
        end[seq_id] += n;
        n_appended += n;
        return true;
    }

    void remove(int seq_id, int p0, int p1) {
        for (auto & ctx : contexts) {
            check(llama_memory_seq_rm(llama_get_memory(ctx.get()), seq_id, p0, p1), "seq_rm refused");
        }
    }

    void print(int n_used) const {
        printf("{\"used\": %d, \"cells\": %d, \"tokens\": %d, \"seconds\": %g, \"nmse\": %g, \"worst\": %g}\n", n_used,
               option("ctx", 2048) * (option("unified", 0) ? (int) end.size() : 1), n_appended, seconds, n_sums ? sum / n_sums : 0.0, worst);
    }
};

// append tokens and remove the newest of them, in turns, until the context is full
static void scenario_churn(llama_model * model, ggml_type k, ggml_type v) {
    churned   c(model, k, v);
    const int n_seq    = c.end.size();
    const int n_append = option("append", 600);
    const int n_batch  = option("batch", 50);
    for (int turn = 0;; turn++) {
        const int seq_id = turn % n_seq;
        for (int n = 0; n < n_append; n += n_batch) {
            if (!c.append(seq_id, n_batch)) {
                int n_used = 0;
                for (int i = 0; i < n_seq; i++) {
                    n_used += option("unified", 0) || i == seq_id ? c.end[i] : 0;
                }
                c.print(n_used);
                return;
            }
        }
        c.end[seq_id] -= option("remove", 590);
        c.remove(seq_id, c.end[seq_id], -1);
    }
}

// A chat whose parts are dropped, with what comes behind moved to where they were: append tokens, and remove some in gaps, in turns, until the
// context is full, or has as many tokens as a smaller one.
static void scenario_gaps(llama_model * model, ggml_type k, ggml_type v) {
    churned   c(model, k, v);
    const int n_batch = option("batch", 50);
    while (true) {
        for (int n = 0; n < option("append", 600); n += n_batch) {
            if (c.end[0] + n_batch > option("until", 1 << 30) || !c.append(0, n_batch)) {
                return c.print(c.end[0]);
            }
        }
        for (int left = option("remove", 500); left > 0;) {
            const int gap = std::min<int>(left, 1 + c.rng() % option("gap", 40));
            const int p0  = c.rng() % (c.end[0] - gap);
            c.remove(0, p0, p0 + gap);
            for (auto & ctx : c.contexts) {
                llama_memory_seq_add(llama_get_memory(ctx.get()), 0, p0 + gap, -1, -gap);
            }
            c.end[0] -= gap;
            left -= gap;
        }
    }
}

// Fill the context, cut it at random places, and fill it again, some times over. What is left after a cut stays within the bounds of its type.
static void scenario_cuts(llama_model * model, ggml_type k, ggml_type v) {
    churned           c(model, k, v);
    const int         n_cells = option("ctx", 2048);
    const int         n_batch = option("batch", 64);
    std::vector<bool> live;
    for (int turn = 0; turn <= option("turns", 10); turn++) {
        int n_live = std::count(live.begin(), live.end(), true);
        for (; n_live + n_batch <= n_cells; n_live += n_batch) {
            check(c.append(0, n_batch), "the cache is full at " + std::to_string(n_live) + " of " + std::to_string(n_cells) + " tokens");
            live.resize(c.end[0], true);
        }
        if (turn == option("turns", 10)) {
            break;
        }
        while (n_live > n_cells * 3 / 4) {
            const int p0 = c.rng() % c.end[0];
            const int p1 = std::min<int>(c.end[0] - 1, p0 + 1 + c.rng() % 40);
            c.remove(0, p0, p1);
            for (int i = p0; i < p1; i++) {
                n_live -= live[i];
                live[i] = false;
            }
        }
    }
    c.print(std::count(live.begin(), live.end(), true));
}
