/* The pointwise ops under test, and inputs for them. */
#ifndef GR_POINTWISE_H
#define GR_POINTWISE_H

#include "check.h"

#include "iter.h"

#define SCALAR ((const int64_t[]){-1})
#define NUMBER(ctx, dtype, v) check_values(ctx, dtype, SCALAR, (double[]){v})

/* Every pointwise op of floating numbers: one letter an input, x a number, m a mask. `exact`: IEEE arithmetic only,
 * so that all CPU variants give the same bits. */
typedef struct pointwise {
    const char *name, *inputs;
    double lo, hi;
    bool exact;
} pointwise;

static const pointwise all[] = {
    {"add", "xx", -2, 2, true},          {"sub", "xx", -2, 2, true},
    {"mul", "xx", -2, 2, true},          {"div", "xx", 0.5, 2, true},
    {"div_backward", "xxx", 0.5, 2, true}, {"neg", "x", -2, 2, true},
    {"exp", "x", -3, 3, false},          {"log", "x", 0.3, 3, false},
    {"sqrt", "x", 0.3, 3, true},         {"sqrt_backward", "xx", 0.3, 3, true},
    {"abs", "x", -2, 2, true},           {"abs_backward", "xx", -2, 2, true},
    {"pow", "xx", 0.5, 2, false},        {"pow_backward_base", "xxx", 0.5, 2, false},
    {"pow_backward_exponent", "xxx", 0.5, 2, false}, {"clamp", "x", -2, 2, true},
    {"clamp_backward", "xx", -2, 2, true}, {"maximum", "xx", -2, 2, true},
    {"minimum", "xx", -2, 2, true},      {"maximum_backward", "xxx", -2, 2, true},
    {"where", "mxx", -2, 2, true},       {"masked_fill", "xm", -2, 2, true},
    {"eq", "xx", 0, 1, true},            {"lt", "xx", 0, 1, true},
    {"sigmoid", "x", -4, 4, false},      {"sigmoid_backward", "xx", 0, 1, false},
    {"tanh", "x", -3, 3, false},         {"tanh_backward", "xx", -1, 1, false},
    {"relu", "x", -2, 2, true},          {"relu_backward", "xx", -2, 2, true},
    {"leaky_relu", "x", -2, 2, true},    {"leaky_relu_backward", "xx", -2, 2, true},
    {"elu", "x", -3, 3, false},          {"elu_backward", "xx", -3, 3, false},
    {"selu", "x", -3, 3, false},         {"selu_backward", "xx", -3, 3, false},
    {"gelu", "x", -3, 3, false},         {"gelu_backward", "xx", -0.5, 3, false},
    {"silu", "x", -4, 4, false},         {"silu_backward", "xx", -4, 4, false},
    {"softplus", "x", -4, 4, false},     {"softplus_backward", "xx", -4, 4, false},
    {"prelu_elementwise", "xx", -2, 2, true}, {"prelu_backward", "xxx", -2, 2, true},
    {"prelu_backward_weight", "xx", -2, 2, true}, {"erf", "x", -3, 3, false},
    {"erf_backward", "xx", -2, 2, false}, {"erfinv", "x", -0.9, 0.9, false},
    {"erfinv_backward", "xx", -1, 1, false}, {"sin", "x", -4, 4, false},
    {"sin_backward", "xx", -4, 4, false}, {"cos", "x", -4, 4, false},
    {"cos_backward", "xx", -4, 4, false}, {"floor", "x", -4, 4, true},
    {"ceil", "x", -4, 4, true},          {"trunc", "x", -4, 4, true},
    {"round", "x", -4, 4, true},         {"sign", "x", -4, 4, true},
    {"fmod", "xx", 1.1, 1.9, true},      {"remainder", "xx", 1.1, 1.9, true}};
#define ALL (sizeof all / sizeof *all)

/* Attributes of an op with some set by name: "min=-1 max=2". In static memory. */
static inline const void *attributes(const gr_op *op, const char *text) {
    static uint64_t attrs[GRI_ATTR_MAX / 8];
    const gr_info *info = gr_op_info(op);
    gr_attrs_default(info, attrs);
    for (const gr_attr *a = info->attrs; a && a->name && text; a++) {
        const char *at = strstr(text, a->name);
        if (!at) continue;
        assert_int_equal(a->kind, GR_ATTR_REAL);
        *(double *)(void *)((char *)attrs + a->offset) = strtod(at + strlen(a->name) + 1, NULL);
    }
    return attrs;
}

static inline gr_tensor *apply_with(gr_ctx *ctx, const char *op, const char *attrs, gr_tensor *const *in) {
    gr_tensor *y = NULL;
    const gr_op *o = gr_op_find(op);
    int n = 1;
    assert_non_null(o);
    for (const char *s = gr_op_info(o)->inputs; *s; s++) n += *s == ' ';
    check_ok(ctx, gr_apply(ctx, o, n, in, attributes(o, attrs), &y));
    return y;
}
#define APPLY(ctx, op, ...) apply_with(ctx, op, NULL, GRI_TENSORS(__VA_ARGS__))

static inline gr_tensor *view(gr_tensor *base, int rank, const int64_t *dims, const int64_t *strides,
                              int64_t offset) {
    gr_tensor *v = NULL;
    check_ok(base->head.ctx, gri_tensor_view(base, rank, dims, strides, offset, &v));
    return v;
}

static inline gr_tensor *dense(gr_tensor *t) {
    gri_spec spec = gri_spec_of(t);
    gr_tensor *d = NULL;
    check_ok(t->head.ctx, gri_tensor_like_spec(t->head.ctx, &spec, &d));
    check_ok(t->head.ctx, gr_tensor_copy(d, t));
    return d;
}

/* Inputs of an op, `dims` each. */
static inline int inputs(gr_ctx *ctx, const pointwise *p, gr_dtype dtype, const int64_t *dims, uint64_t seed,
                         gr_tensor **in) {
    int n = 0;
    for (const char *s = p->inputs; *s; s++, n++) {
        bool mask = *s == 'm';
        in[n] = check_tensor(ctx, mask ? GR_U8 : dtype, dims, mask ? 0 : p->lo, mask ? 0 : p->hi, &seed);
        for (int64_t i = 0; mask && i < in[n]->numel; i++) check_put(in[n], i, check_random(&seed) < 0.5);
    }
    return n;
}

/* A context of CPU variant 0 .. 2; NULL if this processor has it not. */
static inline gr_ctx *variant(int v) {
    gr_config cfg;
    gr_ctx *ctx = NULL;
    gr_config_init(&cfg);
    cfg.isa = (const char *[]){"generic", "avx2", "avx512"}[v];
    return gr_ctx_new(&cfg, &ctx) == GR_OK ? ctx : NULL;
}

static inline void drop(int n, gr_tensor **t) {
    for (int i = 0; i < n; i++) gr_release(t[i]);
}

#endif
