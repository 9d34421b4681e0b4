#include "ctx.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "parallel.h"
#include "tape.h"

/* ---- names ---------------------------------------------------------------------------------------------- */

const char *gr_version(void) { return GR_VERSION; }
int gr_version_number(void) { return GR_VERSION_NUMBER; }

const char *gr_status_str(gr_status s) {
    static const char *const text[] = {
        [GR_OK] = "ok", [GR_ERR_ARG] = "bad argument", [GR_ERR_SHAPE] = "shapes do not fit",
        [GR_ERR_DTYPE] = "element types do not fit", [GR_ERR_INDEX] = "index out of range",
        [GR_ERR_STATE] = "not possible in this state", [GR_ERR_NONFINITE] = "not finite",
        [GR_ERR_MEMORY] = "out of memory", [GR_ERR_IO] = "input/output error", [GR_ERR_FORMAT] = "bad file format",
        [GR_ERR_INTERRUPT] = "interrupted", [GR_ERR_SCRIPT] = "script error"};
    return (unsigned)s < sizeof text / sizeof *text ? text[s] : "unknown status";
}

const char *gr_dtype_name(gr_dtype t) {
    static const char *const name[] = {"f32", "f64", "i64", "u8"};
    return (unsigned)t < GR_DTYPES ? name[t] : "?";
}

size_t gr_dtype_size(gr_dtype t) {
    static const uint8_t size[] = {4, 8, 8, 1};
    return (unsigned)t < GR_DTYPES ? size[t] : 0;
}

/* ---- errors --------------------------------------------------------------------------------------------- */

const char *gr_errmsg(const gr_ctx *ctx) { return ctx->error; }
gr_status gr_errcode(const gr_ctx *ctx) { return ctx->status; }

void gr_clear_error(gr_ctx *ctx) {
    ctx->status = GR_OK;
    ctx->placed = false;
    ctx->error[0] = 0;
}

gr_status gr_fail(gr_ctx *ctx, gr_status code, const char *fmt, ...) {
    if (ctx->status != GR_OK) return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(ctx->error, sizeof ctx->error, fmt, args);
    va_end(args);
    ctx->status = code;
    return code;
}

gr_status gr_fail_within(gr_ctx *ctx, const char *fmt, ...) {
    char prefix[512];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(prefix, sizeof prefix - 2, fmt, args);
    va_end(args);
    if (n < 0) return ctx->status;
    size_t len = (size_t)n < sizeof prefix - 3 ? (size_t)n : sizeof prefix - 3;
    memcpy(prefix + len, ": ", 2);
    len += 2;
    size_t text = strlen(ctx->error), room = sizeof ctx->error - 1 - len;
    if (text > room) text = room;
    memmove(ctx->error + len, ctx->error, text);
    memcpy(ctx->error, prefix, len);
    ctx->error[len + text] = 0;
    return ctx->status;
}

/* ---- memory ----------------------------------------------------------------------------------------------
 * Two pools. Small objects (structs) are cut from slabs and kept in free lists by 32-byte class. Data blocks
 * are 64-byte aligned and kept by size class, four to an octave, so that at most a fifth is wasted. A warm
 * training step meets the same sizes again and takes nothing from the system. */

#define CTX_SLAB (64 * 1024)
#define CTX_MIN_SOFT ((size_t)64 << 20)
#define CTX_BLOCK_EXTRA 80 /* room for alignment and the raw pointer in front of a block */
/* From 64 KiB on, blocks begin at different places within their page: a loop over several arrays of one size would
 * otherwise meet the same cache sets and the processor's false store-to-load conflicts at every element. From
 * 4 MiB on they ask for huge pages, if the allocator is ours. Measured on AdamW over eight 4 MB parameters, four
 * arrays each, one thread: 5.61 ms with neither, 5.01 with huge pages, 4.17 spread, 4.06 with both. */
#define CTX_SPREAD_MIN ((size_t)64 << 10)
#define CTX_SPREAD_STEP 320
#define CTX_SPREAD_PLACES 12
#define CTX_HUGE_MIN ((size_t)4 << 20)
#define CTX_HUGE_PAGE ((size_t)2 << 20)

static void *ctx_c_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
    (void)ud, (void)osize;
    if (nsize == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, nsize);
}

static void *ctx_system(gr_ctx *ctx, void *ptr, size_t osize, size_t nsize) {
    ctx->system_calls++;
    return ctx->alloc(ctx->alloc_ud, ptr, osize, nsize);
}

/* From the system, after giving up our own cache if need be. */
static void *ctx_system_new(gr_ctx *ctx, size_t size) {
    void *p = ctx_system(ctx, NULL, 0, size);
    if (!p && ctx->cached) {
        gr_memory_trim(ctx);
        p = ctx_system(ctx, NULL, 0, size);
    }
    return p;
}

static bool ctx_slab(gr_ctx *ctx, size_t step, void **list) {
    char *slab = ctx_system_new(ctx, CTX_SLAB);
    if (!slab) return false;
    *(void **)slab = ctx->slabs;
    ctx->slabs = slab;
    for (size_t at = 64; at + step <= CTX_SLAB; at += step) {
        *(void **)(slab + at) = *list;
        *list = slab + at;
    }
    return true;
}

void *gri_new_slow(gr_ctx *ctx, size_t size) {
    if (!gri_charge(ctx, size)) {
        gr_fail(ctx, GR_ERR_MEMORY, "memory limit of %zu bytes met (%zu in use)", ctx->hard, ctx->live);
        return NULL;
    }
    void *p = NULL;
    if (GRI_POOLED && size <= GRI_SMALL_MAX) {
        size_t class = (size + GRI_SMALL_STEP - 1) / GRI_SMALL_STEP;
        void **list = &ctx->small[class];
        if (*list || ctx_slab(ctx, class * GRI_SMALL_STEP, list)) {
            p = *list;
            *list = *(void **)p;
        }
    } else if (GRI_POOLED) {
        size_t capacity;
        ctx->live -= size; /* the block charges itself */
        p = gri_block_new(ctx, size + 64, &capacity);
        if (p) {
            *(size_t *)p = capacity;
            return (char *)p + 64;
        }
        ctx->live += size;
    } else {
        p = ctx_system_new(ctx, size);
    }
    if (p) return p;
    ctx->live -= size;
    gr_fail(ctx, GR_ERR_MEMORY, "out of memory: %zu bytes wanted, %zu in use", size, ctx->live);
    return NULL;
}

void gri_delete_slow(gr_ctx *ctx, void *p, size_t size) {
    if (!p) return;
    if (GRI_POOLED && size > GRI_SMALL_MAX) {
        char *block = (char *)p - 64;
        gri_block_delete(ctx, block, *(size_t *)block);
        return;
    }
    ctx->live -= size;
    if (GRI_POOLED) {
        void **list = &ctx->small[(size + GRI_SMALL_STEP - 1) / GRI_SMALL_STEP];
        *(void **)p = *list;
        *list = p;
    } else {
        ctx_system(ctx, p, size, 0);
    }
}

/* Class c holds blocks of (4 + c % 4) * 2^(c / 4) * 16 bytes: 64, 80, 96, 112, 128, 160, … */
static size_t ctx_class_size(int c) { return ((size_t)(4 + c % 4) << (c / 4)) * 16; }

static int ctx_class(size_t size) {
    if (size <= 64) return 0;
    size_t units = (size + 15) / 16 - 1; /* the class holds more than `units` */
    int top = 63 - __builtin_clzll(units);
    int c = (top - 2) * 4 + (int)((units >> (top - 2)) & 3) + 1;
    return c;
}

static bool ctx_block_huge(const gr_ctx *ctx, size_t capacity) {
    return capacity >= CTX_HUGE_MIN && ctx->alloc == ctx_c_alloc;
}

/* Bytes to ask for besides the block's own. What a huge page's alignment skips is never touched. */
static size_t ctx_block_extra(const gr_ctx *ctx, size_t capacity) {
    size_t extra = CTX_BLOCK_EXTRA;
    if (capacity >= CTX_SPREAD_MIN) extra += CTX_SPREAD_STEP * (CTX_SPREAD_PLACES - 1);
    return ctx_block_huge(ctx, capacity) ? extra + CTX_HUGE_PAGE : extra;
}

static void *ctx_block_system(gr_ctx *ctx, size_t capacity) {
    bool huge = ctx_block_huge(ctx, capacity);
    size_t align = huge ? CTX_HUGE_PAGE : 64, size = capacity + ctx_block_extra(ctx, capacity);
    char *raw = ctx_system_new(ctx, size);
    if (!raw) return NULL;
    char *p = (char *)(((uintptr_t)raw + sizeof raw + align - 1) & ~(uintptr_t)(align - 1));
    if (huge) madvise(p, (size_t)(raw + size - p) & ~(CTX_HUGE_PAGE - 1), MADV_HUGEPAGE);
    if (capacity >= CTX_SPREAD_MIN) p += ctx->system_calls % CTX_SPREAD_PLACES * CTX_SPREAD_STEP;
    ((void **)p)[-1] = raw;
    return p;
}

void *gri_block_new(gr_ctx *ctx, size_t size, size_t *capacity) {
    if (GRI_POOLED) size = (size + 63) & ~(size_t)63; /* whole cache lines: a short vector's last lanes have room */
    int c = ctx_class(size);
    if (c >= GRI_BLOCK_CLASSES) return NULL;
    size_t room = GRI_POOLED ? ctx_class_size(c) : (size ? size : 1);
    if (!gri_charge(ctx, room)) return NULL;
    void *p = GRI_POOLED ? ctx->blocks[c] : NULL;
    if (p) {
        ctx->blocks[c] = *(void **)p;
        ctx->cached -= room;
    } else {
        p = ctx_block_system(ctx, room);
    }
    if (!p) {
        ctx->live -= room;
        return NULL;
    }
    *capacity = room;
    return p;
}

static void ctx_block_free(gr_ctx *ctx, void *p, size_t capacity) {
    ctx_system(ctx, ((void **)p)[-1], capacity + ctx_block_extra(ctx, capacity), 0);
}

/* Gives cached blocks back, the largest first, until no more than `keep` bytes are held; those of class `last`,
 * the one being filled, go last. */
static void ctx_evict(gr_ctx *ctx, size_t keep, int last) {
    for (int i = GRI_BLOCK_CLASSES; i >= 0; i--) {
        int c = i ? i - 1 : last;
        while (ctx->live + ctx->cached > keep && (i == 0 || c != last) && ctx->blocks[c]) {
            void *p = ctx->blocks[c];
            ctx->blocks[c] = *(void **)p;
            ctx->cached -= ctx_class_size(c);
            ctx_block_free(ctx, p, ctx_class_size(c));
        }
    }
}

/* Half as much again as was ever live is held: a step whose sizes come and go at different times would else ask
 * the system for the same blocks in every round (16 MB of f32 and 32 MB of f64 by turns: 7 ns an element, not 1). */
void gri_block_delete(gr_ctx *ctx, void *p, size_t capacity) {
    if (!p) return;
    ctx->live -= capacity;
    if (!GRI_POOLED) {
        ctx_block_free(ctx, p, capacity);
        return;
    }
    int c = ctx_class(capacity);
    *(void **)p = ctx->blocks[c];
    ctx->blocks[c] = p;
    ctx->cached += capacity;
    size_t keep = ctx->peak > CTX_MIN_SOFT ? ctx->peak : CTX_MIN_SOFT;
    if (__builtin_expect(ctx->live + ctx->cached > keep + keep / 2, 0)) ctx_evict(ctx, keep + keep / 2, c);
}

char *gri_strdup(gr_ctx *ctx, const char *s) {
    size_t n = strlen(s) + 1;
    char *p = gri_new(ctx, n);
    return p ? memcpy(p, s, n) : NULL;
}

void gri_strfree(gr_ctx *ctx, char *s) {
    if (s) gri_delete(ctx, s, strlen(s) + 1);
}

gr_status gri_grow(gr_ctx *ctx, void *array, int *cap, int n, size_t size) {
    if (n <= *cap) return GR_OK;
    int room = *cap ? *cap : 8;
    while (room < n) room = room > INT32_MAX / 2 ? n : room * 2;
    void *p = gri_new(ctx, (size_t)room * size), **slot = array;
    if (!p) return GR_ERR_MEMORY;
    if (*slot) memcpy(p, *slot, (size_t)*cap * size);
    gri_array_free(ctx, *slot, *cap, size);
    *slot = p;
    *cap = room;
    return GR_OK;
}

void gri_array_free(gr_ctx *ctx, void *array, int cap, size_t size) { gri_delete(ctx, array, (size_t)cap * size); }

gr_status gr_memory_limit(gr_ctx *ctx, size_t hard_bytes) {
    if (hard_bytes == 0 || (ctx->hard && hard_bytes > ctx->hard))
        return gr_fail(ctx, GR_ERR_ARG, "a memory limit of %zu bytes, expected 1 to %zu", hard_bytes,
                       ctx->hard ? ctx->hard : SIZE_MAX);
    ctx->hard = hard_bytes;
    if (ctx->soft > hard_bytes) ctx->soft = hard_bytes;
    return GR_OK;
}

void gr_memory_trim(gr_ctx *ctx) {
    for (int c = 0; c < GRI_BLOCK_CLASSES; c++) {
        while (ctx->blocks[c]) {
            void *p = ctx->blocks[c];
            ctx->blocks[c] = *(void **)p;
            ctx_block_free(ctx, p, ctx_class_size(c));
        }
    }
    ctx->cached = 0;
}

void gr_memory_get(const gr_ctx *ctx, gr_memory *out) {
    *out = (gr_memory){.live = ctx->live, .peak = ctx->peak, .cached = ctx->cached, .soft = ctx->soft,
                       .hard = ctx->hard, .system_calls = ctx->system_calls,
                       .tensors = ctx->objects[GRI_TENSOR], .storages = ctx->objects[GRI_STORAGE],
                       .nodes = ctx->objects[GRI_NODE], .layers = ctx->objects[GRI_LAYER],
                       .optims = ctx->objects[GRI_OPTIM], .hooks = ctx->objects[GRI_HOOK],
                       .dicts = ctx->objects[GRI_DICT]};
}

/* Thresholds of design 6, measured there: one minor collection every max(8 MiB, soft/8), a full one over the
 * soft limit, which then becomes max(floor, 2 * live). */
gr_pressure gr_memory_pressure(const gr_ctx *ctx) {
    if (ctx->live > ctx->soft) return ctx->hard && ctx->live >= ctx->hard ? GR_PRESSURE_HARD : GR_PRESSURE_FULL;
    size_t step = ctx->soft / 8 > ((size_t)8 << 20) ? ctx->soft / 8 : (size_t)8 << 20;
    return ctx->since_minor >= step ? GR_PRESSURE_MINOR : GR_PRESSURE_NONE;
}

void gr_memory_collected(gr_ctx *ctx, bool full) {
    ctx->since_minor = 0;
    if (!full) return;
    size_t want = 2 * ctx->live;
    ctx->soft = want > ctx->soft_floor ? want : ctx->soft_floor;
    if (ctx->hard && ctx->soft > ctx->hard) ctx->soft = ctx->hard;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

static const char *const ctx_isa_names[] = {"generic", "avx2", "avx512"};

static bool ctx_isa_usable(gri_isa isa) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    if (isa >= GRI_AVX2 && !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return false;
    if (isa >= GRI_AVX512 && !(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")))
        return false;
    return true;
#else
    return isa == GRI_GENERIC;
#endif
}

static gr_status ctx_pick_isa(const char *name, gri_isa *out) {
    if (!name) name = getenv("GRADRUN_ISA");
    if (!name || !*name) {
        *out = ctx_isa_usable(GRI_AVX512) ? GRI_AVX512 : ctx_isa_usable(GRI_AVX2) ? GRI_AVX2 : GRI_GENERIC;
        return GR_OK;
    }
    for (int i = 0; i < GRI_ISAS; i++) {
        if (strcmp(name, ctx_isa_names[i]) == 0 && ctx_isa_usable((gri_isa)i)) {
            *out = (gri_isa)i;
            return GR_OK;
        }
    }
    return GR_ERR_ARG;
}

static int ctx_default_threads(void) {
    const char *s = getenv("GRADRUN_THREADS");
    int n = s ? atoi(s) : 0;
    if (n < 1) {
        cpu_set_t set;
        n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
        if (n > 16) n = 16;
    }
    return n < 1 ? 1 : n > 64 ? 64 : n;
}

void gr_config_init(gr_config *cfg) {
    *cfg = (gr_config){.size = sizeof *cfg, .soft_bytes = CTX_MIN_SOFT, .index_base = 1};
}

gr_status gr_ctx_new(const gr_config *cfg, gr_ctx **out) {
    gr_config defaults;
    gri_isa isa;
    *out = NULL;
    gr_config_init(&defaults);
    if (cfg) memcpy(&defaults, cfg, cfg->size < sizeof defaults ? cfg->size : sizeof defaults);
    cfg = &defaults;
    if (cfg->index_base != 0 && cfg->index_base != 1) return GR_ERR_ARG;
    GR_TRY(ctx_pick_isa(cfg->isa, &isa));
    gr_alloc_fn alloc = cfg->alloc ? cfg->alloc : ctx_c_alloc;
    gr_ctx *ctx = alloc(cfg->alloc_ud, NULL, 0, sizeof *ctx);
    if (!ctx) return GR_ERR_MEMORY;
    memset(ctx, 0, sizeof *ctx);
    ctx->alloc = alloc;
    ctx->alloc_ud = cfg->alloc_ud;
    ctx->soft = ctx->soft_floor = cfg->soft_bytes ? cfg->soft_bytes : CTX_MIN_SOFT;
    ctx->hard = cfg->hard_bytes;
    ctx->isa = isa;
    ctx->threads = cfg->threads > 0 ? (cfg->threads > 64 ? 64 : cfg->threads) : ctx_default_threads();
    ctx->index_base = cfg->index_base;
    ctx->seed = cfg->seed;
    ctx->step = 1;
    ctx->grad_enabled = true;
    atomic_init(&ctx->interrupted, false);
    *out = ctx;
    return GR_OK;
}

int64_t gr_ctx_free(gr_ctx *ctx) {
    if (!ctx) return 0;
    int64_t alive = 0;
    gri_hooks_free(ctx, &ctx->hooks); /* those on the context itself; they may hold objects */
    gri_loops_break(ctx);
    for (int k = 0; k < GRI_KINDS; k++) alive += ctx->objects[k];
    if (alive) return alive;
    gri_pool_free(ctx);
    gr_memory_trim(ctx);
    while (ctx->slabs) {
        void *slab = ctx->slabs;
        ctx->slabs = *(void **)slab;
        ctx_system(ctx, slab, CTX_SLAB, 0);
    }
    ctx->alloc(ctx->alloc_ud, ctx, sizeof *ctx, 0);
    return 0;
}

int gr_threads(const gr_ctx *ctx) { return ctx->threads; }

gr_status gr_set_threads(gr_ctx *ctx, int n) {
    if (n < 1 || n > 64) return gr_fail(ctx, GR_ERR_ARG, "%d threads: expected 1 to 64", n);
    if (n != ctx->threads) gri_pool_free(ctx);
    ctx->threads = n;
    return GR_OK;
}

const char *gr_isa(const gr_ctx *ctx) { return ctx_isa_names[ctx->isa]; }
void gr_interrupt(gr_ctx *ctx) { atomic_store_explicit(&ctx->interrupted, true, memory_order_relaxed); }
void gr_clear_interrupt(gr_ctx *ctx) { atomic_store_explicit(&ctx->interrupted, false, memory_order_relaxed); }
bool gr_interrupted(const gr_ctx *ctx) { return atomic_load_explicit(&ctx->interrupted, memory_order_relaxed); }
int64_t gr_step(const gr_ctx *ctx) { return ctx->step; }
void gr_set_step(gr_ctx *ctx, int64_t step) { ctx->step = step; }
bool gr_grad_enabled(const gr_ctx *ctx) { return ctx->grad_enabled; }

gr_dtype gr_default_dtype(const gr_ctx *ctx) { return ctx->default_dtype; }

gr_dtype gr_set_default_dtype(gr_ctx *ctx, gr_dtype t) {
    gr_dtype was = ctx->default_dtype;
    if (t <= GR_F64) ctx->default_dtype = t;
    return was;
}

bool gr_set_grad_enabled(gr_ctx *ctx, bool on) {
    bool was = ctx->grad_enabled;
    ctx->grad_enabled = on;
    return was;
}

bool gr_set_anomaly(gr_ctx *ctx, bool on) {
    bool was = ctx->anomaly;
    ctx->anomaly = on;
    return was;
}
