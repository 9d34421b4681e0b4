/* Losses of two tensors of one shape, element by element: their mean, their sum, or all of them. */
#ifndef GRI_LOSS_H
#define GRI_LOSS_H

#include "iter.h"
#include "vmath.h"

typedef enum gri_reduction_word { GRI_MEAN, GRI_SUM, GRI_NONE, GRI_BATCHMEAN } gri_reduction_word;
#define GRI_REDUCTION(type) {"reduction", GR_ATTR_WORD, offsetof(type, reduction), .words = "mean sum none"}
/* The attribute struct of a loss without further options; those of the others begin so. */
typedef struct gri_loss_attrs { int64_t reduction; } gri_loss_attrs;

static inline int64_t gri_loss_reduction(const void *attrs) { return ((const gri_loss_attrs *)attrs)->reduction; }

/* What each element's loss counts in the result: 1 over the elements for the mean. */
static inline double gri_loss_scale(const gr_tensor *x, int64_t reduction) {
    if (reduction == GRI_MEAN) return 1 / (double)x->numel;
    return reduction == GRI_BATCHMEAN ? 1 / (double)x->dims[0] : 1;
}

/* Inputs 0 and 1 must have one shape: broadcasting [n] against [n,1] would give n² differences, and a loss that falls
 * without the network learning anything. */
static inline gr_status gri_loss_shape_of(gri_call *c, const char *name) {
    const gr_tensor *x = c->in[0], *y = c->in[1];
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(gri_want_float(c, 1));
    if (!gri_same_dims(x->rank, x->dims, y->rank, y->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE,
                       "x is %s, but %s is %s: the shapes must be equal; reshape or expand one of them",
                       gri_tensor_text(x), name, gri_tensor_text(y));
    c->spec[0] = gri_spec_of(x);
    if (gri_loss_reduction(c->attrs) != GRI_NONE) c->spec[0].rank = 0;
    return GR_OK;
}
static inline gr_status gri_loss_shape(gri_call *c) { return gri_loss_shape_of(c, "y"); }
static inline gr_status gri_loss_shape_target(gri_call *c) { return gri_loss_shape_of(c, "target"); }

/* Σ, in double of fours: as fast as the squares of mse_loss are made. */
static double gri_loss_fold(int64_t n, const void *run) {
    int64_t part = GRI_RUN(n / 4);
    const real *x = run, *x1 = x + part, *x2 = x1 + part, *x3 = x2 + part;
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < part; i++) s += (x[i] + x1[i]) + (x2[i] + x3[i]);
#pragma omp simd reduction(+ : s)
    for (int64_t i = 4 * part; i < n; i++) s += x[i];
    return s;
}

/* loop: the elements' losses from the inputs, which broadcast to x. */
static inline gr_status gri_loss_run(gri_call *c, gri_loop loop, int cost) {
    int64_t reduction = gri_loss_reduction(c->attrs);
    gri_spec shape = gri_spec_of(c->in[0]);
    double sum;
    if (reduction == GRI_NONE) return gri_map(c, loop, GRI_REAL, NULL, cost);
    GR_TRY(gri_map_sum(c, &shape, loop, gri_loss_fold, GRI_REAL, cost, &sum));
    if (reduction == GRI_MEAN) sum /= (double)c->in[0]->numel;
    if (reduction == GRI_BATCHMEAN) sum /= (double)c->in[0]->dims[0];
    real *y = (real *)(void *)c->out[0]->data, value = (real)sum;
    *y = c->mode == GRI_ADD ? *y + value : value;
    return GR_OK;
}

#endif
