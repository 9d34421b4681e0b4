/* y = λ x where x > 0, else λ α (e^x - 1), with the constants for which zero mean and unit variance carry over from
 * layer to layer.  (Klambauer, Unterthiner, Mayr and Hochreiter, NIPS 2017)
 *
 * dy/dx = λ, or λ α e^x (also at 0): the input is kept. selu_backward(dy, x) has the same factor towards dy, and
 * dy λ α e^x where x <= 0, else 0, towards x. */
#include "iter.h"
#include "vmath.h"

#define SELU_SCALE 1.0507009873554804934193349852946
#define SELU_BELOW 1.7580993408473768599402175208123 /* λ α */

static void selu_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real below = (real)SELU_BELOW * r_expm1(x[i] > 0 ? 0 : x[i]);
        y[i] = x[i] > 0 ? (real)SELU_SCALE * x[i] : below;
    }
}

static gr_status selu_forward(gri_call *c) { return gri_map(c, selu_loop, GRI_REAL, NULL, GRI_COST_MATH); }
GR_KERNEL(selu);

static gr_status selu_rule(gri_grad *g) { return GRI_EMIT(g, 0, selu_backward, g->dy[0], g->in[0]); }

static const gr_case selu_cases[] = {
    {.in = "5", .give = "{-1, 0, 3, -1/0, -1e-6}",
     .want = "{-1.11133074, 0, 3.15210296, -1.75809934, -1.75809846e-6}", .no_grad = true},
    {.in = "3,5", .lo = -2, .hi = 2, .has_kink = true},
    {0}};

GR_OP(selu) = {
    .info = {.name = "selu", .inputs = "x", .cases = selu_cases,
             .doc = "1.0507 * x where it is positive, else 1.7581 * (exp(x) - 1): an elu that normalises itself."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = gri_shape_same,
    .forward = selu_kernels,
    .backward = selu_rule,
};

/* ---- its derivative as an op ---- */

static void selu_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *x = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real below = (real)SELU_BELOW * r_exp_falling(x[i] > 0 ? 0 : x[i]);
        dx[i] = dy[i] * (x[i] > 0 ? (real)SELU_SCALE : below);
    }
}

static gr_status selu_backward_forward(gri_call *c) {
    return gri_map(c, selu_backward_loop, GRI_REAL, NULL, GRI_COST_MATH);
}
GR_KERNEL(selu_backward);

static gr_status selu_backward_rule(gri_grad *g) {
    gr_tensor *dy = g->in[0], *x = g->in[1], *t, *zero, *above;
    GR_TRY(GRI_EMIT(g, 0, selu_backward, g->dy[0], x));
    if (!gri_needs(g, 1)) return GR_OK;
    GR_TRY(gri_scalar(g, &zero, 0));
    GR_TRY(GRI_EVAL(g, &above, gt, x, zero));
    GR_TRY(GRI_EVAL(g, &t, mul, g->dy[0], dy));
    GR_TRY(GRI_EVAL(g, &t, selu_backward, t, x));
    return GRI_EMIT(g, 1, where, above, zero, t);
}

static const gr_case selu_backward_cases[] = {
    {.in = "3 3", .give = "{2, 3, 4}, {-1, 0, 7}", .want = "{1.29353721, 5.27429802, 4.20280395}", .no_grad = true},
    {.in = "3,5 3,5", .has_kink = true},
    {0}};

GR_OP(selu_backward) = {
    .info = {.name = "selu_backward", .inputs = "dy x", .hidden = true, .cases = selu_backward_cases,
             .doc = "1.0507 dy where x > 0, else 1.7581 dy exp(x)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = selu_backward_kernels,
    .backward = selu_backward_rule,
};
