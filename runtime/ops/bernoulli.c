/* y[i] = 1 with probability p, else 0, in any dtype: one random word an element, compared with 2^32 p rounded
 * to a whole number. So p is met to 2^-33; 0 and 1 exactly. The same elements are 1 in every dtype.
 *
 * No inputs, no derivative. */
#include <math.h>
#include <string.h>

#include "draw.h"

static gr_status bernoulli_shape(gri_call *c) {
    const gri_bernoulli_attrs *a = c->attrs;
    GR_TRY(gri_shape_draw(c, false));
    if (!(a->p >= 0 && a->p <= 1)) return gr_fail(c->ctx, GR_ERR_ARG, "p = %g: expected 0 to 1", a->p);
    return GR_OK;
}

#define BERNOULLI_GROUP(type)                                                                              \
    for (int i = 0; i < 4; i++)                                                                            \
        for (int j = 0; j < GRI_GROUP_LANES; j++) ((type *)out)[i * GRI_GROUP_LANES + j] = w[i][j] <= most;

static void bernoulli_draw(void *out, int64_t first, int64_t groups, const void *attrs) {
    const gri_bernoulli_attrs *a = attrs;
    gr_dtype t = (gr_dtype)a->draw.dtype;
    size_t size = GRI_GROUP * gr_dtype_size(t);
    uint64_t ones = (uint64_t)rint(a->p * 0x1p32); /* of 2^32 words */
    uint32_t most = (uint32_t)(ones - 1);
    if (ones == 0) {
        memset(out, 0, (size_t)groups * size);
        return;
    }
    for (int64_t g = first; g < first + groups; g++, out = (char *)out + size) {
        gri_words w;
        gri_philox16((uint64_t)a->draw.seed, (uint64_t)a->draw.counter, (uint64_t)g * GRI_GROUP_LANES, w);
        switch (t) {
        case GR_F32: BERNOULLI_GROUP(float); break;
        case GR_F64: BERNOULLI_GROUP(double); break;
        case GR_I64: BERNOULLI_GROUP(int64_t); break;
        default: BERNOULLI_GROUP(uint8_t); break;
        }
    }
}

static gr_status bernoulli_forward(gri_call *c) { return gri_draw_fill(c, bernoulli_draw); }
GR_KERNEL(bernoulli);

static const gr_attr bernoulli_schema[] = {
    GRI_DRAW_ATTRS(gri_bernoulli_attrs),
    {"p", GR_ATTR_REAL, offsetof(gri_bernoulli_attrs, p), .value = 0.5, .min = 0, .max = 1},
    GR_ATTR_END};

static const gr_case bernoulli_cases[] = {
    {.in = "", .attrs = "shape={3}, p=1, seed=1, counter=2", .want = "{1,1,1}", .no_grad = true},
    {.in = "", .attrs = "shape={3}, p=0, seed=1, counter=2", .want = "{0,0,0}", .no_grad = true},
    {.in = "", .attrs = "shape={1}, p=0.3990464, seed=0, counter=0", .want = "{0}", .no_grad = true},
    {.in = "", .attrs = "shape={1}, p=0.3990466, seed=0, counter=0", .want = "{1}", .no_grad = true},
    {.in = "", .attrs = "shape={5,77}, p=0.3, dtype='u8', seed=1, counter=2", .no_grad = true},
    {0}};

GR_OP(bernoulli) = {
    .info = {.name = "bernoulli", .inputs = "", .attrs = bernoulli_schema, .attr_size = sizeof(gri_bernoulli_attrs),
             .cases = bernoulli_cases,
             .doc = "Ones with probability p, zeros otherwise. seed and counter name the draw: the same ones give "
                    "the same numbers."},
    .sets_only = true,
    .shape = bernoulli_shape,
    .forward = bernoulli_kernels,
};
