#include "row.h"

#include "clock.h"

#include "llama-qlutattn-sampling.h"
#include "llama.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <memory>

namespace {

// Seconds that this thread has computed for: what other programs do at the same time does not count.
double computed() {
#ifdef CLOCK_THREAD_CPUTIME_ID
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
#else
    return now();
#endif
}

using sampler_ptr = std::shared_ptr<llama_sampler>;

sampler_ptr make_chain(const std::string & name) {
    constexpr uint32_t SEED = 1;
    sampler_ptr        chain(llama_sampler_chain_init(llama_sampler_chain_default_params()), llama_sampler_free);
    const auto         add = [&](llama_sampler * sampler) {
        llama_sampler_chain_add(chain.get(), sampler);
    };
    if (name == "greedy") {
        add(llama_sampler_init_greedy());
        return chain;
    }
    const bool is_default = name == "default";
    if (is_default || name == "top-k") {
        add(llama_sampler_init_top_k(40));
    }
    if (is_default || name == "top-p") {
        add(llama_sampler_init_top_p(0.95f, 0));
    }
    if (is_default || name == "min-p") {
        add(llama_sampler_init_min_p(0.05f, 0));
    }
    if (is_default) {
        add(llama_sampler_init_temp(0.8f));
    }
    add(llama_sampler_init_dist(SEED));
    return chain;
}

// A side: its chain, and the array that it works in.
struct side {
    const bool                    is_stock;
    sampler_ptr                   chain;
    std::vector<llama_token_data> array;
    llama_token_data_array        kept = {};

    // as llama_sampler_sample() does
    llama_token draw(const logits_row & logits) {
        kept                  = { array.data(), 0, -1, false };
        const int32_t n_vocab = (int32_t) logits.size();
        if (!llama_qlutattn_sampler_draw_row(chain.get(), logits.data(), n_vocab, nullptr, &kept) &&
            !llama_qlutattn_sampler_apply_row(chain.get(), logits.data(), n_vocab, &kept)) {
            for (size_t i = 0; i < logits.size(); ++i) {
                array[i] = { (llama_token) i, logits[i], 0.0f };
            }
            kept = { array.data(), array.size(), -1, false };
            llama_sampler_apply(chain.get(), &kept);
        }
        return kept.data[kept.selected].id;
    }
};

} // namespace

const std::vector<std::string> & known_chains() {
    static const std::vector<std::string> names = { "greedy", "top-k", "default", "top-p", "min-p" };
    return names;
}

void measure_row(sampling_row & row, const std::vector<logits_row> & logits, const sampling_params & params) {
    const bool was_stock = llama_qlutattn_get_samplers_stock();
    side       sides[2]  = {
        { true,  make_chain(row.chain), {}, {} },
        { false, make_chain(row.chain), {}, {} }
    };
    for (side & s : sides) {
        s.array.resize(row.n_vocab);
    }
    logits_row   output(row.n_vocab);
    const double start = now();
    for (int round = 0; round < params.min_rounds || now() - start < params.seconds; ++round) {
        for (const logits_row & source : logits) {
            llama_token tokens[2];
            for (int i = 0; i < 2; ++i) {
                llama_qlutattn_set_samplers_stock(sides[i].is_stock);
                std::copy(source.begin(), source.end(), output.begin());
                const double before = computed();
                tokens[i]           = sides[i].draw(output);
                if (round > 0) { // the first warms up
                    (i == 0 ? row.stock : row.select).push_back(computed() - before);
                }
            }
            row.n_tokens += 1;
            row.n_different += tokens[0] != tokens[1];
        }
    }
    row.kept = sides[0].kept.size;
    llama_qlutattn_set_samplers_stock(was_stock);
}

double quantile(std::vector<double> values, double at) {
    if (values.empty()) {
        return NAN;
    }
    std::sort(values.begin(), values.end());
    const double place = at * (values.size() - 1);
    const size_t below = (size_t) place;
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (values[above] - values[below]) * (place - below);
}
