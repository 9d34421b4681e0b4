/* The worker pool: every piece once, in any number; nesting; many regions; many contexts; no memory, no threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <assert.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "parallel.h"

static gr_ctx *test_ctx(int threads) {
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.threads = threads;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    return ctx;
}

/* ---- pieces ----------------------------------------------------------------------------------------------- */

typedef struct counts {
    int64_t n;
    unsigned char *times; /* how often each piece ran: plain bytes, so that the thread sanitizer sees overlap */
    gr_ctx *ctx;
} counts;

typedef void (*region)(gr_ctx *ctx, int64_t pieces, gri_piece_fn fn, void *arg);

static void count_piece(void *arg, int64_t i) {
    counts *c = arg;
    assert(i >= 0 && i < c->n);
    c->times[i]++;
}

/* Runs a region and looks: any thread may, unlike cmocka's assertions. */
static bool region_runs_once(region run, gr_ctx *ctx, int64_t pieces) {
    counts c = {.n = pieces, .times = calloc((size_t)pieces + 1, 1)};
    run(ctx, pieces, count_piece, &c);
    bool once = true;
    for (int64_t i = 0; i < pieces; i++) once = once && c.times[i] == 1;
    free(c.times);
    return once;
}
static bool runs_once(gr_ctx *ctx, int64_t pieces) { return region_runs_once(gri_parallel, ctx, pieces); }

static void pause_us(long us) { nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL); }

/* ---- tests ------------------------------------------------------------------------------------------------ */

static void every_piece_runs_once(void **state) {
    (void)state;
    static const int64_t pieces[] = {0, 1, 2, 3, 7, 16, 1000, 65534, 65535, 65536, 200001};
    for (int threads = 1; threads <= 5; threads++) {
        gr_ctx *ctx = test_ctx(threads);
        for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) assert_true(runs_once(ctx, pieces[i]));
        assert_int_equal(gr_ctx_free(ctx), 0);
    }
}

static void no_workers_are_started_for_one_piece(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(4);
    assert_true(runs_once(ctx, 1));
    assert_null(ctx->pool);
    assert_true(runs_once(ctx, 2));
    assert_non_null(ctx->pool);
    gri_pool_free(ctx);
    assert_null(ctx->pool);
    gri_pool_free(ctx);
    assert_true(runs_once(ctx, 5)); /* starts again */
    assert_int_equal(gr_set_threads(ctx, 2), GR_OK);
    assert_true(runs_once(ctx, 5));
    assert_int_equal(gr_ctx_free(ctx), 0);
}

static void ten_thousand_regions(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(3);
    unsigned char times[8];
    counts c = {.times = times};
    for (int r = 0; r < 10000; r++) {
        c.n = 2 + r % 7;
        memset(times, 0, sizeof times);
        gri_parallel(ctx, c.n, count_piece, &c);
        for (int i = 0; i < c.n; i++) assert_int_equal(times[i], 1);
        if (r % 1000 == 0) pause_us(500); /* the workers fall asleep */
    }
    assert_int_equal(gr_ctx_free(ctx), 0);
}

/* Close together and far apart: the workers awake, asleep, woken. */
static void brief_regions(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(3);
    for (int r = 0; r < 3000; r++) {
        assert_true(region_runs_once(gri_parallel_brief, ctx, r % 9));
        if (r % 100 < 3) pause_us(300);
    }
    assert_int_equal(gr_ctx_free(ctx), 0);
}

/* What a piece wrote is seen by the next region, whoever runs it. */
static void double_piece(void *arg, int64_t i) {
    int64_t *v = arg;
    v[i] = 2 * v[i] + v[64 + (i + 1) % 64];
}
static void copy_piece(void *arg, int64_t i) {
    int64_t *v = arg;
    v[64 + i] = v[i] & 0xffff;
    v[i] &= 0xffff;
}

static void regions_see_each_other(void **state) {
    (void)state;
    int64_t a[128], b[128];
    for (int i = 0; i < 128; i++) a[i] = b[i] = i;
    gr_ctx *one = test_ctx(1), *many = test_ctx(4);
    for (int r = 0; r < 500; r++) {
        gri_parallel(one, 64, double_piece, a);
        gri_parallel(one, 64, copy_piece, a);
        gri_parallel(many, 64, double_piece, b);
        gri_parallel(many, 64, copy_piece, b);
    }
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(gr_ctx_free(one), 0);
    assert_int_equal(gr_ctx_free(many), 0);
}

static void nested_piece(void *arg, int64_t i) {
    counts *c = arg;
    counts inner = {.n = 10, .times = c->times + 10 * i};
    gri_parallel(c->ctx, 10, count_piece, &inner);
}

static void nested_regions_run_in_place(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(3);
    unsigned char times[500];
    counts c = {.times = times, .ctx = ctx};
    for (int r = 0; r < 200; r++) {
        memset(times, 0, sizeof times);
        gri_parallel(ctx, 50, nested_piece, &c);
        for (int i = 0; i < 500; i++) assert_int_equal(times[i], 1);
    }
    assert_int_equal(gr_ctx_free(ctx), 0);
}

static void slow_piece(void *arg, int64_t i) {
    (void)arg;
    if (i % 2) pause_us(300);
}

static void the_caller_sleeps_until_slow_pieces_are_done(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(4);
    for (int r = 0; r < 100; r++) gri_parallel(ctx, 4, slow_piece, NULL);
    assert_int_equal(gr_ctx_free(ctx), 0);
}

typedef struct stall {
    pthread_t caller;
    atomic_int helpers; /* pieces that a worker began */
    long sleep_us;      /* of a worker, in its piece */
} stall;

/* The caller stays in its piece until a worker has begun one, or for 20 ms. */
static void stall_piece(void *arg, int64_t i) {
    (void)i;
    stall *s = arg;
    if (!pthread_equal(pthread_self(), s->caller)) {
        atomic_fetch_add(&s->helpers, 1);
        pause_us(s->sleep_us);
        return;
    }
    for (int tries = 0; tries < 200 && !atomic_load(&s->helpers); tries++) pause_us(100);
}

static bool worker_helps(gr_ctx *ctx, long sleep_us) {
    stall s = {.caller = pthread_self(), .sleep_us = sleep_us};
    gri_parallel(ctx, 2, stall_piece, &s);
    return atomic_load(&s.helpers) > 0;
}

static void after_a_stall_the_caller_works_alone_for_a_while(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(2);
    int tries = 0; /* on a busy machine the worker may come too late to stall anybody */
    while ((!worker_helps(ctx, 60000) || worker_helps(ctx, 0)) && ++tries < 50) continue;
    assert_true(tries < 50);
    for (int i = 0; i < 10; i++) pause_us(20000);
    for (tries = 0; !worker_helps(ctx, 0) && tries < 50; tries++) pause_us(20000);
    assert_true(tries < 50);
    assert_int_equal(gr_ctx_free(ctx), 0);
}

static void *use_context(void *arg) {
    int64_t failures = 0;
    for (int r = 0; r < 300; r++) failures += !runs_once(arg, 2 + r % 40);
    return (void *)(intptr_t)failures;
}

static void *open_and_use_context(void *arg) {
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.threads = 2 + (int)(intptr_t)arg % 2;
    if (gr_ctx_new(&cfg, &ctx) != GR_OK) return arg;
    void *failures = use_context(ctx);
    return gr_ctx_free(ctx) ? ctx : failures;
}

static void contexts_run_side_by_side(void **state) {
    (void)state;
    pthread_t t[4];
    for (intptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, open_and_use_context, (void *)i), 0);
    for (int i = 0; i < 4; i++) {
        void *failures;
        pthread_join(t[i], &failures);
        assert_null(failures);
    }
}

static void a_context_may_change_its_thread(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(3);
    assert_null(use_context(ctx));
    for (int i = 0; i < 3; i++) {
        pthread_t t;
        void *failures;
        assert_int_equal(pthread_create(&t, NULL, use_context, ctx), 0);
        pthread_join(t, &failures);
        assert_null(failures);
    }
    assert_null(use_context(ctx));
    assert_int_equal(gr_ctx_free(ctx), 0);
}

static bool refuse;
static void *refusing_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
    (void)ud, (void)osize;
    if (nsize && refuse) return NULL;
    if (nsize) return realloc(ptr, nsize);
    free(ptr);
    return NULL;
}

static void without_memory_the_caller_works_alone(void **state) {
    (void)state;
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.threads = 4;
    cfg.alloc = refusing_alloc;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    refuse = true;
    assert_true(runs_once(ctx, 100));
    assert_null(ctx->pool);
    assert_int_equal(gr_errcode(ctx), GR_OK);
    refuse = false;
    assert_true(runs_once(ctx, 100));
    assert_non_null(ctx->pool);
    assert_int_equal(gr_ctx_free(ctx), 0);
}

static void without_threads_the_caller_works_alone(void **state) {
    (void)state;
    pthread_attr_t before, huge; /* no room for such a stack: pthread_create fails */
    assert_int_equal(pthread_getattr_default_np(&before), 0);
    pthread_attr_init(&huge);
    pthread_attr_setstacksize(&huge, (size_t)1 << 50);
    assert_int_equal(pthread_setattr_default_np(&huge), 0);
    gr_ctx *ctx = test_ctx(3);
    bool once = runs_once(ctx, 100);
    pthread_setattr_default_np(&before);
    pthread_attr_destroy(&before);
    assert_true(once);
    assert_int_equal(gr_errcode(ctx), GR_OK);
    assert_int_equal(gr_ctx_free(ctx), 0);
}

static void signal_piece(void *arg, int64_t i) {
    (void)i;
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    bool caller = pthread_equal(pthread_self(), *(pthread_t *)arg);
    assert(sigismember(&set, SIGINT) == !caller);
    pause_us(100);
}

static void workers_block_signals(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(3);
    pthread_t self = pthread_self();
    for (int r = 0; r < 20; r++) gri_parallel(ctx, 6, signal_piece, &self);
    assert_int_equal(gr_ctx_free(ctx), 0);
}

static void a_forked_child_works_alone(void **state) {
    (void)state;
    gr_ctx *ctx = test_ctx(3);
    assert_true(runs_once(ctx, 20));
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        _exit(!runs_once(ctx, 20) || gr_ctx_free(ctx) != 0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(gr_ctx_free(ctx), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_runs_once),
        cmocka_unit_test(no_workers_are_started_for_one_piece),
        cmocka_unit_test(ten_thousand_regions),
        cmocka_unit_test(brief_regions),
        cmocka_unit_test(regions_see_each_other),
        cmocka_unit_test(nested_regions_run_in_place),
        cmocka_unit_test(the_caller_sleeps_until_slow_pieces_are_done),
        cmocka_unit_test(after_a_stall_the_caller_works_alone_for_a_while),
        cmocka_unit_test(contexts_run_side_by_side),
        cmocka_unit_test(a_context_may_change_its_thread),
        cmocka_unit_test(without_memory_the_caller_works_alone),
        cmocka_unit_test(without_threads_the_caller_works_alone),
        cmocka_unit_test(workers_block_signals),
        cmocka_unit_test(a_forked_child_works_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
