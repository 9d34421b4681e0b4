#include "conv.h"

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
