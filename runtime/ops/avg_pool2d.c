/* y = the mean of each window:  x[n,c,h,w] → y[n,c,oh,ow]; avg_pool1d: x[n,c,l] → y[n,c,ol], an image of one row
 *
 *     y[r,q] = Σ x / (rows(r) columns(q)) over the window's part inside the image
 *
 * where rows and columns count also the padding (never what a ceil_mode window has beyond it), unless
 * count_include_pad is false. adaptive_avg_pool2d has oh and ow given instead of windows: row r covers rows
 * ⌊r h / oh⌋ to ⌈(r + 1) h / oh⌉ - 1, columns likewise.
 *
 * y is linear in x: dx is dy / (rows columns) spread over its window (avg_pool2d_backward), whose own derivative is
 * the pooling again. Nothing is kept. A row of windows is added up down its columns first, then along, in double;
 * pieces are planes, and windows that overlap add up in a fixed order. */
#include "iter.h"
#include "parallel.h"
#include "pool.h"
#include "scratch.h"
#include "vmath.h"

#include <string.h>

#define AVG_POOL2D_PIECE 16384 /* elements a piece should see, at least */

typedef struct avg_pool2d_job {
    gri_window w;
    const gri_pool_attrs *a;
    int64_t planes, part; /* in all and in a piece */
    bool add;
    real *x, *y;
    gri_scratch scratch; /* a row of the input, one of the output, and columns(q) */
} avg_pool2d_job;

/* Positions from .. to - 1 of the input are in the window of output `at`, and count towards its mean as `count`. */
typedef struct avg_pool2d_range { int64_t from, to, count; } avg_pool2d_range;

static inline avg_pool2d_range avg_pool2d_range_of(const avg_pool2d_job *j, int axis, int64_t at) {
    const gri_window *w = &j->w;
    const int64_t in = w->in[axis];
    avg_pool2d_range r;
    if (gri_pool_adaptive(j->a)) {
        r.from = gri_pool_from(in, w->out[axis], at);
        r.to = gri_pool_to(in, w->out[axis], at);
        r.count = r.to - r.from;
        return r;
    }
    const int64_t start = at * w->stride[axis] - w->padding[axis], end = start + w->kernel[axis];
    const int64_t edge = in + w->padding[axis];
    r.from = start < 0 ? 0 : start;
    r.to = end < in ? end : in;
    r.count = j->a->count_include_pad ? (end < edge ? end : edge) - start : r.to - r.from;
    return r;
}

/* ---- along a row ---- */

/* y[q] += Σ x over the columns of window q, or, back, the other way round. */
static inline void avg_pool2d_taps(const gri_window *w, int64_t step, double *x, double *y, bool back) {
    for (int64_t tap = 0; tap < w->kernel[1]; tap++) {
        int64_t lo, hi;
        gri_window_span(w, 1, tap - w->padding[1], &lo, &hi);
        double *from = x + tap - w->padding[1];
        if (back) {
#pragma omp simd
            for (int64_t q = lo; q < hi; q++) from[q * step] += y[q];
        } else {
#pragma omp simd
            for (int64_t q = lo; q < hi; q++) y[q] += from[q * step];
        }
    }
}

static void avg_pool2d_along(const avg_pool2d_job *j, double *x, double *y, bool back) {
    const gri_window *w = &j->w;
    if (!gri_pool_adaptive(j->a)) {
        if (w->stride[1] == 1) avg_pool2d_taps(w, 1, x, y, back);
        else if (w->stride[1] == 2) avg_pool2d_taps(w, 2, x, y, back);
        else avg_pool2d_taps(w, w->stride[1], x, y, back);
        return;
    }
    for (int64_t q = 0; q < w->out[1]; q++) {
        const avg_pool2d_range c = avg_pool2d_range_of(j, 1, q);
        for (int64_t i = c.from; i < c.to; i++)
            if (back) x[i] += y[q];
            else y[q] += x[i];
    }
}

/* ---- planes ---- */

/* The buffers of a piece: in[w], out[ow], and columns[ow], which is filled. */
typedef struct avg_pool2d_rows { double *in, *out, *columns; } avg_pool2d_rows;

static avg_pool2d_rows avg_pool2d_claim(avg_pool2d_job *j) {
    const int64_t width = j->w.in[1], out = j->w.out[1];
    avg_pool2d_rows b = {.in = gri_scratch_claim(&j->scratch)};
    b.out = b.in + width;
    b.columns = b.out + out;
    for (int64_t q = 0; q < out; q++) b.columns[q] = (double)avg_pool2d_range_of(j, 1, q).count;
    return b;
}

static inline int64_t avg_pool2d_last(const avg_pool2d_job *j, int64_t piece) {
    return (piece + 1) * j->part < j->planes ? (piece + 1) * j->part : j->planes;
}

static void avg_pool2d_row(const avg_pool2d_job *j, const avg_pool2d_rows *b, const real *x, int64_t r, real *y) {
    const int64_t width = j->w.in[1], out = j->w.out[1];
    const avg_pool2d_range rows = avg_pool2d_range_of(j, 0, r);
    const double count = (double)rows.count;
    memset(b->in, 0, (size_t)(width + out) * sizeof *b->in);
    for (int64_t i = rows.from; i < rows.to; i++) {
        const real *from = x + i * width;
#pragma omp simd
        for (int64_t q = 0; q < width; q++) b->in[q] += from[q];
    }
    avg_pool2d_along(j, b->in, b->out, false);
#pragma omp simd
    for (int64_t q = 0; q < out; q++) y[q] = (real)(b->out[q] / (count * b->columns[q]));
}

static void avg_pool2d_piece(void *arg, int64_t piece) {
    avg_pool2d_job *j = arg;
    const gri_window *w = &j->w;
    const avg_pool2d_rows b = avg_pool2d_claim(j);
    for (int64_t plane = piece * j->part; plane < avg_pool2d_last(j, piece); plane++) {
        const real *x = j->x + plane * w->in[0] * w->in[1];
        real *y = j->y + plane * w->out[0] * w->out[1];
        for (int64_t r = 0; r < w->out[0]; r++) avg_pool2d_row(j, &b, x, r, y + r * w->out[1]);
    }
    gri_scratch_return(&j->scratch, b.in);
}

/* Here x is dx, y is dy. */
static void avg_pool2d_row_back(const avg_pool2d_job *j, const avg_pool2d_rows *b, real *x, int64_t r,
                                const real *y) {
    const int64_t width = j->w.in[1], out = j->w.out[1];
    const avg_pool2d_range rows = avg_pool2d_range_of(j, 0, r);
    const double count = (double)rows.count;
    memset(b->in, 0, (size_t)width * sizeof *b->in);
#pragma omp simd
    for (int64_t q = 0; q < out; q++) b->out[q] = y[q] / (count * b->columns[q]);
    avg_pool2d_along(j, b->in, b->out, true);
    for (int64_t i = rows.from; i < rows.to; i++) {
        real *to = x + i * width;
#pragma omp simd
        for (int64_t q = 0; q < width; q++) to[q] += (real)b->in[q];
    }
}

static void avg_pool2d_piece_back(void *arg, int64_t piece) {
    avg_pool2d_job *j = arg;
    const gri_window *w = &j->w;
    const avg_pool2d_rows b = avg_pool2d_claim(j);
    for (int64_t plane = piece * j->part; plane < avg_pool2d_last(j, piece); plane++) {
        real *x = j->x + plane * w->in[0] * w->in[1];
        const real *y = j->y + plane * w->out[0] * w->out[1];
        if (!j->add) memset(x, 0, (size_t)(w->in[0] * w->in[1]) * sizeof *x);
        for (int64_t r = 0; r < w->out[0]; r++) avg_pool2d_row_back(j, &b, x, r, y + r * w->out[1]);
    }
    gri_scratch_return(&j->scratch, b.in);
}

static gr_status avg_pool2d_planes(gri_call *c, const gr_tensor *x, const gr_tensor *y, gri_piece_fn fn) {
    avg_pool2d_job j = {.a = c->attrs, .planes = x->dims[0] * x->dims[1], .add = c->mode == GRI_ADD,
                        .x = (real *)x->data, .y = (real *)y->data};
    GR_TRY(gri_pool_fit(c->ctx, c->attrs, x->rank, x->dims, &j.w));
    const int64_t in = j.w.in[0] * j.w.in[1], out = j.w.out[0] * j.w.out[1];
    j.part = AVG_POOL2D_PIECE / ((in > out ? in : out) + 1) + 1;
    GR_TRY(gri_scratch_open(c->ctx, &j.scratch, (size_t)(j.w.in[1] + 2 * j.w.out[1]) * sizeof(double)));
    gri_parallel(c->ctx, (j.planes + j.part - 1) / j.part, fn, &j);
    gri_scratch_close(c->ctx, &j.scratch);
    return gri_poll(c->ctx);
}

static gr_status avg_pool2d_kernel(gri_call *c) {
    return avg_pool2d_planes(c, c->in[0], c->out[0], avg_pool2d_piece);
}

static gr_status avg_pool2d_forward(gri_call *c) { return gri_dense(c, avg_pool2d_kernel); }
GR_KERNEL(avg_pool2d);

/* ---- avg_pool2d, avg_pool1d, adaptive_avg_pool2d ---- */

static gr_status avg_pool2d_shape(gri_call *c) { return gri_pool_shape(c, 4); }
static gr_status avg_pool1d_shape(gri_call *c) { return gri_pool_shape(c, 3); }

static gr_status avg_pool2d_rule(gri_grad *g) {
    gri_pool_attrs a = *(const gri_pool_attrs *)g->attrs;
    const gri_spec *x = gri_input_spec(g, 0);
    if (!x) return GR_OK;
    a.shape.n = x->rank;
    memcpy(a.shape.v, x->dims, (size_t)x->rank * sizeof *x->dims);
    return gri_emit(g, 0, &gri_op_avg_pool2d_backward, 1, g->dy, &a);
}

#define AVG_POOL2D_SIZES(kind, at) /* a stride of 0: the kernel's size */                                            \
    {"kernel_size", kind, offsetof(gri_pool_attrs, kernel_size at), .required = true, .min = 1, .max = 1 << 30},     \
    {"stride", kind, offsetof(gri_pool_attrs, stride at), .max = 1 << 30},                                           \
    {"padding", kind, offsetof(gri_pool_attrs, padding at), .min = 0, .max = 1 << 30}
#define AVG_POOL2D_MODES                                                                  \
    {"ceil_mode", GR_ATTR_BOOL, offsetof(gri_pool_attrs, ceil_mode), .value = 0},         \
    {"count_include_pad", GR_ATTR_BOOL, offsetof(gri_pool_attrs, count_include_pad), .value = 1}
static const gr_attr avg_pool2d_schema[] = {AVG_POOL2D_SIZES(GR_ATTR_PAIR, ), AVG_POOL2D_MODES, GR_ATTR_END};

static const gr_case avg_pool2d_cases[] = {
    {.in = "1,1,2,4", .attrs = "kernel_size=2", .give = "{{{{1,5,2,1},{4,2,0,9}}}}", .want = "{{{{3,3}}}}"},
    {.in = "1,1,2,2", .attrs = "kernel_size=3, stride=1, padding=1", .give = "{{{{9,18},{27,36}}}}",
     .want = "{{{{10,10},{10,10}}}}"},
    {.in = "1,1,2,2", .attrs = "kernel_size=3, stride=1, padding=1, count_include_pad=false",
     .give = "{{{{9,18},{27,36}}}}", .want = "{{{{22.5,22.5},{22.5,22.5}}}}"},
    {.in = "1,1,1,2", .attrs = "kernel_size={1,3}, ceil_mode=true", .give = "{{{{2,4}}}}", .want = "{{{{3}}}}"},
    {.in = "1,1,1,3", .attrs = "kernel_size={1,2}, ceil_mode=true", .give = "{{{{2,4,7}}}}", .want = "{{{{3,7}}}}"},
    {.in = "2,3,6,6", .attrs = "kernel_size=2"},
    {.in = "2,2,7,8", .attrs = "kernel_size={3,2}, stride={2,3}, padding=1, ceil_mode=true"},
    {.in = "1,2,9,9", .attrs = "kernel_size=3, stride=1, padding=1, count_include_pad=false"},
    {.in = "0,2,4,4", .attrs = "kernel_size=2"},
    {0}};

GR_OP(avg_pool2d) = {
    .info = {.name = "avg_pool2d", .inputs = "x", .attrs = avg_pool2d_schema, .attr_size = sizeof(gri_pool_attrs),
             .cases = avg_pool2d_cases,
             .doc = "The mean of every window of images x [n,c,h,w]. kernel_size, stride (the kernel's size if it\n"
                    "is not given) and padding are numbers or {height, width}. Zeros of the padding count unless\n"
                    "count_include_pad is false. With ceil_mode a last window that only starts inside the image\n"
                    "counts too."},
    .sets_only = true,
    .shape = avg_pool2d_shape,
    .forward = avg_pool2d_kernels,
    .backward = avg_pool2d_rule,
};

static const gr_attr avg_pool1d_schema[] = {
    AVG_POOL2D_SIZES(GR_ATTR_INT, [1]), AVG_POOL2D_MODES, GR_ATTR_END};

static const gr_case avg_pool1d_cases[] = {
    {.in = "1,2,4", .attrs = "kernel_size=2", .give = "{{{1,5,2,1},{4,2,0,9}}}", .want = "{{{3,1.5},{3,4.5}}}"},
    {.in = "2,3,9", .attrs = "kernel_size=3, stride=2, padding=1"},
    {.in = "2,2,8", .attrs = "kernel_size=3, padding=1, ceil_mode=true, count_include_pad=false"},
    {.in = "0,2,4", .attrs = "kernel_size=2"},
    {0}};

GR_OP(avg_pool1d) = {
    .info = {.name = "avg_pool1d", .inputs = "x", .attrs = avg_pool1d_schema, .attr_size = sizeof(gri_pool_attrs),
             .cases = avg_pool1d_cases,
             .doc = "The mean of every window of lines x [n,c,l]. stride is kernel_size if it is not given. Zeros\n"
                    "of the padding count unless count_include_pad is false. With ceil_mode a last window that\n"
                    "only starts inside counts too."},
    .sets_only = true,
    .shape = avg_pool1d_shape,
    .forward = avg_pool2d_kernels,
    .backward = avg_pool2d_rule,
};

static const gr_attr adaptive_avg_pool2d_schema[] = {
    {"output_size", GR_ATTR_PAIR, offsetof(gri_pool_attrs, output_size), .required = true, .min = 1, .max = 1 << 30},
    GR_ATTR_END};

static const gr_case adaptive_avg_pool2d_cases[] = {
    {.in = "1,1,3,4", .attrs = "output_size={2,1}", .give = "{{{{1,2,3,6},{5,5,5,5},{5,6,7,10}}}}",
     .want = "{{{{4},{6}}}}"},
    {.in = "2,3,4,4", .attrs = "output_size=1"},
    {.in = "2,3,7,6", .attrs = "output_size={3,4}"},
    {.in = "2,2,3,2", .attrs = "output_size={1,5}"},
    {.in = "0,2,4,4", .attrs = "output_size=2"},
    {0}};

GR_OP(adaptive_avg_pool2d) = {
    .info = {.name = "adaptive_avg_pool2d", .inputs = "x", .attrs = adaptive_avg_pool2d_schema,
             .attr_size = sizeof(gri_pool_attrs), .cases = adaptive_avg_pool2d_cases,
             .doc = "Images x [n,c,h,w] cut evenly into output_size, a number or {height, width}, parts that may\n"
                    "overlap: the mean of each."},
    .sets_only = true,
    .shape = avg_pool2d_shape,
    .forward = avg_pool2d_kernels,
    .backward = avg_pool2d_rule,
};

/* ---- avg_pool2d_backward ---- */

static gr_status avg_pool2d_backward_shape(gri_call *c) {
    const gri_pool_attrs *a = c->attrs;
    const gr_tensor *dy = c->in[0];
    const int rank = a->shape.n;
    int64_t dims[4] = {0}, n;
    gri_window w;
    GR_TRY(gri_want_float(c, 0));
    if (rank != 3 && rank != 4)
        return gr_fail(c->ctx, GR_ERR_SHAPE, "shape of the input is %s, expected 3 or 4 dimensions",
                       gri_dims_text(rank, a->shape.v));
    GR_TRY(gri_numel(c->ctx, GR_F64, rank, a->shape.v, &n));
    GR_TRY(gri_pool_fit(c->ctx, a, rank, a->shape.v, &w));
    memcpy(dims, a->shape.v, 2 * sizeof *dims);
    memcpy(dims + 2, w.out + 4 - rank, (size_t)(rank - 2) * sizeof *dims);
    if (!gri_same_dims(dy->rank, dy->dims, rank, dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "gradient is %s, expected %s", gri_tensor_text(dy),
                       gri_dims_text(rank, dims));
    c->spec[0] = (gri_spec){.dtype = (gr_dtype)dy->dtype, .rank = rank};
    memcpy(c->spec[0].dims, a->shape.v, (size_t)rank * sizeof *dims);
    return GR_OK;
}

static gr_status avg_pool2d_backward_kernel(gri_call *c) {
    return avg_pool2d_planes(c, c->out[0], c->in[0], avg_pool2d_piece_back);
}

static gr_status avg_pool2d_backward_forward(gri_call *c) { return gri_dense(c, avg_pool2d_backward_kernel); }
GR_KERNEL(avg_pool2d_backward);

static gr_status avg_pool2d_backward_rule(gri_grad *g) {
    const gri_pool_attrs *a = g->attrs;
    const gr_op *op = gri_pool_adaptive(a) ? &gri_op_adaptive_avg_pool2d
                      : a->shape.n == 3    ? &gri_op_avg_pool1d
                                           : &gri_op_avg_pool2d;
    return gri_emit(g, 0, op, 1, g->dy, a);
}

static const gr_attr avg_pool2d_backward_schema[] = {
    AVG_POOL2D_SIZES(GR_ATTR_PAIR, ), AVG_POOL2D_MODES,
    {"output_size", GR_ATTR_PAIR, offsetof(gri_pool_attrs, output_size), .min = 0, .max = 1 << 30},
    {"shape", GR_ATTR_SHAPE, offsetof(gri_pool_attrs, shape), .required = true},
    GR_ATTR_END};

static const gr_case avg_pool2d_backward_cases[] = {
    {.in = "1,1,1,2", .attrs = "kernel_size=2, stride=1, shape={1,1,2,3}", .give = "{{{{4,8}}}}",
     .want = "{{{{1,3,2},{1,3,2}}}}"},
    {.in = "2,2,4,3", .attrs = "kernel_size={3,2}, stride={2,3}, padding=1, ceil_mode=true, shape={2,2,7,7}"},
    {.in = "2,2,4", .attrs = "kernel_size={1,3}, stride=2, padding={0,1}, count_include_pad=false, shape={2,2,8}"},
    {.in = "2,3,3,4", .attrs = "kernel_size=1, output_size={3,4}, shape={2,3,7,6}"},
    {0}};

GR_OP(avg_pool2d_backward) = {
    .info = {.name = "avg_pool2d_backward", .inputs = "dy", .attrs = avg_pool2d_backward_schema,
             .attr_size = sizeof(gri_pool_attrs), .hidden = true, .cases = avg_pool2d_backward_cases,
             .doc = "dy spread evenly over the windows of an input of the given shape"},
    .shape = avg_pool2d_backward_shape,
    .forward = avg_pool2d_backward_kernels,
    .backward = avg_pool2d_backward_rule,
};
