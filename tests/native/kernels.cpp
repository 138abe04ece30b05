// The vector kernels against the plain ones, integer by integer: every width, kernel, span and number of rows, on random codes and on the
// extremes of x. Compiled for one instruction set at a time; says which kernels were compared, and the first difference.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "tbl-acc.h"

static std::mt19937 rng(1);

static int random_up_to(int max) {
    return (int) (rng() % (unsigned) (max + 1));
}

struct kernel_case {
    qlutattn_kernel_config config;
    qlutattn_kernel        kernel;
    qlutattn_span          span;
    int                    n_rows;
    bool                   extreme;
};

static int qmax_of(const kernel_case & c) {
    if (c.kernel == QLUTATTN_KERNEL_LUT) {
        return 63;
    }
    return c.config.bits == 4 && c.config.lane_is_token && qlutattn_simd_is_acc16() ? 64 : 127;
}

static bool compare(const kernel_case & c) {
    std::vector<uint8_t> codes(c.config.code_bytes());
    const uint8_t        smallest = c.config.is_linear() ? 0x80 : 0x00;
    for (uint8_t & byte : codes) {
        byte = (uint8_t) (c.extreme ? (rng() & 1 ? smallest : ~smallest) : rng());
    }
    static qlutattn_qvec  qvecs[QLUTATTN_ROWS];
    const qlutattn_qvec * x[QLUTATTN_ROWS];
    const int             qmax = qmax_of(c);
    for (int r = 0; r < c.n_rows; r++) {
        const bool negative = c.config.lane_is_token;
        memset(&qvecs[r], 0xaa, sizeof(qvecs[r]));
        for (int d = 0; d < c.span.n_depth; d++) {
            const int q    = c.extreme ? qmax : random_up_to(qmax);
            qvecs[r].qs[d] = (int8_t) (negative && (rng() & 1) ? -q : q);
        }
        qlutattn_build_lut_simd(c.config, c.kernel, c.span.n_depth, qvecs[r]);
        x[r] = &qvecs[r];
    }
    static qlutattn_acc plain, simd;
    memset(plain, 0x55, sizeof(plain));
    memset(simd, 0x55, sizeof(simd));
    qlutattn_tile_gemm_scalar(c.config, c.kernel, codes.data(), c.span, x, c.n_rows, plain);
    qlutattn_tile_gemm_simd(c.config, c.kernel, codes.data(), c.span, x, c.n_rows, simd);
    for (int r = 0; r < QLUTATTN_ROWS; r++) {
        for (int lane = 0; lane < PACK_SIZE; lane++) {
            if (plain[r][lane] != simd[r][lane]) {
                printf("%s %d bits %s, depths %d+%d, lanes %d+%d, %d rows: row %d lane %d is %d, not %d\n",
                       c.kernel == QLUTATTN_KERNEL_LUT ? "lut" : "dot", c.config.bits, c.config.lane_is_token ? "K" : "V", c.span.depth0,
                       c.span.n_depth, c.span.lane0, c.span.n_lanes, c.n_rows, r, lane, simd[r][lane], plain[r][lane]);
                return false;
            }
        }
    }
    return true;
}

// likewise of the transposed product, whose x is not negative
static bool compare_transposed(const qlutattn_kernel_config & config, const qlutattn_span & span, int n_rows, bool extreme) {
    std::vector<uint8_t> codes(config.code_bytes());
    for (uint8_t & byte : codes) {
        byte = extreme ? (config.is_linear() ? 0x80 : 0xff) : (uint8_t) rng();
    }
    static qlutattn_qvec  qvecs[QLUTATTN_ROWS];
    const qlutattn_qvec * x[QLUTATTN_ROWS];
    for (int r = 0; r < n_rows; r++) {
        memset(&qvecs[r], 0xaa, sizeof(qvecs[r]));
        for (int8_t & q : qvecs[r].qs) {
            q = (int8_t) (extreme ? QLUTATTN_QMAX_TRANSPOSED : random_up_to(QLUTATTN_QMAX_TRANSPOSED));
        }
        qlutattn_spread_simd(qvecs[r]);
        x[r] = &qvecs[r];
    }
    static qlutattn_acc plain, simd;
    memset(plain, 0x55, sizeof(plain));
    memset(simd, 0x55, sizeof(simd));
    qlutattn_tile_gemm_transposed_scalar(config, codes.data(), span, x, n_rows, plain);
    qlutattn_tile_gemm_transposed_simd(config, codes.data(), span, x, n_rows, simd);
    for (int r = 0; r < QLUTATTN_ROWS; r++) {
        for (int d = 0; d < PACK_SIZE; d++) {
            if (plain[r][d] != simd[r][d]) {
                printf("transposed %d bits, depths %d+%d, %d rows: row %d depth %d is %d, not %d\n", config.bits, span.depth0, span.n_depth, n_rows,
                       r, d, simd[r][d], plain[r][d]);
                return false;
            }
        }
    }
    return true;
}

int main() {
    printf("%s\n", qlutattn_simd_name() ? qlutattn_simd_name() : "no vector kernels");
    int n = 0;
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        if (!qlutattn_get_kernel_config((ggml_type) type)) {
            continue;
        }
        const qlutattn_kernel_config & config = *qlutattn_get_kernel_config((ggml_type) type);
        for (int i = 0; config.lane_is_token && qlutattn_has_simd_transposed(config) && i < 3 * QLUTATTN_ROWS * 6; i++, n++) {
            const qlutattn_span span = { i % 3 == 2 ? PACK_SIZE / 2 : 0, i % 3 == 0 ? PACK_SIZE : PACK_SIZE / 2, 0, PACK_SIZE };
            if (!compare_transposed(config, span, 1 + i / 3 % QLUTATTN_ROWS, i / 3 / QLUTATTN_ROWS == 0)) {
                return 1;
            }
        }
        for (qlutattn_kernel kernel : { QLUTATTN_KERNEL_LUT, QLUTATTN_KERNEL_DOT }) {
            if (!qlutattn_has_simd(config, kernel)) {
                continue;
            }
            printf("%s %s\n", kernel == QLUTATTN_KERNEL_LUT ? "lut" : "dot", config.lane_is_token ? "K" : "V");
            constexpr int       all       = PACK_SIZE;
            constexpr int       half      = PACK_SIZE / 2;
            const qlutattn_span k_spans[] = {
                { 0,    all,  0, all },
                { 0,    half, 0, all },
                { half, half, 0, all }
            };
            const qlutattn_span v_spans[] = {
                { 0, all, 0,    all  },
                { 0, all, 0,    half },
                { 0, all, half, half }
            };
            for (const qlutattn_span & span : config.lane_is_token ? k_spans : v_spans) {
                for (int n_rows = 1; n_rows <= QLUTATTN_ROWS; n_rows++) {
                    for (int round = 0; round < 6; round++, n++) {
                        if (!compare({ config, kernel, span, n_rows, round == 0 })) {
                            return 1;
                        }
                    }
                }
            }
        }
    }
    printf("%d products are the same\n", n);
    return n > 0 || !qlutattn_simd_name() ? 0 : 1;
}
