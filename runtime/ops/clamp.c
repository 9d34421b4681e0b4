/* y = x, moved into [min, max]; all max where min > max. NaN stays NaN.
 *
 * dy/dx = 1 inside and at the bounds, else 0 (also where x is NaN): the input is kept. clamp_backward(dy, x) does
 * not change with x, save at the bounds. */
#include <math.h>

#include "iter.h"
#include "vmath.h"

typedef struct clamp_attrs { double min, max; } clamp_attrs;

static bool clamp_whole(double v) { return isinf(v) || v == trunc(v); }

static gr_status clamp_shape(gri_call *c) {
    const clamp_attrs *a = c->attrs;
    c->spec[0] = gri_spec_of(c->in[0]);
    if (isnan(a->min) || isnan(a->max))
        return gr_fail(c->ctx, GR_ERR_ARG, "min = %g, max = %g: a bound cannot be NaN", a->min, a->max);
    if (!gri_is_float(c->in[0]) && !(clamp_whole(a->min) && clamp_whole(a->max)))
        return gr_fail(c->ctx, GR_ERR_DTYPE, "min = %g, max = %g: the bounds of %s must be whole numbers", a->min,
                       a->max, gri_tensor_text(c->in[0]));
    return GR_OK;
}

static void clamp_loop(int64_t n, void *const *p, const void *attrs) {
    const clamp_attrs *a = attrs;
    real *y = p[0], lo = (real)a->min, hi = (real)a->max;
    const real *x = p[1];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real v = x[i] < lo ? lo : x[i];
        y[i] = v > hi ? hi : v;
    }
}

static gr_status clamp_forward(gri_call *c) { return gri_map(c, clamp_loop, GRI_REAL, NULL, GRI_EXACT); }
GR_KERNEL(clamp);

static gr_status clamp_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_clamp_backward, 2, GRI_TENSORS(g->dy[0], g->in[0]), g->attrs);
}

static const gr_attr clamp_schema[] = {
    {"min", GR_ATTR_REAL, offsetof(clamp_attrs, min), .value = -INFINITY},
    {"max", GR_ATTR_REAL, offsetof(clamp_attrs, max), .value = INFINITY},
    GR_ATTR_END};

static const gr_case clamp_cases[] = {
    {.in = "4", .attrs = "min=-1, max=2", .give = "{-3, 0.5, 2, 7}", .want = "{-1, 0.5, 2, 2}", .no_grad = true},
    {.in = "3", .attrs = "min=2, max=1", .give = "{0, 1.5, 3}", .want = "{1, 1, 1}"},
    {.in = "3,5", .attrs = "max=0.5", .has_kink = true, .kink = 0.5},
    {.in = "3,5", .attrs = "min=-0.25", .has_kink = true, .kink = -0.25},
    {0}};

GR_OP(clamp) = {
    .info = {.name = "clamp", .inputs = "x", .attrs = clamp_schema, .attr_size = sizeof(clamp_attrs),
             .cases = clamp_cases, .doc = "x moved into [min, max]. The gradient passes inside and at the bounds."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = clamp_shape,
    .forward = clamp_kernels,
    .backward = clamp_rule,
};

/* ---- its derivative as an op ---- */

static void clamp_backward_loop(int64_t n, void *const *p, const void *attrs) {
    const clamp_attrs *a = attrs;
    real *dx = p[0], lo = (real)a->min, hi = (real)a->max;
    const real *dy = p[1], *x = p[2];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = (x[i] >= lo) & (x[i] <= hi) ? dy[i] : 0;
}

static gr_status clamp_backward_forward(gri_call *c) {
    return gri_map(c, clamp_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(clamp_backward);

static gr_status clamp_backward_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_clamp_backward, 2, GRI_TENSORS(g->dy[0], g->in[1]), g->attrs);
}

static const gr_case clamp_backward_cases[] = {
    {.in = "5 5", .attrs = "min=-1, max=2", .give = "{1,2,3,4,5}, {-3, -1, 0.5, 2, 7}", 
     .want = "{0,2,3,4,0}", .no_grad = true},
    {.in = "3,5 3,5", .attrs = "max=0.5", .has_kink = true, .kink = 0.5},
    {0}};

GR_OP(clamp_backward) = {
    .info = {.name = "clamp_backward", .inputs = "dy x", .attrs = clamp_schema, .attr_size = sizeof(clamp_attrs),
             .hidden = true, .cases = clamp_backward_cases, .doc = "dy where min <= x <= max, else 0"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = clamp_backward_kernels,
    .backward = clamp_backward_rule,
};
