#pragma once

// The verbs that the vector packer is written in, per instruction set. It works on strips of 16 adjacent lanes, two depths at a time.
//
//   QLUTATTN_PACK_SIMD      the name of the instruction set, where there is vector code
//
//   floats                  8 lanes of one depth
//   ints                    8 lanes of one depth, 32 bits
//   words                   8 lanes of two depths, 16 bits, the depths of a lane side by side
//   bytes                   16 lanes of two depths, in the order in which narrow leaves them
//   nibbles                 16 lanes of one nibble
//
//   load(p)                 floats from f32, or widened from f16
//   store(p, v)             floats to f32
//   store_f16(p, v)         floats, rounded to f16
//   broadcast(x)            x in every lane: floats of a float, bytes of an int8
//   add, sub, mul, div, min, sqrt  of floats; add of nibbles, sub of bytes
//   round(v)                floats to ints, to the nearest, ties to even
//   to_floats(v)            ints to floats
//   magnitude(v)            the bits of |v|, as ints, in whose order NaN comes after infinity and that after all numbers
//   max(a, b)               of ints
//   as_floats(v)            floats of these bits
//   zero_ints(), zero_bytes()      ints and bytes of 0
//   pair(a, b)              words of the ints a of the first depth and b of the second
//   shr4(w)                 floor(w / 16)
//   narrow(a, b)            bytes of the words of lanes 0..7 and 8..15, saturated
//   widen_first(v)          words of lanes 0..7 of bytes
//   widen_last(v)           words of lanes 8..15 of bytes
//   madd(s, a, b)           ints s + a*b of both depths of words, lane by lane
//   broadcast16(p)          16 bytes, for lookup16
//   lookup16(t, n)          t[n], bytewise
//   high_nibbles(v)         bits 4..7 of each byte
//   greater(a, b)           -1 where a > b, else 0, of signed bytes
//   bit_or(a, b)            a | b of bytes
//   shl<n>(v)               v << n of bytes that n bits do not push beyond 255
//   interleave(p, a, b)     stores 64 bytes: of each lane, the two depths of a, then those of b
//   pair_dot(v, x, y)       nibbles x*(first depth) + y*(second depth) of bytes
//   store_low(p, q, a, b)   nibbles a to the lower bits of 16 bytes at p, b to those at q; the upper bits become 0
//   merge_high(p, q, a, b)  nibbles a to the upper bits of 16 bytes at p, b to those at q; the lower bits stay, the upper ones must be 0
//   prefetch(p)             a hint that the cache line at p will be read soon
//   transpose(p, nb, q)     8 depths of 16 lanes of f16, lane-major (rows nb bytes apart), to depth-major

#include "ggml-cpu-impl.h"
#include "qlutattn-config.h"

#if defined(__AVX2__) && defined(__F16C__)
#    include "pack-avx2.h"
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include "pack-neon.h"
#endif
