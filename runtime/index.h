/* Index tensors: i64 whose values are positions, counted from the context's index_base. */
#ifndef GRI_INDEX_H
#define GRI_INDEX_H

#include "op.h"

typedef struct gri_index_attrs { int64_t dim; } gri_index_attrs; /* index_select, gather */
/* index_add, their derivative: how many positions there are, and one that nothing is added to (-1: none) */
typedef struct gri_index_add_attrs { int64_t dim, size, skip; } gri_index_add_attrs;

typedef struct gri_gather_backward_attrs { gr_dims shape; int64_t dim; } gri_gather_backward_attrs; /* of the input */

/* Fails unless input i of the call is i64. */
gr_status gri_want_index(gri_call *c, int i);
/* *out (+1) = input i, row-major, every value a position of dimension dim of a tensor of these dims. If one is not,
 * fails and names it, its place, and what there is. */
gr_status gri_index(gri_call *c, int i, int dim, int rank, const int64_t *dims, gr_tensor **out);
static inline const int64_t *gri_index_data(const gr_tensor *index) {
    return (const int64_t *)(const void *)index->data;
}

#endif
