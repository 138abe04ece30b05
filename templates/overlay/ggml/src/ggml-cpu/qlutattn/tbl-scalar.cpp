#include "tbl-acc.h"

// the code of one lane at one depth
static inline uint8_t code_at(const qlutattn_kernel_config & config, const uint8_t * codes, int lane, int depth) {
    const int bits = config.bits;
    const int mask = (1 << bits) - 1;

    if (config.layout == QLUTATTN_LAYOUT_LOOKUP) {
        const int     per_nibble = config.depths_per_nibble();
        const uint8_t byte       = codes[depth / per_nibble * PACK_CHUNK_SIZE + lane % PACK_CHUNK_SIZE];
        return byte >> (lane / PACK_CHUNK_SIZE * 4 + depth % per_nibble * bits) & mask;
    }
    const int     per_chunk = 32 / bits; // depths of a chunk
    const int     in_chunk  = depth % per_chunk;
    const int     chunk     = lane / QLUTATTN_DOT_LANES * (PACK_SIZE / per_chunk) + depth / per_chunk;
    const uint8_t byte      = codes[chunk * PACK_CHUNK_SIZE + lane % QLUTATTN_DOT_LANES * 4 + in_chunk % 4];
    return byte >> (in_chunk / 4 * bits) & mask;
}

// the nibble of one lane: the codes of 4/bits neighbouring depths
static inline uint8_t nibble_at(const qlutattn_kernel_config & config, const uint8_t * codes, int lane, int depth) {
    uint8_t nibble = 0;
    for (int i = 0; i < config.depths_per_nibble(); i++) {
        nibble |= code_at(config, codes, lane, depth + i) << (i * config.bits);
    }
    return nibble;
}

// Each code is unpacked once for all rows.
static void dot_scalar(const qlutattn_kernel_config & config, const uint8_t * codes, const qlutattn_span & span, const qlutattn_qvec * const * qvecs,
                       int n_rows, qlutattn_acc & acc) {
    for (int lane = 0; lane < span.n_lanes; lane++) {
        int32_t levels[PACK_SIZE];
        for (int d = 0; d < span.n_depth; d++) {
            levels[d] = config.int_level(code_at(config, codes, span.lane0 + lane, span.depth0 + d));
        }
        for (int r = 0; r < n_rows; r++) {
            int32_t sum = 0;
            for (int d = 0; d < span.n_depth; d++) {
                sum += levels[d] * qvecs[r]->qs[d];
            }
            acc[r][lane] = sum;
        }
    }
}

// The same sums, looked up: entry n of a nibble's table is the sum of the products of the codes in n and the nibble's qs.
static void lut_scalar(const qlutattn_kernel_config & config, const uint8_t * codes, const qlutattn_span & span, const qlutattn_qvec * const * qvecs,
                       int n_rows, qlutattn_acc & acc) {
    const int per_nibble = config.depths_per_nibble();
    const int mask       = (1 << config.bits) - 1;

    for (int r = 0; r < n_rows; r++) {
        for (int lane = 0; lane < span.n_lanes; lane++) {
            acc[r][lane] = 0;
        }
    }
    for (int d = 0; d < span.n_depth; d += per_nibble) {
        uint8_t nibbles[PACK_SIZE];
        for (int lane = 0; lane < span.n_lanes; lane++) {
            nibbles[lane] = nibble_at(config, codes, span.lane0 + lane, span.depth0 + d);
        }
        for (int r = 0; r < n_rows; r++) {
            int32_t table[16] = { 0 };
            for (int n = 0; n < 16; n++) {
                for (int i = 0; i < per_nibble; i++) {
                    table[n] += config.int_levels[n >> (i * config.bits) & mask] * qvecs[r]->qs[d + i];
                }
            }
            for (int lane = 0; lane < span.n_lanes; lane++) {
                acc[r][lane] += table[nibbles[lane]];
            }
        }
    }
}

void qlutattn_tile_gemm_scalar(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                               const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc) {
    if (kernel == QLUTATTN_KERNEL_LUT) {
        lut_scalar(config, codes, span, qvecs, n_rows, acc);
    } else {
        dot_scalar(config, codes, span, qvecs, n_rows, acc);
    }
}

void qlutattn_tile_gemm_transposed_scalar(const qlutattn_kernel_config & config, const uint8_t * codes, const qlutattn_span & span,
                                          const qlutattn_qvec * const * qvecs, int n_rows, qlutattn_acc & acc) {
    for (int d = 0; d < span.n_depth; d++) {
        int32_t levels[PACK_SIZE];
        for (int lane = 0; lane < span.n_lanes; lane++) {
            levels[lane] = config.int_level(code_at(config, codes, span.lane0 + lane, span.depth0 + d));
        }
        for (int r = 0; r < n_rows; r++) {
            int32_t sum = 0;
            for (int lane = 0; lane < span.n_lanes; lane++) {
                sum += levels[lane] * qvecs[r]->qs[lane];
            }
            acc[r][d] = sum;
        }
    }
}
