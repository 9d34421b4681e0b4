/* State dicts: tensors by name, in order; those of layers and optimizers, loading them back, and their files. */
#include <stdlib.h>
#include <string.h>

#include "lgr.h"

static const char dict_key_report; /* registry: where a partial load lists what it met */

/* ---- dicts as Lua sees them ------------------------------------------------------------------------------- */

static const char *dict_check_name(lua_State *L, int i) {
    size_t n;
    const char *name = luaL_checklstring(L, i, &n);
    if (strlen(name) != n) luaL_error(L, "state dict: the text '%s...' has a zero byte in it", name);
    return name;
}

/* d[name]: a tensor or nil; methods behind the tensors. */
static int dict_index(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_dict *d = lgr_check(L, st, 1, LGR_DICT);
    if (lua_type(L, 2) != LUA_TSTRING) return lua_pushnil(L), 1;
    gr_tensor *t = gr_dict_find_peek(d, dict_check_name(L, 2));
    if (t) return lgr_push_tensor(L, st, gr_retain(t)), 1;
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(2));
    return 1;
}

/* d[name] = tensor; the dict's has no history and shares its memory. */
static gr_status dict_set(gr_dict *d, const char *name, gr_tensor *t) {
    gr_tensor *plain;
    if (!t) return gr_dict_set(d, name, NULL);
    gr_status s = gr_tensor_detach(t, &plain);
    if (s != GR_OK) return s;
    s = gr_dict_set(d, name, plain);
    gr_release(plain);
    return s;
}

static int dict_newindex(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_dict *d = lgr_check(L, st, 1, LGR_DICT);
    const char *name = dict_check_name(L, 2);
    gr_tensor *t = lua_isnil(L, 3) ? NULL : lgr_check_tensor(L, st, 3);
    return dict_set(d, name, t) == GR_OK ? 0 : lgr_raise(L, st);
}

static int dict_len(lua_State *L) {
    lua_pushinteger(L, gr_dict_count(lgr_check(L, lgr_upstate(L), 1, LGR_DICT)));
    return 1;
}

/* Upvalue 2: the position. */
static int dict_next(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    const char *name;
    int at = (int)lua_tointeger(L, lua_upvalueindex(2));
    gr_tensor *t = gr_dict_at_peek(lgr_check(L, st, 1, LGR_DICT), at, &name);
    if (!t) return lua_pushnil(L), 1;
    lua_pushinteger(L, at + 1);
    lua_replace(L, lua_upvalueindex(2));
    lua_pushstring(L, name);
    lgr_push_tensor(L, st, gr_retain(t));
    return 2;
}

static int dict_pairs(lua_State *L) {
    lgr_check(L, lgr_upstate(L), 1, LGR_DICT);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, dict_next, 2);
    lua_pushvalue(L, 1);
    return 2;
}

/* "f32[3×4]" */
static void dict_push_shape(lua_State *L, const gr_tensor *t) {
    lua_pushfstring(L, "%s[", gr_dtype_name(gr_tensor_dtype(t)));
    for (int d = 0; d < gr_tensor_rank(t); d++) {
        lua_pushfstring(L, "%s%I", d ? "×" : "", (LUAI_UACINT)gr_tensor_dims_peek(t)[d]);
        lua_concat(L, 2);
    }
    lua_pushliteral(L, "]");
    lua_concat(L, 2);
}

static int dict_tostring(lua_State *L) {
    lgr_box *b = lgr_check_box(L, lgr_upstate(L), 1, LGR_DICT);
    gr_dict *d = b->object;
    const char *name;
    size_t width = 0;
    luaL_Buffer text;
    if (!d) return lua_pushliteral(L, "state dict (closed)"), 1;
    for (int i = 0; gr_dict_at_peek(d, i, &name); i++)
        if (strlen(name) > width) width = strlen(name);
    luaL_buffinit(L, &text);
    for (int i = 0; gr_dict_at_peek(d, i, &name); i++) {
        luaL_addstring(&text, name);
        for (size_t k = strlen(name); k < width + 2; k++) luaL_addchar(&text, ' ');
        dict_push_shape(L, gr_dict_at_peek(d, i, NULL));
        luaL_addvalue(&text);
        luaL_addchar(&text, '\n');
    }
    lua_pushfstring(L, "%d tensors", gr_dict_count(d));
    luaL_addvalue(&text);
    luaL_pushresult(&text);
    return 1;
}

static int dict_order(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Fills it from the table at i, by name. */
static void dict_fill(lua_State *L, lgr_state *st, gr_dict *d, int i) {
    size_t n = 0;
    for (lua_pushnil(L); lua_next(L, i); n++) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "state dict: a key is a %s, expected a name", luaL_typename(L, -2));
        const char *name = dict_check_name(L, -2);
        if (!lgr_to_tensor(L, st, -1))
            luaL_error(L, "state dict: '%s' is a %s, expected a tensor", name, luaL_typename(L, -1));
        lua_pop(L, 1);
    }
    const char **names = lua_newuserdatauv(L, (n + 1) * sizeof *names, 0);
    n = 0;
    for (lua_pushnil(L); lua_next(L, i); lua_pop(L, 1)) names[n++] = lua_tostring(L, -2);
    qsort(names, n, sizeof *names, dict_order);
    for (size_t k = 0; k < n; k++) {
        lua_pushstring(L, names[k]);
        lua_rawget(L, i);
        if (dict_set(d, names[k], lgr_to_tensor(L, st, -1)) != GR_OK) lgr_raise(L, st);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Pushes the dict at i, or one made of the table there. */
static gr_dict *dict_push(lua_State *L, lgr_state *st, int i) {
    gr_dict *d;
    if (lgr_to_box(L, st, i, LGR_DICT)) {
        lua_pushvalue(L, i);
        return lgr_check(L, st, i, LGR_DICT);
    }
    luaL_checktype(L, i, LUA_TTABLE);
    lgr_box *b = lgr_new_box(L, st, LGR_DICT);
    if (gr_dict_new(st->ctx, &d) != GR_OK) lgr_raise(L, st);
    b->object = d;
    dict_fill(L, st, d, i);
    return d;
}

/* gr.dict{name = tensor, …}, gr.dict() */
static int dict_new(lua_State *L) {
    lua_settop(L, 1);
    if (lua_isnil(L, 1)) {
        lua_newtable(L);
        lua_replace(L, 1);
    }
    dict_push(L, lgr_upstate(L), 1);
    return 1;
}

/* ---- states of objects -------------------------------------------------------------------------------------- */

static void *dict_check_object(lua_State *L, lgr_state *st, int i) {
    return lgr_check(L, st, i, lgr_to_box(L, st, i, LGR_OPTIM) ? LGR_OPTIM : LGR_LAYER);
}

/* layer:state_dict(), optimizer:state_dict() */
int lgr_state_dict(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    void *object = dict_check_object(L, st, 1);
    bool optim = lgr_to_box(L, st, 1, LGR_OPTIM) != NULL;
    gr_dict *d;
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_DICT);
    gr_status s = optim ? gr_optim_state(object, &d) : gr_layer_state(object, &d);
    if (s != GR_OK && lgr_retry(L, st, s)) s = optim ? gr_optim_state(object, &d) : gr_layer_state(object, &d);
    if (s != GR_OK) return lgr_raise(L, st);
    b->object = d;
    return 1;
}

typedef struct dict_report {
    lgr_state *st;
    gr_match what;
    const char *name;
    const gr_tensor *found, *here;
} dict_report;

static const char *const dict_lists[GR_MATCHES] = {
    [GR_MATCH_LOADED] = "loaded", [GR_MATCH_MISSING] = "missing", [GR_MATCH_UNEXPECTED] = "unexpected",
    [GR_MATCH_MISMATCHED] = "mismatched"};

/* Protected: appends to the list it belongs to. */
static int dict_add_report(lua_State *L) {
    const dict_report *r = lua_touserdata(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &dict_key_report);
    lua_getfield(L, -1, dict_lists[r->what]);
    if (r->what == GR_MATCH_MISMATCHED) {
        lua_createtable(L, 0, 3);
        lua_pushstring(L, r->name);
        lua_setfield(L, -2, "name");
        dict_push_shape(L, r->found);
        lua_setfield(L, -2, "found");
        dict_push_shape(L, r->here);
        lua_setfield(L, -2, "expected");
    } else {
        lua_pushstring(L, r->name);
    }
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    return 0;
}

static gr_status dict_report_match(void *ud, gr_match what, const char *name, const gr_tensor *found,
                                   const gr_tensor *here) {
    dict_report r = {ud, what, name, found, here};
    return lgr_protected(r.st, dict_add_report, &r);
}

static bool dict_read_partial(lua_State *L, int i) {
    bool partial = false;
    if (lua_isnoneornil(L, i)) return false;
    luaL_checktype(L, i, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, i)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(key, "partial") != 0) lgr_unknown(L, "load_state_dict", "option", key, "partial");
        partial = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    return partial;
}

/* Pushes {loaded = {}, missing = {}, …}, which reports go to. */
static void dict_push_lists(lua_State *L) {
    lua_createtable(L, 0, GR_MATCHES);
    for (int w = 0; w < GR_MATCHES; w++) {
        lua_newtable(L);
        lua_setfield(L, -2, dict_lists[w]);
    }
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &dict_key_report);
}

/* object:load_state_dict(dict, {partial = true}) -> {loaded =, missing =, unexpected =, mismatched =} if partial.
 * Strict otherwise: raises, and nothing is loaded. */
int lgr_load_state_dict(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_state_part part = {.object = dict_check_object(L, st, 1), .partial = dict_read_partial(L, 3)};
    lgr_pressure(L, st);
    part.state = dict_push(L, st, 2);
    if (part.partial) {
        dict_push_lists(L);
        part.report = dict_report_match;
        part.ud = st;
    }
    st->L = L;
    gr_status s = gr_state_load(st->ctx, 1, &part);
    if (part.partial) {
        lua_pushnil(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &dict_key_report);
    }
    if (s != GR_OK) return lgr_raise(L, st);
    return part.partial ? 1 : 0;
}

/* gr.load_state_dicts({{object, dict, name}, …}, check): all of them or none. With check none, but it raises as if. */
static int dict_load_all(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    int n = (int)lua_rawlen(L, 1);
    bool check = lua_toboolean(L, 2);
    gr_state_part *parts = lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *parts, 0);
    memset(parts, 0, ((size_t)n + 1) * sizeof *parts);
    int keep = lua_gettop(L) + 1;
    lua_newtable(L); /* dicts made of tables, and names */
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, 1, i + 1);
        int entry = lua_gettop(L);
        if (!lua_istable(L, entry))
            return luaL_error(L, "load_state_dicts: entry %d is a %s, expected {object, dict, name}", i + 1,
                              luaL_typename(L, entry));
        for (int k = 1; k <= 3; k++) lua_rawgeti(L, entry, k);
        parts[i].object = dict_check_object(L, st, entry + 1);
        parts[i].name = luaL_checkstring(L, entry + 3);
        parts[i].state = dict_push(L, st, entry + 2);
        lua_rawseti(L, keep, 2 * i + 1);
        lua_rawseti(L, keep, 2 * i + 2); /* the name */
        lua_settop(L, keep);
    }
    lgr_pressure(L, st);
    gr_status (*load)(gr_ctx *, int, const gr_state_part *) = check ? gr_state_check : gr_state_load;
    gr_status s = load(st->ctx, n, parts);
    if (s != GR_OK && lgr_retry(L, st, s)) s = load(st->ctx, n, parts);
    return s == GR_OK ? 0 : lgr_raise(L, st);
}

/* ---- files ------------------------------------------------------------------------------------------------ */

/* The texts of the dict become those of the table at i. */
static void dict_set_texts(lua_State *L, lgr_state *st, gr_dict *d, int i) {
    const char *key;
    while (gr_dict_text_peek(d, 0, &key)) {
        lua_pushstring(L, key); /* it goes with the text */
        gr_dict_set_text(d, lua_tostring(L, -1), NULL);
        lua_pop(L, 1);
    }
    if (lua_isnoneornil(L, i)) return;
    luaL_checktype(L, i, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, i)) {
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "metadata: a %s for a %s, expected texts", luaL_typename(L, -1), luaL_typename(L, -2));
        key = dict_check_name(L, -2);
        dict_check_name(L, -1);
        if (gr_dict_set_text(d, key, lua_tostring(L, -1)) != GR_OK) lgr_raise(L, st);
        lua_pop(L, 1);
    }
}

/* gr.safetensors.write(path, dict, metadata) -> true, or nil and a message */
static int dict_write(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    const char *path = lgr_check_path(L, 1);
    lua_settop(L, 3);
    lgr_pressure(L, st);
    gr_dict *d = dict_push(L, st, 2);
    dict_set_texts(L, st, d, 3);
    gr_status s = gr_safetensors_write(d, path);
    if (s != GR_OK && lgr_retry(L, st, s)) s = gr_safetensors_write(d, path);
    if (s != GR_OK) return lgr_failed(L, st, s);
    lua_pushboolean(L, 1);
    return 1;
}

/* gr.safetensors.read(path) -> dict, metadata; or nil and a message */
static int dict_read(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    const char *path = lgr_check_path(L, 1), *key, *text;
    gr_dict *d;
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_DICT);
    gr_status s = gr_safetensors_read(st->ctx, path, &d);
    if (s != GR_OK && lgr_retry(L, st, s)) s = gr_safetensors_read(st->ctx, path, &d);
    if (s != GR_OK) return lgr_failed(L, st, s);
    b->object = d;
    lua_createtable(L, 0, gr_dict_texts(d));
    for (int i = 0; (text = gr_dict_text_peek(d, i, &key)); i++) {
        lua_pushstring(L, text);
        lua_setfield(L, -2, key);
    }
    return 2;
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static int dict_is_dict(lua_State *L) {
    lua_pushboolean(L, lgr_to_box(L, lgr_upstate(L), 1, LGR_DICT) != NULL);
    return 1;
}

static const luaL_Reg dict_meta[] = {{"__index", dict_index}, {"__newindex", dict_newindex}, {"__len", dict_len},
                                     {"__pairs", dict_pairs}, {"__tostring", dict_tostring}, {0}};
static const luaL_Reg dict_functions[] = {
    {"dict", dict_new}, {"is_dict", dict_is_dict}, {"load_state_dicts", dict_load_all}, {0}};
static const luaL_Reg dict_files[] = {{"write", dict_write}, {"read", dict_read}, {0}};

void lgr_open_dict(lua_State *L, lgr_state *st) {
    lgr_type_new(L, st, LGR_DICT, dict_meta, NULL);
    lgr_set_functions(L, st, dict_functions);
    lua_newtable(L);
    lgr_set_functions(L, st, dict_files);
    lua_setfield(L, -2, "safetensors");
}
