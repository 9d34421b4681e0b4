/* y = x, in memory of its own: clone always, contiguous only if x is not contiguous already.
 *
 * dx = dy. Nothing is kept. */
#include "iter.h"

static gr_status clone_rule(gri_grad *g) { return gri_emit_same(g, 0, g->dy[0]); }

/* ---- clone ---- */

static gr_status clone_shape(gri_call *c) {
    c->spec[0] = gri_spec_of(c->in[0]);
    return GR_OK;
}

static gr_status clone_forward(gri_call *c) { return gri_copy(c->ctx, c->out[0], c->in[0], c->mode); }
GR_KERNEL(clone);

static const gr_case clone_cases[] = {
    {.in = "2,2", .give = "{{1,2},{3,4}}", .want = "{{1,2},{3,4}}"},
    {.in = "3,4,5"},
    {.in = "()"},
    {0}};

GR_OP(clone) = {
    .info = {.name = "clone", .inputs = "x", .cases = clone_cases,
             .doc = "A copy of x in memory of its own, row-major. Its gradient is that of x."},
    .shape = clone_shape,
    .forward = clone_kernels,
    .backward = clone_rule,
};

/* ---- contiguous ---- */

static gr_status contiguous_view(gri_call *c) {
    gr_tensor *x = c->in[0];
    return x->contiguous ? gri_tensor_alias(x, &c->out[0]) : gri_tensor_dense(x, &c->out[0]);
}

static const gr_case contiguous_cases[] = {
    {.in = "2,2", .give = "{{1,2},{3,4}}", .want = "{{1,2},{3,4}}"},
    {.in = "3,4,5"},
    {0}};

GR_OP(contiguous) = {
    .info = {.name = "contiguous", .inputs = "x", .cases = contiguous_cases,
             .doc = "x itself if its elements lie in row-major order without gaps, else a copy that does."},
    .view = contiguous_view,
    .backward = clone_rule,
};
