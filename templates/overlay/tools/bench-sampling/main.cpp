// bench_sampling: times sampler chains beside llama.cpp's own code, in turns. docs/sampling.md says how.

#include "cli.h"
#include "record.h"
#include "result.h"

#include "ggml-select.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

namespace {

struct options : common_options {
    std::vector<int32_t>     vocabs = { 32000, 128256, 151936, 262144 };
    std::vector<std::string> chains = known_chains();
    std::vector<std::string> logits = made_logits();
    std::string              rows;
    std::string              record_model;
    std::string              record_text;
    sampling_params          how;
};

const char * const HELP =
    "usage: bench_sampling [options]\n"
    "\n"
    "Times drawing a token from a row of logits, beside llama.cpp's own code, in turns.\n"
    "\n"
    "  --vocab LIST           numbers of tokens, from 1 to 1048576; default: 32000,128256,151936,262144\n"
    "  --chains LIST          of greedy, top-k (40), default (top-k 40, top-p 0.95, min-p 0.05, temperature 0.8), top-p (0.95 alone),\n"
    "                         min-p (0.05 alone); default: all\n"
    "  --logits LIST          of gauss, peaked, flat; default: all, and recorded with --rows\n"
    "  --rows FILE            also take recorded logits, widened to each vocabulary\n"
    "  --record MODEL TEXT    write logits that a model gives for a text to the file of --rows, and stop\n"
    "  --filter REGEX         only the rows whose id matches\n"
    "  --quick                a vocabulary of 151936, about a tenth of the time\n"
    "  --list                 print the ids of the rows and stop\n"
    "  --json FILE            write the results as JSON\n"
    "  --version              print what this program was built from and stop; with --json, into FILE as JSON\n"
    "  --help                 print this text and stop\n";

std::vector<std::string> split(const std::string & option, const std::string & list) {
    std::vector<std::string> items;
    std::istringstream       in(list);
    for (std::string item; std::getline(in, item, ',');) {
        items.push_back(item);
    }
    if (items.empty()) {
        throw usage_error(option + " needs a list");
    }
    return items;
}

std::vector<std::string> some_of(const std::string & option, const std::vector<std::string> & known, const std::string & list) {
    std::string names;
    for (const std::string & name : known) {
        names += (names.empty() ? "" : ", ") + name;
    }
    const std::vector<std::string> items = split(option, list);
    for (const std::string & item : items) {
        if (std::find(known.begin(), known.end(), item) == known.end()) {
            throw usage_error(option + " needs some of " + names + ", not '" + item + "'");
        }
    }
    return items;
}

options parse(int argc, char ** argv) {
    options   o;
    arguments args(argc, argv);
    while (args.next()) {
        const std::string & name = args.name();
        if (name == "--vocab") {
            o.vocabs.clear();
            for (const std::string & item : split(name, args.value())) {
                o.vocabs.push_back((int32_t) parse_number(name, "numbers of tokens", item, 1, 1 << 20));
            }
        } else if (name == "--chains") {
            o.chains = some_of(name, known_chains(), args.value());
        } else if (name == "--logits") {
            o.logits = some_of(name, made_logits(), args.value());
        } else if (name == "--rows") {
            o.rows = args.value();
        } else if (name == "--record") {
            o.record_model = args.value();
            o.record_text  = args.value();
        } else if (!args.take(o)) {
            args.refuse("bench_sampling");
        }
    }
    if (o.quick) {
        o.vocabs = { 151936 };
        o.how    = { 0.2, 3 };
    }
    if (!o.record_model.empty() && o.rows.empty()) {
        throw usage_error("--record needs --rows, the file to write");
    }
    return o;
}

std::vector<sampling_row> choose(const options & o) {
    const std::regex          pattern = parse_filter(o.filter);
    std::vector<std::string>  logits  = o.logits;
    std::vector<sampling_row> rows;
    if (!o.rows.empty()) {
        logits.push_back("recorded");
    }
    for (int32_t n_vocab : o.vocabs) {
        for (const std::string & name : logits) {
            for (const std::string & chain : o.chains) {
                sampling_row row = { chain, name, n_vocab, {}, {} };
                if (std::regex_search(row.id(), pattern)) {
                    rows.push_back(row);
                }
            }
        }
    }
    return rows;
}

std::vector<logits_row> logits_of(const sampling_row & row, const std::vector<logits_row> & recorded) {
    constexpr int N_ROWS = 16;
    if (row.logits != "recorded") {
        return make_logits(row.logits, row.n_vocab, N_ROWS);
    }
    std::vector<logits_row> wide;
    for (size_t i = 0; i < recorded.size() && wide.size() < N_ROWS; i += std::max<size_t>(1, recorded.size() / N_ROWS)) {
        wide.push_back(widen(recorded[i], row.n_vocab, i));
        wide.back().resize(row.n_vocab);
    }
    return wide;
}

int run(const options & o, std::vector<sampling_row> rows) {
    const std::vector<logits_row> recorded = o.rows.empty() ? std::vector<logits_row>() : read_logits(o.rows);
    std::vector<logits_row>       logits;
    std::string                   made; // what they are
    for (size_t i = 0; i < rows.size(); ++i) {
        sampling_row &    row  = rows[i];
        const std::string name = row.logits + std::to_string(row.n_vocab);
        fprintf(stderr, "[%zu/%zu] %s\n", i + 1, rows.size(), row.id().c_str());
        if (made != name) {
            logits = logits_of(row, recorded);
            made   = name;
        }
        measure_row(row, logits, o.how);
        const double stock  = quantile(row.stock, 0.5) * 1e6;
        const double select = quantile(row.select, 0.5) * 1e6;
        printf("%-26s %10.1f us  upstream %10.1f us  x %.1f\n", row.id().c_str(), select, stock, stock / select);
        fflush(stdout);
    }
    if (!o.json.empty()) {
        check_written(write_json(rows, o.json), o.json);
    }
    return 0;
}

} // namespace

int main(int argc, char ** argv) {
    return run_main("bench_sampling", [&] {
        const options o = parse(argc, argv);
        if (o.help) {
            printf("%s", HELP);
            return 0;
        }
        if (o.version) {
            print_version("bench_sampling", o);
            return 0;
        }
        if (!o.record_model.empty()) {
            record_logits(o.record_model, o.record_text, o.rows);
            return 0;
        }
        std::vector<sampling_row> rows = choose(o);
        if (o.list) {
            for (const sampling_row & row : rows) {
                printf("%s\n", row.id().c_str());
            }
            return 0;
        }
        if (rows.empty()) {
            throw usage_error("no row matches '" + o.filter + "'; ids look like default-151936-gauss");
        }
        return run(o, std::move(rows));
    });
}
