/* y[k] = the k elements of x where mask is not 0, in row-major order; x and mask broadcast. How many there are is in
 * the data: the shape rule counts them.
 *
 * dx: dy goes back to the places it came from, zeros elsewhere: masked_select_backward, whose own derivative is
 * masked_select again. The mask is kept. Blocks of MASKED_BLOCK elements are worked on in parallel, once it is known
 * how many each selects. */
#include "copy.h"
#include "rows.h"
#include "vmath.h"

#define MASKED_BLOCK 4096

/* whole: an element for every one of the mask; some: one for every one selected. */
typedef struct masked_job {
    const uint8_t *mask;
    char *whole, *some;
    int64_t n, size, *before; /* of elements; bytes; how many the blocks before block b select */
    gri_mode mode;
} masked_job;

static int64_t masked_count(const uint8_t *mask, int64_t n) {
    int64_t count = 0;
    for (int64_t at = 0; at < n; at += 255 * 16) { /* sums of 255 bytes fit into bytes */
        uint8_t sum[16] = {0};
        int64_t end = n - at < 255 * 16 ? n : at + 255 * 16, i = at;
        for (; i + 16 <= end; i += 16)
            for (int k = 0; k < 16; k++) sum[k] = (uint8_t)(sum[k] + (mask[i + k] != 0));
        for (int k = 0; k < 16; k++) count += sum[k];
        for (; i < end; i++) count += mask[i] != 0;
    }
    return count;
}

static void masked_count_blocks(void *arg, int64_t from, int64_t to) {
    const masked_job *j = arg;
    for (int64_t b = from; b < to; b++) {
        int64_t at = b * MASKED_BLOCK, n = j->n - at < MASKED_BLOCK ? j->n - at : MASKED_BLOCK;
        j->before[b + 1] = masked_count(j->mask + at, n);
    }
}

/* Every element is stored where the next selected one goes, which needs no branch; the last one ends the block. */
#define MASKED_TAKE(name, type)                                                                       \
    static void name(const uint8_t *mask, const char *whole, char *some, int64_t n) {                 \
        const type *x = (const type *)(const void *)whole;                                            \
        type *y = (type *)(void *)some;                                                               \
        for (int64_t i = 0, at = 0; at < n; i++) {                                                    \
            y[at] = x[i];                                                                             \
            at += mask[i] != 0;                                                                       \
        }                                                                                             \
    }
MASKED_TAKE(masked_take_1, uint8_t)
MASKED_TAKE(masked_take_4, uint32_t)
MASKED_TAKE(masked_take_8, uint64_t)

static void masked_take_blocks(void *arg, int64_t from, int64_t to) {
    const masked_job *j = arg;
    for (int64_t b = from; b < to; b++) {
        int64_t at = b * MASKED_BLOCK;
        (j->size == 1 ? masked_take_1 : j->size == 4 ? masked_take_4 : masked_take_8)(
            j->mask + at, j->whole + at * j->size, j->some + j->before[b] * j->size, j->before[b + 1] - j->before[b]);
    }
}

/* *out (+1) = t seen in a shape it broadcasts to, row-major. */
static gr_status masked_dense(gri_call *c, gr_tensor *t, int rank, const int64_t *dims, gr_tensor **out) {
    gri_spec s = {.dtype = (gr_dtype)t->dtype, .rank = rank};
    if (t->contiguous && t->numel == gri_product(rank, dims)) {
        *out = gr_retain(t);
        return GR_OK;
    }
    for (int d = 0; d < rank; d++) s.dims[d] = dims[d];
    GR_TRY(gri_tensor_like_spec(c->ctx, &s, out));
    gr_status status = gri_copy(c->ctx, *out, t, GRI_SET);
    if (status != GR_OK) gr_release(*out);
    return status;
}

/* Counts block by block. j->before is a block of *capacity bytes, the caller's to delete. */
static gr_status masked_blocks(gri_call *c, masked_job *j, size_t *capacity) {
    int64_t blocks = (j->n + MASKED_BLOCK - 1) / MASKED_BLOCK;
    j->before = gri_block_new(c->ctx, (size_t)(blocks + 1) * sizeof *j->before, capacity);
    if (!j->before)
        return gr_fail(c->ctx, GR_ERR_MEMORY, "no memory for the counts of %lld blocks", (long long)blocks);
    j->before[0] = 0;
    gri_rows(c->ctx, blocks, MASKED_BLOCK / 4, masked_count_blocks, j);
    for (int64_t b = 0; b < blocks; b++) j->before[b + 1] += j->before[b];
    return GR_OK;
}

static gr_status masked_wanted(gri_call *c) {
    if (c->in[1]->dtype == GR_U8) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_DTYPE, "the mask is %s, expected u8: the result of a comparison",
                   gri_tensor_text(c->in[1]));
}

/* ---- masked_select -------------------------------------------------------------------------------------- */

/* The broadcast shape. */
static gr_status masked_select_whole(gri_call *c, gri_spec *s) {
    const gr_tensor *x = c->in[0], *mask = c->in[1];
    *s = gri_spec_of(x);
    if (gri_broadcast(&s->rank, s->dims, mask->rank, mask->dims)) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "shapes %s and %s do not broadcast", gri_tensor_text(x), gri_tensor_text(mask));
}

static gr_status masked_select_shape(gri_call *c) {
    gr_tensor *mask;
    gri_spec whole;
    int64_t n;
    GR_TRY(masked_wanted(c));
    GR_TRY(masked_select_whole(c, &whole));
    GR_TRY(gri_numel(c->ctx, whole.dtype, whole.rank, whole.dims, &n));
    GR_TRY(gri_tensor_dense(c->in[1], &mask));
    c->spec[0] = (gri_spec){.dtype = whole.dtype, .rank = 1};
    c->spec[0].dims[0] = n ? masked_count((const uint8_t *)mask->data, mask->numel) * (n / mask->numel) : 0;
    gr_release(mask);
    return GR_OK;
}

static gr_status masked_select_kernel(gri_call *c) {
    gr_tensor *x = NULL, *mask = NULL, *y = c->out[0];
    masked_job j = {.some = y->data, .size = (int64_t)gri_size((gr_dtype)y->dtype)};
    size_t capacity = 0;
    gri_spec whole;
    if (y->numel == 0) return GR_OK;
    GR_TRY(masked_select_whole(c, &whole));
    GR_TRY(masked_dense(c, c->in[0], whole.rank, whole.dims, &x));
    gr_status s = masked_dense(c, c->in[1], whole.rank, whole.dims, &mask);
    if (s != GR_OK) goto done;
    j.mask = (const uint8_t *)mask->data;
    j.whole = x->data;
    j.n = x->numel;
    s = masked_blocks(c, &j, &capacity);
    if (s != GR_OK) goto done;
    gri_rows(c->ctx, (j.n + MASKED_BLOCK - 1) / MASKED_BLOCK, MASKED_BLOCK, masked_take_blocks, &j);
    gri_block_delete(c->ctx, j.before, capacity);
done:
    gr_release(x);
    gr_release(mask);
    return s;
}

/* The inputs stay as they are: they broadcast. */
static gr_status masked_select_forward(gri_call *c) {
    gr_tensor *y = c->out[0], *t;
    if (y->contiguous) return masked_select_kernel(c);
    gri_spec spec = gri_spec_of(y);
    gri_call d = *c;
    GR_TRY(gri_tensor_like_spec(c->ctx, &spec, &t));
    d.out[0] = t;
    gr_status s = masked_select_kernel(&d);
    if (s == GR_OK) s = gri_copy(c->ctx, y, t, GRI_SET);
    gr_release(t);
    return s;
}
GR_KERNEL(masked_select);

static gr_status masked_select_rule(gri_grad *g) {
    if (!gri_needs(g, 0)) return GR_OK;
    const gri_spec *x = gri_input_spec(g, 0);
    gri_spec s = *x;
    gri_shape_attrs a;
    gri_broadcast(&s.rank, s.dims, g->in[1]->rank, g->in[1]->dims);
    a.shape.n = s.rank;
    for (int d = 0; d < s.rank; d++) a.shape.v[d] = s.dims[d];
    return gri_emit(g, 0, &gri_op_masked_select_backward, 2, GRI_TENSORS(g->dy[0], g->in[1]), &a);
}

static const gr_case masked_select_cases[] = {
    {.in = "2,3 u8:2,3", .give = "{{1,2,3},{4,5,6}}, {{1,0,1},{0,1,0}}", .want = "{1,3,5}"},
    {.in = "2,1 u8:3", .give = "{{1},{2}}, {0,1,1}", .want = "{1,1,2,2}"},
    {.in = "3 u8:2,1", .give = "{1,2,3}, {{0},{1}}", .want = "{1,2,3}"},
    {.in = "2 u8:2", .give = "{1,0/0}, {0,7}", .want = "{0/0}", .no_grad = true},
    {.in = "2 u8:2", .give = "{1,2}, {0,0}", .want = "{}"},
    {.in = "() u8:()", .give = "3, 1", .want = "{3}"},
    {.in = "3,4,5 u8:3,4,5"},
    {.in = "3,4 u8:3,1"},
    {0}};

GR_OP(masked_select) = {
    .info = {.name = "masked_select", .inputs = "x mask", .cases = masked_select_cases,
             .doc = "The elements of x where mask is not 0, in order, as a tensor of one dimension; x and mask\n"
                    "broadcast. mask is u8, as comparisons give it. Also written x[mask]."},
    .sets_only = true,
    .keeps = GRI_KEEP_IN(1),
    .shape = masked_select_shape,
    .forward = masked_select_kernels,
    .backward = masked_select_rule,
};

/* ---- masked_select_backward ----------------------------------------------------------------------------- */

static gr_status masked_select_backward_shape(gri_call *c) {
    const gri_shape_attrs *a = c->attrs;
    const gr_tensor *dy = c->in[0];
    gri_spec *s = &c->spec[0], b;
    gr_tensor *mask;
    GR_TRY(masked_wanted(c));
    GR_TRY(gri_spec_given(c->ctx, &a->shape, dy->dtype, s));
    b = *s;
    if (!gri_broadcast(&b.rank, b.dims, c->in[1]->rank, c->in[1]->dims) ||
        !gri_same_dims(b.rank, b.dims, s->rank, s->dims))
        return gr_fail(c->ctx, GR_ERR_SHAPE, "the mask %s does not broadcast to %s", gri_tensor_text(c->in[1]),
                       gri_dims_text(s->rank, s->dims));
    GR_TRY(gri_tensor_dense(c->in[1], &mask));
    int64_t n = gri_product(s->rank, s->dims);
    int64_t count = n ? masked_count((const uint8_t *)mask->data, mask->numel) * (n / mask->numel) : 0;
    gr_release(mask);
    if (dy->rank == 1 && dy->dims[0] == count) return GR_OK;
    return gr_fail(c->ctx, GR_ERR_SHAPE, "dy is %s, but the mask selects %lld", gri_tensor_text(dy), (long long)count);
}

/* The next selected value is read before it is known whether it is wanted; behind the last one, the last again. */
#define MASKED_PUT(name, type, op)                                                                            \
    static void name(const uint8_t *mask, char *whole, const char *some, int64_t n, int64_t at, int64_t last) { \
        type *x = (type *)(void *)whole;                                                                      \
        const type *dy = (const type *)(const void *)some;                                                    \
        for (int64_t i = 0; i < n; i++) {                                                                     \
            type v = dy[at < last ? at : last];                                                               \
            x[i] op mask[i] ? v : 0;                                                                          \
            at += mask[i] != 0;                                                                               \
        }                                                                                                     \
    }
MASKED_PUT(masked_put_1, uint8_t, =)
MASKED_PUT(masked_put_4, uint32_t, =)
MASKED_PUT(masked_put_8, uint64_t, =)
MASKED_PUT(masked_put_add, real, +=)

static void masked_put_blocks(void *arg, int64_t from, int64_t to) {
    const masked_job *j = arg;
    int64_t last = j->before[(j->n + MASKED_BLOCK - 1) / MASKED_BLOCK] - 1;
    for (int64_t b = from; b < to; b++) {
        int64_t i = b * MASKED_BLOCK, n = j->n - i < MASKED_BLOCK ? j->n - i : MASKED_BLOCK;
        (j->mode == GRI_ADD ? masked_put_add : j->size == 1 ? masked_put_1 : j->size == 4 ? masked_put_4 : masked_put_8)(
            j->mask + i, j->whole + i * j->size, j->some, n, j->before[b], last);
    }
}

static gr_status masked_select_backward_kernel(gri_call *c) {
    gr_tensor *x = c->out[0], *dy = c->in[0], *mask;
    masked_job j = {.whole = x->data, .some = dy->data, .n = x->numel, .size = (int64_t)gri_size((gr_dtype)x->dtype),
                    .mode = c->mode};
    size_t capacity = 0;
    if (dy->numel == 0) return c->mode == GRI_SET ? gri_zero(c->ctx, x) : GR_OK;
    GR_TRY(masked_dense(c, c->in[1], x->rank, x->dims, &mask));
    j.mask = (const uint8_t *)mask->data;
    gr_status s = masked_blocks(c, &j, &capacity);
    if (s == GR_OK) {
        gri_rows(c->ctx, (j.n + MASKED_BLOCK - 1) / MASKED_BLOCK, MASKED_BLOCK, masked_put_blocks, &j);
        gri_block_delete(c->ctx, j.before, capacity);
    }
    gr_release(mask);
    return s;
}

static gr_status masked_select_backward_forward(gri_call *c) { return gri_dense(c, masked_select_backward_kernel); }
GR_KERNEL(masked_select_backward);

static gr_status masked_select_backward_rule(gri_grad *g) {
    return GRI_EMIT(g, 0, masked_select, g->dy[0], g->in[1]);
}

static const gr_attr masked_select_backward_schema[] = {
    {"shape", GR_ATTR_SHAPE, offsetof(gri_shape_attrs, shape), .required = true}, GR_ATTR_END};

static const gr_case masked_select_backward_cases[] = {
    {.in = "3 u8:2,3", .attrs = "shape={2,3}", .give = "{1,2,3}, {{1,0,1},{0,1,0}}", .want = "{{1,0,2},{0,3,0}}"},
    {.in = "4 u8:3", .attrs = "shape={2,3}", .give = "{1,2,3,4}, {1,1,0}", .want = "{{1,2,0},{3,4,0}}"},
    {.in = "0 u8:2", .attrs = "shape={2}", .give = "{}, {0,0}", .want = "{0,0}"},
    {.in = "8 u8(1..1):8", .attrs = "shape={8}"},
    {0}};

GR_OP(masked_select_backward) = {
    .info = {.name = "masked_select_backward", .inputs = "dy mask", .attrs = masked_select_backward_schema,
             .attr_size = sizeof(gri_shape_attrs), .hidden = true, .cases = masked_select_backward_cases,
             .doc = "Zeros of the given shape, with dy at the places where mask is not 0."},
    .keeps = GRI_KEEP_IN(1),
    .shape = masked_select_backward_shape,
    .forward = masked_select_backward_kernels,
    .backward = masked_select_backward_rule,
};
