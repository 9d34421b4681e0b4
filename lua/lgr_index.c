/* Indexing: t[i], t[{i, {from, to}, {}}], t[mask], t[positions]; read and assigned. */
#include <string.h>

#include "lgr.h"

/* ---- views ---------------------------------------------------------------------------------------------- */

/* view = op(view; dim, ...) with the previous one released. The ops' attributes are found by name. */
static gr_status index_step(lgr_state *st, gr_tensor **view, const char *op, int n, const char *const *names,
                             const int64_t *values) {
    uint64_t attrs[32];
    const gr_op *o = gr_op_find(op);
    const gr_info *info = gr_op_info(o);
    gr_tensor *next;
    gr_attrs_default(info, attrs);
    for (int i = 0; i < n; i++)
        memcpy((char *)attrs + lgr_find_attr(info, names[i])->offset, &values[i], sizeof *values);
    gr_status s = gr_apply(st->ctx, o, 1, view, attrs, &next);
    if (s != GR_OK) return s;
    gr_release(*view);
    *view = next;
    return GR_OK;
}

typedef struct index_entry {
    int parts; /* 0: all; 1: one position; 2: from, to; 3: and a step */
    int64_t v[3];
} index_entry;

static int64_t index_check_position(lua_State *L, int i) {
    int ok;
    lua_Integer v = lua_tointegerx(L, i, &ok);
    if (!ok) luaL_error(L, "index: a position is a %s, expected a whole number", luaL_typename(L, i));
    if (v == 0) luaL_error(L, "index: positions count from 1 (or from the end: -1)");
    return v > 0 ? v - 1 : v;
}

/* t[i] or t[{1, {2, 5}, {}}]: entries from the key at `key`. */
static int index_read(lua_State *L, int key, index_entry *e) {
    if (lua_type(L, key) == LUA_TNUMBER) {
        e[0] = (index_entry){.parts = 1, .v = {index_check_position(L, key)}};
        return 1;
    }
    int n = (int)lua_rawlen(L, key);
    if (n > GR_MAX_RANK) luaL_error(L, "index: %d entries, at most %d are possible", n, GR_MAX_RANK);
    for (int k = 0; k < n; k++) {
        e[k] = (index_entry){.v = {0, -1, 1}};
        lua_rawgeti(L, key, k + 1);
        if (lua_istable(L, -1)) {
            int parts = (int)lua_rawlen(L, -1);
            if (parts == 1 || parts > 3)
                luaL_error(L, "index: entry %d has %d numbers; {}, {from, to} or {from, to, step} are expected",
                           k + 1, parts);
            e[k].parts = parts;
            for (int p = 0; p < parts; p++) {
                lua_rawgeti(L, -1, p + 1);
                e[k].v[p] = p < 2 ? index_check_position(L, -1) : luaL_checkinteger(L, -1);
                lua_pop(L, 1);
            }
        } else {
            e[k].parts = 1;
            e[k].v[0] = index_check_position(L, -1);
        }
        lua_pop(L, 1);
    }
    return n;
}

/* The view the entries name (+1). */
static gr_status index_take(lgr_state *st, gr_tensor *t, int n, const index_entry *e, gr_tensor **out) {
    static const char *const at_select[] = {"dim", "index"}, *const at_slice[] = {"dim", "start", "stop", "step"};
    gr_tensor *view = gr_retain(t);
    int64_t dim = 0;
    gr_status s = GR_OK;
    if (n > gr_tensor_rank(t))
        s = gr_fail(st->ctx, GR_ERR_INDEX, "index: %d entries for a tensor of %d dimensions", n, gr_tensor_rank(t));
    for (int k = 0; s == GR_OK && k < n; k++) {
        if (e[k].parts == 1) {
            s = index_step(st, &view, "select", 2, at_select, (int64_t[]){dim, e[k].v[0]});
            continue;
        }
        if (e[k].parts >= 2)
            s = index_step(st, &view, "slice", 4, at_slice, (int64_t[]){dim, e[k].v[0], e[k].v[1], e[k].v[2]});
        dim++;
    }
    if (s == GR_OK) *out = view;
    else gr_release(view);
    return s;
}

/* ---- masks and positions -------------------------------------------------------------------------------- */

typedef enum index_kind { INDEX_MASK, INDEX_ROWS, INDEX_POSITIONS } index_kind;

/* What the tensor k means as an index of t: a mask of t's shape, a mask of its rows, positions of rows. */
static index_kind index_kind_of(lua_State *L, const gr_tensor *t, const gr_tensor *k) {
    gr_dtype type = gr_tensor_dtype(k);
    int rank = gr_tensor_rank(t), own = gr_tensor_rank(k);
    const int64_t *dims = gr_tensor_dims_peek(t), *sizes = gr_tensor_dims_peek(k);
    if (type != GR_U8 && type != GR_I64)
        luaL_error(L, "index: a tensor of dtype %s; a mask (u8) or positions (i64) are expected", gr_dtype_name(type));
    if (rank == 0) luaL_error(L, "index: a scalar has no positions");
    if (type == GR_I64) {
        if (own > 1) luaL_error(L, "index: positions in %d dimensions, expected one", own);
        return INDEX_POSITIONS;
    }
    if (own == rank && memcmp(dims, sizes, (size_t)rank * sizeof *dims) == 0) return INDEX_MASK;
    if (own != 1 || sizes[0] != dims[0])
        luaL_error(L, "index: the mask has neither the tensor's shape nor one entry for each of its %I positions in "
                   "dimension 1", (LUAI_UACINT)dims[0]);
    return INDEX_ROWS;
}

/* Tensors made on the way, released together. */
typedef struct index_made {
    lgr_state *st;
    gr_tensor *all[8];
    int n;
} index_made;

/* An op by its name; shape: of the attribute "shape", if it has one. */
static gr_status index_make(index_made *m, gr_tensor **out, const char *op, int n, gr_tensor *const *in,
                            const gr_dims *shape) {
    uint64_t attrs[32];
    const gr_op *o = gr_op_find(op);
    const gr_info *info = gr_op_info(o);
    gr_attrs_default(info, attrs);
    if (shape) memcpy((char *)attrs + lgr_find_attr(info, "shape")->offset, shape, sizeof *shape);
    gr_status s = gr_apply(m->st->ctx, o, n, in, attrs, out);
    if (s == GR_OK) m->all[m->n++] = *out;
    return s;
}

static void index_release(index_made *m) {
    while (m->n) gr_release(m->all[--m->n]);
}

static gr_dims index_shape(const gr_tensor *t) {
    gr_dims d = {.n = gr_tensor_rank(t)};
    memcpy(d.v, gr_tensor_dims_peek(t), (size_t)d.n * sizeof *d.v);
    return d;
}

/* k with a dimension of size 1 for each that t has after the first. */
static gr_status index_column(index_made *m, const gr_tensor *t, gr_tensor *k, gr_tensor **out) {
    gr_dims d = {.n = gr_tensor_rank(t), .v = {gr_tensor_numel(k), 1, 1, 1, 1, 1, 1, 1}};
    return index_make(m, out, "reshape", 1, &k, &d);
}

/* The positions where a mask of one dimension is not 0. */
static gr_status index_positions(index_made *m, gr_tensor *mask, gr_tensor **out) {
    uint64_t attrs[32];
    const gr_op *range = gr_op_find("range");
    const gr_info *info = gr_op_info(range);
    double stop = (double)gr_tensor_numel(mask), start = 1;
    gr_tensor *all;
    gr_attrs_default(info, attrs);
    memcpy((char *)attrs + lgr_find_attr(info, "start")->offset, &start, sizeof start);
    memcpy((char *)attrs + lgr_find_attr(info, "stop")->offset, &stop, sizeof stop);
    gr_status s = gr_apply(m->st->ctx, range, 0, NULL, attrs, &all);
    if (s != GR_OK) return s;
    m->all[m->n++] = all;
    return index_make(m, out, "masked_select", 2, (gr_tensor *[]){all, mask}, NULL);
}

static gr_status index_pick(index_made *m, gr_tensor *t, gr_tensor *k, index_kind kind, gr_tensor **out) {
    if (kind == INDEX_MASK) return index_make(m, out, "masked_select", 2, (gr_tensor *[]){t, k}, NULL);
    gr_status s = kind == INDEX_ROWS ? index_positions(m, k, &k) : GR_OK;
    return s == GR_OK ? index_make(m, out, "index_select", 2, (gr_tensor *[]){t, k}, NULL) : s;
}

/* value: one, or as many as are selected, or what broadcasts over the rows. */
static gr_status index_put_mask(index_made *m, gr_tensor *t, gr_tensor *mask, index_kind kind, gr_tensor *value) {
    gr_dims shape = index_shape(t), flat = {.n = 1, .v = {gr_tensor_numel(value)}};
    const gr_tensor *given = value;
    gr_tensor *count;
    double selected;
    gr_status s = index_make(m, &count, "sum", 1, &mask, NULL);
    if (s == GR_OK && kind == INDEX_ROWS) s = index_column(m, t, mask, &mask);
    if (s == GR_OK) s = gr_tensor_item(count, &selected);
    if (s != GR_OK) return s;
    for (int d = 1; kind == INDEX_ROWS && d < shape.n; d++) selected *= (double)shape.v[d];
    if (gr_tensor_rank(value) > 0 && (double)gr_tensor_numel(value) == selected) {
        s = index_make(m, &value, "reshape", 1, &value, &flat);
        if (s == GR_OK) s = index_make(m, &value, "masked_select_backward", 2, (gr_tensor *[]){value, mask}, &shape);
    } else if (gr_tensor_numel(value) != 1 && (kind == INDEX_MASK || gr_tensor_rank(value) >= shape.n)) {
        s = gr_fail(m->st->ctx, GR_ERR_SHAPE, "assignment: the mask selects %.0f elements, the value has %lld", selected,
                    (long long)gr_tensor_numel(given));
    }
    return s == GR_OK ? gr_apply_into(m->st->ctx, gr_op_find("where"), 3, (gr_tensor *[]){mask, value, t}, NULL, t) : s;
}

/* value broadcasts to t with as many rows as there are positions. */
static gr_status index_put_positions(index_made *m, gr_tensor *t, gr_tensor *k, gr_tensor *value) {
    gr_dims shape = index_shape(t);
    uint64_t attrs[32];
    const gr_info *to = gr_op_info(gr_op_find("to"));
    int64_t dtype = gr_tensor_dtype(t);
    shape.v[0] = gr_tensor_numel(k);
    gr_attrs_default(to, attrs);
    memcpy((char *)attrs + lgr_find_attr(to, "dtype")->offset, &dtype, sizeof dtype);
    gr_status s = gr_apply(m->st->ctx, gr_op_find("to"), 1, &value, attrs, &value);
    if (s != GR_OK) return s;
    m->all[m->n++] = value;
    if (gr_tensor_rank(value) > 0) s = index_make(m, &value, "expand", 1, &value, &shape);
    if (s == GR_OK) s = index_column(m, t, k, &k);
    if (s == GR_OK) s = index_make(m, &k, "expand", 1, &k, &shape);
    int64_t dim = 0;
    return s == GR_OK ? gr_apply_into(m->st->ctx, gr_op_find("scatter"), 3, (gr_tensor *[]){t, k, value}, &dim, t) : s;
}

/* ---- t[k] and t[k] = value ------------------------------------------------------------------------------ */

static int index_by_tensor(lua_State *L, lgr_state *st, gr_tensor *t, gr_tensor *k) {
    index_made m = {.st = st};
    gr_tensor *out;
    index_kind kind = index_kind_of(L, t, k);
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_TENSOR);
    gr_status s = index_pick(&m, t, k, kind, &out);
    if (s == GR_OK) b->object = gr_retain(out);
    index_release(&m);
    if (s != GR_OK) return lgr_raise(L, st);
    lgr_anchor_like(L, -1, 1);
    return 1;
}

int lgr_tensor_index(lua_State *L, lgr_state *st) {
    index_entry e[GR_MAX_RANK];
    gr_tensor *t = lgr_check_tensor(L, st, 1), *view;
    if (lgr_to_box(L, st, 2, LGR_TENSOR)) return index_by_tensor(L, st, t, lgr_check_tensor(L, st, 2));
    if (lua_type(L, 2) != LUA_TNUMBER && !lua_istable(L, 2))
        return luaL_error(L, "a tensor cannot be indexed with a %s", luaL_typename(L, 2));
    int n = index_read(L, 2, e);
    lgr_pressure(L, st);
    lgr_box *b = lgr_new_box(L, st, LGR_TENSOR);
    if (index_take(st, t, n, e, &view) != GR_OK) return lgr_raise(L, st);
    b->object = view;
    lgr_anchor_like(L, -1, 1);
    return 1;
}

static int index_assign_by_tensor(lua_State *L, lgr_state *st, gr_tensor *t, gr_tensor *k) {
    index_made m = {.st = st};
    gr_tensor *value = lgr_to_tensor(L, st, 3);
    index_kind kind = index_kind_of(L, t, k);
    gr_status s = GR_OK;
    lgr_pressure(L, st);
    if (!value) {
        s = gr_tensor_dtype(t) == GR_I64 && lua_isinteger(L, 3)
                ? lgr_new_integer(st->ctx, lua_tointeger(L, 3), &value)
                : gr_tensor_scalar(st->ctx, gr_tensor_dtype(t), lua_tonumber(L, 3), &value);
        if (s == GR_OK) m.all[m.n++] = value;
    }
    if (s == GR_OK)
        s = kind == INDEX_POSITIONS ? index_put_positions(&m, t, k, value) : index_put_mask(&m, t, k, kind, value);
    index_release(&m);
    return s == GR_OK ? 0 : lgr_raise(L, st);
}

int lgr_tensor_assign(lua_State *L, lgr_state *st) {
    index_entry e[GR_MAX_RANK];
    gr_tensor *t = lgr_check_tensor(L, st, 1), *view, *value = lgr_to_tensor(L, st, 3);
    if (!value && lua_type(L, 3) != LUA_TNUMBER)
        return luaL_error(L, "assignment: %s, expected a number or a tensor", luaL_typename(L, 3));
    if (lgr_to_box(L, st, 2, LGR_TENSOR)) return index_assign_by_tensor(L, st, t, lgr_check_tensor(L, st, 2));
    if (lua_type(L, 2) != LUA_TNUMBER && !lua_istable(L, 2))
        return luaL_error(L, "a tensor cannot be indexed with a %s", luaL_typename(L, 2));
    int n = index_read(L, 2, e);
    gr_status s = index_take(st, t, n, e, &view);
    if (s != GR_OK) return lgr_raise(L, st);
    s = value ? gr_tensor_copy(view, value) : lgr_fill_tensor(L, st, view, 3);
    gr_release(view);
    return s == GR_OK ? 0 : lgr_raise(L, st);
}
