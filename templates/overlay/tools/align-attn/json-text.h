#pragma once

#include <string>
#include <vector>

std::string json_text(const std::string & s);
std::string json_list(const std::vector<std::string> & items);
