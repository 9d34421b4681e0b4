/* The vectors that the kernels for matrix products work with, as wide as the CPU variant has them. */
#ifndef GRI_GEMM_H
#define GRI_GEMM_H

#include "blas.h"
#include "vmath.h"

#if defined(__AVX512F__)
#define GEMM_BYTES 64
#define GEMM_ROWS 12 /* of 32 registers, 24 hold c */
#elif defined(__AVX2__)
#define GEMM_BYTES 32
#define GEMM_ROWS 6 /* of 16 registers, 12 hold c */
#else
#define GEMM_BYTES 16
#define GEMM_ROWS 6
#endif
#define GEMM_LANES (GEMM_BYTES / (int)sizeof(real))
#define GEMM_QUAD (16 / (int)sizeof(real))

/* Vectors in registers, and the same in memory at any element's address. */
typedef real gemm_vec __attribute__((vector_size(GEMM_BYTES)));
typedef real gemm_half __attribute__((vector_size(GEMM_BYTES / 2)));
typedef real gemm_quad __attribute__((vector_size(16)));
typedef real gemm_vec_at __attribute__((vector_size(GEMM_BYTES), aligned(sizeof(real)), may_alias));
typedef real gemm_half_at __attribute__((vector_size(GEMM_BYTES / 2), aligned(sizeof(real)), may_alias));
typedef real gemm_quad_at __attribute__((vector_size(16), aligned(sizeof(real)), may_alias));

#ifdef GRI_F64
typedef int64_t gemm_int;
#else
typedef int32_t gemm_int;
#endif
typedef gemm_int gemm_mask __attribute__((vector_size(GEMM_BYTES)));

static inline gemm_vec gemm_load(const real *p) { return *(const gemm_vec_at *)p; }
static inline void gemm_store(real *p, gemm_vec v) { *(gemm_vec_at *)p = v; }
static inline gemm_half gemm_load_half(const real *p) { return *(const gemm_half_at *)p; }
static inline void gemm_store_half(real *p, gemm_half v) { *(gemm_half_at *)p = v; }
static inline gemm_quad gemm_load_quad(const real *p) { return *(const gemm_quad_at *)p; }
static inline void gemm_store_quad(real *p, gemm_quad v) { *(gemm_quad_at *)p = v; }

/* Ones in the last n lanes, in the first n. */
static inline gemm_mask gemm_last(int64_t n) {
    gemm_mask lane = {0};
    for (int i = 0; i < GEMM_LANES; i++) lane[i] = i;
    return lane >= (gemm_int)(GEMM_LANES - n);
}
static inline gemm_mask gemm_first(int64_t n) { return ~gemm_last(GEMM_LANES - n); }
/* Zeros where the mask has none. */
static inline gemm_vec gemm_load_some(const real *p, gemm_mask mask) {
    return (gemm_vec)((gemm_mask)gemm_load(p) & mask);
}

static inline real gemm_sum(gemm_vec v) {
    real lanes[GEMM_LANES];
    gemm_store(lanes, v);
    gemm_quad sum = gemm_load_quad(lanes);
    for (int i = GEMM_QUAD; i < GEMM_LANES; i += GEMM_QUAD) sum += gemm_load_quad(lanes + i);
    gemm_store_quad(lanes, sum);
    return GEMM_QUAD == 4 ? (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) : lanes[0] + lanes[1];
}

/* The same product seen from the other side: c^T = b^T a^T. */
static inline gri_gemm gemm_turned(const gri_gemm *g) {
    return (gri_gemm){.dtype = g->dtype, .m = g->n, .n = g->m, .k = g->k, .a = g->b, .rsa = g->csb, .csa = g->rsb,
                      .b = g->a, .rsb = g->csa, .csb = g->rsa, .c = g->c, .rsc = g->csc, .csc = g->rsc,
                      .beta = g->beta};
}

#endif
