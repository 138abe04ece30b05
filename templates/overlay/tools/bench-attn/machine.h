#pragma once

#include "cpu-backend.h"

#include <cstdint>
#include <string>
#include <vector>

// bytes in memory
struct span {
    const char * data;
    size_t       size;
};

// A pass over memory on all threads: reads it, or copies it to `to`.
struct sweep {
    std::vector<span> spans;
    char *            to = nullptr;

    size_t bytes() const;
};

// what this machine can do with a number of threads, per second
struct machine_rates {
    int    n_threads;
    double read; // bytes, from memory
    double copy; // source bytes
    double int8; // multiply-adds; 0 without vector code for them
    double f32;
};

// The CPU backend with threads of its own, which stay from one graph to the next.
class machine {
  public:
    machine();
    ~machine();

    machine(const machine &)             = delete;
    machine & operator=(const machine &) = delete;

    void set_n_threads(int n);

    double compute(ggml_cgraph * graph); // returns the seconds that it took
    double run(const sweep & s);         // likewise
    double run(ggml_custom_op_t share, const void * data);
    void   flush();                      // evicts the CPU's caches

    machine_rates measure_rates(int n_threads);

    std::string kernel_name(ggml_type type) const;

    ggml_backend_t get() const { return backend.get(); }

  private:
    void reserve_scratch();

    ggml_backend_ptr  backend;
    ggml_threadpool * pool = nullptr;
    std::vector<char> scratch;

    ggml_threadpool * (*pool_new)(ggml_threadpool_params *) = nullptr;
    void (*pool_free)(ggml_threadpool *)                    = nullptr;
    void (*pool_set)(ggml_backend_t, ggml_threadpool *)     = nullptr;
    ggml_backend_set_n_threads_t set_threads                = nullptr;
    kernel_name_function         name_function              = nullptr;
};

// One run of a graph, under a name that an instruction counter can be told (callgrind --toggle-collect).
extern "C" void bench_attn_counted(machine * m, ggml_cgraph * graph);
