// Tokens that are verified together, as a draft's are, against the same tokens decoded one by one. Prints a line of JSON per prompt.
//
//   kv_verify MODEL drafts K V [key=value ...]

#include "kv_driver.h"

// the tokens of a prompt: a part of a file, or random ones
static std::vector<llama_token> prompt(const llama_model * model, int i) {
    const int n = option("prompt", 700);
    if (!options.count("file")) {
        return random_tokens(n, i + 1, n_vocab(model));
    }
    const auto tokens = tokens_of_file(model, options["file"]);
    check(tokens.size() >= (size_t) (i + 1) * n, "the text is too short");
    return { tokens.begin() + i * n, tokens.begin() + (i + 1) * n };
}

// the logits after each of some tokens, which come with drafts that are wrong now and then: what is wrong is taken back
struct verification {
    llama_context *     ctx;
    std::mt19937        rng;
    int                 n_rejected = 0;
    std::vector<logits> after;

    // decode the next tokens; how many of them were drafted right
    int step(const std::vector<llama_token> & tokens, int first, int pos) {
        const int                most  = std::min<int>(option("draft", 8), tokens.size() - first - 1);
        std::vector<llama_token> batch = { tokens[first] };
        int                      right = 1;
        bool                     wrong = false;
        for (int i = 1, n = rng() % (most + 1); i <= n; i++) {
            wrong = wrong || (int) (rng() % 100) >= option("right", 85);
            right += !wrong;
            batch.push_back(wrong ? rng() % 100 : tokens[first + i]);
        }
        const logits all     = decode(ctx, batch, pos, 0, true);
        const int    n_vocab = all.size() / batch.size();
        check(!all.empty(), "decoding failed");
        for (int i = 0; i < right; i++) {
            after.emplace_back(all.begin() + i * n_vocab, all.begin() + (i + 1) * n_vocab);
        }
        n_rejected += batch.size() - right;
        check(llama_memory_seq_rm(llama_get_memory(ctx), 0, pos + right, -1), "seq_rm refused");
        return right;
    }
};

static void scenario_drafts(llama_model * model, ggml_type k, ggml_type v) {
    auto ctx = new_context(model, k, v);
    for (int i = 0; i < option("prompts", 24); i++) {
        const auto tokens = prompt(model, i);
        const auto start  = [&]() {
            llama_memory_clear(llama_get_memory(ctx.get()), true);
            return decode(ctx.get(), tokens, 0);
        };
        const auto   alone = generate(ctx.get(), start(), tokens.size(), 0, option("n", 256));
        verification v     = { ctx.get(), std::mt19937(i + 1), 0, {} };
        start();
        while (v.after.size() < alone.tokens.size()) {
            v.step(alone.tokens, v.after.size(), tokens.size() + v.after.size());
        }
        int    n_other = 0;
        double worst   = 0;
        double sum     = 0;
        for (size_t j = 0; j < alone.after.size(); j++) {
            n_other += best(alone.after[j]) != best(v.after[j]);
            const double err = nmse(v.after[j], alone.after[j]);
            worst            = std::max(worst, err);
            sum += err;
        }
        printf("{\"prompt\": %d, \"tokens\": %zu, \"rejected\": %d, \"other\": %d, \"nmse\": %g, \"worst\": %g}\n", i, alone.tokens.size(),
               v.n_rejected, n_other, sum / alone.after.size(), worst);
    }
}

int main(int argc, char ** argv) {
    return run_scenario(argc, argv,
                        {
                            { "drafts", scenario_drafts }
    });
}
