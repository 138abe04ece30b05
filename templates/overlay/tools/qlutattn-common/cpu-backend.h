#pragma once

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <string>

// ggml's CPU device, or null; loads the backends first where a build has them as shared libraries
ggml_backend_dev_t cpu_device();

// Throws std::runtime_error where there is no CPU backend.
ggml_backend_ptr start_cpu_backend();

// One of the functions that the CPU backend exports by name; throws std::runtime_error where it is missing.
void * find_cpu_function(ggml_backend_t backend, const char * name);

template <typename F> void find_cpu_function(ggml_backend_t backend, const char * name, F & function) {
    function = reinterpret_cast<F>(find_cpu_function(backend, name));
}

// The kernel that multiplies packed tiles of a type: "lut-avx2", "dot-scalar", ...
using kernel_name_function = const char * (*) (enum ggml_type type);

// Throws std::runtime_error where the backend has no kernel for the type.
std::string name_of_kernel(kernel_name_function function, ggml_type type);
