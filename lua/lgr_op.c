/* Every op as a function gr.NAME(...), a method t:NAME(...), and, where it has one, an in-place form
 * t:NAME_(...). Made from the descriptors: an op added to runtime/ops/ is here without another line.
 *
 * Upvalues of these functions: the op as the binding calls it (lgr_opcall), the tensors' metatable. */
#include <math.h>
#include <string.h>

#include "lgr.h"

#define LGR_INPUTS 8

static inline const lgr_opcall *op_called(lua_State *L) { /* as lgr_upstate */
    const lgr_opcall *o = lua_touserdata(L, lua_upvalueindex(1));
    lgr_want_open(L, o->st);
    return o;
}

/* What the tensor arguments were. Numbers become tensors only after every check. */
typedef struct op_inputs {
    gr_tensor *in[LGR_INPUTS];
    double number[LGR_INPUTS];
    lua_Integer integer[LGR_INPUTS]; /* the same, if it is whole */
    uint8_t is_number; /* bits */
    bool whole[LGR_INPUTS];
    bool anchored;
    int n, next; /* inputs; first argument after them */
    int lead;    /* where the attribute between the tensors is, or 0 */
} op_inputs;

static void op_read_inputs(lua_State *L, lgr_state *st, const lgr_opcall *o, int first, op_inputs *x) {
    x->is_number = 0;
    x->anchored = false;
    x->n = x->lead = 0;
    int i = first;
    for (; x->n < o->max_in; x->n++, i++) {
        if (o->lead && x->n == 1 && lua_isinteger(L, i)) x->lead = i++;
        lgr_box *b = lgr_to_box(L, st, i, LGR_TENSOR);
        x->in[x->n] = NULL;
        if (b) {
            if (!b->object) luaL_argerror(L, i, "the tensor was closed");
            x->in[x->n] = b->object;
            x->anchored |= b->anchored;
            continue;
        }
        bool optional = o->optional >> x->n & 1;
        if (!optional && lua_type(L, i) == LUA_TNUMBER && gr_op_in_place(o->op)) {
            x->is_number |= (uint8_t)(1u << x->n);
            x->whole[x->n] = lua_isinteger(L, i);
            x->number[x->n] = lua_tonumber(L, i);
            x->integer[x->n] = lua_tointeger(L, i);
        } else if (!optional) {
            luaL_error(L, "%s: argument %d is %s, expected a tensor", o->info->name, i,
                       lua_isnone(L, i) ? "missing" : luaL_typename(L, i));
        } else if (!lua_isnil(L, i)) {
            break; /* the options begin here */
        }
    }
    x->next = i;
}

/* The dtype of a number among the inputs: that of the tensors it meets, unless it would not fit; where it goes into
 * the first input, that one's. */
static gr_dtype op_number_dtype(lgr_state *st, const lgr_opcall *o, const op_inputs *x, int i) {
    gr_dtype t = GR_U8;
    if (!gr_op_elementwise(o->op) && !(x->is_number & 1)) return gr_tensor_dtype(x->in[0]);
    bool any = false, f64 = false, f32 = false, i64 = false;
    for (int k = 0; k < x->n; k++) {
        if (!x->in[k] || x->is_number >> k & 1) continue;
        t = gr_tensor_dtype(x->in[k]);
        any = true;
        f64 |= t == GR_F64, f32 |= t == GR_F32, i64 |= t == GR_I64;
    }
    if (f32) return GR_F32;
    if (f64) return GR_F64;
    if (!any || !x->whole[i]) return gr_default_dtype(st->ctx);
    return i64 || x->number[i] < 0 || x->number[i] > 255 ? GR_I64 : GR_U8;
}

static gr_status op_numbers(lgr_state *st, const lgr_opcall *o, op_inputs *x) {
    for (int k = 0; k < x->n; k++) {
        if (!(x->is_number >> k & 1)) continue;
        gr_dtype t = op_number_dtype(st, o, x, k);
        gr_status s = t == GR_I64 && x->whole[k] ? lgr_new_integer(st->ctx, x->integer[k], &x->in[k])
                                                 : gr_tensor_scalar(st->ctx, t, x->number[k], &x->in[k]);
        if (s != GR_OK) return s;
    }
    return GR_OK;
}

static void op_release_numbers(op_inputs *x) {
    for (int k = 0; k < x->n && x->is_number; k++)
        if (x->is_number >> k & 1) gr_release(x->in[k]);
}

static gr_status op_run(lgr_state *st, const lgr_opcall *o, op_inputs *x, const void *attrs, gr_tensor **out,
                        gr_tensor *dst) {
    gr_status s = op_numbers(st, o, x);
    if (s == GR_OK && dst) s = gr_apply_into(st->ctx, o->op, x->n, x->in, attrs, dst);
    else if (s == GR_OK) s = gr_apply(st->ctx, o->op, x->n, x->in, attrs, out);
    op_release_numbers(x);
    return s;
}

static bool op_given(const gr_info *info, uint64_t given, const char *name) {
    const gr_attr *a = lgr_find_attr(info, name);
    return a && given >> (a - info->attrs) & 1;
}

/* The next stream of the generator, unless the script named its own. */
static void op_draw(lua_State *L, lgr_state *st, const gr_info *info, uint64_t given, void *attrs) {
    int64_t seed, counter;
    bool named = op_given(info, given, "seed");
    if (named != op_given(info, given, "counter")) luaL_error(L, "%s: seed and counter go together", info->name);
    if (named) return;
    gr_random_next(st->ctx, &seed, &counter);
    memcpy((char *)attrs + lgr_find_attr(info, "seed")->offset, &seed, sizeof seed);
    memcpy((char *)attrs + lgr_find_attr(info, "counter")->offset, &counter, sizeof counter);
}

static void op_read_attrs(lua_State *L, lgr_state *st, const lgr_opcall *o, const op_inputs *x, void *attrs) {
    const char *filled = x->lead ? o->lead->name : o->draws ? "seed counter" : NULL;
    uint64_t given = lgr_read_attrs(L, st, o->info, x->next, attrs, filled);
    if (x->lead) lgr_read_attr(L, st, o->lead, x->lead, attrs, o->info->name);
    if (o->draws) op_draw(L, st, o->info, given, attrs);
}

/* gr.rand({2, 3}, {requires_grad = true}) */
static bool op_wants_grad(lua_State *L, int top) {
    if (!lua_istable(L, top)) return false;
    lua_pushliteral(L, "requires_grad");
    lua_rawget(L, top);
    bool on = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return on;
}

/* Is there a dim among the attributes, the first of which is argument i? By position it comes first. */
static bool op_gives_dim(lua_State *L, int i) {
    if (!lua_istable(L, i)) return !lua_isnoneornil(L, i);
    lua_pushliteral(L, "dim");
    bool given = lua_rawget(L, i) != LUA_TNIL;
    lua_pop(L, 1);
    return given;
}

/* gr.NAME(a, b, ..., options) */
static int op_call(lua_State *L) {
    const lgr_opcall *o = op_called(L);
    lgr_state *st = o->st;
    uint64_t buffer[32];
    void *attrs = NULL;
    op_inputs x;
    gr_tensor *out[4];
    lgr_pressure(L, st);
    op_read_inputs(L, st, o, 1, &x);
    if (o->over_all && !op_gives_dim(L, x.next)) o = o->over_all;
    if (o->info->attr_size) op_read_attrs(L, st, o, &x, attrs = buffer);
    else if (lua_gettop(L) >= x.next && !lua_isnil(L, x.next))
        return luaL_error(L, "%s: argument %d is one too many", o->info->name, x.next);
    int n = o->outputs, base = lua_gettop(L);
    bool grad = o->max_in == 0 && op_wants_grad(L, base);
    lgr_box *box[4];
    for (int i = 0; i < n; i++) {
        box[i] = lgr_new_box_with(L, st, lua_upvalueindex(2));
        if (st->scope) lgr_enter_scope(box[i], st->scope);
    }
    gr_status s = op_run(st, o, &x, attrs, out, NULL);
    if (s != GR_OK && lgr_retry(L, st, s)) s = op_run(st, o, &x, attrs, out, NULL);
    if (s != GR_OK) return lgr_raise(L, st);
    for (int i = 0; i < n; i++) box[i]->object = out[i];
    if (grad && gr_tensor_set_requires_grad(out[0], true) != GR_OK) return lgr_raise(L, st);
    if (x.anchored)
        for (int k = 0; k < x.n; k++)
            if (x.in[k] && !(x.is_number >> k & 1))
                for (int i = 0; i < n; i++) lgr_anchor_like(L, base + 1 + i, k + 1 + (k > 0 && x.lead));
    return n;
}

/* gr.NAME({t1, t2, ...}, options) */
static int op_call_list(lua_State *L) {
    const lgr_opcall *o = op_called(L);
    lgr_state *st = o->st;
    uint64_t buffer[32];
    gr_tensor *out[4];
    int n;
    lgr_pressure(L, st);
    luaL_checktype(L, 1, LUA_TTABLE);
    lgr_read_attrs(L, st, o->info, 2, buffer, NULL);
    gr_tensor **in = lgr_check_list(L, st, 1, &n);
    lgr_box *b = lgr_new_box(L, st, LGR_TENSOR);
    gr_status s = gr_apply(st->ctx, o->op, n, in, buffer, out);
    if (s != GR_OK && lgr_retry(L, st, s)) s = gr_apply(st->ctx, o->op, n, in, buffer, out);
    if (s != GR_OK) return lgr_raise(L, st);
    b->object = out[0];
    int result = lua_gettop(L);
    for (int k = 1; k <= n; k++) {
        lua_rawgeti(L, 1, k);
        if (((lgr_box *)lua_touserdata(L, -1))->anchored) lgr_anchor_like(L, result, -1);
        lua_settop(L, result);
    }
    return 1;
}

/* t:NAME_(b, ..., options): t = NAME(t, b, ...), in place; returns t */
static int op_call_into(lua_State *L) {
    const lgr_opcall *o = op_called(L);
    lgr_state *st = o->st;
    uint64_t buffer[32];
    void *attrs = NULL;
    op_inputs x;
    gr_tensor *dst = lgr_check_tensor(L, st, 1);
    lgr_pressure(L, st);
    op_read_inputs(L, st, o, 1, &x);
    if (o->info->attr_size) op_read_attrs(L, st, o, &x, attrs = buffer);
    gr_status s = op_run(st, o, &x, attrs, NULL, dst);
    if (s != GR_OK && lgr_retry(L, st, s)) s = op_run(st, o, &x, attrs, NULL, dst);
    if (s != GR_OK) return lgr_raise(L, st);
    lua_settop(L, 1);
    return 1;
}

/* t:uniform_(lo, hi): an op without inputs fills t; shape and dtype are t's */
static int op_fill(lua_State *L) {
    const lgr_opcall *o = op_called(L);
    lgr_state *st = o->st;
    uint64_t buffer[32];
    gr_tensor *dst = lgr_check_tensor(L, st, 1);
    uint64_t given = lgr_read_attrs(L, st, o->info, 2, buffer, "seed counter shape dtype");
    if (op_given(o->info, given, "shape") || op_given(o->info, given, "dtype"))
        return luaL_error(L, "%s_: shape and dtype are the tensor's own", o->info->name);
    if (o->draws) op_draw(L, st, o->info, given, buffer);
    gr_dims *shape = (gr_dims *)((char *)buffer + lgr_find_attr(o->info, "shape")->offset);
    shape->n = gr_tensor_rank(dst);
    memcpy(shape->v, gr_tensor_dims_peek(dst), (size_t)shape->n * sizeof *shape->v);
    const gr_attr *dtype = lgr_find_attr(o->info, "dtype");
    int64_t t = gr_tensor_dtype(dst);
    if (dtype) memcpy((char *)buffer + dtype->offset, &t, sizeof t);
    if (gr_apply_into(st->ctx, o->op, 0, NULL, buffer, dst) != GR_OK) return lgr_raise(L, st);
    lua_settop(L, 1);
    return 1;
}

/* ---- installing ----------------------------------------------------------------------------------------- */

static void op_describe(lgr_opcall *o, const gr_op *op) {
    *o = (lgr_opcall){.st = o->st, .op = op, .info = gr_op_info(op), .outputs = (uint8_t)gr_op_outputs(op)};
    for (const char *p = o->info->inputs; p && *p;) {
        size_t n = strcspn(p, " ");
        if (p[n - 1] == ':') {
            for (const gr_attr *a = o->info->attrs; a->name; a++)
                if (strlen(a->name) == n - 1 && memcmp(a->name, p, n - 1) == 0) o->lead = a;
            o->max_in--;
        } else if (p[n - 1] == '*') {
            o->list = true;
        } else if (p[n - 1] == '?') {
            o->optional |= (uint8_t)(1u << o->max_in);
        }
        o->max_in++;
        p += n + (p[n] == ' ');
    }
    o->draws = lgr_find_attr(o->info, "seed") && lgr_find_attr(o->info, "counter");
    for (int i = 0; o->info->over_all && i < gr_op_count(); i++)
        if (strcmp(gr_op_info(gr_op_at(i))->name, o->info->over_all) == 0) o->over_all = &o->st->ops[i];
}

static void op_push(lua_State *L, lgr_state *st, const lgr_opcall *o, lua_CFunction f) {
    lua_pushlightuserdata(L, (void *)o);
    lua_rawgetp(L, LUA_REGISTRYINDEX, st->metatable[LGR_TENSOR]);
    lua_pushcclosure(L, f, 2);
}

/* Describes the ops, and puts their methods into the table on top: NAME, and NAME_ where it works in place. */
void lgr_op_methods(lua_State *L, lgr_state *st) {
    for (int i = 0; i < gr_op_count(); i++) {
        lgr_opcall *o = &st->ops[i];
        o->st = st;
        op_describe(o, gr_op_at(i));
        bool fills = o->max_in == 0 && lgr_find_attr(o->info, "shape");
        if (o->info->hidden || o->list) continue;
        if (o->max_in > 0) {
            op_push(L, st, o, op_call);
            lua_setfield(L, -2, o->info->name);
        }
        if (!fills && !gr_op_in_place(o->op)) continue;
        lua_pushfstring(L, "%s_", o->info->name);
        op_push(L, st, o, fills ? op_fill : op_call_into);
        lua_rawset(L, -3);
    }
}

static const struct { const char *meta, *op; } op_operators[] = {
    {"__add", "add"}, {"__sub", "sub"}, {"__mul", "mul"}, {"__div", "div"}, {"__pow", "pow"},
    {"__mod", "remainder"}, {"__unm", "neg"}, {0}};

/* Arithmetic metamethods; a unary one is called with its operand twice. */
static int op_unary(lua_State *L) {
    lua_settop(L, 1);
    return op_call(L);
}

/* Helpers of backward rules are apart, in gr.hidden: specs try them as any op. */
void lgr_open_op(lua_State *L, lgr_state *st) {
    lua_newtable(L);
    for (int i = 0; i < gr_op_count(); i++) {
        const lgr_opcall *o = &st->ops[i];
        op_push(L, st, o, o->list ? op_call_list : op_call);
        lua_setfield(L, o->info->hidden ? -2 : -3, o->info->name);
    }
    lua_setfield(L, -2, "hidden");
}

/* Into the metatable on top. */
void lgr_op_operators(lua_State *L, lgr_state *st) {
    for (int k = 0; op_operators[k].meta; k++) {
        for (int i = 0; i < gr_op_count(); i++) {
            const lgr_opcall *o = &st->ops[i];
            if (strcmp(o->info->name, op_operators[k].op) != 0) continue;
            op_push(L, st, o, o->max_in == 1 ? op_unary : op_call);
            lua_setfield(L, -2, op_operators[k].meta);
        }
    }
}
