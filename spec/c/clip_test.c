/* Clips: exact norms for every finite input; what is not finite is named and left alone; nothing counted twice.
 * The expected figures were computed in f64 by plain sums over the f32 values of the inputs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gradrun.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))
enum { MOST = 4 };

/* ---- helpers ---------------------------------------------------------------------------------------------- */

#define OK(call) \
    if ((call) != GR_OK) fail_msg("%s: %s", #call, gr_errmsg(ctx))

/* The call fails with that status and a message that has the text in it. */
#define FAILS(call, status, text)                                                                        \
    do {                                                                                                 \
        assert_int_equal(call, status);                                                                  \
        if (!strstr(gr_errmsg(ctx), text)) fail_msg("\"%s\" does not say \"%s\"", gr_errmsg(ctx), text); \
        gr_clear_error(ctx);                                                                             \
    } while (0)

static gr_ctx *ctx;

static int open_ctx(void **state) {
    (void)state;
    gr_config cfg;
    gr_config_init(&cfg);
    cfg.threads = 2;
    return gr_ctx_new(&cfg, &ctx) == GR_OK ? 0 : -1;
}

static int close_ctx(void **state) {
    (void)state;
    return gr_ctx_free(ctx) == 0 ? 0 : -1;
}

static void put(gr_tensor *t, int64_t i, double v) {
    if (gr_tensor_dtype(t) == GR_F32) ((float *)gr_tensor_data_peek(t))[i] = (float)v;
    else ((double *)gr_tensor_data_peek(t))[i] = v;
}

static double at(const gr_tensor *t, int64_t i) {
    const void *p = gr_tensor_data_peek(t);
    return gr_tensor_dtype(t) == GR_F32 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}

/* A leaf with the gradient given. */
static gr_tensor *with_grad(gr_dtype t, int64_t n, const double *grad) {
    gr_tensor *p, *g;
    OK(gr_tensor_new(ctx, t, 1, &n, &p));
    OK(gr_tensor_new(ctx, t, 1, &n, &g));
    for (int64_t i = 0; grad && i < n; i++) put(g, i, grad[i]);
    OK(gr_tensor_set_requires_grad(p, true));
    OK(gr_tensor_set_grad(p, g));
    gr_release(g);
    return p;
}

static double grad_at(const gr_tensor *p, int64_t i) { return at(gr_tensor_grad_peek(p), i); }

static void set_attr(const gr_clip_kind *kind, void *attrs, const char *name, double value) {
    const gr_attr *a = gr_clip_kind_info(kind)->attrs;
    while (a->name && strcmp(a->name, name) != 0) a++;
    assert_non_null(a->name);
    if (a->kind == GR_ATTR_BOOL) *(bool *)((char *)attrs + a->offset) = value != 0;
    else *(double *)(void *)((char *)attrs + a->offset) = value;
}

/* gr_clip by kind, with up to two options by name. */
static gr_status clip(const char *kind, int n, gr_tensor *const *params, gr_clip_report *report, const char *option1,
                      double value1, const char *option2, double value2) {
    const gr_clip_kind *k = gr_clip_kind_find(kind);
    uint64_t attrs[32];
    assert_non_null(k);
    gr_attrs_default(gr_clip_kind_info(k), attrs);
    if (option1) set_attr(k, attrs, option1, value1);
    if (option2) set_attr(k, attrs, option2, value2);
    return gr_clip(ctx, k, n, params, attrs, report);
}

static gr_status clip_norm(int n, gr_tensor *const *params, double max_norm, double p, gr_clip_report *r) {
    return clip("norm", n, params, r, "max_norm", max_norm, "p", p);
}

static gr_status measure(int n, gr_tensor *const *params, double p, gr_clip_report *r) {
    return clip("measure", n, params, r, "p", p, NULL, 0);
}

static void assert_near(double got, double want, double tolerance) {
    if (!(got == want || fabs(got - want) <= tolerance * fabs(want))) fail_msg("%.17g, expected %.17g", got, want);
}

/* ---- the table of reference values -------------------------------------------------------------------------- */

typedef struct row {
    gr_dtype dtype;
    int n;
    double grad[MOST], p, max_norm, norm, after[MOST];
} row;

#define SAME {NAN} /* unchanged */

#define F(...) GR_F32, __VA_ARGS__
#define D(...) GR_F64, __VA_ARGS__
#define TINY 0x1p-149
static const row table[] = {
    {F(2, {3, 4}, 1, 1, 7, {0.428571433, 0.571428597})},
    {F(2, {3, 4}, 2, 1, 5, {0.600000024, 0.800000012})},
    {F(2, {3, 4}, 3, 1, 4.497941445275415, {0.666971803, 0.889295697})},
    {F(2, {3, 4}, INFINITY, 1, 4, {0.75, 1})},
    {F(2, {3, 4}, 2, 5, 5, SAME)},
    {F(2, {12, 16}, 2, 10, 20, {6, 8})},
    {F(2, {.3, .4}, 2, .1, 0.500000011920929, {.06, .08})},
    {F(2, {3, 4}, 2, 10, 5, SAME)},
    {F(4, {1e20, 1e20, 1e20, 1e20}, 2, 1, 2.0000000400817547e20, {.5, .5, .5, .5})},
    {F(4, {1e20, 1e20, 1e20, 1e20}, 1, 1, 4.0000000801635094e20, {.25, .25, .25, .25})},
    {F(4, {1e20, 1e20, 1e20, 1e20}, 3, 1, 1.5874010837811092e20, {.629960537, .629960537, .629960537, .629960537})},
    {F(4, {1e20, 1e20, 1e20, 1e20}, INFINITY, 1, 1.0000000200408773e20, {1, 1, 1, 1})},
    {F(3, {1e20, 1, 1e-20}, 2, 1, 1.0000000200408773e20, {1, 9.99999968e-21, 9.9999461e-41})},
    {F(2, {3e38, 3e38}, 2, 1, 4.2426406948942856e38, {.707106769, .707106769})},
    {F(2, {3e38, 3e38}, 1, 1, 6.0000000109955115e38, {.5, .5})},
    {F(2, {3e19, 4e19}, 2, 6e19, 5.0000000562239226e19, SAME)},
    {F(4, {1e-30, 1e-30, 1e-30, 1e-30}, 2, 1e-31, 2.0000000063421537e-30,
       {4.9999999e-32, 4.9999999e-32, 4.9999999e-32, 4.9999999e-32})},
    {F(4, {1e-30, 1e-30, 1e-30, 1e-30}, 2, 1, 2.0000000063421537e-30, SAME)},
    {F(4, {1e-40, 1e-40, 1e-40, 1e-40}, 2, 1, 1.999989220222952e-40, SAME)},
    {F(4, {TINY, TINY, TINY, TINY}, 2, 1, 2.802596928649634e-45, SAME)},
    {F(2, {3e-7, 4e-7}, 2, 6e-7, 5.000000101063052e-07, SAME)},
    {F(2, {3e-9, 4e-9}, 2, 1e-9, 4.999999925203725e-09, {5.99999994e-10, 8.00000011e-10})},
    {F(2, {1e13, 1e13}, 3, 1, 12599210282201.994, {.793700516, .793700516})},
    {F(2, {0, 0}, 2, 0, 0, SAME)},
    {F(2, {3, 4}, 2, 0, 5, {0, 0})},
    {F(2, {-3, 4}, 2, INFINITY, 5, SAME)},
    {F(2, {1e20, 1}, 2, INFINITY, 1.0000000200408773e20, SAME)},
    {F(2, {1e20, -2e20}, INFINITY, 1, 2.0000000400817547e20, {.5, -1})},
    {F(2, {3, 4}, 2, 5 * (1 - 0x1p-23), 5, {3 * (1 - 0x1p-23), 4 * (1 - 0x1p-23)})},
    {F(2, {3, 4}, 2, 5 * (1 - 0x1p-26), 5, SAME)}, /* no product would round to another f32 */
    {D(2, {3, 4}, 2, 5 * (1 - 0x1p-26), 5, {3 * (1 - 0x1p-26), 4 * (1 - 0x1p-26)})},
    {D(4, {1e200, 1e200, 1e200, 1e200}, 2, 1, 2e200, {.5, .5, .5, .5})},
    {D(4, {1e-200, 1e-200, 1e-200, 1e-200}, 2, 1e-200, 2e-200, {5e-201, 5e-201, 5e-201, 5e-201})},
    {D(2, {3e200, -4e200}, 1, 1, 7e200, {3. / 7, -4. / 7})},
    {D(2, {1e150, 1e150}, 3, 1, 1.2599210498948732e150, {.7937005259840998, .7937005259840998})},
    {D(2, {1e-150, 1e-150}, 3, 1e-150, 1.2599210498948732e-150, {.7937005259840998e-150, .7937005259840998e-150})},
    {D(4, {5e-324, 5e-324, 5e-324, 5e-324}, 2, 1, 1e-323, SAME)},
    {D(2, {3e300, 4e300}, 2, 1e-20, 5e300, {.6e-20, .8e-20})},
    {D(2, {3, 4}, .5, 1, 13.928203230275509, {3 / 13.928203230275509, 4 / 13.928203230275509})},
    {D(2, {3e100, 4e100}, 10, 1e100, 4.021974149822332e100, {3e100 / 4.021974149822332, 4e100 / 4.021974149822332})},
    {F(2, {3e30, 4e30}, 10, 1e30, 4.021974199542264e30,
       {3e30 / 4.021974199542264, 4e30 / 4.021974199542264})},
};

static void check_row(const row *r, int number) {
    gr_tensor *p = with_grad(r->dtype, r->n, r->grad), *g = gr_tensor_grad_peek(p);
    bool same = isnan(r->after[0]), f32 = r->dtype == GR_F32;
    size_t bytes = (size_t)r->n * gr_dtype_size(r->dtype);
    uint64_t version = gr_tensor_version(g);
    char before[MOST * 8];
    gr_clip_report report;
    memcpy(before, gr_tensor_data_peek(g), bytes);
    OK(measure(1, &p, r->p, &report));
    assert_near(report.norm, r->norm, 4e-16);
    double norm = report.norm;
    OK(clip_norm(1, &p, r->max_norm, r->p, &report));
    assert_true(report.norm == norm && report.tensors == 1 && report.clipped == !same);
    assert_true((gr_tensor_version(g) == version) == same);
    if (same) assert_memory_equal(gr_tensor_data_peek(g), before, bytes);
    for (int i = 0; i < r->n && !same; i++) {
        double want = f32 ? (double)(float)r->after[i] : r->after[i];
        float size = fabsf((float)want);
        double ulp = f32 ? (double)(nextafterf(size, INFINITY) - size) : fabs(want) * 2 * DBL_EPSILON;
        if (!(fabs(at(g, i) - want) <= ulp)) fail_msg("row %d: %.9g, expected %.9g", number, at(g, i), want);
    }
    assert_near(report.norm_after, same ? norm : r->max_norm, 0);
    gr_release(p);
}

static void norms_and_results_are_those_of_the_table(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(table); i++) check_row(&table[i], i);
}

/* ---- many elements ------------------------------------------------------------------------------------------ */

static void norms_of_many_equal_elements(void **state) {
    (void)state;
    static const struct { int64_t n; double norm; } rows[] = {
        {1000000, 100.00000149011612}, {20000000, 447.2136021639598}, {50000000, 707.10679172325965}};
    for (int i = 0; i < COUNT(rows); i++) {
        gr_tensor *p = with_grad(GR_F32, rows[i].n, NULL);
        gr_clip_report report;
        OK(gr_tensor_fill(gr_tensor_grad_peek(p), 0.1));
        OK(measure(1, &p, 2, &report));
        assert_near(report.norm, rows[i].norm, 2e-15);
        OK(clip_norm(1, &p, 1, 2, NULL));
        OK(measure(1, &p, 2, &report));
        assert_true(report.norm <= 1 + 1e-6 && report.norm >= 1 - 1e-6);
        gr_release(p);
    }
}

static double noise(uint64_t i) { /* in [-1, 1), the same in each run */
    i = (i + 1) * 0x9e3779b97f4a7c15u;
    i = (i ^ i >> 29) * 0xbf58476d1ce4e5b9u;
    return (double)((i ^ i >> 32) >> 11) * 0x1p-52 - 1;
}

/* Sizes around the lengths that kernels and runs are cut by, magnitudes over forty decades, against long double. */
static void norms_agree_with_a_plain_sum(void **state) {
    (void)state;
    static const int64_t sizes[] = {0, 1, 31, 127, 128, 129, 300, 16383, 16384, 16385, 100003};
    static const double powers[] = {0.5, 1, 1.5, 2, 3, 4, 7.25, INFINITY};
    for (int k = 0; k < COUNT(sizes) * COUNT(powers) * 2; k++) {
        int64_t n = sizes[k % COUNT(sizes)];
        double p = powers[k / COUNT(sizes) % COUNT(powers)];
        gr_tensor *t = with_grad(k % 2 ? GR_F32 : GR_F64, n, NULL), *g = gr_tensor_grad_peek(t);
        gr_clip_report report;
        long double sum = 0, peak = 0;
        for (int64_t i = 0; i < n; i++) {
            put(g, i, noise((uint64_t)i) * pow(10, 20 * noise((uint64_t)(i + k))));
            long double a = fabsl((long double)at(g, i));
            sum += isinf(p) ? 0 : powl(a, p);
            peak = a > peak ? a : peak;
        }
        double want = (double)(isinf(p) ? peak : powl(sum, 1 / (long double)p));
        OK(measure(1, &t, p, &report));
        assert_near(report.norm, want, 1e-13);
        OK(clip_norm(1, &t, want * 0.75, p, NULL));
        OK(measure(1, &t, p, &report));
        assert_true(report.norm <= want * 0.75 * (1 + 1e-6));
        gr_release(t);
    }
}

/* ---- several gradients -------------------------------------------------------------------------------------- */

static void several_gradients_are_scaled_together(void **state) {
    (void)state;
    gr_tensor *p[] = {with_grad(GR_F32, 2, (double[]){3, 4}), with_grad(GR_F64, 2, (double[]){6, 8}),
                      with_grad(GR_F32, 3, NULL), NULL};
    gr_clip_report report;
    OK(gr_tensor_new(ctx, GR_F32, 0, NULL, &p[3])); /* requires no gradient, has none */
    OK(clip_norm(4, p, 1, 2, &report));
    assert_near(report.norm, sqrt(125), 1e-15);
    assert_true(report.tensors == 3 && report.clipped == 2); /* zeros stay what they are */
    assert_true(grad_at(p[0], 0) == (double).268328157f && grad_at(p[0], 1) == (double).357770876f);
    assert_near(grad_at(p[1], 0), 6 / sqrt(125), 3e-16);
    assert_near(grad_at(p[1], 1), 8 / sqrt(125), 3e-16);
    for (int i = 0; i < 4; i++) gr_release(p[i]);
    OK(clip_norm(0, NULL, 1, 2, &report));
    assert_true(report.norm == 0 && report.tensors == 0);
}

/* The same leaf twice; two leaves with one gradient; the same elements under another shape. */
static void what_is_listed_twice_counts_once(void **state) {
    (void)state;
    double v[] = {3, 4};
    gr_tensor *tied = with_grad(GR_F32, 2, v), *other = with_grad(GR_F32, 2, v), *column, *view;
    gr_clip_report report;
    OK(clip_norm(3, (gr_tensor *[]){tied, tied, tied}, 1, 2, &report));
    assert_true(report.norm == 5 && report.tensors == 1);
    assert_true(grad_at(tied, 0) == (double).6f && grad_at(tied, 1) == (double).8f);
    OK(gr_tensor_set_grad(tied, gr_tensor_grad_peek(other)));
    OK(gr_tensor_new(ctx, GR_F32, 2, (int64_t[]){2, 1}, &column));
    OK(gr_tensor_set_requires_grad(column, true));
    void *data = gr_tensor_data_peek(gr_tensor_grad_peek(other));
    OK(gr_tensor_borrow(ctx, GR_F32, 2, (int64_t[]){2, 1}, NULL, data, NULL, NULL, &view));
    OK(gr_tensor_set_grad(column, view));
    OK(clip_norm(3, (gr_tensor *[]){tied, other, column}, 1, 2, &report));
    assert_true(report.norm == 5 && report.tensors == 1 && grad_at(other, 1) == (double).8f);
    gr_release(view);
    gr_release(column);
    gr_release(other);
    gr_release(tied);
}

static void distinct_gradients_are_all_counted(void **state) {
    (void)state;
    enum { MANY = 1000 };
    gr_tensor *p[2 * MANY];
    gr_clip_report report;
    for (int i = 0; i < MANY; i++) p[2 * i] = p[2 * i + 1] = with_grad(GR_F32, 1 + i % 3, (double[]){1, 1, 1});
    OK(measure(2 * MANY, p, 1, &report));
    assert_true(report.tensors == MANY && report.norm == 1999);
    for (int i = 0; i < MANY; i++) gr_release(p[2 * i]);
}

/* ---- by value ----------------------------------------------------------------------------------------------- */

static void values_are_cut(void **state) {
    (void)state;
    gr_tensor *p[] = {with_grad(GR_F32, 3, (double[]){3, -4, .25}), with_grad(GR_F64, 2, (double[]){.5, -.5})};
    uint64_t version = gr_tensor_version(gr_tensor_grad_peek(p[1]));
    gr_clip_report report;
    OK(clip("value", 2, p, &report, "clip_value", INFINITY, NULL, 0));
    assert_true(report.clipped == 0 && grad_at(p[0], 1) == -4);
    OK(clip("value", 2, p, &report, "clip_value", .5, NULL, 0));
    assert_true(grad_at(p[0], 0) == .5 && grad_at(p[0], 1) == -.5 && grad_at(p[0], 2) == .25);
    assert_true(grad_at(p[1], 0) == .5 && grad_at(p[1], 1) == -.5);
    assert_near(report.norm, sqrt(25.5625), 1e-15);
    assert_near(report.norm_after, sqrt(1.0625), 1e-15);
    assert_true(report.clipped == 1 && gr_tensor_version(gr_tensor_grad_peek(p[1])) == version);
    OK(clip("value", 2, p, &report, "clip_value", 0, NULL, 0));
    assert_true(report.norm_after == 0 && report.clipped == 2);
    gr_release(p[0]);
    gr_release(p[1]);
}

/* ---- what is refused ---------------------------------------------------------------------------------------- */

static void bad_thresholds_are_refused(void **state) {
    (void)state;
    gr_tensor *p = with_grad(GR_F32, 2, (double[]){3, 4});
    FAILS(clip_norm(1, &p, -1, 2, NULL), GR_ERR_ARG, "clip.norm: max_norm = -1: expected 0 or more");
    FAILS(clip_norm(1, &p, NAN, 2, NULL), GR_ERR_ARG, "max_norm = nan");
    FAILS(clip_norm(1, &p, 1, 0, NULL), GR_ERR_ARG, "p = 0: expected a number above 0");
    FAILS(clip_norm(1, &p, 1, -2, NULL), GR_ERR_ARG, "p = -2");
    FAILS(measure(1, &p, NAN, NULL), GR_ERR_ARG, "clip.measure: p = nan");
    FAILS(measure(1, &p, 1e-6, NULL), GR_ERR_ARG, "p = 1e-06: the norm is beyond the range of numbers");
    FAILS(clip("value", 1, &p, NULL, "clip_value", -.5, NULL, 0), GR_ERR_ARG, "clip.value: clip_value = -0.5");
    FAILS(clip("value", 1, &p, NULL, "clip_value", NAN, NULL, 0), GR_ERR_ARG, "clip_value = nan");
    FAILS(gr_clip(ctx, gr_clip_kind_find("norm"), 1, &p, NULL, NULL), GR_ERR_ARG, "clip.norm: max_norm is required");
    assert_true(grad_at(p, 0) == 3 && grad_at(p, 1) == 4);
    gr_release(p);
}

static void what_is_not_finite_is_named_and_left_alone(void **state) {
    (void)state;
    static const struct { const char *kind, *option; } kinds[] = {{"norm", "max_norm"}, {"value", "clip_value"}};
    static const double powers[] = {1, 2, 3, 2.5, INFINITY};
    double values[6] = {1, 2, 3, 4, 5, NAN}, big[] = {1e300, -INFINITY, 1e300, INFINITY, 0}, fine[] = {3, 4};
    gr_tensor *named, *g;
    OK(gr_tensor_new(ctx, GR_F32, 2, (int64_t[]){2, 3}, &named));
    OK(gr_tensor_new(ctx, GR_F32, 2, (int64_t[]){2, 3}, &g));
    for (int i = 0; i < 6; i++) put(g, i, values[i]);
    OK(gr_tensor_set_requires_grad(named, true));
    OK(gr_tensor_set_name(named, "head.weight"));
    OK(gr_tensor_set_grad(named, g));
    gr_tensor *p[] = {with_grad(GR_F32, 2, fine), named, with_grad(GR_F64, 5, big)};
    gr_clip_report report = {.norm = 7};
    uint64_t version = gr_tensor_version(g);
    for (int k = 0; k < 2; k++) {
        FAILS(clip(kinds[k].kind, 3, p, &report, kinds[k].option, 1, NULL, 0), GR_ERR_NONFINITE,
              "2 of 3 gradients are not finite; nothing was changed: "
              "head.weight f32[2,3] (1 element, the first nan at [2,3]), "
              "parameter 3 f64[5] (2 elements, the first -inf at [2])");
        assert_true(report.norm == 7);
        OK(clip(kinds[k].kind, 3, p, &report, kinds[k].option, 1, "error_if_nonfinite", false));
        assert_true(isnan(report.norm) && isnan(report.norm_after) && report.clipped == 0 && report.tensors == 3);
        report.norm = 7;
    }
    for (int k = 0; k < COUNT(powers); k++) {
        OK(measure(3, p, powers[k], &report));
        assert_true(isnan(report.norm));
        OK(measure(1, p + 2, powers[k], &report));
        assert_true(isinf(report.norm) && report.norm > 0);
        OK(measure(1, p, powers[k], &report));
        assert_true(isfinite(report.norm));
    }
    FAILS(clip("measure", 3, p, NULL, "error_if_nonfinite", true, NULL, 0), GR_ERR_NONFINITE, "head.weight");
    assert_memory_equal(gr_tensor_data_peek(gr_tensor_grad_peek(p[2])), big, sizeof big);
    assert_true(grad_at(p[0], 0) == 3 && at(g, 4) == 5 && isnan(at(g, 5)) && gr_tensor_version(g) == version);
    gr_release(g);
    for (int i = 0; i < 3; i++) gr_release(p[i]);
}

/* Wherever the bad element is: in a vector lane, a tail, a later run. */
static void a_bad_element_is_found_anywhere(void **state) {
    (void)state;
    static const int64_t places[] = {0, 1, 40, 127, 128, 16383, 16384, 40000};
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < COUNT(places) * COUNT(bad) * 2; k++) {
        gr_tensor *p = with_grad(k % 2 ? GR_F32 : GR_F64, 40001, NULL), *g = gr_tensor_grad_peek(p);
        put(g, 7, 1);
        put(g, 30000, -1e30);
        put(g, places[k / 2 % COUNT(places)], bad[k / 2 / COUNT(places)]);
        FAILS(clip_norm(1, &p, 1, k % 3 ? 2 : INFINITY, NULL), GR_ERR_NONFINITE, "1 of 1 gradients is not finite");
        gr_release(p);
    }
}

static void a_long_list_of_names_is_cut_short(void **state) {
    (void)state;
    gr_tensor *p[50];
    char name[200];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = 0;
    for (int i = 0; i < COUNT(p); i++) {
        p[i] = with_grad(GR_F32, 1, (double[]){NAN});
        OK(gr_tensor_set_name(p[i], name));
    }
    FAILS(clip_norm(COUNT(p), p, 1, 2, NULL), GR_ERR_NONFINITE, ", and more");
    for (int i = 0; i < COUNT(p); i++) gr_release(p[i]);
}

static void an_interrupt_changes_nothing(void **state) {
    (void)state;
    gr_tensor *p = with_grad(GR_F32, 2, (double[]){3, 4});
    gr_interrupt(ctx);
    FAILS(clip_norm(1, &p, 1, 2, NULL), GR_ERR_INTERRUPT, "interrupted");
    gr_clear_interrupt(ctx);
    assert_true(grad_at(p, 0) == 3);
    gr_release(p);
}

/* ---- strides, threads, processors, memory -------------------------------------------------------------------- */

/* A transposed part of a matrix, and an expanded row. */
static void strides_do_not_matter(void **state) {
    (void)state;
    enum { ROWS = 300, COLUMNS = 40 };
    float *data = malloc(ROWS * COLUMNS * sizeof *data);
    int64_t dims[] = {COLUMNS - 1, ROWS}, transposed[] = {1, COLUMNS}, expanded[] = {0, 1};
    gr_tensor *p, *g;
    gr_clip_report report;
    for (int i = 0; i < ROWS * COLUMNS; i++) data[i] = i % 7 == 0 ? 2 : 0;
    OK(gr_tensor_borrow(ctx, GR_F32, 2, dims, transposed, data, NULL, NULL, &g));
    OK(gr_tensor_new(ctx, GR_F32, 2, dims, &p));
    OK(gr_tensor_set_requires_grad(p, true));
    OK(gr_tensor_set_grad(p, g));
    double sum = 0;
    for (int i = 0; i < ROWS * COLUMNS; i++) sum += i % COLUMNS < COLUMNS - 1 ? data[i] * data[i] : 0;
    double norm = sqrt(sum);
    OK(clip_norm(1, &p, norm / 2, 2, &report));
    assert_true(report.norm == norm && report.clipped == 1);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        assert_true(data[i] == (i % 7 ? 0 : i % COLUMNS < COLUMNS - 1 ? 1 : 2)); /* nothing beside the view */
    gr_release(g);
    data[0] = 3, data[1] = 4;
    OK(gr_tensor_borrow(ctx, GR_F32, 2, dims, expanded, data, NULL, NULL, &g));
    for (int i = 2; i < ROWS; i++) data[i] = 0;
    OK(gr_tensor_set_grad(p, g));
    OK(clip_norm(1, &p, 1, 1, &report));
    assert_true(report.norm == 7 * (COLUMNS - 1));
    assert_near((double)data[0], 3. / report.norm, 1e-7); /* scaled once, though it shows 39 times */
    assert_near((double)data[1], 4. / report.norm, 1e-7);
    gr_release(g);
    gr_release(p);
    free(data);
}

static double norm_with(int threads, const char *isa, double p, float *result, int64_t n) {
    gr_config cfg;
    gr_ctx *outer = ctx;
    gr_clip_report report = {.norm = -1};
    gr_config_init(&cfg);
    cfg.threads = threads;
    cfg.isa = isa;
    if (gr_ctx_new(&cfg, &ctx) == GR_OK) {
        gr_tensor *t[] = {with_grad(GR_F32, n, NULL), with_grad(GR_F32, 3, (double[]){1, 2, 3})};
        for (int64_t i = 0; i < n; i++) put(gr_tensor_grad_peek(t[0]), i, noise((uint64_t)i));
        OK(clip_norm(2, t, 1, p, &report));
        memcpy(result, gr_tensor_data_peek(gr_tensor_grad_peek(t[0])), (size_t)n * sizeof *result);
        gr_release(t[0]);
        gr_release(t[1]);
        assert_int_equal(gr_ctx_free(ctx), 0);
    }
    ctx = outer;
    return report.norm;
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    enum { N = 200003 };
    static const double powers[] = {1, 2, 3, 2.5, INFINITY};
    static const char *const isa[] = {"avx2", "avx512"};
    float *one = malloc(N * sizeof *one), *other = malloc(N * sizeof *other);
    for (int i = 0; i < COUNT(powers); i++) {
        double norm = norm_with(1, NULL, powers[i], one, N);
        for (int threads = 2; threads <= 3; threads++) {
            assert_true(norm_with(threads, NULL, powers[i], other, N) == norm);
            assert_memory_equal(one, other, N * sizeof *one);
        }
        norm = norm_with(1, "generic", powers[i], one, N);
        for (int v = 0; v < COUNT(isa); v++) {
            double got = norm_with(1, isa[v], powers[i], other, N);
            if (got != -1) assert_near(got, norm, 1e-14); /* -1: not this processor */
        }
    }
    free(one);
    free(other);
}

/* Clips under that limit; *live: what parameters and gradients take. */
static gr_status clip_within(size_t hard, size_t *live) {
    gr_ctx *outer = ctx;
    gr_config cfg;
    gr_memory before, after;
    gr_config_init(&cfg);
    cfg.hard_bytes = hard;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    gr_tensor *p[] = {with_grad(GR_F32, 2, (double[]){3, 4}), with_grad(GR_F32, 100000, NULL)};
    gr_memory_get(ctx, &before);
    gr_status s = clip_norm(2, p, 1, 2, NULL);
    gr_memory_get(ctx, &after);
    assert_true(after.live == before.live && (s == GR_OK || s == GR_ERR_MEMORY));
    assert_true(grad_at(p[0], 0) == (s == GR_OK ? (double).6f : 3));
    *live = before.live;
    gr_release(p[0]);
    gr_release(p[1]);
    assert_int_equal(gr_ctx_free(ctx), 0);
    ctx = outer;
    return s;
}

static void each_allocation_may_fail(void **state) {
    (void)state;
    size_t live, room = 0;
    assert_int_equal(clip_within(0, &live), GR_OK);
    while (clip_within(live + room, &live) != GR_OK) room += 16;
    assert_true(room > 100 && room < 4096);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_and_results_are_those_of_the_table),
        cmocka_unit_test(norms_of_many_equal_elements),
        cmocka_unit_test(norms_agree_with_a_plain_sum),
        cmocka_unit_test(several_gradients_are_scaled_together),
        cmocka_unit_test(what_is_listed_twice_counts_once),
        cmocka_unit_test(distinct_gradients_are_all_counted),
        cmocka_unit_test(values_are_cut),
        cmocka_unit_test(bad_thresholds_are_refused),
        cmocka_unit_test(what_is_not_finite_is_named_and_left_alone),
        cmocka_unit_test(a_bad_element_is_found_anywhere),
        cmocka_unit_test(a_long_list_of_names_is_cut_short),
        cmocka_unit_test(an_interrupt_changes_nothing),
        cmocka_unit_test(strides_do_not_matter),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
