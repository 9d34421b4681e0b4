/* y = x with its dimensions in another order: permute, and transpose, which swaps two. Views.
 *
 * y[i_p(0), …, i_p(r-1)] = x[i_0, …, i_(r-1)]; dx = dy in the opposite order. Nothing is kept. */
#include "op.h"

static gr_status permute_as(gri_call *c, const int *order) {
    const gr_tensor *x = c->in[0];
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    for (int d = 0; d < x->rank; d++) {
        dims[d] = x->dims[order[d]];
        strides[d] = x->strides[order[d]];
    }
    return gri_tensor_view(x, x->rank, dims, strides, 0, &c->out[0]);
}

/* ---- permute ---- */

typedef struct permute_attrs { gr_dims dims; } permute_attrs;

static gr_status permute_view(gri_call *c) {
    const permute_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    uint32_t mask;
    int order[GR_MAX_RANK];
    if (a->dims.n != x->rank)
        return gr_fail(c->ctx, GR_ERR_ARG, "%d dimensions are listed, but %s has %d", a->dims.n > 0 ? a->dims.n : 0,
                       gri_tensor_text(x), x->rank);
    GR_TRY(gri_dim_mask(c->ctx, &a->dims, x->rank, &mask));
    for (int d = 0; d < x->rank; d++) GR_TRY(gri_dim(c->ctx, a->dims.v[d], x->rank, &order[d]));
    return permute_as(c, order);
}

static gr_status permute_rule(gri_grad *g) {
    const permute_attrs *a = g->attrs;
    permute_attrs back = {.dims = {.n = a->dims.n}};
    for (int d = 0; d < a->dims.n; d++) {
        int64_t from = a->dims.v[d];
        back.dims.v[from < 0 ? from + a->dims.n : from] = d;
    }
    return gri_emit(g, 0, &gri_op_permute, 1, g->dy, &back);
}

static const gr_attr permute_schema[] = {
    {"dims", GR_ATTR_DIMS, offsetof(permute_attrs, dims), .required = true}, GR_ATTR_END};

static const gr_case permute_cases[] = {
    {.in = "2,3", .attrs = "dims={2,1}", .give = "{{1,2,3},{4,5,6}}", .want = "{{1,4},{2,5},{3,6}}"},
    {.in = "2,3,4", .attrs = "dims={3,1,2}"},
    {.in = "2,1,3,4", .attrs = "dims={-1,2,1,-2}"},
    {.in = "()", .attrs = "dims={}"},
    {0}};

GR_OP(permute) = {
    .info = {.name = "permute", .inputs = "x", .attrs = permute_schema, .attr_size = sizeof(permute_attrs),
             .cases = permute_cases,
             .doc = "x with its dimensions in the order given: dims lists all of them. A view."},
    .view = permute_view,
    .backward = permute_rule,
};

/* ---- transpose ---- */

typedef struct transpose_attrs { int64_t dim0, dim1; } transpose_attrs;

static gr_status transpose_view(gri_call *c) {
    const transpose_attrs *a = c->attrs;
    int order[GR_MAX_RANK], rank = c->in[0]->rank, p, q;
    GR_TRY(gri_dim(c->ctx, a->dim0, rank, &p));
    GR_TRY(gri_dim(c->ctx, a->dim1, rank, &q));
    for (int d = 0; d < rank; d++) order[d] = d == p ? q : d == q ? p : d;
    return permute_as(c, order);
}

static gr_status transpose_rule(gri_grad *g) { return gri_emit(g, 0, &gri_op_transpose, 1, g->dy, g->attrs); }

static const gr_attr transpose_schema[] = {
    {"dim0", GR_ATTR_DIM, offsetof(transpose_attrs, dim0), .value = -2},
    {"dim1", GR_ATTR_DIM, offsetof(transpose_attrs, dim1), .value = -1},
    GR_ATTR_END};

static const gr_case transpose_cases[] = {
    {.in = "2,3", .attrs = "dim0=1, dim1=2", .give = "{{1,2,3},{4,5,6}}", .want = "{{1,4},{2,5},{3,6}}"},
    {.in = "2,3,4"},
    {.in = "2,3,4", .attrs = "dim0=3, dim1=1"},
    {.in = "3,2", .attrs = "dim0=2, dim1=2"},
    {0}};

GR_OP(transpose) = {
    .info = {.name = "transpose", .inputs = "x", .attrs = transpose_schema, .attr_size = sizeof(transpose_attrs),
             .cases = transpose_cases,
             .doc = "x with two dimensions swapped: the last two if none are given. A view."},
    .view = transpose_view,
    .backward = transpose_rule,
};
