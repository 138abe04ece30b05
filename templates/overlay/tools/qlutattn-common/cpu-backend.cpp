#include "cpu-backend.h"

#include <stdexcept>

ggml_backend_dev_t cpu_device() {
    if (!ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)) {
        ggml_backend_load_all();
    }
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

ggml_backend_ptr start_cpu_backend() {
    const ggml_backend_dev_t cpu = cpu_device();
    ggml_backend_ptr         backend(cpu ? ggml_backend_dev_init(cpu, nullptr) : nullptr);
    if (!backend) {
        throw std::runtime_error("ggml has no CPU backend here");
    }
    return backend;
}

void * find_cpu_function(ggml_backend_t backend, const char * name) {
    void * function = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(ggml_backend_get_device(backend)), name);
    if (!function) {
        throw std::runtime_error(std::string("the CPU backend has no ") + name + ": was it built with GGML_QLUTATTN?");
    }
    return function;
}

std::string name_of_kernel(kernel_name_function function, ggml_type type) {
    const char * name = function(type);
    if (!name) {
        throw std::runtime_error(std::string("the CPU backend names no kernel for ") + ggml_type_name(type));
    }
    return name;
}
