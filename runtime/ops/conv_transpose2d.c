/* Transposed convolution:  x[n,c,h,w] W[c,o/groups,kh,kw] b[o]? → y[n,o,oh,ow]
 *
 *     oh = (h - 1) sh - 2 ph + (kh - 1) dh + oph + 1,  ow likewise
 *     y = b[o], and for every c, i, j, r, q:  y[n, o, r sh - ph + i dh, q sw - pw + j dw] += W[c,o,i,j] x[n,c,r,q]
 *
 * y is what the input of a conv2d with this weight gets from x, were x the gradient of its output, and is computed
 * so. From that form, ⟨x, y * W⟩ (conv2d.c), the derivatives follow:
 *     dx = dy * W,  dW = conv2d_weight_grad(dy, x),  db = Σ dy.
 * The output padding counts rows and columns at the end which the stride of that conv2d leaves out: it says which
 * of the sizes that give this h and w is meant. x and W are kept. */
#include "conv.h"
#include "copy.h"
#include "reduce.h"

#include <string.h>

/* The conv2d that takes y to x: its attributes, with the shape of y. */
static gr_status conv_transpose2d_turn(const gri_call *c, gri_conv2d_attrs *a) {
    const gri_conv_transpose2d_attrs *given = c->attrs;
    const gr_tensor *x = c->in[0], *w = c->in[1];
    gri_window k;
    *a = given->conv;
    for (int i = 0; i < 2; i++) {
        k.out[i] = x->dims[2 + i];
        k.kernel[i] = w->dims[2 + i];
        k.stride[i] = a->stride[i];
        k.padding[i] = a->padding[i];
        k.dilation[i] = a->dilation[i];
    }
    GR_TRY(gri_window_fit_input(c->ctx, &k, given->output_padding));
    a->shape = (gr_dims){4, {x->dims[0], w->dims[1] * a->groups, k.in[0], k.in[1]}};
    return GR_OK;
}

static gr_status conv_transpose2d_shape(gri_call *c) {
    const gri_conv_transpose2d_attrs *a = c->attrs;
    const int64_t groups = a->conv.groups;
    const gr_tensor *x = c->in[0], *w = c->in[1];
    gri_conv2d_attrs turned;
    int64_t n;
    GR_TRY(gri_conv_want(c, 0, 4, "input"));
    GR_TRY(gri_conv_want(c, 1, 4, "weight"));
    if (groups < 1 || w->dims[0] % groups)
        return gr_fail(c->ctx, GR_ERR_SHAPE,
                       "weight %s is for %lld input channels, which %lld groups do not divide", gri_tensor_text(w),
                       (long long)w->dims[0], (long long)groups);
    if (x->dims[1] != w->dims[0])
        return gr_fail(c->ctx, GR_ERR_SHAPE, "input %s has %lld channels, expected %lld for a weight of %s",
                       gri_tensor_text(x), (long long)x->dims[1], (long long)w->dims[0], gri_tensor_text(w));
    GR_TRY(conv_transpose2d_turn(c, &turned));
    GR_TRY(gri_conv_want_bias(c, turned.shape.v[1]));
    c->spec[0] = (gri_spec){.dtype = (gr_dtype)x->dtype, .rank = 4};
    memcpy(c->spec[0].dims, turned.shape.v, 4 * sizeof *turned.shape.v);
    return gri_numel(c->ctx, (gr_dtype)x->dtype, 4, c->spec[0].dims, &n);
}

static gr_status conv_transpose2d_bias(gri_call *c, const gr_tensor *b) {
    gr_tensor *column;
    GR_TRY(gri_tensor_view(b, 3, (int64_t[]){b->dims[0], 1, 1}, (int64_t[]){b->strides[0], 1, 1}, 0, &column));
    gr_status s = gri_copy(c->ctx, c->out[0], column, c->mode);
    gr_release(column);
    return s;
}

static gr_status conv_transpose2d_forward(gri_call *c) {
    const gr_tensor *b = c->n_in > 2 ? c->in[2] : NULL;
    gri_conv2d_attrs turned;
    gri_call d = *c;
    GR_TRY(conv_transpose2d_turn(c, &turned));
    d.op = &gri_op_conv2d_input_grad;
    d.attrs = &turned;
    d.n_in = 2;
    if (b) {
        GR_TRY(conv_transpose2d_bias(c, b));
        d.mode = GRI_ADD;
    }
    return gri_run(&d);
}
GR_KERNEL(conv_transpose2d);

static gr_status conv_transpose2d_rule(gri_grad *g) {
    gr_tensor *x = g->in[0], *w = g->in[1], *dy = g->dy[0];
    GR_TRY(gri_conv_emit_output(g, 0, dy, w, NULL));
    GR_TRY(gri_conv_emit_weight(g, (int[]){1, -1}, dy, x, w));
    return gri_emit(g, 2, &gri_op_sum, 1, &dy, &(gri_reduce_attrs){.dim = {3, {0, 2, 3}}});
}

#define CONV_TRANSPOSE2D_PAIR(name, field, usual, least) \
    {name, GR_ATTR_PAIR, offsetof(gri_conv_transpose2d_attrs, field), .value = usual, .min = least, .max = 1 << 30}
static const gr_attr conv_transpose2d_schema[] = {
    CONV_TRANSPOSE2D_PAIR("stride", conv.stride, 1, 1),
    CONV_TRANSPOSE2D_PAIR("padding", conv.padding, 0, 0),
    CONV_TRANSPOSE2D_PAIR("output_padding", output_padding, 0, 0),
    CONV_TRANSPOSE2D_PAIR("dilation", conv.dilation, 1, 1),
    {"groups", GR_ATTR_INT, offsetof(gri_conv_transpose2d_attrs, conv.groups), .value = 1, .min = 1, .max = 1 << 30},
    GR_ATTR_END};

static const gr_case conv_transpose2d_cases[] = {
    {.in = "1,1,2,2 1,1,2,2 1", .give = "{{{{1,2},{3,4}}}}, {{{{1,0},{0,-1}}}}, {10}",
     .want = "{{{{11,12,10},{13,13,8},{10,7,6}}}}"},
    {.in = "1,1,1,2 1,1,1,2 -", .attrs = "stride={1,3}, output_padding={0,1}", .give = "{{{{1,2}}}}, {{{{3,4}}}}",
     .want = "{{{{3,4,0,6,8,0}}}}"},
    {.in = "2,3,4,5 3,2,3,3 2", .attrs = "padding=1"},
    {.in = "2,4,3,2 4,3,3,2 6", .attrs = "stride={2,3}, padding={1,0}, output_padding={1,2}, groups=2"},
    {.in = "1,2,3,4 2,3,2,3 3", .attrs = "stride={2,1}, dilation={2,3}"},
    {.in = "2,3,4,5 3,4,1,1 -"},
    {.in = "0,2,4,4 2,3,3,3 3"},
    {0}};

GR_OP(conv_transpose2d) = {
    .info = {.name = "conv_transpose2d", .inputs = "x weight bias?", .attrs = conv_transpose2d_schema,
             .attr_size = sizeof(gri_conv_transpose2d_attrs), .cases = conv_transpose2d_cases,
             .doc = "Transposed 2-d convolution, the gradient of conv2d by its input, of x [n,c,h,w] with weight\n"
                    "[c,o/groups,kh,kw], plus bias [o]. Rows of the result: (h - 1) stride - 2 padding +\n"
                    "dilation (kh - 1) + output_padding + 1. Options are numbers or {height, width};\n"
                    "output_padding is less than stride."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = conv_transpose2d_shape,
    .forward = conv_transpose2d_kernels,
    .backward = conv_transpose2d_rule,
};
