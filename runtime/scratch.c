#include "scratch.h"

gr_status gri_scratch_open(gr_ctx *ctx, gri_scratch *s, size_t bytes) {
    *s = (gri_scratch){.size = (bytes + 63) & ~(size_t)63};
    if (!bytes) return GR_OK;
    s->data = gri_block_new(ctx, (size_t)ctx->threads * s->size, &s->capacity);
    if (!s->data)
        return gr_fail(ctx, GR_ERR_MEMORY, "out of memory: %zu bytes of scratch wanted, %zu in use",
                       (size_t)ctx->threads * s->size, ctx->live);
    atomic_init(&s->free, ctx->threads == 64 ? UINT64_MAX : ((uint64_t)1 << ctx->threads) - 1);
    return GR_OK;
}

void gri_scratch_close(gr_ctx *ctx, gri_scratch *s) { gri_block_delete(ctx, s->data, s->capacity); }
