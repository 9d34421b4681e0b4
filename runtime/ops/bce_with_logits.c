/* binary_cross_entropy_with_logits: with s(x) = ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), element by element
 *     loss = weight (target pos_weight s(-x) + (1 - target) s(x));
 * their mean, their sum, or all of them. x and target are of one shape; weight and pos_weight, 1 where absent,
 * broadcast to it: pos_weight[c] for x[n,c]. The mean is over the elements, whatever their weights.
 *
 * With σ(x) = 1 / (1 + e^-x), and g the gradient arriving, over the number of elements for the mean,
 *     dx = g weight ((1 - target) σ(x) - target pos_weight σ(-x)),
 *     dtarget = g weight (pos_weight s(-x) - s(x)),  dpos_weight = g weight target s(-x),  dweight = g loss / weight,
 * dx by an op of its own, whose derivative runs through its `compose`, the others by simpler ops. All inputs are
 * kept. */
#include "loss.h"

enum { BCE_X, BCE_TARGET, BCE_WEIGHT, BCE_POS_WEIGHT, BCE_INPUTS };

/* weight and pos_weight must leave x's shape as it is. */
static gr_status bce_with_logits_check(gri_call *c, int i, const char *name) {
    const gr_tensor *x = c->in[BCE_X], *t = c->n_in > i ? c->in[i] : NULL;
    gri_spec s = gri_spec_of(x);
    if (!t) return GR_OK;
    GR_TRY(gri_want_float(c, i));
    bool fits = gri_broadcast(&s.rank, s.dims, t->rank, t->dims);
    if (!fits || !gri_same_dims(s.rank, s.dims, x->rank, x->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is %s, which does not broadcast to x %s", name, gri_tensor_text(t),
                       gri_tensor_text(x));
    return GR_OK;
}

static gr_status bce_with_logits_shape(gri_call *c) {
    GR_TRY(gri_loss_shape_target(c));
    GR_TRY(bce_with_logits_check(c, BCE_WEIGHT, "weight"));
    return bce_with_logits_check(c, BCE_POS_WEIGHT, "pos_weight");
}

static void bce_with_logits_loop(int64_t n, void *const *p, const void *attrs) {
    real *loss = p[0];
    const real *x = p[1], *t = p[2], *weight = p[3], *pos_weight = p[4];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real s = r_log1p(r_exp(-r_abs(x[i])));
        real above = (x[i] > 0 ? x[i] : 0) + s, below = (x[i] > 0 ? 0 : -x[i]) + s;
        loss[i] = weight[i] * (t[i] * pos_weight[i] * below + (1 - t[i]) * above);
    }
}

static gr_status bce_with_logits_forward(gri_call *c) {
    gr_tensor *in[BCE_INPUTS], *one;
    gri_call all = *c;
    GR_TRY(gr_tensor_scalar(c->ctx, GRI_REAL, 1, &one));
    for (int i = 0; i < BCE_INPUTS; i++) in[i] = i < c->n_in && c->in[i] ? c->in[i] : one;
    all.in = in;
    all.n_in = BCE_INPUTS;
    gr_status s = gri_loss_run(&all, bce_with_logits_loop, 2 * GRI_COST_MATH);
    gr_release(one);
    return s;
}
GR_KERNEL(bce_with_logits);

/* seed: g weight; minus_s = -s(-x), which is logsigmoid(x) */
static gr_status bce_with_logits_to_target(gri_grad *g, gr_tensor *seed, gr_tensor *minus_s, gr_tensor *pos_weight) {
    gr_tensor *t, *sum;
    if (!gri_needs(g, BCE_TARGET)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &t, mul, minus_s, pos_weight)); /* pos_weight s(-x) - s(x), as s(x) = x + s(-x) */
    GR_TRY(GRI_EVAL(g, &sum, sub, minus_s, g->in[BCE_X]));
    GR_TRY(GRI_EVAL(g, &t, sub, sum, t));
    return GRI_EMIT(g, BCE_TARGET, mul, seed, t);
}

/* plain: g alone */
static gr_status bce_with_logits_to_weights(gri_grad *g, gr_tensor *plain, gr_tensor *seed, gr_tensor *minus_s) {
    gr_tensor *t, *in[BCE_INPUTS] = {g->in[BCE_X], g->in[BCE_TARGET]};
    if (g->n_in > BCE_POS_WEIGHT) in[BCE_POS_WEIGHT] = g->in[BCE_POS_WEIGHT];
    if (gri_needs(g, BCE_WEIGHT)) {
        gri_loss_attrs none = {GRI_NONE};
        GR_TRY(gri_eval(g, &t, &gri_op_bce_with_logits, BCE_INPUTS, in, &none));
        GR_TRY(GRI_EMIT(g, BCE_WEIGHT, mul, plain, t));
    }
    if (!gri_needs(g, BCE_POS_WEIGHT)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &t, mul, g->in[BCE_TARGET], minus_s));
    GR_TRY(GRI_EVAL(g, &t, neg, t));
    return GRI_EMIT(g, BCE_POS_WEIGHT, mul, seed, t);
}

static gr_status bce_with_logits_rule(gri_grad *g) {
    gr_tensor *x = g->in[BCE_X], *plain, *seed, *scale, *minus_s;
    gr_tensor *weight = g->n_in > BCE_WEIGHT ? g->in[BCE_WEIGHT] : NULL;
    gr_tensor *pos_weight = g->n_in > BCE_POS_WEIGHT ? g->in[BCE_POS_WEIGHT] : NULL;
    GR_TRY(gri_scalar(g, &scale, gri_loss_scale(x, gri_loss_reduction(g->attrs))));
    GR_TRY(GRI_EVAL(g, &plain, mul, g->dy[0], scale));
    seed = plain;
    if (weight) GR_TRY(GRI_EVAL(g, &seed, mul, plain, weight));
    if (!pos_weight) GR_TRY(gri_scalar(g, &pos_weight, 1));
    GR_TRY(GRI_EMIT(g, BCE_X, bce_with_logits_backward, seed, x, g->in[BCE_TARGET], pos_weight));
    if (!gri_needs(g, BCE_TARGET) && !gri_needs(g, BCE_WEIGHT) && !gri_needs(g, BCE_POS_WEIGHT)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &minus_s, logsigmoid, x));
    GR_TRY(bce_with_logits_to_target(g, seed, minus_s, pos_weight));
    return bce_with_logits_to_weights(g, plain, seed, minus_s);
}

static const gr_attr bce_with_logits_schema[] = {GRI_REDUCTION(gri_loss_attrs), GR_ATTR_END};

static const gr_case bce_with_logits_cases[] = {
    {.in = "3 3", .attrs = "reduction='none'", .give = "{0,2,-1}, {1,1,0.25}",
     .want = "{0.693147181,0.126928011,0.563261688}"},
    {.in = "2 2", .attrs = "reduction='sum'", .give = "{200,-200}, {0,1}", .want = "400"},
    {.in = "2,2 2,2 2,1 2", .give = "{{0,0},{0,0}}, {{1,0},{0,1}}, {{1},{2}}, {3,1}", .want = "1.38629436"},
    {.in = "5,7 5,7", .lo = -3, .hi = 3},
    {.in = "4,3 4,3 4,3 3", .attrs = "reduction='sum'", .lo = 0.1, .hi = 2},
    {.in = "2,3,4 2,3,4 - 4", .attrs = "reduction='none'", .lo = 0.1, .hi = 2},
    {.in = "6 6 6 -", .lo = 0.1, .hi = 2},
    {0}};

GR_OP(bce_with_logits) = {
    .info = {.name = "binary_cross_entropy_with_logits", .inputs = "x target weight? pos_weight?",
             .attrs = bce_with_logits_schema, .attr_size = sizeof(gri_loss_attrs), .cases = bce_with_logits_cases,
             .doc = "Loss of yes and no: -log sigmoid(x) where target is 1, -log(1 - sigmoid(x)) where it is 0, and\n"
                    "their mixture between. weight multiplies elements, pos_weight the part of target. reduction:\n"
                    "\"mean\", \"sum\" or \"none\"."},
    .keeps = GRI_KEEP_ALL_IN,
    .shape = bce_with_logits_shape,
    .forward = bce_with_logits_kernels,
    .backward = bce_with_logits_rule,
};

/* ---- its derivative as an op ---- */

static void bce_with_logits_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *g = p[1], *x = p[2], *t = p[3], *pos_weight = p[4];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real z = r_exp(-r_abs(x[i])), near = 1 / (1 + z), far = z * near; /* σ(|x|), σ(-|x|) */
        real above = x[i] < 0 ? far : near, below = x[i] < 0 ? near : far;
        dx[i] = g[i] * ((1 - t[i]) * above - t[i] * pos_weight[i] * below);
    }
}

static gr_status bce_with_logits_backward_forward(gri_call *c) {
    return gri_map(c, bce_with_logits_backward_loop, GRI_REAL, NULL, GRI_COST_MATH);
}
GR_KERNEL(bce_with_logits_backward);

typedef struct bce_with_logits_temps {
    gr_tensor *above, *minus, *below, *one, *rest, *no, *yes, *both, *sum;
} bce_with_logits_temps;

static gr_status bce_with_logits_composed(gri_call *c, bce_with_logits_temps *v) {
    gr_ctx *ctx = c->ctx;
    gr_tensor *g = c->in[0], *x = c->in[1], *t = c->in[2], *pos_weight = c->in[3];
    GR_TRY(GRI_APPLY(ctx, &v->above, sigmoid, x));
    GR_TRY(GRI_APPLY(ctx, &v->minus, neg, x));
    GR_TRY(GRI_APPLY(ctx, &v->below, sigmoid, v->minus));
    GR_TRY(gr_tensor_scalar(ctx, (gr_dtype)x->dtype, 1, &v->one));
    GR_TRY(GRI_APPLY(ctx, &v->rest, sub, v->one, t));
    GR_TRY(GRI_APPLY(ctx, &v->no, mul, v->rest, v->above));
    GR_TRY(GRI_APPLY(ctx, &v->yes, mul, t, v->below));
    GR_TRY(GRI_APPLY(ctx, &v->both, mul, v->yes, pos_weight));
    GR_TRY(GRI_APPLY(ctx, &v->sum, sub, v->no, v->both));
    return GRI_APPLY(ctx, &c->out[0], mul, g, v->sum);
}

static gr_status bce_with_logits_backward_compose(gri_call *c) {
    union {
        bce_with_logits_temps named;
        gr_tensor *all[sizeof(bce_with_logits_temps) / sizeof(gr_tensor *)];
    } v = {0};
    gr_status s = bce_with_logits_composed(c, &v.named);
    for (size_t i = 0; i < sizeof v.all / sizeof *v.all; i++) gr_release(v.all[i]);
    return s;
}

static const gr_case bce_with_logits_backward_cases[] = {
    {.in = "() 3 3 ()", .give = "2, {0,0,-100}, {1,0,1}, 3", .want = "{-3,1,-6}"},
    {.in = "3,5 3,5 3,5 3,5", .lo = -2, .hi = 2},
    {0}};

GR_OP(bce_with_logits_backward) = {
    .info = {.name = "bce_with_logits_backward", .inputs = "g x target pos_weight", .hidden = true,
             .cases = bce_with_logits_backward_cases,
             .doc = "g ((1 - target) sigmoid(x) - target pos_weight sigmoid(-x))"},
    .elementwise = true,
    .shape = gri_shape_broadcast_float,
    .forward = bce_with_logits_backward_kernels,
    .compose = bce_with_logits_backward_compose,
};
