/* y = x * W + b:  x[n,c,h,w] W[o,c/groups,kh,kw] b[o]? → y[n,o,oh,ow]
 *
 *     y[n,o,r,q] = b[o] + Σ_{c,i,j} W[o,c,i,j] x[n, c, r sh - ph + i dh, q sw - pw + j dw]
 *
 * a correlation, as everywhere in the field; c runs over the channels of o's group; x is 0 outside.
 *
 * conv2d_input_grad(dy, W) and conv2d_weight_grad(x, dy) are ops of their own. All three come from one form
 * that is linear in x, W and y, ⟨dy, x * W⟩, so the derivatives of each are the other two, and gradients of
 * gradients cost no further rule. The weight gradient also makes db = Σ dy over n, r, q while dy is in the
 * cache. x and W are kept.
 *
 * Each is a matrix product per image and group with the column matrix of columns.h, K = c/groups kh kw rows by
 * L = oh ow columns, made for a block of output rows at a time so that it stays in the second-level cache:
 *     y[o,L] = W[o,K] col[K,L]     col'[K,L] = Wᵀ dy[o,L], added back into dx     dWᵀ[K,o] = Σ col dyᵀ
 * A 1x1 kernel reads the planes themselves. Pieces are images and groups, one thread per product: every piece
 * writes its own part of the result. Only dW is shared, so images are cut into at most CONV2D_PARTS parts, by
 * shape alone, whose sums are added in order. */
#include "blas.h"
#include "columns.h"
#include "conv.h"
#include "scratch.h"

#define CONV2D_PARTS 16
#define CONV2D_PARTS_BYTES ((size_t)64 << 20) /* fewer parts than that for huge weights */
#define CONV2D_COLUMN_BYTES ((size_t)384 << 10)
#define CONV2D_COLUMNS 128   /* a product with fewer is slow */
#define CONV2D_RUN 4096      /* elements of dW put together at a time */
#define CONV2D_BRIEF 1e6     /* multiplications: 10-20 us on one thread */

/* ---- running ---------------------------------------------------------------------------------------------- */

typedef struct conv2d_job {
    gri_conv p;
    gri_isa isa;
    bool add, direct;     /* direct: the planes are the columns */
    real *x, *w, *b, *y;  /* b may be NULL */
    int64_t rows, blocks; /* output rows in a block; blocks in an image */
    int64_t pieces, part; /* of the work; channels or units in a piece */
    int64_t parts, run;   /* weight gradient: how many sums there are; rows of a sum in a piece */
    double *bias_sums;    /* [parts][o] */
    real *sums;           /* [parts][groups][K][o/groups]: dW the other way round, which is the faster product */
    gri_scratch scratch;  /* column buffers */
} conv2d_job;

static void conv2d_cut(conv2d_job *j) {
    const gri_conv *p = &j->p;
    int64_t width = p->w.out[1] ? p->w.out[1] : 1, height = p->w.out[0] ? p->w.out[0] : 1;
    int64_t most = (int64_t)(CONV2D_COLUMN_BYTES / sizeof(real)) / (p->depth * width + 1);
    int64_t least = (CONV2D_COLUMNS + width - 1) / width, images = p->n * p->groups;
    if (images < CONV2D_PARTS && images && most > height * images / CONV2D_PARTS)
        most = height * images / CONV2D_PARTS;
    if (most < least) most = least;
    j->blocks = (height + most - 1) / most;
    j->rows = (height + j->blocks - 1) / j->blocks;
    j->blocks = (height + j->rows - 1) / j->rows;
}

/* x: dims of the input; w: of the weight. */
static gr_status conv2d_plan(gri_call *c, int rank, const int64_t *x, const int64_t *w, conv2d_job *j) {
    GR_TRY(gri_conv_fit(c->ctx, c->attrs, rank, x, w, &j->p));
    const gri_window *k = &j->p.w;
    j->isa = c->ctx->isa;
    j->add = c->mode == GRI_ADD;
    j->direct = true;
    for (int i = 0; i < 2; i++) j->direct = j->direct && k->kernel[i] == 1 && k->stride[i] == 1 && k->padding[i] == 0;
    conv2d_cut(j);
    return GR_OK;
}

/* Runs the pieces, each with a column buffer of `floats` elements to claim (0: none). */
static gr_status conv2d_pieces(gr_ctx *ctx, conv2d_job *j, gri_piece_fn fn, int64_t floats) {
    const gri_conv *p = &j->p;
    GR_TRY(gri_scratch_open(ctx, &j->scratch, (size_t)floats * sizeof(real)));
    bool brief = (double)(p->n * p->o * p->length) * (double)p->depth < CONV2D_BRIEF;
    (brief ? gri_parallel_brief : gri_parallel)(ctx, j->pieces, fn, j);
    gri_scratch_close(ctx, &j->scratch);
    return gri_poll(ctx);
}

/* A block of output rows of one image's group. */
typedef struct conv2d_unit {
    int64_t from, to, columns;
    real *x, *y; /* the group's first input plane; the block's first output */
} conv2d_unit;

static conv2d_unit conv2d_unit_of(const conv2d_job *j, int64_t image, int64_t group, int64_t block) {
    const gri_conv *p = &j->p;
    int64_t from = block * j->rows, to = from + j->rows < p->w.out[0] ? from + j->rows : p->w.out[0];
    return (conv2d_unit){.from = from, .to = to, .columns = (to - from) * p->w.out[1],
                         .x = j->x + (image * p->c + group * p->cg) * p->w.in[0] * p->w.in[1],
                         .y = j->y + (image * p->o + group * p->og) * p->length + from * p->w.out[1]};
}

/* The unit's column matrix with its row stride: claimed unless the planes serve. */
static const real *conv2d_columns(conv2d_job *j, const conv2d_unit *u, int64_t *stride) {
    const gri_conv *p = &j->p;
    *stride = j->direct ? p->length : u->columns;
    if (j->direct) return u->x + u->from * p->w.in[1];
    real *col = gri_scratch_claim(&j->scratch);
    columns_gather(&p->w, p->cg, u->x, u->from, u->to, col);
    return col;
}

/* Without channels a column is empty, and is claimed all the same. */
static int64_t conv2d_column_floats(const conv2d_job *j) {
    return j->direct ? 0 : j->p.depth * j->rows * j->p.w.out[1] + 1;
}

/* ---- conv2d ----------------------------------------------------------------------------------------------- */

static gr_status conv2d_shape(gri_call *c) { return gri_conv_shape(c, 4); }

/* y[o][from .. to) of one image's group: the bias first, the product added to it. */
static void conv2d_start(const conv2d_job *j, real *y, int64_t group, int64_t columns) {
    const gri_conv *p = &j->p;
    for (int64_t o = 0; o < p->og; o++, y += p->length) {
        const real b = j->b[group * p->og + o];
        if (j->add) {
#pragma omp simd
            for (int64_t i = 0; i < columns; i++) y[i] += b;
        } else {
#pragma omp simd
            for (int64_t i = 0; i < columns; i++) y[i] = b;
        }
    }
}

static void conv2d_piece(void *arg, int64_t piece) {
    conv2d_job *j = arg;
    const gri_conv *p = &j->p;
    int64_t group = piece / j->blocks % p->groups, stride;
    conv2d_unit u = conv2d_unit_of(j, piece / j->blocks / p->groups, group, piece % j->blocks);
    if (j->b) conv2d_start(j, u.y, group, u.columns);
    const real *col = conv2d_columns(j, &u, &stride);
    gri_gemm g = {.dtype = GRI_REAL, .m = p->og, .n = u.columns, .k = p->depth, .a = j->w + group * p->og * p->depth,
                  .rsa = p->depth, .csa = 1, .b = col, .rsb = stride, .csb = 1, .c = u.y, .rsc = p->length, .csc = 1,
                  .beta = j->add || j->b};
    gri_gemm_piece(j->isa, &g);
    if (!j->direct) gri_scratch_return(&j->scratch, col);
}

static gr_status conv2d_kernel(gri_call *c) {
    conv2d_job j = {0};
    gr_tensor *const *in = c->in;
    if (c->out[0]->numel == 0) return GR_OK;
    GR_TRY(conv2d_plan(c, in[0]->rank, in[0]->dims, in[1]->dims, &j));
    j.x = (real *)in[0]->data;
    j.w = (real *)in[1]->data;
    j.b = c->n_in > 2 && in[2] ? (real *)in[2]->data : NULL;
    j.y = (real *)c->out[0]->data;
    j.pieces = j.p.n * j.p.groups * j.blocks;
    return conv2d_pieces(c->ctx, &j, conv2d_piece, conv2d_column_floats(&j));
}

static gr_status conv2d_forward(gri_call *c) { return gri_dense(c, conv2d_kernel); }
GR_KERNEL(conv2d);

/* The attributes of g's op for a gradient shaped as t. */
static gri_conv2d_attrs conv2d_shaped(const gri_grad *g, const gr_tensor *t) {
    gri_conv2d_attrs a = *(const gri_conv2d_attrs *)g->attrs;
    a.shape.n = t->rank;
    memcpy(a.shape.v, t->dims, t->rank * sizeof *t->dims);
    return a;
}

static gr_status conv2d_weight_grad_emit(gri_grad *g, const int *to, gr_tensor *x, gr_tensor *dy,
                                         const gr_tensor *w) {
    gri_conv2d_attrs a = conv2d_shaped(g, w);
    return gri_emit_many(g, to, &gri_op_conv2d_weight_grad, 2, GRI_TENSORS(x, dy), &a);
}

static gr_status conv2d_input_grad_emit(gri_grad *g, int input, gr_tensor *dy, gr_tensor *w, const gr_tensor *x) {
    gri_conv2d_attrs a = conv2d_shaped(g, x);
    return gri_emit(g, input, &gri_op_conv2d_input_grad, 2, GRI_TENSORS(dy, w), &a);
}

static gr_status conv2d_rule(gri_grad *g) {
    GR_TRY(conv2d_input_grad_emit(g, 0, g->dy[0], g->in[1], g->in[0]));
    return conv2d_weight_grad_emit(g, (int[]){1, 2}, g->in[0], g->dy[0], g->in[1]);
}

#define CONV2D_ATTRS                                                                                         \
    {"stride", GR_ATTR_PAIR, offsetof(gri_conv2d_attrs, stride), .value = 1, .min = 1, .max = 1 << 30},     \
    {"padding", GR_ATTR_PAIR, offsetof(gri_conv2d_attrs, padding), .min = 0, .max = 1 << 30},               \
    {"dilation", GR_ATTR_PAIR, offsetof(gri_conv2d_attrs, dilation), .value = 1, .min = 1, .max = 1 << 30}, \
    {"groups", GR_ATTR_INT, offsetof(gri_conv2d_attrs, groups), .value = 1, .min = 1, .max = 1 << 30}
static const gr_attr conv2d_schema[] = {CONV2D_ATTRS, GR_ATTR_END};
static const gr_attr conv2d_grad_schema[] = {
    CONV2D_ATTRS, {"shape", GR_ATTR_SHAPE, offsetof(gri_conv2d_attrs, shape), .required = true}, GR_ATTR_END};

static const gr_case conv2d_cases[] = {
    {.in = "1,1,3,3 1,1,2,2 1", .give = "{{{{1,2,3},{4,5,6},{7,8,9}}}}, {{{{1,0},{0,-1}}}}, {10}",
     .want = "{{{{6,6},{6,6}}}}"},
    {.in = "1,1,2,2 1,1,3,3 -", .attrs = "padding=1", .give = "{{{{1,2},{3,4}}}}, {{{{1,2,3},{4,5,6},{7,8,9}}}}",
     .want = "{{{{77,67},{47,37}}}}"},
    {.in = "2,3,5,5 4,3,3,3 4", .attrs = "padding=1"},
    {.in = "2,4,7,6 6,2,3,2 6", .attrs = "stride={2,1}, padding={1,2}, dilation={1,2}, groups=2"},
    {.in = "2,3,4,5 4,3,1,1 -"},
    {.in = "3,4,5,5 4,1,3,3 4", .attrs = "groups=4, padding=1"},
    {.in = "0,2,4,4 3,2,3,3 3"},
    {.in = "2,0,4,4 3,0,3,3 3"},
    {0}};

GR_OP(conv2d) = {
    .info = {.name = "conv2d", .inputs = "x weight bias?", .attrs = conv2d_schema,
             .attr_size = sizeof(gri_conv2d_attrs), .cases = conv2d_cases,
             .doc = "2-d convolution (cross-correlation) of images x [n,c,h,w] with kernels weight\n"
                    "[o,c/groups,kh,kw], plus bias [o]. stride, padding and dilation are numbers or\n"
                    "{height, width}."},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = conv2d_shape,
    .forward = conv2d_kernels,
    .backward = conv2d_rule,
};

/* ---- conv2d_input_grad ------------------------------------------------------------------------------------ */

/* Checks the shape that is given of x or w, and in[i], the gradient of y. */
static gr_status conv2d_want_gradient(gri_call *c, int i, const int64_t *x, const int64_t *w) {
    const gr_tensor *dy = c->in[i];
    const int rank = dy->rank;
    int64_t dims[4], n;
    gri_conv p;
    GR_TRY(gri_conv_fit(c->ctx, c->attrs, rank, x, w, &p));
    memcpy(dims, (int64_t[]){p.n, p.o, rank == 3 ? p.w.out[1] : p.w.out[0], p.w.out[1]}, sizeof dims);
    if (!gri_same_dims(rank, dy->dims, rank, dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "gradient is %s, expected %s", gri_tensor_text(dy),
                       gri_dims_text(rank, dims));
    const gri_conv2d_attrs *a = c->attrs;
    c->spec[0] = (gri_spec){.dtype = (gr_dtype)dy->dtype, .rank = rank};
    memcpy(c->spec[0].dims, a->shape.v, (size_t)rank * sizeof *a->shape.v);
    c->spec[1] = (gri_spec){.dtype = (gr_dtype)dy->dtype, .rank = 1, .dims = {p.o}};
    return gri_numel(c->ctx, (gr_dtype)dy->dtype, rank, a->shape.v, &n);
}

/* Both inputs of one rank, 3 or 4, which the given shape has too. */
static gr_status conv2d_want_ranks(gri_call *c, const char *first, const char *second, const char *shape) {
    const gri_conv2d_attrs *a = c->attrs;
    const int rank = c->in[0]->rank == 3 ? 3 : 4;
    GR_TRY(gri_conv_want(c, 0, rank, first));
    GR_TRY(gri_conv_want(c, 1, rank, second));
    if (a->shape.n == rank) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "shape of the %s is %s, expected %d dimensions", shape,
                   gri_dims_text(a->shape.n, a->shape.v), rank);
}

static gr_status conv2d_input_grad_shape(gri_call *c) {
    const gri_conv2d_attrs *a = c->attrs;
    GR_TRY(conv2d_want_ranks(c, "gradient", "weight", "input"));
    return conv2d_want_gradient(c, 0, a->shape.v, c->in[1]->dims);
}

/* Some channels of one image's group: nobody else writes their planes. */
static void conv2d_input_grad_piece(void *arg, int64_t piece) {
    conv2d_job *j = arg;
    const gri_conv *p = &j->p;
    const int64_t plane = p->w.in[0] * p->w.in[1], taps = p->w.kernel[0] * p->w.kernel[1];
    const int64_t cuts = (p->cg + j->part - 1) / j->part, first = piece % cuts * j->part;
    const int64_t planes = p->cg - first < j->part ? p->cg - first : j->part;
    const int64_t group = piece / cuts % p->groups, image = piece / cuts / p->groups;
    real *col = j->direct ? NULL : gri_scratch_claim(&j->scratch);
    for (int64_t block = 0; block < j->blocks; block++) {
        conv2d_unit u = conv2d_unit_of(j, image, group, block);
        real *x = u.x + first * plane;
        gri_gemm g = {.dtype = GRI_REAL, .m = planes * taps, .n = u.columns, .k = p->og, .rsa = 1, .csa = p->depth,
                      .a = j->w + group * p->og * p->depth + first * taps, .b = u.y, .rsb = p->length, .csb = 1,
                      .c = j->direct ? x + u.from * p->w.in[1] : col, .rsc = j->direct ? plane : u.columns, .csc = 1,
                      .beta = j->direct && j->add};
        gri_gemm_piece(j->isa, &g);
        if (j->direct) continue;
        if (block == 0 && !j->add) memset(x, 0, (size_t)(planes * plane) * sizeof *x);
        columns_scatter(&p->w, planes, x, u.from, u.to, col);
    }
    if (col) gri_scratch_return(&j->scratch, col);
}

static gr_status conv2d_input_grad_kernel(gri_call *c) {
    const gri_conv2d_attrs *a = c->attrs;
    conv2d_job j = {0};
    if (c->out[0]->numel == 0) return GR_OK;
    GR_TRY(conv2d_plan(c, a->shape.n, a->shape.v, c->in[1]->dims, &j));
    const gri_conv *p = &j.p;
    j.y = (real *)c->in[0]->data;
    j.w = (real *)c->in[1]->data;
    j.x = (real *)c->out[0]->data;
    int64_t images = p->n * p->groups, cuts = images < CONV2D_PARTS ? CONV2D_PARTS / images : 1;
    j.part = (p->cg + cuts - 1) / cuts;
    j.pieces = images * ((p->cg + j.part - 1) / j.part);
    return conv2d_pieces(c->ctx, &j, conv2d_input_grad_piece, conv2d_column_floats(&j));
}

static gr_status conv2d_input_grad_forward(gri_call *c) { return gri_dense(c, conv2d_input_grad_kernel); }
GR_KERNEL(conv2d_input_grad);

static const gr_op *conv2d_of(const gr_tensor *w) { return w->rank == 3 ? &gri_op_conv1d : &gri_op_conv2d; }

static gr_status conv2d_input_grad_rule(gri_grad *g) {
    GR_TRY(gri_emit(g, 0, conv2d_of(g->in[1]), 2, GRI_TENSORS(g->dy[0], g->in[1]), g->attrs));
    return conv2d_weight_grad_emit(g, (int[]){1, -1}, g->dy[0], g->in[0], g->in[1]);
}

static const gr_case conv2d_input_grad_cases[] = {
    {.in = "1,1,2,2 1,1,2,2", .attrs = "shape={1,1,3,3}", .give = "{{{{1,2},{3,4}}}}, {{{{1,0},{0,-1}}}}",
     .want = "{{{{1,2,0},{3,3,-2},{0,-3,-4}}}}"},
    {.in = "2,4,5,5 4,3,3,3", .attrs = "shape={2,3,5,5}, padding=1"},
    {.in = "2,6,4,8 6,2,3,2", .attrs = "shape={2,4,7,6}, stride={2,1}, padding={1,2}, dilation={1,2}, groups=2"},
    {.in = "2,4,4,5 4,3,1,1", .attrs = "shape={2,3,4,5}"},
    {.in = "2,4,4 4,3,3", .attrs = "shape={2,3,8}, stride=2, padding=1"},
    {0}};

GR_OP(conv2d_input_grad) = {
    .info = {.name = "conv2d_input_grad", .inputs = "dy weight", .attrs = conv2d_grad_schema,
             .attr_size = sizeof(gri_conv2d_attrs), .hidden = true, .cases = conv2d_input_grad_cases,
             .doc = "What conv2d's input of the given shape gets from dy"},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = conv2d_input_grad_shape,
    .forward = conv2d_input_grad_kernels,
    .backward = conv2d_input_grad_rule,
};

/* ---- conv2d_weight_grad ----------------------------------------------------------------------------------- */

static gr_status conv2d_weight_grad_shape(gri_call *c) {
    const gri_conv2d_attrs *a = c->attrs;
    GR_TRY(conv2d_want_ranks(c, "input", "gradient", "weight"));
    return conv2d_want_gradient(c, 1, c->in[0]->dims, a->shape.v);
}

/* sum[o] = or += Σ y[o][0 .. n), four at a time: one alone would wait for its own additions. */
static void conv2d_bias_sum(const real *y, int64_t stride, int64_t channels, int64_t n, bool add, double *sum) {
    for (int64_t o = 0; o < channels; o += 4) {
        const int64_t last = channels - 1, o1 = o + 1 < last ? o + 1 : last, o2 = o + 2 < last ? o + 2 : last;
        const int64_t o3 = o + 3 < last ? o + 3 : last;
        const real *y0 = y + o * stride, *y1 = y + o1 * stride, *y2 = y + o2 * stride, *y3 = y + o3 * stride;
        double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (int64_t q = 0; q < n; q++) {
            s0 += y0[q];
            s1 += y1[q];
            s2 += y2[q];
            s3 += y3[q];
        }
        const double s[4] = {s0, s1, s2, s3};
        for (int64_t i = 0; i < 4 && o + i < channels; i++) sum[o + i] = add ? sum[o + i] + s[i] : s[i];
    }
}

/* The sums of one part, a run of (image, block) units, for one group. */
static void conv2d_weight_grad_piece(void *arg, int64_t piece) {
    conv2d_job *j = arg;
    const gri_conv *p = &j->p;
    const int64_t part = piece / p->groups, group = piece % p->groups, units = p->n * j->blocks;
    const int64_t from = part * j->part, to = from + j->part < units ? from + j->part : units;
    real *sum = j->w ? j->sums + (part * p->groups + group) * p->og * p->depth : NULL;
    double *bias = j->b ? j->bias_sums + (part * p->groups + group) * p->og : NULL;
    for (int64_t i = from; i < to; i++) {
        conv2d_unit u = conv2d_unit_of(j, i / j->blocks, group, i % j->blocks);
        if (bias) conv2d_bias_sum(u.y, p->length, p->og, u.columns, i > from, bias);
        if (!sum) continue;
        int64_t stride;
        const real *col = conv2d_columns(j, &u, &stride);
        gri_gemm g = {.dtype = GRI_REAL, .m = p->depth, .n = p->og, .k = u.columns, .a = col, .rsa = stride, .csa = 1,
                      .b = u.y, .rsb = 1, .csb = p->length, .c = sum, .rsc = p->og, .csc = 1, .beta = i > from};
        gri_gemm_piece(j->isa, &g);
        if (!j->direct) gri_scratch_return(&j->scratch, col);
    }
}

/* Rows of one group's sums: those of all parts added up in order, then put where they belong in dW. */
static void conv2d_weight_grad_join(void *arg, int64_t piece) {
    conv2d_job *j = arg;
    const int64_t k = j->p.depth, o = j->p.og, runs = (k + j->run - 1) / j->run, group = piece / runs;
    const int64_t from = piece % runs * j->run, rows = k - from < j->run ? k - from : j->run;
    real *sum = j->sums + (group * k + from) * o, *w = j->w + group * o * k + from;
    for (int64_t part = 1; part < j->parts; part++) {
        const real *more = sum + part * j->p.groups * k * o;
#pragma omp simd
        for (int64_t i = 0; i < rows * o; i++) sum[i] += more[i];
    }
    for (int64_t c = 0; c < o; c++) {
        for (int64_t r = 0; r < rows; r++) {
            real v = sum[r * o + c];
            w[c * k + r] = j->add ? w[c * k + r] + v : v;
        }
    }
}

static void conv2d_bias_join(conv2d_job *j) {
    for (int64_t o = 0; o < j->p.o; o++) {
        double s = 0;
        for (int64_t part = 0; part < j->parts; part++) s += j->bias_sums[part * j->p.o + o];
        j->b[o] = (real)(j->add ? j->b[o] + s : s);
    }
}

static gr_status conv2d_weight_grad_sum(gr_ctx *ctx, conv2d_job *j) {
    const gri_conv *p = &j->p;
    const int64_t units = p->n * j->blocks, size = p->o * p->depth;
    int64_t most = (int64_t)(CONV2D_PARTS_BYTES / sizeof(real)) / (size + 1);
    most = most < 1 ? 1 : most > CONV2D_PARTS ? CONV2D_PARTS : most;
    j->part = units ? (units + most - 1) / most : 1;
    j->parts = units ? (units + j->part - 1) / j->part : 1;
    j->pieces = j->parts * p->groups;
    size_t biases = (size_t)(j->parts * p->o) * sizeof(double), sums = (size_t)(j->parts * size) * sizeof(real);
    size_t capacity;
    j->bias_sums = gri_block_new(ctx, biases + sums, &capacity);
    if (!j->bias_sums)
        return gr_fail(ctx, GR_ERR_MEMORY, "out of memory: %zu bytes of scratch wanted, %zu in use", biases + sums,
                       ctx->live);
    j->sums = (real *)(void *)((char *)j->bias_sums + biases);
    if (!units) memset(j->bias_sums, 0, biases + sums);
    gr_status s = conv2d_pieces(ctx, j, conv2d_weight_grad_piece, j->w ? conv2d_column_floats(j) : 0);
    j->run = CONV2D_RUN / (p->og + 1) + 1;
    int64_t runs = p->groups * ((p->depth + j->run - 1) / j->run);
    if (s == GR_OK && j->w) gri_parallel(ctx, runs, conv2d_weight_grad_join, j);
    if (s == GR_OK && j->b) conv2d_bias_join(j);
    gri_block_delete(ctx, j->bias_sums, capacity);
    return s;
}

static gr_status conv2d_weight_grad_kernel(gri_call *c) {
    const gri_conv2d_attrs *a = c->attrs;
    conv2d_job j = {0};
    GR_TRY(conv2d_plan(c, a->shape.n, c->in[0]->dims, a->shape.v, &j));
    j.x = (real *)c->in[0]->data;
    j.y = (real *)c->in[1]->data;
    j.w = c->out[0] ? (real *)c->out[0]->data : NULL;
    j.b = c->out[1] ? (real *)c->out[1]->data : NULL;
    return conv2d_weight_grad_sum(c->ctx, &j);
}

static gr_status conv2d_weight_grad_forward(gri_call *c) { return gri_dense(c, conv2d_weight_grad_kernel); }
GR_KERNEL(conv2d_weight_grad);

/* ⟨V, dW⟩ + ⟨v, db⟩ = ⟨dy, x * V + v⟩. */
static gr_status conv2d_weight_grad_rule(gri_grad *g) {
    gr_tensor *v = g->dy[0], *bias = g->dy[1], *dy = g->in[1];
    if (v) {
        GR_TRY(conv2d_input_grad_emit(g, 0, dy, v, g->in[0]));
        return gri_emit(g, 1, conv2d_of(v), 3, GRI_TENSORS(g->in[0], v, bias), g->attrs);
    }
    if (!gri_needs(g, 1)) return GR_OK;
    gri_shape_attrs flat = {{dy->rank, {1, bias->dims[0], 1, 1}}}, whole = {{.n = dy->rank}};
    memcpy(whole.shape.v, dy->dims, dy->rank * sizeof *dy->dims);
    GR_TRY(gri_eval(g, &bias, &gri_op_reshape, 1, &bias, &flat));
    GR_TRY(gri_eval(g, &bias, &gri_op_expand, 1, &bias, &whole));
    return gri_emit_same(g, 1, bias);
}

static const gr_case conv2d_weight_grad_cases[] = {
    {.in = "1,1,3,3 1,1,2,2", .attrs = "shape={1,1,2,2}", .give = "{{{{1,2,3},{4,5,6},{7,8,9}}}}, {{{{1,2},{3,4}}}}",
     .want = "{{{{37,47},{67,77}}}}, {10}"},
    {.in = "2,3,5,5 2,4,5,5", .attrs = "shape={4,3,3,3}, padding=1"},
    {.in = "2,4,7,6 2,6,4,8", .attrs = "shape={6,2,3,2}, stride={2,1}, padding={1,2}, dilation={1,2}, groups=2"},
    {.in = "2,3,4,5 2,4,4,5", .attrs = "shape={4,3,1,1}"},
    {.in = "2,3,8 2,4,4", .attrs = "shape={4,3,3}, stride=2, padding=1"},
    {0}};

GR_OP(conv2d_weight_grad) = {
    .info = {.name = "conv2d_weight_grad", .inputs = "x dy", .attrs = conv2d_grad_schema,
             .attr_size = sizeof(gri_conv2d_attrs), .hidden = true, .cases = conv2d_weight_grad_cases,
             .doc = "What conv2d's weight of the given shape, and its bias, get from dy"},
    .n_out = 2,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = conv2d_weight_grad_shape,
    .forward = conv2d_weight_grad_kernels,
    .backward = conv2d_weight_grad_rule,
};
