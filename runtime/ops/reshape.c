/* y = the elements of x, in row-major order, under another shape: reshape, view and flatten.
 *
 * Where the strides of x allow it y is a view, otherwise reshape and flatten copy and view refuses. dx = dy
 * under the shape of x. Nothing is kept. */
#include "iter.h"

/* The strides with which x's memory reads as dims (same count of elements), or false if none do.
 *
 * x's dims fall into groups that step evenly through memory: in a group stride[d] = stride[d+1] dim[d+1]. The
 * new dims must tile those groups one after the other, which is checked from the last dim to the first. */
static bool reshape_strides(const gr_tensor *x, int rank, const int64_t *dims, int64_t *strides) {
    if (x->contiguous) {
        gri_row_major(rank, dims, strides);
        return true;
    }
    int to = rank - 1;
    for (int d = x->rank - 1; d >= 0; d--) {
        if (x->dims[d] == 1) continue;
        int64_t step = x->strides[d], group = x->dims[d], tiled = 1;
        while (d > 0 && (x->dims[d - 1] == 1 || x->strides[d - 1] == step * group)) group *= x->dims[--d];
        for (; to >= 0 && (tiled < group || dims[to] == 1); to--) {
            strides[to] = step * tiled;
            tiled *= dims[to];
        }
        if (tiled != group) return false;
    }
    for (; to >= 0; to--) strides[to] = 1; /* sizes of 1 in front */
    return true;
}

/* The wanted sizes, with -1 worked out. */
static gr_status reshape_sizes(gri_call *c, const gr_dims *want, int64_t *dims) {
    const gr_tensor *x = c->in[0];
    int64_t n = 1, given;
    int unknown = -1;
    if (want->n < 0 || want->n > GR_MAX_RANK)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "rank %d: a tensor has at most %d dimensions", want->n, GR_MAX_RANK);
    for (int d = 0; d < want->n; d++) {
        dims[d] = want->v[d];
        if (dims[d] != -1) continue;
        if (unknown >= 0)
            return gr_fail(c->ctx, GR_ERR_SHAPE, "%s: only one size can be -1", gri_dims_text(want->n, want->v));
        unknown = d;
        dims[d] = 1;
    }
    GR_TRY(gri_numel(c->ctx, (gr_dtype)x->dtype, want->n, dims, &given));
    n = given;
    if (unknown >= 0 && given > 0) n = given * (dims[unknown] = x->numel / given);
    if (unknown >= 0 && given == 0)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s to %s: -1 could be any size, since the others multiply to 0",
                       gri_tensor_text(x), gri_dims_text(want->n, want->v));
    if (n != x->numel)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s has %lld elements, %s %s %lld", gri_tensor_text(x),
                       (long long)x->numel, gri_dims_text(want->n, want->v),
                       unknown >= 0 ? "needs a multiple of" : "has", (long long)given);
    return GR_OK;
}

static gr_status reshape_to(gri_call *c, int rank, const int64_t *dims) {
    int64_t strides[GR_MAX_RANK];
    gr_tensor *dense;
    if (reshape_strides(c->in[0], rank, dims, strides))
        return gri_tensor_view(c->in[0], rank, dims, strides, 0, &c->out[0]);
    GR_TRY(gri_tensor_dense(c->in[0], &dense));
    gri_row_major(rank, dims, strides);
    gr_status s = gri_tensor_view(dense, rank, dims, strides, 0, &c->out[0]);
    gr_release(dense);
    return s;
}

/* All three: dy has as many elements as x, in the same order. */
static gr_status reshape_rule(gri_grad *g) {
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    return gri_emit(g, 0, &gri_op_reshape, 1, g->dy, &a);
}

/* ---- reshape ---- */

static gr_status reshape_view(gri_call *c) {
    const gri_shape_attrs *a = c->attrs;
    int64_t dims[GR_MAX_RANK];
    GR_TRY(reshape_sizes(c, &a->shape, dims));
    return reshape_to(c, a->shape.n, dims);
}

static const gr_attr reshape_schema[] = {
    {"shape", GR_ATTR_SHAPE, offsetof(gri_shape_attrs, shape), .required = true}, GR_ATTR_END};

static const gr_case reshape_cases[] = {
    {.in = "2,3", .attrs = "shape={3,2}", .give = "{{1,2,3},{4,5,6}}", .want = "{{1,2},{3,4},{5,6}}"},
    {.in = "2,3,4", .attrs = "shape={-1,4}"},
    {.in = "2,6", .attrs = "shape={1,2,3,2,1}"},
    {.in = "1,1", .attrs = "shape={}"},
    {.in = "0,3", .attrs = "shape={3,-1}"},
    {0}};

GR_OP(reshape) = {
    .info = {.name = "reshape", .inputs = "x", .attrs = reshape_schema, .attr_size = sizeof(gri_shape_attrs),
             .cases = reshape_cases,
             .doc = "The elements of x in another shape; one size may be -1 and is worked out. No copy is made\n"
                    "where x's memory already reads that way."},
    .view = reshape_view,
    .backward = reshape_rule,
};

/* ---- view ---- */

static gr_status view_view(gri_call *c) {
    const gri_shape_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    GR_TRY(reshape_sizes(c, &a->shape, dims));
    if (!reshape_strides(x, a->shape.n, dims, strides))
        return gr_fail(c->ctx, GR_ERR_SHAPE,
                       "the memory of %s with strides %s does not read as %s; reshape copies it",
                       gri_tensor_text(x), gri_dims_text(x->rank, x->strides), gri_dims_text(a->shape.n, dims));
    return gri_tensor_view(x, a->shape.n, dims, strides, 0, &c->out[0]);
}

static const gr_case view_cases[] = {
    {.in = "2,3", .attrs = "shape={3,2}", .give = "{{1,2,3},{4,5,6}}", .want = "{{1,2},{3,4},{5,6}}"},
    {.in = "2,3,4", .attrs = "shape={6,-1}"},
    {0}};

GR_OP(view) = {
    .info = {.name = "view", .inputs = "x", .attrs = reshape_schema, .attr_size = sizeof(gri_shape_attrs),
             .cases = view_cases,
             .doc = "As reshape, but never a copy: an error where x's memory does not read as the shape."},
    .view = view_view,
    .backward = reshape_rule,
};

/* ---- flatten ---- */

typedef struct flatten_attrs { int64_t start_dim, end_dim; } flatten_attrs;

static gr_status flatten_view(gri_call *c) {
    const flatten_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    int64_t dims[GR_MAX_RANK] = {1};
    int from = 0, to = 0, rank = 0, base = c->ctx->index_base;
    GR_TRY(gri_dim(c->ctx, a->start_dim, x->rank ? x->rank : 1, &from));
    GR_TRY(gri_dim(c->ctx, a->end_dim, x->rank ? x->rank : 1, &to));
    if (from > to)
        return gr_fail(c->ctx, GR_ERR_INDEX, "start_dim %d comes after end_dim %d of %s", from + base, to + base,
                       gri_tensor_text(x));
    for (int d = 0; d < x->rank; d++) {
        if (d > from && d <= to) dims[rank - 1] *= x->dims[d];
        else dims[rank++] = x->dims[d];
    }
    return reshape_to(c, rank ? rank : 1, dims);
}

static const gr_attr flatten_schema[] = {
    {"start_dim", GR_ATTR_DIM, offsetof(flatten_attrs, start_dim), .value = 0},
    {"end_dim", GR_ATTR_DIM, offsetof(flatten_attrs, end_dim), .value = -1},
    GR_ATTR_END};

static const gr_case flatten_cases[] = {
    {.in = "2,2,2", .give = "{{{1,2},{3,4}},{{5,6},{7,8}}}", .want = "{1,2,3,4,5,6,7,8}"},
    {.in = "2,3,4", .attrs = "start_dim=2"},
    {.in = "2,3,4,5", .attrs = "start_dim=2, end_dim=3"},
    {.in = "()"},
    {0}};

GR_OP(flatten) = {
    .info = {.name = "flatten", .inputs = "x", .attrs = flatten_schema, .attr_size = sizeof(flatten_attrs),
             .cases = flatten_cases,
             .doc = "The dimensions start_dim to end_dim (all of them if none is given) joined into one."},
    .view = flatten_view,
    .backward = reshape_rule,
};
