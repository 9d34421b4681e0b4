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

gr_status gri_window_fit(gr_ctx *ctx, gri_window *w, bool ceil) {
    int64_t reach[2];
    GR_TRY(window_check(ctx, w->in, "input size", 0));
    GR_TRY(window_check(ctx, w->kernel, "kernel_size", 1));
    GR_TRY(window_check(ctx, w->stride, "stride", 1));
    GR_TRY(window_check(ctx, w->padding, "padding", 0));
    GR_TRY(window_check(ctx, w->dilation, "dilation", 1));
    for (int i = 0; i < 2; i++) reach[i] = w->dilation[i] * (w->kernel[i] - 1) + 1;
    for (int i = 0; i < 2; i++) {
        int64_t free = w->in[i] + 2 * w->padding[i] - reach[i], s = w->stride[i];
        if (free < 0)
            return gr_fail(ctx, GR_ERR_SHAPE,
                           "a kernel that reaches %lldx%lld does not fit into %lldx%lld with padding %lldx%lld",
                           (long long)reach[0], (long long)reach[1], (long long)w->in[0], (long long)w->in[1],
                           (long long)w->padding[0], (long long)w->padding[1]);
        w->out[i] = (ceil ? free + s - 1 : free) / s + 1;
        if (ceil && (w->out[i] - 1) * s >= w->in[i] + w->padding[i]) w->out[i]--;
    }
    return GR_OK;
}
