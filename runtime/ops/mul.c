/* y = a b, element by element, broadcasting.
 *
 * dy/da = b, dy/db = a: both inputs are kept. */
#include "iter.h"
#include "vmath.h"

static void mul_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *a = p[1], *b = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

static void mul_whole_loop(int64_t n, void *const *p, const void *attrs) {
    uint64_t *y = p[0];
    const uint64_t *a = p[1], *b = p[2];
    (void)attrs;
    for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

static gr_status mul_forward(gri_call *c) { return gri_map_whole(c, mul_loop, mul_whole_loop, GRI_REAL, GRI_EXACT); }
GR_KERNEL(mul);

static gr_status mul_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, mul, g->dy[0], g->in[1]));
    return GRI_EMIT(g, 1, mul, g->dy[0], g->in[0]);
}

static const gr_case mul_cases[] = {
    {.in = "2,2 2,2", .give = "{{1,2},{3,4}}, {{10,20},{30,40}}", .want = "{{10,40},{90,160}}"},
    {.in = "2,3,4 4"},
    {.in = "3,1 1,5"},
    {.in = "4 ()"},
    {.in = "i64:2 i64:2", .give = "{3037000499, 1 << 62}, {3037000499, 4}", .want = "{9223372030926249001, 0}",
     .no_grad = true},
    {0}};

GR_OP(mul) = {
    .info = {.name = "mul", .inputs = "a b", .cases = mul_cases,
             .doc = "a * b, element by element, broadcasting. Also written a * b. Results above 255 become 255\n"
                    "in u8."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = mul_kernels,
    .backward = mul_rule,
};
