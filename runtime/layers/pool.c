/* Poolings, each one op:
 *     MaxPool1d, AvgPool1d                    x[n,c,l] → y[n,c,ol]
 *     MaxPool2d, AvgPool2d                    x[n,c,h,w] → y[n,c,oh,ow], a window that moves
 *     AdaptiveMaxPool2d, AdaptiveAvgPool2d    the same with oh and ow given */
#include "layer.h"

#include <stdio.h>

/* ", name n×m", of lines ", name m"; nothing if hidden. */
static void pool_pair(char *buf, size_t size, const char *name, const int64_t *pair, bool line, bool hidden) {
    buf[0] = 0;
    if (hidden) return;
    if (line) snprintf(buf, size, "%s%lld", name, (long long)pair[1]);
    else snprintf(buf, size, "%s%lld×%lld", name, (long long)pair[0], (long long)pair[1]);
}

static int pool_describe(const gri_pool_attrs *a, bool line, char *buf, size_t size) {
    const int64_t *s = a->stride, *k = a->kernel_size, *p = a->padding, *d = a->dilation;
    char kernel[48], stride[64], padding[64], dilation[64];
    pool_pair(kernel, sizeof kernel, "", k, line, false);
    pool_pair(stride, sizeof stride, ", stride ", s, line, !s[1] || (s[0] == k[0] && s[1] == k[1]));
    pool_pair(padding, sizeof padding, ", padding ", p, line, !p[0] && !p[1]);
    pool_pair(dilation, sizeof dilation, ", dilation ", d, line, d[0] <= 1 && d[1] <= 1);
    return snprintf(buf, size, "%s%s%s%s%s", kernel, stride, padding, dilation, a->ceil_mode ? ", ceil_mode" : "");
}

static int pool_describe_line(const gr_layer *l, char *buf, size_t size) {
    return pool_describe(l->attrs, true, buf, size);
}

static int pool_describe_image(const gr_layer *l, char *buf, size_t size) {
    return pool_describe(l->attrs, false, buf, size);
}

static int pool_describe_adaptive(const gr_layer *l, char *buf, size_t size) {
    const gri_pool_attrs *a = l->attrs;
    return snprintf(buf, size, "%lld×%lld", (long long)a->output_size[0], (long long)a->output_size[1]);
}

GR_LAYER(MaxPool1d) = {
    .info = {.name = "MaxPool1d", .doc = "The largest element of every window of lines [n,c,l]."},
    .op = &gri_op_max_pool1d,
    .describe = pool_describe_line,
};

GR_LAYER(MaxPool2d) = {
    .info = {.name = "MaxPool2d", .doc = "The largest element of every window of images [n,c,h,w]."},
    .op = &gri_op_max_pool2d,
    .describe = pool_describe_image,
};

GR_LAYER(AvgPool1d) = {
    .info = {.name = "AvgPool1d", .doc = "The mean of every window of lines [n,c,l]."},
    .op = &gri_op_avg_pool1d,
    .describe = pool_describe_line,
};

GR_LAYER(AvgPool2d) = {
    .info = {.name = "AvgPool2d", .doc = "The mean of every window of images [n,c,h,w]."},
    .op = &gri_op_avg_pool2d,
    .describe = pool_describe_image,
};

GR_LAYER(AdaptiveMaxPool2d) = {
    .info = {.name = "AdaptiveMaxPool2d",
             .doc = "Images [n,c,h,w] cut evenly into output_size parts: the largest element of each."},
    .op = &gri_op_adaptive_max_pool2d,
    .describe = pool_describe_adaptive,
};

GR_LAYER(AdaptiveAvgPool2d) = {
    .info = {.name = "AdaptiveAvgPool2d",
             .doc = "Images [n,c,h,w] cut evenly into output_size parts: the mean of each."},
    .op = &gri_op_adaptive_avg_pool2d,
    .describe = pool_describe_adaptive,
};
