#include "shape.h"

#include <stdio.h>
#include <string.h>

gr_status gri_numel(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, int64_t *out) {
    if ((unsigned)t >= GR_DTYPES) return gr_fail(ctx, GR_ERR_DTYPE, "unknown dtype %d", (int)t);
    if (rank < 0 || rank > GR_MAX_RANK)
        return gr_fail(ctx, GR_ERR_SHAPE, "rank %d: a tensor has at most %d dimensions", rank, GR_MAX_RANK);
    int64_t n = 1, cells = (int64_t)gri_size(t);
    for (int i = 0; i < rank; i++) {
        int64_t d = dims[i];
        if (d < 0) return gr_fail(ctx, GR_ERR_SHAPE, "shape %s has a negative size", gri_dims_text(rank, dims));
        if (__builtin_mul_overflow(cells, d ? d : 1, &cells) || cells > INT64_MAX / 2)
            return gr_fail(ctx, GR_ERR_SHAPE, "shape %s has too many elements", gri_dims_text(rank, dims));
        n *= d;
    }
    *out = n;
    return GR_OK;
}

gr_status gri_spec_given(gr_ctx *ctx, const gr_dims *shape, int64_t dtype, gri_spec *out) {
    int64_t n;
    if (dtype < 0 || dtype >= GR_DTYPES) return gr_fail(ctx, GR_ERR_DTYPE, "unknown dtype %lld", (long long)dtype);
    GR_TRY(gri_numel(ctx, (gr_dtype)dtype, shape->n, shape->v, &n));
    *out = (gri_spec){.dtype = (gr_dtype)dtype, .rank = shape->n};
    if (shape->n) memcpy(out->dims, shape->v, (size_t)shape->n * sizeof *shape->v);
    return GR_OK;
}

gr_dtype gri_promote(gr_dtype a, gr_dtype b) {
    static const uint8_t width[] = {[GR_F32] = 2, [GR_F64] = 3, [GR_I64] = 1, [GR_U8] = 0};
    return width[a] >= width[b] ? a : b;
}

bool gri_broadcast(int *rank, int64_t *dims, int rb, const int64_t *b) {
    if (rb > *rank) {
        int more = rb - *rank;
        memmove(dims + more, dims, (size_t)*rank * sizeof *dims);
        for (int i = 0; i < more; i++) dims[i] = 1;
        *rank = rb;
    }
    int64_t *tail = dims + (*rank - rb);
    for (int i = 0; i < rb; i++) {
        if (tail[i] == b[i] || b[i] == 1) continue;
        if (tail[i] != 1) return false;
        tail[i] = b[i];
    }
    return true;
}

bool gri_fold(int n, const int64_t *dims, const int64_t *strides, int64_t *count, int64_t *step) {
    int64_t inner = 1;
    *count = gri_product(n, dims);
    *step = 0;
    for (int i = n - 1; i >= 0 && *count; i--) {
        if (dims[i] == 1) continue;
        if (inner == 1) *step = strides[i];
        else if (strides[i] != *step * inner) return false;
        inner *= dims[i];
    }
    return true;
}

void gri_row_major(int rank, const int64_t *dims, int64_t *strides) {
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = step;
        step *= dims[i] > 0 ? dims[i] : 1;
    }
}

gr_status gri_dim(gr_ctx *ctx, int64_t dim, int rank, int *out) {
    if (dim < -rank || dim >= rank || rank == 0) {
        int64_t shown = dim >= 0 ? dim + ctx->index_base : dim;
        return gr_fail(ctx, GR_ERR_INDEX, "dimension %lld: the tensor has %d dimension%s", (long long)shown, rank,
                       rank == 1 ? "" : "s");
    }
    *out = (int)(dim < 0 ? dim + rank : dim);
    return GR_OK;
}

gr_status gri_dim_mask(gr_ctx *ctx, const gr_dims *dims, int rank, uint32_t *mask) {
    *mask = 0;
    if (dims->n < 0) {
        *mask = (1u << rank) - 1;
        return GR_OK;
    }
    for (int i = 0; i < dims->n; i++) {
        int d = 0;
        GR_TRY(gri_dim(ctx, dims->v[i], rank, &d));
        if (*mask >> d & 1)
            return gr_fail(ctx, GR_ERR_INDEX, "dimension %d is given twice", d + ctx->index_base);
        *mask |= 1u << d;
    }
    return GR_OK;
}

const char *gri_dims_text(int rank, const int64_t *dims) {
    static _Thread_local char ring[4][GR_MAX_RANK * 21 + 4];
    static _Thread_local unsigned turn;
    char *s = ring[turn++ % 4];
    size_t at = 0, size = sizeof ring[0];
    s[at++] = '[';
    for (int i = 0; i < rank && i < GR_MAX_RANK; i++)
        at += (size_t)snprintf(s + at, size - at, "%s%lld", i ? "," : "", (long long)dims[i]);
    s[at] = ']';
    s[at + 1] = 0;
    return s;
}
