/* Quantiles of the normal distribution, for erfinv and for draws between bounds: Wichura, "Algorithm AS 241: the
 * percentage points of the normal distribution", Applied Statistics 37 (1988), its formulas of 16 digits.
 *
 * Plain arithmetic: where a file is compiled without fused multiply-add, the same numbers on every CPU. */
#ifndef GRI_QUANTILE_H
#define GRI_QUANTILE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* ln u for 0 < u <= 1, u not denormal: u = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2), s = f / (2 + f), and a
 * polynomial in s² (coefficients of FreeBSD's msun, e_log.c). */
static inline double gri_log_unit(double u) {
    uint64_t bits;
    memcpy(&bits, &u, sizeof bits);
    bits += (uint64_t)1024 * ((uint64_t)1 << 52) - 0x3fe6a09e667f3bcdu; /* exponent of m below, kept positive */
    double k = (double)((int32_t)(bits >> 52) - 1024), m;
    bits = (bits & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu;
    memcpy(&m, &bits, sizeof m);
    double f = m - 1, s = f / (2 + f), z = s * s, w = z * z, half = 0.5 * f * f;
    double even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
    double odd = z * (6.666666666666735130e-01 + w * (2.857142874366239149e-01 +
                      w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    return k * 6.93147180369123816490e-01 - ((half - (s * (half + even + odd) + k * 1.90821492927058770002e-10)) - f);
}

/* z where Φ(z) = 1/2 + q, |q| <= 0.425. */
static inline double gri_quantile_center(double q) {
    double r = 0.180625 - q * q, a = 2.5090809287301226727e+3, b = 5.2264952788528545610e+3;
    a = a * r + 3.3430575583588128105e+4, b = b * r + 2.8729085735721942674e+4;
    a = a * r + 6.7265770927008700853e+4, b = b * r + 3.9307895800092710610e+4;
    a = a * r + 4.5921953931549871457e+4, b = b * r + 2.1213794301586595867e+4;
    a = a * r + 1.3731693765509461125e+4, b = b * r + 5.3941960214247511077e+3;
    a = a * r + 1.9715909503065514427e+3, b = b * r + 6.8718700749205790830e+2;
    a = a * r + 1.3314166789178437745e+2, b = b * r + 4.2313330701600911252e+1;
    a = a * r + 3.3871328727963666080e+0, b = b * r + 1;
    return q * a / b;
}

/* z where 1 - Φ(z) = e^(-r²): 0.075 and less, r from 1.6 on, to 27. */
static inline double gri_quantile_tail(double r) {
    bool far = r > 5;
    double a = far ? 2.01033439929228813265e-7 : 7.74545014278341407640e-4;
    double b = far ? 2.04426310338993978564e-15 : 1.05075007164441684324e-9;
    r -= far ? 5 : 1.6;
    a = a * r + (far ? 2.71155556874348757815e-5 : 2.27238449892691845833e-2);
    b = b * r + (far ? 1.42151175831644588870e-7 : 5.47593808499534494600e-4);
    a = a * r + (far ? 1.24266094738807843860e-3 : 2.41780725177450611770e-1);
    b = b * r + (far ? 1.84631831751005468180e-5 : 1.51986665636164571966e-2);
    a = a * r + (far ? 2.65321895265761230930e-2 : 1.27045825245236838258e+0);
    b = b * r + (far ? 7.86869131145613259100e-4 : 1.48103976427480074590e-1);
    a = a * r + (far ? 2.96560571828504891230e-1 : 3.64784832476320460504e+0);
    b = b * r + (far ? 1.48753612908506148525e-2 : 6.89767334985100004550e-1);
    a = a * r + (far ? 1.78482653991729133580e+0 : 5.76949722146069140550e+0);
    b = b * r + (far ? 1.36929880922735805310e-1 : 1.67638483018380384940e+0);
    a = a * r + (far ? 5.46378491116411436990e+0 : 4.63033784615654529590e+0);
    b = b * r + (far ? 5.99832206555887937690e-1 : 2.05319162663775882187e+0);
    a = a * r + (far ? 6.65790464350110377720e+0 : 1.42343711074968357734e+0);
    return a / (b * r + 1);
}

#endif
