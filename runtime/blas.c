/* Matrix products: which kernel, where to cut. The only file that includes blis.h.
 *
 * Four ways to compute a product, chosen by its shape and strides:
 *   own    ops/gemm_small.c, tiles: up to middling sizes, and every layout that BLIS must not see;
 *   dots   ops/gemm_thin.c, sums along k: one side thin and both operands contiguous along k;
 *   outer  ops/gemm_outer.c: large, both operands by rows of k;
 *   large  BLIS, one thread per piece, on strides that blas_plain has looked at: its typed interface does not
 *          check them.
 * With the rows of a window (convolution) it is `own`, or, one side thin, gemm_thin of gemm_thin.c.
 * BLIS's own path for small matrices (`sup`) is always off: in 0.9 it reads beyond its operands. Of 6000 random
 * products with an unmapped page behind each matrix 197 in f32 touched one, with `sup` off none.
 *
 * A product is cut by its shape alone, and always computed in those pieces: the bits do not depend on the
 * number of threads. (They do not even depend on the cut, as far as was seen.) */
#include "blas.h"

#include <blis.h>

#include "op.h"
#include "scratch.h"

extern const gri_small_gemm gri_kernel_gemm_small_generic_f32, gri_kernel_gemm_dots_generic_f32,
    gri_kernel_gemm_thin_generic_f32;
extern const gri_outer_gemm gri_kernel_gemm_outer_generic_f32;
GRI_KERNEL_TABLE(gri_small_gemm, gemm_small)
GRI_KERNEL_TABLE(gri_small_gemm, gemm_dots)
GRI_KERNEL_TABLE(gri_small_gemm, gemm_thin)
GRI_KERNEL_TABLE(gri_outer_gemm, gemm_outer)

typedef enum blas_way { BLAS_OWN, BLAS_DOTS, BLAS_OUTER, BLAS_LARGE } blas_way;

static int64_t blas_min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t blas_max(int64_t a, int64_t b) { return a > b ? a : b; }
/* An odd number of parts, except 1, would leave one of two threads idle at the end. */
static int64_t blas_even(int64_t n) { return n < 2 ? 1 : n & ~INT64_C(1); }

/* ---- layouts ---------------------------------------------------------------------------------------------- */

/* The stride of a dimension of size 1 means nothing: make it what a dense matrix would have. */
static void blas_settle(int64_t rows, int64_t cols, int64_t *rs, int64_t *cs) {
    if (rows == 1 && cols == 1) *rs = *cs = 1;
    else if (rows == 1) *rs = *cs == 1 ? cols : 1;
    else if (cols == 1) *cs = *rs == 1 ? rows : 1;
}

/* Rows and columns are nested, neither of them broadcast or overlapping. */
static bool blas_plain(int64_t rows, int64_t cols, int64_t rs, int64_t cs) {
    if (rs < 1 || cs < 1) return false;
    return rs >= cs * cols || cs >= rs * rows || rows == 1 || cols == 1;
}

/* The same product with c row-major if it is one of the two, and no meaningless strides. *turned: a and b have
 * changed places. */
static gri_gemm blas_normal(const gri_gemm *given, bool *turned) {
    gri_gemm g = *given;
    blas_settle(g.m, g.k, &g.rsa, &g.csa);
    blas_settle(g.k, g.n, &g.rsb, &g.csb);
    blas_settle(g.m, g.n, &g.rsc, &g.csc);
    *turned = g.csc != 1 && g.rsc == 1;
    if (!*turned) return g;
    return (gri_gemm){.dtype = g.dtype, .m = g.n, .n = g.m, .k = g.k, .a = g.b, .rsa = g.csb, .csa = g.rsb,
                      .b = g.a, .rsb = g.csa, .csb = g.rsa, .c = g.c, .rsc = g.csc, .csc = g.rsc, .beta = g.beta,
                      .bias = g.bias};
}

/* ---- one product ------------------------------------------------------------------------------------------ */

/* GF/s on one Zen 4 core with 512 bits, f32, x W^T / dy W / dy^T x:
 *                     own             large
 *   64x64x64         98 106 106       60  61  61
 *   64x256x784      100 110 110       94  95  94
 *   256x784x64      104 106 106      102 103 102
 *   64x128x3136      98 111 111       90  91  91
 *   2048x64x784     110 111 101       95  94  73   in f64 own: 50 38 23, large: 44 44 39
 *   2048x128x512    110 112 106      102 102  90
 *   128x1024x1024    94 100 100       99 100 100
 *   256x2048x784     95  98  97      105 104 104
 *   2048x2048x256    97  98  98      110 111 110
 *   2048x512x128    100  96  93      106 103 101   with a bias, own writes c once where large needs it written before
 * and x W^T            own   dots  large
 *   256x1x784          14    50      4
 *   256x4x256          44    67     16
 *   256x10x784         63    78     35
 * and dy^T x          outer  large   in f64
 *   1024x64x2048        85    69     44  38
 *   1024x256x2048      102    95     50  49
 *   2048x128x512        99    82     49  44
 *   2048x2048x256      107   104     52  49 */
static blas_way blas_choose(gri_isa isa, const gri_gemm *g) {
    int64_t volume = g->m * g->n * g->k, thin = blas_min(g->m, g->n);
    if (!blas_plain(g->m, g->k, g->rsa, g->csa) || !blas_plain(g->k, g->n, g->rsb, g->csb) ||
        !blas_plain(g->m, g->n, g->rsc, g->csc))
        return BLAS_OWN;
    if (thin <= 10 && g->k >= 32 * thin && g->csa == 1 && g->rsb == 1) return BLAS_DOTS;
    if (isa == GRI_GENERIC) return volume <= 32 * 32 * 32 ? BLAS_OWN : BLAS_LARGE;
    if (volume <= 1 << 25 || g->m <= 64 || (g->n <= 128 && g->csa == 1)) return BLAS_OWN;
    if (g->bias && g->dtype == GR_F32 && g->n <= 512 && g->k <= 256) return BLAS_OWN;
    return g->rsa == 1 && g->csb == 1 && g->csc == 1 ? BLAS_OUTER : BLAS_LARGE;
}

static void blas_blis(const gri_gemm *g) {
    rntm_t r;
    bli_rntm_init(&r);
    bli_rntm_set_num_threads_only(1, &r);
    bli_rntm_set_ways_only(1, 1, 1, 1, 1, &r);
    bli_rntm_set_l3_sup(FALSE, &r);
    if (g->dtype == GR_F32) {
        float one = 1, beta = (float)g->beta;
        bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, g->m, g->n, g->k, &one, (void *)(uintptr_t)g->a, g->rsa,
                     g->csa, (void *)(uintptr_t)g->b, g->rsb, g->csb, &beta, g->c, g->rsc, g->csc, NULL, &r);
    } else {
        double one = 1, beta = g->beta;
        bli_dgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, g->m, g->n, g->k, &one, (void *)(uintptr_t)g->a, g->rsa,
                     g->csa, (void *)(uintptr_t)g->b, g->rsb, g->csb, &beta, g->c, g->rsc, g->csc, NULL, &r);
    }
}

static int blas_variant(gri_isa isa, const gri_gemm *g) { return (g->dtype == GR_F32 ? 0 : GRI_ISAS) + (int)isa; }

/* A small product with a thin side leaves half of a 512-bit vector empty: 100x5x10 takes 0.46 us with 256
 * bits, 0.9 with 512. Both sum in the same order with the same roundings. */
static void blas_own(gri_isa isa, const gri_gemm *g) {
    int64_t bytes = blas_min(g->m, g->n) * (g->dtype == GR_F32 ? 4 : 8);
    if (isa == GRI_AVX512 && bytes > 8 && bytes <= 32 && g->m * g->n * g->k <= 1 << 16) isa = GRI_AVX2;
    (*gemm_small_kernels[blas_variant(isa, g)])(g);
}

/* c = beta * c, for k = 0. */
static void blas_scale(const gri_gemm *g) {
    if (g->beta) return;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            int64_t at = i * g->rsc + j * g->csc;
            if (g->dtype == GR_F32) ((float *)g->c)[at] = 0;
            else ((double *)g->c)[at] = 0;
        }
}

/* room: for BLAS_OUTER. */
static void blas_product(gri_isa isa, const gri_gemm *g, blas_way way, gri_scratch *room) {
    if (g->m == 0 || g->n == 0) return;
    if (g->k == 0) blas_scale(g);
    else if (way == BLAS_OWN) blas_own(isa, g);
    else if (way == BLAS_DOTS) (*gemm_dots_kernels[blas_variant(isa, g)])(g);
    else if (way == BLAS_LARGE) blas_blis(g);
    else {
        void *buffer = gri_scratch_claim(room);
        (*gemm_outer_kernels[blas_variant(isa, g)])(g, buffer);
        gri_scratch_return(room, buffer);
    }
}

/* With the rows of a window. */
static void blas_window(gri_isa isa, const gri_gemm *g) {
    bool thin = g->b_rows ? g->m <= 3 : g->n <= 4 && g->rsb == 1;
    if (g->k == 0) blas_product(isa, g, BLAS_OWN, NULL);
    else (*(thin ? gemm_thin_kernels : gemm_small_kernels)[blas_variant(isa, g)])(g);
}

void gri_gemm_piece(gri_isa isa, const gri_gemm *given) {
    bool turned;
    if (given->a_rows || given->b_rows) {
        blas_window(isa, given);
        return;
    }
    gri_gemm g = blas_normal(given, &turned);
    blas_way way = blas_choose(isa, &g);
    blas_product(isa, &g, way == BLAS_OUTER ? BLAS_LARGE : way, NULL);
}

/* ---- pieces ----------------------------------------------------------------------------------------------- */

typedef struct blas_job {
    gri_gemm g;
    const gr_ctx *ctx;             /* asked only whether it was interrupted: the op then fails (gri_run) */
    gri_isa isa;
    blas_way way;
    gri_scratch room;
    int64_t count, group;          /* products; of those, in one piece */
    const int64_t (*offsets)[3];   /* of a, b and c as given; NULL: one product */
    bool turned;                   /* g.a is the given b */
    int64_t rows, cols;            /* parts of c, by rows and by columns */
} blas_job;

#define BLAS_ROWS 12 /* parts begin at multiples of a tile of the kernels: 12 x 32 (own), 6 x 16 (BLIS) */
#define BLAS_COLS 16

/* Where part i of `parts` begins. */
static int64_t blas_mark(int64_t size, int64_t unit, int64_t parts, int64_t i) {
    int64_t units = (size + unit - 1) / unit;
    return blas_min(size, units * i / parts * unit);
}

static void blas_shift(gri_gemm *g, int64_t a, int64_t b, int64_t c) {
    int64_t size = g->dtype == GR_F32 ? 4 : 8;
    g->a = (const char *)g->a + a * size;
    g->b = (const char *)g->b + b * size;
    g->c = (char *)g->c + c * size;
}

static void blas_piece(void *arg, int64_t piece) {
    blas_job *job = arg;
    int64_t parts = job->rows * job->cols, first = piece / parts * job->group;
    int64_t row = piece % parts % job->rows, col = piece % parts / job->rows;
    int64_t top = blas_mark(job->g.m, BLAS_ROWS, job->rows, row);
    int64_t left = blas_mark(job->g.n, BLAS_COLS, job->cols, col);
    for (int64_t p = first; p < job->count && p < first + job->group && !gr_interrupted(job->ctx); p++) {
        gri_gemm g = job->g;
        g.m = blas_mark(g.m, BLAS_ROWS, job->rows, row + 1) - top;
        g.n = blas_mark(g.n, BLAS_COLS, job->cols, col + 1) - left;
        blas_shift(&g, top * g.rsa, left * g.csb, top * g.rsc + left * g.csc);
        if (g.bias) g.bias = (const char *)g.bias + left * (g.dtype == GR_F32 ? 4 : 8);
        const int64_t *o = job->offsets ? job->offsets[p] : NULL;
        if (o) blas_shift(&g, o[job->turned], o[!job->turned], o[2]);
        blas_product(job->isa, &g, job->way, &job->room);
    }
}

/* How many pieces, from the shape alone. Columns first: a part of the rows packs all of b again, which costs own
 * 20 % at 32 rows; a part of the columns makes BLIS pack a again, 4 % at 256 columns, which is the price for
 * pieces enough for 16 threads. Outer, rows first: to pack a costs it more. A piece is at least 2^17
 * multiplications, about 1.3 us.
 *
 * GF/s on one and on two threads, f32, 512 bits, x W^T / dy W / dy^T x:
 *   64x64x64         97 104 105   177 185 187
 *   64x128x256      102 112 112   192 218 219
 *   64x256x784      100 110 110   200 218 218
 *   256x784x64      104 106 106   203 207 208
 *   64x128x3136      99 110 111   197 220 218
 *   256x10x2048      70  46  80   136  86 148
 *   512x512x512     107 107 103   212 212 208
 *   256x2048x784    101 101 100   203 201 198
 *   256x2048x2048    97  92  92   194 191 193
 *   2048x2048x256   107 105  97   212 212 207
 *   2048x128x384    109 112 108   221 225 220 */
static void blas_cut(blas_job *job) {
    const gri_gemm *g = &job->g;
    int64_t volume = g->m * g->n * g->k, want = blas_min(16, volume >> 17), wide = 32, tall = 64;
    if (job->way == BLAS_DOTS) tall = 24;
    if (job->way >= BLAS_OUTER) {
        want = blas_min(want, blas_max(2, volume >> 26));
        wide = g->n >= 512 ? 256 : 96;
        tall = g->m >= 512 ? 256 : 96;
    }
    want = blas_even(want / blas_min(16, job->count));
    job->rows = job->way == BLAS_OUTER ? blas_even(blas_min(want, g->m / 96)) : 1;
    job->cols = blas_even(blas_min(want / job->rows, g->n / wide));
    if (job->way != BLAS_OUTER) job->rows = blas_even(blas_min(want / job->cols, g->m / tall));
    job->group = blas_max(1, blas_min((1 << 17) / blas_max(1, volume), job->count / 16));
}

static void blas_run(gr_ctx *ctx, const gri_gemm *given, int64_t count, const int64_t (*offsets)[3]) {
    if (given->m == 0 || given->n == 0 || count == 0) return;
    blas_job job = {.ctx = ctx, .isa = ctx->isa, .count = count, .offsets = offsets};
    job.g = blas_normal(given, &job.turned);
    job.way = blas_choose(ctx->isa, &job.g);
    size_t room = job.way == BLAS_OUTER ? (size_t)GRI_OUTER_ROOM * gri_size(job.g.dtype) : 0;
    if (!gri_scratch_try(ctx, &job.room, room)) job.way = BLAS_LARGE;
    blas_cut(&job);
    int64_t pieces = (count + job.group - 1) / job.group * job.rows * job.cols;
    bool brief = given->m * given->n * given->k * count < 1 << 20; /* 10-20 us on one thread */
    (brief ? gri_parallel_brief : gri_parallel)(ctx, pieces, blas_piece, &job);
    if (job.way == BLAS_OUTER) gri_scratch_close(ctx, &job.room);
}

bool gri_gemm_takes_bias(const gr_ctx *ctx, const gri_gemm *given) {
    bool turned;
    gri_gemm g = blas_normal(given, &turned);
    return !turned && g.csc == 1 && g.k > 0 && blas_choose(ctx->isa, &g) == BLAS_OWN;
}

void gri_gemm_run(gr_ctx *ctx, const gri_gemm *g) { blas_run(ctx, g, 1, NULL); }

void gri_gemm_batch(gr_ctx *ctx, const gri_gemm *g, int64_t count, const int64_t (*offsets)[3]) {
    blas_run(ctx, g, count, offsets);
}

const char *gr_blas_version(void) { return bli_info_get_version_str(); }
