#pragma once

// The profiler's clock: the processor's time stamp counter where it never stops or changes its rate, else the system's steady clock.

#include <chrono>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#    include <cpuid.h>
#    include <x86intrin.h>
#    define PROFILE_HAS_TSC 1
#endif

class profile_clock {
  public:
    profile_clock() : has_tsc(find_tsc()), first_ns(system_ns()), first_tick(ticks()) {}

    uint64_t ticks() const {
#ifdef PROFILE_HAS_TSC
        if (has_tsc) {
            return __rdtsc();
        }
#endif
        return system_ns();
    }

    // nanoseconds of a tick: the longer the clock has run, the more exact
    double ns_per_tick() const {
        const uint64_t passed = ticks() - first_tick;
        return !has_tsc || passed == 0 ? 1.0 : (double) (system_ns() - first_ns) / (double) passed;
    }

    uint64_t start() const { return first_tick; }

    const char * name() const { return has_tsc ? "time stamp counter" : "steady clock"; }

  private:
    static uint64_t system_ns() {
        return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }

    static bool find_tsc() {
#ifdef PROFILE_HAS_TSC
        unsigned a = 0, b = 0, c = 0, d = 0;
        return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d >> 8 & 1); // invariant
#else
        return false;
#endif
    }

    bool     has_tsc;
    uint64_t first_ns;
    uint64_t first_tick;
};
