/* Values that cross between a host and its scripts, and the dotted names they go by. */
#include <string.h>

#include "lgr_host.h"

gr_value gr_value_bool(bool b) { return (gr_value){.kind = GR_VALUE_BOOL, .boolean = b}; }
gr_value gr_value_number(double x) { return (gr_value){.kind = GR_VALUE_NUMBER, .number = x}; }
gr_value gr_value_tensor(gr_tensor *t) { return (gr_value){.kind = GR_VALUE_TENSOR, .tensor = t}; }

gr_value gr_value_integer(int64_t i) {
    return (gr_value){.kind = GR_VALUE_INTEGER, .integer = i, .number = (double)i};
}

gr_value gr_value_string(const char *s) {
    return (gr_value){.kind = GR_VALUE_STRING, .string = s, .size = s ? strlen(s) : 0};
}

bool lgr_push_value(lua_State *L, lgr_state *st, const gr_value *v) {
    switch (v->kind) {
    case GR_VALUE_NIL: lua_pushnil(L); return true;
    case GR_VALUE_BOOL: lua_pushboolean(L, v->boolean); return true;
    case GR_VALUE_INTEGER: lua_pushinteger(L, v->integer); return true;
    case GR_VALUE_NUMBER: lua_pushnumber(L, v->number); return true;
    case GR_VALUE_STRING:
        if (!v->string) return false;
        lua_pushlstring(L, v->string, v->size);
        return true;
    case GR_VALUE_TENSOR:
        if (!v->tensor || gr_ctx_peek(v->tensor) != st->ctx) return false;
        lgr_push_tensor(L, st, gr_retain(v->tensor));
        return true;
    }
    return false;
}

bool lgr_is_value(lua_State *L, lgr_state *st, int i) {
    switch (lua_type(L, i)) {
    case LUA_TNONE: case LUA_TNIL: case LUA_TBOOLEAN: case LUA_TNUMBER: case LUA_TSTRING: return true;
    default: return lgr_to_tensor(L, st, i) != NULL;
    }
}

gr_value lgr_to_value(lua_State *L, lgr_state *st, int i) {
    gr_value v = {.kind = GR_VALUE_NIL};
    switch (lua_type(L, i)) {
    case LUA_TNONE: case LUA_TNIL: return v;
    case LUA_TBOOLEAN: return gr_value_bool(lua_toboolean(L, i));
    case LUA_TNUMBER:
        return lua_isinteger(L, i) ? gr_value_integer(lua_tointeger(L, i)) : gr_value_number(lua_tonumber(L, i));
    case LUA_TSTRING:
        v.kind = GR_VALUE_STRING;
        v.string = lua_tolstring(L, i, &v.size);
        return v;
    default: return gr_value_tensor(gr_retain(lgr_to_tensor(L, st, i)));
    }
}

/* Pushes the table that holds the last part of path, and that part as a string. */
static void value_push_owner(lua_State *L, const char *path) {
    lua_pushglobaltable(L);
    for (const char *part = path;;) {
        size_t n = strcspn(part, ".");
        if (n == 0) luaL_error(L, "'%s' is not a name", path);
        lua_pushlstring(L, part, n);
        if (part[n] == 0) return;
        lua_gettable(L, -2);
        part += n + 1;
        if (luaL_getmetafield(L, -1, "__index") != LUA_TNIL) {
            lua_pop(L, 1);
        } else if (!lua_istable(L, -1)) {
            lua_pushlstring(L, path, (size_t)(part - 1 - path));
            luaL_error(L, "'%s' in '%s' is a %s value", lua_tostring(L, -1), path, luaL_typename(L, -2));
        }
        lua_remove(L, -2);
    }
}

void lgr_push_path(lua_State *L, const char *path) {
    value_push_owner(L, path);
    lua_gettable(L, -2);
    lua_remove(L, -2);
}

void lgr_set_path(lua_State *L, const char *path) {
    int value = lua_gettop(L);
    value_push_owner(L, path);
    lua_pushvalue(L, value);
    lua_settable(L, -3);
    lua_settop(L, value - 1);
}
