/* npz: arrays of NumPy by name, each as NAME.npy in a zip archive (numpy.savez, numpy.savez_compressed). The archive is
 * minizip's, which takes its memory from malloc; members are read packed or not, and written as they are. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <minizip/unzip.h>
#include <minizip/zip.h>

#include "dict.h"
#include "io/npy.h"
#include "io/replace.h"

#define NPZ_NAME 1024      /* bytes of a member's name */
#define NPZ_PIECE (1 << 20)
#define NPZ_UNPACKS 1032   /* deflate cannot pack better than 1032 : 1 */
#define NPZ_LARGE 0xf0000000u /* bytes from which on a member needs the 64-bit form */

/* ---- reading --------------------------------------------------------------------------------------------- */

typedef struct npz_reader {
    gr_ctx *ctx;
    const char *path;
    unzFile zip;
    int64_t size;                 /* of the archive */
    char name[NPZ_NAME];          /* of the member */
    char where[2 * NPZ_NAME + 4]; /* path, member; for messages */
} npz_reader;

static gr_status npz_read_member(void *from, void *buf, size_t size, size_t *got) {
    npz_reader *r = from;
    *got = 0;
    while (*got < size) {
        size_t piece = size - *got < NPZ_PIECE ? size - *got : NPZ_PIECE;
        GR_TRY(gri_poll(r->ctx));
        int n = unzReadCurrentFile(r->zip, (char *)buf + *got, (unsigned)piece);
        if (n < 0) return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: damaged zip data", r->where);
        if (n == 0) break;
        *got += (size_t)n;
    }
    return GR_OK;
}

/* The member under way, open, as a tensor of the dict. */
static gr_status npz_tensor(npz_reader *r, const unz_file_info64 *info, gr_dict *d) {
    int64_t packed = (int64_t)info->compressed_size < r->size ? (int64_t)info->compressed_size : r->size;
    int64_t most = packed < INT64_MAX / NPZ_UNPACKS ? packed * NPZ_UNPACKS : INT64_MAX;
    gr_tensor *t;
    gri_npy_source s = {r->ctx, r->where, most, r, npz_read_member};
    if ((int64_t)info->uncompressed_size >= 0 && (int64_t)info->uncompressed_size < most)
        s.most = (int64_t)info->uncompressed_size;
    GR_TRY(gri_npy_parse(&s, &t));
    gr_status status = gr_dict_set(d, r->name, t);
    gr_release(t);
    return status;
}

static gr_status npz_member(npz_reader *r, gr_dict *d) {
    unz_file_info64 info;
    int code = unzGetCurrentFileInfo64(r->zip, &info, r->name, sizeof r->name, NULL, 0, NULL, 0);
    if (code != UNZ_OK) return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: damaged zip directory", r->path);
    size_t n = info.size_filename;
    if (n < 4 || n >= sizeof r->name || strlen(r->name) != n || strcmp(r->name + n - 4, ".npy") != 0)
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: member '%.80s', expected a name that ends in .npy", r->path,
                       n ? r->name : "");
    r->name[n - 4] = 0;
    snprintf(r->where, sizeof r->where, "%.1000s: %s", r->path, r->name);
    if (gr_dict_find_peek(d, r->name))
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: is there a second time", r->where);
    code = info.flag & 1 ? UNZ_BADZIPFILE : unzOpenCurrentFile(r->zip);
    if (code != UNZ_OK)
        return gr_fail(r->ctx, code == UNZ_INTERNALERROR ? GR_ERR_MEMORY : GR_ERR_FORMAT, "%s: %s", r->where,
                       info.flag & 1 ? "is encrypted" : "cannot be unpacked");
    gr_status s = npz_tensor(r, &info, d);
    code = unzCloseCurrentFile(r->zip);
    if (s == GR_OK && code != UNZ_OK)
        s = gr_fail(r->ctx, GR_ERR_FORMAT, "%s: damaged zip data: wrong checksum", r->where);
    return s;
}

static gr_status npz_members(npz_reader *r, gr_dict *d) {
    int code = unzGoToFirstFile(r->zip);
    for (; code == UNZ_OK; code = unzGoToNextFile(r->zip)) GR_TRY(npz_member(r, d));
    return code == UNZ_END_OF_LIST_OF_FILE ? GR_OK
                                           : gr_fail(r->ctx, GR_ERR_FORMAT, "%s: damaged zip directory", r->path);
}

/* An archive without members, which minizip takes for none. */
static bool npz_empty(const npz_reader *r) {
    static const uint8_t end[22] = {'P', 'K', 5, 6};
    uint8_t bytes[sizeof end];
    int fd = r->size == sizeof end ? open(r->path, O_RDONLY | O_CLOEXEC) : -1;
    bool same = fd >= 0 && read(fd, bytes, sizeof bytes) == sizeof bytes && memcmp(bytes, end, sizeof end) == 0;
    if (fd >= 0) close(fd);
    return same;
}

gr_status gr_npz_read(gr_ctx *ctx, const char *path, gr_dict **out) {
    npz_reader r = {.ctx = ctx, .path = path};
    struct stat info;
    gr_dict *d;
    if (stat(path, &info) != 0) return gr_fail(ctx, GR_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return gr_fail(ctx, GR_ERR_IO, "%s: not a regular file", path);
    r.size = info.st_size;
    GR_TRY(gr_dict_new(ctx, &d));
    r.zip = unzOpen64(path);
    gr_status s = GR_OK;
    if (r.zip) s = npz_members(&r, d);
    else if (!npz_empty(&r)) s = gr_fail(ctx, GR_ERR_FORMAT, "%s: not a zip archive, as an npz file is", path);
    if (r.zip) unzClose(r.zip);
    if (s == GR_OK) *out = d;
    else gr_release(d);
    return s;
}

/* ---- writing: minizip's calls, onto the file that will replace the earlier one ------------------------------- */

static voidpf npz_open(voidpf file, const void *name, int mode) {
    (void)name, (void)mode;
    return file;
}

static uLong npz_write(voidpf unused, voidpf file, const void *bytes, uLong n) {
    (void)unused;
    return gri_replace_write(file, bytes, n) == GR_OK ? n : 0;
}

static ZPOS64_T npz_tell(voidpf unused, voidpf file) {
    (void)unused;
    return (ZPOS64_T)lseek(((gri_replace *)file)->fd, 0, SEEK_CUR);
}

static long npz_seek(voidpf unused, voidpf file, ZPOS64_T offset, int origin) {
    static const int whence[] = {[ZLIB_FILEFUNC_SEEK_SET] = SEEK_SET, [ZLIB_FILEFUNC_SEEK_CUR] = SEEK_CUR,
                                 [ZLIB_FILEFUNC_SEEK_END] = SEEK_END};
    (void)unused;
    return lseek(((gri_replace *)file)->fd, (off_t)offset, whence[origin]) < 0 ? -1 : 0;
}

static int npz_done(voidpf unused, voidpf file) {
    (void)unused, (void)file;
    return 0;
}

typedef struct npz_writer {
    gr_ctx *ctx;
    const char *path;
    zipFile zip;
} npz_writer;

static gr_status npz_write_failed(npz_writer *w) { /* the file's own failure came first, if there was one */
    return gr_errcode(w->ctx) != GR_OK ? gr_errcode(w->ctx)
                                       : gr_fail(w->ctx, GR_ERR_IO, "%s: the archive cannot be written", w->path);
}

static gr_status npz_write_member(void *to, const void *bytes, size_t n) {
    npz_writer *w = to;
    for (size_t done = 0; done < n;) {
        size_t piece = n - done < NPZ_PIECE ? n - done : NPZ_PIECE;
        if (zipWriteInFileInZip(w->zip, (const char *)bytes + done, (unsigned)piece) != ZIP_OK)
            return npz_write_failed(w);
        done += piece;
    }
    return GR_OK;
}

static gr_status npz_put(npz_writer *w, const char *name, const gr_tensor *t) {
    char member[NPZ_NAME];
    zip_fileinfo info = {.tmz_date = {.tm_mday = 1, .tm_mon = 0, .tm_year = 1980}}; /* the same bytes every time */
    if (!*name || strlen(name) > sizeof member - 5)
        return gr_fail(w->ctx, GR_ERR_ARG, "%s: a name of %zu bytes, expected 1 to %zu", w->path, strlen(name),
                       sizeof member - 5);
    snprintf(member, sizeof member, "%s.npy", name);
    int large = t->numel > (int64_t)(NPZ_LARGE / gri_size((gr_dtype)t->dtype));
    if (zipOpenNewFileInZip64(w->zip, member, &info, NULL, 0, NULL, 0, NULL, 0, 0, large) != ZIP_OK)
        return npz_write_failed(w);
    gr_status s = gri_npy_emit(&(gri_npy_target){w->ctx, w, npz_write_member}, t);
    if (zipCloseFileInZip(w->zip) != ZIP_OK && s == GR_OK) s = npz_write_failed(w);
    return s;
}

gr_status gr_npz_write(const gr_dict *d, const char *path) {
    gr_ctx *ctx = d->head.ctx;
    gri_replace file;
    npz_writer w = {.ctx = ctx, .path = path};
    zlib_filefunc64_def calls = {.zopen64_file = npz_open, .zwrite_file = npz_write, .ztell64_file = npz_tell,
                                 .zseek64_file = npz_seek, .zclose_file = npz_done, .zerror_file = npz_done,
                                 .opaque = &file};
    GR_TRY(gri_replace_open(ctx, path, &file));
    gr_status s = GR_OK;
    w.zip = zipOpen2_64(path, APPEND_STATUS_CREATE, NULL, &calls);
    if (!w.zip) s = gr_fail(ctx, GR_ERR_MEMORY, "%s: out of memory writing it", path);
    for (int i = 0; i < d->tensors.n && s == GR_OK; i++)
        s = npz_put(&w, d->tensors.list[i].name, d->tensors.list[i].value);
    if (w.zip && zipClose(w.zip, NULL) != ZIP_OK && s == GR_OK) s = npz_write_failed(&w);
    if (s == GR_OK) return gri_replace_commit(&file);
    gri_replace_drop(&file);
    return s;
}
