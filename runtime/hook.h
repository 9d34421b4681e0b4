/* Hooks: who is called when a gradient, a layer or an optimizer gets somewhere. */
#ifndef GRI_HOOK_H
#define GRI_HOOK_H

#include "tensor.h"

struct gr_hook {
    gri_object head;
    gr_hook_kind kind;
    bool active;
    uint16_t slot;           /* tensor hooks: which output of the node */
    int running;             /* calls under way: drop waits for them */
    gr_hook_fn fn;
    void (*drop)(void *ud);  /* NULL once called */
    void *ud;
    char *name;              /* NULL: anonymous */
    struct gri_hooks *owner; /* NULL once removed from it */
};

/* The registrations of one owner, in order. Entries move only while nothing runs. */
typedef struct gri_hooks {
    gr_hook **list;
    int n, cap, running;
    uint32_t kinds; /* bit set of kinds that may be present */
} gri_hooks;

static inline bool gri_hooks_any(const gri_hooks *h, gr_hook_kind kind) { return h && (h->kinds >> kind & 1); }

/* Calls every active hook of e->kind (and slot) in order of registration. *value, if given, is an owned
 * reference that hooks may replace (same shape and dtype); e->out[0] or e->in[0] follows it. */
gr_status gri_hooks_run(gri_hooks *h, int slot, gr_event *e, gr_tensor **value);
void gri_hooks_free(gr_ctx *ctx, gri_hooks **owner);
void gri_hook_free(gr_hook *h);

#endif
