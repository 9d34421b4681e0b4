/* Reductions over any set of dimensions: kernels see contiguous runs only. */
#ifndef GRI_REDUCE_H
#define GRI_REDUCE_H

#include "iter.h"

/* The schema of gri_reduce_attrs. */
#define GRI_REDUCE_ATTRS                                                                                      \
    {"dim", GR_ATTR_DIMS, offsetof(gri_reduce_attrs, dim), .required = false},                                \
    {"keepdim", GR_ATTR_BOOL, offsetof(gri_reduce_attrs, keepdim), .required = false}

#define GRI_ACC_MAX 32 /* bytes of one accumulator */

/* An accumulator is acc_size bytes, doubles inside; those of n outputs lie one after the other. Elements come
 * as contiguous runs of the loop's type. Which elements are joined in which order is fixed by the shape and
 * strides of the input, never by the number of threads. */
typedef struct gri_reduction {
    size_t acc_size;
    gr_dtype result; /* what finish writes; converted to the output's dtype if that is another */
    uint8_t narrow; /* runs below this length are better taken by rows; 0: 32 */
    bool positions; /* `at` is looked at: elements must come in row-major order of the reduced dims */
    void (*start)(int64_t n, void *acc, const void *attrs); /* of n outputs, nothing in them yet */
    /* Takes x[0..n) into one accumulator. at: position of x[0] among the reduced elements. */
    void (*fold)(void *acc, int64_t n, const void *x, int64_t at, const void *attrs);
    /* Takes x[j * stride + i] into acc[j], for j < outputs, i < n; NULL: fold for each. */
    void (*fold_each)(void *acc, int64_t outputs, int64_t n, const void *x, int64_t stride, int64_t at,
                      const void *attrs);
    /* Takes x[r * stride + j] into acc[j], for r < rows, j < n. at: position of row 0. NULL: there is only fold. */
    void (*fold_rows)(void *acc, int64_t n, int64_t rows, const void *x, int64_t stride, int64_t at,
                      const void *attrs);
    void (*join)(void *acc, const void *other, const void *attrs); /* acc = acc then other, in this order */
    /* y[j] (contiguous) from acc[j], into each of which went count elements. */
    void (*finish)(int64_t n, void *y, const void *acc, int64_t count, const void *attrs);
} gri_reduction;

/* NAME_fold_each from NAME_four(acc, n, x0, x1, x2, x3), which takes a run into each of four accumulators at once,
 * so that none waits for its own last sum. Long runs are as fast with NAME_fold. Equal runs give equal bits wherever
 * they lie: what is left of four is filled up with one of them. */
#define GRI_FOLD_EACH(name, type, acc_type)                                                                   \
    static void name##_fold_each(void *acc, int64_t outputs, int64_t n, const void *from, int64_t stride,     \
                                 int64_t at, const void *attrs) {                                             \
        const type *x = from;                                                                                 \
        acc_type *a = acc, rest[4];                                                                           \
        for (; n >= GRI_LONG_RUN && outputs; outputs--, a++, x += stride)                                     \
            name##_fold(a, n, x, at, attrs);                                                                  \
        for (; outputs >= 4; outputs -= 4, a += 4, x += 4 * stride)                                           \
            name##_four(a, n, x, x + stride, x + 2 * stride, x + 3 * stride);                                 \
        if (!outputs) return;                                                                                 \
        name##_start(4, rest, attrs);                                                                         \
        name##_four(rest, n, x, x + (outputs > 1) * stride, x + (outputs > 2) * 2 * stride, x);               \
        for (int64_t j = 0; j < outputs; j++) name##_join(a + j, rest + j, attrs);                            \
    }
#define GRI_LONG_RUN 512

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
