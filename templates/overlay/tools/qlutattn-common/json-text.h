#pragma once

#include <string>
#include <vector>

std::string json_text(const std::string & s);
std::string json_list(const std::vector<std::string> & items);
std::string json_number(double x, int digits); // null for NaN and Inf, which JSON does not have
