#pragma once

// The verbs that the vector kernels are written in, per instruction set. A vector is one part of a 64-byte chunk of codes: 16, 32 or 64 bytes.
//
//   QLUTATTN_SIMD           the name of the instruction set, where there is vector code
//   WIDTH                   bytes of a vector
//   DOT_ROWS, LUT_ROWS      how many rows share the unpacked codes in registers
//   ACC16                   whether products are accumulated in 16 bits (qlutattn_simd_is_acc16)
//   BOTH_SIGNED             whether mul_add multiplies signed bytes; then its unsigned ones are below 128
//
//   bytes                   WIDTH bytes
//   sums32                  WIDTH/4 sums of 32 bits
//   sums16                  WIDTH sums of 16 bits
//   products                products of bytes, being accumulated
//
//   load(p)                 WIDTH bytes
//   prefetch<first>(p)      asks for the bytes at p, into the first cache or the second
//   store(p, v)             bytes to bytes, sums32 to int32
//   broadcast16(p)          16 bytes, in every 16-byte part of the vector
//   broadcast4(p)           four bytes, in every 32-bit part
//   broadcast4_parts(p)     the four bytes at p + 4*i in every 32-bit part of the 16-byte part i
//   broadcast32(i)          i in every sum
//   repeat4(p)              WIDTH/4 bytes, each four times
//   low_nibbles(v)          bits 0..3 of each byte
//   high_nibbles(v)         bits 4..7 of each byte
//   lookup16(t, n)          t[n], bytewise; n >= 128 gives 0
//   bit_mask4(first)        1, 2, 4 and 8, shifted left by first, in every 32-bit part
//   test(v, m)              2 where v and m have a bit in common, else 0
//   add(a, b)               a + b, bytewise
//   zero16()                sums16 of 0
//   add(s, v)               sums16 s + the bytes v
//   store_twice(p, s, i)    2*s - i of sums16 s to int32
//   store_parts(p, s, t)    four int32, each the sum of one 32-bit part of all 16-byte parts of sums32 s, then four of t
//   begin(s)                products, to be added to s
//   mul_add(p, u, i)        p + the products u*i; u is unsigned. With ACC16, all products of two neighbours together must fit 16 bits, else each
//   end(s, p)               s + p, the four of each 32-bit part added up
//   as_unsigned(v)          signed bytes in the place of mul_add's unsigned ones,
//   beside(x, v)            and the bytes x beside them: mul_add makes (v + SIGNED_OFFSET)*x, one per begin and end with ACC16
//
// QLUTATTN_DOT_BLOCKS is defined where the dot kernel is another one, tbl-neon-dot.h; with QLUTATTN_MATRIX, it multiplies 2x8 by 8x2 matrices of
// bytes, and a sums32 is two rows by two lanes.
//
//   load8(p)                eight bytes
//   repeat(i)               i in every byte
//   all_ones_if(v, m)       -1 where v and m have a bit in common, else 0
//   minus_twice(s, t)       s - 2*t
//   mul_add_part<i>(s, v, x)  s + v times the four bytes i of x
//   in_turns(a, b)          bytes of a and b in turns, the first eight of each
//   first_lanes(a, b)       lanes 0 and 1, eight depths each, of which a has the first four and b the others
//   last_lanes(a, b)        lanes 2 and 3 likewise
//   first_halves(a, b)      the first half of a, then that of b
//   last_halves(a, b)       the second halves
//   matmul(s, x, f)         s + rows x times lanes f

#include "qlutattn-config.h"

#if defined(__AVX512BW__) && defined(__AVX512F__)
#    include "tbl-avx512.h"
#elif defined(__AVX2__)
#    include "tbl-avx2.h"
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include "tbl-neon.h"
#endif
