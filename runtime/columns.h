/* Column matrices: what each output position of a window reads, as a column (im2col), and the way back.
 *
 *     col[(c kh + i) kw + j][r ow + q] = x[c][r sh - ph + i dh][q sw - pw + j dw], 0 outside the image
 *
 * made for a range of output rows at a time, so that the matrix stays in the second-level cache. Where the
 * window moves by one and the output is as wide as the input, all of a tap's plane is one copy at an offset,
 * except for the columns that wrapped around: 4 times as fast as row by row on 14x14 planes. */
#ifndef GRI_COLUMNS_H
#define GRI_COLUMNS_H

#include <string.h>

#include "vmath.h"
#include "window.h"

typedef struct columns_tap {
    int64_t di, dj;         /* output (r, q), r from the first wanted row, reads (r stride + di, q stride + dj) */
    int64_t r0, r1, q0, q1; /* that is inside the image for r0 <= r < r1, q0 <= q < q1 */
} columns_tap;

static inline columns_tap columns_tap_of(const gri_window *w, int64_t i, int64_t j, int64_t from, int64_t to) {
    columns_tap t = {.di = i * w->dilation[0] - w->padding[0], .dj = j * w->dilation[1] - w->padding[1]};
    gri_window_span(w, 0, t.di, &t.r0, &t.r1);
    gri_window_span(w, 1, t.dj, &t.q0, &t.q1);
    if (t.q0 == t.q1) t.r1 = t.r0;
    t.r0 = (t.r0 < from ? from : t.r0 > to ? to : t.r0) - from;
    t.r1 = (t.r1 > to ? to : t.r1) - from;
    if (t.r1 < t.r0) t.r1 = t.r0;
    t.di += from * w->stride[0];
    return t;
}

static inline bool columns_even(const gri_window *w) {
    return w->stride[0] == 1 && w->stride[1] == 1 && w->out[1] == w->in[1];
}

/* Clears what wrapped around in an even window's column. */
static inline void columns_unwrap(const gri_window *w, const columns_tap *t, real *col) {
    const int64_t width = w->out[1], left = t->q0, right = width - t->q1;
    real *row = col + t->r0 * width, *end = col + t->r1 * width;
    if (left == 1 && right == 0) {
        for (; row < end; row += width) row[0] = 0;
    } else if (left == 0 && right == 1) {
        for (; row < end; row += width) row[width - 1] = 0;
    } else if (left || right) {
        for (; row < end; row += width) {
            for (int64_t q = 0; q < left; q++) row[q] = 0;
            for (int64_t q = t->q1; q < width; q++) row[q] = 0;
        }
    }
}

/* The run of an even window's column that, shifted, lies inside the plane. */
static inline void columns_run(const gri_window *w, const columns_tap *t, int64_t *shift, int64_t *lo, int64_t *hi) {
    const int64_t width = w->in[1];
    *shift = t->di * width + t->dj;
    *lo = t->r0 * width > -*shift ? t->r0 * width : -*shift;
    *hi = w->in[0] * width - *shift;
    if (*hi > t->r1 * width) *hi = t->r1 * width;
}

/* One tap of one plane. */
static inline void columns_get(const gri_window *w, const columns_tap *t, const real *x, real *col) {
    const int64_t width = w->out[1], step = w->stride[1];
    if (columns_even(w)) {
        int64_t shift, lo, hi;
        columns_run(w, t, &shift, &lo, &hi);
        if (lo < hi) memcpy(col + lo, x + lo + shift, (size_t)(hi - lo) * sizeof *x);
        columns_unwrap(w, t, col);
        return;
    }
    for (int64_t r = t->r0; r < t->r1; r++) {
        const int64_t from = (r * w->stride[0] + t->di) * w->in[1] + t->dj;
        real *to = col + r * width;
        for (int64_t q = 0; q < t->q0; q++) to[q] = 0;
        if (step == 1) {
#pragma omp simd
            for (int64_t q = t->q0; q < t->q1; q++) to[q] = x[from + q];
        } else {
            for (int64_t q = t->q0; q < t->q1; q++) to[q] = x[from + q * step];
        }
        for (int64_t q = t->q1; q < width; q++) to[q] = 0;
    }
}

/* One tap of one plane back: x += col. Spoils an even window's col. */
static inline void columns_put(const gri_window *w, const columns_tap *t, real *x, real *col) {
    const int64_t width = w->out[1], step = w->stride[1];
    if (columns_even(w)) {
        int64_t shift, lo, hi;
        columns_unwrap(w, t, col);
        columns_run(w, t, &shift, &lo, &hi);
#pragma omp simd
        for (int64_t p = lo; p < hi; p++) x[p + shift] += col[p];
        return;
    }
    for (int64_t r = t->r0; r < t->r1; r++) {
        const int64_t to = (r * w->stride[0] + t->di) * w->in[1] + t->dj;
        const real *from = col + r * width;
        if (step == 1) {
#pragma omp simd
            for (int64_t q = t->q0; q < t->q1; q++) x[to + q] += from[q];
        } else {
            for (int64_t q = t->q0; q < t->q1; q++) x[to + q * step] += from[q];
        }
    }
}

static inline void columns_zero(real *col, int64_t n) {
    if (n > 0) memset(col, 0, (size_t)n * sizeof *col);
}

/* col[planes kh kw][(to - from) ow] from x[planes][h][w]. */
static inline void columns_gather(const gri_window *w, int64_t planes, const real *x, int64_t from, int64_t to,
                                  real *col) {
    const int64_t plane = w->in[0] * w->in[1], width = w->out[1], rows = to - from;
    const int64_t taps = w->kernel[0] * w->kernel[1];
    for (int64_t tap = 0; tap < taps; tap++) {
        columns_tap t = columns_tap_of(w, tap / w->kernel[1], tap % w->kernel[1], from, to);
        real *row = col + tap * rows * width;
        for (int64_t c = 0; c < planes; c++, row += taps * rows * width) {
            columns_zero(row, t.r0 * width);
            columns_zero(row + t.r1 * width, (rows - t.r1) * width);
            if (t.r0 < t.r1) columns_get(w, &t, x + c * plane, row);
        }
    }
}

/* x[planes][h][w] += what col[planes kh kw][(to - from) ow] holds of each element. Spoils col. */
static inline void columns_scatter(const gri_window *w, int64_t planes, real *x, int64_t from, int64_t to,
                                   real *col) {
    const int64_t plane = w->in[0] * w->in[1], length = (to - from) * w->out[1], taps = w->kernel[0] * w->kernel[1];
    for (int64_t tap = 0; tap < taps; tap++) {
        columns_tap t = columns_tap_of(w, tap / w->kernel[1], tap % w->kernel[1], from, to);
        if (t.r0 == t.r1) continue;
        for (int64_t c = 0; c < planes; c++) columns_put(w, &t, x + c * plane, col + (c * taps + tap) * length);
    }
}

#endif
