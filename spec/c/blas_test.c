/* Matrix products against a plain one in doubles: shapes, layouts, betas, dtypes, CPU variants; the same bits on
 * any number of threads; broadcast, overlapping and meaningless strides; empty dims; NaN and infinity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <assert.h>
#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blas.h"

#define MAX_THREADS 3
#define GUARD 64 /* elements in front of and behind each matrix that nobody may touch */

/* ---- contexts: one for each CPU variant this machine has and each number of threads ----------------------- */

static const char *const isa_names[] = {"generic", "avx2", "avx512"};
static gr_ctx *contexts[GRI_ISAS][MAX_THREADS];

static int open_contexts(void **state) {
    (void)state;
    for (int i = 0; i < GRI_ISAS; i++)
        for (int t = 0; t < MAX_THREADS; t++) {
            gr_config cfg;
            gr_config_init(&cfg);
            cfg.isa = isa_names[i];
            cfg.threads = t + 1;
            gr_ctx_new(&cfg, &contexts[i][t]);
        }
    return contexts[0][0] ? 0 : -1;
}

static int close_contexts(void **state) {
    (void)state;
    int64_t alive = 0;
    for (int i = 0; i < GRI_ISAS; i++)
        for (int t = 0; t < MAX_THREADS; t++) alive += gr_ctx_free(contexts[i][t]);
    return alive != 0;
}

/* ---- random numbers and matrices -------------------------------------------------------------------------- */

static uint64_t seed = 1;
static uint64_t next_random(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}
static int64_t between(int64_t lo, int64_t hi) { return lo + (int64_t)(next_random() % (uint64_t)(hi - lo + 1)); }
static double uniform(void) { return (double)(next_random() >> 11) / 9007199254740992.0 * 2 - 1; }

typedef struct matrix {
    gr_dtype dtype;
    int64_t rows, cols, rs, cs, size; /* size: elements the strides reach */
    char *raw, *data;
} matrix;

static double get(gr_dtype t, const void *p, int64_t at) {
    return t == GR_F32 ? (double)((const float *)p)[at] : ((const double *)p)[at];
}
static void set(gr_dtype t, void *p, int64_t at, double v) {
    if (t == GR_F32) ((float *)p)[at] = (float)v;
    else ((double *)p)[at] = v;
}

static matrix new_matrix(gr_dtype t, int64_t rows, int64_t cols, int64_t rs, int64_t cs) {
    matrix m = {.dtype = t, .rows = rows, .cols = cols, .rs = rs, .cs = cs, .size = 1};
    if (rows > 1) m.size += (rows - 1) * rs;
    if (cols > 1) m.size += (cols - 1) * cs;
    int64_t all = m.size + 2 * GUARD;
    m.raw = malloc((size_t)all * gr_dtype_size(t));
    m.data = m.raw + GUARD * gr_dtype_size(t);
    for (int64_t i = 0; i < all; i++) set(t, m.raw, i, uniform());
    return m;
}

typedef enum layout { ROW_MAJOR, COLUMN_MAJOR, ROW_PADDED, COLUMN_PADDED, SPREAD, NESTED, LAYOUTS } layout;

static matrix random_matrix(gr_dtype t, int64_t rows, int64_t cols, layout l) {
    switch (l) {
    case ROW_MAJOR: return new_matrix(t, rows, cols, cols, 1);
    case COLUMN_MAJOR: return new_matrix(t, rows, cols, 1, rows);
    case ROW_PADDED: return new_matrix(t, rows, cols, cols + between(1, 9), 1);
    case COLUMN_PADDED: return new_matrix(t, rows, cols, 1, rows + between(1, 9));
    case SPREAD: return new_matrix(t, rows, cols, 3 * cols + 2, 3);
    default: return new_matrix(t, rows, cols, 2, 2 * rows + 1);
    }
}

/* ---- the check -------------------------------------------------------------------------------------------- */

static gri_gemm product(const matrix *a, const matrix *b, const matrix *c, int beta) {
    return (gri_gemm){.dtype = a->dtype, .m = c->rows, .n = c->cols, .k = a->cols, .a = a->data, .b = b->data,
                      .rsa = a->rs, .csa = a->cs, .rsb = b->rs, .csb = b->cs, .c = c->data, .rsc = c->rs,
                      .csc = c->cs, .beta = beta};
}

/* What c should hold and how far it may be off, for each place from c->raw on; NaN where nobody may write. */
typedef struct reference {
    long double *want, *slack;
    const char *before;
} reference;

static reference new_reference(const matrix *a, const matrix *b, const matrix *c, const char *before, int beta) {
    gr_dtype t = a->dtype;
    size_t all = (size_t)(c->size + 2 * GUARD);
    long double eps = t == GR_F32 ? 6e-8L : 1.2e-16L;
    reference r = {malloc(all * sizeof *r.want), malloc(all * sizeof *r.slack), before};
    for (size_t i = 0; i < all; i++) r.want[i] = NAN;
    for (int64_t i = 0; i < c->rows; i++)
        for (int64_t j = 0; j < c->cols; j++) {
            int64_t at = GUARD + i * c->rs + j * c->cs;
            long double sum = beta ? get(t, before, at) : 0, size = fabsl(sum);
            for (int64_t p = 0; p < a->cols; p++) {
                long double term = get(t, a->data, i * a->rs + p * a->cs);
                term *= get(t, b->data, p * b->rs + j * b->cs);
                sum += term;
                size += fabsl(term);
            }
            r.want[at] = sum;
            r.slack[at] = eps * (long double)(4 + a->cols) * size;
        }
    return r;
}

static void free_reference(reference *r) {
    free(r->want);
    free(r->slack);
}

static void check_values(const reference *r, const matrix *c) {
    size_t width = gr_dtype_size(c->dtype);
    for (int64_t i = 0; i < c->size + 2 * GUARD; i++) {
        double have = get(c->dtype, c->raw, i);
        if (isnan(r->want[i])) assert_memory_equal(c->raw + (size_t)i * width, r->before + (size_t)i * width, width);
        else if (!(fabsl(have - r->want[i]) <= r->slack[i]))
            fail_msg("%dx%d, strides %d %d, offset %d: %.17g, expected %.17Lg", (int)c->rows, (int)c->cols,
                     (int)c->rs, (int)c->cs, (int)i - GUARD, have, r->want[i]);
    }
}

/* Runs the product in every context: right in each, the same bits for every number of threads. */
static void check(const matrix *a, const matrix *b, const matrix *c, int beta) {
    size_t bytes = (size_t)(c->size + 2 * GUARD) * gr_dtype_size(c->dtype);
    char *before = malloc(bytes), *first = malloc(bytes);
    memcpy(before, c->raw, bytes);
    reference r = new_reference(a, b, c, before, beta);
    gri_gemm g = product(a, b, c, beta);
    for (int i = 0; i < GRI_ISAS; i++) {
        for (int t = 0; t < MAX_THREADS; t++) {
            if (!contexts[i][t]) continue;
            memcpy(c->raw, before, bytes);
            gri_gemm_run(contexts[i][t], &g);
            if (t > 0) {
                assert_memory_equal(c->raw, first, bytes);
                continue;
            }
            memcpy(first, c->raw, bytes);
            check_values(&r, c);
            memcpy(c->raw, before, bytes);
            gri_gemm_piece((gri_isa)i, &g);
            check_values(&r, c);
        }
    }
    memcpy(c->raw, before, bytes);
    free_reference(&r);
    free(before);
    free(first);
}

static void check_shape(gr_dtype t, int64_t m, int64_t n, int64_t k, layout la, layout lb, layout lc, int beta) {
    matrix a = random_matrix(t, m, k, la), b = random_matrix(t, k, n, lb), c = random_matrix(t, m, n, lc);
    check(&a, &b, &c, beta);
    free(a.raw), free(b.raw), free(c.raw);
}

/* ---- tests ------------------------------------------------------------------------------------------------ */

static void every_small_shape(void **state) {
    (void)state;
    for (int64_t m = 1; m <= 14; m++)
        for (int64_t n = 1; n <= 35; n += n < 20 ? 1 : 5)
            for (int64_t k = 1; k <= 9; k += 2) {
                layout l = (layout)between(0, LAYOUTS - 1);
                check_shape(m % 2 ? GR_F32 : GR_F64, m, n, k, l, (layout)between(0, LAYOUTS - 1),
                            (layout)between(0, LAYOUTS - 1), (int)between(0, 1));
            }
}

static void random_shapes_in_every_layout(void **state) {
    (void)state;
    for (int i = 0; i < LAYOUTS * LAYOUTS * LAYOUTS; i++) {
        int64_t m = between(1, 90), n = between(1, 90), k = between(1, i % 3 ? 60 : 600);
        check_shape(i % 2 ? GR_F32 : GR_F64, m, n, k, (layout)(i % LAYOUTS), (layout)(i / LAYOUTS % LAYOUTS),
                    (layout)(i / LAYOUTS / LAYOUTS), (int)between(0, 1));
    }
}

/* x W^T, dy W and dy^T x of linear layers; each way of computing a product, cut by rows, by columns, by both. */
static void shapes_of_layers(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{100, 5, 10}, {100, 1, 5}, {5, 10, 100}, {64, 64, 64}, {64, 256, 784},
                                        {256, 784, 64}, {1, 256, 784}, {256, 1, 784}, {512, 10, 300}, {10, 512, 64},
                                        {330, 330, 330}, {70, 530, 600}, {530, 70, 600}, {600, 140, 420},
                                        {600, 140, 420}, {150, 1100, 260}};
    static const layout layouts[][2] = {{ROW_MAJOR, COLUMN_MAJOR}, {ROW_MAJOR, ROW_MAJOR}, {COLUMN_MAJOR, ROW_MAJOR}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int l = 0; l < 3; l++)
            check_shape((s + (size_t)l) % 2 ? GR_F64 : GR_F32, shapes[s][0], shapes[s][1], shapes[s][2], layouts[l][0],
                        layouts[l][1], ROW_MAJOR, l == 2);
}

/* c = bias + a b, where the kernel takes a bias: as if its rows had been there, which are not read. */
static int check_bias(const matrix *a, const matrix *b, matrix *c) {
    size_t bytes = (size_t)(c->size + 2 * GUARD) * gr_dtype_size(c->dtype);
    char *before = malloc(bytes), *first = malloc(bytes);
    double bias[600];
    int taken = 0;
    for (int64_t j = 0; j < c->cols; j++) set(c->dtype, bias, j, uniform());
    for (int64_t i = 0; i < c->rows; i++)
        for (int64_t j = 0; j < c->cols; j++) set(c->dtype, c->data, i * c->rs + j, get(c->dtype, bias, j));
    memcpy(before, c->raw, bytes);
    reference r = new_reference(a, b, c, before, 1);
    gri_gemm g = product(a, b, c, 0);
    g.bias = bias;
    for (int i = 0; i < GRI_ISAS; i++)
        for (int t = 0; t < MAX_THREADS; t++) {
            if (!contexts[i][t] || !gri_gemm_takes_bias(contexts[i][t], &g)) continue;
            memcpy(c->raw, before, bytes);
            for (int64_t row = 0; row < c->rows; row++)
                for (int64_t j = 0; j < c->cols; j++) set(c->dtype, c->data, row * c->rs + j, NAN);
            gri_gemm_run(contexts[i][t], &g);
            if (t > 0) assert_memory_equal(c->raw, first, bytes);
            memcpy(first, c->raw, bytes);
            check_values(&r, c);
            taken++;
        }
    free_reference(&r);
    free(before);
    free(first);
    return taken;
}

static void biases(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 40, 9}, {100, 5, 10}, {37, 71, 300}, {600, 130, 200}, {600, 512, 120},
                                        {64, 256, 600}, {700, 600, 100}};
    int taken = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int l = 0; l < 8; l++) {
            const int64_t *of = shapes[s];
            gr_dtype t = l % 2 ? GR_F32 : GR_F64;
            matrix a = random_matrix(t, of[0], of[2], l & 2 ? ROW_MAJOR : COLUMN_PADDED);
            matrix b = random_matrix(t, of[2], of[1], l & 4 ? COLUMN_MAJOR : ROW_PADDED);
            matrix c = random_matrix(t, of[0], of[1], l & 2 ? ROW_PADDED : ROW_MAJOR);
            taken += check_bias(&a, &b, &c);
            free(a.raw), free(b.raw), free(c.raw);
        }
    assert_true(taken > 100);
}

static void broadcast_and_overlapping_inputs(void **state) {
    (void)state;
    static const int64_t strides[][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}, {2, 1}, {1, 3}, {7, 0}};
    const int kinds = (int)(sizeof strides / sizeof *strides);
    for (int i = 0; i < 2 * kinds * kinds; i++) {
        int64_t m = between(2, 50), n = between(2, 50), k = i % 5 ? between(2, 50) : 700;
        gr_dtype t = i < kinds * kinds ? GR_F32 : GR_F64;
        const int64_t *sa = strides[i % kinds], *sb = strides[i / kinds % kinds];
        matrix a = new_matrix(t, m, k, sa[0], sa[1]), b = new_matrix(t, k, n, sb[0], sb[1]);
        matrix c = random_matrix(t, m, n, (layout)(i % LAYOUTS));
        check(&a, &b, &c, i % 2);
        free(a.raw), free(b.raw), free(c.raw);
    }
}

static void large_broadcast_inputs(void **state) {
    (void)state;
    matrix a = new_matrix(GR_F32, 300, 260, 0, 0), b = new_matrix(GR_F32, 260, 310, 310, 1);
    matrix c = new_matrix(GR_F32, 300, 310, 310, 1);
    check(&a, &b, &c, 0);
    free(a.raw), free(b.raw), free(c.raw);
}

/* Where a dimension has one element its stride may be anything, also 0. */
static void strides_of_single_rows_and_columns_mean_nothing(void **state) {
    (void)state;
    static const int64_t odd[] = {0, 1, 2, 5, 1 << 20, INT64_C(1) << 40};
    for (int i = 0; i < 400; i++) {
        int64_t m = between(0, 1) ? 1 : between(2, 40), n = between(0, 1) ? 1 : between(2, 40);
        int64_t k = between(0, 1) ? 1 : between(2, 400);
        gr_dtype t = i % 2 ? GR_F32 : GR_F64;
        matrix a = random_matrix(t, m, k, (layout)between(0, LAYOUTS - 1));
        matrix b = random_matrix(t, k, n, (layout)between(0, LAYOUTS - 1));
        matrix c = random_matrix(t, m, n, (layout)between(0, LAYOUTS - 1));
        matrix *all[] = {&a, &b, &c};
        for (int j = 0; j < 3; j++) {
            if (all[j]->rows == 1) all[j]->rs = odd[between(0, 5)];
            if (all[j]->cols == 1) all[j]->cs = odd[between(0, 5)];
        }
        check(&a, &b, &c, (int)between(0, 1));
        free(a.raw), free(b.raw), free(c.raw);
    }
}

static void empty_dims(void **state) {
    (void)state;
    for (int i = 0; i < 16; i++) {
        int64_t m = i & 1 ? 5 : 0, n = i & 2 ? 40 : 0, k = 0;
        matrix a = new_matrix(GR_F32, m, k, k, 1), b = new_matrix(GR_F32, k, n, n, 1);
        matrix c = new_matrix(GR_F32, m, n, i & 8 ? n : 1, i & 8 ? 1 : m);
        check(&a, &b, &c, i & 4 ? 1 : 0);
        free(a.raw), free(b.raw), free(c.raw);
        a = new_matrix(GR_F64, m, 7, 7, 1), b = new_matrix(GR_F64, 7, n, n, 1), c = new_matrix(GR_F64, m, n, n, 1);
        check(&a, &b, &c, i & 4 ? 1 : 0);
        free(a.raw), free(b.raw), free(c.raw);
    }
}

/* Shapes that take each of the ways. */
static const int64_t way_shapes[][3] = {{6, 5, 4}, {64, 64, 64}, {40, 8, 300}, {2, 300, 301}, {330, 320, 330}};
#define WAYS ((int)(sizeof way_shapes / sizeof *way_shapes))

static void beta_zero_does_not_read_c(void **state) {
    (void)state;
    for (int s = 0; s < 2 * WAYS * LAYOUTS; s++) {
        const int64_t *d = way_shapes[s % WAYS];
        gr_dtype t = s % 2 ? GR_F32 : GR_F64;
        matrix a = random_matrix(t, d[0], d[2], ROW_MAJOR), b = random_matrix(t, d[2], d[1], COLUMN_MAJOR);
        matrix c = random_matrix(t, d[0], d[1], (layout)(s / WAYS % LAYOUTS));
        for (int64_t i = 0; i < c.size; i++) set(t, c.data, i, i % 2 ? NAN : INFINITY);
        check(&a, &b, &c, 0);
        free(a.raw), free(b.raw), free(c.raw);
    }
}

/* NaN in a row of a, infinity times zero in another, infinity in a column of b: exactly these rows and columns
 * of c are not finite, as IEEE has it. */
static void nan_and_infinity_spread(void **state) {
    (void)state;
    for (int s = 0; s < 6 * WAYS; s++) {
        const int64_t *d = way_shapes[s % WAYS];
        gr_dtype t = s % 2 ? GR_F32 : GR_F64;
        matrix a = random_matrix(t, d[0], d[2], s / WAYS % 3 ? ROW_MAJOR : COLUMN_MAJOR);
        matrix b = random_matrix(t, d[2], d[1], s / WAYS % 2 ? ROW_MAJOR : COLUMN_MAJOR);
        matrix c = random_matrix(t, d[0], d[1], ROW_MAJOR);
        int64_t column = d[1] / 2, last = d[2] - 1;
        for (int64_t i = 0; i < d[0]; i++) set(t, a.data, i * a.rs + last * a.cs, i == 1 ? INFINITY : 1);
        for (int64_t j = 0; j < d[1]; j++) set(t, b.data, last * b.rs + j * b.cs, j == column ? INFINITY : 0);
        set(t, a.data, 0, NAN);
        gri_gemm g = product(&a, &b, &c, 0);
        for (int i = 0; i < GRI_ISAS; i++) {
            if (!contexts[i][1]) continue;
            gri_gemm_run(contexts[i][1], &g);
            for (int64_t p = 0; p < d[0]; p++)
                for (int64_t j = 0; j < d[1]; j++) {
                    double v = get(t, c.data, p * c.rs + j * c.cs);
                    if (p == 0 || (p == 1 && j != column)) assert_true(isnan(v));
                    else if (j == column) assert_true(v == INFINITY);
                    else assert_true(isfinite(v));
                }
        }
        free(a.raw), free(b.raw), free(c.raw);
    }
}

/* A matrix between two pages nobody may touch, close to the one behind it or to the one in front of it. The
 * sanitizers do not see into BLIS. */
static matrix fenced_matrix(gr_dtype t, int64_t rows, int64_t cols, bool by_rows, bool behind, void **map,
                            size_t *all) {
    int64_t lead = (by_rows ? cols : rows) + between(0, 5);
    matrix m = {.dtype = t, .rows = rows, .cols = cols, .rs = by_rows ? lead : 1, .cs = by_rows ? 1 : lead};
    m.size = 1 + (rows - 1) * m.rs + (cols - 1) * m.cs;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size_t)m.size * gr_dtype_size(t);
    size_t inner = (bytes + page - 1) / page * page;
    *all = inner + 2 * page;
    char *p = mmap(NULL, *all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(mprotect(p + page, inner, PROT_READ | PROT_WRITE), 0);
    m.raw = m.data = p + page + (behind ? inner - bytes : 0);
    *map = p;
    return m;
}

static void nothing_outside_the_operands_is_touched(void **state) {
    (void)state;
    for (int i = 0; i < 1500; i++) {
        bool large = i % 100 == 0, thin = between(0, 2) == 0;
        int64_t m = large ? between(300, 400) : thin ? between(1, 12) : between(1, 100);
        int64_t n = large ? between(300, 400) : between(0, 2) ? between(1, 100) : between(1, 12);
        int64_t k = large ? between(300, 400) : between(1, 400);
        gr_dtype t = i % 2 ? GR_F32 : GR_F64;
        bool behind = between(0, 1);
        void *map[3];
        size_t size[3];
        matrix a = fenced_matrix(t, m, k, between(0, 2), behind, &map[0], &size[0]);
        matrix b = fenced_matrix(t, k, n, between(0, 1), behind, &map[1], &size[1]);
        matrix c = fenced_matrix(t, m, n, between(0, 1), behind, &map[2], &size[2]);
        gri_gemm g = product(&a, &b, &c, (int)between(0, 1));
        for (int isa = 0; isa < GRI_ISAS; isa++)
            if (contexts[isa][1]) gri_gemm_run(contexts[isa][1], &g);
        for (int j = 0; j < 3; j++) munmap(map[j], size[j]);
    }
}

/* The blocks of each operand lie behind each other, those of b in reverse; c by rows or by columns. */
static void check_batch(gr_dtype t, int64_t m, int64_t n, int64_t k, int64_t count, bool by_columns) {
    matrix a = new_matrix(t, m * count, k, k, 1), b = new_matrix(t, k * count, n, n, 1);
    matrix c = new_matrix(t, m * count, n, n, 1);
    size_t width = gr_dtype_size(t), bytes = (size_t)(c.size + 2 * GUARD) * width;
    char *before = malloc(bytes), *first = malloc(bytes), *alone = malloc(bytes);
    int64_t(*offsets)[3] = malloc((size_t)count * sizeof *offsets);
    memcpy(before, c.raw, bytes);
    for (int64_t i = 0; i < count; i++) {
        offsets[i][0] = i * m * k;
        offsets[i][1] = (count - 1 - i) * k * n;
        offsets[i][2] = i * m * n;
    }
    gri_gemm g = {.dtype = t, .m = m, .n = n, .k = k, .a = a.data, .b = b.data, .c = c.data, .rsa = k, .csa = 1,
                  .rsb = n, .csb = 1, .rsc = by_columns ? 1 : n, .csc = by_columns ? m : 1, .beta = 1};
    memcpy(alone, before, bytes);
    for (int64_t i = 0; i < count * m * n; i++) {
        const int64_t *o = offsets[i / (m * n)], row = by_columns ? i % m : i / n % m;
        const int64_t col = by_columns ? i / m % n : i % n;
        double sum = get(t, before, GUARD + i);
        for (int64_t p = 0; p < k; p++)
            sum += get(t, a.data, o[0] + row * k + p) * get(t, b.data, o[1] + p * n + col);
        set(t, alone, GUARD + i, sum);
    }
    for (int i = 0; i < GRI_ISAS; i++)
        for (int threads = 0; threads < MAX_THREADS; threads++) {
            if (!contexts[i][threads]) continue;
            memcpy(c.raw, before, bytes);
            gri_gemm_batch(contexts[i][threads], &g, count, (const int64_t(*)[3])offsets);
            if (threads == 0) memcpy(first, c.raw, bytes);
            else assert_memory_equal(c.raw, first, bytes);
        }
    for (int64_t i = 0; i < c.size + 2 * GUARD; i++)
        assert_true(fabs(get(t, c.raw, i) - get(t, alone, i)) <= (t == GR_F32 ? 1e-4 : 1e-12));
    free(a.raw), free(b.raw), free(c.raw), free(before), free(first), free(alone), free(offsets);
}

static void batches(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {{3, 4, 5, 1}, {3, 4, 5, 100}, {8, 8, 8, 1000}, {32, 32, 16, 40},
                                        {128, 128, 32, 3}, {64, 100, 200, 17}, {5, 0, 3, 4}, {5, 6, 0, 4},
                                        {260, 270, 280, 2}, {9, 4, 300, 21}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int by_columns = 0; by_columns < 2; by_columns++)
            check_batch(s % 2 ? GR_F32 : GR_F64, shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3], by_columns);
    gri_gemm g = {.dtype = GR_F32, .m = 3, .n = 3, .k = 3};
    gri_gemm_batch(contexts[0][0], &g, 0, NULL); /* nothing to do, nothing touched */
}

/* ---- contexts in several threads: BLIS is entered by all of them at once ---------------------------------- */

typedef struct job {
    matrix a, b;
    const char *want;
    bool same;
} job;

static void *multiply_often(void *arg) {
    job *j = arg;
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.threads = 2;
    if (gr_ctx_new(&cfg, &ctx) != GR_OK) return NULL;
    int64_t m = j->a.rows, n = j->b.cols;
    size_t bytes = (size_t)(m * n) * sizeof(float);
    float *c = malloc(bytes);
    matrix view = {.dtype = GR_F32, .rows = m, .cols = n, .rs = n, .cs = 1, .data = (char *)c};
    gri_gemm g = product(&j->a, &j->b, &view, 0);
    j->same = true;
    for (int i = 0; i < 20; i++) {
        gri_gemm_run(ctx, &g);
        j->same = j->same && memcmp(c, j->want, bytes) == 0;
    }
    free(c);
    gr_ctx_free(ctx);
    return NULL;
}

static void contexts_multiply_side_by_side(void **state) {
    (void)state;
    for (int s = 0; s < WAYS; s++) {
        const int64_t *d = way_shapes[s];
        matrix a = random_matrix(GR_F32, d[0], d[2], ROW_MAJOR), b = random_matrix(GR_F32, d[2], d[1], COLUMN_MAJOR);
        matrix c = random_matrix(GR_F32, d[0], d[1], ROW_MAJOR);
        gri_gemm g = product(&a, &b, &c, 0);
        gri_isa best = contexts[GRI_AVX512][0] ? GRI_AVX512 : contexts[GRI_AVX2][0] ? GRI_AVX2 : GRI_GENERIC;
        gri_gemm_run(contexts[best][0], &g);
        job jobs[3];
        pthread_t t[3];
        for (int i = 0; i < 3; i++) {
            jobs[i] = (job){.a = a, .b = b, .want = c.data};
            assert_int_equal(pthread_create(&t[i], NULL, multiply_often, &jobs[i]), 0);
        }
        for (int i = 0; i < 3; i++) {
            pthread_join(t[i], NULL);
            assert_true(jobs[i].same);
        }
        free(a.raw), free(b.raw), free(c.raw);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_small_shape),
        cmocka_unit_test(random_shapes_in_every_layout),
        cmocka_unit_test(shapes_of_layers),
        cmocka_unit_test(biases),
        cmocka_unit_test(broadcast_and_overlapping_inputs),
        cmocka_unit_test(large_broadcast_inputs),
        cmocka_unit_test(strides_of_single_rows_and_columns_mean_nothing),
        cmocka_unit_test(empty_dims),
        cmocka_unit_test(beta_zero_does_not_read_c),
        cmocka_unit_test(nan_and_infinity_spread),
        cmocka_unit_test(nothing_outside_the_operands_is_touched),
        cmocka_unit_test(batches),
        cmocka_unit_test(contexts_multiply_side_by_side),
    };
    return cmocka_run_group_tests(tests, open_contexts, close_contexts);
}
