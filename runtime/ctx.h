/* The context: allocator and ledger, error slot, random state, interrupt flag, CPU variant, worker pool. */
#ifndef GRI_CTX_H
#define GRI_CTX_H

#include <stdatomic.h>

#include "gradrun.h"

#define GR_TRY(call)                                \
    do {                                            \
        gr_status gri_status_ = (call);             \
        if (gri_status_ != GR_OK) return gri_status_; \
    } while (0)

#define GRI_ERROR_MAX 2048
#define GRI_SMALL_MAX 2048 /* bytes; larger objects go to the allocator */
#define GRI_SMALL_STEP 32
#define GRI_BLOCK_CLASSES 160 /* size classes of data blocks: four to an octave */

typedef enum gri_isa { GRI_GENERIC, GRI_AVX2, GRI_AVX512, GRI_ISAS } gri_isa;

/* First member of everything gr_retain and gr_release accept. */
typedef enum gri_kind {
    GRI_TENSOR, GRI_LAYER, GRI_OPTIM, GRI_HOOK, GRI_DICT, GRI_NODE, GRI_STORAGE, GRI_KINDS
} gri_kind;
typedef struct gri_object {
    gr_ctx *ctx;
    int32_t refs; /* plain: a context belongs to one thread */
    uint8_t kind;
} gri_object;

struct gri_pool;
struct gri_node;
struct gri_hooks;

struct gr_ctx {
    gr_alloc_fn alloc;
    void *alloc_ud;

    /* Ledger. live counts what objects hold, cached what the free lists hold; system = live + cached. */
    size_t live, peak, cached, soft, soft_floor, hard, since_minor;
    uint64_t system_calls;
    int64_t objects[GRI_KINDS];
    void *small[GRI_SMALL_MAX / GRI_SMALL_STEP + 1]; /* free lists; the first word of a free chunk links */
    void *slabs;                                     /* what the small chunks are cut from */
    void *blocks[GRI_BLOCK_CLASSES];                 /* free 64-byte-aligned data blocks */

    gr_status status; /* of the first failure since gr_clear_error */
    char error[GRI_ERROR_MAX];
    bool placed;      /* a layer's path is already in front of it */

    atomic_bool interrupted;
    gri_isa isa;
    int threads;
    int index_base;
    gr_dtype default_dtype; /* zero is GR_F32 */
    struct gri_pool *pool; /* NULL until the first region that wants workers */

    uint64_t seed, draws; /* counter-based generator: see random.h */
    int64_t step;

    bool grad_enabled, anomaly;
    uint64_t sequence;            /* of the next node */
    uint64_t pass;                /* of the backward under way or last done */
    struct gri_pass *passes;      /* backward passes under way, innermost first */
    void *layer;                  /* gr_layer under way, borrowed: names in messages and nodes */
    struct gri_node *dying;       /* nodes waiting to be released, so that release never recurses */
    bool releasing;
    struct gri_node *looped;      /* nodes that hold a gradient with a history */
    struct gri_hooks *hooks;      /* global ones; NULL if none */
};

/* Under the address sanitizer the free lists are bypassed, so that it sees every use after free. (And where each
 * allocation is to be one of the system's: spec/c/fault_test.c.) */
#if !defined(GRI_POOLED) && defined(__SANITIZE_ADDRESS__)
#define GRI_POOLED 0
#elif !defined(GRI_POOLED)
#define GRI_POOLED 1
#endif

/* Charges n > 0 bytes, unless the hard limit says no. (Without a limit, hard - 1 is the largest number there is.) */
static inline bool gri_charge(gr_ctx *ctx, size_t n) {
    size_t live = ctx->live + n;
    if (__builtin_expect(live - 1 > ctx->hard - 1, 0)) return false;
    ctx->live = live;
    ctx->since_minor += n;
    if (live > ctx->peak) ctx->peak = live;
    return true;
}

/* Small objects from free lists. NULL on failure, with the error recorded. Contents undefined. */
void *gri_new_slow(gr_ctx *ctx, size_t size);
void gri_delete_slow(gr_ctx *ctx, void *p, size_t size);

static inline void *gri_new(gr_ctx *ctx, size_t size) {
    if (GRI_POOLED && size <= GRI_SMALL_MAX) {
        void **list = &ctx->small[(size + GRI_SMALL_STEP - 1) / GRI_SMALL_STEP], *p = *list;
        if (__builtin_expect(p && gri_charge(ctx, size), 1)) {
            *list = *(void **)p;
            return p;
        }
    }
    return gri_new_slow(ctx, size);
}

static inline void gri_delete(gr_ctx *ctx, void *p, size_t size) {
    if (GRI_POOLED && p && size <= GRI_SMALL_MAX) {
        void **list = &ctx->small[(size + GRI_SMALL_STEP - 1) / GRI_SMALL_STEP];
        *(void **)p = *list;
        *list = p;
        ctx->live -= size;
    } else {
        gri_delete_slow(ctx, p, size);
    }
}

/* Data blocks: 64-byte aligned, *capacity >= size. Reused by size class; never recorded as an error: the
 * caller knows what was wanted and says so. */
void *gri_block_new(gr_ctx *ctx, size_t size, size_t *capacity);
void gri_block_delete(gr_ctx *ctx, void *p, size_t capacity);

/* Strings and arrays of odd sizes; counted in the ledger. */
char *gri_strdup(gr_ctx *ctx, const char *s);
void gri_strfree(gr_ctx *ctx, char *s);
/* Grows *array (of *cap elements of size bytes) to hold at least n; contents kept; on failure unchanged. */
gr_status gri_grow(gr_ctx *ctx, void *array, int *cap, int n, size_t size);
void gri_array_free(gr_ctx *ctx, void *array, int cap, size_t size);

static inline gr_status gri_poll(gr_ctx *ctx) {
    if (__builtin_expect(atomic_load_explicit(&ctx->interrupted, memory_order_relaxed), 0))
        return gr_fail(ctx, GR_ERR_INTERRUPT, "interrupted");
    return GR_OK;
}

#endif
