/* Hooks from Lua. The closure lives in the user value of its owner's userdata, never in luaL_ref: a closure
 * that captures its owner would keep it for ever (measured: 1000 of 1000). C finds it through a weak table
 * from the gr_hook's address. */
#include <string.h>

#include "lgr.h"

static const char hook_key_entries; /* registry: weak values: address of gr_hook -> {fn, owner} */
static const char hook_key_event;   /* registry: the one context object hooks are given */
static const char hook_key_global;  /* registry: closures of global hooks */

static const struct { const char *method; gr_hook_kind kind; lgr_type owner; } hook_methods[] = {
    {"register_hook", GR_HOOK_GRAD, LGR_TENSOR},
    {"register_post_accumulate_grad_hook", GR_HOOK_POST_ACCUMULATE, LGR_TENSOR},
    {"register_forward_pre_hook", GR_HOOK_FORWARD_PRE, LGR_LAYER},
    {"register_forward_hook", GR_HOOK_FORWARD, LGR_LAYER},
    {"register_backward_pre_hook", GR_HOOK_BACKWARD_PRE, LGR_LAYER},
    {"register_backward_hook", GR_HOOK_BACKWARD, LGR_LAYER},
    {"register_step_pre_hook", GR_HOOK_STEP_PRE, LGR_OPTIM},
    {"register_step_hook", GR_HOOK_STEP, LGR_OPTIM},
};
#define HOOK_METHODS (int)(sizeof hook_methods / sizeof *hook_methods)

/* ---- what a hook is given as its second argument -------------------------------------------------------- */

static int hook_event_index(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    const gr_event *e = st->event;
    const char *key = luaL_checkstring(L, 2);
    if (!e) return luaL_error(L, "a hook's ctx can be read only while the hook runs (ctx.%s)", key);
    if (strcmp(key, "step") == 0) lua_pushinteger(L, e->step);
    else if (strcmp(key, "name") == 0) lua_pushstring(L, e->name ? e->name : "");
    else if (strcmp(key, "param") == 0) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &hook_key_entries);
        if (e->param && lua_rawgetp(L, -1, e->hook) == LUA_TTABLE && lua_rawgeti(L, -1, 2) == LUA_TUSERDATA) return 1;
        lgr_push_tensor(L, st, gr_retain(e->param));
    } else if (strcmp(key, "layer") == 0) {
        if (e->layer) lgr_push_same(L, st, LGR_LAYER, e->layer);
        else lua_pushnil(L);
    } else if (strcmp(key, "kind") == 0) lua_pushstring(L, hook_methods[e->kind].method + strlen("register_"));
    else return lgr_unknown(L, "ctx", "field", key, "name step param layer kind");
    return 1;
}

static int hook_event_tostring(lua_State *L) {
    const gr_event *e = lgr_upstate(L)->event;
    if (!e) lua_pushliteral(L, "hook ctx (over)");
    else lua_pushfstring(L, "hook ctx: %s, step %d", e->name && *e->name ? e->name : "unnamed", (int)e->step);
    return 1;
}

/* ---- calling -------------------------------------------------------------------------------------------- */

static void hook_push_list(lua_State *L, lgr_state *st, int n, gr_tensor **list) {
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        if (!list[i]) lua_pushboolean(L, 0);
        else lgr_push_tensor(L, st, gr_retain(list[i]));
        lua_rawseti(L, -2, i + 1);
    }
}

/* One tensor as itself, several as a list. */
static void hook_push_tensors(lua_State *L, lgr_state *st, int n, gr_tensor **list) {
    if (n == 1) lgr_push_tensor(L, st, gr_retain(list[0]));
    else hook_push_list(L, st, n, list);
}

/* Arguments by kind: gradients (grad, ctx); forward_pre (layer, input, ctx); forward (layer, input, output,
 * ctx); backward_pre (layer, grad_output, ctx); backward (layer, grad_inputs, grad_output, ctx); step
 * (optimizer, ctx). input, output and grad_output are lists for a layer that has several; what is absent there
 * is false. A tensor that is returned replaces the first. */
static int hook_push_arguments(lua_State *L, lgr_state *st, gr_event *e) {
    int top = lua_gettop(L);
    if (e->layer && e->kind >= GR_HOOK_FORWARD_PRE && e->kind <= GR_HOOK_BACKWARD)
        lgr_push_same(L, st, LGR_LAYER, e->layer);
    if (e->optim) lgr_push_same(L, st, LGR_OPTIM, e->optim);
    if (e->kind == GR_HOOK_FORWARD_PRE || e->kind == GR_HOOK_FORWARD) hook_push_tensors(L, st, e->n_in, e->in);
    if (e->kind == GR_HOOK_BACKWARD) hook_push_list(L, st, e->n_in, e->in);
    if (e->n_out > 0) hook_push_tensors(L, st, e->n_out, e->out);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &hook_key_event);
    return lua_gettop(L) - top;
}

typedef struct hook_job {
    lgr_state *st;
    gr_event *e;
} hook_job;

/* Runs protected: everything here may raise. */
static int hook_run(lua_State *L) {
    hook_job *job = lua_touserdata(L, 1);
    lgr_state *st = job->st;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &hook_key_entries);
    if (lua_rawgetp(L, -1, job->e->hook) != LUA_TTABLE) return 0; /* its owner is gone */
    lua_rawgeti(L, -1, 1);
    lua_call(L, hook_push_arguments(L, st, job->e), 1);
    if (lua_isnil(L, -1)) return 0;
    lgr_box *b = lgr_to_box(L, st, -1, LGR_TENSOR);
    if (!b || !b->object)
        return luaL_error(L, "a hook returned a %s; nil or a tensor is expected",
                          b ? "closed tensor" : luaL_typename(L, -1));
    bool forward = job->e->kind == GR_HOOK_FORWARD_PRE || job->e->kind == GR_HOOK_FORWARD;
    if (forward && b->anchored) lgr_keep_anchors(L, -1);
    job->e->replace = gr_retain(b->object);
    return 0;
}

static gr_status hook_call(void *ud, gr_event *e) {
    hook_job job = {lgr_link_state(ud, e->ctx), e};
    if (!job.st) return GR_ERR_STATE;
    const gr_event *outer = job.st->event;
    job.st->event = e;
    gr_status s = lgr_protected(job.st, hook_run, &job);
    job.st->event = outer;
    return s;
}

/* ---- registering ---------------------------------------------------------------------------------------- */

/* Pushes the table that keeps the owner's closures. */
static void hook_push_owner_table(lua_State *L, int owner) {
    if (owner) {
        lgr_push_keep(L, owner);
        ((lgr_box *)lua_touserdata(L, owner))->anchored = true;
    } else {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &hook_key_global);
    }
}

/* owner: stack index of the userdata, 0 for a global hook. fn at index fn; options at fn + 1. */
static int hook_register(lua_State *L, lgr_state *st, int owner, void *object, gr_hook_kind kind, int fn) {
    const char *name = NULL;
    luaL_checktype(L, fn, LUA_TFUNCTION);
    if (lua_istable(L, fn + 1)) {
        lua_pushnil(L);
        while (lua_next(L, fn + 1)) {
            if (lua_type(L, -2) != LUA_TSTRING || strcmp(lua_tostring(L, -2), "name") != 0)
                return lgr_unknown(L, hook_methods[kind].method, "option", luaL_tolstring(L, -2, NULL), "name");
            name = luaL_checkstring(L, -1);
            lua_pop(L, 1);
        }
    } else if (!lua_isnoneornil(L, fn + 1)) {
        name = luaL_checkstring(L, fn + 1);
    }
    lua_settop(L, fn + 1);
    lua_createtable(L, 2, 0); /* the entry: {fn, owner} */
    lua_pushvalue(L, fn);
    lua_rawseti(L, -2, 1);
    if (owner) {
        lua_pushvalue(L, owner);
        lua_rawseti(L, -2, 2);
    }
    int entry = lua_gettop(L);
    hook_push_owner_table(L, owner);
    int keep = lua_gettop(L);
    lgr_box *b = lgr_new_box(L, st, LGR_HOOK);
    gr_hook *h;
    if (gr_hook_add(st->ctx, object, kind, name, hook_call, lgr_link_release, lgr_link_retain(st), &h) != GR_OK)
        return lgr_raise(L, st);
    b->object = h;
    int handle = lua_gettop(L);
    lua_pushvalue(L, keep); /* the handle finds the closure to let go of */
    lua_setiuservalue(L, handle, 1);
    if (name) { /* replaces: the old closure goes with the new one's key */
        lua_pushfstring(L, "%s %s", hook_methods[kind].method, name);
        lua_pushvalue(L, entry);
        lua_rawset(L, keep);
    } else {
        lua_pushvalue(L, entry);
        lua_rawsetp(L, keep, h);
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, &hook_key_entries);
    lua_pushvalue(L, entry);
    lua_rawsetp(L, -2, h);
    lua_settop(L, handle);
    return 1;
}

/* owner:register_…_hook(fn, name or {name=}); upvalue 2: position in hook_methods */
static int hook_method(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    int k = (int)lua_tointeger(L, lua_upvalueindex(2));
    void *object = lgr_check(L, st, 1, hook_methods[k].owner);
    return hook_register(L, st, 1, object, hook_methods[k].kind, 2);
}

/* gr.hook.KIND(fn, name): on all of a kind */
static int hook_global(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    int k = (int)lua_tointeger(L, lua_upvalueindex(2));
    return hook_register(L, st, 0, st->ctx, hook_methods[k].kind, 1);
}

/* Takes the entry out of the owner's table, whatever its key. */
static void hook_forget(lua_State *L, int handle, gr_hook *h) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &hook_key_entries);
    if (lua_rawgetp(L, -1, h) != LUA_TTABLE) {
        lua_pop(L, 2);
        return;
    }
    int entry = lua_gettop(L);
    lua_getiuservalue(L, handle, 1);
    if (lua_istable(L, -1)) {
        lua_pushnil(L);
        while (lua_next(L, entry + 1)) {
            bool found = lua_rawequal(L, -1, entry);
            lua_pop(L, 1);
            if (!found) continue;
            lua_pushnil(L);
            lua_rawset(L, entry + 1);
            break;
        }
    }
    lua_settop(L, entry - 2);
}

static int hook_remove(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_hook *h = lgr_check(L, st, 1, LGR_HOOK);
    if (gr_hook_active(h)) hook_forget(L, 1, h);
    gr_hook_remove(h);
    return 0;
}

static int hook_active(lua_State *L) {
    lua_pushboolean(L, gr_hook_active(lgr_check(L, lgr_upstate(L), 1, LGR_HOOK)));
    return 1;
}

static const luaL_Reg hook_handle_methods[] = {{"remove", hook_remove}, {"active", hook_active}, {0}};
static const luaL_Reg hook_event_meta[] = {{"__index", hook_event_index}, {"__tostring", hook_event_tostring}, {0}};

static void hook_install(lua_State *L, lgr_state *st, int k, lua_CFunction f, const char *name) {
    lua_pushlightuserdata(L, st);
    lua_pushinteger(L, k);
    lua_pushcclosure(L, f, 2);
    lua_setfield(L, -2, name);
}

void lgr_open_hook(lua_State *L, lgr_state *st) {
    lgr_type_new(L, st, LGR_HOOK, NULL, hook_handle_methods);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &hook_key_global);
    lua_newtable(L); /* entries, weak */
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &hook_key_entries);
    lua_newuserdatauv(L, 1, 0); /* the event object */
    lua_newtable(L);
    lgr_set_functions(L, st, hook_event_meta);
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &hook_key_event);
    for (int k = 0; k < HOOK_METHODS; k++) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, st->metatable[hook_methods[k].owner]);
        lua_getfield(L, -1, "__names");
        hook_install(L, st, k, hook_method, hook_methods[k].method);
        lua_pop(L, 2);
    }
    lua_newtable(L);
    for (int k = 0; k < HOOK_METHODS; k++)
        hook_install(L, st, k, hook_global, hook_methods[k].method + strlen("register_"));
    lua_setfield(L, -2, "hook");
}
