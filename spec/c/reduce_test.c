/* Reductions, softmax, losses, normalisation, dropout: values, shapes, strides, dtypes, gradients, same bits. */
#include "check.h"

#include "reduce.h"

typedef struct norm_test { double p; gr_dims dim; bool keepdim; } norm_test; /* as ops/norm.c has it */

static gr_tensor *apply(gr_ctx *ctx, const char *op, gr_tensor *x, const void *attrs) {
    gr_tensor *y = NULL;
    check_ok(ctx, gr_apply(ctx, gr_op_find(op), 1, &x, attrs, &y));
    return y;
}

/* A strided view of a fresh tensor's storage. */
static gr_tensor *view(gr_tensor *base, int rank, const int64_t *dims, const int64_t *strides, int64_t offset) {
    gr_tensor *v = NULL;
    check_ok(base->head.ctx, gri_tensor_view(base, rank, dims, strides, offset, &v));
    return v;
}

static gri_reduce_attrs over(uint32_t mask, bool all, bool keepdim) {
    gri_reduce_attrs a = {.dim = {.n = all ? -1 : 0}, .keepdim = keepdim};
    for (int d = 0; !all && d < GR_MAX_RANK; d++)
        if (mask >> d & 1) a.dim.v[a.dim.n++] = d;
    return a;
}

/* ---- any shape, any stride ------------------------------------------------------------------------------ */

typedef double (*plain_step)(double acc, double x);
static double plain_sum(double acc, double x) { return acc + x; }
static double plain_max(double acc, double x) { return x > acc ? x : acc; }

/* The definition, element by element. */
static void plain_reduce(const gr_tensor *x, uint32_t mask, double start, plain_step step, double *y) {
    int64_t outputs = 1;
    for (int d = 0; d < x->rank; d++) outputs *= mask >> d & 1 ? 1 : x->dims[d];
    for (int64_t o = 0; o < outputs; o++) y[o] = start;
    for (int64_t i = 0; i < x->numel; i++) {
        int64_t at[GR_MAX_RANK], rest = i, o = 0;
        for (int d = x->rank - 1; d >= 0; d--) {
            at[d] = rest % x->dims[d];
            rest /= x->dims[d];
        }
        for (int d = 0; d < x->rank; d++)
            if (!(mask >> d & 1)) o = o * x->dims[d] + at[d];
        y[o] = step(y[o], check_get(x, i));
    }
}

/* A view of random dims, permuted, sliced, broadcast, of whole numbers in -5..5 (0..10 in u8). */
static gr_tensor *odd_view(gr_ctx *ctx, uint64_t *state) {
    int rank = (int)(check_random(state) * 5), order[GR_MAX_RANK];
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK], step = 1 + (int64_t)(check_random(state) * 1.5);
    gr_dtype dtype = (gr_dtype)(check_random(state) * GR_DTYPES);
    for (int d = 0; d < rank; d++) {
        dims[d] = 1 + (int64_t)(check_random(state) * (check_random(state) < 0.2 ? 70 : 7));
        if (check_random(state) < 0.01) dims[d] = 0;
        int k = (int)(check_random(state) * (d + 1));
        order[d] = order[k];
        order[k] = d;
    }
    for (int k = rank - 1; k >= 0; k--) {
        int d = check_random(state) < 2 ? order[k] : k;
        strides[d] = check_random(state) < 0.1 ? 0 : step;
        step = step * (dims[d] > 0 ? dims[d] : 1) + (int64_t)(check_random(state) * 1.3);
    }
    gr_tensor *base = check_tensor(ctx, GR_I64, CHECK_DIMS(step + 1), 0, 0, state), *typed = NULL, *v;
    for (int64_t i = 0; i < base->numel; i++)
        ((int64_t *)(void *)base->data)[i] = (int64_t)(check_random(state) * 11) - (dtype == GR_U8 ? 0 : 5);
    check_ok(ctx, gr_apply(ctx, gr_op_find("to"), 1, &base, &(gri_dtype_attrs){dtype}, &typed));
    v = view(typed, rank, dims, strides, 0);
    gr_release(base);
    gr_release(typed);
    return v;
}

static void any_shape_and_stride(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    uint64_t state = 1;
    for (int trial = 0; trial < 1500; trial++) {
        gr_tensor *x = odd_view(ctx, &state);
        uint32_t mask = (uint32_t)(check_random(&state) * (1 << x->rank));
        bool all = check_random(&state) < 0.2, keepdim = check_random(&state) < 0.5;
        if (all) mask = (1u << x->rank) - 1;
        gri_reduce_attrs a = over(mask, all, keepdim);
        gr_tensor *y = apply(ctx, "sum", x, &a);
        double *want = calloc((size_t)y->numel + 1, sizeof *want);
        plain_reduce(x, mask, 0, plain_sum, want);
        check_close(y, y->numel, want, 0);
        assert_int_equal(y->dtype, gri_is_float(x) ? x->dtype : GR_I64);
        gr_release(y);
        if (x->numel > 0) {
            y = apply(ctx, "amax", x, &a);
            plain_reduce(x, mask, -INFINITY, plain_max, want);
            check_close(y, y->numel, want, 0);
            assert_int_equal(y->dtype, x->dtype);
            gr_release(y);
        }
        free(want);
        gr_release(x);
    }
    check_ctx_free(ctx);
}

/* Into strided outputs, set and added to: as the tape does. */
static void writes_where_it_is_told(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 3;
    static const int64_t shapes[][2] = {{3, 5}, {300, 40}, {40, 300}, {20, 3000}, {1, 1}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        for (int dim = 0; dim < 2; dim++) {
            int64_t kept = shapes[k][1 - dim], step[1] = {2};
            gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(shapes[k][0], shapes[k][1]), -1, 1, &state);
            gr_tensor *room = check_tensor(ctx, GR_F64, CHECK_DIMS(2 * kept), 7, 7, &state);
            gr_tensor *dst = view(room, 1, &kept, step, 0);
            gri_reduce_attrs a = over(1u << dim, false, false);
            gr_tensor *y = apply(ctx, "sum", x, &a);
            gri_call c = {.ctx = ctx, .op = gr_op_find("sum"), .attrs = &a, .n_in = 1, .n_out = 1, .in = &x,
                          .out = {dst}};
            for (int times = 1; times <= 2; times++) {
                c.mode = times == 1 ? GRI_SET : GRI_ADD;
                check_ok(ctx, gri_run(&c));
                for (int64_t i = 0; i < kept; i++) {
                    assert_true(check_get(dst, i) == times * check_get(y, i));
                    assert_true(check_get(room, 2 * i + 1) == 7);
                }
            }
            gr_release(x), gr_release(room), gr_release(dst), gr_release(y);
        }
    }
    check_ctx_free(ctx);
}

static void nothing_to_reduce(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 1;
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(0, 3), 0, 1, &state), *y;
    gri_reduce_attrs a = over(1, false, false);
    y = apply(ctx, "sum", x, &a);
    check_close(y, 3, (double[]){0, 0, 0}, 0);
    gr_release(y);
    y = apply(ctx, "mean", x, &a);
    check_close(y, 3, (double[]){NAN, NAN, NAN}, 0);
    gr_release(y);
    y = apply(ctx, "norm", x, NULL);
    check_close(y, 1, (double[]){0}, 0);
    gr_release(y);
    assert_int_equal(gr_apply(ctx, gr_op_find("amax"), 1, &x, &a, &y), GR_ERR_SHAPE);
    assert_string_equal(gr_errmsg(ctx),
                        "amax: f32[0,3] is empty along the reduced dimensions: there is none to choose");
    gr_clear_error(ctx);
    assert_int_equal(gr_apply(ctx, gr_op_find("argmax"), 1, &x, NULL, &y), GR_ERR_SHAPE);
    gr_clear_error(ctx);
    a = over(2, false, false);
    y = apply(ctx, "amax", x, &a); /* no outputs: nothing is missing */
    assert_int_equal(y->numel, 0);
    gr_release(y);
    gr_release(x);
    check_ctx_free(ctx);
}

static void wrong_arguments(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 1;
    gr_tensor *x = check_tensor(ctx, GR_I64, CHECK_DIMS(2, 3), 0, 0, &state), *y = NULL;
    gri_reduce_attrs a = {.dim = {.n = 2, .v = {0, 0}}};
    assert_int_equal(gr_apply(ctx, gr_op_find("sum"), 1, &x, &a, &y), GR_ERR_INDEX);
    assert_string_equal(gr_errmsg(ctx), "sum: dimension 1 is given twice");
    gr_clear_error(ctx);
    a = (gri_reduce_attrs){.dim = {.n = 1, .v = {2}}};
    assert_int_equal(gr_apply(ctx, gr_op_find("sum"), 1, &x, &a, &y), GR_ERR_INDEX);
    gr_clear_error(ctx);
    assert_int_equal(gr_apply(ctx, gr_op_find("mean"), 1, &x, NULL, &y), GR_ERR_DTYPE);
    assert_non_null(strstr(gr_errmsg(ctx), ":to(\"f32\")"));
    gr_clear_error(ctx);
    a = (gri_reduce_attrs){.dim = {.n = 2, .v = {0, 1}}};
    assert_int_equal(gr_apply(ctx, gr_op_find("argmax"), 1, &x, &a, &y), GR_ERR_ARG);
    gr_clear_error(ctx);
    gr_tensor *f = check_tensor(ctx, GR_F32, CHECK_DIMS(3), 0, 9, &state);
    static const double bad[] = {0, -1, NAN};
    for (int i = 0; i < 3; i++) {
        norm_test n = {.p = bad[i], .dim = {.n = -1}};
        assert_int_equal(gr_apply(ctx, gr_op_find("norm"), 1, &f, &n, &y), GR_ERR_ARG);
        gr_clear_error(ctx);
    }
    gr_release(f);
    gr_release(x);
    check_ctx_free(ctx);
}

/* ---- argmax --------------------------------------------------------------------------------------------- */

static void argmax_finds_the_first(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    uint64_t state = 5;
    for (int trial = 0; trial < 300; trial++) {
        gr_tensor *x = odd_view(ctx, &state);
        int dim = x->rank > 0 && check_random(&state) < 0.7 ? (int)(check_random(&state) * x->rank) : -1;
        if (x->numel > 0) {
            gri_reduce_attrs a = over(dim < 0 ? 0 : 1u << dim, dim < 0, false);
            gr_tensor *y = apply(ctx, "argmax", x, &a);
            int64_t inner = 1, n = dim < 0 ? x->numel : x->dims[dim];
            for (int d = dim + 1; dim >= 0 && d < x->rank; d++) inner *= x->dims[d];
            for (int64_t o = 0; o < y->numel; o++) {
                int64_t first = o / inner * n * inner + o % inner, best = 0;
                for (int64_t i = 1; i < n; i++)
                    if (check_get(x, first + i * inner) > check_get(x, first + best * inner)) best = i;
                assert_true(check_get(y, o) == (double)(best + 1));
            }
            gr_release(y);
        }
        gr_release(x);
    }
    check_ctx_free(ctx);
}

static void argmax_at_the_edges(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    uint64_t state = 1;
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(200000), 0, 1, &state), *y;
    float *v = (float *)(void *)x->data;
    v[150000] = v[150001] = v[199999] = 2;
    y = apply(ctx, "argmax", x, NULL);
    check_close(y, 1, (double[]){150001}, 0);
    gr_release(y);
    v[170000] = v[180000] = NAN;
    y = apply(ctx, "argmax", x, NULL);
    check_close(y, 1, (double[]){170001}, 0);
    gr_release(y);
    y = apply(ctx, "amax", x, NULL);
    assert_true(isnan(check_get(y, 0)));
    gr_release(y);
    for (int i = 0; i < 200000; i++) v[i] = -INFINITY;
    y = apply(ctx, "argmax", x, NULL);
    check_close(y, 1, (double[]){1}, 0);
    gr_release(y);
    gr_release(x);
    x = check_tensor(ctx, GR_I64, CHECK_DIMS(3), 0, 0, &state); /* not equal, but equal as doubles */
    memcpy(x->data, (int64_t[]){(int64_t)1 << 60, ((int64_t)1 << 60) + 1, 0}, 24);
    y = apply(ctx, "argmax", x, NULL);
    check_close(y, 1, (double[]){2}, 0);
    gr_release(y);
    gr_release(x);
    check_ctx_free(ctx);
}

/* ---- exact ---------------------------------------------------------------------------------------------- */

static void sums_are_right(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    int64_t n = 50000000, wide[2] = {5000000, 10};
    gr_tensor *x = NULL, *y, *rows;
    check_ok(ctx, gr_tensor_empty(ctx, GR_F32, 1, &n, &x));
    check_ok(ctx, gr_tensor_fill(x, 0.1));
    double each = 0.1f, total = each * (double)n;
    y = apply(ctx, "sum", x, NULL);
    check_close(y, 1, (double[]){total}, 6e-8);
    gr_release(y);
    y = apply(ctx, "mean", x, NULL);
    check_close(y, 1, (double[]){each}, 0);
    gr_release(y);
    y = apply(ctx, "norm", x, NULL);
    check_close(y, 1, (double[]){each * sqrt((double)n)}, 6e-8);
    gr_release(y);
    norm_test one = {.p = 1, .dim = {.n = -1}}, three = {.p = 3, .dim = {.n = -1}};
    y = apply(ctx, "norm", x, &one);
    check_close(y, 1, (double[]){total}, 6e-8);
    gr_release(y);
    y = apply(ctx, "norm", x, &three);
    check_close(y, 1, (double[]){each * cbrt((double)n)}, 6e-8);
    gr_release(y);
    rows = view(x, 2, wide, (int64_t[]){10, 1}, 0);
    gri_reduce_attrs a = over(1, false, false);
    y = apply(ctx, "sum", rows, &a);
    for (int i = 0; i < 10; i++) assert_true(fabs(check_get(y, i) - total / 10) <= 6e-8 * total);
    gr_release(y), gr_release(rows), gr_release(x);
    check_ctx_free(ctx);
}

static void check_norm(gr_ctx *ctx, gr_dtype t, int n, const double *x, double p, double want, double tol) {
    norm_test a = {.p = p, .dim = {.n = -1}};
    gr_tensor *v = check_values(ctx, t, CHECK_DIMS(n), x), *y = apply(ctx, "norm", v, &a);
    double got = check_get(y, 0);
    if (!(got == want || fabs(got / want - 1) <= tol || (got != got && want != want)))
        fail_msg("norm p = %g of %g, %g, ... is %.17g, expected %.17g", p, x[0], x[1], got, want);
    gr_release(v), gr_release(y);
}

static void norms_of_any_size(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    static const double scales[] = {1, 1e20, 1e-30, 3e37, 1e150, 1e-150, 1e200, 1e-200, 2e307, 1e-300, 5e-324};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        double s = scales[i], x[4] = {3 * s, -4 * s, 0, 0};
        bool fits = s < 1e30 && s > 1e-37;
        check_norm(ctx, GR_F64, 4, x, 2, 5 * s, 1e-15);
        check_norm(ctx, GR_F64, 4, x, 3, cbrt(91) * s, s == 5e-324 ? 0.2 : 1e-14);
        check_norm(ctx, GR_F64, 4, x, 10, pow(pow(3, 10) + pow(4, 10), 0.1) * s, s == 5e-324 ? 0.2 : 1e-14);
        check_norm(ctx, GR_F64, 4, x, 1, 7 * s, 1e-15);
        check_norm(ctx, GR_F64, 4, x, INFINITY, 4 * s, 0);
        if (!fits) continue;
        check_norm(ctx, GR_F32, 4, x, 2, 5 * s, 1e-7);
        check_norm(ctx, GR_F32, 4, x, 3, cbrt(91) * s, 1e-7);
        check_norm(ctx, GR_F32, 4, x, INFINITY, (float)(4 * s), 0);
    }
    check_norm(ctx, GR_F64, 3, (double[]){1e200, 1e-200, 1}, 2, 1e200, 1e-15);
    check_norm(ctx, GR_F64, 3, (double[]){1e-200, INFINITY, 1}, 2, INFINITY, 0);
    check_norm(ctx, GR_F64, 3, (double[]){1, NAN, INFINITY}, 2, NAN, 0);
    check_norm(ctx, GR_F64, 3, (double[]){1, NAN, INFINITY}, INFINITY, NAN, 0);
    check_norm(ctx, GR_F32, 2, (double[]){NAN, 1}, 3, NAN, 0);
    check_norm(ctx, GR_F64, 2, (double[]){0, 0}, 2.5, 0, 0);
    check_ctx_free(ctx);
}

/* Blocks of one tensor on different scales. */
static void norms_across_scales(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    uint64_t state = 1;
    gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(100000), 1e-220, 2e-220, &state), *y;
    check_put(x, 70000, 3e200);
    check_put(x, 10, -4e200);
    y = apply(ctx, "norm", x, NULL);
    check_close(y, 1, (double[]){5e200}, 1e-15);
    gr_release(y);
    gr_release(x);
    check_ctx_free(ctx);
}

/* ---- same bits ------------------------------------------------------------------------------------------ */

static void same_bits_on_any_thread_count(void **unused) {
    (void)unused;
    gr_ctx *one = check_ctx(1, NULL), *two = check_ctx(2, NULL);
    static const int64_t shapes[][2] = {{1, 1000000}, {100000, 10}, {300, 3000}, {3000, 300}, {10, 100003}};
    static const char *const ops[] = {"sum", "mean", "norm", "amax", "argmax"};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        uint64_t sa = 9, sb = 9;
        gr_tensor *a = check_tensor(one, GR_F32, CHECK_DIMS(shapes[k][0], shapes[k][1]), -1, 1, &sa);
        gr_tensor *b = check_tensor(two, GR_F32, CHECK_DIMS(shapes[k][0], shapes[k][1]), -1, 1, &sb);
        for (int o = 0; o < 5; o++) {
            for (int m = 0; m < 3; m++) {
                gri_reduce_attrs r = over((uint32_t)m + 1, m == 2, false);
                norm_test n = {.p = 2, .dim = r.dim};
                if (strcmp(ops[o], "argmax") == 0 && m == 2) r.dim.n = -1;
                const void *attrs = strcmp(ops[o], "norm") == 0 ? (void *)&n : (void *)&r;
                gr_tensor *ya = apply(one, ops[o], a, attrs), *yb = apply(two, ops[o], b, attrs);
                check_same_bits(ya, yb);
                gr_release(ya), gr_release(yb);
            }
        }
        gr_release(a), gr_release(b);
    }
    check_ctx_free(one);
    check_ctx_free(two);
}

static void same_values_on_every_cpu(void **unused) {
    (void)unused;
    gr_ctx *plain = check_ctx(1, "generic"), *best = check_ctx(1, NULL);
    static const char *const ops[] = {"sum", "mean", "norm", "amax", "argmax", "softmax", "log_softmax"};
    for (int dtype = GR_F32; dtype <= GR_F64; dtype++) {
        for (int o = 0; o < 7; o++) {
            uint64_t sa = 9, sb = 9;
            gr_tensor *a = check_tensor(plain, (gr_dtype)dtype, CHECK_DIMS(37, 53), -3, 3, &sa);
            gr_tensor *b = check_tensor(best, (gr_dtype)dtype, CHECK_DIMS(37, 53), -3, 3, &sb);
            gr_tensor *ya = apply(plain, ops[o], a, NULL), *yb = apply(best, ops[o], b, NULL);
            for (int64_t i = 0; i < ya->numel; i++)
                assert_true(fabs(check_get(ya, i) - check_get(yb, i)) <=
                            (dtype == GR_F32 ? 1e-6 : 1e-14) * fmax(1, fabs(check_get(ya, i))));
            gr_release(a), gr_release(b), gr_release(ya), gr_release(yb);
        }
    }
    check_ctx_free(plain);
    check_ctx_free(best);
}

/* ---- gradients ------------------------------------------------------------------------------------------ */

static void gradients_of_reductions(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 21;
    static const double powers[] = {1, 1.5, 2, 2.5, 3, INFINITY};
    for (uint32_t mask = 0; mask < 8; mask++) {
        for (int keepdim = 0; keepdim < 2; keepdim++) {
            gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 3, 2), -1, 1, &state);
            for (int64_t i = 0; i < x->numel; i++) /* away from the kink of |x| */
                if (fabs(check_get(x, i)) < 0.1) check_put(x, i, 0.3 + 0.01 * (double)i);
            gri_reduce_attrs a = over(mask, mask == 7, keepdim);
            check_gradients(ctx, "sum", 1, &x, &a, 1);
            check_gradients(ctx, "mean", 1, &x, &a, 1);
            check_gradients(ctx, "amax", 1, &x, &a, 1);
            for (int p = 0; p < 6; p++) {
                norm_test n = {.p = powers[p], .dim = a.dim, .keepdim = keepdim};
                check_gradients(ctx, "norm", 1, &x, &n, 1);
            }
            gr_release(x);
        }
    }
    gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 3, 4), -1, 1, &state);
    gri_shape_attrs to = {.shape = {.n = 2, .v = {3, 1}}};
    check_gradients(ctx, "sum_to", 1, &x, &to, 1);
    gr_release(x);
    check_ctx_free(ctx);
}

/* The gradient of op over x by the seed of ones, f64. */
static gr_tensor *gradient(gr_ctx *ctx, const char *op, gr_tensor *x, const void *attrs) {
    gr_tensor *y, *g = NULL, *ones = NULL;
    check_ok(ctx, gr_tensor_set_requires_grad(x, true));
    y = apply(ctx, op, x, attrs);
    check_ok(ctx, gr_tensor_new(ctx, (gr_dtype)y->dtype, y->rank, y->dims, &ones));
    check_ok(ctx, gr_tensor_fill(ones, 1));
    check_ok(ctx, gr_grad(1, &y, &ones, 1, &x, NULL, &g));
    gr_release(y), gr_release(ones);
    return g;
}

static void gradients_at_kinks(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    gr_tensor *x = check_values(ctx, GR_F32, CHECK_DIMS(2, 3), (double[]){1, 4, 4, 2, -5, 0}), *g;
    gri_reduce_attrs a = over(2, false, false);
    g = gradient(ctx, "amax", x, &a);
    check_close(g, 6, (double[]){0, 0.5, 0.5, 1, 0, 0}, 0);
    gr_release(g);
    norm_test most = {.p = INFINITY, .dim = a.dim};
    g = gradient(ctx, "norm", x, &most);
    check_close(g, 6, (double[]){0, 0.5, 0.5, 0, -1, 0}, 0);
    gr_release(g), gr_release(x);
    static const double powers[] = {1, 1.5, 2, 3};
    for (int p = 0; p < 4; p++) {
        norm_test n = {.p = powers[p], .dim = {.n = -1}};
        x = check_values(ctx, GR_F32, CHECK_DIMS(3), (double[]){0, 0, 0});
        g = gradient(ctx, "norm", x, &n);
        check_close(g, 3, (double[]){0, 0, 0}, 0);
        gr_release(g), gr_release(x);
    }
    check_ctx_free(ctx);
}

/* ---- softmax -------------------------------------------------------------------------------------------- */

typedef struct dim_test { int64_t dim; } dim_test; /* as ops/softmax.c has it */

static void softmax_against_its_definition(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    uint64_t state = 31;
    static const int64_t shapes[][3] = {{1, 1, 1}, {3, 5, 1}, {2, 16, 3}, {4, 33, 70}, {1, 1000, 2}, {200, 10, 1},
                                        {3, 1, 4}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        for (int dim = 0; dim < 3; dim++) {
            const int64_t *s = shapes[k];
            gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(s[0], s[1], s[2]), -20, 20, &state);
            dim_test a = {dim - 3};
            gr_tensor *y = apply(ctx, "softmax", x, &a), *l = apply(ctx, "log_softmax", x, &a);
            int64_t inner = dim == 2 ? 1 : dim == 1 ? s[2] : s[1] * s[2], n = s[dim];
            for (int64_t r = 0; r < x->numel / n; r++) {
                int64_t first = r / inner * n * inner + r % inner;
                double m = -INFINITY, sum = 0;
                for (int64_t i = 0; i < n; i++) m = fmax(m, check_get(x, first + i * inner));
                for (int64_t i = 0; i < n; i++) sum += exp(check_get(x, first + i * inner) - m);
                for (int64_t i = 0; i < n; i++) {
                    double v = check_get(x, first + i * inner) - m;
                    assert_true(fabs(check_get(y, first + i * inner) / (exp(v) / sum) - 1) < 8e-6);
                    assert_true(fabs(check_get(l, first + i * inner) - (v - log(sum))) < 4e-6);
                }
            }
            gr_release(x), gr_release(y), gr_release(l);
        }
    }
    check_ctx_free(ctx);
}

/* Equal rows, wherever they lie and however they are strided, give equal bits. */
static void softmax_of_equal_rows(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 1;
    int64_t dims[2] = {7, 19};
    gr_tensor *row = check_tensor(ctx, GR_F32, CHECK_DIMS(19), -3, 3, &state), *x, *y, *first;
    first = apply(ctx, "softmax", row, NULL);
    x = view(row, 2, dims, (int64_t[]){0, 1}, 0);
    y = apply(ctx, "softmax", x, NULL);
    for (int r = 0; r < 7; r++) assert_memory_equal(y->data + r * 19 * 4, first->data, 19 * 4);
    gr_release(row), gr_release(x), gr_release(y), gr_release(first);
    check_ctx_free(ctx);
}

static void gradients_of_softmax(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 41;
    for (int dim = 0; dim < 3; dim++) {
        dim_test a = {dim};
        gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 3, 2), -1, 1, &state);
        gr_tensor *dy = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 3, 2), -1, 1, &state);
        check_gradients(ctx, "softmax", 1, &x, &a, 1);
        check_gradients(ctx, "log_softmax", 1, &x, &a, 1);
        check_gradients(ctx, "softmax_backward", 2, GRI_TENSORS(dy, x), &a, 3);
        check_gradients(ctx, "log_softmax_backward", 2, GRI_TENSORS(dy, x), &a, 3);
        gr_release(x), gr_release(dy);
    }
    gr_tensor *s = check_values(ctx, GR_F64, (const int64_t[]){-1}, (double[]){3});
    check_gradients(ctx, "softmax", 1, &s, NULL, 1);
    check_gradients(ctx, "log_softmax", 1, &s, NULL, 1);
    gr_release(s);
    check_ctx_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_shape_and_stride),
        cmocka_unit_test(writes_where_it_is_told),
        cmocka_unit_test(nothing_to_reduce),
        cmocka_unit_test(wrong_arguments),
        cmocka_unit_test(argmax_finds_the_first),
        cmocka_unit_test(argmax_at_the_edges),
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(norms_of_any_size),
        cmocka_unit_test(norms_across_scales),
        cmocka_unit_test(same_bits_on_any_thread_count),
        cmocka_unit_test(same_values_on_every_cpu),
        cmocka_unit_test(gradients_of_reductions),
        cmocka_unit_test(gradients_at_kinks),
        cmocka_unit_test(softmax_against_its_definition),
        cmocka_unit_test(softmax_of_equal_rows),
        cmocka_unit_test(gradients_of_softmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
