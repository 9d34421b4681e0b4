#include "pool.h"

#include <string.h>

static gr_status pool_fit_adaptive(gr_ctx *ctx, const gri_pool_attrs *a, int rank, const int64_t *dims,
                                   gri_window *w) {
    for (int i = 0; i < 2; i++) {
        w->in[i] = dims[rank - 2 + i];
        w->out[i] = a->output_size[i];
        if (w->out[i] < 1 || w->out[i] > 1 << 30)
            return gr_fail(ctx, GR_ERR_ARG, "output_size %lldx%lld: expected at least 1",
                           (long long)a->output_size[0], (long long)a->output_size[1]);
        if (w->in[i] < 1 || w->in[i] > 1 << 30)
            return gr_fail(ctx, GR_ERR_SHAPE, "input is %s: there is nothing to choose from",
                           gri_dims_text(rank, dims));
    }
    return GR_OK;
}

gr_status gri_pool_fit(gr_ctx *ctx, const gri_pool_attrs *a, int rank, const int64_t *dims, gri_window *w) {
    if (gri_pool_adaptive(a)) return pool_fit_adaptive(ctx, a, rank, dims, w);
    for (int i = 0; i < 2; i++) {
        const bool none = rank == 3 && i == 0;
        w->in[i] = none ? 1 : dims[rank - 2 + i];
        w->kernel[i] = none ? 1 : a->kernel_size[i];
        w->stride[i] = none ? 1 : a->stride[i] ? a->stride[i] : a->kernel_size[i];
        w->padding[i] = none ? 0 : a->padding[i];
        w->dilation[i] = none || !a->dilation[i] ? 1 : a->dilation[i];
    }
    GR_TRY(gri_window_fit(ctx, w, a->ceil_mode));
    for (int i = 0; i < 2; i++)
        if (w->padding[i] > w->kernel[i] / 2)
            return gr_fail(ctx, GR_ERR_ARG, "padding %lld is more than half of kernel_size %lld",
                           (long long)w->padding[i], (long long)w->kernel[i]);
    return GR_OK;
}

gr_status gri_pool_shape(gri_call *c, int rank) {
    const gr_tensor *x = c->in[0];
    gri_window w;
    gri_spec *y = &c->spec[0];
    int64_t n;
    GR_TRY(gri_want_float(c, 0));
    if (x->rank != rank)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "input is %s, expected %d dimensions", gri_tensor_text(x), rank);
    GR_TRY(gri_pool_fit(c->ctx, c->attrs, rank, x->dims, &w));
    *y = (gri_spec){.dtype = (gr_dtype)x->dtype, .rank = rank, .dims = {x->dims[0], x->dims[1]}};
    memcpy(y->dims + 2, w.out + 4 - rank, (size_t)(rank - 2) * sizeof *w.out);
    if (c->n_out > 1) {
        c->spec[1] = *y;
        c->spec[1].dtype = GR_I64;
    }
    return gri_numel(c->ctx, GR_F64, rank, y->dims, &n);
}
