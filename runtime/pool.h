/* Sizes of a pooling over images [n,c,h,w], or over lines [n,c,l], which are images of one row. */
#ifndef GRI_POOL_H
#define GRI_POOL_H

#include "op.h"
#include "window.h"

/* Adaptive pooling has no window that moves: of `in` rows or columns output i of `out` reads
 * ⌊i in / out⌋ .. ⌈(i + 1) in / out⌉ - 1. */
static inline int64_t gri_pool_from(int64_t in, int64_t out, int64_t i) { return i * in / out; }
static inline int64_t gri_pool_to(int64_t in, int64_t out, int64_t i) { return ((i + 1) * in + out - 1) / out; }
static inline bool gri_pool_adaptive(const gri_pool_attrs *a) { return a->output_size[0] > 0; }

/* Of an input of `rank` dims, 3 or 4. Of lines only the second of each pair of a counts. Adaptive: in[] and out[]
 * alone are filled. */
gr_status gri_pool_fit(gr_ctx *ctx, const gri_pool_attrs *a, int rank, const int64_t *dims, gri_window *w);
/* The shape rule: y, and for each of its elements an index if the op has two outputs. */
gr_status gri_pool_shape(gri_call *c, int rank);

#endif
