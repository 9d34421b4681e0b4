/* The recurrence of a gated recurrent unit (Cho et al., "Learning phrase representations using RNN encoder-decoder
 * for statistical machine translation", EMNLP 2014), in the form of cuDNN and PyTorch, where the reset gate acts
 * after the product:
 *     p = h[t-1] weight_hhᵀ + bias_hh,   r, z = σ(x_r[t] + p_r), σ(x_z[t] + p_z),   q = p_n,
 *     n = tanh(x_n[t] + r q),   h[t] = (1 - z) n + z h[t-1].
 *
 *     x[t,n,3h] weight_hh[3h,h] bias_hh[3h]? h0[n,h]? → y[t,n,h] (all h), gates[t,n,4h] (r, z, n and q)
 *
 * x are the products of the layer's input with its weights, bias_ih added, made for all steps at once by linear. With
 * reverse, time runs from the last step to the first.
 *
 * gru_backward runs the other way: with dh = dy[t] + z dh[t+1] + dp[t+1] weight_hh it makes dx[t] and dp[t], which
 * differ in the part of n, and what h0 gets through z. From dp come dbias_hh = Σ dp, dweight_hh = Σ dp[t]ᵀ h[t-1],
 * one product, and the rest of dh0 = dp[first] weight_hh. Kept: weight_hh, h0, y, gates. Its own derivative runs
 * through its `compose`, step by step; there y and gates are variables of their own, so both take gradients. */
#include "recurrence.h"
#include "terms.h"

typedef struct gru_job {
    const real *x, *bias, *h0, *dy, *dgates;
    real *y, *gates, *dx, *dp, *dh;
} gru_job;

/* ---- forward ---- */

static gr_status gru_shape(gri_call *c) {
    GR_TRY(gri_recurrence_check(c, 1, 3, 0, "x", 3));
    int64_t n = c->in[0]->dims[1], h = c->in[1]->dims[1];
    GR_TRY(gri_recurrence_want(c, 2, "bias_hh", 1, (int64_t[]){3 * h}));
    GR_TRY(gri_recurrence_want(c, 3, "h0", 2, (int64_t[]){n, h}));
    c->spec[0] = c->spec[1] = gri_spec_of(c->in[0]);
    c->spec[0].dims[2] = h;
    c->spec[1].dims[2] = 4 * h;
    return GR_OK;
}

static inline void gru_loop(int64_t count, void *const *p, const void *attrs) {
    real *r = p[0], *z = p[1], *n = p[2], *q = p[3], *y = p[4], *h = p[5];
    const real *pr = p[6], *pz = p[7], *pn = p[8], *xr = p[9], *xz = p[10], *xn = p[11];
    const real *br = p[12], *bz = p[13], *bn = p[14], *before = p[15];
    (void)attrs;
#pragma omp simd
    for (int64_t k = 0; k < GRI_RUN(count); k++) {
        r[k] = r_sigmoid(xr[k] + (pr[k] + br[k]));
        z[k] = r_sigmoid(xz[k] + (pz[k] + bz[k]));
        q[k] = pn[k] + bn[k];
        n[k] = r_tanh(xn[k] + r[k] * q[k]);
        h[k] = y[k] = (1 - z[k]) * n[k] + z[k] * before[k];
    }
}

static void gru_cell(void *arg, const gri_cell_place *p) {
    const gru_job *j = arg;
    gri_cell_rows c = {0};
    gri_cell_blocks_out(&c, p, j->gates, 4);
    gri_cell_blocks_out(&c, p, j->y, 1);
    gri_cell_next(&c, p, 1);
    gri_cell_product(&c, p, 3);
    gri_cell_blocks_in(&c, p, j->x, 3);
    for (int64_t b = 0; b < 3; b++) gri_cell_in(&c, j->bias ? j->bias + b * p->hidden + p->unit : NULL, 0);
    gri_cell_before(&c, p, j->y, j->h0);
    gri_cell_run(&c, gru_loop, p);
}

static gr_status gru_kernel(gri_call *c) {
    const gr_tensor *x = c->in[0], *bias = c->n_in > 2 ? c->in[2] : NULL, *h0 = c->n_in > 3 ? c->in[3] : NULL;
    gru_job j = {.x = gri_cell_data(x), .bias = gri_cell_data(bias), .h0 = gri_cell_data(h0),
                 .y = gri_cell_data(c->out[0]), .gates = gri_cell_data(c->out[1])};
    gri_recurrence r = {.ctx = c->ctx, .weight = c->in[1], .initial = h0, .steps = x->dims[0], .batch = x->dims[1],
                        .forward = true, .reverse = ((const gri_recurrent_attrs *)c->attrs)->reverse};
    return gri_recurrence_run(&r, gru_cell, &j);
}

static gr_status gru_forward(gri_call *c) { return gri_dense(c, gru_kernel); }
GR_KERNEL(gru);

static gr_status gru_rule(gri_grad *g) {
    const gri_recurrent_attrs *a = g->attrs;
    gr_tensor *h0 = g->n_in > 3 ? g->in[3] : NULL, *made[3];
    gr_tensor *in[] = {g->in[1], g->out[0], g->out[1], h0, g->dy[0], g->dy[1]};
    GR_TRY(gri_eval(g, made, &gri_op_gru_backward, 6, in, a));
    GR_TRY(gri_emit_same(g, 0, made[0]));
    GR_TRY(gri_emit_same(g, 3, made[2]));
    if (gri_needs(g, 2)) {
        gri_shape_attrs bias = {.shape = {.n = 1, .v = {made[1]->dims[2]}}};
        GR_TRY(gri_emit(g, 2, &gri_op_sum_to, 1, &made[1], &bias));
    }
    return gri_recurrence_emit(g, made[1], 3, a->reverse);
}

static const gr_attr gru_schema[] = {
    {"reverse", GR_ATTR_BOOL, offsetof(gri_recurrent_attrs, reverse), .required = false}, GR_ATTR_END};

static const gr_case gru_cases[] = {
    {.in = "2,1,3 3,1 3 1,1", .give = "{{{1,0,-1}},{{0,1,1}}}, {{1},{-1},{2}}, {0.1,-0.2,0.3}, {{0.5}}",
     .want = "{{{0.220325404}},{{0.461278274}}}, "
             "{{{0.832018385,0.331812228,0.0814431104,1.3}},{{0.579403554,0.640992527,0.891489343,0.740650809}}}",
     .tol = 4e-6}, /* -1 + 0.832 · 1.3 in the third */
    {.in = "3,2,6 6,2 6 2,2"},
    {.in = "3,2,6 6,2 6 2,2", .attrs = "reverse=true"},
    {.in = "2,3,9 9,3"},
    {.in = "1,2,6 6,2 - 2,2"},
    {.in = "2,1,105 105,35 105", .no_grad = true},
    {.in = "2,0,6 6,2 6 0,2"},
    {0}};

GR_OP(gru) = {
    .info = {.name = "gru", .inputs = "x weight_hh bias_hh? h0?", .attrs = gru_schema,
             .attr_size = sizeof(gri_recurrent_attrs), .hidden = true, .cases = gru_cases,
             .doc = "The recurrence of GRU: h and the gates of all steps of x [steps,batch,3*hidden]"},
    .n_out = 2,
    .keeps = GRI_KEEP_IN(1) | GRI_KEEP_IN(3) | GRI_KEEP_OUT(0) | GRI_KEEP_OUT(1),
    .sets_only = true,
    .shape = gru_shape,
    .forward = gru_kernels,
    .backward = gru_rule,
};

/* ---- its derivative as an op ---- */

enum { GRU_WEIGHT, GRU_Y, GRU_GATES, GRU_H0, GRU_DY, GRU_DGATES };

static gr_status gru_backward_shape(gri_call *c) {
    const gr_tensor *w = c->in[GRU_WEIGHT], *y = c->in[GRU_Y];
    GR_TRY(gri_recurrence_check(c, GRU_WEIGHT, 3, GRU_Y, "y", 1));
    int64_t n = y->dims[1], h = w->dims[1], wide[] = {y->dims[0], n, 4 * h};
    GR_TRY(gri_recurrence_want(c, GRU_GATES, "gates", 3, wide));
    GR_TRY(gri_recurrence_want(c, GRU_H0, "h0", 2, (int64_t[]){n, h}));
    GR_TRY(gri_recurrence_want(c, GRU_DY, "dy", 3, y->dims));
    GR_TRY(gri_recurrence_want(c, GRU_DGATES, "dgates", 3, wide));
    c->spec[0] = c->spec[1] = gri_spec_of(y);
    c->spec[0].dims[2] = c->spec[1].dims[2] = 3 * h;
    c->spec[2] = (gri_spec){.dtype = (gr_dtype)w->dtype, .rank = 2, .dims = {n, h}};
    return GR_OK;
}

static inline void gru_backward_loop(int64_t count, void *const *p, const void *attrs) {
    real *xr = p[0], *xz = p[1], *xn = p[2], *pr = p[3], *pz = p[4], *pq = p[5], *sr = p[6], *sz = p[7], *sq = p[8];
    real *carry = p[9];
    const real *product = p[10], *dy = p[11], *later = p[12], *r = p[13], *z = p[14], *n = p[15], *q = p[16];
    const real *er = p[17], *ez = p[18], *en = p[19], *eq = p[20], *before = p[21];
    (void)attrs;
#pragma omp simd
    for (int64_t k = 0; k < GRI_RUN(count); k++) {
        real dh = dy[k] + product[k] + later[k];
        real dn = (dh * (1 - z[k]) + en[k]) * (1 - n[k] * n[k]);
        xn[k] = dn;
        sr[k] = pr[k] = xr[k] = (dn * q[k] + er[k]) * r[k] * (1 - r[k]);
        sz[k] = pz[k] = xz[k] = (dh * (before[k] - n[k]) + ez[k]) * z[k] * (1 - z[k]);
        sq[k] = pq[k] = dn * r[k] + eq[k];
        carry[k] = dh * z[k];
    }
}

/* dh holds, before the step, what comes from the later one through z, and after it what goes to the earlier one. */
static void gru_backward_cell(void *arg, const gri_cell_place *p) {
    const gru_job *j = arg;
    gri_cell_rows c = {0};
    real *dh = gri_cell_at(p, j->dh, 0, 1, 0);
    gri_cell_blocks_out(&c, p, j->dx, 3);
    gri_cell_blocks_out(&c, p, j->dp, 3);
    gri_cell_next(&c, p, 3);
    gri_cell_out(&c, dh, p->hidden);
    gri_cell_product(&c, p, 1);
    gri_cell_blocks_in(&c, p, j->dy, 1);
    gri_cell_in(&c, dh, p->hidden);
    gri_cell_blocks_in(&c, p, j->gates, 4);
    gri_cell_blocks_in(&c, p, j->dgates, 4);
    gri_cell_before(&c, p, j->y, j->h0);
    gri_cell_run(&c, gru_backward_loop, p);
}

static gr_status gru_backward_kernel(gri_call *c) {
    const gr_tensor *y = c->in[GRU_Y], *in[GRU_DGATES + 1] = {0};
    for (int i = 0; i < c->n_in; i++) in[i] = c->in[i];
    gru_job j = {.y = gri_cell_data(y), .gates = gri_cell_data(in[GRU_GATES]), .h0 = gri_cell_data(in[GRU_H0]),
                 .dy = gri_cell_data(in[GRU_DY]), .dgates = gri_cell_data(in[GRU_DGATES]),
                 .dx = gri_cell_data(c->out[0]), .dp = gri_cell_data(c->out[1]), .dh = gri_cell_data(c->out[2])};
    gri_recurrence r = {.ctx = c->ctx, .weight = in[GRU_WEIGHT], .steps = y->dims[0], .batch = y->dims[1],
                        .reverse = ((const gri_recurrent_attrs *)c->attrs)->reverse};
    GR_TRY(gri_zero(c->ctx, c->out[2]));
    return gri_recurrence_run(&r, gru_backward_cell, &j);
}

static gr_status gru_backward_forward(gri_call *c) { return gri_dense(c, gru_backward_kernel); }
GR_KERNEL(gru_backward);

/* ---- the same step by step ---- */

typedef struct gru_compose {
    gri_terms v;
    gr_tensor *zero, *in[GRU_DGATES + 1]; /* absent inputs are NULL */
    gr_tensor *dh;                        /* from the later step: through z, */
    gr_tensor *product;                   /* and through its product */
    gr_tensor **dx, **dp;                 /* by time */
} gru_compose;

/* An input at time t, or block b of its columns; a zero if it is absent. */
static gr_tensor *gru_compose_at(gru_compose *m, int input, int64_t t, int b) {
    int64_t h = m->in[GRU_WEIGHT]->dims[1];
    if (!m->in[input]) return m->zero;
    gr_tensor *x = gri_term_at(&m->v, m->in[input], t);
    return b < 0 ? x : gri_term_columns(&m->v, x, b * h, h);
}

static void gru_compose_step(gru_compose *m, int64_t t, int64_t before) {
    gri_terms *v = &m->v;
    gr_tensor *gate[4], *e[4], *last = before < 0 ? m->in[GRU_H0] : gru_compose_at(m, GRU_Y, before, -1);
    for (int b = 0; b < 4; b++) gate[b] = gru_compose_at(m, GRU_GATES, t, b);
    for (int b = 0; b < 4; b++) e[b] = gru_compose_at(m, GRU_DGATES, t, b);
    gr_tensor *r = gate[0], *z = gate[1], *n = gate[2], *q = gate[3];
    gr_tensor *dh = GRI_TERM(v, add, gru_compose_at(m, GRU_DY, t, -1), GRI_TERM(v, add, m->dh, m->product));
    gr_tensor *dhz = GRI_TERM(v, mul, dh, z);
    gr_tensor *dn = GRI_TERM(v, tanh_backward, GRI_TERM(v, add, GRI_TERM(v, sub, dh, dhz), e[2]), n);
    gr_tensor *dr = GRI_TERM(v, sigmoid_backward, GRI_TERM(v, add, GRI_TERM(v, mul, dn, q), e[0]), r);
    gr_tensor *over = GRI_TERM(v, mul, dh, GRI_TERM(v, sub, last ? last : m->zero, n));
    gr_tensor *dz = GRI_TERM(v, sigmoid_backward, GRI_TERM(v, add, over, e[1]), z);
    gr_tensor *dq = GRI_TERM(v, add, GRI_TERM(v, mul, dn, r), e[3]);
    m->dx[t] = gri_term_cat(v, 3, GRI_TENSORS(dr, dz, dn), 1);
    m->dp[t] = gri_term_cat(v, 3, GRI_TENSORS(dr, dz, dq), 1);
    m->dh = dhz;
    m->product = GRI_TERM(v, linear_input_grad, m->dp[t], m->in[GRU_WEIGHT]);
}

static gr_status gru_backward_compose(gri_call *c) {
    const gri_recurrent_attrs *a = c->attrs;
    gru_compose m = {.v = {.ctx = c->ctx}};
    GR_TRY(gru_backward_shape(c));
    int64_t steps = c->in[GRU_Y]->dims[0], t, before;
    size_t room = (size_t)steps * 2 * sizeof *m.dx;
    for (int i = 0; i < c->n_in; i++) m.in[i] = c->in[i];
    m.dx = gri_new(c->ctx, room);
    if (!m.dx) return GR_ERR_MEMORY;
    m.dp = m.dx + steps;
    m.zero = m.dh = m.product = gri_term_scalar(&m.v, (gr_dtype)c->in[GRU_WEIGHT]->dtype, 0);
    for (int64_t k = steps - 1; m.v.status == GR_OK && k >= 0; k--) {
        gri_recurrence_time(steps, a->reverse, k, &t, &before);
        gru_compose_step(&m, t, before);
    }
    gr_tensor *results[] = {NULL, NULL, m.dh};
    if (m.v.status == GR_OK) {
        results[0] = gri_term_stack(&m.v, (int)steps, m.dx);
        results[1] = gri_term_stack(&m.v, (int)steps, m.dp);
    }
    gri_delete(c->ctx, m.dx, room);
    return gri_terms_close(&m.v, 3, results, c->out);
}

static const gr_case gru_backward_cases[] = {
    {.in = "3,1 2,1,1 2,1,4 1,1 2,1,1",
     .give = "{{1},{-1},{2}}, {{{0.5}},{{-0.2}}}, {{{0.1,0.2,0.3,0.4}},{{0.2,0.1,0.1,0.2}}}, {{1}}, {{{1}},{{2}}}",
     .want = "{{{0.0497381714,0.212556288,1.38161587}},{{0.057024,0.072,1.782}}}, "
             "{{{0.0497381714,0.212556288,0.138161587}},{{0.057024,0.072,0.3564}}}, {{0.3795648}}"},
    {.in = "6,2 3,2,2 3,2,8 2,2 3,2,2 3,2,8"},
    {.in = "6,2 3,2,2 3,2,8 2,2 3,2,2 3,2,8", .attrs = "reverse=true"},
    {.in = "6,2 2,3,2 2,3,8 - 2,3,2"},
    {.in = "6,2 1,3,2 1,3,8 3,2 - 1,3,8"},
    {0}};

GR_OP(gru_backward) = {
    .info = {.name = "gru_backward", .inputs = "weight_hh y gates h0? dy? dgates?", .attrs = gru_schema,
             .attr_size = sizeof(gri_recurrent_attrs), .hidden = true, .cases = gru_backward_cases,
             .doc = "The gradients of gru's x, of its products, and of h0 through the update gate"},
    .n_out = 3,
    .sets_only = true,
    .shape = gru_backward_shape,
    .forward = gru_backward_kernels,
    .compose = gru_backward_compose,
};
