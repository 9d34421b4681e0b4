/* NAdam: Adam with Nesterov's momentum, which grows towards beta1. Update number t of a parameter:
 *
 *   g <- g + weight_decay p                      or, decoupled_weight_decay: p <- p (1 - lr weight_decay)
 *   mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2),   M_t = mu_1 mu_2 … mu_t
 *   m <- m + (1 - beta1) (g - m)
 *   v <- beta2 v + (1 - beta2) g²
 *   p <- p - lr ((1 - mu_t) / (1 - M_t) g + mu_(t+1) / (1 - M_(t+1)) m) / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * Dozat 2016, "Incorporating Nesterov momentum into Adam". Defaults lr 2e-3, betas .9 and .999, eps 1e-8,
 * momentum_decay 4e-3.
 *
 * M_t is computed anew from t at every step, as powers of the betas are, so that all that is kept is state and step
 * count: beta1 and momentum_decay, changed midway, count as if they had always been so. (PyTorch keeps M_t.) */
#include <float.h>

#include "optim.h"
#include "vmath.h"

typedef struct nadam_attrs {
    double lr, beta1, beta2, eps, weight_decay, momentum_decay;
    bool decoupled_weight_decay;
} nadam_attrs;

enum {
    NADAM_OWN, NADAM_STEP, NADAM_TAKE, NADAM_BETA2, NADAM_GAIN, NADAM_CORRECT, NADAM_EPS, NADAM_DECAY, NADAM_KEEP
};

static const gr_attr nadam_schema[] = {
    {"lr", GR_ATTR_REAL, offsetof(nadam_attrs, lr), .value = 2e-3, .max = DBL_MAX},
    {"beta1", GR_ATTR_REAL, offsetof(nadam_attrs, beta1), .value = 0.9, .max = 1},
    {"beta2", GR_ATTR_REAL, offsetof(nadam_attrs, beta2), .value = 0.999, .max = 1},
    {"eps", GR_ATTR_REAL, offsetof(nadam_attrs, eps), .value = 1e-8, .max = DBL_MAX},
    {"weight_decay", GR_ATTR_REAL, offsetof(nadam_attrs, weight_decay), .max = DBL_MAX},
    {"momentum_decay", GR_ATTR_REAL, offsetof(nadam_attrs, momentum_decay), .value = 4e-3, .max = DBL_MAX},
    {"decoupled_weight_decay", GR_ATTR_BOOL, offsetof(nadam_attrs, decoupled_weight_decay), .value = 0},
    GR_ATTR_END};

static const char *const nadam_states[] = {"exp_avg", "exp_avg_sq", NULL};

/* mu from 0.96^(t momentum_decay). */
static double nadam_mu(const nadam_attrs *a, double power) { return a->beta1 * (1 - 0.5 * power); }

/* M_t. Each factor is at most beta1: soon 1 - M_t is 1 to the last bit, 370 factors in for 0.9. */
static double nadam_product(const nadam_attrs *a, int64_t t) {
    const double ratio = pow(0.96, a->momentum_decay);
    double product = 1, power = ratio;
    for (int64_t i = 1; i <= t && product > 1e-17; i++, power *= ratio) product *= nadam_mu(a, power);
    return product;
}

static gr_status nadam_prepare(gr_ctx *ctx, const void *attrs, int64_t t, double *c) {
    const nadam_attrs *a = attrs;
    GR_TRY(gri_optim_want_betas(ctx, a->beta1, a->beta2));
    const double mu = nadam_mu(a, pow(0.96, (double)t * a->momentum_decay));
    const double next = nadam_mu(a, pow(0.96, (double)(t + 1) * a->momentum_decay)), product = nadam_product(a, t);
    c[NADAM_OWN] = a->lr * (1 - mu) / (1 - product);
    c[NADAM_STEP] = a->lr * next / (1 - product * next);
    c[NADAM_TAKE] = 1 - a->beta1;
    c[NADAM_BETA2] = a->beta2;
    c[NADAM_GAIN] = 1 - a->beta2;
    c[NADAM_CORRECT] = 1 / sqrt(1 - pow(a->beta2, (double)t));
    c[NADAM_EPS] = a->eps;
    c[NADAM_DECAY] = a->decoupled_weight_decay ? 0 : a->weight_decay;
    c[NADAM_KEEP] = a->decoupled_weight_decay ? 1 - a->lr * a->weight_decay : 1;
    return GR_OK;
}

static void nadam_forward(int64_t n, void *param, const void *grad, void *const *state, const double *c) {
    real *p = param, *m = state[0], *v = state[1];
    const real *g = grad;
    const real own = (real)c[NADAM_OWN], step = (real)c[NADAM_STEP], take = (real)c[NADAM_TAKE];
    const real beta2 = (real)c[NADAM_BETA2], gain = (real)c[NADAM_GAIN], correct = (real)c[NADAM_CORRECT];
    const real eps = (real)c[NADAM_EPS], decay = (real)c[NADAM_DECAY], keep = (real)c[NADAM_KEEP];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real d = g[i] + decay * p[i];
        m[i] = r_lerp(m[i], d, take);
        v[i] = beta2 * v[i] + gain * d * d;
        p[i] = keep * p[i] - (own * d + step * m[i]) / (r_sqrt(v[i]) * correct + eps);
    }
}
GR_OPTIM_KERNEL(nadam);

GR_OPTIM(nadam) = {
    .info = {.name = "NAdam", .attrs = nadam_schema, .attr_size = sizeof(nadam_attrs),
             .doc = "Adam with Nesterov's momentum (Dozat 2016), with L2 or decoupled weight decay."},
    .state_names = nadam_states,
    .prepare = nadam_prepare,
    .forward = nadam_kernels,
};
