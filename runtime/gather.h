/* Moving elements between strided memory and contiguous runs, converting their dtype on the way. */
#ifndef GRI_GATHER_H
#define GRI_GATHER_H

#include "tensor.h"

typedef enum gri_mode { GRI_SET, GRI_ADD } gri_mode; /* what a kernel does to its outputs */

/* A strided view of elements. Its rank is at least 1. */
typedef struct gri_strided {
    char *data;
    gr_dtype dtype;
    int rank;
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK]; /* strides in bytes */
} gri_strided;

static inline gri_strided gri_strided_of(const gr_tensor *t) {
    gri_strided s = {.data = t->data, .dtype = (gr_dtype)t->dtype, .rank = t->rank ? t->rank : 1, .dims = {1}};
    for (int d = 0; d < t->rank; d++) {
        s.dims[d] = t->dims[d];
        s.strides[d] = t->strides[d] * (int64_t)gri_size(s.dtype);
    }
    return s;
}

/* dst[0..n) (contiguous, of dtype type) = the n elements of s from row-major position `at`. Floating values become
 * whole ones by truncation; out of range they saturate, and NaN becomes 0. */
void gri_gather(const gri_strided *s, int64_t at, int64_t n, gr_dtype type, void *dst);
/* The n elements of s from position `at` = or += src[0..n) (contiguous, of dtype type). */
void gri_scatter(const gri_strided *s, int64_t at, int64_t n, gr_dtype type, const void *src, gri_mode mode);

#endif
