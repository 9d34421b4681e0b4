/* Step functions, constant between their jumps:
 *     floor  the largest whole number not above x       trunc  x without its fraction
 *     ceil   the smallest whole number not below x      round  the nearest whole number, the even one of two
 *     sign   -1, 0 or 1; NaN where x is NaN
 * Zeros keep their sign. Whole-number tensors are their own floor, ceil, trunc and round.
 *
 * dy/dx = 0, also where they jump, whatever dy is: the gradient is one 0, expanded to the shape of x. Nothing is
 * kept. */
#include "iter.h"
#include "vmath.h"

static gr_status steps_shape(gri_call *c) {
    gri_spec_set(&c->spec[0], c->in[0]);
    return GR_OK;
}

static gr_status steps_map(gri_call *c, gri_loop loop) {
    gr_tensor *x = c->in[0], *y = c->out[0];
    if (gri_is_float(x)) return gri_map(c, loop, GRI_REAL, NULL, GRI_EXACT);
    return x->data == y->data ? GR_OK : gri_copy(c->ctx, y, x, c->mode);
}

static gr_status steps_rule(gri_grad *g) {
    gr_tensor *zero;
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    GR_TRY(gri_scalar(g, &zero, 0));
    return gri_emit(g, 0, &gri_op_expand, 1, &zero, &a);
}

#define STEPS_LOOP(name, value)                                         \
    static void name(int64_t n, void *const *p, const void *attrs) {    \
        real *y = p[0];                                                 \
        const real *x = p[1];                                           \
        (void)attrs;                                                    \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = value; \
    }

/* ---- floor ---- */

STEPS_LOOP(floor_loop, r_floor(x[i]))
static gr_status floor_forward(gri_call *c) { return steps_map(c, floor_loop); }
GR_KERNEL(floor);

static const gr_case floor_cases[] = {
    {.in = "7", .give = "{-1.5, -1, -0.25, 0.5, 2.75, 1/0, 16777217}", .want = "{-2, -1, -1, 0, 2, 1/0, 16777217}",
     .tol = 1e-7, .no_grad = true},
    {.in = "i64:3", .give = "{-3, 0, 9007199254740993}", .want = "{-3, 0, 9007199254740993}", .no_grad = true},
    {.in = "3,5", .lo = 0.05, .hi = 0.95},
    {0}};

GR_OP(floor) = {
    .info = {.name = "floor", .inputs = "x", .cases = floor_cases,
             .doc = "The largest whole number not above each element. Its gradient is 0."},
    .elementwise = true,
    .shape = steps_shape,
    .forward = floor_kernels,
    .backward = steps_rule,
};

/* ---- ceil ---- */

STEPS_LOOP(ceil_loop, r_ceil(x[i]))
static gr_status ceil_forward(gri_call *c) { return steps_map(c, ceil_loop); }
GR_KERNEL(ceil);

static const gr_case ceil_cases[] = {
    {.in = "6", .give = "{-1.5, -1, -0.25, 0.5, 2.75, -1/0}", .want = "{-1, -1, 0, 1, 3, -1/0}", .no_grad = true},
    {.in = "u8:2", .give = "{1, 0}", .want = "{1, 0}", .no_grad = true},
    {.in = "3,5", .lo = 0.05, .hi = 0.95},
    {0}};

GR_OP(ceil) = {
    .info = {.name = "ceil", .inputs = "x", .cases = ceil_cases,
             .doc = "The smallest whole number not below each element. Its gradient is 0."},
    .elementwise = true,
    .shape = steps_shape,
    .forward = ceil_kernels,
    .backward = steps_rule,
};

/* ---- trunc ---- */

STEPS_LOOP(trunc_loop, r_trunc(x[i]))
static gr_status trunc_forward(gri_call *c) { return steps_map(c, trunc_loop); }
GR_KERNEL(trunc);

static const gr_case trunc_cases[] = {
    {.in = "6", .give = "{-1.5, -1, -0.25, 0.5, 2.75, 1/0}", .want = "{-1, -1, 0, 0, 2, 1/0}", .no_grad = true},
    {.in = "3,5", .lo = 0.05, .hi = 0.95},
    {0}};

GR_OP(trunc) = {
    .info = {.name = "trunc", .inputs = "x", .cases = trunc_cases,
             .doc = "Each element without its fraction: the next whole number towards 0. Its gradient is 0."},
    .elementwise = true,
    .shape = steps_shape,
    .forward = trunc_kernels,
    .backward = steps_rule,
};

/* ---- round ---- */

STEPS_LOOP(round_loop, r_rint(x[i]))
static gr_status round_forward(gri_call *c) { return steps_map(c, round_loop); }
GR_KERNEL(round);

static const gr_case round_cases[] = {
    {.in = "8", .give = "{-1.5, -2.5, -0.25, 0.5, 1.5, 2.75, 1/0, 8388609}",
     .want = "{-2, -2, 0, 0, 2, 3, 1/0, 8388609}", .tol = 1e-7, .no_grad = true},
    {.in = "3,5", .lo = -0.45, .hi = 0.45},
    {0}};

GR_OP(round) = {
    .info = {.name = "round", .inputs = "x", .cases = round_cases,
             .doc = "The whole number nearest to each element; of two as near, the even one. Its gradient is 0."},
    .elementwise = true,
    .shape = steps_shape,
    .forward = round_kernels,
    .backward = steps_rule,
};

/* ---- sign ---- */

STEPS_LOOP(sign_loop, x[i] > 0 ? 1 : x[i] < 0 ? -1 : x[i])
static gr_status sign_forward(gri_call *c) { return gri_map(c, sign_loop, GRI_REAL, NULL, GRI_EXACT); }
GR_KERNEL(sign);

static const gr_case sign_cases[] = {
    {.in = "6", .give = "{-1.5, 0, 1e-30, -1/0, 1/0, 0/0}", .want = "{-1, 0, 1, -1, 1, 0/0}", .no_grad = true},
    {.in = "i64:3", .give = "{-9007199254740993, 0, 3}", .want = "{-1, 0, 1}", .no_grad = true},
    {.in = "3,5", .has_kink = true},
    {0}};

GR_OP(sign) = {
    .info = {.name = "sign", .inputs = "x", .cases = sign_cases,
             .doc = "-1, 0 or 1 as each element is negative, 0 or positive. Its gradient is 0."},
    .elementwise = true,
    .shape = steps_shape,
    .forward = sign_kernels,
    .backward = steps_rule,
};
