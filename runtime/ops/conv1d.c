/* y = x * W + b over lines:  x[n,c,l] W[o,c/groups,k] b[o]? → y[n,o,ol]
 *
 *     y[n,o,q] = b[o] + Σ_{c,j} W[o,c,j] x[n, c, q stride - padding + j dilation]
 *
 * A line is an image of one row: conv2d's kernel takes it as it is, and its derivatives are conv2d's. */
#include "conv.h"

static gr_status conv1d_shape(gri_call *c) { return gri_conv_shape(c, 3); }

static gr_status conv1d_forward(gri_call *c) {
    gri_call d = *c;
    d.op = &gri_op_conv2d;
    return gri_run(&d);
}
GR_KERNEL(conv1d);

static gr_status conv1d_rule(gri_grad *g) { return gri_op_conv2d.backward(g); }

static const gr_attr conv1d_schema[] = {
    {"stride", GR_ATTR_INT, offsetof(gri_conv2d_attrs, stride[1]), .value = 1, .min = 1, .max = 1 << 30},
    {"padding", GR_ATTR_INT, offsetof(gri_conv2d_attrs, padding[1]), .min = 0, .max = 1 << 30},
    {"dilation", GR_ATTR_INT, offsetof(gri_conv2d_attrs, dilation[1]), .value = 1, .min = 1, .max = 1 << 30},
    {"groups", GR_ATTR_INT, offsetof(gri_conv2d_attrs, groups), .value = 1, .min = 1, .max = 1 << 30},
    GR_ATTR_END};

static const gr_case conv1d_cases[] = {
    {.in = "1,1,4 1,1,2 1", .give = "{{{1,2,4,8}}}, {{{1,-1}}}, {10}", .want = "{{{9,8,6}}}"},
    {.in = "1,2,3 1,2,3 -", .attrs = "padding=1", .give = "{{{1,2,3},{4,5,6}}}, {{{1,0,0},{0,0,1}}}",
     .want = "{{{5,7,2}}}"},
    {.in = "2,3,9 4,3,3 4", .attrs = "padding=1"},
    {.in = "2,4,11 6,2,3 6", .attrs = "stride=2, padding=2, dilation=3, groups=2"},
    {.in = "3,2,7 5,2,1 -"},
    {.in = "3,4,6 4,1,3 4", .attrs = "groups=4, padding=1"},
    {.in = "0,2,4 3,2,3 3"},
    {0}};

GR_OP(conv1d) = {
    .info = {.name = "conv1d", .inputs = "x weight bias?", .attrs = conv1d_schema,
             .attr_size = sizeof(gri_conv2d_attrs), .cases = conv1d_cases,
             .doc = "1-d convolution (cross-correlation) of lines x [n,c,l] with kernels weight\n"
                    "[o,c/groups,k], plus bias [o]."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = conv1d_shape,
    .forward = conv1d_kernels,
    .backward = conv1d_rule,
};
