/* A small worker pool, one per context. */
#ifndef GRI_PARALLEL_H
#define GRI_PARALLEL_H

#include "ctx.h"

typedef void (*gri_piece_fn)(void *arg, int64_t piece);

/* Calls fn(arg, 0 .. pieces-1), each once, on the calling thread and the context's workers; returns when
 * all are done. Pieces must be independent, must not touch the context, and must be cut by shape alone:
 * results may not depend on the number of threads. Inside a piece, or with one piece, it runs in place. */
void gri_parallel(gr_ctx *ctx, int64_t pieces, gri_piece_fn fn, void *arg);
/* The same for a region of less than some 20 us in all: to wake a sleeping worker costs the caller 6 us, so
 * such a region does without, unless another one came just before it. */
void gri_parallel_brief(gr_ctx *ctx, int64_t pieces, gri_piece_fn fn, void *arg);
void gri_pool_free(gr_ctx *ctx); /* joins the workers; the pool starts again when next wanted */

#endif
