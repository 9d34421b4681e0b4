/* y = √x; NaN below 0.
 *
 * dy/dx = 1 / (2 y): the output is kept. sqrt_backward(dy, y) = z = dy / (2 y) has dz/d(dy) = 1 / (2 y) and
 * dz/dy = -z / y. */
#include "iter.h"
#include "vmath.h"

static void sqrt_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = r_sqrt(x[i]);
}

static gr_status sqrt_forward(gri_call *c) { return gri_map(c, sqrt_loop, GRI_REAL, NULL, GRI_EXACT); }
GR_KERNEL(sqrt);

static gr_status sqrt_rule(gri_grad *g) { return GRI_EMIT(g, 0, sqrt_backward, g->dy[0], g->out[0]); }

static const gr_case sqrt_cases[] = {
    {.in = "3", .give = "{4, 2, 0.25}", .want = "{2, 1.41421356, 0.5}"},
    {.in = "3,5", .lo = 0.3, .hi = 3},
    {0}};

GR_OP(sqrt) = {
    .info = {.name = "sqrt", .inputs = "x", .cases = sqrt_cases, .doc = "Square root of every element."},
    .elementwise = true,
    .keeps = GRI_KEEP_OUT(0),
    .shape = gri_shape_same,
    .forward = sqrt_kernels,
    .backward = sqrt_rule,
};

/* ---- its derivative as an op ---- */

static void sqrt_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *y = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] / (2 * y[i]);
}

static gr_status sqrt_backward_forward(gri_call *c) {
    return gri_map(c, sqrt_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(sqrt_backward);

static gr_status sqrt_backward_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, sqrt_backward, g->dy[0], g->in[1]));
    return GRI_EMIT(g, 1, div_backward, g->dy[0], g->out[0], g->in[1]);
}

static const gr_case sqrt_backward_cases[] = {
    {.in = "2 2", .give = "{3, -1}, {2, 0.25}", .want = "{0.75, -2}"}, {.in = "3,5 3,5", .lo = 0.5, .hi = 2}, {0}};

GR_OP(sqrt_backward) = {
    .info = {.name = "sqrt_backward", .inputs = "dy y", .hidden = true, .cases = sqrt_backward_cases,
             .doc = "dy / (2 y)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1) | GRI_KEEP_OUT(0),
    .shape = gri_shape_broadcast,
    .forward = sqrt_backward_kernels,
    .backward = sqrt_backward_rule,
};
