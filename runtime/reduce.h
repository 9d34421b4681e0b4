/* Reductions over any set of dimensions: kernels see contiguous runs only. */
#ifndef GRI_REDUCE_H
#define GRI_REDUCE_H

#include "iter.h"

#define GRI_ACC_MAX 32 /* bytes of one accumulator */

/* An accumulator is acc_size bytes, doubles inside; those of n outputs lie one after the other. Elements come
 * as contiguous runs of the loop's type. Which elements are joined in which order is fixed by the shape and
 * strides of the input, never by the number of threads. */
typedef struct gri_reduction {
    size_t acc_size;
    gr_dtype result; /* what finish writes; converted to the output's dtype if that is another */
    bool positions; /* `at` is looked at: elements must come in row-major order of the reduced dims */
    void (*start)(int64_t n, void *acc, const void *attrs); /* of n outputs, nothing in them yet */
    /* Takes x[0..n) into one accumulator. at: position of x[0] among the reduced elements. */
    void (*fold)(void *acc, int64_t n, const void *x, int64_t at, const void *attrs);
    /* Takes x[r * stride + j] into acc[j], for r < rows, j < n. at: position of row 0. NULL: there is only fold. */
    void (*fold_rows)(void *acc, int64_t n, int64_t rows, const void *x, int64_t stride, int64_t at,
                      const void *attrs);
    void (*join)(void *acc, const void *other, const void *attrs); /* acc = acc then other, in this order */
    /* y[j] (contiguous) from acc[j], into each of which went count elements. */
    void (*finish)(int64_t n, void *y, const void *acc, int64_t count, const void *attrs);
} gri_reduction;

typedef struct gri_reduce_attrs { gr_dims dim; bool keepdim; } gri_reduce_attrs; /* sum, mean, amax, argmax */

/* Reduces in[0], read as `type`, over the dims in mask into c->out[0], in c->mode. The output holds the kept
 * dims in their order; dims of size 1 may be anywhere or missing. */
gr_status gri_reduce(gri_call *c, const gri_reduction *r, gr_dtype type, uint32_t mask);
/* The output of a reduction over mask: kept dims, the reduced ones as 1 if keepdim. */
void gri_reduced_spec(const gr_tensor *x, uint32_t mask, bool keepdim, gr_dtype dtype, gri_spec *out);
/* Fails when the outputs of a reduction of in[0] over mask would be reduced from nothing. */
gr_status gri_want_some(gri_call *c, uint32_t mask);

/* For backward rules; input 0 must be needed. t, shaped as the output of a reduction of it over mask, with the
 * reduced dims as 1: what broadcasts against the input. */
gr_status gri_keep_dims(gri_grad *g, gr_tensor *t, uint32_t mask, gr_tensor **out);
/* Input 0's gradient += t spread over the reduced dims. */
gr_status gri_emit_spread(gri_grad *g, gr_tensor *t, uint32_t mask);
/* *ties = 1 where x equals y, else 0; *share = dy over their number along dim. dy and y have their dims kept. */
gr_status gri_share(gri_grad *g, gr_tensor *dy, gr_tensor *x, gr_tensor *y, const gr_dims *dim, gr_tensor **ties,
                    gr_tensor **share);

#endif
