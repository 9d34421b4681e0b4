/* c = a b by NumPy's rules:  a[…,m,k] b[…,k,n] → c[…,m,n], the leading dims broadcasting; a vector a[k] is a
 * row, a vector b[k] a column, and that dim is dropped from the result, so a[k] b[k] is their dot product.
 *
 * da = dc bᵀ, db = aᵀ dc, both kept. With a matrix b the product is linear's input gradient and so are its
 * derivatives linear's: leading dims are rows, and db is one product over all of them. Otherwise transposes
 * are views, and batches that were broadcast are summed by the tape.
 *
 * One GEMM where the batch of a can be seen as rows, else one per batch entry; operands as they lie. */
#include "blas.h"
#include "op.h"
#include "vmath.h"

#include <string.h>

/* Both operands as matrices: what lies in front of them is the batch. */
typedef struct matmul_plan {
    int batch; /* dims */
    int64_t dims[GR_MAX_RANK], a[GR_MAX_RANK], b[GR_MAX_RANK], c[GR_MAX_RANK]; /* of the batch; steps in elements */
    gri_gemm g;
} matmul_plan;

static gr_status matmul_shape(gri_call *c) {
    const gr_tensor *a = c->in[0], *b = c->in[1];
    gri_spec *s = &c->spec[0];
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_want_float(c, 1));
    if (!a->rank || !b->rank)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s times %s: a single value is no matrix; use mul", gri_tensor_text(a),
                       gri_tensor_text(b));
    int64_t k = a->dims[a->rank - 1], rows = b->dims[b->rank > 1 ? b->rank - 2 : 0];
    if (k != rows)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s times %s: the first has %lld columns, the second %lld rows",
                       gri_tensor_text(a), gri_tensor_text(b), (long long)k, (long long)rows);
    *s = (gri_spec){.dtype = (gr_dtype)a->dtype, .rank = a->rank > 2 ? a->rank - 2 : 0};
    memcpy(s->dims, a->dims, (size_t)s->rank * sizeof *s->dims);
    if (!gri_broadcast(&s->rank, s->dims, b->rank > 2 ? b->rank - 2 : 0, b->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s times %s: the leading dimensions do not broadcast",
                       gri_tensor_text(a), gri_tensor_text(b));
    if (a->rank > 1) s->dims[s->rank++] = a->dims[a->rank - 2];
    if (b->rank > 1) s->dims[s->rank++] = b->dims[b->rank - 1];
    return GR_OK;
}

/* Strides of t's leading dims over the batch; 0 where t is broadcast. */
static void matmul_steps(const matmul_plan *p, const gr_tensor *t, int matrix, int64_t *steps) {
    int lead = t->rank - matrix;
    for (int d = 0; d < p->batch; d++) {
        int at = d - (p->batch - lead);
        steps[d] = at < 0 || t->dims[at] == 1 ? 0 : t->strides[at];
    }
}

static void matmul_plan_set(matmul_plan *p, const gri_call *c) {
    const gr_tensor *a = c->in[0], *b = c->in[1], *y = c->out[0];
    bool row = a->rank == 1, column = b->rank == 1;
    gri_gemm *g = &p->g;
    *g = (gri_gemm){.dtype = GRI_REAL, .m = 1, .n = 1, .k = a->dims[a->rank - 1], .beta = c->mode == GRI_ADD,
                    .a = a->data, .csa = a->strides[a->rank - 1],
                    .b = b->data, .rsb = b->strides[column ? 0 : b->rank - 2], .c = y->data};
    int kept = 0; /* dims of y that are the matrix's */
    if (!column) {
        g->n = b->dims[b->rank - 1];
        g->csb = b->strides[b->rank - 1];
        g->csc = y->strides[y->rank - ++kept];
    }
    if (!row) {
        g->m = a->dims[a->rank - 2];
        g->rsa = a->strides[a->rank - 2];
        g->rsc = y->strides[y->rank - ++kept];
    }
    p->batch = y->rank - kept;
    memcpy(p->dims, y->dims, sizeof p->dims);
    memcpy(p->c, y->strides, sizeof p->c);
    matmul_steps(p, a, row ? 1 : 2, p->a);
    matmul_steps(p, b, column ? 1 : 2, p->b);
}

/* Takes the innermost batch dims into the rows as long as b is the same for all of them. */
static void matmul_fold(matmul_plan *p) {
    gri_gemm *g = &p->g;
    for (int d; (d = p->batch - 1) >= 0; p->batch--) {
        if (p->dims[d] == 1) continue;
        if (p->b[d]) return;
        if (g->m == 1) {
            g->rsa = p->a[d];
            g->rsc = p->c[d];
        } else if (p->a[d] != g->m * g->rsa || p->c[d] != g->m * g->rsc) {
            return;
        }
        g->m *= p->dims[d];
    }
}

static gr_status matmul_batches(gri_call *c, const matmul_plan *p) {
    int64_t count = gri_product(p->batch, p->dims), at[GR_MAX_RANK] = {0};
    int64_t(*offsets)[3] = gri_new(c->ctx, (size_t)count * sizeof *offsets), now[3] = {0};
    if (!offsets) return GR_ERR_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        memcpy(offsets[i], now, sizeof now);
        for (int d = p->batch - 1; d >= 0; d--) {
            int64_t by = ++at[d] < p->dims[d] ? 1 : 1 - p->dims[d];
            now[0] += by * p->a[d];
            now[1] += by * p->b[d];
            now[2] += by * p->c[d];
            if (by == 1) break;
            at[d] = 0;
        }
    }
    gri_gemm_batch(c->ctx, &p->g, count, offsets);
    gri_delete(c->ctx, offsets, (size_t)count * sizeof *offsets);
    return GR_OK;
}

static gr_status matmul_forward(gri_call *c) {
    matmul_plan p;
    if (c->out[0]->numel == 0) return GR_OK;
    matmul_plan_set(&p, c);
    matmul_fold(&p);
    if (p.batch) return matmul_batches(c, &p);
    gri_gemm_run(c->ctx, &p.g);
    return GR_OK;
}
GR_KERNEL(matmul);

/* t with a dim of size 1 put in at position `at`. */
static gr_status matmul_unsqueezed(gri_grad *g, gr_tensor *t, int at, gr_tensor **out) {
    gri_shape_attrs a = {.shape = {.n = t->rank + 1}};
    for (int d = 0; d < t->rank; d++) a.shape.v[d < at ? d : d + 1] = t->dims[d];
    a.shape.v[at] = 1;
    return gri_eval(g, out, &gri_op_reshape, 1, &t, &a);
}

static gr_status matmul_rule(gri_grad *g) {
    gr_tensor *a = g->in[0], *b = g->in[1], *dc = g->dy[0], *t;
    if (b->rank == 2) {
        GR_TRY(GRI_EMIT(g, 0, linear, dc, b));
        return GRI_EMIT(g, 1, linear_weight_grad, a, dc);
    }
    if (b->rank == 1) {
        GR_TRY(matmul_unsqueezed(g, dc, dc->rank, &dc));
        GR_TRY(matmul_unsqueezed(g, b, 0, &b));
        GR_TRY(GRI_EMIT(g, 0, linear_input_grad, dc, b));
        return GRI_EMIT(g, 1, linear_weight_grad, dc, a);
    }
    if (a->rank == 1) {
        GR_TRY(matmul_unsqueezed(g, a, 0, &a));
        GR_TRY(matmul_unsqueezed(g, dc, dc->rank - 1, &dc));
    }
    if (gri_needs(g, 0)) {
        GR_TRY(GRI_EVAL(g, &t, transpose, b));
        GR_TRY(GRI_EMIT(g, 0, matmul, dc, t));
    }
    if (!gri_needs(g, 1)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &t, transpose, a));
    return GRI_EMIT(g, 1, matmul, t, dc);
}

static const gr_case matmul_cases[] = {
    {.in = "2,3 3,2", .give = "{{1,2,3},{4,5,6}}, {{1,4},{2,5},{3,6}}", .want = "{{14,32},{32,77}}"},
    {.in = "3 3", .give = "{1,2,3}, {4,5,6}", .want = "32"},
    {.in = "2,3 3", .give = "{{1,2,3},{4,5,6}}, {1,0,-1}", .want = "{-2,-2}"},
    {.in = "2 2,3", .give = "{1,-1}, {{1,2,3},{4,5,6}}", .want = "{-3,-3,-3}"},
    {.in = "4,2,3 3,5"},
    {.in = "2,3 4,3,5"},
    {.in = "2,1,3,4 5,4,2"},
    {.in = "3 2,3,4"},
    {.in = "2,4,3 3"},
    {.in = "0,3 3,2"},
    {.in = "2,0 0,3"},
    {0}};

GR_OP(matmul) = {
    .info = {.name = "matmul", .inputs = "a b", .cases = matmul_cases,
             .doc = "Matrix product, batched over leading dimensions, which broadcast.\n"
                    "A vector is a row on the left and a column on the right: two vectors give their dot product."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = matmul_shape,
    .forward = matmul_kernels,
    .backward = matmul_rule,
};
