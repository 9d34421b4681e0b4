/* y = a where cond is not 0, else b; broadcasting all three. Values are chosen, not multiplied, so that a NaN in
 * the branch not taken does not show, forward or backward. Exact in every dtype.
 *
 * dy goes to the branch taken, 0 to the other: cond is kept. Not marked elementwise: the first input is the
 * condition, into which no result can go. */
#include "iter.h"
#include "vmath.h"

static gr_status where_shape(gri_call *c) {
    if (c->in[0]->dtype != GR_U8)
        return gr_fail(c->ctx, GR_ERR_DTYPE, "cond is %s, expected u8: the result of a comparison",
                       gri_tensor_text(c->in[0]));
    return gri_shape_broadcast(c); /* u8 changes no promotion */
}

#define WHERE_LOOP(name, type)                                                               \
    static void name(int64_t n, void *const *p, const void *attrs) {                         \
        type *y = p[0];                                                                      \
        const uint8_t *cond = p[1];                                                          \
        const type *a = p[2], *b = p[3];                                                     \
        (void)attrs;                                                                         \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = cond[i] ? a[i] : b[i]; \
    }
WHERE_LOOP(where_loop_1, uint8_t)
WHERE_LOOP(where_loop_4, uint32_t)
WHERE_LOOP(where_loop_8, uint64_t)

static gr_status where_forward(gri_call *c) {
    gr_dtype t = (gr_dtype)c->out[0]->dtype;
    size_t size = gr_dtype_size(t);
    gri_loop loop = size == 1 ? where_loop_1 : size == 4 ? where_loop_4 : where_loop_8;
    return gri_map(c, loop, t, (gr_dtype[]){t, GR_U8, t, t}, GRI_EXACT);
}
GR_KERNEL(where);

static gr_status where_rule(gri_grad *g) {
    gr_tensor *zero;
    GR_TRY(gri_scalar(g, &zero, 0));
    GR_TRY(GRI_EMIT(g, 1, where, g->in[0], g->dy[0], zero));
    return GRI_EMIT(g, 2, where, g->in[0], zero, g->dy[0]);
}

static const gr_case where_cases[] = {
    {.in = "u8:3 3 3", .give = "{1,0,1}, {1,2,3}, {-1,-2,-3}", .want = "{1,-2,3}"},
    {.in = "u8:2 2 2", .give = "{1,0}, {1,0/0}, {0/0,2}", .want = "{1,2}", .no_grad = true},
    {.in = "u8:3,4 3,4 3,4"},
    {.in = "u8:3,1 4 ()"},
    {.in = "u8:() 2,3 3"},
    {0}};

GR_OP(where) = {
    .info = {.name = "where", .inputs = "cond a b", .cases = where_cases,
             .doc = "a where cond is not 0, else b; broadcasting. cond is u8, as comparisons give it. A NaN in the "
                    "branch not taken does not show, nor does its gradient."},
    .keeps = GRI_KEEP_IN(0),
    .shape = where_shape,
    .forward = where_kernels,
    .backward = where_rule,
};
