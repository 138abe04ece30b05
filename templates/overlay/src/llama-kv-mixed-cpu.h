#pragma once

// Graphs of the mixed KV cache's own, computed on the CPU between those of the model.

#include "ggml-cpp.h"

#include <utility>
#include <vector>

class llama_kv_mixed_cpu {
  public:
    // tensors that a graph takes as they are, and their data
    using inputs = std::vector<std::pair<ggml_tensor *, const void *>>;

    explicit llama_kv_mixed_cpu(int n_threads);

    // false, with nothing changed, if there is no memory for it
    bool compute(ggml_cgraph * gf, const inputs & in);

  private:
    ggml_backend_ptr backend;
    ggml_gallocr_ptr galloc;
};
