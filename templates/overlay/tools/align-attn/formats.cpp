#include "formats.h"

#include <algorithm>

static std::vector<const tile_format *> side(bool is_k) {
    std::vector<const tile_format *> found;
    for (const tile_format & f : all_formats()) {
        if (f.is_k == is_k) {
            found.push_back(&f);
        }
    }
    return found;
}

const std::vector<const tile_format *> & formats_of(bool is_k) {
    static const std::vector<const tile_format *> k = side(true);
    static const std::vector<const tile_format *> v = side(false);
    return is_k ? k : v;
}

const tile_format * usual_format(bool is_k) {
    const std::vector<const tile_format *> & formats = formats_of(is_k);
    return *std::max_element(formats.begin(), formats.end(), [](const tile_format * a, const tile_format * b) { return a->bits < b->bits; });
}

std::vector<format_pair> format_pairs() {
    const std::vector<const tile_format *> & k = formats_of(true);
    const std::vector<const tile_format *> & v = formats_of(false);
    std::vector<format_pair>                 pairs;
    for (size_t i = 0; i < std::max(k.size(), v.size()); ++i) {
        pairs.push_back({ k[i % k.size()], v[i % v.size()] });
    }
    return pairs;
}
