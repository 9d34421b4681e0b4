/* Stopping a script: the context's interrupt flag, and a hook on the coroutine that runs.
 *
 * The core looks at the flag by itself; Lua code does not. A count hook that is always there would double
 * the time of plain Lua (5.9 to 12.0 ns a loop iteration, whatever the count), so it is set when it is needed:
 * lua_sethook may be called from a signal handler, on the coroutine that is running at that moment. Lua does not
 * tell which one that is, so coroutine.resume, wrap and close are replaced by twins that note it.
 *
 * Nothing swallows the error while the flag is up: after a pcall the hook fires again at the next
 * instruction, and where a coroutine ends or yields, its resumer raises. Out of reach are finalizers, message
 * handlers (Lua disables hooks in both) and the loops inside Lua's own C functions. */
#include <lualib.h>

#include "lgr_host.h"

#define STOP_WATCH 10000 /* instructions between two looks of a standing hook */

struct lgr_stop {
    lgr_state *state;
    lua_State *volatile running;
    bool watch;
};

static const char stop_key; /* its address is a registry key */

static lgr_stop *stop_of(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &stop_key);
    lgr_stop *s = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return s;
}

/* Finalizers that run after the state's own find it without a context. */
static bool stop_wanted(const lgr_stop *s) { return s->state->ctx && gr_interrupted(s->state->ctx); }

/* ---- the hook ------------------------------------------------------------------------------------------- */

static void stop_hook(lua_State *L, lua_Debug *ar);

/* A count hook only: one for calls would fire in message handlers written in C as well. */
static void stop_arm(lua_State *L) { lua_sethook(L, stop_hook, LUA_MASKCOUNT, 1); }

static void stop_disarm(const lgr_stop *s, lua_State *L) {
    if (s->watch) lua_sethook(L, stop_hook, LUA_MASKCOUNT, STOP_WATCH);
    else lua_sethook(L, NULL, 0, 0);
}

static void stop_hook(lua_State *L, lua_Debug *ar) {
    (void)ar;
    const lgr_stop *s = stop_of(L);
    if (!stop_wanted(s)) {
        stop_disarm(s, L); /* left over in a coroutine that yielded in time */
        return;
    }
    stop_arm(L);
    luaL_where(L, 0);
    lua_pushliteral(L, "interrupted");
    lua_concat(L, 2);
    lua_error(L);
}

/* In the resumer of a coroutine that has stopped, while the flag is up. */
static int stop_pass(lua_State *L) {
    stop_arm(L);
    return luaL_error(L, "interrupted");
}

/* ---- coroutines ----------------------------------------------------------------------------------------- */

/* From here on L runs. A host that calls the core between two runs has its hooks on it, too: not on a coroutine that
 * called the core last and has died since. */
static void stop_switch(lgr_stop *s, lua_State *L) {
    s->running = L;
    s->state->L = L;
}

static bool stop_idle(lua_State *co) {
    lua_Debug ar;
    return lua_status(co) != LUA_OK || !lua_getstack(co, 0, &ar);
}

/* Lua's own resume or close (upvalue 2), its coroutine noted as the one that runs. A coroutine that is not idle
 * is left to them to refuse. */
static int stop_through(lua_State *L) {
    lgr_stop *s = lua_touserdata(L, lua_upvalueindex(1));
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "thread");
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_insert(L, 1);
    if (stop_idle(co)) stop_switch(s, co);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    stop_switch(s, L);
    return stop_wanted(s) ? stop_pass(L) : lua_gettop(L);
}

/* The error on top of co: closes what co left open, and raises it here with the place, as Lua's wrap does. */
static int stop_wrap_failed(lua_State *L, lgr_stop *s, lua_State *co) {
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) {
        stop_switch(s, co);
        status = lua_resetthread(co);
        stop_switch(s, L);
    }
    lua_xmove(co, L, 1);
    if (stop_wanted(s)) stop_arm(L);
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

/* What coroutine.wrap returns; upvalue 2 is the coroutine. */
static int stop_wrapped(lua_State *L) {
    lgr_stop *s = lua_touserdata(L, lua_upvalueindex(1));
    lua_State *co = lua_tothread(L, lua_upvalueindex(2));
    int n = lua_gettop(L), results;
    if (!lua_checkstack(co, n)) return luaL_error(L, "too many arguments to resume");
    bool idle = stop_idle(co);
    lua_xmove(L, co, n);
    if (idle) stop_switch(s, co);
    int status = lua_resume(co, L, n, &results);
    stop_switch(s, L);
    if (status != LUA_OK && status != LUA_YIELD) return stop_wrap_failed(L, s, co);
    if (stop_wanted(s)) {
        lua_pop(co, results);
        return stop_pass(L);
    }
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        return luaL_error(L, "too many results to resume");
    }
    lua_xmove(co, L, results);
    return results;
}

static int stop_wrap(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushcclosure(L, stop_wrapped, 2);
    return 1;
}

static void stop_replace(lua_State *L, lgr_stop *s, const char *name, lua_CFunction f) {
    lua_pushlightuserdata(L, s);
    lua_getfield(L, -2, name);
    lua_pushcclosure(L, f, 2);
    lua_setfield(L, -2, name);
}

/* ---- interface ------------------------------------------------------------------------------------------ */

lgr_stop *lgr_stop_open(lua_State *L, bool watch) {
    lgr_stop *s = stop_of(L);
    if (s) return s;
    s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = (lgr_stop){.state = lgr_state_of(L), .running = L, .watch = watch};
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, LUA_COLIBNAME) == LUA_TTABLE) {
        stop_replace(L, s, "resume", stop_through);
        stop_replace(L, s, "close", stop_through);
        stop_replace(L, s, "wrap", stop_wrap);
    }
    lua_pop(L, 2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &stop_key);
    if (watch) stop_disarm(s, L);
    return s;
}

lua_State *lgr_stop_running(const lgr_stop *s) { return s->running; }
void lgr_stop_enter(lgr_stop *s, lua_State *L) { stop_switch(s, L); }

void lgr_stop_raise(lgr_stop *s) {
    gr_interrupt(s->state->ctx);
    stop_arm(s->running);
}

bool lgr_stop_clear(lgr_stop *s, lua_State *L) {
    stop_switch(s, L);
    if (!stop_wanted(s)) return false;
    gr_clear_interrupt(s->state->ctx);
    stop_disarm(s, L);
    return true;
}
