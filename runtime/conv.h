/* Sizes of a convolution over images [n,c,h,w], or over lines [n,c,l], which are images of one row. */
#ifndef GRI_CONV_H
#define GRI_CONV_H

#include "op.h"
#include "window.h"

typedef struct gri_conv {
    gri_window w;
    int64_t n, c, o, groups, cg, og; /* channels in all and in a group */
    int64_t depth, length;           /* K = cg kh kw, L = oh ow */
} gri_conv;

/* Of an input x and a weight w of `rank` dims each, 3 or 4. Of lines only the second of each pair of a counts. */
gr_status gri_conv_fit(gr_ctx *ctx, const gri_conv2d_attrs *a, int rank, const int64_t *x, const int64_t *w,
                       gri_conv *p);
/* Fails unless in[i] is floating, of in[0]'s dtype, and of that rank. */
gr_status gri_conv_want(gri_call *c, int i, int rank, const char *what);
/* Fails unless bias in[2], if there is one, has one element for each of weight in[1]'s output channels. */
gr_status gri_conv_want_bias(gri_call *c, int64_t channels);
/* The shape rule of conv1d and conv2d. */
gr_status gri_conv_shape(gri_call *c, int rank);
/* Of their gradients: inputs of one rank, 3 or 4, which the shape that is given has too; then that shape, and in[i],
 * the gradient of the output, against the dims of the convolution's x and w. */
gr_status gri_conv_want_ranks(gri_call *c, const char *first, const char *second, const char *shape);
gr_status gri_conv_gradient_shape(gri_call *c, int i, const int64_t *x, const int64_t *w);

/* What a rule, of an op whose attributes begin with gri_conv2d_attrs, says of ⟨dy, x * w⟩: emissions of
 * conv2d_input_grad shaped as x, of conv2d_weight_grad shaped as w (to[]: w and the bias), and of x * w + bias. */
gr_status gri_conv_emit_input(gri_grad *g, int input, gr_tensor *dy, gr_tensor *w, const gr_tensor *x);
gr_status gri_conv_emit_weight(gri_grad *g, const int *to, gr_tensor *x, gr_tensor *dy, const gr_tensor *w);
gr_status gri_conv_emit_output(gri_grad *g, int input, gr_tensor *x, gr_tensor *w, gr_tensor *bias);

#define GRI_CONV2D_ATTRS                                                                                         \
    {"stride", GR_ATTR_PAIR, offsetof(gri_conv2d_attrs, stride), .value = 1, .min = 1, .max = 1 << 30},         \
    {"padding", GR_ATTR_PAIR, offsetof(gri_conv2d_attrs, padding), .min = 0, .max = 1 << 30},                   \
    {"dilation", GR_ATTR_PAIR, offsetof(gri_conv2d_attrs, dilation), .value = 1, .min = 1, .max = 1 << 30},     \
    {"groups", GR_ATTR_INT, offsetof(gri_conv2d_attrs, groups), .value = 1, .min = 1, .max = 1 << 30}
#define GRI_CONV2D_SHAPE {"shape", GR_ATTR_SHAPE, offsetof(gri_conv2d_attrs, shape), .required = true}

#endif
