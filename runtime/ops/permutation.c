/* y[n] = the numbers 1..n (0..n-1 where the context counts from 0) in random order, i64.
 *
 * Fisher and Yates's shuffle (Durstenfeld, CACM 7, 1964). A position below n is drawn without bias as the
 * high half of x n for a random 64-bit x; the few x whose low half is below 2^64 mod n are drawn again
 * (Lemire, "Fast random integer generation in an interval", 2019). One thread, since each step needs the
 * one before. No inputs, no derivative. */
#include "draw.h"
#include "iter.h"

typedef struct permutation_attrs {
    int64_t n, seed, counter;
} permutation_attrs;

static gr_status permutation_shape(gri_call *c) {
    const permutation_attrs *a = c->attrs;
    gr_dims shape = {.n = 1, .v = {a->n}};
    return gri_spec_given(c->ctx, &shape, GR_I64, &c->spec[0]);
}

typedef struct permutation_source {
    uint64_t seed, counter, lane;
    gri_words w;
    int used; /* of the 32 pairs in w */
} permutation_source;

static uint64_t permutation_next(permutation_source *s) {
    if (s->used == 2 * GRI_GROUP_LANES) {
        gri_philox16(s->seed, s->counter, s->lane, s->w);
        s->lane += GRI_GROUP_LANES;
        s->used = 0;
    }
    int p = s->used / GRI_GROUP_LANES, j = s->used % GRI_GROUP_LANES;
    s->used++;
    return (uint64_t)s->w[2 * p][j] << 32 | s->w[2 * p + 1][j];
}

static uint64_t permutation_below(permutation_source *s, uint64_t n) {
    unsigned __int128 x = (unsigned __int128)permutation_next(s) * n;
    if ((uint64_t)x < n) {
        uint64_t least = -n % n; /* 2^64 mod n */
        while ((uint64_t)x < least) x = (unsigned __int128)permutation_next(s) * n;
    }
    return (uint64_t)(x >> 64);
}

static gr_status permutation_fill(gri_call *c, int64_t *y) {
    const permutation_attrs *a = c->attrs;
    permutation_source s = {.seed = (uint64_t)a->seed, .counter = (uint64_t)a->counter, .used = 2 * GRI_GROUP_LANES};
    for (int64_t i = 0; i < a->n; i++) y[i] = i + c->ctx->index_base;
    for (int64_t i = a->n - 1; i > 0; i--) {
        if ((i & 0xffff) == 0) GR_TRY(gri_poll(c->ctx));
        int64_t k = (int64_t)permutation_below(&s, (uint64_t)i + 1), t = y[i];
        y[i] = y[k];
        y[k] = t;
    }
    return GR_OK;
}

static gr_status permutation_forward(gri_call *c) {
    gr_tensor *out = c->out[0], *t;
    if (out->contiguous) return permutation_fill(c, (int64_t *)(void *)out->data);
    gri_spec spec = gri_spec_of(out);
    GR_TRY(gri_tensor_like_spec(c->ctx, &spec, &t));
    gr_status status = permutation_fill(c, (int64_t *)(void *)t->data);
    if (status == GR_OK) status = gri_copy(c->ctx, out, t, GRI_SET);
    gr_release(t);
    return status;
}
GR_KERNEL(permutation);

static const gr_attr permutation_schema[] = {
    {"n", GR_ATTR_INT, offsetof(permutation_attrs, n), .required = true, .min = 0, .max = 0x1p53},
    {"seed", GR_ATTR_INT, offsetof(permutation_attrs, seed), .required = true},
    {"counter", GR_ATTR_INT, offsetof(permutation_attrs, counter), .required = true},
    GR_ATTR_END};

static const gr_case permutation_cases[] = {
    {.in = "", .attrs = "n=1, seed=0, counter=0", .want = "{1}", .no_grad = true},
    {.in = "", .attrs = "n=0, seed=0, counter=0", .no_grad = true},
    {.in = "", .attrs = "n=100, seed=0, counter=0", .no_grad = true},
    {0}};

GR_OP(permutation) = {
    .info = {.name = "permutation", .inputs = "", .attrs = permutation_schema, .attr_size = sizeof(permutation_attrs),
             .cases = permutation_cases,
             .doc = "The positions 1 to n in random order, every order as likely as any other. seed and counter name "
                    "the draw: the same ones give the same order."},
    .sets_only = true,
    .shape = permutation_shape,
    .forward = permutation_kernels,
};
