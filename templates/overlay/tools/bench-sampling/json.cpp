#include "json-text.h"
#include "provenance.h"
#include "result.h"

#include "ggml-select.h"

#include <fstream>

static std::string side_text(const std::vector<double> & seconds) {
    const double median = quantile(seconds, 0.5);
    return "{\"median_us\": " + json_number(median * 1e6, 6) + ", \"min_us\": " + json_number(quantile(seconds, 0) * 1e6, 6) +
           ", \"spread\": " + json_number((quantile(seconds, 0.75) - quantile(seconds, 0.25)) / median, 6) + "}";
}

bool write_json(const std::vector<sampling_row> & rows, const std::string & path) {
    std::ofstream out(path);
    out << "{\"schema\": 1, \"kernel\": " << json_text(ggml_select_kernel());
    out << ", \"isa\": " << json_list(cpu_features()) << ", \"build\": " << provenance_json() << ", \"rows\": [";
    const char * separator = "\n";
    for (const sampling_row & row : rows) {
        out << separator << "{\"id\": " << json_text(row.id()) << ", \"chain\": " << json_text(row.chain);
        out << ", \"vocab\": " << row.n_vocab << ", \"logits\": " << json_text(row.logits) << ", \"kept\": " << row.kept;
        out << ", \"tokens\": " << row.n_tokens << ", \"different\": " << row.n_different;
        out << ", \"stock\": " << side_text(row.stock) << ", \"select\": " << side_text(row.select) << "}";
        separator = ",\n";
    }
    out << "\n]}\n";
    out.close();
    return out.good();
}
