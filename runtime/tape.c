#include "tape.h"

#include <stdio.h>
#include <string.h>

/* ---- nodes ---------------------------------------------------------------------------------------------- */

/* Field by field: the compiler would clear the whole struct with a string instruction, at 15 ns more. */
static gri_node *tape_node_new(gr_ctx *ctx, int n_in, int n_out, const gr_op *op) {
    int n_kept = op && op->keeps ? n_in + n_out : 0, n_specs = op && op->input_specs ? n_in : 0;
    size_t attr_size = op ? op->info.attr_size : 0;
    size_t slots = sizeof(gri_node), edges = slots + (size_t)n_out * sizeof(gri_slot);
    size_t kept = edges + (size_t)n_in * sizeof(gri_edge), specs = kept + (size_t)n_kept * sizeof(gri_kept);
    size_t attrs = specs + (size_t)n_specs * sizeof(gri_spec), size = attrs + attr_size;
    gri_node *n = gri_new(ctx, size);
    if (!n) return NULL;
    n->head = (gri_object){ctx, 1, GRI_NODE};
    n->op = op;
    n->sequence = ctx->sequence++;
    n->pass = 0;
    n->waiting = 0;
    n->n_in = (uint16_t)n_in;
    n->n_out = (uint16_t)n_out;
    n->freed = n->wanted = false;
    n->size = (uint32_t)size;
    n->next = NULL;
    n->link = NULL;
    n->slots = (gri_slot *)((char *)n + slots);
    n->edges = (gri_edge *)((char *)n + edges);
    n->kept = n_kept ? (gri_kept *)((char *)n + kept) : NULL;
    n->specs = n_specs ? (gri_spec *)((char *)n + specs) : NULL;
    n->attrs = attr_size ? (char *)n + attrs : NULL;
    n->layer = NULL;
    n->hooks = NULL;
    n->data = n->grad = NULL;
    n->name = NULL;
    n->host_backward = NULL;
    n->host_drop = NULL;
    n->host_ud = NULL;
    for (int i = 0; i < n_out; i++) {
        gri_slot *s = &n->slots[i];
        s->grad = s->retained = NULL;
        s->retain = false;
        s->capture = 0;
    }
    for (int i = 0; i < n_in; i++) n->edges[i].node = NULL;
    for (int i = 0; i < n_kept; i++) n->kept[i].tensor = NULL;
    for (int i = 0; i < n_specs; i++) n->specs[i].rank = 0;
    ctx->objects[GRI_NODE]++;
    return n;
}

void gri_node_free_kept(gri_node *n) {
    n->freed = true;
    if (n->kept) {
        for (int i = 0; i < n->n_in + n->n_out; i++) {
            gr_tensor *t = n->kept[i].tensor;
            n->kept[i].tensor = NULL;
            gri_tensor_release(t);
        }
    }
    if (n->host_drop) {
        void (*drop)(void *) = n->host_drop;
        n->host_drop = NULL;
        drop(n->host_ud);
    }
}

void gri_node_loop(gri_node *n) {
    gr_ctx *ctx = n->head.ctx;
    if (n->link) return;
    n->next = ctx->looped;
    n->link = &ctx->looped;
    if (n->next) n->next->link = &n->next;
    ctx->looped = n;
}

static void tape_unloop(gri_node *n) {
    if (!n->link) return;
    *n->link = n->next;
    if (n->next) n->next->link = n->link;
    n->link = NULL;
}

void gri_loops_break(gr_ctx *ctx) {
    for (gri_node *n; (n = gri_node_retain(ctx->looped));) {
        gr_tensor *grad = n->grad;
        tape_unloop(n);
        n->grad = NULL;
        gri_tensor_release(grad);
        for (int i = 0; i < n->n_out; i++) {
            gr_tensor *retained = n->slots[i].retained;
            n->slots[i].retained = NULL;
            gri_tensor_release(retained);
        }
        gri_node_release(n);
    }
}

static void tape_node_free(gri_node *n) {
    gr_ctx *ctx = n->head.ctx;
    gri_hooks_free(ctx, &n->hooks);
    gri_node_free_kept(n);
    for (int i = 0; i < n->n_in; i++) gri_node_release(n->edges[i].node);
    for (int i = 0; i < n->n_out; i++) {
        gri_tensor_release(n->slots[i].grad);
        gri_tensor_release(n->slots[i].retained);
    }
    gr_release(n->layer);
    gri_tensor_release(n->data);
    gri_tensor_release(n->grad);
    gri_strfree(ctx, n->name);
    ctx->objects[GRI_NODE]--;
    gri_delete(ctx, n, n->size);
}

void gri_node_bury(gri_node *n) {
    gr_ctx *ctx = n->head.ctx;
    tape_unloop(n);
    n->next = ctx->dying;
    ctx->dying = n;
    if (ctx->releasing) return;
    ctx->releasing = true;
    while ((n = ctx->dying)) {
        ctx->dying = n->next;
        tape_node_free(n);
    }
    ctx->releasing = false;
}

const char *gri_node_text(const gri_node *n) {
    static _Thread_local char ring[2][256];
    static _Thread_local unsigned turn;
    char *s = ring[turn++ % 2];
    const char *path = n->layer ? gr_layer_path_peek(n->layer) : "";
    const char *what = n->op ? n->op->info.name : n->name ? n->name : "a leaf without a name";
    snprintf(s, sizeof ring[0], *path ? "%s in %s" : "%s", what, path);
    return s;
}

/* ---- recording ------------------------------------------------------------------------------------------ */

static void tape_link(gri_node *n, int n_in, gr_tensor *const *in, int n_out, gr_tensor *const *out) {
    for (int i = 0; i < n_in; i++)
        if (in[i] && in[i]->node) n->edges[i] = (gri_edge){gri_node_retain(in[i]->node), in[i]->out_index};
    n->layer = gr_retain(n->head.ctx->layer);
    for (int i = 0; i < n_out; i++) {
        gri_spec_set(&n->slots[i].spec, out[i]);
        if (!gri_is_float(out[i])) continue;
        gri_node_release(out[i]->node);
        out[i]->node = gri_node_retain(n);
        out[i]->out_index = (uint16_t)i;
    }
    gri_node_release(n); /* from here the outputs own it */
}

gr_status gri_record(gri_call *c) {
    const gr_op *op = c->op;
    gri_node *n = tape_node_new(c->ctx, c->n_in, c->n_out, op);
    if (!n) return GR_ERR_MEMORY;
    if (op->info.attr_size) memcpy(n->attrs, c->attrs, op->info.attr_size);
    for (int i = 0; op->input_specs && i < c->n_in; i++)
        if (c->in[i]) gri_spec_set(&n->specs[i], c->in[i]);
    for (int i = 0; op->keeps && i < c->n_in; i++) {
        gr_tensor *t = c->in[i];
        bool keep = op->keeps >> (i < 15 ? i : 15) & 1;
        if (t && keep) n->kept[i] = (gri_kept){gri_tensor_retain(t), t->storage->version};
    }
    for (int i = 0; i < c->n_out; i++) {
        if (!(op->keeps & GRI_KEEP_OUT(i))) continue;
        gri_kept *k = &n->kept[c->n_in + i];
        if (gri_tensor_alias(c->out[i], &k->tensor) != GR_OK) {
            gri_node_release(n);
            return GR_ERR_MEMORY;
        }
        k->version = k->tensor->storage->version;
    }
    tape_link(n, c->n_in, c->in, c->n_out, c->out);
    return GR_OK;
}

gr_status gr_record(gr_ctx *ctx, const char *name, int n_in, gr_tensor *const *in, int n_out,
                    gr_tensor *const *values, gr_backward_fn backward, void (*drop)(void *ud), void *ud,
                    gr_tensor **out) {
    gr_tensor *made[GRI_MAX_OUT] = {0};
    gri_node *n = NULL;
    gr_status s = GR_OK;
    if (n_out < 1 || n_out > GRI_MAX_OUT)
        s = gr_fail(ctx, GR_ERR_ARG, "%s: %d outputs, expected 1 to %d", name, n_out, GRI_MAX_OUT);
    for (int i = 0; s == GR_OK && i < n_out; i++) s = gri_tensor_alias(values[i], &made[i]);
    if (s == GR_OK && gri_recording(ctx, n_in, in)) {
        n = tape_node_new(ctx, n_in, n_out, NULL);
        s = n ? GR_OK : GR_ERR_MEMORY;
        if (n && !(n->name = gri_strdup(ctx, name))) s = GR_ERR_MEMORY;
    }
    if (s != GR_OK || !n) {
        if (drop) drop(ud);
    } else {
        n->host_backward = backward;
        n->host_drop = drop;
        n->host_ud = ud;
        tape_link(n, n_in, in, n_out, made);
        n = NULL;
    }
    gri_node_release(n);
    for (int i = 0; i < n_out && i < GRI_MAX_OUT; i++) {
        if (s == GR_OK) out[i] = made[i];
        else gr_release(made[i]);
    }
    return s;
}

/* ---- gradient state of tensors -------------------------------------------------------------------------- */

bool gr_tensor_requires_grad(const gr_tensor *t) { return t->node != NULL; }
bool gr_tensor_is_leaf(const gr_tensor *t) { return !t->node || gri_is_leaf_node(t->node); }

gr_status gr_tensor_set_requires_grad(gr_tensor *t, bool on) {
    gr_ctx *ctx = t->head.ctx;
    if (on == (t->node != NULL)) return GR_OK;
    if (!on && !gr_tensor_is_leaf(t))
        return gr_fail(ctx, GR_ERR_STATE,
                       "requires_grad cannot be switched off: the tensor is the result of %s; use detach",
                       gri_node_text(t->node));
    if (!on || t->idle) { /* the gradient goes: an optimizer must not move what is frozen */
        gri_node *leaf = on ? t->idle : t->node;
        t->idle = on ? NULL : leaf;
        t->node = on ? leaf : NULL;
        t->out_index = 0;
        gr_tensor *grad = leaf->grad;
        leaf->grad = NULL;
        gri_tensor_release(grad);
        return GR_OK;
    }
    if (!gri_is_float(t))
        return gr_fail(ctx, GR_ERR_DTYPE, "%s cannot require a gradient: only f32 and f64 can", gri_tensor_text(t));
    gri_node *n = tape_node_new(ctx, 0, 1, NULL);
    if (!n) return GR_ERR_MEMORY;
    gri_spec_set(&n->slots[0].spec, t);
    if (gri_tensor_alias(t, &n->data) != GR_OK) {
        gri_node_release(n);
        return GR_ERR_MEMORY;
    }
    t->node = n;
    t->out_index = 0;
    return GR_OK;
}

gr_tensor *gr_tensor_grad_peek(const gr_tensor *t) {
    if (!t->node) return NULL;
    return gri_is_leaf_node(t->node) ? t->node->grad : t->node->slots[t->out_index].retained;
}

gr_status gr_tensor_set_grad(gr_tensor *t, gr_tensor *grad) {
    gr_ctx *ctx = t->head.ctx;
    if (!t->node || !gri_is_leaf_node(t->node)) {
        if (!grad) return GR_OK;
        return gr_fail(ctx, GR_ERR_STATE, "only a leaf that requires a gradient can be given one");
    }
    if (grad && (grad->dtype != t->dtype || !gri_same_dims(grad->rank, grad->dims, t->rank, t->dims)))
        return gr_fail(ctx, GR_ERR_SHAPE, "a gradient of %s for a tensor of %s", gri_tensor_text(grad),
                       gri_tensor_text(t));
    if (grad && grad->head.ctx != ctx) return gr_fail(ctx, GR_ERR_ARG, "the gradient belongs to another context");
    if (grad && grad->node == t->node)
        return gr_fail(ctx, GR_ERR_ARG, "a tensor cannot be its own gradient; give it a copy: %s", gri_tensor_text(t));
    gr_tensor *old = t->node->grad;
    t->node->grad = gr_retain(grad);
    if (grad && grad->node) gri_node_loop(t->node);
    gr_release(old);
    return GR_OK;
}

gr_status gr_tensor_retain_grad(gr_tensor *t) {
    if (!t->node) return gr_fail(t->head.ctx, GR_ERR_STATE, "retain_grad needs a tensor that requires a gradient");
    t->node->slots[t->out_index].retain = true;
    return GR_OK;
}

gr_status gr_tensor_detach(const gr_tensor *t, gr_tensor **out) { return gri_tensor_alias(t, out); }

gr_status gr_tensor_set_name(gr_tensor *t, const char *name) {
    gr_ctx *ctx = t->head.ctx;
    gri_node *leaf = t->node ? t->node : t->idle;
    if (!leaf || !gri_is_leaf_node(leaf))
        return gr_fail(ctx, GR_ERR_STATE, "only a leaf that requires a gradient has a name");
    char *copy = gri_strdup(ctx, name);
    if (!copy) return GR_ERR_MEMORY;
    gri_strfree(ctx, leaf->name);
    leaf->name = copy;
    return GR_OK;
}

const char *gr_tensor_name_peek(const gr_tensor *t) {
    const gri_node *leaf = t->node ? t->node : t->idle;
    return leaf && gri_is_leaf_node(leaf) ? leaf->name : NULL;
}

gr_status gri_may_edit(const gr_tensor *t, const char *what) {
    gr_ctx *ctx = t->head.ctx;
    for (int i = 0; !t->contiguous && i < t->rank; i++)
        if (t->strides[i] == 0 && t->dims[i] > 1)
            return gr_fail(
                ctx, GR_ERR_STATE,
                "%s edits %s in place, but dimension %d of it is expanded: its elements are one; use clone first",
                what, gri_tensor_text(t), i + ctx->index_base);
    if (!ctx->grad_enabled || !t->node) return GR_OK;
    return gr_fail(
        ctx, GR_ERR_STATE,
        "%s edits %s (%s) in place while gradients are recorded; wrap it in gr.no_grad, or make a new tensor", what,
        gri_tensor_text(t), gri_node_text(t->node));
}
