/* Tensors: making them from Lua values, reading them back, properties, methods. */
#include <math.h>
#include <string.h>

#include "lgr.h"

/* ---- options all constructors share ---------------------------------------------------------------------- */

typedef struct tensor_options {
    bool has_dtype, requires_grad;
    gr_dtype dtype;
} tensor_options;

/* {dtype = "f64", requires_grad = true} at i, or nothing. */
static tensor_options tensor_read_options(lua_State *L, lgr_state *st, int i, const char *who) {
    tensor_options o = {.dtype = gr_default_dtype(st->ctx)};
    if (lua_isnoneornil(L, i)) return o;
    if (lua_type(L, i) == LUA_TSTRING) { /* gr.zeros({2, 3}, "f64") */
        o.has_dtype = true;
        o.dtype = lgr_check_dtype(L, i);
        return o;
    }
    luaL_checktype(L, i, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, i)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(key, "dtype") == 0) {
            o.has_dtype = true;
            o.dtype = lgr_check_dtype(L, -1);
        } else if (strcmp(key, "requires_grad") == 0) {
            o.requires_grad = lua_toboolean(L, -1);
        } else {
            lgr_unknown(L, who, "option", key, "dtype requires_grad");
        }
        lua_pop(L, 1);
    }
    return o;
}

static int tensor_finish(lua_State *L, lgr_state *st, gr_status s, const tensor_options *o) {
    lgr_box *b = lua_touserdata(L, -1);
    if (s == GR_OK && o->requires_grad) s = gr_tensor_set_requires_grad(b->object, true);
    return s == GR_OK ? 1 : lgr_raise(L, st);
}

/* ---- from tables ---------------------------------------------------------------------------------------- */

/* The shape of a nested table, from its first entries. */
static int tensor_table_shape(lua_State *L, int i, int64_t *dims) {
    int rank = 0, top = lua_gettop(L);
    lua_pushvalue(L, i);
    while (lua_istable(L, -1)) {
        if (rank == GR_MAX_RANK) luaL_error(L, "tensor: the table is nested deeper than %d", GR_MAX_RANK);
        dims[rank++] = (int64_t)lua_rawlen(L, -1);
        if (dims[rank - 1] == 0) break;
        lua_rawgeti(L, -1, 1);
    }
    lua_settop(L, top);
    return rank;
}

static void tensor_path(lua_State *L, int depth, const int64_t *at) {
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (int d = 0; d < depth; d++) {
        lua_pushfstring(L, "[%d]", (int)at[d] + 1);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
}

/* One number as the tensor will hold it: whole ones exactly, others as doubles. */
typedef union tensor_value { double real; int64_t whole; } tensor_value;

static void tensor_put(lua_State *L, gr_dtype t, tensor_value *v) {
    double d = lua_isboolean(L, -1) ? lua_toboolean(L, -1) : lua_tonumber(L, -1);
    int ok = 1;
    if (t <= GR_F64) {
        v->real = d;
        return;
    }
    v->whole = lua_isboolean(L, -1) ? lua_toboolean(L, -1) : lua_tointegerx(L, -1, &ok);
    if (!ok || (t == GR_U8 && (v->whole < 0 || v->whole > 255)))
        luaL_error(L, "tensor: %s is not a value of dtype %s", lgr_push_shown(L, -1), gr_dtype_name(t));
}

/* Checks the table at the top against dims and writes it out. */
static void tensor_walk(lua_State *L, gr_dtype t, int rank, const int64_t *dims, int depth, int64_t *at,
                        tensor_value **data) {
    if (depth == rank) {
        if (lua_type(L, -1) == LUA_TNUMBER || lua_isboolean(L, -1)) {
            tensor_put(L, t, (*data)++);
            return;
        }
        tensor_path(L, depth, at);
        luaL_error(L, "tensor: entry %s is a %s, expected a number", lua_tostring(L, -1), luaL_typename(L, -2));
    }
    if (!lua_istable(L, -1) || (int64_t)lua_rawlen(L, -1) != dims[depth]) {
        tensor_path(L, depth, at);
        luaL_error(L, "tensor: entry %s has %d entries, but its neighbours have %d: the table is ragged",
                   lua_tostring(L, -1), lua_istable(L, -2) ? (int)lua_rawlen(L, -2) : 0, (int)dims[depth]);
    }
    luaL_checkstack(L, 4, "nested table");
    for (int64_t k = 0; k < dims[depth]; k++) {
        at[depth] = k;
        lua_rawgeti(L, -1, k + 1);
        tensor_walk(L, t, rank, dims, depth + 1, at, data);
        lua_pop(L, 1);
    }
}

/* gr.tensor(table or number or tensor, options) */
static int tensor_new(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    int64_t dims[GR_MAX_RANK], at[GR_MAX_RANK], n = 1;
    tensor_options o = tensor_read_options(L, st, 2, "tensor");
    lua_settop(L, 1);
    if (!lua_istable(L, 1) && !lua_isnumber(L, 1) && !lua_isboolean(L, 1))
        return luaL_error(L, "tensor: %s, expected a number or a table of numbers", luaL_typename(L, 1));
    int rank = tensor_table_shape(L, 1, dims);
    for (int d = 0; d < rank; d++) n *= dims[d];
    tensor_value *values = lua_newuserdatauv(L, (size_t)(n ? n : 1) * sizeof *values, 0), *p = values;
    lua_pushvalue(L, 1);
    tensor_walk(L, o.dtype, rank, dims, 0, at, &p);
    lua_pop(L, 1);
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_TENSOR);
    gr_tensor *source = NULL, *t = NULL;
    gr_status s =
        gr_tensor_borrow(st->ctx, o.dtype <= GR_F64 ? GR_F64 : GR_I64, rank, dims, NULL, values, NULL, NULL, &source);
    if (s == GR_OK) s = gr_tensor_empty(st->ctx, o.dtype, rank, dims, &t);
    if (s == GR_OK) s = gr_tensor_copy(t, source);
    gr_release(source);
    if (s == GR_OK) b->object = t;
    else gr_release(t);
    return tensor_finish(L, st, s, &o);
}

/* gr.zeros(2, 3), gr.zeros({2, 3}, options) */
static int tensor_read_shape(lua_State *L, const char *who, int64_t *dims, int *next) {
    int rank = 0;
    *next = 1;
    if (lua_istable(L, 1)) {
        rank = (int)lua_rawlen(L, 1);
        if (rank > GR_MAX_RANK) luaL_error(L, "%s: %d sizes, at most %d are possible", who, rank, GR_MAX_RANK);
        for (int d = 0; d < rank; d++) {
            int ok;
            lua_rawgeti(L, 1, d + 1);
            dims[d] = lua_tointegerx(L, -1, &ok);
            if (!ok) luaL_error(L, "%s: size %d is a %s, expected a whole number", who, d + 1, luaL_typename(L, -1));
            lua_pop(L, 1);
        }
        *next = 2;
        return rank;
    }
    while (lua_isinteger(L, *next) && rank < GR_MAX_RANK) dims[rank++] = lua_tointeger(L, (*next)++);
    return rank;
}

static int tensor_constant(lua_State *L, const char *who, double value, bool reads_value) {
    lgr_state *st = lgr_upstate(L);
    int64_t dims[GR_MAX_RANK];
    int next, rank = tensor_read_shape(L, who, dims, &next);
    if (reads_value) value = luaL_checknumber(L, next++);
    tensor_options o = tensor_read_options(L, st, next, who);
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_TENSOR);
    gr_tensor *t;
    gr_status s = gr_tensor_new(st->ctx, o.dtype, rank, dims, &t);
    if (s != GR_OK && lgr_retry(L, st, s)) s = gr_tensor_new(st->ctx, o.dtype, rank, dims, &t);
    if (s != GR_OK) gr_fail_within(st->ctx, "%s", who);
    if (s == GR_OK) b->object = t;
    if (s == GR_OK && value != 0) s = gr_tensor_fill(t, value);
    return tensor_finish(L, st, s, &o);
}

static int tensor_zeros(lua_State *L) { return tensor_constant(L, "zeros", 0, false); }
static int tensor_ones(lua_State *L) { return tensor_constant(L, "ones", 1, false); }
static int tensor_full(lua_State *L) { return tensor_constant(L, "full", 0, true); }

/* ---- to Lua --------------------------------------------------------------------------------------------- */

static void tensor_push_element(lua_State *L, const gr_tensor *t, const void *p) {
    switch (gr_tensor_dtype(t)) {
    case GR_F32: lua_pushnumber(L, (lua_Number) * (const float *)p); break;
    case GR_F64: lua_pushnumber(L, *(const double *)p); break;
    case GR_I64: lua_pushinteger(L, *(const int64_t *)p); break;
    default: lua_pushinteger(L, *(const uint8_t *)p); break;
    }
}

static int tensor_item(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_tensor *t = lgr_check_tensor(L, st, 1);
    double v;
    if (gr_tensor_item(t, &v) != GR_OK) return lgr_raise(L, st);
    tensor_push_element(L, t, gr_tensor_data_peek(t));
    return 1;
}

static void tensor_push_dim(lua_State *L, const gr_tensor *t, int depth, int64_t *at) {
    if (depth == gr_tensor_rank(t)) {
        int64_t offset = 0;
        for (int d = 0; d < depth; d++) offset += at[d] * gr_tensor_strides_peek(t)[d];
        tensor_push_element(
            L, t, (const char *)gr_tensor_data_peek(t) + offset * (int64_t)gr_dtype_size(gr_tensor_dtype(t)));
        return;
    }
    int64_t n = gr_tensor_dims_peek(t)[depth];
    luaL_checkstack(L, 3, "nested table");
    lua_createtable(L, n < 1 << 24 ? (int)n : 0, 0);
    for (int64_t k = 0; k < n; k++) {
        at[depth] = k;
        tensor_push_dim(L, t, depth + 1, at);
        lua_rawseti(L, -2, k + 1);
    }
}

static int tensor_totable(lua_State *L) {
    int64_t at[GR_MAX_RANK] = {0};
    tensor_push_dim(L, lgr_check_tensor(L, lgr_upstate(L), 1), 0, at);
    return 1;
}

static void tensor_push_shape(lua_State *L, const gr_tensor *t) {
    int rank = gr_tensor_rank(t);
    lua_createtable(L, rank, 0);
    for (int d = 0; d < rank; d++) {
        lua_pushinteger(L, gr_tensor_dims_peek(t)[d]);
        lua_rawseti(L, -2, d + 1);
    }
    luaL_setmetatable(L, "gradrun.Shape");
}

/* Shapes print as 64×784 and compare by their sizes. */
static int tensor_shape_tostring(lua_State *L) {
    luaL_Buffer b;
    lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
    luaL_buffinit(L, &b);
    luaL_addchar(&b, '[');
    for (lua_Integer i = 1; i <= n; i++) {
        if (i > 1) luaL_addstring(&b, "×");
        lua_rawgeti(L, 1, i);
        luaL_addvalue(&b);
    }
    luaL_addchar(&b, ']');
    luaL_pushresult(&b);
    return 1;
}

static int tensor_shape_eq(lua_State *L) {
    lua_Unsigned n = lua_rawlen(L, 1);
    bool same = lua_istable(L, 1) && lua_istable(L, 2) && n == lua_rawlen(L, 2);
    for (lua_Unsigned i = 1; same && i <= n; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i);
        lua_rawgeti(L, 2, (lua_Integer)i);
        same = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
    }
    lua_pushboolean(L, same);
    return 1;
}

static int tensor_size(lua_State *L) {
    gr_tensor *t = lgr_check_tensor(L, lgr_upstate(L), 1);
    if (lua_isnoneornil(L, 2)) {
        tensor_push_shape(L, t);
        return 1;
    }
    int64_t d = lgr_check_dim(L, 2);
    int rank = gr_tensor_rank(t);
    if (d < 0) d += rank;
    luaL_argcheck(L, d >= 0 && d < rank, 2, "the tensor has fewer dimensions");
    lua_pushinteger(L, gr_tensor_dims_peek(t)[d]);
    return 1;
}

static int tensor_numel(lua_State *L) {
    lua_pushinteger(L, gr_tensor_numel(lgr_check_tensor(L, lgr_upstate(L), 1)));
    return 1;
}

static int tensor_dim(lua_State *L) {
    lua_pushinteger(L, gr_tensor_rank(lgr_check_tensor(L, lgr_upstate(L), 1)));
    return 1;
}

static int tensor_is_contiguous(lua_State *L) {
    lua_pushboolean(L, gr_tensor_contiguous(lgr_check_tensor(L, lgr_upstate(L), 1)));
    return 1;
}

static int tensor_len(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_tensor *t = lgr_check_tensor(L, st, 1);
    if (gr_tensor_rank(t) == 0) return luaL_error(L, "#: a scalar has no length");
    lua_pushinteger(L, gr_tensor_dims_peek(t)[0]);
    return 1;
}

/* ---- editing in place ----------------------------------------------------------------------------------- */

static int tensor_copy_(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    if (gr_tensor_copy(lgr_check_tensor(L, st, 1), lgr_check_tensor(L, st, 2)) != GR_OK) return lgr_raise(L, st);
    lua_settop(L, 1);
    return 1;
}

static int tensor_zero_(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    if (gr_tensor_fill(lgr_check_tensor(L, st, 1), 0) != GR_OK) return lgr_raise(L, st);
    lua_settop(L, 1);
    return 1;
}

gr_status lgr_new_integer(gr_ctx *ctx, lua_Integer value, gr_tensor **out) {
    gr_status s = gr_tensor_empty(ctx, GR_I64, 0, NULL, out);
    if (s == GR_OK) *(int64_t *)gr_tensor_data_peek(*out) = value;
    return s;
}

gr_status lgr_fill_tensor(lua_State *L, lgr_state *st, gr_tensor *t, int i) {
    gr_tensor *value;
    lua_Integer v = lua_tointeger(L, i), most = (lua_Integer)1 << 53; /* up to which a double holds every one */
    bool held = v >= -most && v <= most;
    if (held || gr_tensor_dtype(t) != GR_I64 || !lua_isinteger(L, i)) return gr_tensor_fill(t, lua_tonumber(L, i));
    gr_status s = lgr_new_integer(st->ctx, v, &value);
    if (s != GR_OK) return s;
    s = gr_tensor_copy(t, value);
    gr_release(value);
    return s;
}

static int tensor_fill_(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    luaL_checknumber(L, 2);
    if (lgr_fill_tensor(L, st, lgr_check_tensor(L, st, 1), 2) != GR_OK) return lgr_raise(L, st);
    lua_settop(L, 1);
    return 1;
}

/* ---- gradient state ------------------------------------------------------------------------------------- */

static int tensor_requires_grad_(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    bool on = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
    if (gr_tensor_set_requires_grad(lgr_check_tensor(L, st, 1), on) != GR_OK) return lgr_raise(L, st);
    lua_settop(L, 1);
    return 1;
}

static int tensor_retain_grad(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    if (gr_tensor_retain_grad(lgr_check_tensor(L, st, 1)) != GR_OK) return lgr_raise(L, st);
    lua_settop(L, 1);
    return 1;
}

static int tensor_detach(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_tensor *t = lgr_check_tensor(L, st, 1), *out;
    lgr_box *b = lgr_new_box(L, st, LGR_TENSOR);
    if (gr_tensor_detach(t, &out) != GR_OK) return lgr_raise(L, st);
    b->object = out;
    return 1;
}

static int tensor_is_leaf(lua_State *L) {
    lua_pushboolean(L, gr_tensor_is_leaf(lgr_check_tensor(L, lgr_upstate(L), 1)));
    return 1;
}

/* ---- properties ----------------------------------------------------------------------------------------- */

#define TENSOR_PROPERTIES "shape dtype rank requires_grad grad name"

/* Upvalue 2: the methods. Integers index; unknown names raise (t.shpae must not be nil). */
static int tensor_index(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    if (lua_type(L, 2) != LUA_TSTRING) {
        return lgr_tensor_index(L, st);
    }
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
    const char *key = lua_tostring(L, 2);
    gr_tensor *t = lgr_check_tensor(L, st, 1);
    if (strcmp(key, "shape") == 0) tensor_push_shape(L, t);
    else if (strcmp(key, "dtype") == 0) lua_pushstring(L, gr_dtype_name(gr_tensor_dtype(t)));
    else if (strcmp(key, "rank") == 0) lua_pushinteger(L, gr_tensor_rank(t));
    else if (strcmp(key, "requires_grad") == 0) lua_pushboolean(L, gr_tensor_requires_grad(t));
    else if (strcmp(key, "grad") == 0) lgr_push_tensor(L, st, gr_retain(gr_tensor_grad_peek(t)));
    else if (strcmp(key, "name") == 0) lua_pushstring(L, gr_tensor_name_peek(t));
    else return lgr_unknown_field(L, "tensor", key, TENSOR_PROPERTIES, lua_upvalueindex(2));
    return 1;
}

static int tensor_newindex(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    if (lua_type(L, 2) != LUA_TSTRING) return lgr_tensor_assign(L, st);
    const char *key = lua_tostring(L, 2);
    gr_tensor *t = lgr_check_tensor(L, st, 1);
    gr_status s;
    if (strcmp(key, "grad") == 0) {
        s = gr_tensor_set_grad(t, lua_isnil(L, 3) ? NULL : lgr_check_tensor(L, st, 3));
    } else if (strcmp(key, "requires_grad") == 0) {
        s = gr_tensor_set_requires_grad(t, lua_toboolean(L, 3));
    } else if (strcmp(key, "name") == 0) {
        s = gr_tensor_set_name(t, luaL_checkstring(L, 3));
    } else {
        return lgr_unknown(L, "tensor", "field", key, "grad requires_grad name");
    }
    return s == GR_OK ? 0 : lgr_raise(L, st);
}

static int tensor_is_tensor(lua_State *L) {
    lua_pushboolean(L, lgr_to_box(L, lgr_upstate(L), 1, LGR_TENSOR) != NULL);
    return 1;
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static const luaL_Reg tensor_meta[] = {{"__index", tensor_index}, {"__newindex", tensor_newindex},
                                       {"__len", tensor_len}, {"__tostring", lgr_tensor_tostring}, {0}};
static const luaL_Reg tensor_methods[] = {
    {"item", tensor_item}, {"totable", tensor_totable}, {"size", tensor_size}, {"numel", tensor_numel},
    {"dim", tensor_dim}, {"is_contiguous", tensor_is_contiguous}, {"copy_", tensor_copy_}, {"zero_", tensor_zero_},
    {"requires_grad_", tensor_requires_grad_}, {"retain_grad", tensor_retain_grad}, {"detach", tensor_detach},
    {"is_leaf", tensor_is_leaf}, {0}};
static const luaL_Reg tensor_functions[] = {{"tensor", tensor_new}, {"zeros", tensor_zeros}, {"ones", tensor_ones},
                                            {"full", tensor_full}, {"is_tensor", tensor_is_tensor}, {0}};
static const luaL_Reg tensor_shape_meta[] = {{"__tostring", tensor_shape_tostring}, {"__eq", tensor_shape_eq}, {0}};

void lgr_open_tensor(lua_State *L, lgr_state *st) {
    luaL_newmetatable(L, "gradrun.Shape");
    luaL_setfuncs(L, tensor_shape_meta, 0);
    lua_pop(L, 1);
    lgr_type_new(L, st, LGR_TENSOR, tensor_meta, tensor_methods);
    lua_rawgetp(L, LUA_REGISTRYINDEX, st->metatable[LGR_TENSOR]);
    lgr_op_operators(L, st);
    lua_getfield(L, -1, "__names");
    lua_pushlightuserdata(L, st);
    lua_pushcclosure(L, tensor_fill_, 1); /* a number, not the op's schema */
    lua_setfield(L, -2, "fill_");
    lua_pop(L, 2);
    lgr_set_functions(L, st, tensor_functions);
}
