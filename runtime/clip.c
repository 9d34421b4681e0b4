/* Clips: which gradients there are, their norms, and whether they are finite; the kinds in clips/ do the rest.
 *
 * Norms are exact for any finite input. Each run of GRI_SPAN elements gives a sum of |x|^p and a peak in
 * double, runs are joined in order, then tensors: the bits do not depend on the number of threads. One pass
 * is enough for f32 and p = 1, 2, 3, inf. Where a plain sum may have overflowed or lost small terms (f64,
 * other p), a second pass measures in units of the peak. */
#include "clip.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attr.h"
#include "span.h"

/* ---- what exists ---------------------------------------------------------------------------------------- */

extern const gr_clip_kind *const gri_clips[]; /* generated list, ended by NULL */
extern const gr_clip_kind gri_clip_measure;   /* its kernel measures for all kinds */

int gr_clip_kind_count(void) {
    int n = 0;
    while (gri_clips[n]) n++;
    return n;
}

const gr_clip_kind *gr_clip_kind_at(int i) { return gri_clips[i]; }

const gr_clip_kind *gr_clip_kind_find(const char *name) {
    for (int i = 0; gri_clips[i]; i++)
        if (strcmp(gri_clips[i]->info.name, name) == 0) return gri_clips[i];
    return NULL;
}

const gr_info *gr_clip_kind_info(const gr_clip_kind *k) { return &k->info; }

/* ---- running a kernel over gradients -------------------------------------------------------------------- */

typedef struct clip_region {
    const gri_clip_call *call;
    const gri_clip_kernel *const *forward;
    const double *coeffs; /* NULL: it measures, by p and the item's unit */
} clip_region;

/* What the kernel runs over: all when it measures; when it transforms, what is separate in memory, since an expanded
 * gradient (create_graph can leave one) must be transformed once, not wherever it shows. */
static gri_strided clip_view(const gr_tensor *g, bool measures) {
    gri_strided s = gri_strided_of(g);
    for (int d = 0; d < s.rank && !measures; d++)
        if (s.strides[d] == 0) s.dims[d] = 1;
    return s;
}

static int64_t clip_elements(const gr_tensor *g, bool measures) {
    if (measures || g->contiguous) return g->numel;
    gri_strided s = clip_view(g, false);
    return gri_product(s.rank, s.dims);
}

static void clip_strided(gri_clip_kernel kernel, const gri_strided *g, int64_t at, int64_t end, const double *c,
                         gri_clip_sum *sum) {
    _Alignas(64) char buffer[GRI_SPAN_BUFFER * sizeof(double)];
    gri_clip_sum part;
    for (int64_t n; at < end; at += n) {
        n = end - at < GRI_SPAN_BUFFER ? end - at : GRI_SPAN_BUFFER;
        gri_gather(g, at, n, g->dtype, buffer);
        kernel(n, buffer, c, &part);
        if (!sum) {
            gri_scatter(g, at, n, g->dtype, buffer, GRI_SET);
            continue;
        }
        sum->sum += part.sum;
        if (part.peak > sum->peak) sum->peak = part.peak;
    }
}

static void clip_piece(void *arg, int i, int64_t at, int64_t run) {
    const clip_region *r = arg;
    const gri_clip_call *call = r->call;
    const gri_clip_item *item = &call->items[i];
    bool measures = !r->coeffs;
    gri_clip_kernel kernel = *r->forward[gri_variant(call->ctx, (gr_dtype)item->grad->dtype)];
    const double own[] = {call->p, item->unit}, *c = measures ? own : r->coeffs;
    gri_clip_sum *sum = measures ? &call->sums[run] : NULL;
    const gr_tensor *g = item->grad;
    int64_t n = gri_span_length(clip_elements(g, measures), at);
    if (g->contiguous) {
        kernel(n, g->data + at * (int64_t)gr_dtype_size((gr_dtype)g->dtype), c, sum);
        return;
    }
    gri_strided s = clip_view(g, measures);
    if (measures) *sum = (gri_clip_sum){0, 0};
    clip_strided(kernel, &s, at, at + n, c, sum);
}

/* Over the selected items; returns their cuts. */
static gri_spans clip_run(const clip_region *r) {
    const gri_clip_call *c = r->call;
    gri_spans s = gri_spans_in(c->first);
    for (int i = 0; i < c->n; i++) {
        gri_spans_add(&s, c->items[i].selected ? clip_elements(c->items[i].grad, !r->coeffs) : 0);
    }
    gri_spans_each(c->ctx, &s, clip_piece, (void *)r);
    return s;
}

void gri_clip_run(gri_clip_call *c, const gri_clip_kernel *const *forward, const double *coeffs) {
    clip_region r = {c, forward, coeffs};
    clip_run(&r);
    for (int i = 0; i < c->n; i++) {
        if (!c->items[i].selected) continue;
        c->items[i].grad->storage->version++;
        c->report->clipped++;
    }
}

/* ---- norms ---------------------------------------------------------------------------------------------- */

static void clip_measure(gri_clip_call *c) {
    clip_region r = {c, gri_clip_measure.forward, NULL};
    gri_spans s = clip_run(&r);
    for (int i = 0; i < c->n; i++) {
        gri_clip_item *item = &c->items[i];
        if (!item->selected) continue;
        item->sum = item->peak = 0;
        for (int64_t run = s.first[i]; run < s.first[i + 1]; run++) {
            item->sum += c->sums[run].sum;
            if (c->sums[run].peak > item->peak) item->peak = c->sums[run].peak;
        }
    }
}

/* The sum is NaN where an element is, the peak infinite where one is: clips/measure.c. */
static bool clip_finite(const gri_clip_item *item) { return !isnan(item->sum) && !isinf(item->peak); }

/* Must the sum be taken again in units of the peak? A plain f64 sum is exact from 1e-270 on: squares and
 * cubes that vanished below 1e-308 are then less than one in 1e38 of it. */
static bool clip_inexact(const gri_clip_item *item, double p) {
    if (item->peak == 0 || isinf(p)) return false;
    if (p != 1 && p != 2 && p != 3) return true;
    return item->grad->dtype == GR_F64 && (isinf(item->sum) || (p > 1 && item->sum < 1e-270));
}

static long double clip_power(long double x, double p) {
    return p == 1 ? x : p == 2 ? x * x : p == 3 ? x * x * x : powl(x, p);
}

static long double clip_root(long double x, double p) {
    return p == 1 ? x : p == 2 ? sqrtl(x) : p == 3 ? cbrtl(x) : powl(x, 1 / (long double)p);
}

/* The norm of the norms, in units of the largest. */
static long double clip_total(const gri_clip_call *c) {
    long double most = 0, sum = 0;
    for (int i = 0; i < c->n; i++)
        if (c->items[i].norm > most) most = c->items[i].norm;
    if (most == 0 || isinf(c->p) || c->n == 1) return most;
    for (int i = 0; i < c->n; i++) sum += clip_power(c->items[i].norm / most, c->p);
    return most * clip_root(sum, c->p);
}

bool gri_clip_norms(gri_clip_call *c) {
    bool finite = true, again = false;
    for (int i = 0; i < c->n; i++) {
        c->items[i].unit = 1;
        c->items[i].selected = true;
    }
    clip_measure(c);
    for (int i = 0; i < c->n; i++) {
        gri_clip_item *item = &c->items[i];
        finite = finite && clip_finite(item);
        item->selected = clip_inexact(item, c->p);
        if (item->selected) item->unit = item->peak;
        again = again || item->selected;
    }
    if (!finite) return false;
    if (again) clip_measure(c);
    for (int i = 0; i < c->n; i++) {
        gri_clip_item *item = &c->items[i];
        item->norm = isinf(c->p) ? item->peak : item->unit * clip_root(item->sum, c->p);
    }
    c->norm = clip_total(c);
    return true;
}

/* ---- gradients that are not finite ------------------------------------------------------------------------ */

typedef struct clip_bad {
    int64_t count, first;
    double value; /* of the first */
} clip_bad;

static clip_bad clip_scan(const gr_tensor *g) {
    _Alignas(64) char buffer[GRI_SPAN_BUFFER * sizeof(double)];
    clip_bad bad = {0};
    gri_strided s = gri_strided_of(g);
    for (int64_t at = 0, n; at < g->numel; at += n) {
        const void *x = g->data + at * (int64_t)gr_dtype_size((gr_dtype)g->dtype);
        n = g->numel - at < GRI_SPAN_BUFFER ? g->numel - at : GRI_SPAN_BUFFER;
        if (!g->contiguous) {
            gri_gather(&s, at, n, s.dtype, buffer);
            x = buffer;
        }
        for (int64_t i = 0; i < n; i++) {
            double v = g->dtype == GR_F32 ? (double)((const float *)x)[i] : ((const double *)x)[i];
            if (isfinite(v)) continue;
            if (bad.count++ == 0) bad.first = at + i, bad.value = v;
        }
    }
    return bad;
}

/* "net.1.weight f32[10,20] (3 elements, the first nan at [2,7])". */
static int clip_bad_text(const gr_ctx *ctx, const gri_clip_item *item, char *buf, size_t size) {
    const gr_tensor *g = item->grad;
    const char *name = gr_tensor_name_peek(item->param);
    char unnamed[32];
    clip_bad bad = clip_scan(g);
    int64_t at[GR_MAX_RANK], rest = bad.first;
    for (int d = g->rank - 1; d >= 0; d--) {
        at[d] = rest % g->dims[d] + ctx->index_base;
        rest /= g->dims[d];
    }
    snprintf(unnamed, sizeof unnamed, "parameter %d", item->position + ctx->index_base);
    return snprintf(buf, size, "%s %s (%lld element%s, the first %s at %s)", name ? name : unnamed,
                    gri_tensor_text(g), (long long)bad.count, bad.count == 1 ? "" : "s",
                    isnan(bad.value) ? "nan" : bad.value > 0 ? "inf" : "-inf", gri_dims_text(g->rank, at));
}

static gr_status clip_refuse(const gri_clip_call *c) {
    char text[GRI_ERROR_MAX - 256];
    size_t used = 0;
    int bad = 0, shown = 0;
    for (int i = 0; i < c->n; i++) {
        if (clip_finite(&c->items[i])) continue;
        bad++;
        if (used + 300 > sizeof text) continue;
        if (used) used += (size_t)snprintf(text + used, sizeof text - used, ", ");
        int n = clip_bad_text(c->ctx, &c->items[i], text + used, 298);
        used += n < 298 ? (size_t)n : 297;
        shown++;
    }
    return gr_fail(c->ctx, GR_ERR_NONFINITE, "%d of %d gradients %s not finite; nothing was changed: %s%s", bad, c->n,
                   bad == 1 ? "is" : "are", text, shown < bad ? ", and more" : "");
}

/* Told not to fail: the norm says what was found. */
static void clip_report_bad(gri_clip_call *c) {
    bool nan = false;
    for (int i = 0; i < c->n; i++) nan = nan || isnan(c->items[i].sum);
    c->report->norm = c->report->norm_after = nan ? NAN : INFINITY;
}

/* ---- which gradients there are ---------------------------------------------------------------------------- */

/* The same elements, whatever their shape. */
static bool clip_same(const gr_tensor *a, const gr_tensor *b) {
    if (a == b) return true;
    if (a->data != b->data || a->dtype != b->dtype || a->numel != b->numel) return false;
    if (a->contiguous && b->contiguous) return true;
    return gri_same_dims(a->rank, a->dims, b->rank, b->dims) &&
           gri_same_dims(a->rank, a->strides, b->rank, b->strides);
}

/* Takes each gradient once: table is a hash table of item numbers + 1, size a power of two, twice n or more. */
static gr_status clip_collect(gri_clip_call *c, int n, gr_tensor *const *params, int32_t *table, size_t size) {
    memset(table, 0, size * sizeof *table);
    for (int i = 0; i < n; i++) {
        if (params[i]->head.ctx != c->ctx)
            return gr_fail(c->ctx, GR_ERR_ARG, "parameter %d belongs to another context", i + c->ctx->index_base);
        gr_tensor *g = gr_tensor_grad_peek(params[i]);
        if (!g) continue;
        size_t at = ((uintptr_t)g->data >> 4) * 0x9e3779b97f4a7c15u >> 20 & (size - 1);
        while (table[at] && !clip_same(c->items[table[at] - 1].grad, g)) at = (at + 1) & (size - 1);
        if (table[at]) continue;
        c->items[c->n++] = (gri_clip_item){.param = params[i], .grad = g, .position = i};
        table[at] = c->n;
    }
    return GR_OK;
}

/* ---- a clip ----------------------------------------------------------------------------------------------- */

static gr_status clip_check(gri_clip_call *c, const gr_info *info) {
    GR_TRY(gri_attrs_check(c->ctx, info, c->attrs));
    const gr_attr *p = gri_attr_find(info, "p", GR_ATTR_REAL);
    c->p = p ? *(const double *)(const void *)((const char *)c->attrs + p->offset) : 2;
    return c->p > 0 ? GR_OK : gr_fail(c->ctx, GR_ERR_ARG, "p = %g: expected a number above 0, or infinity", c->p);
}

static gr_status clip_apply(gri_clip_call *c, const gr_clip_kind *kind) {
    gr_ctx *ctx = c->ctx;
    c->report->tensors = c->n;
    if (!gri_clip_norms(c)) {
        const gr_attr *a = gri_attr_find(&kind->info, "error_if_nonfinite", GR_ATTR_BOOL);
        if (!a || *(const bool *)((const char *)c->attrs + a->offset)) return clip_refuse(c);
        clip_report_bad(c);
        return GR_OK;
    }
    if (!isfinite(c->norm))
        return gr_fail(ctx, GR_ERR_ARG, "p = %g: the norm is beyond the range of numbers", c->p);
    c->report->norm = c->report->norm_after = (double)c->norm;
    return kind->apply ? kind->apply(c) : GR_OK;
}

/* With working memory: one block for what depends on the number of parameters, one for what depends on sizes. */
static gr_status clip_gradients(gri_clip_call *c, const gr_clip_kind *kind, int n, gr_tensor *const *params) {
    gr_ctx *ctx = c->ctx;
    size_t slots = 4;
    while (slots < 2 * (size_t)n) slots *= 2;
    size_t items = (size_t)n * sizeof *c->items, first = ((size_t)n + 1) * sizeof *c->first;
    size_t size = items + first + slots * sizeof(int32_t);
    char *work = gri_new(ctx, size);
    if (!work) return GR_ERR_MEMORY;
    c->items = (void *)work;
    c->first = (void *)(work + items);
    gr_status s = clip_collect(c, n, params, (void *)(work + items + first), slots);
    if (s == GR_OK) {
        gri_spans all = gri_spans_in(c->first);
        for (int i = 0; i < c->n; i++) gri_spans_add(&all, c->items[i].grad->numel);
        size_t sums = ((size_t)gri_spans_runs(&all) + 1) * sizeof *c->sums;
        c->sums = gri_new(ctx, sums);
        s = c->sums ? clip_apply(c, kind) : GR_ERR_MEMORY;
        gri_delete(ctx, c->sums, sums);
    }
    gri_delete(ctx, work, size);
    return s;
}

gr_status gr_clip(gr_ctx *ctx, const gr_clip_kind *kind, int n, gr_tensor *const *params, const void *attrs,
                  gr_clip_report *report) {
    uint64_t defaults[GRI_ATTR_MAX / 8];
    gr_clip_report found = {0};
    gri_clip_call c = {.ctx = ctx, .attrs = attrs, .report = &found};
    gr_status s = gri_poll(ctx);
    for (const gr_attr *a = kind->info.attrs; s == GR_OK && !attrs && a && a->name; a++)
        if (a->required) s = gr_fail(ctx, GR_ERR_ARG, "%s is required", a->name);
    if (!attrs) {
        gr_attrs_default(&kind->info, defaults);
        c.attrs = defaults;
    }
    if (s == GR_OK) s = clip_check(&c, &kind->info);
    if (s == GR_OK) s = clip_gradients(&c, kind, n, params);
    if (s != GR_OK) gr_fail_within(ctx, "clip.%s", kind->info.name);
    else if (report) *report = found;
    return s;
}
