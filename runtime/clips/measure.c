/* measure: the p-norm of gradients, and the kernel by which every clip knows them.
 *
 *   sum = Σ (|x| / unit)^p,  peak = max |x|;   p = inf takes the peak alone
 *
 * In double. For f32 gradients and p = 1, 2, 3 nothing can overflow or vanish (3.4e38³ = 4e115,
 * 1.4e-45³ = 3e-135), so that one pass with unit 1 is exact; clip.c says when a second one, with the peak as
 * unit, is wanted. The same pass finds what is not finite: the sum is NaN if and only if an element is, and
 * then the peak means nothing; otherwise the peak is infinite if and only if an element is. */
#include <string.h>

#include "clip.h"
#include "vmath.h"

#ifndef GRI_F64
GRI_SIMD double pow(double, double);
#endif

typedef struct measure_attrs {
    double p;
    bool error_if_nonfinite;
} measure_attrs;

static const gr_attr measure_schema[] = {
    {"p", GR_ATTR_REAL, offsetof(measure_attrs, p), .value = 2, .max = INFINITY},
    {"error_if_nonfinite", GR_ATTR_BOOL, offsetof(measure_attrs, error_if_nonfinite), .value = 0},
    GR_ATTR_END};

/* Partial sums side by side, so that many additions are under way at a time and every CPU adds in the same order.
 * A block adds up four rows of lanes before it touches the sums. Measured on one thread, 42 MB of f32: 1.17 ms,
 * with one row 1.57, a bare read 0.78; what remains is the conversion to double. */
#define MEASURE_LANES 32
#define MEASURE_BLOCK (4 * MEASURE_LANES)

typedef struct measure_lanes {
    double sum[MEASURE_LANES];
    real peak[MEASURE_LANES];
} measure_lanes;

#define MEASURE_INLINE static inline __attribute__((always_inline)) /* power and unit are constants inside */

MEASURE_INLINE double measure_term(double a, double p, int power) {
    return power == 1 ? a : power == 2 ? a * a : power == 3 ? a * a * a : pow(a, p);
}

#define MEASURE_TERM(a) measure_term(unit ? (double)(a) : (double)(a) / divisor, p, power)
#define MEASURE_MAX(a, b) ((a) > (b) ? (a) : (b))

/* n is a multiple of MEASURE_BLOCK. power: p if it is 1, 2 or 3, else 0. */
MEASURE_INLINE void measure_blocks(int64_t n, const real *x, double p, int power, bool unit, double divisor,
                                   measure_lanes *out) {
    measure_lanes l = *out;
    for (; n > 0; n -= MEASURE_BLOCK, x += MEASURE_BLOCK) {
#pragma omp simd
        for (int k = 0; k < MEASURE_LANES; k++) {
            real a = r_abs(x[k]), b = r_abs(x[k + MEASURE_LANES]);
            real c = r_abs(x[k + 2 * MEASURE_LANES]), d = r_abs(x[k + 3 * MEASURE_LANES]);
            l.sum[k] += (MEASURE_TERM(a) + MEASURE_TERM(b)) + (MEASURE_TERM(c) + MEASURE_TERM(d));
            l.peak[k] = MEASURE_MAX(l.peak[k], MEASURE_MAX(MEASURE_MAX(a, b), MEASURE_MAX(c, d)));
        }
    }
    *out = l;
}

static void measure_run(int64_t n, const real *x, double p, double unit, measure_lanes *l) {
    if (p == 2 && unit == 1) measure_blocks(n, x, p, 2, true, 1, l);
    else if (p == 1 && unit == 1) measure_blocks(n, x, p, 1, true, 1, l);
    else if (p == 3 && unit == 1) measure_blocks(n, x, p, 3, true, 1, l);
    else if (p == 2) measure_blocks(n, x, p, 2, false, unit, l);
    else if (p == 1) measure_blocks(n, x, p, 1, false, unit, l);
    else if (p == 3) measure_blocks(n, x, p, 3, false, unit, l);
    else measure_blocks(n, x, p, 0, false, unit, l);
}

/* c: p, unit. */
static void clip_measure_forward(int64_t n, void *grad, const double *c, gri_clip_sum *sum) {
    measure_lanes l = {{0}, {0}};
    const real *x = grad;
    int64_t whole = n - n % MEASURE_BLOCK;
    if (whole) measure_run(whole, x, c[0], c[1], &l);
    if (whole < n) { /* zeros add nothing to any of it */
        real tail[MEASURE_BLOCK];
        size_t rest = (size_t)(n - whole);
        memcpy(tail, x + whole, rest * sizeof *x);
        memset(tail + rest, 0, (MEASURE_BLOCK - rest) * sizeof *x);
        measure_run(MEASURE_BLOCK, tail, c[0], c[1], &l);
    }
    for (int half = MEASURE_LANES / 2; half > 0; half /= 2) {
#pragma omp simd
        for (int k = 0; k < half; k++) {
            l.sum[k] += l.sum[k + half];
            l.peak[k] = MEASURE_MAX(l.peak[k], l.peak[k + half]);
        }
    }
    *sum = (gri_clip_sum){l.sum[0], (double)l.peak[0]};
}
GR_CLIP_KERNEL(measure);

GR_CLIP(measure) = {
    .info = {.name = "measure", .attrs = measure_schema, .attr_size = sizeof(measure_attrs),
             .doc = "The p-norm of all gradients together; touches nothing. NaN or infinite if a gradient is, unless "
                    "error_if_nonfinite is set."},
    .forward = clip_measure_kernels,
};
