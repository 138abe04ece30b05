// States that are loaded by contexts with other settings than the one that saved them.

#pragma once

#include "kv_driver.h"

// the options whose names begin with to_ from here on
static void switch_options() {
    for (const auto & [name, value] : std::map<std::string, std::string>(options)) {
        if (name.rfind("to_", 0) == 0) {
            options[name.substr(3)] = value;
        }
    }
}

// tokens with holes: [n/4, n/4 + 90) and some more
static void decode_and_cut(llama_context * ctx, int seq_id) {
    const int n = option("n", 700);
    for (int pos = 0; pos < n; pos += 50) {
        check(!decode(ctx, random_tokens(50, pos), pos, seq_id).empty(), "decoding failed");
    }
    for (const auto & [p0, p1] : { std::make_pair(n / 4, n / 4 + 90), { n / 2, n / 2 + 3 }, { n - 20, n - 10 } }) {
        check(llama_memory_seq_rm(llama_get_memory(ctx), seq_id, p0, p1), "seq_rm refused");
    }
}

// the mean nmse of the logits of some tokens that follow
static double error_after(llama_context * ctx, int seq_id, const std::vector<logits> & reference) {
    double     sum = 0;
    const auto got = follow(ctx, random_tokens(reference.size(), 9), option("n", 700), seq_id);
    for (size_t i = 0; i < got.size(); i++) {
        sum += nmse(got[i], reference[i]);
    }
    return sum / got.size();
}

// A state is taken by a context with other settings, and what follows is as near that of f16 as in a context that had a setting all along; or it
// is refused.
static void scenario_convert(llama_model * model, ggml_type k, ggml_type v) {
    const int n      = option("n", 700);
    const int seq_id = option("seq", 0);
    auto      from   = new_context(model, k, v);
    auto      f16    = new_context(model, GGML_TYPE_F16, GGML_TYPE_F16);
    decode_and_cut(from.get(), seq_id);
    decode_and_cut(f16.get(), seq_id);
    const auto reference = follow(f16.get(), random_tokens(60, 9), n, seq_id);

    const std::vector<std::vector<uint8_t>> states = { save(from.get(), false, seq_id), save(from.get(), true, seq_id) };
    const double                            before = error_after(from.get(), seq_id, reference);
    switch_options();
    const int to_id = std::min(seq_id, option("seqs", 1) - 1);
    for (bool whole : { false, true }) {
        auto to = new_context(model, k, v);
        log_errors.clear();
        if (!restore(to.get(), whole, to_id, states[whole])) {
            printf("{\"whole\": %d, \"refused\": \"%s\"}\n", whole, log_errors.substr(0, log_errors.find('\n')).c_str());
            continue;
        }
        const auto memory = llama_get_memory(to.get());
        check(llama_memory_seq_pos_min(memory, to_id) == 0 && llama_memory_seq_pos_max(memory, to_id) == n - 1, "positions");
        const double error = error_after(to.get(), to_id, reference);
        const auto   again = save(to.get(), whole, to_id);
        check(restore(to.get(), whole, to_id, again) && save(to.get(), whole, to_id) == again, "a converted state cannot be saved and loaded");
        auto native = new_context(model, k, v);
        decode_and_cut(native.get(), to_id);
        printf("{\"whole\": %d, \"nmse\": %g, \"before\": %g, \"native\": %g}\n", whole, error, before,
               error_after(native.get(), to_id, reference));
    }
}
