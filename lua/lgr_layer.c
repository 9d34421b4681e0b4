/* Layers: constructors from the descriptors, members as fields, and layers written in Lua.
 *
 * A layer's userdata keeps, in its user value: the userdata of its members (so that hooks on them live as long
 * as the layer), its Lua fields, and for a layer written in Lua its definition under the key 0. */
#include <string.h>

#include "lgr.h"

#define LAYER_DEFINITION 0
static const char layer_key_anchors; /* registry: what the results of the call under way must keep, or nil */

/* ---- members -------------------------------------------------------------------------------------------- */

/* Pushes the userdata of a member and lets the layer's userdata (at index l) keep it under name. */
static void layer_push_member(lua_State *L, lgr_state *st, int l, lgr_type type, void *object, const char *name) {
    l = lua_absindex(L, l);
    lgr_push_same(L, st, type, object);
    lgr_push_keep(L, l);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

/* Pushes the member called name, if there is one. */
static bool layer_find_member(lua_State *L, lgr_state *st, int l, gr_layer *layer, const char *name) {
    const char *have;
    for (int i = 0; i < gr_layer_children(layer); i++) {
        gr_layer *c = gr_layer_child_peek(layer, i, &have);
        if (strcmp(have, name) == 0) return layer_push_member(L, st, l, LGR_LAYER, c, have), true;
    }
    for (int i = 0; i < gr_layer_params(layer); i++) {
        gr_tensor *t = gr_layer_param_peek(layer, i, &have);
        if (strcmp(have, name) == 0) return layer_push_member(L, st, l, LGR_TENSOR, t, have), true;
    }
    for (int i = 0; i < gr_layer_buffers(layer); i++) {
        gr_tensor *t = gr_layer_buffer_peek(layer, i, &have);
        if (strcmp(have, name) == 0) return layer_push_member(L, st, l, LGR_TENSOR, t, have), true;
    }
    return false;
}

static const gr_attr *layer_find_attr(gr_layer *l, const char *name) {
    const gr_layer_kind *k = gr_layer_kind_peek(l);
    return k ? lgr_find_attr(gr_layer_kind_schema(k), name) : NULL;
}

/* "training type path weight bias": what there is besides methods, for suggestions. */
static const char *layer_push_names(lua_State *L, gr_layer *l) {
    const char *name;
    lua_pushliteral(L, "training type path");
    for (int i = 0; gr_layer_param_peek(l, i, &name); i++)
        lua_pushfstring(L, "%s %s", lua_tostring(L, -1), name), lua_remove(L, -2);
    for (int i = 0; gr_layer_child_peek(l, i, &name); i++)
        lua_pushfstring(L, "%s %s", lua_tostring(L, -1), name), lua_remove(L, -2);
    return lua_tostring(L, -1);
}

static int layer_index(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_layer *l = lgr_check_layer(L, st, 1);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
    lgr_push_keep(L, 1);
    if (lua_isinteger(L, 2)) lua_pushfstring(L, "%I", (LUAI_UACINT)lua_tointeger(L, 2));
    else lua_pushvalue(L, 2);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) != LUA_TNIL) return 1;
    lua_pop(L, 1);
    if (lua_type(L, -1) != LUA_TSTRING)
        return luaL_error(L, "a layer cannot be indexed with a %s", luaL_typename(L, 2));
    const char *key = lua_tostring(L, -1);
    if (layer_find_member(L, st, 1, l, key)) return 1;
    const gr_attr *a = layer_find_attr(l, key);
    if (a) return lgr_push_attr(L, a, gr_layer_attrs_peek(l)), 1;
    if (strcmp(key, "training") == 0) return lua_pushboolean(L, gr_layer_training(l)), 1;
    if (strcmp(key, "type") == 0) return lua_pushstring(L, gr_layer_type_peek(l)), 1;
    if (strcmp(key, "path") == 0) return lua_pushstring(L, gr_layer_path_peek(l)), 1;
    lgr_push_keep(L, 1); /* a method of the definition */
    if (lua_rawgeti(L, -1, LAYER_DEFINITION) == LUA_TTABLE && lua_getfield(L, -1, key) != LUA_TNIL) return 1;
    if (!gr_layer_kind_peek(l)) return lua_pushnil(L), 1; /* fields of a Lua layer may be absent */
    if (lua_isinteger(L, 2))
        return luaL_error(L, "%s has %d layers, no number %s", gr_layer_type_peek(l), gr_layer_children(l), key);
    return lgr_unknown_field(L, gr_layer_type_peek(l), key, layer_push_names(L, l), lua_upvalueindex(2));
}

static int layer_newindex(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_layer *l = lgr_check_layer(L, st, 1);
    const char *key = luaL_checkstring(L, 2);
    lgr_box *child = lgr_to_box(L, st, 3, LGR_LAYER);
    gr_tensor *t = lgr_to_tensor(L, st, 3);
    const gr_attr *a = layer_find_attr(l, key);
    gr_status s = GR_OK;
    if (a) {
        lgr_read_attr(L, st, a, 3, gr_layer_attrs_peek(l), gr_layer_type_peek(l));
        return 0;
    }
    if (child && child->object) s = gr_layer_add_child(l, key, child->object);
    else if (t && gr_tensor_requires_grad(t) && gr_tensor_is_leaf(t)) s = gr_layer_add_param(l, key, t);
    if (s != GR_OK) return lgr_raise(L, st);
    if (child && child->object) lgr_set_same(L, 3, child->object);
    else if (t) lgr_set_same(L, 3, t);
    lgr_push_keep(L, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    lua_rawset(L, -3);
    return 0;
}

/* ---- calling -------------------------------------------------------------------------------------------- */

/* Results after the first, on their way to the stack. */
typedef struct layer_results {
    lgr_state *st;
    int n, at;
    gr_tensor *tensor[GR_LAYER_TENSORS];
} layer_results;

/* Protected: pushes them. */
static int layer_push_rest(lua_State *L) {
    layer_results *r = lua_touserdata(L, 1);
    lua_settop(L, 0);
    while (r->at < r->n) {
        gr_tensor *t = r->tensor[r->at++];
        lgr_push_tensor(L, r->st, t);
    }
    return r->n;
}

/* The number pushed; raises when there is no memory for them. */
static int layer_push_results(lua_State *L, lgr_state *st, gr_tensor *const *out) {
    layer_results r = {.st = st};
    while (r.n < GR_LAYER_TENSORS - 1 && out[r.n]) {
        r.tensor[r.n] = out[r.n];
        r.n++;
    }
    if (!r.n) return 0;
    lua_pushcfunction(L, layer_push_rest);
    lua_pushlightuserdata(L, &r);
    if (lua_pcall(L, 1, r.n, 0) == LUA_OK) return r.n;
    while (r.at < r.n) gr_release(r.tensor[r.at++]);
    return lua_error(L);
}

void lgr_keep_anchors(lua_State *L, int i) {
    lua_getiuservalue(L, i, 1);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &layer_key_anchors) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &layer_key_anchors);
    }
    lua_insert(L, -2);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 1);
}

/* Pushes what was kept for the call around this one: this one begins with nothing. */
static void layer_push_outer(lua_State *L) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &layer_key_anchors) == LUA_TNIL) return;
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &layer_key_anchors);
}

/* Back to it. */
static void layer_set_outer(lua_State *L, int outer) {
    lua_pushvalue(L, outer);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &layer_key_anchors);
}

/* Results keep alive in Lua what their graph calls: the layer at 1, what its inputs (2 .. n + 1) keep, and what
 * layers and hooks written in Lua made on the way. */
static void layer_anchor(lua_State *L, lgr_state *st, int first, int results, int n) {
    bool inner = lua_rawgetp(L, LUA_REGISTRYINDEX, &layer_key_anchors) == LUA_TTABLE;
    int anchors = lua_gettop(L);
    for (int r = first; r < first + results; r++) {
        if (!gr_tensor_requires_grad(lgr_to_tensor(L, st, r))) continue;
        lua_pushvalue(L, 1);
        lgr_anchor(L, r);
        for (int i = 2; i <= n + 1; i++)
            if (!lua_isnil(L, i)) lgr_anchor_like(L, r, i);
        if (!inner) continue;
        lua_pushvalue(L, anchors);
        lgr_anchor(L, r);
    }
}

/* Position of a word in a list; -1 if it is not there. "name?" is name. */
static int layer_find_input(const char *list, const char *name) {
    size_t size = strlen(name);
    for (int at = 0; *list; at++) {
        size_t n = strcspn(list, " "), word = n && list[n - 1] == '?' ? n - 1 : n;
        if (word == size && memcmp(list, name, word) == 0) return at;
        list += n + (list[n] == ' ');
    }
    return -1;
}

static int layer_inputs(const char *list) {
    int n = *list != 0;
    for (; *list; list++) n += *list == ' ';
    return n;
}

static int layer_unknown_option(lua_State *L, const gr_info *call, const char *name) {
    luaL_gsub(L, call->inputs, "?", "");
    for (const gr_attr *a = call->attrs; a && a->name; a++)
        lua_pushfstring(L, "%s %s", lua_tostring(L, -1), a->name), lua_remove(L, -2);
    return lgr_unknown(L, call->name, "option", name, lua_tostring(L, -1));
}

/* Options of a call from the table at the end: tensors go to their places among the inputs, on the stack, the others
 * to attrs. Returns attrs, or NULL if there is no such table. */
static const void *layer_read_call(lua_State *L, lgr_state *st, const gr_info *call, void *attrs) {
    int n = layer_inputs(call->inputs), table = n + 2, top = lua_gettop(L);
    if (top < 2 || top > table || !lua_istable(L, top)) return NULL;
    gr_attrs_default(call, attrs);
    lua_settop(L, table);
    if (top < table) {
        lua_pushvalue(L, top);
        lua_replace(L, table);
        lua_pushnil(L);
        lua_replace(L, top);
    }
    lua_pushnil(L);
    while (lua_next(L, table)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "%s: option table has the key %s; names are expected", call->name,
                       lgr_push_shown(L, -2));
        const char *name = lua_tostring(L, -2);
        int at = layer_find_input(call->inputs, name);
        if (at < 0) {
            if (!lgr_read_option(L, st, call, name, attrs)) layer_unknown_option(L, call, name);
            lua_pop(L, 1);
            continue;
        }
        if (!lua_isnil(L, at + 2)) luaL_error(L, "%s: %s is given twice", call->name, name);
        if (!lgr_to_tensor(L, st, -1))
            luaL_error(L, "%s: %s is %s, expected a tensor", call->name, name, lgr_push_shown(L, -1));
        lua_replace(L, at + 2);
    }
    lua_settop(L, n + 1);
    return attrs;
}

static int layer_call(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_layer *l = lgr_check_layer(L, st, 1);
    gr_tensor *in[GR_LAYER_TENSORS], *out[GR_LAYER_TENSORS];
    const gr_info *call = gr_layer_kind_peek(l) ? gr_layer_kind_call(gr_layer_kind_peek(l)) : NULL;
    uint64_t attrs[32];
    const void *options = call ? layer_read_call(L, st, call, attrs) : NULL;
    int n = lua_gettop(L) - 1;
    lgr_pressure(L, st);
    while (n > 0 && lua_isnil(L, n + 1)) n--;
    if (n > GR_LAYER_TENSORS)
        return luaL_error(L, "%s: %d inputs, at most %d are possible", gr_layer_type_peek(l), n, GR_LAYER_TENSORS);
    if (n < 1) return luaL_error(L, "%s: the input is missing", gr_layer_type_peek(l));
    for (int i = 0; i < n; i++) in[i] = lua_isnil(L, i + 2) ? NULL : lgr_check_tensor(L, st, i + 2);
    layer_push_outer(L);
    lgr_box *b = lgr_new_box(L, st, LGR_TENSOR);
    int result = lua_gettop(L), outer = result - 1;
    gr_status s = gr_layer_forward_with(l, n, in, options, GR_LAYER_TENSORS, out);
    if (s != GR_OK && lgr_retry(L, st, s)) s = gr_layer_forward_with(l, n, in, options, GR_LAYER_TENSORS, out);
    st->L = L;
    if (s != GR_OK) {
        layer_set_outer(L, outer);
        return lgr_raise(L, st);
    }
    b->object = out[0];
    int results = 1 + layer_push_results(L, st, out + 1);
    layer_anchor(L, st, result, results, n);
    layer_set_outer(L, outer);
    lua_settop(L, result + results - 1);
    return results;
}

/* ---- layers written in Lua ------------------------------------------------------------------------------ */

typedef struct layer_job {
    lgr_state *st;
    gr_layer *self;
    int n_in, n_out;
    gr_tensor *const *in;
    gr_tensor **out;
} layer_job;

/* Protected: definition.forward(self, inputs...) */
static int layer_run(lua_State *L) {
    layer_job *j = lua_touserdata(L, 1);
    lgr_state *st = j->st;
    lgr_push_same(L, st, LGR_LAYER, j->self);
    int self = lua_gettop(L);
    lgr_push_keep(L, self);
    lua_rawgeti(L, -1, LAYER_DEFINITION);
    lua_getfield(L, -1, "forward");
    int first = lua_gettop(L);
    lua_pushvalue(L, self);
    for (int i = 0; i < j->n_in; i++) lgr_push_tensor(L, st, gr_retain(j->in[i]));
    lua_call(L, j->n_in + 1, LUA_MULTRET);
    int n = lua_gettop(L) - first + 1;
    for (; n > 1 && lua_isnil(L, -1); n--) lua_pop(L, 1);
    if (n < 1 || n > j->n_out)
        return luaL_error(L, "forward returned %d values, expected 1 to %d tensors", n, j->n_out);
    for (int i = 0; i < n; i++) {
        lgr_box *b = lgr_to_box(L, st, first + i, LGR_TENSOR);
        if (!b || !b->object)
            return luaL_error(L, "forward returned %s, expected a tensor",
                              b ? "a closed tensor" : luaL_typename(L, first + i));
        if (b->anchored) lgr_keep_anchors(L, first + i);
        j->out[i] = gr_retain(b->object);
    }
    return 0;
}

static gr_status layer_forward_in_lua(void *ud, gr_layer *self, int n_in, gr_tensor *const *in, int n_out,
                                      gr_tensor **out) {
    layer_job j = {lgr_link_state(ud, gr_ctx_peek(self)), self, n_in, n_out, in, out};
    return j.st ? lgr_protected(j.st, layer_run, &j) : GR_ERR_STATE;
}

/* The constructor nn.layer{…} returns: upvalue 2 is the definition. */
static int layer_construct_defined(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    int n = lua_gettop(L);
    lua_getfield(L, lua_upvalueindex(2), "name");
    const char *name = luaL_optstring(L, -1, "Layer");
    lgr_box *b = lgr_new_box(L, st, LGR_LAYER);
    gr_layer *l;
    if (gr_layer_custom(st->ctx, name, layer_forward_in_lua, lgr_link_release, lgr_link_retain(st), &l) != GR_OK)
        return lgr_raise(L, st);
    b->object = l;
    int self = lua_gettop(L);
    lgr_set_same(L, self, l);
    lgr_push_keep(L, self);
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_rawseti(L, -2, LAYER_DEFINITION);
    if (lua_getfield(L, lua_upvalueindex(2), "init") == LUA_TFUNCTION) {
        lua_pushvalue(L, self);
        for (int i = 1; i <= n; i++) lua_pushvalue(L, i);
        lua_call(L, n + 1, 0);
    }
    lua_settop(L, self);
    return 1;
}

/* nn.layer{ name = "Block", init = function(self, ...) end, forward = function(self, x) return y end } */
static int layer_define(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    if (lua_getfield(L, 1, "forward") != LUA_TFUNCTION)
        return luaL_error(L, "nn.layer: forward is a %s, expected a function", luaL_typename(L, -1));
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, layer_construct_defined, 2);
    return 1;
}

/* ---- constructors --------------------------------------------------------------------------------------- */

static int layer_fill_container(lua_State *L, lgr_state *st, gr_layer *l, int from, int to, int self) {
    for (int i = from; i <= to; i++) {
        char name[16];
        lgr_box *child = lgr_to_box(L, st, i, LGR_LAYER);
        if (!child || !child->object)
            return luaL_error(L, "%s: argument %d is a %s, expected a layer", gr_layer_type_peek(l), i - from + 1,
                              luaL_typename(L, i));
        lua_pushfstring(L, "%d", i - from + 1);
        strncpy(name, lua_tostring(L, -1), sizeof name - 1);
        name[sizeof name - 1] = 0;
        lua_pop(L, 1);
        if (gr_layer_add_child(l, name, child->object) != GR_OK) return lgr_raise(L, st);
        lgr_set_same(L, i, child->object);
        lgr_push_keep(L, self);
        lua_pushvalue(L, i);
        lua_setfield(L, -2, name);
        lua_pop(L, 1);
    }
    return 0;
}

/* nn.NAME(...): upvalue 2 is the kind. */
static int layer_construct(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    const gr_layer_kind *k = lua_touserdata(L, lua_upvalueindex(2));
    const gr_info *schema = gr_layer_kind_schema(k);
    uint64_t attrs[32];
    gr_layer *l;
    bool container = gr_layer_kind_container(k);
    if (container && lua_istable(L, 1)) { /* Sequential{a, b} */
        int n = (int)lua_rawlen(L, 1);
        luaL_checkstack(L, n + 8, "too many layers");
        for (int i = 1; i <= n; i++) lua_rawgeti(L, 1, i);
        lua_remove(L, 1);
    }
    int n = lua_gettop(L);
    if (!container) lgr_read_attrs(L, st, schema, 1, attrs, NULL);
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_LAYER);
    if (gr_layer_new(st->ctx, k, schema->attr_size && !container ? attrs : NULL, &l) != GR_OK)
        return lgr_raise(L, st);
    b->object = l;
    int self = lua_gettop(L);
    lgr_set_same(L, self, l);
    if (container) layer_fill_container(L, st, l, 1, n, self);
    lua_settop(L, self);
    return 1;
}

/* ---- walking -------------------------------------------------------------------------------------------- */

typedef enum layer_what { LAYER_PARAMS, LAYER_BUFFERS } layer_what;

/* Appends {name, tensor} pairs (named) or tensors of the layer at l and below to the table at `list`; each
 * tensor once: `seen` is a table by address. */
static void layer_gather(lua_State *L, lgr_state *st, int l, int list, int seen, layer_what what, bool named,
                         const char *prefix) {
    gr_layer *layer = lgr_check_layer(L, st, l);
    const char *name;
    luaL_checkstack(L, 12, "layers are nested too deeply");
    int n = what == LAYER_PARAMS ? gr_layer_params(layer) : gr_layer_buffers(layer);
    for (int i = 0; i < n; i++) {
        gr_tensor *t =
            what == LAYER_PARAMS ? gr_layer_param_peek(layer, i, &name) : gr_layer_buffer_peek(layer, i, &name);
        if (lua_rawgetp(L, seen, t) == LUA_TNIL) {
            lua_pushboolean(L, 1);
            lua_rawsetp(L, seen, t);
            if (named) {
                lua_pushfstring(L, "%s%s", prefix, name);
                lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
            }
            layer_push_member(L, st, l, LGR_TENSOR, t, name);
            lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
        }
        lua_pop(L, 1);
    }
    for (int i = 0; i < gr_layer_children(layer); i++) {
        gr_layer *c = gr_layer_child_peek(layer, i, &name);
        lua_pushfstring(L, "%s%s.", prefix, name);
        layer_push_member(L, st, l, LGR_LAYER, c, name);
        layer_gather(L, st, lua_gettop(L), list, seen, what, named, lua_tostring(L, -2));
        lua_pop(L, 2);
    }
}

static int layer_list(lua_State *L, layer_what what, bool named) {
    lgr_state *st = lgr_upstate(L);
    lgr_check_layer(L, st, 1);
    lua_settop(L, 1);
    lua_newtable(L);
    lua_newtable(L);
    layer_gather(L, st, 1, 2, 3, what, named, "");
    lua_settop(L, 2);
    return 1;
}

static int layer_parameters(lua_State *L) { return layer_list(L, LAYER_PARAMS, false); }
static int layer_buffers(lua_State *L) { return layer_list(L, LAYER_BUFFERS, false); }

/* Iterates over a flat list name, tensor, name, tensor. Upvalues: the list, the position. */
static int layer_next_named(lua_State *L) {
    lua_Integer at = lua_tointeger(L, lua_upvalueindex(2));
    lua_pushinteger(L, at + 2);
    lua_replace(L, lua_upvalueindex(2));
    lua_rawgeti(L, lua_upvalueindex(1), at + 1);
    lua_rawgeti(L, lua_upvalueindex(1), at + 2);
    return 2;
}

static int layer_push_named(lua_State *L, layer_what what) {
    layer_list(L, what, true);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, layer_next_named, 2);
    return 1;
}

static int layer_named_parameters(lua_State *L) { return layer_push_named(L, LAYER_PARAMS); }
static int layer_named_buffers(lua_State *L) { return layer_push_named(L, LAYER_BUFFERS); }

/* {name, layer, …} of the children, for an iterator. */
static int layer_children(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_layer *l = lgr_check_layer(L, st, 1);
    const char *name;
    lua_newtable(L);
    for (int i = 0; i < gr_layer_children(l); i++) {
        gr_layer *c = gr_layer_child_peek(l, i, &name);
        lua_pushstring(L, name);
        lua_rawseti(L, -2, 2 * i + 1);
        layer_push_member(L, st, 1, LGR_LAYER, c, name);
        lua_rawseti(L, -2, 2 * i + 2);
    }
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, layer_next_named, 2);
    return 1;
}

static int layer_set_mode(lua_State *L, bool on) {
    lgr_state *st = lgr_upstate(L);
    if (gr_layer_train(lgr_check_layer(L, st, 1), on) != GR_OK) return lgr_raise(L, st);
    lua_settop(L, 1);
    return 1;
}

static int layer_train(lua_State *L) { return layer_set_mode(L, lua_isnoneornil(L, 2) || lua_toboolean(L, 2)); }
static int layer_eval(lua_State *L) { return layer_set_mode(L, false); }

static void layer_drop_grads(gr_layer *l) {
    for (int i = 0; i < gr_layer_params(l); i++) gr_tensor_set_grad(gr_layer_param_peek(l, i, NULL), NULL);
    for (int i = 0; i < gr_layer_children(l); i++) layer_drop_grads(gr_layer_child_peek(l, i, NULL));
}

static int layer_zero_grad(lua_State *L) {
    layer_drop_grads(lgr_check_layer(L, lgr_upstate(L), 1));
    return 0;
}

/* Registers a tensor that is saved and moved with the layer but not trained. */
static int layer_register_buffer(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    gr_layer *l = lgr_check_layer(L, st, 1);
    const char *name = luaL_checkstring(L, 2);
    gr_tensor *t = lgr_check_tensor(L, st, 3);
    if (gr_layer_add_buffer(l, name, t) != GR_OK) return lgr_raise(L, st);
    lgr_set_same(L, 3, t);
    layer_push_member(L, st, 1, LGR_TENSOR, t, name);
    return 1;
}

static int layer_len(lua_State *L) {
    lua_pushinteger(L, gr_layer_children(lgr_check_layer(L, lgr_upstate(L), 1)));
    return 1;
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static const luaL_Reg layer_meta[] = {{"__index", layer_index},       {"__newindex", layer_newindex},
                                      {"__call", layer_call},         {"__len", layer_len},
                                      {"__tostring", lgr_layer_tostring}, {0}};
static const luaL_Reg layer_methods[] = {
    {"forward", layer_call}, {"parameters", layer_parameters}, {"named_parameters", layer_named_parameters},
    {"buffers", layer_buffers}, {"named_buffers", layer_named_buffers}, {"children", layer_children},
    {"train", layer_train}, {"eval", layer_eval}, {"zero_grad", layer_zero_grad},
    {"register_buffer", layer_register_buffer}, {"state_dict", lgr_state_dict},
    {"load_state_dict", lgr_load_state_dict}, {0}};
static const luaL_Reg layer_functions[] = {{"layer", layer_define}, {0}};

void lgr_open_layer(lua_State *L, lgr_state *st) {
    lgr_type_new(L, st, LGR_LAYER, layer_meta, layer_methods);
    lua_newtable(L);
    lgr_set_functions(L, st, layer_functions);
    for (int i = 0; i < gr_layer_kind_count(); i++) {
        const gr_layer_kind *k = gr_layer_kind_at(i);
        lua_pushlightuserdata(L, st);
        lua_pushlightuserdata(L, (void *)k);
        lua_pushcclosure(L, layer_construct, 2);
        lua_setfield(L, -2, gr_layer_kind_info(k)->name);
    }
    lua_newtable(L); /* nn.functional: the ops again, under the names users know */
    for (int i = 0; i < gr_op_count(); i++) {
        const gr_info *info = gr_op_info(gr_op_at(i));
        if (info->hidden) continue;
        lua_getfield(L, -3, info->name);
        lua_setfield(L, -2, info->name);
    }
    lua_setfield(L, -2, "functional");
    lua_setfield(L, -2, "nn");
}
