/* The median along one dim, and where it stands: of an even number of elements the lower one of the middle two. NaN
 * if there is one, at the place of the first.
 *
 *   x[…, n, …] → values[…], indices[…], i64, counted from the context's index base
 *
 * dx = dy at indices (gather_backward). Only indices are kept. median_all, the median of all elements, is what
 * scripts call without a dim: elements that are equal to it share its gradient evenly, as those of amax do. */
#include "lines.h"
#include "order.h"
#include "reduce.h"
#include "rows.h"
#include "scratch.h"

typedef struct median_attrs { int64_t dim; bool keepdim; } median_attrs;

typedef struct median_job {
    const char *x;
    int64_t *indices;
    int64_t n, size, base;
    bool whole;
    gri_scratch scratch; /* two lines of entries */
} median_job;

static void median_rows(void *arg, int64_t from, int64_t to) {
    median_job *j = arg;
    const int64_t n = j->n;
    gri_entry *a = gri_scratch_claim(&j->scratch);
    for (int64_t r = from; r < to; r++) {
        int64_t at = (n - 1) / 2;
        gri_sort_line(n, j->x + r * n * j->size, j->whole, false, a, a + n);
        if (!j->whole && a[n - 1].key == GRI_KEY_NAN)
            for (at = n - 1; at > 0 && a[at - 1].key == GRI_KEY_NAN;) at--;
        j->indices[r] = (int64_t)a[at].at + j->base;
    }
    gri_scratch_return(&j->scratch, a);
}

/* indices: one for each of the rows of n > 0 elements that x is made of. */
static gr_status median_run(gr_ctx *ctx, gr_tensor *x, int dim, int64_t n, int64_t *indices) {
    gr_tensor *rows;
    GR_TRY(gri_lines_of(x, dim, gri_is_float(x) ? GRI_REAL : GR_I64, &rows));
    median_job j = {.x = rows->data, .n = n, .size = (int64_t)gri_size((gr_dtype)rows->dtype), .indices = indices,
                    .base = ctx->index_base, .whole = !gri_is_float(rows)};
    gr_status s = gri_scratch_open(ctx, &j.scratch, 2 * (size_t)n * sizeof(gri_entry));
    if (s == GR_OK) {
        gri_rows(ctx, rows->numel / n, n * 4 * (int64_t)sizeof(gri_key) + 100, median_rows, &j);
        gri_scratch_close(ctx, &j.scratch);
    }
    gr_release(rows);
    return s == GR_OK ? gri_poll(ctx) : s;
}

/* Something to choose from, and not more than can be counted. */
static gr_status median_check(gri_call *c, uint32_t mask) {
    const gr_tensor *x = c->in[0];
    int64_t n = 1;
    for (int d = 0; d < x->rank; d++) n *= mask >> d & 1 ? x->dims[d] : 1;
    GR_TRY(gri_want_some(c, mask));
    if (n <= GRI_ORDER_MOST) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "a median of more than %lld elements of %s is wanted",
                   (long long)GRI_ORDER_MOST, gri_tensor_text(x));
}

/* ---- along a dim ---- */

static gr_status median_shape(gri_call *c) {
    const median_attrs *a = c->attrs;
    gr_tensor *x = c->in[0];
    int dim;
    GR_TRY(gri_line_dim(c, a->dim, x, &dim));
    GR_TRY(median_check(c, 1u << dim));
    gri_reduced_spec(x, 1u << dim, a->keepdim, (gr_dtype)x->dtype, &c->spec[0]);
    c->spec[1] = c->spec[0];
    c->spec[1].dtype = GR_I64;
    return GR_OK;
}

static gr_status median_forward(gri_call *c) {
    gr_tensor *x = c->in[0];
    int dim;
    GR_TRY(gri_line_dim(c, ((const median_attrs *)c->attrs)->dim, x, &dim));
    if (c->out[0]->numel == 0) return GR_OK;
    GR_TRY(median_run(c->ctx, x, dim, gri_line_length(x, dim), (int64_t *)(void *)c->out[1]->data));
    return gri_line_pick(c, dim);
}
GR_KERNEL(median);

static gr_status median_rule(gri_grad *g) {
    return gri_emit_picked(g, ((const median_attrs *)g->attrs)->dim);
}

static const gr_attr median_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(median_attrs, dim), .required = true},
    {"keepdim", GR_ATTR_BOOL, offsetof(median_attrs, keepdim), .value = 0},
    GR_ATTR_END};

static const gr_case median_cases[] = {
    {.in = "5", .attrs = "dim=1", .give = "{3,1,5,4,2}", .want = "3, 1"},
    {.in = "2,4", .attrs = "dim=2, keepdim=true", .give = "{{4,1,3,2},{1,2,0/0,0/0}}",
     .want = "{{2},{0/0}}, {{4},{3}}", .no_grad = true},
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,5,3},{4,2,6}}", .want = "{1,2,3}, {1,2,1}"},
    {.in = "u8:3", .attrs = "dim=1", .give = "{7,255,0}", .want = "7, 1", .no_grad = true},
    {.in = "3,5,4", .attrs = "dim=2"},
    {.in = "2,60", .attrs = "dim=-1, keepdim=true"},
    {.in = "()", .attrs = "dim=1"},
    {0}};

GR_OP(median) = {
    .info = {.name = "median", .inputs = "x", .attrs = median_schema, .attr_size = sizeof(median_attrs),
             .cases = median_cases, .over_all = "median_all",
             .doc = "The median along dim and its position: the lower one of two in the middle; NaN if there is\n"
                    "one. Without dim, the median of all elements alone."},
    .n_out = 2,
    .sets_only = true,
    .keeps = GRI_KEEP_OUT(1),
    .shape = median_shape,
    .forward = median_kernels,
    .backward = median_rule,
};

/* ---- of all elements ---- */

typedef struct median_all_attrs { bool keepdim; } median_all_attrs;

static uint32_t median_every(const gr_tensor *x) { return (1u << x->rank) - 1; }

static gr_status median_all_shape(gri_call *c) {
    const median_all_attrs *a = c->attrs;
    gr_tensor *x = c->in[0];
    GR_TRY(median_check(c, median_every(x)));
    gri_reduced_spec(x, median_every(x), a->keepdim, (gr_dtype)x->dtype, &c->spec[0]);
    return GR_OK;
}

static gr_status median_all_forward(gri_call *c) {
    const int64_t base = c->ctx->index_base;
    gr_tensor *x, *view = NULL;
    int64_t at;
    GR_TRY(gri_tensor_dense(c->in[0], &x));
    gr_status s = gri_tensor_view(x, 1, &x->numel, (const int64_t[]){1}, 0, &view);
    if (s == GR_OK) s = median_run(c->ctx, view, 0, x->numel, &at);
    gr_release(view), view = NULL;
    if (s == GR_OK) s = gri_tensor_view(x, 0, NULL, NULL, at - base, &view);
    if (s == GR_OK) s = gri_copy(c->ctx, c->out[0], view, GRI_SET);
    gr_release(view), gr_release(x);
    return s;
}
GR_KERNEL(median_all);

static gr_status median_all_rule(gri_grad *g) {
    gr_tensor *x = g->in[0], *dy, *y, *ties, *share;
    const gr_dims every = {.n = -1};
    GR_TRY(gri_keep_dims(g, g->out[0], median_every(x), &y));
    GR_TRY(gri_keep_dims(g, g->dy[0], median_every(x), &dy));
    GR_TRY(gri_share(g, dy, x, y, &every, &ties, &share));
    return GRI_EMIT(g, 0, mul, ties, share);
}

static const gr_attr median_all_schema[] = {
    {"keepdim", GR_ATTR_BOOL, offsetof(median_all_attrs, keepdim), .value = 0}, GR_ATTR_END};

static const gr_case median_all_cases[] = {
    {.in = "2,2", .give = "{{4,1},{3,2}}", .want = "2"},
    {.in = "3", .give = "{4,0/0,3}", .want = "0/0", .no_grad = true},
    {.in = "3,5", .attrs = "keepdim=true"},
    {.in = "()"},
    {0}};

GR_OP(median_all) = {
    .info = {.name = "median_all", .inputs = "x", .attrs = median_all_schema,
             .attr_size = sizeof(median_all_attrs), .hidden = true, .cases = median_all_cases,
             .doc = "The median of all elements: the lower one of two in the middle; NaN if there is one."},
    .sets_only = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_OUT(0),
    .shape = median_all_shape,
    .forward = median_all_kernels,
    .backward = median_all_rule,
};
