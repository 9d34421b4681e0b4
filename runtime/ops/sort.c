/* sort: the elements along one dim in their order, and where they stood; argsort: the latter alone.
 *
 *   x[…, n, …] → values[…, n, …], indices[…, n, …], i64, counted from the context's index base
 *
 * Ascending or descending; equal elements keep their order either way, and NaN counts as larger than any number.
 *
 * dx = dy at indices: each line of indices is a permutation (gather_backward; its own derivative is gather). Only
 * indices are kept. */
#include "lines.h"
#include "order.h"
#include "rows.h"
#include "scratch.h"

typedef struct sort_attrs { int64_t dim; bool descending; } sort_attrs;

typedef struct sort_job {
    const char *x;
    char *values; /* NULL: not wanted */
    int64_t *indices;
    int64_t n, size, base;
    bool whole, back;
    gri_scratch scratch; /* two lines of entries */
} sort_job;

static void sort_rows(void *arg, int64_t from, int64_t to) {
    sort_job *j = arg;
    const int64_t n = j->n;
    gri_entry *a = gri_scratch_claim(&j->scratch);
    for (int64_t r = from; r < to; r++) {
        const char *x = j->x + r * n * j->size;
        int64_t *indices = j->indices + r * n;
        gri_sort_line(n, x, j->whole, j->back, a, a + n);
        for (int64_t i = 0; i < n; i++) indices[i] = (int64_t)a[i].at + j->base;
        if (!j->values) continue;
        real *y = (real *)(void *)(j->values + r * n * j->size); /* i64 has the size of f64 */
        for (int64_t i = 0; i < n; i++) y[i] = ((const real *)(const void *)x)[a[i].at];
    }
    gri_scratch_return(&j->scratch, a);
}

/* Of rows; values may be NULL. */
static gr_status sort_run(gr_ctx *ctx, const gr_tensor *x, gr_tensor *values, gr_tensor *indices, int64_t n,
                          bool descending) {
    sort_job j = {.x = x->data, .values = values ? values->data : NULL, .n = n,
                  .indices = (int64_t *)(void *)indices->data, .size = (int64_t)gri_size((gr_dtype)x->dtype),
                  .base = ctx->index_base, .whole = !gri_is_float(x), .back = descending};
    if (x->numel == 0) return GR_OK;
    GR_TRY(gri_scratch_open(ctx, &j.scratch, 2 * (size_t)n * sizeof(gri_entry)));
    gri_rows(ctx, x->numel / n, n * 4 * (int64_t)sizeof(gri_key) + 100, sort_rows, &j);
    gri_scratch_close(ctx, &j.scratch);
    return gri_poll(ctx);
}

static gr_status sort_lines(gri_call *c, gr_tensor *to_values, gr_tensor *to_indices) {
    const sort_attrs *a = c->attrs;
    gr_tensor *x = NULL, *values = NULL, *indices = NULL;
    gr_dtype dtype = gri_is_float(c->in[0]) ? GRI_REAL : GR_I64;
    int dim;
    GR_TRY(gri_line_dim(c, a->dim, c->in[0], &dim));
    gr_status s = gri_lines_of(c->in[0], dim, dtype, &x);
    if (s == GR_OK && to_values) s = gri_lines_for(to_values, dim, dtype, &values);
    if (s == GR_OK) s = gri_lines_for(to_indices, dim, GR_I64, &indices);
    if (s == GR_OK) s = sort_run(c->ctx, x, values, indices, gri_line_length(c->in[0], dim), a->descending);
    if (s == GR_OK && to_values) s = gri_lines_done(to_values, dim, values);
    if (s == GR_OK) s = gri_lines_done(to_indices, dim, indices);
    gr_release(x), gr_release(values), gr_release(indices);
    return s;
}

/* ---- sort ---- */

static gr_status sort_shape(gri_call *c) {
    const gr_tensor *x = c->in[0];
    int dim;
    GR_TRY(gri_line_dim(c, ((const sort_attrs *)c->attrs)->dim, x, &dim));
    if (gri_line_length(x, dim) > GRI_ORDER_MOST)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s has more than %lld elements along dimension %d", gri_tensor_text(x),
                       (long long)GRI_ORDER_MOST, dim + c->ctx->index_base);
    for (int i = 0; i < c->n_out; i++) gri_spec_set(&c->spec[i], x);
    c->spec[c->n_out - 1].dtype = GR_I64;
    return GR_OK;
}

static gr_status sort_forward(gri_call *c) { return sort_lines(c, c->out[0], c->out[1]); }
GR_KERNEL(sort);

static gr_status sort_rule(gri_grad *g) {
    return gri_emit_picked(g, ((const sort_attrs *)g->attrs)->dim);
}

static const gr_attr sort_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(sort_attrs, dim), .value = -1},
    {"descending", GR_ATTR_BOOL, offsetof(sort_attrs, descending), .value = 0},
    GR_ATTR_END};

static const gr_case sort_cases[] = {
    {.in = "4", .give = "{3,1,2,1}", .want = "{1,1,2,3}, {2,4,3,1}", .no_grad = true},
    {.in = "4", .attrs = "descending=true", .give = "{3,1,3,2}", .want = "{3,3,2,1}, {1,3,4,2}",
     .no_grad = true},
    {.in = "2,2", .attrs = "dim=1", .give = "{{3,1},{2,4}}", .want = "{{2,1},{3,4}}, {{2,1},{1,2}}"},
    {.in = "6", .give = "{0/0,1/0,0,-0.0,-1/0,-1e-45}", .want = "{-1/0,-1e-45,0,0,1/0,0/0}, {5,6,3,4,2,1}",
     .tol = 1, .no_grad = true},
    {.in = "4", .attrs = "descending=true", .give = "{1,0/0,1/0,0/0}", .want = "{0/0,0/0,1/0,1}, {2,4,3,1}",
     .no_grad = true},
    {.in = "i64:5", .give = "{3,-2,9007199254740993,9007199254740992,-2}",
     .want = "{-2,-2,3,9007199254740992,9007199254740993}, {2,5,1,4,3}", .no_grad = true},
    {.in = "u8:3", .attrs = "descending=true", .give = "{7,255,0}", .want = "{255,7,0}, {2,1,3}", .no_grad = true},
    {.in = "3,5,4", .attrs = "dim=2"},
    {.in = "2,60", .attrs = "dim=-1, descending=true"},
    {.in = "()"},
    {.in = "0,3", .attrs = "dim=1"},
    {0}};

GR_OP(sort) = {
    .info = {.name = "sort", .inputs = "x", .attrs = sort_schema, .attr_size = sizeof(sort_attrs),
             .cases = sort_cases,
             .doc = "The elements along dim (the last if none is given) in ascending or descending order, and their\n"
                    "positions in x. Equal elements keep their order; NaN counts as larger than any number."},
    .n_out = 2,
    .sets_only = true,
    .keeps = GRI_KEEP_OUT(1),
    .shape = sort_shape,
    .forward = sort_kernels,
    .backward = sort_rule,
};

/* ---- argsort ---- */

static gr_status argsort_forward(gri_call *c) { return sort_lines(c, NULL, c->out[0]); }
GR_KERNEL(argsort);

static const gr_case argsort_cases[] = {
    {.in = "4", .give = "{3,1,2,1}", .want = "{2,4,3,1}", .no_grad = true},
    {.in = "2,2", .attrs = "dim=1, descending=true", .give = "{{3,1},{2,4}}", .want = "{{1,2},{2,1}}",
     .no_grad = true},
    {.in = "3,5,4", .attrs = "dim=2", .no_grad = true},
    {.in = "()", .no_grad = true},
    {0}};

GR_OP(argsort) = {
    .info = {.name = "argsort", .inputs = "x", .attrs = sort_schema, .attr_size = sizeof(sort_attrs),
             .cases = argsort_cases,
             .doc = "The positions in x of its elements along dim (the last if none is given) in ascending or\n"
                    "descending order: the second result of sort."},
    .sets_only = true,
    .shape = sort_shape,
    .forward = argsort_kernels,
};
