#include "logits.h"

#include "rng.h"

#include <algorithm>
#include <fstream>
#include <stdexcept>

const std::vector<std::string> & made_logits() {
    static const std::vector<std::string> names = { "gauss", "peaked", "flat" };
    return names;
}

std::vector<logits_row> make_logits(const std::string & name, int32_t n_vocab, int n_rows) {
    constexpr int           N_PEAKS   = 30;
    const bool              is_peaked = name == "peaked";
    const float             deviation = name == "flat" ? 0.1f : is_peaked ? 2.0f : 3.0f;
    rng                     random(name + std::to_string(n_vocab));
    std::vector<logits_row> rows(n_rows, logits_row(n_vocab));
    for (logits_row & row : rows) {
        for (float & logit : row) {
            // a bit below 2^-16, the step of the distribution, so that logits are as seldom equal as a model's
            logit = deviation * (random.gauss() + (float) random.below(1 << 16) * 0x1p-32f);
        }
        for (int i = 0; i < (is_peaked ? N_PEAKS : 0); ++i) {
            row[random.below(n_vocab)] = 8 + 0.4f * i + random.gauss() * 0.1f;
        }
    }
    return rows;
}

std::vector<logits_row> read_logits(const std::string & path) {
    std::vector<logits_row> rows;
    std::ifstream           file(path, std::ios::binary);
    int32_t                 n_vocab = 0;
    if (file.read((char *) &n_vocab, sizeof(n_vocab)) && n_vocab > 0) {
        logits_row row(n_vocab);
        while (file.read((char *) row.data(), n_vocab * sizeof(float))) {
            rows.push_back(row);
        }
    }
    if (rows.empty()) {
        throw std::runtime_error("there are no logits in " + path + ": record some with bench_sampling --record MODEL TEXT --rows " + path);
    }
    return rows;
}

logits_row widen(const logits_row & row, int32_t n_vocab, uint64_t seed) {
    logits_row unlikely = row;
    std::sort(unlikely.begin(), unlikely.end());
    unlikely.resize((row.size() + 1) / 2);

    rng        random(seed);
    logits_row wide = row;
    while ((int32_t) wide.size() < n_vocab) {
        wide.push_back(unlikely[random.below(unlikely.size())] + 0.1f * random.gauss());
    }
    return wide;
}
