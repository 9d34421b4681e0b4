/* What the kernels of convolution share: how images are cut, and the column matrix as an operand of a product.
 *
 * The column matrix of one image and group, K = c/groups kh kw rows by L = oh ow columns, holds what each output
 * reads. It is never made: the operand is the image with its margins (padded.h), a block of output rows at a time so
 * that it stays in the second-level cache; for a 1x1 kernel that moves by one, the planes themselves. */
#ifndef GRI_CONV_JOB_H
#define GRI_CONV_JOB_H

#include "blas.h"
#include "conv.h"
#include "padded.h"
#include "scratch.h"

#define CONV_PARTS 16
#define CONV_PADDED_BYTES ((int64_t)384 << 10)
#define CONV_COLUMNS 128 /* a product with fewer is slow */
#define CONV_PANEL 32    /* the product takes columns by that many */
#define CONV_BRIEF 1e6   /* multiplications: 10-20 us on one thread */

typedef struct conv_job {
    gri_conv p;
    gri_isa isa;
    bool add, planes;     /* planes: they are the columns */
    real *x, *w, *b, *y;  /* b may be NULL */
    int64_t wr, wc;       /* strides of a group's w[o/groups, K] */
    int64_t rows, blocks; /* output rows in a block; blocks in an image */
    int64_t pieces, part; /* of the work; channels or units in a piece */
    padded pad;
    gri_gemm_rows columns; /* rows of the column matrix in pad */
    gri_scratch scratch;   /* padded images and the like */
    void *block;           /* memory of the job: columns.at, and what more was wanted */
    size_t capacity;
} conv_job;

/* Rows in a block: few enough for the cache, whole panels if it can be, and some pieces even of a single image. */
static inline void conv_cut(conv_job *j) {
    const gri_conv *p = &j->p;
    const int64_t width = p->w.out[1] ? p->w.out[1] : 1, height = p->w.out[0] ? p->w.out[0] : 1;
    const padded one = padded_of(&p->w, p->cg, 1, 0);
    const int64_t row = p->cg * one.phases[0] * one.phases[1] * one.width + 1, images = p->n * p->groups;
    int64_t most = CONV_PADDED_BYTES / (int64_t)sizeof(real) / row - one.height;
    const int64_t least = (CONV_COLUMNS + width - 1) / width, even = CONV_PANEL / (width & -width);
    if (images < CONV_PARTS && images && most > height * images / CONV_PARTS) most = height * images / CONV_PARTS;
    if (most < least) most = least;
    if (even > 1 && most > 2 * even) most -= most % even;
    if (most > height) most = height;
    j->blocks = (height + most - 1) / most;
    j->rows = most;
}

/* From j->p: how it is computed and how it is cut. */
static inline void conv_plan(gri_call *c, conv_job *j) {
    const gri_window *k = &j->p.w;
    j->isa = c->ctx->isa;
    j->add = c->mode == GRI_ADD;
    j->planes = true;
    for (int i = 0; i < 2; i++) j->planes = j->planes && k->kernel[i] == 1 && k->stride[i] == 1 && k->padding[i] == 0;
    conv_cut(j);
    j->pad = padded_of(k, j->p.cg, j->rows, GRI_GEMM_SLACK);
}

/* Memory: `bytes` of scratch for each piece, and `more` for all of them, *out, 64-byte aligned. Also where the rows
 * of the column matrix begin; turned: with the taps in the other order. */
static inline gr_status conv_open(gr_ctx *ctx, conv_job *j, size_t bytes, size_t more, bool turned, void **out) {
    const gri_conv *p = &j->p;
    const int64_t kh = p->w.kernel[0], kw = p->w.kernel[1];
    const size_t table = j->planes ? 0 : ((size_t)p->depth * sizeof(int64_t) + 63) & ~(size_t)63;
    if (table + more) {
        j->block = gri_block_new(ctx, table + more, &j->capacity);
        if (!j->block)
            return gr_fail(ctx, GR_ERR_MEMORY, "out of memory: %zu bytes of scratch wanted, %zu in use", table + more,
                           ctx->live);
    }
    if (out) *out = (char *)j->block + table;
    int64_t *at = j->block;
    j->columns = (gri_gemm_rows){at, p->w.out[1], j->pad.width};
    for (int64_t c = 0; c < (table ? p->cg : 0); c++)
        for (int64_t i = 0; i < kh; i++)
            for (int64_t k = 0; k < kw; k++)
                *at++ = c * j->pad.plane + padded_tap(&j->pad, turned ? kh - 1 - i : i, turned ? kw - 1 - k : k);
    gr_status s = gri_scratch_open(ctx, &j->scratch, bytes);
    if (s != GR_OK) gri_block_delete(ctx, j->block, j->capacity);
    return s;
}

static inline void conv_close(gr_ctx *ctx, conv_job *j) {
    gri_scratch_close(ctx, &j->scratch);
    gri_block_delete(ctx, j->block, j->capacity);
}

static inline size_t conv_padded_bytes(const conv_job *j) {
    return j->planes ? 0 : (size_t)j->pad.floats * sizeof(real);
}

static inline void conv_run(gr_ctx *ctx, conv_job *j, gri_piece_fn fn) {
    const gri_conv *p = &j->p;
    bool brief = (double)(p->n * p->o * p->length) * (double)p->depth < CONV_BRIEF;
    (brief ? gri_parallel_brief : gri_parallel)(ctx, j->pieces, fn, j);
}

/* A block of output rows of one image's group. */
typedef struct conv_unit {
    int64_t from, columns; /* the first row; elements of the block in one channel */
    real *x, *y;           /* the group's first input plane; the block's first output */
} conv_unit;

static inline conv_unit conv_unit_of(const conv_job *j, int64_t image, int64_t group, int64_t block) {
    const gri_conv *p = &j->p;
    int64_t from = block * j->rows, to = from + j->rows < p->w.out[0] ? from + j->rows : p->w.out[0];
    return (conv_unit){.from = from, .columns = (to - from) * p->w.out[1],
                       .x = j->x + (image * p->c + group * p->cg) * p->w.in[0] * p->w.in[1],
                       .y = j->y + (image * p->o + group * p->og) * p->length + from * p->w.out[1]};
}

/* The unit's column matrix: what the product reads it from, claimed unless it is the planes. */
static inline const real *conv_columns(conv_job *j, const conv_unit *u) {
    if (j->planes) return u->x + u->from * j->p.w.in[1];
    real *image = gri_scratch_claim(&j->scratch);
    padded_fill(&j->pad, u->x, u->from, image);
    return image;
}

static inline void conv_columns_return(conv_job *j, const real *columns) {
    if (!j->planes) gri_scratch_return(&j->scratch, columns);
}

#endif
