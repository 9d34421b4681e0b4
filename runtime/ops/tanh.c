/* y = tanh(x), element by element.
 *
 * dy/dx = 1 - y²: the output is kept, not the input. tanh_backward(dy, y) = dy (1 - y²) is an op of its own,
 * so that its gradient is recorded too: d/d(dy) = 1 - y², d/dy = -2 y dy. */
#include "iter.h"
#include "vmath.h"

static void tanh_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) y[i] = r_tanh(x[i]);
}

static gr_status tanh_forward(gri_call *c) { return gri_map(c, tanh_loop, GRI_REAL, NULL, GRI_COST_MATH); }
GR_KERNEL(tanh);

static gr_status tanh_rule(gri_grad *g) { return GRI_EMIT(g, 0, tanh_backward, g->dy[0], g->out[0]); }

static const gr_case tanh_cases[] = {
    {.in = "3", .give = "{-1, 0, 2}", .want = "{-0.761594156, 0, 0.964027580}"},
    {.in = "3,5", .lo = -3, .hi = 3},
    {0}};

GR_OP(tanh) = {
    .info = {.name = "tanh", .inputs = "x", .cases = tanh_cases, .doc = "Hyperbolic tangent of every element."},
    .elementwise = true,
    .keeps = GRI_KEEP_OUT(0),
    .shape = gri_shape_same,
    .forward = tanh_kernels,
    .backward = tanh_rule,
};

/* ---- its derivative as an op ---- */

static void tanh_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *y = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * (1 - y[i] * y[i]);
}

static gr_status tanh_backward_forward(gri_call *c) {
    return gri_map(c, tanh_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(tanh_backward);

static gr_status tanh_backward_rule(gri_grad *g) {
    gr_tensor *t, *two;
    GR_TRY(GRI_EMIT(g, 0, tanh_backward, g->dy[0], g->in[1]));
    if (!gri_needs(g, 1)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &t, mul, g->in[0], g->in[1]));
    GR_TRY(gri_scalar(g, &two, -2));
    GR_TRY(GRI_EVAL(g, &t, mul, t, two));
    return GRI_EMIT(g, 1, mul, g->dy[0], t);
}

static const gr_case tanh_backward_cases[] = {
    {.in = "2 2", .give = "{2, -1}, {0.5, 0}", .want = "{1.5, -1}"}, {.in = "3,5 3,5"}, {0}};

GR_OP(tanh_backward) = {
    .info = {.name = "tanh_backward", .inputs = "dy y", .hidden = true, .cases = tanh_backward_cases,
             .doc = "dy (1 - y^2)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = tanh_backward_kernels,
    .backward = tanh_backward_rule,
};
