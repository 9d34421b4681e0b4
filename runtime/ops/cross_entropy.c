/* Softmax and negative log-likelihood in one: for x[n,c] or x[n,c,d1,...] and classes t[n] or t[n,d1,...], with
 * p_j = log Σ_i exp(x_i - m) - (x_j - m), m = max x, along dim 2, and e = label_smoothing,
 *     loss = (1 - e) weight_t p_t + e/c Σ_j weight_j p_j;
 * their mean over the rows' weight_t, their sum, or all of them. weight is 1 where absent; rows whose target is
 * ignore_index count nothing (Szegedy et al., "Rethinking the Inception architecture", CVPR 2016).
 *
 * dx_j = g (A softmax(x)_j - e/c weight_j - [j = t] (1 - e) weight_t), A = (1 - e) weight_t + e/c Σ weight, where g
 * is dy, over the weights for the mean. Inputs are kept: the exponentials are made again, which costs less than to
 * write and read them. cross_entropy_backward(dy, x, t, weight) is an op of its own, whose derivative runs through
 * its `compose`. The gradient of weight is composed of simpler ops, from the inputs and the result (classes.h).
 *
 * The kernels see [rows, c]: where there are further dims, x goes through a copy with the classes last. Losses
 * are added up in double, row after row. */
#include "classes.h"
#include "copy.h"
#include "rows.h"
#include "softmax.h"

#define CROSS_ENTROPY_GROUP 16  /* rows whose logarithms are taken together */
#define CROSS_ENTROPY_LONG 1000 /* classes from which a row is enough work for a group of its own */

typedef struct cross_entropy_job {
    int64_t rows, classes, base, ignored;
    int64_t group;          /* rows done together: GRI_COLUMNS, turned, if they are short */
    const real *x, *weight; /* weight NULL: 1 */
    const int64_t *target;
    double keep, smooth;    /* 1 - e, e/c */
    double all;             /* Σ weight over the classes */
    double *loss;           /* forward: one for each row */
    const real *dy;         /* backward: one for each row, or, with step 0, one for all */
    int64_t step;
    double scale;
    real *dx;
} cross_entropy_job;

/* t (+1) with the class dim last. */
static gr_status cross_entropy_turn(const gr_tensor *t, gr_tensor **out) {
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    int dim = gri_class_dim(t), k = 0;
    for (int d = 0; d < t->rank; d++) {
        if (d == dim) continue;
        dims[k] = t->dims[d];
        strides[k++] = t->strides[d];
    }
    dims[k] = t->dims[dim];
    strides[k] = t->strides[dim];
    return gri_tensor_view(t, t->rank, dims, strides, 0, out);
}

/* What the job reads, +1 each. */
typedef struct cross_entropy_held { gr_tensor *x, *target, *weight; } cross_entropy_held;

static void cross_entropy_release(cross_entropy_held *h) {
    gr_release(h->x), gr_release(h->target), gr_release(h->weight);
}

/* Of inputs x_at and on. *weights: the sum of the rows' weights. On failure h still wants its release. */
static gr_status cross_entropy_begin(gri_call *c, int x_at, cross_entropy_job *j, cross_entropy_held *h,
                                     double *weights) {
    const gri_class_attrs *a = c->attrs;
    const gr_tensor *in = c->in[x_at], *weight = gri_class_weight(c, x_at);
    gr_tensor *turned;
    int64_t counted;
    GR_TRY(cross_entropy_turn(in, &turned));
    gr_status s = gri_tensor_dense(turned, &h->x);
    gr_release(turned);
    if (s == GR_OK) s = gri_class_target(c, x_at, &h->target, &counted);
    if (s == GR_OK && weight) s = gri_tensor_dense((gr_tensor *)weight, &h->weight);
    GR_TRY(s);
    j->classes = in->dims[gri_class_dim(in)];
    j->rows = h->target->numel;
    j->base = c->ctx->index_base;
    j->ignored = a->ignore_index;
    j->keep = 1 - a->label_smoothing;
    j->smooth = a->label_smoothing / (double)j->classes;
    j->x = (const real *)(const void *)h->x->data;
    j->target = (const int64_t *)(const void *)h->target->data;
    j->weight = h->weight ? (const real *)(const void *)h->weight->data : NULL;
    j->all = weight ? 0 : (double)j->classes;
    for (int64_t i = 0; weight && i < j->classes; i++) j->all += j->weight[i];
    *weights = weight ? 0 : (double)counted;
    for (int64_t r = 0; weight && r < j->rows; r++)
        if (j->target[r] != j->ignored) *weights += j->weight[j->target[r] - j->base];
    return GR_OK;
}

/* fn over groups of rows. */
static void cross_entropy_run(gr_ctx *ctx, cross_entropy_job *j, gri_rows_fn fn) {
    j->group = j->classes <= GRI_SHORT ? GRI_COLUMNS : j->classes < CROSS_ENTROPY_LONG ? CROSS_ENTROPY_GROUP : 1;
    gri_rows(ctx, (j->rows + j->group - 1) / j->group, (j->classes / 2 + 30) * j->group, fn, j);
}

static inline double cross_entropy_weight(const cross_entropy_job *j, int64_t class) {
    return j->weight ? j->weight[class] : 1;
}

/* ---- forward ---- */

/* log_sum: log Σ exp(x - max) */
static double cross_entropy_row(const cross_entropy_job *j, int64_t r, double log_sum, real max) {
    const real *x = j->x + r * j->classes;
    int64_t class = j->target[r] - j->base;
    double far = 0;
    if (j->target[r] == j->ignored) return 0;
    double loss = j->keep * cross_entropy_weight(j, class) * (log_sum - ((double)x[class] - max));
    if (j->smooth == 0) return loss;
    for (int64_t i = 0; i < j->classes; i++) far += cross_entropy_weight(j, i) * ((double)x[i] - max);
    return loss + j->smooth * (j->all * log_sum - far);
}

static void cross_entropy_groups(void *arg, int64_t from, int64_t to) {
    cross_entropy_job *j = arg;
    for (int64_t first = from * j->group; first < to * j->group && first < j->rows; first += j->group) {
        int64_t w = j->rows - first < j->group ? j->rows - first : j->group;
        const real *x = j->x + first * j->classes;
        _Alignas(64) real max[GRI_COLUMNS];
        double sum[GRI_COLUMNS];
        if (j->group == GRI_COLUMNS) {
            gri_turned t;
            gri_turn(j->classes, w, x, &t);
            gri_columns_exp(j->classes, GRI_COLUMNS, w, t.v, NULL, max, sum);
        } else {
            for (int64_t k = 0; k < w; k++) sum[k] = gri_row_exp(j->classes, x + k * j->classes, NULL, &max[k]);
        }
        for (int64_t k = w; k < GRI_PADDED(w); k++) sum[k] = 1;
#pragma omp simd
        for (int64_t k = 0; k < GRI_PADDED(w); k++) sum[k] = log(sum[k]);
        for (int64_t k = 0; k < w; k++) j->loss[first + k] = cross_entropy_row(j, first + k, sum[k], max[k]);
    }
}

static gr_status cross_entropy_forward(gri_call *c) {
    cross_entropy_job j = {0};
    cross_entropy_held held = {0};
    size_t capacity = 0;
    double weights;
    gr_status s = cross_entropy_begin(c, 0, &j, &held, &weights);
    if (s != GR_OK) goto done;
    j.loss = gri_block_new(c->ctx, (size_t)j.rows * sizeof *j.loss + 1, &capacity);
    if (!j.loss) {
        s = gr_fail(c->ctx, GR_ERR_MEMORY, "no memory for the losses of %lld rows", (long long)j.rows);
        goto done;
    }
    cross_entropy_run(c->ctx, &j, cross_entropy_groups);
    gri_class_deliver(c, j.loss, j.rows, weights);
    s = gri_poll(c->ctx);
done:
    gri_block_delete(c->ctx, j.loss, capacity);
    cross_entropy_release(&held);
    return s;
}
GR_KERNEL(cross_entropy);

static gr_status cross_entropy_rule(gri_grad *g) {
    gr_tensor *weight = g->n_in > 2 ? g->in[2] : NULL, *in[] = {g->dy[0], g->in[0], g->in[1], weight}, *p;
    int64_t dim = gri_class_dim(g->in[0]);
    GR_TRY(gri_emit(g, 0, &gri_op_cross_entropy_backward, 4, in, g->attrs));
    if (!gri_needs(g, 2)) return GR_OK;
    GR_TRY(gri_eval(g, &p, &gri_op_log_softmax, 1, &g->in[0], &dim));
    GR_TRY(GRI_EVAL(g, &p, neg, p));
    return gri_class_emit_weight(g, p);
}

static const gr_attr cross_entropy_schema[] = {
    GRI_CLASS_SCHEMA,
    {"label_smoothing", GR_ATTR_REAL, offsetof(gri_class_attrs, label_smoothing), .min = 0, .max = 1},
    GR_ATTR_END};

static const gr_case cross_entropy_cases[] = {
    {.in = "2,3 i64:2", .attrs = "reduction='none'", .give = "{{0,1,2},{1,1,1}}, {3,1}",
     .want = "{0.407605964,1.09861229}"},
    {.in = "1,2 i64:1", .give = "{{1000,-1000}}, {2}", .want = "2000"},
    {.in = "1,2,2 i64:1,2", .attrs = "reduction='none'", .give = "{{{0,1},{0,0}}}, {{1,2}}",
     .want = "{{0.693147181,1.31326169}}"},
    {.in = "3 i64:()", .give = "{0,1,2}, 3", .want = "0.407605964"},
    {.in = "3,2 i64:3 2", .give = "{{0,0},{0,1},{0,1}}, {1,2,-100}, {3,1}", .want = "0.598175807"},
    {.in = "1,3 i64:1", .attrs = "label_smoothing=0.3", .give = "{{0,1,2}}, {3}", .want = "0.707605964"},
    {.in = "5,7 i64(1..7):5"},
    {.in = "6,40 i64(1..40):6", .attrs = "label_smoothing=0.2"},
    {.in = "2,4,3,2 i64(1..4):2,3,2", .attrs = "reduction='sum', ignore_index=3"},
    {.in = "3,4,5 u8(1..4):3,5 4", .attrs = "reduction='none', label_smoothing=0.1", .lo = 0.5, .hi = 1.5},
    {.in = "6,5 i64(1..5):6 5", .attrs = "ignore_index=2, label_smoothing=0.4", .lo = 0.5, .hi = 1.5},
    {.in = "4,35 i64(1..35):4 35", .lo = 0.5, .hi = 1.5},
    {0}};

GR_OP(cross_entropy) = {
    .info = {.name = "cross_entropy", .inputs = "x target weight?", .attrs = cross_entropy_schema,
             .attr_size = sizeof(gri_class_attrs), .cases = cross_entropy_cases,
             .doc = "Loss of classification: -log softmax(x) at the target class, for x [n,classes,...] and\n"
                    "target [n,...] (i64 or u8, counted from 1). weight [classes]: what a row of each class counts.\n"
                    "Rows whose target is ignore_index count nothing; label_smoothing is shared among all classes.\n"
                    "reduction: \"mean\" (over the weights: NaN if no row counts), \"sum\" or \"none\"."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1) | GRI_KEEP_IN(2) | GRI_KEEP_OUT(0),
    .shape = gri_class_shape,
    .forward = cross_entropy_kernels,
    .backward = cross_entropy_rule,
};

/* ---- its derivative as an op ---- */

/* Row r's g, and *total = g A; 0 where the target is ignored. */
static inline double cross_entropy_seed(const cross_entropy_job *j, int64_t r, double *total) {
    double g = j->dy[r * j->step] * j->scale;
    *total = 0;
    if (j->target[r] == j->ignored) return 0;
    *total = g * (j->keep * cross_entropy_weight(j, j->target[r] - j->base) + j->smooth * j->all);
    return g;
}

/* Of row r, whose dx is g A softmax(x) so far. */
static void cross_entropy_finish(const cross_entropy_job *j, int64_t r, double g) {
    real *dx = j->dx + r * j->classes;
    int64_t class = j->target[r] - j->base;
    if (j->target[r] == j->ignored) {
        for (int64_t i = 0; i < j->classes; i++) dx[i] = 0; /* also where x is NaN */
        return;
    }
    for (int64_t i = 0; j->smooth != 0 && i < j->classes; i++)
        dx[i] -= (real)(g * j->smooth * cross_entropy_weight(j, i));
    dx[class] -= (real)(g * j->keep * cross_entropy_weight(j, class));
}

static void cross_entropy_backward_groups(void *arg, int64_t from, int64_t to) {
    cross_entropy_job *j = arg;
    for (int64_t first = from * j->group; first < to * j->group && first < j->rows; first += j->group) {
        int64_t n = j->classes, w = j->rows - first < j->group ? j->rows - first : j->group;
        const real *x = j->x + first * n;
        real *dx = j->dx + first * n;
        double g[GRI_COLUMNS], total[GRI_COLUMNS];
        for (int64_t k = 0; k < w; k++) g[k] = cross_entropy_seed(j, first + k, &total[k]);
        if (j->group == GRI_COLUMNS) {
            gri_turned t;
            gri_turn(n, w, x, &t);
            gri_columns_softmax(n, GRI_COLUMNS, w, t.v, total, t.v);
            gri_turn_back(n, w, &t, dx);
        } else {
            for (int64_t k = 0; k < w; k++) gri_row_softmax(n, x + k * n, total[k], dx + k * n);
        }
        for (int64_t k = 0; k < w; k++) cross_entropy_finish(j, first + k, g[k]);
    }
}

/* Row-major operands. dx is written with the classes last, then turned where they are not. */
static gr_status cross_entropy_backward_kernel(gri_call *c) {
    cross_entropy_job j = {0};
    cross_entropy_held held = {0};
    gr_tensor *turned = NULL, *dx = NULL;
    int64_t reduction = ((const gri_class_attrs *)c->attrs)->reduction;
    double weights;
    gr_status s = cross_entropy_begin(c, 1, &j, &held, &weights);
    if (s == GR_OK) s = cross_entropy_turn(c->out[0], &turned);
    if (s != GR_OK) goto done;
    gri_spec spec = gri_spec_of(turned);
    if (turned->contiguous) dx = gr_retain(turned);
    else s = gri_tensor_like_spec(c->ctx, &spec, &dx);
    if (s != GR_OK) goto done;
    j.dy = (const real *)(const void *)c->in[0]->data;
    j.step = reduction == GRI_CLASS_NONE;
    j.scale = reduction == GRI_CLASS_MEAN ? 1 / weights : 1;
    j.dx = (real *)(void *)dx->data;
    cross_entropy_run(c->ctx, &j, cross_entropy_backward_groups);
    s = dx->data == turned->data ? gri_poll(c->ctx) : gri_copy(c->ctx, turned, dx, GRI_SET);
done:
    cross_entropy_release(&held);
    gr_release(turned), gr_release(dx);
    return s;
}

static gr_status cross_entropy_backward_forward(gri_call *c) { return gri_dense(c, cross_entropy_backward_kernel); }
GR_KERNEL(cross_entropy_backward);

static gr_status cross_entropy_backward_compose(gri_call *c) { return gri_class_compose(c, true); }

static const gr_case cross_entropy_backward_cases[] = {
    {.in = "() 1,2 i64:1", .give = "2, {{0,0}}, {2}", .want = "{{1,-1}}"},
    {.in = "() 2,2 i64:2", .give = "2, {{0,0},{0,0}}, {2,1}", .want = "{{0.5,-0.5},{-0.5,0.5}}"},
    {.in = "1,2 1,2,2 i64:1,2", .attrs = "reduction='none'", .give = "{{2,4}}, {{{0,0},{0,0}}}, {{2,1}}",
     .want = "{{{1,-2},{-1,2}}}"},
    {.in = "() 2,2 i64:2 2", .attrs = "label_smoothing=0.5", .give = "2, {{0,0},{0,0}}, {-100,1}, {2,1}",
     .want = "{{0,0},{-0.625,0.625}}"},
    {.in = "() 5,7 i64(1..7):5"},
    {.in = "3,5 3,4,5 u8(1..4):3,5", .attrs = "reduction='none', label_smoothing=0.1"},
    {.in = "() 6,5 i64(1..5):6 5", .attrs = "ignore_index=2, label_smoothing=0.4", .lo = 0.5, .hi = 1.5},
    {.in = "() 4,35 i64(1..35):4 35", .lo = 0.5, .hi = 1.5},
    {0}};

GR_OP(cross_entropy_backward) = {
    .info = {.name = "cross_entropy_backward", .inputs = "dy x target weight?", .attrs = cross_entropy_schema,
             .attr_size = sizeof(gri_class_attrs), .hidden = true, .cases = cross_entropy_backward_cases,
             .doc = "The gradient of cross_entropy's x"},
    .sets_only = true,
    .shape = gri_class_backward_shape,
    .forward = cross_entropy_backward_kernels,
    .compose = cross_entropy_backward_compose,
};
