/* y = the positions of x that an index tensor lists, in its order and as often as it lists them.
 *
 *   x[…, n, …] index[k] → y[…, k, …]      y[…, j, …] = x[…, index[j], …]
 *
 * dx: dy[…, j, …] is added to zeros at index[j], for j = 0, 1, …: the op index_add, whose own derivative is
 * index_select again. The order of the additions never depends on threads. The index is kept. */
#include "copy.h"
#include "parallel.h"

#define INDEX_PIECE (1 << 18) /* bytes moved by a piece; less work stays on one thread */
#define INDEX_CUTS 8          /* pieces a row is cut into where rows are added up */
#define INDEX_COLUMNS 64      /* elements of such a piece at least */

/* Both sides as [outer, rows, inner], the inner elements contiguous; distances in bytes. `all` has one row for every
 * entry of the index, `some` one for every position; one of them is x or dy, the other the output. */
typedef struct index_side { char *data; int64_t outer, row; } index_side;
typedef struct index_plan {
    index_side all, some;
    const char *index;
    int64_t base, index_step; /* what positions count from; bytes between entries */
    int64_t outer, k, inner, cut;
    gr_dtype dtype;
    gri_mode mode;
} index_plan;

static inline int64_t index_at(const index_plan *p, int64_t j) {
    return *(const int64_t *)(const void *)(p->index + j * p->index_step) - p->base;
}

static bool index_side_of(const gr_tensor *t, int dim, index_side *s, int64_t *outer, int64_t *inner) {
    int64_t size = (int64_t)gr_dtype_size((gr_dtype)t->dtype), step, within;
    if (!gri_fold(dim, t->dims, t->strides, outer, &step)) return false;
    if (!gri_fold(t->rank - dim - 1, t->dims + dim + 1, t->strides + dim + 1, inner, &within)) return false;
    *s = (index_side){.data = t->data, .outer = step * size, .row = t->strides[dim] * size};
    return *inner <= 1 || within == 1;
}

static bool index_plan_set(index_plan *p, const gri_call *c, int dim, const gr_tensor *all, const gr_tensor *some) {
    const gr_tensor *index = c->in[1];
    p->index = index->data;
    p->index_step = index->rank ? index->strides[0] * 8 : 8;
    p->base = c->ctx->index_base;
    p->k = index->numel;
    p->dtype = (gr_dtype)all->dtype;
    p->mode = c->mode;
    return index_side_of(some, dim, &p->some, &p->outer, &p->inner) &&
           index_side_of(all, dim, &p->all, &p->outer, &p->inner);
}

/* Every entry must be a position of dim in a tensor of these dims; checked before anything is written. */
static gr_status index_check(gri_call *c, int dim, int rank, const int64_t *dims) {
    const gr_tensor *index = c->in[1];
    int64_t base = c->ctx->index_base, step = index->rank ? index->strides[0] : 1;
    const int64_t *at = (const int64_t *)(const void *)index->data;
    for (int64_t j = 0; j < index->numel; j++) {
        int64_t v = at[j * step];
        if ((uint64_t)v - (uint64_t)base < (uint64_t)dims[dim]) continue;
        if (dims[dim] == 0)
            return gr_fail(c->ctx, GR_ERR_INDEX,
                           "position %lld (place %lld of the index): dimension %lld of %s is empty",
                           (long long)v, (long long)(j + base), (long long)(dim + base), gri_dims_text(rank, dims));
        return gr_fail(c->ctx, GR_ERR_INDEX,
                       "position %lld (place %lld of the index) is outside dimension %lld of %s: %lld to %lld%s",
                       (long long)v, (long long)(j + base), (long long)(dim + base), gri_dims_text(rank, dims),
                       (long long)base, (long long)(dims[dim] - 1 + base),
                       v == 0 && base == 1 ? "; positions count from 1, not from 0" : "");
    }
    return GR_OK;
}

static gr_status index_wanted(gri_call *c) {
    const gr_tensor *index = c->in[1];
    if (index->dtype != GR_I64)
        return gr_fail(c->ctx, GR_ERR_DTYPE, "the index is %s, expected i64; convert it with :to(\"i64\")",
                       gri_tensor_text(index));
    if (index->rank > 1)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "the index is %s, expected one dimension", gri_tensor_text(index));
    return GR_OK;
}

/* ---- index_select ---- */

typedef struct index_select_attrs { int64_t dim; } index_select_attrs;
typedef struct index_add_attrs { int64_t dim, size; } index_add_attrs;

static gr_status index_select_shape(gri_call *c) {
    const index_select_attrs *a = c->attrs;
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
    size_t size = gr_dtype_size(p->dtype);
    if (p->inner == 1 && p->mode == GRI_SET) {
        (size == 1 ? index_take_1 : size == 4 ? index_take_4 : index_take_8)(p, o, j, end);
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
    const index_select_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    int dim = (int)(a->dim < 0 ? a->dim + x->rank : a->dim);
    index_plan p;
    GR_TRY(index_check(c, dim, x->rank, x->dims));
    if (c->out[0]->numel == 0) return GR_OK;
    if (!index_plan_set(&p, c, dim, c->out[0], x)) return gri_dense(c, index_select_forward);
    int64_t rows = p.outer * p.k, bytes = p.inner * (int64_t)gr_dtype_size(p.dtype);
    p.cut = INDEX_PIECE / bytes + 1;
    if (rows * bytes < 2 * INDEX_PIECE) p.cut = rows;
    gri_parallel(c->ctx, (rows + p.cut - 1) / p.cut, index_take_piece, &p);
    return gri_poll(c->ctx);
}
GR_KERNEL(index_select);

static gr_status index_select_backward(gri_grad *g) {
    const index_select_attrs *a = g->attrs;
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    index_add_attrs back = {a->dim, x->dims[a->dim < 0 ? a->dim + x->rank : a->dim]};
    return gri_emit(g, 0, &gri_op_index_add, 2, GRI_TENSORS(g->dy[0], g->in[1]), &back);
}

static const gr_attr index_select_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(index_select_attrs, dim), .value = 0}, GR_ATTR_END};

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
             .attr_size = sizeof(index_select_attrs), .cases = index_select_cases,
             .doc = "The positions of dimension dim (the first if none is given) that index, an i64 tensor, lists:\n"
                    "in its order, and as often as it lists them."},
    .keeps = GRI_KEEP_IN(1),
    .shape = index_select_shape,
    .forward = index_select_kernels,
    .backward = index_select_backward,
};

/* ---- index_add: its derivative ---- */

static gr_status index_add_shape(gri_call *c) {
    const index_add_attrs *a = c->attrs;
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

/* A range of columns, so that no two pieces add to the same element. */
static void index_add_piece(void *arg, int64_t piece) {
    const index_plan *p = arg;
    int64_t cuts = (p->inner + p->cut - 1) / p->cut, from = piece % cuts * p->cut, o = piece / cuts;
    int64_t n = p->inner - from < p->cut ? p->inner - from : p->cut, skip = from * (int64_t)gr_dtype_size(p->dtype);
    char *x = p->some.data + o * p->some.outer + skip;
    const char *dy = p->all.data + o * p->all.outer + skip;
    for (int64_t j = 0; j < p->k; j++)
        gri_copy_run(p->dtype, x + index_at(p, j) * p->some.row, dy + j * p->all.row, n, GRI_ADD);
}

/* dy is row-major. */
static gr_status index_add_rows(gri_call *c, const gr_tensor *dy) {
    const index_add_attrs *a = c->attrs;
    gr_tensor *x = c->out[0];
    int dim = (int)(a->dim < 0 ? a->dim + x->rank : a->dim);
    index_plan p;
    GR_TRY(index_check(c, dim, x->rank, x->dims));
    if (x->numel && dy->numel && !index_plan_set(&p, c, dim, dy, x)) return gri_dense(c, index_add_forward);
    if (c->mode == GRI_SET) GR_TRY(gri_zero(c->ctx, x));
    if (x->numel == 0 || dy->numel == 0) return GR_OK;
    p.cut = p.inner / INDEX_CUTS > INDEX_COLUMNS ? p.inner / INDEX_CUTS : INDEX_COLUMNS;
    int64_t pieces = p.outer * ((p.inner + p.cut - 1) / p.cut);
    if (dy->numel * (int64_t)gr_dtype_size(p.dtype) >= 2 * INDEX_PIECE) {
        gri_parallel(c->ctx, pieces, index_add_piece, &p);
        return gri_poll(c->ctx);
    }
    for (int64_t i = 0; i < pieces; i++) index_add_piece(&p, i);
    return GR_OK;
}

/* A copy of dy costs as much as dy; one of the output might be a whole table. */
static gr_status index_add_forward(gri_call *c) {
    gr_tensor *dy;
    GR_TRY(gri_tensor_dense(c->in[0], &dy));
    gr_status s = index_add_rows(c, dy);
    gr_release(dy);
    return s;
}
GR_KERNEL(index_add);

static gr_status index_add_backward(gri_grad *g) {
    const index_add_attrs *a = g->attrs;
    return gri_emit(g, 0, &gri_op_index_select, 2, GRI_TENSORS(g->dy[0], g->in[1]), &(index_select_attrs){a->dim});
}

static const gr_attr index_add_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(index_add_attrs, dim), .required = true},
    {"size", GR_ATTR_INT, offsetof(index_add_attrs, size), .required = true},
    GR_ATTR_END};

static const gr_case index_add_cases[] = {
    {.in = "3,2 i64:3", .attrs = "dim=1, size=4", .give = "{{1,2},{3,4},{5,6}}, {3,1,3}",
     .want = "{{3,4},{0,0},{6,8},{0,0}}"},
    {.in = "2,2 i64:2", .attrs = "dim=2, size=3", .give = "{{1,2},{3,4}}, {2,2}", .want = "{{0,3,0},{0,7,0}}"},
    {.in = "3,6,2 i64(1..5):6", .attrs = "dim=2, size=5"},
    {0}};

GR_OP(index_add) = {
    .info = {.name = "index_add", .inputs = "dy index", .attrs = index_add_schema,
             .attr_size = sizeof(index_add_attrs),
             .hidden = true, .cases = index_add_cases,
             .doc = "Zeros with size positions in dimension dim, to which those of dy are added where index says."},
    .keeps = GRI_KEEP_IN(1),
    .shape = index_add_shape,
    .forward = index_add_kernels,
    .backward = index_add_backward,
};
