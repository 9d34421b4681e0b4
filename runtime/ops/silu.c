/* y = x σ(x), σ(x) = 1 / (1 + e^-x), also known as swish.  (Hendrycks and Gimpel, arXiv 1606.08415, 2016)
 *
 * dy/dx = σ + x σ (1 - σ): the input is kept. With z = e^-|x|, σ is 1 / (1 + z) or z / (1 + z), and σ (1 - σ) is
 * z / (1 + z)²: nothing overflows. silu_backward(dy, x) is an op of its own, whose derivatives run through its
 * `compose`. NaN at -inf, as 0 times -inf is. */
#include "iter.h"
#include "vmath.h"

static void silu_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real z = r_exp_falling(-r_abs(x[i]));
        y[i] = x[i] * (x[i] < 0 ? z : 1) / (1 + z);
    }
}

static gr_status silu_forward(gri_call *c) { return gri_map(c, silu_loop, GRI_REAL, NULL, GRI_COST_MATH); }
GR_KERNEL(silu);

static gr_status silu_rule(gri_grad *g) { return GRI_EMIT(g, 0, silu_backward, g->dy[0], g->in[0]); }

static const gr_case silu_cases[] = {
    {.in = "5", .give = "{-1, 0, 2, 1/0, -50}", .want = "{-0.268941421, 0, 1.76159416, 1/0, -9.64374924e-21}",
     .no_grad = true},
    {.in = "3,5", .lo = -4, .hi = 4},
    {0}};

GR_OP(silu) = {
    .info = {.name = "silu", .inputs = "x", .cases = silu_cases,
             .doc = "x * sigmoid(x) of every element; also known as swish."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = gri_shape_same,
    .forward = silu_kernels,
    .backward = silu_rule,
};

/* ---- its derivative as an op ---- */

static void silu_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *x = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real z = r_exp_falling(-r_abs(x[i])), r = 1 / (1 + z), s = x[i] < 0 ? z * r : r;
        dx[i] = dy[i] * (s + x[i] * (z * r * r));
    }
}

static gr_status silu_backward_forward(gri_call *c) {
    return gri_map(c, silu_backward_loop, GRI_REAL, NULL, GRI_COST_MATH);
}
GR_KERNEL(silu_backward);

/* dy (s + x s (1 - s)), the second term as sigmoid_backward has it; dy last, as dy x may overflow. */
static gr_status silu_backward_compose(gri_call *c) {
    gr_tensor *dy = c->in[0], *x = c->in[1], *s = NULL, *t = NULL, *u = NULL;
    gr_status st = GRI_APPLY(c->ctx, &s, sigmoid, x);
    if (st == GR_OK) st = GRI_APPLY(c->ctx, &t, sigmoid_backward, x, s);
    if (st == GR_OK) st = GRI_APPLY(c->ctx, &u, add, s, t);
    if (st == GR_OK) st = GRI_APPLY(c->ctx, &c->out[0], mul, dy, u);
    gr_release(s), gr_release(t), gr_release(u);
    return st;
}

static const gr_case silu_backward_cases[] = {
    {.in = "3 3", .give = "{2, -1, 3}, {1, 0, -2}", .want = "{1.85534102, -0.5, -0.272352746}"},
    {.in = "2 2", .give = "{2, -2}, {3e38, 3e38}", .want = "{2, -2}", .no_grad = true},
    {.in = "3,5 3,5", .lo = -4, .hi = 4},
    {0}};

GR_OP(silu_backward) = {
    .info = {.name = "silu_backward", .inputs = "dy x", .hidden = true, .cases = silu_backward_cases,
             .doc = "dy (s + x s (1 - s)), s = sigmoid(x)"},
    .elementwise = true,
    .shape = gri_shape_broadcast,
    .forward = silu_backward_kernels,
    .compose = silu_backward_compose,
};
