#include "report.h"

#include <fstream>

static std::string escaped(const std::string & s) {
    std::string out;
    for (char c : s) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

bool write_junit(const report & r, const std::string & path) {
    std::ofstream out(path);
    out << "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    out << "<testsuite name=\"align_attn\" tests=\"" << r.verdicts.size() << "\" failures=\"" << r.failed() << "\" errors=\"0\" time=\"" << r.seconds
        << "\">\n";
    for (const verdict & v : r.verdicts) {
        out << "  <testcase classname=\"align_attn." << escaped(ggml_type_name(v.c.type_k())) << "." << escaped(ggml_type_name(v.c.type_v()))
            << "\" name=\"" << escaped(v.c.id) << "\" time=\"" << v.seconds << "\"";
        if (v.ok()) {
            out << "/>\n";
            continue;
        }
        out << ">\n    <failure message=\"" << escaped(v.faults.front()) << "\">";
        for (const std::string & fault : v.faults) {
            out << escaped(fault) << "\n";
        }
        out << escaped("repeat: " + repeat_command(v.c.id)) << "</failure>\n  </testcase>\n";
    }
    out << "</testsuite>\n";
    out.close();
    return out.good();
}
