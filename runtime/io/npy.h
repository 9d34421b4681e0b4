/* One NumPy array, wherever its bytes come from or go to: a file by itself, or a member of an npz archive. */
#ifndef GRI_NPY_H
#define GRI_NPY_H

#include "tensor.h"

typedef struct gri_npy_source {
    gr_ctx *ctx;
    const char *path; /* for messages */
    int64_t most;     /* no more bytes than these can come: memory is not taken for more */
    void *from;
    gr_status (*read)(void *from, void *buf, size_t size, size_t *got); /* *got is less only at the end */
} gri_npy_source;

typedef struct gri_npy_target {
    gr_ctx *ctx;
    void *to;
    gr_status (*write)(void *to, const void *bytes, size_t n);
} gri_npy_target;

/* Reads everything there is. GR_ERR_FORMAT names path and what was found. */
gr_status gri_npy_parse(gri_npy_source *s, gr_tensor **out);
gr_status gri_npy_emit(const gri_npy_target *to, const gr_tensor *t);

#endif
