/* Reading a file's bytes from the start to the end, gzipped or not, with errors that name the path. */
#ifndef GRI_STREAM_H
#define GRI_STREAM_H

#include "ctx.h"

typedef struct gri_stream {
    gr_ctx *ctx;
    const char *path; /* borrowed */
    void *gz;         /* zlib's gzFile */
    int64_t size;     /* bytes on disk; -1 for a pipe or device */
    int64_t at;       /* bytes delivered so far, unpacked */
} gri_stream;

/* Fails with GR_ERR_IO: not there, not readable, a directory. */
gr_status gri_stream_open(gr_ctx *ctx, const char *path, gri_stream *s);
void gri_stream_close(gri_stream *s);
/* Reads up to size bytes; *got is less only at the end of the file. Fails with GR_ERR_IO, or GR_ERR_FORMAT
 * where the gzip data are damaged or cut short. An interrupt is noticed at every megabyte. */
gr_status gri_stream_read(gri_stream *s, void *buf, size_t size, size_t *got);
/* Back to the first byte; regular files only. */
gr_status gri_stream_rewind(gri_stream *s);
/* Is it stored as it is, without gzip? Known after the first read. */
bool gri_stream_plain(const gri_stream *s);

#endif
