/* Gradients: backward, grad, switching recording on and off, and ops written in Lua. */
#include <stdlib.h>
#include <string.h>

#include "lgr.h"

static const char grad_key_funcs; /* registry: weak values: address of a grad_func -> {backward, ctx} */

/* ---- backward and grad ---------------------------------------------------------------------------------- */

/* {retain_graph=, create_graph=, allow_unused=, gradient=} at i, or the gradient itself, there afterwards. */
static gr_backward_options grad_read_options(lua_State *L, lgr_state *st, int i, const char *who) {
    gr_backward_options o = {0};
    if (lua_isnoneornil(L, i)) return o;
    if (lgr_to_box(L, st, i, LGR_TENSOR)) {
        o.seed = lgr_check_tensor(L, st, i);
        return o;
    }
    luaL_checktype(L, i, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, i)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(key, "retain_graph") == 0) o.retain_graph = lua_toboolean(L, -1);
        else if (strcmp(key, "create_graph") == 0) o.create_graph = lua_toboolean(L, -1);
        else if (strcmp(key, "allow_unused") == 0) o.allow_unused = lua_toboolean(L, -1);
        else if (strcmp(key, "gradient") == 0) o.seed = lgr_check_tensor(L, st, lua_gettop(L));
        else lgr_unknown(L, who, "option", key, "retain_graph create_graph allow_unused gradient");
        lua_pop(L, 1);
    }
    if (!o.seed) return o;
    lua_pushliteral(L, "gradient");
    lua_rawget(L, i);
    lua_replace(L, i);
    return o;
}

/* loss:backward(options or gradient) */
static int grad_backward(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_tensor *root = lgr_check_tensor(L, st, 1);
    gr_backward_options o = grad_read_options(L, st, 2, "backward");
    lgr_pressure(L, st);
    gr_status s = gr_backward(root, &o);
    if (s != GR_OK && o.retain_graph && lgr_retry(L, st, s)) s = gr_backward(root, &o);
    st->L = L;
    return s == GR_OK ? 0 : lgr_raise(L, st);
}

/* One tensor or a table of them at i, as lgr_check_list has them. */
static gr_tensor **grad_read_tensors(lua_State *L, lgr_state *st, int i, int *n) {
    if (lgr_to_box(L, st, i, LGR_TENSOR)) {
        gr_tensor **one = lua_newuserdatauv(L, sizeof *one, 1);
        one[0] = lgr_check_tensor(L, st, i);
        lua_pushvalue(L, i);
        lua_setiuservalue(L, -2, 1);
        *n = 1;
        return one;
    }
    return lgr_check_list(L, st, i, n);
}

/* The result on top keeps what each of the outputs, in the list at `outputs`, keeps. */
static void grad_anchor(lua_State *L, int outputs, int n) {
    int result = lua_gettop(L);
    for (int k = 1; k <= n; k++) {
        lua_getiuservalue(L, outputs, k);
        lgr_anchor_like(L, result, -1);
        lua_settop(L, result);
    }
}

/* gr.grad(outputs, inputs, options) -> a tensor, or a table of them as inputs was; false where unused */
static int grad_grad(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    int n_out, n_in;
    bool single = lgr_to_box(L, st, 2, LGR_TENSOR) != NULL;
    gr_backward_options o = grad_read_options(L, st, 3, "grad");
    lua_settop(L, 3);
    gr_tensor **outputs = grad_read_tensors(L, st, 1, &n_out), **inputs = grad_read_tensors(L, st, 2, &n_in);
    if (n_out < 1 || n_in < 1) return luaL_error(L, "grad: at least one output and one input are needed");
    if (o.seed && n_out != 1) return luaL_error(L, "grad: a gradient goes with one output, not %d", n_out);
    gr_tensor *seeds[1] = {o.seed};
    gr_tensor **out = lua_newuserdatauv(L, (size_t)n_in * sizeof *out, 0);
    lua_createtable(L, n_in, 0);
    int list = lua_gettop(L);
    for (int i = 0; i < n_in; i++) {
        lgr_new_box(L, st, LGR_TENSOR);
        lua_rawseti(L, list, i + 1);
    }
    lgr_pressure(L, st);
    gr_status s = gr_grad(n_out, outputs, o.seed ? seeds : NULL, n_in, inputs, &o, out);
    st->L = L;
    if (s != GR_OK) return lgr_raise(L, st);
    for (int i = 0; i < n_in; i++) {
        lua_rawgeti(L, list, i + 1);
        ((lgr_box *)lua_touserdata(L, -1))->object = out[i];
        if (out[i] && o.create_graph) grad_anchor(L, 4, n_out);
        lua_pop(L, 1);
        if (out[i]) continue;
        lua_pushboolean(L, 0);
        lua_rawseti(L, list, i + 1);
    }
    if (single) lua_rawgeti(L, list, 1);
    return 1;
}

/* ---- recording on and off ------------------------------------------------------------------------------- */

/* fn(...) with the switch set, and put back whatever happens. */
static int grad_with(lua_State *L, bool (*set)(gr_ctx *, bool), bool on) {
    lgr_state *st = lgr_upstate(L);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    bool was = set(st->ctx, on);
    int s = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    set(st->ctx, was);
    return s == LUA_OK ? lua_gettop(L) : lua_error(L);
}

static int grad_no_grad(lua_State *L) { return grad_with(L, gr_set_grad_enabled, false); }
static int grad_enable_grad(lua_State *L) { return grad_with(L, gr_set_grad_enabled, true); }
static int grad_detect_anomaly(lua_State *L) { return grad_with(L, gr_set_anomaly, true); }

static int grad_is_enabled(lua_State *L) {
    lua_pushboolean(L, gr_grad_enabled(lgr_upstate(L)->ctx));
    return 1;
}

static int grad_set_enabled(lua_State *L) {
    luaL_checktype(L, 1, LUA_TBOOLEAN);
    lua_pushboolean(L, gr_set_grad_enabled(lgr_upstate(L)->ctx, lua_toboolean(L, 1)));
    return 1;
}

/* ---- ops written in Lua ----------------------------------------------------------------------------------
 * Each call makes a table {backward, ctx}, which the results keep alive. The node has a grad_func, by whose address
 * it finds that table, if it is still there, in a weak one. */

typedef struct grad_func {
    lgr_link *link;
} grad_func;

static void grad_func_drop(void *ud) {
    grad_func *f = ud;
    lgr_link_release(f->link);
    free(f);
}

typedef struct grad_func_job {
    lgr_state *st;
    const grad_func *func;
    int n_out, n_in;
    gr_tensor *const *dy;
    gr_tensor **dx;
} grad_func_job;

/* Protected: dx... = backward(ctx, dy...) */
static int grad_func_run(lua_State *L) {
    grad_func_job *j = lua_touserdata(L, 1);
    lgr_state *st = j->st;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &grad_key_funcs);
    if (lua_rawgetp(L, -1, j->func) != LUA_TTABLE)
        return luaL_error(L, "its function was collected: keep what was computed with it, or use gr.grad");
    int entry = lua_gettop(L);
    lua_rawgeti(L, entry, 1);
    lua_rawgeti(L, entry, 2);
    for (int i = 0; i < j->n_out; i++) lgr_push_tensor(L, st, gr_retain(j->dy[i]));
    lua_call(L, j->n_out + 1, j->n_in);
    for (int i = 0; i < j->n_in; i++) {
        int at = entry + 1 + i;
        if (lua_isnil(L, at)) continue;
        gr_tensor *t = lgr_to_tensor(L, st, at);
        if (!t) return luaL_error(L, "gradient %d is a %s, expected a tensor or nil", i + 1, luaL_typename(L, at));
        j->dx[i] = gr_retain(t);
    }
    return 0;
}

static gr_status grad_func_backward(void *ud, gr_ctx *ctx, int n_out, gr_tensor *const *dy, int n_in,
                                    gr_tensor **dx) {
    const grad_func *f = ud;
    grad_func_job j = {lgr_link_state(f->link, ctx), f, n_out, n_in, dy, dx};
    return j.st ? lgr_protected(j.st, grad_func_run, &j) : GR_ERR_STATE;
}

/* The tensors among n arguments from `first` on. */
static int grad_func_inputs(lua_State *L, lgr_state *st, int first, int n, gr_tensor **in) {
    int n_in = 0;
    for (int i = first; i < first + n; i++) {
        if (!lgr_to_box(L, st, i, LGR_TENSOR)) continue;
        if (n_in == 8) return luaL_error(L, "func: more than 8 tensors");
        in[n_in++] = lgr_check_tensor(L, st, i);
    }
    return n_in;
}

/* The function gr.func returns: upvalue 2 is the definition. */
static int grad_func_call(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_tensor *in[8], *values[4], *out[4];
    int n = lua_gettop(L);
    grad_func_inputs(L, st, 1, n, in);
    lua_newtable(L); /* ctx: what forward leaves for backward */
    lua_insert(L, 1);
    lua_getfield(L, lua_upvalueindex(2), "forward");
    lua_pushvalue(L, 1);
    for (int i = 1; i <= n; i++) lua_pushvalue(L, i + 1);
    bool was = gr_set_grad_enabled(st->ctx, false);
    int s = lua_pcall(L, n + 1, LUA_MULTRET, 0);
    gr_set_grad_enabled(st->ctx, was);
    if (s != LUA_OK) return lua_error(L);
    int n_in = grad_func_inputs(L, st, 2, n, in); /* forward may have closed some */
    int first = n + 2, n_out = lua_gettop(L) - first + 1;
    if (n_out < 1 || n_out > 4)
        return luaL_error(L, "func: forward returned %d values, expected 1 to 4 tensors", n_out);
    for (int i = 0; i < n_out; i++) {
        gr_tensor *t = lgr_to_tensor(L, st, first + i);
        if (!t) return luaL_error(L, "func: forward returned a %s, expected a tensor", luaL_typename(L, first + i));
        values[i] = t;
    }
    lua_pushnil(L); /* what is saved for backward outlives the scope it was made in */
    while (lua_next(L, 1)) {
        lgr_box *saved = lgr_to_box(L, st, -1, LGR_TENSOR);
        if (saved) lgr_leave_scope(saved);
        lua_pop(L, 1);
    }
    lua_createtable(L, 2, 0);
    int func = lua_gettop(L);
    lua_getfield(L, lua_upvalueindex(2), "backward");
    lua_rawseti(L, func, 1);
    lua_pushvalue(L, 1);
    lua_rawseti(L, func, 2);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &grad_key_funcs);
    int funcs = lua_gettop(L);
    lua_getfield(L, lua_upvalueindex(2), "name");
    const char *name = luaL_optstring(L, -1, "func");
    luaL_checkstack(L, n_out + 4, NULL);
    int base = lua_gettop(L);
    for (int i = 0; i < n_out; i++) lgr_new_box(L, st, LGR_TENSOR);
    grad_func *f = malloc(sizeof *f);
    if (!f) return luaL_error(L, "func: out of memory");
    f->link = lgr_link_retain(st);
    if (gr_record(st->ctx, name, n_in, in, n_out, values, grad_func_backward, grad_func_drop, f, out) != GR_OK)
        return lgr_raise(L, st);
    for (int i = 0; i < n_out; i++) ((lgr_box *)lua_touserdata(L, base + 1 + i))->object = out[i];
    lua_pushvalue(L, func);
    lua_rawsetp(L, funcs, f);
    for (int i = 0; i < n_out; i++) {
        lua_pushvalue(L, func);
        lgr_anchor(L, base + 1 + i);
        for (int k = 1; k <= n; k++)
            if (lgr_to_box(L, st, k + 1, LGR_TENSOR)) lgr_anchor_like(L, base + 1 + i, k + 1);
    }
    return n_out;
}

/* gr.func{ name = "square", forward = function(ctx, x) … end, backward = function(ctx, dy) … end } */
static int grad_func_define(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    static const char *const wanted[] = {"forward", "backward"};
    for (int i = 0; i < 2; i++) {
        if (lua_getfield(L, 1, wanted[i]) != LUA_TFUNCTION)
            return luaL_error(L, "func: %s is a %s, expected a function", wanted[i], luaL_typename(L, -1));
        lua_pop(L, 1);
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, grad_func_call, 2);
    return 1;
}

static const luaL_Reg grad_functions[] = {
    {"grad", grad_grad}, {"no_grad", grad_no_grad}, {"enable_grad", grad_enable_grad},
    {"is_grad_enabled", grad_is_enabled}, {"set_grad_enabled", grad_set_enabled},
    {"detect_anomaly", grad_detect_anomaly}, {"func", grad_func_define}, {0}};

void lgr_open_grad(lua_State *L, lgr_state *st) {
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &grad_key_funcs);
    lua_rawgetp(L, LUA_REGISTRYINDEX, st->metatable[LGR_TENSOR]);
    lua_getfield(L, -1, "__names");
    lua_pushlightuserdata(L, st);
    lua_pushcclosure(L, grad_backward, 1);
    lua_setfield(L, -2, "backward");
    lua_pop(L, 2);
    lgr_set_functions(L, st, grad_functions);
}
