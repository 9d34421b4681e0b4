/* Ops that draw random numbers: every element from its own position, whoever computes it. */
#ifndef GRI_DRAW_H
#define GRI_DRAW_H

#include "op.h"
#include "random.h"

/* What the ops that draw a whole shape begin their attribute structs with. seed and counter come from
 * gr_random_next. */
typedef struct gri_draw_attrs {
    gr_dims shape;
    int64_t dtype, seed, counter;
} gri_draw_attrs;

typedef struct gri_uniform_attrs { gri_draw_attrs draw; double lo, hi; } gri_uniform_attrs;
typedef struct gri_normal_attrs { gri_draw_attrs draw; double mean, std; } gri_normal_attrs;
typedef struct gri_bernoulli_attrs { gri_draw_attrs draw; double p; } gri_bernoulli_attrs;

#define GRI_DRAW_ATTRS(type)                                                                       \
    {"shape", GR_ATTR_SHAPE, offsetof(type, draw.shape), .required = true},                        \
    {"dtype", GR_ATTR_DTYPE, offsetof(type, draw.dtype), .value = GR_F32},                         \
    {"seed", GR_ATTR_INT, offsetof(type, draw.seed), .required = true},                            \
    {"counter", GR_ATTR_INT, offsetof(type, draw.counter), .required = true}

/* Shape rule for such attributes; with `floating`, f32 and f64 only. */
gr_status gri_shape_draw(gri_call *c, bool floating);

/* Writes elements GRI_GROUP * first .. GRI_GROUP * (first + groups) of the draw, contiguous, in the output's
 * dtype. */
typedef void (*gri_draw)(void *out, int64_t first, int64_t groups, const void *attrs);

/* Fills c->out[0] in row-major order, whatever its strides; in parallel. c->mode must be GRI_SET. */
gr_status gri_draw_fill(gri_call *c, gri_draw draw);

#endif
