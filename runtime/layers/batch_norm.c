/* BatchNorm1d, BatchNorm2d: y = (x - mean) / √(var + eps) weight + bias by channel; x[n,c], x[n,c,l] or x[n,c,h,w].
 *
 * In training mean and var are the batch's, and the running ones move towards them,
 *     running = (1 - momentum) running + momentum batch,
 * with the unbiased variance, M / (M - 1) times that of the M values normalised, as PyTorch has it. Otherwise
 * the running ones are used. Without track_running_stats the batch's always are. */
#include <math.h>
#include <stdio.h>

#include "layer.h"

typedef struct BatchNorm_attrs {
    int64_t num_features;
    double eps, momentum;
    bool affine, track_running_stats;
} BatchNorm_attrs;

static gr_status BatchNorm_buffer(gr_layer *l, const char *name, double value) {
    const BatchNorm_attrs *a = l->attrs;
    gr_ctx *ctx = l->head.ctx;
    gr_tensor *t;
    GR_TRY(gr_tensor_new(ctx, gr_default_dtype(ctx), 1, &a->num_features, &t));
    gr_status s = gr_tensor_fill(t, value);
    if (s == GR_OK) s = gr_layer_add_buffer(l, name, t);
    gr_release(t);
    return s;
}

static gr_status BatchNorm_init(gr_layer *l) {
    const BatchNorm_attrs *a = l->attrs;
    gr_ctx *ctx = l->head.ctx;
    gr_tensor *weight, *bias;
    if (a->num_features < 1)
        return gr_fail(ctx, GR_ERR_ARG, "num_features = %lld: expected at least 1", (long long)a->num_features);
    if (!(a->eps >= 0)) return gr_fail(ctx, GR_ERR_ARG, "eps = %g: expected at least 0", a->eps);
    if (!(a->momentum >= 0 && a->momentum <= 1))
        return gr_fail(ctx, GR_ERR_ARG, "momentum = %g: expected 0 to 1", a->momentum);
    if (a->track_running_stats) {
        GR_TRY(BatchNorm_buffer(l, "running_mean", 0));
        GR_TRY(BatchNorm_buffer(l, "running_var", 1));
    }
    if (!a->affine) return GR_OK;
    GR_TRY(gri_layer_param(l, "weight", 1, &a->num_features, &weight));
    GR_TRY(gri_layer_param(l, "bias", 1, &a->num_features, &bias));
    return gri_fill_(weight, 1);
}

static inline char *BatchNorm_at(const gr_tensor *t, int64_t c) {
    return t->data + c * t->strides[0] * (int64_t)gri_size((gr_dtype)t->dtype);
}
static inline double BatchNorm_get(const gr_tensor *t, int64_t c) {
    void *p = BatchNorm_at(t, c);
    return t->dtype == GR_F32 ? *(float *)p : *(double *)p;
}
static inline void BatchNorm_set(gr_tensor *t, int64_t c, double v) {
    void *p = BatchNorm_at(t, c);
    if (t->dtype == GR_F32) *(float *)p = (float)v;
    else *(double *)p = v;
}

/* running += momentum (batch - running), channel by channel; the batch's variance is 1 / rstd² - eps. */
static void BatchNorm_update(gr_layer *l, const gr_tensor *x, const gr_tensor *mean, const gr_tensor *rstd) {
    const BatchNorm_attrs *a = l->attrs;
    gr_tensor *running_mean = l->buffers[0].tensor, *running_var = l->buffers[1].tensor;
    double count = (double)x->numel / (double)a->num_features, unbiased = count / (count - 1);
    for (int64_t c = 0; c < a->num_features; c++) {
        double r = BatchNorm_get(rstd, c), m = BatchNorm_get(running_mean, c), v = BatchNorm_get(running_var, c);
        double var = fmax(1 / (r * r) - a->eps, 0) * unbiased;
        BatchNorm_set(running_mean, c, m + a->momentum * (BatchNorm_get(mean, c) - m));
        BatchNorm_set(running_var, c, v + a->momentum * (var - v));
    }
    gr_tensor_touch(running_mean);
    gr_tensor_touch(running_var);
}

static gr_status BatchNorm_check(const gr_layer *l, const gr_tensor *x, int least, int most) {
    const BatchNorm_attrs *a = l->attrs;
    gr_ctx *ctx = l->head.ctx;
    if (x->rank < least || x->rank > most)
        return gr_fail(ctx, GR_ERR_SHAPE, "input is %s, expected [n,%lld%s]", gri_tensor_text(x),
                       (long long)a->num_features,
                       most == 4 ? ",h,w" : "] or [n,c,l");
    if (x->dims[1] != a->num_features)
        return gr_fail(ctx, GR_ERR_SHAPE, "input %s has %lld channels, expected %lld", gri_tensor_text(x),
                       (long long)x->dims[1], (long long)a->num_features);
    return GR_OK;
}

static gr_status BatchNorm_apply(gr_layer *l, gr_tensor *x, gr_tensor **out) {
    const BatchNorm_attrs *a = l->attrs;
    bool batch = l->training || !a->track_running_stats;
    gri_batch_norm_attrs norm = {.training = batch, .eps = a->eps};
    gr_tensor *in[5] = {x}, *made[3];
    if (a->affine) in[1] = l->params[0].tensor, in[2] = l->params[1].tensor;
    if (!batch) in[3] = l->buffers[0].tensor, in[4] = l->buffers[1].tensor;
    GR_TRY(gr_apply(l->head.ctx, &gri_op_batch_norm, 5, in, &norm, made));
    if (l->training && a->track_running_stats) BatchNorm_update(l, x, made[1], made[2]);
    gr_release(made[1]);
    gr_release(made[2]);
    *out = made[0];
    return GR_OK;
}

static gr_status BatchNorm1d_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    (void)n_in;
    GR_TRY(BatchNorm_check(l, in[0], 2, 3));
    return BatchNorm_apply(l, in[0], out);
}

static gr_status BatchNorm2d_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    (void)n_in;
    GR_TRY(BatchNorm_check(l, in[0], 4, 4));
    return BatchNorm_apply(l, in[0], out);
}

static int BatchNorm_describe(const gr_layer *l, char *buf, size_t size) {
    const BatchNorm_attrs *a = l->attrs;
    char eps[40] = "", momentum[40] = "";
    if (a->eps != 1e-5) snprintf(eps, sizeof eps, ", eps %g", a->eps);
    if (a->momentum != 0.1 && a->track_running_stats)
        snprintf(momentum, sizeof momentum, ", momentum %g", a->momentum);
    return snprintf(buf, size, "%lld%s%s%s%s", (long long)a->num_features, eps, momentum,
                    a->affine ? "" : ", not affine",
                    a->track_running_stats ? "" : ", no running statistics");
}

static const gr_attr BatchNorm_schema[] = {
    {"num_features", GR_ATTR_INT, offsetof(BatchNorm_attrs, num_features), .required = true, .min = 1,
     .max = 1 << 30},
    {"eps", GR_ATTR_REAL, offsetof(BatchNorm_attrs, eps), .value = 1e-5},
    {"momentum", GR_ATTR_REAL, offsetof(BatchNorm_attrs, momentum), .value = 0.1, .min = 0, .max = 1},
    {"affine", GR_ATTR_BOOL, offsetof(BatchNorm_attrs, affine), .value = 1},
    {"track_running_stats", GR_ATTR_BOOL, offsetof(BatchNorm_attrs, track_running_stats), .value = 1},
    GR_ATTR_END};

GR_LAYER(BatchNorm1d) = {
    .info = {.name = "BatchNorm1d", .attrs = BatchNorm_schema, .attr_size = sizeof(BatchNorm_attrs),
             .doc = "Normalises [n,num_features] or [n,num_features,l] by channel: while training with\n"
                    "the batch's statistics, which move running_mean and running_var; afterwards with those."},
    .init = BatchNorm_init,
    .forward = BatchNorm1d_forward,
    .describe = BatchNorm_describe,
};

GR_LAYER(BatchNorm2d) = {
    .info = {.name = "BatchNorm2d", .attrs = BatchNorm_schema, .attr_size = sizeof(BatchNorm_attrs),
             .doc = "Normalises [n,num_features,h,w] by channel: while training with the batch's\n"
                    "statistics, which move running_mean and running_var; afterwards with those."},
    .init = BatchNorm_init,
    .forward = BatchNorm2d_forward,
    .describe = BatchNorm_describe,
};
