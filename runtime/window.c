#include "window.h"

/* Sizes beyond this are mistakes; below it, no sum or product here overflows. */
#define WINDOW_MAX ((int64_t)1 << 30)

static gr_status window_check(gr_ctx *ctx, const int64_t *pair, const char *name, int64_t least) {
    for (int i = 0; i < 2; i++)
        if (pair[i] < least || pair[i] > WINDOW_MAX)
            return gr_fail(ctx, GR_ERR_ARG, "%s %lldx%lld: expected at least %lld", name, (long long)pair[0],
                           (long long)pair[1], (long long)least);
    return GR_OK;
}

static gr_status window_check_kernel(gr_ctx *ctx, const gri_window *w) {
    GR_TRY(window_check(ctx, w->kernel, "kernel_size", 1));
    GR_TRY(window_check(ctx, w->stride, "stride", 1));
    GR_TRY(window_check(ctx, w->padding, "padding", 0));
    return window_check(ctx, w->dilation, "dilation", 1);
}

gr_status gri_window_fit(gr_ctx *ctx, gri_window *w, bool ceil) {
    int64_t reach[2];
    GR_TRY(window_check(ctx, w->in, "input size", 0));
    GR_TRY(window_check_kernel(ctx, w));
    for (int i = 0; i < 2; i++) reach[i] = w->dilation[i] * (w->kernel[i] - 1) + 1;
    for (int i = 0; i < 2; i++) {
        int64_t s = w->stride[i], free = w->in[i] + 2 * w->padding[i] - reach[i] + (ceil ? s - 1 : 0);
        if (free < 0)
            return gr_fail(ctx, GR_ERR_SHAPE,
                           "a kernel that reaches %lldx%lld does not fit into %lldx%lld with padding %lldx%lld",
                           (long long)reach[0], (long long)reach[1], (long long)w->in[0], (long long)w->in[1],
                           (long long)w->padding[0], (long long)w->padding[1]);
        w->out[i] = free / s + 1;
        if (ceil && (w->out[i] - 1) * s >= w->in[i] + w->padding[i]) w->out[i]--;
    }
    return GR_OK;
}

gr_status gri_window_fit_input(gr_ctx *ctx, gri_window *w, const int64_t *more) {
    GR_TRY(window_check(ctx, w->out, "input size", 1));
    GR_TRY(window_check_kernel(ctx, w));
    for (int i = 0; i < 2; i++) {
        if (more[i] < 0 || more[i] >= w->stride[i])
            return gr_fail(ctx, GR_ERR_ARG,
                           "output_padding %lldx%lld: expected 0 or more, and less than stride %lldx%lld",
                           (long long)more[0], (long long)more[1], (long long)w->stride[0],
                           (long long)w->stride[1]);
        w->in[i] = (w->out[i] - 1) * w->stride[i] - 2 * w->padding[i] + w->dilation[i] * (w->kernel[i] - 1) + 1 +
                   more[i];
    }
    for (int i = 0; i < 2; i++)
        if (w->in[i] < 1)
            return gr_fail(ctx, GR_ERR_SHAPE, "padding %lldx%lld leaves an output of %lldx%lld",
                           (long long)w->padding[0], (long long)w->padding[1], (long long)w->in[0],
                           (long long)w->in[1]);
    return window_check(ctx, w->in, "output size", 1);
}
