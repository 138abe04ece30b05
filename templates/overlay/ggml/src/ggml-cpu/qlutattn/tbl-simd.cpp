// The vector kernels: one algorithm each, in the verbs of tbl-simd.h.
// Looking up partial sums follows T-MAC; accumulating bytes in 16 bits follows FAISS's 4-bit fast scan.

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "tbl-acc.h"
#include "tbl-simd.h"

#ifndef QLUTATTN_SIMD

const char * qlutattn_simd_name() {
    return nullptr;
}

bool qlutattn_has_simd(const qlutattn_kernel_config &, qlutattn_kernel) {
    return false;
}

bool qlutattn_simd_is_acc16() {
    return false;
}

void qlutattn_build_lut_simd(const qlutattn_kernel_config &, qlutattn_kernel, int, qlutattn_qvec &) {}

void qlutattn_tile_gemm_simd(const qlutattn_kernel_config &, qlutattn_kernel, const uint8_t *, const qlutattn_span &, const qlutattn_qvec * const *,
                             int, qlutattn_acc &) {}

bool qlutattn_has_simd_transposed(const qlutattn_kernel_config &) {
    return false;
}

void qlutattn_spread_simd(qlutattn_qvec &) {}

void qlutattn_tile_gemm_transposed_simd(const qlutattn_kernel_config &, const uint8_t *, const qlutattn_span &, const qlutattn_qvec * const *, int,
                                        qlutattn_acc &) {}

#else

using namespace qlutattn_simd;

// before loops over sums: clang before 19 keeps some rolled, and the sums in memory
#    ifdef __clang__
#        define QLUTATTN_UNROLL _Pragma("clang loop unroll(full)")
#    else
#        define QLUTATTN_UNROLL
#    endif

static constexpr int MAX_ROWS = std::max(DOT_ROWS, LUT_ROWS);

// What is read of a tile is asked for of the tile after the next: tiles of a head follow one another, and the processor's own prefetching stops at
// the end of a page, which may be half a tile. K and V of two tiles of up to 2 bits fit the first cache, larger ones the second.
template <int bits> static inline void prefetch_ahead(const qlutattn_kernel_config & config, const uint8_t * p) {
    prefetch<(bits <= 2)>(p + 2 * config.tile_bytes());
}

// the arguments of a kernel
struct gemm_task {
    const qlutattn_kernel_config & config;
    const uint8_t *                codes;
    const qlutattn_span &          span;
    const qlutattn_qvec * const *  qvecs;
    qlutattn_acc &                 acc;
};

// the level of each field of a byte, plus `added`, for every nibble
template <int bits> static inline void load_levels(const qlutattn_kernel_config & config, int added, bytes * levels) {
    for (int f = 0; f < 4 / bits; f++) {
        int8_t of_nibble[16];
        for (int n = 0; n < 16; n++) {
            of_nibble[n] = config.int_levels[n >> (f * bits) & ((1 << bits) - 1)] + added;
        }
        levels[f] = broadcast16(of_nibble);
    }
}

// The dot order: field i of a byte (bits i*bits on) is one of the depths 4*i .. 4*i + 3. Codes become integer levels once for all rows, and
// levels are multiplied by four neighbouring depths of x at a time. K has signed x, and levels that are made unsigned by adding the largest,
// unless BOTH_SIGNED; V has unsigned x.
template <int bits, bool signed_x, int n_rows, int n_vecs> static void dot_rows(const gemm_task & t, int row0) {
    constexpr int fields = 8 / bits;  // of a byte
    constexpr int depths = 32 / bits; // of a chunk
    constexpr int mask   = (1 << bits) - 1;

    bytes levels[fields / 2];
    load_levels<bits>(t.config, signed_x && !BOTH_SIGNED ? t.config.int_levels[mask] : 0, levels);
    const int n_chunks = t.span.n_depth / depths;

    for (int lane = 0; lane < t.span.n_lanes; lane += n_vecs * WIDTH / 4) {
        const uint8_t * chunks[n_vecs];
        QLUTATTN_UNROLL
        for (int v = 0; v < n_vecs; v++) {
            const int at = t.span.lane0 + lane + v * WIDTH / 4;
            chunks[v] =
                t.codes + (at / QLUTATTN_DOT_LANES * (PACK_SIZE / depths) + t.span.depth0 / depths) * PACK_CHUNK_SIZE + at % QLUTATTN_DOT_LANES * 4;
        }
        sums32 sums[n_vecs][n_rows];
        QLUTATTN_UNROLL
        for (int v = 0; v < n_vecs; v++) {
            QLUTATTN_UNROLL
            for (int r = 0; r < n_rows; r++) {
                sums[v][r] = broadcast32(-t.qvecs[row0 + r]->bias);
            }
        }
        for (int i = 0; i < n_chunks; i++) {
            bytes nibbles[n_vecs][2];
            QLUTATTN_UNROLL
            for (int v = 0; v < n_vecs; v++) {
                const bytes c = load(chunks[v] + i * PACK_CHUNK_SIZE);
                prefetch_ahead<bits>(t.config, chunks[v] + i * PACK_CHUNK_SIZE);
                nibbles[v][0] = low_nibbles(c);
                nibbles[v][1] = high_nibbles(c);
            }
            products p[n_vecs][n_rows];
            QLUTATTN_UNROLL
            for (int v = 0; v < n_vecs; v++) {
                QLUTATTN_UNROLL
                for (int r = 0; r < n_rows; r++) {
                    p[v][r] = begin(sums[v][r]);
                }
            }
            QLUTATTN_UNROLL
            for (int j = 0; j < fields; j++) {
                bytes f[n_vecs];
                QLUTATTN_UNROLL
                for (int v = 0; v < n_vecs; v++) {
                    f[v] = lookup16(levels[j % (fields / 2)], nibbles[v][j / (fields / 2)]);
                }
                QLUTATTN_UNROLL
                for (int r = 0; r < n_rows; r++) {
                    const bytes x = broadcast4(t.qvecs[row0 + r]->qs + i * depths + 4 * j);
                    QLUTATTN_UNROLL
                    for (int v = 0; v < n_vecs; v++) {
                        p[v][r] = signed_x ? mul_add(p[v][r], f[v], x) : mul_add(p[v][r], x, f[v]);
                    }
                }
            }
            QLUTATTN_UNROLL
            for (int v = 0; v < n_vecs; v++) {
                QLUTATTN_UNROLL
                for (int r = 0; r < n_rows; r++) {
                    sums[v][r] = end(sums[v][r], p[v][r]);
                }
            }
        }
        QLUTATTN_UNROLL
        for (int v = 0; v < n_vecs; v++) {
            QLUTATTN_UNROLL
            for (int r = 0; r < n_rows; r++) {
                store(t.acc[row0 + r] + lane + v * WIDTH / 4, sums[v][r]);
            }
        }
    }
}

// Bytes from one chunk of a lane to that of the lane QLUTATTN_DOT_LANES further, at 8 bits.
static constexpr int NEXT_LANES = PACK_SIZE / 4 * PACK_CHUNK_SIZE;

// 8 bits: a chunk is four depths, and its bytes are the levels.
template <bool signed_x, int n_rows, int n_vecs> static void byte_rows(const gemm_task & t, int row0) {
    constexpr int lanes = WIDTH / 4;                                    // of a vector
    constexpr int next  = WIDTH < PACK_CHUNK_SIZE ? WIDTH : NEXT_LANES; // from one vector to the next

    const int n_chunks = t.span.n_depth / 4;
    for (int lane = 0; lane < t.span.n_lanes; lane += n_vecs * lanes) {
        const int       at    = t.span.lane0 + lane;
        const uint8_t * chunk = t.codes + at / QLUTATTN_DOT_LANES * NEXT_LANES + t.span.depth0 / 4 * PACK_CHUNK_SIZE + at % QLUTATTN_DOT_LANES * 4;

        sums32 sums[n_vecs][n_rows];
        QLUTATTN_UNROLL
        for (int v = 0; v < n_vecs; v++) {
            QLUTATTN_UNROLL
            for (int r = 0; r < n_rows; r++) {
                sums[v][r] = broadcast32(-t.qvecs[row0 + r]->bias);
            }
        }
        for (int i = 0; i < n_chunks; i++) {
            bytes levels[n_vecs];
            QLUTATTN_UNROLL
            for (int v = 0; v < n_vecs; v++) {
                levels[v] = load(chunk + i * PACK_CHUNK_SIZE + v * next);
                prefetch_ahead<8>(t.config, chunk + i * PACK_CHUNK_SIZE + v * next);
            }
            QLUTATTN_UNROLL
            for (int r = 0; r < n_rows; r++) {
                const bytes x = broadcast4(t.qvecs[row0 + r]->qs + i * 4);
                QLUTATTN_UNROLL
                for (int v = 0; v < n_vecs; v++) {
                    const products p = begin(sums[v][r]);
                    sums[v][r] = end(sums[v][r], signed_x ? mul_add(p, as_unsigned(levels[v]), beside(x, levels[v])) : mul_add(p, x, levels[v]));
                }
            }
        }
        QLUTATTN_UNROLL
        for (int v = 0; v < n_vecs; v++) {
            QLUTATTN_UNROLL
            for (int r = 0; r < n_rows; r++) {
                store(t.acc[row0 + r] + lane + v * lanes, sums[v][r]);
            }
        }
    }
}

// The transposed product in the dot order. The bytes of four lanes lie in a 16-byte part, four depths each: turned around, it has the four lanes
// of each depth side by side, to be multiplied by the four lanes' x. A part gives the sums of its own lanes.
template <int bits, int n_rows> static void transposed_rows(const gemm_task & t, int row0) {
    constexpr int fields = 8 / bits;
    constexpr int depths = 32 / bits;
    constexpr int lanes  = WIDTH / 4; // of a vector

    bytes levels[fields / 2];
    load_levels<bits>(t.config, 0, levels);
    static const uint8_t around[16] = { 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15 };
    const bytes          turn       = broadcast16(around);

    for (int d = 0; d < t.span.n_depth; d += depths) {
        const uint8_t * chunk = t.codes + (t.span.depth0 + d) / depths * PACK_CHUNK_SIZE;

        sums32 sums[fields][n_rows];
        for (int j = 0; j < fields; j++) {
            for (int r = 0; r < n_rows; r++) {
                sums[j][r] = broadcast32(0);
            }
        }
        for (int lane = 0; lane < PACK_SIZE; lane += 2 * lanes) { // two vectors: with ACC16, as many products as fit
            bytes nibbles[2][2];
            for (int v = 0; v < 2; v++) {
                const int   at = lane + v * lanes;
                const bytes c =
                    lookup16(load(chunk + at / QLUTATTN_DOT_LANES * (PACK_SIZE / depths) * PACK_CHUNK_SIZE + at % QLUTATTN_DOT_LANES * 4), turn);
                nibbles[v][0] = low_nibbles(c);
                nibbles[v][1] = high_nibbles(c);
            }
            for (int j = 0; j < fields; j++) {
                const bytes a = lookup16(levels[j % (fields / 2)], nibbles[0][j / (fields / 2)]);
                const bytes b = lookup16(levels[j % (fields / 2)], nibbles[1][j / (fields / 2)]);
                for (int r = 0; r < n_rows; r++) {
                    const uint8_t * x = t.qvecs[row0 + r]->lut + lane * 4;
                    const products  p = mul_add(mul_add(begin(sums[j][r]), load(x), a), load(x + WIDTH), b);
                    sums[j][r]        = end(sums[j][r], p);
                }
            }
        }
        for (int r = 0; r < n_rows; r++) {
            for (int j = 0; j < fields; j += 2) {
                store_parts(t.acc[row0 + r] + d + 4 * j, sums[j][r], sums[j + 1][r]);
            }
        }
    }
}

// The same at 8 bits, two chunks at a time.
template <int n_rows> static void transposed_byte_rows(const gemm_task & t, int row0) {
    static const uint8_t around[16] = { 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15 };
    const bytes          turn       = broadcast16(around);

    for (int d = 0; d < t.span.n_depth; d += 8) {
        const uint8_t * chunk = t.codes + (t.span.depth0 + d) / 4 * PACK_CHUNK_SIZE;

        sums32 sums[2][n_rows];
        for (int r = 0; r < n_rows; r++) {
            sums[0][r] = sums[1][r] = broadcast32(0);
        }
        for (int lane = 0; lane < PACK_SIZE; lane += WIDTH / 4) {
            const uint8_t * at = chunk + lane / QLUTATTN_DOT_LANES * NEXT_LANES + lane % QLUTATTN_DOT_LANES * 4;
            const bytes     a  = lookup16(load(at), turn);
            const bytes     b  = lookup16(load(at + PACK_CHUNK_SIZE), turn);
            for (int r = 0; r < n_rows; r++) {
                const bytes x = load(t.qvecs[row0 + r]->lut + lane * 4);
                sums[0][r]    = end(sums[0][r], mul_add(begin(sums[0][r]), x, a));
                sums[1][r]    = end(sums[1][r], mul_add(begin(sums[1][r]), x, b));
            }
        }
        for (int r = 0; r < n_rows; r++) {
            store_parts(t.acc[row0 + r] + d, sums[0][r], sums[1][r]);
        }
    }
}

// all rows, at most `most` at a time
template <int bits, int most> static void all_transposed_rows(const gemm_task & t, int n_rows) {
    const auto rows = [&](auto n, int row0) {
        if constexpr (bits == 8) {
            transposed_byte_rows<n()>(t, row0);
        } else {
            transposed_rows<bits, n()>(t, row0);
        }
        return row0 + n();
    };
    for (int r = 0; r < n_rows;) {
        if (n_rows - r >= most) {
            r = rows(std::integral_constant<int, most>(), r);
        } else if (most > 4 && n_rows - r >= 4) {
            r = rows(std::integral_constant<int, 4>(), r);
        } else {
            r = rows(std::integral_constant<int, 1>(), r);
        }
    }
}

// One bit, in the lookup order: a chunk is one nibble, four depths, of all lanes, the first half low, the other high. Codes count as levels 0
// and 2 here; the sum over -1 and 1 is that less the sum of x.
template <int n_rows> static void bit_rows(const gemm_task & t, int row0) {
    constexpr int unroll = 4; // chunks

    const int n_chunks = t.span.n_depth / 4;
    for (int lane = 0; lane < t.span.n_lanes; lane += WIDTH / 4) {
        const int       at    = t.span.lane0 + lane;
        const uint8_t * chunk = t.codes + t.span.depth0 / 4 * PACK_CHUNK_SIZE + at % PACK_CHUNK_SIZE;
        const bytes     mask  = bit_mask4(at / PACK_CHUNK_SIZE * 4);

        sums32 sums[n_rows];
        QLUTATTN_UNROLL
        for (int r = 0; r < n_rows; r++) {
            sums[r] = broadcast32(-t.qvecs[row0 + r]->bias);
        }
        for (int i = 0; i < n_chunks; i += unroll) {
            products p[n_rows];
            QLUTATTN_UNROLL
            for (int r = 0; r < n_rows; r++) {
                p[r] = begin(sums[r]);
            }
            for (int j = i; j < i + unroll; j++) {
                const bytes level = test(repeat4(chunk + j * PACK_CHUNK_SIZE), mask);
                QLUTATTN_UNROLL
                for (int r = 0; r < n_rows; r++) {
                    p[r] = mul_add(p[r], level, broadcast4(t.qvecs[row0 + r]->qs + j * 4));
                }
            }
            QLUTATTN_UNROLL
            for (int r = 0; r < n_rows; r++) {
                sums[r] = end(sums[r], p[r]);
            }
        }
        QLUTATTN_UNROLL
        for (int r = 0; r < n_rows; r++) {
            store(t.acc[row0 + r] + lane, sums[r]);
        }
    }
}

// One bit, looked up: 16-bit sums hold the 32 bytes of a lane without overflow. Entries are sums over codes 0 and 1; the sum over -1 and 1
// is twice that less the bias.
template <int n_rows> static void lut_rows(const gemm_task & t, int row0) {
    const int  n_nibbles = t.span.n_depth / 4;
    const bool want_low  = t.span.lane0 == 0;
    const bool want_high = t.span.lane0 + t.span.n_lanes == PACK_SIZE;

    const uint8_t * codes = t.codes + t.span.depth0 / 4 * PACK_CHUNK_SIZE;
    for (int lane = 0; lane < PACK_CHUNK_SIZE; lane += WIDTH) {
        sums16 first[n_rows];
        sums16 last[n_rows];
        QLUTATTN_UNROLL
        for (int r = 0; r < n_rows; r++) {
            first[r] = zero16();
            last[r]  = zero16();
        }
        for (int g = 0; g < n_nibbles; g++) {
            const bytes v = load(codes + g * PACK_CHUNK_SIZE + lane);
            prefetch_ahead<1>(t.config, codes + g * PACK_CHUNK_SIZE + lane);
            const bytes a = low_nibbles(v);
            const bytes b = high_nibbles(v);
            QLUTATTN_UNROLL
            for (int r = 0; r < n_rows; r++) {
                const bytes entries = broadcast16(t.qvecs[row0 + r]->lut + g * 16);
                first[r]            = add(first[r], lookup16(entries, a));
                last[r]             = add(last[r], lookup16(entries, b));
            }
        }
        QLUTATTN_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const int32_t bias = t.qvecs[row0 + r]->bias;
            if (want_low) {
                store_twice(t.acc[row0 + r] + lane, first[r], bias);
            }
            if (want_high) {
                store_twice(t.acc[row0 + r] + lane + PACK_CHUNK_SIZE - t.span.lane0, last[r], bias);
            }
        }
    }
}

#    ifdef QLUTATTN_DOT_BLOCKS
#        include "tbl-neon-dot.h"

static void all_dot_rows(const gemm_task & t, int n_rows) {
    switch (t.config.bits) {
        case 1:
            all_rows<1>(t, n_rows);
            break;
        case 2:
            all_rows<2>(t, n_rows);
            break;
        case 4:
            all_rows<4>(t, n_rows);
            break;
        case 8:
            all_rows<8>(t, n_rows);
            break;
    }
}
#    endif

template <int n_rows> static void dispatch(const gemm_task & t, qlutattn_kernel kernel, int row0) {
#    ifdef QLUTATTN_DOT_BLOCKS
    GGML_UNUSED(kernel);
    lut_rows<n_rows>(t, row0);
#    else
    const bool    is_k   = t.config.lane_is_token;
    constexpr int n_vecs = std::max(2, QLUTATTN_DOT_LANES * 4 / WIDTH); // with a single one, loads of x would be as many as products
    switch (t.config.bits) {
        case 1:
            kernel == QLUTATTN_KERNEL_LUT ? lut_rows<n_rows>(t, row0) : bit_rows<n_rows>(t, row0);
            break;
        case 2:
            is_k ? dot_rows<2, true, n_rows, n_vecs>(t, row0) : dot_rows<2, false, n_rows, n_vecs>(t, row0);
            break;
        case 4:
            is_k ? dot_rows<4, true, n_rows, n_vecs>(t, row0) : dot_rows<4, false, n_rows, n_vecs>(t, row0);
            break;
        case 8:
            is_k ? byte_rows<true, n_rows, n_vecs>(t, row0) : byte_rows<false, n_rows, n_vecs>(t, row0);
            break;
    }
#    endif
}

static int32_t sum_qs(const int8_t * qs, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) { // vectorized
        sum += qs[i];
    }
    return sum;
}

// The tables of one bit: entry n is the sum of the qs that the bits of n select, plus the |q| of the negative q of the nibble, which makes it
// 0 at least, and 4*63 at max_rows. Returns the bias.
static int32_t fill_lut(const int8_t * qs, bool signed_x, int n_depth, uint8_t * lut) {
    // entries are looked up in the four qs of a nibble: q i where bit i of n is set, else nothing
    uint8_t at[4][16];
    for (int i = 0; i < 4; i++) {
        for (int n = 0; n < 16; n++) {
            at[i][n] = n >> i & 1 ? i : 0x80;
        }
    }
    const bytes index[4] = { broadcast16(at[0]), broadcast16(at[1]), broadcast16(at[2]), broadcast16(at[3]) };

    int32_t bias = sum_qs(qs, n_depth);
    memset(lut, 0, n_depth / 4 * 16);
    for (int g = 0; signed_x && g < n_depth / 4; g++) {
        int negative = 0;
        for (int i = 0; i < 4; i++) {
            negative += std::max(0, -qs[g * 4 + i]);
        }
        memset(lut + g * 16, negative, 16);
        bias += 2 * negative;
    }
    for (int g = 0; g < n_depth / 4; g += WIDTH / 16) {
        const bytes q = broadcast4_parts((const uint8_t *) qs + g * 4);
        bytes       e = load(lut + g * 16);
        for (int i = 0; i < 4; i++) {
            e = add(e, lookup16(q, index[i]));
        }
        store(lut + g * 16, e);
    }
    return bias;
}

const char * qlutattn_simd_name() {
    return QLUTATTN_SIMD;
}

bool qlutattn_has_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel) {
    return config.layout == QLUTATTN_LAYOUT_LOOKUP ? config.bits == 1 : kernel == QLUTATTN_KERNEL_DOT && config.bits > 1;
}

bool qlutattn_simd_is_acc16() {
    return ACC16;
}

void qlutattn_build_lut_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel, int n_depth, qlutattn_qvec & qvec) {
    const bool signed_x = config.lane_is_token;
    if (kernel == QLUTATTN_KERNEL_LUT) {
        qvec.bias = fill_lut(qvec.qs, signed_x, n_depth, qvec.lut);
    } else if (config.bits == 1) {
        qvec.bias = sum_qs(qvec.qs, n_depth);
    } else {
        const int32_t added = config.is_linear() ? SIGNED_OFFSET : BOTH_SIGNED ? 0 : config.int_levels[(1 << config.bits) - 1]; // to each level
        qvec.bias           = signed_x ? added * sum_qs(qvec.qs, n_depth) : 0;
    }
}

void qlutattn_tile_gemm_simd(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                             const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc) {
    const gemm_task t = { config, codes, span, qvecs, acc };
#    ifdef QLUTATTN_DOT_BLOCKS
    if (kernel == QLUTATTN_KERNEL_DOT) {
        all_dot_rows(t, n_rows);
        return;
    }
#    endif
    const int max_rows = kernel == QLUTATTN_KERNEL_LUT ? LUT_ROWS : DOT_ROWS;
    for (int r = 0; r < n_rows;) {
        const int n = std::min(max_rows, n_rows - r);
        if (max_rows >= 8 && n >= 8) {
            dispatch<std::min(8, MAX_ROWS)>(t, kernel, r);
            r += 8;
        } else if (max_rows >= 4 && n >= 4) {
            dispatch<4>(t, kernel, r);
            r += 4;
        } else if (n >= 2) {
            dispatch<2>(t, kernel, r);
            r += 2;
        } else {
            dispatch<1>(t, kernel, r);
            r += 1;
        }
    }
}

bool qlutattn_has_simd_transposed(const qlutattn_kernel_config & config) {
    return config.layout == QLUTATTN_LAYOUT_DOT;
}

void qlutattn_spread_simd(qlutattn_qvec & qvec) {
    for (int g = 0; g < PACK_SIZE / 4; g += WIDTH / 16) {
        store(qvec.lut + g * 16, broadcast4_parts((const uint8_t *) qvec.qs + g * 4));
    }
}

void qlutattn_tile_gemm_transposed_simd(const qlutattn_kernel_config & config, const uint8_t * codes, const qlutattn_span & span,
                                        const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc) {
    const gemm_task t = { config, codes, span, qvecs, acc };
    switch (config.bits) {
        case 2: // chunks have twice as many depths
            all_transposed_rows<2, std::max(2, DOT_ROWS / 2)>(t, n_rows);
            break;
        case 4:
            all_transposed_rows<4, DOT_ROWS>(t, n_rows);
            break;
        case 8:
            all_transposed_rows<8, DOT_ROWS>(t, n_rows);
            break;
    }
}

#endif
