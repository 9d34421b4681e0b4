/* y = (Σ |x|^p)^(1/p) over any set of dims, p > 0; p = inf gives max |x|.
 *
 * dx = dy sign(x) |x / y|^(p-1), and 0 where y is 0. For p = inf the largest elements share dy evenly. Input and
 * output are kept. The ratio x / y is at most 1 in size: nothing overflows that the norm itself does not.
 *
 * Exact for any finite input. Squares of floats are added up in double, where neither 3e38² nor 1e-45² is out of
 * range. Doubles, and other powers, are added up as s^p Σ |x/s|^p: s = 1 while the largest element of a block has
 * a power within 1e±280, else that element (after Blue, "A portable Fortran program to find the Euclidean norm of
 * a vector", ACM TOMS 4, 1978, with one scale for each block instead of three). */
#include "reduce.h"
#include "vmath.h"

typedef struct norm_attrs { double p; gr_dims dim; bool keepdim; } norm_attrs;

static inline double norm_power(double a, double p) {
    return p == 2 ? a * a : p == 1 ? a : p == 3 ? a * a * a : pow(a, p);
}

/* ---- p = 2, floats ---- */

static void norm_square_start(int64_t n, void *acc, const void *attrs) {
    double *a = acc;
    (void)attrs;
    for (int64_t j = 0; j < n; j++) a[j] = 0;
}

static void norm_square_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {
    const real *x = from;
    double s = 0;
    (void)at, (void)attrs;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += (double)x[i] * x[i];
    *(double *)acc += s;
}

static void norm_square_join(void *acc, const void *other, const void *attrs) {
    (void)attrs;
    *(double *)acc += *(const double *)other;
}

static GRI_MEDIUM void norm_square_four(double *acc, int64_t n, const real *x0, const real *x1, const real *x2,
                                        const real *x3) {
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < n; i++) {
        s0 += (double)x0[i] * x0[i];
        s1 += (double)x1[i] * x1[i];
        s2 += (double)x2[i] * x2[i];
        s3 += (double)x3[i] * x3[i];
    }
    acc[0] += s0, acc[1] += s1, acc[2] += s2, acc[3] += s3;
}
GRI_FOLD_EACH(norm_square, real, double)

static void norm_square_fold_rows(void *acc, int64_t n, int64_t rows, const void *from, int64_t stride, int64_t at,
                                  const void *attrs) {
    const real *x = from;
    double *a = acc;
    (void)at, (void)attrs;
    for (; rows > 0; rows--, x += stride)
#pragma omp simd
        for (int64_t j = 0; j < n; j++) a[j] += (double)x[j] * x[j];
}

static void norm_square_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    real *y = to;
    const double *a = acc;
    (void)count, (void)attrs;
    for (int64_t j = 0; j < n; j++) y[j] = (real)sqrt(a[j]);
}

static const gri_reduction norm_square_reduction = {
    .acc_size = sizeof(double), .result = GRI_REAL, .narrow = 6, .start = norm_square_start, .fold = norm_square_fold,
    .fold_each = norm_square_fold_each, .fold_rows = norm_square_fold_rows, .join = norm_square_join,
    .finish = norm_square_finish};

/* ---- p = inf ---- */

/* NaN if there is one. */
static real norm_most(int64_t n, const real *x) {
    real most = 0, nan = 0;
#pragma omp simd reduction(max : most) reduction(+ : nan)
    for (int64_t i = 0; i < n; i++) {
        most = r_abs(x[i]) > most ? r_abs(x[i]) : most;
        nan += x[i] == x[i] ? 0 : x[i];
    }
    return nan != nan ? nan : most;
}

static void norm_most_start(int64_t n, void *acc, const void *attrs) {
    real *a = acc;
    (void)attrs;
    for (int64_t j = 0; j < n; j++) a[j] = 0;
}

static void norm_most_join(void *acc, const void *other, const void *attrs) {
    real *a = acc, x = *(const real *)other;
    (void)attrs;
    if (x > *a || x != x) *a = x;
}

static void norm_most_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {
    real most = norm_most(n, from);
    (void)at;
    norm_most_join(acc, &most, attrs);
}

static void norm_most_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    real *y = to;
    const real *a = acc;
    (void)count, (void)attrs;
    for (int64_t j = 0; j < n; j++) y[j] = a[j];
}

static const gri_reduction norm_most_reduction = {
    .acc_size = sizeof(real), .result = GRI_REAL, .start = norm_most_start, .fold = norm_most_fold,
    .join = norm_most_join, .finish = norm_most_finish};

/* ---- any p, any range ---- */

#define NORM_BLOCK 512 /* elements under one scale; they stay in L1 between finding it and adding up */

typedef struct norm_scaled { double scale, sum; } norm_scaled; /* scale^p sum */

static void norm_scaled_start(int64_t n, void *acc, const void *attrs) {
    norm_scaled *a = acc;
    (void)attrs;
    for (int64_t j = 0; j < n; j++) a[j] = (norm_scaled){1, 0};
}

static void norm_scaled_join(void *acc, const void *other, const void *attrs) {
    norm_scaled *a = acc, b = *(const norm_scaled *)other;
    double p = ((const norm_attrs *)attrs)->p;
    if (b.sum == 0) return;
    if (a->sum == 0) {
        *a = b;
    } else if (a->scale == b.scale || !isfinite(a->sum + b.sum)) {
        a->sum += b.sum;
    } else if (a->scale > b.scale) {
        a->sum += b.sum * norm_power(b.scale / a->scale, p);
    } else {
        a->sum = a->sum * norm_power(a->scale / b.scale, p) + b.sum;
        a->scale = b.scale;
    }
}

/* Σ |x/scale|^p, with a vector loop for each of the small powers. */
#define NORM_SUM(power)                                                         \
    _Pragma("omp simd reduction(+ : s)") for (int64_t i = 0; i < n; i++) {      \
        double a = fabs((double)x[i]) * down;                                   \
        s += power;                                                             \
    }

static double norm_sum(int64_t n, const real *x, double scale, double p) {
    double s = 0, down = 1 / scale;
    if (isinf(down)) { /* of a subnormal scale */
        for (int64_t i = 0; i < n; i++) s += norm_power(fabs((double)x[i]) / scale, p);
    } else if (p == 1) {
        NORM_SUM(a)
    } else if (p == 2) {
        NORM_SUM(a * a)
    } else if (p == 3) {
        NORM_SUM(a * a * a)
    } else {
        for (int64_t i = 0; i < n; i++) s += pow(fabs((double)x[i]) * down, p);
    }
    return s;
}

static void norm_scaled_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {
    const real *x = from;
    double p = ((const norm_attrs *)attrs)->p, reach = p == 2 ? 1e140 : pow(10, 280 / p);
    (void)at;
    for (int64_t i = 0; i < n; i += NORM_BLOCK) {
        int64_t m = n - i < NORM_BLOCK ? n - i : NORM_BLOCK;
        double most = (double)norm_most(m, x + i);
        bool safe = most == 0 || !isfinite(most) || (most <= reach && most >= 1 / reach);
        norm_scaled block = {.scale = safe ? 1 : most};
        block.sum = norm_sum(m, x + i, block.scale, p);
        norm_scaled_join(acc, &block, attrs);
    }
}

static void norm_scaled_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    real *y = to;
    const norm_scaled *a = acc;
    double p = ((const norm_attrs *)attrs)->p;
    (void)count;
    for (int64_t j = 0; j < n; j++) {
        double root = p == 2 ? sqrt(a[j].sum) : p == 1 ? a[j].sum : p == 3 ? cbrt(a[j].sum) : pow(a[j].sum, 1 / p);
        y[j] = (real)(a[j].scale * root);
    }
}

static const gri_reduction norm_scaled_reduction = {
    .acc_size = sizeof(norm_scaled), .result = GRI_REAL, .start = norm_scaled_start, .fold = norm_scaled_fold,
    .join = norm_scaled_join, .finish = norm_scaled_finish};

/* ---- the op ---- */

static gr_status norm_shape(gri_call *c) {
    const norm_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_want_float(c, 0));
    if (!(a->p > 0)) return gr_fail(c->ctx, GR_ERR_ARG, "p is %g, expected a number above 0, or infinity", a->p);
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    gri_reduced_spec(c->in[0], mask, a->keepdim, (gr_dtype)c->in[0]->dtype, &c->spec[0]);
    return GR_OK;
}

static gr_status norm_forward(gri_call *c) {
    const norm_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    if (isinf(a->p)) return gri_reduce(c, &norm_most_reduction, GRI_REAL, mask);
    if (a->p == 2 && GRI_REAL == GR_F32) return gri_reduce(c, &norm_square_reduction, GRI_REAL, mask);
    return gri_reduce(c, &norm_scaled_reduction, GRI_REAL, mask);
}
GR_KERNEL(norm);

static gr_status norm_rule(gri_grad *g) {
    const norm_attrs *a = g->attrs;
    gr_tensor *x = g->in[0], *y, *dy, *size, *ties, *share;
    uint32_t mask;
    GR_TRY(gri_dim_mask(g->ctx, &a->dim, x->rank, &mask));
    GR_TRY(gri_keep_dims(g, g->out[0], mask, &y));
    GR_TRY(gri_keep_dims(g, g->dy[0], mask, &dy));
    if (!isinf(a->p)) return gri_emit(g, 0, &gri_op_norm_backward, 3, GRI_TENSORS(dy, x, y), &a->p);
    GR_TRY(GRI_EVAL(g, &size, abs, x));
    GR_TRY(gri_share(g, dy, size, y, &a->dim, &ties, &share));
    GR_TRY(GRI_EVAL(g, &share, abs_backward, share, x));
    return GRI_EMIT(g, 0, mul, ties, share);
}

static const gr_attr norm_schema[] = {
    {"p", GR_ATTR_REAL, offsetof(norm_attrs, p), .value = 2},
    {"dim", GR_ATTR_DIMS, offsetof(norm_attrs, dim), .required = false},
    {"keepdim", GR_ATTR_BOOL, offsetof(norm_attrs, keepdim), .required = false},
    GR_ATTR_END};

static const gr_case norm_cases[] = {
    {.in = "2,2", .give = "{{3,0},{-4,0}}", .want = "5"},
    {.in = "3", .give = "{3e37,-4e37,0}", .want = "5e37"},
    {.in = "3", .give = "{3e-40,-4e-40,0}", .want = "5e-40", .tol = 1e-5, .no_grad = true},
    {.in = "2,3", .attrs = "p=1, dim=2", .give = "{{1,-2,3},{-4,5,-6}}", .want = "{6,15}"},
    {.in = "2,3", .attrs = "p=3, dim=2, keepdim=true", .give = "{{1,-2,3},{-4,5,-6}}",
     .want = "{{3.301927249},{7.398636223}}"},
    {.in = "2,3", .attrs = "p=math.huge, dim=1", .give = "{{1,-2,3},{-4,5,-6}}", .want = "{4,5,6}"},
    {.in = "3,4,5", .attrs = "dim={1,3}"},
    {.in = "3,4", .attrs = "p=2.5, dim=1", .has_kink = true},
    {.in = "3,4", .attrs = "p=1", .has_kink = true},
    {0}};

GR_OP(norm) = {
    .info = {.name = "norm", .inputs = "x", .attrs = norm_schema, .attr_size = sizeof(norm_attrs),
             .cases = norm_cases,
             .doc = "The p-norm over dim (a number or a list; all if none is given); p = math.huge gives the\n"
                    "largest absolute value. Right for any finite input: nothing overflows on the way."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_OUT(0),
    .shape = norm_shape,
    .forward = norm_kernels,
    .backward = norm_rule,
};

/* ---- its derivative as an op ----
 * z = dy f with f = sign(x) |x/y|^(p-1), and 0 where y or x is 0:
 *     dz/d(dy) = f,  dz/dx = dy (p-1) / y |x/y|^(p-2),  dz/dy = (1-p) z / y.
 * Dividing by inf where y is 0 gives these the 0 they should have there. */

static void norm_backward_loop(int64_t n, void *const *t, const void *attrs) {
    real *dx = t[0];
    const real *dy = t[1], *x = t[2], *y = t[3];
    real p = (real) * (const double *)attrs;
    if (p == 2) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) dx[i] = y[i] == 0 ? 0 : dy[i] * (x[i] / y[i]);
    } else if (p == 1) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) dx[i] = x[i] > 0 ? dy[i] : x[i] < 0 ? -dy[i] : x[i] * dy[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < GRI_RUN(n); i++) {
            real slope = dy[i] * r_pow(r_abs(x[i] / y[i]), p - 1);
            dx[i] = (y[i] == 0) | (x[i] == 0) ? 0 : x[i] < 0 ? -slope : slope;
        }
    }
}

static gr_status norm_backward_forward(gri_call *c) {
    bool cheap = *(const double *)c->attrs == 2 || *(const double *)c->attrs == 1;
    return gri_map(c, norm_backward_loop, GRI_REAL, NULL, cheap ? GRI_EXACT : GRI_COST_MATH);
}
GR_KERNEL(norm_backward);

/* *out = t (p-1)^sign / y, 0 where y is 0. */
static gr_status norm_backward_over(gri_grad *g, gr_tensor **out, gr_tensor *t, double factor) {
    gr_tensor *zero, *inf, *none, *y, *k;
    GR_TRY(gri_scalar(g, &zero, 0));
    GR_TRY(gri_scalar(g, &inf, INFINITY));
    GR_TRY(gri_scalar(g, &k, factor));
    GR_TRY(GRI_EVAL(g, &none, eq, g->in[2], zero));
    GR_TRY(GRI_EVAL(g, &y, where, none, inf, g->in[2]));
    GR_TRY(GRI_EVAL(g, &t, mul, t, k));
    return GRI_EVAL(g, out, div, t, y);
}

static gr_status norm_backward_rule(gri_grad *g) {
    double p = *(const double *)g->attrs;
    gr_tensor *x = g->in[1], *y = g->in[2], *t, *ratio, *power;
    GR_TRY(gri_emit(g, 0, &gri_op_norm_backward, 3, GRI_TENSORS(g->dy[0], x, y), &p));
    if (p == 1) return GR_OK;
    if (gri_needs(g, 2)) {
        GR_TRY(norm_backward_over(g, &t, g->out[0], 1 - p));
        GR_TRY(GRI_EMIT(g, 2, mul, g->dy[0], t));
    }
    if (!gri_needs(g, 1)) return GR_OK;
    GR_TRY(norm_backward_over(g, &t, g->in[0], p - 1));
    if (p != 2) {
        GR_TRY(norm_backward_over(g, &ratio, x, 1));
        GR_TRY(GRI_EVAL(g, &ratio, abs, ratio));
        GR_TRY(gri_scalar(g, &power, p - 2));
        GR_TRY(GRI_EVAL(g, &ratio, pow, ratio, power));
        GR_TRY(GRI_EVAL(g, &t, mul, t, ratio));
    }
    return GRI_EMIT(g, 1, mul, g->dy[0], t);
}

static const gr_attr norm_backward_schema[] = {{"p", GR_ATTR_REAL, 0, .value = 2}, GR_ATTR_END};

static const gr_case norm_backward_cases[] = {
    {.in = "3 3 3", .give = "{2,3,4}, {3,-4,0}, {5,5,0}", .want = "{1.2,-2.4,0}", .no_grad = true},
    {.in = "3,4 3,4 3,1", .lo = 0.5, .hi = 2},
    {.in = "3,4 3,4 ()", .attrs = "p=2.5", .lo = 0.5, .hi = 2},
    {0}};

GR_OP(norm_backward) = {
    .info = {.name = "norm_backward", .inputs = "dy x y", .attrs = norm_backward_schema, .attr_size = sizeof(double),
             .hidden = true, .cases = norm_backward_cases, .doc = "dy sign(x) |x/y|^(p-1), and 0 where y is 0"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1) | GRI_KEEP_IN(2) | GRI_KEEP_OUT(0),
    .shape = gri_shape_broadcast,
    .forward = norm_backward_kernels,
    .backward = norm_backward_rule,
};
