/* Contexts side by side: each thread trains and saves in its own, with workers of its own, and gets what it gets alone.
 * Run under the thread sanitizer by make check-all. */
#include "model.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct training {
    int threads;
    gr_status status;
    int64_t left;         /* objects alive at the end */
    uint64_t fingerprint; /* of parameters and gradients after the last step */
} training;

/* Weights to a file and back. */
static gr_status through_a_file(gr_ctx *ctx, gr_layer *net) {
    char path[] = "/tmp/gradrun-contexts-XXXXXX";
    gr_dict *d = NULL, *back = NULL;
    close(mkstemp(path));
    gr_status s = gr_layer_state(net, &d);
    if (s == GR_OK) s = gr_safetensors_write(d, path);
    if (s == GR_OK) s = gr_safetensors_read(ctx, path, &back);
    if (s == GR_OK) s = gr_state_load(ctx, 1, &(gr_state_part){.object = net, .state = back});
    unlink(path);
    gr_release(d);
    gr_release(back);
    return s;
}

static gr_status train(gr_ctx *ctx, training *t) {
    gr_layer *net = NULL;
    gr_optim *opt = NULL;
    gr_status s = model_new(ctx, 16, &net);
    if (s == GR_OK) s = optim_new(net, &opt);
    for (int step = 0; s == GR_OK && step < 6; step++) {
        gr_tensor *loss = NULL;
        s = gr_optim_zero_grad(opt);
        if (s == GR_OK) s = model_loss(net, 300, &loss);
        if (s == GR_OK) s = gr_backward(loss, NULL);
        if (s == GR_OK) s = clip_all(net);
        if (s == GR_OK) s = gr_optim_step(opt);
        gr_release(loss);
    }
    if (s == GR_OK) s = through_a_file(ctx, net);
    if (s == GR_OK) t->fingerprint = model_fingerprint(net, opt);
    gr_release(opt);
    gr_release(net);
    return s;
}

/* A thread's life, from its context's birth to its end. */
static void *train_alone(void *arg) {
    training *t = arg;
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.threads = t->threads;
    cfg.seed = 5;
    t->status = gr_ctx_new(&cfg, &ctx);
    if (t->status != GR_OK) return NULL;
    t->status = train(ctx, t);
    t->left = gr_ctx_free(ctx);
    return NULL;
}

static void contexts_train_side_by_side(void **unused) {
    enum { CONTEXTS = 3 };
    (void)unused;
    training alone = {.threads = 1}, t[CONTEXTS] = {{.threads = 1}, {.threads = 2}, {.threads = 3}};
    pthread_t thread[CONTEXTS];
    train_alone(&alone);
    assert_int_equal(alone.status, GR_OK);
    for (int i = 0; i < CONTEXTS; i++) assert_int_equal(pthread_create(&thread[i], NULL, train_alone, &t[i]), 0);
    for (int i = 0; i < CONTEXTS; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < CONTEXTS; i++) {
        assert_int_equal(t[i].status, GR_OK);
        assert_int_equal(t[i].left, 0);
        assert_true(t[i].fingerprint == alone.fingerprint);
    }
}

/* A context may be handed from thread to thread. */
static void *train_given(void *arg) {
    training *t = ((void **)arg)[1];
    t->status = train(((void **)arg)[0], t);
    return NULL;
}

static void a_context_moves_to_another_thread(void **unused) {
    (void)unused;
    training t = {.threads = 2};
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.threads = 2;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, train_given, (void *[]){ctx, &t}), 0);
        pthread_join(thread, NULL);
        assert_int_equal(t.status, GR_OK);
    }
    assert_int_equal(gr_ctx_free(ctx), 0);
}

static void *interrupt_soon(void *ctx) {
    gr_interrupt(ctx);
    return NULL;
}

static void another_thread_interrupts(void **unused) {
    (void)unused;
    training t = {.threads = 2};
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.threads = 2;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, ctx), 0);
    gr_status s = GR_OK;
    while (s == GR_OK) s = train(ctx, &t);
    pthread_join(thread, NULL);
    assert_int_equal(s, GR_ERR_INTERRUPT);
    gr_clear_interrupt(ctx);
    gr_clear_error(ctx);
    assert_int_equal(train(ctx, &t), GR_OK);
    assert_int_equal(gr_ctx_free(ctx), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contexts_train_side_by_side),
        cmocka_unit_test(a_context_moves_to_another_thread),
        cmocka_unit_test(another_thread_interrupts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
