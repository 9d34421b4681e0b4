/* The graph: nodes made by gr_apply, and what backward needs of them. No op includes this. */
#ifndef GRI_TAPE_H
#define GRI_TAPE_H

#include "hook.h"
#include "op.h"

/* Where an input came from: output `out` of `node` (+1). NULL: no gradient goes there. */
typedef struct gri_edge {
    struct gri_node *node;
    uint16_t out;
} gri_edge;

/* One output of a node. */
typedef struct gri_slot {
    gri_spec spec;
    gr_tensor *grad;     /* during a pass: the sum so far (+1); between passes NULL */
    gr_tensor *retained; /* retain_grad asked for it: what .grad shows */
    bool retain;
    int32_t capture;     /* gr_grad: index + 1 of the input this slot is */
} gri_slot;

/* A tensor a backward rule will read, and what its version was. */
typedef struct gri_kept {
    gr_tensor *tensor;
    uint64_t version;
} gri_kept;

/* Recorded by gr_apply; or, with op NULL and no edges, a leaf: the place where .grad lives.
 *
 * A node owns its edges' nodes (upstream), the inputs it keeps (upstream), and history-free aliases of the outputs
 * it keeps. Tensors own the node that made them. The one way to a cycle is a gradient with a history of its own
 * (create_graph) that a leaf or retain_grad holds: it may lead back to the node that has it. Such nodes are on
 * ctx->looped, for the context's end. Release puts nodes on ctx->dying and works that list off in a loop: a chain
 * of a million ops does not grow the C stack. */
typedef struct gri_node {
    gri_object head;
    const gr_op *op;
    uint64_t sequence; /* later nodes are larger: backward runs downwards, a valid order by construction */
    uint64_t pass;     /* the last backward that met it */
    int32_t waiting;   /* during a pass: edges into it that have not delivered yet */
    uint16_t n_in, n_out;
    bool freed;        /* kept tensors are gone: a second backward is refused */
    bool wanted;       /* during gr_grad: a path to a captured slot goes through it */
    uint32_t size;
    struct gri_node *next, **link; /* on ctx->looped; next also on ctx->dying. link NULL: not on looped */
    gri_edge *edges;   /* n_in */
    gri_slot *slots;   /* n_out */
    gri_kept *kept;    /* n_in + n_out when the op keeps anything, else NULL */
    gri_spec *specs;   /* n_in when the op asks for the shapes of all its inputs, else NULL */
    void *attrs;
    void *layer;       /* the layer under way when it was made (+1): for names in messages */
    gri_hooks *hooks;
    /* leaf */
    gr_tensor *data;   /* the leaf's elements, without history */
    gr_tensor *grad;
    char *name;
    /* host op (gr_record) */
    gr_backward_fn host_backward;
    void (*host_drop)(void *ud);
    void *host_ud;
} gri_node;

/* Records one running of an op: gives every output in c->out a node. Nothing changes on failure. */
gr_status gri_record(gri_call *c);
/* Does any input want a gradient, with recording on? */
static inline bool gri_recording(const gr_ctx *ctx, int n_in, gr_tensor *const *in) {
    if (!ctx->grad_enabled) return false;
    for (int i = 0; i < n_in; i++)
        if (in[i] && in[i]->node) return true;
    return false;
}
void gri_node_bury(gri_node *n); /* refs are 0 */
void gri_node_loop(gri_node *n); /* a gradient with a history was put into it */
void gri_loops_break(gr_ctx *ctx); /* takes such gradients out of all that is still there */
static inline void gri_node_release(gri_node *n) {
    if (n && --n->head.refs == 0) gri_node_bury(n);
}
static inline gri_node *gri_node_retain(gri_node *n) {
    if (n) n->head.refs++;
    return n;
}
/* Lets go of what only backward needs; a later backward through the node is refused. */
void gri_node_free_kept(gri_node *n);
static inline bool gri_is_leaf_node(const gri_node *n) { return !n->op && !n->host_backward; }
/* The leaf's name, or "tanh in net.2", or "tanh". In a rotating buffer. */
const char *gri_node_text(const gri_node *n);
/* Fails when an in-place edit of t would break a recorded computation. */
gr_status gri_may_edit(const gr_tensor *t, const char *what);

#endif
