/* Normalisation of groups of channels: in x[n,c,...] the c / num_groups channels of a group and all their places, m
 * numbers, are one row:
 *     y = x̂ weight + bias,  x̂ = (x - mean) rstd,  rstd = 1 / √(var + eps),  mean and var (biased) of the row.
 * x[n,c,...] weight[c] bias[c] → y as x; without weight 1, without bias 0.
 *
 * With A = Σ dy and B = Σ dy x̂ over the places of one channel of one sample, and Σ over the channels of the group,
 *     dx = rstd (dy weight - Σ weight A / m - x̂ Σ weight B / m),  dweight = Σ B,  dbias = Σ A over the samples,
 * all from group_norm_backward(dy, x, weight), whose own derivative runs through its `compose`. Kept: x, weight. The
 * statistics are taken again, as in layer_norm. */
#include "rows.h"
#include "standard.h"
#include "stream.h"

/* Row-major [n, groups, channels, places]: a row is one group of one sample. */
typedef struct group_norm_job {
    int64_t n, groups, channels, places, m;
    double eps;
    bool stream; /* y, or dx */
    const real *x, *dy, *weight, *bias;
    real *y, *dx;
    double *a, *b; /* [n, groups, channels] */
} group_norm_job;

static inline real *group_norm_data(const gr_tensor *t) { return t ? (real *)(void *)t->data : NULL; }

static gr_status group_norm_check(gri_call *c, int x_at, const char *const *names) {
    const gr_tensor *x = c->in[x_at];
    int64_t groups = ((const gri_group_norm_attrs *)c->attrs)->num_groups;
    GR_TRY(gri_want_float(c, x_at));
    if (x->rank < 2) return gr_fail(c->ctx, GR_ERR_SHAPE, "x is %s, expected [n,channels,...]", gri_tensor_text(x));
    if (groups < 1 || x->dims[1] % groups)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "num_groups is %lld, which does not divide the %lld channels of x %s",
                       (long long)groups, (long long)x->dims[1], gri_tensor_text(x));
    for (int i = x_at + 1; i < c->n_in; i++) {
        const gr_tensor *t = c->in[i];
        if (!t) continue;
        GR_TRY(gri_want_float(c, i));
        if (t->rank != 1 || t->dims[0] != x->dims[1])
            return gr_fail(c->ctx, GR_ERR_SHAPE, "%s is %s, expected [%lld], one for each channel", names[i],
                           gri_tensor_text(t), (long long)x->dims[1]);
    }
    return GR_OK;
}

static gr_status group_norm_shape(gri_call *c) {
    static const char *const names[] = {"x", "weight", "bias"};
    GR_TRY(group_norm_check(c, 0, names));
    c->spec[0] = gri_spec_of(c->in[0]);
    return GR_OK;
}

static void group_norm_begin(const gri_call *c, int x_at, group_norm_job *j) {
    const gri_group_norm_attrs *a = c->attrs;
    const gr_tensor *x = c->in[x_at];
    j->n = x->dims[0];
    j->groups = a->num_groups;
    j->channels = x->dims[1] / a->num_groups;
    j->places = gri_product(x->rank - 2, x->dims + 2);
    j->m = j->channels * j->places;
    j->eps = a->eps;
    j->x = group_norm_data(x);
    j->weight = group_norm_data(c->n_in > x_at + 1 ? c->in[x_at + 1] : NULL);
    j->stream = gri_streams(c->out[0], j->places);
}

/* ---- forward ---- */

static void group_norm_row(const group_norm_job *j, gri_standard s, int64_t group, const real *x, real *y) {
    _Alignas(64) real buffer[GRI_STREAM_ROW];
    for (int64_t k = 0; k < j->channels; k++, x += j->places, y += j->places) {
        int64_t c = group * j->channels + k;
        real weight = j->weight ? j->weight[c] : 1, bias = j->bias ? j->bias[c] : 0, *to = j->stream ? buffer : y;
#pragma omp simd
        for (int64_t i = 0; i < j->places; i++) to[i] = gri_standardised(s, x[i]) * weight + bias;
        if (j->stream) gri_stream(y, buffer, j->places);
    }
}

static void group_norm_rows(void *arg, int64_t from, int64_t to) {
    const group_norm_job *j = arg;
    for (int64_t first = from; first < to; first += GRI_STANDARD_ROWS) {
        int64_t rows = to - first < GRI_STANDARD_ROWS ? to - first : GRI_STANDARD_ROWS;
        const real *x[GRI_STANDARD_ROWS];
        gri_standard s[GRI_STANDARD_ROWS];
        gri_standard_rows(j->x, j->m, first, rows, x);
        gri_standard_of(j->m, x, j->eps, s);
        for (int64_t r = 0; r < rows; r++)
            group_norm_row(j, s[r], (first + r) % j->groups, x[r], j->y + (first + r) * j->m);
    }
    if (j->stream) gri_stream_end();
}

static gr_status group_norm_kernel(gri_call *c) {
    group_norm_job j = {.y = group_norm_data(c->out[0])};
    if (c->out[0]->numel == 0) return GR_OK;
    group_norm_begin(c, 0, &j);
    j.bias = group_norm_data(c->n_in > 2 ? c->in[2] : NULL);
    gri_rows(c->ctx, j.n * j.groups, j.m / 3 + 5 * j.channels + 20, group_norm_rows, &j);
    return gri_poll(c->ctx);
}

static gr_status group_norm_forward(gri_call *c) { return gri_dense(c, group_norm_kernel); }
GR_KERNEL(group_norm);

static gr_status group_norm_rule(gri_grad *g) {
    static const int to[] = {0, 1, 2};
    gr_tensor *in[] = {g->dy[0], g->in[0], g->n_in > 1 ? g->in[1] : NULL};
    return gri_emit_many(g, to, &gri_op_group_norm_backward, 3, in, g->attrs);
}

static const gr_attr group_norm_schema[] = {
    {"num_groups", GR_ATTR_INT, offsetof(gri_group_norm_attrs, num_groups), .required = true, .min = 1,
     .max = 1 << 30},
    {"eps", GR_ATTR_REAL, offsetof(gri_group_norm_attrs, eps), .value = 1e-5},
    GR_ATTR_END};

static const gr_case group_norm_cases[] = {
    {.in = "1,2,4 2 2", .attrs = "num_groups=2, eps=0", .give = "{{{1,3,1,3},{8,4,4,8}}}, {1,2}, {0,1}",
     .want = "{{{-1,1,-1,1},{3,-1,-1,3}}}"},
    {.in = "1,2,2", .attrs = "num_groups=1, eps=0", .give = "{{{1e6,1e6+2},{1e6+2,1e6}}}",
     .want = "{{{-1,1},{1,-1}}}"},
    {.in = "2,6,3 6 6", .attrs = "num_groups=3"},
    {.in = "2,4,3,5 4 -", .attrs = "num_groups=4"},
    {.in = "3,6 - 6", .attrs = "num_groups=2, eps=0.1"},
    {.in = "2,2,10", .attrs = "num_groups=1"},
    {0}};

GR_OP(group_norm) = {
    .info = {.name = "group_norm", .inputs = "x weight? bias?", .attrs = group_norm_schema,
             .attr_size = sizeof(gri_group_norm_attrs), .cases = group_norm_cases,
             .doc = "x [n,channels,...] with its channels in num_groups groups, each brought to mean 0 and\n"
                    "variance 1 in every sample, then scaled by weight and shifted by bias, channel by channel."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .sets_only = true,
    .shape = group_norm_shape,
    .forward = group_norm_kernels,
    .backward = group_norm_rule,
};

/* ---- its derivative as an op ---- */

static gr_status group_norm_backward_shape(gri_call *c) {
    static const char *const names[] = {"dy", "x", "weight"};
    const gr_tensor *dy = c->in[0], *x = c->in[1];
    GR_TRY(gri_want_float(c, 0));
    GR_TRY(group_norm_check(c, 1, names));
    if (!gri_same_dims(x->rank, x->dims, dy->rank, dy->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s, but x is %s", gri_tensor_text(dy), gri_tensor_text(x));
    c->spec[0] = gri_spec_of(x);
    c->spec[1] = c->spec[2] = (gri_spec){.dtype = (gr_dtype)x->dtype, .rank = 1, .dims = {x->dims[1]}};
    return GR_OK;
}

/* *a = Σ dy, *b = Σ dy x̂ over n places */
static inline void group_norm_sums(int64_t n, gri_standard s, const real *x, const real *dy, double *a, double *b) {
    *a = *b = 0;
    for (int64_t at = 0; at < n; at += GRI_STANDARD_BLOCK) {
        int64_t end = gri_standard_end(at, n);
        real sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
        for (int64_t i = at; i < end; i++) {
            sum += dy[i];
            dot += dy[i] * gri_standardised(s, x[i]);
        }
        *a += sum;
        *b += dot;
    }
}

static void group_norm_backward_row(const group_norm_job *j, int64_t row, gri_standard s) {
    _Alignas(64) real buffer[GRI_STREAM_ROW];
    const real *x = j->x + row * j->m, *dy = j->dy + row * j->m;
    const real *weight = j->weight ? j->weight + row % j->groups * j->channels : NULL;
    double *a = j->a + row * j->channels, *b = j->b + row * j->channels, sum = 0, dot = 0;
    for (int64_t k = 0; k < j->channels; k++) {
        group_norm_sums(j->places, s, x + k * j->places, dy + k * j->places, &a[k], &b[k]);
        sum += (weight ? weight[k] : 1) * a[k];
        dot += (weight ? weight[k] : 1) * b[k];
    }
    real mean = (real)(sum / (double)j->m), along = (real)(dot / (double)j->m);
    for (int64_t k = 0; j->dx && k < j->channels; k++, x += j->places, dy += j->places) {
        real w = weight ? weight[k] : 1, *dx = j->dx + row * j->m + k * j->places, *to = j->stream ? buffer : dx;
#pragma omp simd
        for (int64_t i = 0; i < j->places; i++)
            to[i] = s.rstd * ((dy[i] * w - mean) - gri_standardised(s, x[i]) * along);
        if (j->stream) gri_stream(dx, buffer, j->places);
    }
}

static void group_norm_backward_rows(void *arg, int64_t from, int64_t to) {
    const group_norm_job *j = arg;
    for (int64_t first = from; first < to; first += GRI_STANDARD_ROWS) {
        int64_t rows = to - first < GRI_STANDARD_ROWS ? to - first : GRI_STANDARD_ROWS;
        const real *x[GRI_STANDARD_ROWS];
        gri_standard s[GRI_STANDARD_ROWS];
        gri_standard_rows(j->x, j->m, first, rows, x);
        gri_standard_of(j->m, x, j->eps, s);
        for (int64_t r = 0; r < rows; r++) group_norm_backward_row(j, first + r, s[r]);
    }
    if (j->stream) gri_stream_end();
}

/* to[c] = Σ from[n,c] over the samples */
static void group_norm_join(const group_norm_job *j, const double *from, gr_tensor *to) {
    int64_t channels = j->groups * j->channels;
    for (int64_t c = 0; to && c < channels; c++) {
        double sum = 0;
        for (int64_t n = 0; n < j->n; n++) sum += from[n * channels + c];
        group_norm_data(to)[c] = (real)sum;
    }
}

static gr_status group_norm_backward_kernel(gri_call *c) {
    group_norm_job j = {.dy = group_norm_data(c->in[0]), .dx = group_norm_data(c->out[0])};
    size_t capacity;
    group_norm_begin(c, 1, &j);
    int64_t sums = j.n * j.groups * j.channels;
    size_t bytes = 2 * (size_t)sums * sizeof *j.a;
    j.a = gri_block_new(c->ctx, bytes, &capacity);
    if (!j.a) return gr_fail(c->ctx, GR_ERR_MEMORY, "no memory for %zu bytes of partial sums", bytes);
    j.b = j.a + sums;
    for (int64_t i = 0; j.m == 0 && i < 2 * sums; i++) j.a[i] = 0;
    if (j.m > 0) gri_rows(c->ctx, j.n * j.groups, j.m / 2 + 20 * j.channels + 30, group_norm_backward_rows, &j);
    group_norm_join(&j, j.b, c->out[1]);
    group_norm_join(&j, j.a, c->out[2]);
    gri_block_delete(c->ctx, j.a, capacity);
    return gri_poll(c->ctx);
}

static gr_status group_norm_backward_forward(gri_call *c) { return gri_dense(c, group_norm_backward_kernel); }
GR_KERNEL(group_norm_backward);

static gr_status group_norm_backward_compose(gri_call *c) {
    GR_TRY(group_norm_backward_shape(c));
    const gri_group_norm_attrs *a = c->attrs;
    const gri_spec *x = &c->spec[0];
    int64_t places = gri_product(x->rank - 2, x->dims + 2);
    gri_standard_views w = {.eps = a->eps};
    w.rows = x->dims[0] * a->num_groups;
    w.n = x->dims[1] / a->num_groups * places;
    w.whole = (gr_dims){.n = 3, .v = {x->dims[0], x->dims[1], places}};
    w.over = (gr_dims){.n = 2, .v = {0, 2}};
    w.weight = (gr_dims){.n = 2, .v = {x->dims[1], 1}};
    return gri_standard_compose(c, &w);
}

static const gr_case group_norm_backward_cases[] = {
    {.in = "1,4 1,4 4", .attrs = "num_groups=1, eps=0", .give = "{{1,0,0,0}}, {{0,2,0,2}}, {2,1,1,1}",
     .want = "{{1,0,-1,0}}, {-1,0,0,0}, {1,0,0,0}"},
    {.in = "2,6,3 2,6,3 6", .attrs = "num_groups=2"},
    {.in = "5,4,2,2 5,4,2,2 -", .attrs = "num_groups=4, eps=0.1"},
    {0}};

GR_OP(group_norm_backward) = {
    .info = {.name = "group_norm_backward", .inputs = "dy x weight?", .attrs = group_norm_schema,
             .attr_size = sizeof(gri_group_norm_attrs), .hidden = true, .cases = group_norm_backward_cases,
             .doc = "The gradients of group_norm's x, weight and bias"},
    .n_out = 3,
    .sets_only = true,
    .shape = group_norm_backward_shape,
    .forward = group_norm_backward_kernels,
    .compose = group_norm_backward_compose,
};
