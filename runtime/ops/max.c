/* max, min: the largest or the smallest element along one dim, and where it stands.
 *
 *   x[…, n, …] → values[…], indices[…], i64, counted from the context's index base
 *
 * The first of equals; NaN is chosen before any number. dx = dy at indices (gather_backward): the element that was
 * chosen has all of the gradient. Only indices are kept. Scripts that give no dim call amax and amin. */
#include "lines.h"
#include "reduce.h"

typedef struct max_attrs { int64_t dim; bool keepdim; } max_attrs;

static gr_status max_shape(gri_call *c) {
    const max_attrs *a = c->attrs;
    gr_tensor *x = c->in[0];
    int dim;
    GR_TRY(gri_line_dim(c, a->dim, x, &dim));
    GR_TRY(gri_want_some(c, x->rank ? 1u << dim : 0));
    gri_reduced_spec(x, 1u << dim, a->keepdim, (gr_dtype)x->dtype, &c->spec[0]);
    c->spec[1] = c->spec[0];
    c->spec[1].dtype = GR_I64;
    return GR_OK;
}

/* `find`, argmax or argmin, finds the positions. */
static gr_status max_run(gri_call *c, const gr_op *find) {
    const max_attrs *a = c->attrs;
    gri_reduce_attrs over = {.dim = {.n = c->in[0]->rank > 0, .v = {a->dim}}, .keepdim = a->keepdim};
    gri_call d;
    int dim;
    GR_TRY(gri_line_dim(c, a->dim, c->in[0], &dim));
    gri_call_set(&d, c->ctx, find, 1, c->in, &over, NULL);
    d.out[0] = c->out[1];
    GR_TRY(gri_run(&d));
    return gri_line_pick(c, dim);
}

static gr_status max_forward(gri_call *c) { return max_run(c, &gri_op_argmax); }
GR_KERNEL(max);
static gr_status min_forward(gri_call *c) { return max_run(c, &gri_op_argmin); }
GR_KERNEL(min);

static gr_status max_rule(gri_grad *g) { return gri_emit_picked(g, ((const max_attrs *)g->attrs)->dim); }

static const gr_attr max_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(max_attrs, dim), .required = true},
    {"keepdim", GR_ATTR_BOOL, offsetof(max_attrs, keepdim), .value = 0},
    GR_ATTR_END};

static const gr_case max_cases[] = {
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,5,3},{4,2,3}}", .want = "{4,5,3}, {2,1,1}",
     .no_grad = true},
    {.in = "2,3", .attrs = "dim=-1, keepdim=true", .give = "{{1,0/0,3},{4,6,6}}", .want = "{{0/0},{6}}, {{2},{2}}",
     .no_grad = true},
    {.in = "i64:2,2", .attrs = "dim=2", .give = "{{3,-2},{-7,-5}}", .want = "{3,-5}, {1,2}", .no_grad = true},
    {.in = "3,5,4", .attrs = "dim=2"},
    {.in = "6,40", .attrs = "dim=2, keepdim=true"},
    {.in = "()", .attrs = "dim=1"},
    {0}};

GR_OP(max) = {
    .info = {.name = "max", .inputs = "x", .attrs = max_schema, .attr_size = sizeof(max_attrs), .cases = max_cases,
             .over_all = "amax",
             .doc = "The largest elements along dim and their positions, the first of equals, which has all of the\n"
                    "gradient. NaN counts as the largest. Without dim, as amax: one value, of all elements."},
    .n_out = 2,
    .sets_only = true,
    .keeps = GRI_KEEP_OUT(1),
    .shape = max_shape,
    .forward = max_kernels,
    .backward = max_rule,
};

static const gr_case min_cases[] = {
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,5,3},{4,2,3}}", .want = "{1,2,3}, {1,2,1}",
     .no_grad = true},
    {.in = "2,3", .attrs = "dim=-1, keepdim=true", .give = "{{1,0/0,3},{4,4,6}}", .want = "{{0/0},{4}}, {{2},{1}}",
     .no_grad = true},
    {.in = "3,5,4", .attrs = "dim=2"},
    {.in = "6,40", .attrs = "dim=2, keepdim=true"},
    {.in = "()", .attrs = "dim=1"},
    {0}};

GR_OP(min) = {
    .info = {.name = "min", .inputs = "x", .attrs = max_schema, .attr_size = sizeof(max_attrs), .cases = min_cases,
             .over_all = "amin",
             .doc = "The smallest elements along dim and their positions, the first of equals, which has all of the\n"
                    "gradient. NaN counts as the smallest. Without dim, as amin: one value, of all elements."},
    .n_out = 2,
    .sets_only = true,
    .keeps = GRI_KEEP_OUT(1),
    .shape = max_shape,
    .forward = min_kernels,
    .backward = max_rule,
};
