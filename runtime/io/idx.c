/* IDX: the format of MNIST and its kin (Y. LeCun, "The MNIST database of handwritten digits").
 *
 *     byte 0, 1   zero
 *     byte 2      element type: 08 u8, 09 i8, 0B i16, 0C i32, 0D f32, 0E f64
 *     byte 3      rank r
 *     r times     size of a dimension, 32 bits
 *     elements    row-major; everything is big-endian
 *
 * A header is not believed before the file has shown that it can hold what is announced: memory taken is at
 * most IDX_TRUST times the file's size, or what a first pass over the data has counted. */
#include <string.h>

#include "io/elements.h"
#include "io/stream.h"
#include "tensor.h"

#define IDX_TRUST 16           /* images unpack to 2-8 times their gzipped size */
#define IDX_CHUNK (32 * 1024)  /* bytes converted at a time; a multiple of every element size */

typedef struct idx_type {
    uint8_t code;
    gri_element element;
} idx_type;

static const idx_type idx_types[] = {
    {0x08, {'u', 1, true}}, {0x09, {'i', 1, true}}, {0x0B, {'i', 2, true}},
    {0x0C, {'i', 4, true}}, {0x0D, {'f', 4, true}}, {0x0E, {'f', 8, true}},
};

typedef struct idx_header {
    const idx_type *type;
    gri_spec spec;
    int64_t bytes;  /* of the elements in the file */
    int64_t memory; /* of the elements in the tensor */
} idx_header;

static uint32_t idx_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static gr_status idx_dims(gri_stream *s, idx_header *h) {
    uint8_t raw[4 * GR_MAX_RANK];
    size_t want = 4 * (size_t)h->spec.rank, got;
    GR_TRY(gri_stream_read(s, raw, want, &got));
    if (got < want)
        return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: IDX header cut short: %zu bytes, expected %zu for rank %d",
                       s->path, 4 + got, 4 + want, h->spec.rank);
    for (int i = 0; i < h->spec.rank; i++) h->spec.dims[i] = idx_u32(raw + 4 * i);
    /* Sizes of 0 count as 1 here: every product of some of the dims must fit. The tensor's elements are at
     * least as large as the file's. */
    int64_t cells = (int64_t)gr_dtype_size(h->spec.dtype), n = 1;
    for (int i = 0; i < h->spec.rank; i++) {
        int64_t d = h->spec.dims[i];
        if (__builtin_mul_overflow(cells, d ? d : 1, &cells) || cells > INT64_MAX / 2)
            return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: IDX dimensions %s are more than memory can address", s->path,
                           gri_dims_text(h->spec.rank, h->spec.dims));
        n *= d;
    }
    h->bytes = n * h->type->element.size;
    h->memory = n * (int64_t)gr_dtype_size(h->spec.dtype);
    return GR_OK;
}

static gr_status idx_header_read(gri_stream *s, idx_header *h) {
    uint8_t magic[4] = {0};
    size_t got;
    GR_TRY(gri_stream_read(s, magic, sizeof magic, &got));
    if (got < sizeof magic)
        return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: not an IDX file: %zu bytes, expected 8 at least", s->path, got);
    if (magic[0] || magic[1])
        return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: not an IDX file: it starts with %02x %02x %02x %02x, expected "
                       "00 00, a type and a rank", s->path, magic[0], magic[1], magic[2], magic[3]);
    h->type = NULL;
    for (size_t i = 0; i < sizeof idx_types / sizeof *idx_types; i++)
        if (idx_types[i].code == magic[2]) h->type = &idx_types[i];
    if (!h->type)
        return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: IDX element type %02x, expected 08, 09, 0b, 0c, 0d or 0e", s->path,
                       magic[2]);
    if (magic[3] < 1 || magic[3] > GR_MAX_RANK)
        return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: IDX rank %d, expected 1 to %d", s->path, magic[3], GR_MAX_RANK);
    h->spec = (gri_spec){.dtype = gri_element_dtype(h->type->element), .rank = magic[3]};
    return idx_dims(s, h);
}

static gr_status idx_cut_short(gri_stream *s, const idx_header *h, int64_t held) {
    return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: IDX data cut short: %s of type %02x need %lld bytes, the file holds "
                   "%lld", s->path, gri_dims_text(h->spec.rank, h->spec.dims), h->type->code, (long long)h->bytes,
                   (long long)held);
}

/* Makes sure that the file holds the elements before memory is taken for them. The stream stands behind the
 * header, before and after. */
static gr_status idx_prove(gri_stream *s, const idx_header *h) {
    uint8_t chunk[IDX_CHUNK];
    int64_t start = s->at, held;
    size_t got = sizeof chunk;
    if (gri_stream_plain(s)) return h->bytes > s->size - start ? idx_cut_short(s, h, s->size - start) : GR_OK;
    if (h->memory / IDX_TRUST <= s->size) return GR_OK;
    while (got == sizeof chunk && s->at - start < h->bytes) GR_TRY(gri_stream_read(s, chunk, sizeof chunk, &got));
    held = s->at - start;
    if (held < h->bytes) return idx_cut_short(s, h, held);
    GR_TRY(gri_stream_rewind(s));
    return gri_stream_read(s, chunk, (size_t)start, &got);
}

static gr_status idx_elements(gri_stream *s, const idx_header *h, char *to) {
    uint8_t chunk[IDX_CHUNK];
    gri_element e = h->type->element;
    size_t got;
    if (h->spec.dtype == GR_U8) {
        GR_TRY(gri_stream_read(s, to, (size_t)h->bytes, &got));
        return (int64_t)got < h->bytes ? idx_cut_short(s, h, (int64_t)got) : GR_OK;
    }
    for (int64_t done = 0; done < h->bytes; done += (int64_t)got) {
        size_t want = h->bytes - done < IDX_CHUNK ? (size_t)(h->bytes - done) : IDX_CHUNK;
        GR_TRY(gri_stream_read(s, chunk, want, &got));
        if (got < want) return idx_cut_short(s, h, done + (int64_t)got);
        int64_t n = (int64_t)got / e.size;
        gri_elements_read(e, chunk, n, to);
        to += n * (int64_t)gr_dtype_size(h->spec.dtype);
    }
    return GR_OK;
}

/* Reading on also makes zlib check the checksum behind the data. */
static gr_status idx_end(gri_stream *s, const idx_header *h) {
    uint8_t more;
    size_t got;
    GR_TRY(gri_stream_read(s, &more, 1, &got));
    if (got == 0) return GR_OK;
    return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: bytes left over behind the %lld of IDX %s, type %02x", s->path,
                   (long long)h->bytes, gri_dims_text(h->spec.rank, h->spec.dims), h->type->code);
}

static gr_status idx_tensor(gri_stream *s, gr_tensor **out) {
    idx_header h;
    gr_tensor *t;
    if (s->size < 0) return gr_fail(s->ctx, GR_ERR_IO, "%s: not a regular file", s->path);
    GR_TRY(idx_header_read(s, &h));
    GR_TRY(idx_prove(s, &h));
    GR_TRY(gri_tensor_like_spec(s->ctx, &h.spec, &t));
    gr_status status = idx_elements(s, &h, t->data);
    if (status == GR_OK) status = idx_end(s, &h);
    if (status == GR_OK)
        *out = t;
    else
        gr_release(t);
    return status;
}

gr_status gr_idx_read(gr_ctx *ctx, const char *path, gr_tensor **out) {
    gri_stream s;
    GR_TRY(gri_stream_open(ctx, path, &s));
    gr_status status = idx_tensor(&s, out);
    gri_stream_close(&s);
    return status;
}
