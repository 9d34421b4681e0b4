/* y = x where x > 0, else s x, with s = negative_slope.
 *
 * dy/dx = 1 or s (also at 0): the input is kept. leaky_relu_backward(dy, x) does not change with x, save at 0. */
#include "iter.h"
#include "vmath.h"

typedef struct leaky_relu_attrs { double slope; } leaky_relu_attrs;

static void leaky_relu_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0], s = (real)((const leaky_relu_attrs *)attrs)->slope;
    const real *x = p[1];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : s * x[i];
}

static gr_status leaky_relu_forward(gri_call *c) { return gri_map(c, leaky_relu_loop, GRI_REAL, NULL, GRI_EXACT); }
GR_KERNEL(leaky_relu);

static gr_status leaky_relu_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_leaky_relu_backward, 2, GRI_TENSORS(g->dy[0], g->in[0]), g->attrs);
}

static const gr_attr leaky_relu_schema[] = {
    {"negative_slope", GR_ATTR_REAL, offsetof(leaky_relu_attrs, slope), .value = 0.01}, GR_ATTR_END};

static const gr_case leaky_relu_cases[] = {
    {.in = "3", .give = "{-2, 0, 3}", .want = "{-0.02, 0, 3}", .no_grad = true},
    {.in = "2", .attrs = "negative_slope=0.25", .give = "{-2, 3}", .want = "{-0.5, 3}"},
    {.in = "3,5", .has_kink = true},
    {.in = "3,5", .attrs = "negative_slope=0.25", .has_kink = true},
    {0}};

GR_OP(leaky_relu) = {
    .info = {.name = "leaky_relu", .inputs = "x", .attrs = leaky_relu_schema, .attr_size = sizeof(leaky_relu_attrs),
             .cases = leaky_relu_cases, .doc = "x where it is positive, else negative_slope * x."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = gri_shape_same,
    .forward = leaky_relu_kernels,
    .backward = leaky_relu_rule,
};

/* ---- its derivative as an op ---- */

static void leaky_relu_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0], s = (real)((const leaky_relu_attrs *)attrs)->slope;
    const real *dy = p[1], *x = p[2];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = x[i] > 0 ? dy[i] : s * dy[i];
}

static gr_status leaky_relu_backward_forward(gri_call *c) {
    return gri_map(c, leaky_relu_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(leaky_relu_backward);

static gr_status leaky_relu_backward_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_leaky_relu_backward, 2, GRI_TENSORS(g->dy[0], g->in[1]), g->attrs);
}

static const gr_case leaky_relu_backward_cases[] = {
    {.in = "3 3", .give = "{2, 3, 4}, {-0.5, 0, 7}", .want = "{0.02, 0.03, 4}", .no_grad = true},
    {.in = "3,5 3,5", .has_kink = true},
    {0}};

GR_OP(leaky_relu_backward) = {
    .info = {.name = "leaky_relu_backward", .inputs = "dy x", .attrs = leaky_relu_schema, .hidden = true,
             .attr_size = sizeof(leaky_relu_attrs), .cases = leaky_relu_backward_cases,
             .doc = "dy where x > 0, else negative_slope dy"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = leaky_relu_backward_kernels,
    .backward = leaky_relu_backward_rule,
};
