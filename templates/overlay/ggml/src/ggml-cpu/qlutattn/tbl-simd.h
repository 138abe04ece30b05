#pragma once

// The verbs that the vector kernels are written in, per instruction set. A vector is one part of a 64-byte chunk of codes: 16, 32 or 64 bytes.
//
//   bytes            WIDTH bytes
//   sums32           WIDTH/4 sums of 32 bits
//   sums16           WIDTH sums of 16 bits
//
//   load(p)          WIDTH codes bytes
//   table(p)         a table of 16 bytes, in every 16-byte part of the vector
//   low(v), high(v)  nibbles as bytes
//   pick(t, n)       t[n], bytewise
//   four(p)          four units of x, in every 32-bit part
//   dot(s, l, x)     s + four products l*x in each 32-bit part; l as level_table makes them
//   add(s, v)        s + v, bytes widened to 16 bits
//   store(p, s)      to int32
//
// QLUTATTN_LEVEL_BIAS is what level_table adds to a level: x86 multiplies unsigned by signed bytes.

#include "qlutattn-config.h"

#if defined(__AVX512BW__) && defined(__AVX512F__)
#    include "tbl-avx512.h"
#elif defined(__AVX2__)
#    include "tbl-avx2.h"
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include "tbl-neon.h"
#endif
