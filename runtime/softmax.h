/* What softmax, log_softmax, logsumexp and cross_entropy share: the exponentials of rows, and their sums.
 *
 * Vector and scalar exp round differently, so what does not fill a vector goes through a padded one: equal rows
 * give equal bits wherever they lie.
 *
 * A row that is a run of memory is reduced across the lanes of vectors, which costs some 30 ns at its end. So short
 * rows are turned, GRI_COLUMNS of them at once, and then reduced lane by lane: the softmax of [128,10] takes 1.9 us
 * instead of 6.7. Long rows cost what exp does, 0.3 ns an element. */
#ifndef GRI_SOFTMAX_H
#define GRI_SOFTMAX_H

#include <string.h>

#include "iter.h"
#include "vmath.h"

#define GRI_COLUMNS 64
#define GRI_SHORT 32  /* rows up to this length are turned */
#define GRI_SUMMED 512 /* exponentials of a row that are added up in the kernel's own type, before double */
#define GRI_PADDED(n) (((n) + GRI_LANES - 1) & ~(int64_t)(GRI_LANES - 1))

/* ---- e^x ---- */

#ifdef GRI_F64
#define gri_exp_below r_exp
#else
/* e^x for x <= 0, and NaN: 0 below ln(FLT_MIN). e^x = 2^n e^r with n the whole number next to x / ln 2, which the
 * low bits of x / ln 2 + 1.5 2^23 hold, |r| <= ln(2) / 2, and e^r by Cephes' polynomial of degree 7; 1.4 ulp at most,
 * where the library's has 1. In line it needs no call around which the loop's registers are saved: with maximum and
 * sum of a row 0.31 ns an element instead of 0.42 (avx512), 0.44 instead of 0.57 (avx2). */
static inline __attribute__((always_inline)) float gri_exp_below(float x) {
    const float least = -87.3365447f, magic = 12582912;
    float in = x < least ? least : x, shifted = in * 1.44269504f + magic, n = shifted - magic, power;
    float r = in - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2, its first bits apart: their product is exact */
    float p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    memcpy(&power, &bits, sizeof power);
    return x < least ? 0 : p * power;
}
#endif

/* ---- one row ---- */

typedef struct gri_lanes { _Alignas(64) real v[GRI_LANES]; } gri_lanes;

/* exp(x - m) of up to a vector's worth of elements; the rest become 0. */
static inline gri_lanes gri_row_end(int64_t run, const real *x, real m) {
    gri_lanes e;
    for (int k = 0; k < GRI_LANES; k++) e.v[k] = m;
    for (int64_t k = 0; k < run; k++) e.v[k] = x[k];
#pragma omp simd
    for (int k = 0; k < GRI_LANES; k++) e.v[k] = gri_exp_below(e.v[k] - m);
    for (int64_t k = run; k < GRI_LANES; k++) e.v[k] = 0;
    return e;
}

/* Σ exp(x - m) of whole vectors; leaves the exponentials in y unless that is NULL. */
static inline real gri_row_sum(int64_t whole, const real *x, real m, real *y) {
    real s = 0;
    if (y) {
#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < whole; i++) {
            real t = gri_exp_below(x[i] - m);
            y[i] = t;
            s += t;
        }
    } else {
#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < whole; i++) s += gri_exp_below(x[i] - m);
    }
    return s;
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
    for (int64_t at = 0; at < whole; at += GRI_SUMMED)
        s += gri_row_sum(whole - at < GRI_SUMMED ? whole - at : GRI_SUMMED, x + at, m, y ? y + at : NULL);
    if (whole == n) return s;
    gri_lanes e = gri_row_end(n - whole, x + whole, m);
    for (int64_t i = whole; i < n; i++) s += e.v[i - whole];
    for (int64_t i = whole; y && i < n; i++) y[i] = e.v[i - whole];
    return s;
}

/* y = factor softmax(x) */
static inline void gri_row_softmax(int64_t n, const real *x, double factor, real *y) {
    real max, scale = (real)(factor / gri_row_exp(n, x, y, &max));
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] *= scale;
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
    for (int64_t k = 0; k < GRI_PADDED(w); k++) e[k] = gri_exp_below(e[k] - m[k]);
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

/* y = softmax(x), row k times factor[k] unless factor is NULL; x may be y. */
static inline void gri_columns_softmax(int64_t n, int64_t stride, int64_t w, const real *x, const double *factor,
                                       real *y) {
    _Alignas(64) real scale[GRI_COLUMNS];
    double sum[GRI_COLUMNS];
    gri_columns_exp(n, stride, w, x, y, scale, sum);
    for (int64_t k = 0; k < w; k++) scale[k] = (real)((factor ? factor[k] : 1) / sum[k]);
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t k = 0; k < w; k++) y[i * stride + k] *= scale[k];
}

#endif
