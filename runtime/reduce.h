/* Reductions over any set of dimensions: kernels see contiguous runs only. */
#ifndef GRI_REDUCE_H
#define GRI_REDUCE_H

#include "iter.h"

/* The kernel sees runs of the reduced elements of one output (fold), or one row of elements
 * for many outputs at once (fold_rows: acc[j] takes x[j]). Accumulators are acc_size bytes, doubles inside.
 * The order is fixed by the shape. */
typedef struct gri_reduction {
    size_t acc_size;
    void (*start)(int64_t n, void *acc, const void *attrs);
    /* at: position of x[0] among the reduced elements (argmax wants it) */
    void (*fold)(void *acc, int64_t n, const void *x, int64_t at, const void *attrs);
    void (*fold_rows)(void *acc, int64_t n, const void *x, int64_t at, const void *attrs);
    void (*join)(void *acc, const void *other, const void *attrs); /* acc = acc then other, in this order */
    /* y[j] from acc[j], contiguous, in the output's dtype; count reduced elements went into each */
    void (*finish)(int64_t n, void *y, const void *acc, int64_t count, const void *attrs);
} gri_reduction;

/* Reduces in[0] over the dims in mask into c->out[0] (any kept-dims layout: out holds the kept elements in
 * order). real_type as in gri_map. */
gr_status gri_reduce(gri_call *c, const gri_reduction *r, gr_dtype real_type, uint32_t mask);

#endif
