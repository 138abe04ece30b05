#pragma once

#include <random>
#include <vector>

// normally distributed; the same seed gives the same ones
static inline std::vector<float> random_floats(size_t n, int seed) {
    std::mt19937                    random(seed);
    std::normal_distribution<float> normal;
    std::vector<float>              values(n);
    for (float & value : values) {
        value = normal(random);
    }
    return values;
}
