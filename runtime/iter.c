#include "iter.h"

#include <string.h>

#include "parallel.h"

/* The loop of an elementwise kernel wants contiguous runs of its own types. Operands that are such already
 * are passed as they are (direct); a single value is spread over one buffer once (constant); everything
 * else (strided, broadcast, of another dtype) is gathered block by block into a buffer that stays in L1.
 * Results are scattered back the same way, which is also where "add" and dtype conversion happen. So every
 * kernel is one plain loop, and its strided, broadcast, accumulating and converting forms come for free. */

#define ITER_BLOCK 1024
#define ITER_OPERANDS (GRI_MAX_IN + GRI_MAX_OUT)

typedef enum iter_how { ITER_DIRECT, ITER_CONSTANT, ITER_GATHER } iter_how;

typedef struct iter_operand {
    char *data;
    gr_dtype dtype, type; /* in memory; in the loop */
    uint8_t size, type_size;
    iter_how how;
    int64_t strides[GR_MAX_RANK]; /* in bytes, 0 where broadcast */
} iter_operand;

typedef struct iter_plan {
    int n_out, n, rank;
    int64_t dims[GR_MAX_RANK], total, piece, block;
    iter_operand op[ITER_OPERANDS];
    gri_loop loop;
    const void *attrs;
    gri_mode mode;
} iter_plan;

/* ---- conversion of runs --------------------------------------------------------------------------------- */

/* Doubles to integers: what C leaves undefined is given a value here. NaN becomes 0, the rest saturates. */
static inline int64_t iter_to_i64(double v) {
    if (!(v > -9223372036854775808.0)) return v != v ? 0 : INT64_MIN;
    return v < 9223372036854775808.0 ? (int64_t)v : INT64_MAX;
}
static inline uint8_t iter_to_u8(double v) { return v > 0 ? (v < 255 ? (uint8_t)v : 255) : 0; }

#define ITER_F32(v) (float)(v)
#define ITER_F64(v) (double)(v)
#define ITER_I64(v) iter_to_i64((double)(v))
#define ITER_U8(v) iter_to_u8((double)(v))

/* dst[i] (contiguous) = src at byte stride; dst at byte stride = or += src (contiguous). */
#define ITER_CONVERT(from, ctype, to, dtype, conv)                                                            \
    static void iter_load_##from##_##to(void *d, const char *s, int64_t stride, int64_t n) {                   \
        dtype *dst = d;                                                                                        \
        for (int64_t i = 0; i < n; i++) dst[i] = conv(*(const ctype *)(const void *)(s + i * stride));         \
    }                                                                                                          \
    static void iter_store_##from##_##to(char *d, int64_t stride, const void *s, int64_t n, gri_mode mode) {   \
        const ctype *src = s;                                                                                  \
        if (mode == GRI_ADD) {                                                                                 \
            for (int64_t i = 0; i < n; i++) *(dtype *)(void *)(d + i * stride) += conv(src[i]);                \
        } else {                                                                                               \
            for (int64_t i = 0; i < n; i++) *(dtype *)(void *)(d + i * stride) = conv(src[i]);                 \
        }                                                                                                      \
    }
#define ITER_FROM(from, ctype)                            \
    ITER_CONVERT(from, ctype, f32, float, ITER_F32)       \
    ITER_CONVERT(from, ctype, f64, double, ITER_F64)      \
    ITER_CONVERT(from, ctype, i64, int64_t, from##_to_i64)\
    ITER_CONVERT(from, ctype, u8, uint8_t, from##_to_u8)
#define f32_to_i64 ITER_I64
#define f64_to_i64 ITER_I64
#define i64_to_i64 (int64_t)
#define u8_to_i64 (int64_t)
#define f32_to_u8 ITER_U8
#define f64_to_u8 ITER_U8
#define i64_to_u8(v) (uint8_t)((v) < 0 ? 0 : (v) > 255 ? 255 : (v))
#define u8_to_u8 (uint8_t)
ITER_FROM(f32, float)
ITER_FROM(f64, double)
ITER_FROM(i64, int64_t)
ITER_FROM(u8, uint8_t)

#define ITER_ROW(verb, from) \
    {iter_##verb##_##from##_f32, iter_##verb##_##from##_f64, iter_##verb##_##from##_i64, iter_##verb##_##from##_u8}
static void (*const iter_load[4][4])(void *, const char *, int64_t, int64_t) = {
    ITER_ROW(load, f32), ITER_ROW(load, f64), ITER_ROW(load, i64), ITER_ROW(load, u8)};
static void (*const iter_store[4][4])(char *, int64_t, const void *, int64_t, gri_mode) = {
    ITER_ROW(store, f32), ITER_ROW(store, f64), ITER_ROW(store, i64), ITER_ROW(store, u8)};

static inline void iter_load_run(const iter_operand *o, void *dst, const char *src, int64_t stride, int64_t n) {
    if (o->dtype == o->type && stride == o->size) {
        memcpy(dst, src, (size_t)n * o->size);
    } else {
        iter_load[o->dtype][o->type](dst, src, stride, n);
    }
}

static inline void iter_store_run(const iter_operand *o, char *dst, int64_t stride, const void *src, int64_t n,
                                  gri_mode mode) {
    if (o->dtype == o->type && stride == o->size && mode == GRI_SET) {
        memcpy(dst, src, (size_t)n * o->size);
    } else {
        iter_store[o->type][o->dtype](dst, stride, src, n, mode);
    }
}

/* ---- gather and scatter --------------------------------------------------------------------------------- */

/* Position `at` in row-major order as coordinates; returns the byte offset for the operand's strides. */
static int64_t iter_seek(int rank, const int64_t *dims, const iter_operand *o, int64_t at, int64_t *index) {
    int64_t offset = 0;
    for (int d = rank - 1; d >= 0; d--) {
        index[d] = at % dims[d];
        at /= dims[d];
        offset += index[d] * o->strides[d];
    }
    return offset;
}

/* After a run to the end of the last dimension: the next row's offset. */
static int64_t iter_carry(int rank, const int64_t *dims, const iter_operand *o, int64_t *index, int64_t offset) {
    int d = rank - 1;
    offset -= index[d] * o->strides[d];
    index[d] = 0;
    while (--d >= 0) {
        offset += o->strides[d];
        if (++index[d] < dims[d]) break;
        offset -= index[d] * o->strides[d];
        index[d] = 0;
    }
    return offset;
}

static void iter_gather(int rank, const int64_t *dims, const iter_operand *o, int64_t at, int64_t n, char *buffer) {
    int64_t index[GR_MAX_RANK], last = rank - 1, offset = iter_seek(rank, dims, o, at, index);
    while (n > 0) {
        int64_t run = dims[last] - index[last];
        if (run > n) run = n;
        iter_load_run(o, buffer, o->data + offset, o->strides[last], run);
        buffer += run * o->type_size;
        n -= run;
        index[last] += run;
        offset += run * o->strides[last];
        if (index[last] == dims[last]) offset = iter_carry(rank, dims, o, index, offset);
    }
}

static void iter_scatter(int rank, const int64_t *dims, const iter_operand *o, int64_t at, int64_t n, const char *buffer,
                         gri_mode mode) {
    int64_t index[GR_MAX_RANK], last = rank - 1, offset = iter_seek(rank, dims, o, at, index);
    while (n > 0) {
        int64_t run = dims[last] - index[last];
        if (run > n) run = n;
        iter_store_run(o, o->data + offset, o->strides[last], buffer, run, mode);
        buffer += run * o->type_size;
        n -= run;
        index[last] += run;
        offset += run * o->strides[last];
        if (index[last] == dims[last]) offset = iter_carry(rank, dims, o, index, offset);
    }
}

static iter_operand iter_operand_of(const gri_strided *s, gr_dtype type) {
    iter_operand o = {.data = s->data, .dtype = s->dtype, .type = type, .size = (uint8_t)gr_dtype_size(s->dtype),
                      .type_size = (uint8_t)gr_dtype_size(type)};
    memcpy(o.strides, s->strides, sizeof o.strides);
    return o;
}

void gri_gather(const gri_strided *s, int64_t at, int64_t n, gr_dtype type, void *dst) {
    iter_operand o = iter_operand_of(s, type);
    iter_gather(s->rank, s->dims, &o, at, n, dst);
}

void gri_scatter(const gri_strided *s, int64_t at, int64_t n, gr_dtype type, const void *src, gri_mode mode) {
    iter_operand o = iter_operand_of(s, type);
    iter_scatter(s->rank, s->dims, &o, at, n, src, mode);
}

/* ---- running -------------------------------------------------------------------------------------------- */

typedef struct iter_buffers {
    _Alignas(64) char run[ITER_OPERANDS][ITER_BLOCK * 8];
} iter_buffers;

/* Pads a run to whole lanes with its own first element: no invented value can raise or slow anything. */
static void iter_pad(char *buffer, int size, int64_t n, int64_t padded) {
    for (int64_t i = n; i < padded; i++) memcpy(buffer + i * size, buffer, (size_t)size);
}

static void iter_block(const iter_plan *p, iter_buffers *b, int64_t at, int64_t n) {
    void *run[ITER_OPERANDS];
    int64_t padded = (n + GRI_LANES - 1) & ~(int64_t)(GRI_LANES - 1);
    for (int i = 0; i < p->n; i++) {
        const iter_operand *o = &p->op[i];
        run[i] = b->run[i];
        bool direct = o->how == ITER_DIRECT && n == padded;
        if (i < p->n_out) {
            if (direct && p->mode == GRI_SET) run[i] = o->data + at * o->size;
        } else if (direct) {
            run[i] = o->data + at * o->size;
        } else if (o->how != ITER_CONSTANT) {
            if (o->how == ITER_DIRECT) memcpy(run[i], o->data + at * o->size, (size_t)n * o->size);
            else iter_gather(p->rank, p->dims, o, at, n, run[i]);
            iter_pad(run[i], o->type_size, n, padded);
        }
    }
    p->loop(padded, run, p->attrs);
    for (int i = 0; i < p->n_out; i++) {
        const iter_operand *o = &p->op[i];
        if (run[i] != (void *)b->run[i]) continue;
        if (o->how == ITER_GATHER) iter_scatter(p->rank, p->dims, o, at, n, run[i], p->mode);
        else iter_store_run(o, o->data + at * o->size, o->size, run[i], n, p->mode);
    }
}

static void iter_span(const iter_plan *p, int64_t from, int64_t to) {
    iter_buffers b;
    for (int i = p->n_out; i < p->n; i++) {
        const iter_operand *o = &p->op[i];
        if (o->how != ITER_CONSTANT) continue;
        int64_t n = to - from < p->block ? (to - from + GRI_LANES - 1) & ~(int64_t)(GRI_LANES - 1) : p->block;
        iter_load[o->dtype][o->type](b.run[i], o->data, 0, n);
    }
    for (int64_t at = from; at < to; at += p->block) {
        int64_t n = to - at < p->block ? to - at : p->block, tail = n % GRI_LANES;
        if (n > ITER_BLOCK && tail) { /* an all-direct run: only its tail needs padding */
            iter_block(p, &b, at, n - tail);
            iter_block(p, &b, at + n - tail, tail);
        } else {
            iter_block(p, &b, at, n);
        }
    }
}

static void iter_piece(void *arg, int64_t piece) {
    const iter_plan *p = arg;
    int64_t from = piece * p->piece, to = from + p->piece;
    iter_span(p, from, to < p->total ? to : p->total);
}

/* ---- planning ------------------------------------------------------------------------------------------- */

static void iter_operand_set(iter_plan *p, int i, const gr_tensor *t, gr_dtype type, const gr_tensor *out) {
    iter_operand *o = &p->op[i];
    o->data = t->data;
    o->dtype = (gr_dtype)t->dtype;
    o->type = type;
    o->size = (uint8_t)gr_dtype_size(o->dtype);
    o->type_size = (uint8_t)gr_dtype_size(type);
    if (t->contiguous && t->numel == out->numel) {
        o->how = o->dtype == type ? ITER_DIRECT : ITER_GATHER;
    } else {
        o->how = t->numel == 1 && i >= p->n_out ? ITER_CONSTANT : ITER_GATHER;
    }
}

/* Strides of every operand over out's dims, then dims that all operands step through evenly are joined. */
static void iter_strides(iter_plan *p, gr_tensor *const *t, const gr_tensor *out) {
    int rank = 0;
    for (int d = 0; d < out->rank; d++) {
        if (out->dims[d] == 1) continue;
        int64_t step[ITER_OPERANDS];
        bool joins = rank > 0;
        for (int i = 0; i < p->n; i++) {
            int at = d - (out->rank - t[i]->rank);
            step[i] = at < 0 || t[i]->dims[at] == 1 ? 0 : t[i]->strides[at] * p->op[i].size;
            if (joins && p->op[i].strides[rank - 1] != step[i] * out->dims[d]) joins = false;
        }
        if (!joins) p->dims[rank++] = 1;
        p->dims[rank - 1] *= out->dims[d];
        for (int i = 0; i < p->n; i++) p->op[i].strides[rank - 1] = step[i];
    }
    if (rank == 0) {
        p->dims[rank++] = 1;
        for (int i = 0; i < p->n; i++) p->op[i].strides[0] = 0;
    }
    p->rank = rank;
}

gr_status gri_map(gri_call *c, gri_loop loop, gr_dtype real_type, const gr_dtype *types, int cost) {
    iter_plan p;
    gr_tensor *t[ITER_OPERANDS], *out = c->out[0];
    bool direct = c->mode == GRI_SET, gather = false;
    p.n_out = c->n_out;
    p.n = c->n_out + c->n_in;
    for (int i = 0; i < p.n; i++) {
        t[i] = i < c->n_out ? c->out[i] : c->in[i - c->n_out];
        iter_operand_set(&p, i, t[i], types ? types[i] : real_type, out);
        if (p.op[i].how != ITER_DIRECT) direct = false;
        if (p.op[i].how == ITER_GATHER) gather = true;
    }
    if (out->numel == 0) return GR_OK;
    if (gather) iter_strides(&p, t, out);
    p.total = out->numel;
    p.loop = loop;
    p.attrs = c->attrs;
    p.mode = c->mode;
    int64_t nanoseconds = p.total * cost / 1000;
    if (nanoseconds < 20000 || c->ctx->threads == 1) {
        p.block = direct ? p.total : ITER_BLOCK;
        iter_span(&p, 0, p.total);
        return GR_OK;
    }
    int64_t pieces = nanoseconds / 8000, most = 8 * (int64_t)c->ctx->threads;
    if (pieces > most) pieces = most;
    p.piece = (p.total / pieces + ITER_BLOCK) & ~(int64_t)(ITER_BLOCK - 1);
    p.block = direct ? p.piece : ITER_BLOCK;
    gri_parallel(c->ctx, (p.total + p.piece - 1) / p.piece, iter_piece, &p);
    return gri_poll(c->ctx);
}

/* ---- copying -------------------------------------------------------------------------------------------- */

#define ITER_COPY(name, type)                                       \
    static void name(int64_t n, void *const *p, const void *attrs) { \
        (void)attrs;                                                 \
        memcpy(p[0], p[1], (size_t)n * sizeof(type));                \
    }
ITER_COPY(iter_copy_1, uint8_t)
ITER_COPY(iter_copy_4, float)
ITER_COPY(iter_copy_8, double)

gr_status gri_copy(gr_ctx *ctx, gr_tensor *dst, const gr_tensor *src, gri_mode mode) {
    gr_tensor *in[1] = {(gr_tensor *)src};
    gri_call c = {.ctx = ctx, .n_in = 1, .n_out = 1, .in = in, .out = {dst}, .mode = mode};
    gr_dtype t = (gr_dtype)dst->dtype;
    size_t size = gr_dtype_size(t);
    return gri_map(&c, size == 1 ? iter_copy_1 : size == 4 ? iter_copy_4 : iter_copy_8, t, NULL, GRI_COST_MOVE);
}
