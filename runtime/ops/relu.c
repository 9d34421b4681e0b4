/* y = max(x, 0); NaN stays NaN.
 *
 * dy/dx = 1 where x > 0, else 0 (also at 0), which y tells as well: the output is kept, so that x may go.
 * relu_backward(dy, y) does not change with y, save at 0. */
#include "iter.h"
#include "vmath.h"

static void relu_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = x[i] <= 0 ? 0 : x[i];
}

static gr_status relu_forward(gri_call *c) { return gri_map(c, relu_loop, GRI_REAL, NULL, GRI_EXACT); }
GR_KERNEL(relu);

static gr_status relu_rule(gri_grad *g) { return GRI_EMIT(g, 0, relu_backward, g->dy[0], g->out[0]); }

static const gr_case relu_cases[] = {
    {.in = "4", .give = "{-1.5, 0, 2, 0.25}", .want = "{0, 0, 2, 0.25}", .no_grad = true},
    {.in = "3,5", .has_kink = true},
    {0}};

GR_OP(relu) = {
    .info = {.name = "relu", .inputs = "x", .cases = relu_cases, .doc = "x where it is positive, else 0."},
    .elementwise = true,
    .keeps = GRI_KEEP_OUT(0),
    .shape = gri_shape_same,
    .forward = relu_kernels,
    .backward = relu_rule,
};

/* ---- its derivative as an op ---- */

static void relu_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *y = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = y[i] <= 0 ? 0 : dy[i];
}

static gr_status relu_backward_forward(gri_call *c) {
    return gri_map(c, relu_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(relu_backward);

static gr_status relu_backward_rule(gri_grad *g) { return GRI_EMIT(g, 0, relu_backward, g->dy[0], g->in[1]); }

static const gr_case relu_backward_cases[] = {
    {.in = "3 3", .give = "{2, 3, 4}, {-0.5, 0, 7}", .want = "{0, 0, 4}", .no_grad = true},
    {.in = "3,5 3,5", .has_kink = true},
    {0}};

GR_OP(relu_backward) = {
    .info = {.name = "relu_backward", .inputs = "dy y", .hidden = true, .cases = relu_backward_cases,
             .doc = "dy where y > 0, else 0"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = relu_backward_kernels,
    .backward = relu_backward_rule,
};
