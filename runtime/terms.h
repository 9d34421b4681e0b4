/* Compositions of ops in C: of a layer, or of a rule that says how a fused kernel is made of simpler ops.
 *
 * Intermediate results are owned by a gri_terms and let go together. After the first failure nothing more is run and
 * NULL comes back, which may be passed on: one look at the end is enough. */
#ifndef GRI_TERMS_H
#define GRI_TERMS_H

#include "op.h"

typedef struct gri_terms { /* start with {.ctx = ctx} */
    gr_ctx *ctx;
    gr_status status;
    gr_tensor **list;
    int n, cap;
} gri_terms;

/* Runs an op: its first result, borrowed; all its results in out[]. attrs NULL: defaults. */
gr_tensor *gri_term(gri_terms *t, const gr_op *op, int n, gr_tensor *const *in, const void *attrs);
void gri_term_all(gri_terms *t, const gr_op *op, int n, gr_tensor *const *in, const void *attrs, gr_tensor **out);
/* Without attributes, tensors listed: GRI_TERM(t, mul, a, b). */
#define GRI_TERM(t, op, ...) gri_term(t, &gri_op_##op, GRI_COUNT(__VA_ARGS__), GRI_TENSORS(__VA_ARGS__), NULL)

/* A tensor made elsewhere, +1 taken. */
gr_tensor *gri_term_own(gri_terms *t, gr_tensor *made);
gr_tensor *gri_term_scalar(gri_terms *t, gr_dtype dtype, double value);
/* One position of dimension 0; n columns of a matrix, from the first. */
gr_tensor *gri_term_at(gri_terms *t, gr_tensor *x, int64_t index);
gr_tensor *gri_term_columns(gri_terms *t, gr_tensor *x, int64_t first, int64_t n);
/* Joined along a dimension there is, or a new one in front. */
gr_tensor *gri_term_cat(gri_terms *t, int n, gr_tensor *const *in, int64_t dim);
gr_tensor *gri_term_stack(gri_terms *t, int n, gr_tensor *const *in);

/* The end: out[i] = results[i], +1 each, unless something failed. */
gr_status gri_terms_close(gri_terms *t, int n, gr_tensor *const *results, gr_tensor **out);

#endif
