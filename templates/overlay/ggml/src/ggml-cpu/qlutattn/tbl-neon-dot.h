#pragma once

// The dot kernel with sdot or smmla, included by tbl-simd.cpp. 16 sums stay in registers: 4 rows by 16 lanes (decode), 8 by 8, 16 by 4 (prefill);
// the more rows, the more of them share what is unpacked. x is first put in the order of its use, so that one load brings what several vectors of
// levels are multiplied by: 16 depths of a row, of which sdot takes four at a time, or eight depths of two rows, which smmla multiplies by two
// lanes. Broadcasts from memory would take the pipes of the products.

#include <utility>

// gcc calls functions for 16 rows otherwise
#define QLUTATTN_INLINE __attribute__((always_inline))

// f(0), f(1), ... with constants, unrolled by every compiler
template <int... i, typename F> QLUTATTN_INLINE static inline void unrolled(std::integer_sequence<int, i...>, const F & f) {
    (f(std::integral_constant<int, i>()), ...);
}

template <int n, typename F> QLUTATTN_INLINE static inline void unrolled(const F & f) {
    unrolled(std::make_integer_sequence<int, n>(), f);
}

// The codes of a tile, a step at a time: what is unpacked to n_levels vectors of levels for each four lanes.
template <int bits> struct dot_codes {
    static constexpr int fields = bits == 1 ? 1 : 8 / bits; // of a byte; at one bit, each half of a chunk is for itself
    static constexpr int depths = 4 * fields;               // of a chunk

#ifdef QLUTATTN_MATRIX
    static constexpr int chunks = 2; // eight bytes of each lane
    static constexpr int turns  = 2; // chunks whose bytes are in turns, at one bit
#else
    static constexpr int chunks = 16 / depths;
    static constexpr int turns  = 1;
#endif
    static constexpr int step     = chunks * depths;
    static constexpr int n_levels = step / 4;

    bytes tables[4];
    bytes mask; // at one bit

    explicit dot_codes(const qlutattn_kernel_config & config) {
        if constexpr (bits == 2 || bits == 4) {
            load_levels<bits>(config, 0, tables);
        }
    }

    // where the codes of a lane begin; at one bit, those of the eight lanes that it is one of
    const uint8_t * seek(const gemm_task & t, int lane) {
        const int at = t.span.lane0 + lane;
        if constexpr (bits > 1) {
            const int chunk = at / QLUTATTN_DOT_LANES * (PACK_SIZE / depths) + t.span.depth0 / depths;
            return t.codes + chunk * PACK_CHUNK_SIZE + at % QLUTATTN_DOT_LANES * 4;
        } else {
            static const uint8_t each_four_times[16] = { 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3 };
            for (int i = 0; i < 4; i++) {
                tables[i] = add(load(each_four_times), repeat(4 * i + at % 8 * turns));
            }
            mask = bit_mask4(at / PACK_CHUNK_SIZE * 4);
            return t.codes + t.span.depth0 / 4 * PACK_CHUNK_SIZE + at % PACK_CHUNK_SIZE / 8 * 8;
        }
    }

    // The levels of four lanes, the vth from p on. With smmla, vectors 2*j and 2*j + 1 have field j of both chunks, of two lanes each; else vector
    // j has depths 4*j to 4*j + 3.
    template <int v> QLUTATTN_INLINE void unpack(const uint8_t * p, bytes (&levels)[n_levels]) const {
        if constexpr (bits == 1) {
            p += v / 2 * 8;
        } else {
            p += v * WIDTH;
        }
#ifdef QLUTATTN_MATRIX
        if constexpr (bits == 1) {
            const bytes both = in_turns(load8(p), load8(p + PACK_CHUNK_SIZE));
            unrolled<2>([&](auto i) QLUTATTN_INLINE { levels[i] = all_ones_if(lookup16(both, tables[v % 2 * 2 + i]), mask); });
        } else {
            const bytes a = load(p);
            const bytes b = load(p + PACK_CHUNK_SIZE);
            look_up<2>(first_lanes(a, b), levels);
            look_up<2>(last_lanes(a, b), levels + 1);
        }
#else
        unrolled<chunks>([&](auto i) QLUTATTN_INLINE {
            if constexpr (bits == 1) {
                levels[i] = all_ones_if(lookup16(load8(p + i * PACK_CHUNK_SIZE), tables[v % 2]), mask);
            } else {
                look_up<1>(load(p + i * PACK_CHUNK_SIZE), levels + i * fields);
            }
        });
#endif
    }

    // the levels of each field, to every `stride`th vector
    template <int stride> QLUTATTN_INLINE void look_up(bytes c, bytes * levels) const {
        if constexpr (bits == 8) {
            levels[0] = c;
        } else {
            const bytes nibbles[2] = { low_nibbles(c), high_nibbles(c) };
            unrolled<fields>([&](auto j) QLUTATTN_INLINE { levels[j * stride] = lookup16(tables[j % (fields / 2)], nibbles[j / (fields / 2)]); });
        }
    }
};

// x of all rows in the order of unpack, and the products of a step
#ifdef QLUTATTN_MATRIX
constexpr int MIN_ROWS = 2;

template <int bits, int n_rows> static void arrange(const int8_t * const (&rows)[n_rows], int n_depth, int8_t * x) {
    for (int r = 0; r < n_rows; r += 2) {
        const int8_t * a   = rows[r];
        const int8_t * b   = rows[r + 1];
        int8_t *       to  = x + r / 2 * WIDTH;
        const auto     put = [&](bytes u, bytes v) {
            store((uint8_t *) to, first_halves(u, v));
            store((uint8_t *) to + n_rows / 2 * WIDTH, last_halves(u, v));
            to += n_rows * WIDTH;
        };
        for (int d = 0; d < n_depth; d += std::max(16, dot_codes<bits>::step)) {
            if constexpr (bits == 2) {
                put(first_lanes(load(a + d), load(a + d + 16)), first_lanes(load(b + d), load(b + d + 16)));
                put(last_lanes(load(a + d), load(a + d + 16)), last_lanes(load(b + d), load(b + d + 16)));
            } else if constexpr (bits == 4) {
                put(first_lanes(load8(a + d), load8(a + d + 8)), first_lanes(load8(b + d), load8(b + d + 8)));
            } else {
                put(load(a + d), load(b + d));
            }
        }
    }
}

// sums 2*p and 2*p + 1: the pth two rows, by two lanes each
template <int n_rows, int n_levels>
QLUTATTN_INLINE static inline void multiply(const bytes (&levels)[n_levels], const int8_t * x, sums32 (&sums)[n_rows]) {
    unrolled<n_levels / 2>([&](auto j) QLUTATTN_INLINE {
        unrolled<n_rows / 2>([&](auto p) QLUTATTN_INLINE {
            const bytes rows = load((const uint8_t *) x + (j * n_rows / 2 + p) * WIDTH);
            sums[2 * p]      = matmul(sums[2 * p], rows, levels[2 * j]);
            sums[2 * p + 1]  = matmul(sums[2 * p + 1], rows, levels[2 * j + 1]);
        });
    });
}

template <int r, int n_rows> static inline sums32 row_of(const sums32 (&sums)[n_rows]) {
    return r % 2 == 0 ? first_halves(sums[r / 2 * 2], sums[r / 2 * 2 + 1]) : last_halves(sums[r / 2 * 2], sums[r / 2 * 2 + 1]);
}
#else
constexpr int MIN_ROWS = 1;

template <int bits, int n_rows> static void arrange(const int8_t * const (&rows)[n_rows], int n_depth, int8_t * x) {
    for (int d = 0; d < n_depth; d += 16) {
        for (int r = 0; r < n_rows; r++) {
            memcpy(x + d * n_rows + r * 16, rows[r] + d, 16);
        }
    }
}

template <int n_rows> QLUTATTN_INLINE static inline void multiply(const bytes (&levels)[4], const int8_t * x, sums32 (&sums)[n_rows]) {
    unrolled<n_rows>([&](auto r) QLUTATTN_INLINE {
        const bytes row = load((const uint8_t *) x + r * 16);
        unrolled<4>([&](auto j) QLUTATTN_INLINE { sums[r] = mul_add_part<j>(sums[r], levels[j], row); });
    });
}

template <int r, int n_rows> static inline sums32 row_of(const sums32 (&sums)[n_rows]) {
    return sums[r];
}
#endif

// Before the next vector is unpacked: compilers would unpack several at once, and spill. clang spills more with it where there is smmla.
QLUTATTN_INLINE static inline void finish_vector() {
#if !defined(__clang__) || !defined(QLUTATTN_MATRIX)
    __asm__ volatile("" ::: "memory");
#endif
}

// n rows, up to n_rows of them; the last one is repeated
template <int bits, int n_rows> static void block_rows(const gemm_task & t, int row0, int n) {
    constexpr int n_vecs = std::min(4, 16 / n_rows);
    constexpr int lanes  = WIDTH / 4;               // of a vector of sums

    const size_t ahead = 2 * t.config.tile_bytes(); // as prefetch_ahead

    const int8_t * rows[n_rows];
    for (int r = 0; r < n_rows; r++) {
        rows[r] = t.qvecs[row0 + std::min(r, n - 1)]->qs;
    }
    alignas(64) int8_t x[PACK_SIZE * n_rows];
    arrange<bits>(rows, t.span.n_depth, x);

    dot_codes<bits> codes(t.config);
    for (int lane = 0; lane < t.span.n_lanes; lane += n_vecs * lanes) {
        const uint8_t * p = codes.seek(t, lane);
        sums32          sums[n_vecs][n_rows];
        unrolled<n_vecs>([&](auto v) QLUTATTN_INLINE { unrolled<n_rows>([&](auto r) QLUTATTN_INLINE { sums[v][r] = broadcast32(0); }); });
        for (int d = 0; d < t.span.n_depth; d += codes.step) {
            unrolled<n_vecs>([&](auto v) QLUTATTN_INLINE {
                bytes levels[codes.n_levels];
                codes.template unpack<v>(p, levels);
                multiply(levels, x + d * n_rows, sums[v]);
                if constexpr (v + 1 < n_vecs) {
                    finish_vector();
                }
            });
            if constexpr (n_vecs == 4 && bits > 1) { // few rows
                unrolled<codes.chunks>([&](auto i) QLUTATTN_INLINE { prefetch<(bits == 2)>(p + i * PACK_CHUNK_SIZE + ahead); });
            }
            p += codes.chunks * PACK_CHUNK_SIZE;
        }
        unrolled<n_rows>([&](auto r) QLUTATTN_INLINE {
            const int row = row0 + std::min<int>(r, n - 1);
            unrolled<n_vecs>([&](auto v) QLUTATTN_INLINE {
                const sums32 s = row_of<r>(sums[v]);
                // of one bit, levels count as -1 and 0
                store(t.acc[row] + lane + v * lanes, bits == 1 ? minus_twice(broadcast32(-t.qvecs[row]->bias), s) : s);
            });
        });
    }
}

template <int bits> static void all_rows(const gemm_task & t, int n_rows) {
    for (int r = 0; r < n_rows;) {
        const int  n   = n_rows - r;
        const auto run = [&](auto block) {
            block_rows<bits, block()>(t, r, std::min<int>(block, n));
            r += block;
        };
        // a larger block that is not full is worth its products as long as these are fewer than another unpacking is
        const auto fits = [&](int block) {
            return MIN_ROWS == 2 ? 2 * n > block : 4 * n >= 3 * block;
        };
        if (fits(16)) {
            run(std::integral_constant<int, 16>());
        } else if (fits(8)) {
            run(std::integral_constant<int, 8>());
        } else if (fits(4)) {
            run(std::integral_constant<int, 4>());
        } else if (fits(2)) {
            run(std::integral_constant<int, 2>());
        } else {
            run(std::integral_constant<int, MIN_ROWS>());
        }
    }
}
