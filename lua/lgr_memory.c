/* Memory and settings: gr.memory, gr.scope, seeds, threads. */
#include <string.h>

#include "lgr.h"

/* gr.memory() -> {tensors=, bytes=, peak=, cached=, soft_limit=, lua_bytes=, collections=, ...} */
static int memory_report(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_memory m;
    gr_memory_get(st->ctx, &m);
    const struct { const char *name; int64_t value; } rows[] = {
        {"bytes", (int64_t)m.live}, {"peak", (int64_t)m.peak}, {"cached", (int64_t)m.cached},
        {"soft_limit", (int64_t)m.soft}, {"hard_limit", (int64_t)m.hard}, {"system_calls", (int64_t)m.system_calls},
        {"tensors", m.tensors}, {"storages", m.storages}, {"nodes", m.nodes}, {"layers", m.layers},
        {"optims", m.optims}, {"hooks", m.hooks}, {"dicts", m.dicts}, {"collections", (int64_t)st->collections},
        {"lua_bytes", (int64_t)lua_gc(L, LUA_GCCOUNT) * 1024 + lua_gc(L, LUA_GCCOUNTB)}};
    lua_createtable(L, 0, sizeof rows / sizeof *rows);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lua_pushinteger(L, rows[i].value);
        lua_setfield(L, -2, rows[i].name);
    }
    return 1;
}

/* gr.memory_limit(bytes): no more than that for tensors and what belongs to them, from now on */
static int memory_limit(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    lua_Integer n = luaL_checkinteger(L, 1);
    return gr_memory_limit(st->ctx, n > 0 ? (size_t)n : 0) == GR_OK ? 0 : lgr_raise(L, st);
}

static int memory_trim(lua_State *L) {
    gr_memory_trim(lgr_upstate(L)->ctx);
    return 0;
}

/* Closes every tensor made since `head` was put in, but those at from..top of the stack; these move to the
 * scope outside. */
static void memory_close_scope(lua_State *L, lgr_state *st, lgr_box *head, lgr_box *outer, int from) {
    for (int i = from; i <= lua_gettop(L); i++) {
        lgr_box *b = lgr_to_box(L, st, i, LGR_TENSOR);
        if (!b || !b->link) continue;
        lgr_leave_scope(b);
        if (outer) lgr_enter_scope(b, outer);
    }
    while (head->next) {
        lgr_box *b = head->next;
        lgr_leave_scope(b);
        void *object = b->object;
        b->object = NULL;
        gr_release(object);
    }
    st->scope = outer;
}

/* gr.scope(fn, ...): fn(...), then every tensor it made is closed but those it returns, and those it kept with
 * gr.keep. Also when fn raises. */
static int memory_scope(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    lgr_box head = {0}, *outer = st->scope;
    luaL_checktype(L, 1, LUA_TFUNCTION);
    st->scope = &head;
    int s = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    memory_close_scope(L, st, &head, outer, 1);
    return s == LUA_OK ? lua_gettop(L) : lua_error(L);
}

/* gr.keep(t): t outlives the scope it was made in. */
static int memory_keep(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    lgr_check_tensor(L, st, 1);
    lgr_leave_scope(lua_touserdata(L, 1));
    lua_settop(L, 1);
    return 1;
}

static int memory_manual_seed(lua_State *L) {
    gr_seed(lgr_upstate(L)->ctx, (uint64_t)luaL_checkinteger(L, 1));
    return 0;
}

/* gr.threads() -> n; gr.threads(n) sets it */
static int memory_threads(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    if (!lua_isnoneornil(L, 1)) {
        lua_Integer n = luaL_checkinteger(L, 1);
        if (gr_set_threads(st->ctx, n < 0 || n > 1 << 20 ? -1 : (int)n) != GR_OK) return lgr_raise(L, st);
    }
    lua_pushinteger(L, gr_threads(st->ctx));
    return 1;
}

/* gr.get_rng_state() -> {seed =, counter =}: from here on the same numbers come again */
static int memory_get_rng_state(lua_State *L) {
    uint64_t seed, counter;
    gr_random_get(lgr_upstate(L)->ctx, &seed, &counter);
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, (lua_Integer)seed);
    lua_setfield(L, -2, "seed");
    lua_pushinteger(L, (lua_Integer)counter);
    lua_setfield(L, -2, "counter");
    return 1;
}

static int memory_set_rng_state(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "seed");
    lua_getfield(L, 1, "counter");
    luaL_argcheck(L, lua_isinteger(L, -1) && lua_isinteger(L, -2), 1, "seed and counter are expected in it");
    gr_random_set(lgr_upstate(L)->ctx, (uint64_t)lua_tointeger(L, -2), (uint64_t)lua_tointeger(L, -1));
    return 0;
}

static int memory_isa(lua_State *L) {
    lua_pushstring(L, gr_isa(lgr_upstate(L)->ctx));
    return 1;
}

static int memory_default_dtype(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    if (!lua_isnoneornil(L, 1)) {
        gr_dtype t = lgr_check_dtype(L, 1);
        luaL_argcheck(L, t <= GR_F64, 1, "parameters are f32 or f64");
        gr_set_default_dtype(st->ctx, t);
    }
    lua_pushstring(L, gr_dtype_name(gr_default_dtype(st->ctx)));
    return 1;
}

/* gr.step() -> the training step under way; gr.step(n) sets it */
static int memory_step(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    if (!lua_isnoneornil(L, 1)) gr_set_step(st->ctx, luaL_checkinteger(L, 1));
    lua_pushinteger(L, gr_step(st->ctx));
    return 1;
}

static const luaL_Reg memory_functions[] = {
    {"memory", memory_report}, {"memory_limit", memory_limit}, {"trim", memory_trim}, {"scope", memory_scope},
    {"keep", memory_keep}, {"manual_seed", memory_manual_seed}, {"get_rng_state", memory_get_rng_state},
    {"set_rng_state", memory_set_rng_state}, {"threads", memory_threads}, {"isa", memory_isa},
    {"default_dtype", memory_default_dtype}, {"step", memory_step}, {0}};

void lgr_open_memory(lua_State *L, lgr_state *st) { lgr_set_functions(L, st, memory_functions); }
