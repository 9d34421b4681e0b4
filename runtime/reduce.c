#include "reduce.h"

#include <string.h>

#include "parallel.h"

/* The dims of the input are sorted into kept and reduced ones, each with the largest stride outermost, and
 * joined where one steps evenly through the next. Then there are two ways, whichever reads along memory:
 *     fold       the reduced elements of one output are a run: take it into one accumulator;
 *     fold_rows  the kept elements are a run: take it, row by row, into an array of accumulators.
 * Elements of another dtype or stride are gathered into a buffer first. Very short sums (over the last 10
 * columns, say) also go by rows: 256 outputs share the cost of a call.
 *
 * The unit of work is a chunk of outputs times a segment of the reduced positions. Both are chosen from the
 * shape alone. With one segment a unit finishes its outputs; with several it leaves its accumulators in
 * `partial`, to be joined in order. */

#define REDUCE_OUTPUTS 256     /* of a chunk, at most */
#define REDUCE_SEGMENT 32768   /* elements of a unit, about: some 4 us of work, 128 KiB of f32 */
#define REDUCE_ENOUGH 64       /* chunks from which segments are not needed to keep the threads busy */
#define REDUCE_ALONE 65536     /* elements that one thread does at once: some 8 us */
#define REDUCE_BRIEF 200000    /* elements for which no worker is woken */
#define REDUCE_SHORT 32        /* runs below this length go by rows if there are outputs enough */
#define REDUCE_BUFFER 1024     /* elements gathered at a time */
#define REDUCE_WIDEN 8192      /* elements from which wide rows save more than the joins at their end cost */

typedef struct reduce_plan {
    const gri_reduction *r;
    const void *attrs;
    gr_dtype type;
    gri_mode mode;
    gri_strided kept, reduced; /* both start at the first element of the input */
    gri_strided out;           /* the output over the kept dims */
    int64_t size;              /* bytes of an element as the kernel sees it */
    int64_t outputs, count;
    bool rows, direct;
    int64_t inner, chunk, per_inner, chunks; /* each `inner` outputs are cut into per_inner chunks */
    int64_t segment, segments, group;        /* units of a piece */
    char *partial;                           /* [segments][outputs] accumulators */
} reduce_plan;

typedef union reduce_buffer {
    _Alignas(64) char bytes[REDUCE_BUFFER * 8];
} reduce_buffer;

/* ---- one output at a time ------------------------------------------------------------------------------- */

/* Byte offset of position `at`; *rest: how many positions follow in the last dim, itself included. */
static int64_t reduce_seek(const gri_strided *s, int64_t at, int64_t *rest) {
    int last = s->rank - 1;
    if (last == 0) {
        *rest = s->dims[0] - at;
        return at * s->strides[0];
    }
    int64_t i = at % s->dims[last], offset = i * s->strides[last];
    *rest = s->dims[last] - i;
    at /= s->dims[last];
    for (int d = last - 1; d >= 0; d--) {
        offset += at % s->dims[d] * s->strides[d];
        at /= s->dims[d];
    }
    return offset;
}

static void reduce_direct_fold(const reduce_plan *p, void *acc, int64_t offset, int64_t from, int64_t to) {
    const gri_strided *x = &p->reduced;
    while (from < to) {
        int64_t n, at = offset + reduce_seek(x, from, &n);
        if (n > to - from) n = to - from;
        p->r->fold(acc, n, x->data + at, from, p->attrs);
        from += n;
    }
}

/* The reduced elements from .. to-1 of outputs first .. first + n-1, each of which is one run. */
static void reduce_direct_each(const reduce_plan *p, char *acc, int64_t first, int64_t n, int64_t from, int64_t to) {
    const gri_strided *k = &p->kept;
    int64_t step = k->strides[k->rank - 1] / p->size, size = (int64_t)p->r->acc_size, run;
    for (int64_t j = 0; j < n; j += run) {
        const char *x = k->data + reduce_seek(k, first + j, &run) + from * p->size;
        if (run > n - j) run = n - j;
        if (p->r->fold_each) {
            p->r->fold_each(acc + j * size, run, to - from, x, step, from, p->attrs);
            continue;
        }
        for (int64_t i = 0; i < run; i++)
            p->r->fold(acc + (j + i) * size, to - from, x + i * step * p->size, from, p->attrs);
    }
}

static void reduce_gathered_fold(const reduce_plan *p, void *acc, int64_t offset, int64_t from, int64_t to,
                                 reduce_buffer *b) {
    gri_strided x = p->reduced;
    x.data += offset;
    while (from < to) {
        int64_t n = to - from < REDUCE_BUFFER ? to - from : REDUCE_BUFFER;
        gri_gather(&x, from, n, p->type, b->bytes);
        p->r->fold(acc, n, b->bytes, from, p->attrs);
        from += n;
    }
}

/* ---- rows of outputs ------------------------------------------------------------------------------------ */

/* Rows of few outputs that lie one behind the other are taken as fewer, wider rows: acc holds k accumulators
 * of each output, joined at the end. */
static void reduce_wide_rows(const reduce_plan *p, char *acc, int64_t n, int64_t rows, const char *x, int64_t at) {
    int64_t k = REDUCE_OUTPUTS / n, size = (int64_t)p->r->acc_size;
    if (k > rows) k = rows;
    p->r->start((k - 1) * n, acc + n * size, p->attrs);
    p->r->fold_rows(acc, k * n, rows / k, x, k * n, at, p->attrs);
    p->r->fold_rows(acc, n, rows % k, x + rows / k * k * n * p->size, n, at, p->attrs);
    for (int64_t j = n; j < k * n; j++) p->r->join(acc + j % n * size, acc + j * size, p->attrs);
}

static void reduce_direct_rows(const reduce_plan *p, char *acc, int64_t n, int64_t offset, int64_t from, int64_t to) {
    const gri_strided *x = &p->reduced;
    int64_t stride = x->strides[x->rank - 1] / p->size;
    while (from < to) {
        int64_t rows;
        const char *at = x->data + offset + reduce_seek(x, from, &rows);
        if (rows > to - from) rows = to - from;
        bool runs_on = stride == n && n <= REDUCE_OUTPUTS / 2 && !p->r->positions;
        if (runs_on && n * rows >= REDUCE_WIDEN)
            reduce_wide_rows(p, acc, n, rows, at, from);
        else
            p->r->fold_rows(acc, n, rows, at, stride, from, p->attrs);
        from += rows;
    }
}

/* *x = [count, n], the reduced elements of outputs first .. first + n - 1, if it takes no more dims than that. */
static bool reduce_matrix(const reduce_plan *p, int64_t first, int64_t n, gri_strided *x) {
    if (p->kept.rank > 1 || p->reduced.rank > 1) return false;
    *x = p->reduced;
    x->data += first * p->kept.strides[0];
    x->rank = 2;
    x->dims[1] = n;
    x->strides[1] = p->kept.strides[0];
    return true;
}

static void reduce_gathered_rows(const reduce_plan *p, char *acc, int64_t first, int64_t n, int64_t from, int64_t to,
                                 reduce_buffer *b) {
    gri_strided matrix;
    bool whole = reduce_matrix(p, first, n, &matrix);
    while (from < to) {
        int64_t rows = REDUCE_BUFFER / n, rest;
        if (rows > to - from) rows = to - from;
        if (whole) gri_gather(&matrix, from * n, rows * n, p->type, b->bytes);
        for (int64_t i = 0; i < rows && !whole; i++) {
            gri_strided x = p->kept;
            x.data += reduce_seek(&p->reduced, from + i, &rest);
            gri_gather(&x, first, n, p->type, b->bytes + i * n * p->size);
        }
        p->r->fold_rows(acc, n, rows, b->bytes, n, from, p->attrs);
        from += rows;
    }
}

/* ---- units ---------------------------------------------------------------------------------------------- */

static void reduce_finish(const reduce_plan *p, int64_t first, int64_t n, const void *acc) {
    double y[REDUCE_OUTPUTS]; /* room for any dtype */
    p->r->finish(n, y, acc, p->count, p->attrs);
    gri_scatter(&p->out, first, n, p->r->result, y, p->mode);
}

static void reduce_unit(const reduce_plan *p, int64_t unit, char *acc, reduce_buffer *b) {
    int64_t c = unit % p->chunks, from = unit / p->chunks * p->segment, to = from + p->segment;
    int64_t within = c % p->per_inner * p->chunk, first = c / p->per_inner * p->inner + within, n = p->inner - within;
    int64_t size = (int64_t)p->r->acc_size, rest;
    if (n > p->chunk) n = p->chunk;
    if (to > p->count) to = p->count;
    p->r->start(n, acc, p->attrs);
    if (!p->rows && p->direct && p->reduced.rank == 1) {
        reduce_direct_each(p, acc, first, n, from, to);
    } else if (!p->rows) {
        for (int64_t j = 0; j < n; j++) {
            int64_t offset = reduce_seek(&p->kept, first + j, &rest);
            if (p->direct) reduce_direct_fold(p, acc + j * size, offset, from, to);
            else reduce_gathered_fold(p, acc + j * size, offset, from, to, b);
        }
    } else if (p->direct) {
        reduce_direct_rows(p, acc, n, reduce_seek(&p->kept, first, &rest), from, to);
    } else {
        reduce_gathered_rows(p, acc, first, n, from, to, b);
    }
    if (p->segments == 1) reduce_finish(p, first, n, acc);
    else memcpy(p->partial + (unit / p->chunks * p->outputs + first) * size, acc, (size_t)(n * size));
}

static void reduce_piece(void *arg, int64_t piece) {
    const reduce_plan *p = arg;
    _Alignas(64) char acc[REDUCE_OUTPUTS * GRI_ACC_MAX];
    reduce_buffer b;
    int64_t units = p->chunks * p->segments, to = (piece + 1) * p->group;
    for (int64_t u = piece * p->group; u < to && u < units; u++) reduce_unit(p, u, acc, &b);
}

static void reduce_join(const reduce_plan *p) {
    int64_t size = (int64_t)p->r->acc_size;
    for (int64_t s = 1; s < p->segments; s++)
        for (int64_t j = 0; j < p->outputs; j++)
            p->r->join(p->partial + j * size, p->partial + (s * p->outputs + j) * size, p->attrs);
    for (int64_t j = 0; j < p->outputs; j += REDUCE_OUTPUTS)
        reduce_finish(p, j, p->outputs - j < REDUCE_OUTPUTS ? p->outputs - j : REDUCE_OUTPUTS, p->partial + j * size);
}

/* ---- planning ------------------------------------------------------------------------------------------- */

static void reduce_add_dim(gri_strided *s, int64_t n, int64_t stride) {
    s->dims[s->rank] = n;
    s->strides[s->rank++] = stride;
}

/* Outermost the dim with the largest stride; `along` (NULL: none) is permuted in the same way. */
static void reduce_sort(gri_strided *s, gri_strided *along) {
    for (int i = 1; i < s->rank; i++) {
        for (int k = i; k > 0 && s->strides[k - 1] < s->strides[k]; k--) {
            int64_t n = s->dims[k], stride = s->strides[k];
            s->dims[k] = s->dims[k - 1], s->strides[k] = s->strides[k - 1];
            s->dims[k - 1] = n, s->strides[k - 1] = stride;
            if (!along) continue;
            stride = along->strides[k];
            along->strides[k] = along->strides[k - 1];
            along->strides[k - 1] = stride;
        }
    }
}

static void reduce_collapse(gri_strided *s, gri_strided *along) {
    int rank = 0;
    for (int d = 0; d < s->rank; d++) {
        bool joins = rank > 0 && s->strides[rank - 1] == s->strides[d] * s->dims[d];
        if (joins && along) joins = along->strides[rank - 1] == along->strides[d] * s->dims[d];
        if (joins) s->dims[rank - 1] *= s->dims[d];
        else s->dims[rank++] = s->dims[d];
        s->strides[rank - 1] = s->strides[d];
        if (along) along->strides[rank - 1] = along->strides[d];
    }
    s->rank = rank;
    if (rank == 0) {
        reduce_add_dim(s, 1, 0);
        if (along) along->strides[0] = 0;
    }
    if (!along) return;
    along->rank = s->rank;
    memcpy(along->dims, s->dims, sizeof s->dims);
}

static void reduce_dims(reduce_plan *p, const gr_tensor *x, const gr_tensor *y, uint32_t mask) {
    int64_t size = (int64_t)gr_dtype_size((gr_dtype)x->dtype), out_size = (int64_t)gr_dtype_size((gr_dtype)y->dtype);
    int at = 0;
    p->kept = p->reduced = (gri_strided){.data = x->data, .dtype = (gr_dtype)x->dtype};
    p->out = (gri_strided){.data = y->data, .dtype = (gr_dtype)y->dtype};
    p->outputs = p->count = 1;
    for (int d = 0; d < x->rank; d++) {
        bool reduced = mask >> d & 1;
        *(reduced ? &p->count : &p->outputs) *= x->dims[d];
        if (x->dims[d] == 1) continue;
        reduce_add_dim(reduced ? &p->reduced : &p->kept, x->dims[d], x->strides[d] * size);
        if (reduced) continue;
        while (y->dims[at] == 1) at++;
        reduce_add_dim(&p->out, y->dims[at], y->strides[at] * out_size);
        at++;
    }
    reduce_sort(&p->kept, &p->out);
    if (!p->r->positions) reduce_sort(&p->reduced, NULL);
    reduce_collapse(&p->kept, &p->out);
    reduce_collapse(&p->reduced, NULL);
}

/* How to read, and in which chunks and segments. */
static void reduce_cut(reduce_plan *p) {
    const gri_strided *k = &p->kept, *r = &p->reduced;
    int64_t kept_run = k->dims[k->rank - 1], kept_stride = k->strides[k->rank - 1];
    int64_t run = r->dims[r->rank - 1], stride = r->strides[r->rank - 1];
    int64_t narrow = p->r->narrow ? p->r->narrow : REDUCE_SHORT;
    bool same = p->type == k->dtype;
    p->rows = p->r->fold_rows && p->outputs > 1 &&
              (kept_stride < stride || (p->count < narrow && p->outputs >= REDUCE_ENOUGH));
    p->direct = same && (p->rows ? kept_stride == p->size : stride == p->size && (r->rank == 1 || run >= 64));
    p->inner = p->rows && p->direct ? kept_run : p->outputs;
    p->chunk = p->inner < REDUCE_OUTPUTS ? p->inner : REDUCE_OUTPUTS;
    if (!p->rows && p->chunk * p->count > REDUCE_SEGMENT)
        p->chunk = p->count < REDUCE_SEGMENT ? REDUCE_SEGMENT / p->count : 1;
    if (p->rows && !p->direct && p->count * p->chunk > REDUCE_BUFFER && p->count <= REDUCE_SHORT)
        p->chunk = REDUCE_BUFFER / p->count; /* each output's elements fit into the buffer together */
    p->per_inner = (p->inner + p->chunk - 1) / p->chunk;
    p->chunks = p->outputs / p->inner * p->per_inner;
    int64_t work = p->chunk * (p->count ? p->count : 1);
    p->segments = p->chunks < REDUCE_ENOUGH ? (work + REDUCE_SEGMENT - 1) / REDUCE_SEGMENT : 1;
    p->segment = (p->count + p->segments - 1) / p->segments;
    if (p->segment) p->segments = (p->count + p->segment - 1) / p->segment;
    p->group = work < REDUCE_SEGMENT ? REDUCE_SEGMENT / work : 1;
}

/* One output of one run, as a loss or a norm of something small: as reduce_unit would, without the plan. */
static gr_status reduce_run(gri_call *c, const gri_reduction *r) {
    const gr_tensor *x = c->in[0], *y = c->out[0];
    _Alignas(16) char acc[GRI_ACC_MAX];
    gri_strided out = {.data = y->data, .dtype = (gr_dtype)y->dtype, .rank = 1, .dims = {1}};
    double value;
    r->start(1, acc, c->attrs);
    r->fold(acc, x->numel, x->data, 0, c->attrs);
    r->finish(1, &value, acc, x->numel, c->attrs);
    gri_scatter(&out, 0, 1, r->result, &value, c->mode);
    return GR_OK;
}

gr_status gri_reduce(gri_call *c, const gri_reduction *r, gr_dtype type, uint32_t mask) {
    gr_tensor *x = c->in[0], *y = c->out[0];
    size_t capacity = 0;
    if (y->numel == 0) return GR_OK;
    if (y->numel == 1 && x->contiguous && x->dtype == type && x->numel <= REDUCE_SEGMENT) return reduce_run(c, r);
    reduce_plan p = {.r = r, .attrs = c->attrs, .type = type, .mode = c->mode, .size = (int64_t)gr_dtype_size(type)};
    reduce_dims(&p, x, y, mask);
    reduce_cut(&p);
    if (p.segments > 1) {
        size_t bytes = (size_t)(p.segments * p.outputs) * r->acc_size;
        p.partial = gri_block_new(c->ctx, bytes, &capacity);
        if (!p.partial) return gr_fail(c->ctx, GR_ERR_MEMORY, "no memory for %zu bytes of partial results", bytes);
    }
    int64_t pieces = (p.chunks * p.segments + p.group - 1) / p.group;
    if (x->numel <= REDUCE_ALONE)
        for (int64_t i = 0; i < pieces; i++) reduce_piece(&p, i);
    else
        (x->numel <= REDUCE_BRIEF ? gri_parallel_brief : gri_parallel)(c->ctx, pieces, reduce_piece, &p);
    if (p.segments > 1) {
        reduce_join(&p);
        gri_block_delete(c->ctx, p.partial, capacity);
    }
    return gri_poll(c->ctx);
}

void gri_reduced_spec(const gr_tensor *x, uint32_t mask, bool keepdim, gr_dtype dtype, gri_spec *out) {
    out->dtype = dtype;
    out->rank = 0;
    for (int d = 0; d < x->rank; d++) {
        bool reduced = mask >> d & 1;
        if (!reduced || keepdim) out->dims[out->rank++] = reduced ? 1 : x->dims[d];
    }
}

gr_status gri_want_some(gri_call *c, uint32_t mask) {
    const gr_tensor *x = c->in[0];
    int64_t count = 1, outputs = 1;
    for (int d = 0; d < x->rank; d++) *(mask >> d & 1 ? &count : &outputs) *= x->dims[d];
    if (count == 0 && outputs > 0)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is empty along the reduced dimensions: there is none to choose",
                       gri_tensor_text(x));
    return GR_OK;
}

/* ---- for backward rules --------------------------------------------------------------------------------- */

gr_status gri_keep_dims(gri_grad *g, gr_tensor *t, uint32_t mask, gr_tensor **out) {
    const gri_spec *x = gri_input_spec(g, 0);
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    *out = t;
    if (t->rank == x->rank) return GR_OK;
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = mask >> d & 1 ? 1 : x->dims[d];
    return gri_eval(g, out, &gri_op_reshape, 1, &t, &a);
}

gr_status gri_emit_spread(gri_grad *g, gr_tensor *t, uint32_t mask) {
    const gri_spec *x = gri_input_spec(g, 0);
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    GR_TRY(gri_keep_dims(g, t, mask, &t));
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    return gri_emit(g, 0, &gri_op_expand, 1, &t, &a);
}

gr_status gri_share(gri_grad *g, gr_tensor *dy, gr_tensor *x, gr_tensor *y, const gr_dims *dim, gr_tensor **ties,
                    gr_tensor **share) {
    gri_dtype_attrs dtype = {x->dtype};
    gri_reduce_attrs over = {.dim = *dim, .keepdim = true};
    GR_TRY(GRI_EVAL(g, ties, eq, x, y));
    GR_TRY(gri_eval(g, ties, &gri_op_to, 1, ties, &dtype));
    GR_TRY(gri_eval(g, share, &gri_op_sum, 1, ties, &over));
    return GRI_EVAL(g, share, div, dy, *share);
}
