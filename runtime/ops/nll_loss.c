/* Negative log-likelihood: for log-probabilities x[n,c] or x[n,c,d1,...] and classes t[n] or t[n,d1,...]
 *     loss = -weight_t x_t;
 * their mean over the rows' weight_t, their sum, or all of them. weight is 1 where absent; rows whose target is
 * ignore_index count nothing.
 *
 * dx_j = -g weight_t [j = t], where g is dy, over the weights for the mean: nll_loss_backward(dy, x, t, weight), an
 * op of its own, whose derivative runs through its `compose`. The gradient of weight is composed of simpler ops, from
 * x and the result, which are kept for it (classes.h). Losses are added up in double, row after row. */
#include "classes.h"
#include "copy.h"
#include "rows.h"
#include "vmath.h"

/* x as [outer, classes, inner]; row r is at (r / inner, ·, r % inner). */
typedef struct nll_loss_job {
    int64_t rows, classes, inner, base, ignored;
    const real *x, *weight;
    const int64_t *target;
    double weights;
    const real *dy;
    int64_t step;
    real *dx;
} nll_loss_job;

/* *target (+1), on success. */
static gr_status nll_loss_begin(gri_call *c, int x_at, nll_loss_job *j, gr_tensor **target) {
    const gr_tensor *x = c->in[x_at], *weight = gri_class_weight(c, x_at);
    int dim = gri_class_dim(x);
    int64_t counted;
    GR_TRY(gri_class_target(c, x_at, target, &counted));
    j->rows = (*target)->numel;
    j->classes = x->dims[dim];
    j->inner = gri_product(x->rank - dim - 1, x->dims + dim + 1);
    j->base = c->ctx->index_base;
    j->ignored = ((const gri_class_attrs *)c->attrs)->ignore_index;
    j->x = (const real *)(const void *)x->data;
    j->weight = weight ? (const real *)(const void *)weight->data : NULL;
    j->target = (const int64_t *)(const void *)(*target)->data;
    j->weights = weight ? 0 : (double)counted;
    for (int64_t r = 0; weight && r < j->rows; r++)
        if (j->target[r] != j->ignored) j->weights += j->weight[j->target[r] - j->base];
    return GR_OK;
}

/* Where row r's target is; -1 if it is ignored. *weight: what it counts. */
static inline int64_t nll_loss_at(const nll_loss_job *j, int64_t r, double *weight) {
    int64_t class = j->target[r] - j->base;
    if (j->target[r] == j->ignored) return -1;
    *weight = j->weight ? j->weight[class] : 1;
    return (r / j->inner * j->classes + class) * j->inner + r % j->inner;
}

static gr_status nll_loss_kernel(gri_call *c) {
    nll_loss_job j = {0};
    gr_tensor *target;
    size_t capacity;
    GR_TRY(nll_loss_begin(c, 0, &j, &target));
    double *loss = gri_block_new(c->ctx, (size_t)j.rows * sizeof *loss + 1, &capacity), weight;
    for (int64_t r = 0; loss && r < j.rows; r++) {
        int64_t at = nll_loss_at(&j, r, &weight);
        loss[r] = at < 0 ? 0 : -weight * j.x[at];
    }
    if (loss) gri_class_deliver(c, loss, j.rows, j.weights);
    gr_release(target);
    if (!loss)
        return gr_fail(c->ctx, GR_ERR_MEMORY, "no memory for the losses of %lld rows", (long long)j.rows);
    gri_block_delete(c->ctx, loss, capacity);
    return gri_poll(c->ctx);
}

static gr_status nll_loss_forward(gri_call *c) { return gri_dense(c, nll_loss_kernel); }
GR_KERNEL(nll_loss);

static gr_status nll_loss_rule(gri_grad *g) {
    gr_tensor *weight = g->n_in > 2 ? g->in[2] : NULL, *in[] = {g->dy[0], g->in[0], g->in[1], weight}, *p;
    GR_TRY(gri_emit(g, 0, &gri_op_nll_loss_backward, 4, in, g->attrs));
    if (!gri_needs(g, 2)) return GR_OK;
    GR_TRY(GRI_EVAL(g, &p, neg, g->in[0]));
    return gri_class_emit_weight(g, p);
}

static const gr_attr nll_loss_schema[] = {GRI_CLASS_SCHEMA, GR_ATTR_END};

static const gr_case nll_loss_cases[] = {
    {.in = "2,3 i64:2", .attrs = "reduction='none'", .give = "{{-1,-2,-3},{-4,-5,-6}}, {3,1}", .want = "{3,4}"},
    {.in = "3,2 i64:3 2", .give = "{{-1,-2},{-3,-4},{-5,-6}}, {1,2,-100}, {3,1}", .want = "1.75"},
    {.in = "3 i64:()", .give = "{-1,-2,-3}, 3", .want = "3"},
    {.in = "5,7 i64(1..7):5"},
    {.in = "2,4,3,2 i64(1..4):2,3,2 4", .attrs = "reduction='sum', ignore_index=3", .lo = 0.5, .hi = 1.5},
    {.in = "3,4,5 u8(1..4):3,5", .attrs = "reduction='none'"},
    {.in = "6,5 i64(1..5):6 5", .attrs = "ignore_index=2", .lo = 0.5, .hi = 1.5},
    {0}};

GR_OP(nll_loss) = {
    .info = {.name = "nll_loss", .inputs = "x target weight?", .attrs = nll_loss_schema,
             .attr_size = sizeof(gri_class_attrs), .cases = nll_loss_cases,
             .doc = "-x at the target class, for log-probabilities x [n,classes,...] and target [n,...] (i64 or u8,\n"
                    "counted from 1). weight [classes]: what a row of each class counts. Rows whose target is\n"
                    "ignore_index count nothing. reduction: \"mean\" (over the weights: NaN if no row counts),\n"
                    "\"sum\" or \"none\"."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1) | GRI_KEEP_IN(2) | GRI_KEEP_OUT(0),
    .shape = gri_class_shape,
    .forward = nll_loss_kernels,
    .backward = nll_loss_rule,
};

/* ---- its derivative as an op ---- */

static gr_status nll_loss_backward_kernel(gri_call *c) {
    nll_loss_job j = {0};
    gr_tensor *target;
    int64_t reduction = ((const gri_class_attrs *)c->attrs)->reduction;
    double weight;
    GR_TRY(nll_loss_begin(c, 1, &j, &target));
    const real *dy = (const real *)(const void *)c->in[0]->data;
    real *dx = (real *)(void *)c->out[0]->data;
    gr_status s = gri_zero(c->ctx, c->out[0]);
    for (int64_t r = 0; s == GR_OK && r < j.rows; r++) {
        int64_t at = nll_loss_at(&j, r, &weight);
        double g = dy[reduction == GRI_CLASS_NONE ? r : 0];
        if (at >= 0) dx[at] = (real)(-g * weight / (reduction == GRI_CLASS_MEAN ? j.weights : 1));
    }
    gr_release(target);
    return s;
}

static gr_status nll_loss_backward_forward(gri_call *c) { return gri_dense(c, nll_loss_backward_kernel); }
GR_KERNEL(nll_loss_backward);

static gr_status nll_loss_backward_compose(gri_call *c) { return gri_class_compose(c, false); }

static const gr_case nll_loss_backward_cases[] = {
    {.in = "() 2,2 i64:2 2", .give = "2, {{0,0},{0,0}}, {2,1}, {3,1}", .want = "{{0,-0.5},{-1.5,0}}"},
    {.in = "1,2 1,2,2 i64:1,2", .attrs = "reduction='none'", .give = "{{2,4}}, {{{0,0},{0,0}}}, {{2,-100}}",
     .want = "{{{0,0},{-2,0}}}"},
    {.in = "() 5,7 i64(1..7):5"},
    {.in = "3,5 3,4,5 u8(1..4):3,5", .attrs = "reduction='none'"},
    {.in = "() 6,5 i64(1..5):6 5", .attrs = "ignore_index=2", .lo = 0.5, .hi = 1.5},
    {0}};

GR_OP(nll_loss_backward) = {
    .info = {.name = "nll_loss_backward", .inputs = "dy x target weight?", .attrs = nll_loss_schema,
             .attr_size = sizeof(gri_class_attrs), .hidden = true, .cases = nll_loss_backward_cases,
             .doc = "The gradient of nll_loss's x"},
    .sets_only = true,
    .shape = gri_class_backward_shape,
    .forward = nll_loss_backward_kernels,
    .compose = nll_loss_backward_compose,
};
