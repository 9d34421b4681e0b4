/* Losses of classes (cross_entropy, nll_loss): x[n,c], x[n,c,d1,...] or x[c] holds a row of c numbers for each class
 * number in target[n], [n,d1,...] or []; weight[c], if there is one, is what a row of each class counts. Rows whose
 * target is ignore_index count nothing. A mean is over the weights of the rows that count: NaN if there are none. */
#ifndef GRI_CLASSES_H
#define GRI_CLASSES_H

#include "op.h"

typedef struct gri_class_attrs {
    int64_t reduction; /* gri_class_word */
    int64_t ignore_index;
    double label_smoothing; /* of cross_entropy */
} gri_class_attrs;

typedef enum gri_class_word { GRI_CLASS_MEAN, GRI_CLASS_SUM, GRI_CLASS_NONE } gri_class_word;

/* -100 is never a class, whatever classes are counted from. */
#define GRI_CLASS_SCHEMA                                                                            \
    {"reduction", GR_ATTR_WORD, offsetof(gri_class_attrs, reduction), .words = "mean sum none"},    \
    {"ignore_index", GR_ATTR_INT, offsetof(gri_class_attrs, ignore_index), .value = -100}

static inline int gri_class_dim(const gr_tensor *x) { return x->rank > 1; }
static inline const gr_tensor *gri_class_weight(const gri_call *c, int x_at) {
    return c->n_in > x_at + 2 ? c->in[x_at + 2] : NULL;
}

/* Shape rules: of the loss, of x, target and weight; and of its backward op, of dy before them. */
gr_status gri_class_shape(gri_call *c);
gr_status gri_class_backward_shape(gri_call *c);

/* *out (+1) = target (input x_at + 1) as row-major i64, every one a class of x or ignore_index; *counted: how many
 * are not ignored. */
gr_status gri_class_target(const gri_call *c, int x_at, gr_tensor **out, int64_t *counted);
/* The call's result from the losses of rows and the sum of their weights. */
void gri_class_deliver(gri_call *c, const double *loss, int64_t rows, double weights);

/* compose of the backward ops; [c] is 1 for the row's class, q = [c] smoothed, seed = dy, over the weights for a mean
 *     cross_entropy  dx = seed (softmax(x) Σ weight q - weight q);   nll_loss  dx = -seed weight q. */
gr_status gri_class_compose(gri_call *c, bool softmax);
/* Contributes the gradient of weight: Σ seed (p q - loss [c]) over the rows, without `loss` unless a mean; p is what
 * weight q multiplies in the loss: -x, or -log softmax(x). For rules that keep inputs and output. */
gr_status gri_class_emit_weight(gri_grad *g, gr_tensor *p);

#endif
