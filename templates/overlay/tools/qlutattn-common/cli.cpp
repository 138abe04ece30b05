#include "cli.h"

#include "provenance.h"

#include <cstdio>
#include <cstdlib>

bool arguments::next() {
    if (++i >= argc) {
        return false;
    }
    option = argv[i];
    return true;
}

std::string arguments::value() {
    if (i + 1 >= argc) {
        throw usage_error(option + " needs a value");
    }
    return argv[++i];
}

bool arguments::take(common_options & o) {
    if (option == "--filter") {
        o.filter = value();
    } else if (option == "--json") {
        o.json = value();
    } else if (option == "--list") {
        o.list = true;
    } else if (option == "--quick") {
        o.quick = true;
    } else if (option == "--version") {
        o.version = true;
    } else if (option == "--help" || option == "-h") {
        o.help = true;
    } else {
        return false;
    }
    return true;
}

void arguments::refuse(const char * program) const {
    throw usage_error("unknown argument '" + option + "'; " + program + " --help lists what there is");
}

int64_t parse_number(const std::string & option, const char * needs, const std::string & text, int64_t min, int64_t max) {
    char *        end;
    const int64_t n = strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end || n < min || n > max) {
        throw usage_error(option + " needs " + needs + " from " + std::to_string(min) + " to " + std::to_string(max) + ", not '" + text + "'");
    }
    return n;
}

std::regex parse_filter(const std::string & text) {
    try {
        return std::regex(text);
    } catch (const std::regex_error &) {
        throw usage_error("--filter needs a regular expression, not '" + text + "'");
    }
}

void check_written(bool done, const std::string & path) {
    if (!done) {
        throw std::runtime_error("cannot write " + path);
    }
}

void print_version(const std::string & title, const common_options & o) {
    printf("%s\n", title.c_str());
    print_provenance(stdout);
    if (!o.json.empty()) {
        check_written(write_provenance(o.json), o.json);
    }
}

int run_main(const char * program, const std::function<int()> & body) {
    try {
        return body();
    } catch (const usage_error & e) {
        fprintf(stderr, "%s: %s\n", program, e.what());
        return 2;
    } catch (const std::exception & e) {
        fprintf(stderr, "%s: %s\n", program, e.what());
        return 3;
    }
}
