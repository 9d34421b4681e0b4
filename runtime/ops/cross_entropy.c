/* Softmax and negative log-likelihood in one: for x[n,c] or x[n,c,d1,...] and classes t[n] or t[n,d1,...],
 *     loss = log Σ_j exp(x_j - m) - (x_t - m),  m = max x, along dim 2;  their mean, their sum, or all of them.
 *
 * dx_j = g (softmax(x)_j - [j = t]), where g is dy, over the number of rows for the mean. Inputs are kept:
 * the exponentials are made again, which costs less than to write and read them. cross_entropy_backward(dy, x, t)
 * is an op of its own, whose derivative runs through its `compose`.
 *
 * The kernels see [rows, c]: where there are further dims, x goes through a copy with the classes last. Losses
 * are added up in double, row after row. */
#include "copy.h"
#include "rows.h"
#include "softmax.h"

typedef enum cross_entropy_words { CROSS_ENTROPY_MEAN, CROSS_ENTROPY_SUM, CROSS_ENTROPY_NONE } cross_entropy_words;
typedef struct cross_entropy_attrs { int64_t reduction; } cross_entropy_attrs;

typedef struct cross_entropy_job {
    int64_t rows, classes, base;
    const real *x;
    const int64_t *target;
    double *loss;   /* forward: one for each row */
    const real *dy; /* backward: one for each row, or, with step 0, one for all */
    int64_t step;
    double scale;
    real *dx;
} cross_entropy_job;

static inline int cross_entropy_dim(const gr_tensor *x) { return x->rank > 1; }

/* Checks x and target, inputs x_at and x_at + 1; *rows = the target's shape, with x's dtype. */
static gr_status cross_entropy_check(gri_call *c, int x_at, gri_spec *rows) {
    const gr_tensor *x = c->in[x_at], *t = c->in[x_at + 1];
    int dim = cross_entropy_dim(x);
    for (int i = 0; i <= x_at; i++) GR_TRY(gri_want_float(c, i));
    if (t->dtype != GR_I64 && t->dtype != GR_U8)
        return gr_fail(c->ctx, GR_ERR_DTYPE,
                       "target is %s, expected class numbers as i64 or u8; convert it with :to(\"i64\")",
                       gri_tensor_text(t));
    *rows = gri_spec_of(x);
    if (x->rank == 0) return gr_fail(c->ctx, GR_ERR_SHAPE, "x is %s, expected [n,classes]", gri_tensor_text(x));
    rows->rank--;
    for (int d = dim; d < rows->rank; d++) rows->dims[d] = rows->dims[d + 1];
    if (!gri_same_dims(t->rank, t->dims, rows->rank, rows->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "x is %s, so target must be %s, one class for each row, but it is %s",
                       gri_tensor_text(x), gri_dims_text(rows->rank, rows->dims), gri_tensor_text(t));
    return GR_OK;
}

static gr_status cross_entropy_bad_class(const cross_entropy_job *j, const gr_tensor *t, int64_t flat) {
    gr_ctx *ctx = t->head.ctx;
    int64_t at[GR_MAX_RANK], v = j->target[flat];
    bool zero = v == 0 && j->base == 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        at[d] = flat % t->dims[d] + ctx->index_base;
        flat /= t->dims[d];
    }
    return gr_fail(ctx, GR_ERR_INDEX, "target at %s is %lld, expected a class from %lld to %lld%s",
                   gri_dims_text(t->rank, at), (long long)v, (long long)j->base,
                   (long long)(j->base + j->classes - 1),
                   zero ? ": class targets count from 1 here, 0-based labels need + 1" : "");
}

/* *out (+1) = the target as contiguous i64, every class in range. */
static gr_status cross_entropy_target(cross_entropy_job *j, gr_tensor *t, gr_tensor **out) {
    gri_spec spec = gri_spec_of(t);
    spec.dtype = GR_I64;
    if (t->dtype == GR_I64 && t->contiguous) {
        *out = gr_retain(t);
    } else {
        GR_TRY(gri_tensor_like_spec(t->head.ctx, &spec, out));
        GR_TRY(gri_copy(t->head.ctx, *out, t, GRI_SET));
    }
    j->target = (const int64_t *)(const void *)(*out)->data;
    for (int64_t i = 0; i < j->rows; i++)
        if (j->target[i] < j->base || j->target[i] >= j->base + j->classes) return cross_entropy_bad_class(j, t, i);
    return GR_OK;
}

/* t (+1) with the class dim last. */
static gr_status cross_entropy_turn(const gr_tensor *t, gr_tensor **out) {
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    int dim = cross_entropy_dim(t), k = 0;
    for (int d = 0; d < t->rank; d++) {
        if (d == dim) continue;
        dims[k] = t->dims[d];
        strides[k++] = t->strides[d];
    }
    dims[k] = t->dims[dim];
    strides[k] = t->strides[dim];
    return gri_tensor_view(t, t->rank, dims, strides, 0, out);
}

/* The job without its target: *x (+1) holds the rows. */
static gr_status cross_entropy_begin(gri_call *c, gr_tensor *in, cross_entropy_job *j, gr_tensor **x) {
    gr_tensor *turned;
    GR_TRY(cross_entropy_turn(in, &turned));
    gr_status s = gri_tensor_dense(turned, x);
    gr_release(turned);
    GR_TRY(s);
    j->classes = in->dims[cross_entropy_dim(in)];
    j->rows = gri_product((*x)->rank - 1, (*x)->dims);
    j->base = c->ctx->index_base;
    j->x = (const real *)(const void *)(*x)->data;
    return GR_OK;
}

/* fn over all rows, or over groups of GRI_COLUMNS short ones. */
static void cross_entropy_run(gr_ctx *ctx, cross_entropy_job *j, gri_rows_fn rows, gri_rows_fn short_rows) {
    int64_t groups = (j->rows + GRI_COLUMNS - 1) / GRI_COLUMNS;
    if (j->classes <= GRI_SHORT) gri_rows(ctx, groups, (j->classes + 20) * GRI_COLUMNS, short_rows, j);
    else gri_rows(ctx, j->rows, j->classes + 50, rows, j);
}

/* Row k of a group: *x = its logits; returns how many rows the group has. */
static inline int64_t cross_entropy_group(const cross_entropy_job *j, int64_t group, const real **x) {
    int64_t first = group * GRI_COLUMNS, rest = j->rows - first;
    *x = j->x + first * j->classes;
    return rest < GRI_COLUMNS ? rest : GRI_COLUMNS;
}

/* ---- forward ---- */

static gr_status cross_entropy_shape(gri_call *c) {
    gri_spec *s = &c->spec[0];
    GR_TRY(cross_entropy_check(c, 0, s));
    if (((const cross_entropy_attrs *)c->attrs)->reduction != CROSS_ENTROPY_NONE) s->rank = 0;
    return GR_OK;
}

static inline void cross_entropy_row(cross_entropy_job *j, int64_t r, double sum, real max) {
    const real *x = j->x + r * j->classes;
    j->loss[r] = log(sum) - ((double)x[j->target[r] - j->base] - max);
}

static void cross_entropy_rows(void *arg, int64_t from, int64_t to) {
    cross_entropy_job *j = arg;
    for (int64_t r = from; r < to; r++) {
        real max;
        double sum = gri_row_exp(j->classes, j->x + r * j->classes, NULL, &max);
        cross_entropy_row(j, r, sum, max);
    }
}

static void cross_entropy_short_rows(void *arg, int64_t from, int64_t to) {
    cross_entropy_job *j = arg;
    for (int64_t g = from; g < to; g++) {
        gri_turned t;
        _Alignas(64) real max[GRI_COLUMNS];
        double sum[GRI_COLUMNS];
        const real *x;
        int64_t w = cross_entropy_group(j, g, &x);
        gri_turn(j->classes, w, x, &t);
        gri_columns_exp(j->classes, GRI_COLUMNS, w, t.v, NULL, max, sum);
        for (int64_t k = 0; k < w; k++) cross_entropy_row(j, g * GRI_COLUMNS + k, sum[k], max[k]);
    }
}

static void cross_entropy_deliver(gri_call *c, cross_entropy_job *j, int64_t reduction) {
    gr_tensor *y = c->out[0];
    gri_strided out = {.data = y->data, .dtype = (gr_dtype)y->dtype, .rank = y->rank};
    int64_t size = (int64_t)gr_dtype_size(out.dtype);
    for (int d = 0; d < y->rank; d++) {
        out.dims[d] = y->dims[d];
        out.strides[d] = y->strides[d] * size;
    }
    if (y->rank == 0) out.dims[out.rank++] = 1;
    if (reduction == CROSS_ENTROPY_NONE) {
        if (j->rows > 0) gri_scatter(&out, 0, j->rows, GR_F64, j->loss, c->mode);
        return;
    }
    double sum = 0;
    for (int64_t r = 0; r < j->rows; r++) sum += j->loss[r];
    if (reduction == CROSS_ENTROPY_MEAN) sum /= (double)j->rows;
    gri_scatter(&out, 0, 1, GR_F64, &sum, c->mode);
}

static gr_status cross_entropy_forward(gri_call *c) {
    cross_entropy_job j = {0};
    gr_tensor *x = NULL, *target = NULL;
    size_t capacity = 0;
    gr_status s = cross_entropy_begin(c, c->in[0], &j, &x);
    if (s == GR_OK) s = cross_entropy_target(&j, c->in[1], &target);
    if (s != GR_OK) goto done;
    j.loss = gri_block_new(c->ctx, (size_t)j.rows * sizeof *j.loss + 1, &capacity);
    if (!j.loss) {
        s = gr_fail(c->ctx, GR_ERR_MEMORY, "no memory for the losses of %lld rows", (long long)j.rows);
        goto done;
    }
    cross_entropy_run(c->ctx, &j, cross_entropy_rows, cross_entropy_short_rows);
    cross_entropy_deliver(c, &j, ((const cross_entropy_attrs *)c->attrs)->reduction);
    gri_block_delete(c->ctx, j.loss, capacity);
    s = gri_poll(c->ctx);
done:
    gr_release(x);
    gr_release(target);
    return s;
}
GR_KERNEL(cross_entropy);

static gr_status cross_entropy_backward_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_cross_entropy_backward, 3, GRI_TENSORS(g->dy[0], g->in[0], g->in[1]), g->attrs);
}

static const gr_attr cross_entropy_schema[] = {
    {"reduction", GR_ATTR_WORD, offsetof(cross_entropy_attrs, reduction), .words = "mean sum none"}, GR_ATTR_END};

static const gr_case cross_entropy_cases[] = {
    {.in = "2,3 i64:2", .give = "{{0,1,2},{1,1,1}}, {3,1}", .want = "0.753109126"},
    {.in = "2,3 i64:2", .attrs = "reduction='sum'", .give = "{{0,1,2},{1,1,1}}, {3,1}", .want = "1.50621825"},
    {.in = "2,3 u8:2", .attrs = "reduction='none'", .give = "{{0,1,2},{1,1,1}}, {3,1}",
     .want = "{0.407605964,1.09861229}"},
    {.in = "1,2 i64:1", .give = "{{1000,-1000}}, {2}", .want = "2000"},
    {.in = "1,2,2 i64:1,2", .attrs = "reduction='none'", .give = "{{{0,1},{0,0}}}, {{1,2}}",
     .want = "{{0.693147181,1.31326169}}"},
    {.in = "3 i64:()", .give = "{0,1,2}, 3", .want = "0.407605964"},
    {.in = "5,7 i64(1..7):5"},
    {.in = "2,4,3,2 i64(1..4):2,3,2", .attrs = "reduction='sum'"},
    {.in = "3,4,5 u8(1..4):3,5", .attrs = "reduction='none'"},
    {0}};

GR_OP(cross_entropy) = {
    .info = {.name = "cross_entropy", .inputs = "x target", .attrs = cross_entropy_schema,
             .attr_size = sizeof(cross_entropy_attrs), .cases = cross_entropy_cases,
             .doc = "Loss of classification: -log softmax(x) at the target class, for x [n,classes,...] and\n"
                    "target [n,...] (i64 or u8, counted from 1). reduction: \"mean\", \"sum\" or \"none\"."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = cross_entropy_shape,
    .forward = cross_entropy_kernels,
    .backward = cross_entropy_backward_rule,
};

/* ---- its derivative as an op ---- */

static gr_status cross_entropy_backward_shape(gri_call *c) {
    gri_spec rows;
    const gr_tensor *dy = c->in[0];
    GR_TRY(cross_entropy_check(c, 1, &rows));
    if (((const cross_entropy_attrs *)c->attrs)->reduction != CROSS_ENTROPY_NONE) rows.rank = 0;
    if (!gri_same_dims(dy->rank, dy->dims, rows.rank, rows.dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s, expected %s", gri_tensor_text(dy),
                       gri_dims_text(rows.rank, rows.dims));
    c->spec[0] = gri_spec_of(c->in[1]);
    return GR_OK;
}

/* Row r's g. */
static inline double cross_entropy_seed_of(const cross_entropy_job *j, int64_t r) {
    return j->dy[r * j->step] * j->scale;
}

static void cross_entropy_backward_rows(void *arg, int64_t from, int64_t to) {
    cross_entropy_job *j = arg;
    for (int64_t r = from; r < to; r++) {
        real *dx = j->dx + r * j->classes, max;
        double g = cross_entropy_seed_of(j, r), sum = gri_row_exp(j->classes, j->x + r * j->classes, dx, &max);
        real scale = (real)(g / sum);
#pragma omp simd
        for (int64_t i = 0; i < j->classes; i++) dx[i] *= scale;
        dx[j->target[r] - j->base] -= (real)g;
    }
}

static void cross_entropy_backward_short_rows(void *arg, int64_t from, int64_t to) {
    cross_entropy_job *j = arg;
    for (int64_t group = from; group < to; group++) {
        gri_turned t;
        _Alignas(64) real scale[GRI_COLUMNS];
        double sum[GRI_COLUMNS];
        const real *x;
        int64_t w = cross_entropy_group(j, group, &x), first = group * GRI_COLUMNS;
        gri_turn(j->classes, w, x, &t);
        gri_columns_exp(j->classes, GRI_COLUMNS, w, t.v, t.v, scale, sum);
        for (int64_t k = 0; k < w; k++) scale[k] = (real)(cross_entropy_seed_of(j, first + k) / sum[k]);
        for (int64_t i = 0; i < j->classes; i++)
#pragma omp simd
            for (int64_t k = 0; k < w; k++) t.v[i * GRI_COLUMNS + k] *= scale[k];
        gri_turn_back(j->classes, w, &t, j->dx + first * j->classes);
        for (int64_t r = first; r < first + w; r++)
            j->dx[r * j->classes + j->target[r] - j->base] -= (real)cross_entropy_seed_of(j, r);
    }
}

/* Row-major operands. dx is written with the classes last, then turned where they are not. */
static gr_status cross_entropy_backward_kernel(gri_call *c) {
    cross_entropy_job j = {0};
    gr_tensor *dy = c->in[0], *x = NULL, *target = NULL, *turned = NULL, *dx = NULL;
    int64_t reduction = ((const cross_entropy_attrs *)c->attrs)->reduction;
    gr_status s = cross_entropy_begin(c, c->in[1], &j, &x);
    if (s == GR_OK) s = cross_entropy_target(&j, c->in[2], &target);
    if (s == GR_OK) s = cross_entropy_turn(c->out[0], &turned);
    if (s != GR_OK) goto done;
    gri_spec spec = gri_spec_of(turned);
    if (turned->contiguous) dx = gr_retain(turned);
    else s = gri_tensor_like_spec(c->ctx, &spec, &dx);
    if (s != GR_OK) goto done;
    j.dy = (const real *)(const void *)dy->data;
    j.step = reduction == CROSS_ENTROPY_NONE;
    j.scale = reduction == CROSS_ENTROPY_MEAN ? 1 / (double)j.rows : 1;
    j.dx = (real *)(void *)dx->data;
    cross_entropy_run(c->ctx, &j, cross_entropy_backward_rows, cross_entropy_backward_short_rows);
    s = dx->data == turned->data ? gri_poll(c->ctx) : gri_copy(c->ctx, turned, dx, GRI_SET);
done:
    gr_release(x), gr_release(target), gr_release(turned), gr_release(dx);
    return s;
}

static gr_status cross_entropy_backward_forward(gri_call *c) { return gri_dense(c, cross_entropy_backward_kernel); }
GR_KERNEL(cross_entropy_backward);

/* *out = 1 where a class is the row's target, else 0; shaped and typed as x. */
static gr_status cross_entropy_one_hot(gri_call *c, gr_tensor **out) {
    gr_tensor *x = c->in[1], *t = c->in[2], *classes = NULL, *column = NULL, *equal = NULL;
    int dim = cross_entropy_dim(x), tail = x->rank - dim;
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK], n = x->dims[dim];
    for (int d = 0; d < x->rank; d++) {
        dims[d] = d == dim ? 1 : x->dims[d];
        strides[d] = d == dim ? 0 : t->strides[d < dim ? d : d - 1];
    }
    gr_status s = gri_tensor_view(t, x->rank, dims, strides, 0, &column);
    for (int d = 0; d < tail; d++) dims[d] = d == 0 ? n : 1;
    if (s == GR_OK) s = gr_tensor_new(c->ctx, GR_I64, tail, dims, &classes);
    for (int64_t i = 0; s == GR_OK && i < n; i++) ((int64_t *)(void *)classes->data)[i] = i + c->ctx->index_base;
    if (s == GR_OK) s = GRI_APPLY(c->ctx, &equal, eq, column, classes);
    if (s == GR_OK) s = gr_apply(c->ctx, &gri_op_to, 1, &equal, &(gri_dtype_attrs){x->dtype}, out);
    gr_release(classes), gr_release(column), gr_release(equal);
    return s;
}

/* *out = dy as it multiplies x. */
static gr_status cross_entropy_seed(gri_call *c, gr_tensor **out) {
    gr_tensor *dy = c->in[0], *x = c->in[1], *n = NULL;
    int64_t reduction = ((const cross_entropy_attrs *)c->attrs)->reduction;
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    if (reduction == CROSS_ENTROPY_NONE) {
        for (int d = 0; d < x->rank; d++) a.shape.v[d] = d == cross_entropy_dim(x) ? 1 : x->dims[d];
        return gr_apply(c->ctx, &gri_op_reshape, 1, &dy, &a, out);
    }
    double rows = (double)x->numel / (double)x->dims[cross_entropy_dim(x)];
    GR_TRY(gr_tensor_scalar(c->ctx, (gr_dtype)x->dtype, reduction == CROSS_ENTROPY_MEAN ? rows : 1, &n));
    gr_status s = GRI_APPLY(c->ctx, out, div, dy, n);
    gr_release(n);
    return s;
}

static gr_status cross_entropy_backward_compose(gri_call *c) {
    gr_tensor *x = c->in[1], *p = NULL, *hot = NULL, *diff = NULL, *seed = NULL;
    int64_t dim = cross_entropy_dim(x);
    GR_TRY(cross_entropy_backward_shape(c));
    gr_status s = gr_apply(c->ctx, &gri_op_softmax, 1, &x, &dim, &p);
    if (s == GR_OK) s = cross_entropy_one_hot(c, &hot);
    if (s == GR_OK) s = GRI_APPLY(c->ctx, &diff, sub, p, hot);
    if (s == GR_OK) s = cross_entropy_seed(c, &seed);
    if (s == GR_OK) s = GRI_APPLY(c->ctx, &c->out[0], mul, diff, seed);
    gr_release(p), gr_release(hot), gr_release(diff), gr_release(seed);
    return s;
}

static const gr_case cross_entropy_backward_cases[] = {
    {.in = "() 1,2 i64:1", .give = "2, {{0,0}}, {2}", .want = "{{1,-1}}"},
    {.in = "() 2,2 i64:2", .give = "2, {{0,0},{0,0}}, {2,1}", .want = "{{0.5,-0.5},{-0.5,0.5}}"},
    {.in = "1,2 1,2,2 i64:1,2", .attrs = "reduction='none'", .give = "{{2,4}}, {{{0,0},{0,0}}}, {{2,1}}",
     .want = "{{{1,-2},{-1,2}}}"},
    {.in = "() 5,7 i64(1..7):5"},
    {.in = "3,5 3,4,5 u8(1..4):3,5", .attrs = "reduction='none'"},
    {0}};

GR_OP(cross_entropy_backward) = {
    .info = {.name = "cross_entropy_backward", .inputs = "dy x target", .attrs = cross_entropy_schema,
             .attr_size = sizeof(cross_entropy_attrs), .hidden = true, .cases = cross_entropy_backward_cases,
             .doc = "dy (softmax(x) - [class = target])"},
    .sets_only = true,
    .shape = cross_entropy_backward_shape,
    .forward = cross_entropy_backward_kernels,
    .compose = cross_entropy_backward_compose,
};
