#pragma once

#include "judge.h"

// Collects small cases of every kind, inputs, tiles and results, and writes them to a GGUF file for the numpy reference:
// docs/align.md names its keys and tensors.
class dump {
  public:
    void add(const verdict & v, const case_data & data, const device_result & run);
    bool write(const std::string & path) const; // false when the file cannot be written

  private:
    struct entry {
        verdict       v;
        case_data     data;
        device_result run;
    };

    std::vector<entry>       entries;
    std::vector<std::string> features; // what the entries cover, see dump.cpp
    size_t                   size = 0;
};
