/* Large products of two matrices that both lie by rows of k: c[m,n] = beta c + Σ_p a[p,m] b[p,n], rows of c
 * contiguous, on the calling thread. Gradients of weights are such. blas.c says when this is used.
 *
 * As in Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34, 2008: both operands
 * are packed, GRI_OUTER_DEPTH of k at a time: b in panels of two vectors' width, each as large as L1, a in panels of
 * GEMM_ROWS columns, GRI_OUTER_TALL of them at a time, which stay in L2. A tile of c is then the product of two
 * streams. Unpacked, the columns of a tall a would be in another page at every step: 40 GF/s.
 *
 * Each element of c is the sum over p in ascending order, in blocks of GRI_OUTER_DEPTH: its bits depend on k and the
 * CPU variant alone, not on m, n, strides, or the place where a product is cut. */
#include "gemm.h"
#include "op.h"

#include <string.h>

#define OUTER_WIDTH (2 * GEMM_LANES)

/* ---- packing ---------------------------------------------------------------------------------------------- */

/* panels[⌈n / width⌉][depth][width] = x[depth, n], whose rows are `step` apart; zeros beyond n. Sixteen rows at a
 * time, so that their pages and the panels' lines stay in use. */
static inline __attribute__((always_inline)) void outer_pack(real *panels, const real *x, int64_t step, int64_t n,
                                                             int64_t depth, const int width) {
    const int64_t whole = n / width, rest = n % width;
    for (int64_t from = 0; from < depth; from += 16) {
        const int64_t until = from + 16 < depth ? from + 16 : depth;
        for (int64_t k = 0; k < whole; k++)
            for (int64_t p = from; p < until; p++)
                memcpy(panels + (k * depth + p) * width, x + p * step + k * width, (size_t)width * sizeof *x);
    }
    if (!rest) return;
    panels += whole * depth * width;
    for (int64_t p = 0; p < depth; p++, panels += width)
        for (int j = 0; j < width; j++) panels[j] = j < rest ? x[p * step + whole * width + j] : 0;
}

/* ---- a tile ----------------------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void outer_compute(int64_t depth, const real *a, const real *b, real *c,
                                                                int64_t rsc, bool add) {
    gemm_vec acc[GEMM_ROWS][2];
    for (int i = 0; i < GEMM_ROWS; i++) {
        acc[i][0] = acc[i][1] = (gemm_vec){0};
        __builtin_prefetch(c + i * rsc, 1, 3);
        __builtin_prefetch(c + i * rsc + OUTER_WIDTH - 1, 1, 3);
    }
    for (; depth > 0; depth--, a += GEMM_ROWS, b += OUTER_WIDTH) {
        gemm_vec b0 = gemm_load(b), b1 = gemm_load(b + GEMM_LANES);
#pragma GCC unroll 12
        for (int i = 0; i < GEMM_ROWS; i++) {
            acc[i][0] += a[i] * b0;
            acc[i][1] += a[i] * b1;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < GEMM_ROWS; i++, c += rsc) {
        gemm_store(c, add ? gemm_load(c) + acc[i][0] : acc[i][0]);
        gemm_store(c + GEMM_LANES, add ? gemm_load(c + GEMM_LANES) + acc[i][1] : acc[i][1]);
    }
}

static __attribute__((noinline)) void outer_tile(int64_t depth, const real *a, const real *b, real *c, int64_t rsc,
                                                 bool add) {
    outer_compute(depth, a, b, c, rsc, add);
}

/* A tile of which c has only some rows and columns. */
static __attribute__((noinline)) void outer_edge(int64_t depth, const real *a, const real *b, real *c, int64_t rsc,
                                                 bool add, int64_t rows, int64_t columns) {
    _Alignas(64) real tile[GEMM_ROWS * OUTER_WIDTH];
    outer_compute(depth, a, b, tile, OUTER_WIDTH, false);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            c[i * rsc + j] = add ? c[i * rsc + j] + tile[i * OUTER_WIDTH + j] : tile[i * OUTER_WIDTH + j];
}

/* ---- the product ------------------------------------------------------------------------------------------ */

/* c[rows, columns] from packed operands. */
static void outer_block(const real *a, const real *b, real *c, int64_t rsc, int64_t rows, int64_t columns,
                        int64_t depth, bool add) {
    for (int64_t j = 0; j < columns; j += OUTER_WIDTH)
        for (int64_t i = 0; i < rows; i += GEMM_ROWS) {
            const real *x = a + i * depth, *y = b + j * depth;
            real *to = c + i * rsc + j;
            int64_t high = rows - i, wide = columns - j;
            if (high >= GEMM_ROWS && wide >= OUTER_WIDTH) outer_tile(depth, x, y, to, rsc, add);
            else
                outer_edge(depth, x, y, to, rsc, add, high < GEMM_ROWS ? high : GEMM_ROWS,
                           wide < OUTER_WIDTH ? wide : OUTER_WIDTH);
        }
}

static int64_t outer_min(int64_t x, int64_t y) { return x < y ? x : y; }

static void gemm_outer_forward(const gri_gemm *g, void *room) {
    const real *a = g->a, *b = g->b;
    real *c = g->c, *packed_a = room, *packed_b = packed_a + GRI_OUTER_TALL * GRI_OUTER_DEPTH;
    for (int64_t j = 0; j < g->n; j += GRI_OUTER_WIDE)
        for (int64_t p = 0; p < g->k; p += GRI_OUTER_DEPTH) {
            int64_t columns = outer_min(g->n - j, GRI_OUTER_WIDE), depth = outer_min(g->k - p, GRI_OUTER_DEPTH);
            outer_pack(packed_b, b + p * g->rsb + j, g->rsb, columns, depth, OUTER_WIDTH);
            for (int64_t i = 0; i < g->m; i += GRI_OUTER_TALL) {
                int64_t rows = outer_min(g->m - i, GRI_OUTER_TALL);
                outer_pack(packed_a, a + p * g->csa + i, g->csa, rows, depth, GEMM_ROWS);
                outer_block(packed_a, packed_b, c + i * g->rsc + j, g->rsc, rows, columns, depth, g->beta || p > 0);
            }
        }
}
GRI_EXPORT(gri_outer_gemm, gemm_outer)
