/* Clips: native transforms of gradients, in place. */
#ifndef GRI_CLIP_H
#define GRI_CLIP_H

#include "op.h"

/* The gradients one clip works on: each distinct gradient once, all finite (checked before). */
typedef struct gri_clip_call {
    gr_ctx *ctx;
    const void *attrs;
    int n;
    gr_tensor *const *params;
    gr_tensor *const *grads;
    const double *norms; /* p-norm of each gradient, p = attrs' `p` or 2 */
    double norm;         /* of all together */
    gr_clip_report *report;
} gri_clip_call;

/* clips/NAME.c: header comment (formula, paper, defaults); NAME_attrs; NAME_apply; GR_CLIP(NAME) = {…}. */
struct gr_clip_kind {
    gr_info info;
    gr_status (*check)(gr_ctx *ctx, const void *attrs); /* thresholds below zero or NaN are refused */
    gr_status (*apply)(gri_clip_call *c);               /* NULL: only measures */
};
#ifdef GRI_NO_DESCRIPTOR
#define GR_CLIP(name) static const gr_clip_kind __attribute__((unused)) gri_clip_unused_##name
#else
#define GR_CLIP(name) const gr_clip_kind gri_clip_##name
#endif

#endif
