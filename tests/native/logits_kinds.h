// Rows of logits of many kinds, for the tests of sampling.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <random>
#include <vector>

using row       = std::vector<float>;
using generator = std::mt19937;

inline int below(generator & random, int n) {
    return (int) (random() % (uint32_t) n);
}

template <typename T> T one_of(generator & random, std::initializer_list<T> items) {
    return *(items.begin() + below(random, (int) items.size()));
}

// rows of logits

struct kind {
    const char *                            name;
    bool                                    has_nan; // upstream's full sorts run past the array's ends with NaN: not asked of it
    std::function<void(row &, generator &)> fill;
};

inline void fill_gauss(row & x, generator & random, float mean, float deviation) {
    std::normal_distribution<float> normal(mean, deviation);
    for (float & v : x) {
        v = normal(random);
    }
}

inline void put(row & x, generator & random, float value, int count) {
    for (int i = 0; i < count; ++i) {
        x[below(random, (int) x.size())] = value;
    }
}

inline std::vector<kind> kinds() {
    const auto gauss = [](float mean, float deviation) {
        return [=](row & x, generator & random) {
            fill_gauss(x, random, mean, deviation);
        };
    };
    const auto rounded = [](float deviation, float step) {
        return [=](row & x, generator & random) {
            fill_gauss(x, random, 0, deviation);
            for (float & v : x) {
                v = std::round(v / step) * step;
            }
        };
    };
    const auto with = [](float value, int per_mille) {
        return [=](row & x, generator & random) {
            fill_gauss(x, random, 0, 3);
            put(x, random, value, 1 + (int) x.size() * per_mille / 1000);
        };
    };
    return {
        { "gauss-3",       false, gauss(0,        3)      },
        { "gauss-1",       false, gauss(0,        1)      },
        { "gauss-low",     false, gauss(-15,      2)      },
        { "gauss-high",    false, gauss(30,       3)      },
        { "flat",          false, gauss(0.3f,     0.001f) },
        { "peaked",        false,
         [](row & x,                              generator & random) {
              fill_gauss(x, random, 0, 2);
              for (int i = 0; i < 30; ++i) {
                  put(x, random, 8 + 0.5f * i, 1);
              }
          }                           },
        { "ties",          false, rounded(3,      0.125f) },
        { "many-ties",     false, rounded(2,      1)      },
        { "constant",      false, gauss(1.5f,     0)      },
        { "wide",          false, gauss(0,        5000)   },
        { "two-values",    false,
         [](row & x,                              generator & random) {
              for (float & v : x) {
                  v = below(random, 2) ? 1e4f : -1e4f;
              }
          }                           },
        { "zeros",         false,
         [](row & x,                              generator & random) {
              for (float & v : x) {
                  v = one_of(random, { 0.0f, -0.0f, 1e-40f, -1e-40f });
              }
          }                           },
        { "rising",        false,
         [](row & x,                              generator & random) {
              fill_gauss(x, random, 0, 3);
              std::sort(x.begin(), x.end());
          }                           },
        { "falling",       false,
         [](row & x,                              generator & random) {
              fill_gauss(x, random, 0, 3);
              std::sort(x.rbegin(), x.rend());
          }                           },
        { "masked",        false, with(-INFINITY, 2000)   },
        { "all-masked",    false,
         [](row & x,                              generator &) {
              std::fill(x.begin(), x.end(), -INFINITY);
          }                           },
        { "some-infinite", true,  with(INFINITY,  1)      },
        { "some-nan",      true,  with(NAN,       10)     },
        { "nan-first",     true,
         [](row & x,                              generator & random) {
              fill_gauss(x, random, 0, 3);
              x[0] = NAN;
          }                           },
    };
}
