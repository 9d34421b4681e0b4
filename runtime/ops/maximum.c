/* maximum(a, b) and minimum(a, b), element by element, broadcasting; NaN where either is NaN.
 *
 * The gradient goes to the chosen operand, half to each where they are equal, whole to both where one is NaN:
 * maximum_backward(dy, a, b), the share of a, serves b, and minimum too, with a and b exchanged. It does not change
 * with a and b, save where they meet. Both inputs are kept. */
#include "iter.h"
#include "vmath.h"

static void maximum_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *a = p[1], *b = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = (a[i] > b[i]) | (a[i] != a[i]) ? a[i] : b[i];
}

static void maximum_whole_loop(int64_t n, void *const *p, const void *attrs) {
    int64_t *y = p[0];
    const int64_t *a = p[1], *b = p[2];
    (void)attrs;
    for (int64_t i = 0; i < n; i++) y[i] = a[i] > b[i] ? a[i] : b[i];
}

static gr_status maximum_forward(gri_call *c) {
    return gri_map_whole(c, maximum_loop, maximum_whole_loop, GRI_REAL, GRI_EXACT);
}
GR_KERNEL(maximum);

static gr_status maximum_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, maximum_backward, g->dy[0], g->in[0], g->in[1]));
    return GRI_EMIT(g, 1, maximum_backward, g->dy[0], g->in[1], g->in[0]);
}

static const gr_case maximum_cases[] = {
    {.in = "3 3", .give = "{1,2,-3}, {3,2,-4}", .want = "{3,2,-3}", .no_grad = true},
    {.in = "i64:2 i64:2", .give = "{9007199254740993, -3}, {9007199254740992, 4}", .want = "{9007199254740993, 4}",
     .no_grad = true},
    {.in = "2,3,4 4"},
    {.in = "3,1 1,5"},
    {.in = "4 ()"},
    {0}};

GR_OP(maximum) = {
    .info = {.name = "maximum", .inputs = "a b", .cases = maximum_cases,
             .doc = "The larger of a and b, element by element, broadcasting. NaN where either is NaN."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = maximum_kernels,
    .backward = maximum_rule,
};

/* ---- minimum ---- */

static void minimum_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *a = p[1], *b = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = (a[i] < b[i]) | (a[i] != a[i]) ? a[i] : b[i];
}

static void minimum_whole_loop(int64_t n, void *const *p, const void *attrs) {
    int64_t *y = p[0];
    const int64_t *a = p[1], *b = p[2];
    (void)attrs;
    for (int64_t i = 0; i < n; i++) y[i] = a[i] < b[i] ? a[i] : b[i];
}

static gr_status minimum_forward(gri_call *c) {
    return gri_map_whole(c, minimum_loop, minimum_whole_loop, GRI_REAL, GRI_EXACT);
}
GR_KERNEL(minimum);

static gr_status minimum_rule(gri_grad *g) {
    GR_TRY(GRI_EMIT(g, 0, maximum_backward, g->dy[0], g->in[1], g->in[0]));
    return GRI_EMIT(g, 1, maximum_backward, g->dy[0], g->in[0], g->in[1]);
}

static const gr_case minimum_cases[] = {
    {.in = "3 3", .give = "{1,2,-3}, {3,2,-4}", .want = "{1,2,-4}", .no_grad = true},
    {.in = "i64:2 i64:2", .give = "{9007199254740993, -3}, {9007199254740992, 4}", .want = "{9007199254740992, -3}",
     .no_grad = true},
    {.in = "2,3,4 4"},
    {.in = "3,1 1,5"},
    {.in = "4 ()"},
    {0}};

GR_OP(minimum) = {
    .info = {.name = "minimum", .inputs = "a b", .cases = minimum_cases,
             .doc = "The smaller of a and b, element by element, broadcasting. NaN where either is NaN."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = minimum_kernels,
    .backward = minimum_rule,
};

/* ---- their derivative as an op ---- */

static void maximum_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *da = p[0];
    const real *dy = p[1], *a = p[2], *b = p[3];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) da[i] = a[i] < b[i] ? 0 : a[i] == b[i] ? dy[i] / 2 : dy[i];
}

static gr_status maximum_backward_forward(gri_call *c) {
    return gri_map(c, maximum_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(maximum_backward);

static gr_status maximum_backward_rule(gri_grad *g) {
    return GRI_EMIT(g, 0, maximum_backward, g->dy[0], g->in[1], g->in[2]);
}

static const gr_case maximum_backward_cases[] = {
    {.in = "3 3 3", .give = "{1,2,3}, {3,4,5}, {2,4,6}", .want = "{1,1,0}", .no_grad = true},
    {.in = "3,5 3,5 3,5"},
    {0}};

GR_OP(maximum_backward) = {
    .info = {.name = "maximum_backward", .inputs = "dy a b", .hidden = true, .cases = maximum_backward_cases,
             .doc = "dy where a > b, dy / 2 where a = b, else 0"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1) | GRI_KEEP_IN(2),
    .shape = gri_shape_broadcast,
    .forward = maximum_backward_kernels,
    .backward = maximum_backward_rule,
};
