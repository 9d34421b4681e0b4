/* Flatten: x[n, d1, d2, ...] -> y[n, d1 d2 ...]; the first dimension, the batch, stays. */
#include "layer.h"

typedef struct Flatten_attrs {
    int64_t start_dim, end_dim;
} Flatten_attrs;

static gr_status Flatten_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    (void)n_in;
    return gr_apply(l->head.ctx, &gri_op_flatten, 1, in, l->attrs, out);
}

static const gr_attr Flatten_schema[] = {
    {"start_dim", GR_ATTR_DIM, offsetof(Flatten_attrs, start_dim), .value = 1},
    {"end_dim", GR_ATTR_DIM, offsetof(Flatten_attrs, end_dim), .value = -1},
    GR_ATTR_END};

GR_LAYER(Flatten) = {
    .info = {.name = "Flatten", .attrs = Flatten_schema, .attr_size = sizeof(Flatten_attrs),
             .doc = "Joins the dimensions start_dim (2) to end_dim (the last); the batch stays."},
    .forward = Flatten_forward,
};
