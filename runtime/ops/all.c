/* y = 1 where all, or any, of the elements are not 0, else 0, as u8; over any set of dims. NaN is not 0. Of no
 * elements all are and none is. No derivative.
 *
 * An accumulator says whether an element was found that decides: a 0 for all, another for any. */
#include "reduce.h"
#include "vmath.h"

#define ALL_REDUCTION(name, type, R, when_found)                                                             \
    static void name##_start(int64_t n, void *acc, const void *attrs) {                                      \
        uint8_t *found = acc;                                                                                \
        (void)attrs;                                                                                         \
        for (int64_t j = 0; j < n; j++) found[j] = 0;                                                        \
    }                                                                                                        \
    static void name##_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {         \
        const type *x = from;                                                                                \
        uint8_t found = 0;                                                                                   \
        (void)at, (void)attrs;                                                                               \
        _Pragma("omp simd reduction(| : found)") for (int64_t i = 0; i < n; i++) found |= x[i] R 0;          \
        *(uint8_t *)acc |= found;                                                                            \
    }                                                                                                        \
    static void name##_fold_rows(void *acc, int64_t n, int64_t rows, const void *from, int64_t stride,       \
                                 int64_t at, const void *attrs) {                                            \
        const type *x = from;                                                                                \
        uint8_t *found = acc;                                                                                \
        (void)at, (void)attrs;                                                                               \
        for (; rows > 0; rows--, x += stride)                                                                \
            _Pragma("omp simd") for (int64_t j = 0; j < n; j++) found[j] |= x[j] R 0;                        \
    }                                                                                                        \
    static void name##_join(void *acc, const void *other, const void *attrs) {                               \
        (void)attrs;                                                                                         \
        *(uint8_t *)acc |= *(const uint8_t *)other;                                                          \
    }                                                                                                        \
    static void name##_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {      \
        const uint8_t *found = acc;                                                                          \
        uint8_t *y = to;                                                                                     \
        (void)count, (void)attrs;                                                                            \
        for (int64_t j = 0; j < n; j++) y[j] = found[j] == when_found;                                       \
    }                                                                                                        \
    static const gri_reduction name##_reduction = {                                                          \
        .acc_size = 1, .result = GR_U8, .start = name##_start, .fold = name##_fold,                          \
        .fold_rows = name##_fold_rows, .join = name##_join, .finish = name##_finish};
ALL_REDUCTION(all_reals, real, ==, 0)
ALL_REDUCTION(all_wholes, int64_t, ==, 0)
ALL_REDUCTION(all_bytes, uint8_t, ==, 0)
ALL_REDUCTION(any_reals, real, !=, 1)
ALL_REDUCTION(any_wholes, int64_t, !=, 1)
ALL_REDUCTION(any_bytes, uint8_t, !=, 1)

static gr_status all_shape(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    gri_reduced_spec(c->in[0], mask, a->keepdim, GR_U8, &c->spec[0]);
    return GR_OK;
}

static gr_status all_run(gri_call *c, const gri_reduction *reals, const gri_reduction *wholes,
                         const gri_reduction *bytes) {
    const gr_tensor *x = c->in[0];
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &((const gri_reduce_attrs *)c->attrs)->dim, x->rank, &mask));
    if (gri_is_float(x)) return gri_reduce(c, reals, GRI_REAL, mask);
    return x->dtype == GR_U8 ? gri_reduce(c, bytes, GR_U8, mask) : gri_reduce(c, wholes, GR_I64, mask);
}

static gr_status all_forward(gri_call *c) {
    return all_run(c, &all_reals_reduction, &all_wholes_reduction, &all_bytes_reduction);
}
GR_KERNEL(all);
static gr_status any_forward(gri_call *c) {
    return all_run(c, &any_reals_reduction, &any_wholes_reduction, &any_bytes_reduction);
}
GR_KERNEL(any);

static const gr_attr all_schema[] = {GRI_REDUCE_ATTRS, GR_ATTR_END};

#define ALL_CASES(name, rows, columns, two, none)                                                            \
    static const gr_case name##_cases[] = {                                                                  \
        {.in = "2,3", .give = "{{0/0,1,-0.5},{0,-1/0,0}}", .attrs = "dim=2", .want = rows, .no_grad = true}, \
        {.in = "u8:2,2", .give = "{{0,1},{1,1}}", .attrs = "dim=-2, keepdim=true", .want = columns,          \
         .no_grad = true},                                                                                   \
        {.in = "i64:2", .give = "{4294967296,0}", .want = two, .no_grad = true},                             \
        {.in = "0", .give = "{}", .want = none, .no_grad = true},                                            \
        {.in = "u8:3,4,5", .attrs = "dim={1,3}", .no_grad = true},                                           \
        {.in = "100,10", .attrs = "dim=1", .no_grad = true},                                                 \
        {.in = "()", .no_grad = true},                                                                       \
        {0}};
ALL_CASES(all, "{1,0}", "{{0,1}}", "0", "1")
ALL_CASES(any, "{1,1}", "{{1,1}}", "1", "0")

GR_OP(all) = {
    .info = {.name = "all", .inputs = "x", .attrs = all_schema, .attr_size = sizeof(gri_reduce_attrs),
             .cases = all_cases,
             .doc = "1 where no element over dim (a number or a list; all if none is given) is 0, else 0, as u8.\n"
                    "NaN is not 0."},
    .shape = all_shape,
    .forward = all_kernels,
};

GR_OP(any) = {
    .info = {.name = "any", .inputs = "x", .attrs = all_schema, .attr_size = sizeof(gri_reduce_attrs),
             .cases = any_cases,
             .doc = "1 where some element over dim (a number or a list; all if none is given) is not 0, else\n"
                    "0, as u8. NaN is not 0."},
    .shape = all_shape,
    .forward = any_kernels,
};
