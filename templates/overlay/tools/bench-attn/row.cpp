#include "row.h"

#include "ggml-qlutattn.h"

#include <algorithm>
#include <cmath>
#include <regex>

const char * work_name(work_kind work) {
    return work == work_kind::decode ? "decode" : work == work_kind::prefill ? "prefill" : "pack";
}

bool parse_work(const std::string & name, work_kind & work) {
    for (work_kind known : { work_kind::decode, work_kind::prefill, work_kind::pack }) {
        if (name == work_name(known)) {
            work = known;
            return true;
        }
    }
    return false;
}

static bool type_of(const std::string & name, ggml_type & type) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const char * known = ggml_type_name((ggml_type) i);
        if (known && name == known) {
            type = (ggml_type) i;
            return true;
        }
    }
    return false;
}

bool cache_kind::is_upstream() const {
    return window == 0 && !ggml_is_qlutattn(type_k == GGML_TYPE_COUNT ? type_v : type_k);
}

bool parse_cache(const std::string & name, cache_kind & cache) {
    static const std::regex pattern(
        "(?:(f16|q8_0|q4_0)|(?:K([0-9][a-z]*)V([0-9][a-z]*))?(?:(^|\\+)w([1-9][0-9]{0,5}))?(?:\\+q([1-9]|1[0-5]))?)(\\+int8)?");
    std::smatch found;
    if (name.empty() || !std::regex_match(name, found, pattern) || (found[5].matched && (found[2].length() == 0) != (found[4].length() == 0)) ||
        (found[6].matched && !found[2].matched) || (found[7].matched && !found[5].matched && found[1] != "f16")) {
        return false;
    }
    cache        = cache_kind();
    cache.name   = name;
    cache.window = found[5].matched ? std::stoll(found[5]) : 0;
    cache.shifts = found[6].matched ? std::stoi(found[6]) : 0;
    cache.int8   = found[7].matched;
    if (cache.int8 && found[1].matched) {
        cache.window = INT64_MAX; // all tokens
    }
    if (found[2].matched) {
        return type_of("qlutattn_k" + found[2].str() + "_128x128", cache.type_k) &&
               type_of("qlutattn_v" + found[3].str() + "_128x128", cache.type_v) && cache.window % GGML_QLUTATTN_TILE == 0;
    }
    if (!type_of(found[1].matched ? found[1].str() : "f16", cache.type_k)) {
        return false;
    }
    cache.type_v = cache.type_k;
    return true;
}

std::vector<cache_kind> packed_kinds(const std::vector<cache_kind> & caches) {
    std::vector<cache_kind> kinds;
    const auto              add = [&](const cache_kind & kind) {
        if (std::none_of(kinds.begin(), kinds.end(), [&](const cache_kind & k) { return k.name == kind.name; })) {
            kinds.push_back(kind);
        }
    };
    for (const cache_kind & c : caches) {
        if (c.is_upstream()) {
            add({ c.name, c.type_k, GGML_TYPE_COUNT, 0 });
        }
    }
    for (const bool is_value : { false, true }) {
        for (const cache_kind & c : caches) {
            if (!c.is_upstream() && !c.is_window()) {
                const size_t v = c.name.find('V');
                add({ is_value ? c.name.substr(v, c.name.find('+') - v) : c.name.substr(0, v), is_value ? GGML_TYPE_COUNT : c.type_k,
                      is_value ? c.type_v : GGML_TYPE_COUNT, 0 });
            }
        }
    }
    return kinds;
}

std::string bench_row::group() const {
    return std::string(work_name(work)) + "-" + std::to_string(n_kv) + (n_queries > 1 ? "-q" + std::to_string(n_queries) : "") + "-t" +
           std::to_string(n_threads);
}

double bench_row::seconds_at_peak(const machine_rates & rates) const {
    const bool is_known = n_int8 + n_f32 > 0 && (n_int8 == 0 || rates.int8 > 0);
    return is_known ? (n_int8 > 0 ? n_int8 / rates.int8 : 0) + n_f32 / rates.f32 : NAN;
}

std::string bench_row::id() const {
    return group() + "-" + cache.name;
}

// linear between neighbours; NaN of nothing
double quantile(std::vector<double> values, double at) {
    if (values.empty()) {
        return NAN;
    }
    std::sort(values.begin(), values.end());
    const double place = at * (values.size() - 1);
    const size_t below = (size_t) place;
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (values[above] - values[below]) * (place - below);
}
