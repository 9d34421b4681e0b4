/* Optimizers: groups of parameters, their state, and one update of them all.
 *
 * A step has three parts. Plan: every check and every allocation, for all groups, so that on failure nothing
 * has moved. Update: one parallel region over runs of all parameters, each array read and written once.
 * Commit: new state, step counts and versions. A parameter counts its own updates, as in PyTorch: one that
 * gets its first gradient late starts with its own bias corrections. */
#include "optim.h"

#include <stdio.h>
#include <string.h>

#include "attr.h"
#include "span.h"
#include "tape.h"

#define OPTIM_STEPS_MOST ((int64_t)1 << 53) /* in a state that is loaded: exact as a double, and may go on */

typedef struct optim_param {
    gr_tensor *tensor;                  /* +1 */
    gr_tensor *state[GRI_OPTIM_STATES]; /* +1, row-major; NULL: not in use yet */
    int64_t steps;                      /* updates since its first state tensor was made, or since it was added */
} optim_param;

typedef struct optim_group {
    void *attrs; /* the kind's attribute struct */
    optim_param *params;
    int n;
} optim_group;

/* One parameter in the step under way. */
typedef struct optim_job {
    optim_param *param;
    const gr_tensor *grad;
    gr_tensor *fresh[GRI_OPTIM_STATES]; /* +1: state made for this step, the parameter's once it succeeded */
    void *state[GRI_OPTIM_STATES];
    gri_optim_kernel kernel;
    int64_t t;
    double c[GRI_OPTIM_COEFFS];
} optim_job;

struct gr_optim {
    gri_object head;
    const gr_optim_kind *kind;
    optim_group *groups;
    int n_groups, cap_groups;
    int n_params;        /* of all groups */
    optim_job *jobs;     /* room for n_params, so that a warm step allocates nothing */
    int64_t *first;      /* room for n_params + 1: the jobs' runs */
    int cap_jobs, cap_first;
    bool stepping;
    int64_t steps;
    gri_hooks *hooks;
};

/* ---- what exists ---------------------------------------------------------------------------------------- */

extern const gr_optim_kind *const gri_optims[]; /* generated list, ended by NULL */

int gr_optim_kind_count(void) {
    int n = 0;
    while (gri_optims[n]) n++;
    return n;
}

const gr_optim_kind *gr_optim_kind_at(int i) { return gri_optims[i]; }

const gr_optim_kind *gr_optim_kind_find(const char *name) {
    for (int i = 0; gri_optims[i]; i++)
        if (strcmp(gri_optims[i]->info.name, name) == 0) return gri_optims[i];
    return NULL;
}

const gr_info *gr_optim_kind_info(const gr_optim_kind *k) { return &k->info; }

static int optim_state_count(const gr_optim_kind *k) {
    int n = 0;
    while (k->state_names && k->state_names[n]) n++;
    return n;
}

static uint32_t optim_states_used(const gr_optim_kind *k, const void *attrs) {
    return k->states ? k->states(attrs) : (1u << optim_state_count(k)) - 1;
}

gr_status gri_optim_want_betas(gr_ctx *ctx, double beta1, double beta2) {
    if (beta1 < 1 && beta2 < 1) return GR_OK;
    return gr_fail(ctx, GR_ERR_ARG, "betas %.17g and %.17g: expected 0 to below 1", beta1, beta2);
}

/* ---- life ----------------------------------------------------------------------------------------------- */

gr_status gr_optim_new(gr_ctx *ctx, const gr_optim_kind *kind, gr_optim **out) {
    gr_optim *o = gri_new(ctx, sizeof *o);
    if (!o) return GR_ERR_MEMORY;
    *o = (gr_optim){.head = {ctx, 1, GRI_OPTIM}, .kind = kind};
    ctx->objects[GRI_OPTIM]++;
    *out = o;
    return GR_OK;
}

static void optim_group_free(gr_ctx *ctx, const gr_optim_kind *kind, optim_group *g) {
    for (int i = 0; g->params && i < g->n; i++) {
        for (int k = 0; k < GRI_OPTIM_STATES; k++) gr_release(g->params[i].state[k]);
        gr_release(g->params[i].tensor);
    }
    gri_array_free(ctx, g->params, g->n, sizeof *g->params);
    gri_delete(ctx, g->attrs, kind->info.attr_size);
}

void gri_optim_free(gr_optim *o) {
    gr_ctx *ctx = o->head.ctx;
    gri_hooks_free(ctx, &o->hooks);
    for (int i = 0; i < o->n_groups; i++) optim_group_free(ctx, o->kind, &o->groups[i]);
    gri_array_free(ctx, o->groups, o->cap_groups, sizeof *o->groups);
    gri_array_free(ctx, o->jobs, o->cap_jobs, sizeof *o->jobs);
    gri_array_free(ctx, o->first, o->cap_first, sizeof *o->first);
    ctx->objects[GRI_OPTIM]--;
    gri_delete(ctx, o, sizeof *o);
}

gri_hooks **gri_optim_hooks(gr_optim *o) { return &o->hooks; }
const gr_optim_kind *gri_optim_kind(const gr_optim *o) { return o->kind; }

/* ---- groups --------------------------------------------------------------------------------------------- */

/* "parameter 3 (net.1.weight, f32[10,20])". */
static const char *optim_param_text(const gr_ctx *ctx, const gr_tensor *t, int i, char *buf, size_t size) {
    const char *name = gr_tensor_name_peek(t);
    snprintf(buf, size, "parameter %d (%s%s%s)", i + ctx->index_base, name ? name : "", name ? ", " : "",
             gri_tensor_text(t));
    return buf;
}

/* Two contiguous tensors with bytes in common. (Strided ones may interleave without sharing an element.) */
static bool optim_share_memory(const gr_tensor *a, const gr_tensor *b) {
    if (a->storage != b->storage || !a->contiguous || !b->contiguous) return false;
    int64_t size_a = (int64_t)gr_dtype_size((gr_dtype)a->dtype), size_b = (int64_t)gr_dtype_size((gr_dtype)b->dtype);
    return a->data < b->data + b->numel * size_b && b->data < a->data + a->numel * size_a;
}

static gr_status optim_check_param(const gr_optim *o, const gr_tensor *t, int i) {
    gr_ctx *ctx = o->head.ctx;
    char text[320];
    optim_param_text(ctx, t, i, text, sizeof text);
    if (t->head.ctx != ctx) return gr_fail(ctx, GR_ERR_ARG, "%s belongs to another context", text);
    if (!t->node && !t->idle) return gr_fail(ctx, GR_ERR_ARG, "%s does not require a gradient", text);
    if (!gr_tensor_is_leaf(t))
        return gr_fail(ctx, GR_ERR_ARG, "%s is the result of %s: only leaves can be optimized", text,
                       gri_node_text(t->node));
    for (int d = 0; d < t->rank; d++)
        if (t->strides[d] == 0 && t->dims[d] > 1)
            return gr_fail(ctx, GR_ERR_ARG, "%s is expanded: its elements share memory; copy it first", text);
    return GR_OK;
}

static gr_status optim_check_pair(const gr_optim *o, const gr_tensor *t, int i, const gr_tensor *other) {
    gr_ctx *ctx = o->head.ctx;
    char text[320];
    bool same = t == other || (t->node && t->node == other->node);
    if (!same && !optim_share_memory(t, other)) return GR_OK;
    optim_param_text(ctx, t, i, text, sizeof text);
    if (same) return gr_fail(ctx, GR_ERR_ARG, "%s is listed twice: a parameter may be in one group, once", text);
    return gr_fail(ctx, GR_ERR_ARG, "%s shares its memory with another parameter, %s", text, gri_tensor_text(other));
}

static gr_status optim_check_params(const gr_optim *o, int n, gr_tensor *const *params) {
    if (n < 1) return gr_fail(o->head.ctx, GR_ERR_ARG, "a group needs at least one parameter");
    for (int i = 0; i < n; i++) {
        GR_TRY(optim_check_param(o, params[i], i));
        for (int k = 0; k < i; k++) GR_TRY(optim_check_pair(o, params[i], i, params[k]));
        for (int g = 0; g < o->n_groups; g++)
            for (int k = 0; k < o->groups[g].n; k++)
                GR_TRY(optim_check_pair(o, params[i], i, o->groups[g].params[k].tensor));
    }
    return GR_OK;
}

static gr_status optim_add_group(gr_optim *o, int n, gr_tensor *const *params, const void *attrs) {
    gr_ctx *ctx = o->head.ctx;
    double c[GRI_OPTIM_COEFFS];
    size_t attr_size = o->kind->info.attr_size;
    GR_TRY(optim_check_params(o, n, params));
    GR_TRY(gri_grow(ctx, &o->groups, &o->cap_groups, o->n_groups + 1, sizeof *o->groups));
    GR_TRY(gri_grow(ctx, &o->jobs, &o->cap_jobs, o->n_params + n, sizeof *o->jobs));
    GR_TRY(gri_grow(ctx, &o->first, &o->cap_first, o->n_params + n + 1, sizeof *o->first));
    optim_group g = {.n = n, .attrs = gri_new(ctx, attr_size)};
    if (!g.attrs) return GR_ERR_MEMORY;
    if (attrs) memcpy(g.attrs, attrs, attr_size);
    else gr_attrs_default(&o->kind->info, g.attrs);
    gr_status s = gri_attrs_check(ctx, &o->kind->info, g.attrs);
    if (s == GR_OK) s = o->kind->prepare(ctx, g.attrs, 1, c);
    if (s == GR_OK && !(g.params = gri_new(ctx, (size_t)n * sizeof *g.params))) s = GR_ERR_MEMORY;
    if (s != GR_OK) {
        optim_group_free(ctx, o->kind, &g);
        return s;
    }
    for (int i = 0; i < n; i++) g.params[i] = (optim_param){.tensor = gr_retain(params[i])};
    o->groups[o->n_groups++] = g;
    o->n_params += n;
    return GR_OK;
}

gr_status gr_optim_add_group(gr_optim *o, int n, gr_tensor *const *params, const void *attrs) {
    gr_ctx *ctx = o->head.ctx;
    gr_status s = optim_add_group(o, n, params, attrs);
    if (s != GR_OK) gr_fail_within(ctx, "%s: group %d", o->kind->info.name, o->n_groups + ctx->index_base);
    return s;
}

/* ---- a step: the plan ----------------------------------------------------------------------------------- */

/* The state a parameter's update needs: what it has, and zeros where it has none yet. */
static gr_status optim_plan_state(const gr_optim *o, const void *attrs, optim_job *j) {
    const gr_tensor *t = j->param->tensor;
    uint32_t used = optim_states_used(o->kind, attrs);
    for (int k = 0; k < GRI_OPTIM_STATES; k++) {
        gr_tensor *state = j->param->state[k];
        j->state[k] = NULL;
        if (!(used >> k & 1)) continue;
        if (!state) {
            GR_TRY(gr_tensor_new(o->head.ctx, (gr_dtype)t->dtype, t->rank, t->dims, &j->fresh[k]));
            state = j->fresh[k];
        }
        j->state[k] = state->data;
    }
    j->t = j->fresh[0] ? 1 : j->param->steps + 1;
    return GR_OK;
}

/* Fills o->jobs and s for every parameter that has a gradient. Each job is counted in s->n before anything
 * of it can fail. */
static gr_status optim_plan_group(gr_optim *o, const optim_group *g, gri_spans *s) {
    gr_ctx *ctx = o->head.ctx;
    const optim_job *prepared = NULL;
    GR_TRY(gri_attrs_check(ctx, &o->kind->info, g->attrs));
    for (int i = 0; i < g->n; i++) {
        optim_param *p = &g->params[i];
        const gr_tensor *grad = gr_tensor_grad_peek(p->tensor);
        if (!grad) continue;
        optim_job *j = &o->jobs[s->n];
        j->param = p;
        j->grad = grad;
        j->kernel = *o->kind->forward[gri_variant(ctx, (gr_dtype)p->tensor->dtype)];
        memset(j->fresh, 0, sizeof j->fresh);
        gri_spans_add(s, p->tensor->numel);
        GR_TRY(optim_plan_state(o, g->attrs, j));
        if (prepared && prepared->t == j->t) memcpy(j->c, prepared->c, sizeof j->c);
        else GR_TRY(o->kind->prepare(ctx, g->attrs, j->t, j->c));
        prepared = j;
    }
    return GR_OK;
}

/* ---- a step: the update --------------------------------------------------------------------------------- */

/* The elements at .. end-1 where parameter or gradient is strided. State is always row-major. */
static void optim_strided(const optim_job *j, int64_t at, int64_t end, void **state, int64_t size) {
    _Alignas(64) char param[GRI_SPAN_BUFFER * sizeof(double)], grad[GRI_SPAN_BUFFER * sizeof(double)];
    gri_strided p = gri_strided_of(j->param->tensor), g = gri_strided_of(j->grad);
    for (int64_t n; at < end; at += n) {
        n = end - at < GRI_SPAN_BUFFER ? end - at : GRI_SPAN_BUFFER;
        gri_gather(&p, at, n, p.dtype, param);
        gri_gather(&g, at, n, g.dtype, grad);
        j->kernel(n, param, grad, state, j->c);
        gri_scatter(&p, at, n, p.dtype, param, GRI_SET);
        for (int k = 0; k < GRI_OPTIM_STATES; k++)
            if (state[k]) state[k] = (char *)state[k] + n * size;
    }
}

static void optim_run(void *arg, int i, int64_t at, int64_t run) {
    const optim_job *j = &((const gr_optim *)arg)->jobs[i];
    const gr_tensor *t = j->param->tensor;
    int64_t n = gri_span_length(t->numel, at), size = (int64_t)gr_dtype_size((gr_dtype)t->dtype);
    void *state[GRI_OPTIM_STATES];
    (void)run;
    for (int k = 0; k < GRI_OPTIM_STATES; k++) state[k] = j->state[k] ? (char *)j->state[k] + at * size : NULL;
    if (t->contiguous && j->grad->contiguous)
        j->kernel(n, t->data + at * size, j->grad->data + at * size, state, j->c);
    else
        optim_strided(j, at, at + n, state, size);
}

static void optim_commit(optim_job *j) {
    optim_param *p = j->param;
    for (int k = 0; k < GRI_OPTIM_STATES; k++) {
        if (j->fresh[k]) p->state[k] = j->fresh[k];
        if (j->state[k]) p->state[k]->storage->version++;
    }
    p->tensor->storage->version++;
    p->steps = j->t;
}

static gr_status optim_update(gr_optim *o) {
    gr_ctx *ctx = o->head.ctx;
    if (!o->n_groups) return gr_fail(ctx, GR_ERR_STATE, "has no parameters");
    gr_status s = gri_poll(ctx);
    gri_spans spans = gri_spans_in(o->first);
    for (int g = 0; g < o->n_groups && s == GR_OK; g++) {
        s = optim_plan_group(o, &o->groups[g], &spans);
        if (s != GR_OK) gr_fail_within(ctx, "group %d", g + ctx->index_base);
    }
    if (s != GR_OK) {
        for (int i = 0; i < spans.n; i++)
            for (int k = 0; k < GRI_OPTIM_STATES; k++) gr_release(o->jobs[i].fresh[k]);
        return s;
    }
    gri_spans_each(ctx, &spans, optim_run, o);
    for (int i = 0; i < spans.n; i++) optim_commit(&o->jobs[i]);
    o->steps++;
    if (ctx->step < INT64_MAX) ctx->step++;
    return GR_OK;
}

/* ---- a step --------------------------------------------------------------------------------------------- */

static gr_status optim_hooks(gr_optim *o, gr_hook_kind kind, int64_t step) {
    gr_ctx *ctx = o->head.ctx;
    gr_event e = {.kind = kind, .ctx = ctx, .step = step, .name = o->kind->info.name, .optim = o};
    GR_TRY(gri_hooks_run(ctx->hooks, 0, &e, NULL));
    return gri_hooks_run(o->hooks, 0, &e, NULL);
}

gr_status gr_optim_step(gr_optim *o) {
    gr_ctx *ctx = o->head.ctx;
    int64_t step = ctx->step;
    if (o->stepping)
        return gr_fail(ctx, GR_ERR_STATE, "%s: step called from a hook of its own step", o->kind->info.name);
    o->stepping = true;
    gr_retain(o);
    gr_status s = optim_hooks(o, GR_HOOK_STEP_PRE, step);
    if (s == GR_OK) {
        s = optim_update(o);
        if (s == GR_OK) s = optim_hooks(o, GR_HOOK_STEP, step);
        else gr_fail_within(ctx, "%s", o->kind->info.name);
    }
    o->stepping = false;
    gr_release(o);
    return s;
}

gr_status gr_optim_zero_grad(gr_optim *o) {
    for (int g = 0; g < o->n_groups; g++)
        for (int i = 0; i < o->groups[g].n; i++) GR_TRY(gr_tensor_set_grad(o->groups[g].params[i].tensor, NULL));
    return GR_OK;
}

/* ---- looking at it -------------------------------------------------------------------------------------- */

static const optim_group *optim_group_at(const gr_optim *o, int group) {
    return group >= 0 && group < o->n_groups ? &o->groups[group] : NULL;
}

int gr_optim_groups(const gr_optim *o) { return o->n_groups; }
int64_t gr_optim_steps(const gr_optim *o) { return o->steps; }

void *gr_optim_attrs_peek(gr_optim *o, int group) {
    const optim_group *g = optim_group_at(o, group);
    return g ? g->attrs : NULL;
}

int gr_optim_params(const gr_optim *o, int group) {
    const optim_group *g = optim_group_at(o, group);
    return g ? g->n : 0;
}

gr_tensor *gr_optim_param_peek(const gr_optim *o, int group, int i) {
    const optim_group *g = optim_group_at(o, group);
    return g && i >= 0 && i < g->n ? g->params[i].tensor : NULL;
}

gr_tensor *gr_optim_state_peek(const gr_optim *o, gr_tensor *param, int i, const char **name) {
    bool known = i >= 0 && i < optim_state_count(o->kind);
    if (name) *name = known ? o->kind->state_names[i] : NULL;
    if (!known) return NULL;
    for (int g = 0; g < o->n_groups; g++)
        for (int k = 0; k < o->groups[g].n; k++)
            if (o->groups[g].params[k].tensor == param) return o->groups[g].params[k].state[i];
    return NULL;
}

/* ---- state dicts ------------------------------------------------------------------------------------------
 * "steps", "updates", "groups.1.lr", "state.1.exp_avg": numbers as tensors, so that they are exact in any file. */

static optim_param *optim_param_at(const gr_optim *o, int i) {
    for (int g = 0; g < o->n_groups; i -= o->groups[g++].n)
        if (i < o->groups[g].n) return &o->groups[g].params[i];
    return NULL;
}

static double optim_get_attr(const gr_attr *a, const void *attrs) {
    const void *at = (const char *)attrs + a->offset;
    if (a->kind == GR_ATTR_REAL) return *(const double *)at;
    return a->kind == GR_ATTR_BOOL ? *(const bool *)at : (double)*(const int64_t *)at;
}

static void optim_set_attr(const gr_attr *a, void *attrs, double v) {
    void *at = (char *)attrs + a->offset;
    if (a->kind == GR_ATTR_REAL) *(double *)at = v;
    else if (a->kind == GR_ATTR_BOOL) *(bool *)at = v != 0;
    else *(int64_t *)at = (int64_t)v;
}

static gr_status optim_put(gr_dict *d, const char *name, gr_status s, gr_tensor *t) { /* takes t */
    if (s != GR_OK) return s;
    s = gr_dict_set(d, name, t);
    gr_release(t);
    return s;
}

static gr_status optim_put_counts(gr_dict *d, const char *name, int rank, int64_t n, gr_tensor **peek) {
    *peek = NULL;
    gr_status s = gr_tensor_new(d->head.ctx, GR_I64, rank, &n, peek);
    return optim_put(d, name, s, *peek);
}

/* Where the hyper-parameters have come to use a tensor that is not there yet, the next step will make it, and count
 * updates anew if it is the first. The dict has it like that. */
static gr_status optim_put_states(const gr_optim *o, gr_dict *d, const void *attrs, int at, int64_t *updates) {
    const optim_param *p = optim_param_at(o, at);
    uint32_t used = optim_states_used(o->kind, attrs);
    *updates = used && !p->state[0] ? 0 : p->steps;
    for (int k = 0; o->kind->state_names && o->kind->state_names[k]; k++) {
        char name[96];
        gr_tensor *t = NULL;
        gr_status s = GR_OK;
        snprintf(name, sizeof name, "state.%d.%s", at + 1, o->kind->state_names[k]);
        if (p->state[k]) s = gri_tensor_alias(p->state[k], &t);
        else if (used >> k & 1 && *updates)
            s = gr_tensor_new(d->head.ctx, (gr_dtype)p->tensor->dtype, p->tensor->rank, p->tensor->dims, &t);
        else continue;
        GR_TRY(optim_put(d, name, s, t));
    }
    return GR_OK;
}

static gr_status optim_fill_dict(const gr_optim *o, gr_dict *d) {
    gr_tensor *steps, *updates;
    int at = 0;
    GR_TRY(optim_put_counts(d, "steps", 0, 0, &steps));
    GR_TRY(optim_put_counts(d, "updates", 1, o->n_params, &updates));
    *(int64_t *)(void *)steps->data = o->steps;
    for (int g = 0; g < o->n_groups; g++)
        for (const gr_attr *a = o->kind->info.attrs; a && a->name; a++) {
            char name[96];
            gr_tensor *t = NULL;
            snprintf(name, sizeof name, "groups.%d.%s", g + 1, a->name);
            gr_status s = gr_tensor_scalar(o->head.ctx, GR_F64, optim_get_attr(a, o->groups[g].attrs), &t);
            GR_TRY(optim_put(d, name, s, t));
        }
    for (int g = 0; g < o->n_groups; g++)
        for (int i = 0; i < o->groups[g].n; i++, at++)
            GR_TRY(optim_put_states(o, d, o->groups[g].attrs, at, (int64_t *)(void *)updates->data + at));
    return GR_OK;
}

gr_status gr_optim_state(const gr_optim *o, gr_dict **out) {
    gr_dict *d;
    GR_TRY(gr_dict_new(o->head.ctx, &d));
    gr_status s = optim_fill_dict(o, d);
    if (s == GR_OK) *out = d;
    else gr_release(d);
    return s;
}

/* ---- loading one ------------------------------------------------------------------------------------------ */

struct gri_optim_load {
    gr_optim *optim;
    int64_t steps;
    void **attrs;        /* one for each group */
    optim_param *params; /* all groups'; tensor is not used */
};

static gr_status optim_load_count(gr_ctx *ctx, const char *name, const gr_tensor *t, int64_t i, int64_t *out) {
    *out = ((const int64_t *)(const void *)t->data)[t->rank ? i * t->strides[0] : 0];
    if (*out >= 0 && *out <= OPTIM_STEPS_MOST) return GR_OK;
    return gr_fail(ctx, GR_ERR_ARG, "%s is %lld, expected 0 to %lld", name, (long long)*out,
                   (long long)OPTIM_STEPS_MOST);
}

static gr_status optim_load_attrs(gri_optim_load *l, gri_match *m, int g) {
    const gr_optim *o = l->optim;
    gr_ctx *ctx = o->head.ctx;
    double c[GRI_OPTIM_COEFFS];
    gri_spec scalar = {.dtype = GR_F64};
    l->attrs[g] = gri_new(ctx, o->kind->info.attr_size);
    if (!l->attrs[g]) return GR_ERR_MEMORY;
    memcpy(l->attrs[g], o->groups[g].attrs, o->kind->info.attr_size);
    for (const gr_attr *a = o->kind->info.attrs; a && a->name; a++) {
        char name[96];
        gr_tensor *t;
        double v;
        snprintf(name, sizeof name, "groups.%d.%s", g + 1, a->name);
        GR_TRY(gri_match_take(m, name, &scalar, NULL, true, &t));
        if (!t) continue;
        GR_TRY(gr_tensor_item(t, &v));
        optim_set_attr(a, l->attrs[g], v);
    }
    gr_status s = gri_attrs_check(ctx, &o->kind->info, l->attrs[g]);
    if (s == GR_OK) s = o->kind->prepare(ctx, l->attrs[g], 1, c);
    return s == GR_OK ? s : gr_fail_within(ctx, "groups.%d", g + 1);
}

static gr_status optim_load_states(gri_optim_load *l, gri_match *m, int g, const gr_tensor *param, int at) {
    const gr_optim *o = l->optim;
    optim_param *p = &l->params[at];
    gri_spec spec = gri_spec_of(param);
    uint32_t used = optim_states_used(o->kind, l->attrs[g]);
    for (int k = 0; o->kind->state_names && o->kind->state_names[k]; k++) {
        char name[96];
        gr_tensor *t;
        snprintf(name, sizeof name, "state.%d.%s", at + 1, o->kind->state_names[k]);
        GR_TRY(gri_match_take(m, name, &spec, param, used >> k & 1 && p->steps > 0, &t));
        if (!t) continue;
        GR_TRY(gr_tensor_empty(o->head.ctx, spec.dtype, spec.rank, spec.dims, &p->state[k]));
        GR_TRY(gr_tensor_copy(p->state[k], t));
    }
    return GR_OK;
}

static gr_status optim_load_all(gri_optim_load *l, gri_match *m) {
    const gr_optim *o = l->optim;
    gri_spec one = {.dtype = GR_I64}, all = {.dtype = GR_I64, .rank = 1, .dims = {o->n_params}};
    gr_tensor *steps, *updates;
    GR_TRY(gri_match_take(m, "steps", &one, NULL, true, &steps));
    GR_TRY(gri_match_take(m, "updates", &all, NULL, true, &updates));
    if (steps) GR_TRY(optim_load_count(o->head.ctx, "steps", steps, 0, &l->steps));
    for (int i = 0; updates && i < o->n_params; i++)
        GR_TRY(optim_load_count(o->head.ctx, "updates", updates, i, &l->params[i].steps));
    for (int g = 0; g < o->n_groups; g++) GR_TRY(optim_load_attrs(l, m, g));
    for (int g = 0, at = 0; g < o->n_groups; g++)
        for (int i = 0; i < o->groups[g].n; i++, at++)
            GR_TRY(optim_load_states(l, m, g, o->groups[g].params[i].tensor, at));
    return gri_match_end(m);
}

gr_status gri_optim_load_plan(gr_optim *o, gri_match *m, gri_optim_load **out) {
    gr_ctx *ctx = o->head.ctx;
    gri_optim_load *l = *out = gri_new(ctx, sizeof *l);
    if (!l) return GR_ERR_MEMORY;
    size_t attrs = (size_t)(o->n_groups + 1) * sizeof *l->attrs;
    size_t params = (size_t)(o->n_params + 1) * sizeof *l->params;
    *l = (gri_optim_load){.optim = o, .attrs = gri_new(ctx, attrs), .params = gri_new(ctx, params)};
    if (l->attrs) memset(l->attrs, 0, attrs);
    if (l->params) memset(l->params, 0, params);
    return l->attrs && l->params ? optim_load_all(l, m) : GR_ERR_MEMORY;
}

/* What was there goes into the plan, which is dropped afterwards. */
void gri_optim_load_commit(gri_optim_load *l) {
    gr_optim *o = l->optim;
    for (int g = 0; g < o->n_groups; g++) memcpy(o->groups[g].attrs, l->attrs[g], o->kind->info.attr_size);
    for (int i = 0; i < o->n_params; i++) {
        optim_param *p = optim_param_at(o, i), was = *p;
        memcpy(p->state, l->params[i].state, sizeof p->state);
        memcpy(l->params[i].state, was.state, sizeof was.state);
        p->steps = l->params[i].steps;
    }
    o->steps = l->steps;
}

void gri_optim_load_drop(gri_optim_load *l) {
    if (!l) return;
    gr_ctx *ctx = l->optim->head.ctx;
    const gr_optim *o = l->optim;
    for (int i = 0; l->params && i < o->n_params; i++)
        for (int k = 0; k < GRI_OPTIM_STATES; k++) gr_release(l->params[i].state[k]);
    for (int g = 0; l->attrs && g < o->n_groups; g++) gri_delete(ctx, l->attrs[g], o->kind->info.attr_size);
    gri_delete(ctx, l->attrs, (size_t)(o->n_groups + 1) * sizeof *l->attrs);
    gri_delete(ctx, l->params, (size_t)(o->n_params + 1) * sizeof *l->params);
    gri_delete(ctx, l, sizeof *l);
}
