#pragma once

#include <cstdint>
#include <functional>
#include <regex>
#include <stdexcept>
#include <string>

// A wrong command line; its message names the option, and what it needs.
struct usage_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The options that both programs have.
struct common_options {
    std::string filter = ".*";
    std::string json;
    bool        list    = false;
    bool        quick   = false;
    bool        version = false;
    bool        help    = false;
};

// Walks over the options of a command line.
class arguments {
  public:
    arguments(int argc, char ** argv) : argc(argc), argv(argv) {}

    bool                next();  // go to the next option; false at the end
    const std::string & name() const { return option; }
    std::string         value(); // the argument behind the option

    // whether the option is one of these; then it is stored
    bool take(common_options & o);

    [[noreturn]] void refuse(const char * program) const; // the option is not known

  private:
    int         argc;
    char **     argv;
    int         i = 0;
    std::string option;
};

// needs: what the option needs, as "a number"
int64_t    parse_number(const std::string & option, const char * needs, const std::string & text, int64_t min, int64_t max);
std::regex parse_filter(const std::string & text);

// Throws std::runtime_error if a file was not written.
void check_written(bool done, const std::string & path);

// --version: prints a title and what the program was built from; with --json, writes it to a file as well
void print_version(const std::string & title, const common_options & o);

// Runs the body of a main function. The exit code is the body's; 2 for a wrong command line and 3 for other errors, which are printed.
int run_main(const char * program, const std::function<int()> & body);
