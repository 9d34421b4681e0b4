/* Normalisation over the batch, for x[n,c,...], by channel c:
 *     y = (x - mean) rstd weight + bias,  rstd = 1 / √(var + eps).
 * In training mean and var (biased) are those of the batch, of M values to a channel; otherwise the running ones.
 * Outputs y, mean[c], rstd[c].
 *
 * With db = Σ dy, dw = Σ dy (x - mean) rstd over each channel,
 *     dx = weight rstd (dy - (db + (x - mean) rstd dw) / M)   in training,  weight rstd dy otherwise,
 * all from batch_norm_backward(dy, x, weight, mean, rstd), whose own derivative runs through its `compose`: there
 * mean and rstd are variables of their own, and what arrives at them goes on to x,
 *     d mean/dx = 1/M,  d rstd/dx = -rstd³ (x - mean) / M,
 * or, outside training, to the running statistics. Kept: x, weight, mean, rstd.
 *
 * Sums are taken in double, of x less the channel's first value, so that a large mean costs no digits (Chan, Golub
 * and LeVeque, "Algorithms for computing the sample variance", Am. Stat. 37, 1983). A channel is summed and then
 * written while it is still in L2. */
#include "reduce.h"
#include "rows.h"
#include "vmath.h"

#define BATCH_NORM_RUN 8       /* spatial sizes from which a channel is taken run by run */
#define BATCH_NORM_COLUMNS 256 /* below: that many columns of [n, c * spatial] at once */

enum { BATCH_NORM_X, BATCH_NORM_WEIGHT, BATCH_NORM_BIAS, BATCH_NORM_RUNNING_MEAN, BATCH_NORM_RUNNING_VAR };

/* Row-major [n, c, s]. */
typedef struct batch_norm_job {
    int64_t n, c, s, block; /* channels done together */
    bool training;
    double eps;
    const real *x, *dy, *weight, *bias, *running_mean, *running_var;
    real *y, *mean, *rstd;  /* backward: mean and rstd are read */
    real *dx, *dw, *db;     /* NULL where nobody needs it */
} batch_norm_job;

static inline real *batch_norm_data(const gr_tensor *t) { return t ? (real *)(void *)t->data : NULL; }

static void batch_norm_dims(batch_norm_job *j, const gr_tensor *x) {
    j->n = x->dims[0];
    j->c = x->dims[1];
    j->s = gri_product(x->rank - 2, x->dims + 2);
    j->block = j->s >= BATCH_NORM_RUN || j->s == 0 ? 1 : BATCH_NORM_COLUMNS / j->s;
}

static void batch_norm_run(gr_ctx *ctx, batch_norm_job *j, gri_rows_fn fn, int64_t picoseconds) {
    int64_t blocks = (j->c + j->block - 1) / j->block;
    gri_rows(ctx, blocks, j->n * j->s * j->block * picoseconds / 1000 + 20, fn, j);
}

/* ---- one channel, run by run ---- */

static void batch_norm_channel(const batch_norm_job *j, int64_t c, double *mean, double *var) {
    const real *x = j->x + c * j->s;
    double k = x[0], a = 0, b = 0, m = (double)(j->n * j->s);
    for (int64_t n = 0; n < j->n; n++, x += j->c * j->s) {
#pragma omp simd reduction(+ : a, b)
        for (int64_t i = 0; i < j->s; i++) {
            double d = x[i] - k;
            a += d;
            b += d * d;
        }
    }
    *mean = k + a / m;
    *var = b / m - (a / m) * (a / m);
}

static void batch_norm_channel_write(const batch_norm_job *j, int64_t c) {
    const real *x = j->x + c * j->s;
    real *y = j->y + c * j->s, mean = j->mean[c], scale = j->rstd[c] * (j->weight ? j->weight[c] : 1);
    real shift = j->bias ? j->bias[c] : 0;
    for (int64_t n = 0; n < j->n; n++, x += j->c * j->s, y += j->c * j->s)
#pragma omp simd
        for (int64_t i = 0; i < j->s; i++) y[i] = (x[i] - mean) * scale + shift;
}

/* ---- neighbouring channels, row by row: columns first .. first + w - 1 of [n, c * s] ---- */

static void batch_norm_columns(const batch_norm_job *j, int64_t first, int64_t w, double *a, double *b) {
    double k[BATCH_NORM_COLUMNS];
    for (int64_t i = 0; i < w; i++) {
        k[i] = j->x[(first + i) / j->s * j->s];
        a[i] = b[i] = 0;
    }
    for (int64_t n = 0; n < j->n; n++) {
        const real *x = j->x + n * j->c * j->s + first;
#pragma omp simd
        for (int64_t i = 0; i < w; i++) {
            double d = x[i] - k[i];
            a[i] += d;
            b[i] += d * d;
        }
    }
}

static void batch_norm_columns_stats(const batch_norm_job *j, int64_t from, int64_t to, double *mean, double *var) {
    double a[BATCH_NORM_COLUMNS], b[BATCH_NORM_COLUMNS], m = (double)(j->n * j->s);
    batch_norm_columns(j, from * j->s, (to - from) * j->s, a, b);
    for (int64_t c = 0; c < to - from; c++) {
        double sa = 0, sb = 0;
        for (int64_t i = c * j->s; i < (c + 1) * j->s; i++) sa += a[i], sb += b[i];
        mean[c] = j->x[(from + c) * j->s] + sa / m;
        var[c] = sb / m - (sa / m) * (sa / m);
    }
}

static void batch_norm_columns_write(const batch_norm_job *j, int64_t from, int64_t to) {
    real mean[BATCH_NORM_COLUMNS], scale[BATCH_NORM_COLUMNS], shift[BATCH_NORM_COLUMNS];
    int64_t first = from * j->s, w = (to - from) * j->s;
    for (int64_t i = 0; i < w; i++) {
        int64_t c = from + i / j->s;
        mean[i] = j->mean[c];
        scale[i] = j->rstd[c] * (j->weight ? j->weight[c] : 1);
        shift[i] = j->bias ? j->bias[c] : 0;
    }
    for (int64_t n = 0; n < j->n; n++) {
        const real *x = j->x + n * j->c * j->s + first;
        real *y = j->y + n * j->c * j->s + first;
#pragma omp simd
        for (int64_t i = 0; i < w; i++) y[i] = (x[i] - mean[i]) * scale[i] + shift[i];
    }
}

/* ---- forward ---- */

static gr_status batch_norm_check_vector(gri_call *c, int i, const char *name, int64_t channels) {
    const gr_tensor *t = c->in[i];
    if (!t) return GR_OK;
    GR_TRY(gri_want_float(c, i));
    if (t->rank != 1 || t->dims[0] != channels)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is %s, expected [%lld], one for each channel", name,
                       gri_tensor_text(t), (long long)channels);
    return GR_OK;
}

static gr_status batch_norm_shape(gri_call *c) {
    static const char *const names[] = {"x", "weight", "bias", "running_mean", "running_var"};
    const gri_batch_norm_attrs *a = c->attrs;
    const gr_tensor *x = c->in[BATCH_NORM_X];
    GR_TRY(gri_want_float(c, BATCH_NORM_X));
    if (x->rank < 2) return gr_fail(c->ctx, GR_ERR_SHAPE, "x is %s, expected [n,channels,...]", gri_tensor_text(x));
    for (int i = BATCH_NORM_WEIGHT; i < c->n_in; i++) GR_TRY(batch_norm_check_vector(c, i, names[i], x->dims[1]));
    bool running = c->n_in > BATCH_NORM_RUNNING_VAR;
    running = running && c->in[BATCH_NORM_RUNNING_MEAN] && c->in[BATCH_NORM_RUNNING_VAR];
    if (!a->training && !running)
        return gr_fail(c->ctx, GR_ERR_ARG, "running_mean and running_var are needed unless training is true");
    if (a->training && x->dims[1] > 0 && x->numel <= x->dims[1])
        return gr_fail(c->ctx, GR_ERR_SHAPE,
                       "x is %s: the statistics of a batch need at least 2 values for each channel",
                       gri_tensor_text(x));
    c->spec[0] = gri_spec_of(x);
    c->spec[1] = c->spec[2] = (gri_spec){.dtype = (gr_dtype)x->dtype, .rank = 1, .dims = {x->dims[1]}};
    return GR_OK;
}

static void batch_norm_blocks(void *arg, int64_t from_block, int64_t to_block) {
    const batch_norm_job *j = arg;
    double mean[BATCH_NORM_COLUMNS], var[BATCH_NORM_COLUMNS];
    for (int64_t k = from_block; k < to_block; k++) {
        int64_t from = k * j->block, to = from + j->block < j->c ? from + j->block : j->c;
        if (!j->training) {
            for (int64_t c = from; c < to; c++) {
                mean[c - from] = j->running_mean[c];
                var[c - from] = j->running_var[c];
            }
        } else if (j->block == 1) {
            batch_norm_channel(j, from, mean, var);
        } else {
            batch_norm_columns_stats(j, from, to, mean, var);
        }
        for (int64_t c = from; c < to; c++) {
            double v = var[c - from];
            if (v < 0 && j->training) v = 0; /* by rounding */
            j->mean[c] = (real)mean[c - from];
            j->rstd[c] = (real)(1 / sqrt(v + j->eps));
        }
        if (j->block == 1) batch_norm_channel_write(j, from);
        else batch_norm_columns_write(j, from, to);
    }
}

static gr_status batch_norm_kernel(gri_call *c) {
    const gri_batch_norm_attrs *a = c->attrs;
    batch_norm_job j = {.training = a->training, .eps = a->eps};
    const real *in[BATCH_NORM_RUNNING_VAR + 1] = {0};
    batch_norm_dims(&j, c->in[BATCH_NORM_X]);
    for (int i = 0; i < c->n_in; i++) in[i] = batch_norm_data(c->in[i]);
    j.x = in[BATCH_NORM_X];
    j.weight = in[BATCH_NORM_WEIGHT];
    j.bias = in[BATCH_NORM_BIAS];
    j.running_mean = in[BATCH_NORM_RUNNING_MEAN];
    j.running_var = in[BATCH_NORM_RUNNING_VAR];
    j.y = batch_norm_data(c->out[0]);
    j.mean = batch_norm_data(c->out[1]);
    j.rstd = batch_norm_data(c->out[2]);
    batch_norm_run(c->ctx, &j, batch_norm_blocks, 200);
    return gri_poll(c->ctx);
}

static gr_status batch_norm_forward(gri_call *c) { return gri_dense(c, batch_norm_kernel); }
GR_KERNEL(batch_norm);

/* ---- backward ---- */

/* Of a vector over the channels: [1,c,1,...]. */
static gri_shape_attrs batch_norm_row(const gr_tensor *x) {
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = d == 1 ? x->dims[1] : 1;
    return a;
}

/* *out = factor rstd³ t. */
static gr_status batch_norm_cube(gri_grad *g, gr_tensor *t, double factor, gr_tensor **out) {
    gr_tensor *rstd = g->out[2], *k;
    GR_TRY(gri_scalar(g, &k, factor));
    GR_TRY(GRI_EVAL(g, &k, mul, rstd, k));
    GR_TRY(GRI_EVAL(g, &k, mul, rstd, k));
    GR_TRY(GRI_EVAL(g, &k, mul, rstd, k));
    return GRI_EVAL(g, out, mul, t, k);
}

/* What arrives at mean and rstd, in training. */
static gr_status batch_norm_through_statistics(gri_grad *g) {
    gr_tensor *x = g->in[BATCH_NORM_X], *t, *mean, *m;
    gri_shape_attrs row = batch_norm_row(x);
    double count = (double)x->numel / (double)x->dims[1];
    if (!gri_needs(g, BATCH_NORM_X)) return GR_OK;
    if (g->dy[1]) {
        gri_shape_attrs a = {.shape = {.n = x->rank}};
        for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
        GR_TRY(gri_scalar(g, &m, count));
        GR_TRY(GRI_EVAL(g, &t, div, g->dy[1], m));
        GR_TRY(gri_eval(g, &t, &gri_op_reshape, 1, &t, &row));
        GR_TRY(gri_emit(g, BATCH_NORM_X, &gri_op_expand, 1, &t, &a));
    }
    if (!g->dy[2]) return GR_OK;
    GR_TRY(batch_norm_cube(g, g->dy[2], -1 / count, &t));
    GR_TRY(gri_eval(g, &t, &gri_op_reshape, 1, &t, &row));
    GR_TRY(gri_eval(g, &mean, &gri_op_reshape, 1, &g->out[1], &row));
    GR_TRY(GRI_EVAL(g, &x, sub, x, mean));
    return GRI_EMIT(g, BATCH_NORM_X, mul, x, t);
}

/* The running statistics' share outside training: from y, through dw and db,
 *     d running_mean = -weight rstd db,  d running_var = -½ weight rstd² dw,
 * and from the outputs mean and rstd. */
static gr_status batch_norm_to_running(gri_grad *g) {
    gr_tensor *weight = g->in[BATCH_NORM_WEIGHT], *rstd = g->out[2], *d[3], *k, *t, *minus, *half;
    bool mean = gri_needs(g, BATCH_NORM_RUNNING_MEAN), var = gri_needs(g, BATCH_NORM_RUNNING_VAR);
    if (!mean && !var) return GR_OK;
    if (g->dy[0]) {
        gr_tensor *in[] = {g->dy[0], g->in[BATCH_NORM_X], weight, g->out[1], rstd};
        GR_TRY(gri_eval(g, d, &gri_op_batch_norm_backward, 5, in, &(bool){false}));
        GR_TRY(gri_scalar(g, &minus, -1));
        GR_TRY(gri_scalar(g, &half, -0.5));
        k = rstd;
        if (weight) GR_TRY(GRI_EVAL(g, &k, mul, weight, rstd));
        GR_TRY(GRI_EVAL(g, &t, mul, k, minus));
        GR_TRY(GRI_EMIT(g, BATCH_NORM_RUNNING_MEAN, mul, t, d[2]));
        GR_TRY(GRI_EVAL(g, &t, mul, k, half));
        GR_TRY(GRI_EVAL(g, &t, mul, t, rstd));
        GR_TRY(GRI_EMIT(g, BATCH_NORM_RUNNING_VAR, mul, t, d[1]));
    }
    if (g->dy[1]) GR_TRY(gri_emit_same(g, BATCH_NORM_RUNNING_MEAN, g->dy[1]));
    if (!g->dy[2] || !var) return GR_OK;
    GR_TRY(batch_norm_cube(g, g->dy[2], -0.5, &t));
    return gri_emit_same(g, BATCH_NORM_RUNNING_VAR, t);
}

static gr_status batch_norm_rule(gri_grad *g) {
    const gri_batch_norm_attrs *a = g->attrs;
    static const int to[] = {BATCH_NORM_X, BATCH_NORM_WEIGHT, BATCH_NORM_BIAS};
    gr_tensor *weight = g->n_in > BATCH_NORM_WEIGHT ? g->in[BATCH_NORM_WEIGHT] : NULL;
    gr_tensor *in[] = {g->dy[0], g->in[BATCH_NORM_X], weight, g->out[1], g->out[2]};
    if (g->dy[0]) GR_TRY(gri_emit_many(g, to, &gri_op_batch_norm_backward, 5, in, &a->training));
    return a->training ? batch_norm_through_statistics(g) : batch_norm_to_running(g);
}

static const gr_attr batch_norm_schema[] = {
    {"training", GR_ATTR_BOOL, offsetof(gri_batch_norm_attrs, training), .required = false},
    {"eps", GR_ATTR_REAL, offsetof(gri_batch_norm_attrs, eps), .value = 1e-5},
    GR_ATTR_END};

static const gr_case batch_norm_cases[] = {
    {.in = "2,2 2 2", .attrs = "training=true, eps=0", .give = "{{1,2},{3,8}}, {1,2}, {0,1}",
     .want = "{{-1,-1},{1,3}}, {2,5}, {1,0.333333333}"},
    {.in = "2,1 1 1 1 1", .attrs = "eps=0", .give = "{{1},{3}}, {2}, {1}, {1}, {4}", .want = "{{1},{3}}, {1}, {0.5}"},
    {.in = "2,2", .attrs = "training=true, eps=0", .give = "{{1,2},{3,8}}",
     .want = "{{-1,-1},{1,1}}, {2,5}, {1,0.333333333}"},
    {.in = "4,3 3 3", .attrs = "training=true"},
    {.in = "2,3,2,2 3 3", .attrs = "training=true"},
    {.in = "2,3,10 3 -", .attrs = "training=true"},
    {.in = "2,3,10 - 3 3 3", .lo = 0.5, .hi = 1.5},
    {0}};

GR_OP(batch_norm) = {
    .info = {.name = "batch_norm", .inputs = "x weight? bias? running_mean? running_var?", .attrs = batch_norm_schema,
             .attr_size = sizeof(gri_batch_norm_attrs), .cases = batch_norm_cases,
             .doc = "x [n,channels,...] normalised by channel, scaled by weight and shifted by bias. Returns y and\n"
                    "the mean and 1/sqrt(variance + eps) used: the batch's if training is true, else the running ones."},
    .n_out = 3,
    .keeps = GRI_KEEP_IN(BATCH_NORM_X) | GRI_KEEP_IN(BATCH_NORM_WEIGHT) | GRI_KEEP_OUT(1) | GRI_KEEP_OUT(2),
    .sets_only = true,
    .shape = batch_norm_shape,
    .forward = batch_norm_kernels,
    .backward = batch_norm_rule,
};

/* ---- its derivative as an op ---- */

static gr_status batch_norm_backward_shape(gri_call *c) {
    static const char *const names[] = {"dy", "x", "weight", "mean", "rstd"};
    const gr_tensor *dy = c->in[0], *x = c->in[1];
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_want_float(c, 1));
    if (x->rank < 2 || !gri_same_dims(x->rank, x->dims, dy->rank, dy->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s, but x is %s", gri_tensor_text(dy), gri_tensor_text(x));
    for (int i = 2; i < 5; i++) GR_TRY(batch_norm_check_vector(c, i, names[i], x->dims[1]));
    c->spec[0] = gri_spec_of(x);
    c->spec[1] = c->spec[2] = (gri_spec){.dtype = (gr_dtype)x->dtype, .rank = 1, .dims = {x->dims[1]}};
    return GR_OK;
}

/* *a = Σ dy, *b = Σ dy (x - mean) */
static void batch_norm_backward_channel(const batch_norm_job *j, int64_t c, double *a, double *b) {
    const real *x = j->x + c * j->s, *dy = j->dy + c * j->s, mean = j->mean[c];
    double sa = 0, sb = 0;
    for (int64_t n = 0; n < j->n; n++, x += j->c * j->s, dy += j->c * j->s) {
#pragma omp simd reduction(+ : sa, sb)
        for (int64_t i = 0; i < j->s; i++) {
            sa += dy[i];
            sb += (double)dy[i] * (x[i] - mean);
        }
    }
    *a = sa;
    *b = sb;
}

static void batch_norm_backward_columns(const batch_norm_job *j, int64_t from, int64_t to, double *a, double *b) {
    double sa[BATCH_NORM_COLUMNS] = {0}, sb[BATCH_NORM_COLUMNS] = {0};
    real mean[BATCH_NORM_COLUMNS];
    int64_t first = from * j->s, w = (to - from) * j->s;
    for (int64_t i = 0; i < w; i++) mean[i] = j->mean[from + i / j->s];
    for (int64_t n = 0; n < j->n; n++) {
        const real *x = j->x + n * j->c * j->s + first, *dy = j->dy + n * j->c * j->s + first;
#pragma omp simd
        for (int64_t i = 0; i < w; i++) {
            sa[i] += dy[i];
            sb[i] += (double)dy[i] * (x[i] - mean[i]);
        }
    }
    for (int64_t c = 0; c < to - from; c++) {
        a[c] = b[c] = 0;
        for (int64_t i = c * j->s; i < (c + 1) * j->s; i++) a[c] += sa[i], b[c] += sb[i];
    }
}

/* dx = k (dy - p - q (x - mean)), the coefficients by channel. */
typedef struct batch_norm_line { real k, p, q; } batch_norm_line;

static batch_norm_line batch_norm_coefficients(const batch_norm_job *j, int64_t c, double a, double b) {
    double m = (double)(j->n * j->s), r = j->rstd[c];
    batch_norm_line line = {.k = j->rstd[c] * (j->weight ? j->weight[c] : 1)};
    if (j->training) {
        line.p = (real)(a / m);
        line.q = (real)(r * r * b / m);
    }
    return line;
}

static void batch_norm_backward_channel_write(const batch_norm_job *j, int64_t c, double a, double b) {
    const real *x = j->x + c * j->s, *dy = j->dy + c * j->s, mean = j->mean[c];
    batch_norm_line l = batch_norm_coefficients(j, c, a, b);
    real *dx = j->dx + c * j->s;
    for (int64_t n = 0; n < j->n; n++, x += j->c * j->s, dy += j->c * j->s, dx += j->c * j->s)
#pragma omp simd
        for (int64_t i = 0; i < j->s; i++) dx[i] = l.k * (dy[i] - l.p - l.q * (x[i] - mean));
}

static void batch_norm_backward_columns_write(const batch_norm_job *j, int64_t from, int64_t to, const double *a,
                                              const double *b) {
    real mean[BATCH_NORM_COLUMNS], k[BATCH_NORM_COLUMNS], p[BATCH_NORM_COLUMNS], q[BATCH_NORM_COLUMNS];
    int64_t first = from * j->s, w = (to - from) * j->s;
    for (int64_t i = 0; i < w; i++) {
        int64_t c = i / j->s;
        batch_norm_line l = batch_norm_coefficients(j, from + c, a[c], b[c]);
        mean[i] = j->mean[from + c];
        k[i] = l.k, p[i] = l.p, q[i] = l.q;
    }
    for (int64_t n = 0; n < j->n; n++) {
        int64_t at = n * j->c * j->s + first;
        const real *x = j->x + at, *dy = j->dy + at;
        real *dx = j->dx + at;
#pragma omp simd
        for (int64_t i = 0; i < w; i++) dx[i] = k[i] * (dy[i] - p[i] - q[i] * (x[i] - mean[i]));
    }
}

static void batch_norm_backward_blocks(void *arg, int64_t from_block, int64_t to_block) {
    const batch_norm_job *j = arg;
    double a[BATCH_NORM_COLUMNS], b[BATCH_NORM_COLUMNS];
    for (int64_t k = from_block; k < to_block; k++) {
        int64_t from = k * j->block, to = from + j->block < j->c ? from + j->block : j->c;
        if (j->block == 1) batch_norm_backward_channel(j, from, a, b);
        else batch_norm_backward_columns(j, from, to, a, b);
        for (int64_t c = from; c < to; c++) {
            if (j->db) j->db[c] = (real)a[c - from];
            if (j->dw) j->dw[c] = (real)(b[c - from] * j->rstd[c]);
        }
        if (!j->dx) continue;
        if (j->block == 1) batch_norm_backward_channel_write(j, from, *a, *b);
        else batch_norm_backward_columns_write(j, from, to, a, b);
    }
}

static gr_status batch_norm_backward_kernel(gri_call *c) {
    batch_norm_job j = {.training = *(const bool *)c->attrs};
    batch_norm_dims(&j, c->in[1]);
    j.dy = batch_norm_data(c->in[0]);
    j.x = batch_norm_data(c->in[1]);
    j.weight = batch_norm_data(c->in[2]);
    j.mean = batch_norm_data(c->in[3]);
    j.rstd = batch_norm_data(c->in[4]);
    j.dx = batch_norm_data(c->out[0]);
    j.dw = batch_norm_data(c->out[1]);
    j.db = batch_norm_data(c->out[2]);
    batch_norm_run(c->ctx, &j, batch_norm_backward_blocks, 300);
    return gri_poll(c->ctx);
}

static gr_status batch_norm_backward_forward(gri_call *c) { return gri_dense(c, batch_norm_backward_kernel); }
GR_KERNEL(batch_norm_backward);

/* Tensors of a composed rule: all released at its end. */
typedef struct batch_norm_temps {
    gr_tensor *normal, *rstd, *mean, *diff, *t, *part, *sum, *db, *dw, *scale, *weight, *count;
} batch_norm_temps;

/* normal = (x - mean) rstd, out[1] = Σ dy normal, out[2] = Σ dy. */
static gr_status batch_norm_compose_sums(gri_call *c, batch_norm_temps *v) {
    gr_tensor *dy = c->in[0], *x = c->in[1];
    gri_shape_attrs row = batch_norm_row(x);
    gri_reduce_attrs over = {.dim = {.n = 0}};
    for (int d = 0; d < x->rank; d++)
        if (d != 1) over.dim.v[over.dim.n++] = d;
    GR_TRY(gr_apply(c->ctx, &gri_op_reshape, 1, &c->in[3], &row, &v->mean));
    GR_TRY(gr_apply(c->ctx, &gri_op_reshape, 1, &c->in[4], &row, &v->rstd));
    GR_TRY(GRI_APPLY(c->ctx, &v->diff, sub, x, v->mean));
    GR_TRY(GRI_APPLY(c->ctx, &v->normal, mul, v->diff, v->rstd));
    GR_TRY(GRI_APPLY(c->ctx, &v->t, mul, dy, v->normal));
    GR_TRY(gr_apply(c->ctx, &gri_op_sum, 1, &v->t, &over, &c->out[1]));
    return gr_apply(c->ctx, &gri_op_sum, 1, &dy, &over, &c->out[2]);
}

/* out[0] = weight rstd (dy - (db + normal dw) / M) */
static gr_status batch_norm_compose_dx(gri_call *c, batch_norm_temps *v) {
    gr_tensor *dy = c->in[0], *x = c->in[1], *weight = c->in[2], *inner = dy, *scale = v->rstd;
    gri_shape_attrs row = batch_norm_row(x);
    if (*(const bool *)c->attrs) {
        double m = (double)x->numel / (double)x->dims[1];
        gr_release(v->t);
        v->t = NULL;
        GR_TRY(gr_apply(c->ctx, &gri_op_reshape, 1, &c->out[1], &row, &v->dw));
        GR_TRY(gr_apply(c->ctx, &gri_op_reshape, 1, &c->out[2], &row, &v->db));
        GR_TRY(gr_tensor_scalar(c->ctx, (gr_dtype)x->dtype, m, &v->count));
        GR_TRY(GRI_APPLY(c->ctx, &v->t, mul, v->normal, v->dw));
        GR_TRY(GRI_APPLY(c->ctx, &v->part, add, v->t, v->db));
        GR_TRY(GRI_APPLY(c->ctx, &v->sum, div, v->part, v->count));
        GR_TRY(GRI_APPLY(c->ctx, &inner, sub, dy, v->sum));
        gr_release(v->sum);
        v->sum = inner;
    }
    if (weight) {
        GR_TRY(gr_apply(c->ctx, &gri_op_reshape, 1, &weight, &row, &v->weight));
        GR_TRY(GRI_APPLY(c->ctx, &v->scale, mul, v->weight, v->rstd));
        scale = v->scale;
    }
    return GRI_APPLY(c->ctx, &c->out[0], mul, inner, scale);
}

static gr_status batch_norm_backward_compose(gri_call *c) {
    union {
        batch_norm_temps named;
        gr_tensor *all[sizeof(batch_norm_temps) / sizeof(gr_tensor *)];
    } v = {0};
    GR_TRY(batch_norm_backward_shape(c));
    gr_status s = batch_norm_compose_sums(c, &v.named);
    if (s == GR_OK) s = batch_norm_compose_dx(c, &v.named);
    for (size_t i = 0; i < sizeof v.all / sizeof *v.all; i++) gr_release(v.all[i]);
    return s;
}

static const gr_attr batch_norm_backward_schema[] = {{"training", GR_ATTR_BOOL, 0, .required = false}, GR_ATTR_END};

static const gr_case batch_norm_backward_cases[] = {
    {.in = "2,1 2,1 1 1 1", .attrs = "training=true", .give = "{{1},{3}}, {{1},{4}}, {2}, {2}, {0.5}",
     .want = "{{-0.375},{-0.25}}, {2.5}, {4}"},
    {.in = "4,3 4,3 3 3 3", .attrs = "training=true"},
    {.in = "2,3,10 2,3,10 - 3 3", .attrs = "training=true"},
    {.in = "2,3,2 2,3,2 3 3 3"},
    {0}};

GR_OP(batch_norm_backward) = {
    .info = {.name = "batch_norm_backward", .inputs = "dy x weight? mean rstd", .attrs = batch_norm_backward_schema,
             .attr_size = sizeof(bool), .hidden = true, .cases = batch_norm_backward_cases,
             .doc = "The gradients of batch_norm's x, weight and bias"},
    .n_out = 3,
    .sets_only = true,
    .shape = batch_norm_backward_shape,
    .forward = batch_norm_backward_kernels,
    .compose = batch_norm_backward_compose,
};
