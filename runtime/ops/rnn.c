/* The recurrence of an Elman network (Elman, "Finding structure in time", Cognitive Science 14, 1990):
 *     h[t] = f(x[t] + h[t-1] weight_hhᵀ),   f = tanh or relu.
 *
 *     x[t,n,h] weight_hh[h,h] h0[n,h]? → y[t,n,h], all h
 *
 * x are the products of the layer's input with its weights, biases added, made for all steps at once by linear. With
 * reverse, time runs from the last step to the first.
 *
 * rnn_backward makes dp[t] = f'(y[t]) (dy[t] + dp[t+1] weight_hh), which is the gradient of x[t]. From dp come
 * dweight_hh = Σ dp[t]ᵀ h[t-1], one product, and dh0 = dp[first] weight_hh. f' is known from y: kept are y, weight_hh
 * and h0. Its own derivative runs through its `compose`, step by step. */
#include "recurrence.h"
#include "terms.h"

enum { RNN_TANH, RNN_RELU };

typedef struct rnn_job {
    const real *x, *dy;
    real *y, *dp;
} rnn_job;

/* ---- forward ---- */

static gr_status rnn_shape(gri_call *c) {
    GR_TRY(gri_recurrence_check(c, 1, 1, 0, "x", 1));
    GR_TRY(gri_recurrence_want(c, 2, "h0", 2, c->in[0]->dims + 1));
    c->spec[0] = gri_spec_of(c->in[0]);
    return GR_OK;
}

static inline void rnn_tanh_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0], *h = p[1];
    const real *product = p[2], *x = p[3];
    (void)attrs;
#pragma omp simd
    for (int64_t k = 0; k < GRI_RUN(n); k++) h[k] = y[k] = r_tanh(product[k] + x[k]);
}

static inline void rnn_relu_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0], *h = p[1];
    const real *product = p[2], *x = p[3];
    (void)attrs;
#pragma omp simd
    for (int64_t k = 0; k < GRI_RUN(n); k++) {
        real s = product[k] + x[k];
        h[k] = y[k] = s <= 0 ? 0 : s;
    }
}

static void rnn_operands(gri_cell_rows *c, const rnn_job *j, const gri_cell_place *p) {
    gri_cell_blocks_out(c, p, j->y, 1);
    gri_cell_next(c, p, 1);
    gri_cell_product(c, p, 1);
    gri_cell_blocks_in(c, p, j->x, 1);
}

static void rnn_tanh_cell(void *arg, const gri_cell_place *p) {
    gri_cell_rows c = {0};
    rnn_operands(&c, arg, p);
    gri_cell_run(&c, rnn_tanh_loop, p);
}

static void rnn_relu_cell(void *arg, const gri_cell_place *p) {
    gri_cell_rows c = {0};
    rnn_operands(&c, arg, p);
    gri_cell_run(&c, rnn_relu_loop, p);
}

static gr_status rnn_kernel(gri_call *c) {
    const gri_recurrent_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0], *h0 = c->n_in > 2 ? c->in[2] : NULL;
    rnn_job j = {.x = gri_cell_data(x), .y = gri_cell_data(c->out[0])};
    gri_recurrence r = {.ctx = c->ctx, .weight = c->in[1], .initial = h0, .steps = x->dims[0], .batch = x->dims[1],
                        .forward = true, .reverse = a->reverse};
    return gri_recurrence_run(&r, a->nonlinearity == RNN_RELU ? rnn_relu_cell : rnn_tanh_cell, &j);
}

static gr_status rnn_forward(gri_call *c) { return gri_dense(c, rnn_kernel); }
GR_KERNEL(rnn);

static gr_status rnn_rule(gri_grad *g) {
    const gri_recurrent_attrs *a = g->attrs;
    gr_tensor *dp;
    GR_TRY(gri_eval(g, &dp, &gri_op_rnn_backward, 3, GRI_TENSORS(g->in[1], g->out[0], g->dy[0]), a));
    GR_TRY(gri_emit_same(g, 0, dp));
    return gri_recurrence_emit(g, dp, 2, a->reverse);
}

static const gr_attr rnn_schema[] = {
    {"reverse", GR_ATTR_BOOL, offsetof(gri_recurrent_attrs, reverse), .required = false},
    {"nonlinearity", GR_ATTR_WORD, offsetof(gri_recurrent_attrs, nonlinearity), .words = "tanh relu"},
    GR_ATTR_END};

static const gr_case rnn_cases[] = {
    {.in = "2,1,2 2,2 1,2", .give = "{{{1,-2}},{{0.5,1}}}, {{1,-1},{2,0.5}}, {{0.5,-1}}",
     .want = "{{{0.986614298,-0.905148254}},{{0.983405925,0.987152502}}}"},
    {.in = "2,1,2 2,2 1,2", .attrs = "nonlinearity='relu'", .no_grad = true, .want = "{{{2.5,0}},{{3,6}}}",
     .give = "{{{1,-2}},{{0.5,1}}}, {{1,-1},{2,0.5}}, {{0.5,-1}}"},
    {.in = "3,2,3 3,3 2,3"},
    {.in = "3,2,3 3,3 2,3", .attrs = "reverse=true"},
    {.in = "3,2,3 3,3", .attrs = "nonlinearity='relu'", .lo = 0.1, .hi = 1},
    {.in = "1,2,3 3,3"},
    {.in = "2,1,35 35,35", .no_grad = true},
    {.in = "2,0,3 3,3 0,3"},
    {0}};

GR_OP(rnn) = {
    .info = {.name = "rnn", .inputs = "x weight_hh h0?", .attrs = rnn_schema,
             .attr_size = sizeof(gri_recurrent_attrs), .hidden = true, .cases = rnn_cases,
             .doc = "The recurrence of RNN: h of all steps of x [steps,batch,hidden]"},
    .keeps = GRI_KEEP_IN(1) | GRI_KEEP_IN(2) | GRI_KEEP_OUT(0),
    .sets_only = true,
    .shape = rnn_shape,
    .forward = rnn_kernels,
    .backward = rnn_rule,
};

/* ---- its derivative as an op ---- */

enum { RNN_WEIGHT, RNN_Y, RNN_DY };

static gr_status rnn_backward_shape(gri_call *c) {
    GR_TRY(gri_recurrence_check(c, RNN_WEIGHT, 1, RNN_Y, "y", 1));
    GR_TRY(gri_recurrence_want(c, RNN_DY, "dy", 3, c->in[RNN_Y]->dims));
    c->spec[0] = gri_spec_of(c->in[RNN_Y]);
    return GR_OK;
}

static inline void rnn_tanh_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dp = p[0], *next = p[1];
    const real *product = p[2], *dy = p[3], *y = p[4];
    (void)attrs;
#pragma omp simd
    for (int64_t k = 0; k < GRI_RUN(n); k++) next[k] = dp[k] = (dy[k] + product[k]) * (1 - y[k] * y[k]);
}

static inline void rnn_relu_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dp = p[0], *next = p[1];
    const real *product = p[2], *dy = p[3], *y = p[4];
    (void)attrs;
#pragma omp simd
    for (int64_t k = 0; k < GRI_RUN(n); k++) next[k] = dp[k] = y[k] <= 0 ? 0 : dy[k] + product[k];
}

static void rnn_backward_operands(gri_cell_rows *c, const rnn_job *j, const gri_cell_place *p) {
    gri_cell_blocks_out(c, p, j->dp, 1);
    gri_cell_next(c, p, 1);
    gri_cell_product(c, p, 1);
    gri_cell_blocks_in(c, p, j->dy, 1);
    gri_cell_blocks_in(c, p, j->y, 1);
}

static void rnn_tanh_backward_cell(void *arg, const gri_cell_place *p) {
    gri_cell_rows c = {0};
    rnn_backward_operands(&c, arg, p);
    gri_cell_run(&c, rnn_tanh_backward_loop, p);
}

static void rnn_relu_backward_cell(void *arg, const gri_cell_place *p) {
    gri_cell_rows c = {0};
    rnn_backward_operands(&c, arg, p);
    gri_cell_run(&c, rnn_relu_backward_loop, p);
}

static gr_status rnn_backward_kernel(gri_call *c) {
    const gri_recurrent_attrs *a = c->attrs;
    const gr_tensor *y = c->in[RNN_Y];
    rnn_job j = {.y = gri_cell_data(y), .dy = gri_cell_data(c->in[RNN_DY]), .dp = gri_cell_data(c->out[0])};
    gri_recurrence r = {.ctx = c->ctx, .weight = c->in[RNN_WEIGHT], .steps = y->dims[0], .batch = y->dims[1],
                        .reverse = a->reverse};
    return gri_recurrence_run(&r, a->nonlinearity == RNN_RELU ? rnn_relu_backward_cell : rnn_tanh_backward_cell, &j);
}

static gr_status rnn_backward_forward(gri_call *c) { return gri_dense(c, rnn_backward_kernel); }
GR_KERNEL(rnn_backward);

static gr_status rnn_backward_compose(gri_call *c) {
    const gri_recurrent_attrs *a = c->attrs;
    gr_tensor *w = c->in[RNN_WEIGHT], *y = c->in[RNN_Y], *dh;
    gri_terms v = {.ctx = c->ctx};
    int64_t steps = y->dims[0], t, before;
    GR_TRY(rnn_backward_shape(c));
    gr_tensor **dp = gri_new(c->ctx, (size_t)steps * sizeof *dp), *whole = NULL;
    if (!dp) return GR_ERR_MEMORY;
    dh = gri_term_scalar(&v, (gr_dtype)w->dtype, 0);
    for (int64_t k = steps - 1; v.status == GR_OK && k >= 0; k--) {
        gri_recurrence_time(steps, a->reverse, k, &t, &before);
        gr_tensor *at = gri_term_at(&v, y, t), *d = GRI_TERM(&v, add, dh, gri_term_at(&v, c->in[RNN_DY], t));
        dp[t] = a->nonlinearity == RNN_RELU ? GRI_TERM(&v, relu_backward, d, at) : GRI_TERM(&v, tanh_backward, d, at);
        dh = GRI_TERM(&v, linear_input_grad, dp[t], w);
    }
    if (v.status == GR_OK) whole = gri_term_stack(&v, (int)steps, dp);
    gri_delete(c->ctx, dp, (size_t)steps * sizeof *dp);
    return gri_terms_close(&v, 1, &whole, c->out);
}

static const gr_case rnn_backward_cases[] = {
    {.in = "2,2 2,1,2 2,1,2", .give = "{{1,-1},{2,0.5}}, {{{0.5,-0.1}},{{0.2,0.9}}}, {{{1,-1}},{{2,0.5}}}",
     .want = "{{{2.3325,-2.843775}},{{1.92,0.095}}}"},
    {.in = "3,3 3,2,3 3,2,3"},
    {.in = "3,3 3,2,3 3,2,3", .attrs = "reverse=true"},
    {.in = "3,3 3,2,3 3,2,3", .attrs = "nonlinearity='relu'", .has_kink = true},
    {.in = "3,3 1,2,3 1,2,3"},
    {0}};

GR_OP(rnn_backward) = {
    .info = {.name = "rnn_backward", .inputs = "weight_hh y dy", .attrs = rnn_schema,
             .attr_size = sizeof(gri_recurrent_attrs), .hidden = true, .cases = rnn_backward_cases,
             .doc = "The gradient of rnn's x"},
    .sets_only = true,
    .shape = rnn_backward_shape,
    .forward = rnn_backward_kernels,
    .compose = rnn_backward_compose,
};
