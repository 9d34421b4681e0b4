/* y[…, i, …] = x[…, 0, …] + … + x[…, i, …] along one dim. Floats are added up in double, whole numbers as i64.
 *
 * dx is the sum of dy from the other end: cumsum_backward, an op of its own, whose derivative is cumsum. Nothing is
 * kept.
 *
 * The tensor is seen as [outer, n, inner], n along the dim, and n cut into blocks of equal length; one block of one
 * outer is a line. A line begins with the sum of the blocks before it, so blocks are added up first where there are
 * several: then all lines and columns are independent. With inner = 1 a line is a chain of additions, each 4 cycles
 * after the last, so CUMSUM_LINES of them go side by side. */
#include "reduce.h"
#include "rows.h"
#include "vmath.h"

#define CUMSUM_BLOCK 1000 /* elements of a line, at most */
#define CUMSUM_LINES 4
#define CUMSUM_COLUMNS 64

typedef struct cumsum_attrs { int64_t dim; } cumsum_attrs;

typedef struct cumsum_job {
    const real *x;
    real *y;
    double *sums; /* [lines][inner]: of the line, then of what comes before it; NULL if there is one block */
    int64_t n, inner, step;       /* step: from an element to the next one, inner, or -inner from the end */
    int64_t blocks, block, lines; /* of n; elements of one; lines = outer blocks */
    int64_t tiles;                /* of CUMSUM_COLUMNS columns, or less */
} cumsum_job;

/* Where a line begins, and how many elements it has. */
static inline int64_t cumsum_line(const cumsum_job *j, int64_t line, int64_t *length) {
    int64_t outer = line, i = 0;
    if (j->blocks > 1) {
        outer = line / j->blocks;
        i = (line - outer * j->blocks) * j->block;
    }
    *length = j->n - i < j->block ? j->n - i : j->block;
    return (outer * j->n + (j->step > 0 ? i : j->n - 1 - i)) * j->inner;
}

/* ---- inner = 1 ---- */

static void cumsum_add_lines(void *arg, int64_t from, int64_t to) {
    const cumsum_job *j = arg;
    for (int64_t l = from; l < to; l++) {
        int64_t n, at = cumsum_line(j, l, &n);
        const real *x = j->x + (j->step > 0 ? at : at - n + 1);
        double s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < n; i++) s += x[i];
        j->sums[l] = s;
    }
}

static void cumsum_chain(const cumsum_job *j, int64_t n, int64_t at, double s) {
    for (; n > 0; n--, at += j->step) j->y[at] = (real)(s += j->x[at]);
}

static void cumsum_chains(void *arg, int64_t from, int64_t to) {
    const cumsum_job *j = arg;
    const int64_t step = j->step;
    for (int64_t l = from * CUMSUM_LINES; l < to * CUMSUM_LINES && l < j->lines; l += CUMSUM_LINES) {
        int64_t n[CUMSUM_LINES] = {0}, at[CUMSUM_LINES] = {0}, least = j->n;
        double s[CUMSUM_LINES] = {0};
        for (int k = 0; k < CUMSUM_LINES; k++) {
            if (l + k < j->lines) at[k] = cumsum_line(j, l + k, &n[k]);
            if (l + k < j->lines && j->sums) s[k] = j->sums[l + k];
            if (n[k] < least) least = n[k];
        }
        const real *x0 = j->x + at[0], *x1 = j->x + at[1], *x2 = j->x + at[2], *x3 = j->x + at[3];
        real *y0 = j->y + at[0], *y1 = j->y + at[1], *y2 = j->y + at[2], *y3 = j->y + at[3];
        for (int64_t i = 0; i < least; i++) {
            y0[i * step] = (real)(s[0] += x0[i * step]);
            y1[i * step] = (real)(s[1] += x1[i * step]);
            y2[i * step] = (real)(s[2] += x2[i * step]);
            y3[i * step] = (real)(s[3] += x3[i * step]);
        }
        for (int k = 0; k < CUMSUM_LINES; k++) cumsum_chain(j, n[k] - least, at[k] + least * step, s[k]);
    }
}

/* ---- columns side by side ---- */

/* Tile t: where its columns begin; its line and how many columns and elements it has. */
static inline int64_t cumsum_tile(const cumsum_job *j, int64_t t, int64_t *line, int64_t *width, int64_t *length) {
    int64_t column = t % j->tiles * CUMSUM_COLUMNS;
    *line = t / j->tiles;
    *width = j->inner - column < CUMSUM_COLUMNS ? j->inner - column : CUMSUM_COLUMNS;
    return cumsum_line(j, *line, length) + column;
}

static void cumsum_add_tiles(void *arg, int64_t from, int64_t to) {
    const cumsum_job *j = arg;
    for (int64_t t = from; t < to; t++) {
        int64_t line, w, n, at = cumsum_tile(j, t, &line, &w, &n);
        double s[CUMSUM_COLUMNS] = {0};
        for (int64_t i = 0; i < n; i++)
#pragma omp simd
            for (int64_t k = 0; k < w; k++) s[k] += j->x[at + i * j->step + k];
        double *to_sums = j->sums + line * j->inner + t % j->tiles * CUMSUM_COLUMNS;
        for (int64_t k = 0; k < w; k++) to_sums[k] = s[k];
    }
}

static void cumsum_tiles(void *arg, int64_t from, int64_t to) {
    const cumsum_job *j = arg;
    for (int64_t t = from; t < to; t++) {
        int64_t line, w, n, at = cumsum_tile(j, t, &line, &w, &n);
        double s[CUMSUM_COLUMNS] = {0};
        for (int64_t k = 0; k < w && j->sums; k++)
            s[k] = j->sums[line * j->inner + t % j->tiles * CUMSUM_COLUMNS + k];
        for (int64_t i = 0; i < n; i++, at += j->step) {
            const real *x = j->x + at;
            real *y = j->y + at;
#pragma omp simd
            for (int64_t k = 0; k < w; k++) {
                s[k] += x[k];
                y[k] = (real)s[k];
            }
        }
    }
}

/* Sums of lines become sums of what comes before them. */
static void cumsum_before(void *arg, int64_t from, int64_t to) {
    const cumsum_job *j = arg;
    for (int64_t o = from; o < to; o++) {
        for (int64_t k = 0; k < j->inner; k++) {
            double *s = j->sums + o * j->blocks * j->inner + k, sum = 0;
            for (int64_t b = 0; b < j->blocks; b++, s += j->inner) {
                double own = *s;
                *s = sum;
                sum += own;
            }
        }
    }
}

static gr_status cumsum_reals(gr_ctx *ctx, cumsum_job *j, int64_t outer) {
    size_t capacity = 0;
    j->blocks = (j->n + CUMSUM_BLOCK - 1) / CUMSUM_BLOCK;
    j->block = (j->n + j->blocks - 1) / j->blocks;
    j->lines = outer * j->blocks;
    j->tiles = (j->inner + CUMSUM_COLUMNS - 1) / CUMSUM_COLUMNS;
    int64_t groups = (j->lines + CUMSUM_LINES - 1) / CUMSUM_LINES, cost = j->block * (j->inner < 16 ? j->inner : 8);
    if (j->blocks > 1) {
        size_t bytes = (size_t)(j->lines * j->inner) * sizeof *j->sums;
        j->sums = gri_block_new(ctx, bytes, &capacity);
        if (!j->sums) return gr_fail(ctx, GR_ERR_MEMORY, "no memory for %zu bytes of partial sums", bytes);
        if (j->inner == 1) gri_rows(ctx, j->lines, j->block / 4, cumsum_add_lines, j);
        else gri_rows(ctx, j->lines * j->tiles, cost, cumsum_add_tiles, j);
        gri_rows(ctx, outer, j->blocks * j->inner, cumsum_before, j);
    }
    if (j->inner == 1) gri_rows(ctx, groups, 2 * j->block + 20, cumsum_chains, j);
    else gri_rows(ctx, j->lines * j->tiles, cost, cumsum_tiles, j);
    if (j->sums) gri_block_delete(ctx, j->sums, capacity);
    return gri_poll(ctx);
}

/* ---- the ops ---- */

static gr_status cumsum_shape(gri_call *c) {
    const gr_tensor *x = c->in[0];
    int dim;
    gri_spec_set(&c->spec[0], x);
    if (!gri_is_float(x)) c->spec[0].dtype = GR_I64;
    return x->rank ? gri_dim(c->ctx, ((const cumsum_attrs *)c->attrs)->dim, x->rank, &dim) : GR_OK;
}

/* Modulo 2^64; an addition takes one cycle, so that nothing is gained by going side by side. */
static void cumsum_whole(int64_t outer, int64_t n, int64_t inner, const uint64_t *x, uint64_t *y) {
    for (int64_t o = 0; o < outer; o++, x += n * inner, y += n * inner) {
        for (int64_t k = 0; k < inner; k++) y[k] = x[k];
        for (int64_t i = inner; i < n * inner; i++) y[i] = x[i] + y[i - inner];
    }
}

static gr_status cumsum_run(gri_call *c, bool back) {
    const gr_tensor *x = c->in[0], *y = c->out[0];
    int dim = 0;
    if (x->numel == 0) return GR_OK;
    if (x->rank > 0) GR_TRY(gri_dim(c->ctx, ((const cumsum_attrs *)c->attrs)->dim, x->rank, &dim));
    int64_t n = x->rank > 0 ? x->dims[dim] : 1;
    int64_t inner = x->rank > 0 ? gri_product(x->rank - dim - 1, x->dims + dim + 1) : 1, outer = x->numel / n / inner;
    if (!gri_is_float(x)) {
        cumsum_whole(outer, n, inner, (const uint64_t *)(const void *)x->data, (uint64_t *)(void *)y->data);
        return gri_poll(c->ctx);
    }
    cumsum_job j = {.x = (const real *)(const void *)x->data, .y = (real *)(void *)y->data, .n = n, .inner = inner,
                    .step = back ? -inner : inner};
    return cumsum_reals(c->ctx, &j, outer);
}

static gr_status cumsum_kernel(gri_call *c) { return cumsum_run(c, false); }

static gr_status cumsum_forward(gri_call *c) {
    gri_call d = *c;
    gri_spec spec = c->spec[0];
    gr_tensor *x = c->in[0], *wide;
    if (gri_is_float(x) || x->dtype == GR_I64) return gri_dense(c, cumsum_kernel);
    spec = (gri_spec){.dtype = GR_I64, .rank = x->rank};
    for (int i = 0; i < x->rank; i++) spec.dims[i] = x->dims[i];
    GR_TRY(gri_tensor_like_spec(c->ctx, &spec, &wide));
    gr_status s = gri_copy(c->ctx, wide, x, GRI_SET);
    d.in = &wide;
    if (s == GR_OK) s = gri_dense(&d, cumsum_kernel);
    gr_release(wide);
    return s;
}
GR_KERNEL(cumsum);

static gr_status cumsum_rule(gri_grad *g) {
    return gri_emit(g, 0, &gri_op_cumsum_backward, 1, g->dy, g->attrs);
}

static const gr_attr cumsum_schema[] = {
    {"dim", GR_ATTR_DIM, offsetof(cumsum_attrs, dim), .required = true}, GR_ATTR_END};

static const gr_case cumsum_cases[] = {
    {.in = "4", .attrs = "dim=1", .give = "{1,2,3,4}", .want = "{1,3,6,10}"},
    {.in = "2,3", .attrs = "dim=1", .give = "{{1,2,3},{4,5,6}}", .want = "{{1,2,3},{5,7,9}}"},
    {.in = "2,3", .attrs = "dim=-1", .give = "{{1,0/0,3},{4,5,1/0}}", .want = "{{1,0/0,0/0},{4,9,1/0}}",
     .no_grad = true},
    {.in = "i64:2,2", .attrs = "dim=2", .give = "{{1,2},{3,-4}}", .want = "{{1,3},{3,-1}}", .no_grad = true},
    {.in = "u8:3", .attrs = "dim=1", .give = "{200,100,1}", .want = "{200,300,301}", .no_grad = true},
    {.in = "3,7,2", .attrs = "dim=2"},
    {.in = "9,5", .attrs = "dim=2"},
    {.in = "2,2100", .attrs = "dim=2", .no_grad = true},
    {.in = "1100,70", .attrs = "dim=1", .no_grad = true},
    {.in = "()", .attrs = "dim=1"},
    {0}};

GR_OP(cumsum) = {
    .info = {.name = "cumsum", .inputs = "x", .attrs = cumsum_schema, .attr_size = sizeof(cumsum_attrs),
             .cases = cumsum_cases,
             .doc = "Sums of the elements up to each one along dim. Floats are added up in double precision; sums\n"
                    "of whole numbers and of comparisons are i64."},
    .sets_only = true,
    .shape = cumsum_shape,
    .forward = cumsum_kernels,
    .backward = cumsum_rule,
};

/* ---- from the other end ---- */

static gr_status cumsum_backward_shape(gri_call *c) {
    GR_TRY(gri_want_float(c, 0));
    return cumsum_shape(c);
}

static gr_status cumsum_backward_kernel(gri_call *c) { return cumsum_run(c, true); }
static gr_status cumsum_backward_forward(gri_call *c) { return gri_dense(c, cumsum_backward_kernel); }
GR_KERNEL(cumsum_backward);

static gr_status cumsum_backward_rule(gri_grad *g) { return gri_emit(g, 0, &gri_op_cumsum, 1, g->dy, g->attrs); }

static const gr_case cumsum_backward_cases[] = {
    {.in = "4", .attrs = "dim=1", .give = "{1,2,3,4}", .want = "{10,9,7,4}"},
    {.in = "3,7,2", .attrs = "dim=2"},
    {.in = "9,5", .attrs = "dim=2"},
    {.in = "2,2100", .attrs = "dim=2", .no_grad = true},
    {.in = "1100,70", .attrs = "dim=1", .no_grad = true},
    {0}};

GR_OP(cumsum_backward) = {
    .info = {.name = "cumsum_backward", .inputs = "dy", .attrs = cumsum_schema, .attr_size = sizeof(cumsum_attrs),
             .hidden = true, .cases = cumsum_backward_cases,
             .doc = "Sums of the elements from each one on along dim."},
    .sets_only = true,
    .shape = cumsum_backward_shape,
    .forward = cumsum_backward_kernels,
    .backward = cumsum_backward_rule,
};
