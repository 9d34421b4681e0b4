/* Random numbers as a function of (seed, counter): Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel
 * random numbers: as easy as 1, 2, 3", SC 2011).
 *
 * A generator's state is a seed and the number of draws made from it. Each draw (an op run once) has a stream
 * of its own: 2^64 blocks of four 32-bit words, each found from its lane alone. So any thread can make any
 * part of a draw, and making it again gives the same numbers.
 *     Philox key     = seed low, seed high
 *     Philox counter = lane low, lane high, counter low, counter high
 *
 * Which word becomes which element is fixed too, in groups of GRI_GROUP elements, and so that vector units
 * need no transposition. With j = 0..15 and lanes 16 at a time:
 *     32 bits an element: element 64g + 16w + j      is word w of lane 16g + j
 *     64 bits an element: element 64g + 32h + 16p + j is words 2p (high), 2p + 1 (low) of lane 32g + 16h + j */
#ifndef GRI_RANDOM_H
#define GRI_RANDOM_H

#include "ctx.h"

#define GRI_GROUP 64       /* elements made together */
#define GRI_GROUP_LANES 16 /* blocks made together */

typedef uint32_t gri_words[4][GRI_GROUP_LANES]; /* [w][j]: word w of the j-th block */

static inline void gri_philox_round(uint32_t *c0, uint32_t *c1, uint32_t *c2, uint32_t *c3, uint32_t k0,
                                    uint32_t k1) {
    uint64_t p0 = (uint64_t)0xD2511F53u * *c0, p1 = (uint64_t)0xCD9E8D57u * *c2;
    *c0 = (uint32_t)(p1 >> 32) ^ *c1 ^ k0;
    *c1 = (uint32_t)p1;
    *c2 = (uint32_t)(p0 >> 32) ^ *c3 ^ k1;
    *c3 = (uint32_t)p0;
}

/* The blocks of lanes lane .. lane + 15; lane must be a multiple of 16. Plain loops over the lanes, which the
 * compiler turns into vectors of the file's own width: 0.79, 0.65 and 1.0 G words/s on Zen 4 (generic, avx2,
 * avx512). With _mm*_mul_epu32 written out it was 0.72, 0.58 and 1.6: not worth a second source. */
static inline void gri_philox16(uint64_t seed, uint64_t counter, uint64_t lane, gri_words out) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int j = 0; j < GRI_GROUP_LANES; j++) {
        out[0][j] = (uint32_t)lane + (uint32_t)j; /* no carry: lane is a multiple of 16 */
        out[1][j] = (uint32_t)(lane >> 32);
        out[2][j] = (uint32_t)counter;
        out[3][j] = (uint32_t)(counter >> 32);
    }
    for (int r = 0; r < 10; r++) {
        for (int j = 0; j < GRI_GROUP_LANES; j++)
            gri_philox_round(&out[0][j], &out[1][j], &out[2][j], &out[3][j], k0, k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* Uniform in [0, 1): the upper 24 bits of a word; the upper 27 of one and 26 of another. Exact, so the same
 * with and without fused multiply-add. */
static inline float gri_unit_f32(uint32_t x) { return (float)(int32_t)(x >> 8) * 0x1p-24f; }
static inline double gri_unit_f64(uint32_t high, uint32_t low) {
    return (double)(int32_t)(high >> 5) * 0x1p-27 + (double)(int32_t)(low >> 6) * 0x1p-53;
}

/* One block. */
void gri_philox(uint64_t seed, uint64_t counter, uint64_t lane, uint32_t out[4]);

#endif
