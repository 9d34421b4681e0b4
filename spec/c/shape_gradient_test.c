/* Derivatives of the ops that move elements: first and second by differences, through views of views and constants;
 * what a gradient through many parts costs; overwritten indices; failing allocation. */
#include <stdio.h>
#include <time.h>

#include "by_name.h"

static uint64_t seed = 11;
static gr_tensor *drawn(const int64_t *dims) { return check_tensor(ctx, GR_F64, dims, -1, 1, &seed); }

/* ---- first derivatives, and those of the helpers ------------------------------------------------------------ */

typedef struct moved {
    const char *op, *attrs;
    int64_t in[5];
} moved;

static const moved moves[] = {
    {"expand", "shape=4,2,3", {2, 1, -1}}, {"expand", "shape=2,0", {2, 1, -1}}, {"expand", "shape=", {-1}},
    {"reshape", "shape=3,-1", {2, 3, -1}}, {"reshape", "shape=", {1, -1}}, {"view", "shape=6", {2, 3, -1}},
    {"flatten", "start_dim=1", {2, 3, 2, -1}}, {"transpose", "", {2, 3, -1}},
    {"transpose", "dim0=0 dim1=2", {2, 3, 2, -1}}, {"permute", "dims=2,0,1", {2, 3, 4, -1}},
    {"permute", "dims=-2,-1,0", {2, 3, 4, -1}}, {"squeeze", "", {1, 3, 1, -1}},
    {"squeeze", "dim=2", {1, 3, 1, -1}}, {"unsqueeze", "dim=-1", {2, 3, -1}}, {"contiguous", "", {2, 3, -1}},
    {"clone", "", {2, 3, -1}}, {"narrow", "dim=1 start=1 length=2", {2, 4, -1}},
    {"narrow", "dim=-1 start=-2 length=2", {2, 4, -1}},
    {"narrow", "dim=0 start=1 length=0", {2, 3, -1}}, {"slice", "dim=0 start=1 stop=-1 step=3", {6, 2, -1}},
    {"slice", "dim=0 start=2 stop=1", {3, -1}}, {"select", "dim=1 index=-1", {2, 3, 2, -1}},
    {"select", "dim=0 index=1", {3, -1}},
    {"place", "shape=7,2 dim=0 start=1 step=2", {3, 2, -1}}, {"place", "shape=2,3 dim=1 start=2", {2, -1}},
    {"place", "shape=4 dim=0 start=2", {0, -1}}, {"sum_to", "shape=3", {2, 3, -1}},
};

static void derivatives_of_one_input(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        gr_tensor *x = drawn(moves[i].in);
        const gr_op *op = gr_op_find(moves[i].op);
        check_gradients(ctx, moves[i].op, 1, &x, attrs_of(op, moves[i].attrs), 1);
        gr_release(x);
    }
}

static void derivatives_of_joining(void **state) {
    (void)state;
    gr_tensor *a = drawn(CHECK_DIMS(2, 3)), *b = drawn(CHECK_DIMS(2, 1)), *c = drawn(CHECK_DIMS(2, 3));
    for (unsigned which = 1; which < 8; which++)
        check_gradients(ctx, "cat", 3, GRI_TENSORS(a, b, c), attrs_of(gr_op_find("cat"), "dim=-1"), which);
    check_gradients(ctx, "cat", 2, GRI_TENSORS(a, c), attrs_of(gr_op_find("cat"), "dim=0"), 3);
    for (int dim = -1; dim < 2; dim++) {
        char text[16];
        snprintf(text, sizeof text, "dim=%d", dim);
        check_gradients(ctx, "stack", 2, GRI_TENSORS(a, c), attrs_of(gr_op_find("stack"), text), 3);
        check_gradients(ctx, "stack", 3, GRI_TENSORS(a, a, c), attrs_of(gr_op_find("stack"), text), 4);
    }
    gr_release(a);
    gr_release(b);
    gr_release(c);
}

static void derivatives_of_picking(void **state) {
    (void)state;
    gr_tensor *x = drawn(CHECK_DIMS(3, 4, 2));
    gr_tensor *index = check_values(ctx, GR_I64, CHECK_DIMS(4), (double[]){3, 1, 3, 2});
    gr_tensor *two = check_values(ctx, GR_I64, CHECK_DIMS(2), (double[]){2, 2});
    check_gradients(ctx, "index_select", 2, GRI_TENSORS(x, index), attrs_of(gr_op_find("index_select"), "dim=0"), 1);
    check_gradients(ctx, "index_select", 2, GRI_TENSORS(x, index), attrs_of(gr_op_find("index_select"), "dim=1"), 1);
    check_gradients(ctx, "index_select", 2, GRI_TENSORS(x, two), attrs_of(gr_op_find("index_select"), "dim=-1"), 1);
    check_gradients(ctx, "index_add", 2, GRI_TENSORS(x, index), attrs_of(gr_op_find("index_add"), "dim=1 size=5"), 1);
    check_gradients(ctx, "index_add", 2, GRI_TENSORS(x, two), attrs_of(gr_op_find("index_add"), "dim=2 size=2"), 1);
    gr_release(x);
    gr_release(index);
    gr_release(two);
}

/* ---- second derivatives ------------------------------------------------------------------------------------- */

/* The ops are linear, so their own second derivative is 0. f(x) = Σ w y³, y = op(x), has one that goes through the
 * op, its rule and the rule's rule. */
static gr_tensor *cubed(const moved *m, gr_tensor *x, gr_tensor **w) {
    gr_tensor *y = run1(m->op, x, m->attrs), *square = run_op("mul", 2, GRI_TENSORS(y, y), ""), *sum = NULL;
    gr_tensor *cube = run_op("mul", 2, GRI_TENSORS(square, y), "");
    check_weigh(ctx, &sum, cube, check_weights(w, cube, 5));
    gr_release(cube);
    gr_release(square);
    gr_release(y);
    return sum;
}

/* Σ v df/dx. */
static gr_tensor *cubed_slope(const moved *m, gr_tensor *x, gr_tensor **w, gr_tensor **v, bool create) {
    gr_tensor *f = cubed(m, x, w), *slope = NULL, *sum = NULL;
    check_ok(ctx, gr_grad(1, &f, NULL, 1, &x, &(gr_backward_options){.create_graph = create}, &slope));
    check_weigh(ctx, &sum, slope, check_weights(v, slope, 6));
    gr_release(slope);
    gr_release(f);
    return sum;
}

static double moved_slope(const moved *m, gr_tensor *x, gr_tensor **w, gr_tensor **v, int64_t e, double to) {
    bool was = gr_set_grad_enabled(ctx, false);
    check_put(x, e, to);
    gr_set_grad_enabled(ctx, was);
    return check_scalar(cubed_slope(m, x, w, v, false));
}

static void second_derivatives(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        const moved *m = &moves[i];
        gr_tensor *x = drawn(m->in), *w = NULL, *v = NULL, *found = NULL;
        check_ok(ctx, gr_tensor_set_requires_grad(x, true));
        gr_tensor *slope = cubed_slope(m, x, &w, &v, true);
        check_ok(ctx, gr_grad(1, &slope, NULL, 1, &x, NULL, &found));
        for (int64_t e = 0; e < x->numel; e++) {
            double at = check_get(x, e), step = 1e-5, high = moved_slope(m, x, &w, &v, e, at + step);
            double want = (high - moved_slope(m, x, &w, &v, e, at - step)) / (2 * step);
            moved_slope(m, x, &w, &v, e, at);
            if (fabs(check_get(found, e) - want) > 1e-6)
                fail_msg("%s %s: %.12g, differences give %.12g", m->op, m->attrs, check_get(found, e), want);
        }
        gr_release(slope);
        gr_release(found);
        gr_release(w);
        gr_release(v);
        gr_release(x);
    }
}

/* ---- accumulation ------------------------------------------------------------------------------------------- */

/* Two contributions, one of them a view that the tape must not add into: Σ x + Σ x², in both orders. */
static void expanded_gradients_are_not_added_into(void **state) {
    (void)state;
    for (int order = 0; order < 2; order++) {
        gr_tensor *x = check_values(ctx, GR_F32, CHECK_DIMS(3), (double[]){1, 2, 3}), *sum[2], *square;
        check_ok(ctx, gr_tensor_set_requires_grad(x, true));
        if (order) sum[0] = run1("sum", x, "");
        square = run_op("mul", 2, GRI_TENSORS(x, x), "");
        sum[1] = run1("sum", square, "");
        if (!order) sum[0] = run1("sum", x, "");
        gr_tensor *y = run_op("add", 2, sum, "");
        check_ok(ctx, gr_backward(y, NULL));
        check_close(gr_tensor_grad_peek(x), 3, (double[]){3, 5, 7}, 0);
        gr_release(y);
        gr_release(square);
        gr_release(sum[0]);
        gr_release(sum[1]);
        gr_release(x);
    }
}

/* x[2,3,2]: a chain of views, a part used twice, the whole used too. */
static void views_of_views(void **state) {
    (void)state;
    gr_tensor *x = counted(GR_F64, CHECK_DIMS(2, 3, 2)), *row, *part, *turned, *sums[3], *y, *z;
    check_ok(ctx, gr_tensor_set_requires_grad(x, true));
    row = run1("select", x, "dim=0 index=1");
    part = run1("narrow", row, "dim=0 start=1 length=2");
    turned = run1("transpose", part, "");
    sums[0] = run1("sum", turned, "");
    sums[1] = run1("sum", part, "");
    sums[2] = run1("sum", x, "");
    y = run_op("stack", 3, sums, "");
    z = run1("sum", y, "");
    check_ok(ctx, gr_backward(z, NULL));
    check_close(gr_tensor_grad_peek(x), 12, (double[]){1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3}, 0);
    gr_release(z);
    gr_release(y);
    for (int i = 0; i < 3; i++) gr_release(sums[i]);
    gr_release(turned);
    gr_release(part);
    gr_release(row);
    gr_release(x);
}

/* A table read by two indices and as a whole: every contribution is added to what others have left there. */
static void a_table_read_several_times(void **state) {
    (void)state;
    gr_tensor *table = counted(GR_F32, CHECK_DIMS(3, 2)), *sums[3], *y, *z;
    check_ok(ctx, gr_tensor_set_requires_grad(table, true));
    for (int i = 0; i < 2; i++) {
        gr_tensor *index = check_values(ctx, GR_I64, CHECK_DIMS(3), i ? (double[]){3, 3, 1} : (double[]){1, 3, 1});
        gr_tensor *rows = run_op("index_select", 2, GRI_TENSORS(table, index), "");
        sums[i] = run1("sum", rows, "");
        gr_release(rows);
        gr_release(index);
    }
    y = run_op("mul", 2, GRI_TENSORS(table, table), "");
    sums[2] = run1("sum", y, "");
    gr_release(y);
    y = run_op("stack", 3, sums, "");
    z = run1("sum", y, "");
    check_ok(ctx, gr_backward(z, NULL));
    check_close(gr_tensor_grad_peek(table), 6, (double[]){2 + 3, 4 + 3, 6, 8, 10 + 3, 12 + 3}, 0);
    gr_release(z);
    gr_release(y);
    for (int i = 0; i < 3; i++) gr_release(sums[i]);
    gr_release(table);
}

/* More inputs than GRI_MAX_IN, constants among them, from leaves that occur several times. */
static void many_inputs(void **state) {
    (void)state;
    enum { N = 50 };
    gr_tensor *in[N], *w = counted(GR_F64, CHECK_DIMS(2)), *constant = counted(GR_F64, CHECK_DIMS(3)), *y, *of;
    check_ok(ctx, gr_tensor_set_requires_grad(w, true));
    for (int i = 0; i < N; i++) in[i] = i % 2 ? w : constant;
    y = run_op("cat", N, in, "");
    of = counted(GR_F64, CHECK_DIMS(N / 2 * 5));
    check_ok(ctx, gr_backward(y, &(gr_backward_options){.seed = of}));
    double want[2] = {0, 0};
    for (int i = 0; i < N / 2; i++) want[0] += 5 * i + 4, want[1] += 5 * i + 5;
    check_close(gr_tensor_grad_peek(w), 2, want, 0);
    gr_release(of);
    gr_release(y);
    gr_release(constant);
    gr_release(w);
}

static void too_many_inputs(void **state) {
    (void)state;
    enum { N = 65536 };
    gr_tensor *x = counted(GR_U8, CHECK_DIMS(1)), *y = NULL, **in = malloc(N * sizeof *in);
    for (int i = 0; i < N; i++) in[i] = x;
    assert_int_equal(try_op("cat", N, in, "", &y), GR_ERR_ARG);
    assert_string_equal(gr_errmsg(ctx), "cat: 65536 tensors, at most 65535 can be joined at once");
    gr_clear_error(ctx);
    y = run_op("stack", N - 1, in, "");
    assert_int_equal(y->numel, N - 1);
    gr_release(y);
    assert_int_equal(try_op("stack", 0, in, "", &y), GR_ERR_ARG);
    in[1] = NULL;
    assert_int_equal(try_op("cat", 2, in, "", &y), GR_ERR_ARG);
    gr_clear_error(ctx);
    free(in);
    gr_release(x);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of forward and backward through `steps` selects of x[steps, width], each squared and added up. */
static void read_step_by_step(int64_t steps, int64_t width, double *forward, double *backward) {
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(steps, width), -1, 1, &seed), *sum = NULL;
    check_ok(ctx, gr_tensor_set_requires_grad(x, true));
    double t = now();
    for (int64_t i = 0; i < steps; i++) {
        char text[40];
        snprintf(text, sizeof text, "dim=0 index=%lld", (long long)i);
        gr_tensor *row = run1("select", x, text), *square = run_op("mul", 2, GRI_TENSORS(row, row), "");
        gr_tensor *both = sum ? run_op("add", 2, GRI_TENSORS(sum, square), "") : gr_retain(square);
        gr_release(row);
        gr_release(square);
        gr_release(sum);
        sum = both;
    }
    gr_tensor *total = run1("sum", sum, "");
    gr_memory before, after;
    gr_memory_get(ctx, &before);
    *forward = now() - t;
    check_ok(ctx, gr_backward(total, NULL));
    *backward = now() - t - *forward;
    gr_memory_get(ctx, &after);
    for (int64_t i = 0; i < x->numel; i += 97)
        assert_true(check_get(gr_tensor_grad_peek(x), i) == 2 * check_get(x, i));
    assert_true(after.peak - before.peak < (size_t)(steps * width) * 4 * 3 / 2); /* the gradient, and no second one */
    gr_release(total);
    gr_release(sum);
    gr_release(x);
}

/* Backward costs about as much as forward, which never looks at the whole. Were each part's gradient a tensor as
 * large as x, it would cost some 50 times as much. */
static void many_parts_cost_what_the_whole_costs(void **state) {
    (void)state;
    double forward = 1, backward = 1;
    for (int i = 0; i < 7; i++) {
        double f, b;
        read_step_by_step(4000, 64, &f, &b);
        if (f < forward) forward = f;
        if (b < backward) backward = b;
    }
    if (backward > 8 * forward) fail_msg("forward takes %.3g s, backward %.3g s", forward, backward);
}

/* ---- refusals ----------------------------------------------------------------------------------------------- */

static void an_index_overwritten_is_refused(void **state) {
    (void)state;
    gr_tensor *x = counted(GR_F32, CHECK_DIMS(3)), *index = counted(GR_I64, CHECK_DIMS(2)), *y, *z;
    check_ok(ctx, gr_tensor_set_requires_grad(x, true));
    y = run_op("index_select", 2, GRI_TENSORS(x, index), "");
    z = run1("sum", y, "");
    check_put(index, 0, 2);
    assert_int_equal(gr_backward(z, NULL), GR_ERR_STATE);
    assert_non_null(strstr(gr_errmsg(ctx), "input 2 of index_select (i64[2]) was overwritten in place"));
    assert_null(gr_tensor_grad_peek(x));
    gr_clear_error(ctx);
    gr_release(z);
    gr_release(y);
    gr_release(index);
    gr_release(x);
}

/* An allocator that says no from the n-th request on. */
static int64_t allowed;
static void *failing(void *ud, void *p, size_t osize, size_t nsize) {
    (void)ud, (void)osize;
    if (nsize == 0) return free(p), NULL;
    return allowed-- > 0 ? realloc(p, nsize) : NULL;
}

/* Large sizes, so that every object asks the allocator. */
static gr_status use_everything(void) {
    gr_tensor *x = NULL, *index = NULL, *t = NULL, *flat = NULL, *part = NULL, *rows = NULL, *all = NULL, *sum = NULL;
    gr_status s = gr_tensor_new(ctx, GR_F32, 2, (int64_t[]){40, 300}, &x);
    if (s == GR_OK) s = gr_tensor_new(ctx, GR_I64, 1, (int64_t[]){40}, &index);
    for (int i = 0; s == GR_OK && i < 40; i++) s = gr_tensor_set(index, (int64_t[]){i}, 1 + i / 2);
    if (s == GR_OK) s = gr_tensor_set_requires_grad(x, true);
    if (s == GR_OK) s = try_op("transpose", 1, &x, "", &t);
    if (s == GR_OK) s = try_op("reshape", 1, &t, "shape=40,300", &flat);
    if (s == GR_OK) s = try_op("narrow", 1, &x, "dim=0 start=3 length=20", &part);
    if (s == GR_OK) s = try_op("index_select", 2, GRI_TENSORS(flat, index), "", &rows);
    if (s == GR_OK) s = try_op("cat", 3, GRI_TENSORS(part, flat, rows), "", &all);
    if (s == GR_OK) s = try_op("sum", 1, &all, "", &sum);
    if (s == GR_OK) s = gr_backward(sum, NULL);
    gr_tensor *made[] = {x, index, t, flat, part, rows, all, sum};
    for (int i = 0; i < 8; i++) gr_release(made[i]);
    return s;
}

static void failing_allocations_leave_nothing(void **state) {
    (void)state;
    gr_ctx *mine = ctx;
    int64_t n = 1;
    for (;; n++) {
        gr_config cfg;
        gr_config_init(&cfg);
        cfg.alloc = failing;
        cfg.threads = 1;
        allowed = n;
        if (gr_ctx_new(&cfg, &ctx) != GR_OK) continue;
        gr_status s = use_everything();
        assert_true(s == GR_OK || s == GR_ERR_MEMORY);
        assert_int_equal(gr_ctx_free(ctx), 0);
        if (s == GR_OK) break;
    }
    ctx = mine;
    assert_true(n > 8);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_ctx, close_ctx)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(derivatives_of_one_input),
        TEST(derivatives_of_joining),
        TEST(derivatives_of_picking),
        TEST(second_derivatives),
        TEST(expanded_gradients_are_not_added_into),
        TEST(views_of_views),
        TEST(a_table_read_several_times),
        TEST(many_inputs),
        TEST(too_many_inputs),
        TEST(many_parts_cost_what_the_whole_costs),
        TEST(an_index_overwritten_is_refused),
        TEST(failing_allocations_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
