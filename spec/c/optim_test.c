/* Optimizers: PyTorch's figures; nothing moves on failure; threads, strides, hooks, groups, memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gradrun.h"
#include "optim_trace.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- helpers ---------------------------------------------------------------------------------------------- */

static gr_ctx *open_ctx(int threads, const char *isa) {
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.threads = threads;
    cfg.isa = isa;
    return gr_ctx_new(&cfg, &ctx) == GR_OK ? ctx : NULL;
}

static void close_ctx(gr_ctx *ctx) { assert_int_equal(gr_ctx_free(ctx), 0); }

#define OK(ctx, call) \
    if ((call) != GR_OK) fail_msg("%s: %s", #call, gr_errmsg(ctx))

/* The call fails with that status and a message that has the text in it. */
#define FAILS(ctx, call, status, text)                                                                    \
    do {                                                                                                  \
        assert_int_equal(call, status);                                                                   \
        if (!strstr(gr_errmsg(ctx), text)) fail_msg("\"%s\" does not say \"%s\"", gr_errmsg(ctx), text);  \
        gr_clear_error(ctx);                                                                              \
    } while (0)

static gr_tensor *tensor(gr_ctx *ctx, gr_dtype t, int rank, const int64_t *dims, const double *values) {
    gr_tensor *x;
    OK(ctx, gr_tensor_new(ctx, t, rank, dims, &x));
    for (int64_t i = 0; i < gr_tensor_numel(x); i++) {
        if (t == GR_F32) ((float *)gr_tensor_data_peek(x))[i] = (float)values[i];
        else ((double *)gr_tensor_data_peek(x))[i] = values[i];
    }
    return x;
}

static gr_tensor *leaf(gr_ctx *ctx, gr_dtype t, int64_t n, const double *values) {
    gr_tensor *x = tensor(ctx, t, 1, &n, values);
    OK(ctx, gr_tensor_set_requires_grad(x, true));
    return x;
}

static void set_grad(gr_tensor *param, const double *values) {
    gr_ctx *ctx = gr_ctx_peek(param);
    gr_tensor *g = tensor(ctx, gr_tensor_dtype(param), gr_tensor_rank(param), gr_tensor_dims_peek(param), values);
    OK(ctx, gr_tensor_set_grad(param, g));
    gr_release(g);
}

static double at(const gr_tensor *x, int64_t i) {
    const void *p = gr_tensor_data_peek(x);
    return gr_tensor_dtype(x) == GR_F32 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}

static void set_attr(const gr_optim_kind *kind, void *attrs, const char *name, double value) {
    const gr_attr *a = gr_optim_kind_info(kind)->attrs;
    while (a->name && strcmp(a->name, name) != 0) a++;
    assert_non_null(a->name);
    if (a->kind == GR_ATTR_BOOL) *(bool *)((char *)attrs + a->offset) = value != 0;
    else *(double *)(void *)((char *)attrs + a->offset) = value;
}

static gr_optim *optim(gr_ctx *ctx, const char *kind) {
    gr_optim *o;
    assert_non_null(gr_optim_kind_find(kind));
    OK(ctx, gr_optim_new(ctx, gr_optim_kind_find(kind), &o));
    return o;
}

/* Numbers that look random, the same in each run. */
static double noise(uint64_t i) {
    i = (i + 1) * 0x9e3779b97f4a7c15u;
    i = (i ^ i >> 29) * 0xbf58476d1ce4e5b9u;
    return (double)((i ^ i >> 32) >> 11) * 0x1p-52 - 1;
}

static double *noises(int64_t n, uint64_t seed) {
    double *v = malloc((size_t)n * sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = noise(seed * 1000003 + (uint64_t)i);
    return v;
}

/* ---- PyTorch's figures -------------------------------------------------------------------------------------- */

static void follow(gr_ctx *ctx, gr_dtype dtype, const struct trace *trace, double tolerance) {
    const gr_optim_kind *kind = gr_optim_kind_find(trace->kind);
    uint64_t attrs[32];
    int64_t column[] = {2, 1};
    gr_optim *o = optim(ctx, trace->kind);
    gr_tensor *p = leaf(ctx, dtype, 3, (double[]){1, -2, 0.5});
    gr_tensor *q = tensor(ctx, dtype, 2, column, (double[]){0.25, -1.5}), *params[] = {p, q};
    OK(ctx, gr_tensor_set_requires_grad(q, true));
    gr_attrs_default(gr_optim_kind_info(kind), attrs);
    for (int i = 0; trace->options[i].name; i++)
        set_attr(kind, attrs, trace->options[i].name, trace->options[i].value);
    OK(ctx, gr_optim_add_group(o, 2, params, attrs));
    for (int t = 1; t <= 10; t++) {
        set_grad(p, (double[]){t % 5 - 1.75, 2 * t % 5 - 1.75, 3 * t % 5 - 1.75});
        if (t > 3) set_grad(q, (double[]){t / 2.0 - 3, -t / 8.0});
        OK(ctx, gr_optim_step(o));
        for (int i = 0; i < 5; i++) {
            double got = i < 3 ? at(p, i) : at(q, i - 3), want = trace->want[t - 1][i];
            if (!(fabs(got - want) <= tolerance * fmax(1, fabs(want))))
                fail_msg("%s (case %d), step %d, value %d: %.17g, PyTorch has %.17g", trace->kind,
                         (int)(trace - traces), t, i, got, want);
        }
    }
    assert_int_equal(gr_optim_steps(o), 10);
    gr_release(p);
    gr_release(q);
    gr_release(o);
}

static void steps_are_those_of_pytorch(void **state) {
    (void)state;
    static const char *const isa[] = {"generic", "avx2", "avx512"};
    for (int v = 0; v < COUNT(isa); v++) {
        gr_ctx *ctx = open_ctx(1, isa[v]);
        if (!ctx) continue; /* not this processor */
        for (int i = 0; i < COUNT(traces); i++) {
            follow(ctx, GR_F64, &traces[i], 1e-12);
            follow(ctx, GR_F32, &traces[i], 3e-6);
        }
        close_ctx(ctx);
    }
}

/* A buffer made late starts from the gradient itself, as one made at the first step does. */
static void momentum_may_begin_late(void **state) {
    (void)state;
    gr_ctx *ctx = open_ctx(1, NULL);
    const gr_optim_kind *sgd = gr_optim_kind_find("SGD");
    uint64_t attrs[32];
    const char *name;
    gr_tensor *p = leaf(ctx, GR_F64, 1, (double[]){1});
    gr_optim *o = optim(ctx, "SGD");
    gr_attrs_default(gr_optim_kind_info(sgd), attrs);
    set_attr(sgd, attrs, "lr", 0.5);
    OK(ctx, gr_optim_add_group(o, 1, &p, attrs));
    set_grad(p, (double[]){1});
    OK(ctx, gr_optim_step(o));
    OK(ctx, gr_optim_step(o));
    assert_true(at(p, 0) == 0);
    assert_null(gr_optim_state_peek(o, p, 0, &name)); /* no momentum, no memory for it */
    assert_string_equal(name, "momentum_buffer");
    set_attr(sgd, gr_optim_attrs_peek(o, 0), "momentum", 0.5);
    set_attr(sgd, gr_optim_attrs_peek(o, 0), "dampening", 0.5);
    OK(ctx, gr_optim_step(o));
    assert_true(at(p, 0) == -0.5);                                   /* b = 1 */
    OK(ctx, gr_optim_step(o));
    assert_true(at(p, 0) == -1);                                     /* b = .5 + .5 */
    set_attr(sgd, gr_optim_attrs_peek(o, 0), "momentum", 0);
    OK(ctx, gr_optim_step(o));
    assert_true(at(gr_optim_state_peek(o, p, 0, NULL), 0) == 1);     /* rests */
    assert_null(gr_optim_state_peek(o, p, 1, &name));
    assert_null(name);
    gr_release(p);
    gr_release(o);
    close_ctx(ctx);
}

/* With beta1 = 0, as adversarial networks are trained, m is the gradient itself, however large the last one was. */
static void without_momentum_the_last_gradient_is_forgotten(void **state) {
    (void)state;
    static const char *const kinds[] = {"Adam", "AdamW", "NAdam", "RAdam"};
    gr_ctx *ctx = open_ctx(1, NULL);
    for (int k = 0; k < COUNT(kinds); k++) {
        const gr_optim_kind *kind = gr_optim_kind_find(kinds[k]);
        uint64_t attrs[32];
        const char *name;
        gr_tensor *p = leaf(ctx, GR_F32, 1, (double[]){1});
        gr_optim *o = optim(ctx, kinds[k]);
        gr_attrs_default(gr_optim_kind_info(kind), attrs);
        set_attr(kind, attrs, "beta1", 0);
        OK(ctx, gr_optim_add_group(o, 1, &p, attrs));
        set_grad(p, (double[]){1});
        OK(ctx, gr_optim_step(o));
        set_grad(p, (double[]){3e-6});
        OK(ctx, gr_optim_step(o));
        assert_true(at(gr_optim_state_peek(o, p, 0, &name), 0) == (double)3e-6f);
        assert_string_equal(name, "exp_avg");
        gr_release(p);
        gr_release(o);
    }
    close_ctx(ctx);
}

/* ---- threads and strides ------------------------------------------------------------------------------------ */

enum { SIZES = 4 };
static const int64_t sizes[SIZES] = {1, 70001, 17, 16384 * 3};

/* Three steps of AdamW over parameters of many sizes; their elements end to end. */
static void *three_steps(int threads, gr_dtype dtype, size_t *bytes) {
    gr_ctx *ctx = open_ctx(threads, NULL);
    gr_tensor *p[SIZES];
    gr_optim *o = optim(ctx, "AdamW");
    *bytes = 0;
    for (int i = 0; i < SIZES; i++) {
        double *v = noises(sizes[i], (uint64_t)i);
        p[i] = leaf(ctx, dtype, sizes[i], v);
        set_grad(p[i], v);
        free(v);
        *bytes += (size_t)sizes[i] * gr_dtype_size(dtype);
    }
    OK(ctx, gr_optim_add_group(o, 2, p, NULL));
    OK(ctx, gr_optim_add_group(o, 2, p + 2, NULL));
    for (int t = 0; t < 3; t++) OK(ctx, gr_optim_step(o));
    char *all = malloc(*bytes), *to = all;
    for (int i = 0; i < SIZES; i++) {
        size_t n = (size_t)sizes[i] * gr_dtype_size(dtype);
        memcpy(to, gr_tensor_data_peek(p[i]), n);
        to += n;
        gr_release(p[i]);
    }
    gr_release(o);
    close_ctx(ctx);
    return all;
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    for (gr_dtype t = GR_F32; t <= GR_F64; t++) {
        size_t n;
        void *one = three_steps(1, t, &n);
        for (int threads = 2; threads <= 3; threads++) {
            void *many = three_steps(threads, t, &n);
            assert_memory_equal(one, many, n);
            free(many);
        }
        free(one);
    }
}

/* Parameter and gradient as transposed and sliced views of larger buffers, against dense ones. */
static void strides_do_not_matter(void **state) {
    (void)state;
    enum { ROWS = 70, COLUMNS = 90, WIDE = 128 };
    static const char *const kinds[] = {"SGD", "AdamW"};
    int64_t dims[] = {ROWS, COLUMNS}, by_column[] = {1, WIDE}, by_row[] = {WIDE, 1};
    gr_ctx *ctx = open_ctx(2, NULL);
    double *v = noises(COLUMNS * WIDE, 1), *w = noises(COLUMNS * WIDE, 2);
    double dense[ROWS * COLUMNS];
    for (int k = 0; k < COUNT(kinds); k++) {
        double *pv = malloc(COLUMNS * WIDE * sizeof *pv), *gv = malloc(COLUMNS * WIDE * sizeof *gv);
        memcpy(pv, v, COLUMNS * WIDE * sizeof *pv);
        memcpy(gv, w, COLUMNS * WIDE * sizeof *gv);
        gr_tensor *p, *g, *q;
        OK(ctx, gr_tensor_borrow(ctx, GR_F64, 2, dims, by_column, pv, NULL, NULL, &p));
        OK(ctx, gr_tensor_borrow(ctx, GR_F64, 2, dims, by_row, gv, NULL, NULL, &g));
        for (int i = 0; i < ROWS * COLUMNS; i++) dense[i] = v[i % COLUMNS * WIDE + i / COLUMNS];
        q = tensor(ctx, GR_F64, 2, dims, dense);
        OK(ctx, gr_tensor_set_requires_grad(p, true));
        OK(ctx, gr_tensor_set_requires_grad(q, true));
        OK(ctx, gr_tensor_set_grad(p, g));
        for (int i = 0; i < ROWS * COLUMNS; i++) dense[i] = w[i / COLUMNS * WIDE + i % COLUMNS];
        set_grad(q, dense);
        gr_optim *o = optim(ctx, kinds[k]);
        OK(ctx, gr_optim_add_group(o, 2, (gr_tensor *[]){p, q}, NULL));
        for (int t = 0; t < 3; t++) OK(ctx, gr_optim_step(o));
        for (int i = 0; i < ROWS * COLUMNS; i++)
            assert_true(fabs(pv[i % COLUMNS * WIDE + i / COLUMNS] - at(q, i)) <= 1e-15);
        for (int c = 0; c < COLUMNS; c++) /* and nothing beside the view */
            assert_memory_equal(pv + c * WIDE + ROWS, v + c * WIDE + ROWS, (WIDE - ROWS) * sizeof *v);
        assert_memory_equal(gv, w, COLUMNS * WIDE * sizeof *gv);
        gr_release(o);
        gr_release(p);
        gr_release(q);
        gr_release(g);
        free(pv);
        free(gv);
    }
    free(v);
    free(w);
    close_ctx(ctx);
}

/* ---- what is refused ---------------------------------------------------------------------------------------- */

static void bad_groups_are_refused(void **state) {
    (void)state;
    gr_ctx *ctx = open_ctx(1, NULL), *other = open_ctx(1, NULL);
    double zeros[4] = {0};
    gr_tensor *a = leaf(ctx, GR_F32, 4, zeros), *b = leaf(ctx, GR_F32, 4, zeros);
    gr_tensor *foreign = leaf(other, GR_F32, 4, zeros);
    gr_tensor *plain = tensor(ctx, GR_F32, 1, &(int64_t){4}, zeros), *result, *wide, *alias;
    float one = 0;
    OK(ctx, gr_apply(ctx, gr_op_find("tanh"), 1, &a, NULL, &result));
    OK(ctx, gr_tensor_borrow(ctx, GR_F32, 1, &(int64_t){5}, &(int64_t){0}, &one, NULL, NULL, &wide));
    OK(ctx, gr_tensor_set_requires_grad(wide, true));
    OK(ctx, gr_tensor_detach(b, &alias));
    OK(ctx, gr_tensor_set_requires_grad(alias, true));
    OK(ctx, gr_tensor_set_name(a, "net.1.weight"));
    gr_optim *o = optim(ctx, "SGD");
    FAILS(ctx, gr_optim_add_group(o, 0, NULL, NULL), GR_ERR_ARG, "SGD: group 1: a group needs at least one");
    FAILS(ctx, gr_optim_add_group(o, 2, (gr_tensor *[]){b, plain}, NULL), GR_ERR_ARG,
          "parameter 2 (f32[4]) does not require a gradient");
    FAILS(ctx, gr_optim_add_group(o, 1, &result, NULL), GR_ERR_ARG, "is the result of tanh");
    FAILS(ctx, gr_optim_add_group(o, 1, &foreign, NULL), GR_ERR_ARG, "another context");
    FAILS(ctx, gr_optim_add_group(o, 1, &wide, NULL), GR_ERR_ARG, "is expanded");
    FAILS(ctx, gr_optim_add_group(o, 3, (gr_tensor *[]){a, b, a}, NULL), GR_ERR_ARG,
          "parameter 3 (net.1.weight, f32[4]) is listed twice");
    FAILS(ctx, gr_optim_add_group(o, 2, (gr_tensor *[]){b, alias}, NULL), GR_ERR_ARG, "shares its memory");
    FAILS(ctx, gr_optim_step(o), GR_ERR_STATE, "has no parameters");
    OK(ctx, gr_optim_add_group(o, 1, &a, NULL));
    FAILS(ctx, gr_optim_add_group(o, 2, (gr_tensor *[]){b, a}, NULL), GR_ERR_ARG,
          "group 2: parameter 2 (net.1.weight");
    assert_int_equal(gr_optim_groups(o), 1);
    assert_ptr_equal(gr_optim_param_peek(o, 0, 0), a);
    assert_null(gr_optim_param_peek(o, 0, 1));
    assert_null(gr_optim_attrs_peek(o, 1));
    gr_release(o);
    gr_tensor *all[] = {a, b, plain, result, wide, alias};
    for (int i = 0; i < COUNT(all); i++) gr_release(all[i]);
    gr_release(foreign);
    close_ctx(ctx);
    close_ctx(other);
}

static void bad_hyperparameters_move_nothing(void **state) {
    (void)state;
    static const struct { const char *kind, *name; double value; const char *text; } bad[] = {
        {"SGD", "lr", -0.5, "group 2: lr = -0.5: expected 0 or more"},
        {"SGD", "lr", NAN, "lr = nan"},
        {"SGD", "lr", INFINITY, "lr = inf: expected 0 or more, finite"},
        {"SGD", "momentum", -1, "momentum = -1"},
        {"SGD", "nesterov", 1, "nesterov needs momentum"},
        {"SGD", "weight_decay", -1e-9, "weight_decay"},
        {"Adam", "beta1", 1, "betas 1 and"},
        {"Adam", "beta2", -0.1, "beta2 = -0.1"},
        {"AdamW", "beta1", 1.5, "beta1 = 1.5: expected 0 to 1"},
        {"AdamW", "eps", NAN, "AdamW: group 2: eps = nan"}};
    for (int i = 0; i < COUNT(bad); i++) {
        gr_ctx *ctx = open_ctx(1, NULL);
        const gr_optim_kind *kind = gr_optim_kind_find(bad[i].kind);
        gr_optim *o = optim(ctx, bad[i].kind);
        double values[] = {1, 2, 3};
        gr_tensor *p = leaf(ctx, GR_F64, 3, values), *q = leaf(ctx, GR_F64, 3, values);
        uint64_t attrs[32];
        OK(ctx, gr_optim_add_group(o, 1, &p, NULL));
        gr_attrs_default(gr_optim_kind_info(kind), attrs);
        set_attr(kind, attrs, bad[i].name, bad[i].value);
        FAILS(ctx, gr_optim_add_group(o, 1, &q, attrs), GR_ERR_ARG, bad[i].text);
        OK(ctx, gr_optim_add_group(o, 1, &q, NULL));
        set_attr(kind, gr_optim_attrs_peek(o, 1), bad[i].name, bad[i].value);
        set_grad(p, values);
        set_grad(q, values);
        uint64_t version = gr_tensor_version(p);
        FAILS(ctx, gr_optim_step(o), GR_ERR_ARG, bad[i].text);
        assert_memory_equal(gr_tensor_data_peek(p), values, sizeof values);
        assert_true(gr_tensor_version(p) == version && gr_optim_steps(o) == 0 && gr_step(ctx) == 1);
        assert_null(gr_optim_state_peek(o, p, 0, NULL));
        set_attr(kind, gr_optim_attrs_peek(o, 1), bad[i].name, bad[i].name[0] == 'b' ? 0.5 : 0);
        OK(ctx, gr_optim_step(o));
        assert_true(at(p, 0) != 1 && gr_tensor_version(p) > version && gr_optim_steps(o) == 1 && gr_step(ctx) == 2);
        gr_release(p);
        gr_release(q);
        gr_release(o);
        close_ctx(ctx);
    }
}

static void an_interrupt_moves_nothing(void **state) {
    (void)state;
    gr_ctx *ctx = open_ctx(1, NULL);
    gr_tensor *p = leaf(ctx, GR_F64, 1, (double[]){1});
    gr_optim *o = optim(ctx, "SGD");
    OK(ctx, gr_optim_add_group(o, 1, &p, NULL));
    set_grad(p, (double[]){1});
    gr_interrupt(ctx);
    FAILS(ctx, gr_optim_step(o), GR_ERR_INTERRUPT, "SGD: interrupted");
    assert_true(at(p, 0) == 1);
    gr_clear_interrupt(ctx);
    OK(ctx, gr_optim_step(o));
    assert_true(at(p, 0) == 1 - 1e-3);
    OK(ctx, gr_optim_zero_grad(o));
    assert_null(gr_tensor_grad_peek(p));
    OK(ctx, gr_optim_step(o)); /* nothing to do, but a step */
    assert_true(at(p, 0) == 1 - 1e-3 && gr_optim_steps(o) == 2);
    gr_release(p);
    gr_release(o);
    close_ctx(ctx);
}

/* ---- hooks -------------------------------------------------------------------------------------------------- */

typedef struct notes {
    char text[64];
    gr_status pre;
    double seen[2]; /* the parameter in the pre and the post hook */
} notes;

static gr_status note(void *ud, gr_event *e) {
    notes *l = ud;
    bool pre = e->kind == GR_HOOK_STEP_PRE;
    strcat(l->text, pre ? "<" : ">");
    assert_int_equal(e->step, 1);
    l->seen[!pre] = at(gr_optim_param_peek(e->optim, 0, 0), 0);
    return pre ? l->pre : GR_OK;
}

static gr_status note_all(void *ud, gr_event *e) {
    strcat(((notes *)ud)->text, e->kind == GR_HOOK_STEP_PRE ? "(" : ")");
    return GR_OK;
}

static gr_status step_again(void *ud, gr_event *e) {
    (void)ud;
    return gr_optim_step(e->optim);
}

static void hooks_run_around_a_step(void **state) {
    (void)state;
    gr_ctx *ctx = open_ctx(1, NULL);
    gr_tensor *p = leaf(ctx, GR_F64, 1, (double[]){1});
    gr_optim *o = optim(ctx, "SGD");
    gr_hook *global[2], *own;
    notes l = {.pre = GR_ERR_SCRIPT};
    OK(ctx, gr_optim_add_group(o, 1, &p, NULL));
    set_grad(p, (double[]){1000});
    OK(ctx, gr_hook_add(ctx, o, GR_HOOK_STEP, NULL, note, NULL, &l, NULL));
    OK(ctx, gr_hook_add(ctx, o, GR_HOOK_STEP_PRE, "guard", note, NULL, &l, &own));
    OK(ctx, gr_hook_add(ctx, ctx, GR_HOOK_STEP_PRE, NULL, note_all, NULL, &l, &global[0]));
    OK(ctx, gr_hook_add(ctx, ctx, GR_HOOK_STEP, NULL, note_all, NULL, &l, &global[1]));
    FAILS(ctx, gr_optim_step(o), GR_ERR_SCRIPT, "hook guard on SGD");
    assert_string_equal(l.text, "(<");
    assert_true(at(p, 0) == 1 && gr_step(ctx) == 1);
    l = (notes){.pre = GR_OK};
    OK(ctx, gr_optim_step(o));
    assert_string_equal(l.text, "(<)>");
    assert_true(l.seen[0] == 1 && fabs(l.seen[1]) < 1e-15 && gr_step(ctx) == 2);
    gr_hook_remove(own);
    gr_release(own);
    for (int i = 0; i < 2; i++) {
        gr_hook_remove(global[i]);
        gr_release(global[i]);
    }
    OK(ctx, gr_hook_add(ctx, o, GR_HOOK_STEP_PRE, NULL, step_again, NULL, NULL, NULL));
    FAILS(ctx, gr_optim_step(o), GR_ERR_STATE, "step called from a hook of its own step");
    gr_release(p);
    gr_release(o);
    close_ctx(ctx);
}

/* ---- memory ------------------------------------------------------------------------------------------------- */

static void a_warm_step_allocates_nothing(void **state) {
    (void)state;
    gr_ctx *ctx = open_ctx(2, NULL);
    double *v = noises(50000, 1);
    gr_tensor *p = leaf(ctx, GR_F32, 50000, v);
    gr_optim *o = optim(ctx, "AdamW");
    gr_memory before, after;
    OK(ctx, gr_optim_add_group(o, 1, &p, NULL));
    set_grad(p, v);
    OK(ctx, gr_optim_step(o));
    gr_memory_get(ctx, &before);
    for (int t = 0; t < 100; t++) OK(ctx, gr_optim_step(o));
    gr_memory_get(ctx, &after);
    assert_true(after.system_calls == before.system_calls && after.live == before.live && after.peak == before.peak);
    free(v);
    gr_release(p);
    gr_release(o);
    close_ctx(ctx);
}

/* Two groups, AMSGrad, a hook, two steps. Whatever fails, the parameters are as after the last good step. */
static gr_status train_once(gr_ctx *ctx, gr_tensor *const *p, notes *l) {
    const gr_optim_kind *kind = gr_optim_kind_find("Adam");
    uint64_t attrs[32];
    gr_optim *o = NULL;
    gr_attrs_default(gr_optim_kind_info(kind), attrs);
    set_attr(kind, attrs, "amsgrad", 1);
    gr_status s = gr_optim_new(ctx, kind, &o);
    if (s == GR_OK) s = gr_optim_add_group(o, 1, p, NULL);
    if (s == GR_OK) s = gr_optim_add_group(o, 1, p + 1, attrs);
    if (s == GR_OK) s = gr_hook_add(ctx, o, GR_HOOK_STEP_PRE, "named", note_all, NULL, l, NULL);
    if (s == GR_OK) {
        s = gr_optim_step(o);
        if (s != GR_OK) {
            assert_null(gr_optim_state_peek(o, p[0], 0, NULL));
            assert_int_equal(gr_optim_steps(o), 0);
        } else {
            s = gr_optim_step(o);
            assert_int_equal(s, GR_OK);
        }
    }
    gr_release(o);
    return s;
}

typedef struct heap {
    int calls, fail_at, blocks; /* fail_at: the first call that fails, and all after it */
} heap;

static void *heap_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
    heap *h = ud;
    (void)osize;
    if (nsize == 0) {
        h->blocks -= ptr != NULL;
        free(ptr);
        return NULL;
    }
    if (++h->calls >= h->fail_at) return NULL;
    h->blocks += ptr == NULL;
    return realloc(ptr, nsize);
}

/* Trains with the limits given, room in bytes and system calls beyond what the parameters need. */
static gr_status train_within(size_t room, int calls) {
    double values[600];
    heap h = {.fail_at = INT32_MAX};
    gr_config cfg;
    gr_ctx *ctx;
    gr_memory m;
    notes l = {.text = ""};
    for (int i = 0; i < COUNT(values); i++) values[i] = i;
    gr_config_init(&cfg);
    cfg.threads = 1;
    cfg.alloc = heap_alloc;
    cfg.alloc_ud = &h;
    cfg.hard_bytes = 2 * (sizeof values * 3 + 1600) + room;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    gr_tensor *p[] = {leaf(ctx, GR_F64, COUNT(values), values), leaf(ctx, GR_F64, COUNT(values), values)};
    set_grad(p[0], values);
    set_grad(p[1], values);
    gr_memory_get(ctx, &m);
    size_t live = m.live;
    h.fail_at = h.calls + calls;
    gr_status s = train_once(ctx, p, &l);
    gr_memory_get(ctx, &m);
    assert_true(m.live == live && m.optims == 0 && m.hooks == 0);
    for (int i = 0; i < 2 && s != GR_OK; i++)
        assert_memory_equal(gr_tensor_data_peek(p[i]), values, sizeof values);
    gr_release(p[0]);
    gr_release(p[1]);
    close_ctx(ctx);
    assert_int_equal(h.blocks, 0);
    return s;
}

static void each_allocation_may_fail(void **state) {
    (void)state;
    int failures = 0, calls = 1;
    for (size_t room = 16; train_within(room, INT32_MAX / 2) != GR_OK; room += 16) failures++;
    assert_true(failures > 20);
    for (gr_status s; (s = train_within(1 << 20, calls)) != GR_OK; calls++) assert_int_equal(s, GR_ERR_MEMORY);
    assert_true(calls > 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_those_of_pytorch),    cmocka_unit_test(momentum_may_begin_late),
        cmocka_unit_test(without_momentum_the_last_gradient_is_forgotten),
        cmocka_unit_test(threads_do_not_change_a_bit),   cmocka_unit_test(strides_do_not_matter),
        cmocka_unit_test(bad_groups_are_refused),        cmocka_unit_test(bad_hyperparameters_move_nothing),
        cmocka_unit_test(an_interrupt_moves_nothing),    cmocka_unit_test(hooks_run_around_a_step),
        cmocka_unit_test(a_warm_step_allocates_nothing), cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
