/* y = the largest element of each window:  x[n,c,l] → y[n,c,ol], index[n,c,ol]
 *
 * A line is an image of one row: max_pool2d's kernel takes it as it is, and its derivatives are max_pool2d's. */
#include "pool.h"

static gr_status max_pool1d_shape(gri_call *c) { return gri_pool_shape(c, 3); }

static gr_status max_pool1d_forward(gri_call *c) {
    gri_call d = *c;
    d.op = &gri_op_max_pool2d;
    return gri_run(&d);
}
GR_KERNEL(max_pool1d);

static gr_status max_pool1d_rule(gri_grad *g) { return gri_op_max_pool2d.backward(g); }

static const gr_attr max_pool1d_schema[] = {
    {"kernel_size", GR_ATTR_INT, offsetof(gri_pool_attrs, kernel_size[1]), .required = true, .min = 1,
     .max = 1 << 30},
    {"stride", GR_ATTR_INT, offsetof(gri_pool_attrs, stride[1]), .max = 1 << 30}, /* 0: kernel_size */
    {"padding", GR_ATTR_INT, offsetof(gri_pool_attrs, padding[1]), .min = 0, .max = 1 << 30},
    {"dilation", GR_ATTR_INT, offsetof(gri_pool_attrs, dilation[1]), .value = 1, .min = 1, .max = 1 << 30},
    {"ceil_mode", GR_ATTR_BOOL, offsetof(gri_pool_attrs, ceil_mode), .value = 0},
    GR_ATTR_END};

static const gr_case max_pool1d_cases[] = {
    {.in = "1,2,4", .attrs = "kernel_size=2", .give = "{{{1,5,2,1},{4,3,0,-1}}}",
     .want = "{{{5,2},{4,0}}}, {{{2,3},{1,3}}}"},
    {.in = "2,3,9", .attrs = "kernel_size=3, stride=2, padding=1"},
    {.in = "2,2,8", .attrs = "kernel_size=3, dilation=2, ceil_mode=true"},
    {.in = "0,2,4", .attrs = "kernel_size=2"},
    {0}};

GR_OP(max_pool1d) = {
    .info = {.name = "max_pool1d", .inputs = "x", .attrs = max_pool1d_schema, .attr_size = sizeof(gri_pool_attrs),
             .cases = max_pool1d_cases,
             .doc = "The largest element of every window of lines x [n,c,l], and where it lies in its line. stride\n"
                    "is kernel_size if it is not given. With ceil_mode a last window that only starts inside\n"
                    "counts too."},
    .n_out = 2,
    .keeps = GRI_KEEP_OUT(1),
    .sets_only = true,
    .shape = max_pool1d_shape,
    .forward = max_pool1d_kernels,
    .backward = max_pool1d_rule,
};
