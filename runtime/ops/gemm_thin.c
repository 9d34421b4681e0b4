/* Matrix products with a thin side, by sums along k: c[m,n] = beta c + a[m,k] b[k,n] on the calling thread. blas.c
 * says when. gemm_dots is for operands that are contiguous along k; gemm_thin for those with the rows of a window, as
 * convolutions of one channel or a few have them: a tile of gemm_small.c would leave most of its lanes empty.
 *
 * The order of a sum depends on k, the runs and the CPU variant alone. */
#include "gemm.h"
#include "op.h"

/* ---- dot products ----------------------------------------------------------------------------------------- */

#define GEMM_DOT_ROWS 4

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
        gemm_vec y0 = gemm_load_some(b + p, mask), y1 = gemm_load_some(b + p + csb, mask);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            gemm_vec x = gemm_load_some(a + p + i * rsa, mask);
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

/* ---- windows ---------------------------------------------------------------------------------------------- */

#define GEMM_SLOTS 8
#define GEMM_TAPS 12

/* Where vectors of positions begin: in a row of the window and among all positions; and how many lanes count. */
typedef struct gemm_slots {
    int64_t from[GEMM_SLOTS], to[GEMM_SLOTS], lanes[GEMM_SLOTS];
    int count;
} gemm_slots;

/* The next ones from position *l on; every run begins with a vector of its own. */
static void gemm_slots_next(gemm_slots *s, const gri_gemm_rows *rows, int64_t *l, int64_t n) {
    const int64_t run = rows->run;
    int64_t row = *l / run, q = *l % run;
    for (s->count = 0; s->count < GEMM_SLOTS && *l < n; s->count++) {
        const int64_t left = run - q, lanes = left < GEMM_LANES ? left : GEMM_LANES;
        s->from[s->count] = row * rows->pitch + q;
        s->to[s->count] = *l;
        s->lanes[s->count] = lanes;
        *l += lanes;
        q = lanes < left ? q + lanes : 0;
        row += lanes == left;
    }
    for (int i = s->count; i < GEMM_SLOTS; i++) s->from[i] = s->from[0];
}

/* The lanes that count, of a row of c. What a whole vector has beyond them belongs to slots that are yet to come. */
static inline void gemm_thin_store(const gri_gemm *g, const gemm_slots *s, int v, real *c, gemm_vec x) {
    const int64_t lanes = s->lanes[v];
    if (s->to[v] + GEMM_LANES <= g->n) {
        if (g->beta && lanes < GEMM_LANES) x = (gemm_vec)((gemm_mask)x & gemm_first(lanes));
        gemm_store(c, g->beta ? gemm_load(c) + x : x);
        return;
    }
    real last[GEMM_LANES];
    gemm_store(last, x);
    for (int64_t q = 0; q < lanes; q++) c[q] = g->beta ? c[q] + last[q] : last[q];
}

/* c[rows][slots] (+)= a[rows, k] b[k, slots], rows 1 to 3. */
static inline __attribute__((always_inline)) void gemm_thin_rows(const gri_gemm *g, const gemm_slots *s,
                                                                 const int rows) {
    gemm_vec acc[3][GEMM_SLOTS];
    const real *b = g->b;
    int64_t from[GEMM_SLOTS];
#pragma GCC unroll 8
    for (int v = 0; v < GEMM_SLOTS; v++) {
        for (int i = 0; i < rows; i++) acc[i][v] = (gemm_vec){0};
        from[v] = s->from[v];
    }
    for (int64_t p = 0; p < g->k; p++) {
        const real *x = b + g->b_rows->at[p], *a = (const real *)g->a + p * g->csa;
        const real a0 = a[0], a1 = rows > 1 ? a[g->rsa] : 0, a2 = rows > 2 ? a[2 * g->rsa] : 0;
#pragma GCC unroll 8
        for (int v = 0; v < GEMM_SLOTS; v++) {
            gemm_vec y = gemm_load(x + from[v]);
            acc[0][v] += a0 * y;
            if (rows > 1) acc[1][v] += a1 * y;
            if (rows > 2) acc[2][v] += a2 * y;
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < s->count; v++)
            gemm_thin_store(g, s, v, (real *)g->c + i * g->rsc + s->to[v], acc[i][v]);
}

/* c[count] (+)= a[count, k] b[k], for up to `taps`; b is contiguous, with nothing to be read behind it. */
static inline __attribute__((always_inline)) void gemm_thin_taps(const gri_gemm *g, const int64_t *at, const real *b,
                                                                 real *c, const int taps, const int64_t count) {
    gemm_vec acc[GEMM_TAPS];
    const real *a[GEMM_TAPS];
    const int64_t run = g->a_rows->run, pitch = g->a_rows->pitch, whole = run / GEMM_LANES * GEMM_LANES;
    const gemm_mask some = gemm_first(run - whole);
#pragma GCC unroll 12
    for (int i = 0; i < taps; i++) {
        acc[i] = (gemm_vec){0};
        a[i] = (const real *)g->a + at[i < count ? i : count - 1];
    }
    for (int64_t l = 0, row = 0; l < g->k; l += run, row += pitch, b += run) {
        for (int64_t q = 0; q < whole; q += GEMM_LANES) {
            gemm_vec y = gemm_load(b + q);
#pragma GCC unroll 12
            for (int i = 0; i < taps; i++) acc[i] += gemm_load(a[i] + row + q) * y;
        }
        if (whole == run) continue;
        real rest[GEMM_LANES] = {0};
        for (int64_t q = whole; q < run; q++) rest[q - whole] = b[q];
        gemm_vec y = gemm_load(rest);
#pragma GCC unroll 12
        for (int i = 0; i < taps; i++) acc[i] += gemm_load_some(a[i] + row + whole, some) * y;
    }
    for (int64_t i = 0; i < count; i++) {
        real sum = gemm_sum(acc[i]);
        c[i * g->rsc] = g->beta ? c[i * g->rsc] + sum : sum;
    }
}

static void gemm_thin_some(const gri_gemm *g, const int64_t *at, const real *b, real *c, int64_t count) {
    switch ((count + 2) / 3) {
    case 1: gemm_thin_taps(g, at, b, c, 3, count); break;
    case 2: gemm_thin_taps(g, at, b, c, 6, count); break;
    case 3: gemm_thin_taps(g, at, b, c, 9, count); break;
    case 4: gemm_thin_taps(g, at, b, c, 12, count); break;
    }
}

/* With b_rows: m at most 3, csc = 1. With a_rows: rsb = 1, and k whole runs. */
static void gemm_thin_forward(const gri_gemm *g) {
    gemm_slots s;
    for (int64_t l = 0; g->b_rows && l < g->n;) {
        gemm_slots_next(&s, g->b_rows, &l, g->n);
        if (g->m == 1) gemm_thin_rows(g, &s, 1);
        else if (g->m == 2) gemm_thin_rows(g, &s, 2);
        else gemm_thin_rows(g, &s, 3);
    }
    for (int64_t j = 0; g->a_rows && j < g->n; j++)
        for (int64_t i = 0; i < g->m; i += GEMM_TAPS)
            gemm_thin_some(g, g->a_rows->at + i, (const real *)g->b + j * g->csb,
                           (real *)g->c + i * g->rsc + j * g->csc, g->m - i < GEMM_TAPS ? g->m - i : GEMM_TAPS);
}
GRI_EXPORT(gri_small_gemm, gemm_thin)
