/* Pooling against plain loops: random shapes, windows, paddings, ties and NaN, in f32 and f64; borders of memory;
 * derivatives by differences; places outside the plane; messages. */
#include "check.h"

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

static uint64_t seed = 5;
static int64_t between(int64_t lo, int64_t hi) { return lo + (int64_t)(check_random(&seed) * (double)(hi - lo + 1)); }

/* The same elements under other strides: every dim twice as long in memory. */
static gr_tensor *spread(const gr_tensor *t) {
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    gr_tensor *base, *view;
    for (int d = 0; d < t->rank; d++) dims[d] = 2 * t->dims[d];
    check_ok(ctx, gr_tensor_new(ctx, (gr_dtype)t->dtype, t->rank, dims, &base));
    for (int d = 0; d < t->rank; d++) strides[d] = 2 * base->strides[d];
    check_ok(ctx, gri_tensor_view(base, t->rank, t->dims, strides, 0, &view));
    for (int64_t i = 0; i < t->numel; i++) check_put(view, i, check_get(t, i));
    gr_release(base);
    return view;
}

/* Runs the kernel of an op as the tape does: into a given output, set or added. */
static gr_status run_into(const gr_op *op, int n, gr_tensor *const *in, const void *attrs, gri_mode mode,
                          gr_tensor *y) {
    gri_call c = {.ctx = ctx, .op = op, .attrs = attrs, .n_in = n, .n_out = 1, .in = in, .mode = mode};
    GR_TRY(gri_check(&c));
    c.out[0] = y;
    return gri_run(&c);
}

/* ---- the sums themselves ------------------------------------------------------------------------------------- */

/* Calls fn with the position in the plane of every element of the window of output (r, q); returns how many count
 * for its mean. */
typedef void (*element_fn)(void *ud, int64_t place);
static double each_element(const gri_pool_attrs *a, const int64_t *in, const int64_t *out, const int64_t *at,
                           element_fn fn, void *ud) {
    int64_t from[2], to[2], step[2] = {1, 1}, count = 1;
    for (int i = 0; i < 2; i++) {
        if (a->output_size[0]) {
            from[i] = (int64_t)floor((double)(at[i] * in[i]) / (double)out[i]);
            to[i] = (int64_t)ceil((double)((at[i] + 1) * in[i]) / (double)out[i]);
        } else {
            if (a->dilation[i]) step[i] = a->dilation[i];
            from[i] = at[i] * (a->stride[i] ? a->stride[i] : a->kernel_size[i]) - a->padding[i];
            to[i] = from[i] + a->kernel_size[i] * step[i];
        }
        int64_t inside = 0, edge = in[i] + a->padding[i];
        for (int64_t k = from[i]; k < to[i]; k += step[i]) inside += k >= 0 && k < in[i];
        count *= a->count_include_pad ? (to[i] < edge ? to[i] : edge) - from[i] : inside;
    }
    for (int64_t i = from[0]; i < to[0]; i += step[0])
        for (int64_t j = from[1]; j < to[1]; j += step[1])
            if (i >= 0 && i < in[0] && j >= 0 && j < in[1]) fn(ud, i * in[1] + j);
    return (double)count;
}

typedef struct window_values {
    const gr_tensor *x;
    int64_t plane; /* first element */
    double best, sum;
    int64_t place;
} window_values;

static void look_at(void *ud, int64_t place) {
    window_values *v = ud;
    double x = check_get(v->x, v->plane + place);
    v->sum += x;
    if (x > v->best || x != x || v->place < 0) v->best = x, v->place = place;
}

/* y, and the index if there is one, of a pooling of x. */
static void check_pool(const gr_op *op, const gri_pool_attrs *a, gr_tensor *x, bool mean) {
    gr_tensor *out[2];
    check_ok(ctx, gr_apply(ctx, op, 1, &x, a, out));
    const int64_t *in = x->dims + 2, *size = out[0]->dims + 2;
    for (int64_t at = 0; at < out[0]->numel; at++) {
        window_values v = {x, at / (size[0] * size[1]) * in[0] * in[1], -INFINITY, 0, -1};
        double count = each_element(a, in, size, (int64_t[]){at / size[1] % size[0], at % size[1]}, look_at, &v);
        double got = check_get(out[0], at), want = mean ? v.sum / count : v.best;
        double tol = !mean ? 0 : x->dtype == GR_F32 ? 1e-6 : 1e-14;
        assert_true(got == want || (got != got && want != want) || fabs(got - want) <= tol * fmax(1, fabs(want)));
        if (!mean) assert_int_equal((int64_t)check_get(out[1], at), v.place + 1);
    }
    gr_release(out[0]);
    if (!mean) gr_release(out[1]);
}

static gri_pool_attrs random_pool(void) {
    gri_pool_attrs a = {.ceil_mode = between(0, 1), .count_include_pad = between(0, 1)};
    for (int i = 0; i < 2; i++) {
        a.kernel_size[i] = between(1, 4);
        a.stride[i] = between(0, 3);
        a.padding[i] = between(0, a.kernel_size[i] / 2);
    }
    if (between(0, 2) == 0) a = (gri_pool_attrs){.kernel_size = {2, 2}, .ceil_mode = a.ceil_mode};
    return a;
}

static void pooling_is_what_it_says(void **state) {
    (void)state;
    for (int i = 0; i < 400; i++) {
        gri_pool_attrs a = random_pool(), wide = a, even = {.output_size = {between(1, 9), between(1, 9)}};
        for (int k = 0; k < 2; k++) wide.dilation[k] = between(1, 2);
        int64_t h = between(7, 12), w = between(0, 3) ? between(7, 20) : between(60, 140);
        gr_tensor *x = check_tensor(ctx, i % 2 ? GR_F32 : GR_F64, CHECK_DIMS(between(0, 2), 2, h, w), -9, 9, &seed);
        for (int64_t e = 0; e < x->numel; e++) { /* ties, NaN, infinities */
            double v = floor(check_get(x, e));
            check_put(x, e, v == 8 && between(0, 3) == 0 ? NAN : v == -9 ? -INFINITY : v);
        }
        gr_tensor *apart = spread(x), *both[] = {x, apart};
        for (int k = 0; k < 2; k++) {
            check_pool(&gri_op_max_pool2d, &wide, both[k], false);
            check_pool(&gri_op_avg_pool2d, &a, both[k], true);
            check_pool(&gri_op_adaptive_max_pool2d, &even, both[k], false);
            check_pool(&gri_op_adaptive_avg_pool2d, &even, both[k], true);
        }
        gr_release(x), gr_release(apart);
    }
}

/* A lent buffer of exactly the image's size: under a sanitizer a read beyond it shows. */
static void pooling_stays_inside(void **state) {
    (void)state;
    for (int64_t w = 1; w < 40; w += 3) {
        for (int64_t k = 1; k < 4; k++) {
            int64_t h = 4, dims[] = {1, 1, h, w};
            gri_pool_attrs a = {.kernel_size = {k, k}, .stride = {2, 2}, .padding = {k / 2, k / 2}};
            if (w + 2 * a.padding[1] < k) continue;
            float *data = malloc((size_t)(h * w) * sizeof *data);
            for (int64_t i = 0; i < h * w; i++) data[i] = (float)check_random(&seed);
            gr_tensor *x;
            check_ok(ctx, gr_tensor_borrow(ctx, GR_F32, 4, dims, NULL, data, NULL, NULL, &x));
            check_pool(&gri_op_max_pool2d, &a, x, false);
            check_pool(&gri_op_avg_pool2d, &a, x, true);
            gr_release(x);
            free(data);
        }
    }
}

static void pooling_derivatives(void **state) {
    (void)state;
    static const gri_pool_attrs a[] = {
        {.kernel_size = {2, 2}},
        {.kernel_size = {3, 2}, .stride = {1, 2}, .padding = {1, 1}, .ceil_mode = true, .count_include_pad = true},
        {.output_size = {3, 3}}};
    for (int i = 0; i < 3; i++) {
        gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 2, 5, 4), 0, 0, &seed);
        for (int64_t e = 0; e < x->numel; e++) check_put(x, e, (double)((e * 7) % x->numel)); /* no two alike */
        check_gradients(ctx, i < 2 ? "max_pool2d" : "adaptive_max_pool2d", 1, &x, &a[i], 1);
        check_gradients(ctx, i < 2 ? "avg_pool2d" : "adaptive_avg_pool2d", 1, &x, &a[i], 1);
        gr_tensor *out[2];
        check_ok(ctx, gr_apply(ctx, i < 2 ? &gri_op_max_pool2d : &gri_op_adaptive_max_pool2d, 1, &x, &a[i], out));
        gr_tensor *dy = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 2, out[0]->dims[2], out[0]->dims[3]), -1, 1, &seed);
        gri_shape_attrs shape = {{4, {2, 2, 5, 4}}};
        check_gradients(ctx, "max_pool2d_backward", 2, GRI_TENSORS(dy, out[1]), &shape, 1);
        check_gradients(ctx, "max_pool2d_gather", 2, GRI_TENSORS(x, out[1]), NULL, 1);
        gr_release(x), gr_release(dy), gr_release(out[0]), gr_release(out[1]);
    }
}

/* Scattering adds where windows overlap and where the destination holds something; a place outside is nowhere. */
static void pooling_scatters(void **state) {
    (void)state;
    gr_tensor *dy = check_values(ctx, GR_F32, CHECK_DIMS(1, 1, 1, 4), (double[]){1, 2, 4, 8});
    gr_tensor *at = check_values(ctx, GR_I64, CHECK_DIMS(1, 1, 1, 4), (double[]){4, 1, 4, 1});
    gr_tensor *dx = check_values(ctx, GR_F32, CHECK_DIMS(1, 1, 2, 2), (double[]){100, 100, 100, 100});
    gri_shape_attrs shape = {{4, {1, 1, 2, 2}}};
    check_ok(ctx, run_into(&gri_op_max_pool2d_backward, 2, GRI_TENSORS(dy, at), &shape, GRI_ADD, dx));
    check_close(dx, 4, (double[]){110, 100, 100, 105}, 0);
    check_put(at, 1, 0);
    check_put(at, 2, 5);
    check_ok(ctx, run_into(&gri_op_max_pool2d_backward, 2, GRI_TENSORS(dy, at), &shape, GRI_SET, dx));
    check_close(dx, 4, (double[]){8, 0, 0, 1}, 0);
    check_ok(ctx, run_into(&gri_op_max_pool2d_gather, 2, GRI_TENSORS(dx, at), NULL, GRI_ADD, dy));
    check_close(dy, 4, (double[]){2, 2, 4, 16}, 0);
    gr_release(dy), gr_release(at), gr_release(dx);
}

/* ---- what is refused ------------------------------------------------------------------------------------------ */

static void check_refused(const gr_op *op, gr_tensor *x, const void *attrs, const char *text) {
    gr_tensor *out[GRI_MAX_OUT];
    assert_int_not_equal(gr_apply(ctx, op, 1, &x, attrs, out), GR_OK);
    if (strcmp(gr_errmsg(ctx), text) != 0) fail_msg("said: %s\nexpected: %s", gr_errmsg(ctx), text);
    gr_clear_error(ctx);
}

static void mistakes_are_named(void **state) {
    (void)state;
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(2, 3, 4, 4), 0, 0, &seed);
    gr_tensor *flat = check_tensor(ctx, GR_F32, CHECK_DIMS(2, 48), 0, 0, &seed);
    gr_tensor *none = check_tensor(ctx, GR_F32, CHECK_DIMS(2, 3, 0, 4), 0, 0, &seed);
    gri_pool_attrs a = {.kernel_size = {2, 2}, .padding = {2, 0}}, even = {.output_size = {2, -1}};
    check_refused(&gri_op_max_pool2d, x, &a, "max_pool2d: padding 2 is more than half of kernel_size 2");
    check_refused(&gri_op_avg_pool2d, x, &a, "avg_pool2d: padding 2 is more than half of kernel_size 2");
    check_refused(&gri_op_max_pool2d, flat, &a, "max_pool2d: input is f32[2,48], expected 4 dimensions");
    check_refused(&gri_op_avg_pool1d, x, &a, "avg_pool1d: input is f32[2,3,4,4], expected 3 dimensions");
    a.kernel_size[1] = 0;
    check_refused(&gri_op_avg_pool2d, x, &a, "avg_pool2d: kernel_size 2x0: expected at least 1");
    a.kernel_size[1] = 9;
    check_refused(&gri_op_avg_pool2d, x, &a,
                  "avg_pool2d: a kernel that reaches 2x9 does not fit into 4x4 with padding 2x0");
    check_refused(&gri_op_adaptive_avg_pool2d, x, &even,
                  "adaptive_avg_pool2d: output_size 2x-1: expected at least 1");
    even.output_size[1] = 2;
    check_refused(&gri_op_adaptive_max_pool2d, none, &even,
                  "adaptive_max_pool2d: input is [2,3,0,4]: there is nothing to choose from");
    gr_release(x), gr_release(flat), gr_release(none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pooling_is_what_it_says),
        cmocka_unit_test(pooling_stays_inside),
        cmocka_unit_test(pooling_derivatives),
        cmocka_unit_test(pooling_scatters),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
