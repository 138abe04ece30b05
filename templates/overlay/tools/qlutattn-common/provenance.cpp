#include "provenance.h"

#include "cpu-backend.h"
#include "json-text.h"
#include "provenance-build.h"    // by cmake: compiler and flags
#include "qlutattn-provenance.h" // by qlutattn build, at the top of the build folder; empty without it

#include "ggml.h"

#include <cstring>
#include <fstream>

#ifndef QLUTATTN_TEMPLATES
#    define QLUTATTN_TEMPLATES ""
#endif
#ifndef QLUTATTN_SERIES
#    define QLUTATTN_SERIES ""
#endif
#ifndef QLUTATTN_UPSTREAM
#    define QLUTATTN_UPSTREAM ""
#endif
#ifndef QLUTATTN_TREE
#    define QLUTATTN_TREE ""
#endif

namespace {

struct fact {
    const char * name;
    std::string  value; // empty: not known
};

std::string joined(const std::vector<std::string> & words) {
    std::string out;
    for (const std::string & word : words) {
        out += (out.empty() ? "" : " ") + word;
    }
    return out;
}

std::vector<fact> facts() {
    const ggml_backend_dev_t cpu = cpu_device();
    return {
        { "templates",    QLUTATTN_TEMPLATES                           },
        { "series",       QLUTATTN_SERIES                              },
        { "upstream",     QLUTATTN_UPSTREAM                            },
        { "tree",         QLUTATTN_TREE                                },
        { "ggml",         std::string(ggml_version())                  },
        { "compiler",     BUILD_COMPILER                               },
        { "flags",        BUILD_FLAGS                                  },
        { "kernel_flags", BUILD_KERNEL_FLAGS                           },
        { "build_type",   BUILD_TYPE                                   },
        { "isa",          joined(cpu_features())                       },
        { "cpu",          cpu ? ggml_backend_dev_description(cpu) : "" },
    };
}

} // namespace

std::vector<std::string> cpu_features() {
    std::vector<std::string> names;
    const ggml_backend_dev_t cpu = cpu_device();
    const ggml_backend_reg_t reg = cpu ? ggml_backend_dev_backend_reg(cpu) : nullptr;
    const auto               get = reg ? (ggml_backend_get_features_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features") : nullptr;
    for (const ggml_backend_feature * f = get ? get(reg) : nullptr; f && f->name; ++f) {
        if (strcmp(f->value, "0") != 0) {
            names.push_back(strcmp(f->value, "1") == 0 ? f->name : std::string(f->name) + "=" + f->value);
        }
    }
    return names;
}

void print_provenance(FILE * file) {
    const char * unknown = *QLUTATTN_TREE ? "unknown" : "unknown (built without qlutattn)";
    for (const fact & f : facts()) {
        fprintf(file, "%-12s  %s\n", f.name, f.value.empty() ? unknown : f.value.c_str());
    }
}

std::string provenance_json() {
    std::string out = "{";
    for (const fact & f : facts()) {
        out += (out.size() > 1 ? ", " : "") + json_text(f.name) + ": " + (f.value.empty() ? "null" : json_text(f.value));
    }
    return out + "}";
}

bool write_provenance(const std::string & path) {
    std::ofstream out(path);
    out << provenance_json() << "\n";
    out.close();
    return out.good();
}
