/* var: y = Σ (x - m)² / (n - correction) over any set of dims, m their mean and n their number; std: y = √var.
 *
 * correction = 1 is the unbiased estimate, 0 the mean square deviation. n - correction below 0 counts as 0: the
 * variance of one element is NaN.
 *
 * All in double. A block of elements is passed twice while it stays in cache: for the mean, as its first element plus
 * the mean of the differences to that, and for Σ (x - m)². Blocks are joined by the formula of Chan, Golub & LeVeque
 * ("Algorithms for computing the sample variance", American Statistician 37, 1983). Only differences meet, so numbers
 * around 1e8 of variance 1 lose nothing, and equal elements have exactly no variance.
 *
 * dx = dy 2 (x - m) / (n - correction), for std over 2 y more, and 0 where y is 0. The input is kept, and std's
 * output; the mean is computed again. var_backward(dy, x, m) = scale dy (x - m) and var_mean(x) = m are ops of their
 * own. */
#include <math.h>

#include "reduce.h"
#include "vmath.h"

#define VAR_BLOCK 1024 /* elements of a run under one mean */
#define VAR_ROWS 64    /* rows under one mean */
#define VAR_COLUMNS 64 /* columns they are taken by: 16 KiB of f32 */

typedef struct var_attrs {
    gr_dims dim;
    bool keepdim;
    double correction;
} var_attrs;
typedef struct var_acc { double n, first, delta, m2; } var_acc; /* mean = first + delta, m2 = Σ (x - mean)² */

static void var_start(int64_t n, void *acc, const void *attrs) {
    var_acc *a = acc;
    (void)attrs;
    for (int64_t j = 0; j < n; j++) a[j] = (var_acc){0, 0, 0, 0};
}

static inline void var_add(var_acc *a, var_acc b) {
    if (a->n == 0) *a = b;
    else if (b.n > 0) {
        double n = a->n + b.n, d = (b.first - a->first) + (b.delta - a->delta), share = b.n / n;
        a->m2 += b.m2 + d * d * a->n * share;
        a->delta += d * share;
        a->n = n;
    }
}

static void var_join(void *acc, const void *other, const void *attrs) {
    (void)attrs;
    var_add(acc, *(const var_acc *)other);
}

static void var_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {
    (void)at, (void)attrs;
    for (const real *x = from; n > 0; n -= VAR_BLOCK, x += VAR_BLOCK) {
        int64_t m = n < VAR_BLOCK ? n : VAR_BLOCK;
        double s = 0, m2 = 0;
        const double first = x[0];
#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < m; i++) s += x[i] - first;
        const double delta = s / (double)m;
#pragma omp simd reduction(+ : m2)
        for (int64_t i = 0; i < m; i++) {
            double d = x[i] - first - delta;
            m2 += d * d;
        }
        var_add(acc, (var_acc){(double)m, first, delta, m2});
    }
}

/* For runs below GRI_LONG_RUN, and so of one block. */
static GRI_MEDIUM void var_four(var_acc *acc, int64_t n, const real *x0, const real *x1, const real *x2,
                                const real *x3) {
    if (n == 0) return;
    const double count = (double)n, f0 = x0[0], f1 = x1[0], f2 = x2[0], f3 = x3[0];
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0, q0 = 0, q1 = 0, q2 = 0, q3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < n; i++) {
        s0 += x0[i] - f0;
        s1 += x1[i] - f1;
        s2 += x2[i] - f2;
        s3 += x3[i] - f3;
    }
    s0 /= count, s1 /= count, s2 /= count, s3 /= count;
#pragma omp simd reduction(+ : q0, q1, q2, q3)
    for (int64_t i = 0; i < n; i++) {
        double d0 = x0[i] - f0 - s0, d1 = x1[i] - f1 - s1, d2 = x2[i] - f2 - s2, d3 = x3[i] - f3 - s3;
        q0 += d0 * d0;
        q1 += d1 * d1;
        q2 += d2 * d2;
        q3 += d3 * d3;
    }
    var_add(acc, (var_acc){count, f0, s0, q0});
    var_add(acc + 1, (var_acc){count, f1, s1, q1});
    var_add(acc + 2, (var_acc){count, f2, s2, q2});
    var_add(acc + 3, (var_acc){count, f3, s3, q3});
}
GRI_FOLD_EACH(var, real, var_acc)

/* A tile of columns: rows apart `stride`. */
static void var_tile(var_acc *acc, int64_t n, int64_t rows, const real *x, int64_t stride) {
    _Alignas(64) double delta[VAR_COLUMNS] = {0}, m2[VAR_COLUMNS] = {0};
    const double count = (double)rows;
    for (int64_t r = 1; r < rows; r++)
#pragma omp simd
        for (int64_t j = 0; j < n; j++) delta[j] += (double)x[r * stride + j] - x[j];
    for (int64_t j = 0; j < n; j++) delta[j] /= count;
    for (int64_t r = 0; r < rows; r++)
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            double d = (double)x[r * stride + j] - x[j] - delta[j];
            m2[j] += d * d;
        }
    for (int64_t j = 0; j < n; j++) var_add(acc + j, (var_acc){count, x[j], delta[j], m2[j]});
}

static void var_fold_rows(void *acc, int64_t n, int64_t rows, const void *from, int64_t stride, int64_t at,
                          const void *attrs) {
    const real *x = from;
    (void)at, (void)attrs;
    for (int64_t r = 0; r < rows; r += VAR_ROWS)
        for (int64_t j = 0; j < n; j += VAR_COLUMNS)
            var_tile((var_acc *)acc + j, n - j < VAR_COLUMNS ? n - j : VAR_COLUMNS,
                     rows - r < VAR_ROWS ? rows - r : VAR_ROWS, x + r * stride + j, stride);
}

/* n elements less the correction. */
static double var_freedom(int64_t n, const var_attrs *a) {
    double left = (double)n - a->correction;
    return left < 0 ? 0 : left;
}

static void var_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    real *y = to;
    const var_acc *a = acc;
    double freedom = var_freedom(count, attrs);
    for (int64_t j = 0; j < n; j++) y[j] = (real)(a[j].m2 / freedom);
}

static void std_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    real *y = to;
    const var_acc *a = acc;
    double freedom = var_freedom(count, attrs);
    for (int64_t j = 0; j < n; j++) y[j] = (real)sqrt(a[j].m2 / freedom);
}

static void var_mean_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    real *y = to;
    const var_acc *a = acc;
    (void)attrs;
    for (int64_t j = 0; j < n; j++) y[j] = count ? (real)(a[j].first + a[j].delta) : (real)NAN;
}

#define VAR_REDUCTION(name)                                                                                     \
    static const gri_reduction name##_reduction = {                                                             \
        .acc_size = sizeof(var_acc), .result = GRI_REAL, .narrow = 12, .start = var_start, .fold = var_fold,     \
        .fold_each = var_fold_each, .fold_rows = var_fold_rows, .join = var_join, .finish = name##_finish};
VAR_REDUCTION(var)
VAR_REDUCTION(std)
VAR_REDUCTION(var_mean)

/* ---- the ops ---- */

static gr_status var_shape(gri_call *c) {
    const var_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    gri_reduced_spec(c->in[0], mask, a->keepdim, (gr_dtype)c->in[0]->dtype, &c->spec[0]);
    return GR_OK;
}

static gr_status var_run(gri_call *c, const gri_reduction *r) {
    const var_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    return gri_reduce(c, r, GRI_REAL, mask);
}

static gr_status var_forward(gri_call *c) { return var_run(c, &var_reduction); }
GR_KERNEL(var);
static gr_status std_forward(gri_call *c) { return var_run(c, &std_reduction); }
GR_KERNEL(std);

/* Input 0's gradient += factor t (x - mean) / (n - correction); t has the reduced dims as 1. */
static gr_status var_emit(gri_grad *g, gr_tensor *t, uint32_t mask, double factor) {
    const var_attrs *a = g->attrs;
    gr_tensor *x = g->in[0], *mean;
    int64_t n = 1;
    gri_reduce_attrs over = {.dim = a->dim, .keepdim = true};
    GR_TRY(gri_eval(g, &mean, &gri_op_var_mean, 1, &x, &over));
    for (int d = 0; d < x->rank; d++) n *= mask >> d & 1 ? x->dims[d] : 1;
    double scale = factor / var_freedom(n, a);
    return gri_emit(g, 0, &gri_op_var_backward, 3, GRI_TENSORS(t, x, mean), &scale);
}

static gr_status var_rule(gri_grad *g) {
    const var_attrs *a = g->attrs;
    gr_tensor *dy;
    uint32_t mask;
    GR_TRY(gri_dim_mask(g->ctx, &a->dim, g->in[0]->rank, &mask));
    GR_TRY(gri_keep_dims(g, g->dy[0], mask, &dy));
    return var_emit(g, dy, mask, 2);
}

static gr_status std_rule(gri_grad *g) {
    const var_attrs *a = g->attrs;
    gr_tensor *dy, *y, *zero, *inf, *none;
    uint32_t mask;
    GR_TRY(gri_dim_mask(g->ctx, &a->dim, g->in[0]->rank, &mask));
    GR_TRY(gri_keep_dims(g, g->dy[0], mask, &dy));
    GR_TRY(gri_keep_dims(g, g->out[0], mask, &y));
    GR_TRY(gri_scalar(g, &zero, 0));
    GR_TRY(gri_scalar(g, &inf, INFINITY));
    GR_TRY(GRI_EVAL(g, &none, eq, y, zero));
    GR_TRY(GRI_EVAL(g, &y, where, none, inf, y));
    GR_TRY(GRI_EVAL(g, &dy, div, dy, y));
    return var_emit(g, dy, mask, 1);
}

static const gr_attr var_schema[] = {
    {"dim", GR_ATTR_DIMS, offsetof(var_attrs, dim), .required = false},
    {"keepdim", GR_ATTR_BOOL, offsetof(var_attrs, keepdim), .required = false},
    {"correction", GR_ATTR_REAL, offsetof(var_attrs, correction), .value = 1},
    GR_ATTR_END};

static const gr_case var_cases[] = {
    {.in = "2,3", .give = "{{1,2,3},{4,5,9}}", .want = "8"},
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,2,3},{4,5,9}}", .want = "{4.5,4.5,18}"},
    {.in = "2,3", .attrs = "dim=2, keepdim=true, correction=0", .give = "{{1,2,3},{4,5,9}}",
     .want = "{{0.666666667},{4.66666667}}"},
    {.in = "4", .give = "{1e8,100000008,100000016,100000024}", .want = "106.666667", .no_grad = true},
    {.in = "1", .give = "{3}", .want = "0/0", .no_grad = true},
    {.in = "2", .attrs = "correction=3", .give = "{3,5}", .want = "1/0", .no_grad = true},
    {.in = "3,4,5", .attrs = "dim={1,3}"},
    {.in = "7,40", .attrs = "dim=2"},
    {.in = "70,5", .attrs = "dim=1, correction=0.5"},
    {0}};

GR_OP(var) = {
    .info = {.name = "var", .inputs = "x", .attrs = var_schema, .attr_size = sizeof(var_attrs), .cases = var_cases,
             .doc = "Variance over dim (a number or a list; all if none is given): the sum of squared deviations\n"
                    "from the mean over n - correction; correction = 0 does not correct the bias of an estimate."},
    .keeps = GRI_KEEP_IN(0),
    .shape = var_shape,
    .forward = var_kernels,
    .backward = var_rule,
};

static const gr_case std_cases[] = {
    {.in = "2,3", .give = "{{1,2,3},{4,5,9}}", .want = "2.82842712"},
    {.in = "2,3", .attrs = "dim=2, correction=0", .give = "{{1,2,3},{4,4,4}}", .want = "{0.816496581,0}",
     .no_grad = true},
    {.in = "3,4,5", .attrs = "dim={1,3}, keepdim=true"},
    {.in = "7,40", .attrs = "dim=2"},
    {.in = "70,5", .attrs = "dim=1, correction=0"},
    {0}};

GR_OP(std) = {
    .info = {.name = "std", .inputs = "x", .attrs = var_schema, .attr_size = sizeof(var_attrs), .cases = std_cases,
             .doc = "Standard deviation over dim (a number or a list; all if none is given): the root of var, with\n"
                    "the same correction. Where it is 0 it has a gradient of 0."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_OUT(0),
    .shape = var_shape,
    .forward = std_kernels,
    .backward = std_rule,
};

/* ---- var_mean: the mean as var sees it; its derivative is that of any mean ---- */

static gr_status var_mean_shape(gri_call *c) { return gri_op_mean.shape(c); }

static gr_status var_mean_forward(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    return gri_reduce(c, &var_mean_reduction, GRI_REAL, mask);
}
GR_KERNEL(var_mean);

static gr_status var_mean_rule(gri_grad *g) { return gri_op_mean.backward(g); }

static const gr_attr var_mean_schema[] = {GRI_REDUCE_ATTRS, GR_ATTR_END};

static const gr_case var_mean_cases[] = {
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,2,3},{4,5,9}}", .want = "{2.5,3.5,6}"},
    {.in = "3,4,5", .attrs = "dim={1,3}, keepdim=true"},
    {0}};

GR_OP(var_mean) = {
    .info = {.name = "var_mean", .inputs = "x", .attrs = var_mean_schema, .attr_size = sizeof(gri_reduce_attrs),
             .hidden = true, .cases = var_mean_cases,
             .doc = "The mean over dim, exact where all elements are equal."},
    .shape = var_mean_shape,
    .forward = var_mean_kernels,
    .backward = var_mean_rule,
};

/* ---- the derivative as an op ---- */

static void var_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *x = p[2], *mean = p[3];
    const real scale = (real) * (const double *)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = scale * dy[i] * (x[i] - mean[i]);
}

static gr_status var_backward_forward(gri_call *c) {
    return gri_map(c, var_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(var_backward);

static gr_status var_backward_rule(gri_grad *g) {
    gr_tensor *scale, *t;
    GR_TRY(gri_emit(g, 0, &gri_op_var_backward, 3, GRI_TENSORS(g->dy[0], g->in[1], g->in[2]), g->attrs));
    if (!gri_needs(g, 1) && !gri_needs(g, 2)) return GR_OK;
    GR_TRY(gri_scalar(g, &scale, *(const double *)g->attrs));
    GR_TRY(GRI_EVAL(g, &t, mul, g->dy[0], scale));
    GR_TRY(GRI_EMIT(g, 1, mul, t, g->in[0]));
    if (!gri_needs(g, 2)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &t, neg, t));
    return GRI_EMIT(g, 2, mul, t, g->in[0]);
}

static const gr_attr var_backward_schema[] = {{"scale", GR_ATTR_REAL, 0, .value = 1}, GR_ATTR_END};

static const gr_case var_backward_cases[] = {
    {.in = "2 2 1", .attrs = "scale=0.5", .give = "{2,4}, {3,-1}, {1}", .want = "{2,-4}"},
    {.in = "3,4 3,4 3,1", .attrs = "scale=2"},
    {.in = "3,1 3,4 ()"},
    {0}};

GR_OP(var_backward) = {
    .info = {.name = "var_backward", .inputs = "dy x mean", .attrs = var_backward_schema, .attr_size = sizeof(double),
             .hidden = true, .cases = var_backward_cases, .doc = "scale dy (x - mean)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1) | GRI_KEEP_IN(2),
    .shape = gri_shape_broadcast,
    .forward = var_backward_kernels,
    .backward = var_backward_rule,
};
