/* Normalisation of rows, the trailing dims normalized_shape of x taken as one of n numbers:
 *     y = x̂ weight + bias,  x̂ = (x - mean) rstd,  rstd = 1 / √(var + eps),  mean and var (biased) of the row.
 * x[...,normalized_shape] weight[normalized_shape] bias[normalized_shape] → y as x; without weight 1, without bias 0.
 *
 * With g = dy weight,
 *     dx = rstd (g - mean g - x̂ mean(g x̂)),  dweight = Σ dy x̂,  dbias = Σ dy over the rows,
 * all from layer_norm_backward(dy, x, weight), whose own derivative runs through its `compose`. Kept: x, weight.
 * The statistics are taken again, from rows that are read anyway: there are no results but y, and for [2048,128] the
 * two ways together take 0.22 ms on one thread.
 *
 * dweight and dbias are sums over pieces of at most LAYER_NORM_ROWS rows, cut by shape alone, in the kernel's own
 * type; those of the pieces are joined in order, in double. */
#include <string.h>

#include "rows.h"
#include "standard.h"
#include "stream.h"

#define LAYER_NORM_ROWS 32     /* of a piece, at most; a multiple of GRI_STANDARD_ROWS */
#define LAYER_NORM_PIECES 8    /* if there are rows enough */
#define LAYER_NORM_COLUMNS 128 /* whose sums are joined at once */

typedef struct layer_norm_job {
    int64_t rows, n, piece, pieces; /* of rows */
    double eps;
    bool stream; /* y, or dx */
    const real *x, *dy, *weight, *bias;
    real *y, *dx, *dw, *db; /* NULL where nobody needs it */
    real *sums;             /* [pieces][2n]: for dw, then for db; NULL if neither is wanted */
} layer_norm_job;

static inline real *layer_norm_data(const gr_tensor *t) { return t ? (real *)(void *)t->data : NULL; }

/* How many trailing dims are normalised: as many as the option has, or the weight. */
static gr_status layer_norm_rank(gri_call *c, int x_at, int *rank) {
    const gr_tensor *x = c->in[x_at], *weight = c->n_in > x_at + 1 ? c->in[x_at + 1] : NULL;
    gr_dims want = ((const gri_layer_norm_attrs *)c->attrs)->normalized_shape;
    if (want.n < 1 && weight) {
        want.n = weight->rank;
        memcpy(want.v, weight->dims, sizeof want.v);
    }
    if (want.n < 1)
        return gr_fail(c->ctx, GR_ERR_ARG, "normalized_shape is %s: the sizes of one dimension or more are needed",
                       weight ? "that of a weight without dimensions" : "missing");
    bool fits = x->rank >= want.n;
    for (int d = 0; fits && d < want.n; d++) fits = x->dims[x->rank - want.n + d] == want.v[d];
    if (!fits)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "x is %s, but normalized_shape is %s: they must end alike",
                       gri_tensor_text(x), gri_dims_text(want.n, want.v));
    *rank = want.n;
    return GR_OK;
}

static gr_status layer_norm_check(gri_call *c, int x_at, int i, const char *name, int rank) {
    const gr_tensor *x = c->in[x_at], *t = c->in[i];
    if (!t) return GR_OK;
    GR_TRY(gri_want_float(c, i));
    if (!gri_same_dims(t->rank, t->dims, rank, x->dims + x->rank - rank))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is %s, but normalized_shape is %s", name, gri_tensor_text(t),
                       gri_dims_text(rank, x->dims + x->rank - rank));
    return GR_OK;
}

static gr_status layer_norm_shape(gri_call *c) {
    int rank = 0;
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(layer_norm_rank(c, 0, &rank));
    if (c->n_in > 1) GR_TRY(layer_norm_check(c, 0, 1, "weight", rank));
    if (c->n_in > 2) GR_TRY(layer_norm_check(c, 0, 2, "bias", rank));
    c->spec[0] = gri_spec_of(c->in[0]);
    return GR_OK;
}

/* x_at: which input is x. An absent weight is read from *ones, made here, for layer_norm_end. */
static gr_status layer_norm_begin(gri_call *c, int x_at, layer_norm_job *j, gr_tensor **ones) {
    const gr_tensor *x = c->in[x_at], *weight = c->n_in > x_at + 1 ? c->in[x_at + 1] : NULL;
    int rank = 0;
    GR_TRY(layer_norm_rank(c, x_at, &rank));
    j->n = gri_product(rank, x->dims + x->rank - rank);
    j->rows = gri_product(x->rank - rank, x->dims);
    j->eps = ((const gri_layer_norm_attrs *)c->attrs)->eps;
    j->x = layer_norm_data(x);
    *ones = NULL;
    if (!weight) {
        GR_TRY(gr_tensor_empty(c->ctx, GRI_REAL, 1, &j->n, ones));
        real *one = layer_norm_data(*ones);
        for (int64_t i = 0; i < j->n; i++) one[i] = 1;
    }
    j->weight = layer_norm_data(weight ? weight : *ones);
    return GR_OK;
}

/* ---- forward ---- */

static inline void layer_norm_row(const layer_norm_job *j, gri_standard s, const real *x, real *y) {
    const real *weight = j->weight, *bias = j->bias;
    if (bias) {
#pragma omp simd
        for (int64_t i = 0; i < j->n; i++) y[i] = gri_standardised(s, x[i]) * weight[i] + bias[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < j->n; i++) y[i] = gri_standardised(s, x[i]) * weight[i];
    }
}

static void layer_norm_rows(void *arg, int64_t from, int64_t to) {
    const layer_norm_job *j = arg;
    _Alignas(64) real buffer[GRI_STREAM_ROW];
    for (int64_t first = from; first < to; first += GRI_STANDARD_ROWS) {
        int64_t rows = to - first < GRI_STANDARD_ROWS ? to - first : GRI_STANDARD_ROWS;
        const real *x[GRI_STANDARD_ROWS];
        gri_standard s[GRI_STANDARD_ROWS];
        gri_standard_rows(j->x, j->n, first, rows, x);
        gri_standard_of(j->n, x, j->eps, s);
        for (int64_t r = 0; r < rows; r++) {
            real *y = j->y + (first + r) * j->n;
            layer_norm_row(j, s[r], x[r], j->stream ? buffer : y);
            if (j->stream) gri_stream(y, buffer, j->n);
        }
    }
    if (j->stream) gri_stream_end();
}

static gr_status layer_norm_kernel(gri_call *c) {
    layer_norm_job j = {.y = layer_norm_data(c->out[0])};
    gr_tensor *ones;
    if (c->out[0]->numel == 0) return GR_OK;
    GR_TRY(layer_norm_begin(c, 0, &j, &ones));
    j.bias = layer_norm_data(c->n_in > 2 ? c->in[2] : NULL);
    j.stream = gri_streams(c->out[0], j.n);
    gri_rows(c->ctx, j.rows, j.n / 3 + 20, layer_norm_rows, &j);
    gr_release(ones);
    return gri_poll(c->ctx);
}

static gr_status layer_norm_forward(gri_call *c) { return gri_dense(c, layer_norm_kernel); }
GR_KERNEL(layer_norm);

static gr_status layer_norm_rule(gri_grad *g) {
    static const int to[] = {0, 1, 2};
    gr_tensor *in[] = {g->dy[0], g->in[0], g->n_in > 1 ? g->in[1] : NULL};
    return gri_emit_many(g, to, &gri_op_layer_norm_backward, 3, in, g->attrs);
}

static const gr_attr layer_norm_schema[] = {
    {"normalized_shape", GR_ATTR_SHAPE, offsetof(gri_layer_norm_attrs, normalized_shape), .required = false},
    {"eps", GR_ATTR_REAL, offsetof(gri_layer_norm_attrs, eps), .value = 1e-5},
    GR_ATTR_END};

static const gr_case layer_norm_cases[] = {
    {.in = "2,4 4 4", .attrs = "eps=0", .give = "{{1,3,1,3},{8,4,4,8}}, {1,2,3,4}, {0,1,0,1}",
     .want = "{{-1,3,-3,5},{1,-1,-3,5}}"},
    {.in = "4", .attrs = "normalized_shape=4, eps=0", .give = "{1e6,1e6+2,1e6,1e6+2}", .want = "{-1,1,-1,1}"},
    {.in = "4", .attrs = "normalized_shape=4, eps=0", .give = "{1e6,1e6,1e6,1e6+4}", .tol = 2e-7,
     .want = "{-0.577350269,-0.577350269,-0.577350269,1.73205081}"},
    {.in = "1,2", .attrs = "normalized_shape=2, eps=1", .give = "{{5,5}}", .want = "{{0,0}}"},
    {.in = "5,7 7 7"},
    {.in = "3,70 70 -"},
    {.in = "2,3,4,5 4,5 4,5"},
    {.in = "6,5 - 5", .attrs = "normalized_shape=5, eps=0.1"},
    {.in = "2,3,4", .attrs = "normalized_shape={3,4}"},
    {0}};

GR_OP(layer_norm) = {
    .info = {.name = "layer_norm", .inputs = "x weight? bias?", .attrs = layer_norm_schema,
             .attr_size = sizeof(gri_layer_norm_attrs), .cases = layer_norm_cases,
             .doc = "x with its last dimensions, of sizes normalized_shape (weight's if it is not given), brought\n"
                    "to mean 0 and variance 1 together, then scaled by weight and shifted by bias, element by\n"
                    "element."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .sets_only = true,
    .shape = layer_norm_shape,
    .forward = layer_norm_kernels,
    .backward = layer_norm_rule,
};

/* ---- its derivative as an op ---- */

static gr_status layer_norm_backward_shape(gri_call *c) {
    const gr_tensor *dy = c->in[0], *x = c->in[1];
    int rank = 0;
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_want_float(c, 1));
    if (!gri_same_dims(x->rank, x->dims, dy->rank, dy->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s, but x is %s", gri_tensor_text(dy), gri_tensor_text(x));
    GR_TRY(layer_norm_rank(c, 1, &rank));
    GR_TRY(layer_norm_check(c, 1, 2, "weight", rank));
    c->spec[0] = gri_spec_of(x);
    c->spec[1].dtype = (gr_dtype)x->dtype;
    c->spec[1].rank = rank;
    memcpy(c->spec[1].dims, x->dims + x->rank - rank, (size_t)rank * sizeof *x->dims);
    c->spec[2] = c->spec[1];
    return GR_OK;
}

/* mean[r] = mean g, along[r] = mean(g x̂), for g = dy weight, over rows of n */
static inline void layer_norm_means(const layer_norm_job *j, const gri_standard *s, const real *const *x,
                                    const real *const *dy, real *mean, real *along) {
    const real *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3], *weight = j->weight;
    const real *dy0 = dy[0], *dy1 = dy[1], *dy2 = dy[2], *dy3 = dy[3];
    const gri_standard s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
    double sum[4] = {0}, dot[4] = {0}, each = 1 / (double)j->n;
    for (int64_t at = 0; at < j->n; at += GRI_STANDARD_BLOCK) {
        int64_t end = gri_standard_end(at, j->n);
        real a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
#pragma omp simd reduction(+ : a0, a1, a2, a3, b0, b1, b2, b3)
        for (int64_t i = at; i < end; i++) {
            real w = weight[i], g0 = dy0[i] * w, g1 = dy1[i] * w, g2 = dy2[i] * w, g3 = dy3[i] * w;
            a0 += g0, b0 += g0 * gri_standardised(s0, x0[i]);
            a1 += g1, b1 += g1 * gri_standardised(s1, x1[i]);
            a2 += g2, b2 += g2 * gri_standardised(s2, x2[i]);
            a3 += g3, b3 += g3 * gri_standardised(s3, x3[i]);
        }
        sum[0] += a0, sum[1] += a1, sum[2] += a2, sum[3] += a3;
        dot[0] += b0, dot[1] += b1, dot[2] += b2, dot[3] += b3;
    }
    for (int r = 0; r < 4; r++) {
        mean[r] = (real)(sum[r] * each);
        along[r] = (real)(dot[r] * each);
    }
}

static inline void layer_norm_dx(const layer_norm_job *j, gri_standard s, const real *x, const real *dy, real mean,
                                 real along, real *dx) {
    const real *weight = j->weight;
#pragma omp simd
    for (int64_t i = 0; i < j->n; i++)
        dx[i] = s.rstd * ((dy[i] * weight[i] - mean) - gri_standardised(s, x[i]) * along);
}

/* dw += Σ dy x̂, db += Σ dy over the rows: four at a time, so that the sums are loaded and stored once for four */
static inline void layer_norm_add(int64_t n, int64_t rows, const gri_standard *s, const real *const *x,
                                  const real *const *dy, real *dw, real *db) {
    const real *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    const real *dy0 = dy[0], *dy1 = dy[1], *dy2 = dy[2], *dy3 = dy[3];
    const gri_standard s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
    if (rows == GRI_STANDARD_ROWS) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            dw[i] += (dy0[i] * gri_standardised(s0, x0[i]) + dy1[i] * gri_standardised(s1, x1[i])) +
                     (dy2[i] * gri_standardised(s2, x2[i]) + dy3[i] * gri_standardised(s3, x3[i]));
            db[i] += (dy0[i] + dy1[i]) + (dy2[i] + dy3[i]);
        }
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        const real *xr = x[r], *dyr = dy[r];
        const gri_standard sr = s[r];
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            dw[i] += dyr[i] * gri_standardised(sr, xr[i]);
            db[i] += dyr[i];
        }
    }
}

/* Rows first .. first + rows - 1 */
static void layer_norm_backward_rows(const layer_norm_job *j, int64_t first, int64_t rows, real *sums, real *buffer) {
    const real *x[GRI_STANDARD_ROWS], *dy[GRI_STANDARD_ROWS];
    gri_standard s[GRI_STANDARD_ROWS];
    real mean[GRI_STANDARD_ROWS], along[GRI_STANDARD_ROWS];
    gri_standard_rows(j->x, j->n, first, rows, x);
    gri_standard_rows(j->dy, j->n, first, rows, dy);
    gri_standard_of(j->n, x, j->eps, s);
    if (sums) layer_norm_add(j->n, rows, s, x, dy, sums, sums + j->n);
    if (!j->dx) return;
    layer_norm_means(j, s, x, dy, mean, along);
    for (int64_t r = 0; r < rows; r++) {
        real *dx = j->dx + (first + r) * j->n;
        layer_norm_dx(j, s[r], x[r], dy[r], mean[r], along[r], j->stream ? buffer : dx);
        if (j->stream) gri_stream(dx, buffer, j->n);
    }
}

static void layer_norm_backward_pieces(void *arg, int64_t from, int64_t to) {
    const layer_norm_job *j = arg;
    _Alignas(64) real buffer[GRI_STREAM_ROW];
    for (int64_t p = from; p < to; p++) {
        int64_t end = (p + 1) * j->piece < j->rows ? (p + 1) * j->piece : j->rows;
        real *sums = j->sums ? j->sums + p * 2 * j->n : NULL;
        for (int64_t i = 0; sums && i < 2 * j->n; i++) sums[i] = 0;
        for (int64_t r = p * j->piece; r < end; r += GRI_STANDARD_ROWS)
            layer_norm_backward_rows(j, r, end - r < GRI_STANDARD_ROWS ? end - r : GRI_STANDARD_ROWS, sums, buffer);
    }
    if (j->stream) gri_stream_end();
}

/* to[0..w) = Σ over the pieces of from[p][0..w), in order; w <= LAYER_NORM_COLUMNS */
static void layer_norm_join(const layer_norm_job *j, const real *from, int64_t w, real *to) {
    double sum[LAYER_NORM_COLUMNS] = {0};
    for (int64_t p = 0; to && p < j->pieces; p++)
#pragma omp simd
        for (int64_t i = 0; i < w; i++) sum[i] += from[p * 2 * j->n + i];
#pragma omp simd
    for (int64_t i = 0; i < (to ? w : 0); i++) to[i] = (real)sum[i];
}

static void layer_norm_join_groups(void *arg, int64_t from, int64_t to) {
    const layer_norm_job *j = arg;
    for (int64_t g = from; g < to; g++) {
        int64_t at = g * LAYER_NORM_COLUMNS, w = j->n - at < LAYER_NORM_COLUMNS ? j->n - at : LAYER_NORM_COLUMNS;
        layer_norm_join(j, j->sums + at, w, j->dw ? j->dw + at : NULL);
        layer_norm_join(j, j->sums + j->n + at, w, j->db ? j->db + at : NULL);
    }
}

static gr_status layer_norm_backward_run(gri_call *c, layer_norm_job *j) {
    int64_t most = LAYER_NORM_PIECES * GRI_STANDARD_ROWS, groups;
    size_t capacity = 0;
    j->piece = (j->rows + most - 1) / most * GRI_STANDARD_ROWS;
    if (j->piece > LAYER_NORM_ROWS) j->piece = LAYER_NORM_ROWS;
    j->pieces = j->rows ? (j->rows + j->piece - 1) / j->piece : 0;
    if (j->dw || j->db) {
        size_t bytes = (size_t)(j->pieces * 2 * j->n) * sizeof *j->sums;
        j->sums = gri_block_new(c->ctx, bytes, &capacity);
        if (!j->sums) return gr_fail(c->ctx, GR_ERR_MEMORY, "no memory for %zu bytes of partial sums", bytes);
    }
    gri_rows(c->ctx, j->pieces, j->piece * (j->n / 3 + 50), layer_norm_backward_pieces, j);
    if (j->sums) {
        groups = (j->n + LAYER_NORM_COLUMNS - 1) / LAYER_NORM_COLUMNS;
        gri_rows(c->ctx, groups, j->pieces * LAYER_NORM_COLUMNS / 4, layer_norm_join_groups, j);
        gri_block_delete(c->ctx, j->sums, capacity);
    }
    return gri_poll(c->ctx);
}

static gr_status layer_norm_backward_kernel(gri_call *c) {
    layer_norm_job j = {.dy = layer_norm_data(c->in[0])};
    gr_tensor *ones;
    GR_TRY(layer_norm_begin(c, 1, &j, &ones));
    j.dx = layer_norm_data(c->out[0]);
    j.dw = layer_norm_data(c->out[1]);
    j.db = layer_norm_data(c->out[2]);
    j.stream = gri_streams(c->out[0], j.n);
    gr_status s = j.n > 0 ? layer_norm_backward_run(c, &j) : GR_OK;
    gr_release(ones);
    return s;
}

static gr_status layer_norm_backward_forward(gri_call *c) { return gri_dense(c, layer_norm_backward_kernel); }
GR_KERNEL(layer_norm_backward);

static gr_status layer_norm_backward_compose(gri_call *c) {
    GR_TRY(layer_norm_backward_shape(c));
    const gri_spec *x = &c->spec[0], *row = &c->spec[1];
    gri_standard_views w = {.eps = ((const gri_layer_norm_attrs *)c->attrs)->eps};
    w.n = gri_product(row->rank, row->dims);
    w.rows = gri_product(x->rank - row->rank, x->dims);
    w.whole = (gr_dims){.n = 2, .v = {w.rows, w.n}};
    w.over = (gr_dims){.n = 1, .v = {0}};
    w.weight = (gr_dims){.n = 1, .v = {w.n}};
    return gri_standard_compose(c, &w);
}

static const gr_case layer_norm_backward_cases[] = {
    {.in = "1,4 1,4 4", .attrs = "eps=0", .give = "{{1,0,0,0}}, {{0,2,0,2}}, {2,1,1,1}",
     .want = "{{1,0,-1,0}}, {-1,0,0,0}, {1,0,0,0}"},
    {.in = "5,7 5,7 7"},
    {.in = "40,5 40,5 -", .attrs = "normalized_shape=5, eps=0.1"},
    {.in = "3,4,5 3,4,5 4,5"},
    {0}};

GR_OP(layer_norm_backward) = {
    .info = {.name = "layer_norm_backward", .inputs = "dy x weight?", .attrs = layer_norm_schema,
             .attr_size = sizeof(gri_layer_norm_attrs), .hidden = true, .cases = layer_norm_backward_cases,
             .doc = "The gradients of layer_norm's x, weight and bias"},
    .n_out = 3,
    .sets_only = true,
    .shape = layer_norm_backward_shape,
    .forward = layer_norm_backward_kernels,
    .compose = layer_norm_backward_compose,
};
