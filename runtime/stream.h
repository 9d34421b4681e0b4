/* Results written past the caches.
 *
 * To write to memory the usual way is to read it first, and what is larger than the caches has left them again
 * before anyone reads it. So rows of large results are made in a buffer that stays in the first-level cache, and go
 * to memory from there by stores that bypass the caches: layer_norm of [4096,1024] on one thread takes 1.0 ms instead
 * of 1.6. */
#ifndef GRI_STREAM_H
#define GRI_STREAM_H

#include <immintrin.h>

#include "iter.h"
#include "vmath.h"

#define GRI_STREAM_MIN ((int64_t)12 << 20)              /* bytes of a result */
#define GRI_STREAM_ROW ((int64_t)(16384 / sizeof(real))) /* elements of a row, at most: the buffer's size */

/* Are rows of n elements of t, contiguous, to be streamed? All begin at whole cache lines then. */
static inline bool gri_streams(const gr_tensor *t, int64_t n) {
    return t && t->numel * (int64_t)sizeof(real) >= GRI_STREAM_MIN && n % GRI_LANES == 0 && n <= GRI_STREAM_ROW &&
           (uintptr_t)t->data % 64 == 0;
}

/* to[0..n) = from[0..n) */
static inline void gri_stream(real *to, const real *from, int64_t n) {
    const int64_t step = 64 / sizeof(real);
    for (int64_t i = 0; i < n; i += step) {
#if defined(__AVX512F__)
        _mm512_stream_si512((void *)(to + i), _mm512_loadu_si512(from + i));
#else
        const __m128i *v = (const void *)(from + i);
        for (int k = 0; k < 4; k++) _mm_stream_si128((__m128i *)(void *)(to + i) + k, _mm_loadu_si128(v + k));
#endif
    }
}

/* Before another thread may read what was streamed. */
static inline void gri_stream_end(void) { _mm_sfence(); }

#endif
