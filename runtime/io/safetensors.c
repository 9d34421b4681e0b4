/* safetensors (Hugging Face, format 1): named tensors in one file that any language reads without running code.
 *
 *     8 bytes    n, little-endian
 *     n bytes    a JSON object, padded with blanks to a multiple of 8:
 *                    "__metadata__": {"key": "text", ...}
 *                    "name": {"dtype": "F32", "shape": [2,3], "data_offsets": [0,24]}
 *     the rest   elements, row-major, little-endian; the offsets count from here, and cover each byte once
 *
 * Written are F32, F64, I64 and U8, the widest elements first, so that each lies at a multiple of its size. Read are
 * these and BOOL (as u8) as they are, F16 and BF16 as f32, I8, I16, U16, I32 and U32 as i64. Every number in the
 * header is checked against the file's size before memory is taken for a tensor: at most eight times that size, for
 * I8 as i64. The header's JSON is jansson's, which takes up to some 45 bytes for each of the header's from malloc;
 * SAFETENSORS_HEADER_MOST bounds it, as in the reference implementation. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dict.h"
#include "gather.h"
#include "io/elements.h"
#include "io/replace.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elements are written as they lie in memory");

#define SAFETENSORS_HEADER_MOST 100000000
#define SAFETENSORS_PIECE ((size_t)1 << 20) /* read at a time */
#define SAFETENSORS_CHUNK (16 * 1024)       /* bytes converted at a time; a multiple of every element size */
#define SAFETENSORS_METADATA "__metadata__"

typedef struct safetensors_type {
    const char *name;
    gri_element element;
} safetensors_type;

static const safetensors_type safetensors_types[] = {
    {"F32", {'f', 4, false}}, {"F64", {'f', 8, false}},  {"I64", {'i', 8, false}}, {"U8", {'u', 1, false}},
    {"BOOL", {'u', 1, false}}, {"F16", {'f', 2, false}}, {"BF16", {'b', 2, false}}, {"I8", {'i', 1, false}},
    {"I16", {'i', 2, false}}, {"U16", {'u', 2, false}},  {"I32", {'i', 4, false}}, {"U32", {'u', 4, false}},
};
enum { SAFETENSORS_TYPES = sizeof safetensors_types / sizeof *safetensors_types };

static gr_status safetensors_no_memory(gr_ctx *ctx, const char *path) {
    return gr_fail(ctx, GR_ERR_MEMORY, "%s: out of memory for its header", path);
}

/* ---- reading: the header --------------------------------------------------------------------------------- */

typedef struct safetensors_entry {
    const char *name; /* in the JSON */
    const safetensors_type *type;
    gri_spec spec;
    int64_t begin, end; /* in the data */
} safetensors_entry;

typedef struct safetensors_reader {
    gr_ctx *ctx;
    const char *path;
    int fd;
    int64_t size, data; /* of the file; where the elements begin */
    json_t *root;
    safetensors_entry *entries;
    int n, cap;
} safetensors_reader;

static gr_status safetensors_read_at(safetensors_reader *r, void *to, int64_t n, int64_t at) {
    char *p = to;
    while (n > 0) {
        GR_TRY(gri_poll(r->ctx));
        ssize_t got = pread(r->fd, p, (size_t)n < SAFETENSORS_PIECE ? (size_t)n : SAFETENSORS_PIECE, at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return gr_fail(r->ctx, GR_ERR_IO, "%s: %s", r->path, strerror(errno));
        if (got == 0)
            return gr_fail(r->ctx, GR_ERR_IO, "%s: became shorter while it was read: %lld bytes, it had %lld",
                           r->path, (long long)at, (long long)r->size);
        p += got;
        at += got;
        n -= got;
    }
    return GR_OK;
}

static gr_status safetensors_open(safetensors_reader *r) {
    struct stat info;
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (r->fd < 0 || fstat(r->fd, &info) != 0)
        return gr_fail(r->ctx, GR_ERR_IO, "%s: %s", r->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return gr_fail(r->ctx, GR_ERR_IO, "%s: is %s, expected a file", r->path,
                       S_ISDIR(info.st_mode) ? "a directory" : "no regular file");
    r->size = info.st_size;
    return GR_OK;
}

/* jansson's lexer goes on with what it has where its buffer for a long token cannot grow (2.14: lex_save drops
 * strbuffer_append_byte's result), and then reads beyond it. So memory for the longest there can be, the buffer's
 * old and new half and the copy, is shown to be there first. */
static bool safetensors_room(int64_t n) {
    void *p = malloc(4 * (size_t)n + 64);
    free(p);
    return p != NULL;
}

static gr_status safetensors_parse(safetensors_reader *r, const char *text, int64_t n) {
    json_error_t e;
    if (!safetensors_room(n)) return safetensors_no_memory(r->ctx, r->path);
    errno = 0;
    r->root = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &e);
    if (!r->root && (errno == ENOMEM || !*e.text)) return safetensors_no_memory(r->ctx, r->path);
    if (!r->root)
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: its header is not JSON: %s (byte %d of %lld)", r->path, e.text,
                       e.position, (long long)n);
    if (!json_is_object(r->root))
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: its header is not a JSON object", r->path);
    return GR_OK;
}

static gr_status safetensors_header(safetensors_reader *r) {
    uint64_t n;
    size_t capacity;
    if (r->size < 8)
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: not a safetensors file: %lld bytes, expected 10 at least", r->path,
                       (long long)r->size);
    GR_TRY(safetensors_read_at(r, &n, sizeof n, 0));
    int64_t most = r->size - 8 < SAFETENSORS_HEADER_MOST ? r->size - 8 : SAFETENSORS_HEADER_MOST;
    if (n > (uint64_t)most && memcmp(&n, "PK\3\4", 4) == 0)
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: not a safetensors file but a zip archive, as torch.save writes; "
                       "safetensors.torch.save_file(model.state_dict(), path) writes what is read here", r->path);
    if (n > (uint64_t)most)
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: not a safetensors file: it announces a header of %llu bytes, "
                       "expected at most %lld", r->path, (unsigned long long)n, (long long)most);
    r->data = 8 + (int64_t)n;
    char *text = gri_block_new(r->ctx, n, &capacity);
    if (!text) return safetensors_no_memory(r->ctx, r->path);
    gr_status s = safetensors_read_at(r, text, (int64_t)n, 8);
    if (s == GR_OK && (n == 0 || *text != '{'))
        s = gr_fail(r->ctx, GR_ERR_FORMAT, "%s: not a safetensors file: its header does not begin with {", r->path);
    if (s == GR_OK) s = safetensors_parse(r, text, (int64_t)n);
    gri_block_delete(r->ctx, text, capacity);
    return s;
}

/* ---- reading: what the header says of a tensor -------------------------------------------------------------
 * Messages begin behind "path: tensor "name": ". */

static gr_status safetensors_dtype(gr_ctx *ctx, safetensors_entry *e, const json_t *value) {
    const char *name = json_string_value(value);
    if (!name) return gr_fail(ctx, GR_ERR_FORMAT, "has no dtype");
    for (int i = 0; i < SAFETENSORS_TYPES; i++)
        if (strcmp(safetensors_types[i].name, name) == 0) e->type = &safetensors_types[i];
    if (!e->type)
        return gr_fail(ctx, GR_ERR_FORMAT, "dtype \"%.40s\", expected F64, F32, F16, BF16, I64, I32, I16, I8, U32, "
                       "U16, U8 or BOOL", name);
    e->spec.dtype = gri_element_dtype(e->type->element);
    return GR_OK;
}

static gr_status safetensors_shape(gr_ctx *ctx, safetensors_entry *e, const json_t *shape) {
    int64_t cells = (int64_t)gri_size(e->spec.dtype);
    if (!json_is_array(shape)) return gr_fail(ctx, GR_ERR_FORMAT, "has no shape");
    if (json_array_size(shape) > GR_MAX_RANK)
        return gr_fail(ctx, GR_ERR_FORMAT, "%zu dimensions, expected at most %d", json_array_size(shape),
                       GR_MAX_RANK);
    e->spec.rank = (int)json_array_size(shape);
    for (int i = 0; i < e->spec.rank; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        int64_t d = json_is_integer(dim) ? json_integer_value(dim) : -1;
        if (d < 0)
            return gr_fail(ctx, GR_ERR_FORMAT, "size %d of its shape is no whole number from 0 on",
                           i + ctx->index_base);
        e->spec.dims[i] = d;
        /* sizes of 0 count as 1 here: the product of some of the dims must fit, too */
        if (__builtin_mul_overflow(cells, d ? d : 1, &cells) || cells > INT64_MAX / 2)
            return gr_fail(ctx, GR_ERR_FORMAT, "shape %s is more than memory can address",
                           gri_dims_text(i + 1, e->spec.dims));
    }
    return GR_OK;
}

static gr_status safetensors_offsets(gr_ctx *ctx, safetensors_entry *e, const json_t *offsets, int64_t most) {
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    int64_t bytes = gri_product(e->spec.rank, e->spec.dims) * e->type->element.size;
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to))
        return gr_fail(ctx, GR_ERR_FORMAT, "its data_offsets are not two whole numbers");
    e->begin = json_integer_value(from);
    e->end = json_integer_value(to);
    if (e->begin < 0 || e->begin > e->end || e->end > most)
        return gr_fail(ctx, GR_ERR_FORMAT, "lies at bytes %lld to %lld of %lld", (long long)e->begin,
                       (long long)e->end, (long long)most);
    if (e->end - e->begin != bytes)
        return gr_fail(ctx, GR_ERR_FORMAT, "has %lld bytes, expected %lld for %s%s", (long long)(e->end - e->begin),
                       (long long)bytes, e->type->name, gri_dims_text(e->spec.rank, e->spec.dims));
    return GR_OK;
}

static gr_status safetensors_metadata(safetensors_reader *r, json_t *metadata, gr_dict *d) {
    const char *key;
    json_t *text;
    if (!json_is_object(metadata))
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: " SAFETENSORS_METADATA " is not a JSON object", r->path);
    json_object_foreach(metadata, key, text) {
        if (!json_is_string(text))
            return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: " SAFETENSORS_METADATA ": \"%.100s\" is not a string",
                           r->path, key);
        GR_TRY(gr_dict_set_text(d, key, json_string_value(text)));
    }
    return GR_OK;
}

static gr_status safetensors_entries(safetensors_reader *r, gr_dict *d) {
    const char *key;
    json_t *value;
    json_object_foreach(r->root, key, value) {
        if (strcmp(key, SAFETENSORS_METADATA) == 0) {
            GR_TRY(safetensors_metadata(r, value, d));
            continue;
        }
        GR_TRY(gri_grow(r->ctx, &r->entries, &r->cap, r->n + 1, sizeof *r->entries));
        safetensors_entry *e = &r->entries[r->n];
        *e = (safetensors_entry){.name = key};
        gr_status s = safetensors_dtype(r->ctx, e, json_object_get(value, "dtype"));
        if (s == GR_OK) s = safetensors_shape(r->ctx, e, json_object_get(value, "shape"));
        if (s == GR_OK) s = safetensors_offsets(r->ctx, e, json_object_get(value, "data_offsets"), r->size - r->data);
        if (s != GR_OK) return gr_fail_within(r->ctx, "%s: tensor \"%.100s\"", r->path, key);
        r->n++;
    }
    return GR_OK;
}

static int safetensors_order(const void *a, const void *b) {
    const safetensors_entry *x = *(safetensors_entry *const *)a, *y = *(safetensors_entry *const *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* The tensors cover the data, each byte once. */
static gr_status safetensors_cover(safetensors_reader *r) {
    int64_t at = 0, most = r->size - r->data;
    gr_status s = GR_OK;
    size_t bytes = (size_t)(r->n + 1) * sizeof(safetensors_entry *);
    safetensors_entry **sorted = gri_new(r->ctx, bytes);
    if (!sorted) return GR_ERR_MEMORY;
    for (int i = 0; i < r->n; i++) sorted[i] = &r->entries[i];
    qsort(sorted, (size_t)r->n, sizeof *sorted, safetensors_order);
    for (int i = 0; i < r->n && s == GR_OK; i++) {
        const safetensors_entry *e = sorted[i];
        if (e->begin != at)
            s = gr_fail(r->ctx, GR_ERR_FORMAT, "%s: tensor \"%.100s\" begins at byte %lld, expected %lld", r->path,
                        e->name, (long long)e->begin, (long long)at);
        at = e->end;
    }
    if (s == GR_OK && at != most)
        s = gr_fail(r->ctx, GR_ERR_FORMAT, "%s: %lld bytes behind the header, of which its tensors cover %lld",
                    r->path, (long long)most, (long long)at);
    gri_delete(r->ctx, sorted, bytes);
    return s;
}

/* ---- reading: elements -------------------------------------------------------------------------------------- */

static gr_status safetensors_elements(safetensors_reader *r, const safetensors_entry *e, char *to) {
    uint8_t chunk[SAFETENSORS_CHUNK];
    gri_element type = e->type->element;
    int64_t size = (int64_t)gri_size(e->spec.dtype);
    if (type.size == size) return safetensors_read_at(r, to, e->end - e->begin, r->data + e->begin);
    for (int64_t at = e->begin, n; at < e->end; at += n) {
        n = e->end - at < SAFETENSORS_CHUNK ? e->end - at : SAFETENSORS_CHUNK;
        GR_TRY(safetensors_read_at(r, chunk, n, r->data + at));
        gri_elements_read(type, chunk, n / type.size, to);
        to += n / type.size * size;
    }
    return GR_OK;
}

static gr_status safetensors_tensors(safetensors_reader *r, gr_dict *d) {
    for (int i = 0; i < r->n; i++) {
        const safetensors_entry *e = &r->entries[i];
        gr_tensor *t;
        GR_TRY(gri_tensor_like_spec(r->ctx, &e->spec, &t));
        gr_status s = safetensors_elements(r, e, t->data);
        if (s == GR_OK) s = gr_dict_set(d, e->name, t);
        gr_release(t);
        GR_TRY(s);
    }
    return GR_OK;
}

gr_status gr_safetensors_read(gr_ctx *ctx, const char *path, gr_dict **out) {
    safetensors_reader r = {.ctx = ctx, .path = path, .fd = -1};
    gr_dict *d = NULL;
    gr_status s = safetensors_open(&r);
    if (s == GR_OK) s = safetensors_header(&r);
    if (s == GR_OK) s = gr_dict_new(ctx, &d);
    if (s == GR_OK) s = safetensors_entries(&r, d);
    if (s == GR_OK) s = safetensors_cover(&r);
    if (s == GR_OK) s = safetensors_tensors(&r, d);
    gri_array_free(ctx, r.entries, r.cap, sizeof *r.entries);
    json_decref(r.root);
    if (r.fd >= 0) close(r.fd);
    if (s == GR_OK) *out = d;
    else gr_release(d);
    return s;
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

static const char *const safetensors_written[] = {
    [GR_F32] = "F32", [GR_F64] = "F64", [GR_I64] = "I64", [GR_U8] = "U8"};

/* jansson refuses what is not UTF-8 and what it has no memory for with the same NULL. */
static gr_status safetensors_utf8(gr_ctx *ctx, const char *path, const char *what, const char *text) {
    json_t *checked = json_string(text), *any = checked ? NULL : json_string_nocheck(text);
    bool wrong = any != NULL, none = !checked && !any;
    json_decref(checked);
    json_decref(any);
    if (wrong) return gr_fail(ctx, GR_ERR_ARG, "%s: the %s \"%.80s\" is not UTF-8", path, what, text);
    return none ? safetensors_no_memory(ctx, path) : GR_OK;
}

/* Where the elements of each tensor begin: the widest first. */
static gr_status safetensors_place(gr_ctx *ctx, const gr_dict *d, const char *path, int64_t *begin) {
    int64_t at = 0;
    for (int64_t size = 8; size >= 1; size /= 2) {
        for (int i = 0; i < d->tensors.n; i++) {
            const gr_tensor *t = d->tensors.list[i].value;
            if ((int64_t)gri_size((gr_dtype)t->dtype) != size) continue;
            begin[i] = at;
            if (__builtin_add_overflow(at, t->numel * size, &at))
                return gr_fail(ctx, GR_ERR_ARG, "%s: more bytes than a file can hold", path);
        }
    }
    return GR_OK;
}

static gr_status safetensors_describe(gr_ctx *ctx, const char *path, json_t *root, const gri_entry *entry,
                                      int64_t begin) {
    const gr_tensor *t = entry->value;
    int64_t bytes = t->numel * (int64_t)gri_size((gr_dtype)t->dtype);
    json_t *tensor, *list;
    if (strcmp(entry->name, SAFETENSORS_METADATA) == 0)
        return gr_fail(ctx, GR_ERR_ARG, "%s: a tensor cannot be called " SAFETENSORS_METADATA, path);
    GR_TRY(safetensors_utf8(ctx, path, "name", entry->name));
    bool ok = json_object_set_new_nocheck(root, entry->name, tensor = json_object()) == 0; /* takes it, also if not */
    ok = ok && json_object_set_new(tensor, "dtype", json_string(safetensors_written[t->dtype])) == 0;
    ok = ok && json_object_set_new(tensor, "shape", list = json_array()) == 0;
    for (int i = 0; ok && i < t->rank; i++) ok = json_array_append_new(list, json_integer(t->dims[i])) == 0;
    ok = ok && json_object_set_new(tensor, "data_offsets", list = json_array()) == 0;
    ok = ok && json_array_append_new(list, json_integer(begin)) == 0;
    ok = ok && json_array_append_new(list, json_integer(begin + bytes)) == 0;
    return ok ? GR_OK : safetensors_no_memory(ctx, path);
}

static gr_status safetensors_root(const gr_dict *d, const char *path, const int64_t *begin, json_t *root) {
    gr_ctx *ctx = d->head.ctx;
    json_t *metadata = d->texts.n ? json_object() : NULL;
    if (d->texts.n && json_object_set_new(root, SAFETENSORS_METADATA, metadata) != 0)
        return safetensors_no_memory(ctx, path);
    for (int i = 0; i < d->texts.n; i++) {
        const gri_entry *e = &d->texts.list[i];
        GR_TRY(safetensors_utf8(ctx, path, "key", e->name));
        GR_TRY(safetensors_utf8(ctx, path, "text", e->value));
        if (json_object_set_new_nocheck(metadata, e->name, json_string_nocheck(e->value)) != 0)
            return safetensors_no_memory(ctx, path);
    }
    for (int i = 0; i < d->tensors.n; i++)
        GR_TRY(safetensors_describe(ctx, path, root, &d->tensors.list[i], begin[i]));
    return GR_OK;
}

typedef struct safetensors_block {
    char *data;
    size_t bytes, capacity;
} safetensors_block;

/* Length, JSON and padding. */
static gr_status safetensors_text(gr_ctx *ctx, const char *path, const json_t *root, safetensors_block *out) {
    uint64_t length = json_dumpb(root, NULL, 0, JSON_COMPACT), padded = (length + 7) & ~(uint64_t)7;
    if (length == 0) return safetensors_no_memory(ctx, path);
    if (padded > SAFETENSORS_HEADER_MOST)
        return gr_fail(ctx, GR_ERR_ARG, "%s: names and texts make a header of %llu bytes, the format allows %d", path,
                       (unsigned long long)padded, SAFETENSORS_HEADER_MOST);
    out->bytes = 8 + padded;
    char *p = out->data = gri_block_new(ctx, out->bytes, &out->capacity);
    if (!p) return safetensors_no_memory(ctx, path);
    memcpy(p, &padded, 8);
    memset(p + 8 + length, ' ', padded - length);
    return json_dumpb(root, p + 8, length, JSON_COMPACT) == length ? GR_OK : safetensors_no_memory(ctx, path);
}

static gr_status safetensors_put(gri_replace *file, const gr_tensor *t) {
    _Alignas(64) char chunk[SAFETENSORS_CHUNK];
    int64_t size = (int64_t)gri_size((gr_dtype)t->dtype), step = SAFETENSORS_CHUNK / size;
    if (t->contiguous) return gri_replace_write(file, t->data, (size_t)(t->numel * size));
    gri_strided s = gri_strided_of(t);
    for (int64_t at = 0, n; at < t->numel; at += n) {
        n = t->numel - at < step ? t->numel - at : step;
        gri_gather(&s, at, n, s.dtype, chunk);
        GR_TRY(gri_replace_write(file, chunk, (size_t)(n * size)));
    }
    return GR_OK;
}

static gr_status safetensors_file(const gr_dict *d, const char *path, const safetensors_block *header) {
    gri_replace file;
    GR_TRY(gri_replace_open(d->head.ctx, path, &file));
    gr_status s = gri_replace_write(&file, header->data, header->bytes);
    for (int64_t size = 8; size >= 1; size /= 2)
        for (int i = 0; i < d->tensors.n && s == GR_OK; i++) {
            const gr_tensor *t = d->tensors.list[i].value;
            if ((int64_t)gri_size((gr_dtype)t->dtype) == size) s = safetensors_put(&file, t);
        }
    if (s == GR_OK) return gri_replace_commit(&file);
    gri_replace_drop(&file);
    return s;
}

gr_status gr_safetensors_write(const gr_dict *d, const char *path) {
    gr_ctx *ctx = d->head.ctx;
    safetensors_block header = {0};
    size_t room = (size_t)(d->tensors.n + 1) * sizeof(int64_t);
    int64_t *begin = gri_new(ctx, room);
    if (!begin) return GR_ERR_MEMORY;
    json_t *root = json_object();
    gr_status s = root ? safetensors_place(ctx, d, path, begin) : safetensors_no_memory(ctx, path);
    if (s == GR_OK) s = safetensors_root(d, path, begin, root);
    if (s == GR_OK) s = safetensors_text(ctx, path, root, &header);
    json_decref(root);
    gri_delete(ctx, begin, room);
    if (s == GR_OK) s = safetensors_file(d, path, &header);
    gri_block_delete(ctx, header.data, header.capacity);
    return s;
}
