/* Index tensors from C: contents that count from 0 or from 1, positions at the ends of the number range, and results
 * that are not touched when a position is outside. */
#include "by_name.h"

#define LEAST (-9223372036854775807.0 - 1)

static gr_tensor *index_of(const int64_t *dims, const double *from_0) {
    gr_tensor *t = check_values(ctx, GR_I64, dims, from_0);
    for (int64_t i = 0; i < t->numel; i++) check_put(t, i, from_0[i] + ctx->index_base);
    return t;
}

static void check_op(const char *op, const char *attrs, int n, gr_tensor *const *in, int64_t count,
                     const double *want) {
    gr_tensor *y = run_op(op, n, in, attrs);
    assert_int_equal(y->numel, count);
    check_close(y, count, want, 0);
    gr_release(y);
}

/* The same positions, counted from index_base. */
static void contents_count_from_the_base(void **state) {
    (void)state;
    for (int base = 0; base < 2; base++) {
        ctx->index_base = base;
        gr_tensor *x = counted(GR_F32, (int64_t[]){3, 2, -1}), *rows = index_of((int64_t[]){2, -1}, (double[]){2, 0});
        gr_tensor *each = index_of((int64_t[]){1, 2, -1}, (double[]){2, 1}), *one = NULL;
        check_ok(ctx, gr_tensor_scalar(ctx, GR_F32, 10, &one));
        check_op("index_select", "dim=0", 2, GRI_TENSORS(x, rows), 4, (double[]){5, 6, 1, 2});
        check_op("embedding", "padding_idx=2", 2, GRI_TENSORS(rows, x), 4, (double[]){5, 6, 1, 2});
        check_op("gather", "dim=0", 2, GRI_TENSORS(x, each), 2, (double[]){5, 4});
        check_op("scatter_add", "dim=0", 3, GRI_TENSORS(x, each, one), 6, (double[]){1, 2, 3, 14, 15, 6});
        check_op("scatter", "dim=0", 3, GRI_TENSORS(x, each, one), 6, (double[]){1, 2, 3, 10, 10, 6});
        check_op("one_hot", "", 1, &rows, 6, (double[]){0, 0, 1, 1, 0, 0});
        gr_release(x), gr_release(rows), gr_release(each), gr_release(one);
    }
    ctx->index_base = 1;
}

/* The row padding_idx, which counts from 0 in C whatever the contents do, gets no gradient; nor does its use have one
 * where the gradient's gradient is taken. */
static void padding_has_no_gradient(void **state) {
    (void)state;
    for (int base = 0; base < 2; base++) {
        ctx->index_base = base;
        gr_tensor *w = counted(GR_F64, (int64_t[]){3, 1, -1}), *g[1], *h[1], *y, *square, *twice;
        gr_tensor *x = index_of((int64_t[]){4, -1}, (double[]){0, 1, 2, 1}),
                  *seed = counted(GR_F64, (int64_t[]){4, 1, -1});
        gr_backward_options create = {.create_graph = true};
        check_ok(ctx, gr_tensor_set_requires_grad(w, true));
        check_ok(ctx, gr_tensor_set_requires_grad(seed, true));
        y = run_op("embedding", 2, GRI_TENSORS(x, w), "padding_idx=1");
        check_ok(ctx, gr_grad(1, &y, &seed, 1, &w, &create, g));
        check_close(g[0], 3, (double[]){1, 0, 3}, 0);
        square = run_op("mul", 2, GRI_TENSORS(g[0], g[0]), NULL);
        twice = run_op("sum", 1, &square, "");
        check_ok(ctx, gr_grad(1, &twice, NULL, 1, &seed, NULL, h));
        check_close(h[0], 4, (double[]){2, 0, 6, 0}, 0);
        gr_release(w), gr_release(x), gr_release(seed), gr_release(y), gr_release(square), gr_release(twice);
        gr_release(g[0]), gr_release(h[0]);
    }
    ctx->index_base = 1;
}

static void far_positions_are_outside(void **state) {
    (void)state;
    static const double far[] = {LEAST, LEAST / 2, -2, -1, 4, 0x1p53, 0x1p62, 9223372036854774784.0};
    for (int base = 0; base < 2; base++) {
        ctx->index_base = base;
        for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
            gr_tensor *x = counted(GR_F32, (int64_t[]){3, -1}), *y;
            gr_tensor *index = check_values(ctx, GR_I64, (int64_t[]){2, -1}, (double[]){base, far[i]});
            assert_int_equal(try_op("gather", 2, GRI_TENSORS(x, index), "dim=0", &y), GR_ERR_INDEX);
            gr_clear_error(ctx);
            gr_release(x), gr_release(index);
        }
    }
    ctx->index_base = 1;
}

static void a_refusal_changes_nothing(void **state) {
    (void)state;
    gr_tensor *x = counted(GR_F32, (int64_t[]){3, -1}), *src = counted(GR_F32, (int64_t[]){2, -1});
    gr_tensor *index = check_values(ctx, GR_I64, (int64_t[]){2, -1}, (double[]){1, 4});
    int64_t dim = 0;
    static const char *const ops[] = {"scatter", "scatter_add"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(gr_apply_into(ctx, gr_op_find(ops[i]), 3, GRI_TENSORS(x, index, src), &dim, x),
                         GR_ERR_INDEX);
        gr_clear_error(ctx);
    }
    assert_int_equal(gr_apply_into(ctx, gr_op_find("gather"), 2, GRI_TENSORS(x, index), &dim, src), GR_ERR_INDEX);
    gr_clear_error(ctx);
    check_close(x, 3, (double[]){1, 2, 3}, 0);
    check_close(src, 2, (double[]){1, 2}, 0);
    gr_release(x), gr_release(src), gr_release(index);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_ctx, close_ctx)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(contents_count_from_the_base),
        TEST(padding_has_no_gradient),
        TEST(far_positions_are_outside),
        TEST(a_refusal_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
