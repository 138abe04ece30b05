#pragma once

#include <cstdint>
#include <string>

// splitmix64: a small generator whose numbers are the same on every machine
struct rng {
    uint64_t state;

    explicit rng(uint64_t seed) : state(seed) {}

    explicit rng(const std::string & name) : state(0xcbf29ce484222325u) { // FNV-1a
        for (unsigned char c : name) {
            state = (state ^ c) * 0x100000001b3u;
        }
    }

    uint64_t next() {
        uint64_t z = (state += 0x9e3779b97f4a7c15u);
        z          = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z          = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }

    uint32_t below(uint32_t n) { return (uint32_t) ((next() >> 32) * n >> 32); }

    // Twelve 16-bit integers summed: mean 0, variance 1, within +-6, and exact in binary32, so that no libm is asked.
    float gauss() {
        int32_t sum = -12 * 32768 + 6;
        for (int i = 0; i < 3; ++i) {
            const uint64_t r = next();
            sum += (int32_t) (r & 0xffff) + (int32_t) (r >> 16 & 0xffff) + (int32_t) (r >> 32 & 0xffff) + (int32_t) (r >> 48);
        }
        return (float) sum * (1.0f / 65536.0f);
    }
};
