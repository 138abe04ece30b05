// align_attn: proves packing and mixed attention of the QLUTATTN types, case by case. docs/align.md says how it judges.

#include "case.h"
#include "cli.h"
#include "clock.h"
#include "data.h"
#include "device.h"
#include "dump.h"
#include "judge.h"
#include "report.h"
#include "torch.h"

#include <cstdio>

static constexpr int64_t QUICK_COST = 8000000; // larger cases are left out by --quick

namespace {

struct options : common_options {
    std::string junit;
    std::string dump;
    int         n_threads = 0; // 0: each case has its own
};

const char * const HELP =
    "usage: align_attn [options]\n"
    "\n"
    "Runs packing and mixed attention of the QLUTATTN types on the CPU and compares them with float64, with upstream's f16 attention,\n"
    "and with libtorch where it is built in. Exits with 1 when a case fails.\n"
    "\n"
    "  --filter REGEX  only the cases whose id matches\n"
    "  --list          print the ids of the cases and stop\n"
    "  --quick         leave out the large cases\n"
    "  --threads N     use N threads instead of each case's own number\n"
    "  --json FILE     write the results as JSON\n"
    "  --junit FILE    write the results as JUnit XML\n"
    "  --dump FILE     write inputs, tiles and results of some small cases as GGUF\n"
    "  --version       print what this program was built from and stop; with --json, into FILE as JSON\n"
    "  --help          print this text and stop\n";

options parse(int argc, char ** argv) {
    options   o;
    arguments args(argc, argv);
    while (args.next()) {
        if (args.name() == "--junit") {
            o.junit = args.value();
        } else if (args.name() == "--dump") {
            o.dump = args.value();
        } else if (args.name() == "--threads") {
            o.n_threads = (int) parse_number(args.name(), "a number", args.value(), 1, 512);
        } else if (!args.take(o)) {
            args.refuse("align_attn");
        }
    }
    return o;
}

std::vector<align_case> choose(const options & o) {
    const std::regex        pattern = parse_filter(o.filter);
    std::vector<align_case> chosen;
    for (const align_case & c : make_cases()) {
        if (std::regex_search(c.id, pattern) && !(o.quick && c.cost() > QUICK_COST)) {
            chosen.push_back(c);
        }
    }
    return chosen;
}

int run(const options & o, const std::vector<align_case> & cases) {
    device dev;
    dump   dumped;
    report r;

    const double start = now();
    print_header(stdout);
    for (size_t i = 0; i < cases.size(); ++i) {
        const align_case & c = cases[i];
        fprintf(stderr, "[%zu/%zu] %s\n", i + 1, cases.size(), c.id.c_str());
        const double    begin = now();
        const case_data data  = make_data(c);
        device_result   result;
        verdict         v = judge(dev, c, data, o.n_threads > 0 ? o.n_threads : c.n_threads, result);
        v.seconds         = now() - begin;
        print_row(stdout, v);
        fflush(stdout);
        if (!o.dump.empty()) {
            dumped.add(v, data, result);
        }
        r.verdicts.push_back(v);
    }
    r.seconds = now() - start;
    print_summary(stdout, r);
    if (cases.empty()) {
        fprintf(stderr, "align_attn: no case matches '%s'; align_attn --list prints their ids\n", o.filter.c_str());
    }

    if (!o.json.empty()) {
        check_written(write_json(r, o.json), o.json);
    }
    if (!o.junit.empty()) {
        check_written(write_junit(r, o.junit), o.junit);
    }
    if (!o.dump.empty()) {
        check_written(dumped.write(o.dump), o.dump);
    }
    return r.ok() ? 0 : 1;
}

} // namespace

int main(int argc, char ** argv) {
    return run_main("align_attn", [&] {
        const options o = parse(argc, argv);
        if (o.help) {
            printf("%s", HELP);
            return 0;
        }
        if (o.version) {
            print_version("align_attn, libtorch " + (torch_version().empty() ? "not built in" : torch_version()), o);
            return 0;
        }
        const std::vector<align_case> cases = choose(o);
        if (o.list) {
            for (const align_case & c : cases) {
                printf("%s\n", c.id.c_str());
            }
            return 0;
        }
        return run(o, cases);
    });
}
