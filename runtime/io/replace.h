/* Writing a file that takes an earlier one's place only when it is whole and on the disk.
 *
 * The bytes go to PATH.saving in the same folder; then the file is synced, renamed to PATH, and the folder synced.
 * Until the rename the earlier file is as it was, whatever happens: no space, an interrupt, kill -9, a power cut.
 * What a killed process left under that name is written over by the next. A lock on it keeps two writers apart.
 * A symbolic link at PATH is followed, also to where nothing is yet; the earlier file's permissions are kept. */
#ifndef GRI_REPLACE_H
#define GRI_REPLACE_H

#include "ctx.h"

#define GRI_REPLACE_NAME 256 /* bytes of a file's name without its folder */

typedef struct gri_replace {
    gr_ctx *ctx;
    const char *path; /* borrowed; for messages */
    char name[GRI_REPLACE_NAME], temporary[GRI_REPLACE_NAME]; /* within the folder */
    int fd, folder;   /* -1: closed */
} gri_replace;

/* Fails with GR_ERR_IO, which names path and reason: no such folder, no permission, not a regular file, another
 * save to it under way. */
gr_status gri_replace_open(gr_ctx *ctx, const char *path, gri_replace *r);
/* Fails with GR_ERR_IO, or GR_ERR_INTERRUPT (noticed at every megabyte). */
gr_status gri_replace_write(gri_replace *r, const void *bytes, size_t n);
/* Puts the file in its place. Closes, also when it fails. */
gr_status gri_replace_commit(gri_replace *r);
/* Removes what was written. Nothing after gri_replace_commit. */
void gri_replace_drop(gri_replace *r);

#endif
