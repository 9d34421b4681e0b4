/* Elements in another order along some dimensions: flip, from the last to the first; roll, shifted around.
 *
 * dx: the same of dy, for roll with the opposite shifts. Nothing is kept. Both are copies from views that no tensor
 * may be: flip's has negative strides, roll's are the parts that stay together. */
#include "copy.h"

/* ---- flip ---- */

typedef struct flip_attrs { gr_dims dims; } flip_attrs;

static gr_status flip_shape(gri_call *c) {
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &((const flip_attrs *)c->attrs)->dims, c->in[0]->rank, &mask));
    gri_spec_set(&c->spec[0], c->in[0]);
    return GR_OK;
}

static gr_status flip_forward(gri_call *c) {
    gr_tensor back = *c->in[0]; /* for this call only: it is no reference to the storage */
    uint32_t mask;
    GR_TRY(gri_dim_mask(c->ctx, &((const flip_attrs *)c->attrs)->dims, back.rank, &mask));
    for (int d = 0; d < back.rank; d++) {
        if (!(mask >> d & 1) || back.dims[d] < 2) continue;
        back.data += (back.dims[d] - 1) * back.strides[d] * (int64_t)gri_size((gr_dtype)back.dtype);
        back.strides[d] = -back.strides[d];
        back.contiguous = false;
    }
    return gri_copy(c->ctx, c->out[0], &back, c->mode);
}
GR_KERNEL(flip);

static gr_status flip_rule(gri_grad *g) { return gri_emit(g, 0, &gri_op_flip, 1, g->dy, g->attrs); }

static const gr_attr flip_schema[] = {
    {"dims", GR_ATTR_DIMS, offsetof(flip_attrs, dims), .required = true}, GR_ATTR_END};

static const gr_case flip_cases[] = {
    {.in = "2,3", .attrs = "dims={2}", .give = "{{1,2,3},{4,5,6}}", .want = "{{3,2,1},{6,5,4}}"},
    {.in = "2,3", .attrs = "dims=1", .give = "{{1,2,3},{4,5,6}}", .want = "{{4,5,6},{1,2,3}}"},
    {.in = "3,4,5", .attrs = "dims={1,-1}"},
    {.in = "3,4,2", .attrs = "dims={2}"},
    {.in = "3,4", .attrs = "dims={}"},
    {.in = "0,3", .attrs = "dims={1}"},
    {0}};

GR_OP(flip) = {
    .info = {.name = "flip", .inputs = "x", .attrs = flip_schema, .attr_size = sizeof(flip_attrs),
             .cases = flip_cases, .doc = "x in reverse order along dims, a number or a list. A copy."},
    .shape = flip_shape,
    .forward = flip_kernels,
    .backward = flip_rule,
};

/* ---- roll ---- */

typedef struct roll_attrs { gr_dims shifts, dims; } roll_attrs;

static gr_status roll_shape(gri_call *c) {
    const roll_attrs *a = c->attrs;
    const gr_tensor *x = c->in[0];
    uint32_t mask;
    gri_spec_set(&c->spec[0], x);
    for (int i = 0; i < a->shifts.n; i++)
        if (a->shifts.v[i] == INT64_MIN)
            return gr_fail(c->ctx, GR_ERR_ARG, "shift %lld has no opposite", (long long)a->shifts.v[i]);
    if (a->dims.n < 0 && a->shifts.n == 1) return GR_OK;
    if (a->dims.n < 0)
        return gr_fail(c->ctx, GR_ERR_ARG, "%d shifts, but dims is missing: without it, one shift along all elements",
                       a->shifts.n);
    if (a->dims.n != a->shifts.n)
        return gr_fail(c->ctx, GR_ERR_ARG, "%d shifts for %d dimensions", a->shifts.n, a->dims.n);
    return gri_dim_mask(c->ctx, &a->dims, x->rank, &mask);
}

/* y, seen from the parts of x: dimension d of both is cut in two, and the two change places. */
static gr_status roll_parts(gri_call *c, const int64_t *shift, int d, gr_tensor *y, gr_tensor *x) {
    if (d == x->rank) {
        y->numel = x->numel;
        return gri_copy(c->ctx, y, x, c->mode);
    }
    int64_t n = c->in[0]->dims[d], size = (int64_t)gri_size((gr_dtype)x->dtype), s = shift[d];
    if (s == 0) return roll_parts(c, shift, d + 1, y, x);
    for (int half = 0; half < 2; half++) {
        gr_tensor to = *y, from = *x; /* for this call only */
        to.data += (half ? 0 : s) * y->strides[d] * size;
        from.data += (half ? n - s : 0) * x->strides[d] * size;
        to.dims[d] = from.dims[d] = half ? s : n - s;
        from.numel = x->numel / n * from.dims[d];
        to.contiguous = from.contiguous = false;
        GR_TRY(roll_parts(c, shift, d + 1, &to, &from));
    }
    return GR_OK;
}

static gr_status roll_kernel(gri_call *c) {
    const roll_attrs *a = c->attrs;
    gr_tensor x = *c->in[0], y = *c->out[0];
    int64_t shift[GR_MAX_RANK] = {0};
    int dim = 0;
    if (x.numel == 0) return GR_OK;
    if (a->dims.n < 0) {
        x.rank = y.rank = 1;
        x.dims[0] = y.dims[0] = x.numel;
        x.strides[0] = y.strides[0] = 1;
        shift[0] = (a->shifts.v[0] % x.numel + x.numel) % x.numel;
    }
    for (int i = 0; i < a->dims.n; i++) {
        GR_TRY(gri_dim(c->ctx, a->dims.v[i], x.rank, &dim));
        shift[dim] = (a->shifts.v[i] % x.dims[dim] + x.dims[dim]) % x.dims[dim];
    }
    gri_call whole = *c;
    whole.in = GRI_TENSORS(&x);
    return roll_parts(&whole, shift, 0, &y, &x);
}

/* All elements in a row are such only where they are contiguous. */
static gr_status roll_forward(gri_call *c) {
    return ((const roll_attrs *)c->attrs)->dims.n < 0 ? gri_dense(c, roll_kernel) : roll_kernel(c);
}
GR_KERNEL(roll);

static gr_status roll_rule(gri_grad *g) {
    roll_attrs back = *(const roll_attrs *)g->attrs;
    for (int i = 0; i < back.shifts.n; i++) back.shifts.v[i] = -back.shifts.v[i];
    return gri_emit(g, 0, &gri_op_roll, 1, g->dy, &back);
}

static const gr_attr roll_schema[] = {
    {"shifts", GR_ATTR_SHAPE, offsetof(roll_attrs, shifts), .required = true},
    {"dims", GR_ATTR_DIMS, offsetof(roll_attrs, dims), .required = false},
    GR_ATTR_END};

static const gr_case roll_cases[] = {
    {.in = "5", .attrs = "shifts=2, dims=1", .give = "{1,2,3,4,5}", .want = "{4,5,1,2,3}"},
    {.in = "2,3", .attrs = "shifts={-1}", .give = "{{1,2,3},{4,5,6}}", .want = "{{2,3,4},{5,6,1}}"},
    {.in = "2,3", .attrs = "shifts={1,-4}, dims={1,2}", .give = "{{1,2,3},{4,5,6}}", .want = "{{5,6,4},{2,3,1}}"},
    {.in = "3,4,5", .attrs = "shifts={2,7}, dims={3,-3}"},
    {.in = "3,4", .attrs = "shifts=5"},
    {.in = "0,3", .attrs = "shifts={1,1}, dims={1,2}"},
    {0}};

GR_OP(roll) = {
    .info = {.name = "roll", .inputs = "x", .attrs = roll_schema, .attr_size = sizeof(roll_attrs),
             .cases = roll_cases,
             .doc = "x shifted along dims by shifts, a number or a list each; what leaves at one end comes in at the\n"
                    "other. Without dims, all elements in row-major order are shifted. A copy."},
    .shape = roll_shape,
    .forward = roll_kernels,
    .backward = roll_rule,
};
