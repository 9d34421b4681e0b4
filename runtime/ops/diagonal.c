/* Diagonals of matrices that lie in any two dims:
 *
 *   diagonal          x[…, n, …, m, …] → y[…, length]      y[…, i] = x[…, i, …, i + offset, …]: a view
 *   diag_embed        x[…, length] → y[…, n, …, n, …]      zeros with x on the diagonal; n = length + |offset|
 *   diagonal_backward the same in a shape that is given
 *
 * Each is the derivative of the other. offset counts columns to the right, negative ones rows down. Nothing is kept. */
#include "copy.h"

typedef struct diagonal_attrs { int64_t offset, dim1, dim2; } diagonal_attrs;
typedef struct diagonal_backward_attrs { gr_dims shape; diagonal_attrs at; } diagonal_backward_attrs;

#define DIAGONAL_SCHEMA(type, at, first, second)                                                           \
    {"offset", GR_ATTR_INT, offsetof(type, at offset), .value = 0, .min = -0x1p53, .max = 0x1p53},          \
    {"dim1", GR_ATTR_DIM, offsetof(type, at dim1), .value = first},                                         \
    {"dim2", GR_ATTR_DIM, offsetof(type, at dim2), .value = second}

static gr_status diagonal_dims(gr_ctx *ctx, const diagonal_attrs *a, int rank, int *row, int *column) {
    GR_TRY(gri_dim(ctx, a->dim1, rank, row));
    GR_TRY(gri_dim(ctx, a->dim2, rank, column));
    if (*row != *column) return GR_OK;
    return gr_fail(ctx, GR_ERR_INDEX, "dim1 and dim2 are both %d", *row + ctx->index_base);
}

/* The diagonal of a tensor, as dims, strides and the distance of its first element. */
typedef struct diagonal_part { int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK], skip; } diagonal_part;

static void diagonal_part_of(const gr_tensor *x, int64_t offset, int row, int column, diagonal_part *p) {
    int64_t right = offset > 0 ? offset : 0, down = offset < 0 ? -offset : 0;
    int64_t rows = x->dims[row] - down, columns = x->dims[column] - right, n = rows < columns ? rows : columns;
    int k = 0;
    for (int d = 0; d < x->rank; d++) {
        if (d == row || d == column) continue;
        p->dims[k] = x->dims[d];
        p->strides[k++] = x->strides[d];
    }
    p->dims[k] = n > 0 ? n : 0;
    p->strides[k] = x->strides[row] + x->strides[column];
    p->skip = n > 0 ? right * x->strides[column] + down * x->strides[row] : 0;
}

/* ---- diagonal ------------------------------------------------------------------------------------------- */

static gr_status diagonal_view(gri_call *c) {
    const diagonal_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    diagonal_part p;
    int row, column;
    if (x->rank < 2)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is no matrix: expected two dimensions at least", gri_tensor_text(x));
    GR_TRY(diagonal_dims(c->ctx, a, x->rank, &row, &column));
    diagonal_part_of(x, a->offset, row, column, &p);
    return gri_tensor_view(x, x->rank - 1, p.dims, p.strides, p.skip, &c->out[0]);
}

static gr_status diagonal_rule(gri_grad *g) {
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    diagonal_backward_attrs a = {.shape = {.n = x->rank}, .at = *(const diagonal_attrs *)g->attrs};
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    return gri_emit(g, 0, &gri_op_diagonal_backward, 1, g->dy, &a);
}

static const gr_attr diagonal_schema[] = {DIAGONAL_SCHEMA(diagonal_attrs, , 0, 1), GR_ATTR_END};

static const gr_case diagonal_cases[] = {
    {.in = "2,3", .give = "{{1,2,3},{4,5,6}}", .want = "{1,5}"},
    {.in = "2,3", .attrs = "offset=1", .give = "{{1,2,3},{4,5,6}}", .want = "{2,6}"},
    {.in = "2,3", .attrs = "offset=-1", .give = "{{1,2,3},{4,5,6}}", .want = "{4}"},
    {.in = "2,3", .attrs = "offset=5", .give = "{{1,2,3},{4,5,6}}", .want = "{}"},
    {.in = "3,2,4", .attrs = "offset=-1, dim1=-1, dim2=1"},
    {.in = "2,3,3", .attrs = "dim1=2, dim2=3"},
    {0}};

GR_OP(diagonal) = {
    .info = {.name = "diagonal", .inputs = "x", .attrs = diagonal_schema, .attr_size = sizeof(diagonal_attrs),
             .cases = diagonal_cases,
             .doc = "The diagonal of the matrices in dim1 and dim2 (the first two dimensions), as the last dimension.\n"
                    "offset: that many columns to the right, negative ones rows down. A view."},
    .view = diagonal_view,
    .backward = diagonal_rule,
};

/* ---- diagonal_backward and diag_embed ------------------------------------------------------------------- */

static gr_status diagonal_put(gri_call *c, const diagonal_attrs *a) {
    gr_tensor *y = c->out[0], diagonal = *y; /* for this call only: it is no reference to the storage */
    diagonal_part p;
    int row, column;
    if (c->mode == GRI_SET) GR_TRY(gri_zero(c->ctx, y));
    GR_TRY(diagonal_dims(c->ctx, a, y->rank, &row, &column));
    diagonal_part_of(y, a->offset, row, column, &p);
    diagonal.data += p.skip * (int64_t)gri_size((gr_dtype)y->dtype);
    diagonal.rank--;
    diagonal.numel = c->in[0]->numel;
    diagonal.contiguous = false;
    for (int d = 0; d < diagonal.rank; d++) {
        diagonal.dims[d] = p.dims[d];
        diagonal.strides[d] = p.strides[d];
    }
    return gri_copy(c->ctx, &diagonal, c->in[0], c->mode);
}

static gr_status diagonal_backward_shape(gri_call *c) {
    const diagonal_backward_attrs *a = c->attrs;
    const gr_tensor *dy = c->in[0];
    gri_spec *s = &c->spec[0];
    diagonal_part p;
    int row, column;
    GR_TRY(gri_spec_given(c->ctx, &a->shape, dy->dtype, s));
    GR_TRY(diagonal_dims(c->ctx, &a->at, s->rank, &row, &column));
    gr_tensor whole = {.rank = (uint8_t)s->rank};
    for (int d = 0; d < s->rank; d++) whole.dims[d] = s->dims[d];
    diagonal_part_of(&whole, a->at.offset, row, column, &p);
    if (gri_same_dims(dy->rank, dy->dims, s->rank - 1, p.dims)) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is not the diagonal of %s, %s", gri_tensor_text(dy),
                   gri_dims_text(s->rank, s->dims), gri_dims_text(s->rank - 1, p.dims));
}

static gr_status diagonal_backward_forward(gri_call *c) {
    return diagonal_put(c, &((const diagonal_backward_attrs *)c->attrs)->at);
}
GR_KERNEL(diagonal_backward);

static gr_status diagonal_backward_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_diagonal, 1, g->dy, &((const diagonal_backward_attrs *)g->attrs)->at);
}

static const gr_attr diagonal_backward_schema[] = {
    {"shape", GR_ATTR_SHAPE, offsetof(diagonal_backward_attrs, shape), .required = true},
    DIAGONAL_SCHEMA(diagonal_backward_attrs, at., 0, 1),
    GR_ATTR_END};

static const gr_case diagonal_backward_cases[] = {
    {.in = "2", .attrs = "shape={2,3}, offset=1", .give = "{1,2}", .want = "{{0,1,0},{0,0,2}}"},
    {.in = "2,3", .attrs = "shape={3,2,4}, offset=-1, dim1=-1, dim2=1"},
    {0}};

GR_OP(diagonal_backward) = {
    .info = {.name = "diagonal_backward", .inputs = "dy", .attrs = diagonal_backward_schema,
             .attr_size = sizeof(diagonal_backward_attrs), .hidden = true, .cases = diagonal_backward_cases,
             .doc = "Zeros of the given shape with dy on the diagonal."},
    .shape = diagonal_backward_shape,
    .forward = diagonal_backward_kernels,
    .backward = diagonal_backward_rule,
};

static gr_status diag_embed_shape(gri_call *c) {
    const diagonal_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    gri_spec *s = &c->spec[0];
    int64_t numel;
    int row, column, k = 0;
    if (x->rank == 0 || x->rank == GR_MAX_RANK)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s: expected one dimension at least and %d at most", gri_tensor_text(x),
                       GR_MAX_RANK - 1);
    s->dtype = (gr_dtype)x->dtype;
    s->rank = x->rank + 1;
    GR_TRY(diagonal_dims(c->ctx, a, s->rank, &row, &column));
    int64_t n = x->dims[x->rank - 1] + (a->offset < 0 ? -a->offset : a->offset);
    for (int d = 0; d < s->rank; d++) s->dims[d] = d == row || d == column ? n : x->dims[k++];
    return gri_numel(c->ctx, s->dtype, s->rank, s->dims, &numel);
}

static gr_status diag_embed_forward(gri_call *c) { return diagonal_put(c, c->attrs); }
GR_KERNEL(diag_embed);

static gr_status diag_embed_rule(gri_grad *g) { return gri_emit(g, 0, &gri_op_diagonal, 1, g->dy, g->attrs); }

static const gr_attr diag_embed_schema[] = {DIAGONAL_SCHEMA(diagonal_attrs, , -2, -1), GR_ATTR_END};

/* By hand alone: made large, the square of a size would fill memory. */
static const gr_case diag_embed_cases[] = {
    {.in = "2", .give = "{1,2}", .want = "{{1,0},{0,2}}"},
    {.in = "2", .attrs = "offset=-1", .give = "{1,2}", .want = "{{0,0,0},{1,0,0},{0,2,0}}"},
    {.in = "2,1", .attrs = "offset=1, dim1=3, dim2=1", .give = "{{3},{4}}", .want = "{{{0,0},{0,0}},{{3,0},{4,0}}}"},
    {.in = "2,2", .give = "{{1,2},{3,4}}", .want = "{{{1,0},{0,2}},{{3,0},{0,4}}}"},
    {0}};

GR_OP(diag_embed) = {
    .info = {.name = "diag_embed", .inputs = "x", .attrs = diag_embed_schema, .attr_size = sizeof(diagonal_attrs),
             .cases = diag_embed_cases,
             .doc = "Square matrices in dim1 and dim2 (the last two dimensions) with the last dimension of x on their\n"
                    "diagonals, else zeros. offset: that many columns to the right, negative ones rows down."},
    .shape = diag_embed_shape,
    .forward = diag_embed_kernels,
    .backward = diag_embed_rule,
};
