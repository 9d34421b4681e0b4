/* The recurrence of an LSTM (Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9, 1997; with
 * the forget gate of Gers, Schmidhuber and Cummins, 2000), gates in PyTorch's order:
 *     p = x[t] + h[t-1] weight_hhᵀ,   i, f, g, o = σ(p_i), σ(p_f), tanh(p_g), σ(p_o),
 *     c[t] = f c[t-1] + i g,   h[t] = o tanh(c[t]).
 *
 *     x[t,n,4h] weight_hh[4h,h] h0[n,h]? c0[n,h]? → y[t,n,h] (all h), cells[t,n,h] (all c), gates[t,n,4h]
 *
 * x are the products of the layer's input with its weights, biases added: for all steps one product, made by linear
 * before. With reverse, time runs from the last step to the first.
 *
 * lstm_backward runs the other way: with dh = dy[t] + dp[t+1] weight_hh and dc = dcells[t] + dc[t+1] f[t+1] +
 * dh o (1 - tanh²c), it makes dp[t], which is the gradient of x[t]; and that of c0. From dp come dweight_hh =
 * Σ dp[t]ᵀ h[t-1], one product, and dh0 = dp[first] weight_hh. Kept: everything but x; tanh(c) is computed again,
 * which costs less than its memory. Its own derivative runs through its `compose`, step by step; there y, cells and
 * gates are variables of their own, so all three outputs take gradients. */
#include "recurrence.h"
#include "terms.h"

typedef struct lstm_job {
    const real *x, *c0, *dy, *dcells, *dgates;
    real *y, *cells, *gates, *dp, *dc;
} lstm_job;

/* ---- forward ---- */

static gr_status lstm_shape(gri_call *c) {
    GR_TRY(gri_recurrence_check(c, 1, 4, 0, "x", 4));
    const int64_t state[] = {c->in[0]->dims[1], c->in[1]->dims[1]};
    GR_TRY(gri_recurrence_want(c, 2, "h0", 2, state));
    GR_TRY(gri_recurrence_want(c, 3, "c0", 2, state));
    c->spec[0] = c->spec[1] = c->spec[2] = gri_spec_of(c->in[0]);
    c->spec[0].dims[2] = c->spec[1].dims[2] = state[1];
    return GR_OK;
}

static inline void lstm_loop(int64_t n, void *const *p, const void *attrs) {
    real *i = p[0], *f = p[1], *g = p[2], *o = p[3], *c = p[4], *y = p[5], *h = p[6];
    const real *pi = p[7], *pf = p[8], *pg = p[9], *po = p[10], *xi = p[11], *xf = p[12], *xg = p[13], *xo = p[14];
    const real *before = p[15];
    (void)attrs;
#pragma omp simd
    for (int64_t k = 0; k < GRI_RUN(n); k++) {
        i[k] = r_sigmoid(pi[k] + xi[k]);
        f[k] = r_sigmoid(pf[k] + xf[k]);
        g[k] = r_tanh(pg[k] + xg[k]);
        o[k] = r_sigmoid(po[k] + xo[k]);
        c[k] = f[k] * before[k] + i[k] * g[k];
        h[k] = y[k] = o[k] * r_tanh(c[k]);
    }
}

static void lstm_cell(void *arg, const gri_cell_place *p) {
    const lstm_job *j = arg;
    gri_cell_rows c = {0};
    gri_cell_blocks_out(&c, p, j->gates, 4);
    gri_cell_blocks_out(&c, p, j->cells, 1);
    gri_cell_blocks_out(&c, p, j->y, 1);
    gri_cell_next(&c, p, 1);
    gri_cell_product(&c, p, 4);
    gri_cell_blocks_in(&c, p, j->x, 4);
    gri_cell_before(&c, p, j->cells, j->c0);
    gri_cell_run(&c, lstm_loop, p);
}

static gr_status lstm_kernel(gri_call *c) {
    const gr_tensor *x = c->in[0], *h0 = c->n_in > 2 ? c->in[2] : NULL, *c0 = c->n_in > 3 ? c->in[3] : NULL;
    lstm_job j = {.x = gri_cell_data(x), .c0 = gri_cell_data(c0), .y = gri_cell_data(c->out[0]),
                  .cells = gri_cell_data(c->out[1]), .gates = gri_cell_data(c->out[2])};
    gri_recurrence r = {.ctx = c->ctx, .weight = c->in[1], .initial = h0, .steps = x->dims[0], .batch = x->dims[1],
                        .forward = true, .reverse = ((const gri_recurrent_attrs *)c->attrs)->reverse};
    return gri_recurrence_run(&r, lstm_cell, &j);
}

static gr_status lstm_forward(gri_call *c) { return gri_dense(c, lstm_kernel); }
GR_KERNEL(lstm);

static gr_status lstm_rule(gri_grad *g) {
    const gri_recurrent_attrs *a = g->attrs;
    gr_tensor *c0 = g->n_in > 3 ? g->in[3] : NULL, *made[2];
    gr_tensor *in[] = {g->in[1], g->out[1], g->out[2], c0, g->dy[0], g->dy[1], g->dy[2]};
    GR_TRY(gri_eval(g, made, &gri_op_lstm_backward, 7, in, a));
    GR_TRY(gri_emit_same(g, 0, made[0]));
    GR_TRY(gri_emit_same(g, 3, made[1]));
    return gri_recurrence_emit(g, made[0], 2, a->reverse);
}

static const gr_attr lstm_schema[] = {
    {"reverse", GR_ATTR_BOOL, offsetof(gri_recurrent_attrs, reverse), .required = false},
    GR_ATTR_END};

static const gr_case lstm_cases[] = {
    {.in = "2,1,4 4,1 1,1 1,1", .give = "{{{1,0,-1,2}},{{0,1,1,-1}}}, {{1},{-1},{2},{0.5}}, {{0.5}}, {{-2}}",
     .want = "{{{-0.5773214}},{{-0.127954651}}}, {{{-0.755081338}},{{-0.680992823}}}, "
             "{{{0.817574476,0.377540669,0,0.904650535}},{{0.359549172,0.828824828,-0.15342175,0.216079587}}}"},
    {.in = "3,2,8 8,2 2,2 2,2"},
    {.in = "3,2,8 8,2 2,2 2,2", .attrs = "reverse=true"},
    {.in = "2,3,12 12,3"},
    {.in = "1,2,8 8,2"},
    {.in = "2,1,140 140,35 - 1,35", .no_grad = true},
    {.in = "2,0,8 8,2 0,2 0,2"},
    {0}};

GR_OP(lstm) = {
    .info = {.name = "lstm", .inputs = "x weight_hh h0? c0?", .attrs = lstm_schema,
             .attr_size = sizeof(gri_recurrent_attrs), .hidden = true, .cases = lstm_cases,
             .doc = "The recurrence of LSTM: h, c and the gates of all steps of x [steps,batch,4*hidden]"},
    .n_out = 3,
    .keeps = GRI_KEEP_IN(1) | GRI_KEEP_IN(2) | GRI_KEEP_IN(3) | GRI_KEEP_OUT(0) | GRI_KEEP_OUT(1) | GRI_KEEP_OUT(2),
    .sets_only = true,
    .shape = lstm_shape,
    .forward = lstm_kernels,
    .backward = lstm_rule,
};

/* ---- its derivative as an op ---- */

enum { LSTM_WEIGHT, LSTM_CELLS, LSTM_GATES, LSTM_C0, LSTM_DY, LSTM_DCELLS, LSTM_DGATES };

static gr_status lstm_backward_shape(gri_call *c) {
    const gr_tensor *w = c->in[LSTM_WEIGHT], *cells = c->in[LSTM_CELLS];
    GR_TRY(gri_recurrence_check(c, LSTM_WEIGHT, 4, LSTM_CELLS, "cells", 1));
    int64_t n = cells->dims[1], h = w->dims[1], wide[] = {cells->dims[0], n, 4 * h};
    GR_TRY(gri_recurrence_want(c, LSTM_GATES, "gates", 3, wide));
    GR_TRY(gri_recurrence_want(c, LSTM_C0, "c0", 2, (int64_t[]){n, h}));
    GR_TRY(gri_recurrence_want(c, LSTM_DY, "dy", 3, cells->dims));
    GR_TRY(gri_recurrence_want(c, LSTM_DCELLS, "dcells", 3, cells->dims));
    GR_TRY(gri_recurrence_want(c, LSTM_DGATES, "dgates", 3, wide));
    c->spec[0] = gri_spec_of(c->in[LSTM_GATES]);
    c->spec[1] = (gri_spec){.dtype = (gr_dtype)w->dtype, .rank = 2, .dims = {n, h}};
    return GR_OK;
}

static inline void lstm_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *di = p[0], *df = p[1], *dg = p[2], *d_o = p[3], *si = p[4], *sf = p[5], *sg = p[6], *so = p[7], *dc = p[8];
    const real *product = p[9], *dy = p[10], *dcells = p[11], *later = p[12];
    const real *i = p[13], *f = p[14], *g = p[15], *o = p[16], *ei = p[17], *ef = p[18], *eg = p[19], *eo = p[20];
    const real *c = p[21], *before = p[22];
    (void)attrs;
#pragma omp simd
    for (int64_t k = 0; k < GRI_RUN(n); k++) {
        real t = r_tanh(c[k]), dh = dy[k] + product[k], all = later[k] + dcells[k] + dh * o[k] * (1 - t * t);
        si[k] = di[k] = (all * g[k] + ei[k]) * i[k] * (1 - i[k]);
        sf[k] = df[k] = (all * before[k] + ef[k]) * f[k] * (1 - f[k]);
        sg[k] = dg[k] = (all * i[k] + eg[k]) * (1 - g[k] * g[k]);
        so[k] = d_o[k] = (dh * t + eo[k]) * o[k] * (1 - o[k]);
        dc[k] = all * f[k];
    }
}

/* dc holds, before the step, what comes from the later step's c, and after it what goes to the earlier one's. */
static void lstm_backward_cell(void *arg, const gri_cell_place *p) {
    const lstm_job *j = arg;
    gri_cell_rows c = {0};
    real *dc = gri_cell_at(p, j->dc, 0, 1, 0);
    gri_cell_blocks_out(&c, p, j->dp, 4);
    gri_cell_next(&c, p, 4);
    gri_cell_out(&c, dc, p->hidden);
    gri_cell_product(&c, p, 1);
    gri_cell_blocks_in(&c, p, j->dy, 1);
    gri_cell_blocks_in(&c, p, j->dcells, 1);
    gri_cell_in(&c, dc, p->hidden);
    gri_cell_blocks_in(&c, p, j->gates, 4);
    gri_cell_blocks_in(&c, p, j->dgates, 4);
    gri_cell_blocks_in(&c, p, j->cells, 1);
    gri_cell_before(&c, p, j->cells, j->c0);
    gri_cell_run(&c, lstm_backward_loop, p);
}

static gr_status lstm_backward_kernel(gri_call *c) {
    const gr_tensor *cells = c->in[LSTM_CELLS], *in[LSTM_DGATES + 1] = {0};
    for (int i = 0; i < c->n_in; i++) in[i] = c->in[i];
    lstm_job j = {.cells = gri_cell_data(cells), .gates = gri_cell_data(in[LSTM_GATES]),
                  .c0 = gri_cell_data(in[LSTM_C0]), .dy = gri_cell_data(in[LSTM_DY]),
                  .dcells = gri_cell_data(in[LSTM_DCELLS]), .dgates = gri_cell_data(in[LSTM_DGATES]),
                  .dp = gri_cell_data(c->out[0]), .dc = gri_cell_data(c->out[1])};
    gri_recurrence r = {.ctx = c->ctx, .weight = in[LSTM_WEIGHT], .steps = cells->dims[0], .batch = cells->dims[1],
                        .reverse = ((const gri_recurrent_attrs *)c->attrs)->reverse};
    GR_TRY(gri_zero(c->ctx, c->out[1]));
    return gri_recurrence_run(&r, lstm_backward_cell, &j);
}

static gr_status lstm_backward_forward(gri_call *c) { return gri_dense(c, lstm_backward_kernel); }
GR_KERNEL(lstm_backward);

/* ---- the same step by step ---- */

typedef struct lstm_compose { /* one step's values */
    gri_terms v;
    gr_tensor *zero, *in[LSTM_DGATES + 1]; /* absent inputs are NULL */
    gr_tensor *dh, *dc;                    /* from the later step */
} lstm_compose;

/* An input at time t, or block b of its columns; a zero if it is absent. */
static gr_tensor *lstm_compose_at(lstm_compose *m, int input, int64_t t, int b) {
    int64_t h = m->in[LSTM_WEIGHT]->dims[1];
    if (!m->in[input]) return m->zero;
    gr_tensor *x = gri_term_at(&m->v, m->in[input], t);
    return b < 0 ? x : gri_term_columns(&m->v, x, b * h, h);
}

/* Returns dp at time t. */
static gr_tensor *lstm_compose_step(lstm_compose *m, int64_t t, int64_t before) {
    gri_terms *v = &m->v;
    gr_tensor *gate[4], *d[4], *last = before < 0 ? m->in[LSTM_C0] : lstm_compose_at(m, LSTM_CELLS, before, -1);
    for (int b = 0; b < 4; b++) gate[b] = lstm_compose_at(m, LSTM_GATES, t, b);
    gr_tensor *i = gate[0], *f = gate[1], *g = gate[2], *o = gate[3];
    gr_tensor *c = GRI_TERM(v, tanh, lstm_compose_at(m, LSTM_CELLS, t, -1));
    gr_tensor *dh = GRI_TERM(v, add, m->dh, lstm_compose_at(m, LSTM_DY, t, -1));
    gr_tensor *dc = GRI_TERM(v, add, m->dc, lstm_compose_at(m, LSTM_DCELLS, t, -1));
    dc = GRI_TERM(v, add, dc, GRI_TERM(v, tanh_backward, GRI_TERM(v, mul, dh, o), c));
    d[0] = GRI_TERM(v, mul, dc, g);
    d[1] = GRI_TERM(v, mul, dc, last ? last : m->zero);
    d[2] = GRI_TERM(v, mul, dc, i);
    d[3] = GRI_TERM(v, mul, dh, c);
    for (int b = 0; b < 4; b++) {
        d[b] = GRI_TERM(v, add, d[b], lstm_compose_at(m, LSTM_DGATES, t, b));
        d[b] = b == 2 ? GRI_TERM(v, tanh_backward, d[b], g) : GRI_TERM(v, sigmoid_backward, d[b], gate[b]);
    }
    gr_tensor *dp = gri_term_cat(v, 4, d, 1);
    m->dc = GRI_TERM(v, mul, dc, f);
    m->dh = GRI_TERM(v, linear_input_grad, dp, m->in[LSTM_WEIGHT]);
    return dp;
}

static gr_status lstm_backward_compose(gri_call *c) {
    const gri_recurrent_attrs *a = c->attrs;
    lstm_compose m = {.v = {.ctx = c->ctx}};
    GR_TRY(lstm_backward_shape(c));
    int64_t steps = c->in[LSTM_CELLS]->dims[0], t, before;
    for (int i = 0; i < c->n_in; i++) m.in[i] = c->in[i];
    gr_tensor **dp = gri_new(c->ctx, (size_t)steps * sizeof *dp);
    if (!dp) return GR_ERR_MEMORY;
    m.zero = m.dh = m.dc = gri_term_scalar(&m.v, (gr_dtype)c->in[LSTM_WEIGHT]->dtype, 0);
    for (int64_t k = steps - 1; m.v.status == GR_OK && k >= 0; k--) {
        gri_recurrence_time(steps, a->reverse, k, &t, &before);
        dp[t] = lstm_compose_step(&m, t, before);
    }
    gr_tensor *results[] = {NULL, m.dc};
    if (m.v.status == GR_OK) results[0] = gri_term_stack(&m.v, (int)steps, dp);
    gri_delete(c->ctx, dp, (size_t)steps * sizeof *dp);
    return gri_terms_close(&m.v, 2, results, c->out);
}

static const gr_case lstm_backward_cases[] = {
    {.in = "4,1 2,1,1 2,1,4 1,1 2,1,1",
     .give = "{{1},{-1},{2},{0.5}}, {{{0.5}},{{-1}}}, {{{0.1,0.2,0.3,0.4}},{{0.2,0.1,0.1,0.2}}}, {{1}}, "
             "{{{1}},{{2}}}",
     .want = "{{{0.0084358669,0.0499903223,0.0284319958,0.104231135}},{{0.00268783579,0.00755953815,0.0332619679,"
             "-0.24371013}}}, {{0.0624879029}}"},
    {.in = "8,2 3,2,2 3,2,8 2,2 3,2,2 3,2,2 3,2,8"},
    {.in = "8,2 3,2,2 3,2,8 2,2 3,2,2 3,2,2 3,2,8", .attrs = "reverse=true"},
    {.in = "8,2 2,3,2 2,3,8 - 2,3,2"},
    {.in = "8,2 1,3,2 1,3,8 3,2 - 1,3,2"},
    {0}};

GR_OP(lstm_backward) = {
    .info = {.name = "lstm_backward", .inputs = "weight_hh cells gates c0? dy? dcells? dgates?", .attrs = lstm_schema,
             .attr_size = sizeof(gri_recurrent_attrs), .hidden = true, .cases = lstm_backward_cases,
             .doc = "The gradients of lstm's x and c0"},
    .n_out = 2,
    .sets_only = true,
    .shape = lstm_backward_shape,
    .forward = lstm_backward_kernels,
    .compose = lstm_backward_compose,
};
