/* The real type of a kernel variant and its vector mathematics.
 *
 * glibc declares its vector functions (libmvec) only under -ffast-math, which we refuse: NaN must stay NaN.
 * Declaring them here makes GCC call them in `#pragma omp simd` loops: tanhf 0.6-0.7 ns an element against
 * 11.2 for the scalar one, relative error 1e-7 (4 ulp at most), NaN and infinities right. */
#ifndef GRI_VMATH_H
#define GRI_VMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define GRI_SIMD __attribute__((simd("notinbranch")))

GRI_SIMD double log(double); /* in f32 kernels too, for sums that are double */

#ifdef GRI_F64
typedef double real;
#define GRI_REAL GR_F64
#define GRI_REAL_MAX 1.7976931348623157e308
GRI_SIMD double exp(double);
GRI_SIMD double pow(double, double);
GRI_SIMD double tanh(double);
GRI_SIMD double sin(double);
GRI_SIMD double cos(double);
GRI_SIMD double erf(double);
GRI_SIMD double erfc(double);
GRI_SIMD double expm1(double);
GRI_SIMD double log1p(double);
#define r_exp exp
#define r_log log
#define r_pow pow
#define r_tanh tanh
#define r_sin sin
#define r_cos cos
#define r_erf erf
#define r_erfc erfc
#define r_expm1 expm1
#define r_log1p log1p
#define r_sqrt sqrt
#define r_abs fabs
#define r_exp_falling exp
#define r_floor floor
#define r_ceil ceil
#define r_trunc trunc
#define r_rint rint
#define r_fma fma
#define r_fmod fmod
#define r_copysign copysign
#define r_nextafter nextafter
#else
typedef float real;
#define GRI_REAL GR_F32
#define GRI_REAL_MAX 3.40282347e38f
GRI_SIMD float expf(float);
GRI_SIMD float logf(float);
GRI_SIMD float powf(float, float);
GRI_SIMD float tanhf(float);
GRI_SIMD float sinf(float);
GRI_SIMD float cosf(float);
GRI_SIMD float erff(float);
GRI_SIMD float erfcf(float);
GRI_SIMD float expm1f(float);
GRI_SIMD float log1pf(float);
#define r_exp expf
#define r_log logf
#define r_pow powf
#define r_tanh tanhf
#define r_sin sinf
#define r_cos cosf
#define r_erf erff
#define r_erfc erfcf
#define r_expm1 expm1f
#define r_log1p log1pf
#define r_sqrt sqrtf
#define r_abs fabsf
#define r_floor floorf
#define r_ceil ceilf
#define r_trunc truncf
#define r_rint rintf
#define r_fma fmaf
#define r_fmod fmodf
#define r_copysign copysignf
#define r_nextafter nextafterf
/* e^x for x <= 0, as softmax and sigmoids want it; 0 below 2^-126, NaN stays NaN; relative error 1.1e-7.
 * x = n ln 2 + r, |r| <= ln 2 / 2: adding 1.5 * 2^23 rounds to n and leaves it in the low bits; a polynomial in r
 * (fitted: 2e-9). In line: 0.19 ns an element where a call of expf takes 0.27 (avx512), and below -87 2.6. */
static inline float r_exp_falling(float x) {
    float shifted = x * 1.44269504f + 0x1.8p23f, n = shifted - 0x1.8p23f, scale;
    float r = n * 2.12194440e-4f + (x - n * 0.693359375f); /* ln 2 in two parts, the first exact times n */
    float y = 1.3843606661867655e-3f;
    uint32_t bits;
    y = y * r + 8.374195619380569e-3f;
    y = y * r + 4.166800472644392e-2f;
    y = y * r + 0.166664308003537f;
    y = y * r + 0.49999994191646596f;
    y = y * r + 1.000000032258629f;
    y = y * r + 1;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    memcpy(&scale, &bits, sizeof scale);
    return x < -87.3365f ? 0 : y * scale;
}
#endif

/* For functions that reduce short rows across a vector's lanes: with half a vector, which AVX-512 machines join in
 * half the time, and fewer elements are left over. */
#ifdef __AVX512F__
#define GRI_MEDIUM __attribute__((target("prefer-vector-width=256")))
#else
#define GRI_MEDIUM
#endif

/* 1 / (1 + e^-x), from e^-|x|: nothing overflows. */
static inline real r_sigmoid(real x) {
    real z = r_exp_falling(-r_abs(x));
    return (x < 0 ? z : 1) / (1 + z);
}

/* From a towards b by a share t of the way: exact at both ends, and where a is b. */
static inline real r_lerp(real a, real b, real t) {
    return t < (real)0.5 ? a + t * (b - a) : b - (1 - t) * (b - a);
}

/* Every run is a multiple of GRI_LANES (iter.h); saying so spares the compiler a scalar tail. */
#define GRI_RUN(n) ((n) & ~(int64_t)15)

#endif
