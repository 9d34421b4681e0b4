/* What softmax, log_softmax and cross_entropy share: the exponentials of rows, and their sums.
 *
 * Vector and scalar exp round differently, so what does not fill a vector goes through a padded one: equal rows
 * give equal bits wherever they lie.
 *
 * A row that is a run of memory is reduced across the lanes of vectors, which costs some 40 ns at its end. So short
 * rows are turned, GRI_COLUMNS of them at once, and then reduced lane by lane: the softmax of [128,10] takes 1.9 us
 * instead of 6.7. Long rows cost what exp does, 0.5 ns an element. */
#ifndef GRI_SOFTMAX_H
#define GRI_SOFTMAX_H

#include "iter.h"
#include "vmath.h"

#define GRI_COLUMNS 64
#define GRI_SHORT 32 /* rows up to this length are turned */
#define GRI_PADDED(n) (((n) + GRI_LANES - 1) & ~(int64_t)(GRI_LANES - 1))

/* ---- one row ---- */

typedef struct gri_lanes { _Alignas(64) real v[GRI_LANES]; } gri_lanes;

/* exp(x - m) of up to a vector's worth of elements; the rest become 0. */
static inline gri_lanes gri_row_end(int64_t run, const real *x, real m) {
    gri_lanes e;
    for (int k = 0; k < GRI_LANES; k++) e.v[k] = m;
    for (int64_t k = 0; k < run; k++) e.v[k] = x[k];
#pragma omp simd
    for (int k = 0; k < GRI_LANES; k++) e.v[k] = r_exp(e.v[k] - m);
    for (int64_t k = run; k < GRI_LANES; k++) e.v[k] = 0;
    return e;
}

/* *max = the largest element, NaN passed over (it comes back through exp); returns Σ exp(x - max), and leaves the
 * exponentials in y unless that is NULL. */
static inline double gri_row_exp(int64_t n, const real *x, real *y, real *max) {
    int64_t whole = GRI_RUN(n);
    real m = -(real)INFINITY;
    double s = 0;
#pragma omp simd reduction(max : m)
    for (int64_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    *max = m;
    if (y) {
#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < whole; i++) {
            real t = r_exp(x[i] - m);
            y[i] = t;
            s += t;
        }
    } else {
#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < whole; i++) s += r_exp(x[i] - m);
    }
    if (whole == n) return s;
    gri_lanes e = gri_row_end(n - whole, x + whole, m);
    for (int64_t i = whole; i < n; i++) s += e.v[i - whole];
    for (int64_t i = whole; y && i < n; i++) y[i] = e.v[i - whole];
    return s;
}

/* ---- up to GRI_COLUMNS rows, row k in column k ---- */

typedef struct gri_turned { _Alignas(64) real v[GRI_SHORT * GRI_COLUMNS]; } gri_turned; /* [n][GRI_COLUMNS] */

static inline void gri_turn(int64_t n, int64_t rows, const real *x, gri_turned *t) {
    for (int64_t k = 0; k < rows; k++)
        for (int64_t i = 0; i < n; i++) t->v[i * GRI_COLUMNS + k] = x[k * n + i];
}
static inline void gri_turn_back(int64_t n, int64_t rows, const gri_turned *t, real *y) {
    for (int64_t k = 0; k < rows; k++)
        for (int64_t i = 0; i < n; i++) y[k * n + i] = t->v[i * GRI_COLUMNS + k];
}

/* e[k] = exp(x[k] - m[k]), k < w. Elements of e and m beyond w are read, up to the end of a vector. */
static inline void gri_column_step(int64_t w, const real *x, const real *m, real *e) {
    for (int64_t k = 0; k < w; k++) e[k] = x[k];
#pragma omp simd
    for (int64_t k = 0; k < GRI_PADDED(w); k++) e[k] = r_exp(e[k] - m[k]);
}

/* As gri_row_exp for w rows, element i of row k at i * stride + k; max has room for GRI_COLUMNS. */
static inline void gri_columns_exp(int64_t n, int64_t stride, int64_t w, const real *x, real *y, real *max,
                                   double *sum) {
    _Alignas(64) real e[GRI_COLUMNS] = {0};
    for (int64_t k = 0; k < GRI_COLUMNS; k++) {
        max[k] = k < w ? -(real)INFINITY : 0;
        sum[k] = 0;
    }
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t k = 0; k < w; k++) max[k] = x[i * stride + k] > max[k] ? x[i * stride + k] : max[k];
    for (int64_t i = 0; i < n; i++) {
        gri_column_step(w, x + i * stride, max, e);
#pragma omp simd
        for (int64_t k = 0; k < w; k++) sum[k] += e[k];
        for (int64_t k = 0; y && k < w; k++) y[i * stride + k] = e[k];
    }
}

#endif
