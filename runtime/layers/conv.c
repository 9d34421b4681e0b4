/* Convolutions: y = x * weight + bias.
 *     Conv1d            x[n,in,l]    weight[out,in/groups,k]      bias[out] → y[n,out,ol]
 *     Conv2d            x[n,in,h,w]  weight[out,in/groups,kh,kw]  bias[out] → y[n,out,oh,ow]
 *     ConvTranspose2d   x[n,in,h,w]  weight[in,out/groups,kh,kw]  bias[out] → y[n,out,oh,ow]
 * Weight and bias are drawn from U(-1/√fan, 1/√fan), fan = the product of the weight's dims but the first, as
 * PyTorch draws them. */
#include "layer.h"

#include <math.h>
#include <stdio.h>

typedef struct Conv_attrs {
    int64_t in_channels, out_channels, kernel_size[2];
    gri_conv_transpose2d_attrs conv; /* the ops' own; of Conv1d the second of each pair */
    bool bias;
} Conv_attrs;

/* dims: the weight's. */
static gr_status Conv_init(gr_layer *l, int rank, const int64_t *dims) {
    const Conv_attrs *a = l->attrs;
    const int64_t groups = a->conv.conv.groups;
    gr_tensor *weight, *bias;
    double fan = 1;
    if (a->in_channels < 1 || a->out_channels < 1)
        return gr_fail(l->head.ctx, GR_ERR_ARG, "in_channels = %lld, out_channels = %lld: expected at least 1 each",
                       (long long)a->in_channels, (long long)a->out_channels);
    for (int d = 2; d < rank; d++)
        if (dims[d] < 1)
            return gr_fail(l->head.ctx, GR_ERR_ARG, "kernel_size = %s: expected at least 1",
                           gri_dims_text(rank - 2, dims + 2));
    if (groups < 1 || a->in_channels % groups || a->out_channels % groups)
        return gr_fail(l->head.ctx, GR_ERR_ARG,
                       "groups = %lld does not divide in_channels = %lld and out_channels = %lld",
                       (long long)groups, (long long)a->in_channels, (long long)a->out_channels);
    for (int d = 1; d < rank; d++) fan *= (double)dims[d];
    GR_TRY(gri_layer_param(l, "weight", rank, dims, &weight));
    GR_TRY(gri_uniform_(weight, 1 / sqrt(fan)));
    if (!a->bias) return GR_OK;
    GR_TRY(gri_layer_param(l, "bias", 1, &a->out_channels, &bias));
    return gri_uniform_(bias, 1 / sqrt(fan));
}

static gr_status Conv_forward(gr_layer *l, const gr_op *op, const void *attrs, gr_tensor *x, gr_tensor **out) {
    gr_tensor *bias = l->n_params > 1 ? l->params[1].tensor : NULL;
    return gr_apply(l->head.ctx, op, 3, GRI_TENSORS(x, l->params[0].tensor, bias), attrs, out);
}

/* ---- what they say of themselves: "3→16, 3×3, stride 2, no bias" ---- */

/* ", name n" or ", name n×m"; nothing if it is the usual one. */
static int Conv_size(char *buf, size_t size, const char *name, int n, const int64_t *of, int64_t usual) {
    if (of[0] == usual && of[n - 1] == usual) return 0;
    if (of[0] == of[n - 1]) return snprintf(buf, size, ", %s %lld", name, (long long)of[0]);
    return snprintf(buf, size, ", %s %lld×%lld", name, (long long)of[0], (long long)of[1]);
}

static int Conv_describe(const Conv_attrs *a, int n, char *buf, size_t size) {
    const gri_conv2d_attrs *c = &a->conv.conv;
    char kernel[48], more[4][64] = {"", "", "", ""}, groups[40] = "";
    const int at = 2 - n;
    snprintf(kernel, sizeof kernel, n == 2 ? "%lld×%lld" : "%lld", (long long)a->kernel_size[at],
             (long long)a->kernel_size[1]);
    Conv_size(more[0], sizeof more[0], "stride", n, c->stride + at, 1);
    Conv_size(more[1], sizeof more[1], "padding", n, c->padding + at, 0);
    Conv_size(more[2], sizeof more[2], "output_padding", n, a->conv.output_padding + at, 0);
    Conv_size(more[3], sizeof more[3], "dilation", n, c->dilation + at, 1);
    if (c->groups != 1) snprintf(groups, sizeof groups, ", groups %lld", (long long)c->groups);
    return snprintf(buf, size, "%lld→%lld, %s%s%s%s%s%s%s", (long long)a->in_channels, (long long)a->out_channels,
                    kernel, more[0], more[1], more[2], more[3], groups, a->bias ? "" : ", no bias");
}

#define CONV_CHANNELS                                                                                               \
    {"in_channels", GR_ATTR_INT, offsetof(Conv_attrs, in_channels), .required = true, .min = 1, .max = 1 << 30},    \
    {"out_channels", GR_ATTR_INT, offsetof(Conv_attrs, out_channels), .required = true, .min = 1, .max = 1 << 30}
#define CONV_OPTION(name, kind, field, usual, least) \
    {name, kind, offsetof(Conv_attrs, conv.field), .value = usual, .min = least, .max = 1 << 30}
#define CONV_BIAS {"bias", GR_ATTR_BOOL, offsetof(Conv_attrs, bias), .value = 1}

/* ---- Conv1d ---- */

static gr_status Conv1d_init(gr_layer *l) {
    const Conv_attrs *a = l->attrs;
    const int64_t groups = a->conv.conv.groups > 0 ? a->conv.conv.groups : 1;
    return Conv_init(l, 3, (int64_t[]){a->out_channels, a->in_channels / groups, a->kernel_size[1]});
}

static gr_status Conv1d_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    (void)n_in;
    return Conv_forward(l, &gri_op_conv1d, &((const Conv_attrs *)l->attrs)->conv.conv, in[0], out);
}

static int Conv1d_describe(const gr_layer *l, char *buf, size_t size) {
    return Conv_describe(l->attrs, 1, buf, size);
}

static const gr_attr Conv1d_schema[] = {
    CONV_CHANNELS,
    {"kernel_size", GR_ATTR_INT, offsetof(Conv_attrs, kernel_size[1]), .required = true, .min = 1, .max = 1 << 30},
    CONV_OPTION("stride", GR_ATTR_INT, conv.stride[1], 1, 1),
    CONV_OPTION("padding", GR_ATTR_INT, conv.padding[1], 0, 0),
    CONV_OPTION("dilation", GR_ATTR_INT, conv.dilation[1], 1, 1),
    CONV_OPTION("groups", GR_ATTR_INT, conv.groups, 1, 1),
    CONV_BIAS, GR_ATTR_END};

GR_LAYER(Conv1d) = {
    .info = {.name = "Conv1d", .attrs = Conv1d_schema, .attr_size = sizeof(Conv_attrs),
             .doc = "1-d convolution of lines [n,in_channels,l] with weight\n"
                    "[out_channels,in_channels/groups,kernel_size], plus bias [out_channels]. Weight and\n"
                    "bias start uniform in +-1/sqrt(in_channels/groups * kernel_size)."},
    .init = Conv1d_init,
    .forward = Conv1d_forward,
    .describe = Conv1d_describe,
};

/* ---- Conv2d ---- */

static gr_status Conv2d_init(gr_layer *l) {
    const Conv_attrs *a = l->attrs;
    const int64_t groups = a->conv.conv.groups > 0 ? a->conv.conv.groups : 1, *k = a->kernel_size;
    return Conv_init(l, 4, (int64_t[]){a->out_channels, a->in_channels / groups, k[0], k[1]});
}

static gr_status Conv2d_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    (void)n_in;
    return Conv_forward(l, &gri_op_conv2d, &((const Conv_attrs *)l->attrs)->conv.conv, in[0], out);
}

static int Conv2d_describe(const gr_layer *l, char *buf, size_t size) {
    return Conv_describe(l->attrs, 2, buf, size);
}

#define CONV2D_SIZES                                                                                           \
    {"kernel_size", GR_ATTR_PAIR, offsetof(Conv_attrs, kernel_size), .required = true, .min = 1, .max = 1 << 30}, \
    CONV_OPTION("stride", GR_ATTR_PAIR, conv.stride, 1, 1),                                                    \
    CONV_OPTION("padding", GR_ATTR_PAIR, conv.padding, 0, 0),                                                  \
    CONV_OPTION("dilation", GR_ATTR_PAIR, conv.dilation, 1, 1),                                                \
    CONV_OPTION("groups", GR_ATTR_INT, conv.groups, 1, 1),                                                     \
    CONV_BIAS
static const gr_attr Conv2d_schema[] = {CONV_CHANNELS, CONV2D_SIZES, GR_ATTR_END};

GR_LAYER(Conv2d) = {
    .info = {.name = "Conv2d", .attrs = Conv2d_schema, .attr_size = sizeof(Conv_attrs),
             .doc = "2-d convolution of images [n,in_channels,h,w] with weight\n"
                    "[out_channels,in_channels/groups,kh,kw], plus bias [out_channels]. Sizes are numbers or\n"
                    "{height, width}. Weight and bias start uniform in +-1/sqrt(in_channels/groups * kh * kw)."},
    .init = Conv2d_init,
    .forward = Conv2d_forward,
    .describe = Conv2d_describe,
};

/* ---- ConvTranspose2d ---- */

static gr_status ConvTranspose2d_init(gr_layer *l) {
    const Conv_attrs *a = l->attrs;
    const int64_t groups = a->conv.conv.groups > 0 ? a->conv.conv.groups : 1, *k = a->kernel_size;
    return Conv_init(l, 4, (int64_t[]){a->in_channels, a->out_channels / groups, k[0], k[1]});
}

static gr_status ConvTranspose2d_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    (void)n_in;
    return Conv_forward(l, &gri_op_conv_transpose2d, &((const Conv_attrs *)l->attrs)->conv, in[0], out);
}

static const gr_attr ConvTranspose2d_schema[] = {
    CONV_CHANNELS, CONV2D_SIZES, CONV_OPTION("output_padding", GR_ATTR_PAIR, output_padding, 0, 0), GR_ATTR_END};

GR_LAYER(ConvTranspose2d) = {
    .info = {.name = "ConvTranspose2d", .attrs = ConvTranspose2d_schema, .attr_size = sizeof(Conv_attrs),
             .doc = "Transposed 2-d convolution of images [n,in_channels,h,w] with weight\n"
                    "[in_channels,out_channels/groups,kh,kw], plus bias [out_channels]. Sizes are numbers or\n"
                    "{height, width}; output_padding is less than stride. Weight and bias start uniform in\n"
                    "+-1/sqrt(out_channels/groups * kh * kw)."},
    .init = ConvTranspose2d_init,
    .forward = ConvTranspose2d_forward,
    .describe = Conv2d_describe,
};
