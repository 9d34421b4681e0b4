/* Proof by differences: compares what an op's backward says with what its values do. For cmocka specs. */
#ifndef GR_CHECK_H
#define GR_CHECK_H

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "op.h"

#define CHECK_MAX 16 /* inputs of an op under test */

static inline void check_ok(gr_ctx *ctx, gr_status s) {
    if (s != GR_OK) fail_msg("%s: %s", gr_status_str(s), gr_errmsg(ctx));
}

static inline gr_ctx *check_ctx(int threads, const char *isa) {
    gr_config cfg;
    gr_ctx *ctx = NULL;
    gr_config_init(&cfg);
    cfg.threads = threads;
    cfg.isa = isa;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    return ctx;
}

/* Fails if an object is left. */
static inline void check_ctx_free(gr_ctx *ctx) { assert_int_equal(gr_ctx_free(ctx), 0); }

static inline double check_get(const gr_tensor *t, int64_t flat) {
    int64_t at[GR_MAX_RANK];
    double v = NAN;
    for (int d = t->rank - 1; d >= 0; d--) {
        at[d] = flat % t->dims[d];
        flat /= t->dims[d];
    }
    check_ok(t->head.ctx, gr_tensor_get(t, at, &v));
    return v;
}

static inline void check_put(gr_tensor *t, int64_t flat, double v) {
    int64_t at[GR_MAX_RANK];
    for (int d = t->rank - 1; d >= 0; d--) {
        at[d] = flat % t->dims[d];
        flat /= t->dims[d];
    }
    check_ok(t->head.ctx, gr_tensor_set(t, at, v));
}

/* A number in [0, 1) from a counter: the same in every run. */
static inline double check_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-53;
}

/* A row-major tensor of numbers in [lo, hi). dims ends with -1. */
static inline gr_tensor *check_tensor(gr_ctx *ctx, gr_dtype dtype, const int64_t *dims, double lo, double hi,
                                      uint64_t *state) {
    int rank = 0;
    gr_tensor *t = NULL;
    while (dims[rank] >= 0) rank++;
    check_ok(ctx, gr_tensor_new(ctx, dtype, rank, dims, &t));
    for (int64_t i = 0; i < t->numel; i++) check_put(t, i, lo + (hi - lo) * check_random(state));
    return t;
}
#define CHECK_DIMS(...) ((const int64_t[]){__VA_ARGS__, -1})

/* A tensor of given values. */
static inline gr_tensor *check_values(gr_ctx *ctx, gr_dtype dtype, const int64_t *dims, const double *values) {
    uint64_t none = 0;
    gr_tensor *t = check_tensor(ctx, dtype, dims, 0, 0, &none);
    for (int64_t i = 0; i < t->numel; i++) check_put(t, i, values[i]);
    return t;
}

/* |got - want| <= tol max(1, |want|), element by element; NaN equals NaN. */
static inline void check_close(const gr_tensor *got, int64_t n, const double *want, double tol) {
    assert_int_equal(got->numel, n);
    for (int64_t i = 0; i < n; i++) {
        double g = check_get(got, i), w = want[i], room = tol * fmax(1, fabs(w));
        bool same = g == w || (g != g && w != w) || fabs(g - w) <= room;
        if (!same) fail_msg("element %lld is %.17g, expected %.17g", (long long)i, g, w);
    }
}

static inline void check_same_bits(const gr_tensor *a, const gr_tensor *b) {
    assert_int_equal(a->numel, b->numel);
    assert_true(a->contiguous && b->contiguous && a->dtype == b->dtype);
    assert_memory_equal(a->data, b->data, (size_t)a->numel * gr_dtype_size((gr_dtype)a->dtype));
}

/* ---- gradients by differences --------------------------------------------------------------------------- */

/* An op under test and the function of its inputs that is differentiated: L = Σ_k Σ w_k out_k over the floating
 * outputs, with fixed weights w_k. */
typedef struct check_case {
    gr_ctx *ctx;
    const gr_op *op;
    const void *attrs;
    int n_in;
    gr_tensor *in[CHECK_MAX];
    gr_tensor *weights[GRI_MAX_OUT], *mixing[CHECK_MAX];
    unsigned which; /* inputs that are differentiated */
    double step, tol;
} check_case;

/* Random weights of t's shape; *w is made at the first call. */
static inline gr_tensor *check_weights(gr_tensor **w, const gr_tensor *t, uint64_t seed) {
    if (*w) return *w;
    check_ok(t->head.ctx, gr_tensor_new(t->head.ctx, (gr_dtype)t->dtype, t->rank, t->dims, w));
    for (int64_t i = 0; i < t->numel; i++) check_put(*w, i, 0.5 + check_random(&seed));
    return *w;
}

/* *sum += Σ w t, recorded. */
static inline void check_weigh(gr_ctx *ctx, gr_tensor **sum, gr_tensor *t, gr_tensor *w) {
    gr_tensor *product = NULL, *part = NULL, *both = NULL;
    check_ok(ctx, gr_apply(ctx, gr_op_find("mul"), 2, GRI_TENSORS(t, w), NULL, &product));
    check_ok(ctx, gr_apply(ctx, gr_op_find("sum"), 1, &product, NULL, &part));
    gr_release(product);
    if (*sum) {
        check_ok(ctx, gr_apply(ctx, gr_op_find("add"), 2, GRI_TENSORS(*sum, part), NULL, &both));
        gr_release(part);
        gr_release(*sum);
        part = both;
    }
    *sum = part;
}

/* L, recorded. */
static inline gr_tensor *check_value(check_case *k) {
    gr_tensor *out[GRI_MAX_OUT] = {0}, *sum = NULL;
    check_ok(k->ctx, gr_apply(k->ctx, k->op, k->n_in, k->in, k->attrs, out));
    for (int i = 0; i < gr_op_outputs(k->op); i++) {
        if (gri_is_float(out[i]))
            check_weigh(k->ctx, &sum, out[i], check_weights(&k->weights[i], out[i], 77u + (unsigned)i));
        gr_release(out[i]);
    }
    return sum;
}

/* dL/d in[i] into grad[i], NULL where L does not depend on it. */
static inline void check_gradient(check_case *k, bool create, gr_tensor **grad) {
    gr_tensor *inputs[CHECK_MAX], *found[CHECK_MAX] = {0}, *value = check_value(k);
    gr_backward_options opt = {.create_graph = create, .allow_unused = true};
    int n = 0, at = 0;
    for (int i = 0; i < k->n_in; i++)
        if (k->which >> i & 1) inputs[n++] = k->in[i];
    check_ok(k->ctx, gr_grad(1, &value, NULL, n, inputs, &opt, found));
    for (int i = 0; i < k->n_in; i++) grad[i] = k->which >> i & 1 ? found[at++] : NULL;
    gr_release(value);
}

/* M = Σ_i Σ v_i dL/d in[i], recorded if create. NULL: no gradient depends on anything. */
static inline gr_tensor *check_second_value(check_case *k, bool create) {
    gr_tensor *grad[CHECK_MAX], *sum = NULL;
    check_gradient(k, create, grad);
    for (int i = 0; i < k->n_in; i++) {
        if (grad[i]) check_weigh(k->ctx, &sum, grad[i], check_weights(&k->mixing[i], grad[i], 990u + (unsigned)i));
        gr_release(grad[i]);
    }
    return sum;
}

static inline double check_scalar(gr_tensor *t) {
    double v = 0;
    if (t) check_ok(t->head.ctx, gr_tensor_item(t, &v));
    gr_release(t);
    return v;
}

/* Compares grad[i] with the central differences of value(k, order). */
static inline void check_differences(check_case *k, gr_tensor **grad, int order) {
    for (int i = 0; i < k->n_in; i++) {
        if (!(k->which >> i & 1)) continue;
        for (int64_t e = 0; e < k->in[i]->numel; e++) {
            double x = check_get(k->in[i], e), at[2], got = grad[i] ? check_get(grad[i], e) : 0;
            for (int side = 0; side < 2; side++) {
                bool was = gr_set_grad_enabled(k->ctx, false);
                check_put(k->in[i], e, side ? x - k->step : x + k->step);
                gr_set_grad_enabled(k->ctx, was);
                at[side] = check_scalar(order == 1 ? check_value(k) : check_second_value(k, false));
            }
            bool was = gr_set_grad_enabled(k->ctx, false);
            check_put(k->in[i], e, x);
            gr_set_grad_enabled(k->ctx, was);
            double want = (at[0] - at[1]) / (2 * k->step);
            if (!(fabs(got - want) <= k->tol * fmax(1, fabs(want))))
                fail_msg("%s: derivative %d of input %d, element %lld, is %.12g; differences give %.12g",
                         k->op->info.name, order, i + 1, (long long)e, got, want);
        }
    }
}

/* First and second derivatives of an op in f64 against central differences, with respect to the floating inputs
 * in `which` (a bit mask). The recorded and the fast way must give the same gradient. */
static inline void check_gradients(gr_ctx *ctx, const char *op, int n_in, gr_tensor *const *in, const void *attrs,
                                   unsigned which) {
    check_case k = {.ctx = ctx, .op = gr_op_find(op), .attrs = attrs, .n_in = n_in, .step = 1e-5, .tol = 2e-6};
    gr_tensor *fast[CHECK_MAX], *recorded[CHECK_MAX], *second[CHECK_MAX] = {0};
    assert_non_null(k.op);
    for (int i = 0; i < n_in; i++) {
        k.in[i] = in[i];
        if (!in[i] || !gri_is_float(in[i]) || !(which >> i & 1)) continue;
        k.which |= 1u << i;
        check_ok(ctx, gr_tensor_set_requires_grad(in[i], true));
    }
    check_gradient(&k, false, fast);
    check_gradient(&k, true, recorded);
    for (int i = 0; i < n_in; i++) {
        assert_int_equal(fast[i] == NULL, recorded[i] == NULL);
        for (int64_t e = 0; fast[i] && e < fast[i]->numel; e++) {
            double f = check_get(fast[i], e), r = check_get(recorded[i], e);
            assert_true(fabs(f - r) <= 1e-12 * fmax(1, fabs(f)));
        }
        gr_release(recorded[i]);
    }
    check_differences(&k, fast, 1);
    gr_tensor *value = check_second_value(&k, true), *inputs[CHECK_MAX], *found[CHECK_MAX] = {0};
    gr_backward_options opt = {.allow_unused = true};
    int n = 0, at = 0;
    for (int i = 0; i < n_in; i++)
        if (k.which >> i & 1) inputs[n++] = in[i];
    if (value && gr_tensor_requires_grad(value)) check_ok(ctx, gr_grad(1, &value, NULL, n, inputs, &opt, found));
    for (int i = 0; i < n_in; i++)
        if (k.which >> i & 1) second[i] = found[at++];
    gr_release(value);
    check_differences(&k, second, 2);
    for (int i = 0; i < n_in; i++) {
        gr_release(fast[i]);
        gr_release(second[i]);
        gr_release(k.mixing[i]);
        if (k.which >> i & 1) check_ok(ctx, gr_tensor_set_requires_grad(in[i], false));
    }
    for (int i = 0; i < GRI_MAX_OUT; i++) gr_release(k.weights[i]);
}

#endif
