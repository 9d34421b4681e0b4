/* Copying between strided tensors. */
#ifndef GRI_COPY_H
#define GRI_COPY_H

#include "op.h"

/* dst = or += src, broadcasting src and converting. The two must not overlap. Not recorded. */
gr_status gri_copy(gr_ctx *ctx, gr_tensor *dst, const gr_tensor *src, gri_mode mode);
/* The same into the positions start, start + step, … of dst along dim only: as many as src has there, or one if
 * src lacks that dim. Bounds are the caller's duty. */
gr_status gri_copy_into(gr_ctx *ctx, gr_tensor *dst, int dim, int64_t start, int64_t step, const gr_tensor *src,
                        gri_mode mode);
gr_status gri_zero(gr_ctx *ctx, gr_tensor *dst);
/* n contiguous elements of one dtype. */
void gri_copy_run(gr_dtype t, void *dst, const void *src, int64_t n, gri_mode mode);

#endif
