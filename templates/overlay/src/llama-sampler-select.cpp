#include "llama-sampler-select.h"

#include "ggml-select.h"
#include "llama-qlutattn-sampling.h"

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace {

// Working memory of a thread, kept from one token to the next.
struct scratch_memory {
    std::vector<float>            logits;
    std::vector<float>            values;
    std::vector<int32_t>          indices;
    std::vector<float>            probs;
    std::vector<llama_token_data> chosen;
    std::vector<llama_token_data> sorted;
    std::vector<uint64_t>         items;
    std::vector<uint64_t>         other_items;
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

// An integer that rises as a logit falls; the same for both zeros.
uint32_t falling_key(float logit) {
    uint32_t    bits;
    const float value = logit + 0.0f;
    memcpy(&bits, &value, sizeof(bits));
    return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

float logit_of(uint32_t key) {
    const uint32_t bits = key & 0x80000000u ? key : ~key & 0x7fffffffu;
    float          logit;
    memcpy(&logit, &bits, sizeof(logit));
    return logit;
}

// the smallest logit of a bucket
float bucket_start(int bucket) {
    if (bucket <= 0 || bucket >= N_BUCKETS) {
        return bucket <= 0 ? -INFINITY : INFINITY;
    }
    uint32_t in    = falling_key(BUCKET_HIGH);
    uint32_t below = falling_key(2 * BUCKET_LOW);
    while (below - in > 1) {
        const uint32_t middle                                = in + (below - in) / 2;
        (bucket_of(logit_of(middle)) >= bucket ? in : below) = middle;
    }
    return logit_of(in);
}

bool has_buckets(const ggml_select_range & range) {
    return !range.has_nan && range.max > -MAX_LOGIT && range.max < MAX_LOGIT;
}

// Candidates in upstream's order, from the largest down: a bucket is filled and sorted when the order is needed that far.
class bucket_order {
  public:
    bucket_order(const llama_select_source & from, const ggml_select_range & range) : from(from), lowest(bucket_of(range.min)) {}

    // the k largest, of which upstream sorts the last bucket only so far
    void sort_top(int64_t k);

    // All in buckets from `first` up that are not sorted yet. by_token: with ties by token, of a row, where that is faster.
    void sort_from(int first, bool by_token);

    bool has_all() const { return end <= lowest; }

    llama_token_data * sorted() const { return scratch().sorted.data(); }

    int64_t n_sorted = 0;
    int     end      = N_BUCKETS; // first bucket that is sorted, or is not wanted
    bool    has_ties = false;     // some of which are sorted by token

  private:
    const llama_select_source & from;
    const int                   lowest; // bucket that is not empty; upstream sorts that one as a heap

    // indices of the candidates of buckets from `first` up to, and without, `end`
    int64_t choose(int first, int32_t * indices) const;

    void append_to_buckets(const int32_t * indices, int64_t n, int first);
    bool append_by_token(const int32_t * indices, int64_t n);
};

int64_t bucket_order::choose(int first, int32_t * indices) const {
    const int64_t n = ggml_select_at_least(from.logits, from.n, bucket_start(first), indices);
    if (end == N_BUCKETS) {
        return n;
    }
    const float limit = bucket_start(end);
    return std::remove_if(indices, indices + n, [&](int32_t i) { return from.logits[i] >= limit; }) - indices;
}

// Behind what is sorted, the largest bucket first, each in the order of the indices.
void bucket_order::append_to_buckets(const int32_t * indices, int64_t n, int first) {
    int64_t places[N_BUCKETS] = {};
    for (int64_t i = 0; i < n; ++i) {
        ++places[bucket_of(from.logits[indices[i]])];
    }
    for (int b = N_BUCKETS - 1; b >= first; --b) {
        const int64_t count = places[b];
        places[b]           = n_sorted;
        n_sorted += count;
    }
    llama_token_data * to = room(scratch().sorted, n_sorted);
    for (int64_t i = 0; i < n; ++i) {
        to[places[bucket_of(from.logits[indices[i]])]++] = from[indices[i]];
    }
}

void bucket_order::sort_top(int64_t k) {
    int32_t * indices = room(scratch().indices, from.n);
    float *   values  = room(scratch().values, from.n);
    int64_t   n       = ggml_select_top_candidates(from.logits, from.n, k, indices);
    for (int64_t i = 0; i < n; ++i) {
        values[i] = from.logits[indices[i]];
    }
    std::nth_element(values, values + k - 1, values + n, std::greater<float>());

    // all in the buckets above that of the k-th largest; of its own, what a partial sort of the rest of k would move
    const int last = bucket_of(values[k - 1]);
    sort_from(last + 1, false);
    n = choose(last, indices);
    for (int64_t i = 0; i < n; ++i) {
        values[i] = from.logits[indices[i]];
    }
    std::vector<int32_t> moved(n);
    moved.resize(ggml_select_top_candidates(values, n, k - n_sorted, moved.data()));
    for (int32_t & i : moved) {
        i = indices[i];
    }
    const int64_t before = n_sorted;
    append_to_buckets(moved.data(), moved.size(), last);
    std::partial_sort(sorted() + before, sorted() + k, sorted() + n_sorted, by_logit());
}

void bucket_order::sort_from(int first, bool by_token) {
    int32_t *     indices = room(scratch().indices, from.n);
    const int64_t n       = choose(first, indices);
    end                   = first;
    if (by_token && append_by_token(indices, n)) {
        return;
    }
    const int64_t before = n_sorted;
    append_to_buckets(indices, n, first);
    const auto last = sorted() + n_sorted;
    for (auto begin = sorted() + before; begin < last;) {
        const int  bucket = bucket_of(begin->logit);
        const auto past   = std::find_if(begin, last, [&](const llama_token_data & c) { return bucket_of(c.logit) != bucket; });
        if (bucket > lowest) {
            std::sort(begin, past, by_logit());
        } else {
            std::partial_sort(begin, past, past, by_logit());
        }
        begin = past;
    }
}

// Sorts items by their upper halves; returns how many have the same as the one before.
int64_t radix_sort(std::vector<uint64_t> & items, int64_t n) {
    constexpr int DIGIT = 8, PASSES = 4;
    uint32_t      places[PASSES][1 << DIGIT] = {};
    auto &        other                      = scratch().other_items;
    const auto    digit                      = [](uint64_t item, int pass) {
        return item >> (32 + pass * DIGIT) & ((1 << DIGIT) - 1);
    };
    room(other, n);
    for (int64_t i = 0; i < n; ++i) {
        for (int pass = 0; pass < PASSES; ++pass) {
            ++places[pass][digit(items[i], pass)];
        }
    }
    for (int pass = 0; pass < PASSES; ++pass) {
        uint32_t at = 0;
        for (uint32_t & place : places[pass]) {
            const uint32_t count = place;
            place                = at;
            at += count;
        }
        for (int64_t i = 0; i < n; ++i) {
            other[places[pass][digit(items[i], pass)]++] = items[i];
        }
        items.swap(other);
    }
    int64_t equal = 0;
    for (int64_t i = 1; i < n; ++i) {
        equal += items[i] >> 32 == items[i - 1] >> 32;
    }
    return equal;
}

// Returns false, with nothing done, where ties are so many that upstream's order is cheaper than finding it for what is drawn.
bool bucket_order::append_by_token(const int32_t * indices, int64_t n) {
    constexpr int64_t FEW   = 32; // a tie in this many
    auto &            items = scratch().items;
    room(items, n);
    for (int64_t i = 0; i < n; ++i) {
        items[i] = (uint64_t) falling_key(from.logits[indices[i]]) << 32 | (uint32_t) indices[i];
    }
    const int64_t equal = radix_sort(items, n);
    if (equal > n / FEW) {
        return false;
    }
    has_ties              = has_ties || equal > 0;
    llama_token_data * to = room(scratch().sorted, n_sorted + n) + n_sorted;
    for (int64_t i = 0; i < n; ++i) {
        const llama_token id    = (llama_token) (uint32_t) items[i];
        const float       logit = logit_of(items[i] >> 32);
        to[i]                   = { id, logit != 0 ? logit : from.logits[id], 0.0f }; // there are two zeros
    }
    n_sorted += n;
    return true;
}

// The probabilities of candidates in order, and how many of them top-p keeps.
class nucleus {
  public:
    nucleus(float max, float sum, float p, size_t min_keep) : max(max), sum(sum), p(p), min_keep(min_keep), probs(scratch().probs) {}

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
    const float          max;
    const float          sum; // of all exponentials
    const float          p;
    const size_t         min_keep;
    float                cum_sum = 0;
    std::vector<float> & probs;
};

bool nucleus::add(const llama_token_data * candidates, size_t n) {
    room(probs, n);
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

// About where top-p ends: the logit down to which, in a sample of the row, all below `below` have this share of what all of them have.
float find_end(const llama_select_source & from, float below, float share) {
    constexpr int64_t  SAMPLES = 2048;
    const int64_t      step    = from.n / SAMPLES + 1;
    std::vector<float> sample;
    for (int64_t i = 0; i < from.n; i += step) {
        if (from.logits[i] < below) {
            sample.push_back(from.logits[i]);
        }
    }
    std::sort(sample.begin(), sample.end(), std::greater<float>());
    std::vector<float> terms(sample.size());
    ggml_select_exp(sample.data(), sample.size(), below, terms.data());
    const size_t end = ggml_select_reach(terms.data(), terms.size(), share * ggml_select_sum(terms.data(), terms.size()));
    return end < sample.size() ? sample[end] : -INFINITY;
}

} // namespace

bool llama_select_is_on(int64_t n) {
    constexpr int64_t MIN_CANDIDATES = 1024; // from more than these, selecting pays
    return n > MIN_CANDIDATES && !llama_qlutattn_get_samplers_stock();
}

bool llama_select_top_k(const llama_select_source & from, int32_t k, llama_token_data_array * cur_p) {
    constexpr int32_t MAX_HEAP = 128; // up to this upstream sorts with one heap, above in buckets
    if (!llama_select_is_on(from.n) || k > from.n / 4) {
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
    bucket_order order(from, range);
    order.sort_top(k);
    keep(order.sorted(), k, cur_p);
    return true;
}

bool llama_select_top_p(const llama_select_source & from, float p, size_t min_keep, llama_token_data_array * cur_p, bool * has_ties_by_token) {
    constexpr int64_t FIRST = 256; // how many upstream sorts before it sorts all
    if (!llama_select_is_on(from.n)) {
        return false;
    }
    const ggml_select_range range = ggml_select_find_range(from.logits, from.n);
    if (!has_buckets(range)) {
        return false;
    }
    const float sum = ggml_select_exp_sum(from.logits, from.n, range.max);

    nucleus      few(range.max, sum, p, min_keep);
    bucket_order top(from, range);
    top.sort_top(FIRST);
    if (few.add(top.sorted(), FIRST)) {
        few.fill(top.sorted());
        keep(top.sorted(), few.size, cur_p);
        return true;
    }

    constexpr int   LESS  = 4;    // buckets that are added where the estimate was too high
    constexpr float EXTRA = 0.2f; // of what top-p leaves, for the error of the estimate
    const float     share = (p + EXTRA * (1 - p) - few.total()) / (1 - few.total());
    const float     last  = find_end(from, top.sorted()[FIRST - 1].logit, share);
    nucleus         many(range.max, sum, p, min_keep);
    bucket_order    order(from, range);
    order.sort_from(bucket_of(last), has_ties_by_token);
    while (!many.add(order.sorted(), order.n_sorted) && !order.has_all()) {
        order.sort_from(std::max(0, order.end - LESS), has_ties_by_token);
    }
    many.fill(order.sorted());
    keep(order.sorted(), many.size, cur_p);
    if (has_ties_by_token) {
        *has_ties_by_token = order.has_ties;
    }
    return true;
}

llama_token llama_select_tied(const llama_select_source & from, float logit, int64_t rank, int64_t k) {
    int32_t *     indices = room(scratch().indices, from.n);
    const int64_t n       = ggml_select_at_least(from.logits, from.n, logit, indices);
    const auto    is_tied = [&](int32_t i) {
        return from.logits[i] == logit;
    };
    const auto one = std::find_if(indices, indices + n, is_tied);
    if (std::none_of(one + 1, indices + n, is_tied)) {
        return *one;
    }
    bucket_order order(from, ggml_select_find_range(from.logits, from.n));
    if (k < from.n) {
        order.sort_top(k);
    } else {
        order.end = bucket_of(logit) + 1;
        order.sort_from(bucket_of(logit), false);
    }
    const auto is_next = [&](const llama_token_data & candidate) {
        return candidate.logit == logit && rank-- == 0;
    };
    return std::find_if(order.sorted(), order.sorted() + order.n_sorted, is_next)->id;
}

llama_token llama_select_untie(const llama_select_source & from, llama_token token) {
    const float logit = from.logits[token];
    return llama_select_tied(from, logit, std::count(from.logits, from.logits + token, logit), from.n);
}

void llama_select_sort(float * values, int64_t n) {
    constexpr int64_t MANY = 2048; // from here on counting is faster
    if (n < MANY) {
        std::sort(values, values + n, std::greater<float>());
        return;
    }
    auto & items = scratch().items;
    room(items, n);
    for (int64_t i = 0; i < n; ++i) {
        items[i] = (uint64_t) falling_key(values[i]) << 32;
    }
    radix_sort(items, n);
    for (int64_t i = 0; i < n; ++i) {
        values[i] = logit_of((uint32_t) (items[i] >> 32));
    }
}

bool llama_select_min_p(const llama_select_source & from, float p, size_t min_keep, llama_token_data_array * cur_p) {
    if (!llama_select_is_on(from.n)) {
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
    if (!llama_select_is_on(from.n)) {
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
    return llama_select_is_on(cur_p->size) && llama_select_top_k(source_of(*cur_p), k, cur_p);
}

bool llama_select_top_p(llama_token_data_array * cur_p, float p, size_t min_keep) {
    return llama_select_is_on(cur_p->size) && llama_select_top_p(source_of(*cur_p), p, min_keep, cur_p, nullptr);
}

bool llama_select_min_p(llama_token_data_array * cur_p, float p, size_t min_keep) {
    return llama_select_is_on(cur_p->size) && llama_select_min_p(source_of(*cur_p), p, min_keep, cur_p);
}

bool llama_select_dist(llama_token_data_array * cur_p, std::mt19937 & rng) {
    if (!llama_select_is_on(cur_p->size)) {
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
