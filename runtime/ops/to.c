/* y = x in another dtype. Floating values become whole ones by truncation; out of range they saturate and
 * NaN becomes 0.
 *
 * The gradient is converted back. */
#include "iter.h"

static gr_status to_shape(gri_call *c) {
    const gri_dtype_attrs *a = c->attrs;
    c->spec[0] = gri_spec_of(c->in[0]);
    c->spec[0].dtype = (gr_dtype)a->dtype;
    return GR_OK;
}

static gr_status to_forward(gri_call *c) { return gri_copy(c->ctx, c->out[0], c->in[0], c->mode); }
GR_KERNEL(to);

static gr_status to_rule(gri_grad *g) { return gri_emit_same(g, 0, g->dy[0]); }

static const gr_attr to_attrs[] = {
    {"dtype", GR_ATTR_DTYPE, offsetof(gri_dtype_attrs, dtype), .required = true}, GR_ATTR_END};

static const gr_case to_cases[] = {
    {.in = "3", .attrs = "dtype='f64'", .give = "{1.5, -2, 0}", .want = "{1.5, -2, 0}"},
    {.in = "3", .attrs = "dtype='i64'", .give = "{1.5, -2.75, 3}", .want = "{1, -2, 3}", .no_grad = true},
    {.in = "3,5", .attrs = "dtype='f32'", .no_grad = true},
    {.in = "3,5", .attrs = "dtype='f64'"},
    {0}};

GR_OP(to) = {
    .info = {.name = "to", .inputs = "x", .attrs = to_attrs, .attr_size = sizeof(gri_dtype_attrs), .cases = to_cases,
             .doc = "x in another dtype: \"f32\", \"f64\", \"i64\", \"u8\". Always a copy."},
    .shape = to_shape,
    .forward = to_kernels,
    .backward = to_rule,
};
