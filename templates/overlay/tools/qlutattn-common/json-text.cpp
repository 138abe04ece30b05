#include "json-text.h"

#include <cmath>
#include <iomanip>
#include <sstream>

std::string json_text(const std::string & s) {
    std::ostringstream out;
    out << '"';
    for (unsigned char c : s) {
        if (c == '"' || c == '\\') {
            out << '\\' << c;
        } else if (c < 0x20) {
            out << "\\u00" << std::hex << std::setw(2) << std::setfill('0') << (int) c << std::dec;
        } else {
            out << c;
        }
    }
    out << '"';
    return out.str();
}

std::string json_list(const std::vector<std::string> & items) {
    std::string out = "[";
    for (size_t i = 0; i < items.size(); ++i) {
        out += (i ? ", " : "") + json_text(items[i]);
    }
    return out + "]";
}

std::string json_number(double x, int digits) {
    if (!std::isfinite(x)) {
        return "null";
    }
    std::ostringstream out;
    out << std::setprecision(digits) << x;
    return out.str();
}
