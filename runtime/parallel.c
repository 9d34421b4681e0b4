/* The worker pool: one per context, threads - 1 workers, started by the first region that wants them.
 *
 * A round of at most PARALLEL_ROUND pieces is one word, claim = generation << 32 | first << 16 | last: the
 * pieces first .. last-1 are free. The caller takes from the front, workers from the back, by compare and
 * swap, so that neighbouring regions over the same data tend to give a core the half it has in its cache.
 * The generation tells a word from its twin in an earlier round.
 *
 * A round ends when no piece is free and the workers have counted in `finished` what the caller did not do
 * itself. A worker that the system has not scheduled has claimed nothing, so nobody waits for it. Whoever
 * holds a piece keeps the round open: what a worker reads of a round stays as it is until it counts itself
 * out. Spinning ends on a futex: workers on `bell`, the caller on `finished`. Each side announces its sleep
 * and looks again before it lies down, the other acts and then looks for the announcement, all four in one
 * total order (seq_cst): a wake-up cannot be lost.
 *
 * A worker that loses its core in the middle of a piece stalls the caller for a time slice of the system, some
 * 3 ms. After a stall regions run without workers for ten times as long, so that the loss stays below a tenth.
 *
 * Measured with two threads on two cores: an empty region of two pieces 0.01-0.1 us while the worker spins, 6 us
 * when it must be woken. Regions of 10 us to 10 ms of work take 0.51-0.53 of their one-thread time on a quiet
 * machine. With another process keeping one core busy, products of 6, 260 and 8100 us take 0.9-1.0 of their
 * one-thread time on average; without the rule about stalls 1.6-2.0. */
#include "parallel.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PARALLEL_ROUND 0xffff
#define PARALLEL_LINE 64        /* bytes of a cache line: what different threads write lies apart */
#define PARALLEL_IDLE_NS 20000  /* a worker without work spins so long, then sleeps */
#define PARALLEL_WAIT_NS 20000  /* the same for a caller whose last pieces are under way elsewhere */
#define PARALLEL_STALL_NS 100000  /* waiting for longer than two pieces take and this: a stall */
#define PARALLEL_ALONE_NS 100000000 /* the longest time without workers after one */

struct gri_pool {
    _Alignas(PARALLEL_LINE) _Atomic uint64_t claim;
    _Atomic(gri_piece_fn) fn;
    _Atomic(void *) arg;
    _Atomic int64_t base; /* of the round's pieces */

    _Alignas(PARALLEL_LINE) _Atomic uint32_t finished; /* pieces of this round done by workers */
    atomic_bool waiting;                               /* the caller sleeps, or is about to */

    _Alignas(PARALLEL_LINE) _Atomic uint32_t bell; /* counts the times it was rung */
    _Atomic uint32_t sleeping;                     /* workers asleep, or about to be */
    atomic_bool stop;

    _Alignas(PARALLEL_LINE) bool busy; /* a region is under way: another one runs in place */
    int workers;
    int64_t brief; /* when a brief region last found the workers asleep */
    int64_t alone; /* until then regions run without the workers */
    pid_t owner; /* a forked child has the pool but not its threads */
    void *raw;   /* as the allocator gave it */
    size_t size;
    pthread_t thread[];
};

/* ---- waiting ---------------------------------------------------------------------------------------------- */

static inline void parallel_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t parallel_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void parallel_sleep(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void parallel_wake(_Atomic uint32_t *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* ---- a round ---------------------------------------------------------------------------------------------- */

static inline bool parallel_free(uint64_t claim) { return (claim >> 16 & PARALLEL_ROUND) < (claim & PARALLEL_ROUND); }

/* Takes pieces and runs them until none is free; returns how many that were. */
static uint32_t parallel_work(struct gri_pool *p, bool front) {
    uint32_t done = 0;
    uint64_t claim = atomic_load_explicit(&p->claim, memory_order_acquire);
    while (parallel_free(claim)) {
        gri_piece_fn fn = atomic_load_explicit(&p->fn, memory_order_relaxed);
        void *arg = atomic_load_explicit(&p->arg, memory_order_relaxed);
        int64_t piece = atomic_load_explicit(&p->base, memory_order_relaxed);
        piece += (int64_t)(front ? claim >> 16 & PARALLEL_ROUND : (claim & PARALLEL_ROUND) - 1);
        uint64_t rest = front ? claim + (1 << 16) : claim - 1;
        if (!atomic_compare_exchange_weak_explicit(&p->claim, &claim, rest, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        fn(arg, piece);
        done++;
        claim = atomic_load_explicit(&p->claim, memory_order_acquire);
    }
    return done;
}

/* Until the workers have done `count` pieces of this round. Returns how long that took, in ns; 0 for a moment. */
static int64_t parallel_join(struct gri_pool *p, uint32_t count) {
    int64_t since = 0;
    for (int spins = 1;; spins++) {
        if (atomic_load_explicit(&p->finished, memory_order_acquire) == count)
            return since ? parallel_now() - since : 0;
        parallel_pause();
        if (spins % 64 != 0) continue;
        int64_t now = parallel_now();
        if (!since) since = now;
        if (now - since >= PARALLEL_WAIT_NS) break;
    }
    atomic_store(&p->waiting, true);
    for (uint32_t seen; (seen = atomic_load(&p->finished)) != count;) parallel_sleep(&p->finished, seen);
    atomic_store_explicit(&p->waiting, false, memory_order_relaxed);
    return parallel_now() - since;
}

static void parallel_round(struct gri_pool *p, int64_t base, uint32_t pieces, gri_piece_fn fn, void *arg) {
    atomic_store_explicit(&p->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&p->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&p->base, base, memory_order_relaxed);
    atomic_store_explicit(&p->finished, 0, memory_order_relaxed);
    uint64_t generation = (atomic_load_explicit(&p->claim, memory_order_relaxed) >> 32) + 1;
    atomic_store(&p->claim, generation << 32 | pieces);
    if (atomic_load(&p->sleeping)) {
        atomic_fetch_add(&p->bell, 1);
        parallel_wake(&p->bell, (int)pieces - 1);
    }
    int64_t start = parallel_now();
    uint32_t own = parallel_work(p, true);
    if (own == pieces) return;
    int64_t worked = parallel_now() - start, waited = parallel_join(p, pieces - own);
    if (own == 0 || waited <= PARALLEL_STALL_NS + 2 * worked / own) return;
    int64_t rest = 10 * waited;
    p->alone = parallel_now() + (rest < PARALLEL_ALONE_NS ? rest : PARALLEL_ALONE_NS);
}

/* ---- workers ---------------------------------------------------------------------------------------------- */

static void parallel_doze(struct gri_pool *p) {
    uint32_t bell = atomic_load(&p->bell);
    atomic_fetch_add(&p->sleeping, 1);
    if (!parallel_free(atomic_load(&p->claim)) && !atomic_load(&p->stop)) parallel_sleep(&p->bell, bell);
    atomic_fetch_sub(&p->sleeping, 1);
}

static void *parallel_worker(void *arg) {
    struct gri_pool *p = arg;
    int64_t until = 0;
    for (int spins = 1; !atomic_load_explicit(&p->stop, memory_order_acquire); spins++) {
        uint32_t done = parallel_work(p, false);
        if (done) {
            atomic_fetch_add(&p->finished, done);
            if (atomic_load(&p->waiting)) parallel_wake(&p->finished, 1);
            until = 0;
        }
        parallel_pause();
        if (spins % 64 != 0) continue;
        /* The system may have woken us on the caller's own core, where spinning only keeps the caller from
         * working: with the other core busy a region then took 28 us longer, with this line 0.5. */
        sched_yield();
        int64_t now = parallel_now();
        if (!until) {
            until = now + PARALLEL_IDLE_NS;
        } else if (now >= until) {
            parallel_doze(p);
            until = 0;
        }
    }
    return NULL;
}

/* Signals are the host's affair: workers are born with all of them blocked. */
static void parallel_start(struct gri_pool *p, int workers) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (p->workers < workers && pthread_create(&p->thread[p->workers], NULL, parallel_worker, p) == 0)
        p->workers++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* NULL when the allocator has nothing; with fewer workers, or none, when the system has no threads. */
static struct gri_pool *parallel_pool(gr_ctx *ctx) {
    if (ctx->pool) return ctx->pool;
    int workers = ctx->threads - 1;
    size_t size = sizeof(struct gri_pool) + (size_t)workers * sizeof(pthread_t) + PARALLEL_LINE;
    ctx->system_calls++;
    void *raw = ctx->alloc(ctx->alloc_ud, NULL, 0, size);
    if (!raw) return NULL;
    struct gri_pool *p = (void *)(((uintptr_t)raw + PARALLEL_LINE - 1) & ~(uintptr_t)(PARALLEL_LINE - 1));
    atomic_init(&p->claim, 0);
    atomic_init(&p->fn, NULL);
    atomic_init(&p->arg, NULL);
    atomic_init(&p->base, 0);
    atomic_init(&p->finished, 0);
    atomic_init(&p->waiting, false);
    atomic_init(&p->bell, 0);
    atomic_init(&p->sleeping, 0);
    atomic_init(&p->stop, false);
    p->busy = false;
    p->brief = p->alone = 0;
    p->workers = 0;
    p->owner = getpid();
    p->raw = raw;
    p->size = size;
    parallel_start(p, workers);
    return ctx->pool = p;
}

/* ---- interface -------------------------------------------------------------------------------------------- */

/* The pool, if a region of so many pieces should use it. */
static struct gri_pool *parallel_wanted(gr_ctx *ctx, int64_t pieces) {
    struct gri_pool *p = pieces > 1 && ctx->threads > 1 ? parallel_pool(ctx) : NULL;
    if (!p || !p->workers || p->busy) return NULL;
    if (p->alone && parallel_now() < p->alone) return NULL;
    p->alone = 0;
    return p;
}

static void parallel_run(struct gri_pool *p, int64_t pieces, gri_piece_fn fn, void *arg) {
    if (!p) {
        for (int64_t i = 0; i < pieces; i++) fn(arg, i);
        return;
    }
    p->busy = true;
    for (int64_t base = 0; base < pieces; base += PARALLEL_ROUND) {
        int64_t rest = pieces - base;
        parallel_round(p, base, (uint32_t)(rest < PARALLEL_ROUND ? rest : PARALLEL_ROUND), fn, arg);
    }
    p->busy = false;
}

void gri_parallel(gr_ctx *ctx, int64_t pieces, gri_piece_fn fn, void *arg) {
    parallel_run(parallel_wanted(ctx, pieces), pieces, fn, arg);
}

void gri_parallel_brief(gr_ctx *ctx, int64_t pieces, gri_piece_fn fn, void *arg) {
    struct gri_pool *p = parallel_wanted(ctx, pieces);
    if (p && atomic_load_explicit(&p->sleeping, memory_order_relaxed) == (uint32_t)p->workers) {
        int64_t now = parallel_now(), before = p->brief;
        p->brief = now;
        if (now - before > PARALLEL_IDLE_NS) p = NULL;
    }
    parallel_run(p, pieces, fn, arg);
}

void gri_pool_free(gr_ctx *ctx) {
    struct gri_pool *p = ctx->pool;
    if (!p) return;
    ctx->pool = NULL;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->bell, 1);
    parallel_wake(&p->bell, INT_MAX);
    if (p->owner == getpid())
        for (int i = 0; i < p->workers; i++) pthread_join(p->thread[i], NULL);
    ctx->system_calls++;
    ctx->alloc(ctx->alloc_ud, p->raw, p->size, 0);
}
