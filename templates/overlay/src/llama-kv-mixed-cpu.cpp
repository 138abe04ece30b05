#include "llama-kv-mixed-cpu.h"

#include "ggml-alloc.h"
#include "llama-cparams.h"

#include <stdexcept>

llama_kv_mixed_cpu::llama_kv_mixed_cpu(const llama_cparams * cparams) :
    cparams(cparams),
    backend(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr)),
    galloc(ggml_gallocr_new(ggml_backend_cpu_buffer_type())) {
    if (!backend || !galloc) {
        throw std::runtime_error("failed to start the CPU backend of the KV cache");
    }
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend.get()));
    set_n_threads          = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
}

bool llama_kv_mixed_cpu::compute(ggml_cgraph * gf, const inputs & in) {
    if (!ggml_gallocr_alloc_graph(galloc.get(), gf)) {
        return false;
    }
    for (const auto & [tensor, data] : in) {
        if (tensor->buffer) { // some node takes it
            ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
        }
    }
    if (cparams && set_n_threads) {
        set_n_threads(backend.get(), cparams->n_threads_batch);
    }
    // nothing was written yet if this fails: it needs no more memory, and nothing aborts it
    return ggml_backend_graph_compute(backend.get(), gf) == GGML_STATUS_SUCCESS;
}
