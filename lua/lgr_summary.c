/* print(model): a table of layers, their parameters' shapes and counts. */
#include "lgr.h"

static int summary_columns(const char *s) { /* UTF-8: continuation bytes take no column */
    int n = 0;
    for (; *s; s++) n += (*s & 0xC0) != 0x80;
    return n;
}

/* One row on the Lua stack: name, what, parameters, count; appended to the table at rows. */
static int64_t summary_row(lua_State *L, int rows, gr_layer *l, const char *name, int depth) {
    char about[160];
    int64_t count = 0;
    const char *member;
    luaL_checkstack(L, 10, "layers are nested too deeply");
    lua_createtable(L, 4, 0);
    int row = lua_gettop(L);
    lua_pushfstring(L, "%s", name);
    for (int d = 0; d < depth; d++) {
        lua_pushliteral(L, "  ");
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    lua_rawseti(L, row, 1);
    int n = gr_layer_describe(l, about, sizeof about);
    lua_pushfstring(L, n > 0 ? "%s %s" : "%s", gr_layer_type_peek(l), about);
    lua_rawseti(L, row, 2);
    lua_pushliteral(L, "");
    for (int i = 0; i < gr_layer_params(l); i++) {
        gr_tensor *t = gr_layer_param_peek(l, i, &member);
        lua_pushfstring(L, "%s%s[", i ? " " : "", member);
        for (int d = 0; d < gr_tensor_rank(t); d++) {
            lua_pushfstring(L, "%s%I", d ? "×" : "", (LUAI_UACINT)gr_tensor_dims_peek(t)[d]);
            lua_concat(L, 2);
        }
        lua_pushliteral(L, "]");
        lua_concat(L, 3);
        count += gr_tensor_numel(t);
    }
    lua_rawseti(L, row, 3);
    if (count) lua_pushinteger(L, count);
    else lua_pushliteral(L, "");
    lua_rawseti(L, row, 4);
    lua_rawseti(L, rows, (lua_Integer)lua_rawlen(L, rows) + 1);
    for (int i = 0; i < gr_layer_children(l); i++) {
        gr_layer *c = gr_layer_child_peek(l, i, &member);
        count += summary_row(L, rows, c, member, depth + 1);
    }
    return count;
}

/* Pads the cell on top of the stack to width: on the right, or (numbers) on the left. */
static void summary_pad(lua_State *L, int width, bool left) {
    int pad = width - summary_columns(lua_tostring(L, -1));
    if (pad <= 0) return;
    lua_pushfstring(L, "%s", "");
    for (int k = 0; k < pad; k++) {
        lua_pushliteral(L, " ");
        lua_concat(L, 2);
    }
    if (left) lua_insert(L, -2);
    lua_concat(L, 2);
}

int lgr_layer_tostring(lua_State *L) {
    lgr_box *b = lgr_check_box(L, lgr_upstate(L), 1, LGR_LAYER);
    int width[4] = {0};
    if (!b->object) return lua_pushliteral(L, "layer (closed)"), 1;
    lua_settop(L, 1);
    lua_newtable(L);
    const char *path = gr_layer_path_peek(b->object);
    int64_t total = summary_row(L, 2, b->object, *path ? path : "(model)", 0);
    lua_Integer n = (lua_Integer)lua_rawlen(L, 2);
    for (lua_Integer r = 1; r <= n; r++) {
        lua_rawgeti(L, 2, r);
        for (int c = 0; c < 4; c++) {
            lua_rawgeti(L, 3, c + 1);
            int w = summary_columns(luaL_tolstring(L, -1, NULL));
            if (w > width[c]) width[c] = w;
            lua_settop(L, 3);
        }
        lua_settop(L, 2);
    }
    luaL_Buffer text;
    luaL_buffinit(L, &text);
    for (lua_Integer r = 1; r <= n; r++) {
        lua_rawgeti(L, 2, r);
        int cells = 4;
        for (; cells > 2; cells--) { /* nothing behind the last word */
            lua_rawgeti(L, -1, cells);
            bool empty = summary_columns(lua_tostring(L, -1)) == 0;
            lua_pop(L, 1);
            if (!empty) break;
        }
        for (int c = 1; c <= cells; c++) {
            lua_rawgeti(L, -1, c);
            if (c < cells || c == 4) summary_pad(L, width[c - 1] + (c < cells ? 2 : 0), c == 4);
            lua_insert(L, -2); /* the row stays above, the cells gather below */
        }
        lua_pop(L, 1);
        lua_concat(L, cells);
        luaL_addvalue(&text);
        luaL_addchar(&text, '\n');
    }
    lua_pushfstring(L, "%I parameters", (LUAI_UACINT)total);
    luaL_addvalue(&text);
    luaL_pushresult(&text);
    return 1;
}
