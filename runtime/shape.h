/* Shapes: counting, broadcasting, strides, and their text in error messages. */
#ifndef GRI_SHAPE_H
#define GRI_SHAPE_H

#include "ctx.h"

/* gr_dtype_size, inline: hexadecimal digits by dtype. */
static inline size_t gri_size(gr_dtype t) { return 0x1884u >> 4 * t & 15; }

/* What an output will be: filled by an op's shape rule. */
typedef struct gri_spec {
    gr_dtype dtype;
    int rank;
    int64_t dims[GR_MAX_RANK];
} gri_spec;

/* Product of the dims; fails (GR_ERR_SHAPE) on rank > 8, a negative dim, or more than 2^62 bytes. There a size of 0
 * counts as 1: the product of any of the dims fits, so that strides and parts of a shape can be computed with. */
gr_status gri_numel(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, int64_t *out);
static inline int64_t gri_product(int rank, const int64_t *dims) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    return n;
}
/* The spec of an op that is told its output's shape and dtype. */
gr_status gri_spec_given(gr_ctx *ctx, const gr_dims *shape, int64_t dtype, gri_spec *out);
static inline bool gri_same_dims(int ra, const int64_t *a, int rb, const int64_t *b) {
    if (ra != rb) return false;
    for (int i = 0; i < ra; i++)
        if (a[i] != b[i]) return false;
    return true;
}
/* The dtype that holds both, in the order u8, i64, f32, f64. */
gr_dtype gri_promote(gr_dtype a, gr_dtype b);
/* NumPy's rule: *dims (rank *rank) becomes the broadcast of itself and b; false if they do not fit. */
bool gri_broadcast(int *rank, int64_t *dims, int rb, const int64_t *b);
/* Dims 0 .. n-1 seen as one whose elements lie *step apart; false if they cannot be. */
bool gri_fold(int n, const int64_t *dims, const int64_t *strides, int64_t *count, int64_t *step);
void gri_row_major(int rank, const int64_t *dims, int64_t *strides);
/* Turns -rank..rank-1 into 0..rank-1, or fails with GR_ERR_INDEX naming the op's argument. Messages count
 * dimensions as scripts do when the context's index_base is 1. */
gr_status gri_dim(gr_ctx *ctx, int64_t dim, int rank, int *out);
/* The set of dims (n = -1: all of them) as a bit mask; a repeated dim is refused. */
gr_status gri_dim_mask(gr_ctx *ctx, const gr_dims *dims, int rank, uint32_t *mask);

/* "[64,784]" in one of a few rotating buffers of the calling thread: for error messages only. */
const char *gri_dims_text(int rank, const int64_t *dims);

#endif
