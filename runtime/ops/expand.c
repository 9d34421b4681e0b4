/* y = x seen in a larger shape: dims of size 1 and new leading dims are repeated with stride 0. A view.
 *
 * dx = dy summed over what was repeated: sum_to(dy; shape of x). Nothing is kept. */
#include "op.h"

static gr_status expand_fail(gri_call *c) {
    const gri_shape_attrs *a = c->attrs;
    return gr_fail(c->ctx, GR_ERR_SHAPE,
                   "%s does not expand to %s: from the last on, only a size of 1 can grow; -1 keeps one",
                   gri_tensor_text(c->in[0]), gri_dims_text(a->shape.n, a->shape.v));
}

static gr_status expand_view(gri_call *c) {
    const gr_dims *shape = &((const gri_shape_attrs *)c->attrs)->shape;
    const gr_tensor *x = c->in[0];
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK], n;
    int more = shape->n - x->rank;
    if (more < 0 || shape->n > GR_MAX_RANK) return expand_fail(c);
    for (int d = 0; d < shape->n; d++) {
        int64_t have = d < more ? 1 : x->dims[d - more], want = shape->v[d];
        if (want == -1 && d >= more) want = have;
        if (want < 0 || (want != have && have != 1)) return expand_fail(c);
        dims[d] = want;
        strides[d] = want == have && d >= more ? x->strides[d - more] : 0;
    }
    GR_TRY(gri_numel(c->ctx, (gr_dtype)x->dtype, shape->n, dims, &n));
    return gri_tensor_view(x, shape->n, dims, strides, 0, &c->out[0]);
}

static gr_status expand_rule(gri_grad *g) {
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    return gri_emit(g, 0, &gri_op_sum_to, 1, g->dy, &a);
}

static const gr_attr expand_schema[] = {
    {"shape", GR_ATTR_SHAPE, offsetof(gri_shape_attrs, shape), .required = true}, GR_ATTR_END};

static const gr_case expand_cases[] = {
    {.in = "2,1", .attrs = "shape={2,3}", .give = "{{1},{2}}", .want = "{{1,1,1},{2,2,2}}"},
    {.in = "3", .attrs = "shape={2,-1}", .give = "{1,2,3}", .want = "{{1,2,3},{1,2,3}}"},
    {.in = "3,1,2", .attrs = "shape={4,3,5,2}"},
    {.in = "()", .attrs = "shape={2,2}"},
    {.in = "2,1", .attrs = "shape={2,0}"},
    {.in = "()", .attrs = "shape={}"},
    {0}};

GR_OP(expand) = {
    .info = {.name = "expand", .inputs = "x", .attrs = expand_schema, .attr_size = sizeof(gri_shape_attrs),
             .cases = expand_cases,
             .doc = "x repeated to a larger shape without a copy: sizes of 1 grow, new ones come in front, -1 keeps\n"
                    "a size. Many elements of the result are the same memory: clone it before writing into it."},
    .view = expand_view,
    .backward = expand_rule,
};
