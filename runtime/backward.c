/* Running the graph backwards: ordering, accumulation, hooks, un-broadcasting. Here and nowhere else. */
#include <stdlib.h>
#include <string.h>

#include "accumulate.h"
#include "copy.h"

/* One backward under way. */
typedef struct gri_pass {
    gr_ctx *ctx;
    struct gri_pass *outer;
    uint64_t id;
    bool create, retain, selective;
    gri_node **met, **heap, **leaves; /* all nodes reached; ready ones; leaves in order of readiness */
    int n_met, cap_met, n_heap, cap_heap, n_leaves, cap_leaves;
    gr_tensor **temps; /* values of the rule under way */
    int n_temps, cap_temps;
    int n_inputs; /* of gr_grad; selective */
    gr_tensor *const *inputs;
    int *first;           /* of each: where it is first in the list */
    gr_tensor **captured; /* its gradient: +1, there */
} gri_pass;

/* ---- what rules say ------------------------------------------------------------------------------------- */

static inline gri_slot *backward_target(const gri_grad *g, int input) {
    const gri_edge *e = &g->node->edges[input];
    if (!e->node || (g->pass->selective && !e->node->wanted)) return NULL;
    return &e->node->slots[e->out];
}

bool gri_needs(const gri_grad *g, int input) { return input < g->n_in && backward_target(g, input) != NULL; }

const gri_spec *gri_input_spec(const gri_grad *g, int input) {
    const gri_edge *e = &g->node->edges[input];
    if (e->node) return &e->node->slots[e->out].spec;
    return g->node->specs ? &g->node->specs[input] : NULL;
}

gr_status gri_emit(gri_grad *g, int input, const gr_op *op, int n, gr_tensor *const *in, const void *attrs) {
    gri_slot *s = input < g->n_in ? backward_target(g, input) : NULL;
    gri_pass *p = g->pass;
    uint64_t defaults[GRI_ATTR_MAX / 8];
    gr_tensor *t;
    bool done = false;
    if (!s) return GR_OK;
    gri_call c;
    gri_call_set(&c, p->ctx, op, n, in, attrs, defaults);
    GR_TRY(gri_poll(p->ctx));
    if (p->create || op->view || p->ctx->anomaly) {
        if (p->create) GR_TRY(gri_slot_run_recorded(&c, s, &done));
        if (done) return GR_OK;
        GR_TRY(gr_apply(p->ctx, op, n, in, attrs, &t));
        return gri_slot_add(p->ctx, s, t, p->create);
    }
    GR_TRY(gri_check(&c));
    GR_TRY(gri_slot_run(&c, s, &done));
    if (done) return GR_OK;
    GR_TRY(gri_tensor_like_spec(p->ctx, &c.spec[0], &t));
    c.out[0] = t;
    c.mode = GRI_SET;
    gr_status st = gri_run(&c);
    if (st != GR_OK) {
        gr_release(t);
        return st;
    }
    return gri_slot_add(p->ctx, s, t, p->create);
}

gr_status gri_emit_many(gri_grad *g, const int *to, const gr_op *op, int n, gr_tensor *const *in, const void *attrs) {
    gri_pass *p = g->pass;
    gri_slot *s[GRI_MAX_OUT];
    uint64_t defaults[GRI_ATTR_MAX / 8];
    gri_call c;
    bool any = false;
    gri_call_set(&c, p->ctx, op, n, in, attrs, defaults);
    for (int i = 0; i < c.n_out; i++) {
        s[i] = to[i] >= 0 && to[i] < g->n_in ? backward_target(g, to[i]) : NULL;
        if (s[i]) any = true;
    }
    if (!any) return GR_OK;
    gr_status st = gri_poll(p->ctx);
    if (p->create || p->ctx->anomaly) {
        if (st == GR_OK) st = gr_apply(p->ctx, op, n, in, attrs, c.out);
    } else {
        if (st == GR_OK) st = gri_check(&c);
        for (int i = 0; i < c.n_out && st == GR_OK; i++)
            if (s[i]) st = gri_tensor_like_spec(p->ctx, &c.spec[i], &c.out[i]);
        if (st == GR_OK) st = gri_run(&c);
    }
    for (int i = 0; i < c.n_out; i++) {
        if (st == GR_OK && s[i] && c.out[i]) st = gri_slot_add(p->ctx, s[i], c.out[i], p->create);
        else gr_release(c.out[i]);
    }
    return st;
}

gr_status gri_emit_same(gri_grad *g, int input, gr_tensor *t) {
    gri_slot *s = input < g->n_in ? backward_target(g, input) : NULL;
    return s ? gri_slot_add(g->ctx, s, gr_retain(t), g->pass->create) : GR_OK;
}

static gr_status backward_own(gri_pass *p, gr_tensor *t) {
    if (gri_grow(p->ctx, &p->temps, &p->cap_temps, p->n_temps + 1, sizeof *p->temps) != GR_OK) {
        gr_release(t);
        return GR_ERR_MEMORY;
    }
    p->temps[p->n_temps++] = t;
    return GR_OK;
}

gr_status gri_eval(gri_grad *g, gr_tensor **out, const gr_op *op, int n, gr_tensor *const *in, const void *attrs) {
    gr_tensor *made[GRI_MAX_OUT];
    gr_status s = gr_apply(g->ctx, op, n, in, attrs, made);
    for (int i = 0; s == GR_OK && i < gr_op_outputs(op); i++) {
        s = backward_own(g->pass, made[i]);
        out[i] = made[i];
    }
    return s;
}

gr_status gri_scalar(gri_grad *g, gr_tensor **out, double value) {
    gr_dtype t = GR_F32;
    for (int i = 0; i < g->n_out; i++)
        if (g->dy[i]) t = (gr_dtype)g->dy[i]->dtype;
    GR_TRY(gr_tensor_scalar(g->ctx, t, value, out));
    return backward_own(g->pass, *out);
}

/* ---- running a pass ------------------------------------------------------------------------------------- */

static gr_status backward_push(gri_pass *p, gri_node *n) {
    GR_TRY(gri_grow(p->ctx, &p->heap, &p->cap_heap, p->n_heap + 1, sizeof *p->heap));
    int at = p->n_heap++;
    while (at > 0 && p->heap[(at - 1) / 2]->sequence < n->sequence) {
        p->heap[at] = p->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    p->heap[at] = n;
    return GR_OK;
}

static gri_node *backward_pop(gri_pass *p) {
    gri_node *top = p->heap[0], *last = p->heap[--p->n_heap];
    int at = 0;
    for (;;) {
        int child = 2 * at + 1;
        if (child >= p->n_heap) break;
        if (child + 1 < p->n_heap && p->heap[child + 1]->sequence > p->heap[child]->sequence) child++;
        if (p->heap[child]->sequence < last->sequence) break;
        p->heap[at] = p->heap[child];
        at = child;
    }
    p->heap[at] = last;
    return top;
}

static gr_status backward_meet(gri_pass *p, gri_node *n) {
    for (gri_pass *o = p->outer; o; o = o->outer)
        if (n->pass == o->id && n->pass)
            return gr_fail(p->ctx, GR_ERR_STATE,
                           "backward inside a hook reached %s, which the backward under way is using",
                           gri_node_text(n));
    GR_TRY(gri_grow(p->ctx, &p->met, &p->cap_met, p->n_met + 1, sizeof *p->met));
    n->pass = p->id;
    n->waiting = 0;
    n->wanted = false;
    p->met[p->n_met++] = gri_node_retain(n);
    return GR_OK;
}

/* All nodes the roots reach. `met` doubles as the queue. */
static gr_status backward_discover(gri_pass *p, int n_roots, gr_tensor *const *roots) {
    for (int i = 0; i < n_roots; i++)
        if (roots[i]->node->pass != p->id) GR_TRY(backward_meet(p, roots[i]->node));
    for (int i = 0; i < p->n_met; i++) {
        gri_node *n = p->met[i];
        for (int k = 0; k < n->n_in; k++) {
            gri_node *t = n->edges[k].node;
            if (t && t->pass != p->id) GR_TRY(backward_meet(p, t));
        }
    }
    return GR_OK;
}

/* Marks the slots of gr_grad's inputs. Only those of nodes this pass has met: the others have no gradient here, and
 * may be marked by a pass around this one. */
static void backward_mark_inputs(gri_pass *p) {
    for (int i = 0; i < p->n_inputs; i++) {
        const gr_tensor *t = p->inputs[i];
        gri_slot *s = &t->node->slots[t->out_index];
        p->first[i] = i;
        if (t->node->pass != p->id) continue;
        if (s->capture) p->first[i] = s->capture - 1;
        else s->capture = i + 1;
    }
}

static int backward_earlier(const void *a, const void *b) {
    uint64_t x = (*(gri_node *const *)a)->sequence, y = (*(gri_node *const *)b)->sequence;
    return x < y ? -1 : x > y;
}

static void backward_mark_wanted(gri_pass *p) {
    qsort(p->met, (size_t)p->n_met, sizeof *p->met, backward_earlier);
    for (int i = 0; i < p->n_met; i++) {
        gri_node *n = p->met[i];
        for (int k = 0; k < n->n_out && !n->wanted; k++) n->wanted = n->slots[k].capture != 0;
        for (int k = 0; k < n->n_in && !n->wanted; k++) n->wanted = n->edges[k].node && n->edges[k].node->wanted;
    }
}

static inline bool backward_follows(const gri_pass *p, const gri_node *t) {
    return t && (!p->selective || t->wanted);
}

static void backward_count(gri_pass *p) {
    for (int i = 0; i < p->n_met; i++)
        for (int k = 0; k < p->met[i]->n_in; k++)
            if (backward_follows(p, p->met[i]->edges[k].node)) p->met[i]->edges[k].node->waiting++;
}

/* Gradient hooks, retained gradient, capture: when all contributions to the node's outputs are in. */
static gr_status backward_complete(gri_pass *p, gri_node *n) {
    gr_ctx *ctx = p->ctx;
    bool global = gri_hooks_any(ctx->hooks, GR_HOOK_GRAD);
    for (int k = 0; k < n->n_out; k++) {
        gri_slot *s = &n->slots[k];
        if (!s->grad) continue;
        if (global || gri_hooks_any(n->hooks, GR_HOOK_GRAD)) {
            const char *name = n->name ? n->name : gri_is_leaf_node(n) ? "" : gri_node_text(n);
            gr_event e = {.kind = GR_HOOK_GRAD, .ctx = ctx, .step = ctx->step, .name = name, .param = n->data,
                          .layer = n->layer, .n_out = 1, .out = &s->grad};
            if (gri_is_leaf_node(n)) GR_TRY(gri_hooks_run(ctx->hooks, 0, &e, &s->grad));
            GR_TRY(gri_hooks_run(n->hooks, k, &e, &s->grad));
        }
        if (s->retain && !gri_is_leaf_node(n)) {
            gr_release(s->retained);
            s->retained = gr_retain(s->grad);
            if (s->grad->node) gri_node_loop(n);
        }
        if (s->capture) p->captured[s->capture - 1] = gr_retain(s->grad);
    }
    return GR_OK;
}

/* Kept tensors as the rule wants them; in create mode outputs get their history back. */
static gr_status backward_unpack(gri_pass *p, gri_node *n, gr_tensor **in, gr_tensor **out) {
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        gri_kept k = n->kept ? n->kept[i] : (gri_kept){0};
        gr_tensor **to = i < n->n_in ? &in[i] : &out[i - n->n_in];
        *to = k.tensor;
        if (!k.tensor) continue;
        if (k.tensor->storage->version != k.version) {
            bool input = i < n->n_in;
            return gr_fail(
                p->ctx, GR_ERR_STATE,
                "%s %d of %s (%s) was overwritten in place after the forward pass (version %llu, expected %llu)",
                input ? "input" : "output", (input ? i : i - n->n_in) + 1, gri_node_text(n),
                gri_tensor_text(k.tensor), (unsigned long long)k.tensor->storage->version,
                (unsigned long long)k.version);
        }
        if (p->create && i >= n->n_in) {
            GR_TRY(gri_tensor_alias(k.tensor, to));
            (*to)->node = gri_node_retain(n);
            (*to)->out_index = (uint16_t)(i - n->n_in);
            GR_TRY(backward_own(p, *to));
        }
    }
    return GR_OK;
}

static gr_status backward_host(gri_pass *p, gri_grad *g) {
    gri_node *n = g->node;
    gr_tensor *few[GRI_MAX_IN] = {0}, **dx = few;
    if (n->n_in > GRI_MAX_IN) {
        dx = gri_new(p->ctx, n->n_in * sizeof *dx);
        if (!dx) return GR_ERR_MEMORY;
        memset(dx, 0, n->n_in * sizeof *dx);
    }
    gr_status s = n->host_backward(n->host_ud, p->ctx, n->n_out, g->dy, n->n_in, dx);
    for (int i = 0; i < n->n_in; i++) {
        gri_slot *slot = backward_target(g, i);
        if (s == GR_OK && dx[i] && slot) {
            gri_spec spec = slot->spec;
            bool fits = gri_broadcast(&spec.rank, spec.dims, dx[i]->rank, dx[i]->dims) &&
                        gri_same_dims(spec.rank, spec.dims, dx[i]->rank, dx[i]->dims);
            s = fits ? gri_slot_add(p->ctx, slot, dx[i], p->create)
                     : gr_fail(p->ctx, GR_ERR_SHAPE, "backward of %s gave %s for input %d of shape %s",
                               gri_node_text(n), gri_tensor_text(dx[i]), i + 1,
                               gri_dims_text(slot->spec.rank, slot->spec.dims));
            if (fits) dx[i] = NULL;
        }
        gr_release(dx[i]);
    }
    if (dx != few) gri_delete(p->ctx, dx, n->n_in * sizeof *dx);
    return s;
}

static gr_status backward_rule(gri_pass *p, gri_node *n) {
    if (n->freed)
        return gr_fail(p->ctx, GR_ERR_STATE,
                       "the graph of %s was already used and freed; pass retain_graph = true to the first backward",
                       gri_node_text(n));
    gr_tensor *few[GRI_MAX_IN + 2 * GRI_MAX_OUT], **in = few;
    size_t room = (n->n_in + 2u * n->n_out) * sizeof *in;
    if (room > sizeof few && !(in = gri_new(p->ctx, room))) return GR_ERR_MEMORY;
    gr_tensor **out = in + n->n_in, **dy = out + n->n_out;
    gri_grad g = {.ctx = p->ctx,
                  .op = n->op,
                  .attrs = n->attrs,
                  .n_in = n->n_in,
                  .n_out = n->n_out,
                  .dy = dy,
                  .in = in,
                  .out = out,
                  .node = n,
                  .pass = p};
    for (int i = 0; i < n->n_out; i++) dy[i] = n->slots[i].grad;
    void *layer = p->ctx->layer;
    p->ctx->layer = n->layer;
    gr_status s = backward_unpack(p, n, in, out);
    if (s == GR_OK) s = n->op ? n->op->backward(&g) : backward_host(p, &g);
    p->ctx->layer = layer;
    if (s != GR_OK) gr_fail_within(p->ctx, "backward of %s", gri_node_text(n));
    while (p->n_temps) gri_tensor_release(p->temps[--p->n_temps]);
    if (in != few) gri_delete(p->ctx, in, room);
    return s;
}

static gr_status backward_visit(gri_pass *p, gri_node *n) {
    bool any = false;
    GR_TRY(backward_complete(p, n));
    if (gri_is_leaf_node(n)) {
        if (p->selective) return GR_OK;
        GR_TRY(gri_grow(p->ctx, &p->leaves, &p->cap_leaves, p->n_leaves + 1, sizeof *p->leaves));
        p->leaves[p->n_leaves++] = n;
        return GR_OK;
    }
    for (int k = 0; k < n->n_out; k++) any |= n->slots[k].grad != NULL;
    bool needed = false;
    for (int k = 0; k < n->n_in; k++) needed |= backward_follows(p, n->edges[k].node);
    if (any && needed) GR_TRY(backward_rule(p, n));
    for (int k = 0; k < n->n_out; k++) {
        gri_tensor_release(n->slots[k].grad);
        n->slots[k].grad = NULL;
    }
    if (!p->retain) gri_node_free_kept(n);
    for (int k = 0; k < n->n_in; k++) {
        gri_node *t = n->edges[k].node;
        if (backward_follows(p, t) && --t->waiting == 0) GR_TRY(backward_push(p, t));
    }
    return GR_OK;
}

/* ---- leaves --------------------------------------------------------------------------------------------- */

/* The gradients become .grad only when the whole pass has succeeded. First everything that can fail. */
static gr_status backward_prepare_leaves(gri_pass *p) {
    for (int i = 0; i < p->n_leaves; i++) {
        gri_slot *s = &p->leaves[i]->slots[0];
        gr_tensor *t = s->grad, *own;
        if (!t || p->create) continue;
        if (p->leaves[i]->grad) continue; /* will be added to what is there */
        if (!t->node && gri_exclusive(t)) continue;
        GR_TRY(gri_tensor_like_spec(p->ctx, &s->spec, &own));
        gr_status st = gri_copy(p->ctx, own, t, GRI_SET);
        s->grad = own;
        gr_release(t);
        GR_TRY(st);
    }
    return GR_OK;
}

static gr_status backward_commit_leaf(gri_pass *p, gri_node *n) {
    gri_slot *s = &n->slots[0];
    gr_ctx *ctx = p->ctx;
    if (!s->grad) return GR_OK;
    if (!n->grad) {
        n->grad = s->grad;
        s->grad = NULL;
    } else if (p->create) {
        gr_tensor *sum;
        GR_TRY(gr_apply(ctx, &gri_op_add, 2, GRI_TENSORS(n->grad, s->grad), NULL, &sum));
        gr_release(n->grad);
        n->grad = sum;
    } else {
        GR_TRY(gri_copy(ctx, n->grad, s->grad, GRI_ADD));
        n->grad->storage->version++;
    }
    if (n->grad->node) gri_node_loop(n);
    return GR_OK;
}

static gr_status backward_post_accumulate(gri_pass *p, gri_node *n) {
    gr_ctx *ctx = p->ctx;
    gr_event e = {.kind = GR_HOOK_POST_ACCUMULATE, .ctx = ctx, .step = ctx->step, .name = n->name ? n->name : "",
                  .param = n->data, .n_out = 1, .out = &n->grad};
    if (!n->grad) return GR_OK;
    GR_TRY(gri_hooks_run(ctx->hooks, 0, &e, NULL));
    return gri_hooks_run(n->hooks, 0, &e, NULL);
}

static gr_status backward_commit(gri_pass *p) {
    gr_status s = backward_prepare_leaves(p), hooked = GR_OK;
    for (int i = 0; i < p->n_leaves && s == GR_OK; i++) s = backward_commit_leaf(p, p->leaves[i]);
    bool global = gri_hooks_any(p->ctx->hooks, GR_HOOK_POST_ACCUMULATE);
    for (int i = 0; i < p->n_leaves && s == GR_OK && hooked == GR_OK; i++)
        if (global || gri_hooks_any(p->leaves[i]->hooks, GR_HOOK_POST_ACCUMULATE))
            hooked = backward_post_accumulate(p, p->leaves[i]);
    return s != GR_OK ? s : hooked;
}

/* ---- entry ---------------------------------------------------------------------------------------------- */

static gr_status backward_seed(gri_pass *p, gr_tensor *root, gr_tensor *seed) {
    gri_slot *s = &root->node->slots[root->out_index];
    gr_ctx *ctx = p->ctx;
    gr_tensor *t;
    if (seed) {
        if (!gri_fits(&s->spec, seed))
            return gr_fail(ctx, GR_ERR_SHAPE, "the gradient of the root is %s, but the root is %s",
                           gri_tensor_text(seed), gri_tensor_text(root));
        return gri_slot_add(ctx, s, gr_retain(seed), p->create);
    }
    if (root->numel != 1)
        return gr_fail(ctx, GR_ERR_SHAPE, "the root is %s: without a gradient for it, it must have one element",
                       gri_tensor_text(root));
    GR_TRY(gri_tensor_like_spec(ctx, &s->spec, &t));
    gr_status st = gr_tensor_fill(t, 1);
    if (st == GR_OK) return gri_slot_add(ctx, s, t, p->create);
    gr_release(t);
    return st;
}

static void backward_end(gri_pass *p) {
    gr_ctx *ctx = p->ctx;
    for (int i = 0; i < p->n_met; i++) {
        gri_node *n = p->met[i];
        for (int k = 0; k < n->n_out; k++) {
            gri_tensor_release(n->slots[k].grad);
            n->slots[k].grad = NULL;
            n->slots[k].capture = 0;
        }
    }
    ctx->passes = p->outer;
    for (int i = 0; i < p->n_met; i++) gri_node_release(p->met[i]);
    while (p->n_temps) gri_tensor_release(p->temps[--p->n_temps]);
    gri_array_free(ctx, p->met, p->cap_met, sizeof *p->met);
    gri_array_free(ctx, p->heap, p->cap_heap, sizeof *p->heap);
    gri_array_free(ctx, p->leaves, p->cap_leaves, sizeof *p->leaves);
    gri_array_free(ctx, p->temps, p->cap_temps, sizeof *p->temps);
}

static gr_status backward_run(gri_pass *p, int n_roots, gr_tensor *const *roots, gr_tensor *const *seeds) {
    GR_TRY(backward_discover(p, n_roots, roots));
    backward_mark_inputs(p);
    if (p->selective) backward_mark_wanted(p);
    backward_count(p);
    for (int i = 0; i < n_roots; i++) GR_TRY(backward_seed(p, roots[i], seeds ? seeds[i] : NULL));
    for (int i = 0; i < n_roots; i++) {
        gri_node *n = roots[i]->node;
        bool first = n->waiting == 0 && (!p->selective || n->wanted);
        for (int k = 0; k < i && first; k++) first = roots[k]->node != n;
        if (first) GR_TRY(backward_push(p, n));
    }
    while (p->n_heap) GR_TRY(backward_visit(p, backward_pop(p)));
    return p->selective ? GR_OK : backward_commit(p);
}

static gr_status backward_pass(gr_ctx *ctx, gri_pass *p, int n_roots, gr_tensor *const *roots,
                               gr_tensor *const *seeds) {
    for (int i = 0; i < n_roots; i++)
        if (!roots[i]->node)
            return gr_fail(ctx, GR_ERR_STATE, "the root %s does not depend on anything that requires a gradient",
                           gri_tensor_text(roots[i]));
    p->ctx = ctx;
    p->outer = ctx->passes;
    p->id = ++ctx->pass;
    ctx->passes = p;
    bool was = gr_set_grad_enabled(ctx, p->create);
    gr_status s = backward_run(p, n_roots, roots, seeds);
    gr_set_grad_enabled(ctx, was);
    backward_end(p);
    return s;
}

gr_status gr_backward(gr_tensor *root, const gr_backward_options *opt) {
    gr_backward_options none = {0};
    if (!opt) opt = &none;
    gri_pass p = {.create = opt->create_graph, .retain = opt->retain_graph || opt->create_graph};
    gr_tensor *seed = opt->seed;
    gr_ctx *ctx = root->head.ctx; /* a hook may let go of the root */
    gr_status s = backward_pass(ctx, &p, 1, &root, &seed);
    if (s != GR_OK) gr_fail_within(ctx, "backward");
    return s;
}

/* Once the pass has begun, hooks may let go of outputs and inputs: from there on the lists are not read. */
static gr_status backward_grad(gr_ctx *ctx, gri_pass *p, int n_outputs, gr_tensor *const *outputs,
                               gr_tensor *const *seeds, bool allow_unused) {
    for (int i = 0; i < p->n_inputs; i++)
        if (!p->inputs[i]->node) return gr_fail(ctx, GR_ERR_STATE, "input %d does not require a gradient", i + 1);
    GR_TRY(backward_pass(ctx, p, n_outputs, outputs, seeds));
    for (int i = 0; i < p->n_inputs; i++) {
        if (p->first[i] != i) p->captured[i] = gr_retain(p->captured[p->first[i]]);
        if (!p->captured[i] && !allow_unused)
            return gr_fail(ctx, GR_ERR_STATE,
                           "the outputs do not depend on input %d; pass allow_unused = true if that is meant", i + 1);
    }
    return GR_OK;
}

gr_status gr_grad(int n_outputs, gr_tensor *const *outputs, gr_tensor *const *seeds, int n_inputs,
                  gr_tensor *const *inputs, const gr_backward_options *opt, gr_tensor **out) {
    gr_backward_options none = {0};
    if (!opt) opt = &none;
    if (n_outputs < 1 || n_inputs < 1) return GR_ERR_ARG;
    gr_ctx *ctx = outputs[0]->head.ctx;
    gri_pass p = {.create = opt->create_graph, .retain = opt->retain_graph || opt->create_graph, .selective = true,
                  .n_inputs = n_inputs, .inputs = inputs};
    size_t lists = (size_t)n_inputs * (sizeof *p.captured + sizeof *p.first);
    p.captured = gri_new(ctx, lists);
    if (!p.captured) return GR_ERR_MEMORY;
    memset(p.captured, 0, lists);
    p.first = (int *)(p.captured + n_inputs);
    gr_status s = backward_grad(ctx, &p, n_outputs, outputs, seeds, opt->allow_unused);
    for (int i = 0; i < n_inputs; i++) {
        if (s == GR_OK) out[i] = p.captured[i];
        else gr_release(p.captured[i]);
    }
    gri_delete(ctx, p.captured, lists);
    if (s != GR_OK) gr_fail_within(ctx, "grad");
    return s;
}
