/* The binding's own header: what one Lua state holds, and how values cross between Lua and the core.
 *
 * Three phases in every function that makes something: check all arguments while owning nothing (may raise);
 * make the empty userdata with its metatable; let the core fill it; raise last. An error raised between the
 * first and the last phase would leak, so nothing there may raise.
 *
 * Upvalue 1 of every function is the lgr_state (light userdata). Functions named lgr_check_… raise. */
#ifndef LGR_H
#define LGR_H

#include <lauxlib.h>
#include <lua.h>

#include "gradrun.h"

typedef enum lgr_type { LGR_TENSOR, LGR_LAYER, LGR_OPTIM, LGR_HOOK, LGR_DICT, LGR_TYPES } lgr_type;

/* Payload of every userdata. object is NULL when closed. User value 1 keeps alive in Lua what the object needs
 * there: hook closures, members of a layer, the anchors of what a result was made from. */
typedef struct lgr_box {
    void *object;
    struct lgr_box *next, **link; /* in the innermost gr.scope; link NULL: in none */
    bool anchored;                /* user value 1 must stay alive as long as anything made from this */
    bool own;                     /* user value 1 is a table of this object's own; else an anchor passed on */
} lgr_box;

typedef struct lgr_opcall { /* an op as the binding calls it */
    struct lgr_state *st;
    const gr_op *op;
    const gr_info *info;
    uint8_t outputs, max_in, optional; /* inputs; which of them may be absent, a bit for each */
    bool list;  /* one table of tensors */
    const gr_attr *lead; /* given between the tensors: x:index_select(dim, index) */
    bool draws; /* has seed and counter, filled from the generator */
    const struct lgr_opcall *over_all; /* called instead where no dim is given, or NULL */
} lgr_opcall;

/* What callbacks of the core hold of a state. It outlives it: a host may still hold a tensor whose gradient a script's
 * hook waits for. */
typedef struct lgr_link {
    struct lgr_state *st; /* NULL: closed */
    int refs;
} lgr_link;

typedef struct lgr_state {
    gr_ctx *ctx;
    lgr_link *link;
    bool owns_ctx;
    bool closing;                  /* what is made now would never be finalized, and is refused */
    bool generational;             /* design 6: minor collections help; else only full ones */
    const void *metatable[LGR_TYPES];
    lgr_box *scope;                /* head of the innermost scope's list */
    lua_State *L;                  /* the thread that called into the core last: hooks run on it */
    const gr_event *event;         /* of the hook under way */
    lgr_opcall *ops;
    uint64_t collections;
} lgr_state;

/* lua_close runs finalizers that are older than gradrun in the state after the state's own: they find it closed. */
static inline void lgr_want_open(lua_State *L, const lgr_state *st) {
    if (__builtin_expect(!st->ctx, 0)) luaL_error(L, "gradrun: the runtime is closed");
}
static inline lgr_state *lgr_upstate(lua_State *L) {
    lgr_state *st = lua_touserdata(L, lua_upvalueindex(1));
    lgr_want_open(L, st);
    return st;
}

__attribute__((visibility("default"))) int luaopen_gradrun_core(lua_State *L);
/* The same over a context made (and closed) by the host; pushes the module table. */
int lgr_open_with(lua_State *L, gr_ctx *ctx);
lgr_state *lgr_state_of(lua_State *L); /* NULL before opening */
void lgr_close(lua_State *L);          /* lua_close, in which finalizers can make no objects */

/* ---- userdata ---- */
/* Pushes an empty userdata of the type, or with the metatable at an index (an upvalue: 7 ns less). */
lgr_box *lgr_new_box(lua_State *L, lgr_state *st, lgr_type type);
static inline lgr_box *lgr_new_box_with(lua_State *L, lgr_state *st, int metatable) {
    if (__builtin_expect(st->closing, 0)) luaL_error(L, "gradrun: the runtime is closing");
    lgr_box *b = lua_newuserdatauv(L, sizeof *b, 1);
    *b = (lgr_box){0};
    lua_pushvalue(L, metatable);
    lua_setmetatable(L, -2);
    return b;
}
void lgr_enter_scope(lgr_box *b, lgr_box *head);
void lgr_leave_scope(lgr_box *b); /* nothing if it is in none */
lgr_box *lgr_to_box(lua_State *L, lgr_state *st, int i, lgr_type type); /* NULL if it is not one */
lgr_box *lgr_check_box(lua_State *L, lgr_state *st, int i, lgr_type type);
void *lgr_check(lua_State *L, lgr_state *st, int i, lgr_type type); /* its object; raises also when closed */
#define lgr_check_tensor(L, st, i) ((gr_tensor *)lgr_check(L, st, i, LGR_TENSOR))
#define lgr_check_layer(L, st, i) ((gr_layer *)lgr_check(L, st, i, LGR_LAYER))
gr_tensor *lgr_to_tensor(lua_State *L, lgr_state *st, int i);
/* A rank-0 i64 tensor; t's elements become the number at i. Both keep integers that no double holds. */
gr_status lgr_new_integer(gr_ctx *ctx, lua_Integer value, gr_tensor **out);
gr_status lgr_fill_tensor(lua_State *L, lgr_state *st, gr_tensor *t, int i);
void lgr_push_tensor(lua_State *L, lgr_state *st, gr_tensor *t); /* +1 taken, also when it raises; NULL: nil */
/* The one userdata that stands for an object with an identity (parameters, layers): found again, or made. */
void lgr_push_same(lua_State *L, lgr_state *st, lgr_type type, void *object /* borrowed */);
/* Registers the userdata at i as that one. */
void lgr_set_same(lua_State *L, int i, void *object);
void lgr_type_new(lua_State *L, lgr_state *st, lgr_type type, const luaL_Reg *meta, const luaL_Reg *methods);
/* The userdata's user value as a table, made if need be; pushes it. */
void lgr_push_keep(lua_State *L, int i);
/* The tensor at `result` and all made from it keep the value on top of the stack (popped) alive (design 4:
 * closures live as long as the graph that needs them). */
void lgr_anchor(lua_State *L, int result);
/* The same with what the tensor at `source` must keep, if anything: hook closures, never source itself. */
void lgr_anchor_like(lua_State *L, int result, int source);
/* The same for the results of the layer that a script is calling: they are made when it returns. */
void lgr_keep_anchors(lua_State *L, int source);

/* ---- errors and memory ---- */
int lgr_raise(lua_State *L, lgr_state *st); /* the context's error as a Lua error; clears it */
/* What a function that reads or writes a file returns when it failed: nil and the message, as io.open does, where the
 * file is to blame; else it raises. */
int lgr_failed(lua_State *L, lgr_state *st, gr_status s);
/* How the core's callbacks enter Lua: body(job) protected, on the thread that called the core. An error
 * becomes GR_ERR_SCRIPT, with a traceback if it is a string and as the same value otherwise. */
gr_status lgr_protected(lgr_state *st, lua_CFunction body, void *job);
/* The ud of such a callback: +1, which its drop gives back. */
static inline lgr_link *lgr_link_retain(lgr_state *st) {
    st->link->refs++;
    return st->link;
}
void lgr_link_release(void *link);
/* In the callback: its state, or NULL and GR_ERR_STATE recorded if that was closed. */
lgr_state *lgr_link_state(const lgr_link *link, gr_ctx *ctx);
void lgr_relieve(lua_State *L, lgr_state *st, gr_pressure p);
/* Before operands are read: collects if native bytes demand it (design 6). */
static inline void lgr_pressure(lua_State *L, lgr_state *st) {
    gr_pressure p = gr_memory_pressure(st->ctx);
    st->L = L;
    if (__builtin_expect(p != GR_PRESSURE_NONE, 0)) lgr_relieve(L, st, p);
}
/* After a failed call: true if it was memory, something was collected, and the call is worth one more try. */
bool lgr_retry(lua_State *L, lgr_state *st, gr_status s);

/* ---- arguments ---- */
/* Fills attrs (info->attr_size bytes, defaults first) from the arguments from `first` on: positional in the
 * schema's order, then by name from a trailing table. Raises on unknown names, with a suggestion. filled: names
 * the caller fills when they are not given by name, as "seed counter" (NULL: none). Returns what was given, a bit
 * for each attribute. */
uint64_t lgr_read_attrs(lua_State *L, lgr_state *st, const gr_info *info, int first, void *attrs, const char *filled);
void lgr_read_attr(lua_State *L, lgr_state *st, const gr_attr *a, int i, void *attrs, const char *who);
/* The attribute called name from the value on top; also betas = {b1, b2}, as PyTorch writes that pair. False if
 * there is no such attribute. */
bool lgr_read_option(lua_State *L, lgr_state *st, const gr_info *info, const char *name, void *attrs);
void lgr_push_attr(lua_State *L, const gr_attr *a, const void *attrs);
const gr_attr *lgr_find_attr(const gr_info *info, const char *name); /* NULL if there is none */
gr_dtype lgr_check_dtype(lua_State *L, int i);
/* Pushes the value at i as a message shows it: numbers as they are, short texts in quotes, else "a table". */
const char *lgr_push_shown(lua_State *L, int i);
/* Raises "who: unknown WHAT 'name' (did you mean 'x'?)"; names: separated by blanks. */
int lgr_unknown(lua_State *L, const char *who, const char *what, const char *name, const char *names);
/* The same for a field, among the given names and the keys of the table at `methods`. */
int lgr_unknown_field(lua_State *L, const char *who, const char *name, const char *names, int methods);
/* Raises unless there is a table at i: parameters, or groups of them. */
void lgr_check_parameters(lua_State *L, lgr_state *st, int i);
/* Tensors in the table at i, as an array in a buffer left on the stack, which keeps them: the table may change. */
gr_tensor **lgr_check_list(lua_State *L, lgr_state *st, int i, int *n);
/* The text at i; raises if it has a zero byte, where the system would take it to end. */
const char *lgr_check_path(lua_State *L, int i);
/* Script position (from 1, negative from the end) to 0-based; raises with the place. */
int64_t lgr_check_dim(lua_State *L, int i);

/* ---- parts of the module; each adds to the table on top of the stack ---- */
void lgr_open_tensor(lua_State *L, lgr_state *st);
void lgr_open_op(lua_State *L, lgr_state *st);
void lgr_open_layer(lua_State *L, lgr_state *st);
void lgr_open_optim(lua_State *L, lgr_state *st);
void lgr_open_clip(lua_State *L, lgr_state *st);
void lgr_open_dict(lua_State *L, lgr_state *st);
void lgr_open_json(lua_State *L, lgr_state *st);
void lgr_open_hook(lua_State *L, lgr_state *st);
void lgr_open_grad(lua_State *L, lgr_state *st);
void lgr_open_data(lua_State *L, lgr_state *st);
void lgr_open_memory(lua_State *L, lgr_state *st);
void lgr_open_system(lua_State *L, lgr_state *st);
void lgr_open_args(lua_State *L, lgr_state *st);
void lgr_open_describe(lua_State *L, lgr_state *st);
void lgr_set_functions(lua_State *L, lgr_state *st, const luaL_Reg *list); /* into the table on top */

/* Methods of layers and optimizers. */
int lgr_state_dict(lua_State *L);
int lgr_load_state_dict(lua_State *L);

/* Op methods for the tensor metatable's index table, on top of the stack. */
void lgr_op_methods(lua_State *L, lgr_state *st);
void lgr_op_operators(lua_State *L, lgr_state *st); /* arithmetic, into the metatable on top */
int lgr_tensor_tostring(lua_State *L);
int lgr_layer_tostring(lua_State *L);
int lgr_tensor_index(lua_State *L, lgr_state *st);    /* t[i], t[{…}], t[mask], t[positions]: key at 2 */
int lgr_tensor_assign(lua_State *L, lgr_state *st);   /* the same, with the value at 3 */

#endif
