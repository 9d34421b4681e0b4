/* A small convolutional classifier and its training through the C API, for cmocka specs. */
#ifndef GR_MODEL_H
#define GR_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "gradrun.h"

static inline void set_number(const gr_info *info, void *attrs, const char *name, double v) {
    for (const gr_attr *a = info->attrs; a->name; a++) {
        char *at = (char *)attrs + a->offset;
        if (strcmp(a->name, name) != 0) continue;
        if (a->kind == GR_ATTR_REAL) *(double *)(void *)at = v;
        else if (a->kind == GR_ATTR_PAIR) ((int64_t *)(void *)at)[0] = ((int64_t *)(void *)at)[1] = (int64_t)v;
        else *(int64_t *)(void *)at = (int64_t)v;
        return;
    }
    fail_msg("%s has no attribute %s", info->name, name);
}

typedef struct model_part {
    const char *kind, *first, *second, *third;
    double a, b, c;
} model_part;

static inline gr_status model_add(gr_layer *net, const model_part *part, const char *name) {
    uint64_t attrs[32];
    const gr_layer_kind *kind = gr_layer_kind_find(part->kind);
    gr_layer *l;
    assert_non_null(kind);
    const gr_info *schema = gr_layer_kind_schema(kind);
    gr_attrs_default(schema, attrs);
    if (part->first) set_number(schema, attrs, part->first, part->a);
    if (part->second) set_number(schema, attrs, part->second, part->b);
    if (part->third) set_number(schema, attrs, part->third, part->c);
    gr_status s = gr_layer_new(gr_ctx_peek(net), kind, schema->attr_size ? attrs : NULL, &l);
    if (s != GR_OK) return s;
    s = gr_layer_add_child(net, name, l);
    gr_release(l);
    return s;
}

/* For images [n,1,6,6] in three classes; width: channels. */
static inline gr_status model_new(gr_ctx *ctx, int width, gr_layer **out) {
    const model_part parts[] = {
        {"Conv2d", "in_channels", "out_channels", "kernel_size", 1, width, 3},
        {"BatchNorm2d", "num_features", NULL, NULL, width, 0, 0}, {"ReLU", NULL, NULL, NULL, 0, 0, 0},
        {"MaxPool2d", "kernel_size", NULL, NULL, 2, 0, 0}, {"Flatten", NULL, NULL, NULL, 0, 0, 0},
        {"Dropout", "p", NULL, NULL, 0.25, 0, 0}, {"Linear", "in_features", "out_features", NULL, 4.0 * width, 3, 0}};
    gr_layer *net;
    gr_status s = gr_layer_new(ctx, gr_layer_kind_find("Sequential"), NULL, &net);
    if (s != GR_OK) return s;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && s == GR_OK; i++)
        s = model_add(net, &parts[i], (const char[]){(char)('1' + i), 0});
    if (s == GR_OK) *out = net;
    else gr_release(net);
    return s;
}

/* Parameters of the children, borrowed. */
static inline int model_params(gr_layer *net, gr_tensor **list) {
    int n = 0;
    for (int i = 0; i < gr_layer_children(net); i++) {
        gr_layer *l = gr_layer_child_peek(net, i, NULL);
        for (int k = 0; k < gr_layer_params(l); k++) list[n++] = gr_layer_param_peek(l, k, NULL);
    }
    return n;
}

/* loss = cross_entropy(net(x), classes) for fixed images. */
static inline gr_status model_loss(gr_layer *net, int images, gr_tensor **loss) {
    gr_ctx *ctx = gr_ctx_peek(net);
    gr_tensor *x = NULL, *y = NULL, *target = NULL;
    gr_status s = gr_tensor_new(ctx, GR_F32, 4, (int64_t[]){images, 1, 6, 6}, &x);
    if (s == GR_OK) s = gr_tensor_new(ctx, GR_I64, 1, (int64_t[]){images}, &target);
    for (int i = 0; s == GR_OK && i < 36 * images; i++) ((float *)gr_tensor_data_peek(x))[i] = (float)(i * 37 % 23) / 23;
    for (int i = 0; s == GR_OK && i < images; i++) ((int64_t *)gr_tensor_data_peek(target))[i] = i % 3 + 1;
    if (s == GR_OK) s = gr_layer_forward(net, 1, &x, 1, &y);
    if (s == GR_OK) s = gr_apply(ctx, gr_op_find("cross_entropy"), 2, (gr_tensor *[]){y, target}, NULL, loss);
    gr_release(x);
    gr_release(y);
    gr_release(target);
    return s;
}

static inline gr_status optim_new(gr_layer *net, gr_optim **out) {
    uint64_t attrs[32];
    const gr_optim_kind *kind = gr_optim_kind_find("AdamW");
    gr_tensor *params[16];
    gr_optim *o;
    int n = model_params(net, params);
    gr_attrs_default(gr_optim_kind_info(kind), attrs);
    gr_status s = gr_optim_new(gr_ctx_peek(net), kind, &o);
    if (s != GR_OK) return s;
    s = gr_optim_add_group(o, n, params, attrs);
    if (s == GR_OK) *out = o;
    else gr_release(o);
    return s;
}

static inline gr_status clip_all(gr_layer *net) {
    uint64_t attrs[32];
    const gr_clip_kind *kind = gr_clip_kind_find("norm");
    gr_tensor *params[16];
    int n = model_params(net, params);
    gr_attrs_default(gr_clip_kind_info(kind), attrs);
    set_number(gr_clip_kind_info(kind), attrs, "max_norm", 0.01);
    return gr_clip(gr_ctx_peek(net), kind, n, params, attrs, NULL);
}

/* The bytes of the parameters, of their gradients, and the number of updates, as a number. */
static inline uint64_t model_fingerprint(gr_layer *net, gr_optim *opt) {
    uint64_t h = 14695981039346656037u + (uint64_t)gr_optim_steps(opt);
    gr_tensor *params[16];
    int n = model_params(net, params);
    for (int i = 0; i < n; i++) {
        gr_tensor *list[] = {params[i], gr_tensor_grad_peek(params[i])};
        for (int k = 0; k < 2; k++) {
            const unsigned char *p = list[k] ? gr_tensor_data_peek(list[k]) : NULL;
            h = (h ^ (p != NULL)) * 1099511628211u;
            for (int64_t b = 0; p && b < gr_tensor_numel(list[k]) * 4; b++) h = (h ^ p[b]) * 1099511628211u;
        }
    }
    return h;
}

#endif
