/* y = x without, or with more, dimensions of size 1: squeeze and unsqueeze. Views.
 *
 * dx = dy under the shape of x. Nothing is kept. */
#include "op.h"

static gr_status squeeze_rule(gri_grad *g) {
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    return gri_emit(g, 0, &gri_op_reshape, 1, g->dy, &a);
}

/* ---- squeeze ---- */

typedef struct squeeze_attrs { gr_dims dim; } squeeze_attrs;

static gr_status squeeze_view(gri_call *c) {
    const squeeze_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    uint32_t mask;
    int rank = 0;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, x->rank, &mask));
    for (int d = 0; d < x->rank; d++) {
        if (mask >> d & 1 && x->dims[d] == 1) continue;
        dims[rank] = x->dims[d];
        strides[rank++] = x->strides[d];
    }
    return gri_tensor_view(x, rank, dims, strides, 0, &c->out[0]);
}

static const gr_attr squeeze_schema[] = {
    {"dim", GR_ATTR_DIMS, offsetof(squeeze_attrs, dim), .required = false},
    GR_ATTR_END};

static const gr_case squeeze_cases[] = {
    {.in = "1,2,1", .give = "{{{1},{2}}}", .want = "{1,2}"},
    {.in = "1,2,1", .attrs = "dim=1", .give = "{{{1},{2}}}", .want = "{{1},{2}}"},
    {.in = "1,2,1,1", .attrs = "dim={1,-1}"},
    {.in = "2,3", .attrs = "dim=2"},
    {.in = "1,1"},
    {0}};

GR_OP(squeeze) = {
    .info = {.name = "squeeze", .inputs = "x", .attrs = squeeze_schema, .attr_size = sizeof(squeeze_attrs),
             .cases = squeeze_cases,
             .doc = "x without its dimensions of size 1, or without those among dim (a number or a list) that are\n"
                    "of size 1. A view."},
    .view = squeeze_view,
    .backward = squeeze_rule,
};

/* ---- unsqueeze ---- */

typedef struct unsqueeze_attrs { int64_t dim; } unsqueeze_attrs;

static gr_status unsqueeze_view(gri_call *c) {
    const unsqueeze_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK], dim = a->dim < 0 ? a->dim + x->rank + 1 : a->dim;
    int base = c->ctx->index_base;
    if (dim < 0 || dim > x->rank)
        return gr_fail(c->ctx, GR_ERR_INDEX, "dimension %lld: %s can take a new one at %d to %d",
                       (long long)(a->dim < 0 ? a->dim : a->dim + base), gri_tensor_text(x), base, x->rank + base);
    if (x->rank == GR_MAX_RANK)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s has all the %d dimensions a tensor can have", gri_tensor_text(x),
                       GR_MAX_RANK);
    for (int d = 0; d <= x->rank; d++) {
        bool one = d == dim;
        dims[d] = one ? 1 : x->dims[d - (d > dim)];
        strides[d] = one ? 1 : x->strides[d - (d > dim)];
    }
    return gri_tensor_view(x, x->rank + 1, dims, strides, 0, &c->out[0]);
}

static const gr_attr unsqueeze_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(unsqueeze_attrs, dim), .required = true}, GR_ATTR_END};

static const gr_case unsqueeze_cases[] = {
    {.in = "2", .attrs = "dim=1", .give = "{1,2}", .want = "{{1,2}}"},
    {.in = "2", .attrs = "dim=-1", .give = "{1,2}", .want = "{{1},{2}}"},
    {.in = "2,3", .attrs = "dim=2"},
    {.in = "()", .attrs = "dim=1"},
    {0}};

GR_OP(unsqueeze) = {
    .info = {.name = "unsqueeze", .inputs = "x", .attrs = unsqueeze_schema, .attr_size = sizeof(unsqueeze_attrs),
             .cases = unsqueeze_cases,
             .doc = "x with a new dimension of size 1 that comes to be number dim. A view."},
    .view = unsqueeze_view,
    .backward = squeeze_rule,
};
