/* y = a + b, broadcasting.
 *
 * dy/da = dy/db = 1: each input's gradient is dy itself, summed over what was broadcast. Nothing is kept. */
#include "iter.h"
#include "vmath.h"

static void add_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *a = p[1], *b = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void add_whole_loop(int64_t n, void *const *p, const void *attrs) {
    uint64_t *y = p[0];
    const uint64_t *a = p[1], *b = p[2];
    (void)attrs;
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static gr_status add_forward(gri_call *c) { return gri_map_whole(c, add_loop, add_whole_loop, GRI_REAL, GRI_EXACT); }
GR_KERNEL(add);

static gr_status add_rule(gri_grad *g) {
    GR_TRY(gri_emit_same(g, 0, g->dy[0]));
    return gri_emit_same(g, 1, g->dy[0]);
}

static const gr_case add_cases[] = {
    {.in = "3,4 3,4", .give = "{{1,2},{3,4}}, {{10,20},{30,40}}", .want = "{{11,22},{33,44}}"},
    {.in = "2,3,4 4"},
    {.in = "3,1 1,5"},
    {.in = "4 ()"},
    {.in = "i64:2 i64:2", .give = "{9007199254740993, 0x7fffffffffffffff}, {2, 1}",
     .want = "{9007199254740995, math.mininteger}", .no_grad = true},
    {0}};

GR_OP(add) = {
    .info = {.name = "add", .inputs = "a b", .cases = add_cases,
             .doc = "a + b, element by element, broadcasting. Also written a + b. Results above 255 become 255\n"
                    "in u8."},
    .elementwise = true,
    .shape = gri_shape_broadcast,
    .forward = add_kernels,
    .backward = add_rule,
};
