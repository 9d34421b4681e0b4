/* Clips: native transforms of gradients, in place. */
#ifndef GRI_CLIP_H
#define GRI_CLIP_H

#include "op.h"

/* One distinct gradient. Its norm is a long double because the norm of finite f64 elements need not fit into
 * a double; where long double is no wider, only that case is lost. */
typedef struct gri_clip_item {
    gr_tensor *param, *grad; /* borrowed */
    int position;            /* of param in the caller's list */
    long double norm;        /* p-norm, p = attrs' `p` or 2 */
    double peak;             /* largest magnitude */
    double unit;
    long double sum;         /* Σ (|x| / unit)^p */
    bool selected;           /* for gri_clip_run */
} gri_clip_item;

/* What one run of elements adds to a norm; runs are joined in order. */
typedef struct gri_clip_sum { double sum, peak; } gri_clip_sum;

/* The gradients one clip works on: each once, all finite (checked before). */
typedef struct gri_clip_call {
    gr_ctx *ctx;
    const void *attrs;
    int n;
    gri_clip_item *items;
    double p;
    long double norm;       /* of all together */
    gr_clip_report *report; /* never NULL; norm_after and clipped are apply's to set */
    int64_t *first;         /* n + 1, and */
    gri_clip_sum *sums;     /* one for each run: working memory */
} gri_clip_call;

/* One run of n contiguous elements of one gradient, in the gradient's dtype. Transforms it by the
 * coefficients c; or, measuring, leaves it alone and writes *sum (else NULL). Runs are any length. */
typedef void (*gri_clip_kernel)(int64_t n, void *grad, const double *c, gri_clip_sum *sum);

/* clips/NAME.c: header comment (formula, paper, defaults); NAME_attrs; clip_NAME_forward, the kernel (an op
 * may have the bare name); GR_CLIP_KERNEL(NAME); NAME_apply; GR_CLIP(NAME) = {…}. */
struct gr_clip_kind {
    gr_info info; /* attrs: thresholds, checked against their ranges; `p` and `error_if_nonfinite`: see clip.c */
    gr_status (*apply)(gri_clip_call *c);  /* decides and calls gri_clip_run; NULL: only measures */
    const gri_clip_kernel *const *forward; /* from GR_CLIP_KERNEL */
};
#ifdef GRI_NO_DESCRIPTOR
#define GR_CLIP(name) static const gr_clip_kind __attribute__((unused)) gri_clip_unused_##name
#else
#define GR_CLIP(name) const gr_clip_kind gri_clip_##name
#endif
#define GR_CLIP_KERNEL(name) GRI_EXPORT(gri_clip_kernel, clip_##name) extern const gr_clip_kind gri_clip_##name

/* Runs the kernel over every selected gradient, counts it in the report and raises its version. */
void gri_clip_run(gri_clip_call *c, const gri_clip_kernel *const *forward, const double *coeffs);
/* Measures: norm and peak of every item, and the norm of all. False if some item is not finite: its peak or
 * its sum is not, and the norms are undefined. */
bool gri_clip_norms(gri_clip_call *c);

#endif
