/* Ops called by name with their attributes as text, in one context for each test. For cmocka specs. */
#ifndef GR_BY_NAME_H
#define GR_BY_NAME_H

#include "check.h"

static gr_ctx *ctx; /* of the test under way: open_ctx and close_ctx are its fixtures */

static inline int open_ctx(void **state) {
    (void)state;
    ctx = check_ctx(1, NULL);
    return 0;
}

static inline int close_ctx(void **state) {
    (void)state;
    return gr_ctx_free(ctx) != 0;
}

/* ---- calling by name ---------------------------------------------------------------------------------------- */

/* Attributes from a text such as "dim=1 shape=2,-1": C counting, by the op's own schema. */
static inline void *attrs_of(const gr_op *op, const char *text) {
    static _Alignas(8) char buffer[GRI_ATTR_MAX];
    const gr_info *info = gr_op_info(op);
    gr_attrs_default(info, buffer);
    while (text && *text) {
        const gr_attr *a = info->attrs;
        size_t n = strcspn(text, "=");
        while (a->name && (strlen(a->name) != n || memcmp(a->name, text, n) != 0)) a++;
        assert_non_null(a->name);
        text += n + 1;
        char *end = (char *)(uintptr_t)text;
        if (a->kind == GR_ATTR_SHAPE || a->kind == GR_ATTR_DIMS) {
            gr_dims *d = (gr_dims *)(void *)(buffer + a->offset);
            for (d->n = 0; *end && *end != ' '; end += *end == ',') d->v[d->n++] = strtoll(end, &end, 10);
        } else {
            *(int64_t *)(void *)(buffer + a->offset) = strtoll(text, &end, 10);
        }
        text = end + (*end == ' ');
    }
    return buffer;
}

static inline gr_status try_op(const char *name, int n, gr_tensor *const *in, const char *attrs, gr_tensor **out) {
    const gr_op *op = gr_op_find(name);
    assert_non_null(op);
    return gr_apply(ctx, op, n, in, attrs_of(op, attrs), out);
}

static inline gr_tensor *run_op(const char *name, int n, gr_tensor *const *in, const char *attrs) {
    gr_tensor *y = NULL;
    check_ok(ctx, try_op(name, n, in, attrs, &y));
    return y;
}

static inline gr_tensor *run1(const char *name, gr_tensor *x, const char *attrs) {
    return run_op(name, 1, &x, attrs);
}

/* 1, 2, 3, … */
static inline gr_tensor *counted(gr_dtype t, const int64_t *dims) {
    uint64_t none = 0;
    gr_tensor *x = check_tensor(ctx, t, dims, 0, 0, &none);
    for (int64_t i = 0; i < x->numel; i++) check_put(x, i, (double)(i + 1));
    return x;
}

static inline void check_dims(const gr_tensor *t, const int64_t *dims) {
    int rank = 0;
    while (dims[rank] >= 0) rank++;
    if (!gri_same_dims(t->rank, t->dims, rank, dims))
        fail_msg("shape is %s, expected %s", gri_dims_text(t->rank, t->dims), gri_dims_text(rank, dims));
}

#endif
