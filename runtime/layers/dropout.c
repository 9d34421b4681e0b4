/* Dropout: in training each element is zero with probability p, and the others are 1/(1-p) times larger, from a
 * new draw at every call; otherwise y = x. */
#include <stdio.h>

#include "layer.h"

typedef struct Dropout_attrs {
    double p;
} Dropout_attrs;

static gr_status Dropout_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    const Dropout_attrs *own = l->attrs;
    gri_dropout_attrs a = {.p = own->p};
    (void)n_in;
    if (!l->training || a.p == 0) {
        *out = gr_retain(in[0]);
        return GR_OK;
    }
    gr_random_next(l->head.ctx, &a.seed, &a.counter);
    return gr_apply(l->head.ctx, &gri_op_dropout, 1, in, &a, out);
}

static int Dropout_describe(const gr_layer *l, char *buf, size_t size) {
    return snprintf(buf, size, "p %g", ((const Dropout_attrs *)l->attrs)->p);
}

static const gr_attr Dropout_schema[] = {
    {"p", GR_ATTR_REAL, offsetof(Dropout_attrs, p), .value = 0.5, .min = 0, .max = 1}, GR_ATTR_END};

GR_LAYER(Dropout) = {
    .info = {.name = "Dropout", .attrs = Dropout_schema, .attr_size = sizeof(Dropout_attrs),
             .doc = "Zeroes elements with probability p while training, and scales the others by 1/(1-p)."},
    .forward = Dropout_forward,
    .describe = Dropout_describe,
};
