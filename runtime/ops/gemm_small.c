/* Small and middling matrix products: c[m,n] = beta c + a[m,k] b[k,n] on the calling thread, any strides.
 * blas.c says when this is used and when BLIS.
 *
 * A tile of GEMM_ROWS x 2 vectors of c stays in registers while k runs: each step loads two vectors of a row
 * of b and broadcasts one element of each row of a, so the strides of a do not matter. The rows of b are read
 * where they are, or from a panel of two vectors' width and GEMM_DEPTH rows when they are not contiguous.
 *
 * Each element of c is the sum over p in ascending order, in blocks of GEMM_DEPTH: its bits depend on k and
 * the CPU variant alone, not on m, n, strides, or the place where a product is cut. */
#include "blas.h"
#include "op.h"
#include "vmath.h"

#include <string.h>

#if defined(__AVX512F__)
#define GEMM_BYTES 64
#define GEMM_ROWS 12 /* of 32 registers, 24 hold c */
#elif defined(__AVX2__)
#define GEMM_BYTES 32
#define GEMM_ROWS 6 /* of 16 registers, 12 hold c */
#else
#define GEMM_BYTES 16
#define GEMM_ROWS 6
#endif
#define GEMM_LANES (GEMM_BYTES / (int)sizeof(real))
#define GEMM_WIDTH (2 * GEMM_LANES)
#define GEMM_DEPTH 256
#define GEMM_QUAD (16 / (int)sizeof(real))

/* Vectors in registers, and the same in memory at any element's address. */
typedef real gemm_vec __attribute__((vector_size(GEMM_BYTES)));
typedef real gemm_quad __attribute__((vector_size(16)));
typedef real gemm_vec_at __attribute__((vector_size(GEMM_BYTES), aligned(sizeof(real)), may_alias));
typedef real gemm_quad_at __attribute__((vector_size(16), aligned(sizeof(real)), may_alias));

static inline gemm_vec gemm_load(const real *p) { return *(const gemm_vec_at *)p; }
static inline void gemm_store(real *p, gemm_vec v) { *(gemm_vec_at *)p = v; }
static inline gemm_quad gemm_load_quad(const real *p) { return *(const gemm_quad_at *)p; }
static inline void gemm_store_quad(real *p, gemm_quad v) { *(gemm_quad_at *)p = v; }

/* ---- a tile ----------------------------------------------------------------------------------------------- */

/* c[rows, vecs * GEMM_LANES] = plus + a[rows, depth] b[depth, vecs * GEMM_LANES]; b, c and plus (NULL: nothing)
 * have adjacent columns. */
typedef struct gemm_tile {
    int64_t depth, rsa, csa, rsb, rsc, rsp;
    const real *a, *b, *plus;
    real *c;
} gemm_tile;

static inline __attribute__((always_inline)) void gemm_compute(const gemm_tile *t, const int rows, const int vecs) {
    gemm_vec acc[GEMM_ROWS][2];
    const int64_t rsa = t->rsa, csa = t->csa, rsb = t->rsb, rsc = t->rsc;
    const real *a = t->a, *b = t->b;
    if (t->depth >= 64) { /* where c is large: 100 instead of 92 GF/s for x W^T of 2048x384x128 */
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            __builtin_prefetch(t->c + i * rsc, 1);
            if (vecs > 1) __builtin_prefetch(t->c + i * rsc + GEMM_LANES, 1);
        }
    }
    for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = (gemm_vec){0};
    for (int64_t p = t->depth; p > 0; p--, a += csa, b += rsb) {
        gemm_vec b0 = gemm_load(b), b1 = vecs > 1 ? gemm_load(b + GEMM_LANES) : b0;
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            real x = a[i * rsa];
            acc[i][0] += x * b0;
            if (vecs > 1) acc[i][1] += x * b1;
        }
    }
    real *c = t->c;
    const real *plus = t->plus;
    const int64_t rsp = t->rsp;
    if (plus) {
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++, plus += rsp) {
            acc[i][0] += gemm_load(plus);
            if (vecs > 1) acc[i][1] += gemm_load(plus + GEMM_LANES);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++, c += rsc) {
        gemm_store(c, acc[i][0]);
        if (vecs > 1) gemm_store(c + GEMM_LANES, acc[i][1]);
    }
}

#define GEMM_CASE(n) \
    case n: gemm_compute(t, n, vecs); break;
static inline __attribute__((always_inline)) void gemm_rows(const gemm_tile *t, int rows, const int vecs) {
    switch (rows) {
        GEMM_CASE(1) GEMM_CASE(2) GEMM_CASE(3) GEMM_CASE(4) GEMM_CASE(5) GEMM_CASE(6)
#if GEMM_ROWS == 12
        GEMM_CASE(7) GEMM_CASE(8) GEMM_CASE(9) GEMM_CASE(10) GEMM_CASE(11) GEMM_CASE(12)
#endif
    }
}
static __attribute__((noinline)) void gemm_narrow(const gemm_tile *t, int rows) { gemm_rows(t, rows, 1); }
static __attribute__((noinline)) void gemm_wide(const gemm_tile *t, int rows) { gemm_rows(t, rows, 2); }

/* ---- panels of b, edges of c ------------------------------------------------------------------------------ */

/* to[0 .. n-1] = from[0 .. n-1], and plus[0 .. n-1] unless that is NULL. */
static inline void gemm_row(real *to, const real *from, int n, const real *plus) {
    int j = 0;
    for (; j + GEMM_LANES <= n; j += GEMM_LANES) {
        gemm_vec v = gemm_load(from + j);
        gemm_store(to + j, plus ? gemm_load(plus + j) + v : v);
    }
    for (; j + GEMM_QUAD <= n; j += GEMM_QUAD) {
        gemm_quad v = gemm_load_quad(from + j);
        gemm_store_quad(to + j, plus ? gemm_load_quad(plus + j) + v : v);
    }
    for (; j < n; j++) to[j] = plus ? plus[j] + from[j] : from[j];
}

/* to[p][j] = from[p + j * csb] for GEMM_QUAD p and j each: a transpose in registers. */
static inline void gemm_transpose(real *to, const real *from, int64_t csb) {
#ifdef GRI_F64
    gemm_quad x = gemm_load_quad(from), y = gemm_load_quad(from + csb);
    gemm_store_quad(to, __builtin_shufflevector(x, y, 0, 2));
    gemm_store_quad(to + GEMM_WIDTH, __builtin_shufflevector(x, y, 1, 3));
#else
    gemm_quad x = gemm_load_quad(from), y = gemm_load_quad(from + csb);
    gemm_quad z = gemm_load_quad(from + 2 * csb), w = gemm_load_quad(from + 3 * csb);
    gemm_quad xz = __builtin_shufflevector(x, z, 0, 4, 1, 5), yw = __builtin_shufflevector(y, w, 0, 4, 1, 5);
    gemm_store_quad(to, __builtin_shufflevector(xz, yw, 0, 4, 1, 5));
    gemm_store_quad(to + GEMM_WIDTH, __builtin_shufflevector(xz, yw, 2, 6, 3, 7));
    xz = __builtin_shufflevector(x, z, 2, 6, 3, 7), yw = __builtin_shufflevector(y, w, 2, 6, 3, 7);
    gemm_store_quad(to + 2 * GEMM_WIDTH, __builtin_shufflevector(xz, yw, 0, 4, 1, 5));
    gemm_store_quad(to + 3 * GEMM_WIDTH, __builtin_shufflevector(xz, yw, 2, 6, 3, 7));
#endif
}

/* panel[depth][GEMM_WIDTH] = b[depth, width], rsb 1. A line of a column of b is used up before the next one is
 * looked at, and 16 rows of the panel stay in the nearest cache meanwhile (without: 95 instead of 100 GF/s for
 * x W^T of 64x256x784). */
static void gemm_pack_columns(real *panel, const real *b, int64_t csb, int depth, int width) {
    int deep = depth / GEMM_QUAD * GEMM_QUAD, quads = width / GEMM_QUAD * GEMM_QUAD;
    for (int from = 0; from < deep; from += 16) {
        int until = from + 16 < deep ? from + 16 : deep;
        for (int j = 0; j < quads; j += GEMM_QUAD)
            for (int p = from; p < until; p += GEMM_QUAD)
                gemm_transpose(panel + p * GEMM_WIDTH + j, b + p + j * csb, csb);
    }
    for (int p = 0; p < depth; p++)
        for (int j = p < deep ? quads : 0; j < width; j++) panel[p * GEMM_WIDTH + j] = b[p + j * csb];
}

/* panel[depth][GEMM_WIDTH] = b[depth, width], and zeros in the lanes of the last vector that are left over. */
static void gemm_pack(real *panel, const real *b, int64_t rsb, int64_t csb, int depth, int width) {
    int room = (width + GEMM_LANES - 1) / GEMM_LANES * GEMM_LANES;
    if (width < room)
        for (int p = 0; p < depth; p++) gemm_store(panel + p * GEMM_WIDTH + room - GEMM_LANES, (gemm_vec){0});
    if (rsb == 1 && csb != 1) {
        gemm_pack_columns(panel, b, csb, depth, width);
        return;
    }
    for (int p = 0; p < depth; p++, panel += GEMM_WIDTH, b += rsb) {
        if (csb == 1) gemm_row(panel, b, width, NULL);
        else
            for (int j = 0; j < width; j++) panel[j] = b[j * csb];
    }
}

/* What c is made from besides the product: itself, a bias (rs 0), or nothing (NULL). */
typedef struct gemm_plus { const real *from; int64_t rs, cs; } gemm_plus;

/* c[rows, width] = plus + tile[rows, GEMM_WIDTH]. */
static void gemm_scatter(const gri_gemm *g, real *c, const real *tile, gemm_plus plus, int rows, int width) {
    if (g->csc == 1) {
        for (int i = 0; i < rows; i++)
            gemm_row(c + i * g->rsc, tile + i * GEMM_WIDTH, width, plus.from ? plus.from + i * plus.rs : NULL);
        return;
    }
    for (int j = 0; j < width; j++)
        for (int i = 0; i < rows; i++) {
            real v = tile[i * GEMM_WIDTH + j];
            c[i * g->rsc + j * g->csc] = plus.from ? plus.from[i * plus.rs + j * plus.cs] + v : v;
        }
}

/* ---- the product ------------------------------------------------------------------------------------------ */

/* Columns j .. j + width - 1 of c, from depth rows of b after the first p. */
static void gemm_panel(const gri_gemm *g, int64_t j, int width, int64_t p, int depth) {
    _Alignas(64) real panel[GEMM_DEPTH * GEMM_WIDTH], tile[GEMM_ROWS * GEMM_WIDTH];
    const bool whole = width % GEMM_LANES == 0, direct = whole && g->csc == 1, onto = g->beta || p > 0;
    int64_t blocks = (g->m + GEMM_ROWS - 1) / GEMM_ROWS;
    gemm_tile t = {.depth = depth, .rsa = g->rsa, .csa = g->csa, .rsb = g->rsb, .rsc = direct ? g->rsc : GEMM_WIDTH,
                   .b = (const real *)g->b + p * g->rsb + j * g->csb};
    gemm_plus plus = {.from = g->bias ? (const real *)g->bias + j : NULL, .cs = 1};
    if (onto) plus = (gemm_plus){.rs = g->rsc, .cs = g->csc};
    t.rsp = plus.rs;
    /* 256-bit rows of a wide b, each a line of another page, are dear to come back to: 75 instead of 93 GF/s for
     * 64x2048x784. With 512 bits they are not. */
    const bool far = GEMM_BYTES < 64 && blocks * g->rsb >= 10000;
    if (g->csb != 1 || !whole || (far && blocks > 5)) {
        gemm_pack(panel, t.b, g->rsb, g->csb, depth, width);
        t.b = panel;
        t.rsb = GEMM_WIDTH;
    }
    for (int64_t r = 0, i = 0, rows; r < blocks; r++, i += rows) {
        rows = (g->m - i + blocks - r - 1) / (blocks - r); /* as even as may be */
        t.a = (const real *)g->a + i * g->rsa + p * g->csa;
        real *c = (real *)g->c + i * g->rsc + j * g->csc;
        if (onto) plus.from = c;
        t.c = direct ? c : tile;
        t.plus = direct ? plus.from : NULL;
        if (width > GEMM_LANES) gemm_wide(&t, (int)rows);
        else gemm_narrow(&t, (int)rows);
        if (!direct) gemm_scatter(g, c, tile, plus, (int)rows, width);
    }
}

/* Cycles, roughly: a vector product 1, an element transposed into a panel 0.4, scattered 1.5. */
static double gemm_cost(const gri_gemm *g) {
    double m = (double)g->m, n = (double)g->n, k = (double)g->k;
    double vecs = (double)((g->n + GEMM_LANES - 1) / GEMM_LANES);
    double blocks = (double)((g->k + GEMM_DEPTH - 1) / GEMM_DEPTH);
    bool edge = g->n % GEMM_LANES != 0;
    double pack = g->csb == 1 ? edge * vecs * k : g->rsb == 1 ? 0.4 * n * k : 1.5 * n * k;
    double scatter = g->csc == 1 ? edge * vecs * m : 1.5 * m * n;
    return m * vecs * k + pack + blocks * scatter;
}

/* The same product seen from the other side: c^T = b^T a^T. */
static gri_gemm gemm_turned(const gri_gemm *g) {
    return (gri_gemm){.dtype = g->dtype, .m = g->n, .n = g->m, .k = g->k, .a = g->b, .rsa = g->csb, .csa = g->rsb,
                      .b = g->a, .rsb = g->csa, .csb = g->rsa, .c = g->c, .rsc = g->csc, .csc = g->rsc,
                      .beta = g->beta};
}

static void gemm_small_forward(const gri_gemm *g) {
    const gri_gemm turned = gemm_turned(g);
    if (!g->bias && gemm_cost(&turned) < gemm_cost(g)) g = &turned;
    for (int64_t j = 0; j < g->n; j += GEMM_WIDTH) {
        int width = (int)(g->n - j < GEMM_WIDTH ? g->n - j : GEMM_WIDTH);
        for (int64_t p = 0; p < g->k; p += GEMM_DEPTH)
            gemm_panel(g, j, width, p, (int)(g->k - p < GEMM_DEPTH ? g->k - p : GEMM_DEPTH));
    }
}
GRI_EXPORT(gri_small_gemm, gemm_small)

/* ---- dot products ----------------------------------------------------------------------------------------- */

#define GEMM_DOT_ROWS 4

#ifdef GRI_F64
typedef int64_t gemm_int;
#else
typedef int32_t gemm_int;
#endif
typedef gemm_int gemm_mask __attribute__((vector_size(GEMM_BYTES)));

/* Ones in the last n lanes. */
static inline gemm_mask gemm_last(int64_t n) {
    gemm_mask lane;
    for (int i = 0; i < GEMM_LANES; i++) lane[i] = i;
    return lane >= (gemm_int)(GEMM_LANES - n);
}
static inline gemm_vec gemm_load_last(const real *p, gemm_mask mask) {
    return (gemm_vec)((gemm_mask)gemm_load(p) & mask);
}

static inline real gemm_sum(gemm_vec v) {
    real lanes[GEMM_LANES];
    gemm_store(lanes, v);
    gemm_quad sum = gemm_load_quad(lanes);
    for (int i = GEMM_QUAD; i < GEMM_LANES; i += GEMM_QUAD) sum += gemm_load_quad(lanes + i);
    gemm_store_quad(lanes, sum);
    return GEMM_QUAD == 4 ? (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) : lanes[0] + lanes[1];
}

/* c[rows, cols] (+)= a[rows, k] b[k, cols], cols 1 or 2. What is left of k when it is no multiple of the lanes
 * comes from the last whole vector, with zeros for what has been counted. */
static inline __attribute__((always_inline)) void gemm_dot_tile(const gri_gemm *g, const real *a, const real *b,
                                                                real *c, const int rows, const int cols) {
    gemm_vec acc[GEMM_DOT_ROWS][2];
    const int64_t rsa = g->rsa, csb = cols > 1 ? g->csb : 0, k = g->k, whole = k / GEMM_LANES * GEMM_LANES;
    for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = (gemm_vec){0};
    for (int64_t p = 0; p < whole; p += GEMM_LANES) {
        gemm_vec y0 = gemm_load(b + p), y1 = gemm_load(b + p + csb);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            gemm_vec x = gemm_load(a + p + i * rsa);
            acc[i][0] += x * y0;
            if (cols > 1) acc[i][1] += x * y1;
        }
    }
    if (whole < k) {
        const gemm_mask mask = gemm_last(k - whole);
        const int64_t p = k - GEMM_LANES;
        gemm_vec y0 = gemm_load_last(b + p, mask), y1 = gemm_load_last(b + p + csb, mask);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            gemm_vec x = gemm_load_last(a + p + i * rsa, mask);
            acc[i][0] += x * y0;
            if (cols > 1) acc[i][1] += x * y1;
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < cols; j++) {
            real *to = c + i * g->rsc + j * g->csc, sum = gemm_sum(acc[i][j]);
            *to = g->beta ? *to + sum : sum;
        }
}

static void gemm_dot(const gri_gemm *g, const real *a, const real *b, real *c, int64_t rows, int64_t cols) {
    switch (rows * 2 + cols - 1) {
    case 2: gemm_dot_tile(g, a, b, c, 1, 1); break;
    case 3: gemm_dot_tile(g, a, b, c, 1, 2); break;
    case 4: gemm_dot_tile(g, a, b, c, 2, 1); break;
    case 5: gemm_dot_tile(g, a, b, c, 2, 2); break;
    case 6: gemm_dot_tile(g, a, b, c, 3, 1); break;
    case 7: gemm_dot_tile(g, a, b, c, 3, 2); break;
    case 8: gemm_dot_tile(g, a, b, c, 4, 1); break;
    default: gemm_dot_tile(g, a, b, c, 4, 2); break;
    }
}

/* The same product by sums along k, where there are few columns: no panel of b to pay for, no lanes left empty.
 * csa = rsb = 1, k >= GEMM_LANES. The order of a sum depends on k and the variant alone, again. */
static void gemm_dots_forward(const gri_gemm *g) {
    const gri_gemm turned = gemm_turned(g);
    if (g->m < g->n) g = &turned;
    for (int64_t i = 0; i < g->m; i += GEMM_DOT_ROWS) {
        int64_t rows = g->m - i < GEMM_DOT_ROWS ? g->m - i : GEMM_DOT_ROWS;
        for (int64_t j = 0; j < g->n; j += 2)
            gemm_dot(g, (const real *)g->a + i * g->rsa, (const real *)g->b + j * g->csb,
                     (real *)g->c + i * g->rsc + j * g->csc, rows, g->n - j < 2 ? 1 : 2);
    }
}
GRI_EXPORT(gri_small_gemm, gemm_dots)
