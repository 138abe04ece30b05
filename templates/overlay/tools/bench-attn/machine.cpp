#include "machine.h"

#include "clock.h"
#include "peak.h"
#include "row.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>

#ifdef __linux__
#    include <unistd.h>
#endif

static constexpr size_t MIB = 1024 * 1024;

// Four times the largest cache, since caches do not forget in order.
static size_t flush_size() {
    long cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return std::max<size_t>(256 * MIB, cache > 0 ? 4 * (size_t) cache : 0);
}

size_t sweep::bytes() const {
    size_t n = 0;
    for (const span & s : spans) {
        n += s.size;
    }
    return n;
}

// Sums are kept, so that the reading is not optimised away.
static std::atomic<uint64_t> g_sink;

static uint64_t sum_of(const char * data, size_t size) {
    constexpr int N      = 16; // independent sums, so that compilers vectorise
    uint64_t      sum[N] = { 0 };
    for (size_t i = 0; i + sizeof(sum) <= size; i += sizeof(sum)) {
        uint64_t words[N];
        memcpy(words, data + i, sizeof(words));
        for (int j = 0; j < N; ++j) {
            sum[j] += words[j];
        }
    }
    uint64_t total = 0;
    for (uint64_t s : sum) {
        total += s;
    }
    return total;
}

// Each thread takes a contiguous share of all the bytes.
static void sweep_share(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const sweep & s     = *(const sweep *) userdata;
    const size_t  share = (s.bytes() / nth + 127) / 128 * 128;
    const size_t  first = share * ith;
    const size_t  last  = ith == nth - 1 ? s.bytes() : std::min(s.bytes(), first + share);
    size_t        at    = 0;
    uint64_t      total = 0;
    for (const span & part : s.spans) {
        const size_t from = std::max(first, at);
        const size_t to   = std::min(last, at + part.size);
        if (from < to && s.to) {
            memcpy(s.to + from, part.data + (from - at), to - from);
        } else if (from < to) {
            total += sum_of(part.data + (from - at), to - from);
        }
        at += part.size;
    }
    g_sink += total;
    (void) dst;
}

machine::machine() : backend(start_cpu_backend()) {
    find_cpu_function(backend.get(), "ggml_threadpool_new", pool_new);
    find_cpu_function(backend.get(), "ggml_threadpool_free", pool_free);
    find_cpu_function(backend.get(), "ggml_backend_cpu_set_threadpool", pool_set);
    find_cpu_function(backend.get(), "ggml_backend_set_n_threads", set_threads);
    find_cpu_function(backend.get(), "ggml_qlutattn_kernel_name", name_function);
}

machine::~machine() {
    if (pool) {
        pool_set(backend.get(), nullptr);
        pool_free(pool);
    }
}

void machine::set_n_threads(int n) {
    if (pool) {
        pool_set(backend.get(), nullptr);
        pool_free(pool);
    }
    ggml_threadpool_params params = ggml_threadpool_params_default(n);
    pool                          = pool_new(&params);
    if (!pool) {
        throw std::runtime_error("ggml cannot start " + std::to_string(n) + " threads");
    }
    set_threads(backend.get(), n);
    pool_set(backend.get(), pool);
}

double machine::compute(ggml_cgraph * graph) {
    const double start = now();
    if (ggml_backend_graph_compute(backend.get(), graph) != GGML_STATUS_SUCCESS) {
        throw std::runtime_error("the CPU backend failed to compute a graph");
    }
    return now() - start;
}

double machine::run(const sweep & s) {
    return run(sweep_share, &s);
}

// share is called once on each thread
double machine::run(ggml_custom_op_t share, const void * data) {
    ggml_init_params params = { ggml_tensor_overhead() * 4 + ggml_graph_overhead_custom(4, false) + 1024, nullptr, false };
    ggml_context_ptr ctx(ggml_init(params));
    ggml_cgraph *    graph = ggml_new_graph_custom(ctx.get(), 4, false);
    ggml_build_forward_expand(graph, ggml_custom_4d(ctx.get(), GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, share, GGML_N_TASKS_MAX, (void *) data));
    return compute(graph);
}

void machine::reserve_scratch() {
    if (scratch.empty()) {
        scratch.assign(flush_size(), 1);
    }
}

void machine::flush() {
    reserve_scratch();
    run({ { { scratch.data(), scratch.size() } } });
}

template <int64_t (*multiply_add)()> static void multiply_share(ggml_tensor *, int, int, void *) {
    multiply_add();
}

// multiply-adds per second, in the fastest of several runs: what the machine can do is not a matter of the median
template <int64_t (*multiply_add)()> static double rate_of(machine & m, int n_threads) {
    const int64_t n       = multiply_add() * n_threads;
    double        fastest = INFINITY;
    for (int i = 0; i < 15; ++i) {
        fastest = std::min(fastest, m.run(multiply_share<multiply_add>, nullptr));
    }
    return n / fastest;
}

machine_rates machine::measure_rates(int n_threads) {
    reserve_scratch();
    set_n_threads(n_threads);
    const size_t        half = scratch.size() / 2;
    const sweep         all  = { { { scratch.data(), scratch.size() } } };
    const sweep         copy = { { { scratch.data(), half } }, scratch.data() + half };
    std::vector<double> read_seconds, copy_seconds;
    run(all);
    for (int i = 0; i < 7; ++i) {
        read_seconds.push_back(run(all));
        copy_seconds.push_back(run(copy));
    }
    const double read   = scratch.size() / quantile(read_seconds, 0.5);
    const double copied = half / quantile(copy_seconds, 0.5);
    return { n_threads, read, copied, rate_of<multiply_add_int8>(*this, n_threads), rate_of<multiply_add_f32>(*this, n_threads) };
}

std::string machine::kernel_name(ggml_type type) const {
    return name_of_kernel(name_function, type);
}

extern "C"
#ifdef __GNUC__
    __attribute__((noinline))
#endif
    void
    bench_attn_counted(machine * m, ggml_cgraph * graph) {
    m->compute(graph);
}
