/* y = erf⁻¹(x), |x| <= 1: the infinities at ±1, NaN beyond.
 *
 * y = Φ⁻¹((1 + x) / 2) / √2, by Algorithm AS 241 (quantile.h; in f32 its formulas of 7 digits, of which the second
 * suffices for the tails): a quotient of polynomials in x², or in √(-ln((1 - |x|) / 2)) where |x| > 0.85. Relative
 * error 5e-7 in f32, 1e-15 in f64; 1.0 ns an element (f32, avx512).
 *
 * dy/dx = √π/2 e^(y²): the output is kept. erfinv_backward(dy, y) = z has dz/d(dy) of its own form, dz/dy = 2 y z. */
#include "iter.h"
#include "quantile.h"
#include "vmath.h"

#ifdef GRI_F64
#define ERFINV_ROOT 0.70710678118654752440 /* √(1/2) */
static inline real erfinv_center(real q) { return gri_quantile_center(q) * ERFINV_ROOT; }
static inline real erfinv_tail(real p) { return gri_quantile_tail(sqrt(-gri_log_unit(p))) * ERFINV_ROOT; }
#else
#define ERFINV_ROOT 0.70710678f
static inline real erfinv_center(real q) {
    float r = 0.180625f - q * q;
    float a = ((59.109374720f * r + 159.29113202f) * r + 50.434271938f) * r + 3.3871327179f;
    float b = ((67.187563600f * r + 78.757757664f) * r + 17.895169469f) * r + 1;
    return q * a / b * ERFINV_ROOT;
}
static inline real erfinv_tail(real p) {
    float r = sqrtf(-logf(p)) - 1.6f;
    float a = ((0.17023821103f * r + 1.3067284816f) * r + 2.7568153900f) * r + 1.4234372777f;
    return a / ((0.12021132975f * r + 0.73700164250f) * r + 1) * ERFINV_ROOT;
}
#endif

static void erfinv_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real size = r_abs(x[i]), center = erfinv_center(x[i] / 2);
        real share = (1 - size) / 2; /* where it is below 0, size takes its place: the logarithm is slow there */
        real tail = r_copysign(erfinv_tail(share > 0 ? share : size), x[i]);
        real inside = size <= (real)0.85 ? center : tail;
        real outside = size == 1 ? x[i] * (real)INFINITY : (real)NAN;
        y[i] = size < 1 ? inside : outside;
    }
}

static gr_status erfinv_forward(gri_call *c) { return gri_map(c, erfinv_loop, GRI_REAL, NULL, GRI_COST_MATH); }
GR_KERNEL(erfinv);

static gr_status erfinv_rule(gri_grad *g) { return GRI_EMIT(g, 0, erfinv_backward, g->dy[0], g->out[0]); }

static const gr_case erfinv_cases[] = {
    {.in = "6", .give = "{-0.5, 0, 0.25, 0.84, -0.9, 0.9990234375}",
     .want = "{-0.476936276, 0, 0.225312055, 0.993535628, -1.16308715, 2.33146777}", .no_grad = true},
    {.in = "4", .give = "{-1, 1, 1.5, -2}", .want = "{-1/0, 1/0, 0/0, 0/0}", .no_grad = true},
    {.in = "3,5", .lo = -0.95, .hi = 0.95},
    {0}};

GR_OP(erfinv) = {
    .info = {.name = "erfinv", .inputs = "x", .cases = erfinv_cases,
             .doc = "What the error function gives x for, of every element between -1 and 1."},
    .elementwise = true,
    .keeps = GRI_KEEP_OUT(0),
    .shape = gri_shape_same,
    .forward = erfinv_kernels,
    .backward = erfinv_rule,
};

/* ---- its derivative as an op ---- */

#define ERFINV_SLOPE 0.88622692545275801365 /* √π / 2 */

static void erfinv_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *y = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) dx[i] = dy[i] * ((real)ERFINV_SLOPE * r_exp(y[i] * y[i]));
}

static gr_status erfinv_backward_forward(gri_call *c) {
    return gri_map(c, erfinv_backward_loop, GRI_REAL, NULL, GRI_COST_MATH);
}
GR_KERNEL(erfinv_backward);

static gr_status erfinv_backward_rule(gri_grad *g) {
    gr_tensor *t, *two;
    GR_TRY(GRI_EMIT(g, 0, erfinv_backward, g->dy[0], g->in[1]));
    if (!gri_needs(g, 1)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &t, mul, g->out[0], g->in[1]));
    GR_TRY(gri_scalar(g, &two, 2));
    GR_TRY(GRI_EVAL(g, &t, mul, t, two));
    return GRI_EMIT(g, 1, mul, g->dy[0], t);
}

static const gr_case erfinv_backward_cases[] = {
    {.in = "3 3", .give = "{2, -1, 3}, {1, 0, -2}", .want = "{4.81802909, -0.886226925, 145.159052}"},
    {.in = "3,5 3,5"},
    {0}};

GR_OP(erfinv_backward) = {
    .info = {.name = "erfinv_backward", .inputs = "dy y", .hidden = true, .cases = erfinv_backward_cases,
             .doc = "dy sqrt(pi)/2 exp(y^2)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(1) | GRI_KEEP_OUT(0),
    .shape = gri_shape_broadcast,
    .forward = erfinv_backward_kernels,
    .backward = erfinv_backward_rule,
};
