/* Embedding: y = the rows of weight[num_embeddings,embedding_dim] that x[…] lists. Drawn from N(0, 1), as PyTorch
 * draws them; the row padding_idx is zero and stays so, since it gets no gradient. */
#include "layer.h"

#include <stdio.h>

typedef struct Embedding_attrs { int64_t num_embeddings, embedding_dim, padding_idx; } Embedding_attrs;

static gr_status Embedding_init(gr_layer *l) {
    const Embedding_attrs *a = l->attrs;
    gr_ctx *ctx = l->head.ctx;
    gr_tensor *weight, *row;
    int64_t padding = a->padding_idx, base = ctx->index_base;
    if (a->num_embeddings < 1 || a->embedding_dim < 1)
        return gr_fail(ctx, GR_ERR_ARG, "num_embeddings = %lld, embedding_dim = %lld: expected at least 1 each",
                       (long long)a->num_embeddings, (long long)a->embedding_dim);
    if (padding != GR_POS_NONE && (padding < -a->num_embeddings || padding >= a->num_embeddings))
        return gr_fail(ctx, GR_ERR_INDEX, "padding_idx = %lld: the %lld rows are %lld to %lld",
                       (long long)(padding < 0 ? padding : padding + base), (long long)a->num_embeddings,
                       (long long)base, (long long)(a->num_embeddings - 1 + base));
    GR_TRY(gri_layer_param(l, "weight", 2, (int64_t[]){a->num_embeddings, a->embedding_dim}, &weight));
    GR_TRY(gri_normal_(weight, 0, 1));
    if (padding == GR_POS_NONE) return GR_OK;
    bool was = gr_set_grad_enabled(ctx, false);
    gr_status s = gr_apply(ctx, &gri_op_select, 1, &weight, &(gri_select_attrs){0, padding}, &row);
    if (s == GR_OK) s = gr_tensor_fill(row, 0);
    if (s == GR_OK) gr_release(row);
    gr_set_grad_enabled(ctx, was);
    return s;
}

static gr_status Embedding_forward(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out) {
    const Embedding_attrs *a = l->attrs;
    (void)n_in;
    return gr_apply(l->head.ctx, &gri_op_embedding, 2, GRI_TENSORS(in[0], l->params[0].tensor), &a->padding_idx, out);
}

static int Embedding_describe(const gr_layer *l, char *buf, size_t size) {
    const Embedding_attrs *a = l->attrs;
    return snprintf(buf, size, "%lld→%lld", (long long)a->num_embeddings, (long long)a->embedding_dim);
}

static const gr_attr Embedding_schema[] = {
    {"num_embeddings", GR_ATTR_INT, offsetof(Embedding_attrs, num_embeddings), .required = true, .min = 1, .max = 1 << 30},
    {"embedding_dim", GR_ATTR_INT, offsetof(Embedding_attrs, embedding_dim), .required = true, .min = 1, .max = 1 << 30},
    {"padding_idx", GR_ATTR_POS, offsetof(Embedding_attrs, padding_idx), .value = GR_POS_NONE},
    GR_ATTR_END};

GR_LAYER(Embedding) = {
    .info = {.name = "Embedding", .attrs = Embedding_schema, .attr_size = sizeof(Embedding_attrs),
             .doc = "The rows of weight [num_embeddings, embedding_dim] that x, an i64 tensor of any shape, lists.\n"
                    "They start normally distributed; the row padding_idx starts at zero and gets no gradient."},
    .init = Embedding_init,
    .forward = Embedding_forward,
    .describe = Embedding_describe,
};
