/* What attention and its derivative share: shapes, and the probabilities of a block of queries.
 *
 * A block's scores lie the other way round, [s][ATTENTION_ROWS], queries side by side in the lanes of vectors:
 * maxima and sums over keys are then sums of whole vectors, without tails, and the products take either layout
 * as it is. */
#ifndef GRI_ATTENTION_H
#define GRI_ATTENTION_H

#include "blas.h"
#include "op.h"
#include "random.h"
#include "scratch.h"
#include "vmath.h"

#include <string.h>

#define ATTENTION_ROWS 32 /* queries in a block: the width of a product's tile with 512 bits */
#define ATTENTION_BRIEF 1e6 /* multiplications: 10-20 us on one thread */

enum { ATTENTION_Q, ATTENTION_K, ATTENTION_V, ATTENTION_MASK };

/* A matrix for each entry of the batch. */
typedef struct attention_matrix {
    char *data; /* NULL: absent, or not wanted */
    int64_t rs, cs, lead[GR_MAX_RANK];
} attention_matrix;

typedef struct attention_job {
    const gr_ctx *ctx; /* asked only whether it was interrupted */
    gri_isa isa;
    int lead;
    int64_t dims[GR_MAX_RANK]; /* of the batch */
    int64_t batch, t, s, d, e;
    int64_t blocks, parts; /* of the queries; sums of dk and dv for each entry of the batch */
    const gri_attention_attrs *attrs;
    real scale;
    uint64_t kept; /* of 2^32 random words */
    bool floating; /* the mask */
    attention_matrix q, k, v, mask, y, dy, dq, dk, dv, dmask;
    real *sums; /* [parts - 1][batch][s][d + e]: of dk and dv, but the first part's */
    gri_scratch scratch;
} attention_job;

/* Some queries of an entry of the batch. */
typedef struct attention_block {
    int64_t at, row, rows, keys; /* entry; first query; how many; how many keys they see */
} attention_block;

/* ---- shapes ----------------------------------------------------------------------------------------------- */

static inline gr_status attention_want(gri_call *c, int i, const char *name) {
    GR_TRY(gri_want_float(c, i));
    if (c->in[i]->rank >= 2) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is %s, expected at least 2 dimensions", name, gri_tensor_text(c->in[i]));
}

static inline gr_status attention_check_mask(gri_call *c, const gr_tensor *mask, const gri_spec *scores) {
    gri_spec s = *scores;
    if (mask->dtype != GR_U8 && mask->dtype != c->in[0]->dtype)
        return gr_fail(c->ctx, GR_ERR_DTYPE, "mask is %s, expected u8 (1 = take part) or %s (added to the scores)",
                       gri_tensor_text(mask), gr_dtype_name((gr_dtype)c->in[0]->dtype));
    if (gri_broadcast(&s.rank, s.dims, mask->rank, mask->dims) &&
        gri_same_dims(s.rank, s.dims, scores->rank, scores->dims))
        return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "mask %s does not broadcast to the scores %s", gri_tensor_text(mask),
                   gri_dims_text(scores->rank, scores->dims));
}

/* q, k, v and mask are inputs first, first + 1, …; *scores is [batch…,t,s]. */
static inline gr_status attention_check(gri_call *c, int first, gri_spec *scores) {
    static const char *const names[] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) GR_TRY(attention_want(c, first + i, names[i]));
    const gr_tensor *q = c->in[first], *k = c->in[first + 1], *v = c->in[first + 2];
    if (q->dims[q->rank - 1] != k->dims[k->rank - 1])
        return gr_fail(c->ctx, GR_ERR_SHAPE, "q is %s, k %s: their last dimensions differ", gri_tensor_text(q),
                       gri_tensor_text(k));
    if (k->dims[k->rank - 2] != v->dims[v->rank - 2])
        return gr_fail(c->ctx, GR_ERR_SHAPE, "k is %s, v %s: %lld keys, but %lld values", gri_tensor_text(k),
                       gri_tensor_text(v), (long long)k->dims[k->rank - 2], (long long)v->dims[v->rank - 2]);
    *scores = gri_spec_of(q);
    scores->rank -= 2;
    if (!gri_broadcast(&scores->rank, scores->dims, k->rank - 2, k->dims) ||
        !gri_broadcast(&scores->rank, scores->dims, v->rank - 2, v->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "q %s, k %s, v %s: the leading dimensions do not broadcast",
                       gri_tensor_text(q), gri_tensor_text(k), gri_tensor_text(v));
    scores->dims[scores->rank++] = q->dims[q->rank - 2];
    scores->dims[scores->rank++] = k->dims[k->rank - 2];
    const gr_tensor *mask = c->n_in > first + ATTENTION_MASK ? c->in[first + ATTENTION_MASK] : NULL;
    return mask ? attention_check_mask(c, mask, scores) : GR_OK;
}

/* [batch…,rows,columns] */
static inline gri_spec attention_spec(const gri_spec *scores, int64_t rows, int64_t columns) {
    gri_spec s = *scores;
    s.dims[s.rank - 2] = rows;
    s.dims[s.rank - 1] = columns;
    return s;
}

static inline gr_status attention_check_attrs(gri_call *c) {
    const gri_attention_attrs *a = c->attrs;
    if (!(a->dropout_p >= 0 && a->dropout_p <= 1))
        return gr_fail(c->ctx, GR_ERR_ARG, "dropout_p is %g, expected 0 to 1", a->dropout_p);
    return GR_OK;
}

static inline double attention_scale(const gri_attention_attrs *a, int64_t d) {
    return isnan(a->scale) ? 1 / sqrt((double)(d ? d : 1)) : a->scale;
}

/* ---- what is computed ------------------------------------------------------------------------------------- */

static inline attention_matrix attention_open(const attention_job *j, const gr_tensor *t) {
    attention_matrix m = {0};
    if (!t) return m;
    int matrix = t->rank < 2 ? t->rank : 2, more = j->lead - (t->rank - matrix);
    m.data = t->data;
    m.cs = matrix < 1 || t->dims[t->rank - 1] == 1 ? 0 : t->strides[t->rank - 1];
    m.rs = matrix < 2 || t->dims[t->rank - 2] == 1 ? 0 : t->strides[t->rank - 2];
    for (int i = more; i < j->lead; i++) m.lead[i] = t->dims[i - more] == 1 ? 0 : t->strides[i - more];
    return m;
}

/* Where entry `at` of the batch begins, in elements. */
static inline int64_t attention_offset(const attention_job *j, const attention_matrix *m, int64_t at) {
    int64_t offset = 0;
    for (int i = j->lead - 1; i >= 0; at /= j->dims[i--]) offset += at % j->dims[i] * m->lead[i];
    return offset;
}
static inline real *attention_at(const attention_job *j, const attention_matrix *m, int64_t at) {
    return (real *)(void *)m->data + attention_offset(j, m, at);
}

static inline void attention_job_set(attention_job *j, const gri_call *c, int first, const gri_spec *scores) {
    gr_tensor *const *in = c->in + first;
    const gr_tensor *mask = c->n_in > first + ATTENTION_MASK ? in[ATTENTION_MASK] : NULL;
    *j = (attention_job){.ctx = c->ctx, .isa = c->ctx->isa, .lead = scores->rank - 2, .parts = 1, .attrs = c->attrs};
    memcpy(j->dims, scores->dims, sizeof j->dims);
    j->batch = gri_product(j->lead, j->dims);
    j->t = scores->dims[j->lead];
    j->s = scores->dims[j->lead + 1];
    j->d = in[ATTENTION_Q]->dims[in[ATTENTION_Q]->rank - 1];
    j->e = in[ATTENTION_V]->dims[in[ATTENTION_V]->rank - 1];
    j->blocks = (j->t + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
    j->scale = (real)attention_scale(j->attrs, j->d);
    j->kept = (uint64_t)rint((1 - j->attrs->dropout_p) * 0x1p32);
    j->floating = mask && gri_is_float(mask);
    j->q = attention_open(j, in[ATTENTION_Q]);
    j->k = attention_open(j, in[ATTENTION_K]);
    j->v = attention_open(j, in[ATTENTION_V]);
    j->mask = attention_open(j, mask);
}

static inline attention_block attention_block_of(const attention_job *j, int64_t at, int64_t block) {
    attention_block b = {.at = at, .row = block * ATTENTION_ROWS, .keys = j->s};
    b.rows = j->t - b.row < ATTENTION_ROWS ? j->t - b.row : ATTENTION_ROWS;
    if (j->attrs->is_causal && b.row + b.rows < j->s) b.keys = b.row + b.rows;
    return b;
}

/* c[m,n] (+)= a[m,k] b[k,n] */
static inline void attention_product(const attention_job *j, int64_t m, int64_t n, int64_t k,
                                     const real *a, int64_t rsa, int64_t csa, const real *b, int64_t rsb, int64_t csb,
                                     real *c, int64_t rsc, int64_t csc, bool add) {
    gri_gemm g = {.dtype = GRI_REAL, .m = m, .n = n, .k = k, .a = a, .rsa = rsa, .csa = csa, .b = b, .rsb = rsb,
                  .csb = csb, .c = c, .rsc = rsc, .csc = csc, .beta = add};
    gri_gemm_piece(j->isa, &g);
}

/* p[keys][ATTENTION_ROWS] = a[keys,n] x[rows,n]ᵀ, and 0 in the lanes left over. */
static inline void attention_across(const attention_job *j, const attention_block *b, const attention_matrix *a,
                             const attention_matrix *x, int64_t n, real *p) {
    attention_product(j, b->keys, b->rows, n, attention_at(j, a, b->at), a->rs, a->cs,
                      attention_at(j, x, b->at) + b->row * x->rs, x->cs, x->rs, p, ATTENTION_ROWS, 1, false);
    for (int64_t k = 0; k < b->keys && b->rows < ATTENTION_ROWS; k++)
        for (int64_t i = b->rows; i < ATTENTION_ROWS; i++) p[k * ATTENTION_ROWS + i] = 0;
}

/* p = scale p + mask, or -inf where the mask is 0. */
static inline void attention_mask(const attention_job *j, const attention_block *b, real *p) {
    const attention_matrix *m = &j->mask;
    const int64_t from = attention_offset(j, m, b->at) + b->row * m->rs;
    const real *added = (const real *)(const void *)m->data + from, scale = j->scale;
    const uint8_t *byte = (const uint8_t *)m->data + from;
    for (int64_t k = 0; k < b->keys; k++, p += ATTENTION_ROWS)
        for (int64_t i = 0; i < b->rows; i++) {
            int64_t at = i * m->rs + k * m->cs;
            if (j->floating) p[i] = scale * p[i] + added[at];
            else p[i] = byte[at] ? scale * p[i] : -(real)INFINITY;
        }
}

/* -inf for keys after the query: lanes before the diagonal. */
static inline void attention_hide(const attention_block *b, real *p) {
    for (int64_t k = b->row + 1; k < b->keys; k++)
        for (int64_t i = 0; i < k - b->row; i++) p[k * ATTENTION_ROWS + i] = -(real)INFINITY;
}

/* Scores become probabilities. */
static inline void attention_softmax(const attention_job *j, const attention_block *b, real *p) {
    _Alignas(64) real max[ATTENTION_ROWS], sum[ATTENTION_ROWS];
    const int64_t n = b->keys * ATTENTION_ROWS;
    real scale = j->scale;
    if (j->mask.data) attention_mask(j, b, p);
    else if (!(scale > 0))
        for (int64_t i = 0; i < GRI_RUN(n); i++) p[i] *= scale;
    if (j->mask.data || !(scale > 0)) scale = 1;
    if (j->attrs->is_causal) attention_hide(b, p);
    for (int i = 0; i < ATTENTION_ROWS; i++) max[i] = -(real)INFINITY, sum[i] = 0;
    for (int64_t at = 0; at < n; at += ATTENTION_ROWS)
#pragma omp simd
        for (int i = 0; i < ATTENTION_ROWS; i++) {
            real x = scale * p[at + i];
            max[i] = x > max[i] ? x : max[i];
        }
    for (int i = 0; i < ATTENTION_ROWS; i++) max[i] = max[i] == -(real)INFINITY ? 0 : max[i];
    for (int64_t at = 0; at < n; at += ATTENTION_ROWS)
#pragma omp simd
        for (int i = 0; i < ATTENTION_ROWS; i++) {
            real x = r_exp_falling(scale * p[at + i] - max[i]);
            p[at + i] = x;
            sum[i] += x;
        }
    for (int i = 0; i < ATTENTION_ROWS; i++) sum[i] = sum[i] == 0 ? 0 : 1 / sum[i]; /* 0: no key to look at */
    for (int64_t at = 0; at < n; at += ATTENTION_ROWS)
#pragma omp simd
        for (int i = 0; i < ATTENTION_ROWS; i++) p[at + i] *= sum[i];
}

/* p times what dropout multiplies by. The words are those of the op dropout on P, groups of its row-major order. */
static inline void attention_drop(const attention_job *j, const attention_block *b, real *p) {
    const gri_attention_attrs *a = j->attrs;
    const uint32_t most = (uint32_t)(j->kept - 1);
    const real factor = (real)(1 / (1 - a->dropout_p));
    gri_words w;
    const uint32_t *words = (const uint32_t *)w;
    for (int64_t i = 0; i < b->rows; i++) {
        uint64_t first = (uint64_t)((b->at * j->t + b->row + i) * j->s), made = UINT64_MAX;
        for (int64_t k = 0; k < b->keys; k++) {
            uint64_t at = first + (uint64_t)k;
            if (at / GRI_GROUP != made) {
                made = at / GRI_GROUP;
                gri_philox16((uint64_t)a->seed, (uint64_t)a->counter, made * GRI_GROUP_LANES, w);
            }
            real *to = p + k * ATTENTION_ROWS + i;
            *to = j->kept && words[at % GRI_GROUP] <= most ? *to * factor : 0;
        }
    }
}

/* The regions of one call, each with `tiles` tiles of scratch for a piece. */
static inline gr_status attention_run(gr_ctx *ctx, attention_job *j, int64_t pieces, gri_piece_fn fn, int64_t tiles) {
    double work = (double)j->batch * (double)j->t * (double)j->s * (double)(j->d + j->e);
    size_t bytes = (size_t)(tiles * j->s * ATTENTION_ROWS) * sizeof(real);
    GR_TRY(gri_scratch_open(ctx, &j->scratch, bytes ? bytes : 1));
    (work < ATTENTION_BRIEF ? gri_parallel_brief : gri_parallel)(ctx, pieces, fn, j);
    gri_scratch_close(ctx, &j->scratch);
    return gri_poll(ctx);
}

static const gr_attr attention_schema[] = {
    {"dropout_p", GR_ATTR_REAL, offsetof(gri_attention_attrs, dropout_p), .min = 0, .max = 1},
    {"is_causal", GR_ATTR_BOOL, offsetof(gri_attention_attrs, is_causal), .required = false},
    {"scale", GR_ATTR_REAL, offsetof(gri_attention_attrs, scale), .value = NAN},
    {"seed", GR_ATTR_INT, offsetof(gri_attention_attrs, seed), .required = false},
    {"counter", GR_ATTR_INT, offsetof(gri_attention_attrs, counter), .required = false},
    GR_ATTR_END};

#endif
