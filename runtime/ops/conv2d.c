/* y = x * W + b:  x[n,c,h,w] W[o,c/groups,kh,kw] b[o]? → y[n,o,oh,ow]
 *
 *     y[n,o,r,q] = b[o] + Σ_{c,i,j} W[o,c,i,j] x[n, c, r sh - ph + i dh, q sw - pw + j dw]
 *
 * a correlation, as everywhere in the field; c runs over the channels of o's group; x is 0 outside.
 *
 * conv2d_input_grad(dy, W) and conv2d_weight_grad(x, dy) are ops of their own. All three come from one form
 * that is linear in x, W and y, ⟨dy, x * W⟩, so the derivatives of each are the other two, and gradients of
 * gradients cost no further rule. x and W are kept.
 *
 * Each is a matrix product per image and group with the column matrix, K = c/groups kh kw rows by L = oh ow columns,
 * which the product reads from an image with margins (conv_job.h):
 *     y[o,L] = W[o,K] col[K,L]     dWᵀ[K,o] = Σ col dyᵀ
 * dx is, where the window moves by one, such a product too: dy * W with the taps turned round, the channels of W
 * changing places. Otherwise col'[K,L] = Wᵀ dy[o,L] is made and added into an image with margins. Pieces are images
 * and groups, one thread per product: every piece writes its own part of the result.
 *
 * GF/s on one Zen 4 core with 512 bits, f32, y / dx / dW and db, and what PyTorch 2.13 does there:
 *   64 images 16→16, 3x3, 32x32     102 105  93      75  69  65
 *   64 images 32→32, 3x3, 16x16     101 103  97     114 115 103
 *   64 images 64→64, 3x3, 8x8       103 105  93     131 130 109
 *   64 images 16→32, 3x3 by 2        84  64  82      98  16  85
 *   64 images 32→64, 3x3, 14x14      92  85  92     115 116  98
 *   16 images 64→64, 3x3, 56x56     100 102  97      77  77  71
 *   16 images 64→64, 1x1, 56x56      78  91  87      22  22  55
 *   16 images, 32 groups of 1, 56x56 17  22  18      30  30  29
 * With columns made for each block of rows, as im2col does: 69 59 65 in the first line, 77 77 79 in the second.
 *
 * Winograd's transforms would save half of the multiplications of a 3x3 kernel or more. They are not used: their
 * rounding is that of the largest element near an output, not of what the output reads, and one NaN or infinity
 * spreads to outputs that do not see it; gradients that explode must stay readable. */
#include "conv_job.h"

#define CONV2D_TURN 16 /* rows of the turned weight made at a time */

/* ---- conv2d ----------------------------------------------------------------------------------------------- */

static gr_status conv2d_shape(gri_call *c) { return gri_conv_shape(c, 4); }

/* y[o][from .. to) of one image's group: the bias first, the product added to it. */
static void conv2d_start(const conv_job *j, real *y, int64_t group, int64_t columns) {
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
    conv_job *j = arg;
    const gri_conv *p = &j->p;
    int64_t group = piece / j->blocks % p->groups;
    conv_unit u = conv_unit_of(j, piece / j->blocks / p->groups, group, piece % j->blocks);
    if (j->b) conv2d_start(j, u.y, group, u.columns);
    const real *columns = conv_columns(j, &u);
    gri_gemm g = {.dtype = GRI_REAL, .m = p->og, .n = u.columns, .k = p->depth, .a = j->w + group * p->og * p->depth,
                  .rsa = j->wr, .csa = j->wc, .b = columns, .rsb = p->length, .csb = 1, .c = u.y, .rsc = p->length,
                  .csc = 1, .beta = j->add || j->b, .b_rows = j->planes ? NULL : &j->columns};
    gri_gemm_piece(j->isa, &g);
    conv_columns_return(j, columns);
}

static gr_status conv2d_kernel(gri_call *c) {
    conv_job j = {0};
    gr_tensor *const *in = c->in;
    if (c->out[0]->numel == 0) return GR_OK;
    GR_TRY(gri_conv_fit(c->ctx, c->attrs, in[0]->rank, in[0]->dims, in[1]->dims, &j.p));
    conv_plan(c, &j);
    j.x = (real *)in[0]->data;
    j.w = (real *)in[1]->data;
    j.b = c->n_in > 2 && in[2] ? (real *)in[2]->data : NULL;
    j.y = (real *)c->out[0]->data;
    j.wr = j.p.depth;
    j.wc = 1;
    j.pieces = j.p.n * j.p.groups * j.blocks;
    GR_TRY(conv_open(c->ctx, &j, conv_padded_bytes(&j), 0, false, NULL));
    conv_run(c->ctx, &j, conv2d_piece);
    conv_close(c->ctx, &j);
    return gri_poll(c->ctx);
}

static gr_status conv2d_forward(gri_call *c) { return gri_dense(c, conv2d_kernel); }
GR_KERNEL(conv2d);

static gr_status conv2d_rule(gri_grad *g) {
    GR_TRY(gri_conv_emit_input(g, 0, g->dy[0], g->in[1], g->in[0]));
    return gri_conv_emit_weight(g, (int[]){1, 2}, g->in[0], g->dy[0], g->in[1]);
}

static const gr_attr conv2d_schema[] = {GRI_CONV2D_ATTRS, GR_ATTR_END};

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

static gr_status conv2d_input_grad_shape(gri_call *c) {
    const gri_conv2d_attrs *a = c->attrs;
    GR_TRY(gri_conv_want_ranks(c, "gradient", "weight", "input"));
    return gri_conv_gradient_shape(c, 0, a->shape.v, c->in[1]->dims);
}

/* The convolution that takes dy to dx where the window moves by one: over dy, with the taps in the other order and
 * the channels of w changing places. */
static void conv2d_turn(conv_job *j) {
    gri_conv *p = &j->p, given = *p;
    p->c = given.o, p->o = given.c;
    p->cg = given.og, p->og = given.cg;
    for (int i = 0; i < 2; i++) {
        p->w.in[i] = given.w.out[i], p->w.out[i] = given.w.in[i];
        p->w.padding[i] = (p->w.kernel[i] - 1) * p->w.dilation[i] - p->w.padding[i];
    }
    p->depth = p->cg * p->w.kernel[0] * p->w.kernel[1];
    p->length = p->w.out[0] * p->w.out[1];
}

/* Some rows of the turned weight[groups][c/groups][o/groups, kh kw]. */
typedef struct conv2d_turning {
    const real *from;
    real *to;
    int64_t cg, og, taps, part;
} conv2d_turning;

static void conv2d_turn_weight(void *arg, int64_t piece) {
    const conv2d_turning *t = arg;
    const int64_t cuts = (t->cg + t->part - 1) / t->part, first = piece % cuts * t->part, group = piece / cuts;
    const int64_t last = first + t->part < t->cg ? first + t->part : t->cg, size = t->cg * t->og * t->taps;
    for (int64_t o = 0; o < t->og; o++)
        for (int64_t c = first; c < last; c++) {
            const real *from = t->from + group * size + (o * t->cg + c) * t->taps;
            real *to = t->to + group * size + (c * t->og + o) * t->taps;
            for (int64_t k = 0; k < t->taps; k++) to[k] = from[k];
        }
}

/* j: turned, with dy as its x, w as it was given, and dx as its y. */
static gr_status conv2d_input_grad_turned(gri_call *c, conv_job *j) {
    const gri_conv *p = &j->p;
    void *turned = NULL;
    conv_plan(c, j);
    j->pieces = p->n * p->groups * j->blocks;
    const size_t size = j->planes ? 0 : (size_t)(p->o * p->depth) * sizeof(real);
    GR_TRY(conv_open(c->ctx, j, conv_padded_bytes(j), size, true, &turned));
    if (j->planes) { /* w[o,c], read down its columns */
        j->wr = 1;
        j->wc = p->og;
    } else {
        const conv2d_turning t = {j->w, turned, p->og, p->cg, p->w.kernel[0] * p->w.kernel[1], CONV2D_TURN};
        gri_parallel_brief(c->ctx, p->groups * ((t.cg + t.part - 1) / t.part), conv2d_turn_weight, (void *)&t);
        j->w = turned;
        j->wr = p->depth;
        j->wc = 1;
    }
    conv_run(c->ctx, j, conv2d_piece);
    conv_close(c->ctx, j);
    return gri_poll(c->ctx);
}

/* Some channels of one image's group: nobody else writes their planes. */
static void conv2d_input_grad_piece(void *arg, int64_t piece) {
    conv_job *j = arg;
    const gri_conv *p = &j->p;
    const int64_t plane = p->w.in[0] * p->w.in[1], taps = p->w.kernel[0] * p->w.kernel[1], width = p->w.out[1];
    const int64_t cuts = (p->cg + j->part - 1) / j->part, first = piece % cuts * j->part;
    const int64_t planes = p->cg - first < j->part ? p->cg - first : j->part;
    const int64_t group = piece / cuts % p->groups, image = piece / cuts / p->groups;
    real *sum = gri_scratch_claim(&j->scratch), *columns = sum + j->pad.floats;
    memset(sum, 0, (size_t)(planes * j->pad.plane) * sizeof *sum);
    for (int64_t block = 0; block < j->blocks; block++) {
        const conv_unit u = conv_unit_of(j, image, group, block);
        const gri_gemm g = {.dtype = GRI_REAL, .m = planes * taps, .n = u.columns, .k = p->og, .rsa = 1,
                            .csa = p->depth, .a = j->w + group * p->og * p->depth + first * taps, .b = u.y,
                            .rsb = p->length, .csb = 1, .c = columns, .rsc = u.columns, .csc = 1};
        gri_gemm_piece(j->isa, &g);
        for (int64_t k = 0; k < planes * taps; k++)
            padded_add(&j->pad, sum + j->columns.at[k], u.from, columns + k * u.columns, u.columns / width);
    }
    padded_take(&j->pad, planes, sum, j->add, j->x + (image * p->c + group * p->cg + first) * plane);
    gri_scratch_return(&j->scratch, sum);
}

static gr_status conv2d_input_grad_spread(gri_call *c, conv_job *j) {
    const gri_conv *p = &j->p;
    const int64_t images = p->n * p->groups, taps = p->w.kernel[0] * p->w.kernel[1];
    conv_plan(c, j);
    int64_t cuts = images < CONV_PARTS ? CONV_PARTS / images : 1;
    const int64_t each = j->pad.plane + taps * j->rows * p->w.out[1]; /* of a channel: a plane and its columns */
    const int64_t most = CONV_PADDED_BYTES / (int64_t)sizeof(real) / (each + 1) + 1;
    j->part = (p->cg + cuts - 1) / cuts;
    if (j->part > most) j->part = most;
    j->pieces = images * ((p->cg + j->part - 1) / j->part);
    j->pad = padded_of(&p->w, j->part, p->w.out[0], 0);
    size_t floats = (size_t)(j->pad.floats + j->part * taps * j->rows * p->w.out[1]) + 1;
    GR_TRY(conv_open(c->ctx, j, floats * sizeof(real), 0, false, NULL));
    conv_run(c->ctx, j, conv2d_input_grad_piece);
    conv_close(c->ctx, j);
    return gri_poll(c->ctx);
}

static gr_status conv2d_input_grad_kernel(gri_call *c) {
    const gri_conv2d_attrs *a = c->attrs;
    conv_job j = {0};
    if (c->out[0]->numel == 0) return GR_OK;
    GR_TRY(gri_conv_fit(c->ctx, a, a->shape.n, a->shape.v, c->in[1]->dims, &j.p));
    j.w = (real *)c->in[1]->data;
    j.x = (real *)c->out[0]->data;
    j.y = (real *)c->in[0]->data;
    if (j.p.w.stride[0] > 1 || j.p.w.stride[1] > 1) return conv2d_input_grad_spread(c, &j);
    real *dx = j.x;
    j.x = j.y;
    j.y = dx;
    conv2d_turn(&j);
    return conv2d_input_grad_turned(c, &j);
}

static gr_status conv2d_input_grad_forward(gri_call *c) { return gri_dense(c, conv2d_input_grad_kernel); }
GR_KERNEL(conv2d_input_grad);

static gr_status conv2d_input_grad_rule(gri_grad *g) {
    GR_TRY(gri_conv_emit_output(g, 0, g->dy[0], g->in[1], NULL));
    return gri_conv_emit_weight(g, (int[]){1, -1}, g->dy[0], g->in[0], g->in[1]);
}

static const gr_attr conv2d_input_grad_schema[] = {GRI_CONV2D_ATTRS, GRI_CONV2D_SHAPE, GR_ATTR_END};

static const gr_case conv2d_input_grad_cases[] = {
    {.in = "1,1,2,2 1,1,2,2", .attrs = "shape={1,1,3,3}", .give = "{{{{1,2},{3,4}}}}, {{{{1,0},{0,-1}}}}",
     .want = "{{{{1,2,0},{3,3,-2},{0,-3,-4}}}}"},
    {.in = "2,4,5,5 4,3,3,3", .attrs = "shape={2,3,5,5}, padding=1"},
    {.in = "2,6,4,8 6,2,3,2", .attrs = "shape={2,4,7,6}, stride={2,1}, padding={1,2}, dilation={1,2}, groups=2"},
    {.in = "2,4,4,5 4,3,1,1", .attrs = "shape={2,3,4,5}"},
    {.in = "2,4,4 4,3,3", .attrs = "shape={2,3,8}, stride=2, padding=1"},
    {0}};

GR_OP(conv2d_input_grad) = {
    .info = {.name = "conv2d_input_grad", .inputs = "dy weight", .attrs = conv2d_input_grad_schema,
             .attr_size = sizeof(gri_conv2d_attrs), .hidden = true, .cases = conv2d_input_grad_cases,
             .doc = "What conv2d's input of the given shape gets from dy"},
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = conv2d_input_grad_shape,
    .forward = conv2d_input_grad_kernels,
    .backward = conv2d_input_grad_rule,
};

