/* Runtimes: scripts in a host program. Every use of the Lua state after opening is within one lua_pcall, in
 * runtime_protect; what may raise is in the functions it is given. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lualib.h>

#include "lgr_host.h"

struct gr_runtime {
    lua_State *L; /* NULL once closed, while the host still holds objects */
    bool own;     /* from gr_open */
    gr_ctx *ctx;
    lgr_stop *stop;
    int depth; /* runs under way, one within another */
    _Atomic pthread_t thread; /* that runs them; 0: none */
    gr_runtime_config config;
    size_t lua_used;
    char warning[1024]; /* the pieces so far of a warning under way */
    char error[8192];
};

typedef struct runtime_job { /* what a function under runtime_protect works on */
    gr_runtime *rt;
    gr_status status; /* of its failure */
    const char *name, *text;
    size_t size;
    int n_args, n_results;
    const gr_value *args;
    gr_value *results;
} runtime_job;

/* ---- errors and output ---------------------------------------------------------------------------------- */

static bool runtime_has_script(lua_State *L) {
    lua_Debug ar;
    for (int level = 1; lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "S", &ar);
        if (*ar.what != 'C') return true;
    }
    return false;
}

int lgr_traceback(lua_State *L) {
    const char *text = lua_tostring(L, 1);
    if (!text) {
        if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
        text = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
    }
    if (runtime_has_script(L)) luaL_traceback(L, L, text, 1); /* one of C functions alone says nothing */
    return 1;
}

static gr_status runtime_fail(gr_runtime *rt, gr_status code, const char *text) {
    snprintf(rt->error, sizeof rt->error, "%s", text);
    if (rt->config.error) rt->config.error(rt->config.ud, rt->error);
    return code;
}

/* Lua's warning function: a warning comes in pieces. */
static void runtime_warn(void *ud, const char *text, int more) {
    gr_runtime *rt = ud;
    size_t n = strlen(rt->warning);
    snprintf(rt->warning + n, sizeof rt->warning - n, "%s", text);
    if (more) return;
    if (rt->config.error) rt->config.error(rt->config.ud, rt->warning);
    rt->warning[0] = 0;
}

static int runtime_print(lua_State *L) {
    const gr_runtime *rt = lua_touserdata(L, lua_upvalueindex(1));
    int n = lua_gettop(L);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (int i = 1; i <= n; i++) {
        if (i > 1) luaL_addchar(&b, '\t');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&b);
    }
    luaL_addchar(&b, '\n');
    luaL_pushresult(&b);
    size_t size;
    const char *text = lua_tolstring(L, -1, &size);
    rt->config.write(rt->config.ud, text, size);
    return 0;
}

/* ---- running -------------------------------------------------------------------------------------------- */

/* f(job), protected. Returns GR_OK, or what job->status says of the failure. */
static gr_status runtime_protect(gr_runtime *rt, lua_CFunction f, runtime_job job) {
    rt->error[0] = 0;
    if (!rt->L) return runtime_fail(rt, GR_ERR_STATE, "the runtime is closed, but for objects the host holds");
    lua_State *L = rt->depth ? lgr_stop_running(rt->stop) : rt->L;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, 3)) return runtime_fail(rt, GR_ERR_MEMORY, "no room on the Lua stack");
    job.rt = rt;
    job.status = GR_ERR_SCRIPT;
    lua_pushcfunction(L, lgr_traceback);
    lua_pushcfunction(L, f);
    lua_pushlightuserdata(L, &job);
    if (rt->depth++ == 0) {
        lgr_stop_enter(rt->stop, L);
        atomic_store(&rt->thread, pthread_self());
    }
    gr_status s = GR_OK;
    if (gr_interrupted(rt->ctx)) { /* before it began, when no hook was set */
        s = runtime_fail(rt, GR_ERR_INTERRUPT, "interrupted");
    } else {
        int status = lua_pcall(L, 1, 0, top + 1);
        if (status != LUA_OK) {
            const char *text = lua_tostring(L, -1);
            s = gr_interrupted(rt->ctx) ? GR_ERR_INTERRUPT : status == LUA_ERRMEM ? GR_ERR_MEMORY : job.status;
            runtime_fail(rt, s, text ? text : "an error in the message handler");
        }
    }
    lua_settop(L, top);
    if (--rt->depth == 0) {
        atomic_store(&rt->thread, 0);
        if (s == GR_ERR_INTERRUPT) lgr_stop_clear(rt->stop, L);
    }
    return s;
}

/* Calls the function below n arguments on top of the stack. That a script ends in time does not undo an
 * interrupt: it may have caught the error as its last act. */
static void runtime_run(lua_State *L, const gr_runtime *rt, int n, int results) {
    lua_call(L, n, results);
    if (gr_interrupted(rt->ctx)) luaL_error(L, "interrupted");
}

static int runtime_run_file(lua_State *L) {
    runtime_job *job = lua_touserdata(L, 1);
    int status = luaL_loadfilex(L, job->name, "t");
    if (status == LUA_ERRFILE) job->status = GR_ERR_IO;
    if (status != LUA_OK) return lua_error(L);
    runtime_run(L, job->rt, 0, 0);
    return 0;
}

static int runtime_run_buffer(lua_State *L) {
    const runtime_job *job = lua_touserdata(L, 1);
    const char *name = lua_pushfstring(L, "=%s", job->name);
    if (luaL_loadbufferx(L, job->text, job->size, name, "t") != LUA_OK) return lua_error(L);
    runtime_run(L, job->rt, 0, 0);
    return 0;
}

/* The values from `first` to the top become results; the strings among them live until the next call. */
static void runtime_take(lua_State *L, runtime_job *job, int first) {
    lgr_state *st = lgr_state_of(L);
    for (int i = 0; i < job->n_results; i++)
        if (!lgr_is_value(L, st, first + i))
            luaL_error(L, "'%s': result %d is a %s, which is no value for a host", job->name, i + 1,
                       luaL_typename(L, first + i));
    lua_createtable(L, job->n_results, 0);
    for (int i = 0; i < job->n_results; i++) {
        lua_pushvalue(L, first + i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_rawsetp(L, LUA_REGISTRYINDEX, job->rt);
    for (int i = 0; i < job->n_results; i++) job->results[i] = lgr_to_value(L, st, first + i);
}

static int runtime_call(lua_State *L) {
    runtime_job *job = lua_touserdata(L, 1);
    gr_status script = job->status;
    job->status = GR_ERR_ARG;
    lgr_push_path(L, job->name);
    if (!lua_isfunction(L, -1) && luaL_getmetafield(L, -1, "__call") == LUA_TNIL)
        return luaL_error(L, "'%s' is a %s value, not a function", job->name, luaL_typename(L, -1));
    lua_settop(L, 2);
    luaL_checkstack(L, job->n_args + job->n_results + LUA_MINSTACK, "too many values");
    for (int i = 0; i < job->n_args; i++)
        if (!lgr_push_value(L, lgr_state_of(L), &job->args[i]))
            return luaL_error(L, "'%s': argument %d is no value: a NULL, or a tensor of another context", job->name,
                              i + 1);
    job->status = script;
    runtime_run(L, job->rt, job->n_args, job->n_results);
    job->status = GR_ERR_ARG;
    runtime_take(L, job, 2);
    return 0;
}

static int runtime_set(lua_State *L) {
    runtime_job *job = lua_touserdata(L, 1);
    job->status = GR_ERR_ARG;
    if (!lgr_push_value(L, lgr_state_of(L), job->args))
        return luaL_error(L, "'%s': no value: a NULL, or a tensor of another context", job->name);
    lgr_set_path(L, job->name);
    return 0;
}

static int runtime_get(lua_State *L) {
    runtime_job *job = lua_touserdata(L, 1);
    job->status = GR_ERR_ARG;
    lgr_push_path(L, job->name);
    runtime_take(L, job, 2);
    return 0;
}

gr_status gr_run_file(gr_runtime *rt, const char *path) {
    return runtime_protect(rt, runtime_run_file, (runtime_job){.name = path});
}

gr_status gr_run_buffer(gr_runtime *rt, const char *name, const char *text, size_t size) {
    return runtime_protect(rt, runtime_run_buffer, (runtime_job){.name = name, .text = text, .size = size});
}

gr_status gr_call(gr_runtime *rt, const char *name, int n_args, const gr_value *args, int n_results,
                  gr_value *results) {
    return runtime_protect(rt, runtime_call, (runtime_job){.name = name, .n_args = n_args, .args = args,
                                                           .n_results = n_results, .results = results});
}

gr_status gr_set_global(gr_runtime *rt, const char *name, const gr_value *value) {
    return runtime_protect(rt, runtime_set, (runtime_job){.name = name, .args = value});
}

gr_status gr_get_global(gr_runtime *rt, const char *name, gr_value *out) {
    return runtime_protect(rt, runtime_get, (runtime_job){.name = name, .n_results = 1, .results = out});
}

void gr_runtime_interrupt(gr_runtime *rt) {
    gr_interrupt(rt->ctx);
    /* Only the thread that runs the script may touch the state, and then it is in a signal handler. */
    if (pthread_equal(atomic_load(&rt->thread), pthread_self())) lgr_stop_raise(rt->stop);
}

gr_ctx *gr_runtime_ctx_peek(const gr_runtime *rt) { return rt->ctx; }
struct lua_State *gr_runtime_lua_peek(const gr_runtime *rt) { return rt->L; }
const char *gr_runtime_errmsg(const gr_runtime *rt) { return rt->error; }

/* ---- opening and closing -------------------------------------------------------------------------------- */

/* The host's allocator, or the C library's. */
static void *runtime_alloc(const gr_runtime_config *c, void *ptr, size_t osize, size_t nsize) {
    if (c->alloc) return c->alloc(c->alloc_ud, ptr, osize, nsize);
    if (nsize) return realloc(ptr, nsize);
    free(ptr);
    return NULL;
}

/* Lua's memory, counted. For a new block Lua puts its type into osize. */
static void *runtime_lua_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
    gr_runtime *rt = ud;
    size_t max = rt->config.lua_bytes;
    if (!ptr) osize = 0;
    if (max && nsize > osize && (nsize - osize > max || rt->lua_used > max - (nsize - osize))) return NULL;
    void *p = runtime_alloc(&rt->config, ptr, osize, nsize);
    if (p || nsize == 0) rt->lua_used += nsize - osize;
    return p;
}

void gr_runtime_config_init(gr_runtime_config *cfg) { *cfg = (gr_runtime_config){.size = sizeof *cfg}; }

static gr_runtime *runtime_new(const gr_runtime_config *given) {
    gr_runtime_config cfg;
    gr_runtime_config_init(&cfg);
    if (given) memcpy(&cfg, given, given->size < sizeof cfg ? given->size : sizeof cfg);
    gr_runtime *rt = runtime_alloc(&cfg, NULL, 0, sizeof *rt);
    if (!rt) return NULL;
    memset(rt, 0, sizeof *rt);
    rt->config = cfg;
    return rt;
}

static void runtime_free(gr_runtime *rt) {
    gr_runtime_config cfg = rt->config;
    runtime_alloc(&cfg, rt, sizeof *rt, 0);
}

static gr_status runtime_ctx_new(gr_runtime *rt) {
    gr_config c;
    gr_config_init(&c);
    c.alloc = rt->config.alloc;
    c.alloc_ud = rt->config.alloc_ud;
    c.hard_bytes = rt->config.native_bytes;
    c.threads = rt->config.threads;
    c.seed = rt->config.seed;
    c.isa = rt->config.isa;
    return gr_ctx_new(&c, &rt->ctx);
}

static int runtime_setup(lua_State *L) {
    gr_runtime *rt = lua_touserdata(L, 1);
    luaL_checkversion(L);
    luaL_openlibs(L);
    lua_gc(L, LUA_GCGEN, 0, 0);
    lgr_open_modules(L, rt->ctx);
    rt->stop = lgr_stop_open(L, rt->config.watch);
    if (rt->config.write) {
        lua_pushlightuserdata(L, rt);
        lua_pushcclosure(L, runtime_print, 1);
        lua_setglobal(L, "print");
    }
    return 0;
}

gr_status gr_open(const gr_runtime_config *cfg, gr_runtime **out) {
    *out = NULL;
    gr_runtime *rt = runtime_new(cfg);
    if (!rt) return GR_ERR_MEMORY;
    rt->own = true;
    gr_status s = runtime_ctx_new(rt);
    if (s != GR_OK) {
        runtime_free(rt);
        return s;
    }
    rt->L = lua_newstate(runtime_lua_alloc, rt);
    if (rt->L) {
        lua_setwarnf(rt->L, runtime_warn, rt);
        lua_pushcfunction(rt->L, runtime_setup);
        lua_pushlightuserdata(rt->L, rt);
        if (lua_pcall(rt->L, 1, 0, 0) == LUA_OK) {
            *out = rt;
            return GR_OK;
        }
    }
    gr_close(rt);
    return GR_ERR_MEMORY; /* nothing else in there fails */
}

/* Opens gradrun in the host's state, unless it is. From then on the context belongs to that state. */
static int runtime_join(lua_State *L) {
    gr_runtime *rt = lua_touserdata(L, 1);
    luaL_checkversion(L);
    if (!lgr_state_of(L)) {
        lgr_open_modules(L, rt->ctx);
        lgr_state_of(L)->owns_ctx = true;
    }
    rt->ctx = lgr_state_of(L)->ctx;
    rt->stop = lgr_stop_open(L, rt->config.watch);
    return 0;
}

gr_status gr_attach(struct lua_State *L, const gr_runtime_config *cfg, gr_runtime **out) {
    *out = NULL;
    gr_runtime *rt = runtime_new(cfg);
    if (!rt) return GR_ERR_MEMORY;
    gr_status s = rt->config.write || rt->config.lua_bytes ? GR_ERR_ARG : GR_OK;
    if (s == GR_OK && !lgr_state_of(L)) s = runtime_ctx_new(rt);
    gr_ctx *made = rt->ctx;
    if (s == GR_OK) {
        s = GR_ERR_MEMORY;
        rt->L = L;
        if (lua_checkstack(L, 2)) {
            lua_pushcfunction(L, runtime_join);
            lua_pushlightuserdata(L, rt);
            if (lua_pcall(L, 1, 0, 0) == LUA_OK) s = GR_OK;
            else lua_pop(L, 1);
        }
    }
    if (s == GR_OK) {
        *out = rt;
    } else {
        gr_ctx_free(made);
        runtime_free(rt);
    }
    return s;
}

static int64_t runtime_alive(const gr_ctx *ctx) {
    gr_memory m;
    gr_memory_get(ctx, &m);
    return m.tensors + m.storages + m.nodes + m.layers + m.optims + m.hooks + m.dicts;
}

int64_t gr_close(gr_runtime *rt) {
    if (!rt) return 0;
    if (rt->depth > 0) return -1;
    int64_t alive;
    if (rt->own) {
        if (rt->L) lgr_close(rt->L);
        rt->L = NULL;
        alive = gr_ctx_free(rt->ctx);
        if (alive > 0) return alive;
    } else {
        lua_pushnil(rt->L);
        lua_rawsetp(rt->L, LUA_REGISTRYINDEX, rt);
        lua_gc(rt->L, LUA_GCCOLLECT);
        alive = runtime_alive(rt->ctx);
    }
    runtime_free(rt);
    return alive;
}
