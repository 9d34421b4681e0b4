/* MultiheadAttention: (query, key?, value?, key_padding_mask?, attn_mask?) → y, weights?
 *
 *     q = query W_qᵀ + b_q, k = key W_kᵀ + b_k, v = value W_vᵀ + b_v, each cut into num_heads heads by features;
 *     y = (the heads of scaled_dot_product_attention(q, k, v), side by side) out_projᵀ
 *
 * query[t,n,embed_dim] key[s,n,kdim] value[s,n,vdim] → y[t,n,embed_dim]; with batch_first [n,t,…] and [n,s,…];
 * without a batch [t,…] and [s,…]. Parameters, their names and how they are drawn are PyTorch's: in_proj_weight,
 * the three W above each other, or, where kdim or vdim is not embed_dim, q_proj_weight, k_proj_weight and
 * v_proj_weight, from U(±√(6 / (rows + columns))); biases zero; out_proj as Linear draws it.
 *
 * Masks are PyTorch's too: u8, 1 = ignored (the opposite of the op's), or floating, added to the scores;
 * key_padding_mask[n,s] or [s], attn_mask[t,s] or [n num_heads,t,s]. Unlike in PyTorch, is_causal needs no
 * attn_mask, weights come only when asked for, and a query that may look at no key gives out_proj's bias also
 * then.
 *
 * The weights are the attention's result for v = the identity, which costs a product more, so that masks, dropout
 * and their derivatives are the op's. Heads are read where the projections wrote them. */
#include "layer.h"

#include <math.h>
#include <stdio.h>

typedef struct MultiheadAttention_attrs {
    int64_t embed_dim, num_heads;
    double dropout;
    bool bias;
    int64_t kdim, vdim; /* 0: embed_dim */
    bool batch_first;
} MultiheadAttention_attrs;

typedef struct MultiheadAttention_call {
    bool need_weights, is_causal, average_attn_weights;
} MultiheadAttention_call;

enum { MHA_QUERY, MHA_KEY, MHA_VALUE, MHA_PADDING, MHA_MASK, MHA_INPUTS };

/* ---- parameters ------------------------------------------------------------------------------------------- */

/* Are the three projections one matrix? */
static bool MultiheadAttention_packed(const MultiheadAttention_attrs *a) {
    return (!a->kdim || a->kdim == a->embed_dim) && (!a->vdim || a->vdim == a->embed_dim);
}

static gr_status MultiheadAttention_weight(gr_layer *l, const char *name, int64_t rows, int64_t columns) {
    gr_tensor *weight;
    GR_TRY(gri_layer_param(l, name, 2, (int64_t[]){rows, columns}, &weight));
    return gri_uniform_(weight, sqrt(6.0 / (double)(rows + columns)));
}

static gr_status MultiheadAttention_out(gr_layer *l) {
    const MultiheadAttention_attrs *a = l->attrs;
    gri_linear_attrs linear = {a->embed_dim, a->embed_dim, a->bias};
    gr_layer *out;
    GR_TRY(gr_layer_new(l->head.ctx, &gri_layer_Linear, &linear, &out));
    gr_status s = gr_layer_add_child(l, "out_proj", out);
    gr_release(out);
    if (s != GR_OK || !a->bias) return s;
    bool was = gr_set_grad_enabled(l->head.ctx, false);
    s = gr_tensor_fill(out->params[1].tensor, 0);
    gr_set_grad_enabled(l->head.ctx, was);
    return s;
}

static gr_status MultiheadAttention_init(gr_layer *l) {
    const MultiheadAttention_attrs *a = l->attrs;
    gr_ctx *ctx = l->head.ctx;
    gr_tensor *bias;
    const int64_t e = a->embed_dim, three = 3 * e;
    if (e < 1 || a->num_heads < 1 || e % a->num_heads)
        return gr_fail(ctx, GR_ERR_ARG, "embed_dim = %lld, num_heads = %lld: expected at least 1 each, and the first "
                       "divisible by the second", (long long)e, (long long)a->num_heads);
    if (!(a->dropout >= 0 && a->dropout <= 1))
        return gr_fail(ctx, GR_ERR_ARG, "dropout = %g: expected 0 to 1", a->dropout);
    if (MultiheadAttention_packed(a)) {
        GR_TRY(MultiheadAttention_weight(l, "in_proj_weight", three, e));
    } else {
        GR_TRY(MultiheadAttention_weight(l, "q_proj_weight", e, e));
        GR_TRY(MultiheadAttention_weight(l, "k_proj_weight", e, a->kdim ? a->kdim : e));
        GR_TRY(MultiheadAttention_weight(l, "v_proj_weight", e, a->vdim ? a->vdim : e));
    }
    if (a->bias) GR_TRY(gri_layer_param(l, "in_proj_bias", 1, &three, &bias));
    return MultiheadAttention_out(l);
}

/* ---- what is given ---------------------------------------------------------------------------------------- */

typedef struct MultiheadAttention_shape { int64_t n, t, s; } MultiheadAttention_shape; /* n = 0: no batch */

static gr_status MultiheadAttention_fit(const gr_layer *l, gr_tensor *const *in, MultiheadAttention_shape *f) {
    static const char *const names[] = {"query", "key", "value"};
    static const char *const layouts[][2] = {{"t,n", "s,n"}, {"n,t", "n,s"}};
    const MultiheadAttention_attrs *a = l->attrs;
    const int64_t width[] = {a->embed_dim, a->kdim ? a->kdim : a->embed_dim, a->vdim ? a->vdim : a->embed_dim};
    const int rank = in[MHA_QUERY]->rank, batch = a->batch_first ? 0 : 1, length = rank == 2 ? 0 : 1 - batch;
    gr_ctx *ctx = l->head.ctx;
    for (int i = 0; i < 3; i++) {
        const gr_tensor *x = in[i];
        if (x->rank < 2 || x->rank > 3 || x->rank != rank || x->dims[rank - 1] != width[i])
            return gr_fail(ctx, GR_ERR_SHAPE, "%s is %s, expected [%s,%lld] or, without a batch, [%c,%lld]%s",
                           names[i], gri_tensor_text(x), layouts[a->batch_first][i > 0], (long long)width[i],
                           i ? 's' : 't', (long long)width[i], i ? ", as query" : "");
        if (rank == 3 && x->dims[batch] != in[0]->dims[batch])
            return gr_fail(ctx, GR_ERR_SHAPE, "query is %s, %s %s: batches of %lld and %lld", gri_tensor_text(in[0]),
                           names[i], gri_tensor_text(x), (long long)in[0]->dims[batch], (long long)x->dims[batch]);
    }
    *f = (MultiheadAttention_shape){rank == 2 ? 0 : in[0]->dims[batch], in[0]->dims[length], in[1]->dims[length]};
    if (in[MHA_VALUE]->dims[length] == f->s) return GR_OK;
    return gr_fail(ctx, GR_ERR_SHAPE, "key is %s, value %s: %lld keys, but %lld values", gri_tensor_text(in[1]),
                   gri_tensor_text(in[2]), (long long)f->s, (long long)in[2]->dims[length]);
}

/* *out = the mask as the op wants it: under the given shape, u8 the other way round. */
static gr_status MultiheadAttention_mask(gri_made *m, const char *name, gr_tensor *mask, gr_dtype type,
                                         const gr_dims *want, gr_dims shape, gr_tensor **out) {
    gr_tensor *zero;
    if (mask->dtype != GR_U8 && mask->dtype != type)
        return gr_fail(m->ctx, GR_ERR_DTYPE, "%s is %s, expected u8 (1 = ignored) or %s (added to the scores)", name,
                       gri_tensor_text(mask), gr_dtype_name(type));
    if (!gri_same_dims(mask->rank, mask->dims, want->n, want->v))
        return gr_fail(m->ctx, GR_ERR_SHAPE, "%s is %s, expected %s", name, gri_tensor_text(mask),
                       gri_dims_text(want->n, want->v));
    GR_TRY(gri_make(m, out, &gri_op_reshape, 1, &mask, &shape));
    if (mask->dtype != GR_U8) return GR_OK;
    GR_TRY(gri_make_scalar(m, &zero, GR_U8, 0));
    return GRI_MAKE(m, out, eq, *out, zero);
}

/* *out = both masks as one; NULL if there is none. */
static gr_status MultiheadAttention_masks(const gr_layer *l, gri_made *m, gr_tensor *const *in,
                                          const MultiheadAttention_shape *f, gr_tensor **out) {
    const int64_t h = ((const MultiheadAttention_attrs *)l->attrs)->num_heads, n = f->n, t = f->t, s = f->s;
    gr_tensor *padding = in[MHA_PADDING], *mask = in[MHA_MASK], *none;
    gr_dtype type = (gr_dtype)in[MHA_QUERY]->dtype;
    *out = NULL;
    if (padding) {
        gr_dims want = n ? (gr_dims){2, {n, s}} : (gr_dims){1, {s}};
        gr_dims shape = n ? (gr_dims){4, {n, 1, 1, s}} : want;
        GR_TRY(MultiheadAttention_mask(m, "key_padding_mask", padding, type, &want, shape, &padding));
    }
    if (mask) {
        gr_dims want = mask->rank < 3 ? (gr_dims){2, {t, s}} : (gr_dims){3, {(n ? n : 1) * h, t, s}};
        gr_dims shape = n && want.n == 3 ? (gr_dims){4, {n, h, t, s}} : want;
        GR_TRY(MultiheadAttention_mask(m, "attn_mask", mask, type, &want, shape, &mask));
    }
    if (!padding || !mask) {
        *out = mask ? mask : padding;
        return GR_OK;
    }
    if (padding->dtype == GR_U8 && mask->dtype == GR_U8) return GRI_MAKE(m, out, mul, padding, mask);
    if (padding->dtype != GR_U8 && mask->dtype != GR_U8) return GRI_MAKE(m, out, add, padding, mask);
    GR_TRY(gri_make_scalar(m, &none, type, -INFINITY));
    if (mask->dtype == GR_U8) return GRI_MAKE(m, out, where, mask, padding, none);
    return GRI_MAKE(m, out, where, padding, mask, none);
}

/* ---- forward ---------------------------------------------------------------------------------------------- */

/* *out = x through projections first .. first + count - 1. */
static gr_status MultiheadAttention_project(const gr_layer *l, gri_made *m, gr_tensor *x, int first, int count,
                                            gr_tensor **out) {
    const MultiheadAttention_attrs *a = l->attrs;
    gri_narrow_attrs part = {0, first * a->embed_dim, count * a->embed_dim};
    gr_tensor *weight = l->params[0].tensor, *bias = a->bias ? l->params[l->n_params - 1].tensor : NULL;
    if (!MultiheadAttention_packed(a)) weight = l->params[first].tensor;
    else if (count < 3) GR_TRY(gri_make(m, &weight, &gri_op_narrow, 1, &weight, &part));
    if (bias && count < 3) GR_TRY(gri_make(m, &bias, &gri_op_narrow, 1, &bias, &part));
    return GRI_MAKE(m, out, linear, x, weight, bias);
}

/* *out = the heads of part `part` of x's features, [n,h,t,d] or [h,t,d]. */
static gr_status MultiheadAttention_heads(const gr_layer *l, gri_made *m, gr_tensor *x, int part, gr_tensor **out) {
    const MultiheadAttention_attrs *a = l->attrs;
    const int last = x->rank - 1;
    const int batch = a->batch_first ? 0 : 1;
    gr_dims shape = {.n = x->rank + 1}, order = {.n = x->rank + 1, .v = {batch, 2, 1 - batch, 3}};
    if (x->dims[last] != a->embed_dim)
        GR_TRY(gri_make(m, &x, &gri_op_narrow, 1, &x, &(gri_narrow_attrs){last, part * a->embed_dim, a->embed_dim}));
    for (int i = 0; i < last; i++) shape.v[i] = x->dims[i];
    shape.v[last] = a->num_heads;
    shape.v[last + 1] = a->embed_dim / a->num_heads;
    GR_TRY(gri_make(m, &x, &gri_op_reshape, 1, &x, &shape));
    if (order.n == 3) order = (gr_dims){3, {1, 0, 2}};
    return gri_make(m, out, &gri_op_permute, 1, &x, &order);
}

/* qkv[0..3) = the heads of the three projections; products that are of one input are one product. */
static gr_status MultiheadAttention_split(const gr_layer *l, gri_made *m, gr_tensor *const *in, gr_tensor **qkv) {
    const bool packed = MultiheadAttention_packed(l->attrs);
    gr_tensor *x;
    for (int i = 0, count; i < 3; i += count) {
        for (count = 1; packed && i + count < 3 && in[i + count] == in[i]; count++) {}
        GR_TRY(MultiheadAttention_project(l, m, in[i], i, count, &x));
        for (int k = 0; k < count; k++) GR_TRY(MultiheadAttention_heads(l, m, x, k, &qkv[i + k]));
    }
    return GR_OK;
}

static gr_status MultiheadAttention_identity(gri_made *m, gr_dtype type, int64_t n, gr_tensor **out) {
    gr_status s = gr_tensor_new(m->ctx, type, 2, (int64_t[]){n, n}, out);
    GR_TRY(gri_made_keep(m, s, out));
    for (int64_t i = 0; i < n; i++) GR_TRY(gr_tensor_set(*out, (int64_t[]){i, i}, 1));
    return GR_OK;
}

/* *y[…,h,t,d]; *weights[…,h,t,s], or averaged over h, if they are wanted: else NULL. */
static gr_status MultiheadAttention_attend(gr_layer *l, gri_made *m, gr_tensor *const *qkv, gr_tensor *mask,
                                           gr_tensor **y, gr_tensor **weights) {
    const MultiheadAttention_call *call = l->call;
    gri_attention_attrs a = {.scale = NAN, .is_causal = call->is_causal};
    gri_reduce_attrs heads = {.dim = {1, {-3}}};
    gr_tensor *all, *one;
    *weights = NULL;
    if (l->training) a.dropout_p = ((const MultiheadAttention_attrs *)l->attrs)->dropout;
    if (a.dropout_p > 0) gr_random_next(m->ctx, &a.seed, &a.counter);
    gr_tensor *in[] = {qkv[0], qkv[1], qkv[2], mask};
    if (!call->need_weights) return gri_make(m, y, &gri_op_scaled_dot_product_attention, 4, in, &a);
    GR_TRY(MultiheadAttention_identity(m, (gr_dtype)qkv[1]->dtype, qkv[1]->dims[qkv[1]->rank - 2], &one));
    in[2] = one;
    GR_TRY(gri_make(m, &all, &gri_op_scaled_dot_product_attention, 4, in, &a));
    GR_TRY(GRI_MAKE(m, y, matmul, all, qkv[2]));
    *weights = all;
    return call->average_attn_weights ? gri_make(m, weights, &gri_op_mean, 1, &all, &heads) : GR_OK;
}

/* *out = the heads side by side, through out_proj. */
static gr_status MultiheadAttention_join(const gr_layer *l, gri_made *m, gr_tensor *y, gr_tensor **out) {
    const MultiheadAttention_attrs *a = l->attrs;
    gr_dims order = a->batch_first ? (gr_dims){4, {0, 2, 1, 3}} : (gr_dims){4, {2, 0, 1, 3}};
    gr_dims shape = {.n = y->rank - 1};
    if (y->rank == 3) order = (gr_dims){3, {1, 0, 2}};
    GR_TRY(gri_make(m, &y, &gri_op_permute, 1, &y, &order));
    for (int i = 0; i < y->rank - 2; i++) shape.v[i] = y->dims[i];
    shape.v[y->rank - 2] = a->embed_dim;
    GR_TRY(gri_make(m, &y, &gri_op_reshape, 1, &y, &shape));
    return gr_layer_forward(l->children[0].layer, 1, &y, 1, out);
}

static gr_status MultiheadAttention_steps(gr_layer *l, gri_made *m, gr_tensor *const *in, gr_tensor **out) {
    MultiheadAttention_shape f = {0};
    gr_tensor *qkv[3], *mask, *y, *weights;
    GR_TRY(MultiheadAttention_fit(l, in, &f));
    GR_TRY(MultiheadAttention_masks(l, m, in, &f, &mask));
    GR_TRY(MultiheadAttention_split(l, m, in, qkv));
    GR_TRY(MultiheadAttention_attend(l, m, qkv, mask, &y, &weights));
    GR_TRY(MultiheadAttention_join(l, m, y, &out[0]));
    if (weights) out[1] = gr_retain(weights);
    return GR_OK;
}

static gr_status MultiheadAttention_forward(gr_layer *l, int n_in, gr_tensor *const *given, gr_tensor **out) {
    gri_made m = {.ctx = l->head.ctx};
    gr_tensor *in[MHA_INPUTS];
    for (int i = 0; i < n_in; i++) in[i] = given[i];
    if (!in[MHA_KEY]) in[MHA_KEY] = in[MHA_QUERY];
    if (!in[MHA_VALUE]) in[MHA_VALUE] = in[MHA_KEY];
    gr_status s = MultiheadAttention_steps(l, &m, in, out);
    gri_made_release(&m);
    return s;
}

static int MultiheadAttention_describe(const gr_layer *l, char *buf, size_t size) {
    const MultiheadAttention_attrs *a = l->attrs;
    char dropout[40] = "", dims[80] = "";
    if (a->dropout > 0) snprintf(dropout, sizeof dropout, ", dropout %g", a->dropout);
    if (!MultiheadAttention_packed(a))
        snprintf(dims, sizeof dims, ", kdim %lld, vdim %lld", (long long)(a->kdim ? a->kdim : a->embed_dim),
                 (long long)(a->vdim ? a->vdim : a->embed_dim));
    return snprintf(buf, size, "%lld, %lld heads%s%s%s%s", (long long)a->embed_dim, (long long)a->num_heads, dims,
                    dropout, a->bias ? "" : ", no bias", a->batch_first ? ", batch first" : "");
}

static const gr_attr MultiheadAttention_schema[] = {
    {"embed_dim", GR_ATTR_INT, offsetof(MultiheadAttention_attrs, embed_dim), .required = true, .min = 1,
     .max = 1 << 30},
    {"num_heads", GR_ATTR_INT, offsetof(MultiheadAttention_attrs, num_heads), .required = true, .min = 1,
     .max = 1 << 30},
    {"dropout", GR_ATTR_REAL, offsetof(MultiheadAttention_attrs, dropout), .min = 0, .max = 1},
    {"bias", GR_ATTR_BOOL, offsetof(MultiheadAttention_attrs, bias), .value = 1},
    {"kdim", GR_ATTR_INT, offsetof(MultiheadAttention_attrs, kdim), .min = 0, .max = 1 << 30},
    {"vdim", GR_ATTR_INT, offsetof(MultiheadAttention_attrs, vdim), .min = 0, .max = 1 << 30},
    {"batch_first", GR_ATTR_BOOL, offsetof(MultiheadAttention_attrs, batch_first), .required = false},
    GR_ATTR_END};

static const gr_attr MultiheadAttention_call_schema[] = {
    {"need_weights", GR_ATTR_BOOL, offsetof(MultiheadAttention_call, need_weights), .required = false},
    {"is_causal", GR_ATTR_BOOL, offsetof(MultiheadAttention_call, is_causal), .required = false},
    {"average_attn_weights", GR_ATTR_BOOL, offsetof(MultiheadAttention_call, average_attn_weights), .value = 1},
    GR_ATTR_END};

static const gr_info MultiheadAttention_called = {
    .name = "MultiheadAttention", .inputs = "query key? value? key_padding_mask? attn_mask?",
    .attrs = MultiheadAttention_call_schema, .attr_size = sizeof(MultiheadAttention_call)};

GR_LAYER(MultiheadAttention) = {
    .info = {.name = "MultiheadAttention", .attrs = MultiheadAttention_schema,
             .attr_size = sizeof(MultiheadAttention_attrs),
             .doc = "mha(query, key, value, options): [t,n,embed_dim], [s,n,kdim], [s,n,vdim] to [t,n,embed_dim];\n"
                    "with batch_first the batch n comes first. key and value are the query if absent. Options:\n"
                    "key_padding_mask [n,s] and attn_mask [t,s] or [n*num_heads,t,s], u8 (1 = ignored) or\n"
                    "floating (added to the scores); is_causal; need_weights: the second result is [n,t,s],\n"
                    "averaged over the heads unless average_attn_weights = false."},
    .init = MultiheadAttention_init,
    .forward = MultiheadAttention_forward,
    .describe = MultiheadAttention_describe,
    .call = &MultiheadAttention_called,
    .inputs = MHA_INPUTS,
    .optional = MHA_INPUTS - 1,
    .outputs = 2,
};
