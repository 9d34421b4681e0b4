/* Matrix products: the only way to BLIS, cut into pieces for the context's own pool. */
#ifndef GRI_BLAS_H
#define GRI_BLAS_H

#include "parallel.h"
#include "shape.h"

/* The rows of an operand that is no matrix: what the taps of a window read (padded.h). Element l of row p is
 * at[p] + l / run * pitch + l % run elements from the operand; GRI_GEMM_SLACK more behind the last may be read. */
typedef struct gri_gemm_rows {
    const int64_t *at;
    int64_t run, pitch;
} gri_gemm_rows;
#define GRI_GEMM_SLACK 32

/* c[m,n] = beta * c + bias[n] + a[m,k] b[k,n]; element strides; beta is 0 or 1 (0 does not read c). c must not
 * overlap a or b and its elements must be distinct. Bits depend on the shape and strides, not on the threads. */
typedef struct gri_gemm {
    gr_dtype dtype; /* GR_F32 or GR_F64 */
    int64_t m, n, k;
    const void *a, *b;
    int64_t rsa, csa, rsb, csb;
    void *c;
    int64_t rsc, csc;
    int beta;
    const void *bias; /* n adjacent values, if gri_gemm_takes_bias, with beta = 0; NULL: none */
    const gri_gemm_rows *a_rows, *b_rows; /* instead of strides; only for gri_gemm_piece, not both */
} gri_gemm;

/* How ops/gemm_small.c computes one, for a CPU variant and a dtype. */
typedef void (*gri_small_gemm)(const gri_gemm *g);

/* How ops/gemm_outer.c computes one with rsa, csb and csc 1, in room for GRI_OUTER_ROOM elements. */
typedef void (*gri_outer_gemm)(const gri_gemm *g, void *room);
#define GRI_OUTER_DEPTH 256 /* of k packed at a time, */
#define GRI_OUTER_TALL 192  /* of m: a multiple of a tile's rows, */
#define GRI_OUTER_WIDE 1024 /* and of n */
#define GRI_OUTER_ROOM ((GRI_OUTER_TALL + GRI_OUTER_WIDE) * GRI_OUTER_DEPTH)

void gri_gemm_run(gr_ctx *ctx, const gri_gemm *g);
/* Can gri_gemm_run add this bias? Else it is for the caller to write it to c before. */
bool gri_gemm_takes_bias(const gr_ctx *ctx, const gri_gemm *g);
/* One product on the calling thread, for use inside a piece (convolution: one product per image). */
void gri_gemm_piece(gri_isa isa, const gri_gemm *g);
/* Many products of one shape; offsets[i] (in elements) are added to a, b, c. */
void gri_gemm_batch(gr_ctx *ctx, const gri_gemm *g, int64_t count, const int64_t (*offsets)[3]);

#endif
