#include "terms.h"

gr_tensor *gri_term_own(gri_terms *t, gr_tensor *made) {
    gr_status s = gri_grow(t->ctx, &t->list, &t->cap, t->n + 1, sizeof *t->list);
    if (s == GR_OK) return t->list[t->n++] = made;
    gr_release(made);
    if (t->status == GR_OK) t->status = s;
    return NULL;
}

void gri_term_all(gri_terms *t, const gr_op *op, int n, gr_tensor *const *in, const void *attrs, gr_tensor **out) {
    int outputs = gr_op_outputs(op);
    if (t->status == GR_OK) t->status = gr_apply(t->ctx, op, n, in, attrs, out);
    if (t->status == GR_OK)
        for (int i = 0; i < outputs; i++) gri_term_own(t, out[i]);
    if (t->status != GR_OK)
        for (int i = 0; i < outputs; i++) out[i] = NULL;
}

gr_tensor *gri_term(gri_terms *t, const gr_op *op, int n, gr_tensor *const *in, const void *attrs) {
    gr_tensor *out[GRI_MAX_OUT];
    gri_term_all(t, op, n, in, attrs, out);
    return out[0];
}

gr_tensor *gri_term_scalar(gri_terms *t, gr_dtype dtype, double value) {
    gr_tensor *made = NULL;
    if (t->status == GR_OK) t->status = gr_tensor_scalar(t->ctx, dtype, value, &made);
    return t->status == GR_OK ? gri_term_own(t, made) : NULL;
}

gr_tensor *gri_term_at(gri_terms *t, gr_tensor *x, int64_t index) {
    return gri_term(t, &gri_op_select, 1, &x, &(gri_select_attrs){.dim = 0, .index = index});
}

gr_tensor *gri_term_columns(gri_terms *t, gr_tensor *x, int64_t first, int64_t n) {
    return gri_term(t, &gri_op_narrow, 1, &x, &(gri_narrow_attrs){.dim = 1, .start = first, .length = n});
}

gr_tensor *gri_term_cat(gri_terms *t, int n, gr_tensor *const *in, int64_t dim) {
    return gri_term(t, &gri_op_cat, n, in, &(gri_narrow_attrs){.dim = dim});
}

gr_tensor *gri_term_stack(gri_terms *t, int n, gr_tensor *const *in) {
    return gri_term(t, &gri_op_stack, n, in, &(gri_select_attrs){.dim = 0});
}

gr_status gri_terms_close(gri_terms *t, int n, gr_tensor *const *results, gr_tensor **out) {
    for (int i = 0; t->status == GR_OK && i < n; i++) out[i] = gr_retain(results[i]);
    for (int i = 0; i < t->n; i++) gr_release(t->list[i]);
    gri_array_free(t->ctx, t->list, t->cap, sizeof *t->list);
    return t->status;
}
