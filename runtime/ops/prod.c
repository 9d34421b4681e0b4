/* y = Π x over any set of dims. Floats are multiplied in double, whole numbers as i64 modulo 2^64.
 *
 * dy/dx_i = the product of all others, right with zeros too: dx = prod_backward(dy, x), an op over rows. Where the
 * row's product p is an ordinary number it is dy p / x_i; where p is 0, subnormal or not finite, the product of what
 * comes before x_i and of what comes after. Its own derivatives run through `compose`, which makes these products of
 * multiplications alone, in log2 n steps (Hillis & Steele, "Data parallel algorithms", CACM 29, 1986). The input is
 * kept. */
#include <float.h>
#include <math.h>

#include "reduce.h"
#include "rows.h"
#include "scratch.h"
#include "vmath.h"

#define PROD_REDUCTION(name, acc_type, type, dtype)                                                           \
    static void name##_start(int64_t n, void *acc, const void *attrs) {                                       \
        acc_type *a = acc;                                                                                    \
        (void)attrs;                                                                                          \
        for (int64_t j = 0; j < n; j++) a[j] = 1;                                                             \
    }                                                                                                         \
    static void name##_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {          \
        const type *x = from;                                                                                 \
        acc_type p = 1;                                                                                       \
        (void)at, (void)attrs;                                                                                \
        _Pragma("omp simd reduction(* : p)") for (int64_t i = 0; i < n; i++) p *= x[i];                       \
        *(acc_type *)acc *= p;                                                                                \
    }                                                                                                         \
    static void name##_join(void *acc, const void *other, const void *attrs) {                                \
        (void)attrs;                                                                                          \
        *(acc_type *)acc *= *(const acc_type *)other;                                                         \
    }                                                                                                         \
    static GRI_MEDIUM void name##_four(acc_type *acc, int64_t n, const type *x0, const type *x1,              \
                                       const type *x2, const type *x3) {                                      \
        acc_type p0 = 1, p1 = 1, p2 = 1, p3 = 1;                                                              \
        _Pragma("omp simd reduction(* : p0, p1, p2, p3)") for (int64_t i = 0; i < n; i++) {                   \
            p0 *= x0[i];                                                                                      \
            p1 *= x1[i];                                                                                      \
            p2 *= x2[i];                                                                                      \
            p3 *= x3[i];                                                                                      \
        }                                                                                                     \
        acc[0] *= p0, acc[1] *= p1, acc[2] *= p2, acc[3] *= p3;                                               \
    }                                                                                                         \
    GRI_FOLD_EACH(name, type, acc_type)                                                                       \
    static void name##_fold_rows(void *acc, int64_t n, int64_t rows, const void *from, int64_t stride,        \
                                 int64_t at, const void *attrs) {                                             \
        const type *x = from;                                                                                 \
        acc_type *a = acc;                                                                                    \
        (void)at, (void)attrs;                                                                                \
        for (; rows > 0; rows--, x += stride)                                                                 \
            _Pragma("omp simd") for (int64_t j = 0; j < n; j++) a[j] *= x[j];                                 \
    }                                                                                                         \
    static void name##_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {       \
        type *y = to;                                                                                         \
        const acc_type *a = acc;                                                                              \
        (void)count, (void)attrs;                                                                             \
        for (int64_t j = 0; j < n; j++) y[j] = (type)a[j];                                                    \
    }                                                                                                         \
    static const gri_reduction name##_reduction = {                                                           \
        .acc_size = sizeof(acc_type), .result = dtype, .narrow = 20, .start = name##_start,                    \
        .fold = name##_fold, .fold_each = name##_fold_each, .fold_rows = name##_fold_rows,                    \
        .join = name##_join, .finish = name##_finish};
PROD_REDUCTION(prod, double, real, GRI_REAL)
PROD_REDUCTION(prod_whole, uint64_t, uint64_t, GR_I64)

static gr_status prod_shape(gri_call *c) { return gri_op_sum.shape(c); }

static gr_status prod_forward(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    if (!gri_is_float(c->in[0])) return gri_reduce(c, &prod_whole_reduction, GR_I64, mask);
    return gri_reduce(c, &prod_reduction, GRI_REAL, mask);
}
GR_KERNEL(prod);

/* The derivative wants rows: the reduced dims last, as one. */
static gr_status prod_rule(gri_grad *g) {
    const gri_reduce_attrs *a = g->attrs;
    gr_tensor *x = g->in[0], *dy;
    gr_dims order = {.n = x->rank}, back = {.n = x->rank};
    gri_shape_attrs moved = {.shape = {.n = x->rank}}, flat = {.shape = {.n = 2, .v = {1, 1}}};
    uint32_t mask;
    int at = 0;
    GR_TRY(gri_dim_mask(g->ctx, &a->dim, x->rank, &mask));
    for (int turn = 0; turn < 2; turn++)
        for (int d = 0; d < x->rank; d++) {
            if ((int)(mask >> d & 1) != turn) continue;
            order.v[at] = d;
            back.v[d] = at;
            moved.shape.v[at++] = x->dims[d];
            flat.shape.v[turn] *= x->dims[d];
        }
    GR_TRY(gri_eval(g, &x, &gri_op_permute, 1, &x, &order));
    GR_TRY(gri_eval(g, &x, &gri_op_reshape, 1, &x, &flat));
    flat.shape.v[1] = 1;
    GR_TRY(gri_eval(g, &dy, &gri_op_reshape, 1, g->dy, &flat));
    GR_TRY(GRI_EVAL(g, &x, prod_backward, dy, x));
    GR_TRY(gri_eval(g, &x, &gri_op_reshape, 1, &x, &moved));
    return gri_emit(g, 0, &gri_op_permute, 1, &x, &back);
}

static const gr_attr prod_schema[] = {GRI_REDUCE_ATTRS, GR_ATTR_END};

static const gr_case prod_cases[] = {
    {.in = "2,3", .give = "{{1,2,3},{4,5,6}}", .want = "720"},
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,2,3},{4,0,6}}", .want = "{4,0,18}"},
    {.in = "2,3", .attrs = "dim=-1, keepdim=true", .give = "{{1,0,3},{0,0,6}}", .want = "{{0},{0}}"},
    {.in = "i64:2,2", .attrs = "dim=2", .give = "{{3,7},{-2,5}}", .want = "{21,-10}", .no_grad = true},
    {.in = "3,4,5", .attrs = "dim={1,3}"},
    {.in = "5,3", .attrs = "dim=1"},
    {.in = "()"},
    {0}};

GR_OP(prod) = {
    .info = {.name = "prod", .inputs = "x", .attrs = prod_schema, .attr_size = sizeof(gri_reduce_attrs),
             .cases = prod_cases,
             .doc = "Product over dim (a number or a list; all if none is given). Floats are multiplied in double\n"
                    "precision; products of whole numbers are i64. The gradient is right where there are zeros."},
    .keeps = GRI_KEEP_IN(0),
    .shape = prod_shape,
    .forward = prod_kernels,
    .backward = prod_rule,
};

/* ---- prod_backward: dy[r,1] x[r,n] → dx[r,n] ---- */

#define PROD_BLOCK 256 /* elements whose products of later ones fit on the stack */

typedef struct prod_job {
    const real *dy, *x;
    real *dx;
    int64_t n, blocks;
    gri_scratch scratch; /* a double for each block */
} prod_job;

static double prod_of(int64_t n, const real *x) {
    double p = 1;
#pragma omp simd reduction(* : p)
    for (int64_t i = 0; i < n; i++) p *= x[i];
    return p;
}

/* later[b] = the product of all blocks after b. */
static void prod_row(int64_t n, int64_t blocks, double dy, const real *x, real *dx, double *later) {
    double before = 1, after[PROD_BLOCK + 1];
    later[blocks - 1] = 1;
    for (int64_t b = blocks - 1; b > 0; b--) {
        int64_t from = b * PROD_BLOCK, m = n - from < PROD_BLOCK ? n - from : PROD_BLOCK;
        later[b - 1] = later[b] * prod_of(m, x + from);
    }
    for (int64_t b = 0; b < blocks; b++, x += PROD_BLOCK, dx += PROD_BLOCK, n -= PROD_BLOCK) {
        int64_t m = n < PROD_BLOCK ? n : PROD_BLOCK;
        after[m] = later[b];
        for (int64_t i = m - 1; i >= 0; i--) after[i] = after[i + 1] * x[i];
        for (int64_t i = 0; i < m; i++) {
            dx[i] = (real)(dy * (before * after[i + 1]));
            before *= x[i];
        }
    }
}

static void prod_rows(void *arg, int64_t from, int64_t to) {
    prod_job *j = arg;
    double *later = gri_scratch_claim(&j->scratch);
    for (int64_t r = from; r < to; r++) {
        const real *x = j->x + r * j->n;
        real *dx = j->dx + r * j->n;
        double dy = j->dy[r], p = prod_of(j->n, x);
        if (!(fabs(p) >= DBL_MIN && fabs(p) <= DBL_MAX)) {
            prod_row(j->n, j->blocks, dy, x, dx, later);
            continue;
        }
#pragma omp simd
        for (int64_t i = 0; i < j->n; i++) dx[i] = (real)(dy * (p / x[i]));
    }
    gri_scratch_return(&j->scratch, later);
}

static gr_status prod_backward_kernel(gri_call *c) {
    const gr_tensor *x = c->in[1];
    prod_job j = {.dy = (const real *)(const void *)c->in[0]->data, .x = (const real *)(const void *)x->data,
                  .dx = (real *)(void *)c->out[0]->data, .n = x->dims[1]};
    if (x->numel == 0) return GR_OK;
    j.blocks = (j.n + PROD_BLOCK - 1) / PROD_BLOCK;
    GR_TRY(gri_scratch_open(c->ctx, &j.scratch, (size_t)j.blocks * sizeof(double)));
    gri_rows(c->ctx, x->dims[0], j.n + 10, prod_rows, &j);
    gri_scratch_close(c->ctx, &j.scratch);
    return gri_poll(c->ctx);
}

static gr_status prod_backward_forward(gri_call *c) { return gri_dense(c, prod_backward_kernel); }
GR_KERNEL(prod_backward);

static gr_status prod_backward_shape(gri_call *c) {
    const gr_tensor *dy = c->in[0], *x = c->in[1];
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_want_float(c, 1));
    if (x->rank != 2 || dy->rank != 2 || dy->dims[0] != x->dims[0] || dy->dims[1] != 1)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s and x %s, expected [r,1] and [r,n]", gri_tensor_text(dy),
                       gri_tensor_text(x));
    gri_spec_set(&c->spec[0], x);
    return GR_OK;
}

/* *out = columns from .. from + n - 1 of t. */
static gr_status prod_columns(gr_ctx *ctx, gr_tensor *t, int64_t from, int64_t n, gr_tensor **out) {
    gri_narrow_attrs a = {.dim = 1, .start = from, .length = n};
    return gr_apply(ctx, &gri_op_narrow, 1, &t, &a, out);
}

/* *out = a and b side by side, in the other order if swapped. */
static gr_status prod_cat(gr_ctx *ctx, gr_tensor *a, gr_tensor *b, bool swapped, gr_tensor **out) {
    const int64_t dim = 1; /* the attributes of cat */
    return gr_apply(ctx, &gri_op_cat, 2, swapped ? GRI_TENSORS(b, a) : GRI_TENSORS(a, b), &dim, out);
}

/* One doubling: each column of *t times the one k before it (after it), the first (last) k as they are. */
static gr_status prod_double(gr_ctx *ctx, int64_t n, int64_t k, bool after, gr_tensor **t) {
    gr_tensor *edge = NULL, *a = NULL, *b = NULL, *ab = NULL, *next = NULL;
    gr_status s = prod_columns(ctx, *t, after ? n - k : 0, k, &edge);
    if (s == GR_OK) s = prod_columns(ctx, *t, 0, n - k, &a);
    if (s == GR_OK) s = prod_columns(ctx, *t, k, n - k, &b);
    if (s == GR_OK) s = GRI_APPLY(ctx, &ab, mul, a, b);
    if (s == GR_OK) s = prod_cat(ctx, edge, ab, after, &next);
    gr_release(edge), gr_release(a), gr_release(b), gr_release(ab);
    GR_TRY(s);
    gr_release(*t);
    *t = next;
    return GR_OK;
}

/* *out[r,n] = products of the columns of x before (after) each. */
static gr_status prod_scan(gr_ctx *ctx, gr_tensor *x, bool after, gr_tensor **out) {
    const int64_t n = x->dims[1], dims[2] = {x->dims[0], 1};
    gr_tensor *ones = NULL, *most = NULL, *t = NULL;
    gr_status s = gr_tensor_new(ctx, (gr_dtype)x->dtype, 2, dims, &ones);
    if (s == GR_OK) s = gr_tensor_fill(ones, 1);
    if (s == GR_OK) s = prod_columns(ctx, x, after ? 1 : 0, n - 1, &most);
    if (s == GR_OK) s = prod_cat(ctx, ones, most, after, &t);
    for (int64_t k = 1; k < n && s == GR_OK; k *= 2) s = prod_double(ctx, n, k, after, &t);
    gr_release(ones), gr_release(most);
    if (s == GR_OK) *out = t;
    else gr_release(t);
    return s;
}

static gr_status prod_backward_compose(gri_call *c) {
    gr_tensor *dy = c->in[0], *x = c->in[1], *before = NULL, *after = NULL, *t = NULL;
    GR_TRY(prod_backward_shape(c));
    if (x->dims[1] == 0) return GRI_APPLY(c->ctx, &c->out[0], mul, dy, x);
    gr_status s = prod_scan(c->ctx, x, false, &before);
    if (s == GR_OK) s = prod_scan(c->ctx, x, true, &after);
    if (s == GR_OK) s = GRI_APPLY(c->ctx, &t, mul, before, after);
    if (s == GR_OK) s = GRI_APPLY(c->ctx, &c->out[0], mul, dy, t);
    gr_release(before), gr_release(after), gr_release(t);
    return s;
}

static const gr_case prod_backward_cases[] = {
    {.in = "4,1 4,3", .give = "{{2},{1},{1},{1}}, {{1,2,3},{0,2,3},{0,0,3},{1/0,2,3}}",
     .want = "{{12,6,4},{6,0,0},{0,0,0},{6,1/0,1/0}}", .no_grad = true},
    {.in = "3,1 3,5"},
    {.in = "2,1 2,600", .lo = 0.99, .hi = 1.01, .no_grad = true},
    {.in = "2,1 2,1"},
    {0}};

GR_OP(prod_backward) = {
    .info = {.name = "prod_backward", .inputs = "dy x", .hidden = true, .cases = prod_backward_cases,
             .doc = "dy times the product of all other elements of the row"},
    .sets_only = true,
    .shape = prod_backward_shape,
    .forward = prod_backward_kernels,
    .compose = prod_backward_compose,
};
