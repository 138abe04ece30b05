#pragma once

#include "row.h"

#include <string>
#include <vector>

// Returns false when the file cannot be written.
bool write_json(const std::vector<sampling_row> & rows, const std::string & path);
