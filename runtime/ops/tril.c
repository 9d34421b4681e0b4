/* Triangles of matrices (the last two dims): y[…,i,j] = x[…,i,j] where j - i <= diagonal (tril) or j - i >= diagonal
 * (triu), else 0.
 *
 * dx: the same triangle of dy. Nothing is kept; values are chosen, not multiplied: a NaN outside does not show. */
#include <string.h>

#include "copy.h"
#include "rows.h"

typedef struct tril_attrs { int64_t diagonal; } tril_attrs;

typedef struct tril_job {
    const char *x;
    char *y;
    int64_t rows, columns, size, diagonal;
    gr_dtype dtype;
    gri_mode mode;
    bool upper;
} tril_job;

/* Columns first .. last-1 of a row are kept. */
static void tril_rows(void *arg, int64_t from, int64_t to) {
    const tril_job *j = arg;
    for (int64_t r = from; r < to; r++) {
        int64_t i = r % j->rows, cut = j->upper ? i + j->diagonal : i + j->diagonal + 1;
        cut = cut < 0 ? 0 : cut > j->columns ? j->columns : cut;
        int64_t first = j->upper ? cut : 0, last = j->upper ? j->columns : cut;
        const char *x = j->x + r * j->columns * j->size;
        char *y = j->y + r * j->columns * j->size;
        if (x != y) gri_copy_run(j->dtype, y + first * j->size, x + first * j->size, last - first, j->mode);
        if (j->mode == GRI_ADD) continue;
        memset(y, 0, (size_t)(first * j->size));
        memset(y + last * j->size, 0, (size_t)((j->columns - last) * j->size));
    }
}

static gr_status tril_shape(gri_call *c) {
    if (c->in[0]->rank < 2)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is no matrix: expected two dimensions at least",
                       gri_tensor_text(c->in[0]));
    gri_spec_set(&c->spec[0], c->in[0]);
    return GR_OK;
}

static gr_status tril_run(gri_call *c, bool upper) {
    const gr_tensor *x = c->in[0], *y = c->out[0];
    int64_t far = x->dims[x->rank - 2] + x->dims[x->rank - 1], diagonal = ((const tril_attrs *)c->attrs)->diagonal;
    tril_job j = {.x = x->data, .y = y->data, .rows = x->dims[x->rank - 2], .columns = x->dims[x->rank - 1],
                  .size = (int64_t)gri_size((gr_dtype)x->dtype), .dtype = (gr_dtype)x->dtype, .mode = c->mode,
                  .upper = upper};
    j.diagonal = diagonal < -far ? -far : diagonal > far ? far : diagonal; /* beyond all there is is beyond */
    if (x->numel) gri_rows(c->ctx, x->numel / j.columns, j.columns / 8 + 1, tril_rows, &j);
    return GR_OK;
}

static const gr_attr tril_schema[] = {
    {"diagonal", GR_ATTR_INT, offsetof(tril_attrs, diagonal), .value = 0}, GR_ATTR_END};

/* ---- tril ---- */

static gr_status tril_kernel(gri_call *c) { return tril_run(c, false); }
static gr_status tril_forward(gri_call *c) { return gri_dense(c, tril_kernel); }
GR_KERNEL(tril);

static gr_status tril_rule(gri_grad *g) { return gri_emit(g, 0, &gri_op_tril, 1, g->dy, g->attrs); }

static const gr_case tril_cases[] = {
    {.in = "2,3", .give = "{{1,2,3},{4,5,6}}", .want = "{{1,0,0},{4,5,0}}"},
    {.in = "2,3", .attrs = "diagonal=1", .give = "{{1,2,0/0},{4,5,6}}", .want = "{{1,2,0},{4,5,6}}", .no_grad = true},
    {.in = "3,2", .attrs = "diagonal=-1", .give = "{{1,2},{3,4},{5,6}}", .want = "{{0,0},{3,0},{5,6}}"},
    {.in = "2,4,5"},
    {.in = "4,5", .attrs = "diagonal=-9"},
    {0}};

GR_OP(tril) = {
    .info = {.name = "tril", .inputs = "x", .attrs = tril_schema, .attr_size = sizeof(tril_attrs),
             .cases = tril_cases,
             .doc = "The lower triangle of matrices, the last two dimensions; zeros above. diagonal: the last one kept,\n"
                    "0 the main one, 1 the one above, -1 the one below."},
    .in_place = true,
    .shape = tril_shape,
    .forward = tril_kernels,
    .backward = tril_rule,
};

/* ---- triu ---- */

static gr_status triu_kernel(gri_call *c) { return tril_run(c, true); }
static gr_status triu_forward(gri_call *c) { return gri_dense(c, triu_kernel); }
GR_KERNEL(triu);

static gr_status triu_rule(gri_grad *g) { return gri_emit(g, 0, &gri_op_triu, 1, g->dy, g->attrs); }

static const gr_case triu_cases[] = {
    {.in = "2,3", .give = "{{1,2,3},{4,5,6}}", .want = "{{1,2,3},{0,5,6}}"},
    {.in = "2,3", .attrs = "diagonal=1", .give = "{{0/0,2,3},{4,5,6}}", .want = "{{0,2,3},{0,0,6}}", .no_grad = true},
    {.in = "3,2", .attrs = "diagonal=-1", .give = "{{1,2},{3,4},{5,6}}", .want = "{{1,2},{3,4},{0,6}}"},
    {.in = "2,4,5"},
    {.in = "4,5", .attrs = "diagonal=9"},
    {0}};

GR_OP(triu) = {
    .info = {.name = "triu", .inputs = "x", .attrs = tril_schema, .attr_size = sizeof(tril_attrs),
             .cases = triu_cases,
             .doc = "The upper triangle of matrices, the last two dimensions; zeros below. diagonal: the first one kept,\n"
                    "0 the main one, 1 the one above, -1 the one below."},
    .in_place = true,
    .shape = tril_shape,
    .forward = triu_kernels,
    .backward = triu_rule,
};
