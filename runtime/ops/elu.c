/* y = x where x > 0, else alpha (e^x - 1).  (Clevert, Unterthiner and Hochreiter, ICLR 2016)
 *
 * dy/dx = 1, or alpha e^x: the input is kept. elu_backward(dy, x) = dy dy/dx has the same factor towards dy, and
 * dy alpha e^x where x <= 0, else 0, towards x. */
#include "iter.h"
#include "vmath.h"

typedef struct elu_attrs { double alpha; } elu_attrs;

static void elu_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0], alpha = (real)((const elu_attrs *)attrs)->alpha;
    const real *x = p[1];
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real below = alpha * r_expm1(x[i] > 0 ? 0 : x[i]);
        y[i] = x[i] > 0 ? x[i] : below;
    }
}

static gr_status elu_forward(gri_call *c) { return gri_map(c, elu_loop, GRI_REAL, NULL, GRI_COST_MATH); }
GR_KERNEL(elu);

static gr_status elu_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_elu_backward, 2, GRI_TENSORS(g->dy[0], g->in[0]), g->attrs);
}

static const gr_attr elu_schema[] = {
    {"alpha", GR_ATTR_REAL, offsetof(elu_attrs, alpha), .value = 1}, GR_ATTR_END};

static const gr_case elu_cases[] = {
    {.in = "3", .give = "{-1, 0, 3}", .want = "{-0.632120559, 0, 3}", .no_grad = true},
    {.in = "3", .attrs = "alpha=2", .give = "{-1, -1e-6, 1000}", 
     .want = "{-1.26424112, -1.999999e-6, 1000}", .no_grad = true},
    {.in = "3,5", .lo = -2, .hi = 2, .has_kink = true},
    {.in = "3,5", .attrs = "alpha=0.5", .lo = -2, .hi = 2, .has_kink = true},
    {0}};

GR_OP(elu) = {
    .info = {.name = "elu", .inputs = "x", .attrs = elu_schema, .attr_size = sizeof(elu_attrs), .cases = elu_cases,
             .doc = "x where it is positive, else alpha * (exp(x) - 1)."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = gri_shape_same,
    .forward = elu_kernels,
    .backward = elu_rule,
};

/* ---- its derivative as an op ---- */

static void elu_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0], alpha = (real)((const elu_attrs *)attrs)->alpha;
    const real *dy = p[1], *x = p[2];
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real below = dy[i] * alpha * r_exp_falling(x[i] > 0 ? 0 : x[i]);
        dx[i] = x[i] > 0 ? dy[i] : below;
    }
}

static gr_status elu_backward_forward(gri_call *c) {
    return gri_map(c, elu_backward_loop, GRI_REAL, NULL, GRI_COST_MATH);
}
GR_KERNEL(elu_backward);

static gr_status elu_backward_rule(gri_grad *g) {
    gr_tensor *dy = g->in[0], *x = g->in[1], *t, *zero, *above;
    GR_TRY(gri_emit(g, 0, &gri_op_elu_backward, 2, GRI_TENSORS(g->dy[0], x), g->attrs));
    if (!gri_needs(g, 1)) return GR_OK;
    GR_TRY(gri_scalar(g, &zero, 0));
    GR_TRY(GRI_EVAL(g, &above, gt, x, zero));
    GR_TRY(GRI_EVAL(g, &t, mul, g->dy[0], dy));
    GR_TRY(gri_eval(g, &t, &gri_op_elu_backward, 2, GRI_TENSORS(t, x), g->attrs));
    return GRI_EMIT(g, 1, where, above, zero, t);
}

static const gr_case elu_backward_cases[] = {
    {.in = "3 3", .give = "{2, 3, 4}, {-1, 0, 7}", .want = "{0.735758882, 3, 4}", .no_grad = true},
    {.in = "3,5 3,5", .attrs = "alpha=0.5", .has_kink = true},
    {0}};

GR_OP(elu_backward) = {
    .info = {.name = "elu_backward", .inputs = "dy x", .attrs = elu_schema, .attr_size = sizeof(elu_attrs),
             .hidden = true, .cases = elu_backward_cases, .doc = "dy where x > 0, else dy alpha exp(x)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = elu_backward_kernels,
    .backward = elu_backward_rule,
};
