/* Layers: parameters, children, and how ops are composed. No derivative code lives here. */
#ifndef GRI_LAYER_H
#define GRI_LAYER_H

#include "hook.h"
#include "op.h"

typedef struct gri_member { /* a parameter or buffer */
    char *name;
    gr_tensor *tensor;
} gri_member;

typedef struct gri_child {
    char *name;
    gr_layer *layer;
} gri_child;

struct gr_layer {
    gri_object head;
    const gr_layer_kind *kind; /* NULL: made by the host */
    void *attrs;               /* the kind's attribute struct; NULL if it has none */
    const void *call;          /* the options of the call under way; NULL if the kind has none */
    bool training;
    char *type;                /* host layers: their name; else NULL */
    char *path;                /* where it was last put: "net.2"; "" at the root */
    gri_member *params, *buffers;
    gri_child *children;
    int n_params, cap_params, n_buffers, cap_buffers, n_children, cap_children;
    gri_hooks *hooks;
    gr_forward_fn host_forward;
    void (*host_drop)(void *ud);
    void *host_ud;
};

/* layers/NAME.c: header comment (what it computes, shapes); NAME_attrs; NAME_init; NAME_forward;
 * NAME_describe; GR_LAYER(NAME) = {…}. */
struct gr_layer_kind {
    gr_info info; /* attrs: the constructor's arguments, positional in this order */
    gr_status (*init)(gr_layer *l); /* checks attrs, adds parameters and buffers; NULL: none */
    /* in[0..inputs), NULL where absent, to out[0..outputs), +1 each. */
    gr_status (*forward)(gr_layer *l, int n_in, gr_tensor *const *in, gr_tensor **out);
    int (*describe)(const gr_layer *l, char *buf, size_t size); /* "784→256"; NULL: nothing to say */
    const gr_op *op; /* instead of init and forward: the inputs through one op, whose attributes are the layer's and
                        whose first output is the layer's */
    const gr_info *call; /* inputs: their names; attrs: options of a call, for forward in l->call. NULL: none */
    int inputs;      /* how many tensors forward takes; 0 means 1 */
    int optional;    /* of those, how many of the last may be absent */
    int outputs;     /* how many it makes; 0 means 1 */
    bool container; /* takes children at construction */
};
#define GR_LAYER(name) const gr_layer_kind gri_layer_##name
extern GR_LAYER(Linear); /* a child of other layers */
typedef struct gri_linear_attrs { int64_t in_features, out_features; bool bias; } gri_linear_attrs;

/* A parameter of the given shape filled by an initialiser op's attributes; for init functions. */
gr_status gri_layer_param(gr_layer *l, const char *name, int rank, const int64_t *dims, gr_tensor **peek);
/* U(-bound, bound) from the context's generator. */
gr_status gri_uniform_(gr_tensor *t, double bound);
/* N(mean, std²). */
gr_status gri_normal_(gr_tensor *t, double mean, double std);
gr_status gri_fill_(gr_tensor *t, double value); /* a parameter, too */
void gri_layer_free(gr_layer *l);

#endif
