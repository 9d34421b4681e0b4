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

#endif
