/* Conv2d: y = x * weight + bias; x[n,in,h,w] weight[out,in/groups,kh,kw] bias[out] → y[n,out,oh,ow]. Both drawn
 * from U(-1/√fan, 1/√fan), fan = in/groups kh kw, as PyTorch draws them. */
#include "layer.h"

#include <math.h>
#include <stdio.h>

typedef struct Conv2d_attrs {
    int64_t in_channels, out_channels, kernel_size[2];
    gri_conv2d_attrs conv; /* the op's own */
    bool bias;
} Conv2d_attrs;

static gr_status Conv2d_init(gr_layer *l) {
    const Conv2d_attrs *a = l->attrs;
    const int64_t groups = a->conv.groups, *k = a->kernel_size;
    gr_tensor *weight, *bias;
    if (a->in_channels < 1 || a->out_channels < 1 || k[0] < 1 || k[1] < 1)
        return gr_fail(l->head.ctx, GR_ERR_ARG, "in_channels = %lld, out_channels = %lld, kernel_size = %lldx%lld: "
                       "expected at least 1 each", (long long)a->in_channels, (long long)a->out_channels,
                       (long long)k[0], (long long)k[1]);
    if (groups < 1 || a->in_channels % groups || a->out_channels % groups)
        return gr_fail(l->head.ctx, GR_ERR_ARG,
                       "groups = %lld does not divide in_channels = %lld and out_channels = %lld",
                       (long long)groups, (long long)a->in_channels, (long long)a->out_channels);
    double bound = 1 / sqrt((double)(a->in_channels / groups) * (double)k[0] * (double)k[1]);
    GR_TRY(gri_layer_param(l, "weight", 4, (int64_t[]){a->out_channels, a->in_channels / groups, k[0], k[1]},
                           &weight));
    GR_TRY(gri_uniform_(weight, bound));
    if (!a->bias) return GR_OK;
    GR_TRY(gri_layer_param(l, "bias", 1, &a->out_channels, &bias));
    return gri_uniform_(bias, bound);
}

static gr_status Conv2d_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    const Conv2d_attrs *a = l->attrs;
    (void)n_in;
    gr_tensor *bias = l->n_params > 1 ? l->params[1].tensor : NULL;
    return gri_apply1(l->head.ctx, &gri_op_conv2d, 3, GRI_TENSORS(in[0], l->params[0].tensor, bias), &a->conv, out);
}

/* ", name n" or ", name n×m"; nothing if the pair is the usual one. */
static int Conv2d_pair(char *buf, size_t size, const char *name, const int64_t *pair, int64_t usual) {
    if (pair[0] == usual && pair[1] == usual) return 0;
    if (pair[0] == pair[1]) return snprintf(buf, size, ", %s %lld", name, (long long)pair[0]);
    return snprintf(buf, size, ", %s %lld×%lld", name, (long long)pair[0], (long long)pair[1]);
}

static int Conv2d_describe(const gr_layer *l, char *buf, size_t size) {
    const Conv2d_attrs *a = l->attrs;
    char more[3][64] = {"", "", ""}, groups[40] = "";
    Conv2d_pair(more[0], sizeof more[0], "stride", a->conv.stride, 1);
    Conv2d_pair(more[1], sizeof more[1], "padding", a->conv.padding, 0);
    Conv2d_pair(more[2], sizeof more[2], "dilation", a->conv.dilation, 1);
    if (a->conv.groups != 1) snprintf(groups, sizeof groups, ", groups %lld", (long long)a->conv.groups);
    return snprintf(buf, size, "%lld→%lld, %lld×%lld%s%s%s%s%s", (long long)a->in_channels,
                    (long long)a->out_channels, (long long)a->kernel_size[0], (long long)a->kernel_size[1],
                    more[0], more[1], more[2], groups, a->bias ? "" : ", no bias");
}

static const gr_attr Conv2d_schema[] = {
    {"in_channels", GR_ATTR_INT, offsetof(Conv2d_attrs, in_channels), .required = true, .min = 1, .max = 1 << 30},
    {"out_channels", GR_ATTR_INT, offsetof(Conv2d_attrs, out_channels), .required = true, .min = 1, .max = 1 << 30},
    {"kernel_size", GR_ATTR_PAIR, offsetof(Conv2d_attrs, kernel_size), .required = true, .min = 1, .max = 1 << 30},
    {"stride", GR_ATTR_PAIR, offsetof(Conv2d_attrs, conv.stride), .value = 1, .min = 1, .max = 1 << 30},
    {"padding", GR_ATTR_PAIR, offsetof(Conv2d_attrs, conv.padding), .min = 0, .max = 1 << 30},
    {"dilation", GR_ATTR_PAIR, offsetof(Conv2d_attrs, conv.dilation), .value = 1, .min = 1, .max = 1 << 30},
    {"groups", GR_ATTR_INT, offsetof(Conv2d_attrs, conv.groups), .value = 1, .min = 1, .max = 1 << 30},
    {"bias", GR_ATTR_BOOL, offsetof(Conv2d_attrs, bias), .value = 1},
    GR_ATTR_END};

GR_LAYER(Conv2d) = {
    .info = {.name = "Conv2d", .attrs = Conv2d_schema, .attr_size = sizeof(Conv2d_attrs),
             .doc = "2-d convolution of images [n,in_channels,h,w] with weight\n"
                    "[out_channels,in_channels/groups,kh,kw], plus bias [out_channels]. Sizes are numbers or\n"
                    "{height, width}. Weight and bias start uniform in +-1/sqrt(in_channels/groups * kh * kw)."},
    .init = Conv2d_init,
    .forward = Conv2d_forward,
    .describe = Conv2d_describe,
};
