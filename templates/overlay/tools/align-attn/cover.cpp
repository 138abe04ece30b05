#include "cover.h"

#include "rng.h"

#include <algorithm>
#include <functional>

namespace {

constexpr int64_t MAX_VALUES = 1200000; // in each of K and V

struct parameter {
    int                                    n_values;
    std::function<void(align_case &, int)> set;
};

template <typename T> parameter values(T align_case::*field, const std::vector<T> & list) {
    return { (int) list.size(), [=](align_case & c, int i) {
                c.*field = list[i];
            } };
}

std::vector<parameter> make_parameters(const std::vector<head_dims> & dims, const std::vector<int> & shifts) {
    using c                       = align_case;
    std::vector<parameter> params = {
        values(&c::k, formats_of(true)),
        values(&c::v, formats_of(false)),
        values(&c::n_tiles, { 0, 1, 2, 32 }),
        values(&c::n_f16, { 0, 1, 127, 128, 511 }),
        values(&c::n_q, { 1, 2, 33, 512 }),
        values(&c::group, { 1, 4, 8 }),
        values(&c::dims, dims),
        values(&c::n_head_kv, { 1, 2 }),
        values(&c::n_batch, { 1, 2 }),
        values(&c::n_threads, { 1, 2, 4 }),
        values(&c::mask, { mask_kind::none, mask_kind::causal, mask_kind::holes, mask_kind::rows }),
        values(&c::mask_heads, { false, true }),
        values(&c::alibi, { false, true }),
        values(&c::softcap, { false, true }),
        values(&c::sinks, { false, true }),
        values(&c::lay_q, { layout::plain, layout::permuted }),
        values(&c::lay_f16, { layout::plain, layout::permuted, layout::view }),
        values(&c::lay_src, { layout::plain, layout::permuted, layout::view, layout::transposed }),
        values(&c::lay_packed, { layout::plain, layout::view }),
        values(&c::src_f32, { false, true }),
        values(&c::empty, { false, true }),
        values(&c::data, { data_kind::gauss, data_kind::outlier, data_kind::constant, data_kind::tiny, data_kind::kmax, data_kind::vmax }),
    };
    if (!shifts.empty()) {
        params.push_back(values(&c::n_shift, shifts));
    }
    return params;
}

bool possible(const align_case & c, int64_t max_cost) {
    if (c.n_kv() == 0 || (c.alibi && c.mask == mask_kind::none) || (c.mask_heads && c.mask == mask_kind::none)) {
        return false;
    }
    if (c.empty && c.n_tiles > 0 && c.n_f16 > 0) {
        return false; // both segments are there: nothing is empty
    }
    if (c.n_shift > 0 && c.n_tiles == 0) {
        return false;
    }
    if (c.data == data_kind::outlier && c.side_k().n_embd() < TILE) {
        return false; // the errors of the two outlier channels that are left are as random as those channels
    }
    const int64_t n_embd = std::max(c.side_k().n_embd(), c.side_v().n_embd());
    return c.cost() <= max_cost && c.n_batch * c.n_kv() * n_embd <= MAX_VALUES;
}

struct cover {
    std::vector<parameter>                     params;
    std::vector<std::vector<std::vector<int>>> open; // open[a][b][va*n_b + vb] for a < b: 1 while the two have not met
    rng                                        random;
    int64_t                                    max_cost;

    cover(uint64_t seed, int64_t max_cost, const std::vector<parameter> & params) : params(params), random(seed), max_cost(max_cost) {
        open.resize(params.size(), std::vector<std::vector<int>>(params.size()));
        for (size_t a = 0; a < params.size(); ++a) {
            for (size_t b = a + 1; b < params.size(); ++b) {
                open[a][b].assign(params[a].n_values * params[b].n_values, 1);
            }
        }
    }

    int & at(size_t a, int va, size_t b, int vb) { return a < b ? open[a][b][va * params[b].n_values + vb] : at(b, vb, a, va); }

    align_case build(const std::vector<int> & row) const {
        align_case c;
        for (size_t p = 0; p < params.size(); ++p) {
            params[p].set(c, row[p]);
        }
        return c;
    }

    // A row that holds one given meeting, the other values chosen one after the other for the most new meetings.
    std::vector<int> grow(size_t a, int va, size_t b, int vb) {
        std::vector<int> row(params.size(), -1);
        row[a] = va;
        row[b] = vb;
        std::vector<size_t> order;
        for (size_t p = 0; p < params.size(); ++p) {
            if (row[p] < 0) {
                order.insert(order.begin() + random.below((uint32_t) order.size() + 1), p);
            }
        }
        for (size_t p : order) {
            int best = -1;
            for (int v = 0; v < params[p].n_values; ++v) {
                int gain = 0;
                for (size_t o = 0; o < params.size(); ++o) {
                    gain += row[o] >= 0 && o != p ? 4 * at(p, v, o, row[o]) : 0;
                }
                gain = gain * 4 + (int) random.below(4);
                if (gain > best) {
                    best   = gain;
                    row[p] = v;
                }
            }
        }
        return row;
    }

    int gain(const std::vector<int> & row) {
        int n = 0;
        for (size_t a = 0; a < row.size(); ++a) {
            for (size_t b = a + 1; b < row.size(); ++b) {
                n += at(a, row[a], b, row[b]);
            }
        }
        return n;
    }

    // Looks for a row that lets the two values meet; small random changes repair one that is not possible.
    bool find(size_t a, int va, size_t b, int vb, std::vector<int> & best) {
        int best_gain = 0;
        for (int attempt = 0; attempt < 40; ++attempt) {
            std::vector<int> row = grow(a, va, b, vb);
            for (int i = 0; i < 60 && !possible(build(row), max_cost); ++i) {
                const size_t p = random.below((uint32_t) params.size());
                if (p != a && p != b) {
                    row[p] = (int) random.below((uint32_t) params[p].n_values);
                }
            }
            if (possible(build(row), max_cost) && gain(row) > best_gain) {
                best_gain = gain(row);
                best      = row;
            }
        }
        return best_gain > 0;
    }

    void run(std::vector<align_case> & cases) {
        for (size_t a = 0; a < params.size(); ++a) {
            for (size_t b = a + 1; b < params.size(); ++b) {
                for (int i = 0; i < (int) open[a][b].size(); ++i) {
                    const int        va = i / params[b].n_values;
                    const int        vb = i % params[b].n_values;
                    std::vector<int> row;
                    if (at(a, va, b, vb) == 0 || !find(a, va, b, vb, row)) {
                        continue; // have met, or cannot meet
                    }
                    for (size_t x = 0; x < row.size(); ++x) {
                        for (size_t y = x + 1; y < row.size(); ++y) {
                            at(x, row[x], y, row[y]) = 0;
                        }
                    }
                    cases.push_back(build(row));
                }
            }
        }
    }
};

} // namespace

void add_cover(std::vector<align_case> & cases, uint64_t seed, int64_t max_cost, const std::vector<head_dims> & dims,
               const std::vector<int> & shifts) {
    cover(seed, max_cost, make_parameters(dims, shifts)).run(cases);
}
