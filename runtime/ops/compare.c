/* y = 1 where a R b, else 0, as u8; broadcasting. R is =, ≠, <, ≤, > or ≥; with NaN only ≠ holds.
 *
 * Whole numbers are compared as i64, all others in the floating dtype that arithmetic on them would give. No
 * derivative: the result is constant almost everywhere. */
#include "iter.h"
#include "vmath.h"

static gr_status compare_map(gri_call *c, gri_loop reals, gri_loop wholes) {
    bool whole = !gri_is_float(c->in[0]) && !gri_is_float(c->in[1]);
    gr_dtype t = whole ? GR_I64 : GRI_REAL;
    return gri_map(c, whole ? wholes : reals, t, (gr_dtype[]){GR_U8, t, t}, GRI_EXACT);
}

#define COMPARE_LOOP(name, type, R)                                                              \
    static void name(int64_t n, void *const *p, const void *attrs) {                             \
        uint8_t *y = p[0];                                                                       \
        const type *a = p[1], *b = p[2];                                                         \
        (void)attrs;                                                                             \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = (uint8_t)(a[i] R b[i]); \
    }
#define COMPARE_KERNEL(name, R)                                                                           \
    COMPARE_LOOP(name##_reals, real, R)                                                                   \
    COMPARE_LOOP(name##_wholes, int64_t, R)                                                               \
    static gr_status name##_forward(gri_call *c) { return compare_map(c, name##_reals, name##_wholes); }  \
    GR_KERNEL(name)
COMPARE_KERNEL(eq, ==);
COMPARE_KERNEL(ne, !=);
COMPARE_KERNEL(lt, <);
COMPARE_KERNEL(le, <=);
COMPARE_KERNEL(gt, >);
COMPARE_KERNEL(ge, >=);

/* The same three positions in each: smaller, equal, larger; then NaN. */
#define COMPARE_CASES(name, smaller, equal, larger, nan)                                                      \
    static const gr_case name##_cases[] = {                                                                   \
        {.in = "4 4", .give = "{1, 2, 3, 0/0}, {2, 2, 2, 0/0}", .no_grad = true,                              \
         .want = "{" #smaller "," #equal "," #larger "," #nan "}"},                                           \
        {.in = "2,3,4 4", .no_grad = true},                                                                   \
        {.in = "3,1 1,5", .no_grad = true},                                                                   \
        {0}};
COMPARE_CASES(eq, 0, 1, 0, 0)
COMPARE_CASES(ne, 1, 0, 1, 1)
COMPARE_CASES(lt, 1, 0, 0, 0)
COMPARE_CASES(le, 1, 1, 0, 0)
COMPARE_CASES(gt, 0, 0, 1, 0)
COMPARE_CASES(ge, 0, 1, 1, 0)

#define COMPARE_OP(op, text)                                                                              \
    {                                                                                                     \
        .info = {.name = #op, .inputs = "a b", .cases = op##_cases,                                       \
                 .doc = "1 where " text ", else 0, as u8; element by element, broadcasting."},            \
        .elementwise = true, .shape = gri_shape_compare, .forward = op##_kernels,                         \
    }
GR_OP(eq) = COMPARE_OP(eq, "a is equal to b");
GR_OP(ne) = COMPARE_OP(ne, "a is not equal to b");
GR_OP(lt) = COMPARE_OP(lt, "a < b");
GR_OP(le) = COMPARE_OP(le, "a <= b");
GR_OP(gt) = COMPARE_OP(gt, "a > b");
GR_OP(ge) = COMPARE_OP(ge, "a >= b");
