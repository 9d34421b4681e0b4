/* Ops that move elements or only look at them in another way: hand values in every dtype, shared storage, empty and
 * scalar shapes, other strides, messages. */
#include <stdio.h>

#include "by_name.h"

/* ---- hand values --------------------------------------------------------------------------------------------- */

#define SEEN 12
typedef struct hand {
    const char *op, *attrs;
    int64_t in[GR_MAX_RANK + 1], out[GR_MAX_RANK + 1]; /* ended by -1; the input counts 1, 2, 3, … */
    double want[SEEN];
} hand;

static const hand hands[] = {
    {"expand", "shape=2,3", {1, 3, -1}, {2, 3, -1}, {1, 2, 3, 1, 2, 3}},
    {"expand", "shape=2,3", {2, 1, -1}, {2, 3, -1}, {1, 1, 1, 2, 2, 2}},
    {"expand", "shape=2,-1,-1", {2, 1, -1}, {2, 2, 1, -1}, {1, 2, 1, 2}},
    {"expand", "shape=2,2", {-1}, {2, 2, -1}, {1, 1, 1, 1}},
    {"expand", "shape=0,3", {1, 3, -1}, {0, 3, -1}, {0}},
    {"expand", "shape=2,0", {0, -1}, {2, 0, -1}, {0}},
    {"reshape", "shape=3,2", {2, 3, -1}, {3, 2, -1}, {1, 2, 3, 4, 5, 6}},
    {"reshape", "shape=-1", {2, 3, -1}, {6, -1}, {1, 2, 3, 4, 5, 6}},
    {"reshape", "shape=1,-1,3,1", {6, -1}, {1, 2, 3, 1, -1}, {1, 2, 3, 4, 5, 6}},
    {"reshape", "shape=", {1, 1, -1}, {-1}, {1}},
    {"reshape", "shape=4,-1", {0, 4, -1}, {4, 0, -1}, {0}},
    {"reshape", "shape=0,7", {3, 0, -1}, {0, 7, -1}, {0}},
    {"view", "shape=3,-1", {2, 3, -1}, {3, 2, -1}, {1, 2, 3, 4, 5, 6}},
    {"flatten", "", {2, 1, 2, -1}, {4, -1}, {1, 2, 3, 4}},
    {"flatten", "start_dim=1", {2, 2, 2, -1}, {2, 4, -1}, {1, 2, 3, 4, 5, 6, 7, 8}},
    {"flatten", "end_dim=1", {2, 2, 2, -1}, {4, 2, -1}, {1, 2, 3, 4, 5, 6, 7, 8}},
    {"flatten", "start_dim=-2 end_dim=-2", {2, 3, -1}, {2, 3, -1}, {1, 2, 3, 4, 5, 6}},
    {"flatten", "", {-1}, {1, -1}, {1}},
    {"transpose", "dim0=0 dim1=1", {2, 3, -1}, {3, 2, -1}, {1, 4, 2, 5, 3, 6}},
    {"transpose", "", {1, 2, 3, -1}, {1, 3, 2, -1}, {1, 4, 2, 5, 3, 6}},
    {"transpose", "dim0=0 dim1=-1", {2, 1, 3, -1}, {3, 1, 2, -1}, {1, 4, 2, 5, 3, 6}},
    {"permute", "dims=1,2,0", {2, 1, 3, -1}, {1, 3, 2, -1}, {1, 4, 2, 5, 3, 6}},
    {"permute", "dims=-1,0", {2, 2, -1}, {2, 2, -1}, {1, 3, 2, 4}},
    {"permute", "dims=", {-1}, {-1}, {1}},
    {"squeeze", "", {1, 2, 1, -1}, {2, -1}, {1, 2}},
    {"squeeze", "dim=0", {1, 2, 1, -1}, {2, 1, -1}, {1, 2}},
    {"squeeze", "dim=1,-1", {1, 2, 1, -1}, {1, 2, -1}, {1, 2}},
    {"unsqueeze", "dim=0", {2, -1}, {1, 2, -1}, {1, 2}},
    {"unsqueeze", "dim=-1", {2, -1}, {2, 1, -1}, {1, 2}},
    {"unsqueeze", "dim=1", {2, 1, -1}, {2, 1, 1, -1}, {1, 2}},
    {"contiguous", "", {2, 2, -1}, {2, 2, -1}, {1, 2, 3, 4}},
    {"clone", "", {2, 2, -1}, {2, 2, -1}, {1, 2, 3, 4}},
    {"narrow", "dim=1 start=1 length=2", {2, 3, -1}, {2, 2, -1}, {2, 3, 5, 6}},
    {"narrow", "dim=0 start=-1 length=1", {3, 2, -1}, {1, 2, -1}, {5, 6}},
    {"narrow", "dim=0 start=2 length=0", {2, 2, -1}, {0, 2, -1}, {0}},
    {"slice", "dim=0 start=1 stop=4 step=2", {5, -1}, {2, -1}, {2, 4}},
    {"slice", "dim=0 start=1 stop=3 step=2", {5, -1}, {2, -1}, {2, 4}},
    {"slice", "dim=1", {2, 2, -1}, {2, 2, -1}, {1, 2, 3, 4}},
    {"slice", "dim=-1 start=-2 stop=-2", {2, 3, -1}, {2, 1, -1}, {2, 5}},
    {"slice", "dim=0 start=5 stop=4", {5, -1}, {0, -1}, {0}},
    {"slice", "dim=0", {0, -1}, {0, -1}, {0}},
    {"select", "dim=0 index=1", {2, 3, -1}, {3, -1}, {4, 5, 6}},
    {"select", "dim=-1 index=-1", {2, 3, -1}, {2, -1}, {3, 6}},
    {"select", "dim=0 index=2", {3, -1}, {-1}, {3}},
    {"place", "shape=5 dim=0 start=0 step=3", {2, -1}, {5, -1}, {1, 0, 0, 2, 0}},
    {"place", "shape=2,2 dim=1 start=1", {2, -1}, {2, 2, -1}, {0, 1, 0, 2}},
    {"place", "shape=3,1 dim=0 start=2", {1, 1, -1}, {3, 1, -1}, {0, 0, 1}},
    {"place", "shape=2 dim=0 start=1", {-1}, {2, -1}, {0, 1}},
};

static void values_by_hand(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof hands / sizeof *hands; i++)
        for (int t = 0; t < GR_DTYPES; t++) {
            const hand *h = &hands[i];
            gr_tensor *x = counted((gr_dtype)t, h->in), *y = run1(h->op, x, h->attrs);
            check_dims(y, h->out);
            assert_int_equal(y->dtype, t);
            check_close(y, gri_product(y->rank, y->dims), h->want, 0);
            gr_release(y);
            gr_release(x);
        }
}

static void joining_by_hand(void **state) {
    (void)state;
    for (int t = 0; t < GR_DTYPES; t++) {
        gr_tensor *in[] = {counted((gr_dtype)t, CHECK_DIMS(1, 2)), counted((gr_dtype)t, CHECK_DIMS(2, 2)),
                           counted((gr_dtype)t, CHECK_DIMS(0, 2))};
        gr_tensor *y = run_op("cat", 3, in, "");
        check_dims(y, CHECK_DIMS(3, 2));
        check_close(y, 6, (double[]){1, 2, 1, 2, 3, 4}, 0);
        gr_release(y);
        y = run_op("cat", 2, GRI_TENSORS(in[1], in[1]), "dim=-1");
        check_dims(y, CHECK_DIMS(2, 4));
        check_close(y, 8, (double[]){1, 2, 1, 2, 3, 4, 3, 4}, 0);
        gr_release(y);
        y = run_op("stack", 2, GRI_TENSORS(in[0], in[0]), "");
        check_dims(y, CHECK_DIMS(2, 1, 2));
        gr_release(y);
        y = run_op("stack", 3, GRI_TENSORS(in[0], in[0], in[0]), "dim=2");
        check_dims(y, CHECK_DIMS(1, 2, 3));
        check_close(y, 6, (double[]){1, 1, 1, 2, 2, 2}, 0);
        gr_release(y);
        for (int i = 0; i < 3; i++) gr_release(in[i]);
    }
}

static void joined_dtypes_are_promoted(void **state) {
    (void)state;
    gr_tensor *in[] = {counted(GR_U8, CHECK_DIMS(1)), counted(GR_I64, CHECK_DIMS(1)), counted(GR_F32, CHECK_DIMS(1)),
                       counted(GR_F64, CHECK_DIMS(1))};
    static const gr_dtype want[] = {GR_U8, GR_I64, GR_F32, GR_F64};
    for (int n = 1; n <= 4; n++) {
        gr_tensor *y = run_op("cat", n, in, "");
        assert_int_equal(y->dtype, want[n - 1]);
        check_close(y, n, (double[]){1, 1, 1, 1}, 0);
        gr_release(y);
    }
    for (int i = 2; i < 4; i++) check_ok(ctx, gr_tensor_set_requires_grad(in[i], true));
    gr_tensor *y = run_op("stack", 4, in, ""), *seed = counted(GR_F64, CHECK_DIMS(4, 1));
    check_ok(ctx, gr_backward(y, &(gr_backward_options){.seed = seed}));
    assert_int_equal(gr_tensor_grad_peek(in[2])->dtype, GR_F32);
    check_close(gr_tensor_grad_peek(in[2]), 1, (double[]){3}, 0);
    check_close(gr_tensor_grad_peek(in[3]), 1, (double[]){4}, 0);
    gr_release(y);
    gr_release(seed);
    for (int i = 0; i < 4; i++) gr_release(in[i]);
}

static void picking_by_hand(void **state) {
    (void)state;
    for (int t = 0; t < GR_DTYPES; t++) {
        gr_tensor *x = counted((gr_dtype)t, CHECK_DIMS(2, 3)), *none = counted(GR_I64, CHECK_DIMS(0));
        gr_tensor *rows = check_values(ctx, GR_I64, CHECK_DIMS(3), (double[]){2, 1, 2});
        gr_tensor *columns = check_values(ctx, GR_I64, CHECK_DIMS(1), (double[]){3});
        gr_tensor *y = run_op("index_select", 2, GRI_TENSORS(x, rows), "");
        check_dims(y, CHECK_DIMS(3, 3));
        check_close(y, 9, (double[]){4, 5, 6, 1, 2, 3, 4, 5, 6}, 0);
        gr_tensor *back = run_op("index_add", 2, GRI_TENSORS(y, rows), "dim=0 size=2");
        check_close(back, 6, (double[]){1, 2, 3, 8, 10, 12}, 0);
        gr_release(y);
        gr_release(back);
        y = run_op("index_select", 2, GRI_TENSORS(x, columns), "dim=-1");
        check_dims(y, CHECK_DIMS(2, 1));
        check_close(y, 2, (double[]){3, 6}, 0);
        gr_release(y);
        y = run_op("index_select", 2, GRI_TENSORS(x, none), "");
        check_dims(y, CHECK_DIMS(0, 3));
        back = run_op("index_add", 2, GRI_TENSORS(y, none), "dim=0 size=2");
        check_close(back, 6, (double[]){0, 0, 0, 0, 0, 0}, 0);
        gr_release(y);
        gr_release(back);
        gr_release(columns);
        gr_release(rows);
        gr_release(none);
        gr_release(x);
    }
}

/* ---- views ------------------------------------------------------------------------------------------------- */

static void views_share_storage_and_version(void **state) {
    (void)state;
    static const hand views[] = {
        {.op = "reshape", .attrs = "shape=4,3"}, {.op = "view", .attrs = "shape=12"},
        {.op = "flatten"}, {.op = "transpose"}, {.op = "permute", .attrs = "dims=1,0"}, {.op = "squeeze"},
        {.op = "unsqueeze", .attrs = "dim=1"}, {.op = "contiguous"},
        {.op = "narrow", .attrs = "dim=0 start=1 length=2"},
        {.op = "slice", .attrs = "dim=1 step=2"}, {.op = "select", .attrs = "dim=0 index=2"}};
    gr_tensor *x = counted(GR_F32, CHECK_DIMS(3, 4));
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        gr_tensor *y = run1(views[i].op, x, views[i].attrs);
        uint64_t version = gr_tensor_version(x);
        assert_ptr_equal(y->storage, x->storage);
        check_ok(ctx, gr_tensor_fill(y, (double)i));
        bool last = strcmp(views[i].op, "slice") != 0; /* the slice leaves the last element out */
        if (last) assert_true(check_get(x, 11) == (double)i);
        assert_int_equal(gr_tensor_version(x), version + 1);
        assert_int_equal(gr_tensor_version(y), version + 1);
        gr_release(y);
    }
    gr_tensor *wide = run1("expand", x, "shape=2,3,4"); /* elements that are one are not edited in place */
    assert_ptr_equal(wide->storage, x->storage);
    assert_int_equal(gr_tensor_fill(wide, 1), GR_ERR_STATE);
    gr_clear_error(ctx);
    gr_release(wide);
    gr_tensor *y = run1("clone", x, ""), *turned = run1("transpose", x, ""), *dense = run1("contiguous", turned, "");
    assert_ptr_not_equal(y->storage, x->storage);
    assert_ptr_not_equal(dense->storage, x->storage);
    assert_true(dense->contiguous && !turned->contiguous);
    gr_release(y);
    gr_release(turned);
    gr_release(dense);
    gr_release(x);
}

/* reshape of anything gives the elements in row-major order; it is a view exactly where view succeeds. */
static void reshape_of_any_strides(void **state) {
    (void)state;
    uint64_t seed = 3;
    int views = 0, copies = 0;
    for (int i = 0; i < 3000; i++) {
        int64_t sizes[4], gap[4];
        gr_tensor *x = counted(GR_I64, CHECK_DIMS(2, 3, 4, 2)), *y = x, *z = NULL, *v = NULL;
        for (int k = 0; k < 4; k++) gap[k] = (int64_t)(check_random(&seed) * 4);
        static const char *const moves[] = {"dims=0,1,2,3", "dims=1,0,2,3", "dims=2,3,0,1", "dims=0,1,3,2"};
        static const char *const cuts[] = {"dim=0", "dim=1 step=2", "dim=2 start=1", "dim=2 step=2"};
        static const char *const repeats[] = {"shape=-1,-1,-1,-1", "shape=1,-1,-1,-1,-1", "shape=3,-1,-1,-1,-1",
                                              "shape=2,2,-1,-1,-1,-1"};
        x = run1("slice", y, cuts[gap[0]]);
        gr_release(y);
        y = run1("permute", x, moves[gap[1]]);
        gr_release(x);
        x = run1("expand", y, repeats[gap[2]]);
        gr_release(y);
        int64_t left = x->numel;
        int rank = 0;
        for (; rank < 3; rank++) {
            int64_t f = 1 + (int64_t)(check_random(&seed) * 6);
            sizes[rank] = left % f ? 1 : f;
            left /= sizes[rank];
        }
        sizes[rank++] = left;
        char text[80];
        snprintf(text, sizeof text, "shape=%lld,%lld,%lld,%lld", (long long)sizes[0], (long long)sizes[1],
                 (long long)sizes[2], (long long)sizes[3]);
        z = run1("reshape", x, text);
        for (int64_t e = 0; e < x->numel; e++) assert_true(check_get(z, e) == check_get(x, e));
        bool is_view = try_op("view", 1, &x, text, &v) == GR_OK;
        assert_int_equal(is_view, z->storage == x->storage);
        for (int64_t e = 0; is_view && e < x->numel; e++) assert_true(check_get(v, e) == check_get(x, e));
        views += is_view;
        copies += !is_view;
        gr_clear_error(ctx);
        gr_release(v);
        gr_release(z);
        gr_release(x);
    }
    assert_true(views > 200 && copies > 200);
}

/* [2,3,4] with its last two dims swapped: columns of a wider matrix, every second row, a stride of 0. */
static gr_tensor *strange(int kind, gr_dtype t) {
    gr_tensor *x, *y;
    if (kind == 0) return counted(t, CHECK_DIMS(2, 3, 4));
    x = kind == 1 ? counted(t, CHECK_DIMS(2, 4, 3)) : kind == 2 ? counted(t, CHECK_DIMS(2, 3, 6))
      : kind == 3 ? counted(t, CHECK_DIMS(2, 6, 4)) : counted(t, CHECK_DIMS(2, 1, 4));
    y = kind == 1 ? run1("transpose", x, "") : kind == 2 ? run1("narrow", x, "dim=2 start=1 length=4")
      : kind == 3 ? run1("slice", x, "dim=1 start=1 step=2") : run1("expand", x, "shape=2,3,4");
    gr_release(x);
    return y;
}

static void same_values(gr_tensor *a, gr_tensor *b) {
    assert_true(gri_same_dims(a->rank, a->dims, b->rank, b->dims));
    for (int64_t e = 0; e < a->numel; e++) assert_true(check_get(a, e) == check_get(b, e));
    gr_release(a);
    gr_release(b);
}

static void other_strides_give_the_same(void **state) {
    (void)state;
    static const hand ops[] = {
        {.op = "expand", .attrs = "shape=2,2,3,4"}, {.op = "reshape", .attrs = "shape=4,6"},
        {.op = "flatten", .attrs = "start_dim=1"},
        {.op = "transpose", .attrs = "dim0=0 dim1=2"}, {.op = "permute", .attrs = "dims=2,0,1"}, {.op = "contiguous"},
        {.op = "unsqueeze", .attrs = "dim=1"}, {.op = "clone"}, {.op = "narrow", .attrs = "dim=1 start=1 length=2"},
        {.op = "slice", .attrs = "dim=2 start=1 step=2"}, {.op = "select", .attrs = "dim=1 index=2"},
        {.op = "place", .attrs = "shape=2,7,4 dim=1 start=1 step=2"},
        {.op = "place", .attrs = "shape=2,3,2,4 dim=2 start=1"}};
    for (int kind = 1; kind < 5; kind++)
        for (int t = 0; t < GR_DTYPES; t++) {
            gr_tensor *x = strange(kind, (gr_dtype)t), *plain = run1("clone", x, ""), *index;
            assert_false(x->contiguous);
            for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
                same_values(run1(ops[i].op, x, ops[i].attrs), run1(ops[i].op, plain, ops[i].attrs));
            gr_tensor *wide = check_values(ctx, GR_I64, CHECK_DIMS(3, 2), (double[]){2, 9, 1, 9, 2, 9});
            index = run1("select", wide, "dim=1 index=0"); /* strided, too */
            for (int d = 0; d < 3; d++) {
                char cat[16];
                snprintf(cat, sizeof cat, "dim=%d", d);
                gr_tensor *const strided[] = {x, x}, *const dense[] = {plain, plain};
                same_values(run_op("cat", 2, strided, cat), run_op("cat", 2, dense, cat));
                same_values(run_op("stack", 2, strided, cat), run_op("stack", 2, dense, cat));
                gr_tensor *const pick[] = {x, index}, *const pick_dense[] = {plain, index};
                same_values(run_op("index_select", 2, pick, cat), run_op("index_select", 2, pick_dense, cat));
                same_values(run_op("index_add", 2, pick, "dim=1 size=5"),
                            run_op("index_add", 2, pick_dense, "dim=1 size=5"));
            }
            gr_release(wide);
            gr_release(index);
            gr_release(x);
            gr_release(plain);
        }
}

/* Large enough for several pieces; rows of one element, of a few, and of many. */
static void threads_do_not_show(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{200000, 1, -1}, {9000, 33, -1}, {300, 1000, -1}};
    uint64_t seed = 4;
    for (int k = 0; k < 3; k++) {
        gr_tensor *x = check_tensor(ctx, GR_F32, shapes[k], -1, 1, &seed), *index, *rows[2], *sums[2];
        index = check_tensor(ctx, GR_I64, CHECK_DIMS(x->dims[0] * 2), 1, 1, &seed);
        for (int64_t i = 0; i < index->numel; i++)
            check_put(index, i, 1 + floor((double)x->dims[0] * check_random(&seed) / 3));
        for (int threads = 0; threads < 2; threads++) {
            check_ok(ctx, gr_set_threads(ctx, threads ? 3 : 1));
            char text[40];
            snprintf(text, sizeof text, "dim=0 size=%lld", (long long)x->dims[0]);
            rows[threads] = run_op("index_select", 2, GRI_TENSORS(x, index), "");
            sums[threads] = run_op("index_add", 2, GRI_TENSORS(rows[threads], index), text);
        }
        check_same_bits(rows[0], rows[1]);
        check_same_bits(sums[0], sums[1]);
        for (int64_t i = 0; i < index->numel; i += 997) {
            int64_t row = (int64_t)check_get(index, i) - 1;
            assert_true(check_get(rows[0], i * x->dims[1]) == check_get(x, row * x->dims[1]));
        }
        for (int i = 0; i < 2; i++) {
            gr_release(rows[i]);
            gr_release(sums[i]);
        }
        gr_release(index);
        gr_release(x);
    }
}

static void ranks_from_0_to_8(void **state) {
    (void)state;
    gr_tensor *x = counted(GR_F32, (int64_t[]){-1}), *y;
    for (int rank = 0; rank < GR_MAX_RANK; rank++) {
        y = run_op("stack", 2, GRI_TENSORS(x, x), "dim=-1");
        assert_int_equal(y->rank, rank + 1);
        same_values(run1("select", y, "dim=-1 index=1"), run1("clone", x, ""));
        gr_tensor *twice = run_op("cat", 2, GRI_TENSORS(y, y), "dim=-1");
        same_values(run1("narrow", twice, "dim=-1 start=2 length=2"), run1("clone", y, ""));
        gr_release(twice);
        same_values(run1("flatten", y, ""), run1("reshape", y, "shape=-1"));
        gr_release(x);
        x = y;
    }
    assert_int_equal(x->rank, 8);
    assert_int_equal(try_op("unsqueeze", 1, &x, "dim=0", &y), GR_ERR_SHAPE);
    assert_int_equal(try_op("stack", 1, &x, "", &y), GR_ERR_SHAPE);
    gr_clear_error(ctx);
    y = run1("permute", x, "dims=7,6,5,4,3,2,1,0");
    same_values(run1("permute", y, "dims=7,6,5,4,3,2,1,0"), run1("clone", x, ""));
    gr_release(y);
    gr_release(x);
}

/* ---- messages ------------------------------------------------------------------------------------------------ */

typedef struct wrong {
    const char *op, *attrs;
    int64_t in[4], second[4];
    gr_status status;
    const char *message; /* dims and positions counted from 1 */
} wrong;

#define NONE {-2}
static const wrong wrongs[] = {
    {"expand", "shape=3,3", {2, 3, -1}, NONE, GR_ERR_SHAPE,
     "expand: f32[2,3] does not expand to [3,3]: from the last on, only a size of 1 can grow; -1 keeps one"},
    {"expand", "shape=3", {2, 3, -1}, NONE, GR_ERR_SHAPE, "f32[2,3] does not expand to [3]"},
    {"expand", "shape=-1,3", {3, -1}, NONE, GR_ERR_SHAPE, "f32[3] does not expand to [-1,3]"},
    {"expand", "shape=4611686018427387904,4,1", {1, -1}, NONE, GR_ERR_SHAPE,
     "shape [4611686018427387904,4,1] has too many elements"},
    {"reshape", "shape=4,2", {2, 3, -1}, NONE, GR_ERR_SHAPE, "reshape: f32[2,3] has 6 elements, [4,2] has 8"},
    {"reshape", "shape=-1,4", {2, 3, -1}, NONE, GR_ERR_SHAPE,
     "f32[2,3] has 6 elements, [-1,4] needs a multiple of 4"},
    {"reshape", "shape=-1,-1", {2, 3, -1}, NONE, GR_ERR_SHAPE, "[-1,-1]: only one size can be -1"},
    {"reshape", "shape=-2,3", {2, 3, -1}, NONE, GR_ERR_SHAPE, "shape [-2,3] has a negative size"},
    {"reshape", "shape=0,-1", {0, 3, -1}, NONE, GR_ERR_SHAPE, "-1 could be any size"},
    {"flatten", "start_dim=1 end_dim=0", {2, 3, -1}, NONE, GR_ERR_INDEX,
     "start_dim 2 comes after end_dim 1 of f32[2,3]"},
    {"flatten", "start_dim=2", {2, 3, -1}, NONE, GR_ERR_INDEX, "dimension 3: the tensor has 2 dimensions"},
    {"transpose", "", {3, -1}, NONE, GR_ERR_INDEX, "transpose: dimension -2: the tensor has 1 dimension"},
    {"permute", "dims=0,0", {2, 3, -1}, NONE, GR_ERR_INDEX, "dimension 1 is given twice"},
    {"permute", "dims=0", {2, 3, -1}, NONE, GR_ERR_ARG, "permute: 1 dimensions are listed, but f32[2,3] has 2"},
    {"squeeze", "dim=2", {2, 3, -1}, NONE, GR_ERR_INDEX, "dimension 3: the tensor has 2 dimensions"},
    {"unsqueeze", "dim=3", {2, 3, -1}, NONE, GR_ERR_INDEX, "dimension 4: f32[2,3] can take a new one at 1 to 3"},
    {"unsqueeze", "dim=-4", {2, 3, -1}, NONE, GR_ERR_INDEX, "dimension -4: f32[2,3]"},
    {"narrow", "dim=1 start=3 length=1", {2, 3, -1}, NONE, GR_ERR_INDEX,
     "narrow: start 4 is outside dimension 2 of f32[2,3]: positions are 1 to 3"},
    {"narrow", "dim=1 start=1 length=3", {2, 3, -1}, NONE, GR_ERR_INDEX,
     "length 3 from start 2 leaves dimension 2 of f32[2,3], which has 3 positions"},
    {"narrow", "dim=1 start=0 length=-1", {2, 3, -1}, NONE, GR_ERR_ARG, "length -1 is negative"},
    {"slice", "dim=0 start=3 stop=1", {5, -1}, NONE, GR_ERR_INDEX,
     "start 4 comes after stop 2 in dimension 1 of f32[5]"},
    {"slice", "dim=0 start=1 stop=5", {5, -1}, NONE, GR_ERR_INDEX,
     "stop 6 is outside dimension 1 of f32[5]: positions are 1 to 5"},
    {"slice", "dim=0 start=7 stop=6", {5, -1}, NONE, GR_ERR_INDEX, "start 8 is outside"},
    {"slice", "dim=0 step=0", {5, -1}, NONE, GR_ERR_ARG, "step 0: it must be at least 1"},
    {"select", "dim=0 index=-3", {2, 3, -1}, NONE, GR_ERR_INDEX,
     "select: index -3 is outside dimension 1 of f32[2,3]: positions are 1 to 2"},
    {"select", "dim=0 index=0", {0, 3, -1}, NONE, GR_ERR_INDEX, "index 1: dimension 1 of f32[0,3] is empty"},
    {"select", "dim=0 index=0", {-1}, NONE, GR_ERR_INDEX, "dimension 1: the tensor has 0 dimensions"},
    {"place", "shape=2,4 dim=1 start=2", {2, 3, -1}, NONE, GR_ERR_SHAPE,
     "f32[2,3] does not fit into dimension 2 of [2,4] from position 3 in steps of 1"},
    {"cat", "dim=0", {2, 3, -1}, {2, 4, -1}, GR_ERR_SHAPE,
     "cat: tensor 2 is f32[2,4], but the first is f32[2,3]: only dimension 1 may differ"},
    {"cat", "dim=0", {2, 3, -1}, {3, -1}, GR_ERR_SHAPE, "tensor 2 is f32[3], but the first is f32[2,3]"},
    {"cat", "dim=0", {-1}, {-1}, GR_ERR_SHAPE, "f32[] has no dimension to join along; stack makes one"},
    {"cat", "dim=2", {2, 3, -1}, {2, 3, -1}, GR_ERR_INDEX, "dimension 3: the tensor has 2 dimensions"},
    {"stack", "dim=0", {2, 3, -1}, {2, 4, -1}, GR_ERR_SHAPE,
     "stack: tensor 2 is f32[2,4], but the first is f32[2,3]"},
    {"index_select", "dim=0", {2, 3, -1}, {2, -1}, GR_ERR_DTYPE, "index_select: the index is f32[2], expected i64"},
};

static void messages_show_what_was_given(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        const wrong *w = &wrongs[i];
        gr_tensor *in[2] = {counted(GR_F32, w->in)}, *y = NULL;
        if (w->second[0] != -2) in[1] = counted(GR_F32, w->second);
        gr_status s = try_op(w->op, 1 + (in[1] != NULL), in, w->attrs, &y);
        if (s != w->status || !strstr(gr_errmsg(ctx), w->message))
            fail_msg("%s %s: %s \"%s\", expected %s \"%s\"", w->op, w->attrs, gr_status_str(s), gr_errmsg(ctx),
                     gr_status_str(w->status), w->message);
        assert_null(y);
        gr_clear_error(ctx);
        gr_release(in[0]);
        gr_release(in[1]);
    }
}

static void view_says_when_it_cannot(void **state) {
    (void)state;
    gr_tensor *x = counted(GR_F32, CHECK_DIMS(2, 3)), *turned = run1("transpose", x, ""), *y;
    assert_int_equal(try_op("view", 1, &turned, "shape=6", &y), GR_ERR_SHAPE);
    assert_string_equal(gr_errmsg(ctx),
                        "view: the memory of f32[3,2] with strides [1,3] does not read as [6]; reshape copies it");
    gr_clear_error(ctx);
    gr_release(turned);
    gr_release(x);
}

static void index_errors(const char *message, const int64_t *dims, double value) {
    gr_tensor *x = counted(GR_F32, dims), *y;
    gr_tensor *index = check_values(ctx, GR_I64, CHECK_DIMS(2), (double[]){ctx->index_base, value});
    if (x->dims[0] == 0) check_put(index, 0, value);
    assert_int_equal(try_op("index_select", 2, GRI_TENSORS(x, index), "", &y), GR_ERR_INDEX);
    assert_string_equal(gr_errmsg(ctx), message);
    gr_clear_error(ctx);
    gr_release(index);
    gr_release(x);
}

static void positions_outside_are_named(void **state) {
    (void)state;
    index_errors("index_select: position 0 (place [2] of the index) is outside dimension 1 of [4,2]: 1 to 4; "
                 "positions count from 1, not from 0", CHECK_DIMS(4, 2), 0);
    index_errors("index_select: position 5 (place [2] of the index) is outside dimension 1 of [4,2]: 1 to 4",
                 CHECK_DIMS(4, 2), 5);
    index_errors("index_select: position -9007199254740992 (place [2] of the index) is outside dimension 1 of [4,2]: "
                 "1 to 4", CHECK_DIMS(4, 2), -9007199254740992.0);
    index_errors("index_select: position 1 (place [1] of the index): dimension 1 of [0,2] is empty",
                 CHECK_DIMS(0, 2), 1);
    ctx->index_base = 0;
    index_errors("index_select: position 4 (place [1] of the index) is outside dimension 0 of [4,2]: 0 to 3",
                 CHECK_DIMS(4, 2), 4);
    ctx->index_base = 1;
}

static void refuses_buffer(const int64_t *dims, const int64_t *strides) {
    static float value;
    gr_tensor *t = NULL;
    assert_int_equal(gr_tensor_borrow(ctx, GR_F32, 2, dims, strides, &value, NULL, NULL, &t), GR_ERR_SHAPE);
    assert_null(t);
    gr_clear_error(ctx);
}

/* What lies beyond is never touched, but its size is computed with. */
static void lent_buffers_fit_into_memory(void **state) {
    (void)state;
    const int64_t huge = (int64_t)1 << 62;
    gr_tensor *t;
    refuses_buffer((int64_t[]){3, 3}, (int64_t[]){huge, 1});
    refuses_buffer((int64_t[]){2, 2}, (int64_t[]){INT64_MAX, INT64_MAX});
    refuses_buffer((int64_t[]){2, 1}, (int64_t[]){huge, 1});
    refuses_buffer((int64_t[]){0, huge}, NULL);
    refuses_buffer((int64_t[]){(int64_t)1 << 31, (int64_t)1 << 31}, NULL);
    float one = 1;
    assert_int_equal(gr_tensor_borrow(ctx, GR_F32, 2, (int64_t[]){1, 1}, (int64_t[]){huge, INT64_MAX}, &one, NULL,
                                      NULL, &t), GR_OK);
    assert_true(check_get(t, 0) == 1);
    gr_release(t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_ctx, close_ctx)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(values_by_hand),
        TEST(joining_by_hand),
        TEST(joined_dtypes_are_promoted),
        TEST(picking_by_hand),
        TEST(views_share_storage_and_version),
        TEST(reshape_of_any_strides),
        TEST(other_strides_give_the_same),
        TEST(threads_do_not_show),
        TEST(ranks_from_0_to_8),
        TEST(messages_show_what_was_given),
        TEST(view_says_when_it_cannot),
        TEST(positions_outside_are_named),
        TEST(lent_buffers_fit_into_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
