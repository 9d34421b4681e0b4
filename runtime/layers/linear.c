/* Linear: y = x weightᵀ + bias; x[…,in] weight[out,in] bias[out] → y[…,out]. Both drawn from
 * U(-1/√in, 1/√in), as PyTorch draws them. */
#include "layer.h"

#include <math.h>
#include <stdio.h>

static gr_status Linear_init(gr_layer *l) {
    const gri_linear_attrs *a = l->attrs;
    double bound = a->in_features > 0 ? 1 / sqrt((double)a->in_features) : 0;
    gr_tensor *weight, *bias;
    if (a->in_features < 1 || a->out_features < 1)
        return gr_fail(l->head.ctx, GR_ERR_ARG, "in_features = %lld, out_features = %lld: expected at least 1 each",
                       (long long)a->in_features, (long long)a->out_features);
    GR_TRY(gri_layer_param(l, "weight", 2, (int64_t[]){a->out_features, a->in_features}, &weight));
    GR_TRY(gri_uniform_(weight, bound));
    if (!a->bias) return GR_OK;
    GR_TRY(gri_layer_param(l, "bias", 1, &a->out_features, &bias));
    return gri_uniform_(bias, bound);
}

static gr_status Linear_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    (void)n_in;
    gr_tensor *bias = l->n_params > 1 ? l->params[1].tensor : NULL;
    return GRI_APPLY(l->head.ctx, out, linear, in[0], l->params[0].tensor, bias);
}

static int Linear_describe(const gr_layer *l, char *buf, size_t size) {
    const gri_linear_attrs *a = l->attrs;
    return snprintf(buf, size, "%lld→%lld%s", (long long)a->in_features, (long long)a->out_features,
                    a->bias ? "" : ", no bias");
}

static const gr_attr Linear_schema[] = {
    {"in_features", GR_ATTR_INT, offsetof(gri_linear_attrs, in_features), .required = true, .min = 1, .max = 1 << 30},
    {"out_features", GR_ATTR_INT, offsetof(gri_linear_attrs, out_features), .required = true, .min = 1, .max = 1 << 30},
    {"bias", GR_ATTR_BOOL, offsetof(gri_linear_attrs, bias), .value = 1},
    GR_ATTR_END};

GR_LAYER(Linear) = {
    .info = {.name = "Linear", .attrs = Linear_schema, .attr_size = sizeof(gri_linear_attrs),
             .doc = "x times the transpose of weight [out_features, in_features], plus bias [out_features].\n"
                    "x is [..., in_features]. Both start uniform in +-1/sqrt(in_features)."},
    .init = Linear_init,
    .forward = Linear_forward,
    .describe = Linear_describe,
};
