/* y = the rows of a table that an index tensor of any shape lists.
 *
 *   x[…] weight[n,d] → y[…,d]      y[…, :] = weight[x[…], :]
 *
 * dweight: dy[…, :] is added to zeros at row x[…], in row-major order of x, but for those at padding_idx: the op
 * index_add. x is kept, the table is not. */
#include "index.h"

typedef struct embedding_attrs { int64_t padding_idx; } embedding_attrs;

/* padding_idx from 0; -1: none. */
static int64_t embedding_padding(const embedding_attrs *a, int64_t rows) {
    if (a->padding_idx == GR_POS_NONE) return -1;
    return a->padding_idx < 0 ? a->padding_idx + rows : a->padding_idx;
}

static gr_status embedding_shape(gri_call *c) {
    const embedding_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0], *weight = c->in[1];
    gri_spec *s = &c->spec[0];
    int64_t base = c->ctx->index_base, n;
    GR_TRY(gri_want_index(c, 0));
    if (weight->rank != 2 || !gri_is_float(weight))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "the weight is %s, expected floating rows: [num_embeddings,embedding_dim]",
                       gri_tensor_text(weight));
    if (x->rank == GR_MAX_RANK)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "the index %s has all the %d dimensions a tensor can have",
                       gri_tensor_text(x), GR_MAX_RANK);
    int64_t padding = embedding_padding(a, weight->dims[0]);
    if (padding < -1 || padding >= weight->dims[0] || (padding == -1 && a->padding_idx != GR_POS_NONE))
        return gr_fail(c->ctx, GR_ERR_INDEX, "padding_idx %lld is no row of the weight %s",
                       (long long)(a->padding_idx < 0 ? a->padding_idx : a->padding_idx + base), gri_tensor_text(weight));
    *s = gri_spec_of(x);
    s->dtype = (gr_dtype)weight->dtype;
    s->dims[s->rank++] = weight->dims[1];
    return gri_numel(c->ctx, s->dtype, s->rank, s->dims, &n);
}

/* index_select of the rows, with both sides seen as matrices. */
static gr_status embedding_forward(gri_call *c) {
    gr_tensor *weight = c->in[1], *y = c->out[0], *x;
    if (!y->contiguous) return gri_dense(c, embedding_forward);
    GR_TRY(gri_index(c, 0, 0, weight->rank, weight->dims, &x));
    gr_tensor list = *x, rows = *y; /* for this call only: they are no references to their storages */
    list.rank = 1;
    list.dims[0] = x->numel;
    list.strides[0] = 1;
    rows.rank = 2;
    rows.dims[0] = x->numel;
    rows.dims[1] = rows.strides[0] = weight->dims[1];
    rows.strides[1] = 1;
    gri_call take = {.ctx = c->ctx, .op = &gri_op_index_select, .attrs = &(gri_index_attrs){0}, .n_in = 2, .n_out = 1,
                     .in = GRI_TENSORS(weight, &list), .out = {&rows}, .mode = c->mode};
    gr_status s = gri_run(&take);
    gr_release(x);
    return s;
}
GR_KERNEL(embedding);

static gr_status embedding_rule(gri_grad *g) {
    if (!gri_needs(g, 1)) return GR_OK;
    const gri_spec *weight = gri_input_spec(g, 1);
    gr_tensor *x = g->in[0], *dy;
    gri_shape_attrs list = {.shape = {.n = 1, .v = {x->numel}}};
    gri_shape_attrs rows = {.shape = {.n = 2, .v = {x->numel, weight->dims[1]}}};
    gri_index_add_attrs add = {.size = weight->dims[0], .skip = embedding_padding(g->attrs, weight->dims[0])};
    GR_TRY(gri_eval(g, &dy, &gri_op_reshape, 1, g->dy, &rows));
    GR_TRY(gri_eval(g, &x, &gri_op_reshape, 1, &x, &list));
    return gri_emit(g, 1, &gri_op_index_add, 2, GRI_TENSORS(dy, x), &add);
}

static const gr_attr embedding_schema[] = {
    {"padding_idx", GR_ATTR_POS, offsetof(embedding_attrs, padding_idx), .value = GR_POS_NONE}, GR_ATTR_END};

static const gr_case embedding_cases[] = {
    {.in = "i64:3 2,2", .give = "{2,1,2}, {{1,2},{3,4}}", .want = "{{3,4},{1,2},{3,4}}"},
    {.in = "i64:2,2 3,1", .attrs = "padding_idx=-1", .give = "{{3,1},{2,2}}, {{1},{2},{3}}",
     .want = "{{{3},{1}},{{2},{2}}}", .no_grad = true},
    {.in = "i64:() 2,3", .give = "2, {{1,2,3},{4,5,6}}", .want = "{4,5,6}"},
    {.in = "i64(1..5):4,3 5,7"},
    {.in = "i64(1..5):2,3,2 5,4"},
    {.in = "i64(1..5):0 5,4"},
    {0}};

GR_OP(embedding) = {
    .info = {.name = "embedding", .inputs = "x weight", .attrs = embedding_schema,
             .attr_size = sizeof(embedding_attrs), .cases = embedding_cases,
             .doc = "The rows of weight [num_embeddings,embedding_dim] that x, an i64 tensor of any shape, lists: the\n"
                    "result has one dimension more than x. The row padding_idx, if given, gets no gradient."},
    .keeps = GRI_KEEP_IN(0),
    .shape = embedding_shape,
    .forward = embedding_kernels,
    .backward = embedding_rule,
};
