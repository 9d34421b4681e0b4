/* y = |x|.
 *
 * dy/dx = sign(x), and 0 at 0 (and where x is NaN): the input is kept. abs_backward(dy, x) = dy sign(x) does not
 * change with x, save at 0. */
#include "iter.h"
#include "vmath.h"

static gr_status abs_shape(gri_call *c) {
    c->spec[0] = gri_spec_of(c->in[0]);
    return GR_OK;
}

static void abs_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = r_abs(x[i]);
}

static void abs_whole_loop(int64_t n, void *const *p, const void *attrs) {
    uint64_t *y = p[0];
    const int64_t *x = p[1];
    (void)attrs;
    for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0 ? 0 - (uint64_t)x[i] : (uint64_t)x[i];
}

static gr_status abs_forward(gri_call *c) { return gri_map_whole(c, abs_loop, abs_whole_loop, GRI_REAL, GRI_EXACT); }
GR_KERNEL(abs);

static gr_status abs_rule(gri_grad *g) { return GRI_EMIT(g, 0, abs_backward, g->dy[0], g->in[0]); }

static const gr_case abs_cases[] = {
    {.in = "3", .give = "{-1.5, 2, -0.25}", .want = "{1.5, 2, 0.25}"},
    {.in = "3,5", .has_kink = true},
    {.in = "i64:3", .give = "{-9007199254740993, 0, 5}", .want = "{9007199254740993, 0, 5}", .no_grad = true},
    {0}};

GR_OP(abs) = {
    .info = {.name = "abs", .inputs = "x", .cases = abs_cases, .doc = "Absolute value of every element."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = abs_shape,
    .forward = abs_kernels,
    .backward = abs_rule,
};

/* ---- its derivative as an op ---- */

static void abs_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *x = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = x[i] > 0 ? dy[i] : x[i] < 0 ? -dy[i] : 0;
}

static gr_status abs_backward_forward(gri_call *c) {
    return gri_map(c, abs_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(abs_backward);

static gr_status abs_backward_rule(gri_grad *g) { return GRI_EMIT(g, 0, abs_backward, g->dy[0], g->in[1]); }

static const gr_case abs_backward_cases[] = {
    {.in = "3 3", .give = "{2, 3, 4}, {-0.5, 0, 7}", .want = "{-2, 0, 4}", .no_grad = true},
    {.in = "3,5 3,5", .has_kink = true},
    {0}};

GR_OP(abs_backward) = {
    .info = {.name = "abs_backward", .inputs = "dy x", .hidden = true, .cases = abs_backward_cases,
             .doc = "dy sign(x)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = abs_backward_kernels,
    .backward = abs_backward_rule,
};
