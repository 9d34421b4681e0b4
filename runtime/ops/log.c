/* y = ln x; -inf at 0, NaN below. dy/dx = 1/x: the input is kept. */
#include "iter.h"
#include "vmath.h"

static void log_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) y[i] = r_log(x[i]);
}

static gr_status log_forward(gri_call *c) { return gri_map(c, log_loop, GRI_REAL, NULL, GRI_COST_MATH); }
GR_KERNEL(log);

static gr_status log_rule(gri_grad *g) { return GRI_EMIT(g, 0, div, g->dy[0], g->in[0]); }

static const gr_case log_cases[] = {
    {.in = "3", .give = "{1, 0.5, 10}", .want = "{0, -0.693147181, 2.30258509}"},
    {.in = "2", .give = "{0, 1/0}", .want = "{-1/0, 1/0}", .no_grad = true},
    {.in = "3,5", .lo = 0.3, .hi = 3},
    {0}};

GR_OP(log) = {
    .info = {.name = "log", .inputs = "x", .cases = log_cases, .doc = "Natural logarithm of every element."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = gri_shape_same,
    .forward = log_kernels,
    .backward = log_rule,
};
