#include "group.h"

#include "ggml-qlutattn.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

static constexpr int    MAX_ROUNDS = 51;
static constexpr double LONG_RUN   = 0.1; // seconds; for longer runs the contents of the caches do not matter

namespace {

// a row with its graph
struct job {
    bench_row *   row;
    ggml_cgraph * graph;
    sweep         floor;
};

// the tokens [first, first + n)
ggml_tensor * view_tokens(ggml_context * ctx, ggml_tensor * t, int64_t first, int64_t n) {
    return ggml_view_3d(ctx, t, t->ne[0], n, t->ne[2], t->nb[1], t->nb[2], first * t->nb[1]);
}

// The bytes of these tokens. In a permuted tensor they are contiguous, all heads of each; else per head (in tiles: per column).
void add_spans(sweep & floor, const ggml_tensor * t, int64_t first, int64_t n) {
    const char * start = (const char *) t->data + first * t->nb[1];
    if (t->nb[2] < t->nb[1]) {
        floor.spans.push_back({ start, n * t->nb[1] });
        return;
    }
    for (int64_t i = 0; i < t->ne[2]; ++i) {
        floor.spans.push_back({ start + i * t->nb[2], n * t->nb[1] });
    }
}

int64_t n_window(const bench_row & row) {
    return row.cache.is_upstream() ? 0 : std::min(row.cache.window, row.n_kv);
}

// how far query i sees into the n keys from the first one on: the queries are the newest tokens
int64_t n_seen(const bench_row & row, int64_t i, int64_t first, int64_t n) {
    return std::clamp<int64_t>(row.n_kv - row.n_q() + i + 1 - first, 0, n);
}

// whether the window is computed in 8 bits: with few queries it is not
bool computes_int8(const bench_row & row) {
    return row.cache.int8 && row.work == work_kind::prefill;
}

void count_products(bench_row & row, const geometry & shape) {
    const cache_kind & c = row.cache;
    if (row.work == work_kind::pack || (c.is_upstream() && (c.type_k != GGML_TYPE_F16 || c.type_v != GGML_TYPE_F16))) {
        return;
    }
    const int64_t per_key = shape.n_head * (shape.head_dim + shape.head_dim_v);
    const int64_t n_old   = row.n_kv - n_window(row);
    for (int64_t i = 0; i < row.n_q(); ++i) {
        (computes_int8(row) ? row.n_int8 : row.n_f32) += n_seen(row, i, n_old, row.n_kv - n_old) * per_key;
        if (!c.is_window()) {
            (c.is_upstream() ? row.n_f32 : row.n_int8) += n_seen(row, i, 0, n_old) * per_key;
        }
    }
}

// The tensors and graphs of a group.
class group {
  public:
    group(machine & m, caches & kv, const std::vector<bench_row *> & rows) : kv(kv) {
        const size_t     n      = rows.size();
        ggml_init_params params = { ggml_tensor_overhead() * (16 * n + 16) + n * ggml_graph_overhead_custom(8, false), nullptr, true };
        owner.reset(ggml_init(params));
        ctx                     = owner.get();
        const bench_row & first = *rows[0];
        n_q                     = first.n_q();
        if (first.work == work_kind::pack) {
            copy_target = kv.new_tensor(ctx, GGML_TYPE_F16, false);
        } else {
            q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, kv.shape.head_dim, kv.shape.n_head, n_q); // permuted below, as llama.cpp has it
        }
        for (bench_row * row : rows) {
            job           j   = { row, ggml_new_graph_custom(ctx, 8, false), {} };
            ggml_tensor * out = row->work == work_kind::pack ? packing(*row, j.floor) : attention(*row, j.floor);
            ggml_build_forward_expand(j.graph, out);
            row->kernel = kernel_of(m, *row, kv.n_kv);
            count_products(*row, kv.shape);
            jobs.push_back(j);
        }
        buffer.reset(ggml_backend_alloc_ctx_tensors(ctx, m.get()));
        if (!buffer) {
            throw std::runtime_error("there is not enough memory for " + first.group());
        }
        for (const job & j : jobs) {
            for (int i = 0; i < ggml_graph_n_nodes(j.graph); ++i) {
                if (!ggml_backend_supports_op(m.get(), ggml_graph_node(j.graph, i))) {
                    throw std::runtime_error("the CPU backend refuses " + j.row->id());
                }
            }
        }
        fill();
    }

    std::vector<job> jobs;

  private:
    // Newest tokens as f16, older ones packed; either may be all of them.
    ggml_tensor * attention(const bench_row & row, sweep & floor) {
        const cache_kind & c        = row.cache;
        const geometry &   shape    = kv.shape;
        const int64_t      n_f16    = n_window(row);
        const int64_t      n_packed = c.is_window() ? 0 : kv.n_kv - n_f16;
        const float        scale    = 1.0f / std::sqrt((float) shape.head_dim);
        ggml_tensor *      queries  = ggml_permute(ctx, q, 0, 2, 1, 3);

        if (c.is_upstream()) {
            ggml_tensor * k = part(kv.keys(c.type_k), 0, kv.n_kv, floor);
            ggml_tensor * v = shape.is_latent ? first_channels(k) : part(kv.values(c.type_v), 0, kv.n_kv, floor);
            return ggml_flash_attn_ext(ctx, queries, k, v, mask(0, kv.n_kv), scale, 0, 0);
        }
        ggml_tensor * k  = nullptr;
        ggml_tensor * v  = nullptr;
        ggml_tensor * kp = nullptr;
        ggml_tensor * vp = nullptr;
        if (n_f16 > 0) {
            k = part(kv.keys(GGML_TYPE_F16), kv.n_kv - n_f16, n_f16, floor);
            v = shape.is_latent ? nullptr : part(kv.values(GGML_TYPE_F16), kv.n_kv - n_f16, n_f16, floor);
        }
        if (n_packed > 0) {
            kp = part(kv.keys(c.type_k), 0, n_packed, floor);
            vp = shape.is_latent ? nullptr : part(kv.values(c.type_v), 0, n_packed, floor);
        }
        ggml_tensor * out =
            ggml_flash_attn_ext_mixed(ctx, queries, k, v, n_f16 > 0 ? mask(kv.n_kv - n_f16, n_f16) : nullptr, kp, vp,
                                      n_packed > 0 ? mask(0, n_packed) : nullptr, nullptr, shape.n_head_kv, shape.head_dim_v, scale, 0, 0);
        if (c.shifts > 0 && n_packed > 0) {
            shifted_queries.push_back(ggml_new_tensor_4d(ctx, GGML_TYPE_F32, shape.head_dim, shape.n_head, n_q, c.shifts));
            tile_shifts.push_back(ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_packed / GGML_QLUTATTN_TILE));
            ggml_flash_attn_ext_mixed_set_shifts(out, ggml_permute(ctx, shifted_queries.back(), 0, 2, 1, 3), tile_shifts.back());
        }
        if (c.int8) {
            ggml_flash_attn_ext_mixed_set_int8(out, 1.0f);
        }
        return out;
    }

    ggml_tensor * first_channels(ggml_tensor * k) { return ggml_view_3d(ctx, k, kv.shape.head_dim_v, k->ne[1], k->ne[2], k->nb[1], k->nb[2], 0); }

    ggml_tensor * part(ggml_tensor * t, int64_t first, int64_t n, sweep & floor) {
        add_spans(floor, t, first, n);
        return view_tokens(ctx, t, first, n);
    }

    // The floor of packing is copying the source.
    ggml_tensor * packing(const bench_row & row, sweep & floor) {
        const bool      is_value = row.cache.type_k == GGML_TYPE_COUNT;
        const ggml_type type     = is_value ? row.cache.type_v : row.cache.type_k;
        ggml_tensor *   source   = kv.source(is_value);
        floor.spans              = {
            { (const char *) source->data, ggml_nbytes(source) }
        };
        return kv.conversion(ctx, type == GGML_TYPE_F16 ? copy_target : kv.new_tensor(ctx, type, is_value), is_value);
    }

    // The queries are the newest n_q tokens: each sees the keys in [first, first + n) up to its own position. Rows with the same range share a mask.
    ggml_tensor * mask(int64_t first, int64_t n) {
        ggml_tensor *& t = masks[{ first, n }];
        if (!t) {
            t = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, n, n_q);
        }
        return t;
    }

    void fill() {
        if (q) {
            const std::vector<float> values = random_values(3, ggml_nelements(q));
            std::copy(values.begin(), values.end(), (float *) q->data);
        }
        for (size_t i = 0; i < tile_shifts.size(); ++i) {
            const std::vector<float> values = random_values(4, ggml_nelements(shifted_queries[i]));
            std::copy(values.begin(), values.end(), (float *) shifted_queries[i]->data);
            for (int64_t tile = 0; tile < tile_shifts[i]->ne[0]; ++tile) {
                ((int32_t *) tile_shifts[i]->data)[tile] = tile % (shifted_queries[i]->ne[3] + 1);
            }
        }
        const ggml_fp16_t visible = ggml_fp32_to_fp16(0.0f);
        const ggml_fp16_t masked  = ggml_fp32_to_fp16(-INFINITY);
        for (const auto & [range, t] : masks) {
            for (int64_t i = 0; i < n_q; ++i) {
                const int64_t seen = n_seen(*jobs[0].row, i, range.first, range.second);
                ggml_fp16_t * at   = (ggml_fp16_t *) t->data + i * range.second;
                std::fill(at, at + seen, visible);
                std::fill(at + seen, at + range.second, masked);
            }
        }
        for (job & j : jobs) {
            j.floor.to   = copy_target ? (char *) copy_target->data : nullptr;
            j.row->bytes = j.floor.bytes();
        }
    }

    static std::string kernel_of(const machine & m, const bench_row & row, int64_t n_kv) {
        const cache_kind & c = row.cache;
        if (c.is_upstream()) {
            return "upstream";
        }
        if (c.is_window() || c.window >= n_kv) {
            return computes_int8(row) ? m.kernel_name(GGML_TYPE_QLUTATTN_K8_128x128) : "f16"; // the mixed op's own
        }
        if (c.type_k == GGML_TYPE_COUNT || c.type_v == GGML_TYPE_COUNT) {
            return "pack";
        }
        const std::string k = m.kernel_name(c.type_k);
        const std::string v = m.kernel_name(c.type_v);
        return k == v ? k : k + "+" + v;
    }

    caches &                                             kv;
    ggml_context_ptr                                     owner;
    ggml_context *                                       ctx;
    ggml_backend_buffer_ptr                              buffer;
    int64_t                                              n_q;
    ggml_tensor *                                        q = nullptr;
    std::vector<ggml_tensor *>                           shifted_queries;       // of one row after another
    std::vector<ggml_tensor *>                           tile_shifts;
    ggml_tensor *                                        copy_target = nullptr; // destination of the memcpy
    std::map<std::pair<int64_t, int64_t>, ggml_tensor *> masks;
};

double time_run(machine & m, const job & j, bool is_cold, double expected) {
    if (is_cold) {
        m.flush();
    } else if (expected < LONG_RUN) {
        m.compute(j.graph);
    }
    return m.compute(j.graph);
}

double time_floor(machine & m, const job & j, bool is_cold) {
    if (is_cold) {
        m.flush();
    } else {
        m.run(j.floor);
    }
    return m.run(j.floor);
}

} // namespace

void measure_group(machine & m, caches & kv, const std::vector<bench_row *> & rows, const bench_params & e) {
    group g(m, kv, rows);
    if (e.count_only) {
        for (const job & j : g.jobs) {
            bench_attn_counted(&m, j.graph);
        }
        return;
    }
    std::vector<double> expected;
    double              round = 0;
    for (const job & j : g.jobs) {
        const double first = m.compute(j.graph); // touches memory for the first time
        expected.push_back(first < LONG_RUN ? m.compute(j.graph) : first);
        round += expected.back() * (expected.back() < LONG_RUN && !e.is_cold ? 2 : 1);
    }
    const int n_rounds = (int) std::clamp(e.seconds / round, (double) e.min_rounds, (double) MAX_ROUNDS);
    for (int i = 0; i < n_rounds; ++i) {
        for (size_t r = 0; r < g.jobs.size(); ++r) {
            const job & j = g.jobs[r];
            j.row->seconds.push_back(time_run(m, j, e.is_cold, expected[r]));
            j.row->floor.push_back(time_floor(m, j, e.is_cold));
        }
    }
}
