/* Rows standardised: x̂ = (x - mean) rstd with rstd = 1 / √(var + eps), mean and var (biased) of a row of n.
 *
 * The mean is found as the row's first number plus the mean distance from it, and rounded to m; a second pass over
 * the row, which is then in the first-level cache, takes the sums of x - m and of (x - m)². So a mean of a million
 * beside a variance of one costs no digits (Chan, Golub and LeVeque, "Algorithms for computing the sample variance",
 * Am. Stat. 37, 1983). What rounding took from the mean is kept too: beside a million it may be 0.03 in f32.
 *
 * Four rows are taken at once, so that the sums across the lanes and the roots at the ends of rows wait for each
 * other less: a row of 128 takes 30 ns instead of 75. Sums over blocks are in the kernel's own type, so that of f32
 * at most 128 additions follow one another (32 with 16 lanes); the sums of blocks are added in double. */
#ifndef GRI_STANDARD_H
#define GRI_STANDARD_H

#include "reduce.h"
#include "vmath.h"

#define GRI_STANDARD_ROWS 4
#define GRI_STANDARD_BLOCK 512

/* x̂ = (x - mean) rstd - rest */
typedef struct gri_standard { real mean, rstd, rest; } gri_standard;

static inline real gri_standardised(gri_standard s, real x) { return (x - s.mean) * s.rstd - s.rest; }

/* sum[r] += Σ (x[r] - k[r]) over [from,to) */
static inline void gri_standard_sums(int64_t from, int64_t to, const real *const *x, const real *k, double *sum) {
    const real *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    real k0 = k[0], k1 = k[1], k2 = k[2], k3 = k[3], a0 = 0, a1 = 0, a2 = 0, a3 = 0;
#pragma omp simd reduction(+ : a0, a1, a2, a3)
    for (int64_t i = from; i < to; i++) {
        a0 += x0[i] - k0;
        a1 += x1[i] - k1;
        a2 += x2[i] - k2;
        a3 += x3[i] - k3;
    }
    sum[0] += a0, sum[1] += a1, sum[2] += a2, sum[3] += a3;
}

/* The same, and square[r] += Σ (x[r] - k[r])² */
static inline void gri_standard_squares(int64_t from, int64_t to, const real *const *x, const real *k, double *sum,
                                        double *square) {
    const real *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    real k0 = k[0], k1 = k[1], k2 = k[2], k3 = k[3];
    real a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
#pragma omp simd reduction(+ : a0, a1, a2, a3, b0, b1, b2, b3)
    for (int64_t i = from; i < to; i++) {
        real d0 = x0[i] - k0, d1 = x1[i] - k1, d2 = x2[i] - k2, d3 = x3[i] - k3;
        a0 += d0, b0 += d0 * d0;
        a1 += d1, b1 += d1 * d1;
        a2 += d2, b2 += d2 * d2;
        a3 += d3, b3 += d3 * d3;
    }
    sum[0] += a0, sum[1] += a1, sum[2] += a2, sum[3] += a3;
    square[0] += b0, square[1] += b1, square[2] += b2, square[3] += b3;
}

static inline int64_t gri_standard_end(int64_t at, int64_t n) {
    return n - at < GRI_STANDARD_BLOCK ? n : at + GRI_STANDARD_BLOCK;
}

/* Of GRI_STANDARD_ROWS rows of n > 0 elements; where there are fewer, any of them again. */
static inline void gri_standard_of(int64_t n, const real *const *x, double eps, gri_standard *out) {
    double first[4] = {0}, sum[4] = {0}, square[4] = {0}, each = 1 / (double)n;
    real k[4], mean[4];
    for (int r = 0; r < 4; r++) k[r] = x[r][0];
    for (int64_t at = 0; at < n; at += GRI_STANDARD_BLOCK)
        gri_standard_sums(at, gri_standard_end(at, n), x, k, first);
    for (int r = 0; r < 4; r++) mean[r] = (real)(k[r] + first[r] * each);
    for (int64_t at = 0; at < n; at += GRI_STANDARD_BLOCK)
        gri_standard_squares(at, gri_standard_end(at, n), x, mean, sum, square);
    for (int r = 0; r < 4; r++) {
        double rest = sum[r] * each, var = square[r] * each - rest * rest;
        double rstd = 1 / sqrt((var < 0 ? 0 : var) + eps); /* below 0 by rounding */
        out[r] = (gri_standard){mean[r], (real)rstd, (real)(rest * rstd)};
    }
}

/* x[r] = row first + r, or the last one again. */
static inline void gri_standard_rows(const real *x, int64_t n, int64_t first, int64_t rows, const real **row) {
    for (int64_t r = 0; r < GRI_STANDARD_ROWS; r++) row[r] = x + (first + (r < rows ? r : rows - 1)) * n;
}

/* ---- in ops that record their own derivatives ---- */

/* x seen as [rows,n] is what was standardised; `whole` is a shape of x along whose dims `over` weight is alike, and
 * `weight` the shape in which weight broadcasts to it. */
typedef struct gri_standard_views {
    int64_t rows, n;
    gr_dims whole, over, weight;
    double eps;
} gri_standard_views;

typedef struct gri_standard_temps {
    gr_tensor *x, *dy, *weight, *scaled, *g; /* dy and what it is multiplied by in the shape `whole`; g as rows */
    gr_tensor *mean, *diff, *square, *var, *eps, *sum, *root, *normal;
    gr_tensor *along, *dot, *less, *g_mean, *rest, *inner, *dx, *normal_whole, *parts, *dw, *db;
} gri_standard_temps;

static gr_status gri_standard_reshape(gr_ctx *ctx, gr_tensor *t, const gr_dims *to, gr_tensor **out) {
    return gr_apply(ctx, &gri_op_reshape, 1, &t, &(gri_shape_attrs){*to}, out);
}

static gr_status gri_standard_mean(gr_ctx *ctx, gr_tensor *t, gr_tensor **out) {
    return gr_apply(ctx, &gri_op_mean, 1, &t, &(gri_reduce_attrs){.dim = {.n = 1, .v = {1}}, .keepdim = true}, out);
}

/* normal = x̂ */
static gr_status gri_standard_normal(gr_ctx *ctx, double eps, gri_standard_temps *v) {
    GR_TRY(gri_standard_mean(ctx, v->x, &v->mean));
    GR_TRY(GRI_APPLY(ctx, &v->diff, sub, v->x, v->mean));
    GR_TRY(GRI_APPLY(ctx, &v->square, mul, v->diff, v->diff));
    GR_TRY(gri_standard_mean(ctx, v->square, &v->var));
    GR_TRY(gr_tensor_scalar(ctx, (gr_dtype)v->x->dtype, eps, &v->eps));
    GR_TRY(GRI_APPLY(ctx, &v->sum, add, v->var, v->eps));
    GR_TRY(GRI_APPLY(ctx, &v->root, sqrt, v->sum));
    return GRI_APPLY(ctx, &v->normal, div, v->diff, v->root);
}

/* dx = rstd (g - mean g - x̂ mean(g x̂)) */
static gr_status gri_standard_dx(gr_ctx *ctx, gri_standard_temps *v) {
    GR_TRY(GRI_APPLY(ctx, &v->along, mul, v->g, v->normal));
    GR_TRY(gri_standard_mean(ctx, v->along, &v->dot));
    GR_TRY(GRI_APPLY(ctx, &v->less, mul, v->normal, v->dot));
    GR_TRY(gri_standard_mean(ctx, v->g, &v->g_mean));
    GR_TRY(GRI_APPLY(ctx, &v->rest, sub, v->g, v->g_mean));
    GR_TRY(GRI_APPLY(ctx, &v->inner, sub, v->rest, v->less));
    return GRI_APPLY(ctx, &v->dx, div, v->inner, v->root);
}

static gr_status gri_standard_composed(gri_call *c, const gri_standard_views *w, gri_standard_temps *v) {
    gr_ctx *ctx = c->ctx;
    gr_dims flat = {.n = 2, .v = {w->rows, w->n}}, x = {.n = c->spec[0].rank}, params = {.n = c->spec[1].rank};
    gri_reduce_attrs over = {.dim = w->over};
    for (int d = 0; d < x.n; d++) x.v[d] = c->spec[0].dims[d];
    for (int d = 0; d < params.n; d++) params.v[d] = c->spec[1].dims[d];
    GR_TRY(gri_standard_reshape(ctx, c->in[1], &flat, &v->x));
    GR_TRY(gri_standard_reshape(ctx, c->in[0], &w->whole, &v->dy));
    if (c->in[2]) {
        GR_TRY(gri_standard_reshape(ctx, c->in[2], &w->weight, &v->weight));
        GR_TRY(GRI_APPLY(ctx, &v->scaled, mul, v->dy, v->weight));
    }
    GR_TRY(gri_standard_reshape(ctx, c->in[2] ? v->scaled : v->dy, &flat, &v->g));
    GR_TRY(gri_standard_normal(ctx, w->eps, v));
    GR_TRY(gri_standard_dx(ctx, v));
    GR_TRY(gri_standard_reshape(ctx, v->dx, &x, &c->out[0]));
    GR_TRY(gri_standard_reshape(ctx, v->normal, &w->whole, &v->normal_whole));
    GR_TRY(GRI_APPLY(ctx, &v->parts, mul, v->dy, v->normal_whole));
    GR_TRY(gr_apply(ctx, &gri_op_sum, 1, &v->parts, &over, &v->dw));
    GR_TRY(gri_standard_reshape(ctx, v->dw, &params, &c->out[1]));
    GR_TRY(gr_apply(ctx, &gri_op_sum, 1, &v->dy, &over, &v->db));
    return gri_standard_reshape(ctx, v->db, &params, &c->out[2]);
}

/* c's outputs, the gradients of x, weight and bias, from its inputs, dy, x and weight (or NULL), as c->spec says. */
static gr_status gri_standard_compose(gri_call *c, const gri_standard_views *w) {
    union {
        gri_standard_temps named;
        gr_tensor *all[sizeof(gri_standard_temps) / sizeof(gr_tensor *)];
    } v = {0};
    gr_status s = gri_standard_composed(c, w, &v.named);
    for (size_t i = 0; i < sizeof v.all / sizeof *v.all; i++) gr_release(v.all[i]);
    return s;
}

#endif
