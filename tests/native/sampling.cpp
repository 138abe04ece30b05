// Sampler chains on rows of logits beside llama.cpp's own code: draws, candidates, what is written, kernels.
//
//   sampling draws COUNT SEED [FILE]   random chains over random rows; FILE: rows recorded by bench_sampling
//   sampling written                   how many candidates a chain writes
//   sampling chi                       draws against their exact distribution
//   sampling kernels                   each kernel of ggml-select.h against plain loops
//   sampling exp                       every float from -150 to 0 through each kernel's exp
//
// Prints JSON objects, one per line.

#include "ggml-select.h"
#include "llama-qlutattn-sampling.h"
#include "llama.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

// llama-sampler.h, for upstream's own tests
struct llama_sampler * llama_sampler_init_dry_testing(float multiplier, float base, int32_t allowed_length, int32_t last_n,
                                                      const std::vector<std::vector<llama_token>> & breakers);

namespace {

using row = std::vector<float>;
using generator = std::mt19937;

int below(generator & random, int n) {
    return (int) (random() % (uint32_t) n);
}

template <typename T> T one_of(generator & random, std::initializer_list<T> items) {
    return *(items.begin() + below(random, (int) items.size()));
}

// rows of logits

struct kind {
    const char * name;
    bool         has_nan; // upstream's full sorts run past the array's ends with NaN: not asked of it
    std::function<void(row &, generator &)> fill;
};

void fill_gauss(row & x, generator & random, float mean, float deviation) {
    std::normal_distribution<float> normal(mean, deviation);
    for (float & v : x) {
        v = normal(random);
    }
}

void put(row & x, generator & random, float value, int count) {
    for (int i = 0; i < count; ++i) {
        x[below(random, (int) x.size())] = value;
    }
}

std::vector<kind> kinds() {
    const auto gauss = [](float mean, float deviation) {
        return [=](row & x, generator & random) { fill_gauss(x, random, mean, deviation); };
    };
    const auto rounded = [](float deviation, float step) {
        return [=](row & x, generator & random) {
            fill_gauss(x, random, 0, deviation);
            for (float & v : x) {
                v = std::round(v / step) * step;
            }
        };
    };
    const auto with = [](float value, int per_mille) {
        return [=](row & x, generator & random) {
            fill_gauss(x, random, 0, 3);
            put(x, random, value, 1 + (int) x.size() * per_mille / 1000);
        };
    };
    return {
        { "gauss-3", false, gauss(0, 3) },
        { "gauss-1", false, gauss(0, 1) },
        { "gauss-low", false, gauss(-15, 2) },
        { "gauss-high", false, gauss(30, 3) },
        { "flat", false, gauss(0.3f, 0.001f) },
        { "peaked", false, [](row & x, generator & random) {
             fill_gauss(x, random, 0, 2);
             for (int i = 0; i < 30; ++i) {
                 put(x, random, 8 + 0.5f * i, 1);
             }
         } },
        { "ties", false, rounded(3, 0.125f) },
        { "many-ties", false, rounded(2, 1) },
        { "constant", false, gauss(1.5f, 0) },
        { "wide", false, gauss(0, 5000) },
        { "two-values", false, [](row & x, generator & random) {
             for (float & v : x) {
                 v = below(random, 2) ? 1e4f : -1e4f;
             }
         } },
        { "zeros", false, [](row & x, generator & random) {
             for (float & v : x) {
                 v = one_of(random, { 0.0f, -0.0f, 1e-40f, -1e-40f });
             }
         } },
        { "rising", false, [](row & x, generator & random) { fill_gauss(x, random, 0, 3); std::sort(x.begin(), x.end()); } },
        { "falling", false, [](row & x, generator & random) { fill_gauss(x, random, 0, 3); std::sort(x.rbegin(), x.rend()); } },
        { "masked", false, with(-INFINITY, 2000) },
        { "all-masked", false, [](row & x, generator &) { std::fill(x.begin(), x.end(), -INFINITY); } },
        { "some-infinite", true, with(INFINITY, 1) },
        { "some-nan", true, with(NAN, 10) },
        { "nan-first", true, [](row & x, generator & random) { fill_gauss(x, random, 0, 3); x[0] = NAN; } },
    };
}

// Rows of bench_sampling --record: the vocabulary's size as int32, then rows of float32.
std::vector<row> read_rows(const char * path) {
    std::vector<row> rows;
    std::ifstream    file(path, std::ios::binary);
    int32_t          n = 0;
    file.read((char *) &n, sizeof(n));
    for (row x(n > 0 ? n : 0); n > 0 && file.read((char *) x.data(), n * sizeof(float));) {
        rows.push_back(x);
    }
    return rows;
}

// chains

struct chain {
    llama_sampler * sampler;
    std::string     name;
};

using maker = std::function<llama_sampler *()>;

struct recipe {
    std::vector<maker> makers;
    std::string        name;

    void add(const std::string & part, maker make) {
        name += (name.empty() ? "" : " ") + part;
        makers.push_back(std::move(make));
    }

    llama_sampler * make() const {
        llama_sampler * made = llama_sampler_chain_init(llama_sampler_chain_default_params());
        for (const maker & make : makers) {
            llama_sampler_chain_add(made, make());
        }
        return made;
    }
};

std::string text(float x) {
    char buffer[32];
    snprintf(buffer, sizeof(buffer), "%g", x);
    return buffer;
}

void add_filter(recipe & r, generator & random, int n_vocab, bool has_nan) {
    switch (has_nan ? one_of(random, { 0, 1, 2, 3, 4 }) : below(random, 12)) {
        case 0: { const int k = one_of(random, { 1, 5, 40, 40, 128 }); r.add("top-k=" + std::to_string(k), [=] { return llama_sampler_init_top_k(k); }); break; }
        case 1: { const float p = one_of(random, { 0.01f, 0.05f, 0.3f }); const int m = one_of(random, { 0, 1, 3 }); r.add("min-p=" + text(p) + "/" + std::to_string(m), [=] { return llama_sampler_init_min_p(p, m); }); break; }
        case 2: { const float t = one_of(random, { 0.3f, 0.8f, 1.0f, 1.7f }); r.add("temp=" + text(t), [=] { return llama_sampler_init_temp_ext(t, 0.0f, 1.0f); }); break; }
        case 3: { const std::vector<llama_logit_bias> biases = { { below(random, n_vocab), 3.5f }, { below(random, n_vocab), -INFINITY }, { below(random, n_vocab), 0.0f } };
                  r.add("bias", [=] { return llama_sampler_init_logit_bias(n_vocab, (int) biases.size(), biases.data()); }); break; }
        case 4: { const int n = one_of(random, { 4, 64 }); r.add("penalties", [=] { return llama_sampler_init_penalties(n_vocab, n, 1.3f, 0.2f, 0.1f); }); break; }
        case 5: { const float p = one_of(random, { 0.1f, 0.5f, 0.9f, 0.95f, 0.999f }); const int m = one_of(random, { 0, 1, 7 }); r.add("top-p=" + text(p) + "/" + std::to_string(m), [=] { return llama_sampler_init_top_p(p, m); }); break; }
        case 6: r.add("dry", [] { return llama_sampler_init_dry_testing(0.8f, 1.75f, 1, 64, { { 1 }, { 2, 3 } }); }); break;
        case 7: { const float s = one_of(random, { 0.5f, 1.0f, 2.0f }); r.add("top-n-sigma=" + text(s), [=] { return llama_sampler_init_top_n_sigma(s); }); break; }
        case 8: { const int k = one_of(random, { 129, 200, 1000 }); r.add("top-k=" + std::to_string(k), [=] { return llama_sampler_init_top_k(k); }); break; }
        case 9: r.add("xtc", [] { return llama_sampler_init_xtc(0.5f, 0.1f, 1, 7); }); break;
        case 10: r.add("typical", [] { return llama_sampler_init_typical(0.9f, 1); }); break;
        case 11: r.add("dynatemp", [] { return llama_sampler_init_temp_ext(0.8f, 0.3f, 1.0f); }); break;
    }
}

recipe make_recipe(generator & random, int n_vocab, bool has_nan) {
    recipe         r;
    const uint32_t seed = random();
    const int      n    = below(random, 5);
    for (int i = 0; i < n; ++i) {
        add_filter(r, random, n_vocab, has_nan);
    }
    switch (has_nan ? below(random, 2) : below(random, 8)) {
        case 0:  r.add("greedy", [] { return llama_sampler_init_greedy(); }); break;
        case 6:  r.add("mirostat", [=] { return llama_sampler_init_mirostat(n_vocab, seed, 5.0f, 0.1f, 100); }); break;
        case 7:  r.add("mirostat-v2", [=] { return llama_sampler_init_mirostat_v2(seed, 5.0f, 0.1f); }); break;
        case 5:  r.add("adaptive-p", [=] { return llama_sampler_init_adaptive_p(0.5f, 0.9f, seed); }); break;
        default: r.add("dist", [=] { return llama_sampler_init_dist(seed); }); break;
    }
    return r;
}

// one side of a comparison

struct result {
    std::vector<llama_token_data> buffer;
    llama_token_data_array        kept  = {};
    bool                          in_row = false;

    llama_token token() const { return kept.data[kept.selected].id; }
};

enum class way { stock, array, row };

void sample(llama_sampler * chain, const row & logits, way how, result & r) {
    llama_qlutattn_set_samplers_stock(how == way::stock);
    r.buffer.resize(logits.size());
    r.kept   = { r.buffer.data(), 0, -1, false };
    r.in_row = how == way::row && llama_qlutattn_sampler_apply_row(chain, logits.data(), (int32_t) logits.size(), &r.kept);
    if (!r.in_row) {
        for (size_t i = 0; i < logits.size(); ++i) {
            r.buffer[i] = { (llama_token) i, logits[i], 0.0f };
        }
        r.kept = { r.buffer.data(), logits.size(), -1, false };
        llama_sampler_apply(chain, &r.kept);
    }
}

bool same_bits(float a, float b) {
    return memcmp(&a, &b, sizeof(a)) == 0 || (a != a && b != b);
}

bool same_candidates(const result & a, const result & b) {
    if (a.kept.size != b.kept.size || a.kept.selected != b.kept.selected || a.kept.sorted != b.kept.sorted) {
        return false;
    }
    for (size_t i = 0; i < a.kept.size; ++i) {
        const llama_token_data &x = a.kept.data[i], &y = b.kept.data[i];
        if (x.id != y.id || !same_bits(x.logit, y.logit) || !same_bits(x.p, y.p)) {
            return false;
        }
    }
    return true;
}

struct totals {
    long draws = 0, in_row = 0, other_tokens = 0, other_candidates = 0;
};

// Draws a few tokens with one chain, each way, over rows that change a little.
void compare(const recipe & r, row logits, const char * kind, generator & random, totals & t) {
    const way                      ways[] = { way::stock, way::array, way::row };
    std::vector<llama_sampler *>   chains;
    std::vector<result>            results(3);
    for (int i = 0; i < 3; ++i) {
        chains.push_back(r.make());
    }
    for (int step = 0; step < 4; ++step) {
        for (int i = 0; i < 3; ++i) {
            sample(chains[i], logits, ways[i], results[i]);
        }
        t.draws += 2;
        t.in_row += results[2].in_row;
        for (int i = 1; i < 3; ++i) {
            const bool is_greedy = results[i].in_row && r.name.find("greedy") != std::string::npos;
            const bool token     = results[i].token() == results[0].token();
            const bool rest      = is_greedy || same_candidates(results[i], results[0]);
            t.other_tokens += !token;
            t.other_candidates += !rest;
            if (!token || !rest) {
                fprintf(stderr, "%s, %zu tokens, %s, %s: %s\n", kind, logits.size(), r.name.c_str(), i == 1 ? "array" : "row",
                        token ? "other candidates" : "another token");
            }
        }
        const llama_token token = results[0].token();
        for (llama_sampler * chain : chains) {
            llama_sampler_accept(chain, token);
        }
        std::swap(logits[below(random, (int) logits.size())], logits[below(random, (int) logits.size())]);
    }
    for (llama_sampler * chain : chains) {
        llama_sampler_free(chain);
    }
}

int draws(long count, uint32_t seed, const char * file) {
    generator              random(seed);
    const std::vector<kind> all      = kinds();
    const std::vector<row>  recorded = file ? read_rows(file) : std::vector<row>();
    std::map<std::string, long> by_kind;
    totals                 t;
    while (t.draws < count) {
        const int which = below(random, (int) all.size() + (recorded.empty() ? 0 : 4));
        row       logits;
        bool      has_nan = false;
        std::string name  = "recorded";
        if (which < (int) all.size()) {
            const int n_vocab = below(random, 20) ? one_of(random, { 1, 2, 31, 128, 129, 1024, 1025, 1500, 4096, 5000, 9973 })
                                                  : one_of(random, { 32000, 128256, 151936, 262144 });
            logits.resize(n_vocab);
            all[which].fill(logits, random);
            has_nan = all[which].has_nan;
            name    = all[which].name;
        } else {
            logits = recorded[below(random, (int) recorded.size())];
        }
        by_kind[name]++;
        compare(make_recipe(random, (int) logits.size(), has_nan), logits, name.c_str(), random, t);
    }
    printf("{\"kernel\":\"%s\",\"draws\":%ld,\"in_row\":%ld,\"other_tokens\":%ld,\"other_candidates\":%ld,\"kinds\":%zu}\n", ggml_select_kernel(), t.draws,
           t.in_row, t.other_tokens, t.other_candidates, by_kind.size());
    return 0;
}

} // namespace

int main(int argc, char ** argv) {
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "draws" && argc >= 4) {
        return draws(atol(argv[2]), (uint32_t) atol(argv[3]), argc > 4 ? argv[4] : nullptr);
    }
    fprintf(stderr, "sampling draws COUNT SEED [FILE]\n");
    return 2;
}
