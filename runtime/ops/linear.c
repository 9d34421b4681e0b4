/* y = x Wᵀ + b:  x[…,in] W[out,in] b[out]? → y[…,out]. Leading dims of x, if any, are rows.
 *
 * dx = dy W, dW = Σ over rows of dyᵀ x, db = Σ over rows of dy. The two products are ops of their own
 * (linear_input_grad, linear_weight_grad); each is linear in both operands, so the derivatives of the three
 * are again the three, and gradients of gradients cost no further rule. x and W are kept.
 *
 * Every product is one GEMM over operands as they lie, transposed by their strides: nothing is copied as
 * long as the leading dims step evenly. The bias is added where the product is stored, or, if the kernel chosen
 * cannot, written first and the product added to it. */
#include "blas.h"
#include "op.h"
#include "vmath.h"

#include <stdio.h>
#include <string.h>

#include "iter.h"

#define LINEAR_SMALL 16384 /* elements whose filling is not worth a walk over strides, or threads */

/* x[…,n] as a matrix. */
typedef struct linear_matrix {
    gr_tensor *dense; /* what the strides are of: +1 */
    int64_t rows, rs, cs;
} linear_matrix;

/* Leading dims that do not step evenly are copied into ones that do. */
static gr_status linear_open(gr_tensor *x, linear_matrix *m) {
    int lead = x->rank - 1;
    m->dense = gr_retain(x);
    if (!gri_fold(lead, x->dims, x->strides, &m->rows, &m->rs)) {
        gr_release(x);
        GR_TRY(gri_tensor_dense(x, &m->dense));
        gri_fold(lead, x->dims, m->dense->strides, &m->rows, &m->rs);
    }
    m->cs = m->dense->strides[lead];
    return GR_OK;
}

/* Where a product […,n] goes: out itself, or, if its rows do not step evenly, a tensor that linear_close copies. */
static gr_status linear_target(gri_call *c, linear_matrix *m, int *beta) {
    gr_tensor *y = c->out[0];
    int lead = y->rank - 1;
    *beta = c->mode == GRI_ADD;
    m->dense = gr_retain(y);
    if (!gri_fold(lead, y->dims, y->strides, &m->rows, &m->rs)) {
        gri_spec spec = gri_spec_of(y);
        gr_release(y);
        GR_TRY(gri_tensor_like_spec(c->ctx, &spec, &m->dense));
        gri_fold(lead, y->dims, m->dense->strides, &m->rows, &m->rs);
        *beta = 0;
    }
    m->cs = m->dense->strides[lead];
    return GR_OK;
}

static gr_status linear_close(gri_call *c, linear_matrix *m) {
    gr_status s = m->dense == c->out[0] ? GR_OK : gri_copy(c->ctx, c->out[0], m->dense, c->mode);
    gr_release(m->dense);
    return s;
}

static const char *linear_hint(const gr_tensor *x, int64_t in, char *buf, size_t size) {
    for (int d = 1; d < x->rank - 1; d++) {
        if (gri_product(x->rank - d, x->dims + d) != in) continue;
        int n = snprintf(buf, size, "; did you flatten (N");
        for (int i = d; i < x->rank; i++) n += snprintf(buf + n, size - (size_t)n, ",%lld", (long long)x->dims[i]);
        snprintf(buf + n, size - (size_t)n, ")?");
        return buf;
    }
    return "";
}

static gr_status linear_want_weight(gri_call *c) {
    const gr_tensor *x = c->in[0], *w = c->in[1];
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_want_float(c, 1));
    if (w->rank != 2)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "weight is %s, expected 2 dimensions (out, in)", gri_tensor_text(w));
    if (x->rank < 1) return gr_fail(c->ctx, GR_ERR_SHAPE, "input is a single value, expected at least one dimension");
    return GR_OK;
}

static gr_status linear_shape(gri_call *c) {
    const gr_tensor *x = c->in[0], *w = c->in[1], *b = c->n_in > 2 ? c->in[2] : NULL;
    char hint[GR_MAX_RANK * 21 + 40];
    GR_TRY(linear_want_weight(c));
    if (x->dims[x->rank - 1] != w->dims[1])
        return gr_fail(c->ctx, GR_ERR_SHAPE, "input has %lld features, expected %lld %s%s",
                       (long long)x->dims[x->rank - 1], (long long)w->dims[1], gri_dims_text(x->rank, x->dims),
                       linear_hint(x, w->dims[1], hint, sizeof hint));
    if (b) {
        GR_TRY(gri_want_float(c, 2));
        if (b->rank != 1 || b->dims[0] != w->dims[0])
            return gr_fail(c->ctx, GR_ERR_SHAPE, "bias is %s, expected [%lld] for a weight of %s", gri_tensor_text(b),
                           (long long)w->dims[0], gri_tensor_text(w));
    }
    c->spec[0] = gri_spec_of(x);
    c->spec[0].dims[x->rank - 1] = w->dims[0];
    return GR_OK;
}

/* y = or += b in every row. A small y is filled by copies of what is there already, each twice as long as the one
 * before: for [100,5] 0.1 us instead of 0.4. */
static gr_status linear_bias(gri_call *c, gr_tensor *y, const gr_tensor *b, bool add) {
    const int64_t n = b->numel;
    if (add || !y->contiguous || !b->contiguous || y->numel > LINEAR_SMALL)
        return gri_copy(c->ctx, y, b, add ? GRI_ADD : GRI_SET);
    real *to = (real *)(void *)y->data;
    if (y->numel) memcpy(to, b->data, (size_t)n * sizeof *to);
    for (int64_t done = n, more; done < y->numel; done += more) {
        more = done < y->numel - done ? done : y->numel - done;
        memcpy(to + done, to, (size_t)more * sizeof *to);
    }
    return GR_OK;
}

static gr_status linear_forward(gri_call *c) {
    const gr_tensor *w = c->in[1], *b = c->n_in > 2 ? c->in[2] : NULL;
    linear_matrix x, y;
    int beta;
    GR_TRY(linear_open(c->in[0], &x));
    gr_status s = linear_target(c, &y, &beta);
    if (s == GR_OK) {
        gri_gemm g = {.dtype = GRI_REAL, .m = y.rows, .n = w->dims[0], .k = w->dims[1], .beta = beta,
                      .a = x.dense->data, .rsa = x.rs, .csa = x.cs,
                      .b = w->data, .rsb = w->strides[1], .csb = w->strides[0],
                      .c = y.dense->data, .rsc = y.rs, .csc = y.cs};
        if (b && !beta && b->contiguous && y.dense->numel > LINEAR_SMALL) g.bias = b->data;
        if (g.bias && !gri_gemm_takes_bias(c->ctx, &g)) g.bias = NULL;
        if (b && !g.bias) {
            s = linear_bias(c, y.dense, b, beta);
            g.beta = 1;
        }
        if (s == GR_OK) gri_gemm_run(c->ctx, &g);
        gr_status closed = linear_close(c, &y);
        if (s == GR_OK) s = closed;
    }
    gr_release(x.dense);
    return s;
}
GR_KERNEL(linear);

static gr_status linear_rule(gri_grad *g) {
    gri_shape_attrs bias = {.shape = {.n = 1}};
    GR_TRY(GRI_EMIT(g, 0, linear_input_grad, g->dy[0], g->in[1]));
    GR_TRY(GRI_EMIT(g, 1, linear_weight_grad, g->dy[0], g->in[0]));
    if (!gri_needs(g, 2)) return GR_OK;
    bias.shape.v[0] = g->dy[0]->dims[g->dy[0]->rank - 1];
    return gri_emit(g, 2, &gri_op_sum_to, 1, g->dy, &bias);
}

static const gr_case linear_cases[] = {
    {.in = "2,3 2,3 2", .give = "{{1,2,3},{4,5,6}}, {{1,0,-1},{2,1,0}}, {10,20}", .want = "{{8,24},{8,33}}"},
    {.in = "3 2,3 -", .give = "{1,2,3}, {{1,0,-1},{2,1,0}}", .want = "{-2,4}"},
    {.in = "2,4,3 5,3 5"},
    {.in = "7,3 5,3 -"},
    {.in = "0,3 5,3 5"},
    {.in = "2,0 3,0 3"},
    {0}};

GR_OP(linear) = {
    .info = {.name = "linear", .inputs = "x weight bias?", .cases = linear_cases,
             .doc = "x times the transpose of weight, plus bias. x is [..., in], weight [out, in], bias [out]."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = linear_shape,
    .forward = linear_kernels,
    .backward = linear_rule,
};

/* ---- z[…,in] = g[…,out] W[out,in] ------------------------------------------------------------------------- */

static gr_status linear_input_grad_shape(gri_call *c) {
    const gr_tensor *g = c->in[0], *w = c->in[1];
    GR_TRY(linear_want_weight(c));
    if (g->dims[g->rank - 1] != w->dims[0])
        return gr_fail(c->ctx, GR_ERR_SHAPE, "gradient %s does not fit a weight of %s", gri_tensor_text(g),
                       gri_tensor_text(w));
    c->spec[0] = gri_spec_of(g);
    c->spec[0].dims[g->rank - 1] = w->dims[1];
    return GR_OK;
}

static gr_status linear_input_grad_forward(gri_call *c) {
    const gr_tensor *w = c->in[1];
    linear_matrix dy, dx;
    int beta;
    GR_TRY(linear_open(c->in[0], &dy));
    gr_status s = linear_target(c, &dx, &beta);
    if (s == GR_OK) {
        gri_gemm g = {.dtype = GRI_REAL, .m = dx.rows, .n = w->dims[1], .k = w->dims[0], .beta = beta,
                      .a = dy.dense->data, .rsa = dy.rs, .csa = dy.cs,
                      .b = w->data, .rsb = w->strides[0], .csb = w->strides[1],
                      .c = dx.dense->data, .rsc = dx.rs, .csc = dx.cs};
        gri_gemm_run(c->ctx, &g);
        s = linear_close(c, &dx);
    }
    gr_release(dy.dense);
    return s;
}
GR_KERNEL(linear_input_grad);

static gr_status linear_input_grad_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, linear, g->dy[0], g->in[1]));
    return GRI_EMIT(g, 1, linear_weight_grad, g->in[0], g->dy[0]);
}

static const gr_case linear_input_grad_cases[] = {
    {.in = "2,2 2,3", .give = "{{1,2},{3,4}}, {{1,0,-1},{2,1,0}}", .want = "{{5,2,-1},{11,4,-3}}"},
    {.in = "3,2,4 4,5"},
    {.in = "4 4,5"},
    {0}};

GR_OP(linear_input_grad) = {
    .info = {.name = "linear_input_grad", .inputs = "dy weight", .hidden = true, .cases = linear_input_grad_cases,
             .doc = "dy weight: what linear's input gets"},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = linear_input_grad_shape,
    .forward = linear_input_grad_kernels,
    .backward = linear_input_grad_rule,
};

/* ---- V[out,in] = Σ over rows of g[…,out]ᵀ x[…,in] ---------------------------------------------------------- */

static gr_status linear_weight_grad_shape(gri_call *c) {
    const gr_tensor *g = c->in[0], *x = c->in[1];
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_want_float(c, 1));
    if (g->rank < 1 || !gri_same_dims(g->rank - 1, g->dims, x->rank - 1, x->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "gradient %s does not fit an input of %s", gri_tensor_text(g),
                       gri_tensor_text(x));
    c->spec[0] = (gri_spec){.dtype = (gr_dtype)g->dtype, .rank = 2,
                            .dims = {g->dims[g->rank - 1], x->dims[x->rank - 1]}};
    return GR_OK;
}

static gr_status linear_weight_grad_forward(gri_call *c) {
    gr_tensor *v = c->out[0];
    linear_matrix dy, x;
    GR_TRY(linear_open(c->in[0], &dy));
    gr_status s = linear_open(c->in[1], &x);
    if (s == GR_OK) {
        gri_gemm g = {.dtype = GRI_REAL, .m = v->dims[0], .n = v->dims[1], .k = x.rows,
                      .beta = c->mode == GRI_ADD, .a = dy.dense->data, .rsa = dy.cs, .csa = dy.rs,
                      .b = x.dense->data, .rsb = x.rs, .csb = x.cs,
                      .c = v->data, .rsc = v->strides[0], .csc = v->strides[1]};
        gri_gemm_run(c->ctx, &g);
        gr_release(x.dense);
    }
    gr_release(dy.dense);
    return s;
}
GR_KERNEL(linear_weight_grad);

static gr_status linear_weight_grad_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, linear, g->in[1], g->dy[0]));
    return GRI_EMIT(g, 1, linear_input_grad, g->in[0], g->dy[0]);
}

static const gr_case linear_weight_grad_cases[] = {
    {.in = "2,2 2,3", .give = "{{1,2},{3,4}}, {{1,0,-1},{2,1,0}}", .want = "{{7,3,-1},{10,4,-2}}"},
    {.in = "3,2,4 3,2,5"},
    {.in = "4 5"},
    {0}};

GR_OP(linear_weight_grad) = {
    .info = {.name = "linear_weight_grad", .inputs = "dy x", .hidden = true, .cases = linear_weight_grad_cases,
             .doc = "dy^T x, summed over all rows: what linear's weight gets"},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = linear_weight_grad_shape,
    .forward = linear_weight_grad_kernels,
    .backward = linear_weight_grad_rule,
};
