#include "accumulate.h"

#include <string.h>

#include "copy.h"

/* t (+1, taken) with the slot's shape and dtype. */
static gr_status accumulate_conform(gr_ctx *ctx, const gri_spec *s, gr_tensor *t, gr_tensor **out) {
    if (!gri_same_dims(s->rank, s->dims, t->rank, t->dims)) {
        gri_shape_attrs a = {.shape = {.n = s->rank}};
        gr_tensor *sum;
        memcpy(a.shape.v, s->dims, sizeof s->dims);
        gr_status st = gr_apply(ctx, &gri_op_sum_to, 1, &t, &a, &sum);
        gr_release(t);
        GR_TRY(st);
        t = sum;
    }
    if (t->dtype != (uint8_t)s->dtype) {
        gri_dtype_attrs a = {s->dtype};
        gr_tensor *cast;
        gr_status st = gr_apply(ctx, &gri_op_to, 1, &t, &a, &cast);
        gr_release(t);
        GR_TRY(st);
        t = cast;
    }
    *out = t;
    return GR_OK;
}

gr_status gri_slot_add(gr_ctx *ctx, gri_slot *s, gr_tensor *t, bool create) {
    gr_tensor *sum;
    GR_TRY(accumulate_conform(ctx, &s->spec, t, &t));
    if (!s->grad) {
        s->grad = t;
        return GR_OK;
    }
    if (!create && !s->grad->node && gri_exclusive(s->grad)) {
        gr_status st = gri_copy(ctx, s->grad, t, GRI_ADD);
        gr_release(t);
        return st;
    }
    gr_status st = gr_apply(ctx, &gri_op_add, 2, GRI_TENSORS(s->grad, t), NULL, &sum);
    gr_release(t);
    GR_TRY(st);
    gr_release(s->grad);
    s->grad = sum;
    return GR_OK;
}

gr_status gri_slot_run(gri_call *c, gri_slot *s, bool *done) {
    const gri_spec *r = &c->spec[0];
    *done = false;
    if (!gri_same_dims(r->rank, r->dims, s->spec.rank, s->spec.dims)) return GR_OK;
    if (r->dtype != s->spec.dtype && !c->op->elementwise) return GR_OK;
    if (s->grad && (c->op->sets_only || s->grad->node || !gri_exclusive(s->grad))) return GR_OK;
    bool first = !s->grad;
    if (first) GR_TRY(gri_tensor_like_spec(c->ctx, &s->spec, &s->grad));
    c->out[0] = s->grad;
    c->mode = first ? GRI_SET : GRI_ADD;
    *done = true;
    return gri_run(c);
}

/* Gives the graph what gr_apply would have given it, a node for the op and one for the addition, over tensors that
 * share the slot's memory: their values are never read, since such an op keeps no output, nor does add. */
static gr_status accumulate_record(gri_call *c, gri_slot *s, gr_tensor **sum) {
    gr_tensor *part = NULL;
    *sum = NULL;
    gr_status st = gri_tensor_alias(s->grad, &part);
    if (st == GR_OK) st = gri_tensor_alias(s->grad, sum);
    c->out[0] = part;
    if (st == GR_OK && gri_recording(c->ctx, c->n_in, c->in)) st = gri_record(c);
    gri_call add;
    gri_call_set(&add, c->ctx, &gri_op_add, 2, GRI_TENSORS(s->grad, part), NULL, NULL);
    add.out[0] = *sum;
    if (st == GR_OK && gri_recording(c->ctx, 2, add.in)) st = gri_record(&add);
    gr_release(part);
    if (st == GR_OK) return GR_OK;
    gr_release(*sum);
    return st;
}

/* Without this, each of n steps through a sequence would make a gradient of the whole sequence, and add it. */
gr_status gri_slot_run_recorded(gri_call *c, gri_slot *s, bool *done) {
    const gr_op *op = c->op;
    gr_tensor *sum;
    *done = false;
    if (!s->grad || !gri_exclusive(s->grad) || c->ctx->anomaly) return GR_OK;
    if (!op->backward || op->view || op->sets_only) return GR_OK;
    if (op->keeps & ~(uint32_t)GRI_KEEP_ALL_IN) return GR_OK;
    GR_TRY(gri_check(c));
    if (!gri_fits(&c->spec[0], s->grad)) return GR_OK;
    GR_TRY(accumulate_record(c, s, &sum));
    c->out[0] = s->grad;
    c->mode = GRI_ADD;
    gr_status st = gri_run(c);
    gr_release(s->grad);
    s->grad = sum;
    *done = true;
    return st;
}
