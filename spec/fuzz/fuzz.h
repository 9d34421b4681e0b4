/* A fuzzer for file readers: changes the files of a corpus at random and reads what comes out.
 *
 *     NAME_fuzz [seconds] [seed]    run from the top of the tree, built with
 *                                   SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
 *
 * The same seed gives the same inputs in the same order. After every input no object and no byte may be
 * alive. On a finding the process ends by signal and the input stays in the file named at the start. */
#ifndef GR_FUZZ_H
#define GR_FUZZ_H

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "gradrun.h"

typedef gr_status (*fuzz_reader)(gr_ctx *ctx, const char *path, gr_tensor **out);

#define FUZZ_MAX 8192 /* bytes of an input */

typedef struct fuzz_input {
    size_t n;
    uint8_t byte[FUZZ_MAX];
} fuzz_input;

typedef struct fuzz_state {
    uint64_t random;
    int files;
    fuzz_input *corpus;
    const char *words; /* bytes that matter to the format */
} fuzz_state;

#define FUZZ_CHECK(what)                                                        \
    do {                                                                        \
        if (!(what)) {                                                          \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            abort();                                                            \
        }                                                                       \
    } while (0)

static uint64_t fuzz_below(fuzz_state *f, uint64_t n) { /* xorshift64* */
    f->random ^= f->random >> 12, f->random ^= f->random << 25, f->random ^= f->random >> 27;
    return (f->random * 2685821657736338717u >> 32) % n;
}

static void fuzz_load(fuzz_state *f, const char *pattern) {
    glob_t g;
    FUZZ_CHECK(glob(pattern, 0, NULL, &g) == 0);
    f->files = (int)g.gl_pathc;
    f->corpus = calloc(g.gl_pathc, sizeof *f->corpus);
    for (int i = 0; i < f->files; i++) {
        FILE *file = fopen(g.gl_pathv[i], "rb");
        FUZZ_CHECK(file);
        f->corpus[i].n = fread(f->corpus[i].byte, 1, FUZZ_MAX, file);
        fclose(file);
    }
    globfree(&g);
}

/* Replaces `cut` bytes at `at` by n others; what does not fit is dropped. */
static void fuzz_splice(fuzz_input *x, size_t at, size_t cut, const uint8_t *with, size_t n) {
    uint8_t tail[FUZZ_MAX];
    size_t rest = x->n - at - cut;
    if (at + n > FUZZ_MAX) n = FUZZ_MAX - at;
    if (at + n + rest > FUZZ_MAX) rest = FUZZ_MAX - at - n;
    memcpy(tail, x->byte + at + cut, rest);
    if (n) memcpy(x->byte + at, with, n);
    memcpy(x->byte + at + n, tail, rest);
    x->n = at + n + rest;
}

static void fuzz_mutate(fuzz_state *f, fuzz_input *x) {
    static const uint8_t edge[] = {0, 1, 0x7f, 0x80, 0xff};
    size_t at = fuzz_below(f, x->n + 1), left = x->n - at, cut = left ? fuzz_below(f, left + 1) : 0;
    uint8_t some[8];
    for (int i = 0; i < 8; i++) some[i] = (uint8_t)fuzz_below(f, 256);
    switch (fuzz_below(f, 8)) {
    case 0: /* one bit */
        if (left) x->byte[at] ^= (uint8_t)(1u << fuzz_below(f, 8));
        break;
    case 1: /* one byte to the edge of its range */
        if (left) x->byte[at] = edge[fuzz_below(f, sizeof edge)];
        break;
    case 2: fuzz_splice(x, at, 0, some, 1 + fuzz_below(f, 8)); break;                /* some more */
    case 3: fuzz_splice(x, at, cut > 8 ? 8 : cut, NULL, 0); break;                   /* some fewer */
    case 4: x->n = at; break;                                                        /* the end */
    case 5: fuzz_splice(x, at, left ? 1 : 0, (const uint8_t *)f->words + fuzz_below(f, strlen(f->words)), 1); break;
    case 6: { /* a part of its own once more */
        fuzz_input copy = *x;
        fuzz_splice(x, fuzz_below(f, x->n + 1), 0, copy.byte + at, cut);
        break;
    }
    default: { /* the end of another file */
        const fuzz_input *other = &f->corpus[fuzz_below(f, (uint64_t)f->files)];
        size_t from = fuzz_below(f, other->n + 1);
        fuzz_splice(x, at, left, other->byte + from, other->n - from);
    }
    }
}

/* Writes x, gzipped now and then, and sometimes damaged once more after that. */
static void fuzz_write(fuzz_state *f, const fuzz_input *x, const char *path) {
    bool zipped = fuzz_below(f, 3) == 0;
    gzFile file = gzopen(path, zipped ? "wb1" : "wbT");
    FUZZ_CHECK(file && gzwrite(file, x->byte, (unsigned)x->n) == (int)x->n && gzclose(file) == Z_OK);
    if (!zipped || fuzz_below(f, 2)) return;
    fuzz_input packed;
    FILE *raw = fopen(path, "rb");
    packed.n = fread(packed.byte, 1, FUZZ_MAX, raw);
    fclose(raw);
    fuzz_mutate(f, &packed);
    raw = fopen(path, "wb");
    FUZZ_CHECK(fwrite(packed.byte, 1, packed.n, raw) == packed.n);
    fclose(raw);
}

static bool fuzz_read(gr_ctx *ctx, fuzz_reader read, const char *path) {
    gr_tensor *t = NULL;
    gr_memory m;
    gr_status s = read(ctx, path, &t);
    FUZZ_CHECK((s == GR_OK) == (t != NULL));
    if (t) {
        int64_t n = 1;
        volatile uint8_t sum = 0;
        for (int i = 0; i < gr_tensor_rank(t); i++) n *= gr_tensor_dims_peek(t)[i];
        FUZZ_CHECK(n == gr_tensor_numel(t));
        const uint8_t *p = gr_tensor_data_peek(t);
        for (size_t i = 0; i < (size_t)n * gr_dtype_size(gr_tensor_dtype(t)); i++) sum += p[i];
    } else {
        FUZZ_CHECK(s == GR_ERR_FORMAT || s == GR_ERR_IO || s == GR_ERR_MEMORY);
        FUZZ_CHECK(strncmp(gr_errmsg(ctx), path, strlen(path)) == 0 || s == GR_ERR_MEMORY);
    }
    gr_release(t);
    gr_clear_error(ctx);
    gr_memory_get(ctx, &m);
    FUZZ_CHECK(m.live == 0 && m.tensors == 0 && m.storages == 0);
    return s == GR_OK;
}

/* For readers of several tensors: looks at all that was read, and hands on the first. */
static inline gr_status fuzz_dict(gr_ctx *ctx, const char *path,
                                  gr_status (*read)(gr_ctx *, const char *, gr_dict **), gr_tensor **out) {
    gr_dict *d = NULL;
    const char *name;
    volatile uint8_t sum = 0;
    gr_status s = read(ctx, path, &d);
    FUZZ_CHECK((s == GR_OK) == (d != NULL));
    if (s != GR_OK) return s;
    for (int i = 0; i < gr_dict_count(d); i++) {
        gr_tensor *t = gr_dict_at_peek(d, i, &name);
        const uint8_t *p = gr_tensor_data_peek(t);
        size_t n = (size_t)gr_tensor_numel(t) * gr_dtype_size(gr_tensor_dtype(t));
        FUZZ_CHECK(gr_dict_find_peek(d, name) == t);
        for (size_t k = 0; k < n; k++) sum += p[k];
    }
    for (int i = 0; i < gr_dict_texts(d); i++) {
        const char *text = gr_dict_text_peek(d, i, &name);
        FUZZ_CHECK(gr_dict_find_text_peek(d, name) == text && strlen(text) < FUZZ_MAX);
    }
    *out = gr_retain(gr_dict_at_peek(d, 0, NULL));
    gr_release(d);
    return *out ? GR_OK : gr_tensor_scalar(ctx, GR_U8, 0, out);
}

static int fuzz_main(int argc, char **argv, const char *pattern, const char *words, fuzz_reader read) {
    double seconds = argc > 1 ? atof(argv[1]) : 10;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    fuzz_state f = {.random = seed * 2 + 1, .words = words};
    /* in memory where that can be: some file systems write to the disk whatever is truncated and closed */
    char disk[] = "/tmp/gradrun-fuzz-XXXXXX", memory[] = "/dev/shm/gradrun-fuzz-XXXXXX";
    char *path = access("/dev/shm", W_OK) == 0 ? memory : disk;
    gr_ctx *ctx;
    gr_config cfg;
    gr_config_init(&cfg);
    cfg.hard_bytes = (size_t)64 << 20;
    FUZZ_CHECK(gr_ctx_new(&cfg, &ctx) == GR_OK);
    fuzz_load(&f, pattern);
    close(mkstemp(path));
    printf("%s: %d corpus files, seed %llu, input in %s\n", argv[0], f.files, (unsigned long long)seed, path);
    fflush(stdout);
    int64_t inputs = 0, accepted = 0;
    for (time_t end = time(NULL) + (time_t)seconds; time(NULL) < end; inputs++) {
        fuzz_input x = f.corpus[fuzz_below(&f, (uint64_t)f.files)];
        for (uint64_t n = fuzz_below(&f, 6); n > 0; n--) fuzz_mutate(&f, &x);
        fuzz_write(&f, &x, path);
        accepted += fuzz_read(ctx, read, path);
    }
    printf("%s: %lld inputs, %lld of them accepted, nothing found\n", argv[0], (long long)inputs,
           (long long)accepted);
    unlink(path);
    free(f.corpus);
    return gr_ctx_free(ctx) == 0 ? 0 : 1;
}

#endif
