/* Sorting: numbers as unsigned keys in the same order, and keys with their positions sorted.
 *
 * The order is that of the numbers; -0 equals 0, NaN is larger than all and equals itself. Keys that are equal keep
 * the order of their positions, so there is one right result, whatever the way to it. */
#ifndef GRI_ORDER_H
#define GRI_ORDER_H

#include <string.h>

#include "op.h"
#include "vmath.h"

/* f64 variants sort whole numbers too, as i64. */
#ifdef GRI_F64
typedef uint64_t gri_key;
#else
typedef uint32_t gri_key;
#endif
#define GRI_KEY_TOP ((gri_key)1 << (8 * sizeof(gri_key) - 1))
#define GRI_KEY_NAN ((gri_key)-1)
#define GRI_ORDER_MOST 0xffffffff /* elements of a line: positions are kept as keys are */

typedef struct gri_entry { gri_key key, at; } gri_entry;

static inline gri_key gri_key_of(real v) {
    gri_key bits;
    v += 0; /* -0 becomes 0 */
    memcpy(&bits, &v, sizeof bits);
    bits = bits & GRI_KEY_TOP ? ~bits : bits | GRI_KEY_TOP;
    return v != v ? GRI_KEY_NAN : bits;
}

/* keys[i] of the n elements from x on: reals, or i64 if whole. back: the opposite order. */
static inline void gri_keys(int64_t n, const void *x, bool whole, bool back, gri_key *keys) {
    const gri_key flip = back ? (gri_key)-1 : 0;
    const real *r = x;
    if (whole) {
        for (int64_t i = 0; i < n; i++) keys[i] = ((gri_key)((const int64_t *)x)[i] ^ GRI_KEY_TOP) ^ flip;
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) keys[i] = gri_key_of(r[i]) ^ flip;
}

#define ORDER_SHORT 48 /* up to which length insertion is faster: 0.4 us, where clearing the counts takes as long */

static inline void order_insert(int64_t n, gri_entry *a) {
    for (int64_t i = 1; i < n; i++) {
        gri_entry e = a[i];
        int64_t k = i;
        for (; k > 0 && a[k - 1].key > e.key; k--) a[k] = a[k - 1];
        a[k] = e;
    }
}

/* Sorts a by key, equal ones staying in their order; spare has as much room. Radix sort from the lowest byte on: one
 * pass to count all bytes, one to move for each byte in which keys differ; 12 ns an element of f32, 25 of f64. */
static inline void gri_sort(int64_t n, gri_entry *a, gri_entry *spare) {
    enum { BYTES = sizeof(gri_key) };
    uint32_t count[BYTES][256];
    gri_entry *from = a, *to = spare;
    if (n <= ORDER_SHORT) {
        order_insert(n, a);
        return;
    }
    memset(count, 0, sizeof count);
    for (int64_t i = 0; i < n; i++)
        for (int b = 0; b < BYTES; b++) count[b][a[i].key >> 8 * b & 255]++;
    for (int b = 0; b < BYTES; b++) {
        uint32_t *place = count[b], at = 0;
        if (place[a[0].key >> 8 * b & 255] == n) continue; /* all alike */
        for (int k = 0; k < 256; k++) {
            uint32_t own = place[k];
            place[k] = at;
            at += own;
        }
        for (int64_t i = 0; i < n; i++) to[place[from[i].key >> 8 * b & 255]++] = from[i];
        gri_entry *last = from;
        from = to;
        to = last;
    }
    if (from != a) memcpy(a, from, (size_t)n * sizeof *a);
}

/* a = the n elements from x on with their positions, sorted. */
static inline void gri_sort_line(int64_t n, const void *x, bool whole, bool back, gri_entry *a, gri_entry *spare) {
    gri_key *keys = (gri_key *)(void *)spare;
    gri_keys(n, x, whole, back, keys);
    for (int64_t i = 0; i < n; i++) a[i] = (gri_entry){keys[i], (gri_key)i};
    gri_sort(n, a, spare);
}

#endif
