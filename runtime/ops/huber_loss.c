/* Quadratic near 0, linear beyond, of d = x - y, element by element; their mean, their sum, or all of them:
 *     huber_loss:      d² / 2              where |d| < delta, else  delta (|d| - delta / 2)
 *     smooth_l1_loss:  d² / (2 beta)       where |d| < beta,  else  |d| - beta / 2;  |d| for beta = 0
 * (Huber, "Robust estimation of a location parameter", Ann. Math. Stat. 35, 1964; Girshick, "Fast R-CNN", ICCV 2015).
 *
 * dx = g clamp(d, -delta, delta), dy = -dx; smooth_l1_loss is huber_loss with delta = beta, over beta. Here g is the
 * gradient arriving, over the number of elements for the mean. Inputs are kept. huber_loss_backward(g, x, y; delta,
 * scale) = scale g clamp(x - y, -delta, delta) is an op of its own. */
#include "loss.h"

typedef struct huber_loss_attrs {
    int64_t reduction;
    double delta; /* or beta */
} huber_loss_attrs;

typedef struct huber_loss_backward_attrs { double delta, scale; } huber_loss_backward_attrs;

static gr_status huber_loss_shape(gri_call *c) {
    double delta = ((const huber_loss_attrs *)c->attrs)->delta;
    if (!(delta > 0)) return gr_fail(c->ctx, GR_ERR_ARG, "delta is %g, expected more than 0", delta);
    return gri_loss_shape(c);
}

static void huber_loss_loop(int64_t n, void *const *p, const void *attrs) {
    real *loss = p[0], delta = (real)((const huber_loss_attrs *)attrs)->delta;
    const real *x = p[1], *y = p[2];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real d = r_abs(x[i] - y[i]);
        loss[i] = d < delta ? d * d / 2 : delta * (d - delta / 2);
    }
}

static gr_status huber_loss_forward(gri_call *c) { return gri_loss_run(c, huber_loss_loop, GRI_EXACT); }
GR_KERNEL(huber_loss);

static gr_status huber_loss_both(gri_grad *g, const gr_op *op, const void *attrs) {
    GR_TRY(gri_emit(g, 0, op, 3, GRI_TENSORS(g->dy[0], g->in[0], g->in[1]), attrs));
    return gri_emit(g, 1, op, 3, GRI_TENSORS(g->dy[0], g->in[1], g->in[0]), attrs);
}

static gr_status huber_loss_rule(gri_grad *g) {
    const huber_loss_attrs *a = g->attrs;
    huber_loss_backward_attrs b = {.delta = a->delta, .scale = gri_loss_scale(g->in[0], a->reduction)};
    return huber_loss_both(g, &gri_op_huber_loss_backward, &b);
}

static const gr_attr huber_loss_schema[] = {
    GRI_REDUCTION(huber_loss_attrs),
    {"delta", GR_ATTR_REAL, offsetof(huber_loss_attrs, delta), .value = 1},
    GR_ATTR_END};

static const gr_case huber_loss_cases[] = {
    {.in = "4 4", .attrs = "delta=2", .give = "{1,0,3,-3}, {0,0,0,1}", .want = "2.625"},
    {.in = "2,2 2,2", .attrs = "reduction='none'", .give = "{{0.5,3},{-0.5,-2}}, {{0,0},{0,0}}",
     .want = "{{0.125,2.5},{0.125,1.5}}"},
    {.in = "3,4,5 3,4,5", .lo = -1.3, .hi = 1.3},
    {.in = "3,5 3,5", .attrs = "reduction='sum', delta=0.4"},
    {.in = "7 7", .attrs = "reduction='none', delta=0.7"},
    {0}};

GR_OP(huber_loss) = {
    .info = {.name = "huber_loss", .inputs = "x y", .attrs = huber_loss_schema, .attr_size = sizeof(huber_loss_attrs),
             .cases = huber_loss_cases,
             .doc = "(x - y)² / 2 of two tensors of one shape, but delta (|x - y| - delta/2) where |x - y| is not\n"
                    "less than delta. reduction: \"mean\", \"sum\" or \"none\"."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = huber_loss_shape,
    .forward = huber_loss_kernels,
    .backward = huber_loss_rule,
};

/* ---- smooth_l1_loss ---- */

static gr_status smooth_l1_loss_shape(gri_call *c) {
    double beta = ((const huber_loss_attrs *)c->attrs)->delta;
    if (!(beta >= 0)) return gr_fail(c->ctx, GR_ERR_ARG, "beta is %g, expected at least 0", beta);
    return gri_loss_shape(c);
}

static void smooth_l1_loss_loop(int64_t n, void *const *p, const void *attrs) {
    real *loss = p[0], beta = (real)((const huber_loss_attrs *)attrs)->delta, half = 1 / (2 * beta);
    const real *x = p[1], *y = p[2];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real d = r_abs(x[i] - y[i]);
        loss[i] = d < beta ? d * d * half : d - beta / 2;
    }
}

static gr_status smooth_l1_loss_forward(gri_call *c) { return gri_loss_run(c, smooth_l1_loss_loop, GRI_EXACT); }
GR_KERNEL(smooth_l1_loss);

static gr_status smooth_l1_loss_rule(gri_grad *g) {
    const huber_loss_attrs *a = g->attrs;
    double scale = gri_loss_scale(g->in[0], a->reduction);
    if (a->delta == 0) return huber_loss_both(g, &gri_op_l1_loss_backward, &scale);
    huber_loss_backward_attrs b = {.delta = a->delta, .scale = scale / a->delta};
    return huber_loss_both(g, &gri_op_huber_loss_backward, &b);
}

static const gr_attr smooth_l1_loss_schema[] = {
    GRI_REDUCTION(huber_loss_attrs),
    {"beta", GR_ATTR_REAL, offsetof(huber_loss_attrs, delta), .value = 1},
    GR_ATTR_END};

static const gr_case smooth_l1_loss_cases[] = {
    {.in = "4 4", .attrs = "beta=2", .give = "{1,0,3,-3}, {0,0,0,1}", .want = "1.3125"},
    {.in = "2 2", .attrs = "beta=0, reduction='none'", .give = "{1,-3}, {0,0}", .want = "{1,3}"},
    {.in = "3,4,5 3,4,5", .lo = -1.3, .hi = 1.3},
    {.in = "3,5 3,5", .attrs = "reduction='sum', beta=0.4"},
    {0}};

GR_OP(smooth_l1_loss) = {
    .info = {.name = "smooth_l1_loss", .inputs = "x y", .attrs = smooth_l1_loss_schema,
             .attr_size = sizeof(huber_loss_attrs), .cases = smooth_l1_loss_cases,
             .doc = "|x - y| - beta/2 of two tensors of one shape, but (x - y)² / (2 beta) where |x - y| is less\n"
                    "than beta. reduction: \"mean\", \"sum\" or \"none\"."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = smooth_l1_loss_shape,
    .forward = smooth_l1_loss_kernels,
    .backward = smooth_l1_loss_rule,
};

/* ---- their derivative as an op ----
 * z = s g clamp(d):  dz/dg = s clamp(d),  dz/dx = s g where |d| <= delta,  dz/dy = -dz/dx. */

static void huber_loss_backward_loop(int64_t n, void *const *p, const void *attrs) {
    const huber_loss_backward_attrs *a = attrs;
    real *dx = p[0], scale = (real)a->scale, delta = (real)a->delta;
    const real *g = p[1], *x = p[2], *y = p[3];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real d = x[i] - y[i], low = d < -delta ? -delta : d;
        dx[i] = scale * g[i] * (low > delta ? delta : low);
    }
}

static gr_status huber_loss_backward_forward(gri_call *c) {
    return gri_map(c, huber_loss_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(huber_loss_backward);

static gr_status huber_loss_backward_rule(gri_grad *g) {
    const huber_loss_backward_attrs *a = g->attrs;
    gr_tensor *d, *t, *scale;
    double bounds[] = {-a->delta, a->delta}; /* clamp's min and max */
    GR_TRY(gri_emit(g, 0, &gri_op_huber_loss_backward, 3, GRI_TENSORS(g->dy[0], g->in[1], g->in[2]), a));
    if (!gri_needs(g, 1) && !gri_needs(g, 2)) return GR_OK;
    GR_TRY(gri_scalar(g, &scale, a->scale));
    GR_TRY(GRI_EVAL(g, &t, mul, g->in[0], scale));
    GR_TRY(GRI_EVAL(g, &t, mul, g->dy[0], t));
    GR_TRY(GRI_EVAL(g, &d, sub, g->in[1], g->in[2]));
    GR_TRY(gri_eval(g, &t, &gri_op_clamp_backward, 2, GRI_TENSORS(t, d), bounds));
    GR_TRY(gri_emit_same(g, 1, t));
    return GRI_EMIT(g, 2, neg, t);
}

static const gr_attr huber_loss_backward_schema[] = {
    {"delta", GR_ATTR_REAL, offsetof(huber_loss_backward_attrs, delta), .value = 1},
    {"scale", GR_ATTR_REAL, offsetof(huber_loss_backward_attrs, scale), .value = 1},
    GR_ATTR_END};

static const gr_case huber_loss_backward_cases[] = {
    {.in = "() 3 3", .attrs = "delta=2, scale=0.5", .give = "2, {3,4,-6}, {2,1,1}", .want = "{1,2,-2}"},
    {.in = "3,5 3,5 3,5", .attrs = "delta=0.6", .lo = -1, .hi = 1},
    {0}};

GR_OP(huber_loss_backward) = {
    .info = {.name = "huber_loss_backward", .inputs = "g x y", .attrs = huber_loss_backward_schema,
             .attr_size = sizeof(huber_loss_backward_attrs), .hidden = true, .cases = huber_loss_backward_cases,
             .doc = "scale g clamp(x - y, -delta, delta)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1) | GRI_KEEP_IN(2),
    .shape = gri_shape_broadcast,
    .forward = huber_loss_backward_kernels,
    .backward = huber_loss_backward_rule,
};
