#include "recurrence.h"

#include "blas.h"
#include "copy.h"

#define RECURRENCE_PIECES 16 /* of a step, if it is large enough */
#define RECURRENCE_DEPTH 256 /* as many as a panel of the product's kernel */
#define RECURRENCE_LEAST (1 << 16) /* multiplications in a piece, some 0.7 us */

/* ---- what fits -------------------------------------------------------------------------------------------- */

gr_status gri_recurrence_check(gri_call *c, int weight, int64_t gates, int series, const char *name, int64_t width) {
    const gr_tensor *w = c->in[weight], *x = c->in[series];
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i]) GR_TRY(gri_want_float(c, i));
    if (w->rank != 2 || w->dims[1] < 1 || w->dims[0] != gates * w->dims[1])
        return gr_fail(c->ctx, GR_ERR_SHAPE, "weight_hh is %s, expected [%lld*hidden,hidden]", gri_tensor_text(w),
                       (long long)gates);
    if (x->rank != 3 || x->dims[0] < 1 || x->dims[2] != width * w->dims[1])
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is %s, expected [steps,batch,%lld] with at least one step", name,
                       gri_tensor_text(x), (long long)(width * w->dims[1]));
    return GR_OK;
}

gr_status gri_recurrence_want(gri_call *c, int i, const char *name, int rank, const int64_t *dims) {
    const gr_tensor *t = i < c->n_in ? c->in[i] : NULL;
    if (!t || gri_same_dims(t->rank, t->dims, rank, dims)) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is %s, expected %s", name, gri_tensor_text(t),
                   gri_dims_text(rank, dims));
}

/* ---- one under way ---------------------------------------------------------------------------------------- */

typedef struct recurrence_job {
    gr_ctx *ctx;
    gr_dtype dtype;
    size_t size;             /* of an element in bytes */
    int64_t batch, hidden, blocks, depth;
    int64_t ld;              /* elements between the rows of a state */
    int64_t chunks, groups, rows; /* of units; of sequences; sequences in a group */
    gr_tensor *whole, *rest; /* B[chunk][block][depth][GRI_UNITS] of whole chunks, and of the last, padded */
    char *memory, *state, *next, *product;
    size_t capacity;
    bool begun;              /* there is a state */
    gri_cell cell;
    void *arg;
    int64_t t, before;
} recurrence_job;

static int64_t recurrence_pad(int64_t n) { return (n + GRI_LANES - 1) / GRI_LANES * GRI_LANES; }

/* How a step is cut: from the shape alone. */
static void recurrence_cut(recurrence_job *j) {
    int64_t volume = j->batch * j->depth * j->blocks * j->hidden, want = volume / RECURRENCE_LEAST, groups;
    j->chunks = (j->hidden + GRI_UNITS - 1) / GRI_UNITS;
    if (want > RECURRENCE_PIECES) want = RECURRENCE_PIECES;
    groups = want / j->chunks > 1 ? want / j->chunks : 1;
    j->rows = j->batch > 0 ? (j->batch + groups - 1) / groups : 1;
    j->groups = (j->batch + j->rows - 1) / j->rows;
}

/* The states, and the products of a step. The rows of a state are not a multiple of a page apart, where they would
 * all be in one cache set. */
static gr_status recurrence_room(recurrence_job *j) {
    j->ld = recurrence_pad(j->depth) + GRI_LANES;
    size_t state = (size_t)(j->batch * j->ld) * j->size;
    size_t product = (size_t)(j->chunks * j->blocks * j->batch * GRI_UNITS) * j->size;
    j->memory = gri_block_new(j->ctx, 2 * state + product + 1, &j->capacity);
    if (!j->memory)
        return gr_fail(j->ctx, GR_ERR_MEMORY, "no memory for the states of %lld sequences", (long long)j->batch);
    j->state = j->memory;
    j->next = j->memory + state;
    j->product = j->memory + 2 * state;
    return GR_OK;
}

/* rs, cs: element strides of B in the weight. */
static gr_status recurrence_pack(recurrence_job *j, const gr_tensor *weight, int64_t rs, int64_t cs) {
    const int64_t whole = j->hidden / GRI_UNITS, rest = j->hidden % GRI_UNITS;
    int64_t dims[] = {whole, j->blocks, j->depth, GRI_UNITS};
    const int64_t strides[] = {GRI_UNITS * cs, j->hidden * cs, rs, cs};
    gr_tensor *part;
    if (whole) {
        GR_TRY(gr_tensor_empty(j->ctx, j->dtype, 4, dims, &j->whole));
        GR_TRY(gri_tensor_view(weight, 4, dims, strides, 0, &part));
        gr_status s = gri_copy(j->ctx, j->whole, part, GRI_SET);
        gr_release(part);
        GR_TRY(s);
    }
    if (!rest) return GR_OK;
    dims[3] = recurrence_pad(rest);
    GR_TRY(gr_tensor_new(j->ctx, j->dtype, 3, dims + 1, &j->rest));
    dims[3] = rest;
    GR_TRY(gri_tensor_view(weight, 3, dims + 1, strides + 1, whole * GRI_UNITS * cs, &part));
    gr_status s = gri_copy_into(j->ctx, j->rest, 2, 0, 1, part, GRI_SET);
    gr_release(part);
    return s;
}

static void recurrence_begin(recurrence_job *j, const gr_tensor *initial) {
    const size_t row = (size_t)j->hidden * j->size;
    j->begun = initial != NULL;
    for (int64_t n = 0; initial && n < j->batch; n++)
        memcpy(j->state + (size_t)(n * j->ld) * j->size, initial->data + (size_t)n * row, row);
}

/* ---- a step ----------------------------------------------------------------------------------------------- */

/* product[blocks][rows][pad] = the state's rows times a chunk of B; zeros before there is a state. In parts of one
 * block and RECURRENCE_DEPTH rows of B. */
static void recurrence_multiply(const recurrence_job *j, gri_cell_place *p, const char *panel) {
    char *product = (char *)(uintptr_t)p->product;
    const int64_t slices = (j->depth + RECURRENCE_DEPTH - 1) / RECURRENCE_DEPTH;
    p->parts = (int)(j->blocks * slices);
    for (p->part = 0; p->part < p->parts; p->part++) {
        int64_t b = p->part / slices, k = p->part % slices * RECURRENCE_DEPTH;
        char *to = product + (size_t)(b * p->block) * j->size;
        j->cell(j->arg, p);
        if (!j->begun) {
            memset(to, 0, (size_t)(p->rows * p->pad) * j->size);
            continue;
        }
        gri_gemm g = {.dtype = j->dtype, .m = p->rows, .n = p->pad,
                      .k = j->depth - k < RECURRENCE_DEPTH ? j->depth - k : RECURRENCE_DEPTH, .beta = k > 0,
                      .a = j->state + (size_t)(p->row * j->ld + k) * j->size, .rsa = j->ld, .csa = 1,
                      .b = panel + (size_t)((b * j->depth + k) * p->pad) * j->size, .rsb = p->pad, .csb = 1,
                      .c = to, .rsc = p->pad, .csc = 1};
        gri_gemm_piece(j->ctx->isa, &g);
    }
}

static void recurrence_piece(void *arg, int64_t piece) {
    const recurrence_job *j = arg;
    int64_t chunk = piece / j->groups, row = piece % j->groups * j->rows, unit = chunk * GRI_UNITS;
    gri_cell_place p = {.t = j->t, .before = j->before, .batch = j->batch, .hidden = j->hidden, .row = row,
                        .rows = j->batch - row < j->rows ? j->batch - row : j->rows, .unit = unit,
                        .width = j->hidden - unit < GRI_UNITS ? j->hidden - unit : GRI_UNITS, .ld = j->ld};
    p.pad = recurrence_pad(p.width);
    p.block = j->batch * p.pad;
    p.product = j->product + (size_t)(chunk * j->blocks * j->batch * GRI_UNITS + row * p.pad) * j->size;
    p.next = j->next + (size_t)(row * j->ld) * j->size;
    size_t offset = (size_t)(chunk * j->blocks * j->depth * GRI_UNITS) * j->size;
    recurrence_multiply(j, &p, p.width == GRI_UNITS ? j->whole->data + offset : j->rest->data);
    j->cell(j->arg, &p);
}

static void recurrence_step(recurrence_job *j) {
    bool brief = j->batch * j->depth * j->blocks * j->hidden < 1 << 20;
    (brief ? gri_parallel_brief : gri_parallel)(j->ctx, j->chunks * j->groups, recurrence_piece, j);
    char *last = j->state;
    j->state = j->next;
    j->next = last;
    j->begun = true;
}

gr_status gri_recurrence_run(const gri_recurrence *r, gri_cell cell, void *arg) {
    const gr_tensor *w = r->weight;
    int64_t hidden = w->dims[1], gates = w->dims[0] / hidden, t, before;
    recurrence_job j = {.ctx = r->ctx, .dtype = (gr_dtype)w->dtype, .size = gri_size((gr_dtype)w->dtype),
                        .batch = r->batch, .hidden = hidden, .blocks = r->forward ? gates : 1,
                        .depth = r->forward ? hidden : gates * hidden, .cell = cell, .arg = arg};
    recurrence_cut(&j);
    gr_status s = recurrence_room(&j);
    if (s == GR_OK) s = recurrence_pack(&j, w, w->strides[r->forward], w->strides[!r->forward]);
    if (s == GR_OK) recurrence_begin(&j, r->initial);
    for (int64_t i = 0; s == GR_OK && i < r->steps; i++) {
        gri_recurrence_time(r->steps, r->reverse, r->forward ? i : r->steps - 1 - i, &t, &before);
        j.t = t;
        j.before = before;
        recurrence_step(&j);
        s = gri_poll(r->ctx);
    }
    gr_release(j.whole);
    gr_release(j.rest);
    if (j.memory) gri_block_delete(r->ctx, j.memory, j.capacity);
    return s;
}

/* ---- what the weight and the first state get ---------------------------------------------------------------- */

gr_status gri_recurrence_emit(gri_grad *g, gr_tensor *dp, int state, bool reverse) {
    gr_tensor *weight = g->in[1], *h0 = state < g->n_in ? g->in[state] : NULL, *y = g->out[0];
    gr_tensor *later, *earlier, *first;
    int64_t more = dp->dims[0] - 1;
    gri_narrow_attrs a = {.start = more > 0 && !reverse, .length = more};
    gri_narrow_attrs b = {.start = more > 0 && reverse, .length = more};
    if (gri_needs(g, 1)) {
        GR_TRY(gri_eval(g, &later, &gri_op_narrow, 1, &dp, &a));
        GR_TRY(gri_eval(g, &earlier, &gri_op_narrow, 1, &y, &b));
        GR_TRY(GRI_EMIT(g, 1, linear_weight_grad, later, earlier));
    }
    if (!h0) return GR_OK;
    GR_TRY(gri_eval(g, &first, &gri_op_select, 1, &dp, &(gri_select_attrs){.index = reverse ? more : 0}));
    GR_TRY(GRI_EMIT(g, 1, linear_weight_grad, first, h0));
    return GRI_EMIT(g, state, linear_input_grad, first, weight);
}
