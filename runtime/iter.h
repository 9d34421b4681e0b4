/* Elementwise loops over strided, broadcast, mixed-dtype operands: kernels see contiguous runs only. */
#ifndef GRI_ITER_H
#define GRI_ITER_H

#include "copy.h"

#define GRI_LANES 16

/* One run: p[0 .. n_out-1] outputs, then inputs, each n contiguous elements of the loop's own types. n is a
 * multiple of GRI_LANES (the last run is padded), so that no scalar tail rounds differently from the vector
 * lanes; any n for a loop that is GRI_EXACT. An output may be the same memory as an input, never partly
 * overlapping. */
typedef void (*gri_loop)(int64_t n, void *const *p, const void *attrs);

/* How much one element costs, in ns/1000, so that small work is not spread over threads. */
#define GRI_COST_MOVE 60
#define GRI_COST_MATH 400
/* Or-ed to the cost: a tail rounds as vectors do, because the loop only adds, multiplies, divides, takes roots,
 * compares and chooses, and calls no function. Small tensors are then spared the padding, 20 of 40 ns. */
#define GRI_ANY_N 0x10000
#define GRI_EXACT (GRI_COST_MOVE | GRI_ANY_N)

/* Runs loop over the broadcast of c's inputs into c->out, in c->mode. Operands whose dtype differs from the
 * loop's are converted on the way. types: one dtype per operand (outputs first); NULL: all are the
 * computing dtype real_type. */
gr_status gri_map(gri_call *c, gri_loop loop, gr_dtype real_type, const gr_dtype *types, int cost);
/* The same, with a loop over i64 where no operand is floating: whole numbers that no float can hold stay exact, and
 * wrap around at the ends of i64, as Lua's do; u8 results stop at 0 and 255. */
gr_status gri_map_whole(gri_call *c, gri_loop reals, gri_loop wholes, gr_dtype real_type, int cost);

/* One number from a loop with one output: its results, one for each element of `shape`, to which c's inputs
 * broadcast, are not kept, but taken block by block by fold(n, results), whose sums are added up in an order that
 * depends on the shape alone. */
typedef double (*gri_fold_run)(int64_t n, const void *run);
gr_status gri_map_sum(gri_call *c, const gri_spec *shape, gri_loop loop, gri_fold_run fold, gr_dtype real_type,
                      int cost, double *sum);

/* dst += or = src, broadcasting src and converting: what gri_copy does where it knows no faster way. */
gr_status gri_convert(gr_ctx *ctx, gr_tensor *dst, const gr_tensor *src, gri_mode mode);

#endif
