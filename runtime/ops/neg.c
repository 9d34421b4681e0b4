/* y = -x. Its derivative is itself. */
#include "iter.h"
#include "vmath.h"

static gr_status neg_shape(gri_call *c) {
    c->spec[0] = gri_spec_of(c->in[0]);
    if (c->spec[0].dtype != GR_U8) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_DTYPE, "%s has no negative values; convert it with :to(\"i64\")",
                   gri_tensor_text(c->in[0]));
}

static void neg_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = -x[i];
}

static void neg_whole_loop(int64_t n, void *const *p, const void *attrs) {
    uint64_t *y = p[0];
    const uint64_t *x = p[1];
    (void)attrs;
    for (int64_t i = 0; i < n; i++) y[i] = 0 - x[i];
}

static gr_status neg_forward(gri_call *c) { return gri_map_whole(c, neg_loop, neg_whole_loop, GRI_REAL, GRI_EXACT); }
GR_KERNEL(neg);

static gr_status neg_rule(gri_grad *g) { return GRI_EMIT(g, 0, neg, g->dy[0]); }

static const gr_case neg_cases[] = {
    {.in = "3", .give = "{1, -2, 0}", .want = "{-1, 2, 0}"},
    {.in = "i64:2", .give = "{9007199254740993, -3}", .want = "{-9007199254740993, 3}", .no_grad = true},
    {.in = "2,3,4"},
    {0}};

GR_OP(neg) = {
    .info = {.name = "neg", .inputs = "x", .cases = neg_cases, .doc = "-x, element by element. Also written -x."},
    .elementwise = true,
    .shape = neg_shape,
    .forward = neg_kernels,
    .backward = neg_rule,
};
