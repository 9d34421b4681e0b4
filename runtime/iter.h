/* Elementwise loops over strided, broadcast, mixed-dtype operands: kernels see contiguous runs only. */
#ifndef GRI_ITER_H
#define GRI_ITER_H

#include "op.h"

#define GRI_LANES 16 /* every run a loop sees is a multiple of this, padded if need be */

/* One run: p[0 .. n_out-1] outputs, then inputs, each n contiguous elements of the loop's own types.
 * n is a multiple of GRI_LANES, so that no scalar tail rounds differently from the vector lanes. An output
 * may be the same memory as an input, never partly overlapping. */
typedef void (*gri_loop)(int64_t n, void *const *p, const void *attrs);

/* How much one element costs, in ns/1000, so that small work is not spread over threads. */
#define GRI_COST_MOVE 60
#define GRI_COST_MATH 400

/* Runs loop over the broadcast of c's inputs into c->out, in c->mode. Operands whose dtype differs from the
 * loop's are converted on the way. types: one dtype per operand (outputs first); NULL: all are the
 * computing dtype real_type. */
gr_status gri_map(gri_call *c, gri_loop loop, gr_dtype real_type, const gr_dtype *types, int cost);

/* A strided view of elements, for kernels that gather or scatter by themselves. Its rank is at least 1. */
typedef struct gri_strided {
    char *data;
    gr_dtype dtype;
    int rank;
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK]; /* strides in bytes */
} gri_strided;

/* dst[0..n) (contiguous, of dtype type) = the n elements of s from row-major position `at`. */
void gri_gather(const gri_strided *s, int64_t at, int64_t n, gr_dtype type, void *dst);
/* The n elements of s from position `at` = or += src[0..n) (contiguous, of dtype type). */
void gri_scatter(const gri_strided *s, int64_t at, int64_t n, gr_dtype type, const void *src, gri_mode mode);

/* dst += or = src, broadcasting src and converting. Not recorded. */
gr_status gri_copy(gr_ctx *ctx, gr_tensor *dst, const gr_tensor *src, gri_mode mode);

#endif
