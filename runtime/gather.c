#include "gather.h"

#include <string.h>

/* What moves is a tile: rows x cols elements, rs and cs bytes apart in memory, row after row in the run. One loop
 * nest for each pair of dtypes and each way a tile can lie:
 *     rows as they are in memory (cs is the element's size): plain loops the compiler turns into vectors;
 *     one value a row (cs = 0);
 *     columns nearer together than the elements of a row (a transposed view): column by column, so that each
 *     cache line is read once; 0.5 ns an element where row by row took 2.9, at a row stride of 8 KiB;
 *     anything else, row by row.
 * A tile that repeats one row (rs = 0, a bias) is filled by copying what is there already. */

/* Doubles to integers: what C leaves undefined is given a value here. */
static inline int64_t gather_to_i64(double v) {
    if (!(v > -9223372036854775808.0)) return v != v ? 0 : INT64_MIN;
    return v < 9223372036854775808.0 ? (int64_t)v : INT64_MAX;
}
static inline uint8_t gather_to_u8(double v) { return v > 0 ? (v < 255 ? (uint8_t)v : 255) : 0; }

#define GATHER_REAL(v) v
#define GATHER_I64(v) gather_to_i64((double)(v))
#define GATHER_U8(v) gather_to_u8((double)(v))
#define GATHER_CLIP(v) (uint8_t)((v) < 0 ? 0 : (v) > 255 ? 255 : (v))

typedef void (*gather_load)(void *run, const char *tile, int64_t rows, int64_t cols, int64_t rs, int64_t cs);
typedef void (*gather_store)(char *tile, const void *run, int64_t rows, int64_t cols, int64_t rs, int64_t cs,
                             gri_mode mode);

#define GATHER_AT(type, i, j) (*(type *)(void *)(tile + (i) * rs + (j) * cs))
#define GATHER_ROWS(body)                   \
    for (int64_t i = 0; i < rows; i++) {    \
        for (int64_t j = 0; j < cols; j++) body; \
    }
#define GATHER_COLS(body)                   \
    for (int64_t j = 0; j < cols; j++) {    \
        for (int64_t i = 0; i < rows; i++) body; \
    }

#define GATHER_LOAD(name, from, to, conv)                                                                        \
    static void name(void *run, const char *tile, int64_t rows, int64_t cols, int64_t rs, int64_t cs) {          \
        to *restrict d = run;                                                                                    \
        if (cs == sizeof(from)) {                                                                                \
            for (; rows > 0; rows--, tile += rs, d += cols) {                                                    \
                const from *restrict s = (const void *)tile;                                                     \
                for (int64_t j = 0; j < cols; j++) d[j] = (to)conv(s[j]);                                        \
            }                                                                                                    \
        } else if (cs == 0) {                                                                                    \
            for (; rows > 0; rows--, tile += rs, d += cols) {                                                    \
                to v = (to)conv(GATHER_AT(const from, 0, 0));                                                    \
                for (int64_t j = 0; j < cols; j++) d[j] = v;                                                     \
            }                                                                                                    \
        } else if (rs < cs) {                                                                                    \
            GATHER_COLS(d[i * cols + j] = (to)conv(GATHER_AT(const from, i, j)))                                 \
        } else {                                                                                                 \
            GATHER_ROWS(d[i * cols + j] = (to)conv(GATHER_AT(const from, i, j)))                                 \
        }                                                                                                        \
    }

#define GATHER_STORE(name, from, to, conv)                                                                       \
    static void name(char *tile, const void *run, int64_t rows, int64_t cols, int64_t rs, int64_t cs,            \
                     gri_mode mode) {                                                                            \
        const from *restrict s = run;                                                                            \
        if (cs == sizeof(to)) {                                                                                  \
            for (; rows > 0; rows--, tile += rs, s += cols) {                                                    \
                to *restrict d = (void *)tile;                                                                   \
                if (mode == GRI_ADD) for (int64_t j = 0; j < cols; j++) d[j] += (to)conv(s[j]);                  \
                else for (int64_t j = 0; j < cols; j++) d[j] = (to)conv(s[j]);                                   \
            }                                                                                                    \
        } else if (rs < cs) {                                                                                    \
            if (mode == GRI_ADD) GATHER_COLS(GATHER_AT(to, i, j) += (to)conv(s[i * cols + j]))                   \
            else GATHER_COLS(GATHER_AT(to, i, j) = (to)conv(s[i * cols + j]))                                    \
        } else {                                                                                                 \
            if (mode == GRI_ADD) GATHER_ROWS(GATHER_AT(to, i, j) += (to)conv(s[i * cols + j]))                   \
            else GATHER_ROWS(GATHER_AT(to, i, j) = (to)conv(s[i * cols + j]))                                    \
        }                                                                                                        \
    }

#define GATHER_PAIR(a, from, b, to, conv)         \
    GATHER_LOAD(gather_##a##_##b, from, to, conv) \
    GATHER_STORE(scatter_##a##_##b, from, to, conv)
#define GATHER_FROM(a, from, to_i64, to_u8)          \
    GATHER_PAIR(a, from, f32, float, GATHER_REAL)    \
    GATHER_PAIR(a, from, f64, double, GATHER_REAL)   \
    GATHER_PAIR(a, from, i64, int64_t, to_i64)       \
    GATHER_PAIR(a, from, u8, uint8_t, to_u8)
GATHER_FROM(f32, float, GATHER_I64, GATHER_U8)
GATHER_FROM(f64, double, GATHER_I64, GATHER_U8)
GATHER_FROM(i64, int64_t, GATHER_REAL, GATHER_CLIP)
GATHER_FROM(u8, uint8_t, GATHER_REAL, GATHER_REAL)

#define GATHER_TABLE(verb, a) {verb##_##a##_f32, verb##_##a##_f64, verb##_##a##_i64, verb##_##a##_u8}
static const gather_load gather_loads[4][4] = {
    GATHER_TABLE(gather, f32), GATHER_TABLE(gather, f64), GATHER_TABLE(gather, i64), GATHER_TABLE(gather, u8)};
static const gather_store gather_stores[4][4] = {
    GATHER_TABLE(scatter, f32), GATHER_TABLE(scatter, f64), GATHER_TABLE(scatter, i64), GATHER_TABLE(scatter, u8)};

/* ---- walking a view tile by tile ------------------------------------------------------------------------ */

/* Where one is in a view: coordinates, and the byte offset they make. */
typedef struct gather_place {
    int64_t index[GR_MAX_RANK], offset;
} gather_place;

static void gather_seek(const gri_strided *s, int64_t at, gather_place *p) {
    p->offset = 0;
    for (int d = s->rank - 1; d >= 0; d--) {
        p->index[d] = at ? at % s->dims[d] : 0;
        at = at ? at / s->dims[d] : 0;
        p->offset += p->index[d] * s->strides[d];
    }
}

/* Goes n > 0 steps on along dimension d, at most to its end, where the next place is found. */
static void gather_advance(const gri_strided *s, int d, int64_t n, gather_place *p) {
    p->index[d] += n;
    p->offset += n * s->strides[d];
    while (p->index[d] == s->dims[d] && d > 0) {
        p->offset -= p->index[d] * s->strides[d];
        p->index[d--] = 0;
        p->index[d]++;
        p->offset += s->strides[d];
    }
}

/* The largest tile from place p on, of at most n elements: what is left of a row, or as many whole rows as there
 * are in the next dimension. */
static void gather_tile(const gri_strided *s, const gather_place *p, int64_t n, int64_t *rows, int64_t *cols) {
    int last = s->rank - 1;
    *rows = 1;
    *cols = s->dims[last] - p->index[last];
    if (*cols > n) *cols = n;
    if (p->index[last] || last == 0 || n < 2 * s->dims[last]) return;
    int64_t left = s->dims[last - 1] - p->index[last - 1];
    *rows = n / *cols < left ? n / *cols : left;
}

static void gather_step(const gri_strided *s, int64_t rows, int64_t cols, gather_place *p) {
    if (rows > 1) gather_advance(s, s->rank - 2, rows, p);
    else gather_advance(s, s->rank - 1, cols, p);
}

/* Fills rows of `bytes` each with the first one. */
static void gather_repeat(char *run, size_t bytes, int64_t rows) {
    size_t have = bytes, all = bytes * (size_t)rows;
    while (have < all) {
        size_t more = have < all - have ? have : all - have;
        memcpy(run + have, run, more);
        have += more;
    }
}

void gri_gather(const gri_strided *s, int64_t at, int64_t n, gr_dtype type, void *dst) {
    gather_load load = gather_loads[s->dtype][type];
    gather_place p;
    int64_t cs = s->strides[s->rank - 1], rs = s->rank > 1 ? s->strides[s->rank - 2] : 0, rows, cols;
    char *run = dst;
    for (gather_seek(s, at, &p); n > 0; n -= rows * cols) {
        gather_tile(s, &p, n, &rows, &cols);
        size_t bytes = (size_t)cols * gri_size(type);
        load(run, s->data + p.offset, rs ? rows : 1, cols, rs, cs);
        if (!rs) gather_repeat(run, bytes, rows);
        run += bytes * (size_t)rows;
        gather_step(s, rows, cols, &p);
    }
}

void gri_scatter(const gri_strided *s, int64_t at, int64_t n, gr_dtype type, const void *src, gri_mode mode) {
    gather_store store = gather_stores[type][s->dtype];
    gather_place p;
    int64_t cs = s->strides[s->rank - 1], rs = s->rank > 1 ? s->strides[s->rank - 2] : cs, rows, cols;
    const char *run = src;
    for (gather_seek(s, at, &p); n > 0; n -= rows * cols) {
        gather_tile(s, &p, n, &rows, &cols);
        store(s->data + p.offset, run, rows, cols, rs, cs, mode);
        run += (size_t)(rows * cols) * gri_size(type);
        gather_step(s, rows, cols, &p);
    }
}
