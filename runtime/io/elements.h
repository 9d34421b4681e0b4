/* Numbers as files hold them: floats, whole numbers with and without a sign, in either byte order. */
#ifndef GRI_ELEMENTS_H
#define GRI_ELEMENTS_H

#include "ctx.h"

typedef struct gri_element {
    char kind;    /* 'f' IEEE float, 'b' bfloat16, 'i' with a sign, 'u' without */
    uint8_t size; /* bytes: 1, 2, 4 or 8 */
    bool big;     /* the most significant byte first */
} gri_element;

/* What they become: u8 and f64 stay; other floats become f32, other whole numbers i64. */
gr_dtype gri_element_dtype(gri_element e);
/* to[0..n) = the n elements at p, of any alignment. False where a whole number is above the largest i64. */
bool gri_elements_read(gri_element e, const void *p, int64_t n, void *to);

#endif
