/* softmax:      y_i = exp(x_i - m) / Σ_j exp(x_j - m) along one dim, m = max x
 * log_softmax:  y_i = (x_i - m) - log Σ_j exp(x_j - m)
 *
 * Subtracting m changes nothing mathematically and keeps exp from overflowing. A row of -inf alone gives NaN.
 *
 *     softmax_backward(dy, y):      dx = y (dy - Σ dy y)
 *     log_softmax_backward(dy, y):  dx = dy - exp(y) Σ dy
 * are ops of their own, whose derivatives run through their `compose`. Outputs are kept, inputs are not.
 *
 * The tensor is seen as [outer, n, inner], n along the dim. With inner = 1 a row is a run of memory; otherwise,
 * and where such rows are short, GRI_COLUMNS of them are done together, element by element. */
#include "reduce.h"
#include "rows.h"
#include "softmax.h"
#include "stream.h"

typedef struct softmax_attrs { int64_t dim; } softmax_attrs;

/* a and b: the inputs; b is a again where there is one only. */
typedef void (*softmax_row_fn)(int64_t n, const real *a, const real *b, real *y);
/* w rows at once: element i of row k is at i * stride + k. */
typedef void (*softmax_columns_fn)(int64_t n, int64_t stride, int64_t w, const real *a, const real *b, real *y);

typedef struct softmax_job {
    const real *a, *b;
    real *y;
    int64_t n, inner, rows;
    int64_t groups; /* of columns: in all, or, with inner above 1, in one outer */
    bool stream;
    softmax_row_fn row;
    softmax_columns_fn columns;
} softmax_job;

static void softmax_rows(void *arg, int64_t from, int64_t to) {
    const softmax_job *j = arg;
    _Alignas(64) real buffer[GRI_STREAM_ROW];
    for (int64_t r = from; r < to; r++) {
        real *y = j->y + r * j->n;
        j->row(j->n, j->a + r * j->n, j->b + r * j->n, j->stream ? buffer : y);
        if (j->stream) gri_stream(y, buffer, j->n);
    }
    if (j->stream) gri_stream_end();
}

static void softmax_short_rows(void *arg, int64_t from, int64_t to) {
    const softmax_job *j = arg;
    gri_turned a, b, y;
    for (int64_t g = from; g < to; g++) {
        int64_t first = g * GRI_COLUMNS, w = j->rows - first < GRI_COLUMNS ? j->rows - first : GRI_COLUMNS;
        gri_turn(j->n, w, j->a + first * j->n, &a);
        if (j->b != j->a) gri_turn(j->n, w, j->b + first * j->n, &b);
        j->columns(j->n, GRI_COLUMNS, w, a.v, j->b == j->a ? a.v : b.v, y.v);
        gri_turn_back(j->n, w, &y, j->y + first * j->n);
    }
}

static void softmax_strided_rows(void *arg, int64_t from, int64_t to) {
    const softmax_job *j = arg;
    for (int64_t g = from; g < to; g++) {
        int64_t column = g % j->groups * GRI_COLUMNS, w = j->inner - column;
        int64_t at = g / j->groups * j->n * j->inner + column;
        j->columns(j->n, j->inner, w < GRI_COLUMNS ? w : GRI_COLUMNS, j->a + at, j->b + at, j->y + at);
    }
}

static gr_status softmax_run(gri_call *c, softmax_row_fn row, softmax_columns_fn columns) {
    const gr_tensor *a = c->in[0], *b = c->in[c->n_in - 1];
    int dim = 0, rank = a->rank;
    if (a->numel == 0) return GR_OK;
    if (rank > 0) GR_TRY(gri_dim(c->ctx, ((const softmax_attrs *)c->attrs)->dim, rank, &dim));
    softmax_job j = {.a = (const real *)(const void *)a->data, .b = (const real *)(const void *)b->data,
                     .y = (real *)(void *)c->out[0]->data, .row = row, .columns = columns};
    j.n = rank > 0 ? a->dims[dim] : 1;
    j.inner = rank > 0 ? gri_product(rank - dim - 1, a->dims + dim + 1) : 1;
    j.rows = a->numel / j.n;
    j.groups = ((j.inner > 1 ? j.inner : j.rows) + GRI_COLUMNS - 1) / GRI_COLUMNS;
    if (j.inner > 1) {
        int64_t width = j.inner < GRI_COLUMNS ? j.inner : GRI_COLUMNS;
        gri_rows(c->ctx, j.rows / j.inner * j.groups, j.n * width, softmax_strided_rows, &j);
    } else if (j.n <= GRI_SHORT) {
        gri_rows(c->ctx, j.groups, (j.n + 10) * GRI_COLUMNS, softmax_short_rows, &j);
    } else {
        j.stream = gri_streams(c->out[0], j.n);
        gri_rows(c->ctx, j.rows, j.n + 40, softmax_rows, &j);
    }
    return gri_poll(c->ctx);
}

static gr_status softmax_shape(gri_call *c) {
    int dim;
    for (int i = 0; i < c->n_in; i++) GR_TRY(gri_want_float(c, i));
    if (c->in[0]->rank > 0) GR_TRY(gri_dim(c->ctx, ((const softmax_attrs *)c->attrs)->dim, c->in[0]->rank, &dim));
    if (!gri_same_dims(c->in[0]->rank, c->in[0]->dims, c->in[c->n_in - 1]->rank, c->in[c->n_in - 1]->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s, but y is %s", gri_tensor_text(c->in[0]),
                       gri_tensor_text(c->in[1]));
    c->spec[0] = gri_spec_of(c->in[0]);
    return GR_OK;
}

static const gr_attr softmax_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(softmax_attrs, dim), .value = -1}, GR_ATTR_END};

/* ---- softmax ---- */

static void softmax_row(int64_t n, const real *x, const real *unused, real *y) {
    (void)unused;
    gri_row_softmax(n, x, 1, y);
}

static void softmax_columns(int64_t n, int64_t stride, int64_t w, const real *x, const real *unused, real *y) {
    (void)unused;
    gri_columns_softmax(n, stride, w, x, NULL, y);
}

static gr_status softmax_kernel(gri_call *c) { return softmax_run(c, softmax_row, softmax_columns); }
static gr_status softmax_forward(gri_call *c) { return gri_dense(c, softmax_kernel); }
GR_KERNEL(softmax);

static gr_status softmax_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_softmax_backward, 2, GRI_TENSORS(g->dy[0], g->out[0]), g->attrs);
}

static const gr_case softmax_cases[] = {
    {.in = "3", .give = "{0, 1, 2}", .want = "{0.0900305732, 0.244728471, 0.665240956}"},
    {.in = "2,2", .attrs = "dim=1", .give = "{{1000,-1000},{1000,1000}}", .want = "{{0.5,0},{0.5,1}}"},
    {.in = "2", .give = "{-1/0,-1/0}", .want = "{0/0,0/0}", .no_grad = true},
    {.in = "3,5"},
    {.in = "4,20", .lo = -3, .hi = 3},
    {.in = "2,5,3", .attrs = "dim=2"},
    {.in = "()"},
    {0}};

GR_OP(softmax) = {
    .info = {.name = "softmax", .inputs = "x", .attrs = softmax_schema, .attr_size = sizeof(softmax_attrs),
             .cases = softmax_cases, .doc = "exp(x) / sum of exp(x) along dim (the last if none is given)."},
    .keeps = GRI_KEEP_OUT(0),
    .sets_only = true,
    .shape = softmax_shape,
    .forward = softmax_kernels,
    .backward = softmax_rule,
};

/* ---- softmax_backward ---- */

static void softmax_backward_row(int64_t n, const real *dy, const real *y, real *dx) {
    double dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < n; i++) dot += (double)dy[i] * y[i];
    real d = (real)dot;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - d);
}

static void softmax_backward_columns(int64_t n, int64_t stride, int64_t w, const real *dy, const real *y, real *dx) {
    double dot[GRI_COLUMNS] = {0};
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t k = 0; k < w; k++) dot[k] += (double)dy[i * stride + k] * y[i * stride + k];
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t k = 0; k < w; k++) dx[i * stride + k] = y[i * stride + k] * (dy[i * stride + k] - (real)dot[k]);
}

static gr_status softmax_backward_kernel(gri_call *c) {
    return softmax_run(c, softmax_backward_row, softmax_backward_columns);
}
static gr_status softmax_backward_forward(gri_call *c) { return gri_dense(c, softmax_backward_kernel); }
GR_KERNEL(softmax_backward);

/* Σ x along the call's dim, kept. */
static gr_status softmax_sum(gri_call *c, gr_tensor *x, gr_tensor **out) {
    gri_reduce_attrs a = {.dim = {.n = x->rank > 0, .v = {((const softmax_attrs *)c->attrs)->dim}}, .keepdim = true};
    return gr_apply(c->ctx, &gri_op_sum, 1, &x, &a, out);
}

static gr_status softmax_backward_compose(gri_call *c) {
    gr_tensor *dy = c->in[0], *y = c->in[1], *t = NULL, *s = NULL, *u = NULL;
    gr_status st = GRI_APPLY(c->ctx, &t, mul, dy, y);
    if (st == GR_OK) st = softmax_sum(c, t, &s);
    if (st == GR_OK) st = GRI_APPLY(c->ctx, &u, sub, dy, s);
    if (st == GR_OK) st = GRI_APPLY(c->ctx, &c->out[0], mul, y, u);
    gr_release(t), gr_release(s), gr_release(u);
    return st;
}

static const gr_case softmax_backward_cases[] = {
    {.in = "2 2", .give = "{1,3}, {0.25,0.75}", .want = "{-0.375,0.375}"},
    {.in = "3,5 3,5"},
    {.in = "2,5,3 2,5,3", .attrs = "dim=2"},
    {0}};

GR_OP(softmax_backward) = {
    .info = {.name = "softmax_backward", .inputs = "dy y", .attrs = softmax_schema,
             .attr_size = sizeof(softmax_attrs),
             .hidden = true, .cases = softmax_backward_cases, .doc = "y (dy - sum of dy y along dim)"},
    .sets_only = true,
    .shape = softmax_shape,
    .forward = softmax_backward_kernels,
    .compose = softmax_backward_compose,
};

/* ---- log_softmax ---- */

static void log_softmax_row(int64_t n, const real *x, const real *unused, real *y) {
    real m, log_sum = (real)log(gri_row_exp(n, x, NULL, &m));
    (void)unused;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - m) - log_sum;
}

static void log_softmax_columns(int64_t n, int64_t stride, int64_t w, const real *x, const real *unused, real *y) {
    _Alignas(64) real max[GRI_COLUMNS], log_sum[GRI_COLUMNS];
    double sum[GRI_COLUMNS];
    (void)unused;
    gri_columns_exp(n, stride, w, x, NULL, max, sum);
    for (int64_t k = 0; k < w; k++) log_sum[k] = (real)log(sum[k]);
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t k = 0; k < w; k++) y[i * stride + k] = (x[i * stride + k] - max[k]) - log_sum[k];
}

static gr_status log_softmax_kernel(gri_call *c) { return softmax_run(c, log_softmax_row, log_softmax_columns); }
static gr_status log_softmax_forward(gri_call *c) { return gri_dense(c, log_softmax_kernel); }
GR_KERNEL(log_softmax);

static gr_status log_softmax_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_log_softmax_backward, 2, GRI_TENSORS(g->dy[0], g->out[0]), g->attrs);
}

static const gr_case log_softmax_cases[] = {
    {.in = "3", .give = "{0, 1, 2}", .want = "{-2.40760596, -1.40760596, -0.407605964}"},
    {.in = "2,2", .attrs = "dim=1", .give = "{{1000,-1000},{1000,1000}}",
     .want = "{{-0.693147181,-2000},{-0.693147181,0}}"},
    {.in = "2", .give = "{-1/0,-1/0}", .want = "{0/0,0/0}", .no_grad = true},
    {.in = "3,5"},
    {.in = "4,20", .lo = -3, .hi = 3},
    {.in = "2,5,3", .attrs = "dim=2"},
    {0}};

GR_OP(log_softmax) = {
    .info = {.name = "log_softmax", .inputs = "x", .attrs = softmax_schema, .attr_size = sizeof(softmax_attrs),
             .cases = log_softmax_cases,
             .doc = "log(softmax(x)) along dim (the last if none is given), without the rounding of either."},
    .keeps = GRI_KEEP_OUT(0),
    .sets_only = true,
    .shape = softmax_shape,
    .forward = log_softmax_kernels,
    .backward = log_softmax_rule,
};

/* ---- log_softmax_backward ---- */

static void log_softmax_backward_row(int64_t n, const real *dy, const real *y, real *dx) {
    int64_t whole = GRI_RUN(n);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += dy[i];
    real s = (real)sum;
#pragma omp simd
    for (int64_t i = 0; i < whole; i++) dx[i] = dy[i] - r_exp(y[i]) * s;
    if (whole == n) return;
    gri_lanes e = gri_row_end(n - whole, y + whole, 0);
    for (int64_t i = whole; i < n; i++) dx[i] = dy[i] - e.v[i - whole] * s;
}

static void log_softmax_backward_columns(int64_t n, int64_t stride, int64_t w, const real *dy, const real *y,
                                         real *dx) {
    _Alignas(64) real e[GRI_COLUMNS] = {0}, none[GRI_COLUMNS] = {0};
    double s[GRI_COLUMNS] = {0};
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t k = 0; k < w; k++) s[k] += dy[i * stride + k];
    for (int64_t i = 0; i < n; i++) {
        gri_column_step(w, y + i * stride, none, e);
#pragma omp simd
        for (int64_t k = 0; k < w; k++) dx[i * stride + k] = dy[i * stride + k] - e[k] * (real)s[k];
    }
}

static gr_status log_softmax_backward_kernel(gri_call *c) {
    return softmax_run(c, log_softmax_backward_row, log_softmax_backward_columns);
}
static gr_status log_softmax_backward_forward(gri_call *c) { return gri_dense(c, log_softmax_backward_kernel); }
GR_KERNEL(log_softmax_backward);

static gr_status log_softmax_backward_compose(gri_call *c) {
    gr_tensor *dy = c->in[0], *y = c->in[1], *s = NULL, *e = NULL, *t = NULL;
    gr_status st = softmax_sum(c, dy, &s);
    if (st == GR_OK) st = GRI_APPLY(c->ctx, &e, exp, y);
    if (st == GR_OK) st = GRI_APPLY(c->ctx, &t, mul, e, s);
    if (st == GR_OK) st = GRI_APPLY(c->ctx, &c->out[0], sub, dy, t);
    gr_release(s), gr_release(e), gr_release(t);
    return st;
}

static const gr_case log_softmax_backward_cases[] = {
    {.in = "2 2", .give = "{1,3}, {-0.693147181,-0.693147181}", .want = "{-1,1}"},
    {.in = "3,5 3,5"},
    {.in = "2,5,3 2,5,3", .attrs = "dim=2"},
    {0}};

GR_OP(log_softmax_backward) = {
    .info = {.name = "log_softmax_backward", .inputs = "dy y", .attrs = softmax_schema,
             .attr_size = sizeof(softmax_attrs),
             .hidden = true, .cases = log_softmax_backward_cases, .doc = "dy - exp(y) * sum of dy along dim"},
    .sets_only = true,
    .shape = softmax_shape,
    .forward = log_softmax_backward_kernels,
    .compose = log_softmax_backward_compose,
};
