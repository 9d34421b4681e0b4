/* Files of named tensors: what is written comes back bit for bit, other programs' files are read, hostile ones are
 * refused with a clear message and nothing left, and a save that fails leaves the earlier file as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gradrun.h"

static char folder[64];
static gr_ctx *ctx;

/* ---- files ------------------------------------------------------------------------------------------------ */

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/gradrun-st-XXXXXX");
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

/* Good until the next call but three. */
static const char *path_of(const char *name) {
    static char path[4][sizeof folder + 300];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static size_t slurp(const char *path, char *to, size_t most) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(to, 1, most, f);
    fclose(f);
    return n;
}

static const char *file(const char *name, const void *bytes, size_t n) {
    const char *path = path_of(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    return path;
}

/* A file of that header and so many bytes 0, 1, 2, … behind it. */
static const char *safetensors(const char *header, size_t data) {
    static char bytes[1 << 16];
    uint64_t n = strlen(header);
    assert_true(8 + n + data <= sizeof bytes);
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < data; i++) bytes[8 + n + i] = (char)i;
    return file("t.safetensors", bytes, 8 + n + data);
}

static void nothing_left(void) {
    gr_memory m;
    gr_memory_get(ctx, &m);
    assert_true(m.live == 0 && m.tensors == 0 && m.storages == 0 && m.dicts == 0);
}

static gr_dict *reads(const char *path) {
    gr_dict *d = NULL;
    if (gr_safetensors_read(ctx, path, &d) != GR_OK) fail_msg("%s", gr_errmsg(ctx));
    return d;
}

static void refuses(const char *path, gr_status want, const char *says) {
    gr_dict *d = NULL;
    gr_status got = gr_safetensors_read(ctx, path, &d);
    if (got != want || gr_errcode(ctx) != want || !strstr(gr_errmsg(ctx), says) ||
        strncmp(gr_errmsg(ctx), path, strlen(path)) != 0)
        fail_msg("status %d, '%s'; expected status %d and '%s'", got, gr_errmsg(ctx), want, says);
    assert_null(d);
    gr_clear_error(ctx);
    nothing_left();
}

/* ---- dicts ------------------------------------------------------------------------------------------------ */

static gr_tensor *number(double v) {
    gr_tensor *t;
    assert_int_equal(gr_tensor_scalar(ctx, GR_F64, v, &t), GR_OK);
    return t;
}

static void put(gr_dict *d, const char *name, gr_tensor *t) { /* takes t */
    assert_int_equal(gr_dict_set(d, name, t), GR_OK);
    gr_release(t);
}

static void dict_keeps_order(void **state) {
    (void)state;
    gr_dict *d;
    char name[16];
    const char *have;
    double v;
    assert_int_equal(gr_dict_new(ctx, &d), GR_OK);
    assert_null(gr_dict_find_peek(d, "x"));
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "%d", i * 7919 % 500);
        put(d, name, number(i));
    }
    for (int i = 0; i < 500; i += 2) { /* every other one goes, the rest moves up */
        snprintf(name, sizeof name, "%d", i * 7919 % 500);
        assert_int_equal(gr_dict_set(d, name, NULL), GR_OK);
        assert_int_equal(gr_dict_set(d, name, NULL), GR_OK);
    }
    put(d, "499", number(-1)); /* in its place */
    assert_int_equal(gr_dict_count(d), 250);
    for (int i = 0; i < 250; i++) {
        gr_tensor *t = gr_dict_at_peek(d, i, &have);
        snprintf(name, sizeof name, "%d", (2 * i + 1) * 7919 % 500);
        assert_string_equal(have, name);
        assert_ptr_equal(t, gr_dict_find_peek(d, name));
        gr_tensor_item(t, &v);
        assert_true(v == (strcmp(name, "499") == 0 ? -1 : 2 * i + 1));
    }
    assert_null(gr_dict_at_peek(d, 250, &have));
    assert_null(have);
    gr_release(d);
    nothing_left();
}

static void dict_keeps_texts(void **state) {
    (void)state;
    gr_dict *d;
    const char *key;
    assert_int_equal(gr_dict_new(ctx, &d), GR_OK);
    assert_int_equal(gr_dict_set_text(d, "a", "1"), GR_OK);
    assert_int_equal(gr_dict_set_text(d, "b", ""), GR_OK);
    assert_int_equal(gr_dict_set_text(d, "a", "a longer text than before"), GR_OK);
    assert_int_equal(gr_dict_texts(d), 2);
    assert_string_equal(gr_dict_text_peek(d, 0, &key), "a longer text than before");
    assert_string_equal(key, "a");
    assert_string_equal(gr_dict_find_text_peek(d, "b"), "");
    assert_int_equal(gr_dict_set_text(d, "a", NULL), GR_OK);
    assert_null(gr_dict_find_text_peek(d, "a"));
    assert_int_equal(gr_dict_texts(d), 1);
    gr_release(d);
    nothing_left();
}

/* ---- round trips ------------------------------------------------------------------------------------------ */

static gr_tensor *some(gr_dtype dtype, int rank, const int64_t *dims, uint64_t seed) {
    gr_tensor *t;
    assert_int_equal(gr_tensor_empty(ctx, dtype, rank, dims, &t), GR_OK);
    uint8_t *p = gr_tensor_data_peek(t);
    for (size_t i = 0; i < (size_t)gr_tensor_numel(t) * gr_dtype_size(dtype); i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = (uint8_t)(seed >> 56); /* any bits: NaNs with payloads, subnormals, … */
    }
    return t;
}

static void same_bytes(const gr_tensor *a, const gr_tensor *b) {
    assert_int_equal(gr_tensor_dtype(a), gr_tensor_dtype(b));
    assert_int_equal(gr_tensor_rank(a), gr_tensor_rank(b));
    for (int i = 0; i < gr_tensor_rank(a); i++)
        assert_int_equal(gr_tensor_dims_peek(a)[i], gr_tensor_dims_peek(b)[i]);
    size_t bytes = (size_t)gr_tensor_numel(a) * gr_dtype_size(gr_tensor_dtype(a));
    if (bytes) assert_memory_equal(gr_tensor_data_peek(a), gr_tensor_data_peek(b), bytes);
}

static void every_dtype_and_shape_comes_back(void **state) {
    (void)state;
    static const struct { int rank; int64_t dims[8]; } shapes[] = {
        {0, {0}}, {1, {0}}, {1, {1}}, {1, {3}}, {2, {3, 5}}, {3, {2, 0, 7}}, {4, {2, 3, 4, 5}},
        {8, {1, 2, 1, 2, 1, 2, 1, 3}}, {1, {70001}},
    };
    gr_dict *d, *back;
    char name[64];
    assert_int_equal(gr_dict_new(ctx, &d), GR_OK);
    gr_dict_set_text(d, "format", "pt");
    gr_dict_set_text(d, "text", "tabs\t, \"quotes\", \\ and ünïcödé, € and 😀");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int t = GR_DTYPES - 1; t >= 0; t--) {
            snprintf(name, sizeof name, "größe %zu.%s", s, gr_dtype_name((gr_dtype)t));
            put(d, name, some((gr_dtype)t, shapes[s].rank, shapes[s].dims, s * 8 + (uint64_t)t));
        }
    const char *path = path_of("all.safetensors");
    assert_int_equal(gr_safetensors_write(d, path), GR_OK);
    back = reads(path);
    assert_int_equal(gr_dict_count(back), gr_dict_count(d));
    for (int i = 0; i < gr_dict_count(d); i++) {
        const char *a, *b;
        same_bytes(gr_dict_at_peek(d, i, &a), gr_dict_at_peek(back, i, &b));
        assert_string_equal(a, b);
    }
    assert_int_equal(gr_dict_texts(back), 2);
    assert_string_equal(gr_dict_find_text_peek(back, "text"), gr_dict_find_text_peek(d, "text"));
    gr_release(d);
    gr_release(back);
    nothing_left();
}

static void strided_tensors_are_written_row_major(void **state) {
    (void)state;
    static float values[120 * 130];
    for (int i = 0; i < 120 * 130; i++) values[i] = (float)i;
    gr_tensor *t, *expanded;
    gr_dict *d, *back;
    assert_int_equal(gr_dict_new(ctx, &d), GR_OK);
    gr_status s = gr_tensor_borrow(ctx, GR_F32, 2, (int64_t[]){130, 120}, (int64_t[]){1, 130}, values, NULL, NULL, &t);
    assert_int_equal(s, GR_OK);
    s = gr_tensor_borrow(ctx, GR_F32, 2, (int64_t[]){4, 3}, (int64_t[]){0, 2}, values, NULL, NULL, &expanded);
    assert_int_equal(s, GR_OK);
    put(d, "t", t);
    put(d, "expanded", expanded);
    const char *path = path_of("strided.safetensors");
    assert_int_equal(gr_safetensors_write(d, path), GR_OK);
    gr_release(d);
    back = reads(path);
    const float *p = gr_tensor_data_peek(gr_dict_find_peek(back, "t"));
    for (int i = 0; i < 130; i++)
        for (int k = 0; k < 120; k++) assert_true(p[i * 120 + k] == (float)(k * 130 + i));
    p = gr_tensor_data_peek(gr_dict_find_peek(back, "expanded"));
    for (int i = 0; i < 12; i++) assert_true(p[i] == (float)(i % 3 * 2));
    gr_release(back);
    nothing_left();
}

static void the_layout_is_the_formats(void **state) {
    (void)state;
    static char bytes[4096];
    gr_dict *d;
    assert_int_equal(gr_dict_new(ctx, &d), GR_OK);
    put(d, "bytes", some(GR_U8, 1, (int64_t[]){3}, 1));
    put(d, "wide", some(GR_F64, 1, (int64_t[]){1}, 2));
    put(d, "narrow", some(GR_F32, 0, NULL, 3));
    const char *path = path_of("layout.safetensors");
    assert_int_equal(gr_safetensors_write(d, path), GR_OK);
    gr_release(d);
    size_t n = slurp(path, bytes, sizeof bytes);
    uint64_t header;
    memcpy(&header, bytes, 8);
    assert_int_equal(header % 8, 0);
    assert_int_equal(n, 8 + header + 15);
    const char want[] = "{\"bytes\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[12,15]},"
                        "\"wide\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]},"
                        "\"narrow\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[8,12]}}";
    assert_memory_equal(bytes + 8, want, sizeof want - 1);
    nothing_left();
}

static void an_empty_dict_is_a_file(void **state) {
    (void)state;
    gr_dict *d;
    assert_int_equal(gr_dict_new(ctx, &d), GR_OK);
    const char *path = path_of("empty.safetensors");
    assert_int_equal(gr_safetensors_write(d, path), GR_OK);
    gr_release(d);
    d = reads(path);
    assert_int_equal(gr_dict_count(d), 0);
    gr_release(d);
    gr_release(reads(safetensors("{}", 0))); /* the smallest there is */
}

/* ---- other programs' dtypes --------------------------------------------------------------------------------- */

static void converts(const char *dtype, int n, const void *bytes, gr_dtype want, const double *values) {
    static char raw[1024];
    char header[256];
    size_t data = 0;
    for (const char *p = dtype; *p; p++) data = data * 10 + (*p >= '0' && *p <= '9' ? (size_t)(*p - '0') : 0);
    data = strcmp(dtype, "BOOL") == 0 ? (size_t)n : data / 8 * (size_t)n;
    uint64_t length = (uint64_t)snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"%s\",\"shape\":[%d],"
                                         "\"data_offsets\":[0,%zu]}}", dtype, n, data);
    memcpy(raw, &length, 8);
    memcpy(raw + 8, header, length);
    memcpy(raw + 8 + length, bytes, data);
    gr_dict *d = reads(file("c.safetensors", raw, 8 + length + data));
    gr_tensor *t = gr_dict_find_peek(d, "x");
    assert_int_equal(gr_tensor_dtype(t), want);
    for (int64_t i = 0; i < n; i++) {
        double v;
        assert_int_equal(gr_tensor_get(t, &i, &v), GR_OK);
        assert_true(isnan(values[i]) ? isnan(v) : v == values[i] && signbit(v) == signbit(values[i]));
    }
    gr_release(d);
}

static void other_dtypes_are_converted(void **state) {
    (void)state;
    converts("F16", 9, (uint16_t[]){0, 0x8000, 0x3c00, 0xc000, 0x7bff, 1, 0x03ff, 0xfc00, 0x7e01}, GR_F32,
             (double[]){0, -0.0, 1, -2, 65504, 0x1p-24, 1023 * 0x1p-24, -INFINITY, NAN});
    converts("BF16", 4, (uint16_t[]){0x3f80, 0xc040, 0x7f80, 0x7fc0}, GR_F32, (double[]){1, -3, INFINITY, NAN});
    converts("I8", 3, (int8_t[]){0, -128, 127}, GR_I64, (double[]){0, -128, 127});
    converts("I16", 3, (int16_t[]){0, -32768, 32767}, GR_I64, (double[]){0, -32768, 32767});
    converts("I32", 3, (int32_t[]){0, INT32_MIN, INT32_MAX}, GR_I64, (double[]){0, INT32_MIN, INT32_MAX});
    converts("U16", 2, (uint16_t[]){1, 65535}, GR_I64, (double[]){1, 65535});
    converts("U32", 2, (uint32_t[]){1, 4294967295u}, GR_I64, (double[]){1, 4294967295.0});
    converts("BOOL", 3, (uint8_t[]){0, 1, 1}, GR_U8, (double[]){0, 1, 1});
    nothing_left();
}

/* ---- hostile files ---------------------------------------------------------------------------------------- */

#define ONE(rest) "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]" rest "}}"
#define X(dtype, shape, offsets) \
    "{\"x\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void hostile_headers_are_refused(void **state) {
    (void)state;
    static const struct { const char *header; size_t data; const char *says; } bad[] = {
        {"", 0, "does not begin with {"},
        {" {}", 0, "does not begin with {"},
        {"[]", 0, "does not begin with {"},
        {"{\"x\":1", 0, "not JSON"},
        {"{} {}", 0, "not JSON"},
        {"{\"x\":\"\xff\"}", 0, "not JSON"},
        {"{\"\\u0000\":1}", 0, "not JSON"},
        {"{\"x\":99999999999999999999}", 0, "not JSON"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "duplicate"},
        {"{\"x\":1}", 0, "tensor \"x\": has no dtype"},
        {"{\"x\":{\"dtype\":\"F32\"}}", 0, "tensor \"x\": has no shape"},
        {X("F8_E4M3", "[1]", "[0,1]"), 1, "dtype \"F8_E4M3\", expected F64"},
        {X("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "9 dimensions, expected at most 8"},
        {X("F32", "[-1]", "[0,4]"), 4, "size 1 of its shape is no whole number"},
        {X("F32", "[1.0]", "[0,4]"), 4, "size 1 of its shape is no whole number"},
        {X("F32", "[\"1\"]", "[0,4]"), 4, "size 1 of its shape is no whole number"},
        {X("F32", "2", "[0,8]"), 8, "has no shape"},
        {X("F32", "[4611686018427387904,4]", "[0,8]"), 8, "more than memory can address"},
        {X("F32", "[0,4611686018427387904,4]", "[0,0]"), 0, "more than memory can address"},
        {X("U8", "[4294967296,4294967296]", "[0,0]"), 0, "more than memory can address"},
        {X("F32", "[2]", "[0]"), 8, "not two whole numbers"},
        {X("F32", "[2]", "[0,8,8]"), 8, "not two whole numbers"},
        {X("F32", "[2]", "[0,8.0]"), 8, "not two whole numbers"},
        {X("F32", "[2]", "null"), 8, "not two whole numbers"},
        {X("F32", "[2]", "[-8,0]"), 8, "lies at bytes -8 to 0 of 8"},
        {X("F32", "[2]", "[8,0]"), 8, "lies at bytes 8 to 0 of 8"},
        {X("F32", "[3]", "[0,12]"), 8, "lies at bytes 0 to 12 of 8"},
        {X("F32", "[2]", "[0,7]"), 8, "has 7 bytes, expected 8 for F32[2]"},
        {X("F32", "[]", "[0,8]"), 8, "has 8 bytes, expected 4 for F32[]"},
        {X("F32", "[0]", "[0,8]"), 8, "has 8 bytes, expected 0 for F32[0]"},
        {X("F32", "[1000000000000]", "[0,8]"), 8, "has 8 bytes, expected 4000000000000 for F32[1000000000000]"},
        {X("F32", "[1]", "[4,8]"), 8, "begins at byte 4, expected 0"},
        {X("F32", "[1]", "[0,4]"), 8, "8 bytes behind the header, of which its tensors cover 4"},
        {"{}", 1, "1 bytes behind the header, of which its tensors cover 0"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]},"
         "\"y\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, "\"y\" begins at byte 4, expected 5"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not a JSON object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__: \"a\" is not a string"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuses(safetensors(bad[i].header, bad[i].data), GR_ERR_FORMAT, bad[i].says);
    gr_release(reads(safetensors(ONE(",\"more\":[{}]"), 8))); /* as the reference implementation has it */
    gr_release(reads(safetensors(ONE("") "    ", 8)));
    nothing_left();
}

static void deep_json_is_refused(void **state) {
    (void)state;
    static char header[60001];
    memset(header, '[', 60000);
    memcpy(header, "{\"x\":", 5);
    refuses(safetensors(header, 0), GR_ERR_FORMAT, "not JSON");
}

static void wrong_lengths_are_refused(void **state) {
    (void)state;
    static const struct { uint64_t n; const char *says; } bad[] = {
        {3, "announces a header of 3 bytes, expected at most 2"},
        {UINT64_MAX, "announces a header of 18446744073709551615 bytes"},
        {(uint64_t)1 << 63, "announces a header of 9223372036854775808 bytes"},
    };
    char bytes[10] = "xxxxxxxx{}";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(bytes, &bad[i].n, 8);
        refuses(file("n", bytes, sizeof bytes), GR_ERR_FORMAT, bad[i].says);
    }
    refuses(file("n", bytes, 7), GR_ERR_FORMAT, "7 bytes, expected 10 at least");
    refuses(file("n", bytes, 0), GR_ERR_FORMAT, "0 bytes");
    char *large = calloc(1, 100000100);
    assert_non_null(large);
    memcpy(large, &(uint64_t){100000001}, 8);
    refuses(file("large", large, 100000100), GR_ERR_FORMAT, "expected at most 100000000");
    free(large);
    unlink(path_of("large"));
}

static void what_is_no_file_is_refused(void **state) {
    (void)state;
    refuses(path_of("missing"), GR_ERR_IO, "No such file");
    refuses(folder, GR_ERR_IO, "is a directory");
    assert_int_equal(mkfifo(path_of("pipe"), 0600), 0);
    refuses(path_of("pipe"), GR_ERR_IO, "no regular file");
    refuses("/dev/zero", GR_ERR_IO, "no regular file");
}

/* A header may announce a tensor of any size: no memory is asked for before the file has shown to hold it. */
static void *watching_alloc(void *ud, void *p, size_t osize, size_t nsize) {
    size_t *most = ud;
    (void)osize;
    if (nsize > *most) *most = nsize;
    if (nsize) return realloc(p, nsize);
    free(p);
    return NULL;
}

static void announced_sizes_are_not_believed(void **state) {
    (void)state;
    static const char *const headers[] = {
        X("F32", "[1000000000000]", "[0,4000000000000]"), X("F32", "[1000000000000]", "[0,8]"),
        X("F32", "[0,1000000000000]", "[0,0]"), X("U8", "[100000000]", "[0,100000000]")};
    size_t most = 0;
    gr_config cfg;
    gr_ctx *other;
    gr_config_init(&cfg);
    cfg.alloc = watching_alloc;
    cfg.alloc_ud = &most;
    assert_int_equal(gr_ctx_new(&cfg, &other), GR_OK);
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        gr_dict *d = NULL;
        gr_safetensors_read(other, safetensors(headers[i], i == 2 ? 0 : 8), &d);
        gr_release(d);
        gr_clear_error(other);
    }
    assert_true(most < 200000);
    assert_int_equal(gr_ctx_free(other), 0);
}

/* ---- saves that fail -------------------------------------------------------------------------------------- */

static gr_dict *large_dict(void) {
    gr_dict *d;
    assert_int_equal(gr_dict_new(ctx, &d), GR_OK);
    put(d, "x", some(GR_F32, 1, (int64_t[]){1 << 20}, 9));
    return d;
}

static void cannot_write(const gr_dict *d, const char *path, gr_status want, const char *says) {
    gr_status got = gr_safetensors_write(d, path);
    if (got != want || !strstr(gr_errmsg(ctx), says) || !strstr(gr_errmsg(ctx), path))
        fail_msg("status %d, '%s'; expected status %d and '%s'", got, gr_errmsg(ctx), want, says);
    gr_clear_error(ctx);
}

static int names_in_folder(void) {
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* The disk is full: here, the process may not write longer files. */
static void a_failed_save_leaves_the_earlier_file(void **state) {
    (void)state;
    static char before[4096], after[4096];
    gr_dict *d = large_dict(), *small;
    assert_int_equal(gr_dict_new(ctx, &small), GR_OK);
    put(small, "x", number(7));
    const char *path = path_of("keep.safetensors");
    assert_int_equal(gr_safetensors_write(small, path), GR_OK);
    int names = names_in_folder();
    size_t n = slurp(path, before, sizeof before);
    struct rlimit was, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t most = 0; most < 3 << 20; most = most * 2 + 1) {
        low = (struct rlimit){most, was.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        cannot_write(d, path, GR_ERR_IO, "writing failed: File too large");
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(slurp(path, after, sizeof after), n);
        assert_memory_equal(before, after, n);
        assert_int_equal(names_in_folder(), names);
    }
    signal(SIGXFSZ, SIG_DFL);
    gr_interrupt(ctx);
    cannot_write(d, path, GR_ERR_INTERRUPT, "");
    gr_clear_interrupt(ctx);
    assert_int_equal(slurp(path, after, sizeof after), n);
    assert_int_equal(names_in_folder(), names);
    assert_int_equal(gr_safetensors_write(d, path), GR_OK);
    gr_release(small);
    gr_release(d);
}

static void places_that_cannot_be_written_are_refused(void **state) {
    (void)state;
    gr_dict *d = large_dict();
    char long_name[300];
    memset(long_name, 'x', sizeof long_name);
    long_name[299] = 0;
    file("plain", "x", 1);
    cannot_write(d, path_of("no/such/folder"), GR_ERR_IO, "folder cannot be opened: No such file");
    cannot_write(d, path_of("plain/x"), GR_ERR_IO, "Not a directory");
    cannot_write(d, folder, GR_ERR_IO, "is a directory");
    cannot_write(d, path_of(""), GR_ERR_IO, "");
    cannot_write(d, "", GR_ERR_IO, "expected 1 to");
    cannot_write(d, "/dev/full", GR_ERR_IO, "no regular file");
    cannot_write(d, path_of(long_name), GR_ERR_IO, "");
    if (geteuid() != 0) { /* root may write anywhere */
        assert_int_equal(chmod(path_of("plain"), 0400), 0);
        cannot_write(d, path_of("plain"), GR_ERR_IO, "cannot be written over: Permission denied");
    }
    gr_release(d);
}

static void names_must_be_text(void **state) {
    (void)state;
    gr_dict *d = large_dict();
    put(d, "\xff", number(1));
    cannot_write(d, path_of("u"), GR_ERR_ARG, "is not UTF-8");
    gr_dict_set(d, "\xff", NULL);
    put(d, "__metadata__", number(1));
    cannot_write(d, path_of("u"), GR_ERR_ARG, "cannot be called __metadata__");
    gr_dict_set(d, "__metadata__", NULL);
    gr_dict_set_text(d, "a", "\xc3");
    cannot_write(d, path_of("u"), GR_ERR_ARG, "is not UTF-8");
    gr_release(d);
    assert_int_equal(access(path_of("u"), F_OK), -1);
}

static void a_killed_save_is_written_over(void **state) {
    (void)state;
    gr_dict *d = large_dict(), *back;
    const char *path = path_of("killed.safetensors");
    file("killed.safetensors.saving", "half", 4); /* what kill -9 leaves */
    assert_int_equal(gr_safetensors_write(d, path), GR_OK);
    assert_int_equal(access(path_of("killed.safetensors.saving"), F_OK), -1);
    back = reads(path);
    same_bytes(gr_dict_find_peek(d, "x"), gr_dict_find_peek(back, "x"));
    gr_release(d);
    gr_release(back);
}

static void two_savers_do_not_mix(void **state) {
    (void)state;
    gr_dict *d = large_dict();
    int fd = open(file("two.saving", "", 0), O_WRONLY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    cannot_write(d, path_of("two"), GR_ERR_IO, "another save to it is under way (two.saving is locked)");
    assert_int_equal(access(path_of("two.saving"), F_OK), 0);
    close(fd);
    assert_int_equal(gr_safetensors_write(d, path_of("two")), GR_OK);
    assert_int_equal(symlink("/etc/hostname", path_of("three.saving")), 0);
    cannot_write(d, path_of("three"), GR_ERR_IO, "three.saving beside it cannot be written: Too many levels");
    gr_release(d);
}

static void links_are_followed_and_permissions_kept(void **state) {
    (void)state;
    struct stat info;
    gr_dict *d = large_dict();
    file("real", "x", 1);
    assert_int_equal(chmod(path_of("real"), 0640), 0);
    assert_int_equal(symlink("real", path_of("link")), 0);
    assert_int_equal(gr_safetensors_write(d, path_of("link")), GR_OK);
    assert_int_equal(lstat(path_of("link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(lstat(path_of("real"), &info), 0);
    assert_true(S_ISREG(info.st_mode) && (info.st_mode & 0777) == 0640 && info.st_size > 4 << 20);
    gr_release(d);
}

static void links_are_followed_to_where_nothing_is_yet(void **state) {
    (void)state;
    struct stat info;
    gr_dict *d = large_dict();
    assert_int_equal(mkdir(path_of("runs"), 0777), 0);
    assert_int_equal(symlink("runs/latest", path_of("first")), 0);
    assert_int_equal(symlink("../fourth", path_of("runs/latest")), 0);
    assert_int_equal(gr_safetensors_write(d, path_of("first")), GR_OK);
    assert_int_equal(lstat(path_of("first"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(lstat(path_of("runs/latest"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(lstat(path_of("fourth"), &info), 0);
    assert_true(S_ISREG(info.st_mode));
    assert_int_equal(symlink("circle", path_of("circle")), 0);
    cannot_write(d, path_of("circle"), GR_ERR_IO, "Too many levels of symbolic links");
    assert_int_equal(symlink("nowhere/file", path_of("lost")), 0);
    cannot_write(d, path_of("lost"), GR_ERR_IO, "its folder cannot be opened");
    assert_int_equal(unlink(path_of("runs/latest")), 0);
    assert_int_equal(rmdir(path_of("runs")), 0);
    gr_release(d);
}

/* ---- lack of memory --------------------------------------------------------------------------------------- */

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

static gr_status round_trip(gr_ctx *c, const char *path) {
    gr_dict *d = NULL, *back = NULL;
    gr_tensor *t = NULL;
    gr_status s = gr_dict_new(c, &d);
    if (s == GR_OK) s = gr_tensor_new(c, GR_F32, 2, (int64_t[]){3, 4}, &t);
    if (s == GR_OK) s = gr_dict_set(d, "a", t);
    if (s == GR_OK) s = gr_dict_set(d, "b", t);
    if (s == GR_OK) s = gr_dict_set_text(d, "k", "v");
    if (s == GR_OK) s = gr_safetensors_write(d, path);
    if (s == GR_OK) s = gr_safetensors_read(c, path, &back);
    if (s == GR_OK) assert_int_equal(gr_dict_count(back), 2);
    gr_release(d);
    gr_release(t);
    gr_release(back);
    return s;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    failing f;
    gr_config cfg;
    gr_config_init(&cfg);
    cfg.alloc = failing_alloc;
    cfg.alloc_ud = &f;
    for (int64_t n = 0;; n++) {
        gr_ctx *small;
        f.left = 1;
        assert_int_equal(gr_ctx_new(&cfg, &small), GR_OK);
        f.left = n;
        gr_status s = round_trip(small, path_of("memory"));
        assert_true(s == GR_OK || (s == GR_ERR_MEMORY && strstr(gr_errmsg(small), "memory")));
        assert_int_equal(access(path_of("memory.saving"), F_OK), -1);
        assert_int_equal(gr_ctx_free(small), 0);
        if (s == GR_OK) break;
    }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* jansson's allocations are the C library's. No token of round_trip's header is longer than 15 bytes: the lexer's
 * buffer need not grow, whose failure jansson does not survive (safetensors.c says what is done about it). */
static int64_t malloc_left = -1; /* -1: all succeed */
void *__libc_malloc(size_t n);
__attribute__((visibility("default"))) void *malloc(size_t n) {
    if (malloc_left == 0) {
        errno = ENOMEM;
        return NULL;
    }
    if (malloc_left > 0) malloc_left--;
    return __libc_malloc(n);
}

static void every_malloc_of_jansson_may_fail(void **state) {
    (void)state;
    const char *path = path_of("malloc");
    assert_int_equal(round_trip(ctx, path), GR_OK); /* the context's own pools are warm now */
    int64_t n = 0;
    for (gr_status s = GR_ERR_MEMORY; s != GR_OK; n++) {
        malloc_left = n;
        s = round_trip(ctx, path);
        malloc_left = -1;
        if (s != GR_OK && s != GR_ERR_MEMORY) fail_msg("malloc %d: %s", (int)n, gr_errmsg(ctx));
        gr_clear_error(ctx);
    }
    assert_true(n > 50);
    nothing_left();
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dict_keeps_order),
        cmocka_unit_test(dict_keeps_texts),
        cmocka_unit_test(every_dtype_and_shape_comes_back),
        cmocka_unit_test(strided_tensors_are_written_row_major),
        cmocka_unit_test(the_layout_is_the_formats),
        cmocka_unit_test(an_empty_dict_is_a_file),
        cmocka_unit_test(other_dtypes_are_converted),
        cmocka_unit_test(hostile_headers_are_refused),
        cmocka_unit_test(deep_json_is_refused),
        cmocka_unit_test(wrong_lengths_are_refused),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(announced_sizes_are_not_believed),
        cmocka_unit_test(a_failed_save_leaves_the_earlier_file),
        cmocka_unit_test(places_that_cannot_be_written_are_refused),
        cmocka_unit_test(names_must_be_text),
        cmocka_unit_test(a_killed_save_is_written_over),
        cmocka_unit_test(two_savers_do_not_mix),
        cmocka_unit_test(links_are_followed_and_permissions_kept),
        cmocka_unit_test(links_are_followed_to_where_nothing_is_yet),
        cmocka_unit_test(every_allocation_may_fail),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(every_malloc_of_jansson_may_fail),
#endif
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
