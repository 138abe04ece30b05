#include "json-text.h"
#include "provenance.h"
#include "report.h"

#include <fstream>

static std::string number(double x) {
    return json_number(x, 9);
}

bool write_json(const report & r, const std::string & path) {
    std::ofstream out(path);
    out << "{\"schema\": 1, \"ok\": " << (r.ok() ? "true" : "false") << ", \"isa\": " << json_list(cpu_features());
    out << ", \"build\": " << provenance_json();
    out << ", \"passed\": " << r.verdicts.size() - r.failed() << ", \"failed\": " << r.failed() << ", \"cases\": [";
    const char * separator = "\n";
    for (const verdict & v : r.verdicts) {
        const align_case & c = v.c;
        out << separator << "{\"id\": " << json_text(c.id);
        out << ", \"type_k\": " << json_text(ggml_type_name(c.type_k())) << ", \"type_v\": " << json_text(ggml_type_name(c.type_v()));
        out << ", \"n_q\": " << c.n_q << ", \"n_kv_packed\": " << c.n_packed() << ", \"n_kv_f16\": " << c.n_f16;
        out << ", \"heads_per_group\": " << c.group << ", \"head_dim\": " << c.dims.k << ", \"head_dim_v\": " << c.dims.v
            << ", \"kernel\": " << json_text(v.kernel());
        out << ", \"nmse_codes\": " << number(v.nmse_codes) << ", \"nmse_f32\": " << number(v.nmse_values);
        out << ", \"nmse_f32_bound\": " << number(v.bound_values) << ", \"nmse_upstream\": " << number(v.nmse_upstream);
        out << ", \"nmse_torch\": " << number(v.nmse_torch) << ", \"max_abs_err\": " << number(v.max_abs_err);
        out << ", \"tolerance\": " << number(v.tolerance) << ", \"worst_ratio\": " << number(v.worst_ratio);
        out << ", \"seconds\": " << number(v.seconds);
        out << ", \"ok\": " << (v.ok() ? "true" : "false") << ", \"faults\": " << json_list(v.faults) << "}";
        separator = ",\n";
    }
    out << "\n]}\n";
    out.close();
    return out.good();
}
