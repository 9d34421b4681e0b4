/* State dicts of layers, and loading many objects' at once, all or nothing.
 *
 * Loading has two parts, as a step has. Plan: everything is found, checked and allocated, for every object. Commit:
 * copies into parameters and buffers and swaps of optimizers' state, which cannot fail. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gather.h"
#include "layer.h"
#include "optim.h"
#include "tape.h"

#define STATE_BLOCK 512 /* elements converted or gathered at a time */

/* ---- matching ------------------------------------------------------------------------------------------- */

static gr_status state_match_open(gr_ctx *ctx, const gr_state_part *part, gri_match *m) {
    size_t n = (size_t)gr_dict_count(part->state) + 1;
    memset(m, 0, sizeof *m);
    m->ctx = ctx;
    m->part = part;
    m->used = gri_new(ctx, n);
    if (!m->used) return GR_ERR_MEMORY;
    memset(m->used, 0, n);
    return GR_OK;
}

static void state_match_close(gri_match *m) {
    if (m->used) gri_delete(m->ctx, m->used, (size_t)gr_dict_count(m->part->state) + 1);
}

/* A part of the name is 0: "0.weight", "blocks.0.bias". */
static bool state_counts_from_0(const char *name) {
    for (const char *p = name; p; p = strchr(p, '.')) {
        p += *p == '.';
        if (p[0] == '0' && (p[1] == '.' || p[1] == 0)) return true;
    }
    return false;
}

/* spec: what a mismatched tensor should be. */
static gr_status state_match_note(gri_match *m, gr_match what, const char *name, const gri_spec *spec,
                                  const gr_tensor *found, const gr_tensor *here) {
    char *list = m->list[what];
    size_t at = strlen(list);
    m->count[what]++;
    if (what != GR_MATCH_LOADED && at < GRI_MATCH_TEXT - 1) {
        if (what == GR_MATCH_MISMATCHED)
            snprintf(list + at, GRI_MATCH_TEXT - at, "%s%s (%s, expected %s%s)", at ? ", " : "", name,
                     gri_tensor_text(found), gr_dtype_name(spec->dtype), gri_dims_text(spec->rank, spec->dims));
        else
            snprintf(list + at, GRI_MATCH_TEXT - at, "%s%s", at ? ", " : "", name);
    }
    if (what == GR_MATCH_UNEXPECTED && state_counts_from_0(name)) m->from_zero = true;
    return m->part->report ? m->part->report(m->part->ud, what, name, found, here) : GR_OK;
}

gr_status gri_match_take(gri_match *m, const char *name, const gri_spec *spec, const gr_tensor *here, bool required,
                         gr_tensor **out) {
    int at = gri_dict_position(m->part->state, name);
    gr_tensor *t = gr_dict_at_peek(m->part->state, at, NULL);
    *out = NULL;
    if (!t) return required ? state_match_note(m, GR_MATCH_MISSING, name, spec, NULL, here) : GR_OK;
    m->used[at] = true;
    bool fits = t->dtype == spec->dtype || (gri_is_float(t) && spec->dtype <= GR_F64);
    if (!fits || !gri_same_dims(t->rank, t->dims, spec->rank, spec->dims))
        return state_match_note(m, GR_MATCH_MISMATCHED, name, spec, t, here);
    *out = t;
    return state_match_note(m, GR_MATCH_LOADED, name, spec, t, here);
}

gr_status gri_match_end(gri_match *m) {
    static const char *const words[GR_MATCHES] = {
        [GR_MATCH_MISSING] = "missing", [GR_MATCH_UNEXPECTED] = "unexpected", [GR_MATCH_MISMATCHED] = "mismatched"};
    char text[4 * GRI_MATCH_TEXT];
    size_t at = 0;
    const char *name;
    for (int i = 0; i < gr_dict_count(m->part->state); i++) {
        const gr_tensor *t = gr_dict_at_peek(m->part->state, i, &name);
        if (!m->used[i]) GR_TRY(state_match_note(m, GR_MATCH_UNEXPECTED, name, NULL, t, NULL));
    }
    if (m->part->partial) return GR_OK;
    text[0] = 0;
    for (int w = 0; w < GR_MATCHES; w++) {
        if (!words[w] || !m->count[w]) continue;
        bool cut = strlen(m->list[w]) == GRI_MATCH_TEXT - 1;
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%d %s: %s%s", at ? "; " : "", m->count[w], words[w],
                               m->list[w], cut ? "..." : "");
    }
    if (at == 0) return GR_OK;
    return gr_fail(m->ctx, GR_ERR_ARG, "the state does not fit, nothing was loaded: %s%s", text,
                   m->from_zero ? " (names that count from 0, as PyTorch's, are read with index_base = 0)" : "");
}

/* ---- what a layer is made of -------------------------------------------------------------------------------- */

/* A name and what it stands for. A tensor in several places has several slots, the first of which owns it. */
typedef struct state_slot {
    char *name; /* for gri_strfree */
    gr_tensor *tensor;
    int owner;
    gr_tensor *source; /* the owner's: what will be copied; +1 */
} state_slot;

typedef struct state_slots {
    gr_ctx *ctx;
    state_slot *list;
    int n, cap;
    char *path; /* of the layer under way, with a dot behind it */
    int length, cap_path;
} state_slots;

static gr_status state_add(state_slots *s, const gri_member *m) {
    GR_TRY(gri_grow(s->ctx, &s->list, &s->cap, s->n + 1, sizeof *s->list));
    size_t n = strlen(m->name);
    char *name = gri_new(s->ctx, (size_t)s->length + n + 1);
    if (!name) return GR_ERR_MEMORY;
    memcpy(name, s->path, (size_t)s->length);
    memcpy(name + s->length, m->name, n + 1);
    s->list[s->n] = (state_slot){name, m->tensor, s->n, NULL};
    s->n++;
    return GR_OK;
}

static gr_status state_walk(state_slots *s, const gr_layer *l) {
    int length = s->length;
    for (int i = 0; i < l->n_params; i++) GR_TRY(state_add(s, &l->params[i]));
    for (int i = 0; i < l->n_buffers; i++) GR_TRY(state_add(s, &l->buffers[i]));
    for (int i = 0; i < l->n_children; i++) {
        int n = (int)strlen(l->children[i].name);
        GR_TRY(gri_grow(s->ctx, &s->path, &s->cap_path, length + n + 2, 1));
        memcpy(s->path + length, l->children[i].name, (size_t)n);
        s->path[length + n] = '.';
        s->length = length + n + 1;
        GR_TRY(state_walk(s, l->children[i].layer));
        s->length = length;
    }
    return GR_OK;
}

/* By tensor, and then in order. */
static int state_order(const void *a, const void *b) {
    const state_slot *x = *(state_slot *const *)a, *y = *(state_slot *const *)b;
    if (x->tensor != y->tensor) return (uintptr_t)x->tensor < (uintptr_t)y->tensor ? -1 : 1;
    return x->owner - y->owner;
}

static gr_status state_find_owners(state_slots *s, int from) {
    int n = s->n - from;
    size_t bytes = (size_t)(n + 1) * sizeof(state_slot *);
    state_slot **sorted = gri_new(s->ctx, bytes);
    if (!sorted) return GR_ERR_MEMORY;
    for (int i = 0; i < n; i++) sorted[i] = &s->list[from + i];
    qsort(sorted, (size_t)n, sizeof *sorted, state_order);
    for (int i = 1; i < n; i++)
        if (sorted[i]->tensor == sorted[i - 1]->tensor) sorted[i]->owner = sorted[i - 1]->owner;
    gri_delete(s->ctx, sorted, bytes);
    return GR_OK;
}

static gr_status state_slots_of(state_slots *s, const gr_layer *l) {
    int from = s->n;
    s->length = 0;
    GR_TRY(gri_grow(s->ctx, &s->path, &s->cap_path, 1, 1)); /* never NULL */
    GR_TRY(state_walk(s, l));
    return state_find_owners(s, from);
}

static void state_slots_free(state_slots *s) {
    for (int i = 0; i < s->n; i++) {
        gri_strfree(s->ctx, s->list[i].name);
        gr_release(s->list[i].source);
    }
    gri_array_free(s->ctx, s->list, s->cap, sizeof *s->list);
    gri_array_free(s->ctx, s->path, s->cap_path, 1);
}

gr_status gr_layer_state(const gr_layer *l, gr_dict **out) {
    gr_ctx *ctx = l->head.ctx;
    state_slots slots = {.ctx = ctx};
    gr_dict *d = NULL;
    gr_status s = state_slots_of(&slots, l);
    if (s == GR_OK) s = gr_dict_new(ctx, &d);
    for (int i = 0; i < slots.n && s == GR_OK; i++) {
        gr_tensor *plain = NULL;
        if (slots.list[i].owner != i) continue;
        s = gri_tensor_alias(slots.list[i].tensor, &plain);
        if (s == GR_OK) s = gr_dict_set(d, slots.list[i].name, plain);
        gr_release(plain);
    }
    state_slots_free(&slots);
    if (s == GR_OK) *out = d;
    else gr_release(d);
    return s;
}

/* ---- loading a layer: the plan ------------------------------------------------------------------------------ */

static gr_status state_may_load(gr_tensor *t) {
    gr_ctx *ctx = t->head.ctx;
    bool was = gr_set_grad_enabled(ctx, false);
    gr_status s = gri_may_edit(t, "load_state_dict");
    gr_set_grad_enabled(ctx, was);
    return s;
}

/* Slots from .. s->n-1 are the layer's. A tensor is missing if the dict has it under none of its names. */
static gr_status state_match_layer(state_slots *s, int from, gri_match *m) {
    for (int i = from; i < s->n; i++) {
        state_slot *slot = &s->list[i], *owner = &s->list[slot->owner];
        gri_spec spec = gri_spec_of(slot->tensor);
        gr_tensor *t;
        GR_TRY(gri_match_take(m, slot->name, &spec, slot->tensor, false, &t));
        if (!t) continue;
        GR_TRY(state_may_load(owner->tensor));
        gr_release(owner->source);
        owner->source = gr_retain(t); /* of several names the last counts, as in PyTorch */
    }
    for (int i = from; i < s->n; i++) {
        const state_slot *slot = &s->list[i];
        bool found = s->list[slot->owner].source != NULL;
        for (int k = i; !found && k < s->n; k++) /* it may be there with another shape */
            found = s->list[k].owner == slot->owner && gr_dict_find_peek(m->part->state, s->list[k].name);
        if (slot->owner != i || found) continue;
        GR_TRY(state_match_note(m, GR_MATCH_MISSING, slot->name, NULL, NULL, slot->tensor));
    }
    return gri_match_end(m);
}

static bool state_same_view(const gr_tensor *a, const gr_tensor *b) {
    bool same = a->data == b->data && a->dtype == b->dtype && a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++) same = a->dims[i] == b->dims[i] && a->strides[i] == b->strides[i];
    return same;
}

/* A source that lies in what is about to be written is copied first: {a = m.b, b = m.a} swaps the two. */
static gr_status state_part_sources(state_slots *s) {
    for (int i = 0; i < s->n; i++) {
        gr_tensor *t = s->list[i].source, *copy;
        if (!t) continue;
        if (state_same_view(t, s->list[i].tensor)) {
            gr_release(t);
            s->list[i].source = NULL;
            continue;
        }
        bool shared = false;
        if (t->storage->head.refs > 1) /* a file's tensors are alone in theirs */
            for (int k = 0; k < s->n && !shared; k++) shared = s->list[k].tensor->storage == t->storage;
        if (!shared) continue;
        GR_TRY(gr_tensor_empty(s->ctx, (gr_dtype)t->dtype, t->rank, t->dims, &copy));
        s->list[i].source = copy;
        gr_status status = gr_tensor_copy(copy, t);
        gr_release(t);
        GR_TRY(status);
    }
    return GR_OK;
}

/* ---- commit ------------------------------------------------------------------------------------------------- */

/* Of the same shape; cannot fail. */
static void state_copy(gr_tensor *dst, const gr_tensor *src) {
    _Alignas(64) char block[STATE_BLOCK * sizeof(double)];
    if (dst->contiguous && src->contiguous && dst->dtype == src->dtype) {
        if (dst->numel) memcpy(dst->data, src->data, (size_t)dst->numel * gri_size((gr_dtype)dst->dtype));
    } else {
        gri_strided to = gri_strided_of(dst), from = gri_strided_of(src);
        for (int64_t at = 0, n; at < dst->numel; at += n) {
            n = dst->numel - at < STATE_BLOCK ? dst->numel - at : STATE_BLOCK;
            gri_gather(&from, at, n, to.dtype, block);
            gri_scatter(&to, at, n, to.dtype, block, GRI_SET);
        }
    }
    dst->storage->version++;
}

/* ---- many objects ------------------------------------------------------------------------------------------- */

typedef struct state_plan {
    state_slots slots;
    gri_optim_load **optims; /* one for each part; NULL for layers */
    int n;
} state_plan;

static gr_status state_plan_part(state_plan *p, int i, const gr_state_part *part) {
    gr_ctx *ctx = p->slots.ctx;
    const gri_object *object = part->object;
    int from = p->slots.n;
    gri_match m;
    bool layer = object->kind == GRI_LAYER;
    if (!layer && object->kind != GRI_OPTIM) return gr_fail(ctx, GR_ERR_ARG, "is no layer and no optimizer");
    if (object->ctx != ctx || part->state->head.ctx != ctx)
        return gr_fail(ctx, GR_ERR_ARG, "object and state belong to different contexts");
    if (!layer && part->partial) return gr_fail(ctx, GR_ERR_ARG, "an optimizer's state is loaded whole or not");
    gr_status s = state_match_open(ctx, part, &m);
    if (s == GR_OK && layer) s = state_slots_of(&p->slots, part->object);
    if (s == GR_OK && layer) s = state_match_layer(&p->slots, from, &m);
    if (s == GR_OK && !layer) s = gri_optim_load_plan(part->object, &m, &p->optims[i]);
    state_match_close(&m);
    return s;
}

static const char *state_name(const gr_state_part *part) {
    const gri_object *object = part->object;
    if (part->name) return part->name;
    if (object->kind == GRI_LAYER) return gr_layer_type_peek(part->object);
    return object->kind == GRI_OPTIM ? gr_optim_kind_info(gri_optim_kind(part->object))->name : "object";
}

static gr_status state_plan_all(state_plan *p, const gr_state_part *parts) {
    size_t bytes = (size_t)(p->n + 1) * sizeof *p->optims;
    p->optims = gri_new(p->slots.ctx, bytes);
    if (!p->optims) return GR_ERR_MEMORY;
    memset(p->optims, 0, bytes);
    for (int i = 0; i < p->n; i++) {
        gr_status s = state_plan_part(p, i, &parts[i]);
        if (s != GR_OK) return gr_fail_within(p->slots.ctx, "%s", state_name(&parts[i])), s;
    }
    return state_part_sources(&p->slots);
}

static gr_status state_load(gr_ctx *ctx, int n, const gr_state_part *parts, bool commit) {
    state_plan p = {.slots = {.ctx = ctx}, .n = n};
    gr_status s = state_plan_all(&p, parts);
    if (s == GR_OK && commit) {
        for (int i = 0; i < p.slots.n; i++)
            if (p.slots.list[i].source) state_copy(p.slots.list[i].tensor, p.slots.list[i].source);
        for (int i = 0; i < n; i++)
            if (p.optims[i]) gri_optim_load_commit(p.optims[i]);
    }
    for (int i = 0; p.optims && i < n; i++) gri_optim_load_drop(p.optims[i]);
    gri_array_free(ctx, p.optims, n + 1, sizeof *p.optims);
    state_slots_free(&p.slots);
    return s;
}

gr_status gr_state_check(gr_ctx *ctx, int n, const gr_state_part *parts) { return state_load(ctx, n, parts, false); }
gr_status gr_state_load(gr_ctx *ctx, int n, const gr_state_part *parts) { return state_load(ctx, n, parts, true); }
