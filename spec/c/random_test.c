/* The generator and the ops that draw: published vectors, layout, distributions, the same bits everywhere.
 * Seeds are fixed, so a statistic that passes once passes always. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "draw.h"

static gr_ctx *test_ctx(const char *isa, int threads) {
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.isa = isa;
    cfg.threads = threads;
    return gr_ctx_new(&cfg, &ctx) == GR_OK ? ctx : NULL;
}

static void close_clean(gr_ctx *ctx) { assert_int_equal(gr_ctx_free(ctx), 0); }

static gr_tensor *make(gr_ctx *ctx, const char *op, const void *attrs) {
    gr_tensor *t = NULL;
    gr_status s = gr_apply(ctx, gr_op_find(op), 0, NULL, attrs, &t);
    if (s != GR_OK) fail_msg("%s: %s", op, gr_errmsg(ctx));
    return t;
}

static void refused(gr_ctx *ctx, const char *op, const void *attrs, gr_status want, const char *text) {
    gr_tensor *t = NULL;
    assert_int_equal(gr_apply(ctx, gr_op_find(op), 0, NULL, attrs, &t), want);
    assert_null(t);
    if (!strstr(gr_errmsg(ctx), text)) fail_msg("'%s' does not say '%s'", gr_errmsg(ctx), text);
    gr_clear_error(ctx);
}

static gri_draw_attrs drawing(gr_dtype t, int64_t n, int64_t seed, int64_t counter) {
    return (gri_draw_attrs){.shape = {.n = 1, .v = {n}}, .dtype = t, .seed = seed, .counter = counter};
}

static double at(const gr_tensor *t, int64_t i) {
    const char *p = gr_tensor_data_peek(t);
    switch (gr_tensor_dtype(t)) {
    case GR_F32: return ((const float *)(const void *)p)[i];
    case GR_F64: return ((const double *)(const void *)p)[i];
    case GR_I64: return (double)((const int64_t *)(const void *)p)[i];
    default: return ((const uint8_t *)p)[i];
    }
}

/* ---- the generator ---------------------------------------------------------------------------------------- */

static void philox_matches_published_vectors(void **state) {
    (void)state;
    static const struct { uint64_t seed, counter, lane; uint32_t want[4]; } vector[] = { /* Random123, kat_vectors */
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {~0ull, ~0ull, ~0ull, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
    for (size_t i = 0; i < sizeof vector / sizeof *vector; i++) {
        uint32_t out[4];
        gri_philox(vector[i].seed, vector[i].counter, vector[i].lane, out);
        assert_memory_equal(out, vector[i].want, sizeof out);
    }
}

static void sixteen_lanes_are_sixteen_blocks(void **state) {
    (void)state;
    static const uint64_t lanes[] = {0, 16, 4096, 0xfffffff0, 0x100000000, 0xfffffffffffffff0};
    for (size_t i = 0; i < sizeof lanes / sizeof *lanes; i++) {
        gri_words w;
        gri_philox16(123456789012345, 77, lanes[i], w);
        for (uint32_t j = 0; j < GRI_GROUP_LANES; j++) {
            uint32_t one[4];
            gri_philox(123456789012345, 77, lanes[i] + j, one);
            for (int k = 0; k < 4; k++) assert_int_equal(w[k][j], one[k]);
        }
    }
}

static void state_is_a_seed_and_a_count(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 1);
    uint64_t seed, count;
    int64_t s, c;
    gr_seed(ctx, 0xffffffffffffff01);
    gr_random_next(ctx, &s, &c);
    assert_true((uint64_t)s == 0xffffffffffffff01 && c == 0);
    gr_random_next(ctx, &s, &c);
    assert_int_equal(c, 1);
    gr_random_get(ctx, &seed, &count);
    assert_true(seed == 0xffffffffffffff01 && count == 2);
    gr_random_set(ctx, 5, 9);
    gr_random_next(ctx, &s, &c);
    assert_true(s == 5 && c == 9);
    gr_seed(ctx, 5);
    gr_random_next(ctx, &s, &c);
    assert_true(s == 5 && c == 0);
    close_clean(ctx);
}

/* ---- layout ----------------------------------------------------------------------------------------------- */

/* The place of element i, as random.h promises it. */
static uint32_t word_of(int64_t i, int64_t seed, int64_t counter) {
    uint32_t b[4];
    gri_philox((uint64_t)seed, (uint64_t)counter, (uint64_t)(i / 64 * 16 + i % 16), b);
    return b[i / 16 % 4];
}
static void words_of(int64_t i, int64_t seed, int64_t counter, uint32_t b[4]) {
    gri_philox((uint64_t)seed, (uint64_t)counter, (uint64_t)(i / 32 * 16 + i % 16), b);
}

static void uniform_elements_are_where_they_should_be(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 2);
    gri_uniform_attrs a = {.draw = drawing(GR_F32, 70001, 3, 4), .lo = 0, .hi = 1};
    gr_tensor *t = make(ctx, "uniform", &a);
    for (int64_t i = 0; i < 70001; i++) assert_true(at(t, i) == (word_of(i, 3, 4) >> 8) * 0x1p-24);
    gr_release(t);
    a.draw.dtype = GR_F64;
    t = make(ctx, "uniform", &a);
    for (int64_t i = 0; i < 70001; i++) {
        uint32_t b[4];
        words_of(i, 3, 4, b);
        const uint32_t *p = b + 2 * (i / 16 % 2);
        assert_true(at(t, i) == (double)((uint64_t)(p[0] >> 5) << 26 | p[1] >> 6) * 0x1p-53);
    }
    gr_release(t);
    close_clean(ctx);
}

/* Longer draws begin as shorter ones; no length, thread count or CPU changes an element. */
static void same_bits_everywhere(void **state) {
    (void)state;
    static const char *const isa[] = {"generic", "avx2", "avx512"}, *const op[] = {"uniform", "normal"};
    for (int k = 0; k < 2; k++) {
        for (gr_dtype t = GR_F32; t <= GR_F64; t++) {
            gri_normal_attrs a = {.draw = drawing(t, 100001, -7, 1), .mean = 0.1, .std = 0.7}; /* or lo, hi */
            gr_ctx *plain = test_ctx("generic", 1);
            gr_tensor *want = make(plain, op[k], &a);
            for (int i = 0; i < 3; i++) {
                for (int threads = 1; threads <= 3; threads++) {
                    gr_ctx *ctx = test_ctx(isa[i], threads);
                    if (!ctx) continue; /* this CPU has no such variant */
                    static const int64_t lengths[] = {0, 1, 15, 63, 64, 65, 16384, 16385, 100001};
                    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++) {
                        a.draw.shape.v[0] = lengths[n];
                        gr_tensor *got = make(ctx, op[k], &a);
                        assert_memory_equal(gr_tensor_data_peek(got), gr_tensor_data_peek(want),
                                            (size_t)lengths[n] * gr_dtype_size(t));
                        gr_release(got);
                    }
                    close_clean(ctx);
                }
            }
            gr_release(want);
            close_clean(plain);
        }
    }
}

static void strided_destinations_get_the_same_numbers(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 1);
    gr_tensor *base, *view;
    gri_normal_attrs a = {.draw = drawing(GR_F32, 9, 1, 2), .std = 1};
    a.draw.shape = (gr_dims){.n = 2, .v = {9, 31}};
    gr_tensor *want = make(ctx, "normal", &a);
    assert_int_equal(gr_tensor_new(ctx, GR_F32, 2, (int64_t[]){31, 20}, &base), GR_OK);
    assert_int_equal(gri_tensor_view(base, 2, (int64_t[]){9, 31}, (int64_t[]){2, 20}, 1, &view), GR_OK);
    assert_int_equal(gr_apply_into(ctx, gr_op_find("normal"), 0, NULL, &a, view), GR_OK);
    for (int64_t i = 0; i < 9; i++) {
        for (int64_t j = 0; j < 31; j++) {
            assert_true(at(base, j * 20 + 2 * i + 1) == at(want, i * 31 + j));
            assert_true(at(base, j * 20 + 2 * i) == 0);
        }
    }
    gr_release(want);
    gr_release(view);
    gr_release(base);
    close_clean(ctx);
}

/* ---- distributions ---------------------------------------------------------------------------------------- */

#define SAMPLES 1000000

static double mean_of(const gr_tensor *t) {
    double sum = 0;
    for (int64_t i = 0; i < gr_tensor_numel(t); i++) sum += at(t, i);
    return sum / (double)gr_tensor_numel(t);
}
/* The k-th central moment. */
static double moment_of(const gr_tensor *t, double mean, int k) {
    double sum = 0;
    for (int64_t i = 0; i < gr_tensor_numel(t); i++) sum += pow(at(t, i) - mean, k);
    return sum / (double)gr_tensor_numel(t);
}
static double chi_square(const int64_t *count, int bins, double expected) {
    double sum = 0;
    for (int i = 0; i < bins; i++) sum += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
    return sum;
}
/* Correlation of elements `lag` apart; 1/sqrt(n) is one standard deviation of it. */
static double correlation(const gr_tensor *t, int64_t lag) {
    double mean = mean_of(t), sum = 0;
    int64_t n = gr_tensor_numel(t) - lag;
    for (int64_t i = 0; i < n; i++) sum += (at(t, i) - mean) * (at(t, i + lag) - mean);
    return sum / (double)n / moment_of(t, mean, 2);
}

static void uniform_is_uniform(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 2);
    for (gr_dtype type = GR_F32; type <= GR_F64; type++) {
        gri_uniform_attrs a = {.draw = drawing(type, SAMPLES, 11, 0), .lo = -2, .hi = 6};
        gr_tensor *t = make(ctx, "uniform", &a);
        double mean = mean_of(t);
        int64_t count[100] = {0};
        assert_true(fabs(mean - 2) < 4 * sqrt(64.0 / 12 / SAMPLES));
        assert_true(fabs(moment_of(t, mean, 2) / (64.0 / 12) - 1) < 4 * sqrt(0.8 / SAMPLES));
        for (int64_t i = 0; i < SAMPLES; i++) {
            assert_true(at(t, i) >= -2 && at(t, i) < 6);
            count[(int)((at(t, i) + 2) / 8 * 100)]++;
        }
        double chi = chi_square(count, 100, SAMPLES / 100.0); /* 99 degrees of freedom: 99.9 % in 58 .. 149 */
        assert_true(chi > 58 && chi < 149);
        for (int64_t lag = 1; lag <= 64; lag *= 2) assert_true(fabs(correlation(t, lag)) < 4 / sqrt(SAMPLES));
        gr_release(t);
        a.draw.counter = 1;
        gr_tensor *other = make(ctx, "uniform", &a);
        a.draw.counter = 0;
        t = make(ctx, "uniform", &a);
        int64_t equal = 0;
        for (int64_t i = 0; i < SAMPLES; i++) equal += at(t, i) == at(other, i);
        assert_true(equal < 10);
        gr_release(other);
        gr_release(t);
    }
    close_clean(ctx);
}

/* lo + (hi - lo) u rounds up to hi in half of the draws here. */
static void uniform_never_reaches_hi(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 1);
    gri_uniform_attrs a = {.draw = drawing(GR_F32, 10000, 1, 1), .lo = 1, .hi = 1 + 0x1p-23};
    gr_tensor *t = make(ctx, "uniform", &a);
    for (int64_t i = 0; i < 10000; i++) assert_true(at(t, i) == 1);
    gr_release(t);
    a.lo = -3e38;
    a.hi = 0;
    t = make(ctx, "uniform", &a);
    for (int64_t i = 0; i < 10000; i++) assert_true(at(t, i) >= (float)-3e38 && at(t, i) < 0);
    gr_release(t);
    a.lo = a.hi = 0.3;
    t = make(ctx, "uniform", &a);
    for (int64_t i = 0; i < 10000; i++) assert_true(at(t, i) == 0.3f);
    gr_release(t);
    close_clean(ctx);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void normal_is_normal(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 2);
    double *sorted = malloc(SAMPLES * sizeof *sorted), se = 1 / sqrt(SAMPLES);
    for (gr_dtype type = GR_F32; type <= GR_F64; type++) {
        gri_normal_attrs a = {.draw = drawing(type, SAMPLES, 5, 3), .mean = 0, .std = 1};
        gr_tensor *t = make(ctx, "normal", &a);
        double mean = mean_of(t), distance = 0;
        assert_true(fabs(mean) < 4 * se);
        assert_true(fabs(moment_of(t, 0, 2) - 1) < 4 * sqrt(2) * se);
        assert_true(fabs(moment_of(t, 0, 3)) < 4 * sqrt(15) * se);
        assert_true(fabs(moment_of(t, 0, 4) - 3) < 4 * sqrt(96) * se);
        for (int64_t lag = 1; lag <= 64; lag *= 2) assert_true(fabs(correlation(t, lag)) < 4 * se);
        for (int64_t i = 0; i < SAMPLES; i++) sorted[i] = at(t, i);
        qsort(sorted, SAMPLES, sizeof *sorted, by_value);
        for (int64_t i = 0; i < SAMPLES; i++) {
            double cdf = 0.5 * erfc(-sorted[i] / sqrt(2));
            distance = fmax(distance, fmax(cdf - (double)i / SAMPLES, (double)(i + 1) / SAMPLES - cdf));
        }
        assert_true(distance < 1.95 * se); /* Kolmogorov and Smirnov at 0.1 % */
        assert_true(distance > 0.3 * se);  /* and not suspiciously good: 1e-5 */
        gr_release(t);
    }
    free(sorted);
    close_clean(ctx);
}

/* Against Box and Muller's formula in long double from the same words. */
static void normal_is_exact_to_rounding(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 1);
    enum { N = 200000 };
    const long double turn = 6.283185307179586476925286766559L;
    gri_normal_attrs a = {.draw = drawing(GR_F32, N, 9, 9), .mean = 0, .std = 1};
    gr_tensor *f32 = make(ctx, "normal", &a);
    a.draw.dtype = GR_F64;
    gr_tensor *f64 = make(ctx, "normal", &a);
    double worst32 = 0, worst64 = 0;
    for (int64_t i = 0; i < N; i++) {
        bool sine = i / 16 % 2;
        int64_t first = i - 16 * sine;
        long double u = (word_of(first, 9, 9) | 1) * 0x1p-32L, r = sqrtl(-2 * logl(u));
        long double v = turn * word_of(first + 16, 9, 9) * 0x1p-32L;
        worst32 = fmax(worst32, fabs((double)((at(f32, i) - r * (sine ? sinl(v) : cosl(v))))));
        uint32_t b[4];
        words_of(i, 9, 9, b);
        u = (double)(((b[0] >> 5) * 0x1p26L + (b[1] >> 6) + 0.5L) * 0x1p-53L);
        v = turn * (b[2] + (b[3] >> 6) * 0x1p-26L) * 0x1p-32L;
        r = sqrtl(-2 * logl(u));
        worst64 = fmax(worst64, fabs((double)((at(f64, i) - r * (sine ? sinl(v) : cosl(v))))));
    }
    if (worst32 > 1.2e-6 || worst64 > 2e-15) fail_msg("errors %g and %g", worst32, worst64);
    gr_release(f32);
    gr_release(f64);
    close_clean(ctx);
}

static void bernoulli_meets_p(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 2);
    static const double p[] = {0, 1e-4, 0.1, 0.5, 0.9, 1};
    for (size_t k = 0; k < sizeof p / sizeof *p; k++) {
        gri_bernoulli_attrs a = {.draw = drawing(GR_F32, SAMPLES, 2, (int64_t)k), .p = p[k]};
        gr_tensor *f32 = make(ctx, "bernoulli", &a);
        assert_true(fabs(mean_of(f32) - p[k]) <= 4 * sqrt(p[k] * (1 - p[k]) / SAMPLES));
        for (gr_dtype t = GR_F64; t <= GR_U8; t++) {
            a.draw.dtype = t;
            gr_tensor *same = make(ctx, "bernoulli", &a);
            for (int64_t i = 0; i < SAMPLES; i++) assert_true(at(same, i) == at(f32, i));
            gr_release(same);
        }
        gr_release(f32);
    }
    close_clean(ctx);
}

typedef struct permutation_attrs { int64_t n, seed, counter; } permutation_attrs;

static void permutations_are_equally_likely(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 1);
    int64_t count[256] = {0}, seen[24], orders = 0;
    for (int64_t draw = 0; draw < 24000; draw++) {
        gr_tensor *t = make(ctx, "permutation", &(permutation_attrs){4, 3, draw});
        int code = 0;
        for (int i = 0; i < 4; i++) code = code * 4 + (int)at(t, i) - 1;
        count[code]++;
        gr_release(t);
    }
    for (int code = 0; code < 256; code++)
        if (count[code]) {
            assert_true(orders < 24);
            seen[orders++] = count[code];
        }
    assert_int_equal(orders, 24);
    double chi = chi_square(seen, 24, 1000); /* 23 degrees of freedom: 99.9 % in 7.5 .. 49.7 */
    assert_true(chi > 7.5 && chi < 49.7);
    close_clean(ctx);
}

static void permutations_hold_every_number_once(void **state) {
    (void)state;
    for (int base = 0; base <= 1; base++) {
        gr_config cfg;
        gr_ctx *ctx;
        gr_config_init(&cfg);
        cfg.index_base = base;
        assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
        for (int64_t n = 0; n < 100000; n = n * 7 + 1) {
            gr_tensor *t = make(ctx, "permutation", &(permutation_attrs){n, 1, 2});
            char *seen = calloc((size_t)n + 1, 1);
            assert_int_equal(gr_tensor_dtype(t), GR_I64);
            assert_int_equal(gr_tensor_numel(t), n);
            for (int64_t i = 0; i < n; i++) {
                int64_t v = (int64_t)at(t, i) - base;
                assert_true(v >= 0 && v < n && !seen[v]);
                seen[v] = 1;
            }
            free(seen);
            gr_release(t);
        }
        close_clean(ctx);
    }
}

/* ---- refusals --------------------------------------------------------------------------------------------- */

typedef struct fill_attrs { gr_dims shape; int64_t dtype; double value; } fill_attrs;

static void bad_attributes_are_refused(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 1);
    gri_uniform_attrs u = {.draw = drawing(GR_F32, 4, 0, 0), .lo = 2, .hi = 1};
    refused(ctx, "uniform", &u, GR_ERR_ARG, "uniform: lo = 2, hi = 1: expected lo <= hi");
    u.lo = NAN;
    refused(ctx, "uniform", &u, GR_ERR_ARG, "lo = nan");
    u.lo = -3e38;
    u.hi = 3e38;
    refused(ctx, "uniform", &u, GR_ERR_ARG, "hi - lo finite in f32");
    u = (gri_uniform_attrs){.draw = drawing(GR_I64, 4, 0, 0), .hi = 1};
    refused(ctx, "uniform", &u, GR_ERR_DTYPE, "uniform: draws f32 or f64, not i64");
    u.draw = drawing(GR_F32, -4, 0, 0);
    refused(ctx, "uniform", &u, GR_ERR_SHAPE, "[-4]");
    u.draw = drawing((gr_dtype)9, 4, 0, 0);
    refused(ctx, "uniform", &u, GR_ERR_DTYPE, "unknown dtype 9");
    gri_normal_attrs n = {.draw = drawing(GR_F32, 4, 0, 0), .mean = 0, .std = -1};
    refused(ctx, "normal", &n, GR_ERR_ARG, "normal: mean = 0, std = -1");
    n.std = INFINITY;
    refused(ctx, "normal", &n, GR_ERR_ARG, "std = inf");
    gri_bernoulli_attrs b = {.draw = drawing(GR_F32, 4, 0, 0), .p = 1.5};
    refused(ctx, "bernoulli", &b, GR_ERR_ARG, "bernoulli: p = 1.5: expected 0 to 1");
    b.p = NAN;
    refused(ctx, "bernoulli", &b, GR_ERR_ARG, "p = nan");
    refused(ctx, "permutation", &(permutation_attrs){-3, 0, 0}, GR_ERR_SHAPE, "[-3]");
    refused(ctx, "fill", &(fill_attrs){{1, {2}}, GR_I64, 1.5}, GR_ERR_DTYPE, "fill: 1.5 is not a value of dtype i64");
    refused(ctx, "fill", &(fill_attrs){{1, {2}}, GR_U8, 256}, GR_ERR_DTYPE, "256 is not a value of dtype u8");
    close_clean(ctx);
}

static void fill_fills(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 1);
    for (gr_dtype t = GR_F32; t <= GR_U8; t++) {
        gr_tensor *x = make(ctx, "fill", &(fill_attrs){{2, {3, 50}}, t, 7});
        assert_int_equal(gr_tensor_dtype(x), t);
        for (int64_t i = 0; i < 150; i++) assert_true(at(x, i) == 7);
        gr_release(x);
    }
    gr_tensor *scalar = make(ctx, "fill", &(fill_attrs){{0, {0}}, GR_F64, 0.1});
    assert_true(gr_tensor_rank(scalar) == 0 && at(scalar, 0) == 0.1);
    gr_release(scalar);
    close_clean(ctx);
}

static void an_interrupt_stops_a_draw(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(NULL, 1);
    gri_uniform_attrs u = {.draw = drawing(GR_F32, 100, 0, 0), .hi = 1};
    gr_interrupt(ctx);
    refused(ctx, "uniform", &u, GR_ERR_INTERRUPT, "interrupted");
    gr_clear_interrupt(ctx);
    gr_release(make(ctx, "uniform", &u));
    close_clean(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_matches_published_vectors),
        cmocka_unit_test(sixteen_lanes_are_sixteen_blocks),
        cmocka_unit_test(state_is_a_seed_and_a_count),
        cmocka_unit_test(uniform_elements_are_where_they_should_be),
        cmocka_unit_test(same_bits_everywhere),
        cmocka_unit_test(strided_destinations_get_the_same_numbers),
        cmocka_unit_test(uniform_is_uniform),
        cmocka_unit_test(uniform_never_reaches_hi),
        cmocka_unit_test(normal_is_normal),
        cmocka_unit_test(normal_is_exact_to_rounding),
        cmocka_unit_test(bernoulli_meets_p),
        cmocka_unit_test(permutations_are_equally_likely),
        cmocka_unit_test(permutations_hold_every_number_once),
        cmocka_unit_test(bad_attributes_are_refused),
        cmocka_unit_test(fill_fills),
        cmocka_unit_test(an_interrupt_stops_a_draw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
