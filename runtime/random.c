/* The context's random generator: what Philox's streams are handed out by. */
#include "random.h"

void gri_philox(uint64_t seed, uint64_t counter, uint64_t lane, uint32_t out[4]) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    out[0] = (uint32_t)lane;
    out[1] = (uint32_t)(lane >> 32);
    out[2] = (uint32_t)counter;
    out[3] = (uint32_t)(counter >> 32);
    for (int r = 0; r < 10; r++) {
        gri_philox_round(&out[0], &out[1], &out[2], &out[3], k0, k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

void gr_seed(gr_ctx *ctx, uint64_t seed) { gr_random_set(ctx, seed, 0); }

void gr_random_get(const gr_ctx *ctx, uint64_t *seed, uint64_t *counter) {
    *seed = ctx->seed;
    *counter = ctx->draws;
}

void gr_random_set(gr_ctx *ctx, uint64_t seed, uint64_t counter) {
    ctx->seed = seed;
    ctx->draws = counter;
}

void gr_random_next(gr_ctx *ctx, int64_t *seed, int64_t *counter) {
    *seed = (int64_t)ctx->seed;
    *counter = (int64_t)ctx->draws++;
}
