/* Kullback-Leibler divergence of distributions from log-probabilities x to targets t, element by element:
 *     t ln t - t x, or e^t (t - x) with log_target;  0 ln 0 = 0;
 * their mean, their sum, their sum over the first dim's size (batchmean: the divergence as mathematics has it), or
 * all of them.
 *
 * dx = -g t, dt = g (ln t + 1 - x), or with log_target dx = -g e^t, dt = g e^t (t + 1 - x), where g is the gradient
 * arriving, divided as the reduction says. Inputs are kept. */
#include "loss.h"

typedef struct kl_div_attrs {
    int64_t reduction;
    bool log_target;
} kl_div_attrs;

static gr_status kl_div_shape(gri_call *c) {
    if (gri_loss_reduction(c->attrs) == GRI_BATCHMEAN && c->in[0]->rank == 0)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "x is a scalar: reduction \"batchmean\" needs a dimension of samples");
    return gri_loss_shape_target(c);
}

static void kl_div_loop(int64_t n, void *const *p, const void *attrs) {
    real *loss = p[0];
    const real *x = p[1], *t = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real entropy = t[i] * r_log(t[i]);
        loss[i] = (t[i] == 0 ? 0 : entropy) - t[i] * x[i];
    }
}

static void kl_div_log_loop(int64_t n, void *const *p, const void *attrs) {
    real *loss = p[0];
    const real *x = p[1], *t = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) loss[i] = r_exp(t[i]) * (t[i] - x[i]);
}

static gr_status kl_div_forward(gri_call *c) {
    bool log_target = ((const kl_div_attrs *)c->attrs)->log_target;
    return gri_loss_run(c, log_target ? kl_div_log_loop : kl_div_loop, GRI_COST_MATH);
}
GR_KERNEL(kl_div);

static gr_status kl_div_rule(gri_grad *g) {
    const kl_div_attrs *a = g->attrs;
    gr_tensor *x = g->in[0], *t = g->in[1], *scale, *seed, *one, *p = t, *slope = t;
    GR_TRY(gri_scalar(g, &scale, gri_loss_scale(x, a->reduction)));
    GR_TRY(GRI_EVAL(g, &seed, mul, g->dy[0], scale));
    if (a->log_target) GR_TRY(GRI_EVAL(g, &p, exp, t));
    if (gri_needs(g, 0)) {
        gr_tensor *minus;
        GR_TRY(GRI_EVAL(g, &minus, neg, seed));
        GR_TRY(GRI_EMIT(g, 0, mul, minus, p));
    }
    if (!gri_needs(g, 1)) return GR_OK;
    GR_TRY(gri_scalar(g, &one, 1));
    if (!a->log_target) GR_TRY(GRI_EVAL(g, &slope, log, t));
    GR_TRY(GRI_EVAL(g, &slope, sub, slope, x));
    GR_TRY(GRI_EVAL(g, &slope, add, slope, one));
    if (a->log_target) GR_TRY(GRI_EVAL(g, &slope, mul, slope, p));
    return GRI_EMIT(g, 1, mul, seed, slope);
}

static const gr_attr kl_div_schema[] = {
    {"reduction", GR_ATTR_WORD, offsetof(kl_div_attrs, reduction), .words = "mean sum none batchmean"},
    {"log_target", GR_ATTR_BOOL, offsetof(kl_div_attrs, log_target), .required = false},
    GR_ATTR_END};

static const gr_case kl_div_cases[] = {
    {.in = "2,2 2,2", .attrs = "reduction='batchmean'", .give = "{{-1,-2},{-1,-1}}, {{0.5,0.5},{0,1}}",
     .want = "0.903426410", .no_grad = true},
    {.in = "2 2", .attrs = "reduction='none', log_target=true", .give = "{-1,-2}, {0,-1}", .want = "{1,0.367879441}"},
    {.in = "3,4,5 3,4,5", .lo = 0.1, .hi = 1},
    {.in = "3,5 3,5", .attrs = "reduction='sum', log_target=true", .lo = -2, .hi = 0},
    {.in = "4,3 4,3", .attrs = "reduction='batchmean'", .lo = 0.1, .hi = 1},
    {.in = "7 7", .attrs = "reduction='none'", .lo = 0.1, .hi = 1},
    {0}};

GR_OP(kl_div) = {
    .info = {.name = "kl_div", .inputs = "x target", .attrs = kl_div_schema, .attr_size = sizeof(kl_div_attrs),
             .cases = kl_div_cases,
             .doc = "target (log target - x), the Kullback-Leibler divergence of log-probabilities x from\n"
                    "probabilities target, or log-probabilities if log_target is true. reduction: \"mean\" over all\n"
                    "elements, \"batchmean\" over the first dimension, \"sum\" or \"none\"."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = kl_div_shape,
    .forward = kl_div_kernels,
    .backward = kl_div_rule,
};
