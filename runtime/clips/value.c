/* value: cuts every element of every gradient to [-clip_value, clip_value].
 *
 *   g <- min(max(g, -clip_value), clip_value)
 *
 * Mikolov 2012. It changes the direction of the gradient; norm does not. An infinite element is not made an
 * ordinary one: gradients that are not finite are refused first. */
#include "clip.h"
#include "vmath.h"

typedef struct value_attrs {
    double clip_value;
    bool error_if_nonfinite;
} value_attrs;

static const gr_attr value_schema[] = {
    {"clip_value", GR_ATTR_REAL, offsetof(value_attrs, clip_value), .required = true,
     .max = INFINITY},
    {"error_if_nonfinite", GR_ATTR_BOOL, offsetof(value_attrs, error_if_nonfinite), .value = 1},
    GR_ATTR_END};

/* c: clip_value. */
static void clip_value_forward(int64_t n, void *grad, const double *c, gri_clip_sum *sum) {
    real *g = grad;
    const real most = (real)c[0];
    (void)sum;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real x = g[i] < -most ? -most : g[i];
        g[i] = x > most ? most : x;
    }
}
GR_CLIP_KERNEL(value);

static gr_status value_apply(gri_clip_call *c) {
    const value_attrs *a = c->attrs;
    for (int i = 0; i < c->n; i++) {
        gri_clip_item *item = &c->items[i];
        double most = item->grad->dtype == GR_F32 ? (double)(float)a->clip_value : a->clip_value;
        item->selected = item->peak > most;
    }
    gri_clip_run(c, clip_value_kernels, &a->clip_value);
    if (c->report->clipped) {
        gri_clip_norms(c);
        c->report->norm_after = (double)c->norm;
    }
    return GR_OK;
}

GR_CLIP(value) = {
    .info = {.name = "value", .attrs = value_schema, .attr_size = sizeof(value_attrs),
             .doc = "Cuts every element of every gradient to [-clip_value, clip_value]; infinity: never."},
    .apply = value_apply,
    .forward = clip_value_kernels,
};
