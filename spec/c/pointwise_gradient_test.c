/* Pointwise ops: first and second derivatives, kinks, what may not be overwritten, and memory. */
#include "pointwise.h"

/* ---- gradients ------------------------------------------------------------------------------------------ */

static void derivatives(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    for (size_t k = 0; k < ALL; k++) {
        gr_tensor *in[3];
        const gr_op *op = gr_op_find(all[k].name);
        if (!gr_op_differentiable(op)) continue;
        int n = inputs(ctx, &all[k], GR_F64, CHECK_DIMS(3, 4), k + 7, in);
        for (int i = 0; i < n; i++) { /* away from the kink at 0 */
            for (int64_t e = 0; e < in[i]->numel; e++) {
                double x = check_get(in[i], e);
                if (in[i]->dtype == GR_F64 && fabs(x) < 0.05) check_put(in[i], e, x + 0.1);
            }
        }
        const void *attrs = attributes(op, "min=-0.77 max=0.81 alpha=1.3 negative_slope=0.3");
        check_gradients(ctx, all[k].name, n, in, attrs, ~0u);
        drop(n, in);
        if (n < 2) continue;
        for (int at = 0; at < n; at++) { /* each input broadcast in turn */
            gr_tensor *other[3];
            inputs(ctx, &all[k], GR_F64, CHECK_DIMS(2, 3), k + 7, in);
            inputs(ctx, &all[k], GR_F64, at % 2 ? CHECK_DIMS(2, 1) : SCALAR, k + 50, other);
            gr_tensor *whole = in[at];
            in[at] = other[at];
            other[at] = whole;
            check_gradients(ctx, all[k].name, n, in, attributes(op, NULL), ~0u);
            drop(n, in);
            drop(n, other);
        }
    }
    check_ctx_free(ctx);
}

/* d sum(op(in...)) / d in[which], element by element. */
static void slope(gr_ctx *ctx, const char *op, gr_tensor **in, int n, int which, const double *want) {
    gr_tensor *y, *seed = NULL;
    check_ok(ctx, gr_tensor_set_requires_grad(in[which], true));
    y = apply_with(ctx, op, NULL, in);
    check_ok(ctx, gr_tensor_empty(ctx, (gr_dtype)y->dtype, y->rank, y->dims, &seed));
    check_ok(ctx, gr_tensor_fill(seed, 1));
    check_ok(ctx, gr_backward(y, &(gr_backward_options){.seed = seed}));
    check_close(gr_tensor_grad_peek(in[which]), n, want, 1e-6);
    check_ok(ctx, gr_tensor_set_requires_grad(in[which], false));
    drop(2, (gr_tensor *[]){y, seed});
}

/* Where the derivative jumps, or the other branch is not a number: as PyTorch 2.13. */
static void kinks(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    gr_tensor *zero = check_values(ctx, GR_F32, CHECK_DIMS(3), (double[]){0, -0.0, NAN});
    gr_tensor *one = check_values(ctx, GR_F32, CHECK_DIMS(3), (double[]){1, 1, 1}), *row = NULL;
    slope(ctx, "abs", &zero, 3, 0, (double[]){0, 0, 0});
    slope(ctx, "relu", &zero, 3, 0, (double[]){0, 0, 1});
    slope(ctx, "leaky_relu", &zero, 3, 0, (double[]){0.01, 0.01, 0.01});
    slope(ctx, "clamp", &zero, 3, 0, (double[]){1, 1, 0});
    slope(ctx, "maximum", (gr_tensor *[]){one, one}, 3, 0, (double[]){1, 1, 1}); /* both halves are its own */
    row = NUMBER(ctx, GR_F32, 1);
    slope(ctx, "maximum", (gr_tensor *[]){one, row}, 1, 1, (double[]){1.5});
    slope(ctx, "pow", (gr_tensor *[]){row, one}, 1, 0, (double[]){3});
    slope(ctx, "pow", (gr_tensor *[]){one, zero}, 3, 0, (double[]){0, 0, NAN});
    slope(ctx, "pow", (gr_tensor *[]){zero, one}, 3, 1, (double[]){0, 0, NAN});
    gr_tensor *cond = check_values(ctx, GR_U8, CHECK_DIMS(3), (double[]){1, 1, 0});
    slope(ctx, "where", (gr_tensor *[]){cond, zero, one}, 3, 1, (double[]){1, 1, 0});
    /* the gradient that comes back into the branch not taken is 0, though dy is not a number there */
    check_ok(ctx, gr_tensor_set_requires_grad(one, true));
    gr_tensor *y = APPLY(ctx, "where", cond, one, zero);
    gr_tensor *seed = check_values(ctx, GR_F32, CHECK_DIMS(3), (double[]){2, NAN, NAN});
    check_ok(ctx, gr_backward(y, &(gr_backward_options){.seed = seed}));
    check_close(gr_tensor_grad_peek(one), 3, (double[]){2, NAN, 0}, 0);
    drop(6, (gr_tensor *[]){zero, one, row, cond, y, seed});
    check_ctx_free(ctx);
}

/* Second derivatives of x^k at 0, where k (k - 1) x^(k - 2) must not become 0 times infinity. */
static void powers_at_zero(void **state) {
    (void)state;
    static const struct { double k, first, second; } want[] = {{0, 0, 0}, {1, 1, 0}, {2, 0, 2}, {3, 0, 0}};
    gr_ctx *ctx = check_ctx(1, NULL);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        gr_tensor *x = NUMBER(ctx, GR_F64, 0), *k = NULL, *first = NULL, *second = NULL;
        check_ok(ctx, gr_tensor_scalar(ctx, GR_F64, want[i].k, &k));
        check_ok(ctx, gr_tensor_set_requires_grad(x, true));
        gr_tensor *y = APPLY(ctx, "pow", x, k);
        check_ok(ctx, gr_grad(1, &y, NULL, 1, &x, &(gr_backward_options){.create_graph = true}, &first));
        check_ok(ctx, gr_grad(1, &first, NULL, 1, &x, NULL, &second));
        check_close(first, 1, &want[i].first, 0);
        check_close(second, 1, &want[i].second, 0);
        drop(5, (gr_tensor *[]){x, k, y, first, second});
    }
    check_ctx_free(ctx);
}

/* Backward refuses to read what was overwritten after the forward pass. */
static void overwritten(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    gr_tensor *x = NUMBER(ctx, GR_F32, 2), *k = NUMBER(ctx, GR_F32, 3);
    check_ok(ctx, gr_tensor_set_requires_grad(x, true));
    gr_tensor *y = APPLY(ctx, "mul", x, k);
    check_ok(ctx, gr_tensor_fill(k, 5));
    assert_int_equal(gr_backward(y, NULL), GR_ERR_STATE);
    assert_non_null(strstr(gr_errmsg(ctx), "input 2 of mul"));
    drop(3, (gr_tensor *[]){x, k, y});
    check_ctx_free(ctx);
}

/* ---- memory --------------------------------------------------------------------------------------------- */

/* A step that repeats takes nothing from the system, also when its sizes come and go by turns. */
static void warm_steps(void **state) {
    (void)state;
    if (!GRI_POOLED) skip(); /* under the address sanitizer */
    gr_ctx *ctx = check_ctx(1, NULL);
    gr_memory warm = {0}, later = {0};
    for (int round = 0; round < 6; round++) {
        for (int64_t n = 16 << 20; n > 2 << 20; n /= 4) {
            gr_tensor *a = NULL;
            check_ok(ctx, gr_tensor_empty(ctx, GR_F64, 1, &n, &a));
            gr_release(a);
        }
        gr_memory_get(ctx, round < 2 ? &warm : &later);
    }
    assert_int_equal(later.system_calls, warm.system_calls);
    assert_true(later.cached > later.peak); /* both sizes are held, where one at a time was live */
    check_ctx_free(ctx);
}

typedef struct meter { int64_t left; } meter;

static void *metered(void *ud, void *p, size_t osize, size_t nsize) {
    meter *m = ud;
    (void)osize;
    if (nsize == 0) {
        free(p);
        return NULL;
    }
    return m->left-- > 0 ? realloc(p, nsize) : NULL;
}

/* A second derivative through every op; everything it makes, it drops. */
static gr_status work(gr_ctx *ctx, const pointwise *p) {
    gr_tensor *in[3] = {0}, *y = NULL, *g = NULL, *gg = NULL, *seed = NULL;
    const int64_t dims[] = {3, 700};
    const gr_op *op = gr_op_find(p->name);
    gr_status s = GR_OK;
    int n = (int)strlen(p->inputs), x = p->inputs[0] == 'm';
    for (int i = 0; i < n && s == GR_OK; i++) {
        gr_dtype t = p->inputs[i] == 'm' ? GR_U8 : GR_F32;
        s = gr_tensor_new(ctx, t, i ? 2 : 1, i ? dims : dims + 1, &in[i]);
    }
    if (s == GR_OK) s = gr_tensor_set_requires_grad(in[x], true);
    if (s == GR_OK) s = gr_apply(ctx, op, n, in, attributes(op, NULL), &y);
    if (s == GR_OK && gr_op_differentiable(op)) {
        s = gr_tensor_empty(ctx, (gr_dtype)y->dtype, y->rank, y->dims, &seed);
        if (s == GR_OK) s = gr_tensor_fill(seed, 1);
        if (s == GR_OK) s = gr_grad(1, &y, &seed, 1, &in[x], &(gr_backward_options){.create_graph = true}, &g);
        if (s == GR_OK) s = gr_backward(y, &(gr_backward_options){.seed = seed});
        if (s == GR_OK && gr_tensor_requires_grad(g))
            s = gr_apply(ctx, gr_op_find("mul"), 2, GRI_TENSORS(g, g), NULL, &gg);
    }
    drop(3, in);
    drop(4, (gr_tensor *[]){y, g, gg, seed});
    return s;
}

/* Each allocation fails in turn: an error with a text, nothing left, the context usable afterwards. */
static void each_allocation_fails(void **state) {
    (void)state;
    for (size_t k = 0; k < ALL; k++) {
        for (int64_t allowed = 1;; allowed++) {
            meter m = {allowed};
            gr_config cfg;
            gr_ctx *ctx = NULL;
            gr_config_init(&cfg);
            cfg.alloc = metered;
            cfg.alloc_ud = &m;
            cfg.threads = 1;
            assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
            gr_status s = work(ctx, &all[k]);
            assert_true(s == GR_OK || s == GR_ERR_MEMORY);
            if (s != GR_OK) assert_non_null(strstr(gr_errmsg(ctx), "memory"));
            gr_clear_error(ctx);
            m.left = INT64_MAX;
            if (s != GR_OK) check_ok(ctx, work(ctx, &all[k]));
            check_ctx_free(ctx);
            if (s == GR_OK) break;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(derivatives), cmocka_unit_test(kinks),      cmocka_unit_test(powers_at_zero),
        cmocka_unit_test(overwritten), cmocka_unit_test(warm_steps), cmocka_unit_test(each_allocation_fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
