#include "hook.h"

#include <string.h>

#include "layer.h"
#include "optim.h"
#include "tape.h"

static void hook_drop(gr_hook *h) {
    if (h->active || h->running || !h->drop) return;
    void (*drop)(void *) = h->drop;
    h->drop = NULL;
    drop(h->ud);
}

void gri_hook_free(gr_hook *h) {
    gr_ctx *ctx = h->head.ctx;
    gri_strfree(ctx, h->name);
    ctx->objects[GRI_HOOK]--;
    gri_delete(ctx, h, sizeof *h);
}

/* Takes removed hooks out of the list, unless it is being walked. */
static void hook_compact(gri_hooks *o) {
    if (o->running) return;
    int kept = 0;
    o->kinds = 0;
    for (int i = 0; i < o->n; i++) {
        gr_hook *h = o->list[i];
        if (h->active) {
            o->list[kept++] = h;
            o->kinds |= 1u << h->kind;
        } else {
            h->owner = NULL;
            gr_release(h);
        }
    }
    o->n = kept;
}

void gr_hook_remove(gr_hook *h) {
    if (!h || !h->active) return;
    h->active = false;
    gr_retain(h);
    if (h->owner) hook_compact(h->owner);
    hook_drop(h);
    gr_release(h);
}

bool gr_hook_active(const gr_hook *h) { return h && h->active; }

void gri_hooks_free(gr_ctx *ctx, gri_hooks **owner) {
    gri_hooks *o = *owner;
    if (!o) return;
    *owner = NULL;
    for (int i = 0; i < o->n; i++) {
        gr_hook *h = o->list[i];
        h->active = false;
        h->owner = NULL;
        hook_drop(h);
        gr_release(h);
    }
    gri_array_free(ctx, o->list, o->cap, sizeof *o->list);
    gri_delete(ctx, o, sizeof *o);
}

static gr_hook *hook_find(gri_hooks *o, gr_hook_kind kind, int slot, const char *name) {
    for (int i = 0; name && i < o->n; i++) {
        gr_hook *h = o->list[i];
        if (h->active && h->kind == kind && h->slot == slot && h->name && strcmp(h->name, name) == 0) return h;
    }
    return NULL;
}

/* To *owner, made if it is NULL. drop is called if this fails. */
static gr_status hook_add(gr_ctx *ctx, gri_hooks **owner, gr_hook_kind kind, int slot, const char *name,
                          gr_hook_fn fn, void (*drop)(void *ud), void *ud, gr_hook **out) {
    gr_hook *h = NULL, *old;
    if (!*owner) {
        *owner = gri_new(ctx, sizeof **owner);
        if (!*owner) goto fail;
        **owner = (gri_hooks){0};
    }
    gri_hooks *o = *owner;
    if (gri_grow(ctx, &o->list, &o->cap, o->n + 1, sizeof *o->list) != GR_OK) goto fail;
    h = gri_new(ctx, sizeof *h);
    if (!h) goto fail;
    *h = (gr_hook){.head = {ctx, 1, GRI_HOOK}, .kind = kind, .slot = (uint16_t)slot, .fn = fn, .ud = ud, .owner = o};
    ctx->objects[GRI_HOOK]++;
    if (name && !(h->name = gri_strdup(ctx, name))) goto fail;
    h->active = true;
    h->drop = drop;
    old = hook_find(o, kind, slot, name);
    o->list[o->n++] = h;
    o->kinds |= 1u << kind;
    if (out) *out = gr_retain(h);
    if (old) gr_hook_remove(old);
    return GR_OK;
fail:
    gr_release(h);
    if (drop) drop(ud);
    return GR_ERR_MEMORY;
}

/* Puts e->replace in place of *value; e's view of it follows. */
static gr_status hook_replace(gr_event *e, gr_tensor **value) {
    gr_tensor *old = *value, *t = e->replace;
    e->replace = NULL;
    bool gradient = e->kind == GR_HOOK_GRAD || e->kind == GR_HOOK_BACKWARD_PRE || e->kind == GR_HOOK_BACKWARD;
    if (gradient && (t->dtype != old->dtype || !gri_same_dims(t->rank, t->dims, old->rank, old->dims))) {
        gr_status s = gr_fail(e->ctx, GR_ERR_SHAPE, "a hook returned %s in place of a gradient of %s",
                              gri_tensor_text(t), gri_tensor_text(old));
        gr_release(t);
        return s;
    }
    gr_tensor **seen = e->kind == GR_HOOK_FORWARD_PRE || e->kind == GR_HOOK_BACKWARD ? e->in : e->out;
    if (seen && seen != value) seen[0] = t;
    *value = t;
    gr_release(old);
    return GR_OK;
}

gr_status gri_hooks_run(gri_hooks *o, int slot, gr_event *e, gr_tensor **value) {
    if (!gri_hooks_any(o, e->kind)) return GR_OK;
    gr_status s = GR_OK;
    int n = o->n; /* hooks added meanwhile wait for the next time */
    o->running++;
    for (int i = 0; i < n && s == GR_OK; i++) {
        gr_hook *h = o->list[i];
        if (!h->active || h->kind != e->kind || h->slot != slot) continue;
        e->hook = h;
        e->replace = NULL;
        h->running++;
        bool recording = gr_grad_enabled(e->ctx);
        s = h->fn(h->ud, e);
        gr_set_grad_enabled(e->ctx, recording); /* what a hook switches is its own */
        h->running--;
        hook_drop(h);
        if (s == GR_OK && e->replace && value && *value) s = hook_replace(e, value);
        gr_release(e->replace); /* what was not put in place */
        e->replace = NULL;
        if (s != GR_OK) {
            gr_fail(e->ctx, s, "failed without a message");
            gr_fail_within(e->ctx, "hook%s%s on %s", h->name ? " " : "", h->name ? h->name : "",
                           e->name && *e->name ? e->name : "an unnamed tensor");
        }
    }
    o->running--;
    hook_compact(o);
    return s;
}

gr_status gr_hook_add(gr_ctx *ctx, void *owner, gr_hook_kind kind, const char *name, gr_hook_fn fn,
                      void (*drop)(void *ud), void *ud, gr_hook **out) {
    gri_object *o = owner;
    gri_hooks **list = NULL;
    int slot = 0;
    bool tensor = kind == GR_HOOK_GRAD || kind == GR_HOOK_POST_ACCUMULATE;
    bool optim = kind == GR_HOOK_STEP_PRE || kind == GR_HOOK_STEP;
    if (owner == (void *)ctx) {
        list = &ctx->hooks;
    } else if (tensor && o->kind == GRI_TENSOR) {
        gr_tensor *t = owner;
        if (!t->node) {
            gr_fail(ctx, GR_ERR_STATE, "a gradient hook needs a tensor that requires a gradient");
        } else if (kind == GR_HOOK_POST_ACCUMULATE && !gri_is_leaf_node(t->node)) {
            gr_fail(ctx, GR_ERR_STATE, "a post-accumulate hook needs a leaf: this tensor is the result of %s",
                    gri_node_text(t->node));
        } else {
            list = &t->node->hooks;
            slot = t->out_index;
        }
    } else if (!tensor && !optim && o->kind == GRI_LAYER) {
        list = &((gr_layer *)owner)->hooks;
    } else if (optim && o->kind == GRI_OPTIM) {
        list = gri_optim_hooks(owner);
    } else {
        gr_fail(ctx, GR_ERR_ARG, "hook kind %d does not go with this kind of object", (int)kind);
    }
    if (!list) {
        if (drop) drop(ud);
        return gr_errcode(ctx);
    }
    return hook_add(ctx, list, kind, slot, name, fn, drop, ud, out);
}
