/* Optimizers: groups of parameters, their state, and one update of them all. */
#include "optim.h"

typedef struct optim_param {
    gr_tensor *tensor;                  /* +1 */
    gr_tensor *state[GRI_OPTIM_STATES]; /* +1; NULL: not in use yet */
    int64_t steps;                      /* updates since its first state tensor was made, or since it was added */
} optim_param;

typedef struct optim_group {
    void *attrs; /* the kind's attribute struct */
    optim_param *params;
    int n;
} optim_group;

struct gr_optim {
    gri_object head;
    const gr_optim_kind *kind;
    optim_group *groups;
    int n_groups, cap_groups;
    int64_t steps;
    gri_hooks *hooks;
};

/* ---- life ----------------------------------------------------------------------------------------------- */

static void optim_group_free(gr_ctx *ctx, const gr_optim_kind *kind, optim_group *g) {
    for (int i = 0; i < g->n; i++) {
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
    ctx->objects[GRI_OPTIM]--;
    gri_delete(ctx, o, sizeof *o);
}

gri_hooks **gri_optim_hooks(gr_optim *o) { return &o->hooks; }
