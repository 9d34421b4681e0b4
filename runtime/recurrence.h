/* What the recurrences of RNN, LSTM and GRU share: each step multiplies the state of all sequences by one matrix,
 *     p[batch, blocks * hidden] = s[batch, depth] B[depth, blocks * hidden],
 * and a cell makes the next state from p, elementwise. Forward, s is h and B the transposed weight; backward, s is
 * the gradient of the later step's p and B the weight.
 *
 * B is packed once for all steps, by chunks of GRI_UNITS units. A step is one parallel region: a piece multiplies for
 * one chunk (and some sequences), then runs the cell on it while the products are in L1. A thread tends to meet the
 * same chunks at every step, so that its part of B stays in its L2. */
#ifndef GRI_RECURRENCE_H
#define GRI_RECURRENCE_H

#include <string.h>

#include "iter.h"
#include "vmath.h"

#define GRI_UNITS 32      /* of a chunk: a multiple of GRI_LANES */
#define GRI_CELL_MAX 24   /* operands of a cell */

/* Where a cell is: some sequences, some units, one step. */
typedef struct gri_cell_place {
    int64_t t, before;       /* time of this step, and of the one before it forward: -1 at the first */
    int64_t batch, hidden;
    int64_t row, rows, unit, width;
    const void *product;     /* element (row, unit) of block 0 */
    int64_t pad, block;      /* elements between rows, and between blocks, of the product */
    void *next;              /* the state to come: element (row, 0) */
    int64_t ld;              /* elements between its rows */
    int part, parts;         /* part < parts: only ask for this part of the operands, see gri_cell_run */
} gri_cell_place;
typedef void (*gri_cell)(void *arg, const gri_cell_place *p);

typedef struct gri_recurrence {
    gr_ctx *ctx;
    const gr_tensor *weight;  /* [gates * hidden, hidden], dense */
    const gr_tensor *initial; /* the first state [batch, hidden], dense; NULL: zeros */
    int64_t steps, batch;
    bool forward;             /* B = weight^T; else B = weight, and steps are taken from the last to the first */
    bool reverse;             /* the first step is at the last time */
} gri_recurrence;
gr_status gri_recurrence_run(const gri_recurrence *r, gri_cell cell, void *arg);

/* The time of step k, and of the step before it. */
static inline void gri_recurrence_time(int64_t steps, bool reverse, int64_t k, int64_t *t, int64_t *before) {
    *t = reverse ? steps - 1 - k : k;
    *before = k == 0 ? -1 : reverse ? *t + 1 : *t - 1;
}

/* Shape rules. All inputs are floating, of one dtype; in[weight] is [gates * hidden, hidden]; in[series], called
 * name, [steps, batch, width * hidden] with at least one step. */
gr_status gri_recurrence_check(gri_call *c, int weight, int64_t gates, int series, const char *name, int64_t width);
/* in[i], called name, is absent or has these dims. */
gr_status gri_recurrence_want(gri_call *c, int i, const char *name, int rank, const int64_t *dims);

/* In a backward rule whose op has weight as input 1, the first state as input `state`, and y as its first output:
 * what these two get from dp[steps, batch, gates * hidden], the gradient of all products. */
gr_status gri_recurrence_emit(gri_grad *g, gr_tensor *dp, int state, bool reverse);

/* ---- cells: rows of operands, for a loop over whole vectors ------------------------------------------------- */

static inline real *gri_cell_data(const gr_tensor *t) { return t ? (real *)(void *)t->data : NULL; }

/* Where the place is in v[steps, batch, width * hidden] at time t, in block b of the width. NULL: before the first
 * step, or there is no v. */
static inline real *gri_cell_at(const gri_cell_place *p, const real *v, int64_t t, int64_t width, int64_t b) {
    if (!v || t < 0) return NULL;
    return (real *)(uintptr_t)v + ((t * p->batch + p->row) * width + b) * p->hidden + p->unit;
}

typedef struct gri_cell_rows { /* start with {0} */
    int n_out, n;              /* outputs come first */
    real *p[GRI_CELL_MAX];
    int64_t step[GRI_CELL_MAX]; /* elements from row to row */
} gri_cell_rows;

static inline void gri_cell_out(gri_cell_rows *c, real *p, int64_t step) {
    c->p[c->n] = p;
    c->step[c->n++] = step;
    c->n_out = c->n;
}
/* p NULL: zeros. */
static inline void gri_cell_in(gri_cell_rows *c, const real *p, int64_t step) {
    static const real zeros[GRI_UNITS];
    c->p[c->n] = (real *)(uintptr_t)(p ? p : zeros);
    c->step[c->n++] = p ? step : 0;
}
/* Blocks 0 .. n-1 of v[steps, batch, n * hidden] at time t. */
static inline void gri_cell_blocks_out(gri_cell_rows *c, const gri_cell_place *p, real *v, int64_t n) {
    for (int64_t b = 0; b < n; b++) gri_cell_out(c, gri_cell_at(p, v, p->t, n, b), n * p->hidden);
}
static inline void gri_cell_blocks_in(gri_cell_rows *c, const gri_cell_place *p, const real *v, int64_t n) {
    for (int64_t b = 0; b < n; b++) gri_cell_in(c, gri_cell_at(p, v, p->t, n, b), n * p->hidden);
}
static inline void gri_cell_next(gri_cell_rows *c, const gri_cell_place *p, int64_t blocks) {
    for (int64_t b = 0; b < blocks; b++) gri_cell_out(c, (real *)p->next + b * p->hidden + p->unit, p->ld);
}
static inline void gri_cell_product(gri_cell_rows *c, const gri_cell_place *p, int64_t blocks) {
    for (int64_t b = 0; b < blocks; b++) gri_cell_in(c, (const real *)p->product + b * p->block, p->pad);
}
/* v one step earlier, or, at the first, the initial state. */
static inline void gri_cell_before(gri_cell_rows *c, const gri_cell_place *p, const real *v, const real *initial) {
    gri_cell_in(c, p->before < 0 ? gri_cell_at(p, initial, 0, 1, 0) : gri_cell_at(p, v, p->before, 1, 0), p->hidden);
}

/* What is left of a row goes through padded vectors. */
static __attribute__((noinline)) void gri_cell_end(const gri_cell_rows *c, gri_loop loop, int64_t from, int64_t n) {
    _Alignas(64) real pad[GRI_CELL_MAX][GRI_LANES] = {{0}};
    void *p[GRI_CELL_MAX];
    for (int i = 0; i < c->n; i++) {
        p[i] = pad[i];
        if (i >= c->n_out) memcpy(pad[i], c->p[i] + from, (size_t)n * sizeof(real));
    }
    loop(GRI_LANES, p, NULL);
    for (int i = 0; i < c->n_out; i++) memcpy(c->p[i] + from, pad[i], (size_t)n * sizeof(real));
}

/* Operands lie in rows of one chunk each, far apart, where no hardware looks ahead. Asked for between the parts of
 * the product, which take some 2 us each, they are there after it. (Inline always: GCC drops the call of a function
 * that does nothing else.) */
static inline __attribute__((always_inline)) void gri_cell_ahead(const gri_cell_rows *c, const gri_cell_place *p) {
    const int64_t line = 64 / (int64_t)sizeof(real);
    for (int i = p->part * c->n / p->parts; i < (p->part + 1) * c->n / p->parts; i++) {
        if (c->step[i] == 0 || c->step[i] == p->ld || c->step[i] == p->pad) continue; /* zeros, next, product */
        for (int64_t r = 0; r < p->rows; r++)
            for (int64_t k = 0; k < p->width; k += line) {
                const real *at = c->p[i] + r * c->step[i] + k;
                if (i < c->n_out) __builtin_prefetch(at, 1, 2);
                else __builtin_prefetch(at, 0, 2);
            }
    }
}

static inline __attribute__((always_inline)) void gri_cell_run(gri_cell_rows *c, gri_loop loop,
                                                               const gri_cell_place *p) {
    const int64_t whole = GRI_RUN(p->width);
    if (p->part < p->parts) {
        gri_cell_ahead(c, p);
        return;
    }
    for (int64_t r = 0; r < p->rows; r++) {
        if (whole) loop(whole, (void *const *)c->p, NULL);
        if (whole < p->width) gri_cell_end(c, loop, whole, p->width - whole);
        for (int i = 0; i < c->n; i++) c->p[i] += c->step[i];
    }
}

#endif
