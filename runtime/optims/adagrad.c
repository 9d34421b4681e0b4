/* Adagrad: each element's steps shrink with all the gradients it has had. Update number t of a parameter:
 *
 *   g <- g + weight_decay p
 *   s <- s + g²                                               (s starts at initial_accumulator_value)
 *   p <- p - lr / (1 + (t - 1) lr_decay) · g / (sqrt(s) + eps)
 *
 * Duchi, Hazan & Singer 2011, "Adaptive subgradient methods". Defaults lr 1e-2, eps 1e-10, the others 0. */
#include <float.h>

#include "optim.h"
#include "vmath.h"

typedef struct adagrad_attrs {
    double lr, lr_decay, weight_decay, initial_accumulator_value, eps;
} adagrad_attrs;

enum { ADAGRAD_STEP, ADAGRAD_DECAY, ADAGRAD_INITIAL, ADAGRAD_EPS };

static const gr_attr adagrad_schema[] = {
    {"lr", GR_ATTR_REAL, offsetof(adagrad_attrs, lr), .value = 1e-2, .max = DBL_MAX},
    {"lr_decay", GR_ATTR_REAL, offsetof(adagrad_attrs, lr_decay), .max = DBL_MAX},
    {"weight_decay", GR_ATTR_REAL, offsetof(adagrad_attrs, weight_decay), .max = DBL_MAX},
    {"initial_accumulator_value", GR_ATTR_REAL, offsetof(adagrad_attrs, initial_accumulator_value), .max = DBL_MAX},
    {"eps", GR_ATTR_REAL, offsetof(adagrad_attrs, eps), .value = 1e-10, .max = DBL_MAX},
    GR_ATTR_END};

static const char *const adagrad_states[] = {"sum", NULL};

static gr_status adagrad_prepare(gr_ctx *ctx, const void *attrs, int64_t t, double *c) {
    const adagrad_attrs *a = attrs;
    (void)ctx;
    c[ADAGRAD_STEP] = a->lr / (1 + (double)(t - 1) * a->lr_decay);
    c[ADAGRAD_DECAY] = a->weight_decay;
    c[ADAGRAD_INITIAL] = t == 1 ? a->initial_accumulator_value : 0; /* new state is 0 */
    c[ADAGRAD_EPS] = a->eps;
    return GR_OK;
}

static void adagrad_forward(int64_t n, void *param, const void *grad, void *const *state, const double *c) {
    real *p = param, *s = state[0];
    const real *g = grad;
    const real step = (real)c[ADAGRAD_STEP], decay = (real)c[ADAGRAD_DECAY], initial = (real)c[ADAGRAD_INITIAL];
    const real eps = (real)c[ADAGRAD_EPS];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real d = g[i] + decay * p[i];
        s[i] = s[i] + initial + d * d;
        p[i] -= step * d / (r_sqrt(s[i]) + eps);
    }
}
GR_OPTIM_KERNEL(adagrad);

GR_OPTIM(adagrad) = {
    .info = {.name = "Adagrad", .attrs = adagrad_schema, .attr_size = sizeof(adagrad_attrs),
             .doc = "Adagrad (Duchi, Hazan & Singer 2011): steps shrink with the root of the sum of all g^2 so far."},
    .state_names = adagrad_states,
    .prepare = adagrad_prepare,
    .forward = adagrad_kernels,
};
