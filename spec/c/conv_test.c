/* Convolution against plain loops in doubles: random shapes, strides, paddings, dilations, groups, in f32
 * and f64, set and added; derivatives by differences; the same bits on any number of threads; empty batches, strided
 * operands; messages; nothing taken from the system by a warm step. */
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

static uint64_t seed = 5;
static int64_t between(int64_t lo, int64_t hi) { return lo + (int64_t)(check_random(&seed) * (double)(hi - lo + 1)); }

static double *values_of(const gr_tensor *t) {
    double *v = malloc(((size_t)t->numel + 1) * sizeof *v);
    for (int64_t i = 0; i < t->numel; i++) v[i] = check_get(t, i);
    return v;
}

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

/* Runs the kernel of an op as the tape does: into given outputs, set or added. */
static gr_status run_into(const gr_op *op, int n, gr_tensor *const *in, const void *attrs, gri_mode mode,
                          gr_tensor *y, gr_tensor *second) {
    gri_call c = {.ctx = ctx, .op = op, .attrs = attrs, .n_in = n, .n_out = gr_op_outputs(op), .in = in,
                  .mode = mode};
    GR_TRY(gri_check(&c));
    c.out[0] = y;
    c.out[1] = second;
    return gri_run(&c);
}

/* ---- plain convolution --------------------------------------------------------------------------------------- */

typedef struct conv {
    int64_t n, c, h, w, o, kh, kw, oh, ow;
    gri_conv2d_attrs a;
} conv;

static bool conv_sizes(conv *k) {
    int64_t high = k->h + 2 * k->a.padding[0] - k->a.dilation[0] * (k->kh - 1) - 1;
    int64_t wide = k->w + 2 * k->a.padding[1] - k->a.dilation[1] * (k->kw - 1) - 1;
    k->oh = high / k->a.stride[0] + 1;
    k->ow = wide / k->a.stride[1] + 1;
    return high >= 0 && wide >= 0;
}

static conv random_conv(void) {
    conv k;
    do {
        int64_t g = between(0, 2) ? 1 : between(1, 3);
        k = (conv){.n = between(1, 4), .c = g * between(1, 4), .h = between(1, 12), .w = between(1, 12),
                   .o = g * between(1, 5), .kh = between(1, 4), .kw = between(1, 4)};
        k.a = (gri_conv2d_attrs){{between(1, 3), between(1, 3)}, {between(0, 3), between(0, 3)},
                                 {between(1, 2), between(1, 3)}, g, {0}};
        if (between(0, 1)) k.a.stride[0] = k.a.stride[1] = 1;
        if (between(0, 3) == 0) { /* as wide as it was: the path of shifted planes */
            k.kw = 3;
            k.a.padding[1] = k.a.dilation[1];
        }
        if (between(0, 5) == 0) k.kh = k.kw = 1, k.a.padding[0] = k.a.padding[1] = 0; /* no columns */
    } while (!conv_sizes(&k));
    return k;
}

/* Calls fn with the flat places of x, w and y of every product there is. */
typedef void (*term_fn)(void *ud, int64_t x, int64_t w, int64_t y);
static void each_term(const conv *k, term_fn fn, void *ud) {
    int64_t cg = k->c / k->a.groups, og = k->o / k->a.groups;
    for (int64_t n = 0; n < k->n; n++)
        for (int64_t o = 0; o < k->o; o++)
            for (int64_t r = 0; r < k->oh; r++)
                for (int64_t q = 0; q < k->ow; q++)
                    for (int64_t c = 0; c < cg; c++)
                        for (int64_t i = 0; i < k->kh; i++)
                            for (int64_t j = 0; j < k->kw; j++) {
                                int64_t p = r * k->a.stride[0] - k->a.padding[0] + i * k->a.dilation[0];
                                int64_t s = q * k->a.stride[1] - k->a.padding[1] + j * k->a.dilation[1];
                                if (p < 0 || p >= k->h || s < 0 || s >= k->w) continue;
                                fn(ud, ((n * k->c + o / og * cg + c) * k->h + p) * k->w + s,
                                   ((o * cg + c) * k->kh + i) * k->kw + j, ((n * k->o + o) * k->oh + r) * k->ow + q);
                            }
}

typedef struct terms { double *x, *w, *y, *sum; } terms;
static void add_to_y(void *ud, int64_t x, int64_t w, int64_t y) {
    terms *t = ud;
    t->sum[y] += t->x[x] * t->w[w];
}
static void add_to_x(void *ud, int64_t x, int64_t w, int64_t y) {
    terms *t = ud;
    t->sum[x] += t->y[y] * t->w[w];
}
static void add_to_w(void *ud, int64_t x, int64_t w, int64_t y) {
    terms *t = ud;
    t->sum[w] += t->x[x] * t->y[y];
}

static void check_twice(const gr_tensor *y, const double *sum, double tol) {
    for (int64_t i = 0; i < y->numel; i++)
        assert_true(fabs(check_get(y, i) - 2 * sum[i]) <= 2 * tol * fmax(1, fabs(sum[i])));
}

/* One op into a fresh or a strided destination, set and then added to itself: 2 * sum. */
static void check_op(const gr_op *op, int n, gr_tensor *const *in, const void *attrs, gr_tensor *like,
                     const double *sum, const double *second_sum, double tol) {
    for (int way = 0; way < 3; way++) {
        gr_tensor *y = way == 2 ? spread(like) : NULL, *second = NULL, *given[3];
        gri_spec spec = gri_spec_of(like);
        if (!y) check_ok(ctx, gri_tensor_like_spec(ctx, &spec, &y));
        if (second_sum) check_ok(ctx, gr_tensor_empty(ctx, (gr_dtype)like->dtype, 1, in[1]->dims + 1, &second));
        for (int i = 0; i < n; i++) given[i] = way && in[i] ? spread(in[i]) : gr_retain(in[i]);
        check_ok(ctx, run_into(op, n, given, attrs, GRI_SET, y, second));
        check_close(y, like->numel, sum, tol);
        check_ok(ctx, run_into(op, n, given, attrs, GRI_ADD, y, second));
        check_twice(y, sum, tol);
        if (second) check_twice(second, second_sum, tol);
        for (int i = 0; i < n; i++) gr_release(given[i]);
        gr_release(y);
        gr_release(second);
    }
}

static void check_conv(conv *k, gr_dtype type, bool bias) {
    double tol = type == GR_F32 ? 2e-5 : 1e-13;
    gr_tensor *x = check_tensor(ctx, type, CHECK_DIMS(k->n, k->c, k->h, k->w), -1, 1, &seed);
    gr_tensor *w = check_tensor(ctx, type, CHECK_DIMS(k->o, k->c / k->a.groups, k->kh, k->kw), -1, 1, &seed);
    gr_tensor *b = bias ? check_tensor(ctx, type, CHECK_DIMS(k->o), -1, 1, &seed) : NULL;
    gr_tensor *y = check_tensor(ctx, type, CHECK_DIMS(k->n, k->o, k->oh, k->ow), -1, 1, &seed);
    terms t = {values_of(x), values_of(w), values_of(y), NULL};
    t.sum = calloc((size_t)y->numel + 1, sizeof *t.sum);
    for (int64_t i = 0; b && i < y->numel; i++) t.sum[i] = check_get(b, i / (k->oh * k->ow) % k->o);
    each_term(k, add_to_y, &t);
    check_op(&gri_op_conv2d, 3, GRI_TENSORS(x, w, b), &k->a, y, t.sum, NULL, tol);
    free(t.sum);
    t.sum = calloc((size_t)x->numel + 1, sizeof *t.sum);
    each_term(k, add_to_x, &t);
    k->a.shape = (gr_dims){4, {k->n, k->c, k->h, k->w}};
    check_op(&gri_op_conv2d_input_grad, 2, GRI_TENSORS(y, w), &k->a, x, t.sum, NULL, tol);
    free(t.sum);
    t.sum = calloc((size_t)w->numel + 1, sizeof *t.sum);
    each_term(k, add_to_w, &t);
    k->a.shape = (gr_dims){4, {k->o, k->c / k->a.groups, k->kh, k->kw}};
    double *db = calloc((size_t)k->o + 1, sizeof *db);
    for (int64_t i = 0; i < y->numel; i++) db[i / (k->oh * k->ow) % k->o] += t.y[i];
    check_op(&gri_op_conv2d_weight_grad, 2, GRI_TENSORS(x, y), &k->a, w, t.sum, db, tol);
    free(t.sum), free(t.x), free(t.w), free(t.y), free(db);
    gr_release(x), gr_release(w), gr_release(b), gr_release(y);
}

static void convolution_is_its_sum(void **state) {
    (void)state;
    for (int i = 0; i < 250; i++) {
        conv k = random_conv();
        check_conv(&k, i % 2 ? GR_F32 : GR_F64, i % 3 != 0);
    }
}

/* Large enough for several blocks of rows in an image, and for pieces of channels. */
static void large_images_are_cut(void **state) {
    (void)state;
    conv k[] = {{1, 3, 70, 61, 4, 3, 3, 0, 0, {{1, 1}, {1, 1}, {1, 1}, 1, {0}}},
                {2, 40, 33, 50, 3, 5, 4, 0, 0, {{1, 2}, {0, 3}, {2, 1}, 1, {0}}},
                {1, 20, 90, 60, 3, 4, 3, 0, 0, {{2, 2}, {2, 1}, {3, 1}, 1, {0}}},
                {1, 64, 40, 40, 2, 1, 1, 0, 0, {{1, 1}, {0, 0}, {1, 1}, 2, {0}}},
                {19, 2, 5, 5, 3, 3, 3, 0, 0, {{1, 1}, {1, 1}, {1, 1}, 1, {0}}}};
    for (size_t i = 0; i < sizeof k / sizeof *k; i++) {
        assert_true(conv_sizes(&k[i]));
        check_conv(&k[i], GR_F32, true);
        check_conv(&k[i], GR_F64, true);
    }
}

/* Products read images as vectors, one or two at a time, whole or put together, for few channels and for many; and
 * every CPU variant has vectors of its own. */
static void every_width_is_read_right(void **state) {
    (void)state;
    static const char *const isas[] = {"generic", "avx2", "avx512"};
    static const int64_t widths[] = {2, 7, 8, 14, 16, 17, 24, 32, 33, 48}, outs[] = {1, 2, 3, 5, 50};
    gr_ctx *mine = ctx;
    for (int isa = 0; isa < 3; isa++) {
        gr_config cfg;
        gr_config_init(&cfg);
        cfg.threads = 2;
        cfg.isa = isas[isa];
        if (gr_ctx_new(&cfg, &ctx) != GR_OK) continue; /* not on this machine */
        for (int i = 0; i < 10; i++)
            for (int k = 0; k < 5; k++) {
                const int64_t stride = 1 + (i + k) % 3 / 2, channels = 1 + k % 3, groups = k == 1 ? 2 : 1;
                conv c = {2, groups * channels, 5, widths[i], groups * outs[k], 3, 3, 0, 0,
                          {{stride, stride}, {1, 1}, {1, 1}, groups, {0}}};
                assert_true(conv_sizes(&c));
                check_conv(&c, (i + k + isa) % 2 ? GR_F32 : GR_F64, k % 2);
            }
        check_ctx_free(ctx);
    }
    ctx = mine;
}

static void empty_batches_have_no_gradient(void **state) {
    (void)state;
    gri_conv2d_attrs a = {{1, 1}, {1, 1}, {1, 1}, 1, {4, {3, 2, 3, 3}}};
    uint64_t none = 0;
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(0, 2, 5, 5), 0, 0, &none), *y, *out[2];
    gr_tensor *w = check_tensor(ctx, GR_F32, CHECK_DIMS(3, 2, 3, 3), 0, 1, &none);
    check_ok(ctx, gr_apply(ctx, &gri_op_conv2d, 2, GRI_TENSORS(x, w), &a, &y));
    assert_int_equal(y->numel, 0);
    check_ok(ctx, gr_apply(ctx, &gri_op_conv2d_weight_grad, 2, GRI_TENSORS(x, y), &a, out));
    for (int i = 0; i < 2; i++) {
        for (int64_t e = 0; e < out[i]->numel; e++) assert_true(check_get(out[i], e) == 0);
        gr_release(out[i]);
    }
    a.shape = (gr_dims){4, {0, 2, 5, 5}};
    check_ok(ctx, gr_apply(ctx, &gri_op_conv2d_input_grad, 2, GRI_TENSORS(y, w), &a, out));
    assert_int_equal(out[0]->numel, 0);
    gr_release(out[0]), gr_release(x), gr_release(y), gr_release(w);
}

/* ---- derivatives --------------------------------------------------------------------------------------------- */

static void convolution_derivatives(void **state) {
    (void)state;
    static const gri_conv2d_attrs a[] = {{{1, 1}, {1, 1}, {1, 1}, 1, {0}}, {{2, 1}, {1, 2}, {1, 2}, 2, {0}},
                                         {{1, 1}, {0, 0}, {1, 1}, 1, {0}}};
    for (int i = 0; i < 3; i++) {
        int64_t k = i == 2 ? 1 : 3, oh, ow;
        gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 2, 4, 5), -1, 1, &seed);
        gr_tensor *w = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 2 / a[i].groups, k, i == 1 ? 2 : k), -1, 1, &seed);
        gr_tensor *b = check_tensor(ctx, GR_F64, CHECK_DIMS(2), -1, 1, &seed), *y;
        check_gradients(ctx, "conv2d", 3, GRI_TENSORS(x, w, b), &a[i], 7);
        check_gradients(ctx, "conv2d", 3, GRI_TENSORS(x, w, NULL), &a[i], 3);
        check_gradients(ctx, "conv2d", 3, GRI_TENSORS(x, w, b), &a[i], 4);
        check_ok(ctx, gr_apply(ctx, &gri_op_conv2d, 2, GRI_TENSORS(x, w), &a[i], &y));
        oh = y->dims[2], ow = y->dims[3];
        gr_release(y);
        y = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 2, oh, ow), -1, 1, &seed);
        gri_conv2d_attrs g = a[i];
        g.shape = (gr_dims){4, {2, 2, 4, 5}};
        check_gradients(ctx, "conv2d_input_grad", 2, GRI_TENSORS(y, w), &g, 3);
        g.shape = (gr_dims){4, {2, w->dims[1], w->dims[2], w->dims[3]}};
        check_gradients(ctx, "conv2d_weight_grad", 2, GRI_TENSORS(x, y), &g, 3);
        gr_release(x), gr_release(w), gr_release(b), gr_release(y);
    }
}

/* d(Σ db)/d(dy) = 1: the bias's part of the weight gradient alone. */
static void bias_gradient_alone_has_a_derivative(void **state) {
    (void)state;
    gri_conv2d_attrs a = {{1, 1}, {0, 0}, {1, 1}, 1, {4, {3, 2, 2, 2}}};
    gr_tensor *x = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 2, 3, 3), -1, 1, &seed), *out[2], *sum, *grad;
    gr_tensor *dy = check_tensor(ctx, GR_F64, CHECK_DIMS(2, 3, 2, 2), -1, 1, &seed);
    check_ok(ctx, gr_tensor_set_requires_grad(dy, true));
    check_ok(ctx, gr_apply(ctx, &gri_op_conv2d_weight_grad, 2, GRI_TENSORS(x, dy), &a, out));
    check_ok(ctx, GRI_APPLY(ctx, &sum, sum, out[1]));
    check_ok(ctx, gr_grad(1, &sum, NULL, 1, &dy, NULL, &grad));
    for (int64_t i = 0; i < grad->numel; i++) assert_true(check_get(grad, i) == 1);
    gr_release(grad), gr_release(sum), gr_release(out[0]), gr_release(out[1]), gr_release(x), gr_release(dy);
}

/* ---- the same bits -------------------------------------------------------------------------------------------- */

static void threads_do_not_show(void **state) {
    (void)state;
    static const int64_t sizes[][6] = {{33, 3, 16, 16, 8, 3}, {1, 8, 64, 64, 16, 3}, {4, 64, 9, 9, 24, 3},
                                       {20, 16, 12, 12, 16, 1}};
    gr_ctx *mine = ctx;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t *s = sizes[i], p = s[5] / 2;
        gr_tensor *kept[3][4];
        gr_ctx *of[3];
        for (int t = 0; t < 3; t++) {
            ctx = of[t] = check_ctx(t + 1, NULL);
            uint64_t same = 9;
            gri_conv2d_attrs a = {{1, 1}, {p, p}, {1, 1}, 1, {4, {s[0], s[1], s[2], s[3]}}};
            gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(s[0], s[1], s[2], s[3]), -1, 1, &same);
            gr_tensor *w = check_tensor(ctx, GR_F32, CHECK_DIMS(s[4], s[1], s[5], s[5]), -1, 1, &same), **y = kept[t];
            check_ok(ctx, gr_apply(ctx, &gri_op_conv2d, 2, GRI_TENSORS(x, w), &a, &y[0]));
            check_ok(ctx, gr_apply(ctx, &gri_op_conv2d_input_grad, 2, GRI_TENSORS(y[0], w), &a, &y[1]));
            a.shape = (gr_dims){4, {s[4], s[1], s[5], s[5]}};
            check_ok(ctx, gr_apply(ctx, &gri_op_conv2d_weight_grad, 2, GRI_TENSORS(x, y[0]), &a, &y[2]));
            gr_release(x), gr_release(w);
        }
        for (int t = 0; t < 3; t++) {
            for (int k = 0; k < 4; k++) check_same_bits(kept[0][k], kept[t][k]);
            for (int k = 0; k < 4 && t; k++) gr_release(kept[t][k]);
            if (t) check_ctx_free(of[t]);
        }
        for (int k = 0; k < 4; k++) gr_release(kept[0][k]);
        check_ctx_free(of[0]);
    }
    ctx = mine;
}

static void warm_steps_take_nothing_from_the_system(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* the pools are bypassed */
#endif
    gri_conv2d_attrs a = {{1, 1}, {1, 1}, {1, 1}, 1, {0}};
    gri_pool_attrs pool = {.kernel_size = {2, 2}};
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(9, 3, 16, 16), -1, 1, &seed);
    gr_tensor *w = check_tensor(ctx, GR_F32, CHECK_DIMS(8, 3, 3, 3), -1, 1, &seed);
    gr_tensor *b = check_tensor(ctx, GR_F32, CHECK_DIMS(8), -1, 1, &seed), *in[] = {x, w, b};
    gr_memory before = {0}, after;
    for (int i = 0; i < 3; i++) check_ok(ctx, gr_tensor_set_requires_grad(in[i], true));
    for (int step = 0; step < 6; step++) {
        gr_tensor *y, *pooled[2], *sum;
        check_ok(ctx, gr_apply(ctx, &gri_op_conv2d, 3, in, &a, &y));
        check_ok(ctx, gr_apply(ctx, &gri_op_max_pool2d, 1, &y, &pool, pooled));
        check_ok(ctx, GRI_APPLY(ctx, &sum, sum, pooled[0]));
        check_ok(ctx, gr_backward(sum, NULL));
        for (int i = 0; i < 3; i++) check_ok(ctx, gr_tensor_set_grad(in[i], NULL));
        gr_release(y), gr_release(pooled[0]), gr_release(pooled[1]), gr_release(sum);
        if (step == 2) gr_memory_get(ctx, &before);
    }
    gr_memory_get(ctx, &after);
    assert_int_equal(after.system_calls, before.system_calls);
    for (int i = 0; i < 3; i++) gr_release(in[i]);
}

/* ---- no memory ----------------------------------------------------------------------------------------------- */

static void *stingy(void *ud, void *ptr, size_t osize, size_t nsize) {
    int64_t *left = ud;
    (void)osize;
    if (nsize == 0) {
        free(ptr);
        return NULL;
    }
    return --*left < 0 ? NULL : realloc(ptr, nsize);
}

/* y = max_pool2d(conv2d(x, w, b)), y's sum backward. Releases all it made, whatever happens. */
static gr_status one_step(gr_ctx *c) {
    gri_conv2d_attrs a = {{1, 1}, {1, 1}, {1, 1}, 1, {0}};
    gri_pool_attrs pool = {.kernel_size = {2, 2}};
    gr_tensor *t[7] = {0};
    static const int64_t dims[3][4] = {{7, 3, 20, 20}, {8, 3, 3, 3}, {8}};
    gr_status s = GR_OK;
    for (int i = 0; i < 3 && s == GR_OK; i++) {
        s = gr_tensor_new(c, GR_F32, i < 2 ? 4 : 1, dims[i], &t[i]);
        if (s == GR_OK) s = gr_tensor_set_requires_grad(t[i], true);
    }
    if (s == GR_OK) s = gr_apply(c, &gri_op_conv2d, 3, t, &a, &t[3]);
    if (s == GR_OK) s = gr_apply(c, &gri_op_max_pool2d, 1, &t[3], &pool, &t[4]);
    if (s == GR_OK) s = GRI_APPLY(c, &t[6], sum, t[4]);
    if (s == GR_OK) s = gr_backward(t[6], NULL);
    for (int i = 0; i < 7; i++) gr_release(t[i]);
    return s;
}

static void failed_allocations_leave_nothing(void **state) {
    (void)state;
    for (int64_t n = 1;; n++) {
        int64_t left = n;
        gr_config cfg;
        gr_ctx *c;
        gr_config_init(&cfg);
        cfg.alloc = stingy;
        cfg.alloc_ud = &left;
        cfg.threads = 2;
        if (gr_ctx_new(&cfg, &c) != GR_OK) continue;
        gr_status s = one_step(c);
        assert_true(s == GR_OK || s == GR_ERR_MEMORY);
        if (s != GR_OK) assert_string_not_equal(gr_errmsg(c), "");
        check_ctx_free(c);
        if (left >= 0) break; /* nothing failed any more */
        assert_true(n < 10000);
    }
}

/* ---- what is refused ------------------------------------------------------------------------------------------ */

static void check_refused(const gr_op *op, int n, gr_tensor *const *in, const void *attrs, const char *text) {
    gr_tensor *out[GRI_MAX_OUT];
    assert_int_not_equal(gr_apply(ctx, op, n, in, attrs, out), GR_OK);
    if (strcmp(gr_errmsg(ctx), text) != 0) fail_msg("said: %s\nexpected: %s", gr_errmsg(ctx), text);
    gr_clear_error(ctx);
}

static void mistakes_are_named(void **state) {
    (void)state;
    gri_conv2d_attrs a = {{1, 1}, {0, 0}, {1, 1}, 1, {0}};
    uint64_t none = 0;
    gr_tensor *x = check_tensor(ctx, GR_F32, CHECK_DIMS(2, 3, 4, 4), 0, 0, &none);
    gr_tensor *w = check_tensor(ctx, GR_F32, CHECK_DIMS(6, 1, 3, 3), 0, 0, &none);
    gr_tensor *w5 = check_tensor(ctx, GR_F32, CHECK_DIMS(6, 3, 5, 5), 0, 0, &none);
    gr_tensor *flat = check_tensor(ctx, GR_F32, CHECK_DIMS(2, 48), 0, 0, &none);
    gr_tensor *wide = check_tensor(ctx, GR_F64, CHECK_DIMS(6, 3, 3, 3), 0, 0, &none);
    check_refused(&gri_op_conv2d, 2, GRI_TENSORS(x, w), &a,
                  "conv2d: input [2,3,4,4] has 3 channels, expected 1 for a weight of [6,1,3,3] and 1 group");
    check_refused(&gri_op_conv2d, 2, GRI_TENSORS(x, w5), &a,
                  "conv2d: a kernel that reaches 5x5 does not fit into 4x4 with padding 0x0");
    check_refused(&gri_op_conv2d, 2, GRI_TENSORS(flat, w), &a, "conv2d: input is f32[2,48], expected 4 dimensions");
    check_refused(&gri_op_conv2d, 2, GRI_TENSORS(x, wide), &a,
                  "conv2d: input 2 is f64[6,3,3,3], but input 1 is f32[2,3,4,4]; convert one with :to(\"f32\")");
    a.groups = 3;
    check_refused(&gri_op_conv2d, 3, GRI_TENSORS(x, w, flat), &a,
                  "conv2d: bias is f32[2,48], expected [6] for a weight of f32[6,1,3,3]");
    a.groups = 4;
    check_refused(&gri_op_conv2d, 2, GRI_TENSORS(x, w), &a,
                  "conv2d: weight [6,1,3,3] has 6 output channels, which 4 groups do not divide");
    a.groups = 3;
    a.stride[0] = 0;
    check_refused(&gri_op_conv2d, 2, GRI_TENSORS(x, w), &a, "conv2d: stride 0x1: expected at least 1");
    a.stride[0] = 1;
    a.padding[1] = -1;
    check_refused(&gri_op_conv2d, 2, GRI_TENSORS(x, w), &a, "conv2d: padding 0x-1: expected at least 0");
    a.padding[0] = a.padding[1] = 1 << 30;
    gr_tensor *huge;
    assert_int_equal(gr_apply(ctx, &gri_op_conv2d, 2, GRI_TENSORS(x, w), &a, &huge), GR_ERR_SHAPE);
    gr_clear_error(ctx);
    gr_release(x), gr_release(w), gr_release(w5), gr_release(flat), gr_release(wide);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution_is_its_sum),
        cmocka_unit_test(large_images_are_cut),
        cmocka_unit_test(every_width_is_read_right),
        cmocka_unit_test(empty_batches_have_no_gradient),
        cmocka_unit_test(convolution_derivatives),
        cmocka_unit_test(bias_gradient_alone_has_a_derivative),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(warm_steps_take_nothing_from_the_system),
        cmocka_unit_test(failed_allocations_leave_nothing),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
