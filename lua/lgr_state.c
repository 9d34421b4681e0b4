/* A Lua state's share: opening, userdata, errors, and the collector's policy. */
#include <stdlib.h>
#include <string.h>

#include "lgr.h"

static const char *const lgr_type_names[LGR_TYPES] = {
    "gradrun.Tensor", "gradrun.Layer", "gradrun.Optim", "gradrun.Hook", "gradrun.Dict"};

static const char lgr_key_state, lgr_key_same, lgr_key_error; /* addresses are registry keys */

lgr_state *lgr_state_of(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &lgr_key_state);
    lgr_state *st = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return st;
}

void lgr_close(lua_State *L) {
    lgr_state *st = lgr_state_of(L);
    if (st) st->closing = true;
    lua_close(L);
}

/* ---- userdata ------------------------------------------------------------------------------------------- */

void lgr_enter_scope(lgr_box *b, lgr_box *head) {
    b->next = head->next;
    b->link = &head->next;
    if (b->next) b->next->link = &b->next;
    head->next = b;
}

void lgr_leave_scope(lgr_box *b) {
    if (!b->link) return;
    *b->link = b->next;
    if (b->next) b->next->link = b->link;
    b->next = NULL;
    b->link = NULL;
}

lgr_box *lgr_new_box(lua_State *L, lgr_state *st, lgr_type type) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, st->metatable[type]);
    lgr_box *b = lgr_new_box_with(L, st, lua_gettop(L));
    lua_remove(L, -2);
    if (type == LGR_TENSOR && st->scope) lgr_enter_scope(b, st->scope);
    return b;
}

lgr_box *lgr_to_box(lua_State *L, lgr_state *st, int i, lgr_type type) {
    void *b = lua_touserdata(L, i); /* light userdata have no metatable of ours */
    if (!b || !lua_getmetatable(L, i)) return NULL;
    const void *mt = lua_topointer(L, -1);
    lua_pop(L, 1);
    return mt == st->metatable[type] ? b : NULL;
}

lgr_box *lgr_check_box(lua_State *L, lgr_state *st, int i, lgr_type type) {
    lgr_box *b = lgr_to_box(L, st, i, type);
    if (!b) luaL_typeerror(L, i, lgr_type_names[type] + 8); /* after "gradrun." */
    return b;
}

void *lgr_check(lua_State *L, lgr_state *st, int i, lgr_type type) {
    lgr_box *b = lgr_check_box(L, st, i, type);
    if (!b->object) luaL_argerror(L, i, type == LGR_TENSOR ? "the tensor was closed" : "the object was closed");
    return b->object;
}

gr_tensor *lgr_to_tensor(lua_State *L, lgr_state *st, int i) {
    lgr_box *b = lgr_to_box(L, st, i, LGR_TENSOR);
    return b ? b->object : NULL;
}

/* For the one allocation that may raise while a reference is held. */
static int lgr_new_box_protected(lua_State *L) {
    lgr_new_box(L, lgr_state_of(L), (lgr_type)lua_tointeger(L, 1));
    return 1;
}

void lgr_push_tensor(lua_State *L, lgr_state *st, gr_tensor *t) {
    if (!t) {
        lua_pushnil(L);
        return;
    }
    (void)st;
    lua_pushcfunction(L, lgr_new_box_protected);
    lua_pushinteger(L, LGR_TENSOR);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        gr_release(t);
        lua_error(L);
    }
    ((lgr_box *)lua_touserdata(L, -1))->object = t;
}

void lgr_set_same(lua_State *L, int i, void *object) {
    i = lua_absindex(L, i);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &lgr_key_same);
    lua_pushvalue(L, i);
    lua_rawsetp(L, -2, object);
    lua_pop(L, 1);
}

void lgr_push_same(lua_State *L, lgr_state *st, lgr_type type, void *object) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &lgr_key_same);
    lgr_box *b = lua_rawgetp(L, -1, object) == LUA_TUSERDATA ? lua_touserdata(L, -1) : NULL;
    if (b && b->object == object) {
        lua_remove(L, -2);
        return;
    }
    lua_pop(L, 1);
    lgr_box *scope = st->scope; /* identities outlive scopes */
    st->scope = NULL;
    b = lgr_new_box(L, st, type);
    st->scope = scope;
    lua_pushvalue(L, -1);
    lua_rawsetp(L, -3, object);
    b->object = gr_retain(object);
    lua_remove(L, -2);
}

/* Upvalues: the address of the type's metatable, its name. */
static int lgr_box_gc(lua_State *L) {
    lgr_box *b = lua_touserdata(L, 1);
    if (!b || !lua_getmetatable(L, 1) || lua_topointer(L, -1) != lua_touserdata(L, lua_upvalueindex(1)))
        return luaL_typeerror(L, 1, lua_tostring(L, lua_upvalueindex(2)));
    void *object = b->object;
    b->object = NULL;
    lgr_leave_scope(b);
    gr_release(object);
    return 0;
}

/* t:free(), and the end of local t <close>. A finalizer may run wherever a function of ours allocates, and that may
 * be working on t: in one (where lua_gc says -1) this does nothing, and t is the collector's. */
static int lgr_box_free(lua_State *L) { return lua_gc(L, LUA_GCCOUNT) < 0 ? 0 : lgr_box_gc(L); }

void lgr_set_functions(lua_State *L, lgr_state *st, const luaL_Reg *list) {
    lua_pushlightuserdata(L, st);
    luaL_setfuncs(L, list, 1);
}

static void lgr_push_closer(lua_State *L, lgr_state *st, lgr_type type, lua_CFunction f) {
    lua_pushlightuserdata(L, (void *)st->metatable[type]);
    lua_pushstring(L, lgr_type_names[type] + 8);
    lua_pushcclosure(L, f, 2);
}

/* meta: metamethods; methods: what __index finds first (a table, as __index's second upvalue if it is a
 * function). __names lists the methods for completion and help. */
void lgr_type_new(lua_State *L, lgr_state *st, lgr_type type, const luaL_Reg *meta, const luaL_Reg *methods) {
    lua_newtable(L);
    st->metatable[type] = lua_topointer(L, -1);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, st->metatable[type]);
    lua_pushstring(L, lgr_type_names[type]);
    lua_setfield(L, -2, "__name");
    lgr_push_closer(L, st, type, lgr_box_gc);
    lua_setfield(L, -2, "__gc");
    lgr_push_closer(L, st, type, lgr_box_free);
    lua_setfield(L, -2, "__close");
    if (meta) lgr_set_functions(L, st, meta);
    lua_newtable(L);
    if (methods) lgr_set_functions(L, st, methods);
    lgr_push_closer(L, st, type, lgr_box_free);
    lua_setfield(L, -2, "free");
    if (type == LGR_TENSOR) lgr_op_methods(L, st);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__names");
    if (lua_getfield(L, -2, "__index") == LUA_TFUNCTION) { /* again, with the methods as upvalue 2 */
        lua_CFunction index = lua_tocfunction(L, -1);
        lua_pop(L, 1);
        lua_pushlightuserdata(L, st);
        lua_insert(L, -2);
        lua_pushcclosure(L, index, 2);
    } else {
        lua_pop(L, 1);
    }
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

void lgr_push_keep(lua_State *L, int i) {
    i = lua_absindex(L, i);
    lgr_box *b = lua_touserdata(L, i);
    lua_getiuservalue(L, i, 1);
    if (b->own) return;
    lua_newtable(L);
    lua_insert(L, -2);
    lua_rawseti(L, -2, 1); /* the anchor passed on so far, or nil */
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, i, 1);
    b->own = true;
}

void lgr_anchor(lua_State *L, int result) {
    result = lua_absindex(L, result);
    lgr_box *b = lua_touserdata(L, result);
    if (!b->anchored && !b->own) {
        lua_setiuservalue(L, result, 1);
    } else {
        lgr_push_keep(L, result);
        lua_insert(L, -2);
        lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
        lua_pop(L, 1);
    }
    b->anchored = true;
}

void lgr_anchor_like(lua_State *L, int result, int source) {
    lgr_box *from = lua_touserdata(L, source);
    if (!from->anchored) return;
    result = lua_absindex(L, result);
    lua_getiuservalue(L, source, 1);
    lgr_anchor(L, result);
}

/* ---- errors --------------------------------------------------------------------------------------------- */

int lgr_raise(lua_State *L, lgr_state *st) {
    gr_status s = gr_errcode(st->ctx);
    if (s == GR_ERR_SCRIPT && lua_rawgetp(L, LUA_REGISTRYINDEX, &lgr_key_error) != LUA_TNIL) {
        lua_pushnil(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &lgr_key_error);
        gr_clear_error(st->ctx);
        return lua_error(L); /* the script's own value, as it was */
    }
    luaL_where(L, 1);
    lua_pushstring(L, gr_errmsg(st->ctx));
    gr_clear_error(st->ctx);
    lua_concat(L, 2);
    return lua_error(L);
}

int lgr_failed(lua_State *L, lgr_state *st, gr_status s) {
    if (s != GR_ERR_IO && s != GR_ERR_FORMAT) return lgr_raise(L, st);
    lua_pushnil(L);
    lua_pushstring(L, gr_errmsg(st->ctx));
    gr_clear_error(st->ctx);
    return 2;
}

static int lgr_callback_traceback(lua_State *L) {
    const char *msg = lua_tostring(L, 1);
    if (msg) luaL_traceback(L, L, msg, 1);
    return 1;
}

gr_status lgr_protected(lgr_state *st, lua_CFunction body, void *job) {
    lua_State *L = st->L;
    if (!lua_checkstack(L, 24)) return gr_fail(st->ctx, GR_ERR_SCRIPT, "the Lua stack is full");
    bool recording = gr_grad_enabled(st->ctx);
    lua_pushcfunction(L, lgr_callback_traceback);
    lua_pushcfunction(L, body);
    lua_pushlightuserdata(L, job);
    int s = lua_pcall(L, 1, 0, -3);
    st->L = L;
    gr_set_grad_enabled(st->ctx, recording);
    lua_remove(L, s == LUA_OK ? -1 : -2);
    if (s == LUA_OK) return GR_OK;
    if (gr_interrupted(st->ctx)) {
        lua_pop(L, 1);
        return gr_fail(st->ctx, GR_ERR_INTERRUPT, "interrupted");
    }
    if (lua_type(L, -1) == LUA_TSTRING) {
        gr_fail(st->ctx, GR_ERR_SCRIPT, "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
    } else {
        lua_rawsetp(L, LUA_REGISTRYINDEX, &lgr_key_error);
        gr_fail(st->ctx, GR_ERR_SCRIPT, "a script raised a value that is not a string");
    }
    return GR_ERR_SCRIPT;
}

void lgr_link_release(void *ud) {
    lgr_link *link = ud;
    if (link && --link->refs == 0) free(link);
}

lgr_state *lgr_link_state(const lgr_link *link, gr_ctx *ctx) {
    if (!link->st) gr_fail(ctx, GR_ERR_STATE, "the script it was written in is closed");
    return link->st;
}

/* ---- memory --------------------------------------------------------------------------------------------- */

static void lgr_collect(lua_State *L, lgr_state *st) {
    if (lua_gc(L, LUA_GCCOLLECT) < 0) return; /* in a finalizer */
    st->collections++;
    gr_memory_collected(st->ctx, true);
}

/* Kilobytes are not fed to LUA_GCSTEP: measured 171 us a tensor with a 34 MB Lua heap (incremental), and 100
 * times too much memory in generational mode, where faked debt never starts a major collection. */
void lgr_relieve(lua_State *L, lgr_state *st, gr_pressure p) {
    if (p != GR_PRESSURE_HARD && !lua_gc(L, LUA_GCISRUNNING)) return;
    if (p == GR_PRESSURE_MINOR) {
        if (st->generational) lua_gc(L, LUA_GCSTEP, 0);
        gr_memory_collected(st->ctx, false);
    } else {
        lgr_collect(L, st);
    }
}

bool lgr_retry(lua_State *L, lgr_state *st, gr_status s) {
    if (s != GR_ERR_MEMORY) return false;
    gr_memory before, after;
    gr_memory_get(st->ctx, &before);
    lgr_collect(L, st);
    gr_memory_get(st->ctx, &after);
    if (after.live + after.cached >= before.live + before.cached && !before.cached) return false;
    gr_clear_error(st->ctx);
    return true;
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static int lgr_state_gc(lua_State *L) {
    lgr_state *st = lua_touserdata(L, 1);
    if (st->owns_ctx) gr_ctx_free(st->ctx); /* everything of ours was marked later, and so finalized before */
    st->ctx = NULL;
    if (st->link) st->link->st = NULL;
    lgr_link_release(st->link);
    st->link = NULL;
    return 0;
}

static void lgr_weak_registry(lua_State *L, const void *key) {
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

static bool lgr_is_generational(lua_State *L) {
    int was = lua_gc(L, LUA_GCINC, 0, 0, 0);
    if (was == LUA_GCGEN) lua_gc(L, LUA_GCGEN, 0, 0);
    return was == LUA_GCGEN;
}

static lgr_state *lgr_state_new(lua_State *L) {
    int ops = gr_op_count();
    lgr_state *st = lua_newuserdatauv(L, sizeof *st + (size_t)ops * sizeof *st->ops, 0);
    memset(st, 0, sizeof *st);
    st->ops = (lgr_opcall *)(st + 1);
    st->L = L;
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, lgr_state_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    st->link = malloc(sizeof *st->link);
    if (!st->link) luaL_error(L, "gradrun: out of memory");
    *st->link = (lgr_link){st, 1};
    return st;
}

/* The module table in place of the state on top of the stack. */
static int lgr_fill(lua_State *L, lgr_state *st) {
    st->generational = lgr_is_generational(L);
    lgr_weak_registry(L, &lgr_key_same);
    lua_newtable(L);
    lua_pushliteral(L, GR_VERSION);
    lua_setfield(L, -2, "_VERSION");
    lgr_open_tensor(L, st);
    lgr_open_op(L, st);
    lgr_open_layer(L, st);
    lgr_open_optim(L, st);
    lgr_open_clip(L, st);
    lgr_open_dict(L, st);
    lgr_open_json(L, st);
    lgr_open_hook(L, st);
    lgr_open_grad(L, st);
    lgr_open_data(L, st);
    lgr_open_memory(L, st);
    lgr_open_system(L, st);
    lgr_open_args(L, st);
    lgr_open_describe(L, st);
    lua_insert(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &lgr_key_state); /* known only when whole */
    return 1;
}

int lgr_open_with(lua_State *L, gr_ctx *ctx) {
    lgr_state *st = lgr_state_new(L);
    st->ctx = ctx;
    return lgr_fill(L, st);
}

int luaopen_gradrun_core(lua_State *L) {
    lgr_state *st = lgr_state_of(L);
    if (st) return luaL_error(L, "gradrun.core is open already in this state");
    st = lgr_state_new(L);
    gr_status s = gr_ctx_new(NULL, &st->ctx);
    if (s != GR_OK) return luaL_error(L, "gradrun: cannot open a context: %s (GRADRUN_ISA?)", gr_status_str(s));
    st->owns_ctx = true;
    return lgr_fill(L, st);
}
