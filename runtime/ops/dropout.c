/* y = x / (1 - p) with probability 1 - p, else 0: the expectation is x. p = 1 gives zeros.
 *
 * One random word an element, compared with 2^32 (1 - p) rounded to a whole number. Nothing is kept: backward is
 * the same op on dy with the same seed and counter, and makes the same words again (1 ns an element for both). */
#include "iter.h"
#include "random.h"
#include "rows.h"
#include "vmath.h"

typedef struct dropout_job {
    const real *x;
    real *y;
    int64_t n;
    uint64_t seed, counter;
    uint32_t most; /* the largest word that keeps an element */
    real scale;
} dropout_job;

static void dropout_group(const dropout_job *j, int64_t group, const real *x, real *y) {
    gri_words w;
    gri_philox16(j->seed, j->counter, (uint64_t)group * GRI_GROUP_LANES, w);
    const uint32_t *word = w[0];
    uint32_t most = j->most;
    real scale = j->scale;
#pragma omp simd
    for (int i = 0; i < GRI_GROUP; i++) y[i] = word[i] <= most ? x[i] * scale : 0;
}

static void dropout_groups(void *arg, int64_t from, int64_t to) {
    const dropout_job *j = arg;
    for (int64_t g = from; g < to; g++) {
        int64_t at = g * GRI_GROUP, n = j->n - at;
        if (n >= GRI_GROUP) {
            dropout_group(j, g, j->x + at, j->y + at);
            continue;
        }
        real x[GRI_GROUP] = {0}, y[GRI_GROUP];
        for (int64_t i = 0; i < n; i++) x[i] = j->x[at + i];
        dropout_group(j, g, x, y);
        for (int64_t i = 0; i < n; i++) j->y[at + i] = y[i];
    }
}

static gr_status dropout_shape(gri_call *c) {
    double p = ((const gri_dropout_attrs *)c->attrs)->p;
    if (!(p >= 0 && p <= 1)) return gr_fail(c->ctx, GR_ERR_ARG, "p is %g, expected 0 to 1", p);
    return gri_shape_same(c);
}

static gr_status dropout_kernel(gri_call *c) {
    const gri_dropout_attrs *a = c->attrs;
    uint64_t kept = (uint64_t)rint((1 - a->p) * 0x1p32); /* of 2^32 words */
    dropout_job j = {.x = (const real *)(const void *)c->in[0]->data, .y = (real *)(void *)c->out[0]->data,
                     .n = c->in[0]->numel, .seed = (uint64_t)a->seed, .counter = (uint64_t)a->counter,
                     .most = (uint32_t)(kept - 1), .scale = (real)(1 / (1 - a->p))};
    if (kept == 0) {
        for (int64_t i = 0; i < j.n; i++) j.y[i] = 0;
        return GR_OK;
    }
    gri_rows(c->ctx, (j.n + GRI_GROUP - 1) / GRI_GROUP, 80, dropout_groups, &j);
    return gri_poll(c->ctx);
}

static gr_status dropout_forward(gri_call *c) { return gri_dense(c, dropout_kernel); }
GR_KERNEL(dropout);

static gr_status dropout_rule(gri_grad *g) { return gri_emit(g, 0, &gri_op_dropout, 1, g->dy, g->attrs); }

static const gr_attr dropout_schema[] = {
    {"p", GR_ATTR_REAL, offsetof(gri_dropout_attrs, p), .value = 0.5, .min = 0, .max = 1},
    {"seed", GR_ATTR_INT, offsetof(gri_dropout_attrs, seed), .required = true},
    {"counter", GR_ATTR_INT, offsetof(gri_dropout_attrs, counter), .required = true},
    GR_ATTR_END};

static const gr_case dropout_cases[] = {
    {.in = "3", .attrs = "p=0, seed=1, counter=2", .give = "{1,-2,3}", .want = "{1,-2,3}"},
    {.in = "3", .attrs = "p=1, seed=1, counter=2", .give = "{1,-2,1/0}", .want = "{0,0,0}", .no_grad = true},
    {.in = "5,77", .attrs = "p=0.3, seed=1, counter=2"},
    {0}};

GR_OP(dropout) = {
    .info = {.name = "dropout", .inputs = "x", .attrs = dropout_schema, .attr_size = sizeof(gri_dropout_attrs),
             .cases = dropout_cases,
             .doc = "Elements become 0 with probability p; the others are divided by 1 - p. seed and counter name\n"
                    "the draw: the same ones drop the same elements."},
    .sets_only = true,
    .shape = dropout_shape,
    .forward = dropout_kernels,
    .backward = dropout_rule,
};
