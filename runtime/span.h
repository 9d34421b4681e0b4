/* Many tensors as one list of runs, so that an update of them all is one parallel region. */
#ifndef GRI_SPAN_H
#define GRI_SPAN_H

#include "gather.h"

#define GRI_SPAN 16384     /* elements of a run: 4-8 us of memory traffic, long against the claim of a piece */
#define GRI_SPAN_BUFFER 512 /* elements gathered at a time where a tensor is strided */

/* Tensor i is cut into the runs first[i] .. first[i+1]-1, GRI_SPAN elements each but the last. The cuts
 * depend on the tensor's own size only. */
typedef struct gri_spans {
    int n;
    int64_t elements; /* of all tensors */
    int64_t *first;   /* n + 1 */
} gri_spans;

/* An empty list in an array of room for all that will be added, and one more. */
static inline gri_spans gri_spans_in(int64_t *first) {
    first[0] = 0;
    return (gri_spans){.first = first};
}
static inline void gri_spans_add(gri_spans *s, int64_t numel) {
    s->first[s->n + 1] = s->first[s->n] + (numel + GRI_SPAN - 1) / GRI_SPAN;
    s->elements += numel;
    s->n++;
}
static inline int64_t gri_spans_runs(const gri_spans *s) { return s->first[s->n]; }

/* fn sees run `run`, which begins at element `at` of a tensor. It must not touch the context. */
typedef void (*gri_span_fn)(void *arg, int tensor, int64_t at, int64_t run);
void gri_spans_each(gr_ctx *ctx, const gri_spans *s, gri_span_fn fn, void *arg);
/* Length of the run that begins at `at`. */
static inline int64_t gri_span_length(int64_t numel, int64_t at) {
    return numel - at < GRI_SPAN ? numel - at : GRI_SPAN;
}

#endif
