#include "llama-sampler-draw.h"

#include "ggml-select.h"
#include "llama-sampler-select.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <vector>

namespace {

constexpr int64_t FIRST   = 256;  // logits that upstream's top-p sorts before it sorts all
constexpr int64_t GROUP   = 128;  // logits that are put in order together, more where one bucket has them
constexpr int64_t CHUNK   = 2048; // logits whose exponentials are computed at once
constexpr int     BUCKETS = 1024;

constexpr float MAX_LOGIT = 1e8f; // beyond, upstream's own order is not that of the logits

// Working memory of a thread, kept from one token to the next.
struct scratch_memory {
    std::vector<float>    found;
    std::vector<float>    values;
    std::vector<float>    terms;
    std::vector<float>    probs;
    std::vector<double>   sums;
    std::vector<uint16_t> buckets;
    std::vector<int64_t>  ends;
    std::vector<int32_t>  tokens;
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

// Where dist ends among terms in order: at the first whose running sum reaches a random share of the sum of all. Sums are added here in
// another order than upstream's, so the answer is known only if no rounding can move the end to a neighbour.
class share_of {
  public:
    share_of(double sum, double share, int64_t n) : target(sum * share), error(4 * DBL_EPSILON * (double) n * sum) {}

    // Whether it is among terms that bring the running sum here.
    bool is_within(double running) const { return running >= target; }

    // Its index among terms behind a running sum, or -1 if it is not known.
    int64_t find(const float * terms, int64_t n, double running) const {
        for (int64_t i = 0; i < n; ++i) {
            const double next = running + terms[i];
            if (next >= target) {
                return target - running > error && next - target > error ? i : -1;
            }
            running = next;
        }
        return -1;
    }

  private:
    const double target;
    const double error;
};

float at_temperatures(float logit, const std::vector<float> & temps) {
    for (float temp : temps) {
        logit /= temp;
    }
    return logit;
}

// The exponentials of logits, after the temperatures.
void find_terms(const float * logits, int64_t n, float max, const std::vector<float> & temps, float * terms) {
    if (terms != logits) {
        std::copy(logits, logits + n, terms);
    }
    for (float temp : temps) {
        ggml_select_divide(terms, n, temp, terms);
    }
    ggml_select_exp(terms, n, at_temperatures(max, temps), terms);
}

// The logits of a row that reach a threshold, in the row's order, in chunks.
class chosen_row {
  public:
    chosen_row(const llama_select_source & from, float max, float threshold, const llama_select_steps & steps) :
        from(from), max(max), threshold(threshold) {
        for (const llama_select_step & step : steps) {
            temps.push_back(step.value);
        }
        sums.clear();
        for (int64_t begin = 0; begin < from.n; begin += CHUNK) {
            const int64_t n = take(begin);
            n_chosen += n;
            sums.push_back(sum);
            sum += ggml_select_sum_any_order(terms, n);
        }
    }

    int64_t size() const { return n_chosen; }

    llama_token draw(double share) {
        const share_of end(sum, share, n_chosen);
        size_t         chunk = sums.size() - 1;
        while (chunk > 0 && end.is_within(sums[chunk])) {
            --chunk;
        }
        const int64_t begin = (int64_t) chunk * CHUNK;
        const int64_t n     = take(begin);
        const int64_t place = end.find(terms, n, sums[chunk]);
        if (place < 0) {
            return LLAMA_TOKEN_NULL;
        }
        int32_t indices[CHUNK];
        ggml_select_at_least(from.logits + begin, std::min(CHUNK, from.n - begin), threshold, indices);
        return (llama_token) (begin + indices[place]);
    }

  private:
    const llama_select_source & from;
    const float                 max;
    const float                 threshold;
    std::vector<float>          temps;
    std::vector<double> &       sums     = scratch().sums; // before each chunk
    double                      sum      = 0;
    int64_t                     n_chosen = 0;
    float                       terms[CHUNK]; // of the chunk that was taken last

    int64_t take(int64_t begin) {
        const int64_t n = ggml_select_values_at_least(from.logits + begin, std::min(CHUNK, from.n - begin), threshold, terms);
        find_terms(terms, n, max, temps, terms);
        return n;
    }
};

float bucket_scale(float depth) {
    return depth > BUCKETS / FLT_MAX ? BUCKETS / depth : 0.0f;
}

uint16_t bucket_of(float below_max, float scale) {
    return (uint16_t) (int) std::min(below_max * scale, (float) BUCKETS);
}

// The largest logits of a row from the largest down, in groups: none of a group is larger than any of the one before, and a group is
// put in order where that matters.
class falling_row {
  public:
    falling_row(const llama_select_source & from, float max) : from(from), max(max), ends(scratch().ends) {}

    // Takes the largest logits of the row. depth: what lies so far below the largest need not be told apart
    void take_largest(int64_t n, float depth);
    void take_at_least(float lowest, float depth);

    // Keeps what top-p keeps; false if that is not among these values. sum: of all exponentials.
    bool keep_top_p(float sum, float p, int64_t min_keep);

    void apply(const llama_select_step & step);

    // The token that dist draws, or LLAMA_TOKEN_NULL.
    llama_token draw(double share);

  private:
    const llama_select_source & from;
    const float                 max;
    std::vector<int64_t> &      ends; // of the groups
    std::vector<float>          temps;
    float *                     values   = nullptr;
    float *                     terms    = nullptr; // exponentials, before the temperatures
    int64_t                     size     = 0;
    bool                        is_few   = false;   // upstream has sorted the first few alone
    int32_t *                   tokens   = nullptr;
    int64_t                     n_tokens = 0;       // of the logits that were taken, if they are known

    int64_t start(size_t group) const { return group ? ends[group - 1] : 0; }

    void        take(const float * largest, int64_t n, float depth);
    void        put_in_order(int64_t begin, int64_t end);
    void        truncate(int64_t n);
    llama_token token_at(int64_t place) const;
};

void falling_row::take_largest(int64_t n, float depth) {
    float * found = room(scratch().found, from.n);
    tokens        = room(scratch().tokens, from.n);
    n_tokens      = ggml_select_largest(from.logits, from.n, n, tokens);
    for (int64_t i = 0; i < n_tokens; ++i) {
        found[i] = from.logits[tokens[i]];
    }
    take(found, n_tokens, depth);
}

void falling_row::take_at_least(float lowest, float depth) {
    float * found = room(scratch().found, from.n);
    n_tokens      = 0;
    take(found, ggml_select_values_at_least(from.logits, from.n, lowest, found), depth);
}

// In buckets of equal width.
void falling_row::take(const float * largest, int64_t n, float depth) {
    const float scale = bucket_scale(depth);
    uint16_t *  in    = room(scratch().buckets, n);
    for (int64_t i = 0; i < n; ++i) {
        in[i] = bucket_of(max - largest[i], scale);
    }
    int32_t places[BUCKETS + 1] = {};
    for (int64_t i = 0; i < n; ++i) {
        ++places[in[i]];
    }
    int32_t at = 0, begin = 0;
    ends.clear();
    for (int32_t & place : places) {
        const int32_t count = place;
        if (at > begin && at + count > begin + GROUP) {
            ends.push_back(at);
            begin = at;
        }
        place = at;
        at += count;
    }
    ends.push_back(at);
    size   = n;
    values = room(scratch().values, n);
    terms  = room(scratch().terms, n);
    for (int64_t i = 0; i < n; ++i) {
        values[places[in[i]]++] = largest[i];
    }
    ggml_select_exp(values, n, max, terms);
}

void falling_row::put_in_order(int64_t begin, int64_t end) {
    if (std::is_sorted(values + begin, values + end, std::greater<float>())) {
        return;
    }
    llama_select_sort(values + begin, end - begin);
    ggml_select_exp(values + begin, end - begin, max, terms + begin);
}

bool falling_row::keep_top_p(float sum, float p, int64_t min_keep) {
    float * probs  = room(scratch().probs, size);
    float   so_far = 0;
    ggml_select_divide(terms, size, sum, probs);
    for (size_t group = 0; group < ends.size(); ++group) {
        const int64_t begin = start(group), end = ends[group];
        const float   limit = end < min_keep ? INFINITY : p; // below it all are kept
        if (ggml_select_add_f32(probs + begin, end - begin, limit, &so_far)) {
            continue;
        }
        put_in_order(begin, end);
        for (int64_t i = begin; i < end; ++i) {
            so_far += terms[i] / sum;
            if (so_far >= p && i + 1 >= min_keep) {
                size   = i + 1;
                is_few = size <= FIRST;
                return true;
            }
        }
    }
    return size == from.n;
}

void falling_row::truncate(int64_t n) {
    const size_t group = std::lower_bound(ends.begin(), ends.end(), n) - ends.begin();
    put_in_order(start(group), std::min(ends[group], size));
    size = n;
}

void falling_row::apply(const llama_select_step & step) {
    if (step.what == llama_select_step::TEMP) {
        temps.push_back(step.value);
    } else if (step.what == llama_select_step::TOP_K) {
        truncate(std::min(size, step.keep));
    } else {
        const float threshold  = at_temperatures(max, temps) + logf(step.value);
        const auto  is_reached = [&](float logit) {
            return at_temperatures(logit, temps) >= threshold;
        };
        const int64_t n = std::count_if(values, values + size, is_reached);
        truncate(std::min(size, std::max({ (int64_t) 1, n, step.keep })));
    }
}

llama_token falling_row::draw(double share) {
    std::vector<double> & sums = scratch().sums; // before each group
    double                sum  = 0;
    sums.clear();
    if (!temps.empty()) {
        find_terms(values, size, max, temps, terms);
    }
    for (size_t group = 0; group < ends.size() && start(group) < size; ++group) {
        sums.push_back(sum);
        sum += ggml_select_sum_any_order(terms + start(group), std::min(ends[group], size) - start(group));
    }
    const share_of end(sum, share, size);
    size_t         group = sums.size() - 1;
    while (group > 0 && end.is_within(sums[group])) {
        --group;
    }
    const int64_t begin = start(group), n = std::min(ends[group], size) - begin;
    put_in_order(begin, begin + n);
    find_terms(values + begin, n, max, temps, terms + begin);
    const int64_t place = end.find(terms + begin, n, sums[group]);
    return place < 0 ? LLAMA_TOKEN_NULL : token_at(begin + place);
}

llama_token falling_row::token_at(int64_t place) const {
    int64_t rank = 0; // among equals
    while (rank < place && values[place - rank - 1] == values[place]) {
        ++rank;
    }
    const auto is_tied = [&](int32_t token) {
        return from.logits[token] == values[place];
    };
    if (std::count_if(tokens, tokens + n_tokens, is_tied) == 1) {
        return *std::find_if(tokens, tokens + n_tokens, is_tied);
    }
    return llama_select_tied(from, values[place], rank, is_few ? FIRST : from.n);
}

// About where a part of the sum is left of all exponentials, from a part of the row: in that, a few large ones may be missed.
float find_lowest(const llama_select_source & from, float max, float depth, float left) {
    constexpr int64_t LINE                = 16; // logits of a line of the cache
    constexpr int64_t STEP                = 32; // of so many lines, one is looked at
    constexpr float   ENOUGH              = 0.8f;
    const float       scale               = bucket_scale(depth);
    int32_t           counts[BUCKETS + 1] = {};
    float             most[BUCKETS + 1]; // what one in a bucket adds
    for (int64_t line = 0; line < from.n; line += STEP * LINE) {
        for (int64_t i = line; i < std::min(line + LINE, from.n); ++i) {
            ++counts[bucket_of(max - from.logits[i], scale)];
        }
    }
    for (int b = 0; b <= BUCKETS; ++b) {
        most[b] = scale > 0 ? -(float) b / scale : 0.0f;
    }
    ggml_select_exp(most, BUCKETS + 1, 0.0f, most);
    float below = 0;
    int   end   = BUCKETS;
    for (; end >= 0; --end) {
        below += STEP * (float) counts[end] * most[end];
        if (below > ENOUGH * left) {
            break;
        }
    }
    return end < BUCKETS ? max - (float) (end + 1) / scale : -INFINITY;
}

llama_token draw(falling_row & row, const llama_select_steps & steps, double share) {
    for (const llama_select_step & step : steps) {
        row.apply(step);
    }
    return row.draw(share);
}

} // namespace

llama_token llama_select_draw_top_p(const llama_select_source & from, float p, int64_t min_keep, const llama_select_steps & steps, double share) {
    const ggml_select_range range = ggml_select_find_range(from.logits, from.n);
    const float             max   = range.max;
    if (!(p < 1) || range.has_nan || std::abs(max) >= MAX_LOGIT) {
        return LLAMA_TOKEN_NULL;
    }
    const float sum   = ggml_select_exp_sum(from.logits, from.n, max);
    // what lies lower has less of the sum than top-p leaves
    const float left  = std::max(1 - p, 1e-4f) * sum;
    const float depth = std::min(max - range.min, std::log((float) from.n / left) + 1);
    falling_row row(from, max);
    if (FIRST > p * sum) { // each adds 1 at most
        row.take_largest(FIRST, depth);
        if (row.keep_top_p(sum, p, min_keep)) {
            return draw(row, steps, share);
        }
    }
    for (float lowest : { find_lowest(from, max, depth, left), -INFINITY }) {
        row.take_at_least(lowest, depth);
        if (row.keep_top_p(sum, p, min_keep)) {
            return draw(row, steps, share);
        }
    }
    return LLAMA_TOKEN_NULL;
}

llama_token llama_select_draw_min_p(const llama_select_source & from, float p, int64_t min_keep, const llama_select_steps & steps, double share) {
    const ggml_select_range range     = ggml_select_find_range(from.logits, from.n);
    const float             threshold = p > 0 ? range.max + logf(p) : -INFINITY;
    if (range.has_nan || !std::isfinite(range.max) || !(threshold <= range.max)) {
        return LLAMA_TOKEN_NULL;
    }
    chosen_row row(from, range.max, threshold, steps);
    return row.size() >= min_keep ? row.draw(share) : LLAMA_TOKEN_NULL;
}
