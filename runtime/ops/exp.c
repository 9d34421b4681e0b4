/* y = e^x. dy/dx = y: the output is kept. */
#include "iter.h"
#include "vmath.h"

static void exp_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) y[i] = r_exp(x[i]);
}

static gr_status exp_forward(gri_call *c) { return gri_map(c, exp_loop, GRI_REAL, NULL, GRI_COST_MATH); }
GR_KERNEL(exp);

static gr_status exp_rule(gri_grad *g) { return GRI_EMIT(g, 0, mul, g->dy[0], g->out[0]); }

static const gr_case exp_cases[] = {
    {.in = "4", .give = "{-1, 0, 2, -1/0}", .want = "{0.367879441, 1, 7.38905610, 0}", .no_grad = true},
    {.in = "3,5", .lo = -3, .hi = 3},
    {0}};

GR_OP(exp) = {
    .info = {.name = "exp", .inputs = "x", .cases = exp_cases, .doc = "e to the power of every element."},
    .elementwise = true,
    .keeps = GRI_KEEP_OUT(0),
    .shape = gri_shape_same,
    .forward = exp_kernels,
    .backward = exp_rule,
};
