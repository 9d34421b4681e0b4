/* Mean squared error: d² with d = x - y, element by element; their mean, their sum, or all of them.
 *
 * dx = 2 g d, dy = -2 g d, where g is the gradient arriving, over the number of elements for the mean. Inputs
 * are kept. mse_loss_backward(g, x, y; scale) = scale g (x - y) is an op of its own. */
#include "loss.h"

static void mse_loss_loop(int64_t n, void *const *p, const void *attrs) {
    real *loss = p[0];
    const real *x = p[1], *y = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) loss[i] = (x[i] - y[i]) * (x[i] - y[i]);
}

static gr_status mse_loss_forward(gri_call *c) { return gri_loss_run(c, mse_loss_loop, GRI_EXACT); }
GR_KERNEL(mse_loss);

static gr_status mse_loss_rule(gri_grad *g) {
    gr_tensor *x = g->in[0], *y = g->in[1];
    double scale = 2 * gri_loss_scale(x, gri_loss_reduction(g->attrs));
    GR_TRY(gri_emit(g, 0, &gri_op_mse_loss_backward, 3, GRI_TENSORS(g->dy[0], x, y), &scale));
    return gri_emit(g, 1, &gri_op_mse_loss_backward, 3, GRI_TENSORS(g->dy[0], y, x), &scale);
}

static const gr_attr mse_loss_schema[] = {GRI_REDUCTION(gri_loss_attrs), GR_ATTR_END};

static const gr_case mse_loss_cases[] = {
    {.in = "2,2 2,2", .give = "{{1,2},{3,4}}, {{0,4},{3,1}}", .want = "3.5"},
    {.in = "2,2 2,2", .attrs = "reduction='sum'", .give = "{{1,2},{3,4}}, {{0,4},{3,1}}", .want = "14"},
    {.in = "2,2 2,2", .attrs = "reduction='none'", .give = "{{1,2},{3,4}}, {{0,4},{3,1}}", .want = "{{1,4},{0,9}}"},
    {.in = "3,4,5 3,4,5"},
    {.in = "3,5 3,5", .attrs = "reduction='none'"},
    {.in = "() ()"},
    {0}};

GR_OP(mse_loss) = {
    .info = {.name = "mse_loss", .inputs = "x y", .attrs = mse_loss_schema, .attr_size = sizeof(gri_loss_attrs),
             .cases = mse_loss_cases,
             .doc = "Squared differences of two tensors of one shape. reduction: \"mean\", \"sum\" or \"none\"."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_loss_shape,
    .forward = mse_loss_kernels,
    .backward = mse_loss_rule,
};

/* ---- its derivative as an op ----
 * z = s g (x - y):  dz/dg = s (x - y),  dz/dx = s g,  dz/dy = -s g. */

static void mse_loss_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0], scale = (real) * (const double *)attrs;
    const real *g = p[1], *x = p[2], *y = p[3];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = scale * g[i] * (x[i] - y[i]);
}

static gr_status mse_loss_backward_forward(gri_call *c) {
    return gri_map(c, mse_loss_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(mse_loss_backward);

static gr_status mse_loss_backward_rule(gri_grad *g) {
    gr_tensor *t, *scale;
    GR_TRY(gri_emit(g, 0, &gri_op_mse_loss_backward, 3, GRI_TENSORS(g->dy[0], g->in[1], g->in[2]), g->attrs));
    if (!gri_needs(g, 1) && !gri_needs(g, 2)) return GR_OK;
    GR_TRY(gri_scalar(g, &scale, *(const double *)g->attrs));
    GR_TRY(GRI_EVAL(g, &t, mul, g->in[0], scale));
    GR_TRY(GRI_EVAL(g, &t, mul, g->dy[0], t));
    GR_TRY(gri_emit_same(g, 1, t));
    return GRI_EMIT(g, 2, neg, t);
}

static const gr_attr mse_loss_backward_schema[] = {{"scale", GR_ATTR_REAL, 0, .value = 2}, GR_ATTR_END};

static const gr_case mse_loss_backward_cases[] = {
    {.in = "() 2 2", .attrs = "scale=0.5", .give = "2, {3,4}, {1,5}", .want = "{2,-1}"},
    {.in = "3,5 3,5 3,5"},
    {0}};

GR_OP(mse_loss_backward) = {
    .info = {.name = "mse_loss_backward", .inputs = "g x y", .attrs = mse_loss_backward_schema,
             .attr_size = sizeof(double),
             .hidden = true, .cases = mse_loss_backward_cases, .doc = "scale g (x - y)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1) | GRI_KEEP_IN(2),
    .shape = gri_shape_broadcast,
    .forward = mse_loss_backward_kernels,
    .backward = mse_loss_backward_rule,
};
