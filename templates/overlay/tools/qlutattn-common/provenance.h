#pragma once

#include <cstdio>
#include <string>
#include <vector>

// What a program was built from and runs on: docs/provenance.md of the qlutattn project describes the whole chain.

// Instruction sets and choices that the CPU backend was built with: "AVX2", "REPACK", ...
std::vector<std::string> cpu_features();

// A line for each link of the chain that a program knows.
void        print_provenance(FILE * file);
// The same as a JSON object; what is not known is null.
std::string provenance_json();
// Returns false when the file cannot be written.
bool        write_provenance(const std::string & path);
