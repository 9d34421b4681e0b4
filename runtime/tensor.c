#include "tensor.h"

#include <stdio.h>
#include <string.h>

#include "tape.h"

/* ---- storage -------------------------------------------------------------------------------------------- */

static gri_storage *tensor_storage_new(gr_ctx *ctx) {
    gri_storage *s = gri_new(ctx, sizeof *s);
    if (!s) return NULL;
    *s = (gri_storage){.head = {ctx, 1, GRI_STORAGE}};
    ctx->objects[GRI_STORAGE]++;
    return s;
}

static void tensor_storage_release(gri_storage *s) {
    if (!s || --s->head.refs) return;
    gr_ctx *ctx = s->head.ctx;
    if (s->capacity) gri_block_delete(ctx, s->data, s->capacity);
    if (s->release) s->release(s->release_ud, s->data);
    ctx->objects[GRI_STORAGE]--;
    gri_delete(ctx, s, sizeof *s);
}

/* ---- making --------------------------------------------------------------------------------------------- */

/* Everything but dims and strides of a tensor over `storage`, whose reference it takes (also on failure: NULL). */
static gr_tensor *tensor_new(gr_ctx *ctx, gr_dtype t, int rank, gri_storage *storage, char *data) {
    gr_tensor *x = gri_new(ctx, sizeof *x);
    if (!x) {
        tensor_storage_release(storage);
        return NULL;
    }
    x->head = (gri_object){ctx, 1, GRI_TENSOR};
    x->dtype = (uint8_t)t;
    x->rank = (uint8_t)rank;
    x->contiguous = true;
    x->out_index = 0;
    x->data = data;
    x->storage = storage;
    x->node = x->idle = NULL;
    ctx->objects[GRI_TENSOR]++;
    return x;
}

/* Row-major. */
static gr_status tensor_make_dense(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, gri_storage *storage,
                                   char *data, gr_tensor **out) {
    gr_tensor *x = tensor_new(ctx, t, rank, storage, data);
    if (!x) return GR_ERR_MEMORY;
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        x->dims[i] = dims[i];
        x->strides[i] = step > 0 ? step : 1;
        step *= dims[i];
    }
    x->numel = step;
    *out = x;
    return GR_OK;
}

static gr_status tensor_make(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, const int64_t *strides,
                             gri_storage *storage, char *data, gr_tensor **out) {
    if (!strides) return tensor_make_dense(ctx, t, rank, dims, storage, data, out);
    gr_tensor *x = tensor_new(ctx, t, rank, storage, data);
    if (!x) return GR_ERR_MEMORY;
    int64_t step = 1;
    bool contiguous = true;
    for (int i = rank - 1; i >= 0; i--) {
        x->dims[i] = dims[i];
        x->strides[i] = strides[i];
        if (dims[i] != 1 && strides[i] != step) contiguous = false;
        step *= dims[i];
    }
    x->numel = step;
    x->contiguous = contiguous || step == 0;
    *out = x;
    return GR_OK;
}

static gr_status tensor_no_memory(gr_ctx *ctx, const gri_spec *spec, size_t size) {
    return gr_fail(ctx, GR_ERR_MEMORY, "out of memory: %s%s needs %zu bytes, %zu are in use%s",
                   gr_dtype_name(spec->dtype), gri_dims_text(spec->rank, spec->dims), size, ctx->live,
                   ctx->hard ? " and a limit is set" : "");
}

gr_status gri_tensor_like_spec(gr_ctx *ctx, const gri_spec *spec, gr_tensor **out) {
    int64_t n;
    GR_TRY(gri_numel(ctx, spec->dtype, spec->rank, spec->dims, &n)); /* shape rules may leave that to us */
    size_t size = (size_t)n * gri_size(spec->dtype);
    gri_storage *s = tensor_storage_new(ctx);
    if (!s) return GR_ERR_MEMORY;
    s->size = size;
    s->data = gri_block_new(ctx, size, &s->capacity);
    if (__builtin_expect(!s->data, 0)) {
        tensor_storage_release(s);
        return tensor_no_memory(ctx, spec, size);
    }
    return tensor_make_dense(ctx, spec->dtype, spec->rank, spec->dims, s, s->data, out);
}

gr_status gr_tensor_empty(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, gr_tensor **out) {
    gri_spec spec = {.dtype = t, .rank = rank};
    if (rank > 0) memcpy(spec.dims, dims, (size_t)(rank < GR_MAX_RANK ? rank : GR_MAX_RANK) * sizeof *dims);
    return gri_tensor_like_spec(ctx, &spec, out);
}

gr_status gr_tensor_new(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, gr_tensor **out) {
    gr_tensor *x;
    GR_TRY(gr_tensor_empty(ctx, t, rank, dims, &x));
    memset(x->data, 0, x->storage->size);
    *out = x;
    return GR_OK;
}

static void tensor_write(char *p, gr_dtype t, double v) {
    switch (t) {
    case GR_F32: *(float *)(void *)p = (float)v; break;
    case GR_F64: *(double *)(void *)p = v; break;
    case GR_I64: *(int64_t *)(void *)p = (int64_t)v; break;
    default: *(uint8_t *)p = (uint8_t)(int64_t)v; break;
    }
}

static double tensor_read(const char *p, gr_dtype t) {
    switch (t) {
    case GR_F32: return *(const float *)(const void *)p;
    case GR_F64: return *(const double *)(const void *)p;
    case GR_I64: return (double)*(const int64_t *)(const void *)p;
    default: return *(const uint8_t *)p;
    }
}

gr_status gri_check_value(gr_ctx *ctx, gr_dtype t, double v) {
    if (t <= GR_F64) return GR_OK;
    double lo = t == GR_U8 ? 0 : -9223372036854775808.0, hi = t == GR_U8 ? 255 : 9223372036854774784.0;
    if (v >= lo && v <= hi && v == (double)(int64_t)v) return GR_OK;
    return gr_fail(ctx, GR_ERR_DTYPE, "%.17g is not a value of dtype %s", v, gr_dtype_name(t));
}

gr_status gr_tensor_scalar(gr_ctx *ctx, gr_dtype t, double value, gr_tensor **out) {
    gri_spec spec = {.dtype = t};
    gr_tensor *x;
    GR_TRY(gri_check_value(ctx, t, value));
    GR_TRY(gri_tensor_like_spec(ctx, &spec, &x));
    tensor_write(x->data, t, value);
    *out = x;
    return GR_OK;
}

gr_status gr_tensor_borrow(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, const int64_t *strides,
                           void *data, void (*release)(void *ud, void *data), void *ud, gr_tensor **out) {
    int64_t n, last = 0;
    GR_TRY(gri_numel(ctx, t, rank, dims, &n));
    size_t size = gr_dtype_size(t);
    if (!data && n) return gr_fail(ctx, GR_ERR_ARG, "a buffer for %s is NULL", gri_dims_text(rank, dims));
    if ((uintptr_t)data % size)
        return gr_fail(ctx, GR_ERR_ARG, "a buffer of %s must be aligned to %zu bytes", gr_dtype_name(t), size);
    for (int i = 0; strides && i < rank; i++) {
        int64_t step;
        if (strides[i] < 0)
            return gr_fail(ctx, GR_ERR_ARG, "strides %s: negative ones are not supported",
                           gri_dims_text(rank, strides));
        if (n && (__builtin_mul_overflow(dims[i] - 1, strides[i], &step) ||
                  __builtin_add_overflow(last, step, &last) || last > INT64_MAX / 16))
            return gr_fail(ctx, GR_ERR_SHAPE, "shape %s with strides %s is more than memory can address",
                           gri_dims_text(rank, dims), gri_dims_text(rank, strides));
    }
    gri_storage *s = tensor_storage_new(ctx);
    if (!s) return GR_ERR_MEMORY;
    s->data = data;
    s->size = (size_t)(strides ? (n ? last + 1 : 0) : n) * size;
    GR_TRY(tensor_make(ctx, t, rank, dims, strides, s, data, out));
    s->release = release;
    s->release_ud = ud;
    return GR_OK;
}

gr_status gri_tensor_view(const gr_tensor *base, int rank, const int64_t *dims, const int64_t *strides,
                          int64_t offset, gr_tensor **out) {
    base->storage->head.refs++;
    return tensor_make(base->head.ctx, base->dtype, rank, dims, strides, base->storage,
                       base->data + offset * (int64_t)gr_dtype_size(base->dtype), out);
}

void gri_tensor_free(gr_tensor *t) {
    gr_ctx *ctx = t->head.ctx;
    gri_node_release(t->node);
    gri_node_release(t->idle);
    tensor_storage_release(t->storage);
    ctx->objects[GRI_TENSOR]--;
    gri_delete(ctx, t, sizeof *t);
}

const char *gri_tensor_text(const gr_tensor *t) {
    static _Thread_local char ring[4][GR_MAX_RANK * 21 + 12];
    static _Thread_local unsigned turn;
    if (!t) return "nil";
    char *s = ring[turn++ % 4];
    snprintf(s, sizeof ring[0], "%s%s", gr_dtype_name((gr_dtype)t->dtype), gri_dims_text(t->rank, t->dims));
    return s;
}

/* ---- reading and writing -------------------------------------------------------------------------------- */

gr_dtype gr_tensor_dtype(const gr_tensor *t) { return (gr_dtype)t->dtype; }
int gr_tensor_rank(const gr_tensor *t) { return t->rank; }
const int64_t *gr_tensor_dims_peek(const gr_tensor *t) { return t->dims; }
const int64_t *gr_tensor_strides_peek(const gr_tensor *t) { return t->strides; }
int64_t gr_tensor_numel(const gr_tensor *t) { return t->numel; }
bool gr_tensor_contiguous(const gr_tensor *t) { return t->contiguous; }
void *gr_tensor_data_peek(const gr_tensor *t) { return t->data; }
void gr_tensor_touch(gr_tensor *t) { t->storage->version++; }
uint64_t gr_tensor_version(const gr_tensor *t) { return t->storage->version; }

gr_status gr_tensor_item(const gr_tensor *t, double *out) {
    if (t->numel != 1)
        return gr_fail(t->head.ctx, GR_ERR_SHAPE, "item: %s has %lld elements, expected one", gri_tensor_text(t),
                       (long long)t->numel);
    *out = tensor_read(t->data, (gr_dtype)t->dtype);
    return GR_OK;
}

static gr_status tensor_at(const gr_tensor *t, const int64_t *at, char **p) {
    int64_t offset = 0;
    for (int i = 0; i < t->rank; i++) {
        if (at[i] < 0 || at[i] >= t->dims[i])
            return gr_fail(t->head.ctx, GR_ERR_INDEX, "position %lld in dimension %d of %s",
                           (long long)at[i] + t->head.ctx->index_base, i + t->head.ctx->index_base, gri_tensor_text(t));
        offset += at[i] * t->strides[i];
    }
    *p = t->data + offset * (int64_t)gr_dtype_size((gr_dtype)t->dtype);
    return GR_OK;
}

gr_status gr_tensor_get(const gr_tensor *t, const int64_t *at, double *out) {
    char *p;
    GR_TRY(tensor_at(t, at, &p));
    *out = tensor_read(p, (gr_dtype)t->dtype);
    return GR_OK;
}

gr_status gr_tensor_set(gr_tensor *t, const int64_t *at, double value) {
    char *p;
    GR_TRY(gri_may_edit(t, "assignment"));
    GR_TRY(tensor_at(t, at, &p));
    GR_TRY(gri_check_value(t->head.ctx, (gr_dtype)t->dtype, value));
    tensor_write(p, (gr_dtype)t->dtype, value);
    t->storage->version++;
    return GR_OK;
}
