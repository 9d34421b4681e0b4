/* LayerNorm: the last dimensions of x, of sizes normalized_shape, brought to mean 0 and variance 1 together, then
 * scaled by weight and shifted by bias, both [normalized_shape]. weight starts at 1, bias at 0. */
#include <stdio.h>

#include "layer.h"

typedef struct LayerNorm_attrs {
    gri_layer_norm_attrs norm;
    bool elementwise_affine, bias;
} LayerNorm_attrs;

static gr_status LayerNorm_init(gr_layer *l) {
    const LayerNorm_attrs *a = l->attrs;
    const gr_dims *shape = &a->norm.normalized_shape;
    gr_tensor *weight, *bias;
    if (shape->n < 1) return gr_fail(l->head.ctx, GR_ERR_ARG, "normalized_shape has no sizes: expected one or more");
    for (int d = 0; d < shape->n; d++)
        if (shape->v[d] < 1)
            return gr_fail(l->head.ctx, GR_ERR_ARG, "normalized_shape is %s: expected sizes of at least 1",
                           gri_dims_text(shape->n, shape->v));
    if (!(a->norm.eps >= 0)) return gr_fail(l->head.ctx, GR_ERR_ARG, "eps = %g: expected at least 0", a->norm.eps);
    if (!a->elementwise_affine) return GR_OK;
    GR_TRY(gri_layer_param(l, "weight", shape->n, shape->v, &weight));
    GR_TRY(gri_fill_(weight, 1));
    return a->bias ? gri_layer_param(l, "bias", shape->n, shape->v, &bias) : GR_OK;
}

static gr_status LayerNorm_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    const LayerNorm_attrs *a = l->attrs;
    gr_tensor *all[] = {in[0], l->n_params > 0 ? l->params[0].tensor : NULL,
                        l->n_params > 1 ? l->params[1].tensor : NULL};
    (void)n_in;
    return gr_apply(l->head.ctx, &gri_op_layer_norm, 3, all, &a->norm, out);
}

static int LayerNorm_describe(const gr_layer *l, char *buf, size_t size) {
    const LayerNorm_attrs *a = l->attrs;
    const gr_dims *shape = &a->norm.normalized_shape;
    char sizes[160] = "", eps[40] = "";
    for (int d = 0, at = 0; d < shape->n; d++)
        at += snprintf(sizes + at, sizeof sizes - (size_t)at, d ? "×%lld" : "%lld", (long long)shape->v[d]);
    if (a->norm.eps != 1e-5) snprintf(eps, sizeof eps, ", eps %g", a->norm.eps);
    return snprintf(buf, size, "%s%s%s", sizes, eps,
                    !a->elementwise_affine ? ", not affine" : a->bias ? "" : ", no bias");
}

static const gr_attr LayerNorm_schema[] = {
    {"normalized_shape", GR_ATTR_SHAPE, offsetof(LayerNorm_attrs, norm.normalized_shape), .required = true},
    {"eps", GR_ATTR_REAL, offsetof(LayerNorm_attrs, norm.eps), .value = 1e-5},
    {"elementwise_affine", GR_ATTR_BOOL, offsetof(LayerNorm_attrs, elementwise_affine), .value = 1},
    {"bias", GR_ATTR_BOOL, offsetof(LayerNorm_attrs, bias), .value = 1},
    GR_ATTR_END};

GR_LAYER(LayerNorm) = {
    .info = {.name = "LayerNorm", .attrs = LayerNorm_schema, .attr_size = sizeof(LayerNorm_attrs),
             .doc = "The last dimensions of x, of sizes normalized_shape, brought to mean 0 and variance 1\n"
                    "together, then scaled by weight and shifted by bias, element by element."},
    .init = LayerNorm_init,
    .forward = LayerNorm_forward,
    .describe = LayerNorm_describe,
};
