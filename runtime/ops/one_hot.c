/* y[…, c] = 1 where c is the class, else 0: classes[…] → y[…, num_classes], i64. No derivative. */
#include <string.h>

#include "copy.h"
#include "index.h"
#include "rows.h"

typedef struct one_hot_attrs { int64_t num_classes; } one_hot_attrs;

/* *out (+1) = the classes as i64, row-major. */
static gr_status one_hot_classes(gri_call *c, gr_tensor **out) {
    gri_spec spec = gri_spec_of(c->in[0]);
    spec.dtype = GR_I64;
    GR_TRY(gri_tensor_like_spec(c->ctx, &spec, out));
    gr_status s = gri_copy(c->ctx, *out, c->in[0], GRI_SET);
    if (s != GR_OK) gr_release(*out);
    return s;
}

/* Every class must be one of n (-1: as many as the largest says); *out = how many there are. */
static gr_status one_hot_count(gri_call *c, const gr_tensor *classes, int64_t n, int64_t *out) {
    const int64_t *v = gri_index_data(classes), base = c->ctx->index_base;
    int64_t most = 0, at[GR_MAX_RANK];
    for (int64_t i = 0; i < classes->numel; i++)
        if (v[i] >= most) most = v[i];
    *out = n < 0 ? (most < INT64_MAX ? most + 1 : most) - base : n;
    for (int64_t i = 0; i < classes->numel; i++) {
        if (v[i] >= base && v[i] - base < *out) continue;
        for (int64_t d = classes->rank - 1, rest = i; d >= 0; rest /= classes->dims[d--])
            at[d] = rest % classes->dims[d] + base;
        return gr_fail(c->ctx, GR_ERR_INDEX, "class %lld at %s is outside %lld to %lld%s", (long long)v[i],
                       gri_dims_text(classes->rank, at), (long long)base, (long long)(*out - 1 + base),
                       v[i] == 0 && base == 1 ? "; classes count from 1, 0-based labels need + 1" : "");
    }
    return GR_OK;
}

static gr_status one_hot_shape(gri_call *c) {
    const one_hot_attrs *a = c->attrs;
    gr_tensor *x = c->in[0], *classes;
    gri_spec *s = &c->spec[0];
    int64_t n;
    if (gri_is_float(x))
        return gr_fail(c->ctx, GR_ERR_DTYPE, "the classes are %s, expected i64 or u8; convert them with :to(\"i64\")",
                       gri_tensor_text(x));
    if (x->rank == GR_MAX_RANK)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "the classes %s have all the %d dimensions a tensor can have",
                       gri_tensor_text(x), GR_MAX_RANK);
    if (a->num_classes == 0 || a->num_classes < -1)
        return gr_fail(c->ctx, GR_ERR_ARG, "num_classes is %lld, expected at least 1, or -1: as many as there are",
                       (long long)a->num_classes);
    if (a->num_classes < 0 && x->numel == 0)
        return gr_fail(c->ctx, GR_ERR_ARG, "num_classes is not given, and there are no classes in %s to count",
                       gri_tensor_text(x));
    GR_TRY(one_hot_classes(c, &classes));
    *s = gri_spec_of(x);
    s->dtype = GR_I64;
    gr_status status = one_hot_count(c, classes, a->num_classes, &s->dims[s->rank++]);
    gr_release(classes);
    GR_TRY(status);
    return gri_numel(c->ctx, s->dtype, s->rank, s->dims, &n);
}

typedef struct one_hot_job {
    const int64_t *classes;
    int64_t *y, n, base;
} one_hot_job;

static void one_hot_rows(void *arg, int64_t from, int64_t to) {
    const one_hot_job *j = arg;
    memset(j->y + from * j->n, 0, (size_t)((to - from) * j->n) * sizeof *j->y);
    for (int64_t r = from; r < to; r++) j->y[r * j->n + j->classes[r] - j->base] = 1;
}

static gr_status one_hot_kernel(gri_call *c) {
    gr_tensor *y = c->out[0], *classes;
    int64_t n = y->dims[y->rank - 1];
    GR_TRY(one_hot_classes(c, &classes));
    one_hot_job j = {gri_index_data(classes), (int64_t *)(void *)y->data, n, c->ctx->index_base};
    gri_rows(c->ctx, classes->numel, n / 4 + 1, one_hot_rows, &j);
    gr_release(classes);
    return GR_OK;
}

static gr_status one_hot_forward(gri_call *c) { return gri_dense(c, one_hot_kernel); }
GR_KERNEL(one_hot);

static const gr_attr one_hot_schema[] = {
    {"num_classes", GR_ATTR_INT, offsetof(one_hot_attrs, num_classes), .value = -1}, GR_ATTR_END};

static const gr_case one_hot_cases[] = {
    {.in = "i64:3", .attrs = "num_classes=3", .give = "{2,1,3}", .want = "{{0,1,0},{1,0,0},{0,0,1}}", .no_grad = true},
    {.in = "u8:2,1", .give = "{{2},{1}}", .want = "{{{0,1}},{{1,0}}}", .no_grad = true},
    {.in = "i64:()", .attrs = "num_classes=2", .give = "1", .want = "{1,0}", .no_grad = true},
    {.in = "i64(1..7):5,4", .attrs = "num_classes=7", .no_grad = true},
    {0}};

GR_OP(one_hot) = {
    .info = {.name = "one_hot", .inputs = "classes", .attrs = one_hot_schema, .attr_size = sizeof(one_hot_attrs),
             .cases = one_hot_cases,
             .doc = "A row of num_classes numbers for every class, counted from 1: 1 at the class, else 0; i64. Without\n"
                    "num_classes, the largest class there is."},
    .sets_only = true,
    .shape = one_hot_shape,
    .forward = one_hot_kernels,
};
