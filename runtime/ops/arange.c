/* Numbers in equal steps, without inputs and without derivatives:
 *
 *   arange    y[i] = start + i step for i = 0, 1, … while y < stop (y > stop where step is negative), as PyTorch's
 *   range     the same while y <= stop, as the loop `for i = start, stop, step` and Torch7's range
 *   linspace  y[i] = start + i (stop - start) / (steps - 1) for i = 0 … steps - 1, from both ends to the middle
 *
 * How many there are follows from (stop - start) / step in double. Numbers are computed in double and rounded once;
 * whole ones as i64, exactly. The file is compiled without fused multiply-add: the same numbers on every CPU. */
#include <math.h>

#include "op.h"
#include "rows.h"
#include "vmath.h"

#define ARANGE_BLOCK 1024

typedef struct arange_job {
    double start, stop, step;
    int64_t n;
    char *y;
    gr_dtype dtype;
} arange_job;

/* y[i] = at + (i - origin) step for i = from .. to-1. */
static void arange_steps(real *y, int64_t from, int64_t to, double at, int64_t origin, double step) {
    for (; from < to; from += ARANGE_BLOCK) { /* counters of 32 bits have vector conversions */
        int n = to - from < ARANGE_BLOCK ? (int)(to - from) : ARANGE_BLOCK;
        const double first = (double)(from - origin);
#pragma omp simd
        for (int i = 0; i < n; i++) y[from + i] = (real)(at + (first + i) * step);
    }
}

static void arange_run(void *arg, int64_t from, int64_t to) {
    const arange_job *a = arg;
    if (a->dtype <= GR_F64) {
        arange_steps((real *)(void *)a->y, from, to, a->start, 0, a->step);
        return;
    }
    const int64_t start = (int64_t)a->start, step = (int64_t)a->step;
    if (a->dtype == GR_I64)
        for (int64_t i = from; i < to; i++) ((int64_t *)(void *)a->y)[i] = start + i * step;
    else
        for (int64_t i = from; i < to; i++) ((uint8_t *)a->y)[i] = (uint8_t)(start + i * step);
}

/* ---- arange and range ----------------------------------------------------------------------------------- */

/* With stop alone, as in arange(5), stop comes first. */
static void arange_bounds(const gri_range_attrs *a, double *start, double *stop) {
    bool one = isnan(a->stop);
    *start = one ? 0 : a->start;
    *stop = one ? a->start : a->stop;
}

static bool arange_whole(double v) { return v == trunc(v) && fabs(v) <= 0x1p53; }

static gr_status arange_shape_of(gri_call *c, double start, double stop, double step, int64_t dtype, bool inclusive) {
    if (!isfinite(start) || !isfinite(stop) || !isfinite(step) || step == 0)
        return gr_fail(c->ctx, GR_ERR_ARG, "start = %g, stop = %g, step = %g: expected finite numbers and a step that "
                       "is not 0", start, stop, step);
    double steps = (stop - start) / step, count = inclusive ? floor(steps) + 1 : ceil(steps);
    if (count < 0) count = 0;
    if (!(count <= 0x1p53))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "start = %g, stop = %g, step = %g: more than 2^53 numbers", start, stop,
                       step);
    if (dtype < 0)
        dtype = arange_whole(start) && arange_whole(stop) && arange_whole(step) ? GR_I64 : c->ctx->default_dtype;
    gr_dims shape = {.n = 1, .v = {(int64_t)count}};
    GR_TRY(gri_spec_given(c->ctx, &shape, dtype, &c->spec[0]));
    if (count == 0) return GR_OK;
    GR_TRY(gri_check_value(c->ctx, (gr_dtype)dtype, start));
    GR_TRY(gri_check_value(c->ctx, dtype == GR_U8 ? GR_I64 : (gr_dtype)dtype, step));
    return gri_check_value(c->ctx, (gr_dtype)dtype, dtype > GR_F64 ? start + (count - 1) * step : start);
}

static gr_status arange_kernel(gri_call *c) {
    const gri_range_attrs *a = c->attrs;
    gr_tensor *y = c->out[0];
    arange_job j = {.step = a->step, .y = y->data, .dtype = (gr_dtype)y->dtype};
    arange_bounds(a, &j.start, &j.stop);
    gri_rows(c->ctx, y->numel, 1, arange_run, &j);
    return GR_OK;
}

static gr_status arange_shape(gri_call *c) {
    const gri_range_attrs *a = c->attrs;
    double start, stop;
    arange_bounds(a, &start, &stop);
    if (a->step != 0 && (stop - start) / a->step < 0)
        return gr_fail(c->ctx, GR_ERR_ARG, "steps of %g do not lead from %g to %g", a->step, start, stop);
    return arange_shape_of(c, start, stop, a->step, a->dtype, false);
}

static gr_status arange_forward(gri_call *c) { return gri_dense(c, arange_kernel); }
GR_KERNEL(arange);

static const gr_attr arange_schema[] = {
    {"start", GR_ATTR_REAL, offsetof(gri_range_attrs, start), .required = true},
    {"stop", GR_ATTR_REAL, offsetof(gri_range_attrs, stop), .value = NAN},
    {"step", GR_ATTR_REAL, offsetof(gri_range_attrs, step), .value = 1},
    {"dtype", GR_ATTR_DTYPE, offsetof(gri_range_attrs, dtype), .value = -1},
    GR_ATTR_END};

static const gr_case arange_cases[] = {
    {.in = "", .attrs = "start=5", .want = "{0,1,2,3,4}", .no_grad = true},
    {.in = "", .attrs = "start=1, stop=6, step=2", .want = "{1,3,5}", .no_grad = true},
    {.in = "", .attrs = "start=1, stop=5, step=2", .want = "{1,3}", .no_grad = true},
    {.in = "", .attrs = "start=1, stop=0, step=-0.25", .want = "{1,0.75,0.5,0.25}", .no_grad = true},
    {.in = "", .attrs = "start=3, stop=3", .want = "{}", .no_grad = true},
    {.in = "", .attrs = "start=250, stop=256, dtype='u8'", .want = "{250,251,252,253,254,255}", .no_grad = true},
    {.in = "", .attrs = "start=-3, stop=2000, step=0.1, dtype='f32'", .no_grad = true},
    {0}};

GR_OP(arange) = {
    .info = {.name = "arange", .inputs = "", .attrs = arange_schema, .attr_size = sizeof(gri_range_attrs),
             .cases = arange_cases,
             .doc = "start, start + step, … without stop itself, as in PyTorch; arange(n) is 0 to n - 1. Whole numbers\n"
                    "give i64, others floats, unless dtype is given. See range for Lua's way."},
    .sets_only = true,
    .shape = arange_shape,
    .forward = arange_kernels,
};

static gr_status range_shape(gri_call *c) {
    const gri_range_attrs *a = c->attrs;
    return arange_shape_of(c, a->start, a->stop, a->step, a->dtype, true);
}

static gr_status range_forward(gri_call *c) { return gri_dense(c, arange_kernel); }
GR_KERNEL(range);

static const gr_attr range_schema[] = {
    {"start", GR_ATTR_REAL, offsetof(gri_range_attrs, start), .required = true},
    {"stop", GR_ATTR_REAL, offsetof(gri_range_attrs, stop), .required = true},
    {"step", GR_ATTR_REAL, offsetof(gri_range_attrs, step), .value = 1},
    {"dtype", GR_ATTR_DTYPE, offsetof(gri_range_attrs, dtype), .value = -1},
    GR_ATTR_END};

static const gr_case range_cases[] = {
    {.in = "", .attrs = "start=1, stop=5", .want = "{1,2,3,4,5}", .no_grad = true},
    {.in = "", .attrs = "start=1, stop=6, step=2", .want = "{1,3,5}", .no_grad = true},
    {.in = "", .attrs = "start=3, stop=1, step=-1, dtype='f64'", .want = "{3,2,1}", .no_grad = true},
    {.in = "", .attrs = "start=0, stop=1, step=0.25", .want = "{0,0.25,0.5,0.75,1}", .no_grad = true},
    {.in = "", .attrs = "start=1, stop=0", .want = "{}", .no_grad = true},
    {.in = "", .attrs = "start=1, stop=3000", .no_grad = true},
    {0}};

GR_OP(range) = {
    .info = {.name = "range", .inputs = "", .attrs = range_schema, .attr_size = sizeof(gri_range_attrs),
             .cases = range_cases,
             .doc = "start, start + step, … up to and including stop: the numbers of `for i = start, stop, step`. None\n"
                    "where that loop runs zero times. Whole numbers give i64, others floats, unless dtype is given."},
    .sets_only = true,
    .shape = range_shape,
    .forward = range_kernels,
};

/* ---- linspace ------------------------------------------------------------------------------------------- */

typedef struct linspace_attrs { double start, stop; int64_t steps, dtype; } linspace_attrs;

static gr_status linspace_shape(gri_call *c) {
    const linspace_attrs *a = c->attrs;
    gr_dims shape = {.n = 1, .v = {a->steps}};
    if (!isfinite(a->stop - a->start))
        return gr_fail(c->ctx, GR_ERR_ARG, "start = %g, stop = %g: expected finite numbers, also stop - start", a->start,
                       a->stop);
    GR_TRY(gri_spec_given(c->ctx, &shape, a->dtype, &c->spec[0]));
    if (a->dtype > GR_F64)
        return gr_fail(c->ctx, GR_ERR_DTYPE, "gives f32 or f64, not %s; see range", gr_dtype_name((gr_dtype)a->dtype));
    return GR_OK;
}

/* From both ends to the middle. */
static void linspace_run(void *arg, int64_t from, int64_t to) {
    const arange_job *a = arg;
    int64_t middle = a->n / 2 < from ? from : a->n / 2 < to ? a->n / 2 : to;
    arange_steps((real *)(void *)a->y, from, middle, a->start, 0, a->step);
    arange_steps((real *)(void *)a->y, middle, to, a->stop, a->n - 1, a->step);
}

static gr_status linspace_kernel(gri_call *c) {
    const linspace_attrs *a = c->attrs;
    gr_tensor *y = c->out[0];
    arange_job j = {.start = a->start, .stop = a->steps > 1 ? a->stop : a->start, .n = a->steps, .y = y->data};
    j.step = a->steps > 1 ? (a->stop - a->start) / (double)(a->steps - 1) : 0;
    gri_rows(c->ctx, y->numel, 1, linspace_run, &j);
    return GR_OK;
}

static gr_status linspace_forward(gri_call *c) { return gri_dense(c, linspace_kernel); }
GR_KERNEL(linspace);

static const gr_attr linspace_schema[] = {
    {"start", GR_ATTR_REAL, offsetof(linspace_attrs, start), .required = true},
    {"stop", GR_ATTR_REAL, offsetof(linspace_attrs, stop), .required = true},
    {"steps", GR_ATTR_INT, offsetof(linspace_attrs, steps), .required = true, .min = 0, .max = 0x1p53},
    {"dtype", GR_ATTR_DTYPE, offsetof(linspace_attrs, dtype), .value = GR_F32},
    GR_ATTR_END};

static const gr_case linspace_cases[] = {
    {.in = "", .attrs = "start=0, stop=1, steps=5", .want = "{0,0.25,0.5,0.75,1}", .no_grad = true},
    {.in = "", .attrs = "start=3, stop=-3, steps=4", .want = "{3,1,-1,-3}", .no_grad = true},
    {.in = "", .attrs = "start=2, stop=5, steps=1", .want = "{2}", .no_grad = true},
    {.in = "", .attrs = "start=2, stop=5, steps=0", .want = "{}", .no_grad = true},
    {.in = "", .attrs = "start=-1, stop=1, steps=1001", .no_grad = true},
    {0}};

GR_OP(linspace) = {
    .info = {.name = "linspace", .inputs = "", .attrs = linspace_schema, .attr_size = sizeof(linspace_attrs),
             .cases = linspace_cases,
             .doc = "steps numbers from start to stop, both included, equally far apart."},
    .sets_only = true,
    .shape = linspace_shape,
    .forward = linspace_kernels,
};
