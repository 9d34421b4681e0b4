/* A gradient as it adds up during a backward pass: the first contribution is set, others are added. */
#ifndef GRI_ACCUMULATE_H
#define GRI_ACCUMULATE_H

#include "tape.h"

/* May the tape write into t? Not if anyone else can see it, nor where several of its elements are one place in
 * memory, as in the expanded gradient of a sum. */
static inline bool gri_exclusive(const gr_tensor *t) {
    return t->head.refs == 1 && t->storage->head.refs == 1 && t->storage->capacity && t->contiguous;
}
static inline bool gri_fits(const gri_spec *s, const gr_tensor *t) {
    return t->dtype == (uint8_t)s->dtype && gri_same_dims(s->rank, s->dims, t->rank, t->dims);
}

/* slot += t (+1, taken), which may be shaped as the output: it is summed over what was broadcast, and converted.
 * With create the sum is recorded. */
gr_status gri_slot_add(gr_ctx *ctx, gri_slot *s, gr_tensor *t, bool create);
/* Runs the op into the slot's own memory, set or add, where that is possible: *done. The call's shape rule has been
 * applied. */
gr_status gri_slot_run(gri_call *c, gri_slot *s, bool *done);
/* The same for a call that is to be recorded, before its shape rule; it only adds. */
gr_status gri_slot_run_recorded(gri_call *c, gri_slot *s, bool *done);

#endif
