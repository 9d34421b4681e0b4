/* norm: scales all gradients together so that their p-norm does not exceed max_norm.
 *
 *   g <- g max_norm / ||g||_p   if ||g||_p > max_norm,  else unchanged
 *
 * Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks". Nothing is
 * added to the norm. The factor is a double; each product is rounded once, to the gradient's dtype. A
 * factor below DBL_MIN (f64 only: [1e300, 1e300] to 1e-20) would lose digits, so it comes in two parts. */
#include <float.h>

#include "clip.h"
#include "vmath.h"

typedef struct norm_attrs {
    double max_norm, p;
    bool error_if_nonfinite;
} norm_attrs;

static const gr_attr norm_schema[] = {
    {"max_norm", GR_ATTR_REAL, offsetof(norm_attrs, max_norm), .required = true, .max = INFINITY},
    {"p", GR_ATTR_REAL, offsetof(norm_attrs, p), .value = 2, .max = INFINITY},
    {"error_if_nonfinite", GR_ATTR_BOOL, offsetof(norm_attrs, error_if_nonfinite), .value = 1},
    GR_ATTR_END};

/* c: factor, and a power of two that goes with it. */
static void clip_norm_forward(int64_t n, void *grad, const double *c, gri_clip_sum *sum) {
    real *g = grad;
    const double factor = c[0], unit = c[1];
    (void)sum;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) g[i] = (real)((double)g[i] * factor * unit);
}
GR_CLIP_KERNEL(norm);

/* Would scaling change any element? In f32 not if 1 - factor <= 2^-25: the product is then at most half the
 * distance to the next number away, also just below a power of two, and a tie goes to the even x itself. */
static bool norm_changes(const gri_clip_item *item, double factor) {
    if (item->peak == 0) return false;
    return item->grad->dtype == GR_F32 ? 1 - factor > 0x1p-25 : factor < 1;
}

static gr_status norm_apply(gri_clip_call *c) {
    const norm_attrs *a = c->attrs;
    if (c->norm <= (long double)a->max_norm) return GR_OK;
    long double factor = (long double)a->max_norm / c->norm;
    bool tiny = factor > 0 && factor < (long double)DBL_MIN;
    double coeffs[] = {(double)(tiny ? factor * 0x1p512L : factor), tiny ? 0x1p-512 : 1};
    for (int i = 0; i < c->n; i++) c->items[i].selected = norm_changes(&c->items[i], tiny ? 0 : coeffs[0]);
    gri_clip_run(c, clip_norm_kernels, coeffs);
    if (c->report->clipped) c->report->norm_after = a->max_norm;
    return GR_OK;
}

GR_CLIP(norm) = {
    .info = {.name = "norm", .attrs = norm_schema, .attr_size = sizeof(norm_attrs),
             .doc = "Scales all gradients together so that their p-norm is at most max_norm; infinity: never."},
    .apply = norm_apply,
    .forward = clip_norm_kernels,
};
