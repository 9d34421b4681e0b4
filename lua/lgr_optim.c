/* Optimizers: constructors from the descriptors, hyper-parameters as fields. */
#include <string.h>

#include "lgr.h"

#define OPTIM_ATTRS 32 /* 64-bit words of an attribute struct */

#define OPTIM_GROUP "gradrun.Group" /* opt.groups[i]: payload i - 1; user value 1 the optimizer */

static const gr_info *optim_info(int i) { return gr_optim_kind_info(gr_optim_kind_at(i)); }

/* The kind is found by the optimizer's own address in its userdata's user value: {kind index}. */
static const gr_info *optim_schema(lua_State *L, int box) {
    lgr_push_keep(L, box);
    lua_getfield(L, -1, "kind");
    int k = (int)lua_tointeger(L, -1);
    lua_pop(L, 2);
    return optim_info(k);
}

/* ---- schedules: hyper-parameters that are functions ------------------------------------------------------- */

static bool optim_callable(lua_State *L, int value) {
    if (lua_isfunction(L, value)) return true;
    if (luaL_getmetafield(L, value, "__call") == LUA_TNIL) return false;
    lua_pop(L, 1);
    return true;
}

/* The optimizer's user value holds them: schedules[group][name]. */
static void optim_set_schedule(lua_State *L, int box, int g, const char *name, int value) {
    lgr_push_keep(L, box);
    luaL_getsubtable(L, -1, "schedules");
    if (lua_rawgeti(L, -1, g + 1) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, g + 1);
    }
    if (value) lua_pushvalue(L, value);
    else lua_pushnil(L);
    lua_setfield(L, -2, name);
    lua_pop(L, 3);
}

/* group[name] = the value at index 3: a number, or a schedule that says it before every step. */
static void optim_set(lua_State *L, lgr_state *st, int box, gr_optim *o, int g, const gr_attr *a, const char *owner) {
    bool scheduled = a->kind == GR_ATTR_REAL && optim_callable(L, 3);
    if (!scheduled) lgr_read_attr(L, st, a, 3, gr_optim_attrs_peek(o, g), owner);
    optim_set_schedule(L, box, g, a->name, scheduled ? 3 : 0);
}

/* The schedules among a table's values become group g's; a number there ends what was inherited. */
static void optim_take_schedules(lua_State *L, int box, int g, const gr_info *info, int options) {
    lua_pushnil(L);
    while (lua_next(L, options)) {
        const gr_attr *a = lua_type(L, -2) == LUA_TSTRING ? lgr_find_attr(info, lua_tostring(L, -2)) : NULL;
        if (a) optim_set_schedule(L, box, g, a->name, optim_callable(L, lua_gettop(L)) ? lua_gettop(L) : 0);
        lua_pop(L, 1);
    }
}

/* Replaces the table at the index by a copy without the schedules of numbers. */
static void optim_drop_schedules(lua_State *L, const gr_info *info, int options) {
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, options)) {
        const gr_attr *a = lua_type(L, -2) == LUA_TSTRING ? lgr_find_attr(info, lua_tostring(L, -2)) : NULL;
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        if (a && a->kind == GR_ATTR_REAL && optim_callable(L, lua_gettop(L))) lua_pop(L, 2);
        else lua_rawset(L, -4);
    }
    lua_replace(L, options);
}

/* group[name] = schedule(step, {optimizer =, group =, name =, value = what it was}); the schedule is on top, and
 * goes; the optimizer is at 1. */
static void optim_run_schedule(lua_State *L, lgr_state *st, gr_optim *o, const gr_info *info, int g,
                               const gr_attr *a) {
    lua_pushinteger(L, gr_optim_steps(o) + 1);
    lua_createtable(L, 0, 4);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "optimizer");
    lua_pushinteger(L, g + 1);
    lua_setfield(L, -2, "group");
    lua_pushstring(L, a->name);
    lua_setfield(L, -2, "name");
    lgr_push_attr(L, a, gr_optim_attrs_peek(o, g));
    lua_setfield(L, -2, "value");
    lua_call(L, 2, 1);
    lgr_check(L, st, 1, LGR_OPTIM); /* still there? */
    if (!lua_isnumber(L, -1))
        luaL_error(L, "%s: the schedule of %s in group %d gave a %s, expected a number", info->name, a->name, g + 1,
                   luaL_typename(L, -1));
    lgr_read_attr(L, st, a, lua_gettop(L), gr_optim_attrs_peek(o, g), info->name);
    lua_pop(L, 1);
}

/* All of the optimizer at 1. */
static void optim_run_schedules(lua_State *L, lgr_state *st, gr_optim *o) {
    lgr_push_keep(L, 1);
    if (lua_getfield(L, -1, "schedules") == LUA_TTABLE) {
        const gr_info *info = optim_schema(L, 1);
        for (int g = 0; g < gr_optim_groups(o); g++) {
            bool any = lua_rawgeti(L, -1, g + 1) == LUA_TTABLE;
            for (const gr_attr *a = info->attrs; any && a->name; a++) {
                if (lua_getfield(L, -1, a->name) != LUA_TNIL) optim_run_schedule(L, st, o, info, g, a);
                else lua_pop(L, 1);
            }
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 2);
}

/* opt:schedules() -> {{group =, name =, schedule =}, …}, in the order they are asked in */
static int optim_schedules(lua_State *L) {
    gr_optim *o = lgr_check(L, lgr_upstate(L), 1, LGR_OPTIM);
    const gr_info *info = optim_schema(L, 1);
    lua_newtable(L); /* at 2, if nothing was given */
    int list = lua_gettop(L);
    lgr_push_keep(L, 1);
    if (lua_getfield(L, -1, "schedules") != LUA_TTABLE) return lua_pushvalue(L, list), 1;
    for (int g = 0; g < gr_optim_groups(o); g++) {
        bool any = lua_rawgeti(L, list + 2, g + 1) == LUA_TTABLE;
        for (const gr_attr *a = info->attrs; any && a->name; a++) {
            lua_createtable(L, 0, 3);
            if (lua_getfield(L, -2, a->name) != LUA_TNIL) {
                lua_setfield(L, -2, "schedule");
                lua_pushinteger(L, g + 1);
                lua_setfield(L, -2, "group");
                lua_pushstring(L, a->name);
                lua_setfield(L, -2, "name");
                lua_pushvalue(L, -1);
                lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
            } else {
                lua_pop(L, 1);
            }
            lua_pop(L, 1);
        }
        lua_settop(L, list + 2);
    }
    lua_settop(L, list);
    return 1;
}

/* ---- constructing --------------------------------------------------------------------------------------- */

/* One group: the parameters at index params, hyper-parameters already read. */
static void optim_add(lua_State *L, lgr_state *st, gr_optim *o, int params, const void *attrs) {
    int n;
    gr_tensor **list = lgr_check_list(L, st, params, &n);
    if (gr_optim_add_group(o, n, list, attrs) != GR_OK) lgr_raise(L, st);
    lua_pop(L, 1);
}

/* {params = {...}, lr = ...}: over the defaults at `defaults`. */
static void optim_add_group(lua_State *L, lgr_state *st, int box, gr_optim *o, const gr_info *info, int group,
                            const void *defaults) {
    uint64_t attrs[OPTIM_ATTRS];
    memcpy(attrs, defaults, info->attr_size);
    lua_pushnil(L);
    while (lua_next(L, group)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        const gr_attr *a = lgr_find_attr(info, key);
        bool scheduled = a && a->kind == GR_ATTR_REAL && optim_callable(L, lua_gettop(L));
        if (!scheduled && !lgr_read_option(L, st, info, key, attrs) && strcmp(key, "params") != 0)
            lgr_unknown(L, info->name, "option of a group", key, "params lr weight_decay");
        lua_pop(L, 1);
    }
    lua_pushliteral(L, "params");
    if (lua_rawget(L, group) != LUA_TTABLE) luaL_error(L, "%s: a group has no params", info->name);
    optim_add(L, st, o, lua_gettop(L), attrs);
    lua_pop(L, 1);
    optim_take_schedules(L, box, gr_optim_groups(o) - 1, info, group);
}

/* optim.NAME(parameters or groups, options): upvalue 2 is the kind's position. */
static int optim_construct(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    int k = (int)lua_tointeger(L, lua_upvalueindex(2));
    const gr_info *info = optim_info(k);
    uint64_t attrs[OPTIM_ATTRS];
    gr_optim *o;
    lgr_check_parameters(L, st, 1);
    bool options = lua_istable(L, 2);
    lua_pushvalue(L, options ? 2 : 1);
    lua_insert(L, 2); /* the options as given, for their schedules */
    if (options) optim_drop_schedules(L, info, 3);
    lgr_read_attrs(L, st, info, 3, attrs, NULL);
    lua_settop(L, 2);
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_OPTIM); /* at 3 */
    if (gr_optim_new(st->ctx, gr_optim_kind_at(k), &o) != GR_OK) return lgr_raise(L, st);
    b->object = o;
    lgr_set_same(L, 3, o);
    lgr_push_keep(L, 3);
    lua_pushinteger(L, k);
    lua_setfield(L, -2, "kind");
    lua_pushvalue(L, 1); /* the parameters' userdata, and so their hooks, live as long */
    lua_setfield(L, -2, "params");
    lua_settop(L, 3);
    bool grouped = lua_rawgeti(L, 1, 1) == LUA_TTABLE;
    lua_pop(L, 1);
    if (!grouped) {
        optim_add(L, st, o, 1, attrs);
        if (options) optim_take_schedules(L, 3, 0, info, 2);
    }
    for (lua_Integer g = 1; grouped && lua_rawgeti(L, 1, g) == LUA_TTABLE; g++) {
        if (options) optim_take_schedules(L, 3, (int)g - 1, info, 2);
        optim_add_group(L, st, 3, o, info, lua_gettop(L), attrs);
        lua_pop(L, 1);
    }
    lua_settop(L, 3);
    return 1;
}

/* opt:add_group{params = {...}, lr = ...} */
static int optim_method_add_group(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_optim *o = lgr_check(L, st, 1, LGR_OPTIM);
    const gr_info *info = optim_schema(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    optim_add_group(L, st, 1, o, info, 2, gr_optim_attrs_peek(o, 0));
    lgr_push_keep(L, 1);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    return 0;
}

/* ---- stepping ------------------------------------------------------------------------------------------- */

static int optim_step(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_optim *o = lgr_check(L, st, 1, LGR_OPTIM);
    optim_run_schedules(L, st, o);
    lgr_pressure(L, st);
    gr_status s = gr_optim_step(o);
    if (s != GR_OK && lgr_retry(L, st, s)) s = gr_optim_step(o);
    st->L = L;
    return s == GR_OK ? 0 : lgr_raise(L, st);
}

static int optim_zero_grad(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    return gr_optim_zero_grad(lgr_check(L, st, 1, LGR_OPTIM)) == GR_OK ? 0 : lgr_raise(L, st);
}

static int optim_steps(lua_State *L) {
    lua_pushinteger(L, gr_optim_steps(lgr_check(L, lgr_upstate(L), 1, LGR_OPTIM)));
    return 1;
}

/* opt:state(param) -> {exp_avg = tensor, ...} */
static int optim_state(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_optim *o = lgr_check(L, st, 1, LGR_OPTIM);
    gr_tensor *p = lgr_check_tensor(L, st, 2), *t;
    const char *name;
    lua_newtable(L);
    for (int i = 0; (t = gr_optim_state_peek(o, p, i, &name)); i++) {
        lgr_push_tensor(L, st, gr_retain(t));
        lua_setfield(L, -2, name);
    }
    return 1;
}

/* ---- hyper-parameters as fields ------------------------------------------------------------------------- */

static void optim_push_group(lua_State *L, int box, int g) {
    box = lua_absindex(L, box);
    int *group = lua_newuserdatauv(L, sizeof *group, 1);
    *group = g;
    lua_pushvalue(L, box);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, OPTIM_GROUP);
}

/* The group at 1, its optimizer pushed. */
static gr_optim *optim_check_group(lua_State *L, int *group) {
    *group = *(int *)luaL_checkudata(L, 1, OPTIM_GROUP);
    lua_getiuservalue(L, 1, 1);
    gr_optim *o = ((lgr_box *)lua_touserdata(L, -1))->object;
    if (!o) luaL_error(L, "the optimizer of group %d was closed", *group + 1);
    return o;
}

static int optim_group_index(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    int g;
    const char *key = luaL_checkstring(L, 2);
    gr_optim *o = optim_check_group(L, &g);
    const gr_info *info = optim_schema(L, -1);
    const gr_attr *a = lgr_find_attr(info, key);
    if (a) return lgr_push_attr(L, a, gr_optim_attrs_peek(o, g)), 1;
    if (strcmp(key, "params") != 0)
        return lgr_unknown(L, info->name, "hyper-parameter", key, "params lr weight_decay");
    int n = gr_optim_params(o, g);
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lgr_push_same(L, st, LGR_TENSOR, gr_optim_param_peek(o, g, i));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int optim_group_newindex(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    int g;
    const char *key = luaL_checkstring(L, 2);
    lua_settop(L, 3);
    gr_optim *o = optim_check_group(L, &g); /* at 4 */
    const gr_info *info = optim_schema(L, 4);
    const gr_attr *a = lgr_find_attr(info, key);
    if (!a) return lgr_unknown(L, info->name, "hyper-parameter", key, "lr weight_decay");
    optim_set(L, st, 4, o, g, a, info->name);
    return 0;
}

/* opt.lr is group 1's; opt.groups are all of them. */
static int optim_index(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_optim *o = lgr_check(L, st, 1, LGR_OPTIM);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
    const char *key = luaL_checkstring(L, 2);
    const gr_info *info = optim_schema(L, 1);
    const gr_attr *a = lgr_find_attr(info, key);
    if (a && gr_optim_groups(o) > 0) return lgr_push_attr(L, a, gr_optim_attrs_peek(o, 0)), 1;
    if (strcmp(key, "groups") != 0)
        return lgr_unknown_field(L, info->name, key, "groups lr weight_decay", lua_upvalueindex(2));
    lua_newtable(L);
    for (int g = 0; g < gr_optim_groups(o); g++) {
        optim_push_group(L, 1, g);
        lua_rawseti(L, -2, g + 1);
    }
    return 1;
}

/* opt.lr = x sets every group's. */
static int optim_newindex(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_optim *o = lgr_check(L, st, 1, LGR_OPTIM);
    const char *key = luaL_checkstring(L, 2);
    const gr_info *info = optim_schema(L, 1);
    const gr_attr *a = lgr_find_attr(info, key);
    if (!a) return lgr_unknown(L, info->name, "hyper-parameter", key, "lr weight_decay");
    for (int g = 0; g < gr_optim_groups(o); g++) optim_set(L, st, 1, o, g, a, info->name);
    return 0;
}

/* "4 parameters, lr 0.1, momentum 0.9" */
static void optim_add_text(lua_State *L, luaL_Buffer *b, gr_optim *o, const gr_info *info, int g) {
    lua_pushfstring(L, "%d parameters", gr_optim_params(o, g));
    luaL_addvalue(b);
    for (const gr_attr *a = info->attrs; a && a->name; a++) {
        lgr_push_attr(L, a, gr_optim_attrs_peek(o, g));
        lua_pushfstring(L, ", %s %s", a->name, luaL_tolstring(L, -1, NULL));
        lua_replace(L, -3);
        lua_pop(L, 1);
        luaL_addvalue(b);
    }
}

static int optim_group_tostring(lua_State *L) {
    int g = *(const int *)luaL_checkudata(L, 1, OPTIM_GROUP);
    luaL_Buffer b;
    lua_getiuservalue(L, 1, 1);
    gr_optim *o = ((const lgr_box *)lua_touserdata(L, -1))->object;
    if (!o) return lua_pushliteral(L, "group (closed)"), 1;
    const gr_info *info = optim_schema(L, -1);
    luaL_buffinit(L, &b);
    optim_add_text(L, &b, o, info, g);
    luaL_pushresult(&b);
    return 1;
}

static int optim_tostring(lua_State *L) {
    gr_optim *o = lgr_check_box(L, lgr_upstate(L), 1, LGR_OPTIM)->object;
    if (!o) return lua_pushliteral(L, "optimizer (closed)"), 1;
    const gr_info *info = optim_schema(L, 1);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addstring(&b, info->name);
    for (int g = 0; g < gr_optim_groups(o); g++) {
        luaL_addstring(&b, g ? "; " : ": ");
        optim_add_text(L, &b, o, info, g);
    }
    luaL_pushresult(&b);
    return 1;
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static const luaL_Reg optim_meta[] = {{"__index", optim_index}, {"__newindex", optim_newindex},
                                      {"__tostring", optim_tostring}, {0}};
static const luaL_Reg optim_methods[] = {{"step", optim_step}, {"zero_grad", optim_zero_grad}, {"steps", optim_steps},
                                         {"schedules", optim_schedules},
                                         {"state", optim_state}, {"add_group", optim_method_add_group},
                                         {"state_dict", lgr_state_dict}, {"load_state_dict", lgr_load_state_dict}, {0}};
static const luaL_Reg optim_group_meta[] = {
    {"__index", optim_group_index}, {"__newindex", optim_group_newindex}, {"__tostring", optim_group_tostring}, {0}};

void lgr_open_optim(lua_State *L, lgr_state *st) {
    luaL_newmetatable(L, OPTIM_GROUP);
    lgr_set_functions(L, st, optim_group_meta);
    lua_pop(L, 1);
    lgr_type_new(L, st, LGR_OPTIM, optim_meta, optim_methods);
    lua_newtable(L);
    for (int i = 0; i < gr_optim_kind_count(); i++) {
        lua_pushlightuserdata(L, st);
        lua_pushinteger(L, i);
        lua_pushcclosure(L, optim_construct, 2);
        lua_setfield(L, -2, optim_info(i)->name);
    }
    lua_setfield(L, -2, "optim");
}
