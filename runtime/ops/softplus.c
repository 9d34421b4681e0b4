/* y = log(1 + e^(beta x)) / beta, a smooth max(x, 0); where beta x > threshold, x itself.
 * (Dugas, Bengio, Bélisle, Nadeau and Garcia, NIPS 2000)
 *
 * With v = beta x the logarithm is max(v, 0) + log1p(e^-|v|): nothing overflows, whatever the threshold.
 * dy/dx = σ(v), or 1: the input is kept. softplus_backward(dy, x) is an op of its own, whose derivatives run through
 * its `compose`; its derivative to x is dy beta σ (1 - σ), and 0 above the threshold. */
#include "iter.h"
#include "vmath.h"

typedef struct softplus_attrs { double beta, threshold; } softplus_attrs;

static gr_status softplus_shape(gri_call *c) {
    const softplus_attrs *a = c->attrs;
    if (a->beta == 0 || !isfinite(a->beta) || isnan(a->threshold))
        return gr_fail(c->ctx, GR_ERR_ARG, "beta = %g, threshold = %g: expected finite, not 0, and no NaN",
                       a->beta, a->threshold);
    GR_TRY(gri_want_float(c, 0));
    return gri_shape_broadcast(c);
}

static void softplus_loop(int64_t n, void *const *p, const void *attrs) {
    const softplus_attrs *a = attrs;
    real *y = p[0], beta = (real)a->beta, threshold = (real)a->threshold, inverse = 1 / beta;
    const real *x = p[1];
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real v = beta * x[i], log = r_log1p(r_exp_falling(-r_abs(v))) + (v > 0 ? v : 0);
        y[i] = v > threshold ? x[i] : log * inverse;
    }
}

static gr_status softplus_forward(gri_call *c) { return gri_map(c, softplus_loop, GRI_REAL, NULL, GRI_COST_MATH); }
GR_KERNEL(softplus);

static gr_status softplus_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_softplus_backward, 2, GRI_TENSORS(g->dy[0], g->in[0]), g->attrs);
}

static const gr_attr softplus_schema[] = {
    {"beta", GR_ATTR_REAL, offsetof(softplus_attrs, beta), .value = 1},
    {"threshold", GR_ATTR_REAL, offsetof(softplus_attrs, threshold), .value = 20},
    GR_ATTR_END};

static const gr_case softplus_cases[] = {
    {.in = "5", .give = "{-1, 0, 2, 1000, -1000}", .want = "{0.313261688, 0.693147181, 2.12692801, 1000, 0}",
     .no_grad = true},
    {.in = "3", .attrs = "beta=2, threshold=5", .give = "{-1, 2, 3}", .want = "{0.0634640055, 2.00907496, 3}"},
    {.in = "3", .attrs = "threshold=1e9", .give = "{1000, -50, 1e6}", .want = "{1000, 1.92874985e-22, 1e6}",
     .no_grad = true},
    {.in = "3,5", .lo = -4, .hi = 4},
    {.in = "3,5", .attrs = "beta=-0.5, threshold=1", .lo = -1.9, .hi = 4},
    {0}};

GR_OP(softplus) = {
    .info = {.name = "softplus", .inputs = "x", .attrs = softplus_schema, .attr_size = sizeof(softplus_attrs),
             .cases = softplus_cases,
             .doc = "log(1 + exp(beta * x)) / beta, a smooth max(x, 0); x itself where beta * x > threshold."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = softplus_shape,
    .forward = softplus_kernels,
    .backward = softplus_rule,
};

/* ---- its derivative as an op ---- */

static void softplus_backward_loop(int64_t n, void *const *p, const void *attrs) {
    const softplus_attrs *a = attrs;
    real *dx = p[0], beta = (real)a->beta, threshold = (real)a->threshold;
    const real *dy = p[1], *x = p[2];
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real v = beta * x[i], z = r_exp_falling(-r_abs(v)), slope = (v < 0 ? z : 1) / (1 + z);
        dx[i] = v > threshold ? dy[i] : dy[i] * slope;
    }
}

static gr_status softplus_backward_forward(gri_call *c) {
    return gri_map(c, softplus_backward_loop, GRI_REAL, NULL, GRI_COST_MATH);
}
GR_KERNEL(softplus_backward);

/* dy where v > threshold, else dy σ(v), in simple ops; the caller releases all of t. */
static gr_status softplus_steps(gri_call *c, gr_tensor **t) {
    const softplus_attrs *a = c->attrs;
    gr_tensor *dy = c->in[0], *x = c->in[1];
    GR_TRY(gr_tensor_scalar(c->ctx, (gr_dtype)x->dtype, a->beta, &t[0]));
    GR_TRY(gr_tensor_scalar(c->ctx, (gr_dtype)x->dtype, a->threshold, &t[1]));
    GR_TRY(GRI_APPLY(c->ctx, &t[2], mul, x, t[0]));
    GR_TRY(GRI_APPLY(c->ctx, &t[3], gt, t[2], t[1]));
    GR_TRY(GRI_APPLY(c->ctx, &t[4], sigmoid, t[2]));
    GR_TRY(GRI_APPLY(c->ctx, &t[5], mul, dy, t[4]));
    return GRI_APPLY(c->ctx, &c->out[0], where, t[3], dy, t[5]);
}

static gr_status softplus_backward_compose(gri_call *c) {
    gr_tensor *t[6] = {0};
    gr_status s = softplus_steps(c, t);
    for (int i = 0; i < 6; i++) gr_release(t[i]);
    return s;
}

static const gr_case softplus_backward_cases[] = {
    {.in = "3 3", .give = "{2, -1, 3}, {1, 0, 21}", .want = "{1.46211716, -0.5, 3}"},
    {.in = "3 3", .attrs = "beta=2, threshold=5", .give = "{2, -1, 3}, {1, 0, 3}", .want = "{1.76159416, -0.5, 3}"},
    {.in = "3,5 3,5", .lo = -4, .hi = 4},
    {.in = "3,5 3,5", .attrs = "beta=-0.5, threshold=1", .lo = -1.9, .hi = 4},
    {0}};

GR_OP(softplus_backward) = {
    .info = {.name = "softplus_backward", .inputs = "dy x", .attrs = softplus_schema,
             .attr_size = sizeof(softplus_attrs), .hidden = true, .cases = softplus_backward_cases,
             .doc = "dy sigmoid(beta x), dy itself where beta x > threshold"},
    .elementwise = true,
    .shape = softplus_shape,
    .forward = softplus_backward_kernels,
    .compose = softplus_backward_compose,
};
