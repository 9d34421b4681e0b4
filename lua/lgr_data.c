/* Data files: environment failures return nil and a message, as io.open does. */
#include "lgr.h"

static int data_read(lua_State *L, gr_status (*read)(gr_ctx *, const char *, gr_tensor **)) {
    lgr_state *st = lgr_upstate(L);
    const char *path = luaL_checkstring(L, 1);
    gr_tensor *t;
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_TENSOR);
    gr_status s = read(st->ctx, path, &t);
    if (s != GR_OK && lgr_retry(L, st, s)) s = read(st->ctx, path, &t);
    if (s == GR_ERR_IO || s == GR_ERR_FORMAT) {
        lua_pushnil(L);
        lua_pushstring(L, gr_errmsg(st->ctx));
        gr_clear_error(st->ctx);
        return 2;
    }
    if (s != GR_OK) return lgr_raise(L, st);
    b->object = t;
    return 1;
}

static int data_idx(lua_State *L) { return data_read(L, gr_idx_read); }
static int data_csv(lua_State *L) { return data_read(L, gr_csv_read); }

static const luaL_Reg data_functions[] = {{"idx", data_idx}, {"csv", data_csv}, {0}};

void lgr_open_data(lua_State *L, lgr_state *st) {
    lua_newtable(L);
    lgr_set_functions(L, st, data_functions);
    lua_setfield(L, -2, "data");
}
