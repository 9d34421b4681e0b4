/* y = a - b, broadcasting.
 *
 * dy/da = 1, dy/db = -1: nothing is kept. */
#include "iter.h"
#include "vmath.h"

static void sub_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *a = p[1], *b = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = a[i] - b[i];
}

static void sub_whole_loop(int64_t n, void *const *p, const void *attrs) {
    uint64_t *y = p[0];
    const uint64_t *a = p[1], *b = p[2];
    (void)attrs;
    for (int64_t i = 0; i < n; i++) y[i] = a[i] - b[i];
}

static gr_status sub_forward(gri_call *c) { return gri_map_whole(c, sub_loop, sub_whole_loop, GRI_REAL, GRI_EXACT); }
GR_KERNEL(sub);

static gr_status sub_rule(gri_grad *g) {
    GR_TRY(gri_emit_same(g, 0, g->dy[0]));
    return GRI_EMIT(g, 1, neg, g->dy[0]);
}

static const gr_case sub_cases[] = {
    {.in = "2,2 2,2", .give = "{{1,2},{3,4}}, {{10,20},{30,45}}", .want = "{{-9,-18},{-27,-41}}"},
    {.in = "2,3,4 4"},
    {.in = "3,1 1,5"},
    {.in = "() 4"},
    {.in = "i64:2 i64:2", .give = "{9007199254740993, math.mininteger}, {2, 1}",
     .want = "{9007199254740991, 0x7fffffffffffffff}", .no_grad = true},
    {.in = "u8:3 u8:()", .give = "{5, 2, 200}, 3", .want = "{2, 0, 197}", .no_grad = true},
    {0}};

GR_OP(sub) = {
    .info = {.name = "sub", .inputs = "a b", .cases = sub_cases,
             .doc = "a - b, element by element, broadcasting. Also written a - b. Results below 0 become 0 in u8."},
    .elementwise = true,
    .shape = gri_shape_broadcast,
    .forward = sub_kernels,
    .backward = sub_rule,
};
