/* Planes of an image with their margins, laid out so that what a tap of a window reads for a row of outputs is one
 * run:
 *
 *     output (r, q) of a block of rows, tap (i, j), plane c:  P[at(c, i, j) + r width + q]
 *
 * which is all that a product needs to take P for the column matrix, kh kw times its size. With a stride each plane
 * is taken apart into phases: tap i begins at row i dilation = shift stride + phase, and the rows of one phase follow
 * each other in P; columns likewise. Made a block of output rows at a time, so that it stays in the second-level
 * cache. */
#ifndef GRI_PADDED_H
#define GRI_PADDED_H

#include <string.h>

#include "vmath.h"
#include "window.h"

typedef struct padded {
    gri_window w;          /* of a padding that may be negative */
    int64_t planes;        /* in P */
    int64_t phases[2];     /* remainders that occur; tap i has the (i % phases)-th */
    int64_t height, width; /* of one phase */
    int64_t plane, floats; /* elements of one plane, of P */
} padded;

/* rows: of outputs in a block, at most. slack: elements behind the last that may be read. */
static inline padded padded_of(const gri_window *w, int64_t planes, int64_t rows, int64_t slack) {
    padded p = {.w = *w, .planes = planes};
    int64_t reach[2];
    for (int i = 0; i < 2; i++) {
        int64_t a = w->stride[i], b = w->dilation[i] % a;
        while (b) {
            int64_t rest = a % b;
            a = b;
            b = rest;
        }
        p.phases[i] = w->stride[i] / a < w->kernel[i] ? w->stride[i] / a : w->kernel[i];
        reach[i] = (w->kernel[i] - 1) * w->dilation[i] / w->stride[i];
    }
    p.height = rows + reach[0];
    p.width = w->out[1] + reach[1];
    p.plane = p.phases[0] * p.phases[1] * p.height * p.width;
    p.floats = planes * p.plane + slack;
    return p;
}

/* Where tap (i, j) begins to read in the first plane. */
static inline int64_t padded_tap(const padded *p, int64_t i, int64_t j) {
    const gri_window *w = &p->w;
    const int64_t phase = i % p->phases[0] * p->phases[1] + j % p->phases[1];
    return (phase * p->height + i * w->dilation[0] / w->stride[0]) * p->width + j * w->dilation[1] / w->stride[1];
}

/* What of a phase lies inside the image: rows y0 .. y1 - 1 of the block that begins at output row `from`, columns
 * q0 .. q1 - 1; and the place in the image of element (0, 0). */
typedef struct padded_phase { int64_t y0, y1, q0, q1, place; } padded_phase;

static inline void padded_span(int64_t first, int64_t step, int64_t n, int64_t most, int64_t *lo, int64_t *hi) {
    *lo = first < 0 ? (step - 1 - first) / step : 0;
    *hi = n > first ? (n - first + step - 1) / step : 0;
    if (*hi > most) *hi = most;
    if (*lo > *hi) *lo = *hi;
}

static inline padded_phase padded_phase_of(const padded *p, int64_t i, int64_t j, int64_t from) {
    const gri_window *w = &p->w;
    const int64_t r = from * w->stride[0] + i * w->dilation[0] % w->stride[0] - w->padding[0];
    const int64_t q = j * w->dilation[1] % w->stride[1] - w->padding[1];
    padded_phase f = {.place = r * w->in[1] + q};
    padded_span(r, w->stride[0], w->in[0], p->height, &f.y0, &f.y1);
    padded_span(q, w->stride[1], w->in[1], p->width, &f.q0, &f.q1);
    return f;
}

/* A few: a call of memset takes longer (the Makefile keeps the compiler from making one of this). */
static inline void padded_zero(real *to, int64_t n) {
    for (int64_t q = 0; q < n; q++) to[q] = 0;
}

/* to[0 .. n) = every `step`-th element of x. */
static inline void padded_copy(real *to, const real *x, int64_t n, int64_t step) {
    int64_t q = 0;
    if (step == 1) {
        for (; q + 8 <= n; q += 8) memcpy(to + q, x + q, 8 * sizeof *to);
        for (; q < n; q++) to[q] = x[q];
    } else if (step == 2) {
        for (; q + 8 <= n; q += 8)
#pragma omp simd
            for (int64_t k = 0; k < 8; k++) to[q + k] = x[2 * (q + k)];
        for (; q < n; q++) to[q] = x[2 * q];
    } else {
        for (; q < n; q++) to[q] = x[q * step];
    }
}

/* One phase of one plane; x: its element (0, 0). The zeros on the right of a row and on the left of the next are one
 * run. */
static inline void padded_plane(const padded *p, const padded_phase *f, const real *x, real *to) {
    const int64_t step = p->w.stride[1], down = p->w.stride[0] * p->w.in[1], n = f->q1 - f->q0;
    real *end = to + p->height * p->width, *at = to + f->y0 * p->width + f->q0;
    if (f->y0 >= f->y1 || n == 0) at = to;
    padded_zero(to, at - to);
    x += f->y0 * down + f->q0 * step;
    for (int64_t y = f->y0; y < f->y1 && n > 0; y++, x += down) {
        const int64_t zeros = p->width - n - (y + 1 < f->y1 ? 0 : f->q0);
        padded_copy(at, x, n, step);
        at += n;
        padded_zero(at, zeros);
        at += zeros;
    }
    padded_zero(at, end - at);
}

/* P from planes x[planes][h][w], for output rows from .. from + rows - 1. */
static inline void padded_fill(const padded *p, const real *x, int64_t from, real *to) {
    const int64_t phases = p->phases[0] * p->phases[1], size = p->height * p->width;
    for (int64_t k = 0; k < phases; k++) {
        const padded_phase f = padded_phase_of(p, k / p->phases[1], k % p->phases[1], from);
        for (int64_t c = 0; c < p->planes; c++)
            padded_plane(p, &f, x + c * p->w.in[0] * p->w.in[1] + f.place, to + c * p->plane + k * size);
    }
    memset(to + p->planes * p->plane, 0, (size_t)(p->floats - p->planes * p->plane) * sizeof *to);
}

/* ---- and the way back ---- */

/* What a tap, whose place in P `to` is, reads of rows from .. from + rows - 1: P += column[rows][ow]. */
static inline void padded_add(const padded *p, real *to, int64_t from, const real *column, int64_t rows) {
    const int64_t n = p->w.out[1];
    to += from * p->width;
    for (int64_t r = 0; r < rows; r++, to += p->width, column += n)
#pragma omp simd
        for (int64_t q = 0; q < n; q++) to[q] += column[q];
}

/* x[planes][h][w] = or += what P, for all rows of outputs, holds of each element; nothing of the margins. */
static inline void padded_take(const padded *p, int64_t planes, const real *from, bool add, real *x) {
    const int64_t step = p->w.stride[1], down = p->w.stride[0] * p->w.in[1], size = p->w.in[0] * p->w.in[1];
    if (!add) memset(x, 0, (size_t)(planes * size) * sizeof *x);
    for (int64_t i = 0; i < p->phases[0]; i++)
        for (int64_t j = 0; j < p->phases[1]; j++) {
            const padded_phase f = padded_phase_of(p, i, j, 0);
            const real *phase = from + (i * p->phases[1] + j) * p->height * p->width;
            for (int64_t c = 0; c < planes; c++)
                for (int64_t y = f.y0; y < f.y1; y++) {
                    const real *row = phase + c * p->plane + y * p->width;
                    real *to = x + c * size + f.place + y * down;
                    for (int64_t q = f.q0; q < f.q1; q++) to[q * step] += row[q];
                }
        }
}

#endif
