/* y = 1 / (1 + e^-x), with z = e^-|x| as 1 / (1 + z) or z / (1 + z): nothing overflows, and the far left keeps
 * its relative precision (in f32 down to 2^-126, below which it is 0).
 *
 * dy/dx = y (1 - y): the output is kept. sigmoid_backward(dy, y) = dy y (1 - y) has
 * d/d(dy) = y (1 - y), d/dy = dy (1 - 2 y). */
#include "iter.h"
#include "vmath.h"

static void sigmoid_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) y[i] = r_sigmoid(x[i]);
}

static gr_status sigmoid_forward(gri_call *c) { return gri_map(c, sigmoid_loop, GRI_REAL, NULL, GRI_COST_MATH); }
GR_KERNEL(sigmoid);

static gr_status sigmoid_rule(gri_grad *g) { return GRI_EMIT(g, 0, sigmoid_backward, g->dy[0], g->out[0]); }

static const gr_case sigmoid_cases[] = {
    {.in = "4", .give = "{-1, 0, 2, -80}", .want = "{0.268941421, 0.5, 0.880797078, 1.80485139e-35}"},
    {.in = "3", .give = "{-1000, 1000, -1/0}", .want = "{0, 1, 0}", .no_grad = true},
    {.in = "3,5", .lo = -4, .hi = 4},
    {0}};

GR_OP(sigmoid) = {
    .info = {.name = "sigmoid", .inputs = "x", .cases = sigmoid_cases, .doc = "1 / (1 + exp(-x)) of every element."},
    .elementwise = true,
    .keeps = GRI_KEEP_OUT(0),
    .shape = gri_shape_same,
    .forward = sigmoid_kernels,
    .backward = sigmoid_rule,
};

/* ---- its derivative as an op ---- */

static void sigmoid_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *y = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * (y[i] * (1 - y[i]));
}

static gr_status sigmoid_backward_forward(gri_call *c) {
    return gri_map(c, sigmoid_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(sigmoid_backward);

static gr_status sigmoid_backward_rule(gri_grad *g) {
    gr_tensor *t, *two, *one;
    GR_TRY(GRI_EMIT(g, 0, sigmoid_backward, g->dy[0], g->in[1]));
    if (!gri_needs(g, 1)) return GR_OK;
    GR_TRY(gri_scalar(g, &two, 2));
    GR_TRY(gri_scalar(g, &one, 1));
    GR_TRY(GRI_EVAL(g, &t, mul, g->in[1], two));
    GR_TRY(GRI_EVAL(g, &t, sub, one, t));
    GR_TRY(GRI_EVAL(g, &t, mul, g->in[0], t));
    return GRI_EMIT(g, 1, mul, g->dy[0], t);
}

static const gr_case sigmoid_backward_cases[] = {
    {.in = "2 2", .give = "{2, -1}, {0.25, 0.5}", .want = "{0.375, -0.25}"}, {.in = "3,5 3,5"}, {0}};

GR_OP(sigmoid_backward) = {
    .info = {.name = "sigmoid_backward", .inputs = "dy y", .hidden = true, .cases = sigmoid_backward_cases,
             .doc = "dy y (1 - y)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = sigmoid_backward_kernels,
    .backward = sigmoid_backward_rule,
};
