#include "index.h"

#include <stdatomic.h>
#include <stdio.h>

#include "rows.h"

gr_status gri_want_index(gri_call *c, int i) {
    const gr_tensor *index = c->in[i];
    if (index->dtype == GR_I64) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_DTYPE, "the index is %s, expected i64; convert it with :to(\"i64\")",
                   gri_tensor_text(index));
}

typedef struct index_scan {
    const int64_t *at;
    uint64_t base, last;
    atomic_bool outside;
} index_scan;

/* Its highest bit is set where a position is outside 0 to last: where it, or its distance from last, is negative. */
static inline uint64_t index_outside(const index_scan *s, int64_t j) {
    uint64_t p = (uint64_t)s->at[j] - s->base;
    return p | (s->last - p);
}

static void index_scan_run(void *arg, int64_t from, int64_t to) {
    index_scan *s = arg;
    const index_scan fixed = {.at = s->at, .base = s->base, .last = s->last};
    uint64_t outside = 0;
    for (int64_t j = from; j < to; j++) outside |= index_outside(&fixed, j);
    if (outside >> 63) atomic_store_explicit(&s->outside, true, memory_order_relaxed);
}

/* " (place [2,3] of the index)": where element `flat` is; nothing for a scalar. */
static const char *index_place(const gr_tensor *index, int64_t flat, char *text, size_t size) {
    int64_t at[GR_MAX_RANK], base = index->head.ctx->index_base;
    text[0] = 0;
    for (int d = index->rank - 1; d >= 0; d--) {
        at[d] = flat % index->dims[d] + base;
        flat /= index->dims[d];
    }
    if (index->rank) snprintf(text, size, " (place %s of the index)", gri_dims_text(index->rank, at));
    return text;
}

static gr_status index_fail(const index_scan *s, const gr_tensor *index, int dim, int rank, const int64_t *dims) {
    gr_ctx *ctx = index->head.ctx;
    int64_t j = 0, base = ctx->index_base;
    while (!(index_outside(s, j) >> 63)) j++;
    char text[GR_MAX_RANK * 21 + 32];
    const char *place = index_place(index, j, text, sizeof text);
    if (dims[dim] == 0)
        return gr_fail(ctx, GR_ERR_INDEX, "position %lld%s: dimension %lld of %s is empty",
                       (long long)s->at[j], place, (long long)(dim + base), gri_dims_text(rank, dims));
    return gr_fail(ctx, GR_ERR_INDEX,
                   "position %lld%s is outside dimension %lld of %s: %lld to %lld%s",
                   (long long)s->at[j], place, (long long)(dim + base), gri_dims_text(rank, dims), (long long)base,
                   (long long)(dims[dim] - 1 + base),
                   s->at[j] == 0 && base == 1 ? "; positions count from 1, not from 0" : "");
}

gr_status gri_index(gri_call *c, int i, int dim, int rank, const int64_t *dims, gr_tensor **out) {
    gr_tensor *index;
    GR_TRY(gri_tensor_dense(c->in[i], &index));
    index_scan s = {.at = gri_index_data(index), .base = (uint64_t)c->ctx->index_base, .last = (uint64_t)dims[dim] - 1};
    gri_rows(c->ctx, index->numel, 1, index_scan_run, &s);
    if (s.outside) {
        gr_status status = index_fail(&s, index, dim, rank, dims);
        gr_release(index);
        return status;
    }
    *out = index;
    return GR_OK;
}
