/* y = a / b, broadcasting; IEEE where b is 0.
 *
 * dy/da = 1/b, dy/db = -y/b: b and y are kept. div_backward(dy, y, b) = z = -dy y / b is an op of its own with
 *     dz/d(dy) = -y/b,  dz/dy = -dy/b,  dz/db = -z/b,
 * all three of its own form. */
#include "iter.h"
#include "vmath.h"

static void div_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *a = p[1], *b = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = a[i] / b[i];
}

static gr_status div_forward(gri_call *c) { return gri_map(c, div_loop, GRI_REAL, NULL, GRI_EXACT); }
GR_KERNEL(div);

static gr_status div_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, div, g->dy[0], g->in[1]));
    return GRI_EMIT(g, 1, div_backward, g->dy[0], g->out[0], g->in[1]);
}

static const gr_case div_cases[] = {
    {.in = "2,2 2,2", .give = "{{1,2},{-3,4}}, {{2,4},{4,0.5}}", .want = "{{0.5,0.5},{-0.75,8}}"},
    {.in = "2,3,4 4", .lo = 0.5, .hi = 2},
    {.in = "3,1 1,5", .lo = -3, .hi = -0.5},
    {.in = "4 ()", .lo = 0.5, .hi = 2},
    {0}};

GR_OP(div) = {
    .info = {.name = "div", .inputs = "a b", .cases = div_cases,
             .doc = "a / b, element by element, broadcasting. Also written a / b."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1) | GRI_KEEP_OUT(0),
    .shape = gri_shape_broadcast_float,
    .forward = div_kernels,
    .backward = div_rule,
};

/* ---- its derivative to b as an op ---- */

static void div_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *db = p[0];
    const real *dy = p[1], *y = p[2], *b = p[3];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) db[i] = -dy[i] * (y[i] / b[i]);
}

static gr_status div_backward_forward(gri_call *c) {
    return gri_map(c, div_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(div_backward);

static gr_status div_backward_rule(gri_grad *g) {
    gr_tensor *dy = g->in[0], *y = g->in[1], *b = g->in[2];
    GR_TRY(GRI_EMIT(g, 0, div_backward, g->dy[0], y, b));
    GR_TRY(GRI_EMIT(g, 1, div_backward, g->dy[0], dy, b));
    return GRI_EMIT(g, 2, div_backward, g->dy[0], g->out[0], b);
}

static const gr_case div_backward_cases[] = {
    {.in = "2 2 2", .give = "{1,2}, {3,4}, {2,-4}", .want = "{-1.5, 2}"},
    {.in = "3,5 3,5 3,5", .lo = 0.5, .hi = 2},
    {0}};

GR_OP(div_backward) = {
    .info = {.name = "div_backward", .inputs = "dy y b", .hidden = true, .cases = div_backward_cases,
             .doc = "-dy y / b"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1) | GRI_KEEP_IN(2) | GRI_KEEP_OUT(0),
    .shape = gri_shape_broadcast,
    .forward = div_backward_kernels,
    .backward = div_backward_rule,
};
