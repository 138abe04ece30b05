#pragma once

// Graphs of the mixed KV cache's own, computed on the CPU between those of the model.

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <utility>
#include <vector>

struct llama_cparams;

class llama_kv_mixed_cpu {
  public:
    // tensors that a graph takes as they are, and their data
    using inputs = std::vector<std::pair<ggml_tensor *, const void *>>;

    // as many threads as a context has for batches at that time; null: ggml's default
    explicit llama_kv_mixed_cpu(const llama_cparams * cparams);

    // false, with nothing changed, if there is no memory for it
    bool compute(ggml_cgraph * gf, const inputs & in);

  private:
    const llama_cparams * cparams;
    ggml_backend_ptr      backend;
    ggml_gallocr_ptr      galloc;

    ggml_backend_set_n_threads_t set_n_threads = nullptr;
};
