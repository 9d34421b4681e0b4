/* Losses, normalisation and dropout: values, refusals, gradients of both orders, same bits, no leaks. */
#include "check.h"

typedef struct { int64_t reduction; } word_attrs; /* as the ops have them */
typedef struct { int64_t reduction, ignore_index; double label_smoothing; } class_attrs;
typedef struct { bool training; double eps; } norm_attrs;
typedef struct { double p; int64_t seed, counter; } drop_attrs;

static gr_tensor *apply(gr_ctx *ctx, const char *op, int n, gr_tensor *const *in, const void *attrs) {
    gr_tensor *y = NULL;
    check_ok(ctx, gr_apply(ctx, gr_op_find(op), n, in, attrs, &y));
    return y;
}

static void refused(gr_ctx *ctx, const char *op, int n, gr_tensor *const *in, const void *attrs, gr_status code,
                    const char *text) {
    gr_tensor *y[GRI_MAX_OUT] = {0};
    gr_status s = gr_apply(ctx, gr_op_find(op), n, in, attrs, y);
    assert_int_equal(s, code);
    if (!strstr(gr_errmsg(ctx), text)) fail_msg("\"%s\" does not say \"%s\"", gr_errmsg(ctx), text);
    gr_clear_error(ctx);
}

/* ---- cross entropy -------------------------------------------------------------------------------------- */

/* Row r of x[n,c,inner] as [n * inner, c]. */
static double entropy_of(const gr_tensor *x, const gr_tensor *t, int64_t row, int64_t inner) {
    int64_t c = x->dims[1], first = row / inner * c * inner + row % inner;
    double m = -INFINITY, sum = 0;
    for (int64_t i = 0; i < c; i++) m = fmax(m, check_get(x, first + i * inner));
    for (int64_t i = 0; i < c; i++) sum += exp(check_get(x, first + i * inner) - m);
    return log(sum) + m - check_get(x, first + ((int64_t)check_get(t, row) - 1) * inner);
}

static void cross_entropy_values(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    uint64_t state = 1;
    static const int64_t shapes[][3] = {{1, 1, 1}, {5, 10, 1}, {64, 10, 1}, {300, 33, 1}, {2, 5, 7}, {3, 1000, 2}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        int64_t n = shapes[k][0], c = shapes[k][1], inner = shapes[k][2], rank = inner > 1 ? 3 : 2;
        gr_tensor *x = check_tensor(ctx, GR_F32, (int64_t[]){n, c, rank == 3 ? inner : -1, -1}, -10, 10, &state);
        gr_tensor *t = check_tensor(ctx, k % 2 ? GR_I64 : GR_U8, (int64_t[]){n, rank == 3 ? inner : -1, -1}, 0, 0,
                                    &state);
        for (int64_t i = 0; i < t->numel; i++)
            check_put(t, i, 1 + floor(check_random(&state) * (double)(c < 255 ? c : 255)));
        double sum = 0;
        gr_tensor *in[] = {x, t}, *y = apply(ctx, "cross_entropy", 2, in, &(class_attrs){2, -100, 0});
        assert_true(gri_same_dims(y->rank, y->dims, t->rank, t->dims));
        for (int64_t r = 0; r < t->numel; r++) {
            double want = entropy_of(x, t, r, inner);
            assert_true(fabs(check_get(y, r) - want) <= 4e-6 * fmax(1, want));
            sum += want;
        }
        gr_release(y);
        y = apply(ctx, "cross_entropy", 2, in, &(class_attrs){1, -100, 0});
        check_close(y, 1, &sum, 1e-6);
        gr_release(y);
        sum /= (double)t->numel;
        y = apply(ctx, "cross_entropy", 2, in, NULL);
        check_close(y, 1, &sum, 1e-6);
        gr_release(y), gr_release(x), gr_release(t);
    }
    check_ctx_free(ctx);
}

static void cross_entropy_refuses(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 1;
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(3, 4), -1, 1, &state);
    gr_tensor *f = check_tensor(ctx, GR_F32, CHECK_DIMS(3), 1, 1, &state), *t, *in[2] = {x, f};
    refused(ctx, "cross_entropy", 2, in, NULL, GR_ERR_DTYPE, "target is f32[3], expected class numbers as i64 or u8");
    in[1] = t = check_tensor(ctx, GR_I64, CHECK_DIMS(3, 1), 1, 1, &state);
    refused(ctx, "cross_entropy", 2, in, NULL, GR_ERR_SHAPE,
            "x is f32[3,4], so target must be [3], one class for each row, but it is i64[3,1]");
    gr_release(t);
    in[1] = t = check_values(ctx, GR_I64, CHECK_DIMS(3), (double[]){4, 0, 1});
    refused(ctx, "cross_entropy", 2, in, NULL, GR_ERR_INDEX,
            "target at [2] is 0, expected a class from 1 to 4: class targets count from 1 here, 0-based labels "
            "need + 1");
    gr_release(t);
    in[1] = t = check_values(ctx, GR_I64, CHECK_DIMS(3), (double[]){4, 1, 5});
    gr_tensor *y = NULL;
    assert_int_equal(gr_apply(ctx, gr_op_find("cross_entropy"), 2, in, NULL, &y), GR_ERR_INDEX);
    assert_string_equal(gr_errmsg(ctx), "cross_entropy: target at [3] is 5, expected a class from 1 to 4");
    gr_clear_error(ctx);
    in[0] = t;
    refused(ctx, "cross_entropy", 2, in, NULL, GR_ERR_DTYPE, "input 1 is i64[3]");
    gr_release(t), gr_release(f), gr_release(x);
    check_ctx_free(ctx);
}

static void cross_entropy_of_nothing(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 1;
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(0, 4), -1, 1, &state);
    gr_tensor *t = check_tensor(ctx, GR_I64, CHECK_DIMS(0), 1, 1, &state), *in[2] = {x, t}, *y;
    for (int r = 0; r < 2; r++) {
        y = apply(ctx, "cross_entropy", 2, in, &(class_attrs){r, -100, 0});
        check_close(y, 1, (double[]){r == 0 ? NAN : 0}, 0);
        gr_release(y);
    }
    gr_release(x), gr_release(t);
    check_ctx_free(ctx);
}

static void cross_entropy_counts_from_the_base(void **unused) {
    (void)unused;
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.index_base = 0;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    gr_tensor *x = check_values(ctx, GR_F64, CHECK_DIMS(1, 2), (double[]){0, 1});
    gr_tensor *t = check_values(ctx, GR_I64, CHECK_DIMS(1), (double[]){0}), *in[2] = {x, t}, *y;
    y = apply(ctx, "cross_entropy", 2, in, NULL);
    check_close(y, 1, (double[]){1.3132616875182228}, 1e-15);
    gr_release(y);
    check_gradients(ctx, "cross_entropy", 2, in, NULL, 1);
    check_put(t, 0, 2);
    refused(ctx, "cross_entropy", 2, in, NULL, GR_ERR_INDEX, "target at [0] is 2, expected a class from 0 to 1");
    gr_release(x), gr_release(t);
    check_ctx_free(ctx);
}

static void gradients_of_cross_entropy(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 7;
    for (int64_t r = 0; r < 3; r++) {
        class_attrs a = {r, -100, 0};
        gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(3, 4), -1, 1, &state);
        gr_tensor *t = check_values(ctx, GR_U8, CHECK_DIMS(3), (double[]){4, 1, 2}), *in[3] = {x, t};
        check_gradients(ctx, "cross_entropy", 2, in, &a, 1);
        gr_release(x), gr_release(t);
        in[0] = x = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 3, 2), -1, 1, &state);
        in[1] = t = check_values(ctx, GR_I64, CHECK_DIMS(2, 2), (double[]){3, 1, 2, 2});
        check_gradients(ctx, "cross_entropy", 2, in, &a, 1);
        gr_tensor *dy = check_tensor(ctx, GR_F64, r == 2 ? CHECK_DIMS(2, 2) : (const int64_t[]){-1}, -1, 1, &state);
        check_gradients(ctx, "cross_entropy_backward", 3, GRI_TENSORS(dy, x, t), &a, 3);
        gr_release(x), gr_release(t), gr_release(dy);
    }
    gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(4), -1, 1, &state);
    gr_tensor *t = check_values(ctx, GR_I64, (const int64_t[]){-1}, (double[]){3});
    check_gradients(ctx, "cross_entropy", 2, GRI_TENSORS(x, t), NULL, 1);
    gr_release(x), gr_release(t);
    check_ctx_free(ctx);
}

/* ---- mean squared error --------------------------------------------------------------------------------- */

static void mse_loss_values(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    uint64_t state = 5;
    static const int64_t sizes[] = {1, 17, 1000, 32768, 32769, 500000};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(sizes[k]), -1, 1, &state);
        gr_tensor *y = check_tensor(ctx, GR_F32, CHECK_DIMS(sizes[k]), -1, 1, &state), *in[2] = {x, y}, *loss;
        double sum = 0;
        for (int64_t i = 0; i < sizes[k]; i++) {
            float d = (float)check_get(x, i) - (float)check_get(y, i);
            sum += (double)d * d;
        }
        loss = apply(ctx, "mse_loss", 2, in, &(word_attrs){1});
        assert_true(fabs(check_get(loss, 0) / sum - 1) < 1e-7);
        gr_release(loss);
        loss = apply(ctx, "mse_loss", 2, in, NULL);
        assert_true(fabs(check_get(loss, 0) / (sum / (double)sizes[k]) - 1) < 1e-7);
        gr_release(loss), gr_release(x), gr_release(y);
    }
    gr_tensor *a = check_tensor(ctx, GR_F32, CHECK_DIMS(5), 0, 1, &state);
    gr_tensor *b = check_tensor(ctx, GR_F32, CHECK_DIMS(5, 1), 0, 1, &state);
    refused(ctx, "mse_loss", 2, GRI_TENSORS(a, b), NULL, GR_ERR_SHAPE,
            "x is f32[5], but y is f32[5,1]: the shapes must be equal");
    gr_release(a), gr_release(b);
    check_ctx_free(ctx);
}

static void gradients_of_mse_loss(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 7;
    for (int64_t r = 0; r < 3; r++) {
        gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(3, 2), -1, 1, &state);
        gr_tensor *y = check_tensor(ctx, GR_F64, CHECK_DIMS(3, 2), -1, 1, &state), *in[2] = {x, y};
        check_gradients(ctx, "mse_loss", 2, in, &(word_attrs){r}, 3);
        gr_release(x), gr_release(y);
    }
    gr_tensor *g = check_tensor(ctx, GR_F64, CHECK_DIMS(3, 1), -1, 1, &state);
    gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(3, 2), -1, 1, &state);
    gr_tensor *y = check_tensor(ctx, GR_F64, CHECK_DIMS(2), -1, 1, &state);
    check_gradients(ctx, "mse_loss_backward", 3, GRI_TENSORS(g, x, y), &(double){0.7}, 7);
    gr_release(g), gr_release(x), gr_release(y);
    check_ctx_free(ctx);
}

/* ---- batch norm ----------------------------------------------------------------------------------------- */

static void batch_norm_values(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    uint64_t state = 5;
    static const int64_t shapes[][3] = {{2, 1, 1}, {50, 3, 1}, {64, 300, 1}, {7, 40, 4}, {3, 5, 8}, {4, 3, 100},
                                        {1, 2, 2}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        const int64_t *s = shapes[k];
        gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(s[0], s[1], s[2]), 99, 101, &state);
        gr_tensor *w = check_tensor(ctx, GR_F32, CHECK_DIMS(s[1]), -1, 1, &state);
        gr_tensor *b = check_tensor(ctx, GR_F32, CHECK_DIMS(s[1]), -1, 1, &state), *out[3];
        check_ok(ctx, gr_apply(ctx, gr_op_find("batch_norm"), 3, GRI_TENSORS(x, w, b), &(norm_attrs){true, 1e-5},
                               out));
        for (int64_t c = 0; c < s[1]; c++) {
            double mean = 0, var = 0, m = (double)(s[0] * s[2]);
            for (int pass = 0; pass < 3; pass++) {
                for (int64_t i = 0; i < s[0] * s[2]; i++) {
                    int64_t at = i / s[2] * s[1] * s[2] + c * s[2] + i % s[2];
                    double v = check_get(x, at), rstd = 1 / sqrt(var + 1e-5);
                    if (pass == 0) mean += v / m;
                    if (pass == 1) var += (v - mean) * (v - mean) / m;
                    if (pass < 2) continue;
                    double want = (v - mean) * rstd * check_get(w, c) + check_get(b, c);
                    assert_true(fabs(check_get(out[0], at) - want) <= 1e-5 * fmax(1, rstd));
                }
            }
            assert_true(fabs(check_get(out[1], c) / mean - 1) < 1e-7);
            assert_true(fabs(check_get(out[2], c) * sqrt(var + 1e-5) - 1) < 1e-6);
        }
        for (int i = 0; i < 3; i++) gr_release(out[i]);
        gr_release(x), gr_release(w), gr_release(b);
    }
    check_ctx_free(ctx);
}

/* A variance of 1e-6 under a mean of 1e6 keeps its digits. */
static void batch_norm_under_a_large_mean(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t none = 0;
    for (int64_t inner = 1; inner <= 100; inner += 99) {
        gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(100, 1, inner), 0, 0, &none), *out[3];
        for (int64_t i = 0; i < x->numel; i++) check_put(x, i, 1e6 + (i % 2 ? 1e-3 : -1e-3));
        check_ok(ctx, gr_apply(ctx, gr_op_find("batch_norm"), 1, &x, &(norm_attrs){true, 0}, out));
        assert_true(fabs(check_get(out[2], 0) * 1e-3 - 1) < 1e-6);
        for (int i = 0; i < 3; i++) gr_release(out[i]);
        gr_release(x);
    }
    check_ctx_free(ctx);
}

static void batch_norm_refuses(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 5;
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(1, 3), 0, 1, &state);
    gr_tensor *w = check_tensor(ctx, GR_F32, CHECK_DIMS(2), 0, 1, &state), *in[3] = {x, NULL, NULL};
    refused(ctx, "batch_norm", 3, in, &(norm_attrs){true, 1e-5}, GR_ERR_SHAPE,
            "x is f32[1,3]: the statistics of a batch need at least 2");
    refused(ctx, "batch_norm", 3, in, NULL, GR_ERR_ARG, "running_mean and running_var are needed unless training");
    in[1] = w;
    refused(ctx, "batch_norm", 3, in, &(norm_attrs){true, 1e-5}, GR_ERR_SHAPE,
            "weight is f32[2], expected [3], one for each channel");
    in[0] = w;
    refused(ctx, "batch_norm", 1, in, &(norm_attrs){true, 1e-5}, GR_ERR_SHAPE,
            "x is f32[2], expected [n,channels,...]");
    gr_release(x), gr_release(w);
    check_ctx_free(ctx);
}

static void gradients_of_batch_norm(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 17;
    static const int64_t shapes[][4] = {{4, 2, -1}, {2, 2, 2, -1}, {2, 2, 9, -1}};
    for (int k = 0; k < 3; k++) {
        gr_tensor *x = check_tensor(ctx, GR_F64, shapes[k], -1, 1, &state);
        gr_tensor *dy = check_tensor(ctx, GR_F64, shapes[k], -1, 1, &state), *v[4];
        for (int i = 0; i < 4; i++) v[i] = check_tensor(ctx, GR_F64, CHECK_DIMS(2), 0.5, 1.5, &state);
        for (int training = 0; training < 2; training++) {
            norm_attrs a = {training, 0.1};
            bool t = training;
            check_gradients(ctx, "batch_norm", 5, GRI_TENSORS(x, v[0], v[1], v[2], v[3]), &a, training ? 7 : 31);
            check_gradients(ctx, "batch_norm", 5, GRI_TENSORS(x, NULL, NULL, v[2], v[3]), &a, training ? 1 : 25);
            check_gradients(ctx, "batch_norm_backward", 5, GRI_TENSORS(dy, x, v[0], v[1], v[2]), &t, 31);
        }
        for (int i = 0; i < 4; i++) gr_release(v[i]);
        gr_release(x), gr_release(dy);
    }
    check_ctx_free(ctx);
}

/* Two steps of training by hand, then evaluation. The layout of the attributes is layers/batch_norm.c's. */
typedef struct { int64_t num_features; double eps, momentum; bool affine, track_running_stats; } layer_attrs;

static void batch_norm_layer(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    gr_layer *l = NULL;
    const gr_layer_kind *kind = gr_layer_kind_find("BatchNorm1d");
    layer_attrs a = {1, 1e-5, 0.1, true, true};
    check_ok(ctx, gr_layer_new(ctx, kind, &a, &l));
    const char *name;
    gr_tensor *x = check_values(ctx, GR_F32, CHECK_DIMS(3, 1), (double[]){1, 3, 8}), *y, *wide;
    gr_tensor *mean = gr_layer_buffer_peek(l, 0, &name), *var = gr_layer_buffer_peek(l, 1, &name);
    static const double means[] = {0.4, 0.76}, vars[] = {2.2, 3.28}; /* the batch: mean 4, unbiased variance 13 */
    for (int step = 0; step < 2; step++) {
        check_ok(ctx, gr_layer_forward(l, 1, &x, 1, &y));
        check_close(mean, 1, &means[step], 1e-6);
        check_close(var, 1, &vars[step], 1e-6);
        check_close(y, 3, (double[]){-1.0190488, -0.33968294, 1.3587318}, 1e-6);
        gr_release(y);
    }
    check_ok(ctx, gr_layer_train(l, false));
    check_ok(ctx, gr_layer_forward(l, 1, &x, 1, &y));
    for (int i = 0; i < 3; i++)
        assert_true(fabs(check_get(y, i) - (check_get(x, i) - 0.76) / sqrt(3.28 + 1e-5)) < 1e-6);
    check_close(mean, 1, &means[1], 1e-6);
    gr_release(y);
    wide = check_values(ctx, GR_F32, CHECK_DIMS(1, 2), (double[]){1, 2});
    assert_int_equal(gr_layer_forward(l, 1, &wide, 1, &y), GR_ERR_SHAPE);
    assert_non_null(strstr(gr_errmsg(ctx), "input f32[1,2] has 2 channels, expected 1"));
    gr_clear_error(ctx);
    gr_release(l), gr_release(x), gr_release(wide);
    check_ctx_free(ctx);
}

/* ---- dropout -------------------------------------------------------------------------------------------- */

static void dropout_keeps_its_share(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(2, NULL);
    uint64_t state = 1;
    static const double ps[] = {0, 0.1, 0.5, 0.9, 1};
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(100003), 1, 1, &state), *y, *z;
    for (int k = 0; k < 5; k++) {
        drop_attrs a = {ps[k], 3, 4};
        double kept = 0;
        y = apply(ctx, "dropout", 1, &x, &a);
        for (int64_t i = 0; i < y->numel; i++) {
            double v = check_get(y, i);
            assert_true(v == 0 || fabs(v * (1 - ps[k]) - 1) < 1e-6);
            kept += v != 0;
        }
        double n = (double)y->numel, want = n * (1 - ps[k]);
        assert_true(fabs(kept - want) <= 5 * sqrt(want * ps[k]));
        z = apply(ctx, "dropout", 1, &x, &a);
        check_same_bits(y, z);
        gr_release(z);
        a.counter++;
        z = apply(ctx, "dropout", 1, &x, &a);
        if (ps[k] > 0 && ps[k] < 1) assert_true(memcmp(y->data, z->data, 400) != 0);
        gr_release(y), gr_release(z);
    }
    gr_release(x);
    check_ctx_free(ctx);
}

static void dropout_drops_the_same_everywhere(void **unused) {
    (void)unused;
    gr_ctx *a = check_ctx(1, "generic"), *b = check_ctx(2, NULL);
    uint64_t sa = 1, sb = 1;
    gr_tensor *x = check_tensor(a, GR_F64, CHECK_DIMS(70001), 1, 2, &sa), *u, *v;
    gr_tensor *y = check_tensor(b, GR_F32, CHECK_DIMS(70001), 1, 2, &sb);
    u = apply(a, "dropout", 1, &x, &(drop_attrs){0.3, 9, 8});
    v = apply(b, "dropout", 1, &y, &(drop_attrs){0.3, 9, 8});
    for (int64_t i = 0; i < u->numel; i++) assert_true((check_get(u, i) == 0) == (check_get(v, i) == 0));
    gr_release(x), gr_release(y), gr_release(u), gr_release(v);
    check_ctx_free(a);
    check_ctx_free(b);
}

static void gradients_of_dropout(void **unused) {
    (void)unused;
    gr_ctx *ctx = check_ctx(1, NULL);
    uint64_t state = 1;
    gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(3, 30), -1, 1, &state);
    check_gradients(ctx, "dropout", 1, &x, &(drop_attrs){0.4, 1, 2}, 1);
    gr_release(x);
    check_ctx_free(ctx);
}

/* ---- all of them ---------------------------------------------------------------------------------------- */

/* One training step's worth of these ops on a context. The results of each are in y. */
static void run_all(gr_ctx *ctx, gr_dtype dtype, gr_tensor **y) {
    uint64_t state = 77;
    gr_tensor *x = check_tensor(ctx, dtype, CHECK_DIMS(128, 40, 25), -2, 2, &state), *flat, *g, *out[3], *sum;
    gr_tensor *t = check_tensor(ctx, GR_I64, CHECK_DIMS(128, 25), 1, 1, &state);
    gri_shape_attrs shape = {.shape = {.n = 2, .v = {128, 1000}}};
    int n = 0;
    for (int64_t i = 0; i < t->numel; i++) check_put(t, i, (double)(1 + i % 40));
    check_ok(ctx, gr_tensor_set_requires_grad(x, true));
    check_ok(ctx, gr_apply(ctx, gr_op_find("reshape"), 1, &x, &shape, &flat));
    static const char *const each[] = {"softmax", "log_softmax", "mse_loss", "cross_entropy", "dropout", "batch_norm",
                                       "batch_norm"};
    for (int k = 0; k < 7; k++) {
        gr_tensor *in[] = {k == 6 ? flat : x, k == 2 ? x : t};
        drop_attrs drop = {0.5, 1, 2};
        norm_attrs norm = {true, 1e-5};
        const void *attrs = k == 4 ? (void *)&drop : k > 4 ? (void *)&norm : NULL;
        check_ok(ctx, gr_apply(ctx, gr_op_find(each[k]), k == 2 || k == 3 ? 2 : 1, in, attrs, out));
        gr_tensor *square = apply(ctx, "mul", 2, GRI_TENSORS(out[0], out[0]), NULL);
        sum = apply(ctx, "sum", 1, &square, NULL);
        check_ok(ctx, gr_grad(1, &sum, NULL, 1, &x, NULL, &g));
        y[n++] = g;
        gr_tensor *plain;
        check_ok(ctx, gr_tensor_detach(out[0], &plain));
        y[n++] = plain;
        gr_release(square), gr_release(sum);
        for (int i = 0; i < (k > 4 ? 3 : 1); i++) gr_release(out[i]);
    }
    gr_release(flat), gr_release(x), gr_release(t);
}
#define RUN_ALL 14

static void same_bits_on_any_thread_count(void **unused) {
    (void)unused;
    gr_ctx *one = check_ctx(1, NULL), *two = check_ctx(2, NULL);
    gr_tensor *a[RUN_ALL], *b[RUN_ALL];
    run_all(one, GR_F32, a);
    run_all(two, GR_F32, b);
    for (int i = 0; i < RUN_ALL; i++) {
        check_same_bits(a[i], b[i]);
        gr_release(a[i]), gr_release(b[i]);
    }
    check_ctx_free(one);
    check_ctx_free(two);
}

static void same_values_on_every_cpu(void **unused) {
    (void)unused;
    static const char *const isas[] = {"generic", "avx2", "avx512"};
    gr_ctx *exact = check_ctx(1, "generic");
    gr_tensor *want[RUN_ALL], *got[RUN_ALL];
    run_all(exact, GR_F64, want);
    for (int dtype = GR_F32; dtype <= GR_F64; dtype++) {
        for (int k = 0; k < 3; k++) {
            gr_config cfg;
            gr_ctx *ctx;
            gr_config_init(&cfg);
            cfg.isa = isas[k];
            if (gr_ctx_new(&cfg, &ctx) != GR_OK) continue; /* this machine has no such thing */
            run_all(ctx, (gr_dtype)dtype, got);
            for (int i = 0; i < RUN_ALL; i++) {
                for (int64_t e = 0; e < got[i]->numel; e++) {
                    double w = check_get(want[i], e), v = check_get(got[i], e);
                    assert_true(fabs(v - w) <= (dtype == GR_F32 ? 3e-5 : 1e-11) * fmax(1, fabs(w)));
                }
                gr_release(got[i]);
            }
            check_ctx_free(ctx);
        }
    }
    for (int i = 0; i < RUN_ALL; i++) gr_release(want[i]);
    check_ctx_free(exact);
}

/* An allocator that gives out `left` pieces of memory and then no more. */
static void *sparing(void *ud, void *p, size_t osize, size_t nsize) {
    int *left = ud;
    (void)osize;
    if (nsize == 0) {
        free(p);
        return NULL;
    }
    return (*left)-- > 0 ? realloc(p, nsize) : NULL;
}

/* Forward and backward, first and second order, of one op; anything may fail. */
static gr_status attempt(gr_ctx *ctx, const char *op, int n, gr_tensor **in, const void *attrs) {
    gr_tensor *out[GRI_MAX_OUT] = {0}, *g = NULL, *sum = NULL, *h = NULL;
    gr_backward_options create = {.create_graph = true}, unused = {.allow_unused = true};
    gr_status s = gr_tensor_set_requires_grad(in[0], true);
    if (s == GR_OK) s = gr_apply(ctx, gr_op_find(op), n, in, attrs, out);
    if (s == GR_OK) s = gr_apply(ctx, gr_op_find("norm"), 1, out, NULL, &sum);
    if (s == GR_OK) s = gr_grad(1, &sum, NULL, 1, in, &create, &g);
    gr_release(sum);
    sum = NULL;
    if (s == GR_OK) s = gr_apply(ctx, gr_op_find("norm"), 1, &g, NULL, &sum);
    if (s == GR_OK) s = gr_grad(1, &sum, NULL, 1, in, &unused, &h);
    for (int i = 0; i < GRI_MAX_OUT; i++) gr_release(out[i]);
    gr_release(g), gr_release(sum), gr_release(h);
    return s;
}

/* With only so many pieces of memory: fails cleanly with GR_ERR_MEMORY until there are enough. Returns success. */
static bool attempt_with(int pieces, const char *op, const void *attrs) {
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.alloc = sparing;
    cfg.alloc_ud = &pieces;
    cfg.threads = 1;
    if (gr_ctx_new(&cfg, &ctx) != GR_OK) return false;
    int64_t dims[2] = {70000, 3}, rows = dims[0];
    gr_tensor *x = NULL, *t = NULL;
    gr_status s = gr_tensor_new(ctx, GR_F32, 2, dims, &x);
    bool classes = strcmp(op, "cross_entropy") == 0;
    if (s == GR_OK && classes) s = gr_tensor_new(ctx, GR_U8, 1, &rows, &t);
    if (s == GR_OK && !classes) s = gr_tensor_new(ctx, GR_F32, 2, dims, &t);
    if (s == GR_OK) s = gr_tensor_fill(t, 1);
    int n = classes || strcmp(op, "mse_loss") == 0 ? 2 : 1;
    if (s == GR_OK) s = attempt(ctx, op, n, (gr_tensor *[]){x, t}, attrs);
    if (s != GR_OK) assert_int_equal(s, GR_ERR_MEMORY);
    gr_release(x), gr_release(t);
    check_ctx_free(ctx);
    return s == GR_OK;
}

static void memory_runs_out(void **unused) {
    (void)unused;
    static const char *const each[] = {"sum", "mean", "amax", "norm", "softmax", "log_softmax", "mse_loss",
                                       "cross_entropy", "dropout", "batch_norm"};
    for (int k = 0; k < 10; k++) {
        drop_attrs drop = {0.5, 1, 2};
        norm_attrs norm = {true, 1e-5};
        const void *attrs = k == 8 ? (void *)&drop : k == 9 ? (void *)&norm : NULL;
        int pieces = 0;
        while (!attempt_with(pieces, each[k], attrs)) pieces++;
        assert_true(pieces > 5);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cross_entropy_values),
        cmocka_unit_test(cross_entropy_refuses),
        cmocka_unit_test(cross_entropy_of_nothing),
        cmocka_unit_test(cross_entropy_counts_from_the_base),
        cmocka_unit_test(gradients_of_cross_entropy),
        cmocka_unit_test(mse_loss_values),
        cmocka_unit_test(gradients_of_mse_loss),
        cmocka_unit_test(batch_norm_values),
        cmocka_unit_test(batch_norm_under_a_large_mean),
        cmocka_unit_test(batch_norm_refuses),
        cmocka_unit_test(gradients_of_batch_norm),
        cmocka_unit_test(batch_norm_layer),
        cmocka_unit_test(dropout_keeps_its_share),
        cmocka_unit_test(dropout_drops_the_same_everywhere),
        cmocka_unit_test(gradients_of_dropout),
        cmocka_unit_test(same_bits_on_any_thread_count),
        cmocka_unit_test(same_values_on_every_cpu),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
