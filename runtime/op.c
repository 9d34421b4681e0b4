#include "op.h"

#include <math.h>
#include <string.h>

#include "iter.h"
#include "tape.h"

/* ---- what exists ---------------------------------------------------------------------------------------- */

extern const gr_op *const gri_ops[]; /* generated list, ended by NULL */

int gr_op_count(void) {
    int n = 0;
    while (gri_ops[n]) n++;
    return n;
}

const gr_op *gr_op_at(int i) { return gri_ops[i]; }

const gr_op *gr_op_find(const char *name) {
    for (int i = 0; gri_ops[i]; i++)
        if (strcmp(gri_ops[i]->info.name, name) == 0) return gri_ops[i];
    return NULL;
}

static inline int op_outputs(const gr_op *op) { return op->n_out ? op->n_out : 1; }

const gr_info *gr_op_info(const gr_op *op) { return &op->info; }
int gr_op_outputs(const gr_op *op) { return op_outputs(op); }
bool gr_op_differentiable(const gr_op *op) { return op->backward || op->compose; }
bool gr_op_elementwise(const gr_op *op) { return op->elementwise; }
bool gr_op_in_place(const gr_op *op) { return op->elementwise || op->in_place; }

void gr_attrs_default(const gr_info *info, void *attrs) {
    memset(attrs, 0, info->attr_size);
    for (const gr_attr *a = info->attrs; a && a->name; a++) {
        void *at = (char *)attrs + a->offset;
        switch (a->kind) {
        case GR_ATTR_REAL: *(double *)at = a->value; break;
        case GR_ATTR_BOOL: *(bool *)at = a->value != 0; break;
        case GR_ATTR_PAIR: ((int64_t *)at)[0] = ((int64_t *)at)[1] = (int64_t)a->value; break;
        case GR_ATTR_DIMS: ((gr_dims *)at)->n = -1; break;
        case GR_ATTR_SHAPE: break;
        default: *(int64_t *)at = (int64_t)a->value; break;
        }
    }
}

/* ---- shape rules many ops share ------------------------------------------------------------------------- */

gr_status gri_want_float(gri_call *c, int i) {
    const gr_tensor *t = c->in[i], *first = c->in[0];
    if (!gri_is_float(t))
        return gr_fail(c->ctx, GR_ERR_DTYPE, "input %d is %s, expected f32 or f64; convert it with :to(\"f32\")",
                       i + 1, gri_tensor_text(t));
    if (t->dtype != first->dtype)
        return gr_fail(c->ctx, GR_ERR_DTYPE, "input %d is %s, but input 1 is %s; convert one with :to(\"%s\")", i + 1,
                       gri_tensor_text(t), gri_tensor_text(first), gr_dtype_name((gr_dtype)first->dtype));
    return GR_OK;
}

gr_status gri_shape_same(gri_call *c) {
    GR_TRY(gri_want_float(c, 0));
    gri_spec_set(&c->spec[0], c->in[0]);
    return GR_OK;
}

gr_status gri_shape_broadcast(gri_call *c) {
    gri_spec *s = &c->spec[0];
    const gr_tensor *t = c->in[0];
    gri_spec_set(s, t);
    for (int i = 1; i < c->n_in; i++) {
        t = c->in[i];
        if (t->dtype != s->dtype) s->dtype = gri_promote(s->dtype, (gr_dtype)t->dtype);
        if (gri_same_dims(s->rank, s->dims, t->rank, t->dims)) continue;
        if (!gri_broadcast(&s->rank, s->dims, t->rank, t->dims))
            return gr_fail(c->ctx, GR_ERR_SHAPE, "shapes %s and %s do not broadcast", gri_tensor_text(c->in[0]),
                           gri_tensor_text(t));
    }
    return GR_OK;
}

gr_status gri_shape_broadcast_float(gri_call *c) {
    GR_TRY(gri_shape_broadcast(c));
    if (c->spec[0].dtype <= GR_F64) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_DTYPE, "%s and %s are whole numbers, the result need not be; convert one with "
                   ":to(\"f32\")", gri_tensor_text(c->in[0]), gri_tensor_text(c->in[1]));
}

gr_status gri_shape_compare(gri_call *c) {
    GR_TRY(gri_shape_broadcast(c));
    c->spec[0].dtype = GR_U8;
    return GR_OK;
}

/* ---- running -------------------------------------------------------------------------------------------- */

/* The type a kernel computes in: f64 if any operand is, else f32; whole numbers alone are computed in f64
 * (exact to 2^53), unless the kernel has a loop of its own for them. */
static gr_dtype op_compute_type(const gri_call *c) {
    const unsigned f32 = 1u << GR_F32, f64 = 1u << GR_F64;
    unsigned seen = 0;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i]) seen |= 1u << c->in[i]->dtype;
    if (!(seen & (f32 | f64)))
        for (int i = 0; i < c->n_out; i++)
            if (c->out[i]) seen |= 1u << c->out[i]->dtype;
    return seen & f64 || !(seen & f32) ? GR_F64 : GR_F32;
}

gr_status gri_run(gri_call *c) {
    gri_kernel k = *c->op->forward[gri_variant(c->ctx, op_compute_type(c))];
    gr_status s = k(c);
    return s == GR_OK ? gri_poll(c->ctx) : s; /* a long one may have stopped half-way */
}

gr_status gri_check(gri_call *c) {
    gr_status s = c->op->shape(c);
    if (s != GR_OK) gr_fail_within(c->ctx, "%s", c->op->info.name);
    return s;
}

/* ---- anomaly mode --------------------------------------------------------------------------------------- */

static int64_t op_nonfinite(gr_ctx *ctx, const gr_tensor *t) {
    gr_tensor *dense;
    int64_t bad = 0;
    if (!t || !gri_is_float(t) || gri_tensor_dense((gr_tensor *)t, &dense) != GR_OK) return 0;
    (void)ctx;
    for (int64_t i = 0; i < dense->numel; i++) {
        double v =
            dense->dtype == GR_F32 ? (double)((float *)(void *)dense->data)[i] : ((double *)(void *)dense->data)[i];
        bad += !isfinite(v);
    }
    gr_release(dense);
    return bad;
}

/* Fails if a result is not finite although every input is. */
static gr_status op_check_finite(const gri_call *c) {
    for (int i = 0; i < c->n_out; i++) {
        int64_t bad = op_nonfinite(c->ctx, c->out[i]);
        if (!bad) continue;
        for (int k = 0; k < c->n_in; k++)
            if (op_nonfinite(c->ctx, c->in[k])) return GR_OK;
        return gr_fail(c->ctx, GR_ERR_NONFINITE,
                       "%lld of the %lld elements of the result %s are not finite, from finite inputs",
                       (long long)bad, (long long)c->out[i]->numel, gri_tensor_text(c->out[i]));
    }
    return GR_OK;
}

/* ---- applying ------------------------------------------------------------------------------------------- */

static void op_release_outputs(gri_call *c) {
    for (int i = 0; i < c->n_out; i++) {
        gr_release(c->out[i]);
        c->out[i] = NULL;
    }
}

static gr_status op_forward(gri_call *c) {
    if (c->op->view) {
        if (c->op->shape) GR_TRY(c->op->shape(c));
        return c->op->view(c);
    }
    GR_TRY(c->op->shape(c));
    for (int i = 0; i < c->n_out; i++) GR_TRY(gri_tensor_like_spec(c->ctx, &c->spec[i], &c->out[i]));
    return gri_run(c);
}

gr_status gr_apply(gr_ctx *ctx, const gr_op *op, int n_in, gr_tensor *const *in, const void *attrs, gr_tensor **out) {
    uint64_t defaults[GRI_ATTR_MAX / 8];
    gri_call c;
    gri_call_set(&c, ctx, op, n_in, in, attrs, defaults);
    gr_status s = gri_poll(ctx);
    bool record = (op->backward || op->compose) && gri_recording(ctx, n_in, in);
    if (s == GR_OK) {
        if (record && !op->backward) {
            s = op->compose(&c);
        } else {
            s = op_forward(&c);
            if (s == GR_OK && ctx->anomaly) s = op_check_finite(&c);
            if (s == GR_OK && record) s = gri_record(&c);
        }
    }
    if (s != GR_OK) {
        op_release_outputs(&c);
        gr_fail_within(ctx, "%s", op->info.name);
        return s;
    }
    for (int i = 0; i < c.n_out; i++) out[i] = c.out[i];
    return GR_OK;
}

gr_status gri_made_keep(gri_made *m, gr_status s, gr_tensor **t) {
    if (s != GR_OK) return s;
    if (m->n < GRI_MADE) {
        m->all[m->n++] = *t;
        return GR_OK;
    }
    gr_release(*t);
    return gr_fail(m->ctx, GR_ERR_STATE, "a composition of more than %d steps", GRI_MADE);
}

gr_status gri_make(gri_made *m, gr_tensor **out, const gr_op *op, int n, gr_tensor *const *in, const void *attrs) {
    gr_status s = gr_apply(m->ctx, op, n, in, attrs, out);
    return gri_made_keep(m, s, out);
}

gr_status gri_make_scalar(gri_made *m, gr_tensor **out, gr_dtype t, double value) {
    gr_status s = gr_tensor_scalar(m->ctx, t, value, out);
    return gri_made_keep(m, s, out);
}

void gri_made_release(gri_made *m) {
    while (m->n) gr_release(m->all[--m->n]);
}

/* May the kernel write dst while it reads the inputs? Elementwise ones may if each input is dst itself, in_place ones
 * if the first is. */
static bool op_overlaps(const gri_call *c, const gr_tensor *dst) {
    for (int i = 0; i < c->n_in; i++) {
        const gr_tensor *t = c->in[i];
        if (!t || t->storage != dst->storage) continue;
        bool same = t->data == dst->data && t->dtype == dst->dtype && t->numel == dst->numel &&
                    t->rank == dst->rank && memcmp(t->strides, dst->strides, t->rank * sizeof *t->strides) == 0;
        if (!same || !(c->op->elementwise || (c->op->in_place && i == 0))) return true;
    }
    return false;
}

static gr_status op_into(gri_call *c, gr_tensor *dst) {
    gr_ctx *ctx = c->ctx;
    const gri_spec *s = &c->spec[0];
    GR_TRY(gri_poll(ctx));
    GR_TRY(gri_may_edit(dst, c->op->info.name));
    if (c->op->view || c->n_out != 1) return gr_fail(ctx, GR_ERR_ARG, "has no in-place form");
    GR_TRY(c->op->shape(c));
    if (!gri_same_dims(s->rank, s->dims, dst->rank, dst->dims))
        return gr_fail(ctx, GR_ERR_SHAPE, "the result %s%s does not fit into %s", gr_dtype_name(s->dtype),
                       gri_dims_text(s->rank, s->dims), gri_tensor_text(dst));
    if (s->dtype <= GR_F64 && !gri_is_float(dst))
        return gr_fail(ctx, GR_ERR_DTYPE, "the result is %s and cannot be stored in %s", gr_dtype_name(s->dtype),
                       gri_tensor_text(dst));
    if (op_overlaps(c, dst) || (!c->op->elementwise && s->dtype != dst->dtype)) {
        GR_TRY(gri_tensor_like_spec(ctx, s, &c->out[0]));
        gr_status st = gri_run(c);
        if (st == GR_OK) st = gri_copy(ctx, dst, c->out[0], GRI_SET);
        op_release_outputs(c);
        GR_TRY(st);
    } else {
        c->out[0] = dst;
        dst->storage->version++; /* also when it stops half-way */
        return gri_run(c);
    }
    dst->storage->version++;
    return GR_OK;
}

gr_status gr_apply_into(gr_ctx *ctx, const gr_op *op, int n_in, gr_tensor *const *in, const void *attrs,
                        gr_tensor *dst) {
    uint64_t defaults[GRI_ATTR_MAX / 8];
    gri_call c;
    gri_call_set(&c, ctx, op, n_in, in, attrs, defaults);
    gr_status s = op_into(&c, dst);
    if (s != GR_OK) gr_fail_within(ctx, "%s_", op->info.name);
    return s;
}

/* ---- copies --------------------------------------------------------------------------------------------- */

gr_status gri_tensor_dense(gr_tensor *base, gr_tensor **out) {
    if (base->contiguous) {
        *out = gr_retain(base);
        return GR_OK;
    }
    gri_spec spec = gri_spec_of(base);
    gr_tensor *t;
    GR_TRY(gri_tensor_like_spec(base->head.ctx, &spec, &t));
    gr_status s = gri_copy(base->head.ctx, t, base, GRI_SET);
    if (s != GR_OK) {
        gr_release(t);
        return s;
    }
    *out = t;
    return GR_OK;
}

gr_status gr_tensor_copy(gr_tensor *dst, const gr_tensor *src) {
    gr_ctx *ctx = dst->head.ctx;
    gri_spec s = gri_spec_of(dst);
    GR_TRY(gri_may_edit(dst, "copy_"));
    if (!gri_broadcast(&s.rank, s.dims, src->rank, src->dims) || !gri_same_dims(s.rank, s.dims, dst->rank, dst->dims))
        return gr_fail(ctx, GR_ERR_SHAPE, "copy_: %s does not broadcast to %s", gri_tensor_text(src),
                       gri_tensor_text(dst));
    gr_tensor *whole = NULL;
    if (src->storage == dst->storage) { /* perhaps overlapping: through a copy */
        gri_spec spec = gri_spec_of(src);
        GR_TRY(gri_tensor_like_spec(ctx, &spec, &whole));
        gr_status st = gri_copy(ctx, whole, src, GRI_SET);
        if (st != GR_OK) {
            gr_release(whole);
            return st;
        }
        src = whole;
    }
    gr_status st = gri_copy(ctx, dst, src, GRI_SET);
    gr_release(whole);
    dst->storage->version++;
    return st;
}

gr_status gr_tensor_fill(gr_tensor *dst, double value) {
    gr_tensor *v;
    GR_TRY(gri_may_edit(dst, "fill_"));
    GR_TRY(gr_tensor_scalar(dst->head.ctx, (gr_dtype)dst->dtype, value, &v));
    gr_status s = gri_copy(dst->head.ctx, dst, v, GRI_SET);
    gr_release(v);
    dst->storage->version++;
    return s;
}

gr_status gri_dense(gri_call *c, gri_kernel kernel) {
    gr_tensor *in[GRI_MAX_IN] = {0};
    gri_call d = *c;
    gr_status s = GR_OK;
    bool direct = true;
    for (int i = 0; i < c->n_in; i++) direct = direct && (!c->in[i] || c->in[i]->contiguous);
    for (int i = 0; i < c->n_out; i++) direct = direct && (!c->out[i] || c->out[i]->contiguous);
    if (direct) return kernel(c);
    d.in = in;
    d.mode = GRI_SET;
    for (int i = 0; i < c->n_in && s == GR_OK; i++)
        if (c->in[i]) s = gri_tensor_dense(c->in[i], &in[i]);
    for (int i = 0; i < c->n_out; i++) {
        d.out[i] = NULL;
        if (!c->out[i] || s != GR_OK) continue;
        gri_spec spec = gri_spec_of(c->out[i]);
        s = gri_tensor_like_spec(c->ctx, &spec, &d.out[i]);
    }
    if (s == GR_OK) s = kernel(&d);
    for (int i = 0; i < c->n_out; i++) {
        if (c->out[i] && s == GR_OK) s = gri_copy(c->ctx, c->out[i], d.out[i], c->mode);
        gr_release(d.out[i]);
    }
    for (int i = 0; i < c->n_in; i++) gr_release(in[i]);
    return s;
}
