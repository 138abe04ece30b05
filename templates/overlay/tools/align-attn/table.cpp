#include "report.h"

#include "torch.h"

int report::failed() const {
    int n = 0;
    for (const verdict & v : verdicts) {
        n += !v.ok();
    }
    return n;
}

std::string repeat_command(const std::string & id) {
    return "align_attn --filter '^" + id + "$'";
}

static void print_number(FILE * file, double x, int width) {
    if (std::isnan(x)) {
        fprintf(file, " %*s", width, "-");
    } else {
        fprintf(file, " %*.2g", width, x);
    }
}

void print_header(FILE * file) {
    fprintf(file, "%-64s %-18s %8s %8s %8s %8s %8s %8s%s\n", "case", "kernel", "err/tol", "codes", "f32", "bound", "f16", "up/f32",
            torch_version().empty() ? "" : "    torch");
}

void print_row(FILE * file, const verdict & v) {
    fprintf(file, "%-64s %-18s", v.c.id.c_str(), v.kernel().c_str());
    for (double x : { v.worst_ratio, v.nmse_codes, v.nmse_values, v.bound_values, v.nmse_upstream, v.nmse_sanity }) {
        print_number(file, x, 8);
    }
    if (!torch_version().empty()) {
        print_number(file, v.nmse_torch, 8);
    }
    fprintf(file, "%s\n", v.ok() ? "" : "  FAIL");
    for (const std::string & fault : v.faults) {
        fprintf(file, "    %s\n", fault.c_str());
    }
    if (!v.ok()) {
        fprintf(file, "    repeat: %s\n", repeat_command(v.c.id).c_str());
    }
}

void print_summary(FILE * file, const report & r) {
    fprintf(file, "\n");
    for (const verdict & v : r.verdicts) {
        if (!v.ok()) {
            fprintf(file, "failed: %s\n", v.c.id.c_str());
        }
    }
    fprintf(file, "%s: %zu cases, %d failed, %.1f s\n", r.ok() ? "PASS" : "FAIL", r.verdicts.size(), r.failed(), r.seconds);
}
