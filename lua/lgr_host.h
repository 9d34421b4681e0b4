/* What the executable and the embedding API share: modules within the binary, stopping a script, tracebacks. */
#ifndef LGR_HOST_H
#define LGR_HOST_H

#include "lgr.h"

/* Lua modules in the binary: lua/gradrun/NAME.lua under "NAME". Ended by a NULL name. */
typedef struct lgr_module {
    const char *name, *text;
    size_t size;
} lgr_module;
extern const lgr_module lgr_modules[];

/* Opens gradrun.core over ctx, so that require finds it loaded, and lets require "gradrun" and "gradrun.NAME"
 * find the modules in the binary. May raise. */
void lgr_open_modules(lua_State *L, gr_ctx *ctx);

/* ---- memory of a state of our own ---- */
#define LGR_POOL_MOST 256 /* bytes; larger objects go to the C library */
typedef struct lgr_pool { /* all zero at first */
    void *free[LGR_POOL_MOST / 16 + 1], *slabs;
} lgr_pool;
void *lgr_pool_alloc(void *pool, void *ptr, size_t osize, size_t nsize); /* a lua_Alloc */
void lgr_pool_free(lgr_pool *p); /* after lua_close */

/* Message handler: the error as a string, with a traceback. */
int lgr_traceback(lua_State *L);

typedef struct lgr_stop lgr_stop;
/* Makes scripts of a state with gradrun in it stoppable (see lgr_stop.c); later calls find what the first made.
 * watch: also from other threads, at the price of a standing hook. May raise. */
lgr_stop *lgr_stop_open(lua_State *L, bool watch);
/* The coroutine that runs; L before a run. */
lua_State *lgr_stop_running(const lgr_stop *s);
void lgr_stop_enter(lgr_stop *s, lua_State *L);
/* Stops the script under way with the error "interrupted". Async-signal-safe; only in the thread that runs it. */
void lgr_stop_raise(lgr_stop *s);
/* Once the script has ended: true if it was interrupted. Scripts may run again. */
bool lgr_stop_clear(lgr_stop *s, lua_State *L);

/* ---- values that cross ---- */
/* Pushes v; false, and nothing pushed, if it is none: a NULL, or a tensor of another context. May raise. */
bool lgr_push_value(lua_State *L, lgr_state *st, const gr_value *v);
bool lgr_is_value(lua_State *L, lgr_state *st, int i);
/* What lgr_is_value accepts: tensors get +1, strings stay Lua's. */
gr_value lgr_to_value(lua_State *L, lgr_state *st, int i);
/* Pushes what "a.b" names from the globals down; pops a value into it. May raise. */
void lgr_push_path(lua_State *L, const char *path);
void lgr_set_path(lua_State *L, const char *path);

#endif
