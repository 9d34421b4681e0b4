/* y[n,m] = 1 where row and column are the same, else 0. No inputs, no derivative. */
#include <string.h>

#include "op.h"
#include "rows.h"

typedef struct eye_attrs { int64_t n, m, dtype; } eye_attrs;

static gr_status eye_shape(gri_call *c) {
    const eye_attrs *a = c->attrs;
    gr_dims shape = {.n = 2, .v = {a->n, a->m < 0 ? a->n : a->m}};
    return gri_spec_given(c->ctx, &shape, a->dtype, &c->spec[0]);
}

typedef struct eye_job {
    char *y;
    const void *one;
    int64_t columns, size;
} eye_job;

static void eye_rows(void *arg, int64_t from, int64_t to) {
    const eye_job *j = arg;
    memset(j->y + from * j->columns * j->size, 0, (size_t)((to - from) * j->columns * j->size));
    for (int64_t r = from; r < to && r < j->columns; r++)
        memcpy(j->y + (r * j->columns + r) * j->size, j->one, (size_t)j->size);
}

static gr_status eye_kernel(gri_call *c) {
    gr_tensor *y = c->out[0], *one;
    GR_TRY(gr_tensor_scalar(c->ctx, (gr_dtype)y->dtype, 1, &one));
    eye_job j = {y->data, one->data, y->dims[1], (int64_t)gri_size((gr_dtype)y->dtype)};
    gri_rows(c->ctx, y->dims[0], j.columns * j.size / 64 + 1, eye_rows, &j);
    gr_release(one);
    return GR_OK;
}

static gr_status eye_forward(gri_call *c) { return gri_dense(c, eye_kernel); }
GR_KERNEL(eye);

static const gr_attr eye_schema[] = {
    {"n", GR_ATTR_INT, offsetof(eye_attrs, n), .required = true, .min = 0, .max = 0x1p53},
    {"m", GR_ATTR_INT, offsetof(eye_attrs, m), .value = -1, .min = -1, .max = 0x1p53},
    {"dtype", GR_ATTR_DTYPE, offsetof(eye_attrs, dtype), .value = GR_F32},
    GR_ATTR_END};

static const gr_case eye_cases[] = {
    {.in = "", .attrs = "n=2", .want = "{{1,0},{0,1}}", .no_grad = true},
    {.in = "", .attrs = "n=2, m=3, dtype='i64'", .want = "{{1,0,0},{0,1,0}}", .no_grad = true},
    {.in = "", .attrs = "n=3, m=2", .want = "{{1,0},{0,1},{0,0}}", .no_grad = true},
    {.in = "", .attrs = "n=3, m=0", .no_grad = true},
    {0}};

GR_OP(eye) = {
    .info = {.name = "eye", .inputs = "", .attrs = eye_schema, .attr_size = sizeof(eye_attrs), .cases = eye_cases,
             .doc = "The matrix of n rows and m columns (n if m is not given) with ones on the diagonal, else zeros."},
    .sets_only = true,
    .shape = eye_shape,
    .forward = eye_kernels,
};
