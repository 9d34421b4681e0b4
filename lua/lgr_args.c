/* Arguments by schema: the attribute structs of ops, layers, optimizers and clips from Lua values. */
#include <math.h>
#include <string.h>

#include "lgr.h"

#define ARGS_LIST 65534 /* tensors in a list: user values of a userdata */

/* ---- names and suggestions ------------------------------------------------------------------------------ */

/* Edit distance (with transposition) of short words; large when either is long. */
static int args_distance(const char *a, const char *b) {
    enum { MOST = 31 };
    int n = (int)strlen(a), m = (int)strlen(b), d[3][MOST + 1];
    if (n > MOST || m > MOST) return 99;
    for (int j = 0; j <= m; j++) d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *row = d[i % 3], *up = d[(i + 2) % 3], *upup = d[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && upup[j - 2] + 1 < best)
                best = upup[j - 2] + 1;
            row[j] = best;
        }
    }
    return d[n % 3][m];
}

/* Pushes "who: unknown WHAT 'name'", and the name that may be meant, or all of them. */
static const char *args_unknown(lua_State *L, const char *who, const char *what, const char *name,
                                const char *names) {
    char best[40] = "", word[40];
    int least = 3; /* at most two slips */
    for (const char *p = names; *p;) {
        size_t n = strcspn(p, " ");
        if (n > 0 && n < sizeof word) {
            memcpy(word, p, n);
            word[n] = 0;
            int d = args_distance(name, word);
            if (d < least && d < (int)strlen(name)) {
                least = d;
                memcpy(best, word, n + 1);
            }
        }
        p += n + (p[n] == ' ');
    }
    if (*best) return lua_pushfstring(L, "%s: unknown %s '%s' (did you mean '%s'?)", who, what, name, best);
    if (*names && strlen(names) < 200)
        return lua_pushfstring(L, "%s: unknown %s '%s' (known: %s)", who, what, name, names);
    return lua_pushfstring(L, "%s: unknown %s '%s'", who, what, name);
}

int lgr_unknown(lua_State *L, const char *who, const char *what, const char *name, const char *names) {
    return luaL_error(L, "%s", args_unknown(L, who, what, name, names));
}

int lgr_unknown_field(lua_State *L, const char *who, const char *name, const char *names, int methods) {
    lua_pushstring(L, names);
    lua_pushnil(L);
    while (lua_next(L, methods)) {
        lua_pop(L, 1);
        lua_pushfstring(L, "%s %s", lua_tostring(L, -2), lua_tostring(L, -1));
        lua_replace(L, -3);
    }
    return lgr_unknown(L, who, "field", name, lua_tostring(L, -1));
}

const gr_attr *lgr_find_attr(const gr_info *info, const char *name) {
    for (const gr_attr *a = info->attrs; a && a->name; a++)
        if (strcmp(a->name, name) == 0) return a;
    return NULL;
}

static int args_unknown_option(lua_State *L, const gr_info *info, const char *name) {
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (const gr_attr *a = info->attrs; a && a->name; a++) {
        if (a != info->attrs) luaL_addchar(&b, ' ');
        luaL_addstring(&b, a->name);
    }
    luaL_pushresult(&b);
    return lgr_unknown(L, info->name, "option", name, lua_tostring(L, -1));
}

/* ---- single values -------------------------------------------------------------------------------------- */

gr_dtype lgr_check_dtype(lua_State *L, int i) {
    const char *s = luaL_checkstring(L, i);
    for (int t = 0; t < GR_DTYPES; t++)
        if (strcmp(s, gr_dtype_name((gr_dtype)t)) == 0) return (gr_dtype)t;
    return (gr_dtype)lgr_unknown(L, "dtype", "dtype", s, "f32 f64 i64 u8");
}

const char *lgr_push_shown(lua_State *L, int i) {
    enum { MOST = 40 };
    int type = lua_type(L, i);
    if (type == LUA_TSTRING) {
        size_t n;
        const char *s = lua_tolstring(L, i, &n);
        bool plain = n <= MOST;
        for (size_t k = 0; k < n && plain; k++) plain = (unsigned char)s[k] >= ' ';
        return plain ? lua_pushfstring(L, "'%s'", s) : lua_pushfstring(L, "a text of %I bytes", (LUAI_UACINT)n);
    }
    if (type == LUA_TNIL || type == LUA_TBOOLEAN || type == LUA_TNUMBER) return luaL_tolstring(L, i, NULL);
    if (luaL_getmetafield(L, i, "__name") != LUA_TSTRING) return lua_pushfstring(L, "a %s", luaL_typename(L, i));
    const char *name = lua_tostring(L, -1), *dot = strrchr(name, '.'); /* "gradrun.Tensor" */
    return lua_pushfstring(L, "a %s", dot ? dot + 1 : name);
}

static int args_type_error(lua_State *L, const char *who, const gr_attr *a, int i, const char *want) {
    return luaL_error(L, "%s: %s is %s, expected %s", who, a->name, lgr_push_shown(L, i), want);
}

static int64_t args_integer(lua_State *L, const char *who, const gr_attr *a, int i) {
    int ok;
    lua_Integer v = lua_tointegerx(L, i, &ok);
    if (!ok || lua_type(L, i) != LUA_TNUMBER) args_type_error(L, who, a, i, "a whole number");
    return v;
}

static const char *args_number(lua_State *L, double v) { /* as a script would write it; left on the stack */
    if (fabs(v) < 1e15 && v == (double)(lua_Integer)v) return lua_pushfstring(L, "%I", (LUAI_UACINT)v);
    return lua_pushfstring(L, "%f", v);
}

static void args_range(lua_State *L, const char *who, const gr_attr *a, double v) {
    if ((a->min == 0 && a->max == 0) || (v >= a->min && v <= a->max)) return;
    const char *got = args_number(L, v);
    if (isinf(a->max) || a->max >= 1e9)
        luaL_error(L, "%s: %s is %s, expected at least %s", who, a->name, got, args_number(L, a->min));
    luaL_error(L, "%s: %s is %s, expected %s to %s", who, a->name, got, args_number(L, a->min),
               args_number(L, a->max));
}

static int64_t args_from_one(lua_State *L, const char *who, const gr_attr *a, int64_t v) {
    if (v == 0)
        luaL_error(L, "%s: %s is 0, but dimensions and positions count from 1 (or from the end: -1)", who, a->name);
    return v > 0 ? v - 1 : v;
}

static int64_t args_word(lua_State *L, const char *who, const gr_attr *a, int i) {
    if (lua_type(L, i) != LUA_TSTRING) args_type_error(L, who, a, i, a->words);
    const char *s = lua_tostring(L, i);
    int64_t at = 0;
    for (const char *p = a->words; *p; at++) {
        size_t n = strcspn(p, " ");
        if (strlen(s) == n && memcmp(s, p, n) == 0) return at;
        p += n + (p[n] == ' ');
    }
    return lgr_unknown(L, who, a->name, s, a->words);
}

static void args_dims(lua_State *L, const char *who, const gr_attr *a, int i, gr_dims *d) {
    i = lua_absindex(L, i);
    bool table = lua_istable(L, i);
    lua_Integer n = table ? (lua_Integer)lua_rawlen(L, i) : 1;
    if (n > GR_MAX_RANK)
        luaL_error(L, "%s: %s has %d entries, at most %d are possible", who, a->name, (int)n, GR_MAX_RANK);
    gr_dims read = {.n = (int32_t)n};
    for (lua_Integer k = 1; k <= n; k++) {
        if (table) lua_rawgeti(L, i, k);
        else lua_pushvalue(L, i);
        int64_t v = args_integer(L, who, a, -1);
        read.v[k - 1] = a->kind == GR_ATTR_DIMS ? args_from_one(L, who, a, v) : v;
        lua_pop(L, 1);
    }
    *d = read;
}

static void args_pair(lua_State *L, const char *who, const gr_attr *a, int i, int64_t *pair) {
    i = lua_absindex(L, i);
    int64_t read[2];
    for (int k = 0; k < 2; k++) {
        if (lua_istable(L, i)) {
            if (lua_rawlen(L, i) != 2) args_type_error(L, who, a, i, "a whole number or two of them");
            lua_rawgeti(L, i, k + 1);
        } else {
            lua_pushvalue(L, i);
        }
        read[k] = args_integer(L, who, a, -1);
        args_range(L, who, a, (double)read[k]);
        lua_pop(L, 1);
    }
    memcpy(pair, read, sizeof read);
}

void lgr_read_attr(lua_State *L, lgr_state *st, const gr_attr *a, int i, void *attrs, const char *who) {
    void *at = (char *)attrs + a->offset;
    int64_t whole;
    (void)st;
    switch (a->kind) { /* attrs may be in use: what is not right is refused before it is written */
    case GR_ATTR_REAL:
        if (lua_type(L, i) != LUA_TNUMBER) args_type_error(L, who, a, i, "a number");
        args_range(L, who, a, lua_tonumber(L, i));
        *(double *)at = lua_tonumber(L, i);
        break;
    case GR_ATTR_INT:
        whole = args_integer(L, who, a, i);
        args_range(L, who, a, (double)whole);
        *(int64_t *)at = whole;
        break;
    case GR_ATTR_BOOL:
        if (!lua_isboolean(L, i)) args_type_error(L, who, a, i, "true or false");
        *(bool *)at = lua_toboolean(L, i);
        break;
    case GR_ATTR_DIM:
    case GR_ATTR_POS: *(int64_t *)at = args_from_one(L, who, a, args_integer(L, who, a, i)); break;
    case GR_ATTR_DIMS:
    case GR_ATTR_SHAPE: args_dims(L, who, a, i, at); break;
    case GR_ATTR_PAIR: args_pair(L, who, a, i, at); break;
    case GR_ATTR_DTYPE: *(int64_t *)at = lgr_check_dtype(L, i); break;
    case GR_ATTR_WORD: *(int64_t *)at = args_word(L, who, a, i); break;
    }
}

void lgr_push_attr(lua_State *L, const gr_attr *a, const void *attrs) {
    const void *at = (const char *)attrs + a->offset;
    const gr_dims *d = at;
    switch (a->kind) {
    case GR_ATTR_REAL: lua_pushnumber(L, *(const double *)at); break;
    case GR_ATTR_BOOL: lua_pushboolean(L, *(const bool *)at); break;
    case GR_ATTR_DTYPE:
        if (*(const int64_t *)at < 0) lua_pushnil(L);
        else lua_pushstring(L, gr_dtype_name((gr_dtype) * (const int64_t *)at));
        break;
    case GR_ATTR_DIM:
    case GR_ATTR_POS:
        if (*(const int64_t *)at == GR_POS_NONE) lua_pushnil(L);
        else lua_pushinteger(L, *(const int64_t *)at >= 0 ? *(const int64_t *)at + 1 : *(const int64_t *)at);
        break;
    case GR_ATTR_PAIR:
        lua_createtable(L, 2, 0);
        for (int k = 0; k < 2; k++) {
            lua_pushinteger(L, ((const int64_t *)at)[k]);
            lua_rawseti(L, -2, k + 1);
        }
        break;
    case GR_ATTR_DIMS:
    case GR_ATTR_SHAPE:
        lua_newtable(L);
        for (int k = 0; k < d->n; k++) {
            lua_pushinteger(L, d->v[k] + (a->kind == GR_ATTR_DIMS && d->v[k] >= 0));
            lua_rawseti(L, -2, k + 1);
        }
        break;
    case GR_ATTR_WORD: {
        const char *p = a->words;
        for (int64_t k = *(const int64_t *)at; k > 0; k--) p += strcspn(p, " ") + 1;
        lua_pushlstring(L, p, strcspn(p, " "));
        break;
    }
    default: lua_pushinteger(L, *(const int64_t *)at); break;
    }
}

/* ---- whole structs -------------------------------------------------------------------------------------- */

static bool args_listed(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *p = list; p && *p;) {
        size_t k = strcspn(p, " ");
        if (k == n && memcmp(p, name, n) == 0) return true;
        p += k + (p[k] == ' ');
    }
    return false;
}

static bool args_is_empty(lua_State *L, int i) {
    lua_pushnil(L);
    if (!lua_next(L, i)) return true;
    lua_pop(L, 2);
    return false;
}

/* Options by name: a table whose keys are strings. */
static bool args_is_options(lua_State *L, int i) {
    if (!lua_istable(L, i)) return false;
    lua_pushnil(L);
    if (!lua_next(L, i)) return true; /* {} */
    bool named = lua_type(L, -2) == LUA_TSTRING;
    lua_pop(L, 2);
    return named;
}

bool lgr_read_option(lua_State *L, lgr_state *st, const gr_info *info, const char *name, void *attrs) {
    const gr_attr *a = lgr_find_attr(info, name);
    if (a) return lgr_read_attr(L, st, a, lua_gettop(L), attrs, info->name), true;
    const gr_attr *b1 = lgr_find_attr(info, "beta1"), *b2 = lgr_find_attr(info, "beta2");
    if (strcmp(name, "betas") != 0 || !b1 || !b2) return false;
    int i = lua_gettop(L);
    if (!lua_istable(L, i) || lua_rawlen(L, i) != 2)
        luaL_error(L, "%s: betas is not a table of two numbers", info->name);
    lua_rawgeti(L, i, 1);
    lgr_read_attr(L, st, b1, -1, attrs, info->name);
    lua_rawgeti(L, i, 2);
    lgr_read_attr(L, st, b2, -1, attrs, info->name);
    lua_pop(L, 2);
    return true;
}

static uint64_t args_options(lua_State *L, lgr_state *st, const gr_info *info, int i, void *attrs) {
    uint64_t given = 0;
    lua_pushnil(L);
    while (lua_next(L, i)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "%s: option table has the key %s; names are expected", info->name,
                       lgr_push_shown(L, -2));
        const char *name = lua_tostring(L, -2);
        const gr_attr *a = lgr_find_attr(info, name);
        bool creator = info->inputs && !*info->inputs; /* requires_grad is for op_call */
        if (!lgr_read_option(L, st, info, name, attrs) && !(creator && strcmp(name, "requires_grad") == 0))
            args_unknown_option(L, info, name);
        if (a) given |= 1ull << (a - info->attrs);
        lua_pop(L, 1);
    }
    return given;
}

static bool args_takes_list(const gr_attr *a) {
    return a->name && (a->kind == GR_ATTR_SHAPE || a->kind == GR_ATTR_DIMS);
}

uint64_t lgr_read_attrs(lua_State *L, lgr_state *st, const gr_info *info, int first, void *attrs,
                        const char *filled) {
    int top = lua_gettop(L), i = first;
    uint64_t given = 0;
    gr_attrs_default(info, attrs);
    for (const gr_attr *a = info->attrs; a && a->name; a++) /* new tensors are of the script's default dtype */
        if (a->kind == GR_ATTR_DTYPE && a->value >= 0)
            *(int64_t *)((char *)attrs + a->offset) = gr_default_dtype(st->ctx);
    for (const gr_attr *a = info->attrs; a && a->name && i <= top; a++) {
        if (args_listed(filled, a->name)) continue;
        bool scalar =
            i == first && a->kind == GR_ATTR_SHAPE && a->required && lua_istable(L, i) && args_is_empty(L, i);
        if (i == top && args_is_options(L, i) && !scalar) break; /* x:view{} has a shape without sizes */
        if (lua_isnil(L, i)) {
            i++;
            continue;
        }
        bool several = args_takes_list(a) && !args_takes_list(a + 1) && lua_isinteger(L, i);
        if (several && i < top && lua_isinteger(L, i + 1)) { /* x:view(3, 4), but x:roll(2, 1): one each */
            gr_dims *d = (gr_dims *)((char *)attrs + a->offset);
            int n = 0;
            while (i + n <= top && lua_isinteger(L, i + n)) n++;
            if (n > GR_MAX_RANK) luaL_error(L, "%s: %d sizes, at most %d are possible", info->name, n, GR_MAX_RANK);
            for (int k = 0; k < n; k++) {
                gr_dims one;
                args_dims(L, info->name, a, i + k, &one);
                d->v[k] = one.v[0];
            }
            d->n = n;
            i += n;
        } else {
            lgr_read_attr(L, st, a, i++, attrs, info->name);
        }
        given |= 1ull << (a - info->attrs);
    }
    if (i == top && args_is_options(L, i)) given |= args_options(L, st, info, i++, attrs);
    if (i <= top && !lua_isnil(L, i))
        luaL_error(L, "%s: argument %d (%s) is one too many", info->name, i, lgr_push_shown(L, i));
    for (const gr_attr *a = info->attrs; a && a->name; a++)
        if (a->required && !(given >> (a - info->attrs) & 1) && !args_listed(filled, a->name))
            luaL_error(L, "%s: %s is missing", info->name, a->name);
    return given;
}

/* ---- tensors -------------------------------------------------------------------------------------------- */

void lgr_check_parameters(lua_State *L, lgr_state *st, int i) {
    if (lua_istable(L, i)) return;
    const char *hint = lgr_to_box(L, st, i, LGR_LAYER) ? ": its parameters are layer:parameters()"
        : lgr_to_box(L, st, i, LGR_TENSOR)             ? ": put it in a table"
                                                       : "";
    lua_pushfstring(L, "a list of parameters expected, got %s%s",
                    lua_isnone(L, i) ? "no value" : lgr_push_shown(L, i), hint);
    luaL_argerror(L, i, lua_tostring(L, -1));
}

gr_tensor **lgr_check_list(lua_State *L, lgr_state *st, int i, int *n) {
    lgr_check_parameters(L, st, i);
    i = lua_absindex(L, i);
    lua_Integer count = (lua_Integer)lua_rawlen(L, i);
    if (count > ARGS_LIST)
        luaL_error(L, "a list of %I tensors, at most %d are possible", (LUAI_UACINT)count, ARGS_LIST);
    gr_tensor **list = lua_newuserdatauv(L, ((size_t)count + 1) * sizeof *list, (int)count);
    for (lua_Integer k = 1; k <= count; k++) {
        lua_rawgeti(L, i, k);
        lgr_box *b = lgr_to_box(L, st, -1, LGR_TENSOR);
        if (!b || !b->object)
            luaL_error(L, "entry %d of the list is %s, expected a tensor", (int)k,
                       b ? "a closed tensor" : luaL_typename(L, -1));
        list[k - 1] = b->object;
        lua_setiuservalue(L, -2, (int)k);
    }
    *n = (int)count;
    return list;
}

const char *lgr_check_path(lua_State *L, int i) {
    size_t n;
    const char *path = luaL_checklstring(L, i, &n);
    luaL_argcheck(L, strlen(path) == n, i, "a path has no zero byte in it");
    return path;
}

int64_t lgr_check_dim(lua_State *L, int i) {
    lua_Integer v = luaL_checkinteger(L, i);
    if (v == 0) luaL_argerror(L, i, "dimensions and positions count from 1 (or from the end: -1)");
    return v > 0 ? v - 1 : v;
}

/* ---- the same for modules written in Lua ----------------------------------------------------------------- */

/* gr.unknown(who, what, name, names) -> the text of such an error */
static int args_unknown_text(lua_State *L) {
    const char *who = luaL_checkstring(L, 1), *what = luaL_checkstring(L, 2), *name = luaL_checkstring(L, 3);
    args_unknown(L, who, what, name, luaL_checkstring(L, 4));
    return 1;
}

/* gr.shown(value) -> the value as a message shows it */
static int args_shown(lua_State *L) {
    luaL_checkany(L, 1);
    lgr_push_shown(L, 1);
    return 1;
}

static const luaL_Reg args_functions[] = {{"unknown", args_unknown_text}, {"shown", args_shown}, {0}};

void lgr_open_args(lua_State *L, lgr_state *st) { lgr_set_functions(L, st, args_functions); }
