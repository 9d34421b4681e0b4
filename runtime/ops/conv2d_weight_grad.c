/* dW, db of y = x * W + b (conv2d.c):  x[n,c,h,w] dy[n,o,oh,ow] → dW[o,c/groups,kh,kw], db[o]
 *
 *     dW[o,c,i,j] = Σ_{n,r,q} dy[n,o,r,q] x[n, c, r sh - ph + i dh, q sw - pw + j dw],  db[o] = Σ_{n,r,q} dy[n,o,r,q]
 *
 * as dWᵀ[K,o] = Σ col dyᵀ over blocks of rows of images. All of them share dW: they are cut into at most CONV_PARTS
 * parts, by shape alone, whose sums are added in order. db is taken while dy is in the cache. Both inputs are kept;
 * the derivatives are those of ⟨dy, x * V + v⟩ for gradients V and v. */
#include "conv_job.h"

#define CONV2D_WEIGHT_GRAD_BYTES ((size_t)64 << 20) /* fewer parts than that for huge weights */
#define CONV2D_WEIGHT_GRAD_RUN 4096                 /* elements of dW put together at a time */

typedef struct conv2d_weight_grad_job {
    conv_job c;
    int64_t parts, run; /* how many sums there are; rows of a sum in a piece of their joining */
    double *bias_sums;  /* [parts][o] */
    real *sums;         /* [parts][groups][K][o/groups]: dW the other way round, which is the faster product */
} conv2d_weight_grad_job;

static gr_status conv2d_weight_grad_shape(gri_call *c) {
    const gri_conv2d_attrs *a = c->attrs;
    GR_TRY(gri_conv_want_ranks(c, "input", "gradient", "weight"));
    return gri_conv_gradient_shape(c, 1, c->in[0]->dims, a->shape.v);
}

/* sum[o] = or += Σ y[o][0 .. n), four at a time: one alone would wait for its own additions. */
static void conv2d_weight_grad_bias(const real *y, int64_t stride, int64_t channels, int64_t n, bool add,
                                    double *sum) {
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
    conv2d_weight_grad_job *j = arg;
    const gri_conv *p = &j->c.p;
    const int64_t part = piece / p->groups, group = piece % p->groups, units = p->n * j->c.blocks;
    const int64_t from = part * j->c.part, to = from + j->c.part < units ? from + j->c.part : units;
    real *sum = j->c.w ? j->sums + (part * p->groups + group) * p->og * p->depth : NULL;
    double *bias = j->c.b ? j->bias_sums + (part * p->groups + group) * p->og : NULL;
    for (int64_t i = from; i < to; i++) {
        const conv_unit u = conv_unit_of(&j->c, i / j->c.blocks, group, i % j->c.blocks);
        if (bias) conv2d_weight_grad_bias(u.y, p->length, p->og, u.columns, i > from, bias);
        if (!sum) continue;
        const real *columns = conv_columns(&j->c, &u);
        const gri_gemm g = {.dtype = GRI_REAL, .m = p->depth, .n = p->og, .k = u.columns, .a = columns,
                            .rsa = p->length, .csa = 1, .b = u.y, .rsb = 1, .csb = p->length, .c = sum,
                            .rsc = p->og, .csc = 1, .beta = i > from,
                            .a_rows = j->c.planes ? NULL : &j->c.columns};
        gri_gemm_piece(j->c.isa, &g);
        conv_columns_return(&j->c, columns);
    }
}

/* Rows of one group's sums: those of all parts added up in order, then put where they belong in dW. */
static void conv2d_weight_grad_join(void *arg, int64_t piece) {
    conv2d_weight_grad_job *j = arg;
    const gri_conv *p = &j->c.p;
    const int64_t k = p->depth, o = p->og, runs = (k + j->run - 1) / j->run, group = piece / runs;
    const int64_t from = piece % runs * j->run, rows = k - from < j->run ? k - from : j->run;
    real *sum = j->sums + (group * k + from) * o, *w = j->c.w + group * o * k + from;
    for (int64_t part = 1; part < j->parts; part++) {
        const real *more = sum + part * p->groups * k * o;
#pragma omp simd
        for (int64_t i = 0; i < rows * o; i++) sum[i] += more[i];
    }
    for (int64_t c = 0; c < o; c++) {
        for (int64_t r = 0; r < rows; r++) {
            real v = sum[r * o + c];
            w[c * k + r] = j->c.add ? w[c * k + r] + v : v;
        }
    }
}

static void conv2d_weight_grad_join_bias(const conv2d_weight_grad_job *j) {
    for (int64_t o = 0; o < j->c.p.o; o++) {
        double s = 0;
        for (int64_t part = 0; part < j->parts; part++) s += j->bias_sums[part * j->c.p.o + o];
        j->c.b[o] = (real)(j->c.add ? j->c.b[o] + s : s);
    }
}

static gr_status conv2d_weight_grad_sum(gr_ctx *ctx, conv2d_weight_grad_job *j) {
    const gri_conv *p = &j->c.p;
    const int64_t units = p->n * j->c.blocks, size = p->o * p->depth;
    int64_t most = (int64_t)(CONV2D_WEIGHT_GRAD_BYTES / sizeof(real)) / (size + 1);
    most = most < 1 ? 1 : most > CONV_PARTS ? CONV_PARTS : most;
    j->c.part = units ? (units + most - 1) / most : 1;
    j->parts = units ? (units + j->c.part - 1) / j->c.part : 1;
    j->c.pieces = j->parts * p->groups;
    const size_t biases = (size_t)(j->parts * p->o) * sizeof(double), sums = (size_t)(j->parts * size) * sizeof(real);
    void *memory = NULL;
    GR_TRY(conv_open(ctx, &j->c, j->c.w ? conv_padded_bytes(&j->c) : 0, biases + sums, false, &memory));
    j->bias_sums = memory;
    j->sums = (real *)(void *)((char *)memory + biases);
    if (units) conv_run(ctx, &j->c, conv2d_weight_grad_piece);
    else if (memory) memset(memory, 0, biases + sums);
    j->run = CONV2D_WEIGHT_GRAD_RUN / (p->og + 1) + 1;
    const int64_t runs = p->groups * ((p->depth + j->run - 1) / j->run);
    if (j->c.w) gri_parallel(ctx, runs, conv2d_weight_grad_join, j);
    if (j->c.b) conv2d_weight_grad_join_bias(j);
    conv_close(ctx, &j->c);
    return gri_poll(ctx);
}

static gr_status conv2d_weight_grad_kernel(gri_call *c) {
    const gri_conv2d_attrs *a = c->attrs;
    conv2d_weight_grad_job j = {0};
    GR_TRY(gri_conv_fit(c->ctx, a, a->shape.n, c->in[0]->dims, a->shape.v, &j.c.p));
    conv_plan(c, &j.c);
    j.c.x = (real *)c->in[0]->data;
    j.c.y = (real *)c->in[1]->data;
    j.c.w = c->out[0] ? (real *)c->out[0]->data : NULL;
    j.c.b = c->out[1] ? (real *)c->out[1]->data : NULL;
    return conv2d_weight_grad_sum(c->ctx, &j);
}

static gr_status conv2d_weight_grad_forward(gri_call *c) { return gri_dense(c, conv2d_weight_grad_kernel); }
GR_KERNEL(conv2d_weight_grad);

static gr_status conv2d_weight_grad_rule(gri_grad *g) {
    gr_tensor *v = g->dy[0], *bias = g->dy[1], *dy = g->in[1];
    if (v) {
        GR_TRY(gri_conv_emit_input(g, 0, dy, v, g->in[0]));
        return gri_conv_emit_output(g, 1, g->in[0], v, bias);
    }
    if (!gri_needs(g, 1)) return GR_OK;
    gri_shape_attrs flat = {{dy->rank, {1, bias->dims[0], 1, 1}}}, whole = {{.n = dy->rank}};
    memcpy(whole.shape.v, dy->dims, dy->rank * sizeof *dy->dims);
    GR_TRY(gri_eval(g, &bias, &gri_op_reshape, 1, &bias, &flat));
    GR_TRY(gri_eval(g, &bias, &gri_op_expand, 1, &bias, &whole));
    return gri_emit_same(g, 1, bias);
}

static const gr_attr conv2d_weight_grad_schema[] = {GRI_CONV2D_ATTRS, GRI_CONV2D_SHAPE, GR_ATTR_END};

static const gr_case conv2d_weight_grad_cases[] = {
    {.in = "1,1,3,3 1,1,2,2", .attrs = "shape={1,1,2,2}", .give = "{{{{1,2,3},{4,5,6},{7,8,9}}}}, {{{{1,2},{3,4}}}}",
     .want = "{{{{37,47},{67,77}}}}, {10}"},
    {.in = "2,3,5,5 2,4,5,5", .attrs = "shape={4,3,3,3}, padding=1"},
    {.in = "2,4,7,6 2,6,4,8", .attrs = "shape={6,2,3,2}, stride={2,1}, padding={1,2}, dilation={1,2}, groups=2"},
    {.in = "2,3,4,5 2,4,4,5", .attrs = "shape={4,3,1,1}"},
    {.in = "2,3,8 2,4,4", .attrs = "shape={4,3,3}, stride=2, padding=1"},
    {0}};

GR_OP(conv2d_weight_grad) = {
    .info = {.name = "conv2d_weight_grad", .inputs = "x dy", .attrs = conv2d_weight_grad_schema,
             .attr_size = sizeof(gri_conv2d_attrs), .hidden = true, .cases = conv2d_weight_grad_cases,
             .doc = "What conv2d's weight of the given shape, and its bias, get from dy"},
    .n_out = 2,
    .keeps = GRI_KEEP_IN(0) | GRI_KEEP_IN(1),
    .shape = conv2d_weight_grad_shape,
    .forward = conv2d_weight_grad_kernels,
    .backward = conv2d_weight_grad_rule,
};
