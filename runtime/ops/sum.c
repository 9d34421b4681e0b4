/* Sums over any set of dims: sum, mean = sum / count, and sum_to, which undoes a broadcast.
 *
 * Floats are added up in double: 50 million equal floats come out right to the last bit, where a float
 * accumulator is 3 % off. Whole numbers are added up as i64.
 *
 * dy/dx = 1 (or 1 / count) for every element: dx is dy spread over the reduced dims again, a view. Nothing is
 * kept. */
#include "reduce.h"
#include "vmath.h"

static void sum_start(int64_t n, void *acc, const void *attrs) {
    double *a = acc;
    (void)attrs;
    for (int64_t j = 0; j < n; j++) a[j] = 0;
}

/* One thread on 10 M floats: 37 GB/s (avx512, avx2), 19 (generic); from L2 48, 39 and 20. */
static void sum_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {
    const real *x = from;
    double s = 0;
    (void)at, (void)attrs;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += x[i];
    *(double *)acc += s;
}

static void sum_join(void *acc, const void *other, const void *attrs) {
    (void)attrs;
    *(double *)acc += *(const double *)other;
}

/* [10000,100] 105 us instead of 210, [100000,10] 390 instead of 620. */
static GRI_MEDIUM void sum_four(double *acc, int64_t n, const real *x0, const real *x1, const real *x2,
                                const real *x3) {
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t i = 0; i < n; i++) {
        s0 += x0[i];
        s1 += x1[i];
        s2 += x2[i];
        s3 += x3[i];
    }
    acc[0] += s0, acc[1] += s1, acc[2] += s2, acc[3] += s3;
}
GRI_FOLD_EACH(sum, real, double)

/* Four rows at a time: the accumulators are loaded and stored once for four, and out of cache four streams of
 * memory wait together ([3000,3000] 2.7 ms instead of 4.5). But memory that is one run is best read as one run:
 * [1000000,10], which comes as rows of 250, takes 1.9 ms instead of 4.2. */
static void sum_fold_rows(void *acc, int64_t n, int64_t rows, const void *from, int64_t stride, int64_t at,
                          const void *attrs) {
    const real *x = from;
    double *a = acc;
    (void)at, (void)attrs;
    bool apart = stride != n || n < 64;
    for (; apart && rows >= 4; rows -= 4, x += 4 * stride) {
        const real *x1 = x + stride, *x2 = x1 + stride, *x3 = x2 + stride;
#pragma omp simd
        for (int64_t j = 0; j < n; j++) a[j] += ((double)x[j] + x1[j]) + ((double)x2[j] + x3[j]);
    }
    for (; rows > 0; rows--, x += stride)
#pragma omp simd
        for (int64_t j = 0; j < n; j++) a[j] += x[j];
}

static void sum_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    real *y = to;
    const double *a = acc;
    (void)count, (void)attrs;
    for (int64_t j = 0; j < n; j++) y[j] = (real)a[j];
}

static const gri_reduction sum_reduction = {
    .acc_size = sizeof(double), .result = GRI_REAL, .narrow = 6, .start = sum_start, .fold = sum_fold,
    .fold_each = sum_fold_each, .fold_rows = sum_fold_rows, .join = sum_join, .finish = sum_finish};

/* ---- whole numbers: modulo 2^64 ---- */

static void sum_whole_start(int64_t n, void *acc, const void *attrs) {
    uint64_t *a = acc;
    (void)attrs;
    for (int64_t j = 0; j < n; j++) a[j] = 0;
}

static void sum_whole_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {
    const uint64_t *x = from;
    uint64_t s = 0;
    (void)at, (void)attrs;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += x[i];
    *(uint64_t *)acc += s;
}

static void sum_whole_join(void *acc, const void *other, const void *attrs) {
    (void)attrs;
    *(uint64_t *)acc += *(const uint64_t *)other;
}

static void sum_whole_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    uint64_t *y = to;
    const uint64_t *a = acc;
    (void)count, (void)attrs;
    for (int64_t j = 0; j < n; j++) y[j] = a[j];
}

static const gri_reduction sum_whole_reduction = {
    .acc_size = sizeof(uint64_t), .result = GR_I64, .start = sum_whole_start, .fold = sum_whole_fold,
    .join = sum_whole_join, .finish = sum_whole_finish};

/* ---- sum ---- */

static gr_status sum_shape(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    gr_tensor *x = c->in[0];
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, x->rank, &mask));
    gri_reduced_spec(x, mask, a->keepdim, gri_is_float(x) ? (gr_dtype)x->dtype : GR_I64, &c->spec[0]);
    return GR_OK;
}

static gr_status sum_forward(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    if (!gri_is_float(c->in[0])) return gri_reduce(c, &sum_whole_reduction, GR_I64, mask);
    return gri_reduce(c, &sum_reduction, GRI_REAL, mask);
}
GR_KERNEL(sum);

static gr_status sum_rule(gri_grad *g) {
    const gri_reduce_attrs *a = g->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(g->ctx, &a->dim, gri_input_spec(g, 0)->rank, &mask));
    return gri_emit_spread(g, g->dy[0], mask);
}

static const gr_attr sum_schema[] = {GRI_REDUCE_ATTRS, GR_ATTR_END};

static const gr_case sum_cases[] = {
    {.in = "2,3", .give = "{{1,2,3},{4,5,6}}", .want = "21"},
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,2,3},{4,5,6}}", .want = "{5,7,9}"},
    {.in = "2,3", .attrs = "dim=-1, keepdim=true", .give = "{{1,2,3},{4,5,6}}", .want = "{{6},{15}}"},
    {.in = "3,4,5", .attrs = "dim={1,3}"},
    {.in = "70,5", .attrs = "dim=2"},
    {.in = "()"},
    {.in = "0,3", .attrs = "dim=1"},
    {0}};

GR_OP(sum) = {
    .info = {.name = "sum", .inputs = "x", .attrs = sum_schema, .attr_size = sizeof(gri_reduce_attrs),
             .cases = sum_cases,
             .doc = "Sum over dim (a number or a list; all if none is given). Floats are added up in double\n"
                    "precision; sums of whole numbers and of comparisons are i64."},
    .shape = sum_shape,
    .forward = sum_kernels,
    .backward = sum_rule,
};

/* ---- mean ---- */

static void mean_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    real *y = to;
    const double *a = acc;
    (void)attrs;
    for (int64_t j = 0; j < n; j++) y[j] = (real)(a[j] / (double)count);
}

static const gri_reduction mean_reduction = {
    .acc_size = sizeof(double), .result = GRI_REAL, .narrow = 6, .start = sum_start, .fold = sum_fold,
    .fold_each = sum_fold_each, .fold_rows = sum_fold_rows, .join = sum_join, .finish = mean_finish};

static gr_status mean_shape(gri_call *c) {
    GR_TRY(gri_want_float(c, 0));
    return sum_shape(c);
}

static gr_status mean_forward(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    return gri_reduce(c, &mean_reduction, GRI_REAL, mask);
}
GR_KERNEL(mean);

static gr_status mean_rule(gri_grad *g) {
    const gri_reduce_attrs *a = g->attrs;
    const gri_spec *x = gri_input_spec(g, 0);
    int64_t count = 1;
    uint32_t mask;
    gr_tensor *n, *t;
    GR_TRY(gri_dim_mask(g->ctx, &a->dim, x->rank, &mask));
    for (int d = 0; d < x->rank; d++) count *= mask >> d & 1 ? x->dims[d] : 1;
    GR_TRY(gri_scalar(g, &n, (double)count));
    GR_TRY(GRI_EVAL(g, &t, div, g->dy[0], n));
    return gri_emit_spread(g, t, mask);
}

static const gr_case mean_cases[] = {
    {.in = "2,3", .give = "{{1,2,3},{4,5,6}}", .want = "3.5"},
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,2,3},{4,5,6}}", .want = "{2.5,3.5,4.5}"},
    {.in = "3,4,5", .attrs = "dim={1,3}, keepdim=true"},
    {0}};

GR_OP(mean) = {
    .info = {.name = "mean", .inputs = "x", .attrs = sum_schema, .attr_size = sizeof(gri_reduce_attrs),
             .cases = mean_cases,
             .doc = "Arithmetic mean over dim (a number or a list; all if none is given). NaN over nothing."},
    .shape = mean_shape,
    .forward = mean_kernels,
    .backward = mean_rule,
};

/* ---- sum_to ---- */

/* The dims along which x was broadcast from `shape`, or false if it cannot have been. */
static bool sum_to_mask(const gr_tensor *x, const gr_dims *shape, uint32_t *mask) {
    int more = x->rank - shape->n;
    if (more < 0) return false;
    *mask = (1u << more) - 1;
    for (int d = more; d < x->rank; d++) {
        if (shape->v[d - more] == x->dims[d]) continue;
        if (shape->v[d - more] != 1) return false;
        *mask |= 1u << d;
    }
    return true;
}

static gr_status sum_to_shape(gri_call *c) {
    const gri_shape_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_want_float(c, 0));
    if (!sum_to_mask(c->in[0], &a->shape, &mask))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s was not broadcast from %s", gri_tensor_text(c->in[0]),
                       gri_dims_text(a->shape.n, a->shape.v));
    c->spec[0].dtype = (gr_dtype)c->in[0]->dtype;
    c->spec[0].rank = a->shape.n;
    for (int d = 0; d < a->shape.n; d++) c->spec[0].dims[d] = a->shape.v[d];
    return GR_OK;
}

static gr_status sum_to_forward(gri_call *c) {
    const gri_shape_attrs *a = c->attrs;
    uint32_t mask = 0;
    sum_to_mask(c->in[0], &a->shape, &mask);
    return gri_reduce(c, &sum_reduction, GRI_REAL, mask);
}
GR_KERNEL(sum_to);

static gr_status sum_to_rule(gri_grad *g) {
    const gri_spec *x = gri_input_spec(g, 0);
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    return gri_emit(g, 0, &gri_op_expand, 1, g->dy, &a);
}

static const gr_attr sum_to_schema[] = {
    {"shape", GR_ATTR_SHAPE, offsetof(gri_shape_attrs, shape), .required = true}, GR_ATTR_END};

static const gr_case sum_to_cases[] = {
    {.in = "2,3", .attrs = "shape={3}", .give = "{{1,2,3},{4,5,6}}", .want = "{5,7,9}"},
    {.in = "2,3", .attrs = "shape={2,1}", .give = "{{1,2,3},{4,5,6}}", .want = "{{6},{15}}"},
    {.in = "2,3,4", .attrs = "shape={3,1}"},
    {.in = "2,3", .attrs = "shape={}"},
    {0}};

GR_OP(sum_to) = {
    .info = {.name = "sum_to", .inputs = "x", .attrs = sum_to_schema, .attr_size = sizeof(gri_shape_attrs),
             .hidden = true,
             .cases = sum_to_cases, .doc = "x summed over the dims along which it was broadcast from shape."},
    .shape = sum_to_shape,
    .forward = sum_to_kernels,
    .backward = sum_to_rule,
};
