#include "span.h"

#include "parallel.h"

/* ---- runs ----------------------------------------------------------------------------------------------- */

typedef struct span_call {
    const gri_spans *spans;
    gri_span_fn fn;
    void *arg;
} span_call;

/* The tensor a run belongs to: the last one with first[i] <= run. Empty tensors have no runs. */
static int span_tensor(const gri_spans *s, int64_t run) {
    int low = 0, high = s->n - 1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (s->first[middle] <= run) low = middle;
        else high = middle - 1;
    }
    return low;
}

static void span_piece(void *arg, int64_t run) {
    const span_call *c = arg;
    int i = span_tensor(c->spans, run);
    c->fn(c->arg, i, (run - c->spans->first[i]) * GRI_SPAN, run);
}

void gri_spans_each(gr_ctx *ctx, const gri_spans *s, gri_span_fn fn, void *arg) {
    if (s->elements > 2 * GRI_SPAN) {
        span_call c = {s, fn, arg};
        gri_parallel(ctx, gri_spans_runs(s), span_piece, &c);
        return;
    }
    for (int i = 0; i < s->n; i++)
        for (int64_t run = s->first[i]; run < s->first[i + 1]; run++) fn(arg, i, (run - s->first[i]) * GRI_SPAN, run);
}
