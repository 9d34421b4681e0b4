/* y[i] = mean + std z[i], z normally distributed, by Box and Muller (Ann. Math. Stat. 29, 1958):
 *     r = sqrt(-2 ln u),  z = r cos 2πv,  z' = r sin 2πv.
 * f32: one word each for u and v, so |z| <= 6.66. f64: 53 bits of u, 56 of v, |z| <= 8.66. Pairs z, z' lie 16
 * elements apart (random.h).
 *
 * Logarithm (that of f64 in quantile.h), sine and cosine are written out because libmvec's differ between CPUs in the
 * last bit, and the file is compiled without fused multiply-add: the same numbers everywhere. Against the formula the
 * error of z is below 1.2e-6 in f32 and 2e-15 in f64. One thread on Zen 4: 0.58 and 0.28 G/s (avx512).
 *
 * No inputs, no derivative. */
#include <string.h>

#include "draw.h"
#include "quantile.h"
#include "vmath.h"

#define NORMAL_TURN 6.28318530717958647692

static gr_status normal_shape(gri_call *c) {
    const gri_normal_attrs *a = c->attrs;
    GR_TRY(gri_shape_draw(c, true));
    if (!(a->std >= 0) || !isfinite(a->std) || !isfinite(a->mean))
        return gr_fail(c->ctx, GR_ERR_ARG, "mean = %g, std = %g: expected finite values, std not below 0", a->mean,
                       a->std);
    return GR_OK;
}

/* A word is an angle of 2^-32 turns: the nearest quarter turn, and what is left, -2^29 .. 2^29 - 1. */
static inline uint32_t normal_quarter(uint32_t word) { return (word + 0x20000000u) >> 30; }
static inline int32_t normal_rest(uint32_t word) {
    return (int32_t)((word + 0x20000000u) & 0x3fffffffu) - 0x20000000;
}

/* Rotates (cos, sin) of the rest by quarter turns. */
static inline real normal_cos(uint32_t quarter, real cosine, real sine) {
    real v = quarter & 1 ? sine : cosine;
    return (quarter + 1) & 2 ? -v : v;
}
static inline real normal_sin(uint32_t quarter, real cosine, real sine) {
    real v = quarter & 1 ? cosine : sine;
    return quarter & 2 ? -v : v;
}

#ifdef GRI_F64
#define NORMAL_PAIRS 1 /* of results in a block */

static inline double normal_radius(uint32_t w0, uint32_t w1) {
    double u = (double)(int32_t)(w0 >> 5) * 0x1p-27 + ((double)(int32_t)(w1 >> 6) + 0.5) * 0x1p-53;
    return sqrt(-2 * gri_log_unit(u));
}

static inline double normal_angle(uint32_t w2, uint32_t w3) {
    return ((double)normal_rest(w2) + (double)(int32_t)(w3 >> 6) * 0x1p-26) * (NORMAL_TURN * 0x1p-32);
}

/* Polynomials on [-π/4, π/4] (msun, k_sin.c and k_cos.c). */
static inline double normal_sine(double x) {
    double z = x * x;
    double r = 8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * (2.75573137070700676789e-06 +
               z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)));
    return x + x * z * (-1.66666666666666324348e-01 + z * r);
}
static inline double normal_cosine(double x) {
    double z = x * x;
    double r = 4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * (2.48015872894767294178e-05 +
               z * (-2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))));
    return 1 - (0.5 * z - z * z * r);
}
#else
#define NORMAL_PAIRS 2

/* u = 2^-32 (word | 1) = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2), and a polynomial in f for the logarithm
 * (coefficients of Cephes, logf.c). Near 1, where 24 bits of u would leave few of f, f comes from the word. */
static inline float normal_radius(uint32_t word) {
    float u = (float)(int32_t)(word >> 1) * 0x1p-31f + 0x1p-32f, f;
    uint32_t bits;
    memcpy(&bits, &u, sizeof bits);
    int32_t above = (int32_t)(bits - 0x3f3504f3u);
    float k = (float)(above >> 23);
    bits = ((uint32_t)above & 0x7fffffu) + 0x3f3504f3u;
    memcpy(&f, &bits, sizeof f);
    f = k == 0 ? (float)(int32_t)(word | 1) * 0x1p-32f : f - 1; /* the cast takes 2^32 off */
    float z = f * f, p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    return sqrtf(-2 * (f + (p * f * z - 2.12194440e-4f * k - 0.5f * z) + 0.693359375f * k));
}

static inline float normal_angle(uint32_t word) {
    return (float)normal_rest(word) * (float)(NORMAL_TURN * 0x1p-32);
}

/* Polynomials on [-π/4, π/4] (Cephes, sinf.c). */
static inline float normal_sine(float x) {
    float z = x * x;
    return x + x * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f));
}
static inline float normal_cosine(float x) {
    float z = x * x;
    float r = 4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f);
    return 1 - (0.5f * z - z * z * r);
}
#endif

/* 16 pairs from 16 blocks: z[0..15] and z[16..31]. */
static inline void normal_pairs(const uint32_t (*w)[GRI_GROUP_LANES], real mean, real std, real *z) {
    for (int j = 0; j < GRI_GROUP_LANES; j++) {
#ifdef GRI_F64
        uint32_t quarter = normal_quarter(w[2][j]);
        real r = normal_radius(w[0][j], w[1][j]), angle = normal_angle(w[2][j], w[3][j]);
#else
        uint32_t quarter = normal_quarter(w[1][j]);
        real r = normal_radius(w[0][j]), angle = normal_angle(w[1][j]);
#endif
        real cosine = normal_cosine(angle), sine = normal_sine(angle);
        z[j] = mean + std * (r * normal_cos(quarter, cosine, sine));
        z[j + GRI_GROUP_LANES] = mean + std * (r * normal_sin(quarter, cosine, sine));
    }
}

static void normal_draw(void *out, int64_t first, int64_t groups, const void *attrs) {
    const gri_normal_attrs *a = attrs;
    real *z = out, mean = (real)a->mean, std = (real)a->std;
    int64_t blocks = 2 / NORMAL_PAIRS; /* of 16 lanes in a group */
    for (int64_t b = first * blocks; b < (first + groups) * blocks; b++) {
        gri_words w;
        gri_philox16((uint64_t)a->draw.seed, (uint64_t)a->draw.counter, (uint64_t)b * GRI_GROUP_LANES, w);
        for (int p = 0; p < NORMAL_PAIRS; p++, z += 2 * GRI_GROUP_LANES) normal_pairs(w + 2 * p, mean, std, z);
    }
}

static gr_status normal_forward(gri_call *c) { return gri_draw_fill(c, normal_draw); }
GR_KERNEL(normal);

static const gr_attr normal_schema[] = {
    GRI_DRAW_ATTRS(gri_normal_attrs),
    {"mean", GR_ATTR_REAL, offsetof(gri_normal_attrs, mean), .value = 0},
    {"std", GR_ATTR_REAL, offsetof(gri_normal_attrs, std), .value = 1},
    GR_ATTR_END};

static const gr_case normal_cases[] = {
    {.in = "", .attrs = "shape={1}, mean=2.5, std=0, seed=1, counter=2", .want = "{2.5}", .no_grad = true},
    {.in = "", .attrs = "shape={5,77}, seed=1, counter=2", .no_grad = true},
    {.in = "", .attrs = "shape={0}, seed=1, counter=2", .no_grad = true},
    {0}};

GR_OP(normal) = {
    .info = {.name = "normal", .inputs = "", .attrs = normal_schema, .attr_size = sizeof(gri_normal_attrs),
             .cases = normal_cases,
             .doc = "Normally distributed numbers. seed and counter name the draw: the same ones give the same "
                    "numbers."},
    .sets_only = true,
    .shape = normal_shape,
    .forward = normal_kernels,
};
