/* What softmax, log_softmax and cross_entropy share: exponentials of a row, and their sum.
 *
 * Vector and scalar exp round differently, so the end of a row goes through a padded vector: equal rows give equal
 * bits wherever they lie. */
#ifndef GRI_SOFTMAX_H
#define GRI_SOFTMAX_H

#include "iter.h"
#include "vmath.h"

/* The largest element, NaN passed over (it comes back through exp). */
static inline real gri_row_max(int64_t n, const real *x) {
    real m = -(real)INFINITY;
#pragma omp simd reduction(max : m)
    for (int64_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* e = exp(x - m) of one vector, of which `run` elements are there; the others become 0. */
static inline void gri_row_end(int64_t run, const real *x, real m, real *e) {
    for (int k = 0; k < GRI_LANES; k++) e[k] = k < run ? x[k] : m;
#pragma omp simd
    for (int k = 0; k < GRI_LANES; k++) e[k] = r_exp(e[k] - m);
    for (int64_t k = run; k < GRI_LANES; k++) e[k] = 0;
}

/* y = exp(x - m); returns the sum. */
static inline double gri_row_exp(int64_t n, const real *x, real m, real *y) {
    int64_t whole = GRI_RUN(n);
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < whole; i++) {
        real e = r_exp(x[i] - m);
        y[i] = e;
        s += e;
    }
    if (whole < n) {
        _Alignas(64) real e[GRI_LANES];
        gri_row_end(n - whole, x + whole, m, e);
        for (int64_t k = whole; k < n; k++) s += y[k] = e[k - whole];
    }
    return s;
}

/* Σ exp(x - m). */
static inline double gri_row_exp_sum(int64_t n, const real *x, real m) {
    int64_t whole = GRI_RUN(n);
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < whole; i++) s += r_exp(x[i] - m);
    if (whole < n) {
        _Alignas(64) real e[GRI_LANES];
        gri_row_end(n - whole, x + whole, m, e);
        for (int k = 0; k < GRI_LANES; k++) s += e[k];
    }
    return s;
}

#endif
