/* Elements whose position along one dimension an index tensor gives, each its own:
 *
 *   gather       y[i,j,k] = x[i, index[i,j,k], k]            x[n,m,p] index[a,b,c] → y[a,b,c], here with dim the second
 *   scatter_add  y = x, then y[i, index[i,j,k], k] += src[i,j,k]
 *   scatter      y = x, then y[i, index[i,j,k], k]  = src[i,j,k], the last one in row-major order where several meet
 *
 * The index may be smaller than x along the other dimensions. Derivatives: gather's is a scatter_add into zeros
 * (gather_backward), scatter_add's with respect to src a gather, scatter's with respect to src a gather of those that
 * were not overwritten, with respect to x zero where anything was written. The index is kept.
 *
 * Elements that meet are written by one thread in row-major order: the bits do not depend on how many there are. */
#include "index.h"

#include "copy.h"
#include "rows.h"
#include "vmath.h"

#define GATHER_SHORT 8 /* a shorter last axis is not what the inner loop runs along if there is a longer one */
#define GATHER_BLOCK 4096

/* x is the table, y the items, shaped as the index. Along `run` goes the inner loop, `dim` comes next unless it is run
 * itself, the rest is outside; strides in elements. */
typedef struct gather_axis { int64_t n, index, table, item; } gather_axis;
typedef struct gather_plan {
    gather_axis run, dim, outer[GR_MAX_RANK];
    int rank;            /* of outer */
    int64_t count;       /* of outer */
    int64_t block, cuts; /* run elements at a time, and how many times */
    int64_t step, base;  /* of the table along dim; what positions count from */
    const int64_t *index;
    char *table, *item;
    int64_t size;
    void (*line)(const struct gather_plan *p, int64_t n, const int64_t *index, char *table, char *item);
} gather_plan;

/* One line of n elements; what it does to a table element t and an item i. Where index and items are contiguous the
 * line runs either along dim (each t anywhere) or across it (each t in its own column). */
#define GATHER_LOOP(type, body, a, p, q, r)                                                   \
    for (int64_t j = 0; j < n; j++) {                                                         \
        type *t = x + (index[j * (a)] - base) * (p) + j * (q), *i = y + j * (r);              \
        body;                                                                                 \
    }
#define GATHER_LINE(name, type, body)                                                         \
    static void name(const gather_plan *p, int64_t n, const int64_t *index, char *table, char *item) { \
        const int64_t at = p->run.index, along = p->run.table, next = p->run.item;            \
        const int64_t step = p->step, base = p->base;                                         \
        type *x = (type *)(void *)table, *y = (type *)(void *)item;                           \
        if (at == 1 && next == 1 && along == 0 && step == 1) GATHER_LOOP(type, body, 1, 1, 0, 1)      \
        else if (at == 1 && next == 1 && along == 1) GATHER_LOOP(type, body, 1, step, 1, 1)   \
        else GATHER_LOOP(type, body, at, step, along, next)                                   \
    }
GATHER_LINE(gather_take_1, uint8_t, *i = *t)
GATHER_LINE(gather_take_4, uint32_t, *i = *t)
GATHER_LINE(gather_take_8, uint64_t, *i = *t)
GATHER_LINE(gather_take_add, real, *i += *t)
GATHER_LINE(gather_put_1, uint8_t, *t = *i)
GATHER_LINE(gather_put_4, uint32_t, *t = *i)
GATHER_LINE(gather_put_8, uint64_t, *t = *i)
GATHER_LINE(gather_add_real, real, *t += *i)
GATHER_LINE(gather_add_i64, uint64_t, *t += *i)
GATHER_LINE(gather_add_u8, uint8_t, *t = (uint8_t)(*t + *i))

/* The axis of the inner loop: the last, or the longest if the last is short. */
static int gather_run_axis(const gr_tensor *index) {
    int run = index->rank - 1;
    for (int d = 0; d < index->rank && index->dims[index->rank - 1] < GATHER_SHORT; d++)
        if (index->dims[d] > index->dims[run]) run = d;
    return run;
}

/* item may be a single element for all places of the index. */
static void gather_plan_set(gather_plan *p, int dim, const gr_tensor *table, const gr_tensor *index,
                            const gr_tensor *item) {
    int run = gather_run_axis(index);
    const gather_axis one = {.n = 1};
    *p = (gather_plan){.run = one, .dim = one, .count = 1, .cuts = 1, .base = index->head.ctx->index_base,
                       .index = gri_index_data(index), .table = table->data, .item = item->data,
                       .size = (int64_t)gri_size((gr_dtype)table->dtype)};
    for (int d = 0; d < index->rank; d++) {
        gather_axis a = {.n = index->dims[d], .index = index->strides[d], .table = d == dim ? 0 : table->strides[d],
                         .item = item->rank ? item->strides[d] : 0};
        if (d == run) p->run = a;
        else if (d == dim) p->dim = a;
        else p->outer[p->rank++] = a, p->count *= a.n;
    }
    p->step = table->rank ? table->strides[dim] : 0;
    p->block = p->run.n;
}

/* Lines from .. to-1 of the [count, cuts] there are, each with all of dim. */
static void gather_lines(void *arg, int64_t from, int64_t to) {
    const gather_plan *p = arg;
    for (int64_t u = from; u < to; u++) {
        int64_t rest = u / p->cuts, at = u % p->cuts * p->block, n = p->run.n - at < p->block ? p->run.n - at : p->block;
        int64_t index = at * p->run.index, table = at * p->run.table, item = at * p->run.item;
        for (int d = p->rank - 1; d >= 0; d--) {
            int64_t i = rest % p->outer[d].n;
            rest /= p->outer[d].n;
            index += i * p->outer[d].index;
            table += i * p->outer[d].table;
            item += i * p->outer[d].item;
        }
        for (int64_t i = 0; i < p->dim.n; i++)
            p->line(p, n, p->index + index + i * p->dim.index, p->table + table * p->size,
                    p->item + (item + i * p->dim.item) * p->size);
    }
}

/* cut: the inner loop may be shared among threads. */
static gr_status gather_go(gr_ctx *ctx, gather_plan *p, bool cut) {
    int64_t work = p->dim.n * p->run.n;
    if (cut && p->run.n > GATHER_BLOCK && p->count * work > 2 * GATHER_BLOCK) {
        p->block = GATHER_BLOCK / p->dim.n > 16 ? GATHER_BLOCK / p->dim.n / 16 * 16 : 16;
        p->cuts = (p->run.n + p->block - 1) / p->block;
    }
    gri_rows(ctx, p->count * p->cuts, p->dim.n * p->block, gather_lines, p);
    return gri_poll(ctx);
}

/* ---- shapes --------------------------------------------------------------------------------------------- */

static inline int gather_dim(int64_t dim, const gr_tensor *t) {
    return (int)(dim < 0 ? dim + (t->rank ? t->rank : 1) : dim);
}

/* A dimension of a scalar is its only element. */
static gr_status gather_find_dim(gri_call *c, int64_t given, int rank, int *dim) {
    return gri_dim(c->ctx, given, rank ? rank : 1, dim);
}

/* Does input 1 index a table of these dims along dim? */
static gr_status gather_check(gri_call *c, int dim, int rank, const int64_t *dims) {
    const gr_tensor *index = c->in[1];
    GR_TRY(gri_want_index(c, 1));
    if (index->rank != rank)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "the index is %s, expected %d dimensions, as many as %s has",
                       gri_tensor_text(index), rank, gri_dims_text(rank, dims));
    for (int d = 0; d < rank; d++)
        if (d != dim && index->dims[d] > dims[d])
            return gr_fail(c->ctx, GR_ERR_SHAPE, "the index %s is larger than %s in dimension %d, which is not the "
                           "indexed one", gri_tensor_text(index), gri_dims_text(rank, dims), d + c->ctx->index_base);
    return GR_OK;
}

/* *index (+1) = input 1 as positions of dim in table, row-major. */
static gr_status gather_index(gri_call *c, int dim, const gr_tensor *table, gr_tensor **index) {
    const int64_t one = 1;
    return gri_index(c, 1, dim, table->rank ? table->rank : 1, table->rank ? table->dims : &one, index);
}

/* ---- gather --------------------------------------------------------------------------------------------- */

static gr_status gather_shape(gri_call *c) {
    const gr_tensor *x = c->in[0];
    int dim;
    GR_TRY(gather_find_dim(c, ((const gri_index_attrs *)c->attrs)->dim, x->rank, &dim));
    GR_TRY(gather_check(c, dim, x->rank, x->dims));
    c->spec[0] = gri_spec_of(c->in[1]);
    c->spec[0].dtype = (gr_dtype)x->dtype;
    return GR_OK;
}

static gr_status gather_forward(gri_call *c) {
    gr_tensor *x = c->in[0], *y = c->out[0], *index;
    int dim = gather_dim(((const gri_index_attrs *)c->attrs)->dim, x);
    GR_TRY(gather_index(c, dim, x, &index));
    gr_status s = GR_OK;
    if (y->numel) {
        gather_plan p;
        gather_plan_set(&p, dim, x, index, y);
        if (c->mode == GRI_ADD) p.line = gather_take_add;
        else p.line = p.size == 1 ? gather_take_1 : p.size == 4 ? gather_take_4 : gather_take_8;
        s = gather_go(c->ctx, &p, true);
    }
    gr_release(index);
    return s;
}
GR_KERNEL(gather);

static gr_status gather_rule(gri_grad *g) {
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    gri_gather_backward_attrs a = {.shape = {.n = x->rank}, .dim = ((const gri_index_attrs *)g->attrs)->dim};
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    return gri_emit(g, 0, &gri_op_gather_backward, 2, GRI_TENSORS(g->dy[0], g->in[1]), &a);
}

static const gr_attr gather_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(gri_index_attrs, dim), .required = true}, GR_ATTR_END};

static const gr_case gather_cases[] = {
    {.in = "2,3 i64:2,2", .attrs = "dim=2", .give = "{{1,2,3},{4,5,6}}, {{3,1},{2,2}}", .want = "{{3,1},{5,5}}"},
    {.in = "2,3 i64:1,2", .attrs = "dim=1", .give = "{{1,2,3},{4,5,6}}, {{2,1}}", .want = "{{4,2}}"},
    {.in = "() i64:()", .attrs = "dim=1", .give = "5, 1", .want = "5"},
    {.in = "() i64:()", .attrs = "dim=-1", .give = "5, 1", .want = "5"},
    {.in = "3,4,5 i64(1..4):2,6,5", .attrs = "dim=2"},
    {.in = "6,3 i64(1..3):6,1", .attrs = "dim=-1"},
    {.in = "5 i64(1..5):9", .attrs = "dim=1"},
    {.in = "4,3 i64(1..4):0,3", .attrs = "dim=1"},
    {0}};

GR_OP(gather) = {
    .info = {.name = "gather", .inputs = "x dim: index", .attrs = gather_schema, .attr_size = sizeof(gri_index_attrs),
             .cases = gather_cases,
             .doc = "Elements of x whose positions along dim the index gives, each its own: with dim = 2,\n"
                    "y[i][j] = x[i][index[i][j]]. index: i64, as many dimensions as x; the result has its shape."},
    .keeps = GRI_KEEP_IN(1),
    .shape = gather_shape,
    .forward = gather_kernels,
    .backward = gather_rule,
};

/* ---- gather_backward ------------------------------------------------------------------------------------ */

/* table[index] = or += item, for a table that is there already. */
static gr_status gather_put(gr_ctx *ctx, int dim, const gr_tensor *table, const gr_tensor *index, const gr_tensor *item,
                            gri_mode mode) {
    gather_plan p;
    if (index->numel == 0) return GR_OK;
    gather_plan_set(&p, dim, table, index, item);
    if (mode == GRI_SET) p.line = p.size == 1 ? gather_put_1 : p.size == 4 ? gather_put_4 : gather_put_8;
    else p.line = gri_is_float(table) ? gather_add_real : p.size == 1 ? gather_add_u8 : gather_add_i64;
    return gather_go(ctx, &p, p.run.table != 0);
}

static gr_status gather_backward_shape(gri_call *c) {
    const gri_gather_backward_attrs *a = c->attrs;
    const gr_tensor *dy = c->in[0], *index = c->in[1];
    int dim;
    GR_TRY(gri_spec_given(c->ctx, &a->shape, dy->dtype, &c->spec[0]));
    GR_TRY(gather_find_dim(c, a->dim, a->shape.n, &dim));
    GR_TRY(gather_check(c, dim, a->shape.n, a->shape.v));
    if (gri_same_dims(dy->rank, dy->dims, index->rank, index->dims)) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s, the index %s", gri_tensor_text(dy), gri_tensor_text(index));
}

static gr_status gather_backward_forward(gri_call *c) {
    gr_tensor *x = c->out[0], *index;
    int dim = gather_dim(((const gri_gather_backward_attrs *)c->attrs)->dim, x);
    GR_TRY(gather_index(c, dim, x, &index));
    gr_status s = c->mode == GRI_SET ? gri_zero(c->ctx, x) : GR_OK;
    if (s == GR_OK) s = gather_put(c->ctx, dim, x, index, c->in[0], GRI_ADD);
    gr_release(index);
    return s;
}
GR_KERNEL(gather_backward);

static gr_status gather_backward_rule(gri_grad *g) {
    gri_index_attrs a = {((const gri_gather_backward_attrs *)g->attrs)->dim};
    return gri_emit(g, 0, &gri_op_gather, 2, GRI_TENSORS(g->dy[0], g->in[1]), &a);
}

static const gr_attr gather_backward_schema[] = {
    {"shape", GR_ATTR_SHAPE, offsetof(gri_gather_backward_attrs, shape), .required = true},
    {"dim", GR_ATTR_DIM, offsetof(gri_gather_backward_attrs, dim), .required = true},
    GR_ATTR_END};

static const gr_case gather_backward_cases[] = {
    {.in = "2,2 i64:2,2", .attrs = "shape={2,3}, dim=2", .give = "{{1,2},{3,4}}, {{3,1},{2,2}}",
     .want = "{{2,0,1},{0,7,0}}"},
    {.in = "2,6,5 i64(1..4):2,6,5", .attrs = "shape={3,4,5}, dim=2"},
    {.in = "9 i64(1..5):9", .attrs = "shape={5}, dim=1"},
    {0}};

GR_OP(gather_backward) = {
    .info = {.name = "gather_backward", .inputs = "dy index", .attrs = gather_backward_schema,
             .attr_size = sizeof(gri_gather_backward_attrs), .hidden = true, .cases = gather_backward_cases,
             .doc = "Zeros of the given shape, to which dy is added at the positions that index gives along dim."},
    .keeps = GRI_KEEP_IN(1),
    .shape = gather_backward_shape,
    .forward = gather_backward_kernels,
    .backward = gather_backward_rule,
};

/* ---- scatter_add and scatter ---------------------------------------------------------------------------- */

static gr_status scatter_shape(gri_call *c) {
    const gr_tensor *x = c->in[0], *index = c->in[1], *src = c->in[2];
    int dim;
    GR_TRY(gather_find_dim(c, ((const gri_index_attrs *)c->attrs)->dim, x->rank, &dim));
    GR_TRY(gather_check(c, dim, x->rank, x->dims));
    if (src->rank && !gri_same_dims(src->rank, src->dims, index->rank, index->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "src is %s, expected one value or the shape of the index, %s",
                       gri_tensor_text(src), gri_dims_text(index->rank, index->dims));
    if (src->dtype != x->dtype)
        return gr_fail(c->ctx, GR_ERR_DTYPE, "src is %s, but x is %s; convert it with :to(\"%s\")",
                       gri_tensor_text(src), gri_tensor_text(x), gr_dtype_name((gr_dtype)x->dtype));
    c->spec[0] = gri_spec_of(x);
    return GR_OK;
}

static gr_status scatter_into(gri_call *c, gri_mode mode) {
    gr_tensor *x = c->in[0], *y = c->out[0], *index;
    int dim = gather_dim(((const gri_index_attrs *)c->attrs)->dim, x);
    GR_TRY(gather_index(c, dim, x, &index)); /* before y changes */
    gr_status s = y->data == x->data ? GR_OK : gri_copy(c->ctx, y, x, GRI_SET);
    if (s == GR_OK) s = gather_put(c->ctx, dim, y, index, c->in[2], mode);
    gr_release(index);
    return s;
}

static gr_status scatter_add_forward(gri_call *c) { return scatter_into(c, GRI_ADD); }
GR_KERNEL(scatter_add);

static gr_status scatter_add_rule(gri_grad *g) {
    GR_TRY(gri_emit_same(g, 0, g->dy[0]));
    return gri_emit(g, 2, &gri_op_gather, 2, GRI_TENSORS(g->dy[0], g->in[1]), g->attrs);
}

static const gr_case scatter_add_cases[] = {
    {.in = "2,3 i64:2,2 2,2", .attrs = "dim=2", .give = "{{1,1,1},{2,2,2}}, {{3,1},{2,2}}, {{1,2},{3,4}}",
     .want = "{{3,1,2},{2,9,2}}"},
    {.in = "3 i64:2 ()", .attrs = "dim=1", .give = "{1,2,3}, {2,2}, 5", .want = "{1,12,3}"},
    {.in = "3,4,5 i64(1..4):2,6,5 2,6,5", .attrs = "dim=2"},
    {.in = "3,4 i64(1..3):5,3 5,3", .attrs = "dim=1"},
    {.in = "5 i64(1..5):9 9", .attrs = "dim=-1"},
    {.in = "5 i64(1..5):9 ()", .attrs = "dim=1"},
    {.in = "4,3 i64(1..4):0,3 0,3", .attrs = "dim=1"},
    {0}};

GR_OP(scatter_add) = {
    .info = {.name = "scatter_add", .inputs = "x dim: index src", .attrs = gather_schema,
             .attr_size = sizeof(gri_index_attrs), .cases = scatter_add_cases,
             .doc = "x, to which src is added at the positions that index gives along dim: with dim = 2,\n"
                    "y[i][index[i][j]] += src[i][j]. src has the shape of the index, or is one value."},
    .in_place = true,
    .sets_only = true,
    .keeps = GRI_KEEP_IN(1),
    .shape = scatter_shape,
    .forward = scatter_add_kernels,
    .backward = scatter_add_rule,
};

static gr_status scatter_forward(gri_call *c) { return scatter_into(c, GRI_SET); }
GR_KERNEL(scatter);

/* 1, 2, 3, … scattered and gathered again: 1 where an entry of the index finds its own number, else 0. */
static gr_status scatter_last(gri_grad *g, gr_tensor **last) {
    const gr_tensor *index = g->in[1];
    const gri_spec *x = gri_input_spec(g, 0);
    gri_range_attrs count = {.start = 1, .stop = (double)index->numel, .step = 1, .dtype = GR_I64};
    gri_shape_attrs shape = {.shape = {.n = index->rank}};
    gri_fill_attrs zeros = {.shape = {.n = x->rank}, .dtype = GR_I64};
    gr_tensor *number, *table;
    for (int d = 0; d < index->rank; d++) shape.shape.v[d] = index->dims[d];
    for (int d = 0; d < x->rank; d++) zeros.shape.v[d] = x->dims[d];
    GR_TRY(gri_eval(g, &number, &gri_op_range, 0, NULL, &count));
    GR_TRY(gri_eval(g, &number, &gri_op_reshape, 1, &number, &shape));
    GR_TRY(gri_eval(g, &table, &gri_op_fill, 0, NULL, &zeros));
    GR_TRY(gri_eval(g, &table, &gri_op_scatter, 3, GRI_TENSORS(table, g->in[1], number), g->attrs));
    GR_TRY(gri_eval(g, &table, &gri_op_gather, 2, GRI_TENSORS(table, g->in[1]), g->attrs));
    return GRI_EVAL(g, last, eq, table, number);
}

static gr_status scatter_rule(gri_grad *g) {
    gr_tensor *zero, *taken, *last;
    GR_TRY(gri_scalar(g, &zero, 0));
    GR_TRY(gri_emit(g, 0, &gri_op_scatter, 3, GRI_TENSORS(g->dy[0], g->in[1], zero), g->attrs));
    if (!gri_needs(g, 2)) return GR_OK;
    GR_TRY(gri_eval(g, &taken, &gri_op_gather, 2, GRI_TENSORS(g->dy[0], g->in[1]), g->attrs));
    GR_TRY(scatter_last(g, &last));
    return GRI_EMIT(g, 2, where, last, taken, zero);
}

static const gr_case scatter_cases[] = {
    {.in = "2,3 i64:2,2 2,2", .attrs = "dim=2", .give = "{{1,1,1},{2,2,2}}, {{3,1},{2,2}}, {{5,6},{7,8}}",
     .want = "{{6,1,5},{2,8,2}}"},
    {.in = "3 i64:2 ()", .attrs = "dim=1", .give = "{1,2,3}, {1,3}, 5", .want = "{5,2,5}"},
    {.in = "3,4,5 i64(1..4):2,6,5 2,6,5", .attrs = "dim=2"},
    {.in = "3,4 i64(1..3):5,3 5,3", .attrs = "dim=1"},
    {.in = "5 i64(1..5):3 ()", .attrs = "dim=1"},
    {0}};

GR_OP(scatter) = {
    .info = {.name = "scatter", .inputs = "x dim: index src", .attrs = gather_schema,
             .attr_size = sizeof(gri_index_attrs), .cases = scatter_cases,
             .doc = "x with src at the positions that index gives along dim: with dim = 2,\n"
                    "y[i][index[i][j]] = src[i][j], the last one where several meet. src has the shape of the index,\n"
                    "or is one value."},
    .in_place = true,
    .sets_only = true,
    .input_specs = true,
    .keeps = GRI_KEEP_IN(1),
    .shape = scatter_shape,
    .forward = scatter_kernels,
    .backward = scatter_rule,
};
