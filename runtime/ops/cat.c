/* Joining tensors: cat along a dimension there is, stack along a new one.
 *
 *   cat    x_i[…, n_i, …] → y[…, Σ n_i, …]      stack    x_i[…] → y[…, count, …]
 *
 * dx_i = the part of dy that x_i went to, a view: narrow or select. Nothing is kept but the shapes. */
#include "copy.h"

#define CAT_MAX 65535 /* inputs a node can count */

typedef struct cat_attrs { int64_t dim; } cat_attrs;

static gr_status cat_check(gri_call *c, const char *what) {
    if (c->n_in < 1) return gr_fail(c->ctx, GR_ERR_ARG, "there is nothing to %s", what);
    if (c->n_in > CAT_MAX)
        return gr_fail(c->ctx, GR_ERR_ARG, "%d tensors, at most %d can be joined at once", c->n_in, CAT_MAX);
    for (int i = 0; i < c->n_in; i++)
        if (!c->in[i]) return gr_fail(c->ctx, GR_ERR_ARG, "tensor %d is missing", i + 1);
    return GR_OK;
}

/* ---- cat ---- */

static gr_status cat_shape(gri_call *c) {
    const cat_attrs *a = c->attrs;
    gri_spec *s = &c->spec[0];
    int64_t n;
    int dim;
    GR_TRY(cat_check(c, "concatenate"));
    const gr_tensor *first = c->in[0];
    if (first->rank == 0)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s has no dimension to join along; stack makes one",
                       gri_tensor_text(first));
    GR_TRY(gri_dim(c->ctx, a->dim, first->rank, &dim));
    *s = gri_spec_of(first);
    for (int i = 1; i < c->n_in; i++) {
        const gr_tensor *x = c->in[i];
        bool fits = x->rank == first->rank;
        for (int d = 0; fits && d < x->rank; d++) fits = d == dim || x->dims[d] == first->dims[d];
        if (!fits)
            return gr_fail(c->ctx, GR_ERR_SHAPE, "tensor %d is %s, but the first is %s: only dimension %d may differ",
                           i + 1, gri_tensor_text(x), gri_tensor_text(first), dim + c->ctx->index_base);
        s->dtype = gri_promote(s->dtype, (gr_dtype)x->dtype);
        s->dims[dim] += x->dims[dim];
        GR_TRY(gri_numel(c->ctx, s->dtype, s->rank, s->dims, &n));
    }
    return GR_OK;
}

static gr_status cat_forward(gri_call *c) {
    const cat_attrs *a = c->attrs;
    gr_tensor *y = c->out[0];
    int dim = (int)(a->dim < 0 ? a->dim + y->rank : a->dim);
    int64_t at = 0;
    for (int i = 0; i < c->n_in; i++) {
        GR_TRY(gri_copy_into(c->ctx, y, dim, at, 1, c->in[i], c->mode));
        at += c->in[i]->dims[dim];
    }
    return GR_OK;
}
GR_KERNEL(cat);

static gr_status cat_rule(gri_grad *g) {
    gri_narrow_attrs part = {.dim = ((const cat_attrs *)g->attrs)->dim};
    if (part.dim < 0) part.dim += g->dy[0]->rank;
    for (int i = 0; i < g->n_in; i++) {
        part.length = gri_input_spec(g, i)->dims[part.dim];
        GR_TRY(gri_emit(g, i, &gri_op_narrow, 1, g->dy, &part));
        part.start += part.length;
    }
    return GR_OK;
}

static const gr_attr cat_schema[] = {{"dim", GR_ATTR_DIM, offsetof(cat_attrs, dim), .value = 0}, GR_ATTR_END};

static const gr_case cat_cases[] = {
    {.in = "1,2 2,2", .give = "{{1,2}}, {{3,4},{5,6}}", .want = "{{1,2},{3,4},{5,6}}"},
    {.in = "2,1 2,2", .attrs = "dim=2", .give = "{{1},{4}}, {{2,3},{5,6}}", .want = "{{1,2,3},{4,5,6}}"},
    {.in = "2,3,2 2,1,2 2,4,2", .attrs = "dim=-2"},
    {.in = "0,3 2,3"},
    {.in = "3"},
    {0}};

GR_OP(cat) = {
    .info = {.name = "cat", .inputs = "tensors*", .attrs = cat_schema, .attr_size = sizeof(cat_attrs),
             .cases = cat_cases,
             .doc = "A list of tensors joined along dimension dim, the first if none is given. All other sizes must\n"
                    "be the same."},
    .input_specs = true,
    .shape = cat_shape,
    .forward = cat_kernels,
    .backward = cat_rule,
};

/* ---- stack ---- */

static gr_status stack_shape(gri_call *c) {
    const cat_attrs *a = c->attrs;
    gri_spec *s = &c->spec[0];
    int64_t n;
    int dim;
    GR_TRY(cat_check(c, "stack"));
    const gr_tensor *first = c->in[0];
    if (first->rank == GR_MAX_RANK)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s has all the %d dimensions a tensor can have", gri_tensor_text(first),
                       GR_MAX_RANK);
    GR_TRY(gri_dim(c->ctx, a->dim, first->rank + 1, &dim));
    s->dtype = (gr_dtype)first->dtype;
    for (int i = 1; i < c->n_in; i++) {
        const gr_tensor *x = c->in[i];
        if (!gri_same_dims(x->rank, x->dims, first->rank, first->dims))
            return gr_fail(c->ctx, GR_ERR_SHAPE, "tensor %d is %s, but the first is %s", i + 1, gri_tensor_text(x),
                           gri_tensor_text(first));
        s->dtype = gri_promote(s->dtype, (gr_dtype)x->dtype);
    }
    s->rank = first->rank + 1;
    for (int d = 0; d < s->rank; d++) s->dims[d] = d == dim ? c->n_in : first->dims[d - (d > dim)];
    return gri_numel(c->ctx, s->dtype, s->rank, s->dims, &n);
}

static gr_status stack_forward(gri_call *c) {
    const cat_attrs *a = c->attrs;
    gr_tensor *y = c->out[0];
    int dim = (int)(a->dim < 0 ? a->dim + y->rank : a->dim);
    for (int i = 0; i < c->n_in; i++) GR_TRY(gri_copy_into(c->ctx, y, dim, i, 1, c->in[i], c->mode));
    return GR_OK;
}
GR_KERNEL(stack);

static gr_status stack_rule(gri_grad *g) {
    gri_select_attrs part = {.dim = ((const cat_attrs *)g->attrs)->dim};
    for (int i = 0; i < g->n_in; i++) {
        part.index = i;
        GR_TRY(gri_emit(g, i, &gri_op_select, 1, g->dy, &part));
    }
    return GR_OK;
}

static const gr_case stack_cases[] = {
    {.in = "2 2", .give = "{1,2}, {3,4}", .want = "{{1,2},{3,4}}"},
    {.in = "2 2", .attrs = "dim=-1", .give = "{1,2}, {3,4}", .want = "{{1,3},{2,4}}"},
    {.in = "2,3 2,3 2,3", .attrs = "dim=2"},
    {.in = "() ()"},
    {0}};

GR_OP(stack) = {
    .info = {.name = "stack", .inputs = "tensors*", .attrs = cat_schema, .attr_size = sizeof(cat_attrs),
             .cases = stack_cases,
             .doc = "A list of tensors of one shape joined along a new dimension that comes to be number dim, the\n"
                    "first if none is given."},
    .shape = stack_shape,
    .forward = stack_kernels,
    .backward = stack_rule,
};
