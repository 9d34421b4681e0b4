/* y = x Φ(x), Φ the distribution function of the normal distribution (Hendrycks and Gimpel, arXiv 1606.08415, 2016);
 * approximate = "tanh": y = x (1 + tanh u) / 2, u = √(2/π) (x + 0.044715 x³), which is x σ(2u).
 *
 * dy/dx = Φ + x φ, φ = e^(-x²/2) / √(2π); or σ + x σ (1 - σ) 2u'. The input is kept. gelu_backward(dy, x) is an op of
 * its own, whose derivatives run through its `compose`.
 *
 * Neither form takes 1 + erf or 1 + tanh, which lose all digits to the left of -5. In f32, Φ(-t) = e^(-t²/2) m(t),
 * where m, Mills' ratio over √(2π), is a quotient of polynomials (fitted on 0 .. 14.5: relative error 7e-8), so that
 * one exponential in line serves Φ and φ. Relative error: 3e-7 for x > -1, 9e-7 for x > -5, 4e-6 at -12. Zen 4, one
 * thread, avx512, ns an element, forward and backward: 0.50 and 0.57, where libmvec's erf and exp take 0.69 and 1.03;
 * with tanh 0.39 and 0.49. NaN at -inf, as 0 times -inf is. */
#include "iter.h"
#include "vmath.h"

typedef struct gelu_attrs { int64_t approximate; } gelu_attrs;
enum { GELU_NONE, GELU_TANH };

#define GELU_ROOT 0.70710678118654752440       /* √(1/2) */
#define GELU_DENSITY 0.39894228040143267794    /* 1 / √(2π) */
#define GELU_TWO_U 1.59576912160573071176      /* 2 √(2/π) */
#define GELU_CUBE 0.044715

/* Φ(x); *bell = e^(-x²/2). */
static inline real gelu_phi(real x, real *bell) {
#ifdef GRI_F64
    *bell = exp(x * x * -0.5);
    return 0.5 * erfc(x * -GELU_ROOT);
#else
    float t = fabsf(x), e = r_exp_falling(-0.5f * t * t);
    t = t > 16 ? 16 : t; /* where e is 0: powers of t stay finite */
    float a = 4.085619203904293e-3f, b = 1.0241006098607354e-2f;
    a = a * t + 4.044193085754287e-2f;
    b = b * t + 0.10137946580670633f;
    a = a * t + 0.182690491755643f;
    b = b * t + 0.4680258883735387f;
    a = a * t + 0.43759544436462494f;
    b = b * t + 1.2002983570496337f;
    a = a * t + 0.5f;
    b = b * t + 1.673075733744447f;
    float tail = e * a / (b * t + 1);
    *bell = e;
    return x < 0 ? tail : 1 - tail;
#endif
}

static void gelu_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0], bell;
    const real *x = p[1];
    (void)attrs;
#pragma omp simd private(bell)
    for (int64_t i = 0; i < GRI_RUN(n); i++) y[i] = x[i] * gelu_phi(x[i], &bell);
}

/* 2u = x (A + B x²) */
static inline real gelu_two_u(real x) {
    return x * ((real)GELU_TWO_U + (real)(GELU_TWO_U * GELU_CUBE) * (x * x));
}

static void gelu_tanh_loop(int64_t n, void *const *p, const void *attrs) {
    real *y = p[0];
    const real *x = p[1];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real z = r_exp_falling(-r_abs(gelu_two_u(x[i])));
        y[i] = x[i] * (x[i] < 0 ? z : 1) / (1 + z);
    }
}

static gr_status gelu_forward(gri_call *c) {
    bool tanh_form = ((const gelu_attrs *)c->attrs)->approximate == GELU_TANH;
    return gri_map(c, tanh_form ? gelu_tanh_loop : gelu_loop, GRI_REAL, NULL, GRI_COST_MATH);
}
GR_KERNEL(gelu);

static gr_status gelu_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_gelu_backward, 2, GRI_TENSORS(g->dy[0], g->in[0]), g->attrs);
}

static const gr_attr gelu_schema[] = {
    {"approximate", GR_ATTR_WORD, offsetof(gelu_attrs, approximate), .words = "none tanh"}, GR_ATTR_END};

static const gr_case gelu_cases[] = {
    {.in = "5", .give = "{-1, 0, 2, -3, 1/0}", .want = "{-0.158655254, 0, 1.95449974, -0.00404969409, 1/0}",
     .no_grad = true},
    {.in = "5", .attrs = "approximate='tanh'", .give = "{-1, 0, 2, -3, 1/0}",
     .want = "{-0.158808009, 0, 1.95459769, -0.00363739208, 1/0}", .no_grad = true},
    {.in = "4", .give = "{-100, -1e10, 1e30, 20}", .want = "{0, 0, 1e30, 20}", .no_grad = true},
    {.in = "4", .attrs = "approximate='tanh'", .give = "{-100, -1e10, 1e30, 20}", .want = "{0, 0, 1e30, 20}",
     .no_grad = true},
    {.in = "3,5", .lo = -4, .hi = 4},
    {.in = "3,5", .attrs = "approximate='tanh'", .lo = -4, .hi = 4},
    {0}};

GR_OP(gelu) = {
    .info = {.name = "gelu", .inputs = "x", .attrs = gelu_schema, .attr_size = sizeof(gelu_attrs),
             .cases = gelu_cases,
             .doc = "x times the share of the normal distribution below x: between 0 and x.\n"
                    "approximate = \"tanh\": by a formula with tanh, as some models were trained with it."},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0),
    .shape = gri_shape_same,
    .forward = gelu_kernels,
    .backward = gelu_rule,
};

/* ---- its derivative as an op ---- */

static void gelu_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0], bell;
    const real *dy = p[1], *x = p[2];
    (void)attrs;
#pragma omp simd private(bell)
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real phi = gelu_phi(x[i], &bell);
        dx[i] = dy[i] * (phi + x[i] * ((real)GELU_DENSITY * bell));
    }
}

static void gelu_tanh_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0];
    const real *dy = p[1], *x = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < GRI_RUN(n); i++) {
        real z = r_exp_falling(-r_abs(gelu_two_u(x[i]))), r = 1 / (1 + z), s = x[i] < 0 ? z * r : r;
        real slope = (real)GELU_TWO_U + (real)(3 * GELU_TWO_U * GELU_CUBE) * (x[i] * x[i]);
        dx[i] = dy[i] * (s + z * r * r * x[i] * slope);
    }
}

static gr_status gelu_backward_forward(gri_call *c) {
    bool tanh_form = ((const gelu_attrs *)c->attrs)->approximate == GELU_TANH;
    return gri_map(c, tanh_form ? gelu_tanh_backward_loop : gelu_backward_loop, GRI_REAL, NULL, GRI_COST_MATH);
}
GR_KERNEL(gelu_backward);

#define GELU_STEPS 16

/* *out = t (+ or *) number, by the op. */
static gr_status gelu_with(gr_tensor **out, const gr_op *op, gr_tensor *t, double number) {
    gr_ctx *ctx = t->head.ctx;
    gr_tensor *v;
    GR_TRY(gr_tensor_scalar(ctx, (gr_dtype)t->dtype, number, &v));
    gr_status s = gr_apply(ctx, op, 2, GRI_TENSORS(t, v), NULL, out);
    gr_release(v);
    return s;
}

/* The last of t = Φ + x φ in simple ops; the caller releases all of t. */
static gr_status gelu_slope(gr_ctx *ctx, gr_tensor *x, gr_tensor **t) {
    GR_TRY(gelu_with(&t[0], &gri_op_mul, x, GELU_ROOT));
    GR_TRY(GRI_APPLY(ctx, &t[1], erf, t[0]));
    GR_TRY(gelu_with(&t[2], &gri_op_add, t[1], 1));
    GR_TRY(gelu_with(&t[3], &gri_op_mul, t[2], 0.5));
    GR_TRY(GRI_APPLY(ctx, &t[4], mul, x, x));
    GR_TRY(gelu_with(&t[5], &gri_op_mul, t[4], -0.5));
    GR_TRY(GRI_APPLY(ctx, &t[6], exp, t[5]));
    GR_TRY(GRI_APPLY(ctx, &t[7], mul, x, t[6]));
    GR_TRY(gelu_with(&t[8], &gri_op_mul, t[7], GELU_DENSITY));
    return GRI_APPLY(ctx, &t[GELU_STEPS - 1], add, t[3], t[8]);
}

/* The last of t = σ + σ (1 - σ) x 2u'. Made of q = σ(-|2u|), since 1 - σ loses its digits to the right: σ is q or
 * 1 - q, and q (1 - q) times something is sigmoid_backward. No abs, whose own derivative is 0 at 0. */
static gr_status gelu_tanh_slope(gr_ctx *ctx, gr_tensor *x, gr_tensor **t) {
    GR_TRY(GRI_APPLY(ctx, &t[0], mul, x, x));
    GR_TRY(gelu_with(&t[1], &gri_op_mul, t[0], GELU_TWO_U * GELU_CUBE));
    GR_TRY(gelu_with(&t[2], &gri_op_add, t[1], GELU_TWO_U));
    GR_TRY(GRI_APPLY(ctx, &t[3], mul, x, t[2]));
    GR_TRY(GRI_APPLY(ctx, &t[4], neg, t[3]));
    GR_TRY(gelu_with(&t[5], &gri_op_lt, x, 0));
    GR_TRY(GRI_APPLY(ctx, &t[6], where, t[5], t[3], t[4]));
    GR_TRY(GRI_APPLY(ctx, &t[7], sigmoid, t[6]));
    GR_TRY(GRI_APPLY(ctx, &t[8], neg, t[7]));
    GR_TRY(gelu_with(&t[9], &gri_op_add, t[8], 1));
    GR_TRY(GRI_APPLY(ctx, &t[10], where, t[5], t[7], t[9]));
    GR_TRY(gelu_with(&t[11], &gri_op_mul, t[0], 3 * GELU_TWO_U * GELU_CUBE));
    GR_TRY(gelu_with(&t[12], &gri_op_add, t[11], GELU_TWO_U));
    GR_TRY(GRI_APPLY(ctx, &t[13], mul, x, t[12]));
    GR_TRY(GRI_APPLY(ctx, &t[14], sigmoid_backward, t[13], t[7]));
    return GRI_APPLY(ctx, &t[GELU_STEPS - 1], add, t[10], t[14]);
}

static gr_status gelu_backward_compose(gri_call *c) {
    bool tanh_form = ((const gelu_attrs *)c->attrs)->approximate == GELU_TANH;
    gr_tensor *t[GELU_STEPS] = {0};
    gr_status s = tanh_form ? gelu_tanh_slope(c->ctx, c->in[1], t) : gelu_slope(c->ctx, c->in[1], t);
    if (s == GR_OK) s = GRI_APPLY(c->ctx, &c->out[0], mul, c->in[0], t[GELU_STEPS - 1]);
    for (int i = 0; i < GELU_STEPS; i++) gr_release(t[i]);
    return s;
}

static const gr_case gelu_backward_cases[] = {
    {.in = "3 3", .give = "{2, -1, 3}, {1, 0, -2}", .want = "{2.16663094, -0.5, -0.255695403}"},
    {.in = "3 3", .attrs = "approximate='tanh'", .give = "{2, -1, 3}, {1, 0, -2}",
     .want = "{2.16592817, -0.5, -0.258297770}"},
    {.in = "3,5 3,5", .lo = -4, .hi = 4},
    {.in = "3,5 3,5", .attrs = "approximate='tanh'", .lo = -4, .hi = 4},
    {0}};

GR_OP(gelu_backward) = {
    .info = {.name = "gelu_backward", .inputs = "dy x", .attrs = gelu_schema, .attr_size = sizeof(gelu_attrs),
             .hidden = true, .cases = gelu_backward_cases, .doc = "dy times the derivative of gelu at x"},
    .elementwise = true,
    .shape = gri_shape_broadcast,
    .forward = gelu_backward_kernels,
    .compose = gelu_backward_compose,
};
