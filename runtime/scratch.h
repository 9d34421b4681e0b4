/* Working memory for the pieces of one parallel region: as many buffers as there are threads. At most that many
 * pieces run at a time, so a piece always finds a free one; which one does not show in the result. */
#ifndef GRI_SCRATCH_H
#define GRI_SCRATCH_H

#include "ctx.h"

typedef struct gri_scratch {
    char *data;
    size_t capacity, size; /* bytes in all, of one buffer */
    _Atomic uint64_t free; /* one bit each */
} gri_scratch;

/* Before the region: buffers of `bytes`, 64-byte aligned, undefined. 0 bytes: none, and nothing to claim. */
gr_status gri_scratch_open(gr_ctx *ctx, gri_scratch *s, size_t bytes);
/* The same for who can do without: false if there is no memory. */
bool gri_scratch_try(gr_ctx *ctx, gri_scratch *s, size_t bytes);
void gri_scratch_close(gr_ctx *ctx, gri_scratch *s);

/* Inside a piece. */
static inline void *gri_scratch_claim(gri_scratch *s) {
    uint64_t free = atomic_load_explicit(&s->free, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&s->free, &free, free & (free - 1), memory_order_acquire,
                                                  memory_order_relaxed)) {}
    return s->data + (size_t)__builtin_ctzll(free) * s->size;
}
static inline void gri_scratch_return(gri_scratch *s, const void *buffer) {
    size_t i = (size_t)((const char *)buffer - s->data) / s->size;
    atomic_fetch_or_explicit(&s->free, (uint64_t)1 << i, memory_order_release);
}

#endif
