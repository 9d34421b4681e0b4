/* argmax, argmin: y = position of the largest or the smallest element, i64, counted from the context's index base:
 * along one dim, or among all elements in row-major order. The first of equals; NaN is chosen before any number. No
 * derivative. */
#include "reduce.h"
#include "vmath.h"

/* v is the best so far, at its position. At the start v is the worst there is and at is 0: that stands only if every
 * element is the worst, and then 0 is the answer. Both are 8 bytes, so that rows vectorise. better: > or <; extreme:
 * max or min. */
#define ARGMAX_TEXT(text) #text
#define ARGMAX_SIMD(clauses) _Pragma(ARGMAX_TEXT(omp simd clauses))
#define ARGMAX_REDUCTION(name, type, wide, better, extreme, worst)                                            \
    typedef struct name##_acc { wide v; int64_t at; } name##_acc;                                             \
    static inline bool name##_beats(wide x, wide v) { return (x better v) | ((x != x) & (v == v)); }          \
    static void name##_start(int64_t n, void *acc, const void *attrs) {                                       \
        name##_acc *a = acc;                                                                                  \
        (void)attrs;                                                                                          \
        for (int64_t j = 0; j < n; j++) a[j] = (name##_acc){worst, 0};                                        \
    }                                                                                                         \
    static void name##_fold(void *acc, int64_t n, const void *from, int64_t at, const void *attrs) {          \
        const type *x = from;                                                                                 \
        name##_acc *a = acc;                                                                                  \
        type most = worst, nan = 0;                                                                           \
        int64_t i = 0;                                                                                        \
        (void)attrs;                                                                                          \
        ARGMAX_SIMD(reduction(extreme : most) reduction(+ : nan)) for (int64_t k = 0; k < n; k++) {           \
            most = x[k] better most ? x[k] : most;                                                            \
            nan += x[k] == x[k] ? 0 : x[k];                                                                   \
        }                                                                                                     \
        if (nan != nan) most = nan;                                                                           \
        if (!name##_beats(most, a->v)) return;                                                                \
        while (x[i] != most && (nan == nan || x[i] == x[i])) i++;                                             \
        *a = (name##_acc){most, at + i};                                                                      \
    }                                                                                                         \
    static void name##_fold_rows(void *acc, int64_t n, int64_t rows, const void *from, int64_t stride,        \
                                 int64_t at, const void *attrs) {                                             \
        const type *x = from;                                                                                 \
        name##_acc *a = acc;                                                                                  \
        (void)attrs;                                                                                          \
        for (; rows > 0; rows--, x += stride, at++)                                                           \
            ARGMAX_SIMD() for (int64_t j = 0; j < n; j++) {                                                   \
                wide v = x[j], was = a[j].v;                                                                  \
                bool beats = name##_beats(v, was);                                                            \
                a[j].v = beats ? v : was;                                                                     \
                a[j].at = beats ? at : a[j].at;                                                               \
            }                                                                                                 \
    }                                                                                                         \
    static void name##_join(void *acc, const void *other, const void *attrs) {                                \
        name##_acc *a = acc;                                                                                  \
        const name##_acc *b = other;                                                                          \
        (void)attrs;                                                                                          \
        if (name##_beats(b->v, a->v)) *a = *b;                                                                \
    }                                                                                                         \
    static void name##_finish(int64_t n, void *to, const void *acc, int64_t count, const void *attrs) {       \
        int64_t *y = to;                                                                                      \
        const name##_acc *a = acc;                                                                            \
        (void)count;                                                                                          \
        for (int64_t j = 0; j < n; j++) y[j] = a[j].at + *(const int *)attrs;                                 \
    }                                                                                                         \
    static const gri_reduction name##_reduction = {                                                           \
        .acc_size = sizeof(name##_acc), .result = GR_I64, .positions = true, .start = name##_start,           \
        .fold = name##_fold, .fold_rows = name##_fold_rows, .join = name##_join, .finish = name##_finish};
ARGMAX_REDUCTION(argmax, real, double, >, max, -(real)INFINITY)
ARGMAX_REDUCTION(argmin, real, double, <, min, (real)INFINITY)
ARGMAX_REDUCTION(argmax_whole, int64_t, int64_t, >, max, INT64_MIN)
ARGMAX_REDUCTION(argmin_whole, int64_t, int64_t, <, min, INT64_MAX)

static gr_status argmax_shape(gri_call *c) {
    const gri_reduce_attrs *a = c->attrs;
    uint32_t mask;
    if (a->dim.n > 1)
        return gr_fail(c->ctx, GR_ERR_ARG, "%d dims given; %s goes along one, or over all", a->dim.n,
                       c->op->info.name);
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    GR_TRY(gri_want_some(c, mask));
    gri_reduced_spec(c->in[0], mask, a->keepdim, GR_I64, &c->spec[0]);
    return GR_OK;
}

static gr_status argmax_run(gri_call *c, const gri_reduction *reals, const gri_reduction *wholes) {
    const gri_reduce_attrs *a = c->attrs;
    gri_call with_base = *c;
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &a->dim, c->in[0]->rank, &mask));
    with_base.attrs = &c->ctx->index_base;
    if (!gri_is_float(c->in[0])) return gri_reduce(&with_base, wholes, GR_I64, mask);
    return gri_reduce(&with_base, reals, GRI_REAL, mask);
}

static gr_status argmax_forward(gri_call *c) { return argmax_run(c, &argmax_reduction, &argmax_whole_reduction); }
GR_KERNEL(argmax);
static gr_status argmin_forward(gri_call *c) { return argmax_run(c, &argmin_reduction, &argmin_whole_reduction); }
GR_KERNEL(argmin);

static const gr_attr argmax_schema[] = {GRI_REDUCE_ATTRS, GR_ATTR_END};

static const gr_case argmax_cases[] = {
    {.in = "2,3", .give = "{{1,5,3},{4,2,6}}", .want = "6", .no_grad = true},
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,5,3},{4,2,6}}", .want = "{2,1,2}", .no_grad = true},
    {.in = "2,3", .attrs = "dim=2, keepdim=true", .give = "{{7,7,3},{4,0/0,6}}", .want = "{{1},{2}}",
     .no_grad = true},
    {.in = "3,4,5", .attrs = "dim=2", .no_grad = true},
    {.in = "100,10", .attrs = "dim=-1", .no_grad = true},
    {0}};

GR_OP(argmax) = {
    .info = {.name = "argmax", .inputs = "x", .attrs = argmax_schema, .attr_size = sizeof(gri_reduce_attrs),
             .cases = argmax_cases,
             .doc = "Position of the largest element along dim, or among all elements if none is given; the first\n"
                    "of equals. NaN counts as the largest."},
    .shape = argmax_shape,
    .forward = argmax_kernels,
};

static const gr_case argmin_cases[] = {
    {.in = "2,3", .give = "{{1,5,3},{4,2,6}}", .want = "1", .no_grad = true},
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,5,3},{4,2,6}}", .want = "{1,2,1}", .no_grad = true},
    {.in = "2,3", .attrs = "dim=2, keepdim=true", .give = "{{7,3,3},{4,0/0,6}}", .want = "{{2},{2}}",
     .no_grad = true},
    {.in = "3,4,5", .attrs = "dim=2", .no_grad = true},
    {.in = "100,10", .attrs = "dim=-1", .no_grad = true},
    {0}};

GR_OP(argmin) = {
    .info = {.name = "argmin", .inputs = "x", .attrs = argmax_schema, .attr_size = sizeof(gri_reduce_attrs),
             .cases = argmin_cases,
             .doc = "Position of the smallest element along dim, or among all elements if none is given; the first\n"
                    "of equals. NaN counts as the smallest."},
    .shape = argmax_shape,
    .forward = argmin_kernels,
};
