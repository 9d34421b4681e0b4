/* The k largest or smallest elements along one dim, and where they stood.
 *
 *   x[…, n, …] → values[…, k, …], indices[…, k, …], i64, counted from the context's index base
 *
 * Sorted, the best first; or in the order in which they stand in x. Of equal elements the first are chosen. NaN
 * counts as larger than any number.
 *
 * A line is passed once. What beats the k-th best so far goes into a buffer; when that is full, it is sorted, and
 * its best k stay. Elements are compared 64 at a time, so that those that beat nothing cost 0.2 ns each. At worst, with
 * the best last, each of them is sorted twice or so if k is large, and moved past some 16 others if it is small.
 *
 * dx = dy at indices, as for sort. Only indices are kept. */
#include "lines.h"
#include "order.h"
#include "rows.h"
#include "scratch.h"

#define TOPK_BLOCK 64 /* elements looked at together */
#define TOPK_MORE 16  /* room in the buffer beyond k, at least: so few are sorted fast */

typedef struct topk_attrs { int64_t k, dim; bool largest, sorted; } topk_attrs;

typedef struct topk_job {
    const char *x;
    char *values;
    int64_t *indices;
    int64_t n, k, size, base, room; /* room: entries in the buffer */
    bool whole, back, sorted;
    gri_scratch scratch; /* two buffers */
} topk_job;

static bool topk_any(const gri_key *keys, gri_key bound) {
    gri_key any = 0;
#pragma omp simd reduction(| : any)
    for (int i = 0; i < TOPK_BLOCK; i++) any |= keys[i] < bound;
    return any;
}

/* The best of a line, in a, in order. */
static void topk_line(const topk_job *j, const char *x, gri_entry *a, gri_entry *spare) {
    gri_key keys[TOPK_BLOCK], bound = GRI_KEY_NAN;
    int64_t m = 0;
    bool full = false; /* there are k, the worst of which has the key `bound` */
    for (int64_t at = 0; at < j->n; at += TOPK_BLOCK) {
        int64_t w = j->n - at < TOPK_BLOCK ? j->n - at : TOPK_BLOCK;
        gri_keys(w, x + at * j->size, j->whole, j->back, keys);
        if (full && w == TOPK_BLOCK && !topk_any(keys, bound)) continue;
        for (int64_t i = 0; i < w; i++) {
            if (full && keys[i] >= bound) continue;
            a[m++] = (gri_entry){keys[i], (gri_key)(at + i)};
            if (m < j->room || at + i + 1 == j->n) continue;
            gri_sort(m, a, spare);
            m = j->k;
            bound = a[m - 1].key;
            full = true;
        }
    }
    if (m > j->k || !full) gri_sort(m, a, spare);
}

static void topk_rows(void *arg, int64_t from, int64_t to) {
    topk_job *j = arg;
    const int64_t k = j->k;
    gri_entry *a = gri_scratch_claim(&j->scratch), *spare = a + j->room;
    for (int64_t r = from; r < to; r++) {
        const real *x = (const real *)(const void *)(j->x + r * j->n * j->size);
        real *y = (real *)(void *)(j->values + r * k * j->size); /* i64 has the size of f64 */
        int64_t *indices = j->indices + r * k;
        topk_line(j, (const char *)x, a, spare);
        if (!j->sorted) {
            for (int64_t i = 0; i < k; i++) a[i].key = a[i].at;
            gri_sort(k, a, spare);
        }
        for (int64_t i = 0; i < k; i++) {
            indices[i] = (int64_t)a[i].at + j->base;
            y[i] = x[a[i].at];
        }
    }
    gri_scratch_return(&j->scratch, a);
}

/* Of rows. */
static gr_status topk_run(gri_call *c, const gr_tensor *x, gr_tensor *values, gr_tensor *indices, int64_t n) {
    const topk_attrs *a = c->attrs;
    topk_job j = {.x = x->data, .values = values->data, .indices = (int64_t *)(void *)indices->data, .n = n,
                  .k = a->k, .size = (int64_t)gri_size((gr_dtype)x->dtype), .base = c->ctx->index_base,
                  .whole = !gri_is_float(x), .back = a->largest, .sorted = a->sorted};
    if (values->numel == 0) return GR_OK;
    j.room = 2 * j.k > j.k + TOPK_MORE ? 2 * j.k : j.k + TOPK_MORE;
    if (j.room > n) j.room = n;
    GR_TRY(gri_scratch_open(c->ctx, &j.scratch, 2 * (size_t)j.room * sizeof(gri_entry)));
    gri_rows(c->ctx, x->numel / n, n + 20 * j.room, topk_rows, &j);
    gri_scratch_close(c->ctx, &j.scratch);
    return gri_poll(c->ctx);
}

static gr_status topk_forward(gri_call *c) {
    gr_tensor *x = NULL, *values = NULL, *indices = NULL;
    gr_dtype dtype = gri_is_float(c->in[0]) ? GRI_REAL : GR_I64;
    int dim;
    GR_TRY(gri_line_dim(c, ((const topk_attrs *)c->attrs)->dim, c->in[0], &dim));
    gr_status s = gri_lines_of(c->in[0], dim, dtype, &x);
    if (s == GR_OK) s = gri_lines_for(c->out[0], dim, dtype, &values);
    if (s == GR_OK) s = gri_lines_for(c->out[1], dim, GR_I64, &indices);
    if (s == GR_OK) s = topk_run(c, x, values, indices, gri_line_length(c->in[0], dim));
    if (s == GR_OK) s = gri_lines_done(c->out[0], dim, values);
    if (s == GR_OK) s = gri_lines_done(c->out[1], dim, indices);
    gr_release(x), gr_release(values), gr_release(indices);
    return s;
}
GR_KERNEL(topk);

static gr_status topk_shape(gri_call *c) {
    const topk_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    int dim;
    GR_TRY(gri_line_dim(c, a->dim, x, &dim));
    const int64_t n = gri_line_length(x, dim);
    if (a->k < (x->rank ? 0 : 1) || a->k > n)
        return gr_fail(c->ctx, GR_ERR_ARG, "k is %lld, but dimension %d of %s has %lld", (long long)a->k,
                       dim + c->ctx->index_base, gri_tensor_text(x), (long long)n);
    if (n > GRI_ORDER_MOST)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s has more than %lld elements along dimension %d", gri_tensor_text(x),
                       (long long)GRI_ORDER_MOST, dim + c->ctx->index_base);
    gri_spec_set(&c->spec[0], x);
    if (x->rank) c->spec[0].dims[dim] = a->k;
    c->spec[1] = c->spec[0];
    c->spec[1].dtype = GR_I64;
    return GR_OK;
}

static gr_status topk_rule(gri_grad *g) {
    return gri_emit_picked(g, ((const topk_attrs *)g->attrs)->dim);
}

static const gr_attr topk_schema[] = {
    {"k", GR_ATTR_INT, offsetof(topk_attrs, k), .required = true},
    {"dim", GR_ATTR_DIM, offsetof(topk_attrs, dim), .value = -1},
    {"largest", GR_ATTR_BOOL, offsetof(topk_attrs, largest), .value = 1},
    {"sorted", GR_ATTR_BOOL, offsetof(topk_attrs, sorted), .value = 1},
    GR_ATTR_END};

static const gr_case topk_cases[] = {
    {.in = "5", .attrs = "k=3", .give = "{2,5,1,5,4}", .want = "{5,5,4}, {2,4,5}", .no_grad = true},
    {.in = "5", .attrs = "k=3, largest=false", .give = "{2,5,1,5,2}", .want = "{1,2,2}, {3,1,5}", .no_grad = true},
    {.in = "5", .attrs = "k=3, sorted=false", .give = "{2,3,1,5,4}", .want = "{3,5,4}, {2,4,5}"},
    {.in = "2,3", .attrs = "k=1, dim=1", .give = "{{3,1,0},{2,4,5}}", .want = "{{3,4,5}}, {{1,2,2}}"},
    {.in = "4", .attrs = "k=2", .give = "{1,0/0,1/0,-1}", .want = "{0/0,1/0}, {2,3}", .no_grad = true},
    {.in = "i64:4", .attrs = "k=2", .give = "{3,-2,9007199254740993,9007199254740992}",
     .want = "{9007199254740993,9007199254740992}, {3,4}", .no_grad = true},
    {.in = "3,7,2", .attrs = "k=4, dim=2"},
    {.in = "2,700", .attrs = "k=3, largest=false", .no_grad = true},
    {.in = "2,300", .attrs = "k=250, sorted=false", .no_grad = true},
    {.in = "()", .attrs = "k=1"},
    {.in = "3,4", .attrs = "k=0"},
    {0}};

GR_OP(topk) = {
    .info = {.name = "topk", .inputs = "x", .attrs = topk_schema, .attr_size = sizeof(topk_attrs),
             .cases = topk_cases,
             .doc = "The k largest (or smallest) elements along dim (the last if none is given) and their positions\n"
                    "in x: the best first, or with sorted = false as they stand in x. Of equal elements the first\n"
                    "are chosen; NaN counts as larger than any number."},
    .n_out = 2,
    .sets_only = true,
    .keeps = GRI_KEEP_OUT(1),
    .shape = topk_shape,
    .forward = topk_kernels,
    .backward = topk_rule,
};
