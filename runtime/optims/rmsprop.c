/* RMSprop: steps in units of the gradient's root mean square. Update of a parameter:
 *
 *   g <- g + weight_decay p
 *   v <- alpha v + (1 - alpha) g²
 *   u <- g / (sqrt(v) + eps)                     centered: m <- m + (1 - alpha) (g - m), and v - m² under the root
 *   p <- p - lr u                                momentum: b <- momentum b + u, p <- p - lr b
 *
 * Tieleman & Hinton 2012 (Coursera, lecture 6.5); centered: Graves 2013, "Generating sequences with recurrent neural
 * networks". Defaults lr 1e-2, alpha .99, eps 1e-8, the others 0.
 *
 * v - m² is a variance, but rounding can make it negative where all gradients are alike: then it counts as 0. */
#include <float.h>

#include "optim.h"
#include "vmath.h"

typedef struct rmsprop_attrs {
    double lr, alpha, eps, weight_decay, momentum;
    bool centered;
} rmsprop_attrs;

enum { RMSPROP_LR, RMSPROP_ALPHA, RMSPROP_GAIN, RMSPROP_EPS, RMSPROP_DECAY, RMSPROP_MOMENTUM };

static const gr_attr rmsprop_schema[] = {
    {"lr", GR_ATTR_REAL, offsetof(rmsprop_attrs, lr), .value = 1e-2, .max = DBL_MAX},
    {"alpha", GR_ATTR_REAL, offsetof(rmsprop_attrs, alpha), .value = 0.99, .max = 1},
    {"eps", GR_ATTR_REAL, offsetof(rmsprop_attrs, eps), .value = 1e-8, .max = DBL_MAX},
    {"weight_decay", GR_ATTR_REAL, offsetof(rmsprop_attrs, weight_decay), .max = DBL_MAX},
    {"momentum", GR_ATTR_REAL, offsetof(rmsprop_attrs, momentum), .max = DBL_MAX},
    {"centered", GR_ATTR_BOOL, offsetof(rmsprop_attrs, centered), .value = 0},
    GR_ATTR_END};

static const char *const rmsprop_states[] = {"square_avg", "grad_avg", "momentum_buffer", NULL};

static uint32_t rmsprop_used(const void *attrs) {
    const rmsprop_attrs *a = attrs;
    return 1u | (a->centered ? 2u : 0) | (a->momentum > 0 ? 4u : 0);
}

static gr_status rmsprop_prepare(gr_ctx *ctx, const void *attrs, int64_t t, double *c) {
    const rmsprop_attrs *a = attrs;
    (void)ctx, (void)t;
    c[RMSPROP_LR] = a->lr;
    c[RMSPROP_ALPHA] = a->alpha;
    c[RMSPROP_GAIN] = 1 - a->alpha;
    c[RMSPROP_EPS] = a->eps;
    c[RMSPROP_DECAY] = a->weight_decay;
    c[RMSPROP_MOMENTUM] = a->momentum;
    return GR_OK;
}

/* One loop for each choice of m and b; `square` is what is under the root. */
#define RMSPROP_RUN(square, take)                          \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) {  \
        real d = g[i] + decay * p[i];                      \
        v[i] = alpha * v[i] + gain * d * d;                \
        real u = d / (r_sqrt(square) + eps);               \
        take;                                              \
    }

/* v - m² of the element, with m brought up to date. */
static inline real rmsprop_variance(real *m, real d, real v, real gain) {
    *m = r_lerp(*m, d, gain);
    real square = v - *m * *m;
    return square > 0 || square != square ? square : 0;
}

static void rmsprop_forward(int64_t n, void *param, const void *grad, void *const *state, const double *c) {
    real *p = param, *v = state[0], *m = state[1], *b = state[2];
    const real *g = grad;
    const real lr = (real)c[RMSPROP_LR], alpha = (real)c[RMSPROP_ALPHA], gain = (real)c[RMSPROP_GAIN];
    const real eps = (real)c[RMSPROP_EPS], decay = (real)c[RMSPROP_DECAY], momentum = (real)c[RMSPROP_MOMENTUM];
#define RMSPROP_PLAIN p[i] -= lr * u
#define RMSPROP_MOVING b[i] = momentum * b[i] + u, p[i] -= lr * b[i]
#define RMSPROP_CENTERED rmsprop_variance(m + i, d, v[i], gain)
    if (m && b) RMSPROP_RUN(RMSPROP_CENTERED, RMSPROP_MOVING)
    else if (m) RMSPROP_RUN(RMSPROP_CENTERED, RMSPROP_PLAIN)
    else if (b) RMSPROP_RUN(v[i], RMSPROP_MOVING)
    else RMSPROP_RUN(v[i], RMSPROP_PLAIN)
}
GR_OPTIM_KERNEL(rmsprop);

GR_OPTIM(rmsprop) = {
    .info = {.name = "RMSprop", .attrs = rmsprop_schema, .attr_size = sizeof(rmsprop_attrs),
             .doc = "RMSprop (Tieleman & Hinton 2012), with momentum, centered (Graves 2013), L2 decay."},
    .state_names = rmsprop_states,
    .states = rmsprop_used,
    .prepare = rmsprop_prepare,
    .forward = rmsprop_kernels,
};
