/* y = the largest element over any set of dims; NaN if there is one.
 *
 * dy/dx = 1 / k at the k elements that are equal to y, 0 elsewhere: ties share the gradient evenly. Input and
 * output are kept. */
#include "reduce.h"
#include "vmath.h"

/* For reals and for whole numbers. A NaN, once in an accumulator, is larger than nothing and so stays. */
#define AMAX_REDUCTION(name, type, dtype, lowest)                                                             \
    static void name##_start(int64_t n, void *acc, const void *attrs) {                                       \
        type *a = acc;                                                                                        \
        (void)attrs;                                                                                          \
        for (int64_t j = 0; j < n; j++) a[j] = lowest;                                                        \
    }                                                                                                         \
    static void name##_join(void *acc, const void *other, const void *attrs) {                                \
        type *a = acc, x = *(const type *)other;                                                              \
        (void)attrs;                                                                                          \
        if (x > *a || x != x) *a = x;                                                                         \
    }                                                                                                         \
    static void name##_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {          \
        const type *x = from;                                                                                 \
        type most = lowest, nan = 0;                                                                          \
        (void)at;                                                                                             \
        _Pragma("omp simd reduction(max : most) reduction(+ : nan)") for (int64_t i = 0; i < n; i++) {        \
            most = x[i] > most ? x[i] : most;                                                                 \
            nan += x[i] == x[i] ? 0 : x[i];                                                                   \
        }                                                                                                     \
        if (nan != nan) most = nan;                                                                           \
        name##_join(acc, &most, attrs);                                                                       \
    }                                                                                                         \
    static void name##_fold_rows(void *acc, int64_t n, int64_t rows, const void *from, int64_t stride,        \
                                 int64_t at, const void *attrs) {                                             \
        const type *x = from;                                                                                 \
        type *a = acc;                                                                                        \
        (void)at, (void)attrs;                                                                                \
        for (; rows > 0; rows--, x += stride)                                                                 \
            _Pragma("omp simd") for (int64_t j = 0; j < n; j++) {                                             \
                a[j] = (x[j] > a[j]) | (x[j] != x[j]) ? x[j] : a[j];                                          \
            }                                                                                                 \
    }                                                                                                         \
    static void name##_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {       \
        type *y = to;                                                                                         \
        const type *a = acc;                                                                                  \
        (void)count, (void)attrs;                                                                             \
        for (int64_t j = 0; j < n; j++) y[j] = a[j];                                                          \
    }                                                                                                         \
    static const gri_reduction name##_reduction = {                                                           \
        .acc_size = sizeof(type), .result = dtype, .start = name##_start, .fold = name##_fold,                \
        .fold_rows = name##_fold_rows, .join = name##_join, .finish = name##_finish};
AMAX_REDUCTION(amax, real, GRI_REAL, -(real)INFINITY)
AMAX_REDUCTION(amax_whole, int64_t, GR_I64, INT64_MIN)

static gr_status amax_shape(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    gr_tensor *x = c->in[0];
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, x->rank, &mask));
    GR_TRY(gri_want_some(c, mask));
    gri_reduced_spec(x, mask, a->keepdim, (gr_dtype)x->dtype, &c->spec[0]);
    return GR_OK;
}

static gr_status amax_forward(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    if (!gri_is_float(c->in[0])) return gri_reduce(c, &amax_whole_reduction, GR_I64, mask);
    return gri_reduce(c, &amax_reduction, GRI_REAL, mask);
}
GR_KERNEL(amax);

static gr_status amax_backward(gri_grad *g) {
    const gri_reduce_attrs *a = g->attrs;
    gr_tensor *x = g->in[0], *y, *dy, *ties, *share;
    uint32_t mask;
    GR_TRY(gri_dim_mask(g->ctx, &a->dim, x->rank, &mask));
    GR_TRY(gri_keep_dims(g, g->out[0], mask, &y));
    GR_TRY(gri_keep_dims(g, g->dy[0], mask, &dy));
    GR_TRY(gri_share(g, dy, x, y, &a->dim, &ties, &share));
    return GRI_EMIT(g, 0, mul, ties, share);
}

static const gr_attr amax_schema[] = {
    {"dim", GR_ATTR_DIMS, offsetof(gri_reduce_attrs, dim), .required = false},
    {"keepdim", GR_ATTR_BOOL, offsetof(gri_reduce_attrs, keepdim), .required = false},
    GR_ATTR_END};

static const gr_case amax_cases[] = {
    {.in = "2,3", .give = "{{1,5,3},{4,2,6}}", .want = "6"},
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,5,3},{4,2,6}}", .want = "{4,5,6}"},
    {.in = "2,3", .attrs = "dim=-1, keepdim=true", .give = "{{1,0/0,3},{4,2,6}}", .want = "{{0/0},{6}}",
     .no_grad = true},
    {.in = "3,4,5", .attrs = "dim={1,3}"},
    {.in = "()"},
    {0}};

GR_OP(amax) = {
    .info = {.name = "amax", .inputs = "x", .attrs = amax_schema, .attr_size = sizeof(gri_reduce_attrs),
             .cases = amax_cases,
             .doc = "Largest element over dim (a number or a list; all if none is given). Elements that tie share\n"
                    "the gradient evenly."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_OUT(0),
    .shape = amax_shape,
    .forward = amax_kernels,
    .backward = amax_backward,
};
