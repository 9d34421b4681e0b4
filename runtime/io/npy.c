/* npy: one array of NumPy (NEP 1; numpy.lib.format).
 *
 *     "\x93NUMPY"   6 bytes
 *     major, minor  1.0; 2.0 and 3.0 differ in the size of what follows
 *     n             little-endian, 16 bits (1.0) or 32
 *     n bytes       a Python dict: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
 *     elements      row-major, or, with fortran_order, column-major
 *
 * Written is 1.0, the header padded so that elements begin at a multiple of 64. Read are floats of 2, 4 and 8 bytes,
 * whole numbers of 1 to 8, and bool (as u8), in either byte order; not text, dates, records, complex or Python
 * objects. Nothing is believed before the file has shown that it can hold it. */
#include "io/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gather.h"
#include "io/elements.h"
#include "io/replace.h"
#include "io/stream.h"

#define NPY_CHUNK (32 * 1024) /* bytes converted at a time; a multiple of every element size */
#define NPY_HEADER 4096       /* bytes of the dict; numpy itself refuses more than 10,000 */
#define NPY_UNPACKS 1032      /* deflate cannot pack better than 1032 : 1 */

static const char npy_magic[6] = "\x93NUMPY";

/* ---- reading the header ---------------------------------------------------------------------------------- */

typedef struct npy_header {
    gri_element element;
    bool fortran, seen_type, seen_order, seen_shape;
    int rank;
    int64_t dims[GR_MAX_RANK], numel;
    char type[16]; /* as in the file, for messages */
} npy_header;

typedef struct npy_text { /* the dict, and how far it was read */
    gri_npy_source *s;
    const char *p;
} npy_text;

static gr_status npy_bad(const npy_text *x, const char *expected) {
    char shown[25];
    size_t n = strnlen(x->p, sizeof shown - 1);
    for (size_t i = 0; i < n; i++) shown[i] = x->p[i] >= ' ' && x->p[i] <= '~' ? x->p[i] : '?';
    shown[n] = 0;
    return gr_fail(x->s->ctx, GR_ERR_FORMAT, "%s: npy header: '%s', expected %s", x->s->path, shown, expected);
}

static void npy_blanks(npy_text *x) { x->p += strspn(x->p, " \n\t"); }

static gr_status npy_want(npy_text *x, char c) {
    npy_blanks(x);
    if (*x->p != c) return npy_bad(x, (char[]){'\'', c, '\'', 0});
    x->p++;
    npy_blanks(x);
    return GR_OK;
}

/* 'text' or "text" without escapes. */
static gr_status npy_string(npy_text *x, char *to, size_t size) {
    npy_blanks(x);
    char quote = *x->p;
    const char *end = quote == '\'' || quote == '"' ? strchr(x->p + 1, quote) : NULL;
    if (!end || (size_t)(end - x->p) > size) return npy_bad(x, "a short text in quotes");
    size_t n = (size_t)(end - x->p - 1);
    memcpy(to, x->p + 1, n);
    to[n] = 0;
    x->p = end + 1;
    return GR_OK;
}

static gr_status npy_type(npy_text *x, npy_header *h) {
    if (*x->p == '[') return npy_bad(x, "the type of a number; records are not read");
    GR_TRY(npy_string(x, h->type, sizeof h->type));
    const char *t = h->type;
    char kind = t[0] ? t[1] : 0;
    long size = kind ? strtol(t + 2, NULL, 10) : 0;
    bool ordered = t[0] == '<' || t[0] == '>' || (size == 1 && t[0] == '|');
    if (kind == 'b' && size == 1) kind = 'u';
    bool whole = (kind == 'i' || kind == 'u') && (size == 1 || size == 2 || size == 4 || size == 8);
    bool real = kind == 'f' && (size == 2 || size == 4 || size == 8);
    if (!ordered || !(whole || real))
        return gr_fail(x->s->ctx, GR_ERR_FORMAT,
                       "%s: npy elements of type '%s', expected numbers such as '<f4', '<f8', "
                       "'<i8', '|u1'",
                       x->s->path, t);
    h->element = (gri_element){kind, (uint8_t)size, t[0] == '>'};
    h->seen_type = true;
    return GR_OK;
}

static gr_status npy_order(npy_text *x, npy_header *h) {
    size_t n = strncmp(x->p, "True", 4) == 0 ? 4 : strncmp(x->p, "False", 5) == 0 ? 5 : 0;
    if (!n) return npy_bad(x, "True or False");
    h->fortran = n == 4;
    h->seen_order = true;
    x->p += n;
    return GR_OK;
}

/* (), (3,), (2, 3): a size of 0 counts as 1 in the product that must fit. */
static gr_status npy_shape(npy_text *x, npy_header *h) {
    int64_t cells = 8;
    h->numel = 1;
    GR_TRY(npy_want(x, '('));
    while (*x->p != ')') {
        char *end;
        if (*x->p < '0' || *x->p > '9') return npy_bad(x, "a size");
        long long d = strtoll(x->p, &end, 10);
        if (h->rank == GR_MAX_RANK) return npy_bad(x, "')' after 8 sizes");
        if (end - x->p > 18 || __builtin_mul_overflow(cells, d ? d : 1, &cells) || cells > INT64_MAX / 2)
            return npy_bad(x, "sizes that memory can address");
        h->dims[h->rank++] = d;
        h->numel *= d;
        x->p = end + (*end == 'L'); /* Python 2 */
        npy_blanks(x);
        if (*x->p == ',') GR_TRY(npy_want(x, ','));
        else if (*x->p != ')') return npy_bad(x, "',' or ')'");
    }
    h->seen_shape = true;
    return npy_want(x, ')');
}

static gr_status npy_dict(npy_text *x, npy_header *h) {
    GR_TRY(npy_want(x, '{'));
    while (*x->p != '}') {
        char key[16];
        GR_TRY(npy_string(x, key, sizeof key));
        GR_TRY(npy_want(x, ':'));
        if (strcmp(key, "descr") == 0 && !h->seen_type) GR_TRY(npy_type(x, h));
        else if (strcmp(key, "fortran_order") == 0 && !h->seen_order) GR_TRY(npy_order(x, h));
        else if (strcmp(key, "shape") == 0 && !h->seen_shape) GR_TRY(npy_shape(x, h));
        else return gr_fail(x->s->ctx, GR_ERR_FORMAT, "%s: npy header: a second or unknown '%s'", x->s->path, key);
        npy_blanks(x);
        if (*x->p == ',') GR_TRY(npy_want(x, ','));
        else if (*x->p != '}') return npy_bad(x, "',' or '}'");
    }
    if (!h->seen_type || !h->seen_order || !h->seen_shape)
        return gr_fail(x->s->ctx, GR_ERR_FORMAT, "%s: npy header without '%s'", x->s->path,
                       !h->seen_type ? "descr" : !h->seen_order ? "fortran_order" : "shape");
    return GR_OK;
}

/* Exactly size bytes. */
static gr_status npy_read(gri_npy_source *s, void *to, size_t size, const char *what) {
    size_t got;
    GR_TRY(s->read(s->from, to, size, &got));
    if (got == size) return GR_OK;
    return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: npy %s cut short: %zu bytes of %zu", s->path, what, got, size);
}

static gr_status npy_header_read(gri_npy_source *s, npy_header *h) {
    uint8_t start[12];
    char text[NPY_HEADER + 1];
    GR_TRY(npy_read(s, start, 10, "header"));
    if (memcmp(start, npy_magic, sizeof npy_magic) != 0)
        return gr_fail(s->ctx, GR_ERR_FORMAT,
                       "%s: not an npy file: it starts with %02x %02x %02x %02x, expected 93 4e 55 4d", s->path,
                       start[0], start[1], start[2], start[3]);
    if (start[6] < 1 || start[6] > 3)
        return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: npy version %d.%d, expected 1.0, 2.0 or 3.0", s->path, start[6],
                       start[7]);
    uint32_t n = (uint32_t)start[8] | (uint32_t)start[9] << 8;
    if (start[6] > 1) {
        GR_TRY(npy_read(s, start + 10, 2, "header"));
        n |= (uint32_t)start[10] << 16 | (uint32_t)start[11] << 24;
    }
    if (n > NPY_HEADER)
        return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: npy header of %u bytes, expected %d at most", s->path, n,
                       NPY_HEADER);
    GR_TRY(npy_read(s, text, n, "header"));
    text[n] = 0;
    *h = (npy_header){0};
    return npy_dict(&(npy_text){s, text}, h);
}

/* ---- reading the elements -------------------------------------------------------------------------------- */

static gr_status npy_elements(gri_npy_source *s, const npy_header *h, char *to) {
    uint8_t chunk[NPY_CHUNK];
    int64_t size = h->element.size, most = NPY_CHUNK / size, wide = (int64_t)gri_size(gri_element_dtype(h->element));
    for (int64_t done = 0; done < h->numel; done += most) {
        int64_t n = h->numel - done < most ? h->numel - done : most;
        GR_TRY(npy_read(s, chunk, (size_t)(n * size), "data"));
        if (!gri_elements_read(h->element, chunk, n, to + done * wide))
            return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: a number of type '%s' is too large for i64", s->path, h->type);
    }
    size_t more;
    GR_TRY(s->read(s->from, chunk, 1, &more));
    if (more)
        return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: bytes left over behind the %lld elements of '%s'", s->path,
                       (long long)h->numel, h->type);
    return GR_OK;
}

/* A column-major array is the transpose of what its bytes say row-major: seen the other way round, then copied. */
static gr_status npy_turn(gr_ctx *ctx, const npy_header *h, gr_tensor *columns, gr_tensor **out) {
    gr_tensor *view, *t;
    int64_t strides[GR_MAX_RANK], step = 1;
    for (int i = 0; i < h->rank; i++) {
        strides[i] = step;
        step *= h->dims[i];
    }
    GR_TRY(
        gr_tensor_borrow(ctx, gr_tensor_dtype(columns), h->rank, h->dims, strides, columns->data, NULL, NULL, &view));
    gr_status s = gr_tensor_empty(ctx, gr_tensor_dtype(columns), h->rank, h->dims, &t);
    if (s == GR_OK) {
        s = gr_tensor_copy(t, view);
        if (s == GR_OK) *out = t;
        else gr_release(t);
    }
    gr_release(view);
    return s;
}

gr_status gri_npy_parse(gri_npy_source *s, gr_tensor **out) {
    npy_header h;
    gr_tensor *t;
    GR_TRY(npy_header_read(s, &h));
    if (h.numel > s->most / h.element.size)
        return gr_fail(s->ctx, GR_ERR_FORMAT,
                       "%s: npy data cut short: %s of type '%s', but %lld bytes at most can follow", s->path,
                       gri_dims_text(h.rank, h.dims), h.type, (long long)s->most);
    GR_TRY(gr_tensor_empty(s->ctx, gri_element_dtype(h.element), h.rank, h.dims, &t));
    gr_status status = npy_elements(s, &h, t->data);
    if (status != GR_OK || !h.fortran || h.rank < 2) {
        if (status == GR_OK) *out = t;
        else gr_release(t);
        return status;
    }
    status = npy_turn(s->ctx, &h, t, out);
    gr_release(t);
    return status;
}

static gr_status npy_from_stream(void *from, void *buf, size_t size, size_t *got) {
    return gri_stream_read(from, buf, size, got);
}

gr_status gr_npy_read(gr_ctx *ctx, const char *path, gr_tensor **out) {
    gri_stream stream;
    GR_TRY(gri_stream_open(ctx, path, &stream));
    gri_npy_source s = {ctx, path, stream.size < INT64_MAX / NPY_UNPACKS ? stream.size * NPY_UNPACKS : INT64_MAX,
                        &stream, npy_from_stream};
    gr_status status =
        stream.size < 0 ? gr_fail(ctx, GR_ERR_IO, "%s: not a regular file", path) : gri_npy_parse(&s, out);
    gri_stream_close(&stream);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------- */

gr_status gri_npy_emit(const gri_npy_target *to, const gr_tensor *t) {
    static const char *const types[] = {"<f4", "<f8", "<i8", "|u1"};
    char text[512], chunk[NPY_CHUNK];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (", types[t->dtype]);
    for (int i = 0; i < t->rank; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, i + 1 < t->rank ? "%lld, " : t->rank == 1 ? "%lld," : "%lld",
                      (long long)t->dims[i]);
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    while ((10 + n + 1) % 64) text[n++] = ' ';
    text[n++] = '\n';
    GR_TRY(to->write(to->to, npy_magic, sizeof npy_magic));
    GR_TRY(to->write(to->to, (uint8_t[]){1, 0, (uint8_t)n, (uint8_t)(n >> 8)}, 4));
    GR_TRY(to->write(to->to, text, (size_t)n));
    gri_strided view = gri_strided_of(t);
    int64_t size = (int64_t)gri_size(view.dtype), most = NPY_CHUNK / size;
    for (int64_t done = 0; done < t->numel; done += most) {
        int64_t count = t->numel - done < most ? t->numel - done : most;
        gri_gather(&view, done, count, view.dtype, chunk);
        GR_TRY(to->write(to->to, chunk, (size_t)(count * size)));
    }
    return GR_OK;
}

static gr_status npy_to_file(void *to, const void *bytes, size_t n) { return gri_replace_write(to, bytes, n); }

gr_status gr_npy_write(const gr_tensor *t, const char *path) {
    gr_ctx *ctx = t->head.ctx;
    gri_replace file;
    GR_TRY(gri_replace_open(ctx, path, &file));
    gr_status s = gri_npy_emit(&(gri_npy_target){ctx, &file, npy_to_file}, t);
    if (s == GR_OK) return gri_replace_commit(&file);
    gri_replace_drop(&file);
    return s;
}
