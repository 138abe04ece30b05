// align_attn: proves packing and mixed attention of the QLUTATTN types, case by case. docs/align.md says how it judges.

#include "case.h"
#include "data.h"
#include "device.h"
#include "dump.h"
#include "judge.h"
#include "provenance.h"
#include "report.h"
#include "torch.h"

#include <chrono>
#include <cstring>
#include <regex>
#include <stdexcept>

static constexpr int64_t QUICK_COST = 8000000; // larger cases are left out by --quick

namespace {

struct usage_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct options {
    std::string filter = ".*";
    std::string json;
    std::string junit;
    std::string dump;
    int         n_threads = 0; // 0: each case has its own
    bool        list      = false;
    bool        quick     = false;
    bool        version   = false;
    bool        help      = false;
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
    "  --version       print what this program was made of and stop; with --json, into FILE as JSON\n"
    "  --help          print this text and stop\n";

options parse(int argc, char ** argv) {
    options o;
    for (int i = 1; i < argc; ++i) {
        const std::string name  = argv[i];
        const auto        value = [&]() -> std::string {
            if (i + 1 >= argc) {
                throw usage_error(name + " needs a value");
            }
            return argv[++i];
        };
        if (name == "--filter") {
            o.filter = value();
        } else if (name == "--json") {
            o.json = value();
        } else if (name == "--junit") {
            o.junit = value();
        } else if (name == "--dump") {
            o.dump = value();
        } else if (name == "--threads") {
            const std::string n = value();
            char *            end;
            o.n_threads = (int) strtol(n.c_str(), &end, 10);
            if (*end || n.empty() || o.n_threads < 1 || o.n_threads > 512) {
                throw usage_error("--threads needs a number from 1 to 512, not '" + n + "'");
            }
        } else if (name == "--list") {
            o.list = true;
        } else if (name == "--quick") {
            o.quick = true;
        } else if (name == "--version") {
            o.version = true;
        } else if (name == "--help" || name == "-h") {
            o.help = true;
        } else {
            throw usage_error("unknown argument '" + name + "'; align_attn --help lists what there is");
        }
    }
    return o;
}

std::vector<align_case> choose(const options & o) {
    std::regex pattern;
    try {
        pattern = std::regex(o.filter);
    } catch (const std::regex_error &) {
        throw usage_error("--filter needs a regular expression, not '" + o.filter + "'");
    }
    std::vector<align_case> chosen;
    for (const align_case & c : make_cases()) {
        if (std::regex_search(c.id, pattern) && !(o.quick && c.cost() > QUICK_COST)) {
            chosen.push_back(c);
        }
    }
    return chosen;
}

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void save(bool done, const std::string & path) {
    if (!done) {
        throw std::runtime_error("cannot write " + path);
    }
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
        save(write_json(r, o.json), o.json);
    }
    if (!o.junit.empty()) {
        save(write_junit(r, o.junit), o.junit);
    }
    if (!o.dump.empty()) {
        save(dumped.write(o.dump), o.dump);
    }
    return r.ok() ? 0 : 1;
}

} // namespace

int main(int argc, char ** argv) {
    try {
        const options o = parse(argc, argv);
        if (o.help) {
            printf("%s", HELP);
            return 0;
        }
        if (o.version) {
            printf("align_attn, libtorch %s\n", torch_version().empty() ? "not built in" : torch_version().c_str());
            print_provenance(stdout);
            if (!o.json.empty()) {
                save(write_provenance(o.json), o.json);
            }
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
    } catch (const usage_error & e) {
        fprintf(stderr, "align_attn: %s\n", e.what());
        return 2;
    } catch (const std::exception & e) {
        fprintf(stderr, "align_attn: %s\n", e.what());
        return 3;
    }
}
