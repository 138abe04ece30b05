// Sampler chains on rows of logits beside llama.cpp's own code: draws, candidates, what is written, kernels.
//
//   sampling draws COUNT SEED [FILE]   random chains over random rows; FILE: rows recorded by bench_sampling
//   sampling written                   how many candidates a chain writes
//   sampling chi                       draws against their exact distribution
//
// Prints JSON objects, one per line.

#include "logits_kinds.h"

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

void add_min_p(recipe & r, generator & random) {
    const float p = one_of(random, { 0.01f, 0.05f, 0.3f });
    const int   m = one_of(random, { 0, 1, 3 });
    r.add("min-p=" + text(p) + "/" + std::to_string(m), [=] { return llama_sampler_init_min_p(p, m); });
}

void add_filter(recipe & r, generator & random, int n_vocab, bool has_nan) {
    switch (has_nan ? one_of(random, { 0, 1, 2, 3, 4 }) : below(random, 12)) {
        case 0:
            {
                const int k = one_of(random, { 1, 5, 40, 40, 128 });
                r.add("top-k=" + std::to_string(k), [=] { return llama_sampler_init_top_k(k); });
                break;
            }
        case 1:
            add_min_p(r, random);
            break;
        case 2:
            {
                const float t = one_of(random, { 0.3f, 0.8f, 1.0f, 1.7f });
                r.add("temp=" + text(t), [=] { return llama_sampler_init_temp_ext(t, 0.0f, 1.0f); });
                break;
            }
        case 3:
            {
                const std::vector<llama_logit_bias> biases = {
                    { below(random, n_vocab), 3.5f      },
                    { below(random, n_vocab), -INFINITY },
                    { below(random, n_vocab), 0.0f      }
                };
                r.add("bias", [=] { return llama_sampler_init_logit_bias(n_vocab, (int) biases.size(), biases.data()); });
                break;
            }
        case 4:
            {
                const int n = one_of(random, { 4, 64 });
                r.add("penalties", [=] { return llama_sampler_init_penalties(n_vocab, n, 1.3f, 0.2f, 0.1f); });
                break;
            }
        case 5:
            {
                const float p = one_of(random, { 0.1f, 0.5f, 0.9f, 0.95f, 0.999f });
                const int   m = one_of(random, { 0, 1, 7 });
                r.add("top-p=" + text(p) + "/" + std::to_string(m), [=] { return llama_sampler_init_top_p(p, m); });
                break;
            }
        case 6:
            r.add("dry", [] {
                return llama_sampler_init_dry_testing(0.8f, 1.75f, 1, 64,
                                                      {
                                                          { 1 },
                                                          { 2, 3 }
                });
            });
            break;
        case 7:
            {
                const float s = one_of(random, { 0.5f, 1.0f, 2.0f });
                r.add("top-n-sigma=" + text(s), [=] { return llama_sampler_init_top_n_sigma(s); });
                break;
            }
        case 8:
            {
                const int k = one_of(random, { 129, 200, 1000 });
                r.add("top-k=" + std::to_string(k), [=] { return llama_sampler_init_top_k(k); });
                break;
            }
        case 9:
            r.add("xtc", [] { return llama_sampler_init_xtc(0.5f, 0.1f, 1, 7); });
            break;
        case 10:
            r.add("typical", [] { return llama_sampler_init_typical(0.9f, 1); });
            break;
        case 11:
            r.add("dynatemp", [] { return llama_sampler_init_temp_ext(0.8f, 0.3f, 1.0f); });
            break;
    }
}

// Chains that draw without an array, of what is at the limits of their filters.
recipe make_drawing(generator & random, int n_vocab) {
    recipe         r;
    const uint32_t seed = random();
    const float    p    = one_of(random, { 0.0f, 1e-9f, 0.5f, 0.95f, 0.999f, 0.999999f, 1.0f, 1.5f });
    const int      m    = one_of(random, { 0, 0, 1, 7, 300, 5000 });
    const float    t    = one_of(random, { 1e-3f, 0.8f, 1.7f, 100.0f });
    const int      k    = one_of(random, { 0, 1, 300, 100000 });
    if (below(random, 3) == 0) {
        r.add("temp=" + text(t), [=] { return llama_sampler_init_temp(t); });
    }
    const int which = below(random, 5);
    if (which > 1) {
        r.add("top-p=" + text(p) + "/" + std::to_string(m), [=] { return llama_sampler_init_top_p(p, m); });
    } else if (which == 1) {
        r.add("min-p=" + text(p) + "/" + std::to_string(m), [=] { return llama_sampler_init_min_p(p, m); });
    }
    for (int i = below(random, 3); i > 0; --i) {
        switch (below(random, which > 1 ? 4 : 2)) {
            case 2:
                r.add("top-k=" + std::to_string(k), [=] { return llama_sampler_init_top_k(k); });
                break;
            case 3:
                add_min_p(r, random);
                break;
            default:
                r.add("temp=" + text(t), [=] { return llama_sampler_init_temp_ext(t, 0.0f, 1.0f); });
        }
    }
    if (below(random, 4) == 0) {
        r.add("off", [=] { return llama_sampler_init_penalties(n_vocab, 0, 1.0f, 0.0f, 0.0f); });
    }
    r.add("dist", [=] { return llama_sampler_init_dist(seed); });
    return r;
}

recipe make_recipe(generator & random, int n_vocab, bool has_nan) {
    if (!has_nan && below(random, 3) == 0) {
        return make_drawing(random, n_vocab);
    }
    recipe         r;
    const uint32_t seed = random();
    const int      n    = below(random, 5);
    for (int i = 0; i < n; ++i) {
        add_filter(r, random, n_vocab, has_nan);
    }
    switch (has_nan ? below(random, 2) : below(random, 8)) {
        case 0:
            r.add("greedy", [] { return llama_sampler_init_greedy(); });
            break;
        case 6:
            r.add("mirostat", [=] { return llama_sampler_init_mirostat(n_vocab, seed, 5.0f, 0.1f, 100); });
            break;
        case 7:
            r.add("mirostat-v2", [=] { return llama_sampler_init_mirostat_v2(seed, 5.0f, 0.1f); });
            break;
        case 5:
            r.add("adaptive-p", [=] { return llama_sampler_init_adaptive_p(0.5f, 0.9f, seed); });
            break;
        default:
            r.add("dist", [=] { return llama_sampler_init_dist(seed); });
            break;
    }
    return r;
}

// one side of a comparison

struct result {
    std::vector<llama_token_data> buffer;
    std::vector<float>            changed;
    llama_token_data_array        kept     = {};
    bool                          in_row   = false;
    bool                          is_drawn = false; // without an array

    llama_token token() const { return kept.data[kept.selected].id; }
};

enum class way { stock, array, row, draw };

void write_all(const row & logits, result & r) {
    for (size_t i = 0; i < logits.size(); ++i) {
        r.buffer[i] = { (llama_token) i, logits[i], 0.0f };
    }
    r.kept = { r.buffer.data(), logits.size(), -1, false };
}

void sample(llama_sampler * chain, const row & logits, way how, result & r) {
    llama_qlutattn_set_samplers_stock(how == way::stock);
    const int32_t n_vocab = (int32_t) logits.size();
    r.buffer.resize(n_vocab);
    r.changed.resize(n_vocab);
    r.kept = { r.buffer.data(), 0, -1, false };
    if (how == way::draw) {
        const float * seen = llama_qlutattn_sampler_draw_row(chain, logits.data(), n_vocab, r.changed.data(), &r.kept);
        r.is_drawn         = seen != nullptr;
        if (r.is_drawn) {
            const llama_token token = r.token();
            llama_qlutattn_sampler_write_candidates(chain, seen, n_vocab, &r.kept);
            r.is_drawn = r.kept.selected < (int32_t) r.kept.size && r.token() == token;
            return;
        }
    }
    r.in_row = how == way::row && llama_qlutattn_sampler_apply_row(chain, logits.data(), n_vocab, &r.kept);
    if (!r.in_row) {
        write_all(logits, r);
        llama_sampler_apply(chain, &r.kept);
    }
}

bool same_bits(float a, float b) {
    return memcmp(&a, &b, sizeof(a)) == 0 || (a != a && b != b);
}

// As many candidates, with the same logits and probabilities in the same places; tokens with equal logits may have changed places.
bool same_but_for_ties(const result & a, const result & b) {
    if (a.kept.size != b.kept.size || a.kept.selected != b.kept.selected || a.kept.sorted != b.kept.sorted) {
        return false;
    }
    for (size_t i = 0; i < a.kept.size; ++i) {
        const llama_token_data &x = a.kept.data[i], &y = b.kept.data[i];
        if (!same_bits(x.logit, y.logit) || !same_bits(x.p, y.p)) {
            return false;
        }
    }
    return true;
}

bool same_tokens(const result & a, const result & b) {
    return std::equal(a.kept.data, a.kept.data + a.kept.size, b.kept.data, [](const auto & x, const auto & y) { return x.id == y.id; });
}

struct totals {
    long draws = 0, in_row = 0, drawn = 0, other_tokens = 0, other_candidates = 0, other_ties = 0;
};

// Draws a few tokens with one chain, each way, over rows that change a little.
void compare(const recipe & r, row logits, const char * kind, generator & random, totals & t) {
    const way                    ways[]  = { way::stock, way::array, way::row, way::draw };
    const char *                 names[] = { "stock", "array", "row", "draw" };
    constexpr int                N_WAYS  = 4;
    std::vector<llama_sampler *> chains;
    std::vector<result>          results(N_WAYS);
    for (int i = 0; i < N_WAYS; ++i) {
        chains.push_back(r.make());
    }
    for (int step = 0; step < 4; ++step) {
        for (int i = 0; i < N_WAYS; ++i) {
            sample(chains[i], logits, ways[i], results[i]);
        }
        t.draws += N_WAYS - 1;
        t.in_row += results[2].in_row;
        t.drawn += results[3].is_drawn;
        for (int i = 1; i < N_WAYS; ++i) {
            const bool is_greedy = results[i].in_row && r.name.find("greedy") != std::string::npos;
            const bool token     = results[i].token() == results[0].token();
            const bool alike     = is_greedy || same_but_for_ties(results[i], results[0]);
            const bool tied      = alike && !is_greedy && !same_tokens(results[i], results[0]);
            const bool rest      = alike && !(tied && !results[i].in_row); // ties may change places in a row only
            t.other_tokens += !token;
            t.other_candidates += !rest;
            t.other_ties += tied && rest;
            if (!token || !rest) {
                fprintf(stderr, "%s, %zu tokens, %s, %s: %s\n", kind, logits.size(), r.name.c_str(), names[i],
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
    generator                   random(seed);
    const std::vector<kind>     all      = kinds();
    const std::vector<row>      recorded = file ? read_rows(file) : std::vector<row>();
    std::map<std::string, long> by_kind;
    totals                      t;
    while (t.draws < count) {
        const int   which = below(random, (int) all.size() + (recorded.empty() ? 0 : 4));
        row         logits;
        bool        has_nan = false;
        std::string name    = "recorded";
        if (which < (int) all.size()) {
            const int n_vocab = below(random, 20) ? one_of(random, { 1, 2, 31, 128, 129, 1024, 1025, 1500, 4096, 5000, 9973 }) :
                                                    one_of(random, { 32000, 128256, 151936, 262144 });
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
    printf(
        "{\"kernel\":\"%s\",\"draws\":%ld,\"in_row\":%ld,\"drawn\":%ld,\"other_tokens\":%ld,\"other_candidates\":%ld,\"other_ties\":%ld,\"kinds\":%zu}\n",
        ggml_select_kernel(), t.draws, t.in_row, t.drawn, t.other_tokens, t.other_candidates, t.other_ties, by_kind.size());
    return 0;
}

// what a chain writes

int written() {
    constexpr int     N_VOCAB = 151936;
    generator         random(3);
    row               logits(N_VOCAB);
    const std::string names[] = {
        "greedy", "top-k", "top-p", "min-p", "penalties, top-k", "top-n-sigma, top-k", "dist", "temperature, dist", "temperature, top-p"
    };
    const llama_token_data unwritten = { -7, 0.0f, 0.0f };
    fill_gauss(logits, random, 0, 2);
    logits[77] = 20;
    for (const std::string & name : names) {
        recipe r;
        if (name.find("penalties") == 0) {
            r.add("", [] { return llama_sampler_init_penalties(N_VOCAB, 64, 1.3f, 0.2f, 0.1f); });
        }
        if (name.find("top-n-sigma") == 0) {
            r.add("", [] { return llama_sampler_init_top_n_sigma(1.0f); });
        }
        if (name.find("top-k") != std::string::npos) {
            r.add("", [] { return llama_sampler_init_top_k(40); });
        }
        if (name.find("temperature") == 0) {
            r.add("", [] { return llama_sampler_init_temp(0.9f); });
        }
        if (name.find("top-p") != std::string::npos || name == "min-p") {
            r.add("", [=] { return name != "min-p" ? llama_sampler_init_top_p(0.95f, 0) : llama_sampler_init_min_p(0.05f, 0); });
        }
        r.add("", [=] { return name == "greedy" ? llama_sampler_init_greedy() : llama_sampler_init_dist(1); });

        llama_sampler * chain = r.make();
        llama_sampler_accept(chain, 77);
        std::vector<llama_token_data> buffer(N_VOCAB, unwritten);
        llama_token_data_array        kept      = { buffer.data(), 0, -1, false };
        const auto                    n_written = [&] {
            return (long) std::count_if(buffer.begin(), buffer.end(), [](const auto & c) { return c.id != -7; });
        };
        const bool   in_row   = llama_qlutattn_sampler_apply_row(chain, logits.data(), N_VOCAB, &kept);
        const long   in_array = n_written();
        const size_t n_kept   = kept.size;
        std::fill(buffer.begin(), buffer.end(), unwritten);
        const bool drawn = llama_qlutattn_sampler_draw_row(chain, logits.data(), N_VOCAB, nullptr, &kept) != nullptr;
        printf("{\"chain\":\"%s\",\"in_row\":%s,\"written\":%ld,\"kept\":%zu,\"drawn\":%s,\"written_to_draw\":%ld}\n", name.c_str(),
               in_row ? "true" : "false", in_array, n_kept, drawn ? "true" : "false", n_written());
        llama_sampler_free(chain);
    }
    return 0;
}

// draws against the distribution that they are from, computed in double from the definition of each filter

std::vector<double> exact(const row & logits, const std::string & filter, double temp) {
    std::vector<int> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i) {
        order[i] = (int) i;
    }
    std::sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    double total = 0;
    for (float logit : logits) {
        total += std::exp((double) logit);
    }
    std::vector<double> p(logits.size());
    double              cumulated = 0, sum = 0;
    for (size_t i = 0; i < order.size(); ++i) {
        const double logit = logits[order[i]];
        if ((filter == "top-k" && i >= 40) || (filter == "top-p" && cumulated >= 0.95) ||
            (filter == "min-p" && logit < logits[order[0]] + std::log(0.05))) {
            break;
        }
        cumulated += std::exp(logit) / total;
        p[order[i]] = std::exp((logit - logits[order[0]]) / temp);
        sum += p[order[i]];
    }
    for (double & probability : p) {
        probability /= sum;
    }
    return p;
}

int chi() {
    constexpr int   N_VOCAB = 4096, N_DRAWS = 60000;
    constexpr float TEMP = 0.8f;
    generator       random(5);
    row             logits(N_VOCAB);
    fill_gauss(logits, random, 0, 2);
    const std::pair<const char *, way> cases[] = {
        { "top-k", way::row  },
        { "top-p", way::row  },
        { "min-p", way::row  },
        { "top-p", way::draw },
        { "min-p", way::draw },
        { "none",  way::draw }
    };
    for (const auto & [filter, how] : cases) {
        const std::string name = filter;
        recipe            r;
        if (name != "none") {
            r.add("", [=] {
                return name == "top-k" ? llama_sampler_init_top_k(40) :
                       name == "top-p" ? llama_sampler_init_top_p(0.95f, 0) :
                                         llama_sampler_init_min_p(0.05f, 0);
            });
        }
        r.add("", [] { return llama_sampler_init_temp(TEMP); });
        r.add("", [] { return llama_sampler_init_dist(11); });
        llama_sampler *        chain = r.make();
        std::vector<long>      counts(N_VOCAB);
        result                 drawn;
        llama_token_data       one;
        llama_token_data_array alone = { &one, 0, -1, false };
        for (int i = 0; i < N_DRAWS; ++i) {
            if (how == way::row) {
                sample(chain, logits, way::row, drawn);
            } else {
                drawn.is_drawn = llama_qlutattn_sampler_draw_row(chain, logits.data(), N_VOCAB, nullptr, &alone) != nullptr;
            }
            counts[how == way::row ? drawn.token() : one.id]++;
        }
        llama_sampler_free(chain);
        const std::vector<double> p    = exact(logits, name, TEMP);
        double                    chi2 = 0, rare = 0;
        long                      cells = 0, rare_count = 0, impossible = 0;
        for (int i = 0; i < N_VOCAB; ++i) {
            const double expected = p[i] * N_DRAWS;
            if (expected == 0) {
                impossible += counts[i];
            } else if (expected < 10) {
                rare += expected;
                rare_count += counts[i];
            } else {
                chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
                cells++;
            }
        }
        if (rare > 0) {
            chi2 += (rare_count - rare) * (rare_count - rare) / rare;
            cells++;
        }
        printf("{\"filter\":\"%s\",\"in_row\":%s,\"drawn\":%s,\"chi2\":%g,\"cells\":%ld,\"impossible\":%ld}\n", filter,
               drawn.in_row ? "true" : "false", drawn.is_drawn ? "true" : "false", chi2, cells, impossible);
    }
    return 0;
}

} // namespace

int main(int argc, char ** argv) {
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "draws" && argc >= 4) {
        return draws(atol(argv[2]), (uint32_t) atol(argv[3]), argc > 4 ? argv[4] : nullptr);
    }
    const std::map<std::string, int (*)()> others = {
        { "written", written },
        { "chi",     chi     }
    };
    if (others.count(what)) {
        return others.at(what)();
    }
    fprintf(stderr, "sampling draws COUNT SEED [FILE], written or chi\n");
    return 2;
}
