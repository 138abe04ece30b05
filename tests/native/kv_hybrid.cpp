// The memory of hybrid models through the C API: what the recurrent part makes different. Prints one line of JSON per finding.
//
//   kv_hybrid MODEL SCENARIO K V [key=value ...]

#include "kv_driver.h"

#include "ggml-backend.h"

static const llama_state_seq_flags PARTIAL = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;

static std::vector<uint8_t> save_part(llama_context * ctx, int seq_id, llama_state_seq_flags flags) {
    std::vector<uint8_t> res(llama_state_seq_get_size_ext(ctx, seq_id, flags));
    check(llama_state_seq_get_data_ext(ctx, res.data(), res.size(), seq_id, flags) == res.size(), "the state does not have the size announced");
    return res;
}

static bool restore_part(llama_context * ctx, int seq_id, llama_state_seq_flags flags, const std::vector<uint8_t> & data) {
    return llama_state_seq_set_data_ext(ctx, data.data(), data.size(), seq_id, flags) == data.size();
}

// a hybrid memory with a packed cache and upstream's, given the same calls: they must do or refuse the same
struct twin_memories {
    const int n_seq = option("seqs", 1);
    const int n_ctx = option("ctx", 2048);
    const int n_rs  = option("rs", 0);

    context_ptr  packed;
    context_ptr  f16;
    std::mt19937 rng;

    struct checkpoint {
        int                   pos   = -1; // -1: none
        llama_state_seq_flags flags = PARTIAL;
        std::vector<uint8_t>  packed;
        std::vector<uint8_t>  f16;
    };

    std::vector<checkpoint> checkpoints;
    std::vector<int>        n_used; // cells of each sequence, counted here

    int    n_tokens = 0, n_rolled_back = 0, n_refused = 0, n_checkpoints = 0, n_reloads = 0, n_shifts = 0;
    double worst  = 0; // nmse of a sequence's last logits
    double sum    = 0;
    int    n_sums = 0;

    twin_memories(llama_model * model, ggml_type k, ggml_type v) :
        packed(new_context(model, k, v)),
        f16(new_context(model, GGML_TYPE_F16, GGML_TYPE_F16)),
        rng(option("seed", 1)),
        checkpoints(n_seq),
        n_used(n_seq, 0) {}

    int end(int s) const { return llama_memory_seq_pos_max(llama_get_memory(f16.get()), s) + 1; }

    // the same call to both; whether it did something
    template <typename F> bool on_both(const std::string & what, F f) {
        const bool a = f(packed.get());
        const bool b = f(f16.get());
        check(a == b, what + (a ? " is refused by upstream's memory only" : " is refused by the packed memory only"));
        return a;
    }

    bool remove(int s, int p0, int p1) {
        return on_both("seq_rm", [&](llama_context * ctx) { return llama_memory_seq_rm(llama_get_memory(ctx), s, p0, p1); });
    }

    void forget(int s) {
        check(remove(s, -1, -1), "a sequence cannot be removed");
        checkpoints[s].pos = -1;
        n_used[s]          = 0;
    }

    bool make_room(int s, int n);
    void decode_some(const std::vector<int> & seqs, int n_most);
    void compare(const std::vector<int> & rows, int n_vocab);
    void roll_back(int s);
    void remove_middle(int s);
    void use_checkpoint(int s);
    void reload(int s);
    void shift(int s);
    void copy(int s);
    void keep(int s);
    void check_positions();
    void step();
};

// forget a sequence that is too long for n tokens more; whether there is room now
bool twin_memories::make_room(int s, int n) {
    int total = 0;
    for (int used : n_used) {
        total += used;
    }
    const bool fits = option("unified", 0) ? total + n <= n_ctx * n_seq * 7 / 10 : n_used[s] + n <= n_ctx * 7 / 10;
    if (!fits) {
        forget(s);
    }
    return fits;
}

// decode up to n_most tokens of each of some sequences in one batch
void twin_memories::decode_some(const std::vector<int> & seqs, int n_most) {
    struct token {
        int  seq, pos, id;
        bool is_last;
    };

    std::vector<token> tokens;
    for (int s : seqs) {
        const int n = 1 + rng() % n_most;
        if (make_room(s, n)) {
            for (int i = 0; i < n; i++) {
                tokens.push_back({ s, end(s) + i, (int) (rng() % 400), i + 1 == n });
            }
            n_used[s] += n;
        }
    }
    if (tokens.empty()) {
        return;
    }
    llama_batch batch = llama_batch_init(tokens.size(), 0, 1);
    batch.n_tokens    = tokens.size();
    std::vector<int> rows;
    for (size_t i = 0; i < tokens.size(); i++) {
        batch.token[i]     = tokens[i].id;
        batch.pos[i]       = tokens[i].pos;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = tokens[i].seq;
        batch.logits[i]    = tokens[i].is_last;
        if (tokens[i].is_last) {
            rows.push_back(i);
        }
    }
    check(on_both("decoding", [&](llama_context * ctx) { return llama_decode(ctx, batch) == 0; }), "decoding failed");
    llama_batch_free(batch);
    n_tokens += tokens.size();
    compare(rows, n_vocab(llama_get_model(f16.get())));
}

void twin_memories::compare(const std::vector<int> & rows, int n_vocab) {
    for (int row : rows) {
        const float * a   = llama_get_logits_ith(packed.get(), row);
        const float * b   = llama_get_logits_ith(f16.get(), row);
        const double  err = nmse(logits(a, a + n_vocab), logits(b, b + n_vocab));
        worst             = std::max(worst, err);
        sum += err;
        n_sums++;
    }
}

// take back a few tokens, or more than the recurrent part can
void twin_memories::roll_back(int s) {
    const int n = 1 + rng() % (2 * n_rs + 2);
    if (n >= end(s)) {
        return;
    }
    const bool ok = remove(s, end(s) - n, -1);
    (ok ? n_rolled_back : n_refused)++;
    if (ok && checkpoints[s].pos >= end(s)) {
        checkpoints[s].pos = -1;
    }
}

void twin_memories::remove_middle(int s) {
    const int p0 = rng() % end(s);
    if (!remove(s, p0, p0 + 1 + rng() % 100)) {
        n_refused++;
    }
}

// keep the recurrent state of a sequence, or go back to the one that was kept
void twin_memories::use_checkpoint(int s) {
    auto & saved = checkpoints[s];
    if (saved.pos < 0) {
        // upstream keeps the data of states on the device in the context
        const llama_state_seq_flags flags = PARTIAL | (rng() % 2 ? LLAMA_STATE_SEQ_FLAGS_ON_DEVICE : 0);
        saved                             = { end(s) - 1, flags, save_part(packed.get(), s, flags), save_part(f16.get(), s, flags) };
        return;
    }
    check(on_both("a checkpoint",
                  [&](llama_context * ctx) { return restore_part(ctx, s, saved.flags, ctx == packed.get() ? saved.packed : saved.f16); }),
          "a checkpoint is refused");
    check(remove(s, saved.pos + 1, -1), "a sequence cannot be cut to its checkpoint");
    saved.pos = -1;
    n_checkpoints++;
}

// the state of a sequence, saved and loaded
void twin_memories::reload(int s) {
    for (auto * ctx : { packed.get(), f16.get() }) {
        check(restore(ctx, false, s, save(ctx, false, s)), "a state was refused");
    }
    n_reloads++;
}

// Move the tokens from a position on, over a gap or into the place of some that are removed. Decode at once: a state that upstream saves before
// its keys are turned forgets that.
void twin_memories::shift(int s) {
    const int n    = 1 + rng() % 100;
    const int p0   = rng() % end(s);
    const int back = p0 + n < end(s) && rng() % 2 ? n : 0;
    if (back > 0 && !remove(s, p0, p0 + n)) {
        n_refused++;
        return;
    }
    on_both("seq_add", [&](llama_context * ctx) {
        llama_memory_seq_add(llama_get_memory(ctx), s, p0 + back, -1, back > 0 ? -n : n);
        return true;
    });
    checkpoints[s].pos = -1;
    n_shifts++;
    decode_some({ s }, 40);
}

void twin_memories::copy(int s) {
    const int to = (s + 1) % n_seq;
    forget(to);
    on_both("seq_cp", [&](llama_context * ctx) {
        llama_memory_seq_cp(llama_get_memory(ctx), s, to, -1, -1);
        return true;
    });
    n_used[to] = n_used[s];
}

void twin_memories::keep(int s) {
    on_both("seq_keep", [&](llama_context * ctx) {
        llama_memory_seq_keep(llama_get_memory(ctx), s);
        return true;
    });
    // the attention part of other streams stays, as in upstream; the recurrent part does not
    for (int i = 0; i < n_seq; i++) {
        if (i != s) {
            forget(i);
        }
    }
}

void twin_memories::check_positions() {
    for (int s = 0; s < n_seq; s++) {
        const auto a = llama_get_memory(packed.get());
        const auto b = llama_get_memory(f16.get());
        check(llama_memory_seq_pos_min(a, s) == llama_memory_seq_pos_min(b, s) && llama_memory_seq_pos_max(a, s) == llama_memory_seq_pos_max(b, s),
              "positions of sequence " + std::to_string(s) + " differ");
    }
}

void twin_memories::step() {
    const int s    = rng() % n_seq;
    const int what = rng() % (option("shift", 0) ? 105 : 100);
    if (what < 45 || end(s) == 0) {
        decode_some({ s }, rng() % 4 ? 40 : 300);
    } else if (what < 60) {
        std::vector<int> all(n_seq);
        for (int i = 0; i < n_seq; i++) {
            all[i] = i;
        }
        decode_some(all, 40);
    } else if (what < 78) {
        roll_back(s);
    } else if (what < 84) {
        remove_middle(s);
    } else if (what < 92) {
        use_checkpoint(s);
    } else if (what < 95) {
        reload(s);
    } else if (what < 98 && n_seq > 1) {
        copy(s);
    } else if (what == 98) {
        keep(s);
    } else if (what == 99) {
        forget(s);
    } else if (what > 99) {
        shift(s);
    }
    check_positions();
}

static void scenario_random(llama_model * model, ggml_type k, ggml_type v) {
    twin_memories twins(model, k, v);
    while (twins.n_tokens < option("tokens", 15000)) {
        twins.step();
    }
    printf(
        "{\"tokens\": %d, \"rolled_back\": %d, \"refused\": %d, \"checkpoints\": %d, \"reloads\": %d, \"shifts\": %d, \"nmse\": %g, "
        "\"worst\": %g}\n",
        twins.n_tokens, twins.n_rolled_back, twins.n_refused, twins.n_checkpoints, twins.n_reloads, twins.n_shifts, twins.sum / twins.n_sums,
        twins.worst);
}

// a removal that the recurrent part refuses leaves the attention part as it was
static void scenario_refused_removal(llama_model * model, ggml_type k, ggml_type v) {
    auto ctx = new_context(model, k, v);
    check(!decode(ctx.get(), random_tokens(500, 1), 0).empty(), "decoding failed");
    const auto before = save(ctx.get(), true, 0);
    for (int p0 : { 100, 450, 499 - option("rs", 0) }) {
        check(!llama_memory_seq_rm(llama_get_memory(ctx.get()), 0, p0, -1), "a removal that the recurrent part cannot do");
        check(save(ctx.get(), true, 0) == before, "a removal that was refused changed the memory");
    }
    printf("{}\n");
}

// tokens that were taken back and decoded again give the logits that they gave before
static void scenario_rollback(llama_model * model, ggml_type k, ggml_type v) {
    auto       ctx    = new_context(model, k, v);
    const auto tokens = random_tokens(900, 2);
    const int  n_rs   = option("rs", 0);
    double     worst  = 0;
    check(!decode(ctx.get(), { tokens.begin(), tokens.begin() + 600 }, 0).empty(), "decoding failed");
    for (int pos = 600; pos + n_rs + 1 <= (int) tokens.size(); pos += n_rs + 1) {
        const int                      end = pos + n_rs + 1;
        const int                      n   = 1 + pos % n_rs;
        const std::vector<llama_token> part(tokens.begin() + pos, tokens.begin() + end);
        const logits                   first = decode(ctx.get(), part, pos, 0, true);
        check(llama_memory_seq_rm(llama_get_memory(ctx.get()), 0, end - n, -1), "tokens cannot be taken back");
        const logits again = decode(ctx.get(), { part.end() - n, part.end() }, end - n, 0, true);
        worst              = std::max(worst, nmse(again, logits(first.end() - again.size(), first.end())));
    }
    printf("{\"worst\": %g}\n", worst);
}

// a state of more sequences than the context has is refused by the recurrent part, and the attention part has not changed
static void scenario_foreign_state(llama_model * model, ggml_type k, ggml_type v) {
    auto ctx = new_context(model, k, v);
    check(!decode(ctx.get(), random_tokens(400, 3), 0).empty(), "decoding failed");
    const auto before = save(ctx.get(), true, 0);

    llama_context_params params = params_of(k, v);
    params.n_seq_max            = 2;
    context_ptr two(llama_init_from_model(model, params), llama_free);
    check(two && !decode(two.get(), random_tokens(300, 4), 0, 0).empty() && !decode(two.get(), random_tokens(300, 5), 0, 1).empty(),
          "decoding failed");
    check(!restore(ctx.get(), true, 0, save(two.get(), true, 0)), "a state of two sequences was taken by a context with one");
    check(save(ctx.get(), true, 0) == before, "a state that was refused changed the memory");
    printf("{}\n");
}

int main(int argc, char ** argv) {
    return run_scenario(argc, argv,
                        {
                            { "random",          scenario_random          },
                            { "refused-removal", scenario_refused_removal },
                            { "rollback",        scenario_rollback        },
                            { "foreign-state",   scenario_foreign_state   },
    });
}
