/* y[i] = value. No inputs, no derivative. */
#include "iter.h"

static gr_status fill_shape(gri_call *c) {
    const gri_fill_attrs *a = c->attrs;
    return gri_spec_given(c->ctx, &a->shape, a->dtype, &c->spec[0]);
}

static gr_status fill_forward(gri_call *c) {
    const gri_fill_attrs *a = c->attrs;
    gr_tensor *value;
    GR_TRY(gr_tensor_scalar(c->ctx, (gr_dtype)c->out[0]->dtype, a->value, &value));
    gr_status status = gri_copy(c->ctx, c->out[0], value, c->mode);
    gr_release(value);
    return status;
}
GR_KERNEL(fill);

static const gr_attr fill_schema[] = {
    {"shape", GR_ATTR_SHAPE, offsetof(gri_fill_attrs, shape), .required = true},
    {"value", GR_ATTR_REAL, offsetof(gri_fill_attrs, value), .required = true},
    {"dtype", GR_ATTR_DTYPE, offsetof(gri_fill_attrs, dtype), .value = GR_F32},
    GR_ATTR_END};

static const gr_case fill_cases[] = {
    {.in = "", .attrs = "shape={2,3}, value=1.5", .want = "{{1.5,1.5,1.5},{1.5,1.5,1.5}}", .no_grad = true},
    {.in = "", .attrs = "shape={2}, value=7, dtype='i64'", .want = "{7,7}", .no_grad = true},
    {.in = "", .attrs = "shape={0,3}, value=1", .no_grad = true},
    {0}};

GR_OP(fill) = {
    .info = {.name = "fill", .inputs = "", .attrs = fill_schema, .attr_size = sizeof(gri_fill_attrs), .cases = fill_cases,
             .doc = "A tensor of one value throughout. Whole-number dtypes take whole values of their range only."},
    .shape = fill_shape,
    .forward = fill_kernels,
};
