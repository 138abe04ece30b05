// bench_attn: times attention over QLUTATTN caches beside upstream's, in turns. docs/performance.md says how.

#include "cli.h"
#include "group.h"
#include "result.h"

#include "ggml-qlutattn.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <sstream>
#include <thread>

static constexpr int64_t MIN_KEYS    = 512;
static constexpr int64_t MAX_KEYS    = 131072;
static constexpr int64_t MAX_QUERIES = 64;

namespace {

struct options : common_options {
    std::vector<work_kind>  work = { work_kind::decode, work_kind::prefill, work_kind::pack };
    std::vector<int64_t>    keys;            // empty: KEYS, or for prefill the shorter ones
    std::vector<int64_t>    queries = { 1 }; // of decode
    std::vector<int>        threads;
    std::vector<cache_kind> caches;
    geometry                shape;
    bench_params            how;
};

const std::vector<int64_t> KEYS               = { 512, 2048, 8192, 32768, 131072 };
const std::vector<int64_t> KEYS_PREFILL       = { 512, 2048, 8192 };
const std::vector<int64_t> KEYS_QUICK         = { 512, 2048 };
const std::vector<int64_t> KEYS_PREFILL_QUICK = { 512 };
const char * const         CACHES             = "f16,q8_0,q4_0,K8V8,K4V4,K4V2,K2V2,K1V1,K4V4+w512";

const char * const HELP =
    "usage: bench_attn [options]\n"
    "\n"
    "Times attention over packed keys and values beside upstream's over f16, q8_0 and q4_0, and packing beside memcpy.\n"
    "\n"
    "  --work LIST     of decode (the newest query), prefill (512 queries, causal), pack; default: all\n"
    "  --keys LIST     how many keys, multiples of 128 from 512 to 131072; default: 512,2048,8192,32768,131072, prefill up to 8192\n"
    "  --queries LIST  of decode: the newest 1 to 64 queries at once, as for drafted tokens; default: 1\n"
    "  --threads LIST  default: 1 and all\n"
    "  --heads Q/KV/D  query heads, key/value heads, head size; default: 32/8/128; 32/8/192/128 if values have another size\n"
    "  --latent        values are the first channels of keys (latent attention): a cache's type of values is not used\n"
    "  --layout NAME   of f16, q8_0 and q4_0 caches: heads (each head's tokens side by side, which suits upstream best; the default), or\n"
    "                  tokens (each token's heads side by side, as llama.cpp has it)\n"
    "  --types LIST    of f16, q8_0, q4_0, K4V2 (bits), K4V4+w512 (the newest 512 tokens as f16), w512 (these alone), K4V4+q3 (tiles that\n"
    "                  were moved meet one of 3 other sets of queries, in turns: K-shift); +int8 computes with f16 in 8 bits (f16+int8)\n"
    "                  default: f16,q8_0,q4_0,K8V8,K4V4,K4V2,K2V2,K1V1,K4V4+w512\n"
    "  --filter REGEX  only the rows whose id matches\n"
    "  --cold          empty the caches before each run; default: each run follows one of the same row\n"
    "  --quick         512 and 2048 keys, prefill 512, about a second for each group of rows\n"
    "  --list          print the ids of the rows and stop\n"
    "  --count         run each row once, inside bench_attn_counted(), for an instruction counter; no times\n"
    "  --json FILE     write the results as JSON\n"
    "  --version       print what this program was built from and stop; with --json, into FILE as JSON\n"
    "  --help          print this text and stop\n";

std::vector<std::string> split(const std::string & list, char separator) {
    std::vector<std::string> items;
    std::istringstream       in(list);
    for (std::string item; std::getline(in, item, separator);) {
        items.push_back(item);
    }
    return items;
}

int64_t number(const std::string & option, const std::string & text, int64_t min, int64_t max) {
    return parse_number(option, "numbers", text, min, max);
}

geometry heads(const std::string & text) {
    const std::vector<std::string> parts = split(text, '/');
    if (parts.size() != 3 && parts.size() != 4) {
        throw usage_error("--heads needs query heads/key-value heads/head size, as 32/8/128 or, where that of values differs, 32/8/192/128, not '" +
                          text + "'");
    }
    geometry g;
    g.n_head    = number("--heads", parts[0], 1, 1024);
    g.n_head_kv = number("--heads", parts[1], 1, 1024);
    for (const bool is_value : { false, true }) {
        (is_value ? g.head_dim_v : g.head_dim) = number("--heads", parts[is_value ? parts.size() - 1 : 2], 64, 640);
    }
    if (g.n_head % g.n_head_kv != 0) {
        throw usage_error("--heads " + text + ": the query heads are no multiple of the key-value heads");
    }
    if (g.head_dim % 64 != 0 || g.head_dim_v % 64 != 0) {
        throw usage_error("--heads " + text + ": head sizes must be multiples of 64, from 64 to 640");
    }
    return g;
}

template <typename T> void take(std::vector<T> & items, const std::string & option, const std::string & list, T (*read)(const std::string &)) {
    items.clear();
    for (const std::string & item : split(list, ',')) {
        items.push_back(read(item));
    }
    if (items.empty()) {
        throw usage_error(option + " needs a list");
    }
}

work_kind read_work(const std::string & text) {
    work_kind work;
    if (!parse_work(text, work)) {
        throw usage_error("--work needs decode, prefill or pack, not '" + text + "'");
    }
    return work;
}

int64_t read_keys(const std::string & text) {
    const int64_t n = number("--keys", text, MIN_KEYS, MAX_KEYS);
    if (n % GGML_QLUTATTN_TILE != 0) {
        throw usage_error("--keys needs multiples of 128, not '" + text + "'");
    }
    return n;
}

int64_t read_queries(const std::string & text) {
    return number("--queries", text, 1, MAX_QUERIES);
}

int read_threads(const std::string & text) {
    return (int) number("--threads", text, 1, 512);
}

cache_kind read_cache(const std::string & text) {
    cache_kind cache;
    if (!parse_cache(text, cache)) {
        throw usage_error("--types needs f16, q8_0, q4_0, or the likes of K4V2, K4V4+w512 (a multiple of 128), w512, K4V4+q3 and f16+int8, not '" +
                          text + "'");
    }
    return cache;
}

bool read_layout(const std::string & text) {
    if (text != "tokens" && text != "heads") {
        throw usage_error("--layout needs tokens or heads, not '" + text + "'");
    }
    return text == "heads";
}

options parse(int argc, char ** argv) {
    options   o;
    arguments args(argc, argv);
    bool      is_latent = false;
    take<cache_kind>(o.caches, "--types", CACHES, read_cache);
    while (args.next()) {
        const std::string & name = args.name();
        if (name == "--work") {
            take<work_kind>(o.work, name, args.value(), read_work);
        } else if (name == "--keys") {
            take<int64_t>(o.keys, name, args.value(), read_keys);
        } else if (name == "--queries") {
            take<int64_t>(o.queries, name, args.value(), read_queries);
        } else if (name == "--threads") {
            take<int>(o.threads, name, args.value(), read_threads);
        } else if (name == "--types") {
            take<cache_kind>(o.caches, name, args.value(), read_cache);
        } else if (name == "--heads") {
            const bool by_head = o.shape.by_head;
            o.shape            = heads(args.value());
            o.shape.by_head    = by_head;
        } else if (name == "--latent") {
            is_latent = true;
        } else if (name == "--layout") {
            o.shape.by_head = read_layout(args.value());
        } else if (name == "--cold") {
            o.how.is_cold = true;
        } else if (name == "--count") {
            o.how.count_only = true;
        } else if (!args.take(o)) {
            args.refuse("bench_attn");
        }
    }
    o.shape.is_latent = is_latent;
    if (is_latent && o.shape.head_dim_v > o.shape.head_dim) {
        throw usage_error("--latent needs --heads with values that are no larger than keys, as 128/1/576/512");
    }
    if (o.quick) {
        o.how.seconds    = 1;
        o.how.min_rounds = 3;
    }
    if (o.threads.empty()) {
        o.threads     = { 1 };
        const int all = std::max(1u, std::thread::hardware_concurrency());
        if (all > 1) {
            o.threads.push_back(all);
        }
    }
    return o;
}

const std::vector<int64_t> & keys_of(const options & o, work_kind work) {
    if (!o.keys.empty()) {
        return o.keys;
    }
    const bool is_prefill = work == work_kind::prefill;
    return o.quick ? (is_prefill ? KEYS_PREFILL_QUICK : KEYS_QUICK) : (is_prefill ? KEYS_PREFILL : KEYS);
}

// Rows of one length stand together, so that its caches are made once; rows of one group do, within.
std::vector<bench_row> choose(const options & o) {
    const std::regex     pattern = parse_filter(o.filter);
    std::vector<int64_t> lengths;
    for (work_kind work : o.work) {
        lengths.insert(lengths.end(), keys_of(o, work).begin(), keys_of(o, work).end());
    }
    std::sort(lengths.begin(), lengths.end());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());

    std::vector<bench_row> rows;
    for (int64_t n_kv : lengths) {
        for (work_kind work : o.work) {
            const std::vector<int64_t> & keys = keys_of(o, work);
            if (std::find(keys.begin(), keys.end(), n_kv) == keys.end()) {
                continue;
            }
            for (int64_t n_queries : work == work_kind::decode ? o.queries : std::vector<int64_t>{ 1 }) {
                for (int n_threads : o.threads) {
                    for (const cache_kind & cache : work == work_kind::pack ? packed_kinds(o.caches) : o.caches) {
                        bench_row row = { work, n_kv, n_threads, cache, n_queries };
                        if (std::regex_search(row.id(), pattern)) {
                            rows.push_back(row);
                        }
                    }
                }
            }
        }
    }
    return rows;
}

void print_row(const bench_row & row, const machine_rates & rates) {
    printf("%-32s %-24s %10.3f ms  min %10.3f  floor %10.3f", row.id().c_str(), row.kernel.c_str(), quantile(row.seconds, 0.5) * 1e3,
           quantile(row.seconds, 0) * 1e3, quantile(row.floor, 0.5) * 1e3);
    const double at_peak = row.seconds_at_peak(rates) * 1e3;
    printf(std::isnan(at_peak) ? "\n" : "  at peak %10.3f\n", at_peak);
}

int run(const options & o, std::vector<bench_row> rows) {
    machine      m;
    bench_result result;
    result.is_cold = o.how.is_cold;
    result.by_head = o.shape.by_head;

    if (!o.how.count_only) {
        fprintf(stderr, "[0/%zu] the machine's rates\n", rows.size());
        for (int n_threads : o.threads) {
            result.rates.push_back(m.measure_rates(n_threads));
        }
    }
    std::unique_ptr<caches> kv;
    for (size_t first = 0; first < rows.size();) {
        std::vector<bench_row *> group;
        for (size_t i = first; i < rows.size() && rows[i].group() == rows[first].group(); ++i) {
            group.push_back(&rows[i]);
        }
        fprintf(stderr, "[%zu/%zu] %s\n", first + group.size(), rows.size(), rows[first].group().c_str());
        m.set_n_threads(rows[first].n_threads);
        if (!kv || kv->n_kv != rows[first].n_kv) {
            kv.reset(); // before there is another
            kv = std::make_unique<caches>(m, o.shape, rows[first].n_kv);
        }
        measure_group(m, *kv, group, o.how);
        for (const bench_row * row : group) {
            if (!o.how.count_only) {
                print_row(*row, result.rates_of(row->n_threads));
            }
        }
        fflush(stdout);
        first += group.size();
    }
    result.rows = std::move(rows);
    if (!o.json.empty()) {
        check_written(write_json(result, o.json), o.json);
    }
    return 0;
}

} // namespace

int main(int argc, char ** argv) {
    return run_main("bench_attn", [&] {
        const options o = parse(argc, argv);
        if (o.help) {
            printf("%s", HELP);
            return 0;
        }
        if (o.version) {
            print_version("bench_attn", o);
            return 0;
        }
        std::vector<bench_row> rows = choose(o);
        if (o.list) {
            for (const bench_row & row : rows) {
                printf("%s\n", row.id().c_str());
            }
            return 0;
        }
        if (rows.empty()) {
            throw usage_error("no row matches '" + o.filter + "'; ids look like decode-8192-t2-K4V4");
        }
        return run(o, std::move(rows));
    });
}
