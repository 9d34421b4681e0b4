/* Mean absolute error: |d| with d = x - y, element by element; their mean, their sum, or all of them.
 *
 * dx = g sign d, dy = -g sign d, where g is the gradient arriving, over the number of elements for the mean; 0 where
 * d is 0. Inputs are kept. l1_loss_backward(g, x, y; scale) = scale g sign(x - y) is an op of its own, and is flat in
 * x and y. */
#include "loss.h"

static void l1_loss_loop(int64_t n, void *const *p, const void *attrs) {
    real *loss = p[0];
    const real *x = p[1], *y = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) loss[i] = r_abs(x[i] - y[i]);
}

static gr_status l1_loss_forward(gri_call *c) { return gri_loss_run(c, l1_loss_loop, GRI_EXACT); }
GR_KERNEL(l1_loss);

static gr_status l1_loss_rule(gri_grad *g) {
    gr_tensor *x = g->in[0], *y = g->in[1];
    double scale = gri_loss_scale(x, gri_loss_reduction(g->attrs));
    GR_TRY(gri_emit(g, 0, &gri_op_l1_loss_backward, 3, GRI_TENSORS(g->dy[0], x, y), &scale));
    return gri_emit(g, 1, &gri_op_l1_loss_backward, 3, GRI_TENSORS(g->dy[0], y, x), &scale);
}

static const gr_attr l1_loss_schema[] = {GRI_REDUCTION(gri_loss_attrs), GR_ATTR_END};

static const gr_case l1_loss_cases[] = {
    {.in = "2,2 2,2", .give = "{{1,2},{3,4}}, {{0,4},{3.5,1}}", .want = "1.625"},
    {.in = "2,2 2,2", .attrs = "reduction='sum'", .give = "{{1,2},{3,4}}, {{0,4},{3.5,1}}", .want = "6.5"},
    {.in = "2 2", .attrs = "reduction='none'", .give = "{1,2}, {0,4}", .want = "{1,2}"},
    {.in = "3,4,5 3,4,5"},
    {.in = "3,5 3,5", .attrs = "reduction='none'"},
    {.in = "() ()"},
    {0}};

GR_OP(l1_loss) = {
    .info = {.name = "l1_loss", .inputs = "x y", .attrs = l1_loss_schema, .attr_size = sizeof(gri_loss_attrs),
             .cases = l1_loss_cases,
             .doc = "Absolute differences of two tensors of one shape. reduction: \"mean\", \"sum\" or \"none\"."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_loss_shape,
    .forward = l1_loss_kernels,
    .backward = l1_loss_rule,
};

/* ---- its derivative as an op ---- */

static void l1_loss_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0], scale = (real) * (const double *)attrs;
    const real *g = p[1], *x = p[2], *y = p[3];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real d = x[i] - y[i], sign = d > 0 ? 1 : d < 0 ? -1 : d; /* NaN stays */
        dx[i] = scale * g[i] * sign;
    }
}

static gr_status l1_loss_backward_forward(gri_call *c) {
    return gri_map(c, l1_loss_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(l1_loss_backward);

static gr_status l1_loss_backward_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_l1_loss_backward, 3, GRI_TENSORS(g->dy[0], g->in[1], g->in[2]), g->attrs);
}

static const gr_attr l1_loss_backward_schema[] = {{"scale", GR_ATTR_REAL, 0, .value = 1}, GR_ATTR_END};

static const gr_case l1_loss_backward_cases[] = {
    {.in = "() 3 3", .attrs = "scale=0.5", .give = "2, {3,4,1}, {1,5,1}", .want = "{1,-1,0}", .no_grad = true},
    {.in = "3,5 3,5 3,5"},
    {0}};

GR_OP(l1_loss_backward) = {
    .info = {.name = "l1_loss_backward", .inputs = "g x y", .attrs = l1_loss_backward_schema,
             .attr_size = sizeof(double), .hidden = true, .cases = l1_loss_backward_cases,
             .doc = "scale g sign(x - y)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1) | GRI_KEEP_IN(2),
    .shape = gri_shape_broadcast,
    .forward = l1_loss_backward_kernels,
    .backward = l1_loss_backward_rule,
};
