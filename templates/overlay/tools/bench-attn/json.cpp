#include "json-text.h"
#include "provenance.h"
#include "result.h"

#include <algorithm>
#include <fstream>

const machine_rates & bench_result::rates_of(int n_threads) const {
    return *std::find_if(rates.begin(), rates.end(), [&](const machine_rates & one) { return one.n_threads == n_threads; });
}

static std::string number(double x) {
    return json_number(x, 6);
}

static std::string type_text(ggml_type type) {
    return type == GGML_TYPE_COUNT ? "null" : json_text(ggml_type_name(type));
}

bool write_json(const bench_result & r, const std::string & path) {
    std::ofstream out(path);
    out << "{\"schema\": 1, \"caches\": " << (r.is_cold ? "\"cold\"" : "\"warm\"") << ", \"layout\": " << (r.by_head ? "\"heads\"" : "\"tokens\"");
    out << ", \"isa\": " << json_list(cpu_features()) << ", \"build\": " << provenance_json();
    out << ", \"bandwidth\": [";
    for (size_t i = 0; i < r.rates.size(); ++i) {
        const machine_rates & rates = r.rates[i];
        out << (i ? ", " : "") << "{\"threads\": " << rates.n_threads << ", \"read_gbps\": " << number(rates.read / 1e9);
        out << ", \"memcpy_gbps\": " << number(rates.copy / 1e9) << "}";
    }
    out << "], \"peak\": [";
    for (size_t i = 0; i < r.rates.size(); ++i) {
        const machine_rates & rates = r.rates[i];
        out << (i ? ", " : "") << "{\"threads\": " << rates.n_threads << ", \"int8_gmacs\": " << number(rates.int8 / 1e9);
        out << ", \"f32_gmacs\": " << number(rates.f32 / 1e9) << "}";
    }
    out << "], \"rows\": [";
    const char * separator = "\n";
    for (const bench_row & row : r.rows) {
        const double median = quantile(row.seconds, 0.5);
        out << separator << "{\"id\": " << json_text(row.id()) << ", \"work\": " << json_text(work_name(row.work)) << ", \"n_q\": " << row.n_q();
        out << ", \"n_kv\": " << row.n_kv << ", \"threads\": " << row.n_threads << ", \"cache\": " << json_text(row.cache.name);
        out << ", \"type_k\": " << type_text(row.cache.type_k) << ", \"type_v\": " << type_text(row.cache.type_v);
        out << ", \"window\": " << row.cache.window << ", \"kernel\": " << json_text(row.kernel) << ", \"bytes\": " << row.bytes;
        out << ", \"rounds\": " << row.seconds.size() << ", \"median_ms\": " << number(median * 1e3);
        out << ", \"min_ms\": " << number(quantile(row.seconds, 0) * 1e3);
        out << ", \"spread\": " << number((quantile(row.seconds, 0.75) - quantile(row.seconds, 0.25)) / median);
        out << ", \"floor_ms\": " << number(quantile(row.floor, 0.5) * 1e3);
        out << ", \"peak_ms\": " << number(row.seconds_at_peak(r.rates_of(row.n_threads)) * 1e3) << "}";
        separator = ",\n";
    }
    out << "\n]}\n";
    out.close();
    return out.good();
}
