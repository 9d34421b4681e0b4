/* isnan, isinf, isfinite: y = 1 where x is no number, infinite, neither; else 0, as u8. Whole numbers are finite. No
 * derivative: the result is constant almost everywhere. */
#include <math.h>

#include "iter.h"
#include "vmath.h"

#define ISNAN_KERNEL(name, value)                                                                            \
    static void name##_loop(int64_t n, void *const *p, const void *attrs) {                                  \
        uint8_t *y = p[0];                                                                                   \
        const real *x = p[1];                                                                                \
        (void)attrs;                                                                                         \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = (uint8_t)(value);                         \
    }                                                                                                        \
    static gr_status name##_forward(gri_call *c) {                                                           \
        return gri_map(c, name##_loop, GRI_REAL, (gr_dtype[]){GR_U8, GRI_REAL}, GRI_EXACT);                  \
    }                                                                                                        \
    GR_KERNEL(name)
ISNAN_KERNEL(isnan, x[i] != x[i]);
ISNAN_KERNEL(isinf, r_abs(x[i]) == (real)INFINITY);
ISNAN_KERNEL(isfinite, r_abs(x[i]) < (real)INFINITY);

#define ISNAN_CASES(name, nan, inf, finite)                                                                  \
    static const gr_case name##_cases[] = {                                                                  \
        {.in = "6", .give = "{0/0, 1/0, -1/0, 3e38, 0, -2}", .no_grad = true,                                \
         .want = "{" #nan "," #inf "," #inf "," #finite "," #finite "," #finite "}"},                        \
        {.in = "i64:2", .give = "{9007199254740993, -1}", .want = "{" #finite "," #finite "}",               \
         .no_grad = true},                                                                                   \
        {.in = "3,5", .no_grad = true},                                                                      \
        {0}};
ISNAN_CASES(isnan, 1, 0, 0)
ISNAN_CASES(isinf, 0, 1, 0)
ISNAN_CASES(isfinite, 0, 0, 1)

#define ISNAN_OP(op, text)                                                                                   \
    {                                                                                                        \
        .info = {.name = #op, .inputs = "x", .cases = op##_cases,                                            \
                 .doc = "1 where an element is " text ", else 0, as u8."},                                   \
        .elementwise = true, .shape = gri_shape_compare, .forward = op##_kernels,                            \
    }
GR_OP(isnan) = ISNAN_OP(isnan, "NaN");
GR_OP(isinf) = ISNAN_OP(isinf, "inf or -inf");
GR_OP(isfinite) = ISNAN_OP(isfinite, "neither NaN nor infinite");
