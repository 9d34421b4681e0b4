/* y = the positions of x that an index tensor lists, in its order and as often as it lists them.
 *
 *   x[…, n, …] index[k] → y[…, k, …]      y[…, j, …] = x[…, index[j], …]
 *
 * dx: dy[…, j, …] is added to zeros at index[j], for j = 0, 1, …: the op index_add, whose own derivative is
 * index_select again. Every element of dx is added up by one thread in that order, so its bits do not depend on how
 * many there are. The index is kept. */
#include "index.h"

#include <string.h>

#include "copy.h"
#include "parallel.h"
#include "vmath.h"

#define INDEX_PIECE (1 << 18) /* bytes moved by a piece; less work stays on one thread */
#define INDEX_WIDTH 128       /* bytes of a row's part, at least, where threads share rows */

/* Both sides as [outer, rows, inner], the inner elements contiguous; distances in bytes. `all` has one row for every
 * entry of the index, `some` one for every position; one of them is x or dy, the other the output. */
typedef struct index_side { char *data; int64_t outer, row; } index_side;
typedef struct index_plan {
    index_side all, some;
    const int64_t *index;
    int64_t base, skip; /* what positions count from; one of 0, 1, … that is passed over */
    int64_t outer, k, inner, size;
    int64_t cut; /* of a piece: rows of `all`, or columns */
    gr_dtype dtype;
    gri_mode mode;
} index_plan;

static inline int64_t index_at(const index_plan *p, int64_t j) { return p->index[j] - p->base; }

static bool index_side_of(const gr_tensor *t, int dim, index_side *s, int64_t *outer, int64_t *inner) {
    int64_t size = (int64_t)gri_size((gr_dtype)t->dtype), step, within;
    if (!gri_fold(dim, t->dims, t->strides, outer, &step)) return false;
    if (!gri_fold(t->rank - dim - 1, t->dims + dim + 1, t->strides + dim + 1, inner, &within)) return false;
    *s = (index_side){.data = t->data, .outer = step * size, .row = t->strides[dim] * size};
    return *inner <= 1 || within == 1;
}

/* False if a side does not lie as it must. */
static bool index_plan_set(index_plan *p, const gri_call *c, const gr_tensor *index, int dim, const gr_tensor *all,
                           const gr_tensor *some) {
    *p = (index_plan){.index = gri_index_data(index), .base = c->ctx->index_base, .skip = -1, .k = index->numel,
                      .dtype = (gr_dtype)all->dtype, .mode = c->mode};
    p->size = (int64_t)gri_size(p->dtype);
    return index_side_of(some, dim, &p->some, &p->outer, &p->inner) &&
           index_side_of(all, dim, &p->all, &p->outer, &p->inner);
}

static gr_status index_wanted(gri_call *c) {
    const gr_tensor *index = c->in[1];
    GR_TRY(gri_want_index(c, 1));
    if (index->rank > 1)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "the index is %s, expected one dimension", gri_tensor_text(index));
    return GR_OK;
}

static inline int index_dim(int64_t dim, const gr_tensor *t) { return (int)(dim < 0 ? dim + t->rank : dim); }

/* ---- index_select ---- */

static gr_status index_select_shape(gri_call *c) {
    const gri_index_attrs *a = c->attrs;
    int dim;
    GR_TRY(gri_dim(c->ctx, a->dim, c->in[0]->rank, &dim));
    GR_TRY(index_wanted(c));
    c->spec[0] = gri_spec_of(c->in[0]);
    c->spec[0].dims[dim] = c->in[1]->numel;
    int64_t n;
    return gri_numel(c->ctx, c->spec[0].dtype, c->spec[0].rank, c->spec[0].dims, &n);
}

/* Single elements, without a call for each. */
#define INDEX_TAKE(name, type)                                                                              \
    static void name(const index_plan *p, int64_t o, int64_t j, int64_t end) {                              \
        char *y = p->all.data + o * p->all.outer;                                                           \
        const char *x = p->some.data + o * p->some.outer;                                                   \
        for (; j < end; j++)                                                                                \
            *(type *)(void *)(y + j * p->all.row) = *(const type *)(const void *)(x + index_at(p, j) * p->some.row); \
    }
INDEX_TAKE(index_take_1, uint8_t)
INDEX_TAKE(index_take_4, uint32_t)
INDEX_TAKE(index_take_8, uint64_t)

static void index_take(const index_plan *p, int64_t o, int64_t j, int64_t end) {
    if (p->inner == 1 && p->mode == GRI_SET) {
        (p->size == 1 ? index_take_1 : p->size == 4 ? index_take_4 : index_take_8)(p, o, j, end);
        return;
    }
    char *y = p->all.data + o * p->all.outer;
    const char *x = p->some.data + o * p->some.outer;
    for (; j < end; j++)
        gri_copy_run(p->dtype, y + j * p->all.row, x + index_at(p, j) * p->some.row, p->inner, p->mode);
}

/* `cut` rows of the [outer, k] there are. */
static void index_take_piece(void *arg, int64_t piece) {
    const index_plan *p = arg;
    int64_t at = piece * p->cut, end = at + p->cut < p->outer * p->k ? at + p->cut : p->outer * p->k;
    while (at < end) {
        int64_t o = at / p->k, j = at % p->k, run = p->k - j < end - at ? p->k - j : end - at;
        index_take(p, o, j, j + run);
        at += run;
    }
}

static gr_status index_select_forward(gri_call *c) {
    const gr_tensor *x = c->in[0];
    int dim = index_dim(((const gri_index_attrs *)c->attrs)->dim, x);
    gr_tensor *index;
    index_plan p;
    GR_TRY(gri_index(c, 1, dim, x->rank, x->dims, &index));
    gr_status s = GR_OK;
    if (c->out[0]->numel == 0) goto done;
    if (!index_plan_set(&p, c, index, dim, c->out[0], x)) {
        s = gri_dense(c, index_select_forward);
        goto done;
    }
    int64_t rows = p.outer * p.k, bytes = p.inner * p.size;
    p.cut = INDEX_PIECE / bytes + 1;
    if (rows * bytes < 2 * INDEX_PIECE) p.cut = rows;
    gri_parallel(c->ctx, (rows + p.cut - 1) / p.cut, index_take_piece, &p);
    s = gri_poll(c->ctx);
done:
    gr_release(index);
    return s;
}
GR_KERNEL(index_select);

static gr_status index_select_rule(gri_grad *g) {
    const gri_index_attrs *a = g->attrs;
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    gri_index_add_attrs back = {.dim = a->dim, .size = x->dims[a->dim < 0 ? a->dim + x->rank : a->dim], .skip = -1};
    return gri_emit(g, 0, &gri_op_index_add, 2, GRI_TENSORS(g->dy[0], g->in[1]), &back);
}

static const gr_attr index_select_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(gri_index_attrs, dim), .value = 0}, GR_ATTR_END};

static const gr_case index_select_cases[] = {
    {.in = "3,2 i64:3", .give = "{{1,2},{3,4},{5,6}}, {3,1,3}", .want = "{{5,6},{1,2},{5,6}}"},
    {.in = "2,3 i64:2", .attrs = "dim=2", .give = "{{1,2,3},{4,5,6}}, {2,2}", .want = "{{2,2},{5,5}}"},
    {.in = "2,2,2 i64:1", .attrs = "dim=-2", .give = "{{{1,2},{3,4}},{{5,6},{7,8}}}, {2}",
     .want = "{{{3,4}},{{7,8}}}"},
    {.in = "4,3 i64(1..4):6"},
    {.in = "3,5,2 i64(1..5):4", .attrs = "dim=2"},
    {.in = "4,3 i64(1..4):0"},
    {0}};

GR_OP(index_select) = {
    .info = {.name = "index_select", .inputs = "x dim: index", .attrs = index_select_schema,
             .attr_size = sizeof(gri_index_attrs), .cases = index_select_cases,
             .doc = "The positions of dimension dim (the first if none is given) that index, an i64 tensor, lists:\n"
                    "in its order, and as often as it lists them."},
    .keeps = GRI_KEEP_IN(1),
    .shape = index_select_shape,
    .forward = index_select_kernels,
    .backward = index_select_rule,
};

/* ---- index_add: its derivative ---- */

static gr_status index_add_shape(gri_call *c) {
    const gri_index_add_attrs *a = c->attrs;
    const gr_tensor *dy = c->in[0];
    int64_t n;
    int dim;
    GR_TRY(gri_dim(c->ctx, a->dim, dy->rank, &dim));
    GR_TRY(index_wanted(c));
    if (dy->dims[dim] != c->in[1]->numel)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s has %lld positions in dimension %d, but the index %s lists %lld",
                       gri_tensor_text(dy), (long long)dy->dims[dim], dim + c->ctx->index_base,
                       gri_tensor_text(c->in[1]), (long long)c->in[1]->numel);
    c->spec[0] = gri_spec_of(dy);
    c->spec[0].dims[dim] = a->size;
    return gri_numel(c->ctx, (gr_dtype)dy->dtype, dy->rank, c->spec[0].dims, &n);
}

static gr_status index_add_forward(gri_call *c);

static void index_add_run(const index_plan *p, char *to, const char *from, int64_t n) {
    if (p->dtype != GRI_REAL) {
        gri_copy_run(p->dtype, to, from, n, GRI_ADD);
        return;
    }
    real *x = (real *)(void *)to;
    const real *dy = (const real *)(const void *)from;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] += dy[i];
}

/* A range of columns: no two pieces add to the same element. */
static void index_add_piece(void *arg, int64_t piece) {
    const index_plan *p = arg;
    int64_t across = (p->inner + p->cut - 1) / p->cut, column = piece % across * p->cut, o = piece / across;
    int64_t n = p->inner - column < p->cut ? p->inner - column : p->cut;
    char *x = p->some.data + o * p->some.outer + column * p->size;
    const char *dy = p->all.data + o * p->all.outer + column * p->size;
    for (int64_t j = 0; j < p->k; j++) {
        int64_t at = index_at(p, j);
        if (at != p->skip) index_add_run(p, x + at * p->some.row, dy + j * p->all.row, n);
    }
}

/* Rows in two parts for each thread, if they are long enough: shorter ones one thread adds up as fast as two. */
static int64_t index_add_cut(const index_plan *p, int threads) {
    int64_t wanted = (2 * threads + p->outer - 1) / p->outer, most = p->inner * p->size / INDEX_WIDTH;
    const int64_t line = 64 / p->size; /* a part does not begin within a cache line */
    if (wanted > most) wanted = most;
    return wanted > 1 ? (p->inner / wanted + line - 1) / line * line : p->inner;
}

/* dy and the index are row-major. */
static gr_status index_add_rows(gri_call *c, const gr_tensor *dy, const gr_tensor *index) {
    const gri_index_add_attrs *a = c->attrs;
    gr_tensor *x = c->out[0];
    index_plan p;
    if (x->numel && dy->numel && !index_plan_set(&p, c, index, index_dim(a->dim, x), dy, x))
        return gri_dense(c, index_add_forward);
    if (c->mode == GRI_SET) GR_TRY(gri_zero(c->ctx, x));
    if (x->numel == 0 || dy->numel == 0) return GR_OK;
    p.skip = a->skip;
    if (dy->numel * p.size >= 2 * INDEX_PIECE) {
        p.cut = index_add_cut(&p, c->ctx->threads);
        gri_parallel(c->ctx, p.outer * ((p.inner + p.cut - 1) / p.cut), index_add_piece, &p);
        return gri_poll(c->ctx);
    }
    p.cut = p.inner;
    for (int64_t o = 0; o < p.outer; o++) index_add_piece(&p, o);
    return GR_OK;
}

/* A copy of dy costs as much as dy; one of the output might be a whole table. */
static gr_status index_add_forward(gri_call *c) {
    const gr_tensor *x = c->out[0];
    gr_tensor *dy = NULL, *index;
    int dim = index_dim(((const gri_index_add_attrs *)c->attrs)->dim, x);
    GR_TRY(gri_index(c, 1, dim, x->rank, x->dims, &index));
    gr_status s = gri_tensor_dense(c->in[0], &dy);
    if (s == GR_OK) s = index_add_rows(c, dy, index);
    gr_release(dy);
    gr_release(index);
    return s;
}
GR_KERNEL(index_add);

/* Where the index is skip, the gradient of dy is 0. */
static gr_status index_add_rule(gri_grad *g) {
    const gri_index_add_attrs *a = g->attrs;
    gri_index_attrs take = {a->dim};
    gr_tensor *index = g->in[1], *rows, *skip, *mask;
    if (!gri_needs(g, 0)) return GR_OK;
    if (a->skip < 0) return gri_emit(g, 0, &gri_op_index_select, 2, GRI_TENSORS(g->dy[0], index), &take);
    gri_fill_attrs value = {.dtype = GR_I64, .value = (double)(a->skip + g->ctx->index_base)};
    const gri_spec *dy = gri_input_spec(g, 0);
    int dim = (int)(a->dim < 0 ? a->dim + dy->rank : a->dim);
    gri_shape_attrs column = {.shape = {.n = dy->rank - dim, .v = {index->numel, 1, 1, 1, 1, 1, 1, 1}}};
    GR_TRY(gri_eval(g, &rows, &gri_op_index_select, 2, GRI_TENSORS(g->dy[0], index), &take));
    GR_TRY(gri_eval(g, &skip, &gri_op_fill, 0, NULL, &value));
    GR_TRY(GRI_EVAL(g, &mask, eq, index, skip));
    GR_TRY(gri_eval(g, &mask, &gri_op_reshape, 1, &mask, &column));
    return gri_emit(g, 0, &gri_op_masked_fill, 2, GRI_TENSORS(rows, mask), &(double){0});
}

static const gr_attr index_add_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(gri_index_add_attrs, dim), .required = true},
    {"size", GR_ATTR_INT, offsetof(gri_index_add_attrs, size), .required = true},
    {"skip", GR_ATTR_INT, offsetof(gri_index_add_attrs, skip), .value = -1},
    GR_ATTR_END};

static const gr_case index_add_cases[] = {
    {.in = "3,2 i64:3", .attrs = "dim=1, size=4", .give = "{{1,2},{3,4},{5,6}}, {3,1,3}",
     .want = "{{3,4},{0,0},{6,8},{0,0}}"},
    {.in = "2,2 i64:2", .attrs = "dim=2, size=3", .give = "{{1,2},{3,4}}, {2,2}", .want = "{{0,3,0},{0,7,0}}"},
    {.in = "3,2 i64:3", .attrs = "dim=1, size=3, skip=2", .give = "{{1,2},{3,0/0},{5,6}}, {2,3,2}",
     .want = "{{0,0},{6,8},{0,0}}", .no_grad = true},
    {.in = "3,6,2 i64(1..5):6", .attrs = "dim=2, size=5"},
    {.in = "3,6,2 i64(1..5):6", .attrs = "dim=-2, size=5, skip=3"},
    {0}};

GR_OP(index_add) = {
    .info = {.name = "index_add", .inputs = "dy index", .attrs = index_add_schema,
             .attr_size = sizeof(gri_index_add_attrs),
             .hidden = true, .cases = index_add_cases,
             .doc = "Zeros with size positions in dimension dim, to which those of dy are added where index says;\n"
                    "nothing is added to the position skip, counted from 0."},
    .keeps = GRI_KEEP_IN(1),
    .shape = index_add_shape,
    .forward = index_add_kernels,
    .backward = index_add_rule,
};
