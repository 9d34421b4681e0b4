/* Mean squared error: d² with d = x - y, element by element; their mean, their sum, or all of them.
 *
 * dx = 2 g d, dy = -2 g d, where g is the gradient arriving, over the number of elements for the mean. Inputs
 * are kept. mse_loss_backward(g, x, y; scale) = scale g (x - y) is an op of its own. Squares are added up in
 * double, in segments that do not depend on the threads.
 *
 * Shapes must be equal: broadcasting [n] against [n,1] would give n² differences, and a loss that falls without
 * the network learning anything. */
#include "iter.h"
#include "parallel.h"
#include "vmath.h"

#define MSE_LOSS_SEGMENT 32768 /* elements: some 4 us */
#define MSE_LOSS_BRIEF 200000  /* elements for which no worker is woken */

typedef enum mse_loss_words { MSE_LOSS_MEAN, MSE_LOSS_SUM, MSE_LOSS_NONE } mse_loss_words;
typedef struct mse_loss_attrs { int64_t reduction; } mse_loss_attrs;

typedef struct mse_loss_job {
    const real *x, *y;
    int64_t n;
    double *sums; /* one for each segment */
} mse_loss_job;

static gr_status mse_loss_shape(gri_call *c) {
    const gr_tensor *x = c->in[0], *y = c->in[1];
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_want_float(c, 1));
    if (!gri_same_dims(x->rank, x->dims, y->rank, y->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE,
                       "x is %s, but y is %s: the shapes must be equal; reshape or expand one of them",
                       gri_tensor_text(x), gri_tensor_text(y));
    c->spec[0] = gri_spec_of(x);
    if (((const mse_loss_attrs *)c->attrs)->reduction != MSE_LOSS_NONE) c->spec[0].rank = 0;
    return GR_OK;
}

static void mse_loss_loop(int64_t n, void *const *p, const void *attrs) {
    real *loss = p[0];
    const real *x = p[1], *y = p[2];
    (void)attrs;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) loss[i] = (x[i] - y[i]) * (x[i] - y[i]);
}

static void mse_loss_piece(void *arg, int64_t piece) {
    mse_loss_job *j = arg;
    int64_t from = piece * MSE_LOSS_SEGMENT, n = j->n - from < MSE_LOSS_SEGMENT ? j->n - from : MSE_LOSS_SEGMENT;
    const real *x = j->x + from, *y = j->y + from;
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) {
        double d = (double)(x[i] - y[i]);
        s += d * d;
    }
    j->sums[piece] = s;
}

static gr_status mse_loss_sum(gri_call *c) {
    const gr_tensor *x = c->in[0];
    mse_loss_job j = {(const real *)(const void *)x->data, (const real *)(const void *)c->in[1]->data, x->numel,
                      NULL};
    int64_t pieces = (j.n + MSE_LOSS_SEGMENT - 1) / MSE_LOSS_SEGMENT;
    double sum = 0, few[1];
    size_t capacity = 0;
    j.sums = pieces <= 1 ? few : gri_block_new(c->ctx, (size_t)pieces * sizeof sum, &capacity);
    if (!j.sums) return gr_fail(c->ctx, GR_ERR_MEMORY, "no memory for %lld partial sums", (long long)pieces);
    (j.n <= MSE_LOSS_BRIEF ? gri_parallel_brief : gri_parallel)(c->ctx, pieces, mse_loss_piece, &j);
    for (int64_t i = 0; i < pieces; i++) sum += j.sums[i];
    if (j.sums != few) gri_block_delete(c->ctx, j.sums, capacity);
    if (((const mse_loss_attrs *)c->attrs)->reduction == MSE_LOSS_MEAN) sum /= (double)j.n;
    *(real *)(void *)c->out[0]->data = (real)sum;
    return gri_poll(c->ctx);
}

static gr_status mse_loss_forward(gri_call *c) {
    if (((const mse_loss_attrs *)c->attrs)->reduction == MSE_LOSS_NONE)
        return gri_map(c, mse_loss_loop, GRI_REAL, NULL, GRI_EXACT);
    return gri_dense(c, mse_loss_sum);
}
GR_KERNEL(mse_loss);

static gr_status mse_loss_backward_rule(gri_grad *g) {
    bool mean = ((const mse_loss_attrs *)g->attrs)->reduction == MSE_LOSS_MEAN;
    gr_tensor *x = g->in[0], *y = g->in[1];
    double scale = mean ? 2 / (double)x->numel : 2;
    GR_TRY(gri_emit(g, 0, &gri_op_mse_loss_backward, 3, GRI_TENSORS(g->dy[0], x, y), &scale));
    return gri_emit(g, 1, &gri_op_mse_loss_backward, 3, GRI_TENSORS(g->dy[0], y, x), &scale);
}

static const gr_attr mse_loss_schema[] = {
    {"reduction", GR_ATTR_WORD, offsetof(mse_loss_attrs, reduction), .words = "mean sum none"}, GR_ATTR_END};

static const gr_case mse_loss_cases[] = {
    {.in = "2,2 2,2", .give = "{{1,2},{3,4}}, {{0,4},{3,1}}", .want = "3.5"},
    {.in = "2,2 2,2", .attrs = "reduction='sum'", .give = "{{1,2},{3,4}}, {{0,4},{3,1}}", .want = "14"},
    {.in = "2,2 2,2", .attrs = "reduction='none'", .give = "{{1,2},{3,4}}, {{0,4},{3,1}}", .want = "{{1,4},{0,9}}"},
    {.in = "3,4,5 3,4,5"},
    {.in = "3,5 3,5", .attrs = "reduction='none'"},
    {.in = "() ()"},
    {0}};

GR_OP(mse_loss) = {
    .info = {.name = "mse_loss", .inputs = "x y", .attrs = mse_loss_schema, .attr_size = sizeof(mse_loss_attrs),
             .cases = mse_loss_cases,
             .doc = "Squared differences of two tensors of one shape. reduction: \"mean\", \"sum\" or \"none\"."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .sets_only = true,
    .shape = mse_loss_shape,
    .forward = mse_loss_kernels,
    .backward = mse_loss_backward_rule,
};

/* ---- its derivative as an op ----
 * z = s g (x - y):  dz/dg = s (x - y),  dz/dx = s g,  dz/dy = -s g. */

static void mse_loss_backward_loop(int64_t n, void *const *p, const void *attrs) {
    real *dx = p[0], scale = (real) * (const double *)attrs;
    const real *g = p[1], *x = p[2], *y = p[3];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dx[i] = scale * g[i] * (x[i] - y[i]);
}

static gr_status mse_loss_backward_forward(gri_call *c) {
    return gri_map(c, mse_loss_backward_loop, GRI_REAL, NULL, GRI_EXACT);
}
GR_KERNEL(mse_loss_backward);

static gr_status mse_loss_backward_backward(gri_grad *g) {
    gr_tensor *t, *scale;
    GR_TRY(gri_emit(g, 0, &gri_op_mse_loss_backward, 3, GRI_TENSORS(g->dy[0], g->in[1], g->in[2]), g->attrs));
    if (!gri_needs(g, 1) && !gri_needs(g, 2)) return GR_OK;
    GR_TRY(gri_scalar(g, &scale, *(const double *)g->attrs));
    GR_TRY(GRI_EVAL(g, &t, mul, g->in[0], scale));
    GR_TRY(GRI_EVAL(g, &t, mul, g->dy[0], t));
    GR_TRY(gri_emit_same(g, 1, t));
    return GRI_EMIT(g, 2, neg, t);
}

static const gr_attr mse_loss_backward_schema[] = {{"scale", GR_ATTR_REAL, 0, .value = 2}, GR_ATTR_END};

static const gr_case mse_loss_backward_cases[] = {
    {.in = "() 2 2", .attrs = "scale=0.5", .give = "2, {3,4}, {1,5}", .want = "{2,-1}"},
    {.in = "3,5 3,5 3,5"},
    {0}};

GR_OP(mse_loss_backward) = {
    .info = {.name = "mse_loss_backward", .inputs = "g x y", .attrs = mse_loss_backward_schema,
             .attr_size = sizeof(double),
             .hidden = true, .cases = mse_loss_backward_cases, .doc = "scale g (x - y)"},
    .elementwise = true,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1) | GRI_KEEP_IN(2),
    .shape = gri_shape_broadcast,
    .forward = mse_loss_backward_kernels,
    .backward = mse_loss_backward_backward,
};
