/* GroupNorm: x[n,num_channels,...] with its channels in num_groups groups, each brought to mean 0 and variance 1 in
 * every sample, then scaled by weight and shifted by bias, both [num_channels]. weight starts at 1, bias at 0. */
#include <stdio.h>

#include "layer.h"

typedef struct GroupNorm_attrs {
    gri_group_norm_attrs norm;
    int64_t num_channels;
    bool affine;
} GroupNorm_attrs;

static gr_status GroupNorm_init(gr_layer *l) {
    const GroupNorm_attrs *a = l->attrs;
    gr_tensor *weight, *bias;
    if (a->norm.num_groups < 1 || a->num_channels < 1 || a->num_channels % a->norm.num_groups)
        return gr_fail(l->head.ctx, GR_ERR_ARG, "num_groups = %lld does not divide num_channels = %lld",
                       (long long)a->norm.num_groups, (long long)a->num_channels);
    if (!(a->norm.eps >= 0)) return gr_fail(l->head.ctx, GR_ERR_ARG, "eps = %g: expected at least 0", a->norm.eps);
    if (!a->affine) return GR_OK;
    GR_TRY(gri_layer_param(l, "weight", 1, &a->num_channels, &weight));
    GR_TRY(gri_layer_param(l, "bias", 1, &a->num_channels, &bias));
    return gri_fill_(weight, 1);
}

static gr_status GroupNorm_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    const GroupNorm_attrs *a = l->attrs;
    const gr_tensor *x = in[0];
    gr_tensor *all[] = {in[0], a->affine ? l->params[0].tensor : NULL, a->affine ? l->params[1].tensor : NULL};
    (void)n_in;
    if (x->rank < 2 || x->dims[1] != a->num_channels)
        return gr_fail(l->head.ctx, GR_ERR_SHAPE, "input is %s, expected [n,%lld,...]", gri_tensor_text(x),
                       (long long)a->num_channels);
    return gr_apply(l->head.ctx, &gri_op_group_norm, 3, all, &a->norm, out);
}

static int GroupNorm_describe(const gr_layer *l, char *buf, size_t size) {
    const GroupNorm_attrs *a = l->attrs;
    char eps[40] = "";
    if (a->norm.eps != 1e-5) snprintf(eps, sizeof eps, ", eps %g", a->norm.eps);
    return snprintf(buf, size, "%lld groups of %lld%s%s", (long long)a->norm.num_groups,
                    (long long)(a->num_channels / a->norm.num_groups), eps, a->affine ? "" : ", not affine");
}

static const gr_attr GroupNorm_schema[] = {
    {"num_groups", GR_ATTR_INT, offsetof(GroupNorm_attrs, norm.num_groups), .required = true, .min = 1,
     .max = 1 << 30},
    {"num_channels", GR_ATTR_INT, offsetof(GroupNorm_attrs, num_channels), .required = true, .min = 1,
     .max = 1 << 30},
    {"eps", GR_ATTR_REAL, offsetof(GroupNorm_attrs, norm.eps), .value = 1e-5},
    {"affine", GR_ATTR_BOOL, offsetof(GroupNorm_attrs, affine), .value = 1},
    GR_ATTR_END};

GR_LAYER(GroupNorm) = {
    .info = {.name = "GroupNorm", .attrs = GroupNorm_schema, .attr_size = sizeof(GroupNorm_attrs),
             .doc = "x [n,num_channels,...] with its channels in num_groups groups, each brought to mean 0 and\n"
                    "variance 1 in every sample, then scaled by weight and shifted by bias, channel by channel."},
    .init = GroupNorm_init,
    .forward = GroupNorm_forward,
    .describe = GroupNorm_describe,
};
