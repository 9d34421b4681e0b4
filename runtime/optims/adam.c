/* Adam: steps in units of the gradient's own size. Update number t of a parameter:
 *
 *   g <- g + weight_decay p                                   (L2: see adamw.c for decoupled decay)
 *   m <- m + (1 - beta1) (g - m)
 *   v <- beta2 v + (1 - beta2) g²                             amsgrad: w <- max(w, v), used for v below
 *   p <- p - lr / (1 - beta1^t) · m / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * Kingma & Ba 2015; amsgrad: Reddi, Kale & Kumar 2018. Defaults lr 1e-3, betas .9 and .999, eps 1e-8. */
#include <float.h>

#include "optim.h"
#include "vmath.h"

typedef struct adam_attrs {
    double lr, beta1, beta2, eps, weight_decay;
    bool amsgrad;
} adam_attrs;

enum { ADAM_STEP, ADAM_TAKE, ADAM_BETA2, ADAM_GAIN, ADAM_CORRECT, ADAM_EPS, ADAM_DECAY };

static const gr_attr adam_schema[] = {
    {"lr", GR_ATTR_REAL, offsetof(adam_attrs, lr), .value = 1e-3, .max = DBL_MAX},
    {"beta1", GR_ATTR_REAL, offsetof(adam_attrs, beta1), .value = 0.9, .max = 1},
    {"beta2", GR_ATTR_REAL, offsetof(adam_attrs, beta2), .value = 0.999, .max = 1},
    {"eps", GR_ATTR_REAL, offsetof(adam_attrs, eps), .value = 1e-8, .max = DBL_MAX},
    {"weight_decay", GR_ATTR_REAL, offsetof(adam_attrs, weight_decay), .max = DBL_MAX},
    {"amsgrad", GR_ATTR_BOOL, offsetof(adam_attrs, amsgrad), .value = 0},
    GR_ATTR_END};

static const char *const adam_states[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", NULL};

static uint32_t adam_used(const void *attrs) { return ((const adam_attrs *)attrs)->amsgrad ? 7 : 3; }

static gr_status adam_prepare(gr_ctx *ctx, const void *attrs, int64_t t, double *c) {
    const adam_attrs *a = attrs;
    GR_TRY(gri_optim_want_betas(ctx, a->beta1, a->beta2));
    c[ADAM_STEP] = a->lr / (1 - pow(a->beta1, (double)t));
    c[ADAM_TAKE] = 1 - a->beta1;
    c[ADAM_BETA2] = a->beta2;
    c[ADAM_GAIN] = 1 - a->beta2;
    c[ADAM_CORRECT] = 1 / sqrt(1 - pow(a->beta2, (double)t));
    c[ADAM_EPS] = a->eps;
    c[ADAM_DECAY] = a->weight_decay;
    return GR_OK;
}

static void adam_forward(int64_t n, void *param, const void *grad, void *const *state, const double *c) {
    real *p = param, *m = state[0], *v = state[1], *w = state[2];
    const real *g = grad;
    const real step = (real)c[ADAM_STEP], take = (real)c[ADAM_TAKE], beta2 = (real)c[ADAM_BETA2];
    const real gain = (real)c[ADAM_GAIN], correct = (real)c[ADAM_CORRECT], eps = (real)c[ADAM_EPS];
    const real decay = (real)c[ADAM_DECAY];
    if (!w) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            real d = g[i] + decay * p[i];
            m[i] = r_lerp(m[i], d, take);
            v[i] = beta2 * v[i] + gain * d * d;
            p[i] -= step * m[i] / (r_sqrt(v[i]) * correct + eps);
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real d = g[i] + decay * p[i];
        m[i] = r_lerp(m[i], d, take);
        v[i] = beta2 * v[i] + gain * d * d;
        w[i] = w[i] > v[i] ? w[i] : v[i];
        p[i] -= step * m[i] / (r_sqrt(w[i]) * correct + eps);
    }
}
GR_OPTIM_KERNEL(adam);

GR_OPTIM(adam) = {
    .info = {.name = "Adam", .attrs = adam_schema, .attr_size = sizeof(adam_attrs),
             .doc = "Adam (Kingma & Ba 2015), with L2 decay through the gradient."},
    .state_names = adam_states,
    .states = adam_used,
    .prepare = adam_prepare,
    .forward = adam_kernels,
};
