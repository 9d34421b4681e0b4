/* gr.describe(): everything the descriptors say, as tables. Specs, help and documentation are made from it. */
#include "lgr.h"

static void describe_string(lua_State *L, const char *key, const char *s) {
    if (!s) return;
    lua_pushstring(L, s);
    lua_setfield(L, -2, key);
}

static void describe_number(lua_State *L, const char *key, double v) {
    lua_pushnumber(L, v);
    lua_setfield(L, -2, key);
}

static void describe_flag(lua_State *L, const char *key, bool on) {
    lua_pushboolean(L, on);
    lua_setfield(L, -2, key);
}

static void describe_words(lua_State *L, const char *words) {
    lua_Integer n = 0;
    lua_newtable(L);
    for (const char *p = words; *p; p += *p == ' ') {
        const char *end = p;
        while (*end && *end != ' ') end++;
        lua_pushlstring(L, p, (size_t)(end - p));
        lua_rawseti(L, -2, ++n);
        p = end;
    }
}

/* {name=, kind=, required=, default=, min=, max=, words=} for each attribute; defaults as scripts see them. */
static void describe_attrs(lua_State *L, const gr_info *info) {
    static const char *const kinds[] = {"real", "int",   "bool", "dim",   "pos",
                                        "dims", "shape", "pair", "dtype", "word"};
    uint64_t defaults[32];
    lua_Integer n = 0;
    gr_attrs_default(info, defaults);
    lua_newtable(L);
    for (const gr_attr *a = info->attrs; a && a->name; a++) {
        lua_createtable(L, 0, 6);
        describe_string(L, "name", a->name);
        describe_string(L, "kind", kinds[a->kind]);
        describe_flag(L, "required", a->required);
        if (!a->required) {
            lgr_push_attr(L, a, defaults);
            lua_setfield(L, -2, "default");
        }
        if (a->min != 0 || a->max != 0) {
            describe_number(L, "min", a->min);
            describe_number(L, "max", a->max);
        }
        if (a->words) {
            describe_words(L, a->words);
            lua_setfield(L, -2, "words");
        }
        lua_rawseti(L, -2, ++n);
    }
}

/* "attrs" is there as the text a script would write; "in" is absent nowhere. */
static void describe_cases(lua_State *L, const gr_info *info) {
    lua_Integer n = 0;
    lua_newtable(L);
    for (const gr_case *c = info->cases; c && c->in; c++) {
        bool unit = c->lo == 0 && c->hi == 0;
        lua_createtable(L, 0, 8);
        lua_pushstring(L, c->in);
        lua_setfield(L, -2, "in");
        describe_string(L, "attrs", c->attrs);
        describe_number(L, "lo", unit ? -1 : c->lo);
        describe_number(L, "hi", unit ? 1 : c->hi);
        describe_string(L, "give", c->give);
        describe_string(L, "want", c->want);
        describe_number(L, "tol", c->tol != 0 ? c->tol : 1e-6);
        if (c->has_kink) describe_number(L, "kink", c->kink);
        describe_flag(L, "no_grad", c->no_grad);
        lua_rawseti(L, -2, ++n);
    }
}

/* The common head of every descriptor, as a table on the stack. schema: whose attributes it takes. */
static void describe_info(lua_State *L, const gr_info *info, const gr_info *schema) {
    lua_createtable(L, 0, 10);
    describe_string(L, "name", info->name);
    describe_string(L, "doc", info->doc);
    describe_string(L, "inputs", info->inputs);
    describe_flag(L, "hidden", info->hidden);
    describe_string(L, "over_all", info->over_all);
    describe_attrs(L, schema);
    lua_setfield(L, -2, "attrs");
    describe_cases(L, info);
    lua_setfield(L, -2, "cases");
}

static void describe_ops(lua_State *L) {
    lua_createtable(L, gr_op_count(), 0);
    for (int i = 0; i < gr_op_count(); i++) {
        const gr_op *op = gr_op_at(i);
        describe_info(L, gr_op_info(op), gr_op_info(op));
        describe_flag(L, "elementwise", gr_op_elementwise(op));
        describe_flag(L, "in_place", gr_op_in_place(op));
        describe_flag(L, "differentiable", gr_op_differentiable(op));
        lua_pushinteger(L, gr_op_outputs(op));
        lua_setfield(L, -2, "outputs");
        lua_rawseti(L, -2, i + 1);
    }
}

static void describe_layers(lua_State *L) {
    lua_createtable(L, gr_layer_kind_count(), 0);
    for (int i = 0; i < gr_layer_kind_count(); i++) {
        const gr_layer_kind *k = gr_layer_kind_at(i);
        describe_info(L, gr_layer_kind_info(k), gr_layer_kind_schema(k));
        describe_flag(L, "container", gr_layer_kind_container(k));
        lua_rawseti(L, -2, i + 1);
    }
}

static void describe_optims(lua_State *L) {
    lua_createtable(L, gr_optim_kind_count(), 0);
    for (int i = 0; i < gr_optim_kind_count(); i++) {
        const gr_info *info = gr_optim_kind_info(gr_optim_kind_at(i));
        describe_info(L, info, info);
        lua_rawseti(L, -2, i + 1);
    }
}

static void describe_clips(lua_State *L) {
    lua_createtable(L, gr_clip_kind_count(), 0);
    for (int i = 0; i < gr_clip_kind_count(); i++) {
        const gr_info *info = gr_clip_kind_info(gr_clip_kind_at(i));
        describe_info(L, info, info);
        lua_rawseti(L, -2, i + 1);
    }
}

/* gr.describe() -> {ops = {...}, layers = {...}, optims = {...}, clips = {...}}, each in order of file */
static int describe_all(lua_State *L) {
    lua_createtable(L, 0, 4);
    describe_ops(L);
    lua_setfield(L, -2, "ops");
    describe_layers(L);
    lua_setfield(L, -2, "layers");
    describe_optims(L);
    lua_setfield(L, -2, "optims");
    describe_clips(L);
    lua_setfield(L, -2, "clips");
    return 1;
}

static const luaL_Reg describe_functions[] = {{"describe", describe_all}, {0}};

void lgr_open_describe(lua_State *L, lgr_state *st) { lgr_set_functions(L, st, describe_functions); }
