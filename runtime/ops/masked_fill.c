/* y = value where mask is not 0, else x; broadcasting. Exact in every dtype.
 *
 * dy/dx = 0 where filled, else 1: the mask is kept. */
#include "iter.h"
#include "vmath.h"

typedef struct masked_fill_attrs { double value; } masked_fill_attrs;

static gr_status masked_fill_shape(gri_call *c) {
    const masked_fill_attrs *a = c->attrs;
    gr_dtype t = (gr_dtype)c->in[0]->dtype;
    if (c->in[1]->dtype != GR_U8)
        return gr_fail(c->ctx, GR_ERR_DTYPE, "the mask is %s, expected u8: the result of a comparison",
                       gri_tensor_text(c->in[1]));
    GR_TRY(gri_check_value(c->ctx, t, a->value));
    return gri_shape_broadcast(c); /* u8 changes no promotion */
}

#define MASKED_FILL_LOOP(name, type)                                                     \
    static void name(int64_t n, void *const *p, const void *attrs) {                     \
        type *y = p[0], value = (type)((const masked_fill_attrs *)attrs)->value;         \
        const type *x = p[1];                                                            \
        const uint8_t *mask = p[2];                                                      \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = mask[i] ? value : x[i]; \
    }
MASKED_FILL_LOOP(masked_fill_f32, float)
MASKED_FILL_LOOP(masked_fill_f64, double)
MASKED_FILL_LOOP(masked_fill_i64, int64_t)
MASKED_FILL_LOOP(masked_fill_u8, uint8_t)

static gr_status masked_fill_forward(gri_call *c) {
    static const gri_loop loops[] = {masked_fill_f32, masked_fill_f64, masked_fill_i64, masked_fill_u8};
    gr_dtype t = (gr_dtype)c->out[0]->dtype;
    return gri_map(c, loops[t], t, (gr_dtype[]){t, t, GR_U8}, GRI_EXACT);
}
GR_KERNEL(masked_fill);

static gr_status masked_fill_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_masked_fill, 2, GRI_TENSORS(g->dy[0], g->in[1]), &(masked_fill_attrs){0});
}

static const gr_attr masked_fill_schema[] = {
    {"value", GR_ATTR_REAL, offsetof(masked_fill_attrs, value), .required = true}, GR_ATTR_END};

static const gr_case masked_fill_cases[] = {
    {.in = "3 u8:3", .attrs = "value=-1", .give = "{1,2,3}, {1,0,1}", .want = "{-1,2,-1}"},
    {.in = "2 u8:2", .attrs = "value=-1/0", .give = "{0/0,2}, {1,0}", .want = "{-1/0,2}", .no_grad = true},
    {.in = "3,4 u8:3,4", .attrs = "value=0.5"},
    {.in = "2,3,4 u8:4", .attrs = "value=0.5"},
    {.in = "4 u8:3,1", .attrs = "value=0.5"},
    {0}};

GR_OP(masked_fill) = {
    .info = {.name = "masked_fill", .inputs = "x mask", .attrs = masked_fill_schema,
             .attr_size = sizeof(masked_fill_attrs), .cases = masked_fill_cases,
             .doc = "value where mask is not 0, else x; broadcasting. mask is u8."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1),
    .shape = masked_fill_shape,
    .forward = masked_fill_kernels,
    .backward = masked_fill_rule,
};
