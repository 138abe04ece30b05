#pragma once

// The verbs that the vector packer is written in, per instruction set. It works on strips of 16 lanes, which lie side by side, two depths at a time:
//
//   floats           8 lanes of one depth; load widens f16, store_f16 rounds to it
//   ints             8 lanes, 32 bits; round(floats) goes to the nearest, ties to even
//   words            8 lanes of two depths, 16 bits, the depths of a lane side by side: pair(first, second)
//   bytes            16 lanes of two depths, as narrow puts them, saturated; widen_first and widen_last take them apart again
//   nibbles          16 lanes
//
//   by_16(w)         floor(w / 16)
//   madd(s, a, b)    s + a*b of both depths, lane by lane
//   table(p), pick(t, n), high(v), more(a, b)   16 bytes everywhere; t[n]; bits 4..7; a > b ? -1 : 0 of signed bytes
//   shl<n>(v)        bytes that n bits do not push beyond 255
//   weave(p, a, b)   64 bytes: of each lane, the two depths of a, then those of b
//   join(v, x, y)    x*(first depth) + y*(second depth)
//   store(p, q, a, b), merge(p, q, a, b)   nibbles a to the lower bits of 16 bytes at p, b to q; merge fills the upper bits
//   fetch(p)              a hint that the cache line at p will be read soon
//   transpose(p, nb, q)   8 depths of 16 lanes of f16, lane-major (rows nb bytes apart), to depth-major

#include "ggml-cpu-impl.h"
#include "qlutattn-config.h"

#if defined(__AVX2__) && defined(__F16C__)
#    include "pack-avx2.h"
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include "pack-neon.h"
#endif
