#include "classes.h"

#include "copy.h"
#include "reduce.h"

/* ---- what fits ------------------------------------------------------------------------------------------ */

/* *rows = the target's shape, with x's dtype. */
static gr_status classes_check(gri_call *c, int x_at, gri_spec *rows) {
    const gr_tensor *x = c->in[x_at], *t = c->in[x_at + 1], *weight = gri_class_weight(c, x_at);
    int dim = gri_class_dim(x);
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
    if (!weight) return GR_OK;
    GR_TRY(gri_want_float(c, x_at + 2));
    if (weight->rank != 1 || weight->dims[0] != x->dims[dim])
        return gr_fail(c->ctx, GR_ERR_SHAPE, "weight is %s, expected [%lld], one for each class",
                       gri_tensor_text(weight), (long long)x->dims[dim]);
    return GR_OK;
}

gr_status gri_class_shape(gri_call *c) {
    gri_spec *s = &c->spec[0];
    GR_TRY(classes_check(c, 0, s));
    if (((const gri_class_attrs *)c->attrs)->reduction != GRI_CLASS_NONE) s->rank = 0;
    return GR_OK;
}

gr_status gri_class_backward_shape(gri_call *c) {
    gri_spec rows;
    const gr_tensor *dy = c->in[0];
    GR_TRY(classes_check(c, 1, &rows));
    if (((const gri_class_attrs *)c->attrs)->reduction != GRI_CLASS_NONE) rows.rank = 0;
    if (!gri_same_dims(dy->rank, dy->dims, rows.rank, rows.dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s, expected %s", gri_tensor_text(dy),
                       gri_dims_text(rows.rank, rows.dims));
    c->spec[0] = gri_spec_of(c->in[1]);
    return GR_OK;
}

static gr_status classes_fail(const gr_tensor *t, int64_t flat, int64_t v, int64_t classes) {
    gr_ctx *ctx = t->head.ctx;
    int64_t at[GR_MAX_RANK], base = ctx->index_base;
    for (int d = t->rank - 1; d >= 0; d--) {
        at[d] = flat % t->dims[d] + base;
        flat /= t->dims[d];
    }
    return gr_fail(ctx, GR_ERR_INDEX, "target at %s is %lld, expected a class from %lld to %lld%s",
                   gri_dims_text(t->rank, at), (long long)v, (long long)base, (long long)(base + classes - 1),
                   v == 0 && base == 1 ? ": class targets count from 1 here, 0-based labels need + 1" : "");
}

gr_status gri_class_target(const gri_call *c, int x_at, gr_tensor **out, int64_t *counted) {
    const gr_tensor *x = c->in[x_at];
    gr_tensor *t = c->in[x_at + 1], *whole;
    int64_t ignored = ((const gri_class_attrs *)c->attrs)->ignore_index, classes = x->dims[gri_class_dim(x)];
    uint64_t base = (uint64_t)c->ctx->index_base;
    gri_spec spec = gri_spec_of(t);
    spec.dtype = GR_I64;
    if (t->dtype == GR_I64 && t->contiguous) {
        whole = gr_retain(t);
    } else {
        GR_TRY(gri_tensor_like_spec(c->ctx, &spec, &whole));
        gr_status s = gri_copy(c->ctx, whole, t, GRI_SET);
        if (s != GR_OK) {
            gr_release(whole);
            return s;
        }
    }
    const int64_t *v = (const int64_t *)(const void *)whole->data;
    *counted = 0;
    for (int64_t i = 0; i < whole->numel; i++) {
        bool class = (uint64_t)v[i] - base < (uint64_t)classes;
        if (!class && v[i] != ignored) {
            gr_status s = classes_fail(t, i, v[i], classes);
            gr_release(whole);
            return s;
        }
        *counted += v[i] != ignored;
    }
    *out = whole;
    return GR_OK;
}

void gri_class_deliver(gri_call *c, const double *loss, int64_t rows, double weights) {
    gr_tensor *y = c->out[0];
    int64_t reduction = ((const gri_class_attrs *)c->attrs)->reduction;
    gri_strided out = gri_strided_of(y);
    if (reduction == GRI_CLASS_NONE) {
        if (rows > 0) gri_scatter(&out, 0, rows, GR_F64, loss, c->mode);
        return;
    }
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) sum += loss[r];
    if (reduction == GRI_CLASS_MEAN) sum /= weights;
    gri_scatter(&out, 0, 1, GR_F64, &sum, c->mode);
}

/* ---- in ops that record their own derivatives ----------------------------------------------------------- */

typedef struct classes_job {
    gr_ctx *ctx;
    const gri_class_attrs *attrs;
    gr_tensor *dy, *x, *target, *weight;
    bool nothing; /* no row counts */
    bool partly;  /* some rows do not */
} classes_job;

/* hot: 1 where a class is the row's; q: hot, smoothed; w: weight as it multiplies x, or NULL; wq: w q; dw: the result
 * of classes_dweight. The others are on the way. */
typedef struct classes_parts {
    gr_tensor *hot, *q, *w, *wq, *seed;
    gr_tensor *column, *numbers, *equal, *valid, *keep, *smooth, *kept, *shared, *weighted, *total;
    gr_tensor *zero, *counts, *rows, *p, *all, *some, *diff, *most, *dw;
} classes_parts;

typedef union classes_temps {
    classes_parts named;
    gr_tensor *all[sizeof(classes_parts) / sizeof(gr_tensor *)];
} classes_temps;

static void classes_release(classes_temps *v) {
    for (size_t i = 0; i < sizeof v->all / sizeof *v->all; i++) gr_release(v->all[i]);
}

/* Rows of ignored targets stay 0, also where ignore_index is a class. */
static gr_status classes_one_hot(const classes_job *j, classes_parts *v) {
    const gr_tensor *x = j->x, *t = j->target;
    int dim = gri_class_dim(x), tail = x->rank - dim;
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK], n = x->dims[dim], base = j->ctx->index_base;
    for (int d = 0; d < x->rank; d++) {
        dims[d] = d == dim ? 1 : x->dims[d];
        strides[d] = d == dim ? 0 : t->strides[d < dim ? d : d - 1];
    }
    GR_TRY(gri_tensor_view(t, x->rank, dims, strides, 0, &v->column));
    for (int d = 0; d < tail; d++) dims[d] = d == 0 ? n : 1;
    GR_TRY(gr_tensor_new(j->ctx, GR_I64, tail, dims, &v->numbers));
    for (int64_t i = 0; i < n; i++) {
        bool ignored = i + base == j->attrs->ignore_index;
        ((int64_t *)(void *)v->numbers->data)[i] = ignored ? base - 1 : i + base; /* base - 1: equal to none */
    }
    GR_TRY(GRI_APPLY(j->ctx, &v->equal, eq, v->column, v->numbers));
    return gr_apply(j->ctx, &gri_op_to, 1, &v->equal, &(gri_dtype_attrs){x->dtype}, &v->hot);
}

static gr_status classes_smooth(const classes_job *j, classes_parts *v) {
    gr_ctx *ctx = j->ctx;
    gr_dtype t = (gr_dtype)j->x->dtype;
    int dim = gri_class_dim(j->x);
    double smooth = j->attrs->label_smoothing;
    gri_reduce_attrs over = {.dim = {.n = 1, .v = {dim}}, .keepdim = true};
    if (smooth == 0) {
        v->q = gr_retain(v->hot);
        return GR_OK;
    }
    GR_TRY(gr_apply(ctx, &gri_op_sum, 1, &v->hot, &over, &v->valid));
    GR_TRY(gr_tensor_scalar(ctx, t, 1 - smooth, &v->keep));
    GR_TRY(gr_tensor_scalar(ctx, t, smooth / (double)j->x->dims[dim], &v->smooth));
    GR_TRY(GRI_APPLY(ctx, &v->kept, mul, v->hot, v->keep));
    GR_TRY(GRI_APPLY(ctx, &v->shared, mul, v->valid, v->smooth));
    return GRI_APPLY(ctx, &v->q, add, v->kept, v->shared);
}

/* dy as it multiplies the rows of x. */
static gr_status classes_seed(const classes_job *j, classes_parts *v) {
    const gr_tensor *x = j->x;
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    int64_t reduction = j->attrs->reduction;
    if (reduction == GRI_CLASS_NONE) {
        for (int d = 0; d < x->rank; d++) a.shape.v[d] = d == gri_class_dim(x) ? 1 : x->dims[d];
        return gr_apply(j->ctx, &gri_op_reshape, 1, &j->dy, &a, &v->seed);
    }
    if (reduction == GRI_CLASS_SUM || j->nothing) {
        v->seed = gr_retain(j->dy);
        return GR_OK;
    }
    if (v->w) GR_TRY(GRI_APPLY(j->ctx, &v->weighted, mul, v->hot, v->w));
    GR_TRY(GRI_APPLY(j->ctx, &v->total, sum, v->w ? v->weighted : v->hot));
    return GRI_APPLY(j->ctx, &v->seed, div, j->dy, v->total);
}

static gr_status classes_parts_of(const classes_job *j, classes_parts *v) {
    int tail = j->x->rank - gri_class_dim(j->x);
    gri_shape_attrs a = {.shape = {.n = tail}};
    GR_TRY(classes_one_hot(j, v));
    GR_TRY(classes_smooth(j, v));
    if (j->weight) {
        for (int d = 0; d < tail; d++) a.shape.v[d] = d == 0 ? j->weight->dims[0] : 1;
        GR_TRY(gr_apply(j->ctx, &gri_op_reshape, 1, &j->weight, &a, &v->w));
        GR_TRY(GRI_APPLY(j->ctx, &v->wq, mul, v->q, v->w));
    } else {
        v->wq = gr_retain(v->q);
    }
    return classes_seed(j, v);
}

/* rows: x, and 0 in the rows that do not count, whatever is in them: 0 times a NaN there would be NaN. */
static gr_status classes_rows(const classes_job *j, classes_parts *v) {
    gri_reduce_attrs over = {.dim = {.n = 1, .v = {gri_class_dim(j->x)}}, .keepdim = true};
    if (!j->partly) {
        v->rows = gr_retain(j->x);
        return GR_OK;
    }
    if (!v->valid) GR_TRY(gr_apply(j->ctx, &gri_op_sum, 1, &v->hot, &over, &v->valid));
    GR_TRY(gr_tensor_scalar(j->ctx, (gr_dtype)j->x->dtype, 0, &v->zero));
    GR_TRY(GRI_APPLY(j->ctx, &v->counts, ne, v->valid, v->zero));
    return GRI_APPLY(j->ctx, &v->rows, where, v->counts, j->x, v->zero);
}

static gr_status classes_dx(const classes_job *j, bool softmax, classes_parts *v, gr_tensor **dx) {
    gr_ctx *ctx = j->ctx;
    int64_t dim = gri_class_dim(j->x);
    gri_reduce_attrs over = {.dim = {.n = 1, .v = {dim}}, .keepdim = true};
    GR_TRY(classes_parts_of(j, v));
    if (softmax) {
        GR_TRY(classes_rows(j, v));
        GR_TRY(gr_apply(ctx, &gri_op_softmax, 1, &v->rows, &dim, &v->p));
        GR_TRY(gr_apply(ctx, &gri_op_sum, 1, &v->wq, &over, &v->all));
        GR_TRY(GRI_APPLY(ctx, &v->some, mul, v->p, v->all));
        GR_TRY(GRI_APPLY(ctx, &v->diff, sub, v->some, v->wq));
    } else {
        GR_TRY(GRI_APPLY(ctx, &v->diff, neg, v->wq));
    }
    return GRI_APPLY(ctx, dx, mul, v->diff, v->seed);
}

gr_status gri_class_compose(gri_call *c, bool softmax) {
    classes_job j = {.ctx = c->ctx, .attrs = c->attrs, .dy = c->in[0], .x = c->in[1]};
    classes_temps v = {0};
    int64_t counted;
    GR_TRY(gri_class_backward_shape(c));
    GR_TRY(gri_class_target(c, 1, &j.target, &counted));
    j.weight = (gr_tensor *)gri_class_weight(c, 1);
    j.nothing = counted == 0;
    j.partly = counted < j.target->numel;
    gr_status s = classes_dx(&j, softmax, &v.named, &c->out[0]);
    classes_release(&v);
    gr_release(j.target);
    return s;
}

static gr_status classes_dweight(const classes_job *j, gr_tensor *p, gr_tensor *loss, classes_parts *v) {
    gr_ctx *ctx = j->ctx;
    gri_reduce_attrs over = {.dim = {.n = 0}};
    GR_TRY(classes_parts_of(j, v));
    GR_TRY(gr_tensor_scalar(ctx, (gr_dtype)j->x->dtype, 0, &v->zero));
    GR_TRY(GRI_APPLY(ctx, &v->counts, ne, v->q, v->zero));
    GR_TRY(GRI_APPLY(ctx, &v->rows, where, v->counts, p, v->zero)); /* p may be infinite, or NaN if it is ignored */
    GR_TRY(GRI_APPLY(ctx, &v->all, mul, v->rows, v->q));
    if (j->attrs->reduction == GRI_CLASS_MEAN) {
        GR_TRY(GRI_APPLY(ctx, &v->some, mul, v->hot, loss));
        GR_TRY(GRI_APPLY(ctx, &v->diff, sub, v->all, v->some));
    } else {
        v->diff = gr_retain(v->all);
    }
    GR_TRY(GRI_APPLY(ctx, &v->most, mul, v->diff, v->seed));
    for (int d = 0; d < j->x->rank; d++)
        if (d != gri_class_dim(j->x)) over.dim.v[over.dim.n++] = d;
    if (over.dim.n) return gr_apply(ctx, &gri_op_sum, 1, &v->most, &over, &v->dw);
    v->dw = gr_retain(v->most);
    return GR_OK;
}

gr_status gri_class_emit_weight(gri_grad *g, gr_tensor *p) {
    gri_call c = {.ctx = g->ctx, .op = g->op, .attrs = g->attrs, .n_in = g->n_in, .in = g->in};
    classes_job j = {.ctx = g->ctx, .attrs = g->attrs, .dy = g->dy[0], .x = g->in[0], .weight = g->in[2]};
    classes_temps v = {0};
    int64_t counted;
    GR_TRY(gri_class_target(&c, 0, &j.target, &counted));
    j.nothing = counted == 0;
    gr_status s = classes_dweight(&j, p, g->out[0], &v.named);
    if (s == GR_OK) s = gri_emit_same(g, 2, v.named.dw);
    classes_release(&v);
    gr_release(j.target);
    return s;
}
