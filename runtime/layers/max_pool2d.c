/* MaxPool2d: the largest element of every window; x[n,c,h,w] → y[n,c,oh,ow]. */
#include "layer.h"

#include <stdio.h>

static int MaxPool2d_describe(const gr_layer *l, char *buf, size_t size) {
    const gri_max_pool2d_attrs *a = l->attrs;
    char stride[56] = "", padding[56] = "";
    if (a->stride[0] && (a->stride[0] != a->kernel_size[0] || a->stride[1] != a->kernel_size[1]))
        snprintf(stride, sizeof stride, ", stride %lld×%lld", (long long)a->stride[0], (long long)a->stride[1]);
    if (a->padding[0] || a->padding[1])
        snprintf(padding, sizeof padding, ", padding %lld×%lld", (long long)a->padding[0], (long long)a->padding[1]);
    return snprintf(buf, size, "%lld×%lld%s%s", (long long)a->kernel_size[0], (long long)a->kernel_size[1], stride,
                    padding);
}

GR_LAYER(MaxPool2d) = {
    .info = {.name = "MaxPool2d", .doc = "The largest element of every window of images [n,c,h,w]."},
    .op = &gri_op_max_pool2d,
    .describe = MaxPool2d_describe,
};
