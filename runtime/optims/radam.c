/* RAdam: Adam that starts as momentum alone, until the second moment can be trusted. Update number t of a parameter:
 *
 *   g <- g + weight_decay p                      or, decoupled_weight_decay: p <- p (1 - lr weight_decay)
 *   m <- m + (1 - beta1) (g - m)
 *   v <- beta2 v + (1 - beta2) g²
 *   rho = 2 / (1 - beta2) - 1,   rho_t = rho - 2 t beta2^t / (1 - beta2^t): terms the average v is worth
 *   p <- p - lr / (1 - beta1^t) · m · (rho_t > 5 ? r_t sqrt(1 - beta2^t) / (sqrt(v) + eps) : 1)
 *   r_t² = (rho_t - 4) (rho_t - 2) rho / ((rho - 4) (rho - 2) rho_t)
 *
 * Liu et al. 2020, "On the variance of the adaptive learning rate and beyond". Defaults lr 1e-3, betas .9 and .999
 * (with which the first five updates are momentum), eps 1e-8. */
#include <float.h>

#include "optim.h"
#include "vmath.h"

typedef struct radam_attrs {
    double lr, beta1, beta2, eps, weight_decay;
    bool decoupled_weight_decay;
} radam_attrs;

enum { RADAM_STEP, RADAM_TAKE, RADAM_BETA2, RADAM_GAIN, RADAM_ADAPTS, RADAM_EPS, RADAM_DECAY, RADAM_KEEP };

static const gr_attr radam_schema[] = {
    {"lr", GR_ATTR_REAL, offsetof(radam_attrs, lr), .value = 1e-3, .max = DBL_MAX},
    {"beta1", GR_ATTR_REAL, offsetof(radam_attrs, beta1), .value = 0.9, .max = 1},
    {"beta2", GR_ATTR_REAL, offsetof(radam_attrs, beta2), .value = 0.999, .max = 1},
    {"eps", GR_ATTR_REAL, offsetof(radam_attrs, eps), .value = 1e-8, .max = DBL_MAX},
    {"weight_decay", GR_ATTR_REAL, offsetof(radam_attrs, weight_decay), .max = DBL_MAX},
    {"decoupled_weight_decay", GR_ATTR_BOOL, offsetof(radam_attrs, decoupled_weight_decay), .value = 0},
    GR_ATTR_END};

static const char *const radam_states[] = {"exp_avg", "exp_avg_sq", NULL};

static gr_status radam_prepare(gr_ctx *ctx, const void *attrs, int64_t t, double *c) {
    const radam_attrs *a = attrs;
    GR_TRY(gri_optim_want_betas(ctx, a->beta1, a->beta2));
    const double power = pow(a->beta2, (double)t), rho = 2 / (1 - a->beta2) - 1;
    const double rho_t = rho - 2 * (double)t * power / (1 - power);
    const bool adapts = rho_t > 5;
    double step = a->lr / (1 - pow(a->beta1, (double)t));
    if (adapts) step *= sqrt((rho_t - 4) * (rho_t - 2) * rho / ((rho - 4) * (rho - 2) * rho_t) * (1 - power));
    c[RADAM_STEP] = step;
    c[RADAM_TAKE] = 1 - a->beta1;
    c[RADAM_BETA2] = a->beta2;
    c[RADAM_GAIN] = 1 - a->beta2;
    c[RADAM_ADAPTS] = adapts;
    c[RADAM_EPS] = a->eps;
    c[RADAM_DECAY] = a->decoupled_weight_decay ? 0 : a->weight_decay;
    c[RADAM_KEEP] = a->decoupled_weight_decay ? 1 - a->lr * a->weight_decay : 1;
    return GR_OK;
}

static void radam_forward(int64_t n, void *param, const void *grad, void *const *state, const double *c) {
    real *p = param, *m = state[0], *v = state[1];
    const real *g = grad;
    const real step = (real)c[RADAM_STEP], take = (real)c[RADAM_TAKE], beta2 = (real)c[RADAM_BETA2];
    const real gain = (real)c[RADAM_GAIN], eps = (real)c[RADAM_EPS], decay = (real)c[RADAM_DECAY];
    const real keep = (real)c[RADAM_KEEP];
    if (c[RADAM_ADAPTS] == 0) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            real d = g[i] + decay * p[i];
            m[i] = r_lerp(m[i], d, take);
            v[i] = beta2 * v[i] + gain * d * d;
            p[i] = keep * p[i] - step * m[i];
        }
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real d = g[i] + decay * p[i];
        m[i] = r_lerp(m[i], d, take);
        v[i] = beta2 * v[i] + gain * d * d;
        p[i] = keep * p[i] - step * m[i] / (r_sqrt(v[i]) + eps);
    }
}
GR_OPTIM_KERNEL(radam);

GR_OPTIM(radam) = {
    .info = {.name = "RAdam", .attrs = radam_schema, .attr_size = sizeof(radam_attrs),
             .doc = "Rectified Adam (Liu et al. 2020): no warm-up needed; with L2 or decoupled weight decay."},
    .state_names = radam_states,
    .prepare = radam_prepare,
    .forward = radam_kernels,
};
