/* A window that moves over the planes of an image, as convolution and pooling move theirs. */
#ifndef GRI_WINDOW_H
#define GRI_WINDOW_H

#include "shape.h"

/* Pairs are (height, width). Output (r, q), tap (i, j) of the kernel reads the input at
 *     (r * stride[0] - padding[0] + i * dilation[0],  q * stride[1] - padding[1] + j * dilation[1]). */
typedef struct gri_window {
    int64_t in[2], kernel[2], stride[2], padding[2], dilation[2], out[2];
} gri_window;

/* Checks the numbers and fills out[]. With ceil, a last window that only starts inside is counted too, also where it
 * is the only one. */
gr_status gri_window_fit(gr_ctx *ctx, gri_window *w, bool ceil);
/* The other way: fills in[] from out[]. more: rows and columns at the end that the stride leaves out, fewer than it
 * has; they say which of the sizes with this out[] is meant. */
gr_status gri_window_fit_input(gr_ctx *ctx, gri_window *w, const int64_t *more);

/* Where a tap, shift = tap * dilation - padding from the window's place, reads inside: outputs *lo .. *hi - 1.
 * Divides at the border only. */
static inline void gri_window_span(const gri_window *w, int axis, int64_t shift, int64_t *lo, int64_t *hi) {
    int64_t s = w->stride[axis], room = w->in[axis] - shift, out = w->out[axis];
    *lo = shift < 0 ? (-shift + s - 1) / s : 0;
    *hi = (out - 1) * s < room ? out : room > 0 ? (room + s - 1) / s : 0;
    if (*lo > *hi) *lo = *hi;
}

#endif
