/* Clips: gr.clip.NAME_, functions of parameters that change their gradients, from the descriptors. */
#include <string.h>

#include "lgr.h"

#define CLIP_ATTRS 32 /* 64-bit words of an attribute struct */

/* gr.clip.NAME_(parameters, options) -> the norm before, a report */
static int clip_call(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    const gr_clip_kind *k = lua_touserdata(L, lua_upvalueindex(2));
    const gr_info *info = gr_clip_kind_info(k);
    uint64_t attrs[CLIP_ATTRS];
    gr_tensor *one, **list = &one;
    gr_clip_report r = {0};
    int n = 1;
    lgr_read_attrs(L, st, info, 2, attrs, NULL);
    if (lgr_to_box(L, st, 1, LGR_TENSOR)) one = lgr_check_tensor(L, st, 1);
    else list = lgr_check_list(L, st, 1, &n);
    if (gr_clip(st->ctx, k, n, list, attrs, &r) != GR_OK) return lgr_raise(L, st);
    lua_pushnumber(L, r.norm);
    lua_createtable(L, 0, 4);
    lua_pushnumber(L, r.norm);
    lua_setfield(L, -2, "norm");
    lua_pushnumber(L, r.norm_after);
    lua_setfield(L, -2, "norm_after");
    lua_pushinteger(L, r.clipped);
    lua_setfield(L, -2, "clipped");
    lua_pushinteger(L, r.tensors);
    lua_setfield(L, -2, "tensors");
    return 2;
}

/* Those that change nothing have no underscore. */
void lgr_open_clip(lua_State *L, lgr_state *st) {
    lua_newtable(L);
    for (int i = 0; i < gr_clip_kind_count(); i++) {
        const gr_clip_kind *k = gr_clip_kind_at(i);
        const char *name = gr_clip_kind_info(k)->name;
        lua_pushfstring(L, strcmp(name, "measure") == 0 ? "%s" : "%s_", name);
        lua_pushlightuserdata(L, st);
        lua_pushlightuserdata(L, (void *)k);
        lua_pushcclosure(L, clip_call, 2);
        lua_rawset(L, -3);
    }
    lua_setfield(L, -2, "clip");
}
