/* The lines of a tensor along one dimension as rows of memory, for kernels that want each line whole. */
#ifndef GRI_LINES_H
#define GRI_LINES_H

#include "copy.h"

/* *dim = the dimension `given`; a scalar has one, of one element. */
gr_status gri_line_dim(gri_call *c, int64_t given, const gr_tensor *t, int *dim);
/* *rows (+1) = x as `dtype`, row-major, dim last: x itself where it is that already. Not recorded. */
gr_status gri_lines_of(gr_tensor *x, int dim, gr_dtype dtype, gr_tensor **rows);
/* *rows (+1) = what to write y's lines to, as gri_lines_of has them: y itself, or a tensor of undefined contents. */
gr_status gri_lines_for(gr_tensor *y, int dim, gr_dtype dtype, gr_tensor **rows);
/* y = rows, which gri_lines_for gave for it. */
gr_status gri_lines_done(gr_tensor *y, int dim, gr_tensor *rows);

/* out[0] = the elements of in[0] at the positions that out[1] gives along dim, which both may lack: for ops that find
 * a position on each line. */
gr_status gri_line_pick(gri_call *c, int dim);
/* Their derivative, and that of ops that find several: input 0's gradient += dy[0] at the positions out[1]. */
gr_status gri_emit_picked(gri_grad *g, int64_t dim);

static inline int64_t gri_line_length(const gr_tensor *t, int dim) { return t->rank ? t->dims[dim] : 1; }

#endif
