#include "layer.h"

#include <stdio.h>
#include <string.h>

#include "draw.h"
#include "tape.h"

/* Layers are walked by recursion: forward takes some 1 KB of the C stack a level. */
#define LAYER_LEVELS 200

extern const gr_layer_kind *const gri_layers[]; /* generated list, ended by NULL */

int gr_layer_kind_count(void) {
    int n = 0;
    while (gri_layers[n]) n++;
    return n;
}

const gr_layer_kind *gr_layer_kind_at(int i) { return gri_layers[i]; }

const gr_layer_kind *gr_layer_kind_find(const char *name) {
    for (int i = 0; gri_layers[i]; i++)
        if (strcmp(gri_layers[i]->info.name, name) == 0) return gri_layers[i];
    return NULL;
}

const gr_info *gr_layer_kind_info(const gr_layer_kind *k) { return &k->info; }
const gr_info *gr_layer_kind_schema(const gr_layer_kind *k) { return k->op ? gr_op_info(k->op) : &k->info; }
const gr_info *gr_layer_kind_call(const gr_layer_kind *k) { return k->call; }
bool gr_layer_kind_container(const gr_layer_kind *k) { return k->container; }

/* ---- life ----------------------------------------------------------------------------------------------- */

static void layer_free_members(gr_ctx *ctx, gri_member *m, int n, int cap) {
    for (int i = 0; i < n; i++) {
        gri_strfree(ctx, m[i].name);
        gr_release(m[i].tensor);
    }
    gri_array_free(ctx, m, cap, sizeof *m);
}

void gri_layer_free(gr_layer *l) {
    gr_ctx *ctx = l->head.ctx;
    gri_hooks_free(ctx, &l->hooks);
    if (l->host_drop) l->host_drop(l->host_ud);
    layer_free_members(ctx, l->params, l->n_params, l->cap_params);
    layer_free_members(ctx, l->buffers, l->n_buffers, l->cap_buffers);
    for (int i = 0; i < l->n_children; i++) {
        gri_strfree(ctx, l->children[i].name);
        gr_release(l->children[i].layer);
    }
    gri_array_free(ctx, l->children, l->cap_children, sizeof *l->children);
    gri_strfree(ctx, l->type);
    gri_strfree(ctx, l->path);
    if (l->attrs) gri_delete(ctx, l->attrs, gr_layer_kind_schema(l->kind)->attr_size);
    ctx->objects[GRI_LAYER]--;
    gri_delete(ctx, l, sizeof *l);
}

static gr_layer *layer_alloc(gr_ctx *ctx) {
    gr_layer *l = gri_new(ctx, sizeof *l);
    if (!l) return NULL;
    *l = (gr_layer){.head = {ctx, 1, GRI_LAYER}, .training = true};
    ctx->objects[GRI_LAYER]++;
    return l;
}

gr_status gr_layer_new(gr_ctx *ctx, const gr_layer_kind *kind, const void *attrs, gr_layer **out) {
    gr_layer *l = layer_alloc(ctx);
    if (!l) return GR_ERR_MEMORY;
    gr_status s = GR_OK;
    l->kind = kind;
    const gr_info *schema = gr_layer_kind_schema(kind);
    if (schema->attr_size) {
        l->attrs = gri_new(ctx, schema->attr_size);
        if (!l->attrs) s = GR_ERR_MEMORY;
        else if (attrs) memcpy(l->attrs, attrs, schema->attr_size);
        else gr_attrs_default(schema, l->attrs);
    }
    if (s == GR_OK && kind->init) s = kind->init(l);
    if (s != GR_OK) {
        gr_fail_within(ctx, "%s", kind->info.name);
        gr_release(l);
        return s;
    }
    *out = l;
    return GR_OK;
}

gr_status gr_layer_custom(gr_ctx *ctx, const char *name, gr_forward_fn forward, void (*drop)(void *ud), void *ud,
                          gr_layer **out) {
    gr_layer *l = layer_alloc(ctx);
    if (!l || !(l->type = gri_strdup(ctx, name))) {
        gr_release(l);
        if (drop) drop(ud);
        return GR_ERR_MEMORY;
    }
    l->host_forward = forward;
    l->host_drop = drop;
    l->host_ud = ud;
    *out = l;
    return GR_OK;
}

/* ---- members and their names ---------------------------------------------------------------------------- */

/* "a.b", or "b" under an unnamed parent. NULL when out of memory. For gri_strfree. */
static char *layer_join(gr_ctx *ctx, const char *path, const char *name) {
    if (!*path) return gri_strdup(ctx, name);
    char *s = gri_new(ctx, strlen(path) + strlen(name) + 2);
    if (s) sprintf(s, "%s.%s", path, name);
    return s;
}

static gr_status layer_name_param(gr_layer *l, const gri_member *m) {
    char *full = layer_join(l->head.ctx, gr_layer_path_peek(l), m->name);
    if (!full) return GR_ERR_MEMORY;
    gr_status s = gr_tensor_requires_grad(m->tensor) ? gr_tensor_set_name(m->tensor, full) : GR_OK;
    gri_strfree(l->head.ctx, full);
    return s;
}

static gr_status layer_set_path(gr_layer *l, const char *parent, const char *name) {
    gr_ctx *ctx = l->head.ctx;
    char *path = layer_join(ctx, parent, name);
    if (!path) return GR_ERR_MEMORY;
    gri_strfree(ctx, l->path);
    l->path = path;
    for (int i = 0; i < l->n_params; i++) GR_TRY(layer_name_param(l, &l->params[i]));
    for (int i = 0; i < l->n_children; i++) GR_TRY(layer_set_path(l->children[i].layer, path, l->children[i].name));
    return GR_OK;
}

static bool layer_reaches(const gr_layer *from, const gr_layer *to) {
    if (from == to) return true;
    for (int i = 0; i < from->n_children; i++)
        if (layer_reaches(from->children[i].layer, to)) return true;
    return false;
}

/* Levels of layers from this one down: 1 if it has no children. */
static int layer_height(const gr_layer *l) {
    int most = 0;
    for (int i = 0; i < l->n_children; i++) {
        int height = layer_height(l->children[i].layer);
        if (height > most) most = height;
    }
    return most + 1;
}

/* Levels above it, where it was last put: one for each name in its path. */
static int layer_depth(const gr_layer *l) {
    const char *path = gr_layer_path_peek(l);
    int depth = *path != 0;
    for (; *path; path++) depth += *path == '.';
    return depth;
}

static gr_status layer_check_name(gr_layer *l, const char *name) {
    if (!*name || strchr(name, '.'))
        return gr_fail(l->head.ctx, GR_ERR_ARG, "\"%s\" is not a member name: it must not be empty or contain a dot",
                       name);
    for (int i = 0; i < l->n_children; i++)
        if (strcmp(l->children[i].name, name) == 0)
            return gr_fail(l->head.ctx, GR_ERR_ARG, "the layer already has a member \"%s\"", name);
    for (int i = 0; i < l->n_params + l->n_buffers; i++) {
        const gri_member *m = i < l->n_params ? &l->params[i] : &l->buffers[i - l->n_params];
        if (strcmp(m->name, name) == 0)
            return gr_fail(l->head.ctx, GR_ERR_ARG, "the layer already has a member \"%s\"", name);
    }
    return GR_OK;
}

gr_status gr_layer_add_child(gr_layer *l, const char *name, gr_layer *child) {
    gr_ctx *ctx = l->head.ctx;
    GR_TRY(layer_check_name(l, name));
    if (layer_reaches(child, l))
        return gr_fail(ctx, GR_ERR_ARG, "layer \"%s\" cannot be put inside itself", name);
    int levels = layer_depth(l) + 1 + layer_height(child);
    if (levels > LAYER_LEVELS)
        return gr_fail(ctx, GR_ERR_ARG, "layer \"%s\" would be level %d of layers in layers, at most %d are "
                       "possible", name, levels, LAYER_LEVELS);
    GR_TRY(gri_grow(ctx, &l->children, &l->cap_children, l->n_children + 1, sizeof *l->children));
    char *copy = gri_strdup(ctx, name);
    if (!copy) return GR_ERR_MEMORY;
    gr_status s = layer_set_path(child, gr_layer_path_peek(l), name);
    if (s == GR_OK) l->children[l->n_children++] = (gri_child){copy, gr_retain(child)};
    else gri_strfree(ctx, copy);
    return s;
}

static gr_status layer_add_member(gr_layer *l, gri_member **list, int *n, int *cap, const char *name, gr_tensor *t) {
    gr_ctx *ctx = l->head.ctx;
    bool param = list == &l->params;
    GR_TRY(layer_check_name(l, name));
    GR_TRY(gri_grow(ctx, list, cap, *n + 1, sizeof **list));
    char *copy = gri_strdup(ctx, name);
    if (!copy) return GR_ERR_MEMORY;
    gri_member m = {copy, t};
    gr_status s = param ? layer_name_param(l, &m) : GR_OK;
    if (s == GR_OK) (*list)[(*n)++] = (gri_member){copy, gr_retain(t)};
    else gri_strfree(ctx, copy);
    return s;
}

gr_status gr_layer_add_param(gr_layer *l, const char *name, gr_tensor *param) {
    if (!gr_tensor_is_leaf(param))
        return gr_fail(l->head.ctx, GR_ERR_ARG, "parameter \"%s\" is not a leaf: it is the result of %s", name,
                       gri_node_text(param->node));
    GR_TRY(gr_tensor_set_requires_grad(param, true));
    return layer_add_member(l, &l->params, &l->n_params, &l->cap_params, name, param);
}

gr_status gr_layer_add_buffer(gr_layer *l, const char *name, gr_tensor *buffer) {
    if (!gr_tensor_is_leaf(buffer)) /* made within the layer, it would hold the layer that holds it */
        return gr_fail(l->head.ctx, GR_ERR_ARG, "buffer \"%s\" is not a leaf: it is the result of %s; detach it",
                       name, gri_node_text(buffer->node));
    return layer_add_member(l, &l->buffers, &l->n_buffers, &l->cap_buffers, name, buffer);
}

gr_status gri_layer_param(gr_layer *l, const char *name, int rank, const int64_t *dims, gr_tensor **peek) {
    gr_tensor *t;
    GR_TRY(gr_tensor_new(l->head.ctx, l->head.ctx->default_dtype, rank, dims, &t));
    gr_status s = gr_layer_add_param(l, name, t);
    if (s == GR_OK) *peek = t;
    gr_release(t);
    return s;
}

/* Fills t by an op that draws; attrs begin with `draw`, which is filled here. */
static gr_status layer_draw(gr_tensor *t, const gr_op *op, gri_draw_attrs *draw) {
    gr_ctx *ctx = t->head.ctx;
    draw->dtype = t->dtype;
    draw->shape.n = t->rank;
    memcpy(draw->shape.v, t->dims, t->rank * sizeof *t->dims);
    gr_random_next(ctx, &draw->seed, &draw->counter);
    bool was = gr_set_grad_enabled(ctx, false);
    gr_status s = gr_apply_into(ctx, op, 0, NULL, draw, t);
    gr_set_grad_enabled(ctx, was);
    return s;
}

gr_status gri_uniform_(gr_tensor *t, double bound) {
    gri_uniform_attrs a = {.lo = -bound, .hi = bound};
    return layer_draw(t, &gri_op_uniform, &a.draw);
}

gr_status gri_normal_(gr_tensor *t, double mean, double std) {
    gri_normal_attrs a = {.mean = mean, .std = std};
    return layer_draw(t, &gri_op_normal, &a.draw);
}

gr_status gri_fill_(gr_tensor *t, double value) {
    bool was = gr_set_grad_enabled(t->head.ctx, false);
    gr_status s = gr_tensor_fill(t, value);
    gr_set_grad_enabled(t->head.ctx, was);
    return s;
}

gr_status gr_layer_train(gr_layer *l, bool on) {
    l->training = on;
    for (int i = 0; i < l->n_children; i++) GR_TRY(gr_layer_train(l->children[i].layer, on));
    return GR_OK;
}

bool gr_layer_training(const gr_layer *l) { return l->training; }
const char *gr_layer_type_peek(const gr_layer *l) { return l->kind ? l->kind->info.name : l->type; }
const char *gr_layer_path_peek(const gr_layer *l) { return l->path ? l->path : ""; }
const gr_layer_kind *gr_layer_kind_peek(const gr_layer *l) { return l->kind; }
void *gr_layer_attrs_peek(gr_layer *l) { return l->attrs; }
int gr_layer_children(const gr_layer *l) { return l->n_children; }
int gr_layer_params(const gr_layer *l) { return l->n_params; }
int gr_layer_buffers(const gr_layer *l) { return l->n_buffers; }

int gr_layer_describe(const gr_layer *l, char *buf, size_t size) {
    if (size) buf[0] = 0;
    return l->kind && l->kind->describe ? l->kind->describe(l, buf, size) : 0;
}

gr_layer *gr_layer_child_peek(const gr_layer *l, int i, const char **name) {
    if (i < 0 || i >= l->n_children) return NULL;
    if (name) *name = l->children[i].name;
    return l->children[i].layer;
}

gr_tensor *gr_layer_param_peek(const gr_layer *l, int i, const char **name) {
    if (i < 0 || i >= l->n_params) return NULL;
    if (name) *name = l->params[i].name;
    return l->params[i].tensor;
}

gr_tensor *gr_layer_buffer_peek(const gr_layer *l, int i, const char **name) {
    if (i < 0 || i >= l->n_buffers) return NULL;
    if (name) *name = l->buffers[i].name;
    return l->buffers[i].tensor;
}

/* ---- backward hooks --------------------------------------------------------------------------------------
 * A layer with backward hooks has a boundary on its inputs and one on its outputs: identities in the graph
 * whose backward is where the layer's gradients pass. The outputs' is met first and leaves what it saw for
 * the inputs' one. Where no input wants a gradient there is only the outputs' boundary, and it runs both
 * kinds of hook. */

typedef struct layer_boundary {
    int refs;
    bool inputs; /* there is an input boundary */
    gr_layer *layer;
    int n_in, n_out;
    int at[GR_LAYER_TENSORS];        /* which input the boundary's i-th is: absent ones are not in it */
    gr_tensor *dy[GR_LAYER_TENSORS]; /* gradients of the outputs, from their boundary to the inputs' */
} layer_boundary;

static void layer_release(gr_tensor **list) {
    for (int i = 0; i < GR_LAYER_TENSORS; i++) {
        gri_tensor_release(list[i]);
        list[i] = NULL;
    }
}

static void layer_boundary_drop(void *ud) {
    layer_boundary *b = ud;
    gr_ctx *ctx = b->layer->head.ctx;
    if (--b->refs) return;
    layer_release(b->dy);
    gr_release(b->layer);
    gri_delete(ctx, b, sizeof *b);
}

static gr_status layer_run_hooks(gr_layer *l, gr_event *e, gr_tensor **value) {
    gr_ctx *ctx = l->head.ctx;
    e->ctx = ctx;
    e->layer = l;
    e->step = ctx->step;
    const char *path = gr_layer_path_peek(l);
    e->name = *path ? path : gr_layer_type_peek(l);
    GR_TRY(gri_hooks_run(ctx->hooks, 0, e, value));
    return gri_hooks_run(l->hooks, 0, e, value);
}

static gr_status layer_output_backward(void *ud, gr_ctx *ctx, int n_out, gr_tensor *const *dy, int n_in,
                                       gr_tensor **dx) {
    layer_boundary *b = ud;
    (void)ctx;
    for (int i = 0; i < n_in; i++) dx[i] = gr_retain(dy[i]);
    gr_event e = {.kind = GR_HOOK_BACKWARD_PRE, .n_out = n_out, .out = dx};
    GR_TRY(layer_run_hooks(b->layer, &e, &dx[0]));
    layer_release(b->dy);
    for (int i = 0; i < n_in; i++) b->dy[i] = gr_retain(dx[i]);
    if (b->inputs) return GR_OK;
    gr_event after = {.kind = GR_HOOK_BACKWARD, .n_out = b->n_out, .out = b->dy};
    gr_status s = layer_run_hooks(b->layer, &after, NULL);
    layer_release(b->dy);
    return s;
}

static gr_status layer_input_backward(void *ud, gr_ctx *ctx, int n_out, gr_tensor *const *dy, int n_in,
                                      gr_tensor **dx) {
    layer_boundary *b = ud;
    gr_tensor *all[GR_LAYER_TENSORS] = {0};
    (void)ctx, (void)n_out;
    for (int i = 0; i < n_in; i++) all[b->at[i]] = gr_retain(dy[i]);
    gr_event e = {.kind = GR_HOOK_BACKWARD, .n_in = b->n_in, .in = all, .n_out = b->n_out, .out = b->dy};
    gr_status s = layer_run_hooks(b->layer, &e, &all[0]);
    for (int i = 0; i < n_in; i++) dx[i] = all[b->at[i]];
    layer_release(b->dy);
    return s;
}

static bool layer_has(const gr_layer *l, gr_hook_kind kind) {
    return gri_hooks_any(l->hooks, kind) || gri_hooks_any(l->head.ctx->hooks, kind);
}

static gr_status layer_boundary_new(gr_layer *l, int n_in, layer_boundary **out) {
    layer_boundary *b = gri_new(l->head.ctx, sizeof *b);
    if (!b) return GR_ERR_MEMORY;
    *b = (layer_boundary){.refs = 1, .layer = gr_retain(l), .n_in = n_in};
    *out = b;
    return GR_OK;
}

/* Puts the boundary on the tensors that are there: in[] are owned references, replaced in place. */
static gr_status layer_bound_inputs(layer_boundary *b, gr_tensor **in) {
    gr_ctx *ctx = b->layer->head.ctx;
    gr_tensor *there[GR_LAYER_TENSORS], *made[GR_LAYER_TENSORS];
    int n = 0;
    for (int i = 0; i < b->n_in; i++) {
        if (!in[i]) continue;
        b->at[n] = i;
        there[n++] = in[i];
    }
    if (!gri_recording(ctx, n, there)) return GR_OK;
    b->refs++;
    GR_TRY(gr_record(ctx, "layer input", n, there, n, there, layer_input_backward, layer_boundary_drop, b, made));
    b->inputs = true;
    for (int i = 0; i < n; i++) {
        gr_release(there[i]);
        in[b->at[i]] = made[i];
    }
    return GR_OK;
}

static gr_status layer_bound_outputs(layer_boundary *b, gr_tensor **out) {
    gr_ctx *ctx = b->layer->head.ctx;
    gr_tensor *made[GR_LAYER_TENSORS];
    while (b->n_out < GR_LAYER_TENSORS && out[b->n_out]) b->n_out++;
    int n = b->n_out;
    if (!gri_recording(ctx, n, out)) return GR_OK;
    b->refs++;
    GR_TRY(gr_record(ctx, "layer output", n, out, n, out, layer_output_backward, layer_boundary_drop, b, made));
    for (int i = 0; i < n; i++) {
        gr_release(out[i]);
        out[i] = made[i];
    }
    return GR_OK;
}

/* ---- forward -------------------------------------------------------------------------------------------- */

/* in[] with all inputs the kind has, absent ones as NULL. */
static gr_status layer_take(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **all, int *wanted) {
    const gr_layer_kind *k = l->kind;
    int most = k->inputs ? k->inputs : 1, least = most - k->optional;
    *wanted = most;
    if (n_in < least || n_in > most)
        return gr_fail(l->head.ctx, GR_ERR_ARG,
                       least < most ? "%d inputs, expected %d to %d" : "%d inputs, expected %d", n_in, least, most);
    for (int i = 0; i < most; i++) {
        all[i] = i < n_in ? in[i] : NULL;
        if (!all[i] && i < least) return gr_fail(l->head.ctx, GR_ERR_ARG, "input %d is absent", i + 1);
    }
    return GR_OK;
}

/* out[GR_LAYER_TENSORS], all NULL. */
static gr_status layer_call(gr_layer *l, int n_in, gr_tensor *const *given, gr_tensor **out) {
    gr_ctx *ctx = l->head.ctx;
    gr_tensor *in[GR_LAYER_TENSORS], *made[GRI_MAX_OUT];
    if (!l->kind) {
        GR_TRY(l->host_forward(l->host_ud, l, n_in, given, GR_LAYER_TENSORS, out));
        return out[0] ? GR_OK : gr_fail(ctx, GR_ERR_ARG, "forward made nothing");
    }
    GR_TRY(layer_take(l, n_in, given, in, &n_in));
    if (!l->kind->op) return l->kind->forward(l, n_in, in, out);
    GR_TRY(gr_apply(ctx, l->kind->op, n_in, in, l->attrs, made));
    for (int i = 1; i < gr_op_outputs(l->kind->op); i++) gr_release(made[i]);
    out[0] = made[0];
    return GR_OK;
}

/* The boundaries around a call. in[] are owned references, replaced in place. */
static gr_status layer_call_bounded(gr_layer *l, int n_in, gr_tensor **in, gr_tensor **out) {
    layer_boundary *b;
    GR_TRY(layer_boundary_new(l, n_in, &b));
    gr_status s = layer_bound_inputs(b, in);
    if (s == GR_OK) s = layer_call(l, n_in, in, out);
    if (s == GR_OK) s = layer_bound_outputs(b, out);
    layer_boundary_drop(b);
    return s;
}

static gr_status layer_hooked(gr_layer *l, int n_in, gr_tensor *const *given, gr_tensor **out) {
    gr_ctx *ctx = l->head.ctx;
    gr_tensor *in[GR_LAYER_TENSORS] = {0};
    for (int i = 0; i < n_in; i++) in[i] = gr_retain(given[i]);
    gr_event e = {.kind = GR_HOOK_FORWARD_PRE, .n_in = n_in, .in = in};
    gr_status s = layer_run_hooks(l, &e, &in[0]);
    bool bounded = ctx->grad_enabled && (layer_has(l, GR_HOOK_BACKWARD) || layer_has(l, GR_HOOK_BACKWARD_PRE));
    if (s == GR_OK) s = bounded ? layer_call_bounded(l, n_in, in, out) : layer_call(l, n_in, in, out);
    if (s == GR_OK) {
        int n_out = 1;
        while (n_out < GR_LAYER_TENSORS && out[n_out]) n_out++;
        e = (gr_event){.kind = GR_HOOK_FORWARD, .n_in = n_in, .in = in, .n_out = n_out, .out = out};
        s = layer_run_hooks(l, &e, &out[0]);
    }
    layer_release(in);
    return s;
}

gr_status gr_layer_forward(gr_layer *l, int n_in, gr_tensor *const *in, int n_out, gr_tensor **out) {
    return gr_layer_forward_with(l, n_in, in, NULL, n_out, out);
}

gr_status gr_layer_forward_with(gr_layer *l, int n_in, gr_tensor *const *in, const void *options, int n_out,
                                gr_tensor **out) {
    gr_ctx *ctx = l->head.ctx;
    void *outer = ctx->layer;
    const void *outer_call = l->call;
    gr_tensor *made[GR_LAYER_TENSORS] = {0}, *held[GR_LAYER_TENSORS] = {0};
    uint64_t defaults[GRI_ATTR_MAX / 8];
    gr_status s;
    gr_retain(l);
    /* forward and hooks written by the host may let go of what the call was given */
    for (int i = 0; i < n_in && i < GR_LAYER_TENSORS; i++) held[i] = gri_tensor_retain(in[i]);
    ctx->layer = l;
    if (!options && l->kind && l->kind->call) {
        gr_attrs_default(l->kind->call, defaults);
        options = defaults;
    }
    l->call = options;
    if (n_in > GR_LAYER_TENSORS || n_out > GR_LAYER_TENSORS)
        s = gr_fail(ctx, GR_ERR_ARG, "%d inputs, %d outputs: at most %d are possible", n_in, n_out, GR_LAYER_TENSORS);
    else s = l->hooks || ctx->hooks ? layer_hooked(l, n_in, held, made) : layer_call(l, n_in, held, made);
    ctx->layer = outer;
    l->call = outer_call;
    for (int i = 0; s == GR_OK && i < n_out; i++) {
        out[i] = made[i];
        made[i] = NULL;
    }
    layer_release(made);
    layer_release(held);
    if (s != GR_OK && !ctx->placed) { /* the innermost layer says where it was */
        ctx->placed = true;
        char about[128];
        const char *path = gr_layer_path_peek(l), *type = gr_layer_type_peek(l);
        int n = gr_layer_describe(l, about, sizeof about);
        gr_fail_within(ctx, *path ? "%s (%s%s%s)" : "%s%s%s%s", path, type, n > 0 ? " " : "", n > 0 ? about : "");
    }
    gr_release(l);
    return s;
}
