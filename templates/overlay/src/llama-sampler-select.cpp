#include "llama-sampler-select.h"

#include "ggml-select.h"
#include "llama-qlutattn-sampling.h"

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

constexpr int64_t MIN_CANDIDATES = 1024; // from more than these, selecting pays

// Working memory of a thread, kept from one token to the next.
struct scratch_memory {
    std::vector<float>            logits;
    std::vector<float>            values;
    std::vector<int32_t>          indices;
    std::vector<llama_token_data> chosen;
    std::vector<llama_token_data> sorted;
};

scratch_memory & scratch() {
    static thread_local scratch_memory memory;
    return memory;
}

template <typename T> T * room(std::vector<T> & items, int64_t n) {
    if ((int64_t) items.size() < n) {
        items.resize(n);
    }
    return items.data();
}

bool is_on(int64_t n) {
    return n > MIN_CANDIDATES && !llama_qlutattn_get_samplers_stock();
}

struct by_logit {
    bool operator()(const llama_token_data & a, const llama_token_data & b) const { return a.logit > b.logit; }
};

llama_select_source source_of(const llama_token_data_array & cur_p) {
    float * logits = room(scratch().logits, cur_p.size);
    for (size_t i = 0; i < cur_p.size; ++i) {
        logits[i] = cur_p.data[i].logit;
    }
    return { logits, (int64_t) cur_p.size, cur_p.data };
}

void keep(const llama_token_data * first, size_t n, llama_token_data_array * cur_p) {
    std::copy(first, first + n, cur_p->data);
    cur_p->size   = n;
    cur_p->sorted = true;
}

// upstream's buckets of logits: what lies in one is sorted together, which is seen in the order of ties

constexpr int   N_BUCKETS    = 128;
constexpr float BUCKET_LOW   = -10.0f;
constexpr float BUCKET_HIGH  = 10.0f;
constexpr float BUCKET_SCALE = N_BUCKETS / (BUCKET_HIGH - BUCKET_LOW);
constexpr float BUCKET_SHIFT = -BUCKET_LOW * BUCKET_SCALE;
constexpr float MAX_LOGIT    = 1e8f; // beyond, a bucket's number overflows

int bucket_of(float logit) {
    return logit > -MAX_LOGIT ? std::max(0, std::min(N_BUCKETS - 1, int(BUCKET_SCALE * logit + BUCKET_SHIFT))) : 0;
}

// a little below the smallest logit of a bucket
float bucket_start(int bucket) {
    return bucket <= 0 ? -INFINITY : (bucket - BUCKET_SHIFT) / BUCKET_SCALE - 0.01f;
}

bool has_buckets(const ggml_select_range & range) {
    return !range.has_nan && range.max > -MAX_LOGIT && range.max < MAX_LOGIT;
}

// Candidates in upstream's order, from the largest down: a bucket is filled and sorted when the order is needed that far.
class bucket_order {
  public:
    bucket_order(const llama_select_source & from, const ggml_select_range & range)
        : from(from)
        , lowest(bucket_of(range.min))
        , sorted(scratch().sorted) {
        sorted.clear();
    }

    // the k largest, of which upstream sorts the last bucket only so far
    std::vector<llama_token_data> & sort_top(int64_t k);

    // all in buckets from `first` up that are not sorted yet
    std::vector<llama_token_data> & sort_from(int first);

    bool has_all() const { return end <= lowest; }

    const llama_select_source & from;
    const int                   lowest;          // bucket that is not empty; upstream sorts that one as a heap
    int                         end = N_BUCKETS; // first bucket that is sorted

  private:
    std::vector<llama_token_data> & sorted;

    void append(const std::vector<llama_token_data> & chosen, int first);
};

// Puts the chosen into their buckets, and those from the largest down to `first` behind what is sorted.
void bucket_order::append(const std::vector<llama_token_data> & chosen, int first) {
    size_t ends[N_BUCKETS + 1] = {};
    for (const llama_token_data & candidate : chosen) {
        ++ends[bucket_of(candidate.logit)];
    }
    size_t at = sorted.size();
    for (int b = N_BUCKETS - 1; b >= first; --b) {
        const size_t count = ends[b];
        ends[b]            = at;
        at += count;
    }
    sorted.resize(at);
    for (const llama_token_data & candidate : chosen) {
        sorted[ends[bucket_of(candidate.logit)]++] = candidate;
    }
}

std::vector<llama_token_data> & bucket_order::sort_top(int64_t k) {
    int32_t * indices = room(scratch().indices, from.n);
    float *   values  = room(scratch().values, from.n);

    // the bucket of the k-th largest
    int64_t n = ggml_select_top_candidates(from.logits, from.n, k, indices);
    for (int64_t i = 0; i < n; ++i) {
        values[i] = from.logits[indices[i]];
    }
    std::nth_element(values, values + k - 1, values + n, std::greater<float>());
    const int last = bucket_of(values[k - 1]);

    // all above it; of its own, what a partial sort of the rest of k would move
    auto & chosen = scratch().chosen;
    chosen.clear();
    n               = ggml_select_at_least(from.logits, from.n, bucket_start(last), indices);
    int64_t in_last = 0;
    for (int64_t i = 0; i < n; ++i) {
        const int bucket = bucket_of(from.logits[indices[i]]);
        if (bucket > last) {
            chosen.push_back(from[indices[i]]);
        } else if (bucket == last) {
            values[in_last]    = from.logits[indices[i]];
            indices[in_last++] = indices[i];
        }
    }
    const int64_t        rest = k - (int64_t) chosen.size();
    std::vector<int32_t> moved(in_last);
    moved.resize(ggml_select_top_candidates(values, in_last, rest, moved.data()));
    for (int32_t i : moved) {
        chosen.push_back(from[indices[i]]);
    }
    append(chosen, last);

    size_t first = 0;
    for (size_t i = 1; i <= (size_t) (k - rest); ++i) {
        if (i == (size_t) (k - rest) || bucket_of(sorted[i].logit) != bucket_of(sorted[first].logit)) {
            std::sort(sorted.begin() + first, sorted.begin() + i, by_logit());
            first = i;
        }
    }
    std::partial_sort(sorted.begin() + (k - rest), sorted.begin() + k, sorted.end(), by_logit());
    return sorted;
}

std::vector<llama_token_data> & bucket_order::sort_from(int first) {
    int32_t *     indices = room(scratch().indices, from.n);
    const int64_t n       = ggml_select_at_least(from.logits, from.n, bucket_start(first), indices);
    auto &        chosen  = scratch().chosen;
    chosen.clear();
    for (int64_t i = 0; i < n; ++i) {
        const int bucket = bucket_of(from.logits[indices[i]]);
        if (bucket >= first && bucket < end) {
            chosen.push_back(from[indices[i]]);
        }
    }
    const size_t before = sorted.size();
    append(chosen, first);
    for (size_t begin = before; begin < sorted.size();) {
        const int    bucket = bucket_of(sorted[begin].logit);
        const auto   is_other = [&](const llama_token_data & c) { return bucket_of(c.logit) != bucket; };
        const auto   past     = std::find_if(sorted.begin() + begin, sorted.end(), is_other);
        if (bucket > lowest) {
            std::sort(sorted.begin() + begin, past, by_logit());
        } else {
            std::partial_sort(sorted.begin() + begin, past, past, by_logit());
        }
        begin = past - sorted.begin();
    }
    end = first;
    return sorted;
}

// The probabilities of candidates in order, and how many of them top-p keeps.
class nucleus {
  public:
    nucleus(float max, float sum, float p, size_t min_keep) : max(max), sum(sum), p(p), min_keep(min_keep) {}

    // Goes on behind the candidates that were added before, up to the n-th; true if the last one to keep is among them.
    bool add(const llama_token_data * candidates, size_t n);

    void fill(llama_token_data * candidates) const {
        for (size_t i = 0; i < size; ++i) {
            candidates[i].p = probs[i];
        }
    }

    float total() const { return cum_sum; }

    size_t size = 0; // candidates that were added, or that are kept

  private:
    const float        max;
    const float        sum; // of all exponentials
    const float        p;
    const size_t       min_keep;
    float              cum_sum = 0;
    std::vector<float> probs;
};

bool nucleus::add(const llama_token_data * candidates, size_t n) {
    probs.resize(n);
    for (size_t i = size; i < n; ++i) {
        probs[i] = candidates[i].logit;
    }
    ggml_select_exp(probs.data() + size, n - size, max, probs.data() + size);
    for (size_t i = size; i < n; ++i) {
        probs[i] /= sum;
    }
    // the first min_keep - 1 are kept whatever their sum
    const size_t free = std::min(n, std::max(size, min_keep > 0 ? min_keep - 1 : 0));
    ggml_select_reach_f32(probs.data() + size, free - size, INFINITY, &cum_sum);
    const size_t last = free + ggml_select_reach_f32(probs.data() + free, n - free, p, &cum_sum);
    size              = std::min(last + 1, n);
    return last < n;
}

// About where top-p ends: the logit down to which a sample of the row has a share of the probability below `below`, and a little more.
float find_end(const llama_select_source & from, float max, float below, float share, float sum) {
    constexpr int64_t  SAMPLES = 2048;
    const int64_t      step    = std::max<int64_t>(1, from.n / SAMPLES);
    std::vector<float> sample;
    for (int64_t i = 0; i < from.n; i += step) {
        if (from.logits[i] < below) {
            sample.push_back(from.logits[i]);
        }
    }
    std::sort(sample.begin(), sample.end(), std::greater<float>());
    double reached = 0;
    for (float logit : sample) {
        reached += std::exp(logit - max) * step / sum;
        if (reached > 1.05 * share) {
            return logit;
        }
    }
    return -INFINITY;
}

} // namespace

bool llama_select_top_k(const llama_select_source & from, int32_t k, llama_token_data_array * cur_p) {
    constexpr int32_t MAX_HEAP = 128; // up to this upstream sorts with one heap, above in buckets
    if (!is_on(from.n) || k > from.n / 4) {
        return false;
    }
    if (k <= MAX_HEAP) {
        int32_t *     indices = room(scratch().indices, from.n);
        const int64_t n       = ggml_select_top_candidates(from.logits, from.n, k, indices);
        auto &        chosen  = scratch().chosen;
        chosen.clear();
        for (int64_t i = 0; i < n; ++i) {
            chosen.push_back(from[indices[i]]);
        }
        std::partial_sort(chosen.begin(), chosen.begin() + k, chosen.end(), by_logit());
        keep(chosen.data(), k, cur_p);
        return true;
    }
    const ggml_select_range range = ggml_select_find_range(from.logits, from.n);
    if (!has_buckets(range)) {
        return false;
    }
    keep(bucket_order(from, range).sort_top(k).data(), k, cur_p);
    return true;
}

bool llama_select_top_p(const llama_select_source & from, float p, size_t min_keep, llama_token_data_array * cur_p) {
    constexpr int64_t FIRST = 256; // how many upstream sorts before it sorts all
    if (!is_on(from.n)) {
        return false;
    }
    const ggml_select_range range = ggml_select_find_range(from.logits, from.n);
    if (!has_buckets(range)) {
        return false;
    }
    const float sum = ggml_select_exp_sum(from.logits, from.n, range.max);

    nucleus few(range.max, sum, p, min_keep);
    auto &  sorted = bucket_order(from, range).sort_top(FIRST);
    if (few.add(sorted.data(), FIRST)) {
        few.fill(sorted.data());
        keep(sorted.data(), few.size, cur_p);
        return true;
    }

    constexpr int LESS = 8; // buckets that are added where the estimate was too high
    const float   end  = find_end(from, range.max, sorted[FIRST - 1].logit, p - few.total(), sum);
    nucleus       many(range.max, sum, p, min_keep);
    bucket_order  order(from, range);
    for (int first = bucket_of(end); !many.add(sorted.data(), order.sort_from(first).size()) && !order.has_all();) {
        first = std::max(0, order.end - LESS);
    }
    many.fill(sorted.data());
    keep(sorted.data(), many.size, cur_p);
    return true;
}

bool llama_select_min_p(const llama_select_source & from, float p, size_t min_keep, llama_token_data_array * cur_p) {
    if (!is_on(from.n)) {
        return false;
    }
    const float   max     = std::max(-FLT_MAX, ggml_select_find_range(from.logits, from.n).max);
    int32_t *     indices = room(scratch().indices, from.n);
    const int64_t n       = ggml_select_at_least(from.logits, from.n, max + logf(p), indices);
    if (n == 0 || n < (int64_t) min_keep) {
        return false;
    }
    for (int64_t i = 0; i < n; ++i) {
        cur_p->data[i] = from[indices[i]];
    }
    cur_p->size = n;
    return true;
}

bool llama_select_greedy(const llama_select_source & from, llama_token_data_array * cur_p) {
    if (!is_on(from.n)) {
        return false;
    }
    constexpr int64_t STEP = 4096;
    const float       max  = ggml_select_find_range(from.logits, from.n).max;
    int32_t           indices[STEP];
    int64_t           at = 0; // nothing is larger than a NaN that comes first
    for (int64_t i = 0; from.logits[0] == from.logits[0] && i < from.n; i += STEP) {
        if (ggml_select_at_least(from.logits + i, std::min(STEP, from.n - i), max, indices)) {
            at = i + indices[0];
            break;
        }
    }
    cur_p->data[0]  = from[at];
    cur_p->size     = 1;
    cur_p->selected = 0;
    return true;
}

bool llama_select_top_k(llama_token_data_array * cur_p, int32_t k) {
    return is_on(cur_p->size) && llama_select_top_k(source_of(*cur_p), k, cur_p);
}

bool llama_select_top_p(llama_token_data_array * cur_p, float p, size_t min_keep) {
    return is_on(cur_p->size) && llama_select_top_p(source_of(*cur_p), p, min_keep, cur_p);
}

bool llama_select_min_p(llama_token_data_array * cur_p, float p, size_t min_keep) {
    return is_on(cur_p->size) && llama_select_min_p(source_of(*cur_p), p, min_keep, cur_p);
}

bool llama_select_dist(llama_token_data_array * cur_p, std::mt19937 & rng) {
    if (!is_on(cur_p->size)) {
        return false;
    }
    const int64_t           n     = cur_p->size;
    const ggml_select_range range = ggml_select_find_range(source_of(*cur_p).logits, n);
    const float             max   = cur_p->sorted ? cur_p->data[0].logit : range.max;
    if (range.has_nan || !std::isfinite(max) || range.max > max) {
        return false;
    }
    float * probs = scratch().logits.data();
    ggml_select_exp(probs, n, max, probs);
    const double sum    = ggml_select_sum(probs, n);
    const double random = std::uniform_real_distribution<double>(0.0f, 1.0f)(rng);
    cur_p->selected     = std::min(n - 1, ggml_select_reach(probs, n, sum * random));
    for (int64_t i = 0; i < n; ++i) {
        cur_p->data[i].p = probs[i] / sum;
    }
    return true;
}

static std::atomic<int> samplers_stock{ -1 }; // -1: as the environment says

void llama_qlutattn_set_samplers_stock(bool is_stock) {
    samplers_stock = is_stock;
}

bool llama_qlutattn_get_samplers_stock(void) {
    static const bool in_env = [] {
        const char *      env   = getenv("LLAMA_ARG_SAMPLERS_STOCK");
        const std::string value = env ? env : "";
        return value == "1" || value == "on" || value == "true" || value == "enabled";
    }();
    const int set = samplers_stock;
    return set < 0 ? in_env : set != 0;
}
