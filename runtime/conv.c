#include "conv.h"

#include <string.h>

/* Height and width, and what is given for them. */
static void conv_window(const gri_conv2d_attrs *a, int rank, const int64_t *x, const int64_t *w, gri_window *k) {
    for (int i = 0; i < 2; i++) {
        const int d = rank - 2 + i;
        const bool none = rank == 3 && i == 0;
        k->in[i] = none ? 1 : x[d];
        k->kernel[i] = none ? 1 : w[d];
        k->stride[i] = none ? 1 : a->stride[i];
        k->padding[i] = none ? 0 : a->padding[i];
        k->dilation[i] = none ? 1 : a->dilation[i];
    }
}

gr_status gri_conv_fit(gr_ctx *ctx, const gri_conv2d_attrs *a, int rank, const int64_t *x, const int64_t *w,
                       gri_conv *p) {
    if (a->groups < 1) return gr_fail(ctx, GR_ERR_ARG, "groups = %lld: expected at least 1", (long long)a->groups);
    if (w[0] % a->groups)
        return gr_fail(ctx, GR_ERR_SHAPE, "weight %s has %lld output channels, which %lld groups do not divide",
                       gri_dims_text(rank, w), (long long)w[0], (long long)a->groups);
    if (x[1] % a->groups || x[1] / a->groups != w[1])
        return gr_fail(ctx, GR_ERR_SHAPE,
                       "input %s has %lld channels, expected %lld for a weight of %s and %lld group%s",
                       gri_dims_text(rank, x), (long long)x[1], (long long)((uint64_t)w[1] * (uint64_t)a->groups),
                       gri_dims_text(rank, w), (long long)a->groups, a->groups == 1 ? "" : "s");
    *p = (gri_conv){.n = x[0], .c = x[1], .o = w[0], .groups = a->groups, .cg = w[1], .og = w[0] / a->groups};
    conv_window(a, rank, x, w, &p->w);
    GR_TRY(gri_window_fit(ctx, &p->w, false));
    p->depth = p->cg * p->w.kernel[0] * p->w.kernel[1];
    p->length = p->w.out[0] * p->w.out[1];
    return GR_OK;
}

gr_status gri_conv_want(gri_call *c, int i, int rank, const char *what) {
    GR_TRY(gri_want_float(c, i));
    if (c->in[i]->rank == rank) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is %s, expected %d dimensions", what, gri_tensor_text(c->in[i]), rank);
}

gr_status gri_conv_want_bias(gri_call *c, int64_t channels) {
    const gr_tensor *b = c->n_in > 2 ? c->in[2] : NULL;
    if (!b) return GR_OK;
    GR_TRY(gri_want_float(c, 2));
    if (b->rank == 1 && b->dims[0] == channels) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "bias is %s, expected [%lld] for a weight of %s", gri_tensor_text(b),
                   (long long)channels, gri_tensor_text(c->in[1]));
}

gr_status gri_conv_shape(gri_call *c, int rank) {
    const gr_tensor *x = c->in[0], *w = c->in[1];
    gri_spec *y = &c->spec[0];
    gri_conv p;
    int64_t count;
    GR_TRY(gri_conv_want(c, 0, rank, "input"));
    GR_TRY(gri_conv_want(c, 1, rank, "weight"));
    GR_TRY(gri_conv_fit(c->ctx, c->attrs, rank, x->dims, w->dims, &p));
    GR_TRY(gri_conv_want_bias(c, p.o));
    *y = (gri_spec){.dtype = (gr_dtype)x->dtype, .rank = rank, .dims = {p.n, p.o, p.w.out[0], p.w.out[1]}};
    if (rank == 3) y->dims[2] = p.w.out[1];
    return gri_numel(c->ctx, y->dtype, rank, y->dims, &count); /* padding can make anything of a small image */
}

/* ---- gradients -------------------------------------------------------------------------------------------- */

gr_status gri_conv_want_ranks(gri_call *c, const char *first, const char *second, const char *shape) {
    const gri_conv2d_attrs *a = c->attrs;
    const int rank = c->in[0]->rank == 3 ? 3 : 4;
    GR_TRY(gri_conv_want(c, 0, rank, first));
    GR_TRY(gri_conv_want(c, 1, rank, second));
    if (a->shape.n == rank) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "shape of the %s is %s, expected %d dimensions", shape,
                   gri_dims_text(a->shape.n, a->shape.v), rank);
}

gr_status gri_conv_gradient_shape(gri_call *c, int i, const int64_t *x, const int64_t *w) {
    const gri_conv2d_attrs *a = c->attrs;
    const gr_tensor *dy = c->in[i];
    const int rank = dy->rank;
    int64_t dims[4], n;
    gri_conv p;
    GR_TRY(gri_conv_fit(c->ctx, a, rank, x, w, &p));
    memcpy(dims, (int64_t[]){p.n, p.o, rank == 3 ? p.w.out[1] : p.w.out[0], p.w.out[1]}, sizeof dims);
    if (!gri_same_dims(rank, dy->dims, rank, dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "gradient is %s, expected %s", gri_tensor_text(dy),
                       gri_dims_text(rank, dims));
    c->spec[0] = (gri_spec){.dtype = (gr_dtype)dy->dtype, .rank = rank};
    memcpy(c->spec[0].dims, a->shape.v, (size_t)rank * sizeof *a->shape.v);
    c->spec[1] = (gri_spec){.dtype = (gr_dtype)dy->dtype, .rank = 1, .dims = {p.o}};
    return gri_numel(c->ctx, (gr_dtype)dy->dtype, rank, a->shape.v, &n);
}

/* The attributes of g's op for a gradient shaped as t. */
static gri_conv2d_attrs conv_shaped(const gri_grad *g, const gr_tensor *t) {
    gri_conv2d_attrs a = *(const gri_conv2d_attrs *)g->attrs;
    a.shape.n = t->rank;
    memcpy(a.shape.v, t->dims, t->rank * sizeof *t->dims);
    return a;
}

gr_status gri_conv_emit_input(gri_grad *g, int input, gr_tensor *dy, gr_tensor *w, const gr_tensor *x) {
    gri_conv2d_attrs a = conv_shaped(g, x);
    return gri_emit(g, input, &gri_op_conv2d_input_grad, 2, GRI_TENSORS(dy, w), &a);
}

gr_status gri_conv_emit_weight(gri_grad *g, const int *to, gr_tensor *x, gr_tensor *dy, const gr_tensor *w) {
    gri_conv2d_attrs a = conv_shaped(g, w);
    return gri_emit_many(g, to, &gri_op_conv2d_weight_grad, 2, GRI_TENSORS(x, dy), &a);
}

gr_status gri_conv_emit_output(gri_grad *g, int input, gr_tensor *x, gr_tensor *w, gr_tensor *bias) {
    const gr_op *op = w->rank == 3 ? &gri_op_conv1d : &gri_op_conv2d;
    return gri_emit(g, input, op, 3, GRI_TENSORS(x, w, bias), g->attrs);
}
