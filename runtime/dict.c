#include "dict.h"

#include <string.h>

/* ---- entries -------------------------------------------------------------------------------------------- */

/* FNV-1a from a start of the list's own, so that nobody can choose names that all meet in one place. */
static uint64_t dict_hash(const gri_entries *e, const char *name) {
    uint64_t h = 14695981039346656037u ^ (uint64_t)(uintptr_t)e;
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 1099511628211u;
    return h ^ h >> 32;
}

/* Where the name's position is kept, or would be. The table has room. */
static int *dict_slot(const gri_entries *e, const char *name) {
    uint64_t mask = (uint64_t)e->cap_table - 1, at = dict_hash(e, name) & mask;
    while (e->table[at] && strcmp(e->list[e->table[at] - 1].name, name) != 0) at = (at + 1) & mask;
    return &e->table[at];
}

static int dict_find(const gri_entries *e, const char *name) { return e->n ? *dict_slot(e, name) - 1 : -1; }

static void dict_fill_table(gri_entries *e) {
    if (e->cap_table) memset(e->table, 0, (size_t)e->cap_table * sizeof *e->table);
    for (int i = 0; i < e->n; i++) *dict_slot(e, e->list[i].name) = i + 1;
}

static gr_status dict_make_room(gr_ctx *ctx, gri_entries *e) {
    GR_TRY(gri_grow(ctx, &e->list, &e->cap, e->n + 1, sizeof *e->list));
    if (e->cap_table > 2 * e->n) return GR_OK;
    int cap = e->cap_table ? 2 * e->cap_table : 16;
    int *table = gri_new(ctx, (size_t)cap * sizeof *table);
    if (!table) return GR_ERR_MEMORY;
    gri_array_free(ctx, e->table, e->cap_table, sizeof *table);
    e->table = table;
    e->cap_table = cap;
    dict_fill_table(e);
    return GR_OK;
}

/* Takes over value when it succeeds; *old is what the name stood for, or NULL. */
static gr_status dict_put(gr_ctx *ctx, gri_entries *e, const char *name, void *value, void **old) {
    int at = dict_find(e, name);
    *old = NULL;
    if (at >= 0) {
        *old = e->list[at].value;
        e->list[at].value = value;
        return GR_OK;
    }
    GR_TRY(dict_make_room(ctx, e));
    char *copy = gri_strdup(ctx, name);
    if (!copy) return GR_ERR_MEMORY;
    e->list[e->n] = (gri_entry){copy, value};
    *dict_slot(e, name) = ++e->n;
    return GR_OK;
}

/* What the name stood for, now the caller's; NULL if it was not there. */
static void *dict_take(gr_ctx *ctx, gri_entries *e, const char *name) {
    int at = dict_find(e, name);
    if (at < 0) return NULL;
    gri_entry was = e->list[at];
    e->n--;
    memmove(e->list + at, e->list + at + 1, (size_t)(e->n - at) * sizeof *e->list);
    gri_strfree(ctx, was.name);
    dict_fill_table(e);
    return was.value;
}

static void dict_free_entries(gr_ctx *ctx, gri_entries *e) {
    for (int i = 0; i < e->n; i++) gri_strfree(ctx, e->list[i].name);
    gri_array_free(ctx, e->list, e->cap, sizeof *e->list);
    gri_array_free(ctx, e->table, e->cap_table, sizeof *e->table);
}

static void *dict_at(const gri_entries *e, int i, const char **name) {
    bool known = i >= 0 && i < e->n;
    if (name) *name = known ? e->list[i].name : NULL;
    return known ? e->list[i].value : NULL;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

gr_status gr_dict_new(gr_ctx *ctx, gr_dict **out) {
    gr_dict *d = gri_new(ctx, sizeof *d);
    if (!d) return GR_ERR_MEMORY;
    *d = (gr_dict){.head = {ctx, 1, GRI_DICT}};
    ctx->objects[GRI_DICT]++;
    *out = d;
    return GR_OK;
}

void gri_dict_free(gr_dict *d) {
    gr_ctx *ctx = d->head.ctx;
    for (int i = 0; i < d->tensors.n; i++) gr_release(d->tensors.list[i].value);
    for (int i = 0; i < d->texts.n; i++) gri_strfree(ctx, d->texts.list[i].value);
    dict_free_entries(ctx, &d->tensors);
    dict_free_entries(ctx, &d->texts);
    ctx->objects[GRI_DICT]--;
    gri_delete(ctx, d, sizeof *d);
}

/* ---- tensors -------------------------------------------------------------------------------------------- */

gr_status gr_dict_set(gr_dict *d, const char *name, gr_tensor *t) {
    gr_ctx *ctx = d->head.ctx;
    void *old;
    if (!t) {
        gr_release(dict_take(ctx, &d->tensors, name));
        return GR_OK;
    }
    if (t->head.ctx != ctx) return gr_fail(ctx, GR_ERR_ARG, "tensor \"%s\" belongs to another context", name);
    GR_TRY(dict_put(ctx, &d->tensors, name, t, &old));
    gr_retain(t);
    gr_release(old);
    return GR_OK;
}

int gr_dict_count(const gr_dict *d) { return d->tensors.n; }
gr_tensor *gr_dict_at_peek(const gr_dict *d, int i, const char **name) { return dict_at(&d->tensors, i, name); }

int gri_dict_position(const gr_dict *d, const char *name) { return dict_find(&d->tensors, name); }

gr_tensor *gr_dict_find_peek(const gr_dict *d, const char *name) {
    return dict_at(&d->tensors, dict_find(&d->tensors, name), NULL);
}

/* ---- texts ---------------------------------------------------------------------------------------------- */

gr_status gr_dict_set_text(gr_dict *d, const char *key, const char *text) {
    gr_ctx *ctx = d->head.ctx;
    void *old;
    if (!text) {
        gri_strfree(ctx, dict_take(ctx, &d->texts, key));
        return GR_OK;
    }
    char *copy = gri_strdup(ctx, text);
    if (!copy) return GR_ERR_MEMORY;
    gr_status s = dict_put(ctx, &d->texts, key, copy, &old);
    gri_strfree(ctx, s == GR_OK ? old : copy);
    return s;
}

int gr_dict_texts(const gr_dict *d) { return d->texts.n; }
const char *gr_dict_text_peek(const gr_dict *d, int i, const char **key) { return dict_at(&d->texts, i, key); }

const char *gr_dict_find_text_peek(const gr_dict *d, const char *key) {
    return dict_at(&d->texts, dict_find(&d->texts, key), NULL);
}
