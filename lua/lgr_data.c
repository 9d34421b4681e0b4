/* Data files: environment failures return nil and a message, as io.open does. */
#include <string.h>

#include "lgr.h"

/* ---- one tensor ----------------------------------------------------------------------------------------- */

/* gr.data.NAME(path) -> tensor */
static int data_read(lua_State *L, gr_status (*read)(gr_ctx *, const char *, gr_tensor **)) {
    lgr_state *st = lgr_upstate(L);
    const char *path = lgr_check_path(L, 1);
    gr_tensor *t;
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_TENSOR);
    gr_status s = read(st->ctx, path, &t);
    if (s != GR_OK && lgr_retry(L, st, s)) s = read(st->ctx, path, &t);
    if (s != GR_OK) return lgr_failed(L, st, s);
    b->object = t;
    return 1;
}

/* gr.data.write_NAME(path, tensor) -> true */
static int data_write(lua_State *L, gr_status (*write)(const gr_tensor *, const char *)) {
    lgr_state *st = lgr_upstate(L);
    const char *path = lgr_check_path(L, 1);
    gr_status s = write(lgr_check_tensor(L, st, 2), path);
    if (s != GR_OK) return lgr_failed(L, st, s);
    lua_pushboolean(L, 1);
    return 1;
}

static int data_idx(lua_State *L) { return data_read(L, gr_idx_read); }
static int data_csv(lua_State *L) { return data_read(L, gr_csv_read); }
static int data_npy(lua_State *L) { return data_read(L, gr_npy_read); }
static int data_write_csv(lua_State *L) { return data_write(L, gr_csv_write); }
static int data_write_npy(lua_State *L) { return data_write(L, gr_npy_write); }

/* ---- several by name -------------------------------------------------------------------------------------- */

/* gr.data.npz(path) -> {name = tensor, ...} */
static int data_npz(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    const char *path = lgr_check_path(L, 1), *name;
    gr_dict *d;
    lgr_pressure(L, st);
    lgr_box *held = lgr_new_box(L, st, LGR_DICT);
    gr_status s = gr_npz_read(st->ctx, path, &d);
    if (s != GR_OK && lgr_retry(L, st, s)) s = gr_npz_read(st->ctx, path, &d);
    if (s != GR_OK) return lgr_failed(L, st, s);
    held->object = d;
    lua_newtable(L);
    for (int i = 0; i < gr_dict_count(d); i++) {
        gr_tensor *t = gr_dict_at_peek(d, i, &name);
        lgr_push_tensor(L, st, gr_retain(t));
        lua_setfield(L, -2, name);
    }
    return 1;
}

/* gr.data.write_npz(path, {name = tensor, ...}) -> true */
static int data_write_npz(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    const char *path = lgr_check_path(L, 1);
    gr_dict *d;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lgr_box *held = lgr_new_box(L, st, LGR_DICT);
    if (gr_dict_new(st->ctx, &d) != GR_OK) return lgr_raise(L, st);
    held->object = d;
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            return luaL_error(L, "write_npz: a name is %s, expected a string", lgr_push_shown(L, -2));
        if (strlen(lua_tostring(L, -2)) != lua_rawlen(L, -2))
            return luaL_error(L, "write_npz: the name '%s...' has a zero byte in it", lua_tostring(L, -2));
        gr_tensor *t = lgr_to_tensor(L, st, -1);
        if (!t)
            return luaL_error(L, "write_npz: %s is %s, expected a tensor", lua_tostring(L, -2), lgr_push_shown(L, -1));
        if (gr_dict_set(d, lua_tostring(L, -2), t) != GR_OK) return lgr_raise(L, st);
    }
    gr_status s = gr_npz_write(d, path);
    if (s != GR_OK) return lgr_failed(L, st, s);
    lua_pushboolean(L, 1);
    return 1;
}

static const luaL_Reg data_functions[] = {
    {"idx", data_idx}, {"csv", data_csv}, {"npy", data_npy}, {"npz", data_npz}, {"write_csv", data_write_csv},
    {"write_npy", data_write_npy}, {"write_npz", data_write_npz}, {0}};

void lgr_open_data(lua_State *L, lgr_state *st) {
    lua_newtable(L);
    lgr_set_functions(L, st, data_functions);
    lua_setfield(L, -2, "data");
}
