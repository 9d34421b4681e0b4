/* Small and middling matrix products: c[m,n] = beta c + a[m,k] b[k,n] on the calling thread, any strides.
 * blas.c says when this is used and when BLIS.
 *
 * A tile of GEMM_ROWS x 2 vectors of c stays in registers while k runs: each step loads two vectors of a row
 * of b and broadcasts one element of each row of a, so the strides of a do not matter. The rows of b are read
 * where they are, or from a panel of two vectors' width and GEMM_DEPTH rows when they are not contiguous. An operand
 * that is the window of a convolution (gri_gemm_rows) has rows that begin anywhere: those of a are so many pointers,
 * those of b are looked up in each step, or packed where a vector of columns spans several runs.
 *
 * Each element of c is the sum over p in ascending order, in blocks of GEMM_DEPTH: its bits depend on k and
 * the CPU variant alone, not on m, n, strides, or the place where a product is cut. */
#include "gemm.h"
#include "op.h"

#define GEMM_WIDTH (2 * GEMM_LANES)
#define GEMM_DEPTH 256
#define GEMM_DIRECT 4 /* blocks of rows for which a row of b is read where it is */

/* ---- a tile ----------------------------------------------------------------------------------------------- */

/* c[rows, vecs * GEMM_LANES] = plus + a[rows, depth] b[depth, vecs * GEMM_LANES]; b, c and plus (NULL: nothing)
 * have adjacent columns. */
typedef struct gemm_tile {
    int64_t depth, rsa, csa, rsb, rsc, rsp;
    const real *a, *b, *plus;
    real *c;
    const gri_gemm_rows *rows;  /* of a or b, if it is no matrix */
    const int64_t *at;          /* of the tile's first row */
    int64_t place, apart;       /* a: position of the first column; b: of the second vector */
} gemm_tile;

typedef enum gemm_kind { GEMM_PLAIN, GEMM_A_ROWS, GEMM_B_ROWS } gemm_kind;

/* One step of k; x: the element of a in row i. */
#define GEMM_STEP(x, b0, b1)                                  \
    _Pragma("GCC unroll 12") for (int i = 0; i < rows; i++) { \
        const real v = x;                                     \
        acc[i][0] += v * b0;                                  \
        if (vecs > 1) acc[i][1] += v * b1;                    \
    }

/* a and b are matrices. */
static inline __attribute__((always_inline)) void gemm_plain(const gemm_tile *t, gemm_vec (*acc)[2], const int rows,
                                                             const int vecs) {
    const int64_t rsa = t->rsa, csa = t->csa, rsb = t->rsb;
    const real *a = t->a, *b = t->b;
    for (int64_t p = t->depth; p > 0; p--, a += csa, b += rsb) {
        gemm_vec b0 = gemm_load(b), b1 = vecs > 1 ? gemm_load(b + GEMM_LANES) : b0;
        GEMM_STEP(a[i * rsa], b0, b1)
    }
}

/* Row i of a begins at a + at[i] and goes on from position `place` in its runs. Beyond `count` the last one again. */
static inline __attribute__((always_inline)) void gemm_a_rows(const gemm_tile *t, gemm_vec (*acc)[2], const int rows,
                                                              const int count, const int vecs) {
    const real *a[GEMM_ROWS], *b = t->b;
    const int64_t rsb = t->rsb, run = t->rows->run, skip = t->rows->pitch - run;
    int64_t at = t->place / run * t->rows->pitch + t->place % run, left = run - t->place % run;
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) a[i] = t->a + t->at[i < count ? i : count - 1];
    for (int64_t depth = t->depth; depth > 0; depth -= left, left = run, at += skip) {
        if (left > depth) left = depth;
        for (const int64_t end = at + left; at < end; at++, b += rsb) {
            gemm_vec b0 = gemm_load(b), b1 = vecs > 1 ? gemm_load(b + GEMM_LANES) : b0;
            GEMM_STEP(a[i][at], b0, b1)
        }
    }
}

/* Row p of b begins at b + at[p]; its second vector is `apart` behind the first. */
static inline __attribute__((always_inline)) void gemm_b_rows(const gemm_tile *t, gemm_vec (*acc)[2],
                                                              const int rows) {
    const int64_t rsa = t->rsa, csa = t->csa, apart = t->apart;
    const int vecs = 2;
    const real *a = t->a;
    for (const int64_t *at = t->at, *end = at + t->depth; at < end; at++, a += csa) {
        const real *b = t->b + *at;
        gemm_vec b0 = gemm_load(b), b1 = gemm_load(b + apart);
        GEMM_STEP(a[i * rsa], b0, b1)
    }
}

/* `count` of the rows are there. */
static inline __attribute__((always_inline)) void gemm_compute(const gemm_tile *t, const int rows, const int count,
                                                               const int vecs, const gemm_kind kind) {
    gemm_vec acc[GEMM_ROWS][2];
    const int64_t rsc = t->rsc, rsp = t->rsp;
    if (t->depth >= 64) { /* where c is large: 100 instead of 92 GF/s for x W^T of 2048x384x128 */
#pragma GCC unroll 12
        for (int i = 0; i < rows && i < count; i++) {
            __builtin_prefetch(t->c + i * rsc, 1);
            if (vecs > 1) __builtin_prefetch(t->c + i * rsc + GEMM_LANES, 1);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = (gemm_vec){0};
    if (kind == GEMM_PLAIN) gemm_plain(t, acc, rows, vecs);
    else if (kind == GEMM_A_ROWS) gemm_a_rows(t, acc, rows, count, vecs);
    else gemm_b_rows(t, acc, rows);
    real *c = t->c;
    const real *plus = t->plus;
    if (plus) {
#pragma GCC unroll 12
        for (int i = 0; i < rows && i < count; i++, plus += rsp) {
            acc[i][0] += gemm_load(plus);
            if (vecs > 1) acc[i][1] += gemm_load(plus + GEMM_LANES);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows && i < count; i++, c += rsc) {
        gemm_store(c, acc[i][0]);
        if (vecs > 1) gemm_store(c + GEMM_LANES, acc[i][1]);
    }
}

#define GEMM_CASE(n) \
    case n: gemm_compute(t, n, n, vecs, kind); break;
static inline __attribute__((always_inline)) void gemm_rows(const gemm_tile *t, int rows, const int vecs,
                                                            const gemm_kind kind) {
    switch (rows) {
        GEMM_CASE(1) GEMM_CASE(2) GEMM_CASE(3) GEMM_CASE(4) GEMM_CASE(5) GEMM_CASE(6)
#if GEMM_ROWS == 12
        GEMM_CASE(7) GEMM_CASE(8) GEMM_CASE(9) GEMM_CASE(10) GEMM_CASE(11) GEMM_CASE(12)
#endif
    }
}
/* Every third height will do here, where most are 9 or 12, and is half of the code. */
static inline __attribute__((always_inline)) void gemm_thirds(const gemm_tile *t, int rows, const int vecs) {
    switch ((rows + 2) / 3) {
    case 1: gemm_compute(t, 3, rows, vecs, GEMM_A_ROWS); break;
    case 2: gemm_compute(t, 6, rows, vecs, GEMM_A_ROWS); break;
#if GEMM_ROWS == 12
    case 3: gemm_compute(t, 9, rows, vecs, GEMM_A_ROWS); break;
    case 4: gemm_compute(t, 12, rows, vecs, GEMM_A_ROWS); break;
#endif
    }
}
#define GEMM_TILE static __attribute__((noinline)) void
GEMM_TILE gemm_narrow(const gemm_tile *t, int rows) { gemm_rows(t, rows, 1, GEMM_PLAIN); }
GEMM_TILE gemm_wide(const gemm_tile *t, int rows) { gemm_rows(t, rows, 2, GEMM_PLAIN); }
GEMM_TILE gemm_narrow_a_rows(const gemm_tile *t, int rows) { gemm_thirds(t, rows, 1); }
GEMM_TILE gemm_wide_a_rows(const gemm_tile *t, int rows) { gemm_thirds(t, rows, 2); }
GEMM_TILE gemm_wide_b_rows(const gemm_tile *t, int rows) { gemm_rows(t, rows, 2, GEMM_B_ROWS); }

static void gemm_one(const gemm_tile *t, int rows, bool wide, gemm_kind kind) {
    if (kind == GEMM_PLAIN) (wide ? gemm_wide : gemm_narrow)(t, rows);
    else if (kind == GEMM_A_ROWS) (wide ? gemm_wide_a_rows : gemm_narrow_a_rows)(t, rows);
    else gemm_wide_b_rows(t, rows);
}

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

/* A vector of a panel's row, put together from the runs it spans: where lane 0 would be, were all of it in that run,
 * and the lanes that are. */
typedef struct gemm_pieces {
    int count;
    int64_t from[GEMM_LANES];
    gemm_mask lanes[GEMM_LANES];
} gemm_pieces;

/* Of columns j .. j + width - 1, the lanes beyond with the last run. */
static void gemm_pieces_of(gemm_pieces *s, const gri_gemm_rows *rows, int64_t j, int width) {
    s->count = 0;
    for (int k = 0; k < width;) {
        const int64_t q = (j + k) % rows->run;
        gemm_mask lane = {0};
        for (int i = 0; i < GEMM_LANES; i++) lane[i] = i >= k ? -1 : 0;
        s->lanes[s->count] = lane;
        s->from[s->count++] = (j + k) / rows->run * rows->pitch + q - k;
        k += rows->run - q < width - k ? (int)(rows->run - q) : width - k;
    }
}

/* One vector in each row of a panel, from rows at[0 .. depth - 1] of b. */
static inline __attribute__((always_inline)) void gemm_pack_pieces(real *panel, const real *b, const int64_t *at,
                                                                   int depth, const gemm_pieces *s, const int count) {
    for (int p = 0; p < depth; p++, panel += GEMM_WIDTH) {
        gemm_vec x = gemm_load(b + at[p] + s->from[0]);
        for (int k = 1; k < count; k++) {
            gemm_mask y = (gemm_mask)gemm_load(b + at[p] + s->from[k]), take = s->lanes[k];
            x = (gemm_vec)(((gemm_mask)x & ~take) | (y & take));
        }
        gemm_store(panel, x);
    }
}

/* The same from two whole runs of half a vector each: loads of whole vectors would cross cache lines twice as often.
 * Columns begin at multiples of GEMM_WIDTH, so that the runs are whole. */
static void gemm_pack_halves(real *panel, const real *b, const int64_t *at, int depth, const gemm_pieces *s) {
    const int64_t second = s->from[1] + GEMM_LANES / 2;
    for (int p = 0; p < depth; p++, panel += GEMM_WIDTH) {
        gemm_half x = gemm_load_half(b + at[p] + s->from[0]), y = gemm_load_half(b + at[p] + second);
        gemm_store_half(panel, x);
        gemm_store_half(panel + GEMM_LANES / 2, y);
    }
}

static void gemm_pack_b_rows(real *panel, const real *b, const int64_t *at, int depth, const gemm_pieces *s,
                             int64_t run) {
    if (s->count == 1) gemm_pack_pieces(panel, b, at, depth, s, 1);
    else if (s->count == 2 && run == GEMM_LANES / 2) gemm_pack_halves(panel, b, at, depth, s);
    else if (s->count == 2) gemm_pack_pieces(panel, b, at, depth, s, 2);
    else gemm_pack_pieces(panel, b, at, depth, s, s->count);
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
                   .b = (const real *)g->b + p * g->rsb + j * g->csb, .rows = g->a_rows, .place = p};
    gemm_plus plus = {.from = g->bias ? (const real *)g->bias + j : NULL, .cs = 1};
    if (onto) plus = (gemm_plus){.rs = g->rsc, .cs = g->csc};
    t.rsp = plus.rs;
    /* 256-bit rows of a wide b, each a line of another page, are dear to come back to: 75 instead of 93 GF/s for
     * 64x2048x784. With 512 bits they are not. */
    const bool far = GEMM_BYTES < 64 && blocks * g->rsb >= 10000;
    gemm_kind kind = g->a_rows ? GEMM_A_ROWS : GEMM_PLAIN;
    if (g->b_rows) {
        const bool wide = width > GEMM_LANES;
        gemm_pieces s[2];
        gemm_pieces_of(&s[0], g->b_rows, j, wide ? GEMM_LANES : width);
        gemm_pieces_of(&s[1], g->b_rows, j + GEMM_LANES, wide ? width - GEMM_LANES : 0);
        t.at = g->b_rows->at + p;
        t.b = (const real *)g->b;
        if (wide && whole && s[0].count == 1 && s[1].count == 1 && blocks <= GEMM_DIRECT) {
            kind = GEMM_B_ROWS;
            t.b += s[0].from[0];
            t.apart = s[1].from[0] - s[0].from[0];
        } else {
            for (int v = 0; v <= wide; v++)
                gemm_pack_b_rows(panel + v * GEMM_LANES, t.b, t.at, depth, &s[v], g->b_rows->run);
            t.b = panel;
            t.rsb = GEMM_WIDTH;
        }
    } else if (g->csb != 1 || !whole || (far && blocks > 5)) {
        gemm_pack(panel, t.b, g->rsb, g->csb, depth, width);
        t.b = panel;
        t.rsb = GEMM_WIDTH;
    }
    for (int64_t r = 0, i = 0, rows; r < blocks; r++, i += rows) {
        rows = (g->m - i + blocks - r - 1) / (blocks - r); /* as even as may be */
        t.a = (const real *)g->a + (g->a_rows ? 0 : i * g->rsa + p * g->csa);
        if (g->a_rows) t.at = g->a_rows->at + i;
        real *c = (real *)g->c + i * g->rsc + j * g->csc;
        if (onto) plus.from = c;
        t.c = direct ? c : tile;
        t.plus = direct ? plus.from : NULL;
        gemm_one(&t, (int)rows, width > GEMM_LANES, kind);
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

static void gemm_small_forward(const gri_gemm *g) {
    const gri_gemm turned = gemm_turned(g);
    if (!g->bias && !g->a_rows && !g->b_rows && gemm_cost(&turned) < gemm_cost(g)) g = &turned;
    for (int64_t j = 0; j < g->n; j += GEMM_WIDTH) {
        int width = (int)(g->n - j < GEMM_WIDTH ? g->n - j : GEMM_WIDTH);
        for (int64_t p = 0; p < g->k; p += GEMM_DEPTH)
            gemm_panel(g, j, width, p, (int)(g->k - p < GEMM_DEPTH ? g->k - p : GEMM_DEPTH));
    }
}
GRI_EXPORT(gri_small_gemm, gemm_small)
