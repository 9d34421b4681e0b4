/* matmul and linear against plain loops in doubles: vectors, matrices, batches that broadcast, strided operands and
 * destinations, set and added; derivatives by differences; the same bits on any number of threads; messages. */
#include "check.h"

#include <stdio.h>

static gr_ctx *ctx;

static int open_ctx(void **state) {
    (void)state;
    ctx = check_ctx(2, NULL);
    return 0;
}

static int close_ctx(void **state) {
    (void)state;
    return gr_ctx_free(ctx) != 0;
}

static uint64_t seed = 3;
static int64_t between(int64_t lo, int64_t hi) { return lo + (int64_t)(check_random(&seed) * (double)(hi - lo + 1)); }

/* Random elements; way 0 row-major, 1 the last two dims swapped in memory, 2 spread with gaps, 3 one element repeated
 * over the first dim. */
static gr_tensor *random_tensor(gr_dtype type, int rank, const int64_t *dims, int way) {
    int64_t order[GR_MAX_RANK], strides[GR_MAX_RANK], room = 1;
    gr_tensor *base, *t;
    for (int d = 0; d < rank; d++) order[d] = d;
    if (way == 1 && rank > 1) order[rank - 1] = rank - 2, order[rank - 2] = rank - 1;
    for (int d = rank - 1; d >= 0; d--) {
        int64_t at = order[d];
        strides[at] = way == 3 && at == 0 && rank > 1 ? 0 : room * (way == 2 ? 2 : 1);
        if (strides[at]) room = strides[at] * (dims[at] ? dims[at] : 1);
    }
    check_ok(ctx, gr_tensor_new(ctx, type, 1, &room, &base));
    for (int64_t i = 0; i < room; i++) check_put(base, i, 2 * check_random(&seed) - 1);
    check_ok(ctx, gri_tensor_view(base, rank, dims, strides, 0, &t));
    gr_release(base);
    return t;
}

static gr_status run_into(const gr_op *op, int n, gr_tensor *const *in, gri_mode mode, gr_tensor *y) {
    gri_call c = {.ctx = ctx, .op = op, .n_in = n, .n_out = 1, .in = in, .mode = mode};
    GR_TRY(gri_check(&c));
    assert_true(gri_same_dims(c.spec[0].rank, c.spec[0].dims, y->rank, y->dims));
    c.out[0] = y;
    return gri_run(&c);
}

/* op into y, set and then added: want, then 2 * want. */
static void check_op(const gr_op *op, int n, gr_tensor *const *in, gr_tensor *y, const double *want, double tol) {
    double *twice = malloc(((size_t)y->numel + 1) * sizeof *twice);
    for (int64_t i = 0; i < y->numel; i++) twice[i] = 2 * want[i];
    check_ok(ctx, run_into(op, n, in, GRI_SET, y));
    check_close(y, y->numel, want, tol);
    check_ok(ctx, run_into(op, n, in, GRI_ADD, y));
    check_close(y, y->numel, twice, tol);
    free(twice);
}

/* ---- matmul -------------------------------------------------------------------------------------------------- */

/* Where element `at` of the product's batch lies in an operand with these leading dims. */
static int64_t batch_at(int64_t at, int batch, const int64_t *dims, int lead, const int64_t *own) {
    int64_t flat = 0, step = 1;
    for (int d = batch - 1; d >= 0; d--) {
        int64_t index = at % dims[d], mine = d - (batch - lead);
        at /= dims[d];
        if (mine < 0) continue;
        flat += own[mine] == 1 ? 0 : index * step;
        step *= own[mine];
    }
    return flat;
}

static void check_matmul(gr_tensor *a, gr_tensor *b, int way) {
    bool row = a->rank == 1, column = b->rank == 1;
    int64_t m = row ? 1 : a->dims[a->rank - 2], k = a->dims[a->rank - 1], n = column ? 1 : b->dims[b->rank - 1];
    int la = row ? 0 : a->rank - 2, lb = column ? 0 : b->rank - 2, rank = la;
    int64_t dims[GR_MAX_RANK];
    memcpy(dims, a->dims, sizeof dims);
    assert_true(gri_broadcast(&rank, dims, lb, b->dims));
    int64_t count = gri_product(rank, dims);
    double *want = calloc((size_t)(count * m * n) + 1, sizeof *want);
    for (int64_t p = 0; p < count; p++) {
        int64_t pa = batch_at(p, rank, dims, la, a->dims), pb = batch_at(p, rank, dims, lb, b->dims);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++)
                for (int64_t e = 0; e < k; e++)
                    want[(p * m + i) * n + j] +=
                        check_get(a, (pa * m + i) * k + e) * check_get(b, (pb * k + e) * n + j);
    }
    if (!row) dims[rank++] = m;
    if (!column) dims[rank++] = n;
    gr_tensor *y = random_tensor((gr_dtype)a->dtype, rank, dims, way);
    check_op(&gri_op_matmul, 2, GRI_TENSORS(a, b), y, want, a->dtype == GR_F32 ? 1e-5 : 1e-14);
    gr_release(y);
    free(want);
}

static void products_are_their_sums(void **state) {
    (void)state;
    for (int i = 0; i < 600; i++) {
        int64_t batch[3] = {between(1, 3), between(1, 3), between(1, 4)}, a[5], b[5];
        int la = (int)between(0, 3), lb = (int)between(0, 3), ra = 0, rb = 0;
        int64_t m = between(1, 9), k = between(0, 9) ? between(1, 20) : 0, n = between(1, 40);
        for (int d = 3 - la; d < 3; d++) a[ra++] = between(0, 2) ? batch[d] : 1;
        for (int d = 3 - lb; d < 3; d++) b[rb++] = between(0, 2) ? batch[d] : 1;
        if (la || between(0, 3)) a[ra++] = m;
        if (lb || between(0, 3)) b[rb + 1] = n, b[rb] = k, rb += 2;
        else b[rb++] = k;
        a[ra++] = k;
        gr_dtype type = i % 2 ? GR_F32 : GR_F64;
        gr_tensor *x = random_tensor(type, ra, a, (int)between(0, 3));
        gr_tensor *z = random_tensor(type, rb, b, (int)between(0, 3));
        check_matmul(x, z, (int)between(0, 2));
        gr_release(x), gr_release(z);
    }
}

static void empty_products(void **state) {
    (void)state;
    static const int64_t dims[][2][4] = {{{0, 3, -1}, {3, 2, -1}}, {{2, 0, -1}, {0, 3, -1}},
                                         {{0, 2, 3, -1}, {3, 2, -1}},
                                         {{2, 3, -1}, {0, 3, 2, -1}}, {{0, -1}, {0, -1}}, {{4, 0, -1}, {0, -1}}};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        gr_tensor *a = check_tensor(ctx, GR_F32, dims[i][0], -1, 1, &seed);
        gr_tensor *b = check_tensor(ctx, GR_F32, dims[i][1], -1, 1, &seed);
        check_matmul(a, b, 0);
        gr_release(a), gr_release(b);
    }
}

static void matmul_derivatives(void **state) {
    (void)state;
    static const int64_t dims[][2][5] = {
        {{3, -1}, {3, -1}}, {{2, 3, -1}, {3, -1}}, {{3, -1}, {3, 2, -1}}, {{2, 3, -1}, {3, 4, -1}},
        {{2, 3, 4, -1}, {4, 2, -1}}, {{2, 3, -1}, {2, 3, 4, -1}}, {{2, 1, 2, 3, -1}, {3, 3, 2, -1}},
        {{3, -1}, {2, 3, 2, -1}}, {{2, 2, 3, -1}, {3, -1}}, {{2, 2, 1, 3, -1}, {3, -1}},
        {{2, 2, 3, -1}, {2, 3, 1, -1}}};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        gr_tensor *a = check_tensor(ctx, GR_F64, dims[i][0], -1, 1, &seed);
        gr_tensor *b = check_tensor(ctx, GR_F64, dims[i][1], -1, 1, &seed);
        check_gradients(ctx, "matmul", 2, GRI_TENSORS(a, b), NULL, 3);
        check_gradients(ctx, "matmul", 2, GRI_TENSORS(a, b), NULL, 1);
        check_gradients(ctx, "matmul", 2, GRI_TENSORS(a, b), NULL, 2);
        gr_release(a), gr_release(b);
    }
}

/* ---- linear ---------------------------------------------------------------------------------------------------- */

/* All operands and results of linear, and what the results should be. */
typedef struct layer {
    gr_tensor *x, *w, *b, *y, *dx, *dw, *dy;
    double *want_y, *want_dx, *want_dw;
} layer;

static layer random_layer(gr_dtype type) {
    int64_t in = between(0, 12) ? between(1, 30) : 0, out = between(1, 20);
    int64_t dims[4] = {between(0, 12) ? between(1, 4) : 0, between(1, 3), between(1, 4)}, weight[2] = {out, in};
    int lead = (int)between(0, 3);
    layer l = {.w = random_tensor(type, 2, weight, (int)between(0, 3))};
    l.dw = random_tensor(type, 2, weight, (int)between(0, 2));
    if (between(0, 1)) l.b = random_tensor(type, 1, &out, (int)between(0, 2));
    dims[lead] = in;
    l.x = random_tensor(type, lead + 1, dims, (int)between(0, 3));
    l.dx = random_tensor(type, lead + 1, dims, (int)between(0, 2));
    dims[lead] = out;
    l.y = random_tensor(type, lead + 1, dims, (int)between(0, 2));
    l.dy = random_tensor(type, lead + 1, dims, (int)between(0, 3));
    l.want_y = calloc((size_t)l.y->numel + 1, sizeof *l.want_y);
    l.want_dx = calloc((size_t)l.x->numel + 1, sizeof *l.want_dx);
    l.want_dw = calloc((size_t)l.w->numel + 1, sizeof *l.want_dw);
    return l;
}

static void sum_layer(const layer *l) {
    int64_t out = l->w->dims[0], in = l->w->dims[1], rows = l->y->numel / out;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++) {
            double dy = check_get(l->dy, r * out + o);
            if (l->b) l->want_y[r * out + o] = check_get(l->b, o);
            for (int64_t e = 0; e < in; e++) {
                double x = check_get(l->x, r * in + e), w = check_get(l->w, o * in + e);
                l->want_y[r * out + o] += x * w;
                l->want_dx[r * in + e] += dy * w;
                l->want_dw[o * in + e] += dy * x;
            }
        }
}

static void linear_and_its_gradients_are_their_sums(void **state) {
    (void)state;
    for (int i = 0; i < 300; i++) {
        double tol = i % 2 ? 2e-5 : 1e-14;
        layer l = random_layer(i % 2 ? GR_F32 : GR_F64);
        sum_layer(&l);
        check_op(&gri_op_linear, 3, GRI_TENSORS(l.x, l.w, l.b), l.y, l.want_y, tol);
        check_op(&gri_op_linear_input_grad, 2, GRI_TENSORS(l.dy, l.w), l.dx, l.want_dx, tol);
        check_op(&gri_op_linear_weight_grad, 2, GRI_TENSORS(l.dy, l.x), l.dw, l.want_dw, tol);
        free(l.want_y), free(l.want_dx), free(l.want_dw);
        gr_release(l.x), gr_release(l.w), gr_release(l.b), gr_release(l.y);
        gr_release(l.dx), gr_release(l.dw), gr_release(l.dy);
    }
}

static void linear_derivatives(void **state) {
    (void)state;
    static const int64_t dims[][2][4] = {{{3, -1}, {2, -1}}, {{4, 3, -1}, {4, 2, -1}},
                                         {{2, 2, 3, -1}, {2, 2, 2, -1}}};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        gr_tensor *x = check_tensor(ctx, GR_F64, dims[i][0], -1, 1, &seed);
        gr_tensor *dy = check_tensor(ctx, GR_F64, dims[i][1], -1, 1, &seed);
        gr_tensor *w = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 3), -1, 1, &seed);
        gr_tensor *b = check_tensor(ctx, GR_F64, CHECK_DIMS(2), -1, 1, &seed);
        check_gradients(ctx, "linear", 3, GRI_TENSORS(x, w, b), NULL, 7);
        check_gradients(ctx, "linear", 2, GRI_TENSORS(x, w), NULL, 3);
        check_gradients(ctx, "linear_input_grad", 2, GRI_TENSORS(dy, w), NULL, 3);
        check_gradients(ctx, "linear_weight_grad", 2, GRI_TENSORS(dy, x), NULL, 3);
        gr_release(x), gr_release(dy), gr_release(w), gr_release(b);
    }
}

/* A weight used twice: the second contribution is added to the first where it lies. */
static void shared_weights_add_up(void **state) {
    (void)state;
    gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(4, 3), -1, 1, &seed), *h, *y, *sum, *plain, *dh, *part[2];
    gr_tensor *w = check_tensor(ctx, GR_F64, CHECK_DIMS(3, 3), -1, 1, &seed);
    gr_tensor *ones = check_tensor(ctx, GR_F64, CHECK_DIMS(4, 3), 1, 1, &seed);
    check_ok(ctx, gr_tensor_set_requires_grad(w, true));
    check_ok(ctx, GRI_APPLY(ctx, &h, linear, x, w));
    check_ok(ctx, GRI_APPLY(ctx, &y, linear, h, w));
    check_ok(ctx, GRI_APPLY(ctx, &sum, sum, y));
    check_ok(ctx, gr_backward(sum, NULL));
    check_ok(ctx, gr_tensor_detach(h, &plain));
    gr_set_grad_enabled(ctx, false);
    check_ok(ctx, GRI_APPLY(ctx, &part[0], linear_weight_grad, ones, plain));
    check_ok(ctx, GRI_APPLY(ctx, &dh, linear_input_grad, ones, w));
    check_ok(ctx, GRI_APPLY(ctx, &part[1], linear_weight_grad, dh, x));
    gr_set_grad_enabled(ctx, true);
    for (int64_t i = 0; i < 9; i++) {
        double want = check_get(part[0], i) + check_get(part[1], i);
        assert_true(fabs(check_get(gr_tensor_grad_peek(w), i) - want) < 1e-13);
    }
    gr_release(x), gr_release(w), gr_release(h), gr_release(y), gr_release(sum), gr_release(ones), gr_release(plain);
    gr_release(dh), gr_release(part[0]), gr_release(part[1]);
}

/* ---- the same bits; what is refused ---------------------------------------------------------------------------- */

static void threads_do_not_show(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {{64, 784, 256}, {300, 40, 500}, {7, 1000, 33}, {256, 300, 260}};
    gr_ctx *mine = ctx;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        gr_tensor *kept[3][3];
        gr_ctx *of[3];
        for (int t = 0; t < 3; t++) {
            ctx = of[t] = check_ctx(t + 1, NULL);
            uint64_t same = 11;
            gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(sizes[i][0], sizes[i][1]), -1, 1, &same);
            gr_tensor *w = check_tensor(ctx, GR_F32, CHECK_DIMS(sizes[i][2], sizes[i][1]), -1, 1, &same);
            gr_tensor *b = check_tensor(ctx, GR_F32, CHECK_DIMS(sizes[i][2]), -1, 1, &same), **y = kept[t];
            check_ok(ctx, GRI_APPLY(ctx, &y[0], linear, x, w, b));
            check_ok(ctx, GRI_APPLY(ctx, &y[1], linear_input_grad, y[0], w));
            check_ok(ctx, GRI_APPLY(ctx, &y[2], linear_weight_grad, y[0], x));
            gr_release(x), gr_release(w), gr_release(b);
        }
        for (int k = 0; k < 3; k++) {
            for (int t = 1; t < 3; t++) check_same_bits(kept[0][k], kept[t][k]);
            for (int t = 0; t < 3; t++) gr_release(kept[t][k]);
        }
        for (int t = 0; t < 3; t++) check_ctx_free(of[t]);
    }
    ctx = mine;
}

static void check_refused(const gr_op *op, int n, gr_tensor *const *in, const char *text) {
    gr_tensor *out[GRI_MAX_OUT];
    assert_int_not_equal(gr_apply(ctx, op, n, in, NULL, out), GR_OK);
    if (strcmp(gr_errmsg(ctx), text) != 0) fail_msg("said: %s\nexpected: %s", gr_errmsg(ctx), text);
    gr_clear_error(ctx);
}

static void mistakes_are_named(void **state) {
    (void)state;
    uint64_t none = 0;
    gr_tensor *images = check_tensor(ctx, GR_F32, CHECK_DIMS(64, 1, 28, 28), 0, 0, &none);
    gr_tensor *flat = check_tensor(ctx, GR_F32, CHECK_DIMS(64, 784), 0, 0, &none);
    gr_tensor *w = check_tensor(ctx, GR_F32, CHECK_DIMS(10, 784), 0, 0, &none);
    gr_tensor *small = check_tensor(ctx, GR_F32, CHECK_DIMS(10, 512), 0, 0, &none);
    gr_tensor *whole = check_tensor(ctx, GR_I64, CHECK_DIMS(64, 784), 0, 0, &none);
    gr_tensor *one = check_tensor(ctx, GR_F32, CHECK_DIMS(-1), 0, 0, &none);
    gr_tensor *batch = check_tensor(ctx, GR_F32, CHECK_DIMS(3, 784, 2), 0, 0, &none);
    gr_tensor *other = check_tensor(ctx, GR_F32, CHECK_DIMS(2, 5, 784), 0, 0, &none);
    check_refused(&gri_op_linear, 2, GRI_TENSORS(flat, small),
                  "linear: input has 784 features, expected 512 [64,784]");
    check_refused(&gri_op_linear, 2, GRI_TENSORS(images, w),
                  "linear: input has 28 features, expected 784 [64,1,28,28]; did you flatten (N,1,28,28)?");
    check_refused(&gri_op_linear, 3, GRI_TENSORS(flat, w, flat),
                  "linear: bias is f32[64,784], expected [10] for a weight of f32[10,784]");
    check_refused(&gri_op_linear, 2, GRI_TENSORS(whole, w),
                  "linear: input 1 is i64[64,784], expected f32 or f64; convert it with :to(\"f32\")");
    check_refused(&gri_op_linear, 2, GRI_TENSORS(one, w),
                  "linear: input is a single value, expected at least one dimension");
    check_refused(&gri_op_linear, 2, GRI_TENSORS(flat, images),
                  "linear: weight is f32[64,1,28,28], expected 2 dimensions (out, in)");
    check_refused(&gri_op_matmul, 2, GRI_TENSORS(flat, small),
                  "matmul: f32[64,784] times f32[10,512]: the first has 784 columns, the second 10 rows");
    check_refused(&gri_op_matmul, 2, GRI_TENSORS(other, batch),
                  "matmul: f32[2,5,784] times f32[3,784,2]: the leading dimensions do not broadcast");
    check_refused(&gri_op_matmul, 2, GRI_TENSORS(one, flat),
                  "matmul: f32[] times f32[64,784]: a single value is no matrix; use mul");
    gr_release(images), gr_release(flat), gr_release(w), gr_release(small), gr_release(whole);
    gr_release(one), gr_release(batch), gr_release(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_their_sums),
        cmocka_unit_test(empty_products),
        cmocka_unit_test(matmul_derivatives),
        cmocka_unit_test(linear_and_its_gradients_are_their_sums),
        cmocka_unit_test(linear_derivatives),
        cmocka_unit_test(shared_weights_add_up),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
