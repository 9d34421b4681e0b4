#include "scratch.h"

bool gri_scratch_try(gr_ctx *ctx, gri_scratch *s, size_t bytes) {
    *s = (gri_scratch){.size = (bytes + 63) & ~(size_t)63};
    if (!bytes) return true;
    s->data = gri_block_new(ctx, (size_t)ctx->threads * s->size, &s->capacity);
    if (!s->data) return false;
    atomic_init(&s->free, ctx->threads == 64 ? UINT64_MAX : ((uint64_t)1 << ctx->threads) - 1);
    return true;
}

gr_status gri_scratch_open(gr_ctx *ctx, gri_scratch *s, size_t bytes) {
    if (gri_scratch_try(ctx, s, bytes)) return GR_OK;
    return gr_fail(ctx, GR_ERR_MEMORY, "out of memory: %zu bytes of scratch wanted, %zu in use",
                   (size_t)ctx->threads * s->size, ctx->live);
}

void gri_scratch_close(gr_ctx *ctx, gri_scratch *s) { gri_block_delete(ctx, s->data, s->capacity); }
