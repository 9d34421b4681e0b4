/* JSON and Lua values: gr.json.encode, gr.json.decode. Through jansson, which takes its memory from malloc.
 *
 * A table is an array if its keys are 1..n, n > 0, and an object if they are strings (in UTF-8, as all text must be);
 * keys of objects are written in order. Whole numbers stay whole, floats are written with 17 digits and come back as
 * they were. null, NaN and infinities have no counterpart on the other side and are refused. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lgr.h"

#define JSON_DEEPEST 500 /* jansson reads up to 2048 */
#define JSON_HANDLE "gradrun.Json"

/* Pushes what owns a value until the collector comes by: whatever raises in between, nothing leaks. */
static json_t **lgr_json_push_owner(lua_State *L) {
    json_t **owner = lua_newuserdatauv(L, sizeof *owner, 0);
    *owner = NULL;
    luaL_setmetatable(L, JSON_HANDLE);
    return owner;
}

static int lgr_json_owner_gc(lua_State *L) {
    json_t **owner = lua_touserdata(L, 1);
    json_decref(*owner);
    *owner = NULL;
    return 0;
}

static int lgr_json_no_memory(lua_State *L) { return luaL_error(L, "json: out of memory"); }

/* ---- encode ----------------------------------------------------------------------------------------------- */

/* Takes value; true if it is now held at the place (an array's end, an object's key, or the owner itself). */
typedef struct lgr_json_place {
    json_t *array, *object, **owner;
    const char *key;
    size_t key_size;
} lgr_json_place;

static void lgr_json_put(lua_State *L, const lgr_json_place *at, json_t *value) {
    if (!value) lgr_json_no_memory(L);
    if (at->owner) *at->owner = value;
    else if (at->array ? json_array_append_new(at->array, value)
                       : json_object_setn_new_nocheck(at->object, at->key, at->key_size, value))
        lgr_json_no_memory(L);
}

/* The string at the top as JSON; jansson says NULL to what is not UTF-8 and to lack of memory. */
static json_t *lgr_json_string_at_top(lua_State *L) {
    size_t n;
    const char *s = lua_tolstring(L, -1, &n);
    json_t *text = json_stringn(s, n);
    if (text) return text;
    text = json_stringn_nocheck(s, n);
    json_decref(text);
    if (text) luaL_error(L, "json: a string of %d bytes is not UTF-8", (int)n);
    return NULL;
}

static bool lgr_json_is_sequence(lua_State *L, lua_Integer n) {
    lua_Integer count = 0;
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        count++;
        lua_pop(L, 1);
        if (lua_isinteger(L, -1) && lua_tointeger(L, -1) >= 1 && lua_tointeger(L, -1) <= n) continue;
        lua_pop(L, 1);
        return false;
    }
    return n > 0 && count == n;
}

static void lgr_json_encode_value(lua_State *L, const lgr_json_place *at, int depth);

static void lgr_json_encode_table(lua_State *L, const lgr_json_place *at, int depth) {
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    lgr_json_place inner = {0};
    luaL_checkstack(L, 6, "json");
    if (depth > JSON_DEEPEST) luaL_error(L, "json: tables are nested deeper than %d", JSON_DEEPEST);
    if (lgr_json_is_sequence(L, n)) {
        lgr_json_put(L, at, inner.array = json_array());
        for (lua_Integer i = 1; i <= n; i++) {
            lua_rawgeti(L, -1, i);
            lgr_json_encode_value(L, &inner, depth + 1);
            lua_pop(L, 1);
        }
        return;
    }
    lgr_json_put(L, at, inner.object = json_object());
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "json: a table has a %s as a key, expected 1 to n or strings alone", luaL_typename(L, -2));
        lua_pushvalue(L, -2);
        json_t *checked = lgr_json_string_at_top(L);
        if (!checked) lgr_json_no_memory(L);
        json_decref(checked);
        inner.key = lua_tolstring(L, -1, &inner.key_size);
        if (strlen(inner.key) != inner.key_size) luaL_error(L, "json: a key has a zero byte in it");
        lua_pop(L, 1); /* the table still holds it */
        lgr_json_encode_value(L, &inner, depth + 1);
        lua_pop(L, 1);
    }
}

/* The value on top of the stack, which stays. */
static void lgr_json_encode_value(lua_State *L, const lgr_json_place *at, int depth) {
    switch (lua_type(L, -1)) {
    case LUA_TTABLE: lgr_json_encode_table(L, at, depth); return;
    case LUA_TBOOLEAN: lgr_json_put(L, at, json_boolean(lua_toboolean(L, -1))); return;
    case LUA_TSTRING: lgr_json_put(L, at, lgr_json_string_at_top(L)); return;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1)) {
            lgr_json_put(L, at, json_integer(lua_tointeger(L, -1)));
        } else {
            if (!isfinite(lua_tonumber(L, -1))) luaL_error(L, "json: %f is no number of JSON's", lua_tonumber(L, -1));
            lgr_json_put(L, at, json_real(lua_tonumber(L, -1)));
        }
        return;
    default: luaL_error(L, "json: a %s has no form in JSON", luaL_typename(L, -1));
    }
}

/* gr.json.encode(value) -> text */
static int lgr_json_encode(lua_State *L) {
    const size_t flags = JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17);
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    json_t **owner = lgr_json_push_owner(L);
    lua_insert(L, 1);
    lgr_json_encode_value(L, &(lgr_json_place){.owner = owner}, 1);
    size_t n = json_dumpb(*owner, NULL, 0, flags);
    luaL_Buffer text;
    if (n == 0) return lgr_json_no_memory(L);
    char *to = luaL_buffinitsize(L, &text, n);
    if (json_dumpb(*owner, to, n, flags) != n) return lgr_json_no_memory(L);
    luaL_pushresultsize(&text, n);
    lgr_json_owner_gc(L);
    return 1;
}

/* ---- decode ----------------------------------------------------------------------------------------------- */

/* False, with nothing pushed, where there is a null. */
static bool lgr_json_push(lua_State *L, json_t *value) {
    const char *key;
    json_t *inner;
    luaL_checkstack(L, 4, "json");
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        lua_createtable(L, 0, (int)json_object_size(value));
        json_object_foreach(value, key, inner) {
            if (!lgr_json_push(L, inner)) return lua_pop(L, 1), false;
            lua_setfield(L, -2, key);
        }
        break;
    case JSON_ARRAY:
        lua_createtable(L, (int)json_array_size(value), 0);
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (!lgr_json_push(L, json_array_get(value, i))) return lua_pop(L, 1), false;
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        break;
    case JSON_STRING: lua_pushlstring(L, json_string_value(value), json_string_length(value)); break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(value)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(value)); break;
    case JSON_TRUE: case JSON_FALSE: lua_pushboolean(L, json_is_true(value)); break;
    default: return false;
    }
    return true;
}

/* gr.json.decode(text) -> value; or nil and a message */
static int lgr_json_decode(lua_State *L) {
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    json_error_t e;
    lua_settop(L, 1);
    json_t **owner = lgr_json_push_owner(L);
    lua_insert(L, 1);
    /* jansson does not survive lack of memory for a long token (runtime/io/safetensors.c): there must be some */
    void *room = malloc(4 * n + 64);
    free(room);
    if (!room) return lgr_json_no_memory(L);
    errno = 0;
    *owner = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (!*owner && (errno == ENOMEM || !*e.text)) return lgr_json_no_memory(L);
    if (!*owner) {
        lua_pushnil(L);
        lua_pushfstring(L, "json: %s (byte %d of %d)", e.text, e.position, (int)n);
        return 2;
    }
    if (!lgr_json_push(L, *owner)) {
        lua_pushnil(L);
        lua_pushliteral(L, "json: null has no counterpart in Lua");
        return 2;
    }
    lgr_json_owner_gc(L);
    return 1;
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

static const luaL_Reg lgr_json_functions[] = {{"encode", lgr_json_encode}, {"decode", lgr_json_decode}, {0}};

void lgr_open_json(lua_State *L, lgr_state *st) {
    luaL_newmetatable(L, JSON_HANDLE);
    lua_pushcfunction(L, lgr_json_owner_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    lua_newtable(L);
    lgr_set_functions(L, st, lgr_json_functions);
    lua_setfield(L, -2, "json");
}
