#include "iter.h"

#include <string.h>

#include "parallel.h"
#include "rows.h"

/* The loop of an elementwise kernel wants contiguous runs of its own types. Operands that are such already
 * are passed as they are (direct); a single value is spread over one buffer once (constant); everything
 * else (strided, broadcast, of another dtype) is gathered block by block into a buffer that stays in L1.
 * Results are scattered back the same way, which is also where "add" and dtype conversion happen. So every
 * kernel is one plain loop, and its strided, broadcast, accumulating and converting forms come for free.
 *
 * Small operands that need no gathering take a shorter way, without a plan: 10 elements in 12 ns. */

#define ITER_BLOCK 1024
#define ITER_OPERANDS (GRI_MAX_IN + GRI_MAX_OUT)

/* Each buffer lies elsewhere in its page than its neighbours: stores to one do not hold up loads from the next. */
typedef struct iter_buffers {
    _Alignas(64) char run[ITER_OPERANDS][ITER_BLOCK * 8 + 192];
} iter_buffers;

static inline int64_t iter_padded(int64_t n) { return (n + GRI_LANES - 1) & ~(int64_t)(GRI_LANES - 1); }

/* ---- runs that are not whole lanes ---------------------------------------------------------------------- */

typedef uint32_t __attribute__((may_alias)) iter_word;
typedef uint64_t __attribute__((may_alias)) iter_long;

/* to[0..n) = *from. */
static inline void iter_spread(void *restrict to, const void *restrict from, size_t size, int64_t n) {
    if (size == 4) {
        iter_word v = *(const iter_word *)from;
        for (int64_t i = 0; i < n; i++) ((iter_word *)to)[i] = v;
    } else if (size == 8) {
        iter_long v = *(const iter_long *)from;
        for (int64_t i = 0; i < n; i++) ((iter_long *)to)[i] = v;
    } else {
        memset(to, *(const uint8_t *)from, (size_t)n);
    }
}

/* Less than 128 bytes, where calling memcpy takes longer than copying. */
static inline void iter_move(char *restrict to, const char *restrict from, size_t bytes) {
#define ITER_MOVE(unit)                  \
    if (bytes & unit) {                  \
        memcpy(to, from, unit);          \
        to += unit, from += unit;        \
    }
    ITER_MOVE(64) ITER_MOVE(32) ITER_MOVE(16) ITER_MOVE(8) ITER_MOVE(4) ITER_MOVE(2) ITER_MOVE(1)
}

/* A full lane set: to[0..n) = from[0..n), then from[0] again: no invented value can raise or slow anything. */
static inline void iter_pad(void *restrict to, const void *restrict from, size_t size, int64_t n) {
    iter_spread(to, from, size, GRI_LANES);
    iter_move(to, from, (size_t)n * size);
}

/* ---- small and simple ----------------------------------------------------------------------------------- */

typedef struct iter_runs {
    int n_out, n;
    int64_t total;
    void *run[ITER_OPERANDS];
    uint8_t size[ITER_OPERANDS];
    uint32_t constant, roomy; /* bit sets: inputs that are single values, outputs that may be written to whole lanes */
} iter_runs;

/* Whole lanes of every operand as they lie in memory, what is left through one padded lane set each. */
static void iter_lanes(const iter_runs *r, gri_loop loop, const void *attrs) {
    _Alignas(64) char lane[ITER_OPERANDS][GRI_LANES * 8];
    void *rest[ITER_OPERANDS];
    int64_t tail = r->total % GRI_LANES, whole = r->total - tail;
    if (whole) loop(whole, r->run, attrs);
    if (!tail) return;
    for (int i = 0; i < r->n; i++) {
        char *there = (char *)r->run[i] + whole * r->size[i];
        rest[i] = r->roomy >> i & 1 ? there : lane[i];
        if (i >= r->n_out) iter_pad(lane[i], there, r->size[i], tail);
    }
    loop(GRI_LANES, rest, attrs);
    for (int i = 0; i < r->n_out; i++)
        if (rest[i] == lane[i]) iter_move((char *)r->run[i] + whole * r->size[i], lane[i], (size_t)tail * r->size[i]);
}

/* Is t the last there is in a block of ours, with room behind it for whole lanes? */
static inline bool iter_roomy(const gr_tensor *t, size_t size) {
    const gri_storage *s = t->storage;
    return t->data + t->numel * (int64_t)size == s->data + s->size &&
           t->data + iter_padded(t->numel) * (int64_t)size <= s->data + s->capacity;
}

/* Fills r; false unless every operand is contiguous or a single value, of the loop's own type. */
static inline bool iter_runs_set(iter_runs *r, const gri_call *c, gr_dtype real_type, const gr_dtype *types) {
    r->total = c->out[0]->numel;
    r->n_out = c->n_out;
    r->n = c->n_out + c->n_in;
    r->constant = r->roomy = 0;
    for (int i = 0; i < r->n; i++) {
        const gr_tensor *t = i < r->n_out ? c->out[i] : c->in[i - r->n_out];
        gr_dtype type = types ? types[i] : real_type;
        if (t->dtype != type) return false;
        if (!t->contiguous || t->numel != r->total) {
            if (t->numel != 1 || i < r->n_out) return false;
            r->constant |= 1u << i;
        }
        r->run[i] = t->data;
        r->size[i] = (uint8_t)gri_size(type);
    }
    return true;
}

/* At most ITER_BLOCK elements that need no gathering: true if it is so, and done. */
static bool iter_small(const gri_call *c, gri_loop loop, gr_dtype real_type, const gr_dtype *types, bool any) {
    iter_runs r;
    if (!iter_runs_set(&r, c, real_type, types)) return false;
    if (r.total == 0) return true;
    if (any && !r.constant && c->mode == GRI_SET) {
        loop(r.total, r.run, c->attrs);
        return true;
    }
    iter_buffers b;
    for (int i = 0; i < r.n; i++) {
        bool constant = r.constant >> i & 1;
        if (constant) iter_spread(b.run[i], r.run[i], r.size[i], iter_padded(r.total));
        if (constant || (i < r.n_out && c->mode == GRI_ADD)) r.run[i] = b.run[i];
        else if (i < r.n_out && iter_roomy(c->out[i], r.size[i])) r.roomy |= 1u << i;
    }
    if (any) loop(r.total, r.run, c->attrs);
    else iter_lanes(&r, loop, c->attrs);
    for (int i = 0; i < r.n_out && c->mode == GRI_ADD; i++)
        gri_copy_run((gr_dtype)c->out[i]->dtype, c->out[i]->data, r.run[i], r.total, GRI_ADD);
    return true;
}

/* ---- planning ------------------------------------------------------------------------------------------- */

typedef enum iter_how { ITER_DIRECT, ITER_CONSTANT, ITER_GATHER } iter_how;

typedef struct iter_operand {
    gri_strided view; /* dims and strides only when some operand is gathered; all have the same dims */
    gr_dtype type;    /* in the loop */
    uint8_t size;     /* of it */
    iter_how how;
} iter_operand;

typedef struct iter_plan {
    int n_out, n;
    int64_t total, piece, block;
    iter_operand op[ITER_OPERANDS];
    gri_loop loop;
    gri_fold_run fold; /* NULL: the results are stored */
    double *sums;      /* of the pieces, with fold */
    const void *attrs;
    gri_mode mode;
    bool any, direct; /* the loop takes any n; every operand is as it lies in memory */
} iter_plan;

static void iter_operand_set(iter_plan *p, int i, const gr_tensor *t, gr_dtype type, const gr_tensor *out) {
    iter_operand *o = &p->op[i];
    o->view.data = t->data;
    o->view.dtype = (gr_dtype)t->dtype;
    o->type = type;
    o->size = (uint8_t)gri_size(type);
    if (t->contiguous && t->numel == out->numel && t->dtype == type) o->how = ITER_DIRECT;
    else o->how = t->numel == 1 && i >= p->n_out ? ITER_CONSTANT : ITER_GATHER;
}

/* Strides of every operand over out's dims, then dims that all operands step through evenly are joined. */
static void iter_strides(iter_plan *p, gr_tensor *const *t, const gr_tensor *out) {
    int rank = 0;
    int64_t dims[GR_MAX_RANK] = {1};
    for (int i = 0; i < p->n; i++) p->op[i].view.strides[0] = 0;
    for (int d = 0; d < out->rank; d++) {
        if (out->dims[d] == 1) continue;
        int64_t step[ITER_OPERANDS];
        bool joins = rank > 0;
        for (int i = 0; i < p->n; i++) {
            int at = d - (out->rank - t[i]->rank);
            step[i] = at < 0 || t[i]->dims[at] == 1 ? 0 : t[i]->strides[at] * (int64_t)gri_size(p->op[i].view.dtype);
            if (joins && p->op[i].view.strides[rank - 1] != step[i] * out->dims[d]) joins = false;
        }
        if (!joins) dims[rank++] = 1;
        dims[rank - 1] *= out->dims[d];
        for (int i = 0; i < p->n; i++) p->op[i].view.strides[rank - 1] = step[i];
    }
    for (int i = 0; i < p->n; i++) {
        p->op[i].view.rank = rank ? rank : 1;
        memcpy(p->op[i].view.dims, dims, sizeof dims);
    }
}

/* ---- running -------------------------------------------------------------------------------------------- */

/* n elements from position at on: whole lanes, or at most ITER_BLOCK. Returns what fold makes of them, or 0. */
static double iter_block(const iter_plan *p, iter_buffers *b, int64_t at, int64_t n) {
    void *run[ITER_OPERANDS];
    int64_t padded = p->any ? n : iter_padded(n);
    for (int i = 0; i < p->n; i++) {
        const iter_operand *o = &p->op[i];
        char *there = o->view.data + at * o->size;
        bool direct = o->how == ITER_DIRECT && n == padded;
        run[i] = b->run[i];
        if (i < p->n_out) {
            if (direct && p->mode == GRI_SET && !p->fold) run[i] = there;
            continue;
        }
        if (direct) run[i] = there;
        if (direct || o->how == ITER_CONSTANT) continue;
        if (o->how == ITER_DIRECT) memcpy(run[i], there, (size_t)n * o->size);
        else gri_gather(&o->view, at, n, o->type, run[i]);
        if (n < padded) iter_spread((char *)run[i] + n * o->size, run[i], o->size, padded - n);
    }
    p->loop(padded, run, p->attrs);
    if (p->fold) return p->fold(n, run[0]);
    for (int i = 0; i < p->n_out; i++) {
        const iter_operand *o = &p->op[i];
        char *there = o->view.data + at * o->size;
        if (run[i] != (void *)b->run[i]) continue;
        if (o->how == ITER_GATHER) gri_scatter(&o->view, at, n, o->type, run[i], p->mode);
        else gri_copy_run(o->type, there, run[i], n, p->mode);
    }
    return 0;
}

static double iter_span(const iter_plan *p, int64_t from, int64_t to) {
    iter_buffers b;
    double sum = 0;
    for (int i = p->n_out; i < p->n; i++) {
        const iter_operand *o = &p->op[i];
        if (o->how != ITER_CONSTANT) continue;
        gri_strided one = {.data = o->view.data, .dtype = o->view.dtype, .rank = 1, .dims = {1}};
        gri_gather(&one, 0, 1, o->type, b.run[i]);
        int64_t n = to - from < p->block ? iter_padded(to - from) : p->block;
        iter_spread(b.run[i] + o->size, b.run[i], o->size, n - 1);
    }
    for (int64_t at = from; at < to; at += p->block) {
        int64_t n = to - at < p->block ? to - at : p->block, tail = n % GRI_LANES;
        if (n > ITER_BLOCK && tail && !p->any) { /* an all-direct run: only its tail needs padding */
            iter_block(p, &b, at, n - tail);
            iter_block(p, &b, at + n - tail, tail);
        } else {
            sum += iter_block(p, &b, at, n);
        }
    }
    return sum;
}

static void iter_piece(void *arg, int64_t piece) {
    const iter_plan *p = arg;
    int64_t from = piece * p->piece, to = from + p->piece;
    iter_span(p, from, to < p->total ? to : p->total);
}

/* All but how the work is cut. */
static void iter_plan_set(iter_plan *p, const gri_call *c, gr_tensor *out, gri_loop loop, gr_dtype real_type,
                          const gr_dtype *types, int cost) {
    gr_tensor *t[ITER_OPERANDS];
    bool gather = false;
    p->n_out = c->n_out;
    p->n = c->n_out + c->n_in;
    p->direct = c->mode == GRI_SET;
    for (int i = 0; i < p->n; i++) {
        t[i] = i == 0 ? out : i < c->n_out ? c->out[i] : c->in[i - c->n_out];
        iter_operand_set(p, i, t[i], types ? types[i] : real_type, out);
        if (p->op[i].how != ITER_DIRECT) p->direct = false;
        if (p->op[i].how == ITER_GATHER) gather = true;
    }
    if (gather) iter_strides(p, t, out);
    p->total = out->numel;
    p->loop = loop;
    p->fold = NULL;
    p->attrs = c->attrs;
    p->mode = c->mode;
    p->any = cost & GRI_ANY_N;
}

gr_status gri_map(gri_call *c, gri_loop loop, gr_dtype real_type, const gr_dtype *types, int cost) {
    gr_tensor *out = c->out[0];
    iter_plan p;
    if (out->numel <= ITER_BLOCK && iter_small(c, loop, real_type, types, cost & GRI_ANY_N)) return GR_OK;
    if (out->numel == 0) return GR_OK;
    iter_plan_set(&p, c, out, loop, real_type, types, cost);
    int64_t nanoseconds = p.total * (cost & ~GRI_ANY_N) / 1000;
    if (nanoseconds < 20000 || c->ctx->threads == 1) {
        p.block = p.direct ? p.total : ITER_BLOCK;
        iter_span(&p, 0, p.total);
        return GR_OK;
    }
    int64_t pieces = nanoseconds / 8000, most = 8 * (int64_t)c->ctx->threads;
    if (pieces > most) pieces = most;
    p.piece = (p.total / pieces + ITER_BLOCK) & ~(int64_t)(ITER_BLOCK - 1);
    p.block = p.direct ? p.piece : ITER_BLOCK;
    gri_parallel(c->ctx, (p.total + p.piece - 1) / p.piece, iter_piece, &p);
    return gri_poll(c->ctx);
}

gr_status gri_map_whole(gri_call *c, gri_loop reals, gri_loop wholes, gr_dtype real_type, int cost) {
    static const gr_dtype types[] = {GR_I64, GR_I64, GR_I64};
    bool whole = !gri_is_float(c->out[0]);
    for (int i = 0; whole && i < c->n_in; i++) whole = !gri_is_float(c->in[i]);
    return whole ? gri_map(c, wholes, GR_I64, types, cost) : gri_map(c, reals, real_type, NULL, cost);
}

/* ---- sums ----------------------------------------------------------------------------------------------- */

#define ITER_SEGMENT (32 * ITER_BLOCK)

static void iter_sum_pieces(void *arg, int64_t from, int64_t to) {
    const iter_plan *p = arg;
    for (int64_t k = from; k < to; k++) {
        int64_t end = p->total - k * ITER_SEGMENT < ITER_SEGMENT ? p->total : (k + 1) * ITER_SEGMENT;
        p->sums[k] = iter_span(p, k * ITER_SEGMENT, end);
    }
}

/* At most ITER_BLOCK elements as they lie in memory, for a loop that takes any n: true if it is so, and done. */
static bool iter_small_sum(const gri_call *c, gri_loop loop, gri_fold_run fold, gr_dtype real_type, double *sum) {
    _Alignas(64) char results[ITER_BLOCK * 8];
    iter_runs r;
    if (!iter_runs_set(&r, c, real_type, NULL) || r.constant) return false;
    r.run[0] = results;
    loop(r.total, r.run, c->attrs);
    *sum = fold(r.total, results);
    return true;
}

gr_status gri_map_sum(gri_call *c, const gri_spec *shape, gri_loop loop, gri_fold_run fold, gr_dtype real_type,
                      int cost, double *sum) {
    gr_tensor whole = {.dtype = (uint8_t)real_type, .rank = (uint8_t)shape->rank, .contiguous = 1};
    gri_call all = *c;
    iter_plan p;
    double one;
    size_t capacity = 0;
    whole.numel = gri_product(shape->rank, shape->dims);
    *sum = 0;
    if (whole.numel == 0) return GR_OK;
    all.n_out = 1;
    all.out[0] = &whole;
    bool small = whole.numel <= ITER_BLOCK && (cost & GRI_ANY_N);
    if (small && iter_small_sum(&all, loop, fold, real_type, sum)) return GR_OK;
    memcpy(whole.dims, shape->dims, sizeof whole.dims);
    gri_row_major(shape->rank, whole.dims, whole.strides);
    iter_plan_set(&p, &all, &whole, loop, real_type, NULL, cost);
    p.fold = fold;
    p.block = ITER_BLOCK;
    int64_t pieces = (p.total + ITER_SEGMENT - 1) / ITER_SEGMENT;
    p.sums = pieces == 1 ? &one : gri_block_new(c->ctx, (size_t)pieces * sizeof *p.sums, &capacity);
    if (!p.sums) return gr_fail(c->ctx, GR_ERR_MEMORY, "no memory for %lld partial sums", (long long)pieces);
    gri_rows(c->ctx, pieces, ITER_SEGMENT * (int64_t)(cost & ~GRI_ANY_N) / 1000, iter_sum_pieces, &p);
    for (int64_t k = 0; k < pieces; k++) *sum += p.sums[k];
    if (capacity) gri_block_delete(c->ctx, p.sums, capacity);
    return gri_poll(c->ctx);
}

/* ---- converting ----------------------------------------------------------------------------------------- */

#define ITER_COPY(name, type)                                       \
    static void name(int64_t n, void *const *p, const void *attrs) { \
        (void)attrs;                                                 \
        memcpy(p[0], p[1], (size_t)n * sizeof(type));                \
    }
ITER_COPY(iter_copy_1, uint8_t)
ITER_COPY(iter_copy_4, float)
ITER_COPY(iter_copy_8, double)

gr_status gri_convert(gr_ctx *ctx, gr_tensor *dst, const gr_tensor *src, gri_mode mode) {
    gr_dtype t = (gr_dtype)dst->dtype;
    gr_tensor *in[1] = {(gr_tensor *)src};
    gri_call c = {.ctx = ctx, .n_in = 1, .n_out = 1, .in = in, .out = {dst}, .mode = mode};
    size_t size = gri_size(t);
    return gri_map(&c, size == 1 ? iter_copy_1 : size == 4 ? iter_copy_4 : iter_copy_8, t, NULL, GRI_EXACT);
}
