/* The Lua modules within the binary: one file runs uninstalled. */
#include <stdlib.h>
#include <string.h>

#include "lgr.h"
#include "lgr_host.h"

/* require's loader. With GRADRUN_LUA_PATH=lua (the folder that holds gradrun/) the files are read instead of
 * what was built in, so that they can be edited without building. */
static int modules_load(lua_State *L) {
    const lgr_module *m = lua_touserdata(L, lua_upvalueindex(1));
    const char *folder = getenv("GRADRUN_LUA_PATH");
    int status;
    if (folder && *folder) {
        const char *path = lua_pushfstring(L, "%s/gradrun/%s.lua", folder, m->name);
        status = luaL_loadfile(L, path);
        lua_replace(L, 2);
    } else {
        status = luaL_loadbufferx(L, m->text, m->size, lua_pushfstring(L, "@gradrun/%s.lua", m->name), "t");
        lua_replace(L, 2);
    }
    if (status != LUA_OK) return luaL_error(L, "%s", lua_tostring(L, 2));
    lua_settop(L, 2);
    lua_insert(L, 1);
    lua_call(L, 1, 1); /* the chunk gets the module's name, as from a file */
    return 1;
}

void lgr_open_modules(lua_State *L, gr_ctx *ctx) {
    int top = lua_gettop(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lgr_open_with(L, ctx);
    lua_setfield(L, top + 1, "gradrun.core");
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    for (const lgr_module *m = lgr_modules; m->name; m++) {
        if (strcmp(m->name, "init") == 0) lua_pushliteral(L, "gradrun");
        else lua_pushfstring(L, "gradrun.%s", m->name);
        lua_pushlightuserdata(L, (void *)m);
        lua_pushcclosure(L, modules_load, 1);
        lua_rawset(L, -3);
    }
    lua_settop(L, top);
}
