#include "tbl-acc.h"

// the code of one lane at one depth
static inline uint8_t code_at(const qlutattn_kernel_config & config, const uint8_t * codes, int lane, int depth) {
    const int bits = config.bits;
    const int mask = (1 << bits) - 1;

    if (config.layout == QLUTATTN_LAYOUT_LOOKUP) {
        const int     per_nibble = config.depths_per_nibble();
        const uint8_t byte       = codes[depth / per_nibble * PACK_CHUNK_SIZE + lane % 64];
        return byte >> (lane / 64 * 4 + depth % per_nibble * bits) & mask;
    }
    const int     per_chunk = 32 / bits; // depths of a chunk
    const int     in_chunk  = depth % per_chunk;
    const int     chunk     = lane / 16 * (PACK_SIZE / per_chunk) + depth / per_chunk;
    const uint8_t byte      = codes[chunk * PACK_CHUNK_SIZE + lane % 16 * 4 + in_chunk % 4];
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

void qlutattn_acc_scalar(const qlutattn_kernel_config & config, qlutattn_kernel kernel, const uint8_t * codes, const qlutattn_span & span,
                         const qlutattn_tbl * const * tbls, int n_rows, qlutattn_acc & acc) {
    // each code is taken out of the tile once, and used for all rows
    const bool is_lut    = kernel == QLUTATTN_KERNEL_LUT;
    const int  per_entry = is_lut ? config.depths_per_nibble() : 1;

    for (int lane = 0; lane < span.n_lanes; lane++) {
        int16_t taken[PACK_SIZE]; // per depth or nibble: where in the row's units to look, or what to multiply them by
        for (int i = 0; i < span.n_depth / per_entry; i++) {
            const int depth = span.depth0 + i * per_entry;
            taken[i]        = is_lut ? i * 16 + nibble_at(config, codes, span.lane0 + lane, depth) :
                                       config.levels[code_at(config, codes, span.lane0 + lane, depth)];
        }
        for (int r = 0; r < n_rows; r++) {
            const uint8_t * units = tbls[r]->units;
            int32_t         sum   = 0;
            for (int i = 0; i < span.n_depth / per_entry; i++) {
                sum += is_lut ? units[taken[i]] - QLUTATTN_LUT_BIAS : taken[i] * (int8_t) units[i];
            }
            acc[r][lane] = sum;
        }
    }
}
