/* fmod:      y = a - b trunc(a / b), with the sign of a, as C's fmod
 * remainder: y = a - b floor(a / b), with the sign of b, as Lua's %; broadcasting
 *
 * fmod is exact in both: remainder rounds once, where it adds b. NaN where b is 0 or a infinite. Whole numbers are
 * divided as whole numbers, at full range; by 0 they are refused.
 *
 * dy/da = 1, dy/db = -trunc(a / b) or -floor(a / b) of the exact quotient: both inputs are kept.
 *
 * How: q = trunc(a / b), rounded, is the whole quotient or, where it rounded up to a whole number, one more. a - q b
 * has no more digits than b, so a fused multiply-add gives it exactly, and one addition of b mends the second case.
 * Blocks with NaN or |q| >= 2^22 (2^51 in f64) anywhere, and processors without that instruction, call C's function:
 * it is exact too, so the way taken cannot be seen. 0.35 ns an element (avx512, |q| of some 1) instead of 15. */
#include "iter.h"
#include "vmath.h"

#ifdef GRI_F64
#define FMOD_LIMIT 0x1p51
#else
#define FMOD_LIMIT 0x1p22f
#endif
#define FMOD_BLOCK 256
#ifdef __FMA__
#define FMOD_FUSED true
#else
#define FMOD_FUSED false
#endif

/* m, or m + b where m is not 0 and differs in sign from s. */
static inline __attribute__((always_inline)) real fmod_mend(real m, real s, real b) {
    real signs = m == 0 ? 0 : r_copysign(1, m) * r_copysign(1, s), moved = m + b; /* no branch: vectors have none */
    return signs < 0 ? moved : m;
}

/* Is every quotient below the limit? By a sum, because it stays in the vector unit. */
static inline bool fmod_near(int64_t n, const real *a, const real *b) {
    real far = 0;
#pragma omp simd reduction(+ : far)
    for (int64_t i = 0; i < n; i++) far += r_abs(a[i] / b[i]) < FMOD_LIMIT ? (real)0 : (real)1;
    return far == 0;
}

static inline __attribute__((always_inline)) void fmod_run(int64_t n, void *const *p, bool floored) {
    for (int64_t at = 0; at < n; at += FMOD_BLOCK) {
        int64_t size = n - at < FMOD_BLOCK ? n - at : FMOD_BLOCK;
        real *y = (real *)p[0] + at;
        const real *a = (const real *)p[1] + at, *b = (const real *)p[2] + at;
        if (!FMOD_FUSED || !fmod_near(size, a, b)) {
            for (int64_t i = 0; i < size; i++) {
                real m = r_fmod(a[i], b[i]);
                y[i] = floored ? fmod_mend(m, b[i], b[i]) : m;
            }
            continue;
        }
#pragma omp simd
        for (int64_t i = 0; i < size; i++) {
            real q = r_trunc(a[i] / b[i]), m = r_fma(-q, b[i], a[i]);
            m = fmod_mend(m, a[i], r_copysign(b[i], a[i]));
            m = q == 0 ? a[i] : r_copysign(m, a[i]); /* b may be infinite */
            y[i] = floored ? fmod_mend(m, b[i], b[i]) : m;
        }
    }
}

static void fmod_loop(int64_t n, void *const *p, const void *attrs) {
    (void)attrs;
    fmod_run(n, p, false);
}
static void remainder_loop(int64_t n, void *const *p, const void *attrs) {
    (void)attrs;
    fmod_run(n, p, true);
}

/* ---- whole numbers ---- */

static void fmod_whole_loop(int64_t n, void *const *p, const void *attrs) {
    int64_t *y = p[0];
    const int64_t *a = p[1], *b = p[2];
    (void)attrs;
    for (int64_t i = 0; i < n; i++) y[i] = b[i] == -1 ? 0 : a[i] % b[i]; /* the least number by -1 overflows */
}
static void remainder_whole_loop(int64_t n, void *const *p, const void *attrs) {
    int64_t *y = p[0];
    const int64_t *a = p[1], *b = p[2];
    (void)attrs;
    for (int64_t i = 0; i < n; i++) {
        int64_t m = b[i] == -1 ? 0 : a[i] % b[i];
        y[i] = m != 0 && (m < 0) != (b[i] < 0) ? m + b[i] : m;
    }
}

static gr_status fmod_refuse_zero(gr_ctx *ctx, gr_tensor *b) {
    gr_tensor *dense;
    GR_TRY(gri_tensor_dense(b, &dense));
    const uint8_t *small = (const uint8_t *)dense->data;
    const int64_t *large = (const int64_t *)(const void *)dense->data;
    gr_status s = GR_OK;
    for (int64_t i = 0; i < dense->numel && s == GR_OK; i++)
        if ((dense->dtype == GR_U8 ? small[i] : large[i]) == 0)
            s = gr_fail(ctx, GR_ERR_ARG, "element %lld of b, %s, is 0: whole numbers have no remainder by it",
                        (long long)i + 1, gri_tensor_text(b));
    gr_release(dense);
    return s;
}

static gr_status fmod_map(gri_call *c, gri_loop loop, gri_loop whole) {
    static const gr_dtype types[] = {GR_I64, GR_I64, GR_I64};
    if (gri_is_float(c->out[0]) || gri_is_float(c->in[0]) || gri_is_float(c->in[1]))
        return gri_map(c, loop, GRI_REAL, NULL, GRI_COST_MATH | GRI_ANY_N);
    if (c->out[0]->numel) GR_TRY(fmod_refuse_zero(c->ctx, c->in[1]));
    return gri_map(c, whole, GR_I64, types, GRI_COST_MATH | GRI_ANY_N);
}

/* b's gradient += -dy q, where a = q b + y. The whole q is (a - fmod(a, b)) / b, rounded, and one less where
 * remainder added b; trunc(a / b) would not do, since the division may round up: 1 / 0.1 is 10, but
 * 1 = 9 * 0.1 + fmod(1, 0.1). By 0, where y is NaN, q is a / 0. */
static gr_status fmod_backward_divisor(gri_grad *g, bool floored) {
    gr_tensor *a = g->in[0], *b = g->in[1], *zero, *none, *m, *q, *y;
    if (!gri_needs(g, 1)) return GR_OK;
    GR_TRY(gri_scalar(g, &zero, 0));
    GR_TRY(GRI_EVAL(g, &none, eq, b, zero));
    GR_TRY(GRI_EVAL(g, &m, fmod, a, b));
    GR_TRY(GRI_EVAL(g, &m, where, none, zero, m));
    GR_TRY(GRI_EVAL(g, &q, sub, a, m));
    GR_TRY(GRI_EVAL(g, &q, div, q, b));
    GR_TRY(GRI_EVAL(g, &q, round, q));
    if (floored) {
        GR_TRY(GRI_EVAL(g, &y, remainder, a, b));
        GR_TRY(GRI_EVAL(g, &m, ne, y, m));
        GR_TRY(GRI_EVAL(g, &q, sub, q, m));
    }
    GR_TRY(GRI_EVAL(g, &q, mul, g->dy[0], q));
    return GRI_EMIT(g, 1, neg, q);
}

/* ---- fmod ---- */

static gr_status fmod_forward(gri_call *c) { return fmod_map(c, fmod_loop, fmod_whole_loop); }
GR_KERNEL(fmod);

static gr_status fmod_rule(gri_grad *g) {
    GR_TRY(gri_emit_same(g, 0, g->dy[0]));
    return fmod_backward_divisor(g, false);
}

static const gr_case fmod_cases[] = {
    {.in = "6 6", .give = "{7, -7, 7, -7, 0.75, 9}, {3, 3, -3, -3, 2, 1.25}", .want = "{1, -1, 1, -1, 0.75, 0.25}"},
    {.in = "5 5", .give = "{1, 1/0, 5, -5, -0x1p100}, {0, 2, 1/0, -1/0, 3}", .want = "{0/0, 0/0, 5, -5, -1}",
     .no_grad = true},
    {.in = "i64:4 i64:4", .give = "{7, -7, -9223372036854775807, 9007199254740993}, {3, 3, -1, 2}",
     .want = "{1, -1, 0, 1}", .no_grad = true},
    {.in = "2,3,4 4", .lo = 2.1, .hi = 3.9},
    {.in = "4 ()", .lo = -3.9, .hi = -2.1},
    {0}};

GR_OP(fmod) = {
    .info = {.name = "fmod", .inputs = "a b", .cases = fmod_cases,
             .doc = "The remainder of a / b with the sign of a, element by element, broadcasting."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = fmod_kernels,
    .backward = fmod_rule,
};

/* ---- remainder ---- */

static gr_status remainder_forward(gri_call *c) { return fmod_map(c, remainder_loop, remainder_whole_loop); }
GR_KERNEL(remainder);

static gr_status remainder_rule(gri_grad *g) {
    GR_TRY(gri_emit_same(g, 0, g->dy[0]));
    return fmod_backward_divisor(g, true);
}

static const gr_case remainder_cases[] = {
    {.in = "6 6", .give = "{7, -7, 7, -7, -0.75, 9}, {3, 3, -3, -3, 2, 1.25}", .want = "{1, 2, -2, -1, 1.25, 0.25}"},
    {.in = "4 4", .give = "{1, 1/0, 5, -5}, {0, 2, 1/0, 1/0}", .want = "{0/0, 0/0, 5, 1/0}", .no_grad = true},
    {.in = "i64:4 i64:4", .give = "{7, -7, -9223372036854775807, -9007199254740993}, {3, 3, -1, 4}",
     .want = "{1, 2, 0, 3}", .no_grad = true},
    {.in = "u8:2 u8:()", .give = "{7, 200}, 16", .want = "{7, 8}", .no_grad = true},
    {.in = "2,3,4 4", .lo = 2.1, .hi = 3.9},
    {.in = "4 ()", .lo = -3.9, .hi = -2.1},
    {0}};

GR_OP(remainder) = {
    .info = {.name = "remainder", .inputs = "a b", .cases = remainder_cases,
             .doc = "The remainder of a / b with the sign of b, as Lua's %, element by element, broadcasting. Also\n"
                    "written a % b."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = gri_shape_broadcast,
    .forward = remainder_kernels,
    .backward = remainder_rule,
};
