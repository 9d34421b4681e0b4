#include "lines.h"

#include "index.h"
#include "reduce.h"

gr_status gri_line_dim(gri_call *c, int64_t given, const gr_tensor *t, int *dim) {
    return gri_dim(c->ctx, given, t->rank ? t->rank : 1, dim);
}

static bool lines_are_rows(const gr_tensor *t, int dim) { return t->contiguous && dim >= t->rank - 1; }

/* A view of t, dim last. */
static gr_status lines_view(const gr_tensor *t, int dim, gr_tensor **out) {
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    int at = 0;
    for (int d = 0; d < t->rank; d++) {
        if (d == dim) continue;
        dims[at] = t->dims[d];
        strides[at++] = t->strides[d];
    }
    if (t->rank) dims[at] = t->dims[dim], strides[at] = t->strides[dim];
    return gri_tensor_view(t, t->rank, dims, strides, 0, out);
}

/* A new tensor shaped as the view. */
static gr_status lines_new(const gr_tensor *view, gr_dtype dtype, gr_tensor **out) {
    gri_spec spec;
    gri_spec_set(&spec, view);
    spec.dtype = dtype;
    return gri_tensor_like_spec(view->head.ctx, &spec, out);
}

gr_status gri_lines_of(gr_tensor *x, int dim, gr_dtype dtype, gr_tensor **rows) {
    gr_tensor *view, *made;
    if (x->dtype == dtype && lines_are_rows(x, dim)) {
        *rows = gri_tensor_retain(x);
        return GR_OK;
    }
    GR_TRY(lines_view(x, dim, &view));
    gr_status s = lines_new(view, dtype, &made);
    if (s == GR_OK) {
        s = gri_copy(x->head.ctx, made, view, GRI_SET);
        if (s == GR_OK) *rows = made;
        else gr_release(made);
    }
    gr_release(view);
    return s;
}

gr_status gri_lines_for(gr_tensor *y, int dim, gr_dtype dtype, gr_tensor **rows) {
    gr_tensor *view;
    if (y->dtype == dtype && lines_are_rows(y, dim)) {
        *rows = gri_tensor_retain(y);
        return GR_OK;
    }
    GR_TRY(lines_view(y, dim, &view));
    gr_status s = lines_new(view, dtype, rows);
    gr_release(view);
    return s;
}

gr_status gri_lines_done(gr_tensor *y, int dim, gr_tensor *rows) {
    gr_tensor *view;
    if (rows == y) return GR_OK;
    GR_TRY(lines_view(y, dim, &view));
    gr_status s = gri_copy(y->head.ctx, view, rows, GRI_SET);
    gr_release(view);
    return s;
}

/* A view of t with a dim of size 1 where x has dim. */
static gr_status lines_keep(const gr_tensor *t, const gr_tensor *x, int dim, gr_tensor **out) {
    int64_t dims[GR_MAX_RANK], strides[GR_MAX_RANK];
    bool lacks = t->rank < x->rank;
    for (int d = 0, at = 0; d < x->rank; d++) {
        bool new = lacks && d == dim;
        dims[d] = new ? 1 : t->dims[at];
        strides[d] = new ? 1 : t->strides[at];
        at += !new;
    }
    return gri_tensor_view(t, x->rank, dims, strides, 0, out);
}

gr_status gri_line_pick(gri_call *c, int dim) {
    gr_tensor *in[2] = {c->in[0], NULL}, *values = NULL;
    gri_index_attrs a = {dim};
    gr_status s = lines_keep(c->out[1], c->in[0], dim, &in[1]);
    if (s == GR_OK) s = lines_keep(c->out[0], c->in[0], dim, &values);
    if (s == GR_OK) {
        gri_call d;
        gri_call_set(&d, c->ctx, &gri_op_gather, 2, in, &a, NULL);
        d.out[0] = values;
        s = gri_run(&d);
    }
    gr_release(in[1]), gr_release(values);
    return s;
}

gr_status gri_emit_picked(gri_grad *g, int64_t dim) {
    const gri_spec *x = gri_input_spec(g, 0);
    gr_tensor *dy = g->dy[0], *index = g->out[1];
    gri_gather_backward_attrs a = {.shape = {.n = x->rank}, .dim = dim};
    const uint32_t mask = x->rank ? 1u << (dim < 0 ? dim + x->rank : dim) : 0;
    for (int d = 0; d < x->rank; d++) a.shape.v[d] = x->dims[d];
    GR_TRY(gri_keep_dims(g, dy, mask, &dy));
    GR_TRY(gri_keep_dims(g, index, mask, &index));
    return gri_emit(g, 0, &gri_op_gather_backward, 2, GRI_TENSORS(dy, index), &a);
}
