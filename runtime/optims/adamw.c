/* AdamW: Adam with decay that does not pass through the moments. Update number t of a parameter:
 *
 *   p <- p (1 - lr weight_decay)
 *   m <- m + (1 - beta1) (g - m)
 *   v <- beta2 v + (1 - beta2) g²                             amsgrad: w <- max(w, v), used for v below
 *   p <- p - lr / (1 - beta1^t) · m / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * Loshchilov & Hutter 2019. Defaults lr 1e-3, betas .9 and .999, eps 1e-8, weight_decay .01. */
#include <float.h>

#include "optim.h"
#include "vmath.h"

typedef struct adamw_attrs {
    double lr, beta1, beta2, eps, weight_decay;
    bool amsgrad;
} adamw_attrs;

enum { ADAMW_STEP, ADAMW_TAKE, ADAMW_BETA2, ADAMW_GAIN, ADAMW_CORRECT, ADAMW_EPS, ADAMW_KEEP };

static const gr_attr adamw_schema[] = {
    {"lr", GR_ATTR_REAL, offsetof(adamw_attrs, lr), .value = 1e-3, .max = DBL_MAX},
    {"beta1", GR_ATTR_REAL, offsetof(adamw_attrs, beta1), .value = 0.9, .max = 1},
    {"beta2", GR_ATTR_REAL, offsetof(adamw_attrs, beta2), .value = 0.999, .max = 1},
    {"eps", GR_ATTR_REAL, offsetof(adamw_attrs, eps), .value = 1e-8, .max = DBL_MAX},
    {"weight_decay", GR_ATTR_REAL, offsetof(adamw_attrs, weight_decay), .value = 0.01, .max = DBL_MAX},
    {"amsgrad", GR_ATTR_BOOL, offsetof(adamw_attrs, amsgrad), .value = 0},
    GR_ATTR_END};

static const char *const adamw_states[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", NULL};

static uint32_t adamw_used(const void *attrs) { return ((const adamw_attrs *)attrs)->amsgrad ? 7 : 3; }

static gr_status adamw_prepare(gr_ctx *ctx, const void *attrs, int64_t t, double *c) {
    const adamw_attrs *a = attrs;
    GR_TRY(gri_optim_want_betas(ctx, a->beta1, a->beta2));
    c[ADAMW_STEP] = a->lr / (1 - pow(a->beta1, (double)t));
    c[ADAMW_TAKE] = 1 - a->beta1;
    c[ADAMW_BETA2] = a->beta2;
    c[ADAMW_GAIN] = 1 - a->beta2;
    c[ADAMW_CORRECT] = 1 / sqrt(1 - pow(a->beta2, (double)t));
    c[ADAMW_EPS] = a->eps;
    c[ADAMW_KEEP] = 1 - a->lr * a->weight_decay;
    return GR_OK;
}

static void adamw_forward(int64_t n, void *param, const void *grad, void *const *state, const double *c) {
    real *p = param, *m = state[0], *v = state[1], *w = state[2];
    const real *g = grad;
    const real step = (real)c[ADAMW_STEP], take = (real)c[ADAMW_TAKE], beta2 = (real)c[ADAMW_BETA2];
    const real gain = (real)c[ADAMW_GAIN], correct = (real)c[ADAMW_CORRECT], eps = (real)c[ADAMW_EPS];
    const real keep = (real)c[ADAMW_KEEP];
    if (!w) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            m[i] = r_lerp(m[i], g[i], take);
            v[i] = beta2 * v[i] + gain * g[i] * g[i];
            p[i] = keep * p[i] - step * m[i] / (r_sqrt(v[i]) * correct + eps);
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        m[i] = r_lerp(m[i], g[i], take);
        v[i] = beta2 * v[i] + gain * g[i] * g[i];
        w[i] = w[i] > v[i] ? w[i] : v[i];
        p[i] = keep * p[i] - step * m[i] / (r_sqrt(w[i]) * correct + eps);
    }
}
GR_OPTIM_KERNEL(adamw);

GR_OPTIM(adamw) = {
    .info = {.name = "AdamW", .attrs = adamw_schema, .attr_size = sizeof(adamw_attrs),
             .doc = "Adam with decoupled weight decay (Loshchilov & Hutter 2019)."},
    .state_names = adamw_states,
    .states = adamw_used,
    .prepare = adamw_prepare,
    .forward = adamw_kernels,
};
