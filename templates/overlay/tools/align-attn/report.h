#pragma once

#include "judge.h"

#include <cstdio>

struct report {
    std::vector<verdict> verdicts;
    double               seconds = 0;

    int  failed() const;
    bool ok() const { return failed() == 0 && !verdicts.empty(); }
};

std::string repeat_command(const std::string & id);

void print_header(FILE * file);
void print_row(FILE * file, const verdict & v);
void print_summary(FILE * file, const report & r);

// Return false when the file cannot be written.
bool write_json(const report & r, const std::string & path);
bool write_junit(const report & r, const std::string & path);
