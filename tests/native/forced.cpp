// What GGML_QLUTATTN_KERNEL forces: prints the kernel and the implementation, then what was logged.

#include "qlutattn-env.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>

static std::string logged;

// instead of ggml's
extern "C" void ggml_log_internal(enum ggml_log_level, const char * format, ...) {
    char    line[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    logged += line;
}

extern "C" void ggml_abort(const char *, int, const char *, ...) {
    abort();
}

int main() {
    for (int i = 0; i < 2; i++) { // what was wrong is reported once
        qlutattn_kernel kernel = QLUTATTN_KERNEL_DOT;
        const bool      forced = qlutattn_forced_kernel(kernel);
        printf("%s %s\n", !forced ? "none" : kernel == QLUTATTN_KERNEL_LUT ? "lut" : "dot", qlutattn_is_scalar_forced() ? "scalar" : "fastest");
    }
    printf("%s", logged.c_str());
}
