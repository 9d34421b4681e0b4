/* tostring(tensor): a header with dtype and shape, then numbers in aligned columns, one matrix after another.
 * Long dimensions show their three first and last entries, so the text stays short whatever the size. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lgr.h"

#define PRINT_WHOLE 1000 /* elements printed without leaving any out */
#define PRINT_EDGE 3
#define PRINT_NUMBER 40

typedef struct print_style {
    bool whole;      /* integers, or floats that all are: "3." */
    bool scientific;
    bool integer;    /* integer dtype */
    int width;
} print_style;

static void print_number(char *buf, double v, const print_style *f) {
    if (f->integer) snprintf(buf, PRINT_NUMBER, "%.0f", v);
    else if (!isfinite(v)) snprintf(buf, PRINT_NUMBER, isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
    else if (f->whole) snprintf(buf, PRINT_NUMBER, "%.0f.", v);
    else snprintf(buf, PRINT_NUMBER, f->scientific ? "%.4e" : "%.4f", v);
}

/* Positions shown along a dimension: all, or the edges; -1 stands for "...". */
static int print_positions(int64_t n, bool all, int64_t *at) {
    int k = 0;
    if (all || n <= 2 * PRINT_EDGE) {
        for (int64_t i = 0; i < n; i++) at[k++] = i;
        return k;
    }
    for (int64_t i = 0; i < PRINT_EDGE; i++) at[k++] = i;
    at[k++] = -1;
    for (int64_t i = n - PRINT_EDGE; i < n; i++) at[k++] = i;
    return k;
}

typedef struct print_job {
    const gr_tensor *t;
    const int64_t *dims;
    int rank;
    bool all;
    print_style style;
    luaL_Buffer *b;
    double least, most; /* magnitudes of the finite non-zero values shown */
    int64_t at[GR_MAX_RANK];
    int64_t shown[GR_MAX_RANK][PRINT_WHOLE];
    int n_shown[GR_MAX_RANK];
} print_job;

static double print_at(const print_job *j) {
    double v = 0;
    gr_tensor_get(j->t, j->at, &v);
    return v;
}

/* Calls visit for every element shown. */
static void print_each(print_job *j, int depth, void (*visit)(print_job *, double)) {
    if (depth == j->rank) {
        visit(j, print_at(j));
        return;
    }
    for (int k = 0; k < j->n_shown[depth]; k++) {
        j->at[depth] = j->shown[depth][k];
        if (j->at[depth] >= 0) print_each(j, depth + 1, visit);
    }
}

static void print_survey(print_job *j, double v) {
    double a = fabs(v);
    if (!isfinite(v)) return;
    if (v != floor(v)) j->style.whole = false;
    if (a > j->most) j->most = a;
    if (a > 0 && a < j->least) j->least = a;
}

static void print_measure(print_job *j, double v) {
    char s[PRINT_NUMBER];
    print_number(s, v, &j->style);
    int n = (int)strlen(s);
    if (n > j->style.width) j->style.width = n;
}

static void print_pick_style(print_job *j) {
    gr_dtype t = gr_tensor_dtype(j->t);
    j->style = (print_style){.whole = true, .integer = t > GR_F64};
    j->least = INFINITY;
    print_each(j, 0, print_survey);
    if (j->most >= 1e8) j->style.scientific = true, j->style.whole = false;
    if (!j->style.whole && (j->least < 1e-4 || j->most / j->least > 1e5)) j->style.scientific = true;
    print_each(j, 0, print_measure);
}

static void print_add(print_job *j, const char *s, int pad) {
    char cell[2 * PRINT_NUMBER];
    snprintf(cell, sizeof cell, "%*s", pad, s);
    luaL_addstring(j->b, cell);
}

static void print_row(print_job *j, int depth) {
    for (int k = 0; k < j->n_shown[depth]; k++) {
        char s[PRINT_NUMBER];
        j->at[depth] = j->shown[depth][k];
        if (j->at[depth] < 0) {
            luaL_addstring(j->b, "  ...");
            continue;
        }
        print_number(s, print_at(j), &j->style);
        print_add(j, s, j->style.width + 2);
    }
    luaL_addchar(j->b, '\n');
}

static void print_matrices(print_job *j, int depth) {
    if (depth == j->rank - 1) {
        print_row(j, depth);
        return;
    }
    bool heads = j->rank > 2 && depth == j->rank - 2;
    if (heads) {
        char s[32];
        luaL_addchar(j->b, '(');
        for (int d = 0; d < depth; d++) {
            snprintf(s, sizeof s, "%lld,", (long long)j->at[d] + 1);
            luaL_addstring(j->b, s);
        }
        luaL_addstring(j->b, ".,.) =\n");
    }
    for (int k = 0; k < j->n_shown[depth]; k++) {
        j->at[depth] = j->shown[depth][k];
        if (j->at[depth] < 0) luaL_addstring(j->b, "  ...\n");
        else print_matrices(j, depth + 1);
    }
}

/* Non-finite values of the whole tensor, not only of what is shown. */
static void print_count_bad(lgr_state *st, gr_tensor *t, int64_t *nan, int64_t *inf) {
    gr_tensor *dense = NULL;
    *nan = *inf = 0;
    if (gr_tensor_dtype(t) > GR_F64) return;
    if (gr_tensor_contiguous(t)) dense = gr_retain(t);
    else if (gr_tensor_empty(st->ctx, gr_tensor_dtype(t), gr_tensor_rank(t), gr_tensor_dims_peek(t), &dense) == GR_OK)
        gr_tensor_copy(dense, t);
    if (!dense) {
        gr_clear_error(st->ctx);
        return;
    }
    int64_t n = gr_tensor_numel(dense);
    const void *p = gr_tensor_data_peek(dense);
    for (int64_t i = 0; i < n; i++) {
        double v = gr_tensor_dtype(dense) == GR_F32 ? (double)((const float *)p)[i] : ((const double *)p)[i];
        *nan += isnan(v) != 0;
        *inf += isinf(v) != 0;
    }
    gr_release(dense);
}

static void print_header(luaL_Buffer *b, const gr_tensor *t, int64_t nan, int64_t inf) {
    char s[64];
    luaL_addstring(b, gr_dtype_name(gr_tensor_dtype(t)));
    luaL_addchar(b, '[');
    for (int d = 0; d < gr_tensor_rank(t); d++) {
        snprintf(s, sizeof s, "%s%lld", d ? "×" : "", (long long)gr_tensor_dims_peek(t)[d]);
        luaL_addstring(b, s);
    }
    luaL_addchar(b, ']');
    if (gr_tensor_requires_grad(t)) luaL_addstring(b, gr_tensor_is_leaf(t) ? " requires_grad" : " with history");
    if (nan) {
        snprintf(s, sizeof s, " %lld nan", (long long)nan);
        luaL_addstring(b, s);
    }
    if (inf) {
        snprintf(s, sizeof s, " %lld inf", (long long)inf);
        luaL_addstring(b, s);
    }
}

int lgr_tensor_tostring(lua_State *L) {
    lgr_state *st = lgr_upstate(L);
    lgr_box *box = lgr_check_box(L, st, 1, LGR_TENSOR);
    if (!box->object) {
        lua_pushliteral(L, "tensor (closed)");
        return 1;
    }
    gr_tensor *t = box->object;
    int64_t nan, inf;
    print_count_bad(st, t, &nan, &inf);
    print_job *j = lua_newuserdatauv(L, sizeof *j, 0);
    memset(j, 0, sizeof *j);
    j->t = t;
    j->dims = gr_tensor_dims_peek(t);
    j->rank = gr_tensor_rank(t);
    j->all = gr_tensor_numel(t) <= PRINT_WHOLE;
    for (int d = 0; d < j->rank && gr_tensor_numel(t); d++)
        j->n_shown[d] = print_positions(j->dims[d], j->all, j->shown[d]);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    j->b = &b;
    print_header(&b, t, nan, inf);
    if (gr_tensor_numel(t) > 0) {
        print_pick_style(j);
        if (j->rank == 0) {
            char s[PRINT_NUMBER];
            print_number(s, print_at(j), &j->style);
            luaL_addchar(&b, ' ');
            luaL_addstring(&b, s);
        } else {
            luaL_addchar(&b, '\n');
            print_matrices(j, 0);
            luaL_buffsub(&b, 1); /* the last newline is print's */
        }
    }
    luaL_pushresult(&b);
    return 1;
}
