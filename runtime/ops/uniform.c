/* y[i] = lo + (hi - lo) u[i], u uniform in [0, 1): 24 random bits an element in f32, 53 in f64 (random.h).
 *
 * Rounding may lift a value to hi itself; it then becomes the number just below, so that y < hi holds where
 * lo < hi. No inputs, no derivative. The file is compiled without fused multiply-add: the same numbers on
 * every CPU. */
#include "draw.h"
#include "vmath.h"

static gr_status uniform_shape(gri_call *c) {
    const gri_uniform_attrs *a = c->attrs;
    GR_TRY(gri_shape_draw(c, true));
    double lo = a->draw.dtype == GR_F32 ? (float)a->lo : a->lo, hi = a->draw.dtype == GR_F32 ? (float)a->hi : a->hi;
    double most = a->draw.dtype == GR_F32 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
    if (!(lo <= hi && hi - lo <= most))
        return gr_fail(c->ctx, GR_ERR_ARG, "lo = %g, hi = %g: expected lo <= hi, and hi - lo finite in %s", a->lo,
                       a->hi, gr_dtype_name((gr_dtype)a->draw.dtype));
    return GR_OK;
}

#ifdef GRI_F64
static void uniform_unit(const gri_draw_attrs *a, int64_t group, real *u) {
    for (int h = 0; h < 2; h++, u += GRI_GROUP / 2) {
        gri_words w;
        gri_philox16((uint64_t)a->seed, (uint64_t)a->counter, (uint64_t)(2 * group + h) * GRI_GROUP_LANES, w);
        for (int p = 0; p < 2; p++)
            for (int j = 0; j < GRI_GROUP_LANES; j++)
                u[p * GRI_GROUP_LANES + j] = gri_unit_f64(w[2 * p][j], w[2 * p + 1][j]);
    }
}
#else
static void uniform_unit(const gri_draw_attrs *a, int64_t group, real *u) {
    gri_words w;
    gri_philox16((uint64_t)a->seed, (uint64_t)a->counter, (uint64_t)group * GRI_GROUP_LANES, w);
    for (int p = 0; p < 4; p++)
        for (int j = 0; j < GRI_GROUP_LANES; j++) u[p * GRI_GROUP_LANES + j] = gri_unit_f32(w[p][j]);
}
#endif

static void uniform_draw(void *out, int64_t first, int64_t groups, const void *attrs) {
    const gri_uniform_attrs *a = attrs;
    real *y = out, lo = (real)a->lo, hi = (real)a->hi, span = hi - lo, below = r_nextafter(hi, lo);
    for (int64_t g = first; g < first + groups; g++, y += GRI_GROUP) {
        real u[GRI_GROUP];
        uniform_unit(&a->draw, g, u);
        for (int i = 0; i < GRI_GROUP; i++) {
            real v = lo + span * u[i];
            y[i] = v < hi ? v : below;
        }
    }
}

static gr_status uniform_forward(gri_call *c) { return gri_draw_fill(c, uniform_draw); }
GR_KERNEL(uniform);

static const gr_attr uniform_schema[] = {
    GRI_DRAW_ATTRS(gri_uniform_attrs),
    {"lo", GR_ATTR_REAL, offsetof(gri_uniform_attrs, lo), .value = 0},
    {"hi", GR_ATTR_REAL, offsetof(gri_uniform_attrs, hi), .value = 1},
    GR_ATTR_END};

/* The generator's published test vector for key 0, counter 0 begins 6627e8d5: 0x6627e8 / 2^24. */
static const gr_case uniform_cases[] = {
    {.in = "", .attrs = "shape={1}, seed=0, counter=0", .want = "{0.39904642}", .no_grad = true},
    {.in = "", .attrs = "shape={1}, seed=0, counter=0, lo=-1, hi=3", .want = "{0.59618568}", .no_grad = true},
    {.in = "", .attrs = "shape={5,77}, seed=1, counter=2", .no_grad = true},
    {.in = "", .attrs = "shape={0}, seed=1, counter=2", .no_grad = true},
    {0}};

GR_OP(uniform) = {
    .info = {.name = "uniform", .inputs = "", .attrs = uniform_schema, .attr_size = sizeof(gri_uniform_attrs),
             .cases = uniform_cases,
             .doc = "Uniformly distributed numbers, lo <= y < hi. seed and counter name the draw: the same ones give "
                    "the same numbers."},
    .sets_only = true,
    .shape = uniform_shape,
    .forward = uniform_kernels,
};
