/* The readers of IDX and CSV: right values, and hostile files refused with a clear message and nothing left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "gradrun.h"

typedef gr_status (*reader)(gr_ctx *ctx, const char *path, gr_tensor **out);

static char folder[64];
static gr_ctx *ctx;

/* ---- files ------------------------------------------------------------------------------------------------ */

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/gradrun-io-XXXXXX");
    return mkdtemp(folder) && gr_ctx_new(NULL, &ctx) == GR_OK ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char path[sizeof folder + 256];
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] != '.' && unlink(path) != 0) rmdir(path);
    }
    closedir(d);
    return rmdir(folder) == 0 && gr_ctx_free(ctx) == 0 ? 0 : -1;
}

/* Writes a file of that content, plain or gzipped; the path is good until the next call. */
static const char *file(const char *name, const void *bytes, size_t n, bool zipped) {
    static char path[sizeof folder + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    gzFile f = gzopen(path, zipped ? "wb" : "wbT");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, bytes, (unsigned)n), (int)n);
    assert_int_equal(gzclose(f), Z_OK);
    return path;
}
static const char *text(const char *s) { return file("text.csv", s, strlen(s), false); }

static void nothing_left(void) {
    gr_memory m;
    gr_memory_get(ctx, &m);
    assert_true(m.live == 0 && m.tensors == 0 && m.storages == 0);
}

static gr_tensor *reads(reader read, const char *path) {
    gr_tensor *t = NULL;
    if (read(ctx, path, &t) != GR_OK) fail_msg("%s", gr_errmsg(ctx));
    return t;
}

static void refuses(reader read, const char *path, gr_status want, const char *says) {
    gr_tensor *t = NULL;
    gr_status got = read(ctx, path, &t);
    if (got != want || !strstr(gr_errmsg(ctx), says) || strncmp(gr_errmsg(ctx), path, strlen(path)) != 0)
        fail_msg("status %d, '%s'; expected status %d and '%s'", got, gr_errmsg(ctx), want, says);
    assert_null(t);
    gr_clear_error(ctx);
    nothing_left();
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

static void holds(gr_tensor *t, gr_dtype dtype, int rank, const int64_t *dims, const double *want) {
    assert_int_equal(gr_tensor_dtype(t), dtype);
    assert_int_equal(gr_tensor_rank(t), rank);
    for (int i = 0; i < rank; i++) assert_int_equal(gr_tensor_dims_peek(t)[i], dims[i]);
    for (int64_t i = 0; i < gr_tensor_numel(t); i++) {
        if (isnan(want[i])) assert_true(isnan(at(t, i)));
        else assert_true(at(t, i) == want[i] && signbit(at(t, i)) == signbit(want[i]));
    }
    gr_release(t);
    nothing_left();
}

/* Lets each allocation fail in turn until the reader gets through. */
typedef struct failing { int64_t left; } failing;

static void *failing_alloc(void *ud, void *p, size_t osize, size_t nsize) {
    failing *f = ud;
    (void)osize;
    if (nsize == 0) {
        free(p);
        return NULL;
    }
    return f->left-- > 0 ? realloc(p, nsize) : NULL;
}

static void survives_lack_of_memory(reader read, const char *path) {
    failing f;
    gr_config cfg;
    gr_config_init(&cfg);
    cfg.alloc = failing_alloc;
    cfg.alloc_ud = &f;
    for (int64_t n = 0;; n++) {
        gr_ctx *small;
        gr_tensor *t = NULL;
        f.left = 1;
        assert_int_equal(gr_ctx_new(&cfg, &small), GR_OK);
        f.left = n;
        gr_status got = read(small, path, &t);
        assert_true(got == GR_OK || (got == GR_ERR_MEMORY && !t && *gr_errmsg(small)));
        gr_release(t);
        assert_int_equal(gr_ctx_free(small), 0);
        if (got == GR_OK) {
            assert_true(n > 0);
            return;
        }
    }
}

/* ---- IDX -------------------------------------------------------------------------------------------------- */

#define IDX(name, ...) static const uint8_t name[] = {0, 0, __VA_ARGS__}

static void idx_element_types(void **state) {
    (void)state;
    IDX(u8, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 1, 2, 127, 128, 255);
    IDX(i8, 9, 1, 0, 0, 0, 3, 0, 127, 128);
    IDX(i16, 11, 1, 0, 0, 0, 3, 0, 1, 0x12, 0x34, 0xff, 0xfe);
    IDX(i32, 12, 1, 0, 0, 0, 2, 0x12, 0x34, 0x56, 0x78, 0x80, 0, 0, 0);
    IDX(f32, 13, 1, 0, 0, 0, 3, 0x3f, 0xc0, 0, 0, 0x80, 0, 0, 0, 0x7f, 0xc0, 0, 0);
    IDX(f64, 14, 1, 0, 0, 0, 2, 0xbf, 0xf8, 0, 0, 0, 0, 0, 0, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0);
    for (int zipped = 0; zipped <= 1; zipped++) {
        holds(reads(gr_idx_read, file("a", u8, sizeof u8, zipped)), GR_U8, 2, (int64_t[]){2, 3},
              (double[]){0, 1, 2, 127, 128, 255});
        holds(reads(gr_idx_read, file("a", i8, sizeof i8, zipped)), GR_I64, 1, (int64_t[]){3},
              (double[]){0, 127, -128});
        holds(reads(gr_idx_read, file("a", i16, sizeof i16, zipped)), GR_I64, 1, (int64_t[]){3},
              (double[]){1, 0x1234, -2});
        holds(reads(gr_idx_read, file("a", i32, sizeof i32, zipped)), GR_I64, 1, (int64_t[]){2},
              (double[]){0x12345678, -2147483648.0});
        holds(reads(gr_idx_read, file("a", f32, sizeof f32, zipped)), GR_F32, 1, (int64_t[]){3},
              (double[]){1.5, -0.0, NAN});
        holds(reads(gr_idx_read, file("a", f64, sizeof f64, zipped)), GR_F64, 1, (int64_t[]){2},
              (double[]){-1.5, INFINITY});
    }
}

static void idx_many_and_empty_dimensions(void **state) {
    (void)state;
    IDX(eight, 8, 8, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2,
        1, 2, 3, 4);
    IDX(empty, 8, 3, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28);
    holds(reads(gr_idx_read, file("a", eight, sizeof eight, true)), GR_U8, 8, (int64_t[]){1, 1, 2, 1, 1, 1, 1, 2},
          (double[]){1, 2, 3, 4});
    holds(reads(gr_idx_read, file("a", empty, sizeof empty, true)), GR_U8, 3, (int64_t[]){0, 28, 28}, NULL);
    holds(reads(gr_idx_read, file("a", empty, sizeof empty, false)), GR_U8, 3, (int64_t[]){0, 28, 28}, NULL);
}

static void idx_wrong_headers(void **state) {
    (void)state;
    static const struct { uint8_t head[40]; const char *says; } bad[] = {
        {{1, 0, 8, 1, 0, 0, 0, 1, 7}, "starts with 01 00 08 01, expected 00 00"},
        {"PK\003\004", "starts with 50 4b 03 04"},
        {{0, 0, 7, 1, 0, 0, 0, 1, 7}, "element type 07, expected 08, 09, 0b, 0c, 0d or 0e"},
        {{0, 0, 10, 1, 0, 0, 0, 1, 7}, "element type 0a"},
        {{0, 0, 8, 0, 7}, "rank 0, expected 1 to 8"},
        {{0, 0, 8, 9, 0, 0, 0, 1}, "rank 9, expected 1 to 8"},
        {{0, 0, 8, 255}, "rank 255"},
        {{0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
         "[4294967295,4294967295,4294967295] are more than memory can address"},
        {{0, 0, 8, 4, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}, "more than memory"},
        {{0, 0, 14, 2, 127, 255, 255, 255, 127, 255, 255, 255}, "more than memory"},
        {{0, 0, 8, 2, 255, 255, 255, 255, 0, 0, 0, 1}, "need 4294967295 bytes, the file holds 28"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int zipped = 0; zipped <= 1; zipped++)
            refuses(gr_idx_read, file("a", bad[i].head, sizeof bad[i].head, zipped), GR_ERR_FORMAT, bad[i].says);
}

/* Every way to cut a file short, and one byte too many. */
static void idx_cut_short(void **state) {
    (void)state;
    IDX(u8, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 1, 2, 127, 128, 255, 99);
    IDX(i16, 11, 1, 0, 0, 0, 3, 0, 1, 0x12, 0x34, 0xff, 0xfe, 0);
    uint8_t zipped[256];
    for (int z = 0; z <= 1; z++) {
        for (size_t n = 0; n < sizeof u8 - 1; n++)
            refuses(gr_idx_read, file("a", u8, n, z), GR_ERR_FORMAT, n < 4 ? "not an IDX file" : "cut short");
        for (size_t n = 0; n < sizeof i16 - 1; n++)
            refuses(gr_idx_read, file("a", i16, n, z), GR_ERR_FORMAT, n < 4 ? "not an IDX file" : "cut short");
        refuses(gr_idx_read, file("a", u8, sizeof u8, z), GR_ERR_FORMAT, "left over behind the 6 of IDX [2,3]");
        refuses(gr_idx_read, file("a", i16, sizeof i16, z), GR_ERR_FORMAT, "left over behind the 6 of IDX [3]");
    }
    FILE *f = fopen(file("a", u8, sizeof u8 - 1, true), "rb");
    size_t size = fread(zipped, 1, sizeof zipped, f);
    fclose(f);
    for (size_t n = 2; n < size; n++) {
        const char *path = file("b", zipped, n, false);
        gr_tensor *t = NULL;
        assert_int_equal(gr_idx_read(ctx, path, &t), GR_ERR_FORMAT);
        assert_null(t);
        gr_clear_error(ctx);
        nothing_left();
    }
    zipped[size - 6] ^= 1; /* in the checksum */
    refuses(gr_idx_read, file("b", zipped, size, false), GR_ERR_FORMAT, "damaged gzip data: incorrect data check");
}

/* What a header announces is not allocated before the file has shown that it has it. */
static void idx_empty_promises(void **state) {
    (void)state;
    size_t n = 8 + (4 << 20);
    uint8_t *zeros = calloc(n, 1);
    gr_memory m;
    memcpy(zeros, (uint8_t[]){0, 0, 8, 1, 0x7f, 0xff, 0xff, 0xff}, 8); /* 2 GB, of which 4 MB come */
    const char *path = file("a", zeros, n, true);
    gr_memory_trim(ctx);
    refuses(gr_idx_read, path, GR_ERR_FORMAT, "need 2147483647 bytes, the file holds 4194304");
    gr_memory_get(ctx, &m);
    assert_true(m.cached < (1 << 20));
    memcpy(zeros, (uint8_t[]){0, 0, 8, 1, 0, 0x40, 0, 0}, 8); /* zeros pack 1000 : 1, and are all there */
    gr_tensor *t = reads(gr_idx_read, file("a", zeros, n, true));
    assert_int_equal(gr_tensor_numel(t), 4 << 20);
    gr_release(t);
    refuses(gr_idx_read, file("a", zeros, n - 1, true), GR_ERR_FORMAT, "need 4194304 bytes, the file holds 4194303");
    zeros[n - 1] = 1;
    t = reads(gr_idx_read, file("a", zeros, n, true));
    assert_true(at(t, (4 << 20) - 1) == 1 && at(t, 0) == 0);
    gr_release(t);
    free(zeros);
}

static void idx_no_file(void **state) {
    (void)state;
    char path[sizeof folder + 16];
    snprintf(path, sizeof path, "%s/missing", folder);
    refuses(gr_idx_read, path, GR_ERR_IO, "No such file");
    refuses(gr_csv_read, path, GR_ERR_IO, "No such file");
    refuses(gr_idx_read, folder, GR_ERR_IO, "is a directory, expected a file");
    refuses(gr_csv_read, folder, GR_ERR_IO, "is a directory, expected a file");
    refuses(gr_idx_read, "/dev/null", GR_ERR_IO, "not a regular file");
    refuses(gr_csv_read, "/dev/null", GR_ERR_FORMAT, "no numbers in 0 bytes");
}

static void readers_survive_lack_of_memory(void **state) {
    (void)state;
    IDX(i8, 9, 1, 0, 0, 0, 3, 0, 127, 128);
    size_t n = 400000;
    char *many = malloc(n);
    for (size_t i = 0; i < n; i++) many[i] = i % 2 ? '\n' : '1';
    survives_lack_of_memory(gr_idx_read, file("a", i8, sizeof i8, true));
    survives_lack_of_memory(gr_csv_read, file("a", many, n, true));
    free(many);
}

static void idx_fashion_mnist(void **state) {
    (void)state;
    const char *images = "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz";
    const char *labels = "/usr/share/datasets/fashion-mnist/train-labels-idx1-ubyte.gz";
    if (access(images, R_OK) != 0) skip();
    gr_tensor *t = reads(gr_idx_read, images);
    assert_int_equal(gr_tensor_dtype(t), GR_U8);
    assert_int_equal(gr_tensor_rank(t), 3);
    assert_memory_equal(gr_tensor_dims_peek(t), ((int64_t[]){60000, 28, 28}), 3 * sizeof(int64_t));
    gr_release(t);
    t = reads(gr_idx_read, labels);
    int64_t count[10] = {0};
    for (int64_t i = 0; i < 60000; i++) count[(int)at(t, i)]++;
    for (int i = 0; i < 10; i++) assert_int_equal(count[i], 6000);
    gr_release(t);
}

static void an_interrupt_stops_a_reader(void **state) {
    (void)state;
    gr_tensor *t = NULL;
    const char *path = text("1,2\n");
    gr_interrupt(ctx);
    assert_int_equal(gr_csv_read(ctx, path, &t), GR_ERR_INTERRUPT);
    assert_null(t);
    gr_clear_interrupt(ctx);
    gr_clear_error(ctx);
    gr_release(reads(gr_csv_read, path));
}

/* ---- CSV -------------------------------------------------------------------------------------------------- */

static void csv_holds(const char *s, int64_t rows, int64_t columns, const double *want) {
    for (int zipped = 0; zipped <= 1; zipped++)
        holds(reads(gr_csv_read, file("a.csv", s, strlen(s), zipped)), GR_F32, 2, (int64_t[]){rows, columns}, want);
}

static void csv_ways_to_write_a_table(void **state) {
    (void)state;
    static const double six[] = {1, 2, 3, 4, 5, 6};
    static const char *const same[] = {
        "1,2,3\n4,5,6\n", "1,2,3\n4,5,6", "1,2,3\r\n4,5,6\r\n", "1;2;3\n4;5;6\n", "1 2 3\n4 5 6\n",
        "1\t2\t3\n4\t5\t6\n",
        "  1   2\t3 \n\n \t \n4 5 6\n\n", "1, 2 ,3\n4 ,5,\t6\n", "1, 2 ,3 \r\n\r\n4 ,5,6\r", "a,b,c\n1,2,3\n4,5,6\n",
        "\n\nfirst name,2,3\r\n1,2,3\n4,5,6\n", "\xEF\xBB\xBF" "1,2,3\n4,5,6\n", "\xEF\xBB\xBFx,y,z\n1,2,3\n4,5,6\n",
        ",a,b\n1,2,3\n4,5,6\n", "label\n1,2,3\n4,5,6\n", "# three columns\n1,2,3\n4,5,6\n",
        "1.0,+2,3e0\n0.4e1,50E-1,6.\n",
        "\"a\",\"b, c\"\n1,2,3\n4,5,6\n", "\"1\",\"2\",\"3\"\r\n\"4\", \"5\" ,\"6\"\r\n", "\"1\",2,3\n4,5,\"6\"",
        "\"a\nb\",\"\"\"c\"\",\nd\"\n1,2,3\n4,5,6\n", "\"\",5\" x,\"y\"\n1,2,3\n4,5,6\n", "\"a\" \"b\nc\"\n1 2 3\n4 5 6\n"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) csv_holds(same[i], 2, 3, six);
    csv_holds("7", 1, 1, (double[]){7});
    csv_holds("nan,-inf\nInfinity,NaN\n", 2, 2, (double[]){NAN, -INFINITY, INFINITY, NAN});
    csv_holds("-0,1e-50\n.5,-.25\n", 2, 2, (double[]){-0.0, 0, 0.5, -0.25});
}

/* The quick way for short numbers must round as strtof and strtod do. */
static void csv_round_right(gr_dtype dtype) {
    enum { N = 20000 };
    char *s = malloc(N * 40), *p = s;
    float *want = malloc(N * sizeof *want);
    double *want_wide = malloc(N * sizeof *want_wide);
    uint64_t x = 88172645463325252;
    for (int i = 0; i < N; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        char number[40];
        int places = (int)(x % 12), digits = 1 + (int)(x / 16 % (dtype == GR_F32 ? 10 : 16));
        snprintf(number, sizeof number, "%s%.*f", x / 1024 % 2 ? "-" : "", places,
                 (double)(x >> 20) / 0x1p44 * pow(10, digits - places));
        want[i] = strtof(number, NULL);
        want_wide[i] = strtod(number, NULL);
        p += sprintf(p, "%s\n", number);
    }
    gr_dtype was = gr_set_default_dtype(ctx, dtype);
    gr_tensor *t = reads(gr_csv_read, file("a.csv", s, (size_t)(p - s), true));
    gr_set_default_dtype(ctx, was);
    assert_int_equal(gr_tensor_numel(t), N);
    assert_int_equal(gr_tensor_dtype(t), dtype);
    if (dtype == GR_F32) assert_memory_equal(gr_tensor_data_peek(t), want, N * sizeof *want);
    else assert_memory_equal(gr_tensor_data_peek(t), want_wide, N * sizeof *want_wide);
    gr_release(t);
    free(s);
    free(want);
    free(want_wide);
}

static void csv_numbers_round_right(void **state) {
    (void)state;
    csv_round_right(GR_F32);
    csv_round_right(GR_F64);
}

static void csv_ignores_the_locale(void **state) {
    (void)state;
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8")) skip();
    csv_holds("1.5,2.123456789\n", 1, 2, (double[]){1.5, (double)2.123456789f});
    setlocale(LC_NUMERIC, "C");
}

static void csv_refusals(void **state) {
    (void)state;
    static const struct { const char *text, *says; } bad[] = {
        {"", "no numbers in 0 bytes"},
        {" \n\r\n", "no numbers in 4 bytes"},
        {"a,b\n", "no numbers in 4 bytes, only a header"},
        {"1,2\n3\n", "line 2 has 1 numbers, expected 2 as in line 1"},
        {"x\n\n1,2\n\n3,4,5,6\n", "line 5 has 4 numbers, expected 2 as in line 3"},
        {"1,2\n3,abc\n", "line 2, column 2: 'abc' is not a number"},
        {"1,2x\n", "line 1, column 2: '2x' is not a number"},
        {"a,b\nc,d\n", "line 2, column 1: 'c' is not a number"},
        {"1,,2\n", "line 1, column 2: an empty field"},
        {"1,2,\n", "line 1, column 3: an empty field"},
        {"1,2\n,3\n", "line 2, column 1: an empty field"},
        {",1,2\n3,4,5\n", "line 1, column 1: an empty field"},
        {",\n", "line 1, column 1: an empty field"},
        {"1\n0x10\n", "'0x10' is not a number"},
        {"1\nnan(7)\n", "'nan(7)' is not a number"},
        {"1\n1e\n", "'1e' is not a number"},
        {"1\n.\n", "'.' is not a number"},
        {"1\n--1\n", "'--1' is not a number"},
        {"1\n1e39\n", "line 2, column 1: '1e39' is too large for f32"},
        {"1\r2\r", "'1?2' is not a number"},
        {"1\n2\a\x80\n", "line 2, column 1: '2?\?' is not a number"},
        {"1\n\"2\"3\n", "line 2, column 1: '2\"3' is not a number"},
        {"1\n\"2\"\"\"\n", "'2\"' is not a number"},
        {"1,2\n3,\"\"\n", "line 2, column 2: '\"\"' is not a number"},
        {"1,2\n3,\"4\n5,6\n", "line 2: the quotes of a field are not closed"},
        {"\"a\",\"b\n1,2\n", "line 1: the quotes of a field are not closed"},
        {"\"a\nb\",c\n1,x\n", "line 3, column 2: 'x' is not a number"},
        {"5%,2\n3,4\n", "line 1, column 1: '5%' is not a number"},
        {"\"1,000\",2\n3,4\n", "line 1, column 1: '1,000' is not a number"},
        {"-1x\n3\n", "line 1, column 1: '-1x' is not a number"},
        {"2026-01-31,2\n3,4\n", "line 1, column 1: '2026-01-31' is not a number"},
        {"1,5;2,5\n", "line 1, column 2: ';' between fields, expected ',' as before"},
        {"a;b\n1,5;2,5\n", "line 2, column 1: ',' between fields, expected ';' as before"},
        {"1\n1234567890123456789012345678901234567890x234567890\n",
         "'1234567890123456789012345678901234567890...' is not a number"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        refuses(gr_csv_read, text(bad[i].text), GR_ERR_FORMAT, bad[i].says);
    }
    refuses(gr_csv_read, file("a.csv", "1\n2\0" "3\n", 6, false), GR_ERR_FORMAT,
            "line 2, column 1: '2?3' is not a number");
    char *longest = malloc(100003);
    memset(longest, '0', 100002);
    memcpy(longest, "1\n", 2);
    longest[100002] = 0;
    refuses(gr_csv_read, text(longest), GR_ERR_FORMAT, "line 2, column 1: '0000");
    free(longest);
}

static void csv_damaged_gzip(void **state) {
    (void)state;
    uint8_t zipped[256];
    FILE *f = fopen(file("a", "1,2\n3,4\n", 8, true), "rb");
    size_t size = fread(zipped, 1, sizeof zipped, f);
    fclose(f);
    refuses(gr_csv_read, file("b", zipped, size - 1, false), GR_ERR_FORMAT,
            "damaged gzip data: unexpected end of file");
    zipped[size - 6] ^= 1;
    refuses(gr_csv_read, file("b", zipped, size, false), GR_ERR_FORMAT, "incorrect data check");
}

static void csv_rows_of_any_length(void **state) {
    (void)state;
    enum { COLUMNS = 50000, ROWS = 3 };
    char *s = malloc(COLUMNS * ROWS * 8), *p = s;
    for (int i = 0; i < COLUMNS * ROWS; i++) p += sprintf(p, "%d%c", i, i % COLUMNS == COLUMNS - 1 ? '\n' : ',');
    gr_tensor *t = reads(gr_csv_read, file("a.csv", s, (size_t)(p - s), true));
    assert_memory_equal(gr_tensor_dims_peek(t), ((int64_t[]){ROWS, COLUMNS}), 2 * sizeof(int64_t));
    for (int i = 0; i < COLUMNS * ROWS; i++) assert_true(at(t, i) == i);
    gr_release(t);
    free(s);
}

static void csv_digits(void **state) {
    (void)state;
    gr_tensor *t = reads(gr_csv_read, "scripts/data/digits.csv.gz");
    int64_t count[10] = {0};
    assert_memory_equal(gr_tensor_dims_peek(t), ((int64_t[]){1797, 65}), 2 * sizeof(int64_t));
    for (int64_t i = 0; i < 1797 * 65; i++) assert_true(at(t, i) >= 0 && at(t, i) <= 16);
    for (int64_t i = 0; i < 1797; i++) count[(int)at(t, i * 65 + 64)]++;
    for (int i = 0; i < 10; i++) assert_in_range(count[i], 174, 183);
    gr_release(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idx_element_types),
        cmocka_unit_test(idx_many_and_empty_dimensions),
        cmocka_unit_test(idx_wrong_headers),
        cmocka_unit_test(idx_cut_short),
        cmocka_unit_test(idx_empty_promises),
        cmocka_unit_test(idx_no_file),
        cmocka_unit_test(readers_survive_lack_of_memory),
        cmocka_unit_test(idx_fashion_mnist),
        cmocka_unit_test(an_interrupt_stops_a_reader),
        cmocka_unit_test(csv_ways_to_write_a_table),
        cmocka_unit_test(csv_numbers_round_right),
        cmocka_unit_test(csv_ignores_the_locale),
        cmocka_unit_test(csv_refusals),
        cmocka_unit_test(csv_damaged_gzip),
        cmocka_unit_test(csv_rows_of_any_length),
        cmocka_unit_test(csv_digits),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
