/* y = log Σ exp(x) = m + log Σ exp(x - m) over any set of dims, m the largest element of those added up together.
 *
 * Nothing overflows. -inf over nothing, or over -inf alone; inf where there is one and no NaN.
 *
 * dx = dy exp(x - y) = z: logsumexp_backward(dy, x, y), an op of its own with dz/d(dy) = exp(x - y), dz/dx = z,
 * dz/dy = -z. Input and output are kept.
 *
 * An accumulator is a scale m and a sum s that stand for s exp(m). Sums are made of blocks: one pass for the largest
 * element of a block, one for the exponentials. What does not fill a vector goes through a padded one (softmax.h). */
#include <math.h>

#include "reduce.h"
#include "softmax.h"

#define LOGSUMEXP_BLOCK 4096 /* elements of a run under one scale */
#define LOGSUMEXP_ROWS 128   /* rows under one scale */

typedef struct logsumexp_acc { double m, s; } logsumexp_acc; /* s = 0: nothing but -inf yet */

static void logsumexp_start(int64_t n, void *acc, const void *attrs) {
    logsumexp_acc *a = acc;
    (void)attrs;
    for (int64_t j = 0; j < n; j++) a[j] = (logsumexp_acc){-INFINITY, 0};
}

/* m may be infinite; then so are all the elements that s counts. A NaN in either s stays. */
static inline void logsumexp_add(logsumexp_acc *a, double m, double s) {
    if (s == 0) return;
    if (a->s == 0) *a = (logsumexp_acc){m, s};
    else if (a->m == m) a->s += s;
    else if (a->m > m) a->s += s * exp(m - a->m);
    else *a = (logsumexp_acc){m, a->s * exp(a->m - m) + s};
}

static void logsumexp_join(void *acc, const void *other, const void *attrs) {
    const logsumexp_acc *b = other;
    (void)attrs;
    logsumexp_add(acc, b->m, b->s);
}

/* Σ exp(x - m) where m, the largest element but for NaN, is infinite: how many are, NaN if there is one. */
static double logsumexp_infinite(int64_t n, int64_t stride, const real *x, real m) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        real v = x[i * stride];
        s += v != v ? (double)v : v == m && m > 0;
    }
    return s;
}

static void logsumexp_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {
    const real *x = from;
    (void)at, (void)attrs;
    for (int64_t i = 0; i < n; i += LOGSUMEXP_BLOCK) {
        int64_t k = n - i < LOGSUMEXP_BLOCK ? n - i : LOGSUMEXP_BLOCK;
        real m;
        double s = gri_row_exp(k, x + i, NULL, &m);
        if (isinf(m)) s = logsumexp_infinite(k, 1, x + i, m);
        logsumexp_add(acc, m, s);
    }
}

static void logsumexp_fold_rows(void *acc, int64_t n, int64_t rows, const void *from, int64_t stride, int64_t at,
                                const void *attrs) {
    const real *x = from;
    logsumexp_acc *a = acc;
    real m[GRI_COLUMNS];
    double s[GRI_COLUMNS];
    (void)at, (void)attrs;
    for (int64_t r = 0; r < rows; r += LOGSUMEXP_ROWS) {
        int64_t h = rows - r < LOGSUMEXP_ROWS ? rows - r : LOGSUMEXP_ROWS;
        for (int64_t j = 0; j < n; j += GRI_COLUMNS) {
            int64_t w = n - j < GRI_COLUMNS ? n - j : GRI_COLUMNS;
            const real *tile = x + r * stride + j;
            gri_columns_exp(h, stride, w, tile, NULL, m, s);
            for (int64_t k = 0; k < w; k++) {
                if (isinf(m[k])) s[k] = logsumexp_infinite(h, stride, tile + k, m[k]);
                logsumexp_add(a + j + k, m[k], s[k]);
            }
        }
    }
}

static void logsumexp_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {
    real *y = to;
    const logsumexp_acc *a = acc;
    (void)count, (void)attrs;
    for (int64_t j = 0; j < n; j++) y[j] = (real)(a[j].m + log(a[j].s));
}

static const gri_reduction logsumexp_reduction = {
    .acc_size = sizeof(logsumexp_acc), .result = GRI_REAL, .start = logsumexp_start, .fold = logsumexp_fold,
    .fold_rows = logsumexp_fold_rows, .join = logsumexp_join, .finish = logsumexp_finish};

static gr_status logsumexp_shape(gri_call *c) { return gri_op_mean.shape(c); }

static gr_status logsumexp_forward(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    return gri_reduce(c, &logsumexp_reduction, GRI_REAL, mask);
}
GR_KERNEL(logsumexp);

static gr_status logsumexp_rule(gri_grad *g) {
    const gri_reduce_attrs *a = g->attrs;
    gr_tensor *dy, *y;
    uint32_t mask;
    GR_TRY(gri_dim_mask(g->ctx, &a->dim, g->in[0]->rank, &mask));
    GR_TRY(gri_keep_dims(g, g->dy[0], mask, &dy));
    GR_TRY(gri_keep_dims(g, g->out[0], mask, &y));
    return GRI_EMIT(g, 0, logsumexp_backward, dy, g->in[0], y);
}

static const gr_attr logsumexp_schema[] = {GRI_REDUCE_ATTRS, GR_ATTR_END};

static const gr_case logsumexp_cases[] = {
    {.in = "3", .give = "{0,1,2}", .want = "2.40760596"},
    {.in = "2,2", .attrs = "dim=2", .give = "{{1000,1000},{-1000,-1000}}", .want = "{1000.69315,-999.306853}"},
    {.in = "5,2", .attrs = "dim=2, keepdim=true", .give = "{{-1/0,-1/0},{-1/0,3},{1/0,3},{1/0,-1/0},{1/0,0/0}}",
     .want = "{{-1/0},{3},{1/0},{1/0},{0/0}}", .no_grad = true},
    {.in = "2,3", .attrs = "dim=1", .give = "{{-1/0,1/0,0/0},{-1/0,2,1/0}}", .want = "{-1/0,1/0,0/0}",
     .no_grad = true},
    {.in = "3,4,5", .attrs = "dim={1,3}", .lo = -3, .hi = 3},
    {.in = "3,40", .attrs = "dim=2"},
    {.in = "()"},
    {0}};

GR_OP(logsumexp) = {
    .info = {.name = "logsumexp", .inputs = "x", .attrs = logsumexp_schema, .attr_size = sizeof(gri_reduce_attrs),
             .cases = logsumexp_cases,
             .doc = "Logarithm of the sum of exp(x) over dim (a number or a list; all if none is given), without\n"
                    "overflow."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_OUT(0),
    .shape = logsumexp_shape,
    .forward = logsumexp_kernels,
    .backward = logsumexp_rule,
};

/* ---- its derivative as an op ---- */

static void logsumexp_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *x = p[2], *y = p[3];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) dx[i] = dy[i] * r_exp(x[i] - y[i]);
}

static gr_status logsumexp_backward_forward(gri_call *c) {
    return gri_map(c, logsumexp_backward_loop, GRI_REAL, NULL, GRI_COST_MATH);
}
GR_KERNEL(logsumexp_backward);

static gr_status logsumexp_backward_rule(gri_grad *g) {
    gr_tensor *t;
    GR_TRY(GRI_EMIT(g, 0, logsumexp_backward, g->dy[0], g->in[1], g->in[2]));
    GR_TRY(GRI_EMIT(g, 1, mul, g->dy[0], g->out[0]));
    if (!gri_needs(g, 2)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &t, neg, g->dy[0]));
    return GRI_EMIT(g, 2, mul, t, g->out[0]);
}

static const gr_case logsumexp_backward_cases[] = {
    {.in = "2 2 1", .give = "{2,4}, {1,2}, {2}", .want = "{0.735758882,4}"},
    {.in = "3,4 3,4 3,1"},
    {.in = "3,1 3,4 ()"},
    {0}};

GR_OP(logsumexp_backward) = {
    .info = {.name = "logsumexp_backward", .inputs = "dy x y", .hidden = true, .cases = logsumexp_backward_cases,
             .doc = "dy exp(x - y)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1) | GRI_KEEP_IN(2) | GRI_KEEP_OUT(0),
    .shape = gri_shape_broadcast,
    .forward = logsumexp_backward_kernels,
    .backward = logsumexp_backward_rule,
};
