/* y[i] = mean + std z[i], z normally distributed under the condition that a <= y[i] <= b. By inversion: with
 * α = (a - mean) / std and β = (b - mean) / std,
 *     z = Φ⁻¹(Φ(α) + u (Φ(β) - Φ(α))),  u uniform in (0, 1): 32 random bits in f32, 53 in f64 (random.h).
 *
 * Φ near 1 has no digits for its distance from 1, so bounds to the right of the mean are mirrored to the left first,
 * where Φ keeps its relative precision: any bounds are right that reach within 36 std of the mean, others are
 * refused. Computed in double for either dtype, and moved into [a, b] where the last rounding left it: 6 ns an
 * element (avx512; avx2 21).
 *
 * No inputs, no derivative. The file is compiled without fused multiply-add, and Φ⁻¹ is plain arithmetic
 * (quantile.h): the same numbers on every CPU, as far as the C library's erfc is the same. */
#include "draw.h"
#include "quantile.h"
#include "vmath.h"

typedef struct trunc_normal_attrs { gri_draw_attrs draw; double mean, std, a, b; } trunc_normal_attrs;

typedef struct trunc_normal_plan {
    trunc_normal_attrs a;
    double low, span, sign; /* Φ of the lower bound after mirroring, Φ(β) - Φ(α), -1 if mirrored */
} trunc_normal_plan;

static double trunc_normal_phi(double z) { return 0.5 * erfc(-z * 0.70710678118654752440); }

static void trunc_normal_plan_set(trunc_normal_plan *p, const trunc_normal_attrs *a) {
    double from = (a->a - a->mean) / a->std, to = (a->b - a->mean) / a->std;
    bool mirrored = from > 0;
    p->a = *a;
    p->low = trunc_normal_phi(mirrored ? -to : from);
    p->span = trunc_normal_phi(mirrored ? -from : to) - p->low;
    p->sign = mirrored ? -1 : 1;
}

static gr_status trunc_normal_shape(gri_call *c) {
    const trunc_normal_attrs *a = c->attrs;
    trunc_normal_plan p;
    GR_TRY(gri_shape_draw(c, true));
    if (!(a->std > 0) || !isfinite(a->std) || !isfinite(a->mean))
        return gr_fail(c->ctx, GR_ERR_ARG, "mean = %g, std = %g: expected finite values, std above 0", a->mean,
                       a->std);
    if (!(a->a < a->b)) return gr_fail(c->ctx, GR_ERR_ARG, "a = %g, b = %g: expected a < b", a->a, a->b);
    trunc_normal_plan_set(&p, a);
    if (!(p.low + p.span > 1e-290) || !(p.span > 0))
        return gr_fail(c->ctx, GR_ERR_ARG, "a = %g, b = %g with mean = %g, std = %g: no such number is ever drawn",
                       a->a, a->b, a->mean, a->std);
    return GR_OK;
}

/* u of 64 elements. */
static void trunc_normal_unit(const gri_draw_attrs *a, int64_t group, double *u) {
    gri_words w;
#ifdef GRI_F64
    for (int h = 0; h < 2; h++, u += GRI_GROUP / 2) {
        gri_philox16((uint64_t)a->seed, (uint64_t)a->counter, (uint64_t)(2 * group + h) * GRI_GROUP_LANES, w);
        for (int p = 0; p < 2; p++)
            for (int j = 0; j < GRI_GROUP_LANES; j++)
                u[p * GRI_GROUP_LANES + j] = gri_unit_f64(w[2 * p][j], w[2 * p + 1][j]) + 0x1p-54;
    }
#else
    gri_philox16((uint64_t)a->seed, (uint64_t)a->counter, (uint64_t)group * GRI_GROUP_LANES, w);
    for (int p = 0; p < 4; p++)
        for (int j = 0; j < GRI_GROUP_LANES; j++) u[p * GRI_GROUP_LANES + j] = ((double)w[p][j] + 0.5) * 0x1p-32;
#endif
}

/* Φ⁻¹(p), 0 < p < 1. */
static inline double trunc_normal_quantile(double p) {
    double q = p - 0.5, size = fabs(q), tail = q < 0 ? p : 1 - p;
    tail = tail < 0x1p-54 && q > 0 ? 0x1p-54 : tail; /* p may have been rounded to 1 */
    double center = gri_quantile_center(q), far = gri_quantile_tail(sqrt(-gri_log_unit(tail)));
    return size <= 0.425 ? center : copysign(far, q);
}

/* The bounds as `real`s within them. */
static inline real trunc_normal_least(double a) {
    real least = (real)a;
    return least < a ? r_nextafter(least, (real)INFINITY) : least;
}
static inline real trunc_normal_most(double b) {
    real most = (real)b;
    return most > b ? r_nextafter(most, -(real)INFINITY) : most;
}

static void trunc_normal_draw(void *out, int64_t first, int64_t groups, const void *attrs) {
    const trunc_normal_plan *plan = attrs;
    real *y = out, a = trunc_normal_least(plan->a.a), b = trunc_normal_most(plan->a.b);
    double mean = plan->a.mean, std = plan->a.std * plan->sign, low = plan->low, span = plan->span;
    for (int64_t g = first; g < first + groups; g++, y += GRI_GROUP) {
        double u[GRI_GROUP];
        trunc_normal_unit(&plan->a.draw, g, u);
#pragma omp simd
        for (int i = 0; i < GRI_GROUP; i++) {
            real v = (real)(mean + std * trunc_normal_quantile(low + span * u[i]));
            v = v < a ? a : v;
            y[i] = v > b ? b : v;
        }
    }
}

static gr_status trunc_normal_forward(gri_call *c) {
    trunc_normal_plan plan;
    gri_call planned = *c;
    trunc_normal_plan_set(&plan, c->attrs);
    planned.attrs = &plan;
    return gri_draw_fill(&planned, trunc_normal_draw);
}
GR_KERNEL(trunc_normal);

static const gr_attr trunc_normal_schema[] = {
    GRI_DRAW_ATTRS(trunc_normal_attrs),
    {"mean", GR_ATTR_REAL, offsetof(trunc_normal_attrs, mean), .value = 0},
    {"std", GR_ATTR_REAL, offsetof(trunc_normal_attrs, std), .value = 1},
    {"a", GR_ATTR_REAL, offsetof(trunc_normal_attrs, a), .value = -2},
    {"b", GR_ATTR_REAL, offsetof(trunc_normal_attrs, b), .value = 2},
    GR_ATTR_END};

/* The first word for key 0, counter 0 is 6627e8d5: u = 0.39904647. */
static const gr_case trunc_normal_cases[] = {
    {.in = "", .attrs = "shape={1}, seed=0, counter=0", .want = "{-0.243936807}", .no_grad = true},
    {.in = "", .attrs = "shape={1}, seed=0, counter=0, dtype='f64'", .want = "{-0.243936802}", .tol = 1e-5,
     .no_grad = true},
    {.in = "", .attrs = "shape={1}, seed=0, counter=0, mean=1, std=0.1, a=1.5, b=3", .want = "{1.51742935}",
     .no_grad = true},
    {.in = "", .attrs = "shape={5,77}, seed=1, counter=2, a=-1/0, b=0.5", .no_grad = true},
    {.in = "", .attrs = "shape={0}, seed=1, counter=2", .no_grad = true},
    {0}};

GR_OP(trunc_normal) = {
    .info = {.name = "trunc_normal", .inputs = "", .attrs = trunc_normal_schema,
             .attr_size = sizeof(trunc_normal_attrs), .cases = trunc_normal_cases,
             .doc = "Normally distributed numbers between a and b, which are values, not multiples of std. seed and\n"
                    "counter name the draw: the same ones give the same numbers."},
    .sets_only = true,
    .shape = trunc_normal_shape,
    .forward = trunc_normal_kernels,
};
