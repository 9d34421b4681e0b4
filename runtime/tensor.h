/* Storages and tensors: a tensor is a strided view of a refcounted storage. */
#ifndef GRI_TENSOR_H
#define GRI_TENSOR_H

#include "shape.h"

/* Bytes. From the context's pool, or lent by a host (release then gives them back). */
typedef struct gri_storage {
    gri_object head;
    uint64_t version; /* raised by every in-place edit, seen by all views */
    char *data;
    size_t size, capacity; /* capacity 0: lent */
    void (*release)(void *ud, void *data);
    void *release_ud;
} gri_storage;

/* Invariants: strides are >= 0 and in elements; the view lies inside the storage. Shape and storage of a
 * tensor never change; only its gradient state does. `node` is what made it (out_index says which output),
 * or, for a leaf that requires a gradient, the leaf node that holds .grad (tape.h). */
struct gr_tensor {
    gri_object head;
    uint8_t dtype, rank, contiguous;
    uint16_t out_index;
    int64_t numel;
    char *data; /* of element (0, ..., 0) */
    gri_storage *storage;
    struct gri_node *node; /* +1; NULL: no gradient is wanted */
    struct gri_node *idle; /* +1; while none is wanted, the leaf node from before, with its name and hooks; or NULL */
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
};

/* Undefined contents, row-major. */
gr_status gri_tensor_like_spec(gr_ctx *ctx, const gri_spec *spec, gr_tensor **out);
/* A view of base's storage, offset elements further on; without history. Bounds are the caller's duty. */
gr_status gri_tensor_view(const gr_tensor *base, int rank, const int64_t *dims, const int64_t *strides,
                          int64_t offset, gr_tensor **out);
static inline gr_status gri_tensor_alias(const gr_tensor *base, gr_tensor **out) {
    return gri_tensor_view(base, base->rank, base->dims, base->strides, 0, out);
}
/* The same elements, row-major: base itself (+1) when it already is, else a copy. Not recorded. */
gr_status gri_tensor_dense(gr_tensor *base, gr_tensor **out);
/* Fails unless a tensor of dtype t can hold v: integers take whole values of their range only. */
gr_status gri_check_value(gr_ctx *ctx, gr_dtype t, double v);
/* dims beyond the rank stay undefined. */
static inline void gri_spec_set(gri_spec *s, const gr_tensor *t) {
    s->dtype = (gr_dtype)t->dtype;
    s->rank = t->rank;
    for (int i = 0; i < t->rank; i++) s->dims[i] = t->dims[i];
}
static inline gri_spec gri_spec_of(const gr_tensor *t) {
    gri_spec s;
    gri_spec_set(&s, t);
    return s;
}
void gri_tensor_free(gr_tensor *t);     /* refs are 0 */
static inline void gri_tensor_release(gr_tensor *t) { /* gr_release of a tensor, or NULL */
    if (t && --t->head.refs == 0) gri_tensor_free(t);
}
static inline gr_tensor *gri_tensor_retain(gr_tensor *t) {
    if (t) t->head.refs++;
    return t;
}
/* "f32[64,784]", as gri_dims_text. NULL gives "nil". */
const char *gri_tensor_text(const gr_tensor *t);

static inline bool gri_is_float(const gr_tensor *t) { return t->dtype <= GR_F64; }

#endif
