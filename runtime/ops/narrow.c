/* Parts of x along one dimension: narrow (start and length), slice (start, stop, step) and select (one position,
 * whose dimension goes). Views.
 *
 * dx = zeros with dy at the positions taken: the op place. The tape adds a further contribution to those
 * positions only, so that the gradient of a sequence read step by step costs no more than the sequence.
 * Nothing is kept. */
#include "copy.h"

typedef struct slice_attrs { int64_t dim, start, stop, step; } slice_attrs;
/* dy goes to start, start + step, … of dim in a tensor of this shape; to start alone if it lacks that dim. */
typedef struct place_attrs { gr_dims shape; int64_t dim, start, step; } place_attrs;

/* A position as scripts count. */
static long long narrow_shown(const gri_call *c, int64_t at) { return at < 0 ? at : at + c->ctx->index_base; }

/* "positions are 1 to 6" or "it is empty". */
static gr_status narrow_fail(gri_call *c, const char *what, int64_t at, int dim) {
    const gr_tensor *x = c->in[0];
    int base = c->ctx->index_base;
    if (x->dims[dim] == 0)
        return gr_fail(c->ctx, GR_ERR_INDEX, "%s %lld: dimension %d of %s is empty", what, narrow_shown(c, at),
                       dim + base, gri_tensor_text(x));
    return gr_fail(c->ctx, GR_ERR_INDEX, "%s %lld is outside dimension %d of %s: positions are %d to %lld", what,
                   narrow_shown(c, at), dim + base, gri_tensor_text(x), base, (long long)x->dims[dim] - 1 + base);
}

/* `length` positions from start, every step-th one; the bounds are known to be right. */
static gr_status narrow_part(gri_call *c, int dim, int64_t start, int64_t length, int64_t step) {
    const gr_tensor *x = c->in[0];
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    for (int d = 0; d < x->rank; d++) {
        dims[d] = d == dim ? length : x->dims[d];
        strides[d] = d == dim && length > 1 ? x->strides[d] * step : x->strides[d];
    }
    return gri_tensor_view(x, x->rank, dims, strides, length ? start * x->strides[dim] : 0, &c->out[0]);
}

/* What the three rules emit. start may count from the end. */
static gr_status narrow_place(gri_grad *g, int64_t dim, int64_t start, int64_t step) {
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    place_attrs a = {.shape = {.n = x->rank}, .dim = dim < 0 ? dim + x->rank : dim, .step = step};
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    a.start = start < 0 ? start + x->dims[a.dim] : start;
    return gri_emit(g, 0, &gri_op_place, 1, g->dy, &a);
}

/* ---- narrow ---- */

static gr_status narrow_view(gri_call *c) {
    const gri_narrow_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    int dim;
    GR_TRY(gri_dim(c->ctx, a->dim, x->rank, &dim));
    int64_t size = x->dims[dim], start = a->start < 0 ? a->start + size : a->start;
    if (a->length < 0) return gr_fail(c->ctx, GR_ERR_ARG, "length %lld is negative", (long long)a->length);
    if (start < 0 || start > size || (start == size && a->length > 0)) return narrow_fail(c, "start", a->start, dim);
    if (a->length > size - start)
        return gr_fail(c->ctx, GR_ERR_INDEX,
                       "length %lld from start %lld leaves dimension %d of %s, which has %lld positions",
                       (long long)a->length, narrow_shown(c, a->start), dim + c->ctx->index_base, gri_tensor_text(x),
                       (long long)size);
    return narrow_part(c, dim, start, a->length, 1);
}

static gr_status narrow_rule(gri_grad *g) {
    const gri_narrow_attrs *a = g->attrs;
    return narrow_place(g, a->dim, a->start, 1);
}

static const gr_attr narrow_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(gri_narrow_attrs, dim), .required = true},
    {"start", GR_ATTR_POS, offsetof(gri_narrow_attrs, start), .required = true},
    {"length", GR_ATTR_INT, offsetof(gri_narrow_attrs, length), .required = true},
    GR_ATTR_END};

static const gr_case narrow_cases[] = {
    {.in = "2,4", .attrs = "dim=2, start=2, length=2", .give = "{{1,2,3,4},{5,6,7,8}}", .want = "{{2,3},{6,7}}"},
    {.in = "4,3", .attrs = "dim=1, start=-2, length=2"},
    {.in = "2,3,4", .attrs = "dim=2, start=2, length=1"},
    {.in = "4", .attrs = "dim=1, start=2, length=0"},
    {0}};

GR_OP(narrow) = {
    .info = {.name = "narrow", .inputs = "x", .attrs = narrow_schema, .attr_size = sizeof(gri_narrow_attrs),
             .cases = narrow_cases, .doc = "The positions start to start + length - 1 of dimension dim. A view."},
    .view = narrow_view,
    .backward = narrow_rule,
};

/* ---- slice ---- */

static gr_status slice_view(gri_call *c) {
    const slice_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    int dim;
    GR_TRY(gri_dim(c->ctx, a->dim, x->rank, &dim));
    int64_t size = x->dims[dim], start = a->start < 0 ? a->start + size : a->start;
    int64_t stop = a->stop < 0 ? a->stop + size : a->stop;
    if (a->step < 1) return gr_fail(c->ctx, GR_ERR_ARG, "step %lld: it must be at least 1", (long long)a->step);
    if (start < 0 || start > size) return narrow_fail(c, "start", a->start, dim);
    if (stop != start - 1) {
        if (start == size) return narrow_fail(c, "start", a->start, dim);
        if (stop < 0 || stop >= size) return narrow_fail(c, "stop", a->stop, dim);
        if (stop < start)
            return gr_fail(c->ctx, GR_ERR_INDEX, "start %lld comes after stop %lld in dimension %d of %s",
                           narrow_shown(c, a->start), narrow_shown(c, a->stop), dim + c->ctx->index_base,
                           gri_tensor_text(x));
    }
    return narrow_part(c, dim, start, stop < start ? 0 : (stop - start) / a->step + 1, a->step);
}

static gr_status slice_rule(gri_grad *g) {
    const slice_attrs *a = g->attrs;
    return narrow_place(g, a->dim, a->start, a->step);
}

static const gr_attr slice_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(slice_attrs, dim), .required = true},
    {"start", GR_ATTR_POS, offsetof(slice_attrs, start), .value = 0},
    {"stop", GR_ATTR_POS, offsetof(slice_attrs, stop), .value = -1},
    {"step", GR_ATTR_INT, offsetof(slice_attrs, step), .value = 1},
    GR_ATTR_END};

static const gr_case slice_cases[] = {
    {.in = "5", .attrs = "dim=1, start=2, stop=5, step=2", .give = "{1,2,3,4,5}", .want = "{2,4}"},
    {.in = "5", .attrs = "dim=1, start=-2", .give = "{1,2,3,4,5}", .want = "{4,5}"},
    {.in = "3,7", .attrs = "dim=2, start=1, stop=7, step=3"},
    {.in = "5,2", .attrs = "dim=1, start=4, stop=3"},
    {0}};

GR_OP(slice) = {
    .info = {.name = "slice", .inputs = "x", .attrs = slice_schema, .attr_size = sizeof(slice_attrs),
             .cases = slice_cases,
             .doc = "The positions start, start + step, … of dimension dim, up to and including stop; negative ones\n"
                    "count from the end. stop = start - 1 gives none (from position 1: narrow does). A view."},
    .view = slice_view,
    .backward = slice_rule,
};

/* ---- select ---- */

static gr_status select_view(gri_call *c) {
    const gri_select_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    int dim;
    GR_TRY(gri_dim(c->ctx, a->dim, x->rank, &dim));
    int64_t size = x->dims[dim], at = a->index < 0 ? a->index + size : a->index;
    if (at < 0 || at >= size) return narrow_fail(c, "index", a->index, dim);
    for (int d = 0; d < x->rank - 1; d++) {
        dims[d] = x->dims[d + (d >= dim)];
        strides[d] = x->strides[d + (d >= dim)];
    }
    return gri_tensor_view(x, x->rank - 1, dims, strides, at * x->strides[dim], &c->out[0]);
}

static gr_status select_rule(gri_grad *g) {
    const gri_select_attrs *a = g->attrs;
    return narrow_place(g, a->dim, a->index, 1);
}

static const gr_attr select_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(gri_select_attrs, dim), .required = true},
    {"index", GR_ATTR_POS, offsetof(gri_select_attrs, index), .required = true},
    GR_ATTR_END};

static const gr_case select_cases[] = {
    {.in = "2,3", .attrs = "dim=1, index=2", .give = "{{1,2,3},{4,5,6}}", .want = "{4,5,6}"},
    {.in = "2,3", .attrs = "dim=2, index=-1", .give = "{{1,2,3},{4,5,6}}", .want = "{3,6}"},
    {.in = "2,3,4", .attrs = "dim=2, index=3"},
    {.in = "3", .attrs = "dim=1, index=1"},
    {0}};

GR_OP(select) = {
    .info = {.name = "select", .inputs = "x", .attrs = select_schema, .attr_size = sizeof(gri_select_attrs),
             .cases = select_cases,
             .doc = "What is at one position of dimension dim, without that dimension. A view."},
    .view = select_view,
    .backward = select_rule,
};

/* ---- place: their derivative ---- */

static gr_status place_shape(gri_call *c) {
    const place_attrs *a = c->attrs;
    const gr_tensor *dy = c->in[0];
    bool one = dy->rank < a->shape.n, fits = dy->rank + one == a->shape.n;
    int dim;
    GR_TRY(gri_spec_given(c->ctx, &a->shape, dy->dtype, &c->spec[0]));
    GR_TRY(gri_dim(c->ctx, a->dim, a->shape.n, &dim));
    int64_t count = one ? 1 : fits ? dy->dims[dim] : 0;
    for (int d = 0; fits && d < a->shape.n; d++)
        if (d != dim && dy->dims[d - (one && d > dim)] != a->shape.v[d]) fits = false;
    /* (count - 1) step <= room, without overflow */
    int64_t room = fits && a->start >= 0 ? a->shape.v[dim] - 1 - a->start : 0;
    if (a->step < 1 || a->start < 0 || (count && room < 0) || (count > 1 && a->step > room / (count - 1))) fits = false;
    if (fits) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE,
                   "%s does not fit into dimension %d of %s from position %lld in steps of %lld",
                   gri_tensor_text(dy), dim + c->ctx->index_base, gri_dims_text(a->shape.n, a->shape.v),
                   narrow_shown(c, a->start), (long long)a->step);
}

static gr_status place_forward(gri_call *c) {
    const place_attrs *a = c->attrs;
    gr_tensor *x = c->out[0];
    int dim = (int)(a->dim < 0 ? a->dim + x->rank : a->dim);
    if (c->mode == GRI_SET) GR_TRY(gri_zero(c->ctx, x));
    return gri_copy_into(c->ctx, x, dim, a->start, a->step, c->in[0], c->mode);
}
GR_KERNEL(place);

static gr_status place_rule(gri_grad *g) {
    const place_attrs *a = g->attrs;
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *dy = gri_input_spec(g, 0);
    if (dy->rank < a->shape.n) return gri_emit(g, 0, &gri_op_select, 1, g->dy, &(gri_select_attrs){a->dim, a->start});
    int64_t count = dy->dims[a->dim < 0 ? a->dim + dy->rank : a->dim];
    if (count == 0) return gri_emit(g, 0, &gri_op_narrow, 1, g->dy, &(gri_narrow_attrs){a->dim, 0, 0});
    return gri_emit(g, 0, &gri_op_slice, 1, g->dy,
                    &(slice_attrs){a->dim, a->start, a->start + (count - 1) * a->step, a->step});
}

static const gr_attr place_schema[] = {
    {"shape", GR_ATTR_SHAPE, offsetof(place_attrs, shape), .required = true},
    {"dim", GR_ATTR_DIM, offsetof(place_attrs, dim), .required = true},
    {"start", GR_ATTR_POS, offsetof(place_attrs, start), .required = true},
    {"step", GR_ATTR_INT, offsetof(place_attrs, step), .value = 1},
    GR_ATTR_END};

static const gr_case place_cases[] = {
    {.in = "2", .attrs = "shape={5}, dim=1, start=2, step=2", .give = "{1,2}", .want = "{0,1,0,2,0}"},
    {.in = "2", .attrs = "shape={2,3}, dim=2, start=3", .give = "{1,2}", .want = "{{0,0,1},{0,0,2}}"},
    {.in = "2,2,3", .attrs = "shape={2,5,3}, dim=2, start=1, step=3"},
    {.in = "3,4", .attrs = "shape={3,9}, dim=2, start=2"},
    {0}};

GR_OP(place) = {
    .info = {.name = "place", .inputs = "dy", .attrs = place_schema, .attr_size = sizeof(place_attrs), .hidden = true,
             .cases = place_cases,
             .doc = "Zeros of the given shape, with dy at start, start + step, … of dimension dim, or, if dy lacks\n"
                    "that dimension, at start."},
    .shape = place_shape,
    .forward = place_kernels,
    .backward = place_rule,
};
