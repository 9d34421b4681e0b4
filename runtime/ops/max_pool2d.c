/* y = the largest element of each window:  x[n,c,h,w] → y[n,c,oh,ow], index[n,c,oh,ow]
 *
 * index, of i64, is where in its plane the element lies: row * w + column, counted as positions are (from 1 in
 * scripts). Outside the image there is nothing to choose. Of equal elements the first wins; NaN wins over everything,
 * the last one of a window.
 *
 * adaptive_max_pool2d has oh and ow given instead of windows: row r looks at rows ⌊r h / oh⌋ to ⌈(r + 1) h / oh⌉ - 1,
 * columns likewise.
 *
 * dx = dy put back where index says (max_pool2d_backward), whose own derivative picks from there
 * (max_pool2d_gather). Only index is kept. Pieces are planes; windows that overlap add up in a fixed order. */
#include "iter.h"
#include "op.h"
#include "parallel.h"
#include "pool.h"
#include "vmath.h"

#include <string.h>

#define MAX_POOL2D_RUN 64      /* outputs of a row done together: their state stays in the first-level cache */
#define MAX_POOL2D_PIECE 16384 /* elements a piece should see, at least */

typedef struct max_pool2d_job {
    gri_window w;
    int64_t planes, part, in, out; /* planes in all and in a piece; elements of an input and an output plane */
    int64_t base;                  /* what an index counts from */
    bool add;
    real *x, *y;
    int64_t *index;
} max_pool2d_job;

/* Runs fn over pieces of whole planes. */
static gr_status max_pool2d_planes(gr_ctx *ctx, max_pool2d_job *j, gri_piece_fn fn) {
    int64_t size = j->in > j->out ? j->in : j->out;
    j->part = MAX_POOL2D_PIECE / (size + 1) + 1;
    gri_parallel(ctx, (j->planes + j->part - 1) / j->part, fn, j);
    return gri_poll(ctx);
}

static inline int64_t max_pool2d_last(const max_pool2d_job *j, int64_t piece) {
    return (piece + 1) * j->part < j->planes ? (piece + 1) * j->part : j->planes;
}

/* ---- max_pool2d ---- */

/* Places are 32-bit numbers while they are looked for. */
static gr_status max_pool2d_sizes(gri_call *c, int rank) {
    const int64_t *dims = c->in[0]->dims;
    GR_TRY(gri_pool_shape(c, rank));
    if ((rank == 3 ? 1 : dims[2]) * dims[rank - 1] < INT32_MAX) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "planes of %s are too large", gri_tensor_text(c->in[0]));
}

static gr_status max_pool2d_shape(gri_call *c) { return max_pool2d_sizes(c, 4); }

/* A plane and how far beyond it memory may be read: rows are short, so they are read in whole vectors, and what
 * is not theirs is thrown away. */
typedef struct max_pool2d_plane {
    const real *x;
    int64_t before, room; /* x[-before .. room - 1] are elements */
} max_pool2d_plane;

/* One tap over outputs 0 .. n-1, of which lo .. hi-1 have it inside: x[at + q * step] against the best so far.
 * place < 0: there is none yet. */
static inline void max_pool2d_tap(int32_t n, int32_t lo, int32_t hi, const real *x, int32_t at, int32_t step,
                                  real *best, int32_t *place) {
#pragma omp simd
    for (int32_t q = 0; q < n; q++) {
        real v = x[q * step], b = best[q];
        bool take = ((v > b) | (v != v) | (place[q] < 0)) & (q >= lo) & (q < hi);
        best[q] = take ? v : b;
        place[q] = take ? at + q * step : place[q];
    }
}

static inline void max_pool2d_taps(const max_pool2d_plane *p, int32_t n, int32_t lo, int32_t hi, int64_t at,
                                   int32_t step, real *best, int32_t *place) {
    int32_t whole = (n + GRI_LANES - 1) & ~(GRI_LANES - 1);
    if (at >= -p->before && at + (int64_t)whole * step <= p->room) {
        max_pool2d_tap((int32_t)GRI_RUN(whole), lo, hi, p->x + at, (int32_t)at, step, best, place);
    } else {
        at += lo * step;
        max_pool2d_tap(hi - lo, 0, hi - lo, p->x + at, (int32_t)at, step, best + lo, place + lo);
    }
}

/* Outputs first .. first + n - 1 of row r. */
static void max_pool2d_run(const gri_window *w, const max_pool2d_plane *p, int64_t r, int64_t first, int64_t n,
                           real *best, int32_t *place) {
    for (int64_t q = 0; q < MAX_POOL2D_RUN; q++) {
        best[q] = -(real)INFINITY;
        place[q] = -1;
    }
    for (int64_t i = 0; i < w->kernel[0]; i++) {
        int64_t row = r * w->stride[0] - w->padding[0] + i * w->dilation[0], step = w->stride[1];
        if (row < 0 || row >= w->in[0]) continue;
        for (int64_t j = 0; j < w->kernel[1]; j++) {
            int64_t shift = j * w->dilation[1] - w->padding[1], at = row * w->in[1] + shift + first * step, lo, hi;
            gri_window_span(w, 1, shift, &lo, &hi);
            lo = lo < first ? 0 : lo - first;
            hi = hi < first + n ? hi - first : n;
            if (lo >= hi) continue;
            if (step == 1) max_pool2d_taps(p, (int32_t)n, (int32_t)lo, (int32_t)hi, at, 1, best, place);
            else if (step == 2) max_pool2d_taps(p, (int32_t)n, (int32_t)lo, (int32_t)hi, at, 2, best, place);
            else max_pool2d_taps(p, (int32_t)n, (int32_t)lo, (int32_t)hi, at, (int32_t)step, best, place);
        }
    }
}

static void max_pool2d_any(const gri_window *w, const max_pool2d_plane *p, int64_t base, real *y, int64_t *index) {
    real best[MAX_POOL2D_RUN];
    int32_t place[MAX_POOL2D_RUN];
    const int64_t width = w->out[1];
    for (int64_t r = 0; r < w->out[0]; r++, y += width, index += width) {
        for (int64_t q = 0; q < width; q += MAX_POOL2D_RUN) {
            int64_t n = width - q < MAX_POOL2D_RUN ? width - q : MAX_POOL2D_RUN;
            max_pool2d_run(w, p, r, q, n, best, place);
            memcpy(y + q, best, (size_t)n * sizeof *y);
            for (int64_t i = 0; i < n; i++) index[q + i] = place[i] + base;
        }
    }
}

/* n windows of 2x2 side by side; x is their upper row, at that index of the plane, `width` apart from the lower. */
static inline void max_pool2d_square(int64_t n, const real *x, int32_t at, int32_t width, real *y, int64_t *index) {
    const real *z = x + width;
#pragma omp simd
    for (int32_t q = 0; q < (int32_t)n; q++) {
        real best = x[2 * q], v = x[2 * q + 1];
        int32_t place = at + 2 * q;
        bool take = (v > best) | (v != v);
        place += take ? 1 : 0;
        best = take ? v : best;
        v = z[2 * q];
        take = (v > best) | (v != v);
        place = take ? at + 2 * q + width : place;
        best = take ? v : best;
        v = z[2 * q + 1];
        take = (v > best) | (v != v);
        place = take ? at + 2 * q + width + 1 : place;
        y[q] = take ? v : best;
        index[q] = place;
    }
}

/* The usual 2x2 windows side by side, nothing outside. `left` elements of y may be written: the next row writes
 * again what is not this one's. */
static void max_pool2d_squares(const gri_window *w, const max_pool2d_plane *p, int64_t base, real *y,
                               int64_t *index, int64_t left) {
    const int64_t width = w->in[1], n = w->out[1], whole = (n + GRI_LANES - 1) & ~(int64_t)(GRI_LANES - 1);
    for (int64_t r = 0; r < w->out[0]; r++, y += n, index += n, left -= n) {
        int64_t at = 2 * r * width;
        if (at + width + 2 * whole <= p->room && whole <= left)
            max_pool2d_square(GRI_RUN(whole), p->x + at, (int32_t)(at + base), (int32_t)width, y, index);
        else
            max_pool2d_square(n, p->x + at, (int32_t)(at + base), (int32_t)width, y, index);
    }
}

static bool max_pool2d_is_squares(const gri_window *w) {
    bool yes = true;
    for (int i = 0; i < 2; i++)
        yes = yes && w->kernel[i] == 2 && w->stride[i] == 2 && w->dilation[i] == 1 && w->padding[i] == 0 &&
              2 * w->out[i] <= w->in[i];
    return yes;
}

static void max_pool2d_piece(void *arg, int64_t piece) {
    const max_pool2d_job *j = arg;
    const int64_t last = max_pool2d_last(j, piece);
    const bool squares = max_pool2d_is_squares(&j->w);
    for (int64_t plane = piece * j->part; plane < last; plane++) {
        const max_pool2d_plane p = {j->x + plane * j->in, plane * j->in, (j->planes - plane) * j->in};
        real *y = j->y + plane * j->out;
        int64_t *index = j->index + plane * j->out;
        if (squares) max_pool2d_squares(&j->w, &p, j->base, y, index, (last - plane) * j->out);
        else max_pool2d_any(&j->w, &p, j->base, y, index);
    }
}

static gr_status max_pool2d_run_pieces(gri_call *c, gri_piece_fn fn) {
    const gr_tensor *x = c->in[0];
    max_pool2d_job j = {.planes = x->dims[0] * x->dims[1], .base = c->ctx->index_base, .x = (real *)x->data,
                        .y = (real *)c->out[0]->data, .index = (int64_t *)(void *)c->out[1]->data};
    GR_TRY(gri_pool_fit(c->ctx, c->attrs, x->rank, x->dims, &j.w));
    j.in = j.w.in[0] * j.w.in[1];
    j.out = j.w.out[0] * j.w.out[1];
    return max_pool2d_planes(c->ctx, &j, fn);
}

static gr_status max_pool2d_kernel(gri_call *c) { return max_pool2d_run_pieces(c, max_pool2d_piece); }

static gr_status max_pool2d_forward(gri_call *c) { return gri_dense(c, max_pool2d_kernel); }
GR_KERNEL(max_pool2d);

/* x's gradient += dy where index says. */
static gr_status max_pool2d_emit(gri_grad *g, const gri_spec *x, gr_tensor *dy, gr_tensor *index) {
    gri_shape_attrs a = {.shape = {.n = x->rank}};
    memcpy(a.shape.v, x->dims, (size_t)x->rank * sizeof *x->dims);
    return gri_emit(g, 0, &gri_op_max_pool2d_backward, 2, GRI_TENSORS(dy, index), &a);
}

static gr_status max_pool2d_rule(gri_grad *g) {
    const gri_spec *x = gri_input_spec(g, 0);
    return x && g->dy[0] ? max_pool2d_emit(g, x, g->dy[0], g->out[1]) : GR_OK;
}

static const gr_attr max_pool2d_schema[] = {
    {"kernel_size", GR_ATTR_PAIR, offsetof(gri_pool_attrs, kernel_size), .required = true, .min = 1,
     .max = 1 << 30},
    {"stride", GR_ATTR_PAIR, offsetof(gri_pool_attrs, stride), .max = 1 << 30}, /* 0: kernel_size */
    {"padding", GR_ATTR_PAIR, offsetof(gri_pool_attrs, padding), .min = 0, .max = 1 << 30},
    {"dilation", GR_ATTR_PAIR, offsetof(gri_pool_attrs, dilation), .value = 1, .min = 1, .max = 1 << 30},
    {"ceil_mode", GR_ATTR_BOOL, offsetof(gri_pool_attrs, ceil_mode), .value = 0},
    GR_ATTR_END};

static const gr_case max_pool2d_cases[] = {
    {.in = "1,1,2,4", .attrs = "kernel_size=2", .give = "{{{{1,5,2,1},{4,3,0,0}}}}",
     .want = "{{{{5,2}}}}, {{{{2,3}}}}"},
    {.in = "1,1,3,3", .attrs = "kernel_size=2, stride=1", .give = "{{{{1,2,3},{6,5,4},{7,8,9}}}}",
     .want = "{{{{6,5},{8,9}}}}, {{{{4,5},{8,9}}}}"},
    {.in = "2,3,6,6", .attrs = "kernel_size=2"},
    {.in = "2,2,7,8", .attrs = "kernel_size={3,2}, stride={2,3}, padding=1"},
    {.in = "2,2,2,4", .attrs = "kernel_size=3, ceil_mode=true"},
    {.in = "2,2,7,5", .attrs = "kernel_size=2, ceil_mode=true"},
    {.in = "1,2,9,9", .attrs = "kernel_size=3, stride=1, padding=1, dilation=2"},
    {.in = "0,2,4,4", .attrs = "kernel_size=2"},
    {0}};

GR_OP(max_pool2d) = {
    .info = {.name = "max_pool2d", .inputs = "x", .attrs = max_pool2d_schema,
             .attr_size = sizeof(gri_pool_attrs), .cases = max_pool2d_cases,
             .doc = "The largest element of every window of images x [n,c,h,w], and where it lies in its plane,\n"
                    "row by row. kernel_size, stride (the kernel's size if it is not given), padding and dilation\n"
                    "are numbers or {height, width}. With ceil_mode a last window that only starts inside the\n"
                    "image counts too."},
    .n_out = 2,
    .keeps = GRI_KEEP_OUT(1),
    .sets_only = true,
    .shape = max_pool2d_shape,
    .forward = max_pool2d_kernels,
    .backward = max_pool2d_rule,
};

/* ---- adaptive_max_pool2d ---- */

static gr_status adaptive_max_pool2d_shape(gri_call *c) { return max_pool2d_sizes(c, 4); }

/* y and *place from rows r0 .. r1 - 1 and columns q0 .. q1 - 1 of a plane. */
static inline real adaptive_max_pool2d_best(const real *x, int64_t width, int64_t r0, int64_t r1, int64_t q0,
                                            int64_t q1, int64_t *place) {
    real best = x[r0 * width + q0];
    *place = r0 * width + q0;
    for (int64_t r = r0; r < r1; r++) {
        for (int64_t at = r * width + q0; at < r * width + q1; at++) {
            if (!(x[at] > best || x[at] != x[at])) continue;
            best = x[at];
            *place = at;
        }
    }
    return best;
}

static void adaptive_max_pool2d_piece(void *arg, int64_t piece) {
    const max_pool2d_job *j = arg;
    const int64_t h = j->w.in[0], w = j->w.in[1], oh = j->w.out[0], ow = j->w.out[1];
    for (int64_t plane = piece * j->part; plane < max_pool2d_last(j, piece); plane++) {
        const real *x = j->x + plane * j->in;
        real *y = j->y + plane * j->out;
        int64_t *index = j->index + plane * j->out, place;
        for (int64_t r = 0; r < oh; r++) {
            const int64_t r0 = gri_pool_from(h, oh, r), r1 = gri_pool_to(h, oh, r);
            for (int64_t q = 0; q < ow; q++) {
                *y++ = adaptive_max_pool2d_best(x, w, r0, r1, gri_pool_from(w, ow, q), gri_pool_to(w, ow, q), &place);
                *index++ = place + j->base;
            }
        }
    }
}

static gr_status adaptive_max_pool2d_kernel(gri_call *c) {
    return max_pool2d_run_pieces(c, adaptive_max_pool2d_piece);
}

static gr_status adaptive_max_pool2d_forward(gri_call *c) { return gri_dense(c, adaptive_max_pool2d_kernel); }
GR_KERNEL(adaptive_max_pool2d);

static const gr_attr adaptive_max_pool2d_schema[] = {
    {"output_size", GR_ATTR_PAIR, offsetof(gri_pool_attrs, output_size), .required = true, .min = 1, .max = 1 << 30},
    GR_ATTR_END};

static const gr_case adaptive_max_pool2d_cases[] = {
    {.in = "1,1,3,4", .attrs = "output_size={2,1}", .give = "{{{{1,2,3,4},{9,1,1,1},{5,6,7,8}}}}",
     .want = "{{{{9},{9}}}}, {{{{5},{5}}}}"},
    {.in = "2,3,7,6", .attrs = "output_size={3,4}"},
    {.in = "2,2,3,2", .attrs = "output_size={1,5}"},
    {.in = "0,2,4,4", .attrs = "output_size=2"},
    {0}};

GR_OP(adaptive_max_pool2d) = {
    .info = {.name = "adaptive_max_pool2d", .inputs = "x", .attrs = adaptive_max_pool2d_schema,
             .attr_size = sizeof(gri_pool_attrs), .cases = adaptive_max_pool2d_cases,
             .doc = "Images x [n,c,h,w] cut evenly into output_size, a number or {height, width}, parts that may\n"
                    "overlap: the largest element of each, and where it lies in its plane, row by row."},
    .n_out = 2,
    .keeps = GRI_KEEP_OUT(1),
    .sets_only = true,
    .shape = adaptive_max_pool2d_shape,
    .forward = adaptive_max_pool2d_kernels,
    .backward = max_pool2d_rule,
};

/* ---- max_pool2d_backward: dx[n,c,h,w] = Σ dy where index points ---- */

/* g or x with an index: both of 3 dims or of 4, planes of the same count. */
static gr_status max_pool2d_want_index(gri_call *c) {
    const gr_tensor *x = c->in[0], *index = c->in[1];
    GR_TRY(gri_want_float(c, 0));
    bool rank = x->rank == index->rank && (x->rank == 3 || x->rank == 4);
    if (rank && index->dtype == GR_I64 && gri_same_dims(2, x->dims, 2, index->dims)) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "%s does not fit an index of %s", gri_tensor_text(x),
                   gri_tensor_text(index));
}

static int64_t max_pool2d_plane_size(const gr_tensor *t) { return gri_product(t->rank - 2, t->dims + 2); }

static gr_status max_pool2d_backward_shape(gri_call *c) {
    const gri_shape_attrs *a = c->attrs;
    const gr_tensor *dy = c->in[0];
    int64_t n;
    GR_TRY(max_pool2d_want_index(c));
    GR_TRY(gri_numel(c->ctx, (gr_dtype)dy->dtype, a->shape.n, a->shape.v, &n));
    if (!gri_same_dims(dy->rank, dy->dims, dy->rank, c->in[1]->dims) || a->shape.n != dy->rank ||
        !gri_same_dims(2, dy->dims, 2, a->shape.v))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "gradient %s does not fit an index of %s and an input of %s",
                       gri_tensor_text(dy), gri_tensor_text(c->in[1]), gri_dims_text(a->shape.n, a->shape.v));
    c->spec[0] = gri_spec_of(dy);
    memcpy(c->spec[0].dims, a->shape.v, dy->rank * sizeof *a->shape.v);
    return GR_OK;
}

static void max_pool2d_backward_piece(void *arg, int64_t piece) {
    const max_pool2d_job *j = arg;
    for (int64_t plane = piece * j->part; plane < max_pool2d_last(j, piece); plane++) {
        real *x = j->x + plane * j->in;
        const real *y = j->y + plane * j->out;
        const int64_t *index = j->index + plane * j->out;
        if (!j->add) memset(x, 0, (size_t)j->in * sizeof *x);
        for (int64_t q = 0; q < j->out; q++) {
            const uint64_t at = (uint64_t)index[q] - (uint64_t)j->base;
            if (at < (uint64_t)j->in) x[at] += y[q];
        }
    }
}

static gr_status max_pool2d_backward_kernel(gri_call *c) {
    const gr_tensor *dy = c->in[0], *dx = c->out[0];
    max_pool2d_job j = {.planes = dy->dims[0] * dy->dims[1], .in = max_pool2d_plane_size(dx),
                        .out = max_pool2d_plane_size(dy), .base = c->ctx->index_base,
                        .add = c->mode == GRI_ADD, .x = (real *)dx->data, .y = (real *)dy->data,
                        .index = (int64_t *)(void *)c->in[1]->data};
    return max_pool2d_planes(c->ctx, &j, max_pool2d_backward_piece);
}

static gr_status max_pool2d_backward_forward(gri_call *c) { return gri_dense(c, max_pool2d_backward_kernel); }
GR_KERNEL(max_pool2d_backward);

static gr_status max_pool2d_backward_rule(gri_grad *g) {
    return GRI_EMIT(g, 0, max_pool2d_gather, g->dy[0], g->in[1]);
}

static const gr_attr max_pool2d_backward_schema[] = {
    {"shape", GR_ATTR_SHAPE, offsetof(gri_shape_attrs, shape), .required = true}, GR_ATTR_END};

static const gr_case max_pool2d_backward_cases[] = {
    {.in = "1,1,1,3 i64:1,1,1,3", .attrs = "shape={1,1,2,2}", .give = "{{{{1,2,4}}}}, {{{{1,4,4}}}}",
     .want = "{{{{1,0},{0,6}}}}"},
    {.in = "2,3,3,2 i64(0..20):2,3,3,2", .attrs = "shape={2,3,5,4}"},
    {.in = "2,2,5 i64(1..6):2,2,5", .attrs = "shape={2,2,6}"},
    {0}};

GR_OP(max_pool2d_backward) = {
    .info = {.name = "max_pool2d_backward", .inputs = "dy index", .attrs = max_pool2d_backward_schema,
             .attr_size = sizeof(gri_shape_attrs), .hidden = true, .cases = max_pool2d_backward_cases,
             .doc = "dy put where index says, into zeros of the given shape"},
    .keeps = GRI_KEEP_IN(1),
    .shape = max_pool2d_backward_shape,
    .forward = max_pool2d_backward_kernels,
    .backward = max_pool2d_backward_rule,
};

/* ---- max_pool2d_gather: y[n,c,oh,ow] = x where index points ---- */

static gr_status max_pool2d_gather_shape(gri_call *c) {
    GR_TRY(max_pool2d_want_index(c));
    c->spec[0] = gri_spec_of(c->in[1]);
    c->spec[0].dtype = (gr_dtype)c->in[0]->dtype;
    return GR_OK;
}

static void max_pool2d_gather_piece(void *arg, int64_t piece) {
    const max_pool2d_job *j = arg;
    for (int64_t plane = piece * j->part; plane < max_pool2d_last(j, piece); plane++) {
        const real *x = j->x + plane * j->in;
        real *y = j->y + plane * j->out;
        const int64_t *index = j->index + plane * j->out;
        for (int64_t q = 0; q < j->out; q++) {
            const uint64_t at = (uint64_t)index[q] - (uint64_t)j->base;
            real v = at < (uint64_t)j->in ? x[at] : 0;
            y[q] = j->add ? y[q] + v : v;
        }
    }
}

static gr_status max_pool2d_gather_kernel(gri_call *c) {
    const gr_tensor *x = c->in[0], *y = c->out[0];
    max_pool2d_job j = {.planes = x->dims[0] * x->dims[1], .in = max_pool2d_plane_size(x),
                        .out = max_pool2d_plane_size(y), .base = c->ctx->index_base,
                        .add = c->mode == GRI_ADD, .x = (real *)x->data, .y = (real *)y->data,
                        .index = (int64_t *)(void *)c->in[1]->data};
    return max_pool2d_planes(c->ctx, &j, max_pool2d_gather_piece);
}

static gr_status max_pool2d_gather_forward(gri_call *c) { return gri_dense(c, max_pool2d_gather_kernel); }
GR_KERNEL(max_pool2d_gather);

static gr_status max_pool2d_gather_rule(gri_grad *g) {
    const gri_spec *x = gri_input_spec(g, 0);
    return x ? max_pool2d_emit(g, x, g->dy[0], g->in[1]) : GR_OK;
}

static const gr_case max_pool2d_gather_cases[] = {
    {.in = "1,1,2,2 i64:1,1,1,3", .give = "{{{{1,2},{4,8}}}}, {{{{1,4,4}}}}", .want = "{{{{1,8,8}}}}"},
    {.in = "2,3,5,4 i64(0..20):2,3,3,2"},
    {0}};

GR_OP(max_pool2d_gather) = {
    .info = {.name = "max_pool2d_gather", .inputs = "x index", .hidden = true, .cases = max_pool2d_gather_cases,
             .doc = "The elements of x that index points to"},
    .keeps = GRI_KEEP_IN(1),
    .shape = max_pool2d_gather_shape,
    .forward = max_pool2d_gather_kernels,
    .backward = max_pool2d_gather_rule,
};
