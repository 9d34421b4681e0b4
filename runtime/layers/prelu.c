/* PReLU: y = x where x > 0, else weight x; x[n,c,…] weight[1] or weight[c]. Every weight starts at init. */
#include <stdio.h>

#include "layer.h"

typedef struct PReLU_attrs {
    int64_t num_parameters;
    double init;
} PReLU_attrs;

static gr_status PReLU_init(gr_layer *l) {
    const PReLU_attrs *a = l->attrs;
    gr_ctx *ctx = l->head.ctx;
    gr_tensor *weight;
    if (a->num_parameters < 1)
        return gr_fail(ctx, GR_ERR_ARG, "num_parameters = %lld: expected at least 1", (long long)a->num_parameters);
    GR_TRY(gri_layer_param(l, "weight", 1, &a->num_parameters, &weight));
    return gri_fill_(weight, a->init);
}

static gr_status PReLU_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    (void)n_in;
    return GRI_APPLY(l->head.ctx, out, prelu, in[0], l->params[0].tensor);
}

static int PReLU_describe(const gr_layer *l, char *buf, size_t size) {
    return snprintf(buf, size, "%lld", (long long)((const PReLU_attrs *)l->attrs)->num_parameters);
}

static const gr_attr PReLU_schema[] = {
    {"num_parameters", GR_ATTR_INT, offsetof(PReLU_attrs, num_parameters), .value = 1, .min = 1, .max = 1 << 30},
    {"init", GR_ATTR_REAL, offsetof(PReLU_attrs, init), .value = 0.25},
    GR_ATTR_END};

GR_LAYER(PReLU) = {
    .info = {.name = "PReLU", .attrs = PReLU_schema, .attr_size = sizeof(PReLU_attrs),
             .doc = "x where x > 0, else weight * x, with one weight for all or one for each channel (dim 2)."},
    .init = PReLU_init,
    .forward = PReLU_forward,
    .describe = PReLU_describe,
};
