/* y = ln(1 / (1 + e^-x)) = min(x, 0) - ln(1 + e^-|x|): nothing overflows, and both ends keep their precision.
 *
 * dy/dx = 1 / (1 + e^x), the sigmoid of -x: the input is kept. */
#include "iter.h"
#include "vmath.h"

static void logsigmoid_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) y[i] = (x[i] < 0 ? x[i] : 0) - r_log1p(r_exp(-r_abs(x[i])));
}

static gr_status logsigmoid_forward(gri_call *c) {
    return gri_map(c, logsigmoid_loop, GRI_REAL, NULL, 2 * GRI_COST_MATH);
}
GR_KERNEL(logsigmoid);

static gr_status logsigmoid_rule(gri_grad *g) {
    gr_tensor *t;
    GR_TRY(GRI_EVAL(g, &t, neg, g->in[0]));
    GR_TRY(GRI_EVAL(g, &t, sigmoid, t));
    return GRI_EMIT(g, 0, mul, g->dy[0], t);
}

static const gr_case logsigmoid_cases[] = {
    {.in = "4", .give = "{-1, 0, 2, 40}", .want = "{-1.31326169, -0.693147181, -0.126928011, -4.24835426e-18}"},
    {.in = "3", .give = "{-1000, 1000, -1/0}", .want = "{-1000, 0, -1/0}", .no_grad = true},
    {.in = "3,5", .lo = -4, .hi = 4},
    {0}};

GR_OP(logsigmoid) = {
    .info = {.name = "logsigmoid", .inputs = "x", .cases = logsigmoid_cases,
             .doc = "log(sigmoid(x)) of every element, without the rounding of either."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = gri_shape_same,
    .forward = logsigmoid_kernels,
    .backward = logsigmoid_rule,
};
