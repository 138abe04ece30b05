#pragma once

#include "case.h"
#include "cpu-backend.h"
#include "data.h"
#include "reference.h"

// What the CPU backend computed for a case.
struct device_result {
    std::vector<float>       out;    // [head_dim_v, n_head, n_q, n_batch], innermost first
    std::vector<uint8_t>     kp;     // the tiles: batch, column, tile
    std::vector<uint8_t>     vp;
    std::vector<float>       ku;     // the tiles, unpacked: [TILE, n_packed, n_cols, n_batch], innermost first; empty where a side is f16
    std::vector<float>       vu;
    std::vector<std::string> faults; // memory that changed and must not, and nodes that the backend refused
};

// The CPU backend of ggml, and the names of its kernels.
class device {
  public:
    device();

    device_result      run_mixed(const align_case & c, const case_data & data, int n_threads);
    // Upstream's attention on the whole sequence in f16; V times v_scale, which must be a power of two, in and out.
    std::vector<float> run_upstream(const align_case & c, const case_data & data, float v_scale);

    std::string kernel_name(ggml_type type) const; // "lut-avx2", "dot-scalar", ...; "f16"

  private:
    void compute(ggml_cgraph * graph, int n_threads);

    ggml_backend_ptr             backend;
    ggml_backend_set_n_threads_t set_n_threads = nullptr;
    kernel_name_function         name_function = nullptr;
};
