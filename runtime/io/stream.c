/* Files through zlib's gz functions, which pass on what is not gzipped as it is. zlib takes its two buffers
 * from malloc, not from the context. */
#include "io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define STREAM_BUFFER (128 * 1024) /* zlib's input buffer, twice that for output */
#define STREAM_PIECE ((size_t)1 << 20)

gr_status gri_stream_open(gr_ctx *ctx, const char *path, gri_stream *s) {
    gr_status status = GR_OK;
    struct stat info;
    gzFile gz = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return gr_fail(ctx, GR_ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0)
        status = gr_fail(ctx, GR_ERR_IO, "%s: %s", path, strerror(errno));
    else if (S_ISDIR(info.st_mode))
        status = gr_fail(ctx, GR_ERR_IO, "%s: is a directory, expected a file", path);
    else if (!(gz = gzdopen(fd, "rb")))
        status = gr_fail(ctx, GR_ERR_MEMORY, "%s: out of memory opening it", path);
    if (status != GR_OK) {
        close(fd);
        return status;
    }
    gzbuffer(gz, STREAM_BUFFER);
    *s = (gri_stream){ctx, path, gz, S_ISREG(info.st_mode) ? (int64_t)info.st_size : -1, 0};
    return GR_OK;
}

void gri_stream_close(gri_stream *s) {
    if (s->gz) gzclose_r(s->gz);
    s->gz = NULL;
}

/* zlib's text starts with "<fd:7>: ", which tells a user nothing. */
static gr_status stream_fail(gri_stream *s, int code, const char *text) {
    if (code == Z_ERRNO) return gr_fail(s->ctx, GR_ERR_IO, "%s: %s", s->path, strerror(errno));
    if (code == Z_MEM_ERROR) return gr_fail(s->ctx, GR_ERR_MEMORY, "%s: out of memory unpacking it", s->path);
    const char *colon = strchr(text, ':');
    colon = colon ? strstr(colon + 1, ": ") : NULL;
    return gr_fail(s->ctx, GR_ERR_FORMAT, "%s: damaged gzip data: %s", s->path, colon ? colon + 2 : text);
}

gr_status gri_stream_read(gri_stream *s, void *buf, size_t size, size_t *got) {
    size_t done = 0;
    while (done < size) {
        size_t piece = size - done < STREAM_PIECE ? size - done : STREAM_PIECE;
        GR_TRY(gri_poll(s->ctx));
        int n = gzread(s->gz, (char *)buf + done, (unsigned)piece), code = Z_OK;
        if (n > 0) {
            done += (size_t)n;
            s->at += n;
        }
        if (n >= 0 && (size_t)n == piece) continue;
        const char *text = gzerror(s->gz, &code);
        if (code != Z_OK && code != Z_STREAM_END) return stream_fail(s, code, text);
        break;
    }
    *got = done;
    return GR_OK;
}

gr_status gri_stream_rewind(gri_stream *s) {
    if (gzrewind(s->gz) != 0) return gr_fail(s->ctx, GR_ERR_IO, "%s: cannot be read twice", s->path);
    s->at = 0;
    return GR_OK;
}

bool gri_stream_plain(const gri_stream *s) { return gzdirect(s->gz); }
