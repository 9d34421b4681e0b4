#include "io/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h> /* renameat */
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define REPLACE_PIECE ((size_t)1 << 20)
#define REPLACE_SUFFIX ".saving"

static gr_status replace_fail(const gri_replace *r, const char *what) {
    return gr_fail(r->ctx, GR_ERR_IO, "%s: %s: %s", r->path, what, strerror(errno));
}

/* Where the path leads, behind symbolic links, also where there is nothing yet. */
static gr_status replace_follow(const gri_replace *r, char target[PATH_MAX]) {
    char at[PATH_MAX], link[PATH_MAX];
    size_t folder = 0;
    ssize_t n = (ssize_t)strlen(r->path);
    if (n >= PATH_MAX) return gr_fail(r->ctx, GR_ERR_IO, "a path of %zd bytes, expected less than %d", n, PATH_MAX);
    memcpy(link, r->path, (size_t)n);
    do { /* link[n] leads on from folder */
        if (link[0] == '/') folder = 0;
        if (folder + (size_t)n >= sizeof at) {
            errno = ENAMETOOLONG;
            return replace_fail(r, "cannot be written");
        }
        memcpy(at + folder, link, (size_t)n);
        at[folder + (size_t)n] = 0;
        if (realpath(at, target)) return GR_OK;
        if (errno != ENOENT) return replace_fail(r, "cannot be written"); /* ELOOP among them */
        const char *slash = strrchr(at, '/');
        folder = slash ? (size_t)(slash + 1 - at) : 0;
        n = readlink(at, link, sizeof link);
    } while (n > 0);
    strcpy(target, at);
    return GR_OK;
}

/* Opens the folder and splits off the name. *mode: of the earlier file; 0 if there is none. */
static gr_status replace_find(gri_replace *r, mode_t *mode) {
    char target[PATH_MAX];
    struct stat info;
    GR_TRY(replace_follow(r, target));
    char *slash = strrchr(target, '/'), *name = slash ? slash + 1 : target;
    size_t length = strlen(name);
    if (length == 0 || length + sizeof REPLACE_SUFFIX > sizeof r->temporary)
        return gr_fail(r->ctx, GR_ERR_IO, "%s: the file's name has %zu bytes, expected 1 to %zu", r->path, length,
                       sizeof r->temporary - sizeof REPLACE_SUFFIX);
    memcpy(r->name, name, length + 1);
    memcpy(r->temporary, name, length);
    strcpy(r->temporary + length, REPLACE_SUFFIX);
    *name = 0;
    r->folder = open(slash ? target : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->folder < 0) return replace_fail(r, "its folder cannot be opened");
    *mode = 0;
    if (fstatat(r->folder, r->name, &info, 0) != 0) return GR_OK;
    if (!S_ISREG(info.st_mode))
        return gr_fail(r->ctx, GR_ERR_IO, "%s: is %s, expected a file", r->path,
                       S_ISDIR(info.st_mode) ? "a directory" : "no regular file");
    if (faccessat(r->folder, r->name, W_OK, AT_EACCESS) != 0) return replace_fail(r, "cannot be written over");
    *mode = info.st_mode & 07777;
    return GR_OK;
}

/* Opens and locks the temporary file. Whoever held the lock before us may have renamed or removed the file: then
 * the name stands for another one, or none, by now, and what we have locked must not be touched. */
static gr_status replace_lock(gri_replace *r) {
    struct stat ours, named;
    for (;;) {
        r->fd = openat(r->folder, r->temporary, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
        if (r->fd < 0)
            return gr_fail(r->ctx, GR_ERR_IO, "%s: %s beside it cannot be written: %s", r->path, r->temporary,
                           strerror(errno));
        if (flock(r->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            close(r->fd);
            r->fd = -1;
            return gr_fail(r->ctx, GR_ERR_IO, "%s: another save to it is under way (%s is locked)", r->path,
                           r->temporary);
        }
        if (fstat(r->fd, &ours) != 0) return replace_fail(r, "cannot be written");
        if (!S_ISREG(ours.st_mode))
            return gr_fail(r->ctx, GR_ERR_IO, "%s: %s beside it is no regular file", r->path, r->temporary);
        if (fstatat(r->folder, r->temporary, &named, AT_SYMLINK_NOFOLLOW) == 0 && named.st_ino == ours.st_ino &&
            named.st_dev == ours.st_dev)
            return GR_OK;
        close(r->fd);
        r->fd = -1;
        GR_TRY(gri_poll(r->ctx));
    }
}

static void replace_close(gri_replace *r) {
    if (r->fd >= 0) close(r->fd); /* with it goes the lock */
    if (r->folder >= 0) close(r->folder);
    r->fd = r->folder = -1;
}

gr_status gri_replace_open(gr_ctx *ctx, const char *path, gri_replace *r) {
    mode_t mode = 0;
    *r = (gri_replace){.ctx = ctx, .path = path, .fd = -1, .folder = -1};
    gr_status s = replace_find(r, &mode);
    if (s == GR_OK) s = replace_lock(r);
    if (s != GR_OK) {
        replace_close(r);
        return s;
    }
    if (ftruncate(r->fd, 0) != 0 || (mode && fchmod(r->fd, mode) != 0)) {
        s = replace_fail(r, "cannot be written");
        gri_replace_drop(r);
    }
    return s;
}

gr_status gri_replace_write(gri_replace *r, const void *bytes, size_t n) {
    const char *p = bytes;
    while (n > 0) {
        if (gri_poll(r->ctx) != GR_OK) return gr_fail_within(r->ctx, "%s: writing", r->path);
        ssize_t wrote = write(r->fd, p, n < REPLACE_PIECE ? n : REPLACE_PIECE);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote == 0) errno = ENOSPC;
        if (wrote <= 0) return replace_fail(r, "writing failed");
        p += wrote;
        n -= (size_t)wrote;
    }
    return GR_OK;
}

static int replace_sync(int fd) {
    int failed;
    do failed = fsync(fd);
    while (failed && errno == EINTR);
    return failed && (errno == EINVAL || errno == ENOTSUP) ? 0 : failed; /* a file system without it */
}

gr_status gri_replace_commit(gri_replace *r) {
    gr_status s = GR_OK;
    if (replace_sync(r->fd) != 0) s = replace_fail(r, "writing failed");
    else if (renameat(r->folder, r->temporary, r->folder, r->name) != 0) s = replace_fail(r, "cannot be replaced");
    if (s != GR_OK) {
        gri_replace_drop(r);
        return s;
    }
    if (replace_sync(r->folder) != 0) s = replace_fail(r, "was written, but its folder could not be synced");
    replace_close(r);
    return s;
}

void gri_replace_drop(gri_replace *r) {
    if (r->fd >= 0) unlinkat(r->folder, r->temporary, 0);
    replace_close(r);
}
