/* y = x where x > 0, else w x, with w one number, or one for each channel (dim 2 in scripts' counting): x[n,c,…]
 * weight[c] → y[n,c,…].  (He, Zhang, Ren and Sun, ICCV 2015)
 *
 * dy/dx = 1 or w (also at 0), dy/dw = x where x <= 0, summed over what has that w. prelu itself has no rule: where
 * gradients are recorded it is reshape(weight) and prelu_elementwise, which broadcasts, so that all sums are those of
 * broadcasting. x and w are kept. */
#include "iter.h"
#include "vmath.h"

static gr_status prelu_shape(gri_call *c) {
    const gr_tensor *x = c->in[0], *w = c->in[1];
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_want_float(c, 1));
    c->spec[0] = gri_spec_of(x);
    if (w->rank <= 1 && (w->numel == 1 || (x->rank >= 2 && w->numel == x->dims[1]))) return GR_OK;
    if (x->rank < 2)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "weight is %s, but x, %s, has no channels: expected one number",
                       gri_tensor_text(w), gri_tensor_text(x));
    return gr_fail(c->ctx, GR_ERR_SHAPE, "weight is %s, expected [1] or [%lld], one number for each channel of x, %s",
                   gri_tensor_text(w), (long long)x->dims[1], gri_tensor_text(x));
}

static void prelu_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1], *w = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real below = w[i] * x[i];
        y[i] = x[i] > 0 ? x[i] : below;
    }
}

static gr_status prelu_forward(gri_call *c) {
    gr_tensor *x = c->in[0], *w = c->in[1], *spread;
    int rank = w->numel == 1 ? 0 : x->rank - 1;
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK] = {0};
    for (int d = 0; d < rank; d++) dims[d] = d == 0 ? w->numel : 1;
    if (rank) strides[0] = w->strides[0];
    GR_TRY(gri_tensor_view(w, rank, dims, strides, 0, &spread));
    gri_call each = *c;
    each.in = GRI_TENSORS(x, spread);
    gr_status s = gri_map(&each, prelu_loop, GRI_REAL, NULL, GRI_EXACT);
    gr_release(spread);
    return s;
}
GR_KERNEL(prelu);

static gr_status prelu_compose(gri_call *c) {
    gr_tensor *x = c->in[0], *w = c->in[1], *spread;
    GR_TRY(prelu_shape(c));
    gri_shape_attrs a = {.shape = {.n = w->numel == 1 ? 0 : x->rank - 1}};
    for (int d = 0; d < a.shape.n; d++) a.shape.v[d] = d == 0 ? w->numel : 1;
    GR_TRY(gr_apply(c->ctx, &gri_op_reshape, 1, &w, &a, &spread));
    gr_status s = GRI_APPLY(c->ctx, &c->out[0], prelu_elementwise, x, spread);
    gr_release(spread);
    return s;
}

static const gr_case prelu_cases[] = {
    {.in = "3 1", .give = "{-2, 0, 3}, {0.25}", .want = "{-0.5, 0, 3}", .no_grad = true},
    {.in = "2,3 3", .give = "{{-1,-1,-1},{2,2,-2}}, {0.5,2,-1}", .want = "{{-0.5,-2,1},{2,2,2}}"},
    {.in = "3,5 1", .has_kink = true},
    {.in = "3,5 ()", .has_kink = true},
    {.in = "2,3,4 3", .has_kink = true},
    {.in = "4,2,3,2 2", .has_kink = true},
    {.in = "() 1", .has_kink = true},
    {0}};

GR_OP(prelu) = {
    .info = {.name = "prelu", .inputs = "x weight", .cases = prelu_cases,
             .doc = "x where it is positive, else weight * x; weight is one number, or one for each channel, dim 2."},
    .shape = prelu_shape,
    .forward = prelu_kernels,
    .compose = prelu_compose,
};

/* ---- element by element, weight and x broadcasting ---- */

static gr_status prelu_elementwise_forward(gri_call *c) { return gri_map(c, prelu_loop, GRI_REAL, NULL, GRI_EXACT); }
GR_KERNEL(prelu_elementwise);

static gr_status prelu_elementwise_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, prelu_backward, g->dy[0], g->in[0], g->in[1]));
    return GRI_EMIT(g, 1, prelu_backward_weight, g->dy[0], g->in[0]);
}

static const gr_case prelu_elementwise_cases[] = {
    {.in = "2 2", .give = "{-2, 3}, {0.25, 0.5}", .want = "{-0.5, 3}"},
    {.in = "3,5 3,5", .has_kink = true},
    {.in = "2,3,4 3,1", .has_kink = true},
    {0}};

GR_OP(prelu_elementwise) = {
    .info = {.name = "prelu_elementwise", .inputs = "x w", .hidden = true, .cases = prelu_elementwise_cases,
             .doc = "x where x > 0, else w x"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = prelu_elementwise_kernels,
    .backward = prelu_elementwise_rule,
};

/* ---- its derivatives as ops ---- */

static void prelu_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *x = p[2], *w = p[3];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real below = w[i] * dy[i];
        dx[i] = x[i] > 0 ? dy[i] : below;
    }
}

static gr_status prelu_backward_forward(gri_call *c) {
    return gri_map(c, prelu_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(prelu_backward);

/* An input's gradient += a b where x <= 0, else 0. */
static gr_status prelu_below(gri_grad *g, int input, gr_tensor *x, gr_tensor *a, gr_tensor *b) {
    gr_tensor *t, *zero, *above;
    if (!gri_needs(g, input)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &t, mul, a, b));
    GR_TRY(gri_scalar(g, &zero, 0));
    GR_TRY(GRI_EVAL(g, &above, gt, x, zero));
    return GRI_EMIT(g, input, where, above, zero, t);
}

static gr_status prelu_backward_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, prelu_backward, g->dy[0], g->in[1], g->in[2]));
    return prelu_below(g, 2, g->in[1], g->dy[0], g->in[0]);
}

static const gr_case prelu_backward_cases[] = {
    {.in = "3 3 3", .give = "{2, 3, 4}, {-0.5, 0, 7}, {0.5, 0.25, 3}", .want = "{1, 0.75, 4}", .no_grad = true},
    {.in = "3,5 3,5 3,5", .has_kink = true},
    {0}};

GR_OP(prelu_backward) = {
    .info = {.name = "prelu_backward", .inputs = "dy x w", .hidden = true, .cases = prelu_backward_cases,
             .doc = "dy where x > 0, else w dy"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1) | GRI_KEEP_IN(2),
    .shape = gri_shape_broadcast,
    .forward = prelu_backward_kernels,
    .backward = prelu_backward_rule,
};

static void prelu_backward_weight_loop(int64_t n, void *const *p, const void *attrs) {
    real *dw = p[0];
    const real *dy = p[1], *x = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real below = dy[i] * x[i];
        dw[i] = x[i] > 0 ? 0 : below;
    }
}

static gr_status prelu_backward_weight_forward(gri_call *c) {
    return gri_map(c, prelu_backward_weight_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(prelu_backward_weight);

static gr_status prelu_backward_weight_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, prelu_backward_weight, g->dy[0], g->in[1]));
    return prelu_below(g, 1, g->in[1], g->dy[0], g->in[0]);
}

static const gr_case prelu_backward_weight_cases[] = {
    {.in = "3 3", .give = "{2, 3, 4}, {-0.5, 0, 7}", .want = "{-1, 0, 0}", .no_grad = true},
    {.in = "3,5 3,5", .has_kink = true},
    {0}};

GR_OP(prelu_backward_weight) = {
    .info = {.name = "prelu_backward_weight", .inputs = "dy x", .hidden = true, .cases = prelu_backward_weight_cases,
             .doc = "dy x where x <= 0, else 0"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = prelu_backward_weight_kernels,
    .backward = prelu_backward_weight_rule,
};
