/* The derivative of scaled_dot_product_attention as an op. With P the probabilities, M what dropout multiplies them
 * by, and Pd = P M:
 *     dv = Pdᵀ dy,  G = (dy vᵀ) M,  dmask = dS = P (G - Σ_s P G),  dq = scale dS k,  dk = scale dSᵀ q
 * Its own derivatives run through `compose`.
 *
 * A piece takes the blocks of queries of one entry of the batch in turn, from the last, and adds up dk and dv.
 * Where the batch has fewer than ATTENTION_PARTS entries their blocks are cut into parts, by shape alone, whose
 * sums are added in order. */
#include "attention.h"
#include "copy.h"
#include "reduce.h"
#include "rows.h"

#define ATTENTION_PARTS 16

static gr_status scaled_dot_product_attention_backward_shape(gri_call *c) {
    const gr_tensor *dy = c->in[0], *mask = c->n_in > 4 ? c->in[4] : NULL;
    gri_spec scores;
    GR_TRY(attention_check_attrs(c));
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(attention_check(c, 1, &scores));
    int64_t t = scores.dims[scores.rank - 2], s = scores.dims[scores.rank - 1];
    int64_t d = c->in[1]->dims[c->in[1]->rank - 1], e = c->in[3]->dims[c->in[3]->rank - 1];
    gri_spec y = attention_spec(&scores, t, e);
    if (!gri_same_dims(y.rank, y.dims, dy->rank, dy->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s, expected %s", gri_tensor_text(dy),
                       gri_dims_text(y.rank, y.dims));
    c->spec[0] = attention_spec(&scores, t, d);
    c->spec[1] = attention_spec(&scores, s, d);
    c->spec[2] = attention_spec(&scores, s, e);
    c->spec[3] = mask && gri_is_float(mask) ? scores : (gri_spec){.dtype = scores.dtype, .rank = 1};
    return GR_OK;
}

/* g, which is G, becomes scale dS; dmask, if wanted, is written. */
static void attention_backward_scores(const attention_job *j, const attention_block *b, const real *p, real *g) {
    _Alignas(64) real dot[ATTENTION_ROWS] = {0};
    const int64_t n = b->keys * ATTENTION_ROWS;
    const real scale = j->scale;
    for (int64_t at = 0; at < n; at += ATTENTION_ROWS)
#pragma omp simd
        for (int i = 0; i < ATTENTION_ROWS; i++) dot[i] += p[at + i] * g[at + i];
    if (j->dmask.data) {
        real *to = attention_at(j, &j->dmask, b->at) + b->row * j->dmask.rs;
        for (int64_t k = 0; k < b->keys; k++)
            for (int64_t i = 0, at = k * ATTENTION_ROWS; i < b->rows; i++)
                to[i * j->dmask.rs + k * j->dmask.cs] = p[at + i] * (g[at + i] - dot[i]);
    }
    for (int64_t at = 0; at < n; at += ATTENTION_ROWS)
#pragma omp simd
        for (int i = 0; i < ATTENTION_ROWS; i++) g[at + i] = scale * p[at + i] * (g[at + i] - dot[i]);
}

/* The keys' share of one block: to (dk or dv of its entry) (+)= x[keys][rows] y[rows,n]. */
static void attention_backward_keys(const attention_job *j, const attention_block *b, const real *x,
                                    const attention_matrix *y, int64_t n, real *to, int64_t rs, int64_t cs,
                                    bool add) {
    attention_product(j, b->keys, n, b->rows, x, ATTENTION_ROWS, 1, attention_at(j, y, b->at) + b->row * y->rs, y->rs,
                      y->cs, to, rs, cs, add);
    for (int64_t k = b->keys; k < j->s && !add; k++) /* none of this part's queries sees them */
        for (int64_t i = 0; i < n; i++) to[k * rs + i * cs] = 0;
}

/* Where a part's sums of dk or dv go. */
static real *attention_backward_sums(const attention_job *j, const attention_matrix *m, int64_t at, int64_t part,
                                     int64_t column, int64_t *rs, int64_t *cs) {
    if (!m->data) return NULL;
    *rs = part ? j->d + j->e : m->rs;
    *cs = part ? 1 : m->cs;
    return part ? j->sums + ((part - 1) * j->batch + at) * j->s * *rs + column : attention_at(j, m, at);
}

/* A part of the blocks of an entry, from the last, which sees the most keys. */
static void attention_backward_piece(void *arg, int64_t piece) {
    attention_job *j = arg;
    int64_t at = piece / j->parts, part = piece % j->parts, k_rs, k_cs, v_rs, v_cs;
    int64_t from = j->blocks * part / j->parts, to = j->blocks * (part + 1) / j->parts;
    real *dk = attention_backward_sums(j, &j->dk, at, part, 0, &k_rs, &k_cs);
    real *dv = attention_backward_sums(j, &j->dv, at, part, j->d, &v_rs, &v_cs);
    real *p = gri_scratch_claim(&j->scratch), *g = p + j->s * ATTENTION_ROWS;
    const bool drop = j->attrs->dropout_p > 0;
    for (int64_t r = to - 1; r >= from && !gr_interrupted(j->ctx); r--) {
        attention_block b = attention_block_of(j, at, r);
        attention_across(j, &b, &j->k, &j->q, j->d, p);
        attention_softmax(j, &b, p);
        attention_across(j, &b, &j->v, &j->dy, j->e, g);
        if (drop) attention_drop(j, &b, g);
        attention_backward_scores(j, &b, p, g);
        if (drop) attention_drop(j, &b, p);
        if (j->dq.data)
            attention_product(j, b.rows, j->d, b.keys, g, 1, ATTENTION_ROWS, attention_at(j, &j->k, at), j->k.rs,
                              j->k.cs, attention_at(j, &j->dq, at) + b.row * j->dq.rs, j->dq.rs, j->dq.cs, false);
        if (dk) attention_backward_keys(j, &b, g, &j->q, j->d, dk, k_rs, k_cs, r < to - 1);
        if (dv) attention_backward_keys(j, &b, p, &j->dy, j->e, dv, v_rs, v_cs, r < to - 1);
    }
    gri_scratch_return(&j->scratch, p);
}

/* Adds up the parts of rows (entry, key) of dk and dv. */
static void attention_backward_add(void *arg, int64_t from, int64_t to) {
    const attention_job *j = arg;
    const int64_t width = j->d + j->e, part = j->batch * j->s * width;
    for (int64_t row = from; row < to; row++) {
        const real *sums = j->sums + row * width;
        real *dk = j->dk.data ? attention_at(j, &j->dk, row / j->s) + row % j->s * j->dk.rs : NULL;
        real *dv = j->dv.data ? attention_at(j, &j->dv, row / j->s) + row % j->s * j->dv.rs : NULL;
        for (int64_t p = 0; p < j->parts - 1; p++, sums += part) {
            for (int64_t i = 0; dk && i < j->d; i++) dk[i * j->dk.cs] += sums[i];
            for (int64_t i = 0; dv && i < j->e; i++) dv[i * j->dv.cs] += sums[j->d + i];
        }
    }
}

/* Few entries are cut into parts, by shape alone. */
static gr_status attention_backward_run(gr_ctx *ctx, attention_job *j) {
    size_t capacity = 0;
    if (j->batch < ATTENTION_PARTS) j->parts = (ATTENTION_PARTS + j->batch - 1) / j->batch;
    if (j->parts > j->blocks) j->parts = j->blocks;
    size_t bytes = (size_t)((j->parts - 1) * j->batch * j->s * (j->d + j->e)) * sizeof(real);
    if (j->parts > 1 && !(j->sums = gri_block_new(ctx, bytes, &capacity)))
        return gr_fail(ctx, GR_ERR_MEMORY, "out of memory: %zu bytes of scratch wanted, %zu in use", bytes,
                       ctx->live);
    gr_status s = attention_run(ctx, j, j->batch * j->parts, attention_backward_piece, 2);
    if (s == GR_OK && j->parts > 1)
        gri_rows(ctx, j->batch * j->s, j->parts * (j->d + j->e) / 4, attention_backward_add, j);
    gri_block_delete(ctx, j->sums, capacity);
    return s;
}

static gr_status scaled_dot_product_attention_backward_forward(gri_call *c) {
    attention_job j;
    gri_spec scores;
    GR_TRY(attention_check(c, 1, &scores));
    attention_job_set(&j, c, 1, &scores);
    for (int i = 0; i < 4; i++)
        if (c->out[i] && (j.t == 0 || (i == 3 && j.attrs->is_causal))) GR_TRY(gri_zero(c->ctx, c->out[i]));
    if (j.t == 0 || j.batch == 0) return GR_OK;
    j.dy = attention_open(&j, c->in[0]);
    j.dq = attention_open(&j, c->out[0]);
    j.dk = attention_open(&j, c->out[1]);
    j.dv = attention_open(&j, c->out[2]);
    if (j.floating) j.dmask = attention_open(&j, c->out[3]);
    return attention_backward_run(c->ctx, &j);
}
GR_KERNEL(scaled_dot_product_attention_backward);

/* ---- the same of simpler ops ------------------------------------------------------------------------------ */

/* u8 [t,s]: 1 up to the diagonal. */
static gr_status attention_backward_triangle(gri_call *c, gri_made *m, const gr_tensor *scores, gr_tensor **out) {
    int64_t t = scores->dims[scores->rank - 2], s = scores->dims[scores->rank - 1];
    gr_status made = gr_tensor_new(c->ctx, GR_U8, 2, (int64_t[]){t, s}, out);
    GR_TRY(gri_made_keep(m, made, out));
    for (int64_t i = 0; i < t; i++)
        if (s) memset((*out)->data + i * s, 1, (size_t)(i + 1 < s ? i + 1 : s));
    return GR_OK;
}

/* *p = the probabilities; *scale as a tensor. */
static gr_status attention_backward_softmax(gri_call *c, gri_made *m, gr_tensor **p, gr_tensor **scale) {
    const gri_attention_attrs *a = c->attrs;
    gr_tensor *const *in = c->in, *mask = c->n_in > 4 ? in[4] : NULL, *x, *none, *dead, *seen;
    gri_reduce_attrs over = {.dim = {.n = 1, .v = {-1}}, .keepdim = true};
    gr_dtype type = (gr_dtype)in[1]->dtype;
    GR_TRY(gri_make_scalar(m, scale, type, attention_scale(a, in[1]->dims[in[1]->rank - 1])));
    GR_TRY(gri_make_scalar(m, &none, type, -INFINITY));
    GR_TRY(GRI_MAKE(m, &x, transpose, in[2]));
    GR_TRY(GRI_MAKE(m, &x, matmul, in[1], x));
    GR_TRY(GRI_MAKE(m, &x, mul, x, *scale));
    if (mask && gri_is_float(mask)) GR_TRY(GRI_MAKE(m, &x, add, x, mask));
    else if (mask) GR_TRY(GRI_MAKE(m, &x, where, mask, x, none));
    if (a->is_causal) {
        GR_TRY(attention_backward_triangle(c, m, x, &seen));
        GR_TRY(GRI_MAKE(m, &x, where, seen, x, none));
    }
    if (!mask || x->numel == 0) return GRI_MAKE(m, p, softmax, x);
    GR_TRY(gri_make(m, &dead, &gri_op_amax, 1, &x, &over)); /* rows of -inf alone become 0 */
    GR_TRY(GRI_MAKE(m, &dead, eq, dead, none));
    GR_TRY(GRI_MAKE(m, &x, masked_fill, x, dead));
    GR_TRY(GRI_MAKE(m, &x, softmax, x));
    return GRI_MAKE(m, p, masked_fill, x, dead);
}

static gr_status attention_backward_compose(gri_call *c, gri_made *m) {
    const gri_attention_attrs *a = c->attrs;
    gr_tensor *const *in = c->in, **out = c->out, *dy = in[0], *p, *dropped, *g, *x, *dot, *scale;
    gri_dropout_attrs drop = {.p = a->dropout_p, .seed = a->seed, .counter = a->counter};
    gri_reduce_attrs over = {.dim = {.n = 1, .v = {-1}}, .keepdim = true};
    GR_TRY(attention_backward_softmax(c, m, &p, &scale));
    GR_TRY(GRI_MAKE(m, &x, transpose, in[3]));
    GR_TRY(GRI_MAKE(m, &g, matmul, dy, x));
    dropped = p;
    if (a->dropout_p > 0) {
        GR_TRY(gri_make(m, &dropped, &gri_op_dropout, 1, &p, &drop));
        GR_TRY(gri_make(m, &g, &gri_op_dropout, 1, &g, &drop));
    }
    GR_TRY(GRI_MAKE(m, &x, mul, p, g));
    GR_TRY(gri_make(m, &dot, &gri_op_sum, 1, &x, &over));
    GR_TRY(GRI_MAKE(m, &x, sub, g, dot));
    GR_TRY(GRI_MAKE(m, &g, mul, p, x));
    if (c->n_in > 4 && in[4] && gri_is_float(in[4])) out[3] = gr_retain(g);
    else GR_TRY(gr_tensor_new(c->ctx, (gr_dtype)dy->dtype, 1, &(int64_t){0}, &out[3]));
    GR_TRY(GRI_MAKE(m, &g, mul, g, scale));
    GR_TRY(GRI_APPLY(c->ctx, &out[0], matmul, g, in[2]));
    GR_TRY(GRI_MAKE(m, &x, transpose, g));
    GR_TRY(GRI_APPLY(c->ctx, &out[1], matmul, x, in[1]));
    GR_TRY(GRI_MAKE(m, &x, transpose, dropped));
    return GRI_APPLY(c->ctx, &out[2], matmul, x, dy);
}

static gr_status scaled_dot_product_attention_backward_compose(gri_call *c) {
    gri_made m = {.ctx = c->ctx};
    GR_TRY(scaled_dot_product_attention_backward_shape(c));
    gr_status s = attention_backward_compose(c, &m);
    gri_made_release(&m);
    return s;
}

static const gr_case attention_backward_cases[] = {
    {.in = "2,1 2,1 2,1 2,1", .attrs = "is_causal=true, scale=1", .no_grad = false,
     .give = "{{1},{1}}, {{1},{1}}, {{0},{0}}, {{8},{4}}",
     .want = "{{0},{0}}, {{1},{-1}}, {{1.5},{0.5}}, {}"},
    {.in = "3,2 3,4 5,4 5,2"},
    {.in = "2,3,2 2,3,4 2,5,4 2,5,2 3,5", .attrs = "scale=-0.7"},
    {.in = "2,3,2 2,3,4 2,3,4 2,3,2 u8:3,3", .attrs = "is_causal=true"},
    {.in = "2,3,2 2,3,4 5,4 2,5,2 -", .attrs = "dropout_p=0.4, seed=1, counter=2"},
    {.in = "2,40,2 2,40,3 2,37,3 2,37,2 40,37", .attrs = "is_causal=true", .no_grad = true},
    {0}};

GR_OP(scaled_dot_product_attention_backward) = {
    .info = {.name = "scaled_dot_product_attention_backward", .inputs = "dy q k v mask?", .attrs = attention_schema,
             .attr_size = sizeof(gri_attention_attrs), .hidden = true, .cases = attention_backward_cases,
             .doc = "The gradients of scaled_dot_product_attention's q, k, v and floating mask"},
    .n_out = 4,
    .sets_only = true,
    .shape = scaled_dot_product_attention_backward_shape,
    .forward = scaled_dot_product_attention_backward_kernels,
    .compose = scaled_dot_product_attention_backward_compose,
};
