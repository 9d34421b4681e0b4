/* Numbers as text: one row a line, fields between commas, semicolons or blanks; written with commas.
 *
 *   file      = [header] { row | empty line }   a header's first field that is not empty is no number and does not
 *                                               begin as one: "5%" or "2026-01-31" is not taken for a column's name
 *   row       = field { separator field } end   every row has as many fields as the first
 *   separator = "," or ";" (one of them in a file) with blanks around it, or blanks (spaces, tabs) alone
 *   end       = LF, CR LF, or the end of the file
 *   field     = number, or number between double quotes; in a header's quotes separators and ends are text
 *   number    = decimal, "nan", "inf" or "infinity", with or without a sign; the same in any locale
 *
 * The text is read once, piece by piece: neither its lines nor the file need fit in memory, only the numbers. */
#include <locale.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "gather.h"
#include "io/replace.h"
#include "io/stream.h"

#define CSV_PIECE (16 * 1024)
#define CSV_FIELD 400      /* characters: a double written out in full has some 330 */
#define CSV_SHOWN 40       /* characters of a bad field in a message */
#define CSV_NUMBER 32     /* characters of a number that is written */
#define CSV_START (64 * 1024) /* bytes of values at first */

typedef struct csv_reader {
    gr_ctx *ctx;
    gri_stream s;
    locale_t c_locale;
    char field[CSV_FIELD + 1];
    int length;          /* of the field under way; CSV_FIELD + 1: longer than that */
    bool separated;      /* a comma or semicolon came last: a field must follow */
    enum { CSV_BARE, CSV_QUOTED, CSV_CLOSED } quotes; /* the field under way: without, within, behind its quotes */
    int64_t quoted_from; /* the line */
    bool fresh;          /* inside the header: no field has begun since the last separator */
    char separator;      /* "," or ";", once one was seen */
    bool started;        /* past the place where a header may be */
    bool gap;            /* the line that may be a header starts with an empty field */
    bool skipping;       /* inside the header */
    int64_t line;        /* from 1 */
    int64_t column;      /* fields of this line so far */
    int64_t rows, columns, first_line; /* columns and the line they were counted in: of the first row */
    gr_dtype dtype;      /* f32 or f64 */
    char *values;
    int64_t count;
    size_t capacity;     /* bytes of values */
} csv_reader;

/* ---- numbers --------------------------------------------------------------------------------------------- */

/* Up to 7 digits (f64: 15) with a point among them: digits and power of ten are exact, so that one division
 * rounds right (W. D. Clinger, PLDI 1990). False where that does not apply. */
static bool csv_short(const char *p, gr_dtype dtype, double *out) {
    static const float power[] = {1e0f, 1e1f, 1e2f, 1e3f, 1e4f, 1e5f, 1e6f, 1e7f};
    static const double power_wide[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                        1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    bool minus = *p == '-';
    int digits = 0, places = 0, most = dtype == GR_F32 ? 7 : 15;
    bool point = false;
    int64_t whole = 0;
    if (*p == '-' || *p == '+') p++;
    for (; *p; p++) {
        if (*p == '.' && !point) {
            point = true;
            continue;
        }
        if (*p < '0' || *p > '9' || ++digits > most) return false;
        whole = whole * 10 + (*p - '0');
        places += point;
    }
    if (digits == 0) return false;
    double v = dtype == GR_F32 ? (double)((float)whole / power[places]) : (double)whole / power_wide[places];
    *out = minus ? -v : v;
    return true;
}

/* strtof takes more than we do: hexadecimal numbers, "nan(7)". */
static bool csv_long(const csv_reader *r, double *out, bool *too_large) {
    const char *p = r->field + (*r->field == '-' || *r->field == '+');
    bool word = strcasecmp(p, "nan") == 0 || strcasecmp(p, "inf") == 0 || strcasecmp(p, "infinity") == 0;
    char *end;
    if (!word && p[strspn(p, "0123456789.eE+-")]) return false;
    *out = r->dtype == GR_F32 ? (double)strtof_l(r->field, &end, r->c_locale) : strtod_l(r->field, &end, r->c_locale);
    *too_large = !word && isinf(*out);
    return *end == 0 && end != r->field;
}

/* "5%", "-1,000", "2026-01-31" */
static bool csv_begins_as_number(const csv_reader *r) {
    const char *p = r->field + strspn(r->field, "+-.");
    return *p >= '0' && *p <= '9';
}

static gr_status csv_bad(csv_reader *r, const char *why) {
    char shown[CSV_SHOWN + 4];
    int n = r->length < CSV_SHOWN ? r->length : CSV_SHOWN;
    for (int i = 0; i < n; i++) shown[i] = r->field[i] >= ' ' && r->field[i] <= '~' ? r->field[i] : '?';
    strcpy(shown + n, r->length > n ? "..." : "");
    return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: line %lld, column %lld: '%s' %s", r->s.path, (long long)r->line,
                   (long long)r->column, shown, why);
}

static gr_status csv_empty(csv_reader *r, int64_t column) {
    return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: line %lld, column %lld: an empty field, expected a number", r->s.path,
                   (long long)r->line, (long long)column);
}

static gr_status csv_push(csv_reader *r, double v) {
    size_t size = gr_dtype_size(r->dtype), used = (size_t)r->count * size;
    if (used + size > r->capacity) {
        size_t capacity;
        char *values = gri_block_new(r->ctx, r->capacity ? 2 * r->capacity : CSV_START, &capacity);
        if (!values)
            return gr_fail(r->ctx, GR_ERR_MEMORY, "%s: out of memory at line %lld, after %lld numbers", r->s.path,
                           (long long)r->line, (long long)r->count);
        if (r->values) memcpy(values, r->values, used);
        gri_block_delete(r->ctx, r->values, r->capacity);
        r->values = values;
        r->capacity = capacity;
    }
    float narrow = (float)v;
    memcpy(r->values + used, r->dtype == GR_F32 ? (void *)&narrow : (void *)&v, size);
    r->count++;
    return GR_OK;
}

/* ---- text ------------------------------------------------------------------------------------------------ */

static void csv_append(csv_reader *r, char c) {
    if (r->length < CSV_FIELD) r->field[r->length] = c;
    if (r->length <= CSV_FIELD) r->length++;
}

static gr_status csv_field_end(csv_reader *r) {
    bool too_large = false, first = !r->started;
    double v = 0;
    r->column++;
    r->separated = false;
    r->started = true;
    r->field[r->length <= CSV_FIELD ? r->length : CSV_FIELD] = 0;
    /* a NUL inside would end the number early and hide what follows it */
    bool whole = r->length <= CSV_FIELD && strlen(r->field) == (size_t)r->length;
    bool number = whole && (csv_short(r->field, r->dtype, &v) || csv_long(r, &v, &too_large));
    if (!number && first && !csv_begins_as_number(r)) {
        r->skipping = r->fresh = true;
        r->column = 0;
    } else if (!number) {
        return csv_bad(r, "is not a number");
    } else if (too_large) {
        return csv_bad(r, r->dtype == GR_F32 ? "is too large for f32" : "is too large for f64");
    } else if (r->gap) {
        return csv_empty(r, 1);
    } else if (r->rows == 0 || r->column <= r->columns) {
        GR_TRY(csv_push(r, v));
    }
    r->length = 0;
    return GR_OK;
}

/* c: "," or ";". Both in one file: the commas are decimal ones. */
static gr_status csv_separator(csv_reader *r, char c) {
    if (r->separator && c != r->separator)
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: line %lld, column %lld: '%c' between fields, expected '%c' as "
                       "before (decimals are written with a point)", r->s.path, (long long)r->line,
                       (long long)r->column + 1, c, r->separator);
    r->separator = c;
    if (r->length) GR_TRY(csv_field_end(r));
    else if (r->separated || r->column == 0) {
        if (r->started) return csv_empty(r, r->column + 1);
        r->gap = true;
    }
    r->separated = true;
    return GR_OK;
}

/* Behind the closing quote comes c (0: the end of the file). What is no number alone, nothing or more behind the
 * quotes, is made to look like it. */
static void csv_unquote(csv_reader *r, char c) {
    r->quotes = CSV_BARE;
    if (r->skipping) return;
    if (r->length == 0) {
        csv_append(r, '"');
        csv_append(r, '"');
    } else if (c && !strchr(",; \t\r\n", c)) {
        csv_append(r, '"');
    }
}

static gr_status csv_line_end(csv_reader *r) {
    if (r->quotes == CSV_CLOSED) csv_unquote(r, 0);
    if (r->length && r->length <= CSV_FIELD && r->field[r->length - 1] == '\r') r->length--;
    if (r->length && !r->skipping) GR_TRY(csv_field_end(r));
    if (r->skipping) {
        r->skipping = r->separated = r->gap = false;
    } else if (r->separated) {
        return csv_empty(r, r->column + 1);
    } else if (r->column) {
        if (r->rows == 0) {
            r->columns = r->column;
            r->first_line = r->line;
        } else if (r->column != r->columns) {
            return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: line %lld has %lld numbers, expected %lld as in line %lld",
                           r->s.path, (long long)r->line, (long long)r->column, (long long)r->columns,
                           (long long)r->first_line);
        }
        r->rows++;
    }
    r->line++;
    r->column = r->length = 0;
    return GR_OK;
}

/* Of a field in quotes, up to the one that closes it; two of them stand for one inside. */
static void csv_quoted(csv_reader *r, char c) {
    if (r->quotes == CSV_QUOTED && c == '"') {
        r->quotes = CSV_CLOSED;
        return;
    }
    r->quotes = CSV_QUOTED;
    if (!r->skipping) csv_append(r, c);
    if (c == '\n') r->line++;
}

/* Of the header behind its first field: only quotes matter, as there may be ends of lines in them. */
static void csv_skip(csv_reader *r, char c) {
    if (c == ',' || c == ';' || c == '\t') {
        r->fresh = true;
    } else if (c == '"' && r->fresh) {
        r->quotes = CSV_QUOTED;
        r->quoted_from = r->line;
    } else if (c != ' ') {
        r->fresh = false;
    }
}

static gr_status csv_char(csv_reader *r, char c) {
    if (r->quotes == CSV_QUOTED || (r->quotes == CSV_CLOSED && c == '"')) return csv_quoted(r, c), GR_OK;
    if (r->quotes == CSV_CLOSED) csv_unquote(r, c);
    if (c == '\n') return csv_line_end(r);
    if (r->skipping) return csv_skip(r, c), GR_OK;
    if (c == ',' || c == ';') return csv_separator(r, c);
    if (c == ' ' || c == '\t') return r->length ? csv_field_end(r) : GR_OK;
    if (c == '"' && r->length == 0) {
        r->quotes = CSV_QUOTED;
        r->quoted_from = r->line;
        return GR_OK;
    }
    csv_append(r, c);
    return GR_OK;
}

static gr_status csv_text(csv_reader *r) {
    char piece[CSV_PIECE];
    size_t got = sizeof piece;
    bool first = true;
    while (got == sizeof piece) {
        GR_TRY(gri_stream_read(&r->s, piece, sizeof piece, &got));
        size_t i = first && got >= 3 && memcmp(piece, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; /* byte order mark */
        for (; i < got; i++) GR_TRY(csv_char(r, piece[i]));
        first = false;
    }
    if (r->quotes == CSV_QUOTED)
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: line %lld: the quotes of a field are not closed", r->s.path,
                       (long long)r->quoted_from);
    GR_TRY(csv_line_end(r));
    if (r->rows == 0)
        return gr_fail(r->ctx, GR_ERR_FORMAT, "%s: no numbers in %lld bytes%s", r->s.path, (long long)r->s.at,
                       r->started ? ", only a header" : "");
    return GR_OK;
}

static gr_status csv_tensor(csv_reader *r, gr_tensor **out) {
    GR_TRY(csv_text(r));
    GR_TRY(gr_tensor_empty(r->ctx, r->dtype, 2, (int64_t[]){r->rows, r->columns}, out));
    memcpy((*out)->data, r->values, (size_t)r->count * gr_dtype_size(r->dtype));
    return GR_OK;
}

gr_status gr_csv_read(gr_ctx *ctx, const char *path, gr_tensor **out) {
    csv_reader r = {.ctx = ctx, .line = 1, .dtype = gr_default_dtype(ctx)};
    gr_status status;
    GR_TRY(gri_stream_open(ctx, path, &r.s));
    r.c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (r.c_locale) {
        status = csv_tensor(&r, out);
        freelocale(r.c_locale);
    } else {
        status = gr_fail(ctx, GR_ERR_MEMORY, "%s: out of memory reading it", path);
    }
    gri_block_delete(ctx, r.values, r.capacity);
    gri_stream_close(&r.s);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------- */

/* A decimal that reads back as the same number: from 6 digits on for f32, of which 9 are enough; 15 to 17 for f64. */
static int csv_real(char *to, gr_dtype type, double v) {
    int digits = type == GR_F32 ? 6 : 15, most = type == GR_F32 ? 9 : 17, n;
    if (isnan(v)) return snprintf(to, CSV_NUMBER, "nan");
    do {
        n = snprintf(to, CSV_NUMBER, "%.*g", digits, v);
        if (type == GR_F32 ? strtof(to, NULL) == (float)v : strtod(to, NULL) == v) break;
    } while (++digits <= most);
    return n;
}

/* One row, 64 numbers at a time. */
static gr_status csv_row(gri_replace *file, const gri_strided *row, int64_t columns) {
    union { float f32[64]; double f64[64]; int64_t i64[64]; uint8_t u8[64]; } v;
    char text[64 * CSV_NUMBER];
    for (int64_t from = 0; from < columns; from += 64) {
        int64_t n = columns - from < 64 ? columns - from : 64;
        size_t length = 0;
        gri_gather(row, from, n, row->dtype, &v);
        for (int64_t i = 0; i < n; i++) {
            char *to = text + length;
            switch (row->dtype) {
            case GR_F32: length += (size_t)csv_real(to, GR_F32, v.f32[i]); break;
            case GR_F64: length += (size_t)csv_real(to, GR_F64, v.f64[i]); break;
            case GR_I64: length += (size_t)snprintf(to, CSV_NUMBER, "%" PRId64, v.i64[i]); break;
            default: length += (size_t)snprintf(to, CSV_NUMBER, "%d", v.u8[i]); break;
            }
            text[length++] = from + i + 1 < columns ? ',' : '\n';
        }
        GR_TRY(gri_replace_write(file, text, length));
    }
    return GR_OK;
}

static gr_status csv_rows(gri_replace *file, const gr_tensor *t) {
    int64_t size = (int64_t)gri_size((gr_dtype)t->dtype), rows = t->dims[0], columns = t->rank == 2 ? t->dims[1] : 1;
    gri_strided row = {.dtype = (gr_dtype)t->dtype, .rank = 1, .dims = {columns},
                       .strides = {t->rank == 2 ? t->strides[1] * size : 0}};
    for (int64_t i = 0; i < rows && columns > 0; i++) {
        row.data = t->data + i * t->strides[0] * size;
        GR_TRY(csv_row(file, &row, columns));
    }
    return GR_OK;
}

gr_status gr_csv_write(const gr_tensor *t, const char *path) {
    gr_ctx *ctx = t->head.ctx;
    gri_replace file;
    if (t->rank < 1 || t->rank > 2)
        return gr_fail(ctx, GR_ERR_SHAPE, "%s: the tensor is %s, expected rows [n] or [n,m]", path,
                       gri_tensor_text(t));
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c_locale) return gr_fail(ctx, GR_ERR_MEMORY, "%s: out of memory writing it", path);
    gr_status s = gri_replace_open(ctx, path, &file);
    if (s == GR_OK) {
        locale_t was = uselocale(c_locale); /* of this thread alone */
        s = csv_rows(&file, t);
        uselocale(was);
        if (s == GR_OK) s = gri_replace_commit(&file);
        else gri_replace_drop(&file);
    }
    freelocale(c_locale);
    return s;
}
