/* Rows shared among the threads, for kernels that work on whole rows (softmax, losses, normalisation). */
#ifndef GRI_ROWS_H
#define GRI_ROWS_H

#include "ctx.h"

/* Calls fn(arg, from, to) over pieces of 0 .. n-1. cost: the nanoseconds a row takes, so that small work stays on
 * the calling thread. Rows must not depend on one another: the pieces do depend on the number of threads. */
typedef void (*gri_rows_fn)(void *arg, int64_t from, int64_t to);
void gri_rows(gr_ctx *ctx, int64_t n, int64_t cost, gri_rows_fn fn, void *arg);

#endif
