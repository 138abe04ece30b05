#pragma once

// The verbs that the vector kernels are written in, per instruction set. A vector is one part of a 64-byte chunk of codes: 16, 32 or 64 bytes.
//
//   bytes            WIDTH bytes
//   sums32           WIDTH/4 sums of 32 bits
//   sums16           WIDTH sums of 16 bits
//   products         products of bytes, being added up
//
//   load(p)          WIDTH bytes
//   table(p)         a table of 16 bytes, in every 16-byte part of the vector
//   low(v), high(v)  nibbles as bytes
//   pick(t, n)       t[n], bytewise; n >= 128 gives 0
//   spread(p)        WIDTH/4 bytes, each four times
//   test(v, m)       2 where v and m have a bit in common, else 0
//   four(p)          four bytes, in every 32-bit part
//   fours(p)         the four bytes at p + 4*i at the start of the 16-byte part i
//   begin(s)         products, to be added to s
//   mul_add(p, u, i) p + the products u*i; u is unsigned. Where NARROW, all products of two neighbours together must fit 16 bits, else all of one
//   end(s, p)        s + p, the four of each 32-bit part added up
//   add(s, v)        s + v, bytes widened to 16 bits
//   add(a, b)        a + b, bytewise
//   set32(i)         i in every sum
//   store(p, s)      sums to int32, bytes to bytes
//   store_twice(p, s, i)  2*s - i to int32
//
// QLUTATTN_MATRIX is defined where there is an instruction for 2x8 times 8x2 matrices of bytes. There a sums32 is two rows by two lanes.
//
//   two_rows(p, q)      eight bytes from p, eight from q; two_rows(i, j): i in the first row, j in the second
//   first_lanes(a, b)   lanes 0 and 1, eight depths each, of which a has the first four and b the others; last_lanes: 2 and 3
//   multiply(s, x, f)   s + rows x times lanes f
//   first_row(s, t)     the first row of lanes s and t; second_row: the second
//
// DOT_ROWS, LUT_ROWS: how many rows share the unpacked codes in registers; NARROW: see qlutattn_simd_is_narrow.

#include "qlutattn-config.h"

#if defined(__AVX512BW__) && defined(__AVX512F__)
#    include "tbl-avx512.h"
#elif defined(__AVX2__)
#    include "tbl-avx2.h"
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include "tbl-neon.h"
#endif
