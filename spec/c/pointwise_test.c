/* Pointwise ops: values, edges, layouts, tails, dtypes, in-place forms, same bits everywhere. */
#include "pointwise.h"

/* ---- values --------------------------------------------------------------------------------------------- */

#define N NAN
#define I INFINITY
static const struct {
    const char *op, *attrs;
    double in[3][8], want[8]; /* 8 elements each */
} values[] = {
    {"add", NULL, {{1, 2, -3, 0, I, I, N, 0}, {3, -2, 1, 0, 1, -I, 1, -0.0}}, {4, 0, -2, 0, I, N, N, 0}},
    {"sub", NULL, {{1, 2, -3, 0, I, I, N, 0}, {3, -2, 1, 0, 1, I, 1, 0}}, {-2, 4, -4, 0, I, N, N, 0}},
    {"mul", NULL, {{1, 2, -3, 0, I, I, N, 0}, {3, -2, 1, 5, 2, 0, 1, I}}, {3, -4, -3, 0, I, N, N, N}},
    {"div", NULL, {{1, 2, -3, 0, 1, -1, N, I}, {4, -2, 1, 0, 0, 0, 1, I}}, {0.25, -1, -3, N, I, -I, N, N}},
    {"neg", NULL, {{1, 2, -3, 0, I, -I, N, 5}}, {-1, -2, 3, 0, -I, I, N, -5}},
    {"exp", NULL, {{0, 1, -1, I, -I, N, 1000, -1000}}, {1, M_E, 1 / M_E, I, 0, N, I, 0}},
    {"log", NULL, {{1, M_E, 0.5, I, 0, N, -1, 10}}, {0, 1, -M_LN2, I, -I, N, N, M_LN10}},
    {"sqrt", NULL, {{4, 2, 0.25, I, 0, N, -1, 9}}, {2, M_SQRT2, 0.5, I, 0, N, N, 3}},
    {"abs", NULL, {{4, -2, 0, I, -I, N, -1, 9}}, {4, 2, 0, I, I, N, 1, 9}},
    {"abs_backward", NULL, {{1, 2, 3, 4, 5, 6, 7, 8}, {4, -2, 0, I, -I, N, -0.0, 9}}, {1, -2, 0, 4, -5, 0, 0, 8}},
    {"pow", NULL, {{2, 3, 0, 0, 0, -2, N, -8}, {3, -1, 0, 2, -1, 2, 0, 0.3}}, {8, 1 / 3., 1, 0, I, 4, 1, N}},
    {"pow", NULL, {{2, 4, 9, 5, 7, -3, 2, 1.5}, {10, 0.5, -0.5, 1, 0, 3, -2, 2.5}},
     {1024, 2, 1 / 3., 5, 1, -27, 0.25, 2.7556759606310752}},
    {"pow_backward_base", NULL, {{1, 1, 1, 1, 2, 1, 1, 1}, {0, 0, 0, -2, 3, 0, 0, N}, {0, 2, -1, 2, 3, 1, 0.5, 0}},
     {0, 0, -I, -4, 54, 1, I, 0}},
    {"pow_backward_exponent", NULL, {{1, 1, 1, 1, 2, 1, 1, 1}, {0, 0, 0, -2, 2, 0, 1, N}, {0, 2, -1, 2, 0, 1, 5, 0}},
     {0, 0, -I, N, 2 * M_LN2, 0, 0, N}},
    {"clamp", "min=-1 max=2", {{-3, -1, 0, 2, 3, N, I, -I}}, {-1, -1, 0, 2, 2, N, 2, -1}},
    {"clamp", "min=2 max=1", {{-3, -1, 0, 1, 3, N, I, -I}}, {1, 1, 1, 1, 1, N, 1, 1}},
    {"clamp", NULL, {{-3, -1, 0, 1, 3, N, I, -I}}, {-3, -1, 0, 1, 3, N, I, -I}},
    {"clamp_backward", "min=-1 max=2", {{1, 2, 3, 4, 5, 6, 7, 8}, {-3, -1, 0, 2, 3, N, I, -I}},
     {0, 2, 3, 4, 0, 0, 0, 0}},
    {"maximum", NULL, {{1, 2, N, 1, N, I, -I, 3}, {2, 1, 1, N, N, 1, 1, 3}}, {2, 2, N, N, N, I, 1, 3}},
    {"minimum", NULL, {{1, 2, N, 1, N, I, -I, 3}, {2, 1, 1, N, N, 1, 1, 3}}, {1, 1, N, N, N, 1, -I, 3}},
    {"maximum_backward", NULL, {{8, 8, 8, 8, 8, 8, 8, 8}, {1, 2, N, 1, N, I, -I, 3}, {2, 1, 1, N, N, 1, 1, 3}},
     {0, 8, 8, 8, 8, 8, 0, 4}},
    {"sigmoid", NULL, {{0, 2, -2, 1000, -1000, N, I, -80}},
     {0.5, 0.88079707797788243, 0.11920292202211756, 1, 0, N, 1, 1.8048513878454153e-35}},
    {"relu", NULL, {{-1, 0, 2, I, -I, N, 0.5, -0.5}}, {0, 0, 2, I, 0, N, 0.5, 0}},
    {"relu_backward", NULL, {{1, 2, 3, 4, 5, 6, 7, N}, {0, 0.5, 2, I, -1, N, 0, 0}}, {0, 2, 3, 4, 0, 6, 0, 0}},
    {"leaky_relu", "negative_slope=0.25", {{-1, 0, 2, I, -I, N, 0.5, -4}}, {-0.25, 0, 2, I, -I, N, 0.5, -1}},
    {"leaky_relu_backward", NULL, {{1, 2, 3, 4, 5, 6, 7, 8}, {-1, 0, 2, I, -I, N, 0.5, -4}},
     {0.01, 0.02, 3, 4, 0.05, 0.06, 7, 0.08}},
    {"elu", "alpha=2", {{-1, 0, 2, I, -I, N, 1000, -1e-5}},
     {-1.2642411176571153, 0, 2, I, -2, N, 1000, -1.99999000003333e-5}},
    {"elu_backward", NULL, {{1, 2, 3, 4, 5, 6, 7, 8}, {-1, 0, 2, I, -I, N, 1000, -2}},
     {1 / M_E, 2, 3, 4, 0, N, 7, 1.0826822658929016}},
    {"eq", NULL, {{1, 2, N, I, 0, 3, 4, 5}, {1, 3, N, I, -0.0, 4, 3, 5}}, {1, 0, 0, 1, 1, 0, 0, 1}},
    {"ne", NULL, {{1, 2, N, I, 0, 3, 4, 5}, {1, 3, N, I, -0.0, 4, 3, 5}}, {0, 1, 1, 0, 0, 1, 1, 0}},
    {"lt", NULL, {{1, 2, N, I, 0, 3, 4, 5}, {1, 3, N, I, -0.0, 4, 3, 5}}, {0, 1, 0, 0, 0, 1, 0, 0}},
    {"le", NULL, {{1, 2, N, I, 0, 3, 4, 5}, {1, 3, N, I, -0.0, 4, 3, 5}}, {1, 1, 0, 1, 1, 1, 0, 1}},
    {"gt", NULL, {{1, 2, N, I, 0, 3, 4, 5}, {1, 3, N, I, -0.0, 4, 3, 5}}, {0, 0, 0, 0, 0, 0, 1, 0}},
    {"ge", NULL, {{1, 2, N, I, 0, 3, 4, 5}, {1, 3, N, I, -0.0, 4, 3, 5}}, {1, 0, 0, 1, 1, 0, 1, 1}}};
#undef N
#undef I

static void values_and_edges(void **state) {
    (void)state;
    for (int v = 0; v < 6; v++) {
        gr_dtype dtype = v < 3 ? GR_F32 : GR_F64;
        gr_ctx *ctx = variant(v % 3);
        if (!ctx) continue;
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            gr_tensor *in[3], *y;
            for (int k = 0; k < 3; k++) in[k] = check_values(ctx, dtype, CHECK_DIMS(8), values[i].in[k]);
            y = apply_with(ctx, values[i].op, values[i].attrs, in);
            for (int k = 0; k < 8; k++) {
                double got = check_get(y, k), want = values[i].want[k], tol = dtype == GR_F32 ? 4e-7 : 3e-15;
                bool same = got == want || (got != got && want != want) || fabs(got - want) <= tol * fabs(want);
                if (!same)
                    fail_msg("%s on %s, element %d: %.17g, expected %.17g", values[i].op, gr_isa(ctx), k, got, want);
            }
            gr_release(y);
            drop(3, in);
        }
        check_ctx_free(ctx);
    }
}

/* ---- layouts -------------------------------------------------------------------------------------------- */

/* The op on views must give the bits it gives on their copies. */
static void same_as_dense(gr_ctx *ctx, const char *op, int n, gr_tensor **in) {
    gr_tensor *copy[3], *y = apply_with(ctx, op, NULL, in), *want;
    for (int i = 0; i < n; i++) copy[i] = dense(in[i]);
    want = apply_with(ctx, op, NULL, copy);
    check_same_bits(y, want);
    gr_release(y);
    gr_release(want);
    drop(n, copy);
}

static void strided_inputs(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    for (size_t k = 0; k < ALL; k++) {
        gr_tensor *base[3], *in[3];
        int n = inputs(ctx, &all[k], GR_F32, CHECK_DIMS(40, 60), k, base);
        static const struct { int64_t dims[3], strides[3], offset; } views[] = {
            {{60, 40, 1}, {1, 60, 7}, 0}, {{5, 7, 11}, {480, 60, 1}, 3},    {{5, 7, 11}, {1, 60, 120}, 9},
            {{40, 60, 3}, {60, 1, 0}, 0}, {{7, 3, 50}, {0, 60, 1}, 61},     {{3, 100, 7}, {0, 1, 0}, 5},
            {{2, 0, 5}, {60, 60, 1}, 0},  {{1, 1, 1}, {1, 1, 1}, 77},       {{20, 30, 1}, {120, 2, 9}, 1},
            {{10, 4, 60}, {240, 60, 1}, 0}};
        for (size_t v = 0; v < sizeof views / sizeof *views; v++) {
            for (int i = 0; i < n; i++) in[i] = view(base[i], 3, views[v].dims, views[v].strides, views[v].offset);
            same_as_dense(ctx, all[k].name, n, in);
            if (n > 1) { /* one strided, the others dense */
                gr_tensor *whole = in[0];
                in[0] = dense(whole);
                gr_release(whole);
                same_as_dense(ctx, all[k].name, n, in);
            }
            drop(n, in);
        }
        drop(n, base);
    }
    check_ctx_free(ctx);
}

/* Broadcasting gives what expanding first gives. */
static void broadcasting(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    for (size_t k = 0; k < ALL; k++) {
        static const int64_t big[] = {6, 5, 9, -1};
        static const struct { int64_t dims[4], strides[3]; } small[] = {
            {{9, -1}, {0, 0, 1}}, {{5, 1, -1}, {0, 1, 0}},       {{6, 1, 9, -1}, {9, 0, 1}},
            {{-1}, {0, 0, 0}},    {{1, 1, 1, -1}, {0, 0, 0}}};
        if (strlen(all[k].inputs) < 2) continue;
        for (size_t v = 0; v < sizeof small / sizeof *small; v++) {
            gr_tensor *in[3], *other[3], *y, *want;
            int n = inputs(ctx, &all[k], GR_F32, big, k, in);
            inputs(ctx, &all[k], GR_F32, small[v].dims, k + 100, other);
            int at = (int)(v % (size_t)n);
            gr_release(in[at]);
            in[at] = other[at];
            y = apply_with(ctx, all[k].name, NULL, in);
            in[at] = view(other[at], 3, big, small[v].strides, 0);
            want = apply_with(ctx, all[k].name, NULL, in);
            check_same_bits(y, want);
            gr_release(y);
            gr_release(want);
            drop(n, in);
            drop(n, other);
        }
    }
    check_ctx_free(ctx);
}

/* An element has the same bits wherever it stands: alone, in a short run, in a tail, in a long vector. */
static void tails(void **state) {
    (void)state;
    for (int v = 0; v < 6; v++) {
        gr_ctx *ctx = variant(v % 3);
        if (!ctx) continue;
        for (size_t k = 0; k < ALL; k++) {
            gr_tensor *in[3], *part[3], *y, *long_y;
            int n = inputs(ctx, &all[k], v < 3 ? GR_F32 : GR_F64, CHECK_DIMS(1600), k, in);
            long_y = apply_with(ctx, all[k].name, NULL, in);
            size_t size = gri_size((gr_dtype)long_y->dtype);
            for (int64_t length = 1; length <= 1500; length += length < 40 ? 1 : 73) {
                int64_t offset = length * 2 % 97;
                for (int i = 0; i < n; i++) part[i] = view(in[i], 1, &length, (int64_t[]){1}, offset);
                y = apply_with(ctx, all[k].name, NULL, part);
                if (memcmp(y->data, long_y->data + offset * (int64_t)size, (size_t)length * size))
                    fail_msg("%s on %s: %lld elements at %lld have other bits than in a long vector", all[k].name,
                             gr_isa(ctx), (long long)length, (long long)offset);
                gr_release(y);
                drop(n, part);
            }
            gr_release(long_y);
            drop(n, in);
        }
        check_ctx_free(ctx);
    }
}

/* An exponent gives the same bits as a number, expanded, and among others. */
static void exponents(void **state) {
    (void)state;
    static const double exponent[] = {2, 3, 0.5, -1, 1, 0, -0.5, -2, 1.7};
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t seed = 3;
    gr_tensor *a = check_tensor(ctx, GR_F32, CHECK_DIMS(99), 0.1, 3, &seed);
    gr_tensor *dy = check_tensor(ctx, GR_F32, CHECK_DIMS(99), -1, 1, &seed);
    for (size_t k = 0; k < sizeof exponent / sizeof *exponent; k++) {
        gr_tensor *number, *mixed = check_tensor(ctx, GR_F32, CHECK_DIMS(99), 0, 3, &seed), *y, *want, *dx, *dwant;
        check_ok(ctx, gr_tensor_scalar(ctx, GR_F32, exponent[k], &number));
        for (int64_t i = 0; i < 99; i += 2) check_put(mixed, i, exponent[k]);
        y = APPLY(ctx, "pow", a, number);
        want = APPLY(ctx, "pow", a, mixed);
        dx = APPLY(ctx, "pow_backward_base", dy, a, number);
        dwant = APPLY(ctx, "pow_backward_base", dy, a, mixed);
        for (int64_t i = 0; i < 99; i += 2) {
            assert_true(check_get(y, i) == check_get(want, i));
            assert_true(check_get(dx, i) == check_get(dwant, i));
            assert_true(fabs(check_get(y, i) - pow(check_get(a, i), (float)exponent[k])) <= 4e-7 * check_get(y, i));
        }
        drop(6, (gr_tensor *[]){number, mixed, y, want, dx, dwant});
    }
    drop(2, (gr_tensor *[]){a, dy});
    check_ctx_free(ctx);
}

/* ---- variants and threads ------------------------------------------------------------------------------- */

static void every_isa(void **state) {
    (void)state;
    for (size_t k = 0; k < ALL; k++) {
        gr_ctx *plain = variant(0);
        gr_tensor *in[3], *y, *want;
        int n = inputs(plain, &all[k], GR_F32, CHECK_DIMS(777), k, in);
        want = apply_with(plain, all[k].name, NULL, in);
        drop(n, in);
        for (int v = 1; v < 3; v++) {
            gr_ctx *ctx = variant(v);
            if (!ctx) continue;
            inputs(ctx, &all[k], GR_F32, CHECK_DIMS(777), k, in);
            y = apply_with(ctx, all[k].name, NULL, in);
            for (int64_t i = 0; i < 777; i++) {
                double a = check_get(y, i), b = check_get(want, i);
                if (all[k].exact ? a != b : !(fabs(a - b) <= 1e-6 * fmax(0.1, fabs(b))))
                    fail_msg("%s on %s, element %lld: %.9g, generic %.9g", all[k].name, gr_isa(ctx), (long long)i, a,
                             b);
            }
            gr_release(y);
            drop(n, in);
            check_ctx_free(ctx);
        }
        gr_release(want);
        check_ctx_free(plain);
    }
}

/* A chain of ops on half a million elements, forward and backward, as one tensor of gradients. */
static gr_tensor *big_gradient(gr_ctx *ctx) {
    int64_t dims[2] = {501, 1003};
    gr_tensor *x = NULL, *row = NULL, *seed = NULL, *grad = NULL;
    check_ok(ctx, gr_tensor_new(ctx, GR_F32, 2, dims, &x));
    check_ok(ctx, gr_tensor_new(ctx, GR_F32, 1, dims + 1, &row));
    check_ok(ctx, gr_tensor_new(ctx, GR_F32, 2, dims, &seed));
    for (int64_t i = 0; i < x->numel; i++) ((float *)(void *)x->data)[i] = (float)(i % 811) * 0.003f - 1;
    for (int64_t i = 0; i < 1003; i++) ((float *)(void *)row->data)[i] = (float)i * 0.001f;
    check_ok(ctx, gr_tensor_fill(seed, 0.5));
    check_ok(ctx, gr_tensor_set_requires_grad(x, true));
    gr_tensor *a = APPLY(ctx, "sigmoid", x), *b = APPLY(ctx, "mul", a, row), *c = APPLY(ctx, "tanh", b);
    gr_tensor *d = APPLY(ctx, "pow", a, a), *e = APPLY(ctx, "add", c, d), *f = APPLY(ctx, "maximum", e, row);
    check_ok(ctx, gr_backward(f, &(gr_backward_options){.seed = seed}));
    grad = gr_retain(gr_tensor_grad_peek(x));
    drop(9, (gr_tensor *[]){x, row, seed, a, b, c, d, e, f});
    return grad;
}

static void one_and_two_threads(void **state) {
    (void)state;
    gr_ctx *one = check_ctx(1, NULL), *two = check_ctx(2, NULL), *five = check_ctx(5, NULL);
    gr_tensor *a = big_gradient(one), *b = big_gradient(two), *c = big_gradient(five);
    check_same_bits(a, b);
    check_same_bits(a, c);
    drop(3, (gr_tensor *[]){a, b, c});
    check_ctx_free(one);
    check_ctx_free(two);
    check_ctx_free(five);
}

/* ---- adding into a destination -------------------------------------------------------------------------- */

/* In GRI_ADD mode a kernel adds what it would have set, whatever the destination's layout and dtype. */
static void adding(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    static const struct { int64_t dims[2], strides[2]; } layout[] = {
        {{7, 5}, {5, 1}},     {{7, 5}, {1, 7}},     {{7, 5}, {12, 2}},
        {{60, 40}, {40, 1}}, {{60, 40}, {1, 60}}, {{16, 4}, {4, 1}}};
    for (size_t k = 0; k < ALL; k++) {
        for (size_t v = 0; v < sizeof layout / sizeof *layout; v++) {
            const int64_t dims[] = {layout[v].dims[0], layout[v].dims[1], -1};
            for (gr_dtype t = GR_F32; t <= GR_F64; t++) {
                gr_tensor *in[3], *base, *out, *y;
                int n = inputs(ctx, &all[k], GR_F32, dims, k, in);
                y = apply_with(ctx, all[k].name, NULL, in);
                check_ok(ctx, gr_tensor_new(ctx, y->dtype == GR_U8 ? GR_U8 : t, 1, (int64_t[]){4000}, &base));
                check_ok(ctx, gr_tensor_fill(base, 3));
                out = view(base, 2, dims, layout[v].strides, 1);
                const gr_op *op = gr_op_find(all[k].name);
                gri_call c = {.ctx = ctx, .op = op, .attrs = attributes(op, NULL), .n_in = n, .n_out = 1, .in = in,
                              .out = {out}, .mode = GRI_ADD};
                check_ok(ctx, gri_run(&c));
                for (int64_t i = 0; i < y->numel; i++) {
                    double got = check_get(out, i), want = 3 + check_get(y, i);
                    if (!(fabs(got - want) <= 1e-6 * fabs(want)))
                        fail_msg("%s added: %.9g, expected %.9g", all[k].name, got, want);
                }
                double sum = 0;
                for (int64_t i = 0; i < base->numel; i++) sum += check_get(base, i) != 3;
                assert_true(sum <= (double)y->numel); /* nothing else was touched */
                drop(3, (gr_tensor *[]){y, out, base});
                drop(n, in);
            }
        }
    }
    check_ctx_free(ctx);
}

/* ---- in place ------------------------------------------------------------------------------------------- */

static void in_place(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    const gr_op *add = gr_op_find("add"), *mul = gr_op_find("mul");
    gr_tensor *x = check_values(ctx, GR_F32, CHECK_DIMS(5), (double[]){1, 2, 3, 4, 5});
    gr_tensor *y = NUMBER(ctx, GR_F64, 10);
    uint64_t version = gr_tensor_version(x);
    check_ok(ctx, gr_apply_into(ctx, add, 2, GRI_TENSORS(x, y), NULL, x)); /* f64 result into f32 */
    check_close(x, 5, (double[]){11, 12, 13, 14, 15}, 0);
    check_ok(ctx, gr_apply_into(ctx, mul, 2, GRI_TENSORS(x, x), NULL, x));
    check_close(x, 5, (double[]){121, 144, 169, 196, 225}, 0);
    assert_true(gr_tensor_version(x) > version);
    int64_t four = 4, one = 1, forth[2] = {2, 3}, columns[2] = {1, 2};
    gr_tensor *head = view(x, 1, &four, &one, 0), *tail = view(x, 1, &four, &one, 1);
    check_ok(ctx, gr_apply_into(ctx, add, 2, GRI_TENSORS(head, tail), NULL, tail)); /* reads the old values */
    check_close(x, 5, (double[]){121, 265, 313, 365, 421}, 0);
    gr_tensor *z = check_values(ctx, GR_F32, CHECK_DIMS(2, 3), (double[]){1, 2, 3, 4, 5, 6});
    gr_tensor *turned = view(z, 2, (int64_t[]){2, 3}, columns, 0); /* the same memory in another order */
    check_ok(ctx, gr_apply_into(ctx, add, 2, GRI_TENSORS(z, turned), NULL, z));
    check_close(z, 6, (double[]){2, 5, 8, 6, 9, 12}, 0);
    check_ok(ctx, gr_apply_into(ctx, gr_op_find("relu"), 1, &turned, NULL, turned)); /* strided onto itself */
    check_close(z, 6, (double[]){2, 5, 8, 6, 9, 12}, 0);
    drop(3, (gr_tensor *[]){head, tail, turned});

    gr_tensor *i = NULL;
    check_ok(ctx, gr_tensor_new(ctx, GR_I64, 2, forth, &i));
    assert_int_equal(gr_apply_into(ctx, add, 2, GRI_TENSORS(i, y), NULL, i), GR_ERR_DTYPE);
    gr_clear_error(ctx);
    assert_int_equal(gr_apply_into(ctx, add, 2, GRI_TENSORS(y, i), NULL, y), GR_ERR_SHAPE);
    assert_non_null(strstr(gr_errmsg(ctx), "[2,3]"));
    gr_clear_error(ctx);
    check_ok(ctx, gr_tensor_set_requires_grad(x, true));
    assert_int_equal(gr_apply_into(ctx, add, 2, GRI_TENSORS(x, y), NULL, x), GR_ERR_STATE);
    gr_clear_error(ctx);
    gr_set_grad_enabled(ctx, false);
    check_ok(ctx, gr_apply_into(ctx, add, 2, GRI_TENSORS(x, y), NULL, x));
    drop(4, (gr_tensor *[]){x, y, z, i});
    check_ctx_free(ctx);
}

/* ---- whole numbers -------------------------------------------------------------------------------------- */

static void refused(gr_ctx *ctx, gr_status want, const char *text, const char *op, const char *attrs, gr_tensor *a,
                    gr_tensor *b) {
    gr_tensor *y = NULL, *in[2] = {a, b};
    const gr_op *o = gr_op_find(op);
    assert_int_equal(gr_apply(ctx, o, b ? 2 : 1, in, attributes(o, attrs), &y), want);
    assert_null(y);
    if (!strstr(gr_errmsg(ctx), text)) fail_msg("%s: the message is \"%s\"", op, gr_errmsg(ctx));
    gr_clear_error(ctx);
}

static void expect(gr_tensor *y, gr_dtype dtype, int64_t n, const double *want) {
    assert_int_equal(y->dtype, dtype);
    check_close(y, n, want, 0);
    gr_release(y);
}

static void whole_numbers(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    gr_tensor *a = check_values(ctx, GR_I64, CHECK_DIMS(3), (double[]){7, -2, 0x1p52});
    gr_tensor *b = check_values(ctx, GR_U8, CHECK_DIMS(3), (double[]){3, 200, 1});
    gr_tensor *f = check_values(ctx, GR_F32, CHECK_DIMS(3), (double[]){0.5, 1, 2}), *d = NUMBER(ctx, GR_F64, 1);
    expect(APPLY(ctx, "add", a, b), GR_I64, 3, (double[]){10, 198, 0x1p52 + 1});
    expect(APPLY(ctx, "sub", b, b), GR_U8, 3, (double[]){0, 0, 0});
    expect(APPLY(ctx, "add", b, b), GR_U8, 3, (double[]){6, 255, 2}); /* saturating */
    expect(APPLY(ctx, "mul", a, a), GR_I64, 3, (double[]){49, 4, 0}); /* 2^104 wraps around */
    expect(APPLY(ctx, "neg", a), GR_I64, 3, (double[]){-7, 2, -0x1p52});
    expect(APPLY(ctx, "abs", a), GR_I64, 3, (double[]){7, 2, 0x1p52});
    expect(APPLY(ctx, "maximum", a, b), GR_I64, 3, (double[]){7, 200, 0x1p52});
    expect(apply_with(ctx, "clamp", "min=-1 max=100", GRI_TENSORS(a)), GR_I64, 3, (double[]){7, -1, 100});
    expect(apply_with(ctx, "masked_fill", "value=-4", GRI_TENSORS(a, b)), GR_I64, 3, (double[]){-4, -4, -4});
    expect(APPLY(ctx, "where", b, a, b), GR_I64, 3, (double[]){7, -2, 0x1p52});
    expect(APPLY(ctx, "add", a, f), GR_F32, 3, (double[]){7.5, -1, 0x1p52});
    expect(APPLY(ctx, "add", f, d), GR_F64, 3, (double[]){1.5, 2, 3});
    expect(APPLY(ctx, "div", b, f), GR_F32, 3, (double[]){6, 200, 0.5});
    expect(APPLY(ctx, "gt", a, f), GR_U8, 3, (double[]){1, 0, 1});
    refused(ctx, GR_ERR_DTYPE, "div: i64[3] and u8[3] are whole numbers", "div", NULL, a, b);
    refused(ctx, GR_ERR_DTYPE, ":to(\"f32\")", "pow", NULL, a, b);
    static const char *const floating[] = {"exp", "log", "sqrt", "tanh", "sigmoid", "relu", "leaky_relu", "elu"};
    for (size_t i = 0; i < sizeof floating / sizeof *floating; i++)
        refused(ctx, GR_ERR_DTYPE, "i64[3], expected f32 or f64", floating[i], NULL, a, NULL);
    refused(ctx, GR_ERR_DTYPE, "neg: u8[3] has no negative values", "neg", NULL, b, NULL);
    refused(ctx, GR_ERR_DTYPE, "min = 0.5", "clamp", "min=0.5", a, NULL);
    refused(ctx, GR_ERR_ARG, "cannot be NaN", "clamp", "min=nan", f, NULL);
    refused(ctx, GR_ERR_DTYPE, "0.5 is not a value of dtype i64", "masked_fill", "value=0.5", a, b);
    refused(ctx, GR_ERR_DTYPE, "the mask is f32[3], expected u8", "masked_fill", "value=1", f, f);
    gr_tensor *two = check_values(ctx, GR_F32, CHECK_DIMS(2), (double[]){1, 2}), *y = NULL;
    refused(ctx, GR_ERR_SHAPE, "f32[3] and f32[2] do not broadcast", "add", NULL, f, two);
    assert_int_equal(gr_apply(ctx, gr_op_find("where"), 3, GRI_TENSORS(f, f, f), NULL, &y), GR_ERR_DTYPE);
    drop(5, (gr_tensor *[]){a, b, f, d, two});
    check_ctx_free(ctx);
}

/* i64 beyond 2^53, where doubles no longer tell neighbours apart. */
static void exact_comparison(void **state) {
    (void)state;
    gr_ctx *ctx = check_ctx(1, NULL);
    gr_tensor *a = NULL, *b = NULL, *mask = check_values(ctx, GR_U8, CHECK_DIMS(2), (double[]){1, 0});
    check_ok(ctx, gr_tensor_new(ctx, GR_I64, 1, (int64_t[]){2}, &a));
    check_ok(ctx, gr_tensor_new(ctx, GR_I64, 1, (int64_t[]){2}, &b));
    memcpy(a->data, (int64_t[]){INT64_C(9007199254740993), INT64_MIN}, 16);
    memcpy(b->data, (int64_t[]){INT64_C(9007199254740992), INT64_MIN + 1}, 16);
    expect(APPLY(ctx, "eq", a, b), GR_U8, 2, (double[]){0, 0});
    expect(APPLY(ctx, "gt", a, b), GR_U8, 2, (double[]){1, 0});
    expect(APPLY(ctx, "le", a, b), GR_U8, 2, (double[]){0, 1});
    gr_tensor *chosen = APPLY(ctx, "where", mask, a, b);
    assert_true(((int64_t *)(void *)chosen->data)[0] == INT64_C(9007199254740993));
    assert_true(((int64_t *)(void *)chosen->data)[1] == INT64_MIN + 1);
    drop(4, (gr_tensor *[]){a, b, mask, chosen});
    check_ctx_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_edges), cmocka_unit_test(strided_inputs), cmocka_unit_test(broadcasting),
        cmocka_unit_test(tails),            cmocka_unit_test(exponents),      cmocka_unit_test(every_isa),
        cmocka_unit_test(one_and_two_threads), cmocka_unit_test(adding),      cmocka_unit_test(in_place),
        cmocka_unit_test(whole_numbers),    cmocka_unit_test(exact_comparison)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
