/* Stochastic gradient descent, with momentum.
 *
 *   g <- g + weight_decay p
 *   b <- momentum b + (1 - dampening) g        (b = g at its first update)
 *   p <- p - lr (nesterov ? g + momentum b : b)
 *
 * Without momentum p <- p - lr g, and there is no state. Sutskever et al. 2013, "On the importance of
 * initialization and momentum in deep learning"; lr multiplies the whole buffer, as in PyTorch, so that a
 * change of lr acts at once. Defaults: momentum 0, dampening 0, weight_decay 0, nesterov false. */
#include <float.h>

#include "optim.h"
#include "vmath.h"

typedef struct sgd_attrs {
    double lr, momentum, dampening, weight_decay;
    bool nesterov;
} sgd_attrs;

enum { SGD_LR, SGD_DECAY, SGD_MOMENTUM, SGD_GAIN, SGD_OWN, SGD_BUFFER };

static const gr_attr sgd_schema[] = {
    {"lr", GR_ATTR_REAL, offsetof(sgd_attrs, lr), .value = 1e-3, .max = DBL_MAX},
    {"momentum", GR_ATTR_REAL, offsetof(sgd_attrs, momentum), .max = DBL_MAX},
    {"dampening", GR_ATTR_REAL, offsetof(sgd_attrs, dampening), .min = -DBL_MAX, .max = DBL_MAX},
    {"weight_decay", GR_ATTR_REAL, offsetof(sgd_attrs, weight_decay), .max = DBL_MAX},
    {"nesterov", GR_ATTR_BOOL, offsetof(sgd_attrs, nesterov), .value = 0},
    GR_ATTR_END};

static const char *const sgd_states[] = {"momentum_buffer", NULL};

static uint32_t sgd_used(const void *attrs) { return ((const sgd_attrs *)attrs)->momentum != 0; }

static gr_status sgd_prepare(gr_ctx *ctx, const void *attrs, int64_t t, double *c) {
    const sgd_attrs *a = attrs;
    if (a->nesterov && (a->momentum <= 0 || a->dampening != 0))
        return gr_fail(ctx, GR_ERR_ARG, "nesterov needs momentum above 0 and no dampening; they are %g and %g",
                       a->momentum, a->dampening);
    c[SGD_LR] = a->lr;
    c[SGD_DECAY] = a->weight_decay;
    c[SGD_MOMENTUM] = a->momentum;
    c[SGD_GAIN] = t == 1 ? 1 : 1 - a->dampening;
    c[SGD_OWN] = a->nesterov ? 1 : 0; /* step = own * g + buffer * b */
    c[SGD_BUFFER] = a->nesterov ? a->momentum : 1;
    return GR_OK;
}

static void sgd_forward(int64_t n, void *param, const void *grad, void *const *state, const double *c) {
    real *p = param, *b = state[0];
    const real *g = grad;
    const real lr = (real)c[SGD_LR], decay = (real)c[SGD_DECAY], momentum = (real)c[SGD_MOMENTUM];
    const real gain = (real)c[SGD_GAIN], own = (real)c[SGD_OWN], buffer = (real)c[SGD_BUFFER];
    if (!b) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) p[i] -= lr * (g[i] + decay * p[i]);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real d = g[i] + decay * p[i];
        b[i] = momentum * b[i] + gain * d;
        p[i] -= lr * (own * d + buffer * b[i]);
    }
}
GR_OPTIM_KERNEL(sgd);

GR_OPTIM(sgd) = {
    .info = {.name = "SGD", .attrs = sgd_schema, .attr_size = sizeof(sgd_attrs),
             .doc = "Stochastic gradient descent: p -= lr * g, with momentum, Nesterov's momentum, L2 decay."},
    .state_names = sgd_states,
    .states = sgd_used,
    .prepare = sgd_prepare,
    .forward = sgd_kernels,
};
