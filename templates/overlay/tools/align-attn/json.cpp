#include "report.h"

#include <fstream>
#include <iomanip>
#include <sstream>

static std::string text(const std::string & s) {
    std::ostringstream out;
    out << '"';
    for (unsigned char c : s) {
        if (c == '"' || c == '\\') {
            out << '\\' << c;
        } else if (c < 0x20) {
            out << "\\u00" << std::hex << std::setw(2) << std::setfill('0') << (int) c << std::dec;
        } else {
            out << c;
        }
    }
    out << '"';
    return out.str();
}

// JSON has no NaN and no Inf
static std::string number(double x) {
    if (!std::isfinite(x)) {
        return "null";
    }
    std::ostringstream out;
    out << std::setprecision(9) << x;
    return out.str();
}

static std::string list(const std::vector<std::string> & items) {
    std::string out = "[";
    for (size_t i = 0; i < items.size(); ++i) {
        out += (i ? ", " : "") + text(items[i]);
    }
    return out + "]";
}

bool write_json(const report & r, const std::string & path) {
    std::ofstream out(path);
    out << "{\"schema\": 1, \"ok\": " << (r.ok() ? "true" : "false") << ", \"isa\": " << list(r.isa);
    out << ", \"passed\": " << r.verdicts.size() - r.failed() << ", \"failed\": " << r.failed() << ", \"cases\": [";
    const char * separator = "\n";
    for (const verdict & v : r.verdicts) {
        const align_case & c = v.c;
        out << separator << "{\"id\": " << text(c.id);
        out << ", \"type_k\": " << text(ggml_type_name(c.type_k())) << ", \"type_v\": " << text(ggml_type_name(c.type_v()));
        out << ", \"n_q\": " << c.n_q << ", \"n_kv_packed\": " << c.n_packed() << ", \"n_kv_f16\": " << c.n_f16;
        out << ", \"heads_per_group\": " << c.group << ", \"head_dim\": " << c.head_dim << ", \"kernel\": " << text(v.kernel());
        out << ", \"nmse_codes\": " << number(v.nmse_codes) << ", \"nmse_f32\": " << number(v.nmse_values);
        out << ", \"nmse_f32_bound\": " << number(v.bound_values) << ", \"nmse_upstream\": " << number(v.nmse_upstream);
        out << ", \"nmse_torch\": " << number(v.nmse_torch) << ", \"max_abs_err\": " << number(v.max_abs_err);
        out << ", \"tolerance\": " << number(v.tolerance) << ", \"worst_ratio\": " << number(v.worst_ratio);
        out << ", \"ok\": " << (v.ok() ? "true" : "false") << ", \"faults\": " << list(v.faults) << "}";
        separator = ",\n";
    }
    out << "\n]}\n";
    out.close();
    return out.good();
}
