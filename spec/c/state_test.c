/* State dicts of layers and optimizers: what they name, that loading is all or nothing, and that training goes on
 * from a saved state bit for bit. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static gr_ctx *ctx;

static int open_ctx(void **state) {
    (void)state;
    return gr_ctx_new(NULL, &ctx) == GR_OK ? 0 : -1;
}

static int close_ctx(void **state) {
    (void)state;
    return gr_ctx_free(ctx) == 0 ? 0 : -1;
}

static void ok(gr_status s) {
    if (s != GR_OK) fail_msg("%s", gr_errmsg(ctx));
}

static void fails(gr_status got, const char *says) {
    if (got != GR_ERR_ARG || gr_errcode(ctx) != got || !strstr(gr_errmsg(ctx), says))
        fail_msg("status %d, '%s'; expected '%s'", got, gr_errmsg(ctx), says);
    gr_clear_error(ctx);
}

static gr_layer *new_model(int width) {
    gr_layer *net;
    ok(model_new(ctx, width, &net));
    return net;
}

static gr_optim *new_optim(gr_layer *net, const char *kind, const char *option, double value) {
    uint64_t attrs[32];
    const gr_optim_kind *k = gr_optim_kind_find(kind);
    gr_tensor *params[16];
    gr_optim *o;
    int n = model_params(net, params);
    gr_attrs_default(gr_optim_kind_info(k), attrs);
    if (option) set_number(gr_optim_kind_info(k), attrs, option, value);
    ok(gr_optim_new(ctx, k, &o));
    ok(gr_optim_add_group(o, 2, params, attrs));
    ok(gr_optim_add_group(o, n - 2, params + 2, attrs));
    return o;
}

static void train(gr_layer *net, gr_optim *opt, int steps) {
    for (int i = 0; i < steps; i++) {
        gr_tensor *loss;
        ok(gr_optim_zero_grad(opt));
        ok(model_loss(net, 4, &loss));
        ok(gr_backward(loss, NULL));
        gr_release(loss);
        ok(gr_optim_step(opt));
    }
}

static gr_dict *layer_state(gr_layer *net) {
    gr_dict *d;
    ok(gr_layer_state(net, &d));
    return d;
}

static gr_dict *optim_state(gr_optim *opt) {
    gr_dict *d;
    ok(gr_optim_state(opt, &d));
    return d;
}

static bool same_dict(const gr_dict *a, const gr_dict *b) {
    if (gr_dict_count(a) != gr_dict_count(b)) return false;
    for (int i = 0; i < gr_dict_count(a); i++) {
        const char *x, *y;
        const gr_tensor *t = gr_dict_at_peek(a, i, &x), *u = gr_dict_at_peek(b, i, &y);
        size_t bytes = (size_t)gr_tensor_numel(t) * gr_dtype_size(gr_tensor_dtype(t));
        if (strcmp(x, y) != 0 || gr_tensor_numel(t) != gr_tensor_numel(u)) return false;
        if (memcmp(gr_tensor_data_peek(t), gr_tensor_data_peek(u), bytes) != 0) return false;
    }
    return true;
}

/* A dict of its own memory in the place of d. */
static gr_dict *copy_of(gr_dict *d) {
    gr_dict *copy;
    ok(gr_dict_new(ctx, &copy));
    for (int i = 0; i < gr_dict_count(d); i++) {
        const char *name;
        gr_tensor *t = gr_dict_at_peek(d, i, &name), *u;
        ok(gr_tensor_empty(ctx, gr_tensor_dtype(t), gr_tensor_rank(t), gr_tensor_dims_peek(t), &u));
        ok(gr_tensor_copy(u, t));
        ok(gr_dict_set(copy, name, u));
        gr_release(u);
    }
    gr_release(d);
    return copy;
}

static gr_status load(void *object, const gr_dict *d) {
    gr_state_part part = {.object = object, .state = d};
    return gr_state_load(ctx, 1, &part);
}

static void set_new(gr_dict *d, const char *name, gr_dtype dtype, int rank, const int64_t *dims) {
    gr_tensor *t;
    ok(gr_tensor_new(ctx, dtype, rank, dims, &t));
    ok(gr_dict_set(d, name, t));
    gr_release(t);
}

/* ---- layers ----------------------------------------------------------------------------------------------- */

static void a_layers_state_is_ordered_and_shared(void **state) {
    (void)state;
    gr_layer *net = new_model(2);
    gr_dict *d = layer_state(net);
    static const char *const want[] = {"1.weight", "1.bias", "2.weight", "2.bias", "2.running_mean", "2.running_var",
                                       "7.weight", "7.bias"};
    assert_int_equal(gr_dict_count(d), 8);
    for (int i = 0; i < 8; i++) {
        const char *name;
        gr_tensor *t = gr_dict_at_peek(d, i, &name);
        assert_string_equal(name, want[i]);
        assert_false(gr_tensor_requires_grad(t));
    }
    gr_tensor *params[16];
    model_params(net, params);
    assert_ptr_equal(gr_tensor_data_peek(gr_dict_find_peek(d, "1.weight")), gr_tensor_data_peek(params[0]));
    gr_release(d);
    gr_release(net);
}

static void loading_copies_in_place(void **state) {
    (void)state;
    gr_layer *a = new_model(2), *b = new_model(2);
    gr_tensor *params[16];
    gr_dict *from = layer_state(a), *to = layer_state(b);
    model_params(b, params);
    void *data = gr_tensor_data_peek(params[0]);
    uint64_t version = gr_tensor_version(params[0]);
    assert_false(same_dict(from, to));
    ok(load(b, from));
    assert_true(same_dict(from, to)); /* seen through the aliases made before */
    assert_ptr_equal(gr_tensor_data_peek(params[0]), data);
    assert_true(gr_tensor_version(params[0]) > version);
    assert_true(gr_tensor_requires_grad(params[0]));
    version = gr_tensor_version(params[0]);
    ok(load(b, to)); /* its own state */
    assert_true(same_dict(from, to));
    gr_release(from);
    gr_release(to);
    gr_release(a);
    gr_release(b);
}

static void what_does_not_fit_is_listed_and_nothing_loaded(void **state) {
    (void)state;
    gr_layer *a = new_model(2), *b = new_model(2);
    gr_dict *have = layer_state(b), *before = copy_of(gr_retain(have)), *d = layer_state(a);
    ok(gr_dict_set(d, "7.bias", NULL));
    fails(load(b, d), "Sequential: the state does not fit, nothing was loaded: 1 missing: 7.bias");
    set_new(d, "0.weight", GR_F32, 1, (int64_t[]){3});
    set_new(d, "7.weight", GR_F32, 2, (int64_t[]){8, 3});
    fails(load(b, d), "1 missing: 7.bias; 1 unexpected: 0.weight; 1 mismatched: 7.weight (f32[8,3], expected "
                      "f32[3,8]) (names that count from 0");
    assert_true(same_dict(before, have));
    gr_release(d);
    d = layer_state(a);
    set_new(d, "2.bias", GR_I64, 1, (int64_t[]){2});
    fails(load(b, d), "1 mismatched: 2.bias (i64[2], expected f32[2])");
    assert_true(same_dict(before, have));
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "a.rather.long.name.%d", i);
        set_new(d, name, GR_F32, 0, NULL);
    }
    fails(load(b, d), "300 unexpected: a.rather.long.name.0, ");
    fails(gr_state_check(ctx, 1, &(gr_state_part){.object = b, .state = d, .name = "net"}), "net: the state");
    gr_release(d);
    gr_release(before);
    gr_release(have);
    gr_release(a);
    gr_release(b);
}

static gr_status count_matches(void *ud, gr_match what, const char *name, const gr_tensor *found,
                               const gr_tensor *here) {
    ((int *)ud)[what]++;
    assert_true(*name != 0);
    assert_true((found != NULL) == (what != GR_MATCH_MISSING) && (here != NULL) == (what != GR_MATCH_UNEXPECTED));
    return GR_OK;
}

static gr_status refuse_matches(void *ud, gr_match what, const char *name, const gr_tensor *found,
                                const gr_tensor *here) {
    (void)ud, (void)what, (void)found, (void)here;
    return gr_fail(ctx, GR_ERR_ARG, "not %s", name);
}

static void partial_loading_takes_what_fits(void **state) {
    (void)state;
    gr_layer *a = new_model(2), *b = new_model(3);
    gr_dict *from = layer_state(a), *to = layer_state(b);
    int seen[GR_MATCHES] = {0};
    ok(gr_dict_set(from, "7.bias", NULL));
    set_new(from, "head", GR_F32, 0, NULL);
    gr_state_part part = {.object = b, .state = from, .partial = true, .report = count_matches, .ud = seen};
    ok(gr_state_load(ctx, 1, &part)); /* all but the last bias have another width */
    assert_int_equal(seen[GR_MATCH_LOADED], 0);
    assert_int_equal(seen[GR_MATCH_MISSING], 1);
    assert_int_equal(seen[GR_MATCH_UNEXPECTED], 1);
    assert_int_equal(seen[GR_MATCH_MISMATCHED], 7);
    set_new(from, "7.bias", GR_F64, 1, (int64_t[]){3}); /* floating dtypes are converted */
    ok(gr_state_load(ctx, 1, &part));
    assert_int_equal(seen[GR_MATCH_LOADED], 1);
    const float *bias = gr_tensor_data_peek(gr_dict_find_peek(to, "7.bias"));
    assert_true(bias[0] == 0 && bias[1] == 0 && bias[2] == 0);
    part.report = refuse_matches;
    fails(gr_state_load(ctx, 1, &part), "Sequential: not 1.weight");
    gr_release(from);
    gr_release(to);
    gr_release(a);
    gr_release(b);
}

static gr_layer *tied(gr_tensor **weight) {
    gr_layer *net, *child;
    ok(gr_layer_new(ctx, gr_layer_kind_find("Sequential"), NULL, &net));
    ok(gr_layer_new(ctx, gr_layer_kind_find("Sequential"), NULL, &child));
    ok(gr_tensor_new(ctx, GR_F32, 2, (int64_t[]){2, 2}, weight));
    ok(gr_layer_add_param(child, "weight", *weight));
    ok(gr_layer_add_child(net, "embedding", child));
    gr_release(child);
    ok(gr_layer_new(ctx, gr_layer_kind_find("Sequential"), NULL, &child));
    ok(gr_layer_add_param(child, "weight", *weight));
    ok(gr_layer_add_child(net, "head", child));
    gr_release(child);
    return net;
}

static void tied_weights_are_one(void **state) {
    (void)state;
    gr_tensor *weight;
    gr_layer *net = tied(&weight);
    gr_dict *d = layer_state(net);
    float *w = gr_tensor_data_peek(weight);
    assert_int_equal(gr_dict_count(d), 1);
    assert_non_null(gr_dict_find_peek(d, "embedding.weight"));
    gr_release(d);
    ok(gr_dict_new(ctx, &d));
    fails(load(net, d), "1 missing: embedding.weight");
    set_new(d, "head.weight", GR_F32, 2, (int64_t[]){2, 2}); /* under its other name */
    ((float *)gr_tensor_data_peek(gr_dict_find_peek(d, "head.weight")))[3] = 7;
    ok(load(net, d));
    assert_true(w[3] == 7);
    set_new(d, "embedding.weight", GR_F32, 2, (int64_t[]){2, 2}); /* under both: the last counts */
    ok(load(net, d));
    assert_true(w[3] == 7);
    set_new(d, "embedding.weight", GR_F32, 2, (int64_t[]){2, 3});
    fails(load(net, d), "1 mismatched: embedding.weight");
    gr_release(d);
    /* its own transpose, which lies in the memory that is written */
    for (int i = 0; i < 4; i++) w[i] = (float)i;
    ok(gr_dict_new(ctx, &d));
    gr_tensor *plain, *turned;
    ok(gr_tensor_detach(weight, &plain));
    struct { int32_t n; int64_t v[GR_MAX_RANK]; } dims = {2, {1, 0}};
    uint64_t attrs[32];
    const gr_info *permute = gr_op_info(gr_op_find("permute"));
    gr_attrs_default(permute, attrs);
    memcpy((char *)attrs + permute->attrs[0].offset, &dims, sizeof dims);
    ok(gr_apply(ctx, gr_op_find("permute"), 1, &plain, attrs, &turned));
    ok(gr_dict_set(d, "embedding.weight", turned));
    ok(load(net, d));
    assert_true(w[0] == 0 && w[1] == 2 && w[2] == 1 && w[3] == 3);
    gr_release(turned);
    gr_release(plain);
    gr_release(d);
    gr_release(weight);
    gr_release(net);
}

/* ---- optimizers ------------------------------------------------------------------------------------------- */

static double value(const gr_dict *d, const char *name) {
    double v = 0;
    assert_non_null(gr_dict_find_peek(d, name));
    ok(gr_tensor_item(gr_dict_find_peek(d, name), &v));
    return v;
}

static void an_optimizers_state_is_tensors(void **state) {
    (void)state;
    gr_layer *net = new_model(2);
    gr_optim *opt = new_optim(net, "AdamW", "lr", 0.125);
    gr_dict *d = optim_state(opt);
    assert_true(value(d, "steps") == 0 && value(d, "groups.2.lr") == 0.125 && value(d, "groups.1.beta2") == 0.999);
    assert_null(gr_dict_find_peek(d, "state.1.exp_avg"));
    gr_release(d);
    train(net, opt, 3);
    d = optim_state(opt);
    assert_true(value(d, "steps") == 3);
    const int64_t *updates = gr_tensor_data_peek(gr_dict_find_peek(d, "updates"));
    assert_int_equal(gr_tensor_numel(gr_dict_find_peek(d, "updates")), 6);
    assert_true(updates[0] == 3 && updates[5] == 3);
    assert_int_equal(gr_tensor_rank(gr_dict_find_peek(d, "state.1.exp_avg_sq")), 4);
    assert_non_null(gr_dict_find_peek(d, "state.6.exp_avg"));
    assert_null(gr_dict_find_peek(d, "state.6.max_exp_avg_sq"));
    gr_release(d);
    gr_release(opt);
    gr_release(net);
}

/* Through a file. */
static gr_dict *saved(gr_dict *d) { /* takes d */
    char path[] = "/tmp/gradrun-state-XXXXXX";
    gr_dict *back;
    close(mkstemp(path));
    ok(gr_safetensors_write(d, path));
    gr_release(d);
    ok(gr_safetensors_read(ctx, path, &back));
    unlink(path);
    return back;
}

static void assert_same_state(gr_dict *a, gr_dict *b, const char *of) { /* takes both */
    if (!same_dict(a, b)) fail_msg("%s: not the same", of);
    gr_release(a);
    gr_release(b);
}

static void load_both(gr_layer *net, gr_dict *weights, gr_optim *opt, gr_dict *rest) {
    ok(gr_state_load(ctx, 2, (gr_state_part[]){{.object = net, .state = weights}, {.object = opt, .state = rest}}));
}

/* Ten steps, everything saved, ten more; and the same ten in other objects. */
static void goes_on(const char *kind, const char *option, double v) {
    uint64_t seed, draws;
    gr_seed(ctx, 3);
    gr_layer *net = new_model(2), *other = new_model(2);
    gr_optim *opt = new_optim(net, kind, option, v), *again = new_optim(other, kind, NULL, 0);
    train(net, opt, 10);
    gr_dict *weights = saved(layer_state(net)), *rest = saved(optim_state(opt));
    gr_random_get(ctx, &seed, &draws);
    train(net, opt, 10);
    train(other, again, 2);
    load_both(other, weights, again, rest);
    gr_random_set(ctx, seed, draws);
    train(other, again, 10);
    assert_same_state(layer_state(net), layer_state(other), kind);
    assert_same_state(optim_state(opt), optim_state(again), kind);
    assert_int_equal(gr_optim_steps(again), 20);
    gr_release(weights);
    gr_release(rest);
    gr_release(again);
    gr_release(opt);
    gr_release(other);
    gr_release(net);
}

/* Every optimizer there is, as it comes and with each of its switches on. */
static void training_goes_on_bit_for_bit(void **state) {
    (void)state;
    for (int k = 0; k < gr_optim_kind_count(); k++) {
        const gr_info *info = gr_optim_kind_info(gr_optim_kind_at(k));
        goes_on(info->name, NULL, 0);
        for (const gr_attr *a = info->attrs; a->name; a++) {
            bool needs_momentum = strcmp(a->name, "nesterov") == 0;
            if (a->kind == GR_ATTR_BOOL && !needs_momentum) goes_on(info->name, a->name, 1);
            if (strcmp(a->name, "momentum") == 0) goes_on(info->name, a->name, 0.9);
        }
    }
}

static void a_wrong_optimizers_state_changes_nothing(void **state) {
    (void)state;
    gr_layer *net = new_model(2), *wide = new_model(3);
    gr_optim *opt = new_optim(net, "AdamW", NULL, 0), *sgd = new_optim(net, "SGD", "momentum", 0.9);
    gr_optim *other = new_optim(wide, "AdamW", NULL, 0);
    train(net, opt, 2);
    train(net, sgd, 2);
    train(wide, other, 2);
    gr_dict *before = copy_of(optim_state(opt)), *d = optim_state(sgd);
    fails(load(opt, d), "AdamW: the state does not fit, nothing was loaded: ");
    gr_release(d);
    d = optim_state(other);
    fails(load(opt, d), "mismatched: state.1.exp_avg (f32[3,1,3,3], expected f32[2,1,3,3])");
    gr_release(d);
    d = copy_of(gr_retain(before));
    ok(gr_dict_set(d, "state.2.exp_avg", NULL));
    fails(load(opt, d), "1 missing: state.2.exp_avg");
    ((int64_t *)gr_tensor_data_peek(gr_dict_find_peek(d, "updates")))[1] = 0; /* as before its first update */
    ok(gr_dict_set(d, "state.2.exp_avg_sq", NULL));
    ok(load(opt, d));
    ok(load(opt, before));
    ((int64_t *)gr_tensor_data_peek(gr_dict_find_peek(d, "updates")))[1] = -1;
    fails(load(opt, d), "updates is -1, expected 0 to 9007199254740992");
    gr_release(d);
    d = copy_of(gr_retain(before));
    *(double *)gr_tensor_data_peek(gr_dict_find_peek(d, "groups.2.lr")) = -1;
    fails(load(opt, d), "groups.2: lr = -1: expected 0 or more");
    *(double *)gr_tensor_data_peek(gr_dict_find_peek(d, "groups.2.lr")) = 0.5;
    *(double *)gr_tensor_data_peek(gr_dict_find_peek(d, "groups.2.beta1")) = 1;
    fails(load(opt, d), "groups.2: betas 1");
    gr_state_part parts[] = {{.object = opt, .state = before}, {.object = net, .state = before}};
    fails(gr_state_load(ctx, 2, parts), "Sequential: ");
    parts[0].partial = true;
    fails(gr_state_load(ctx, 1, parts), "AdamW: an optimizer's state is loaded whole or not");
    gr_dict *now = optim_state(opt);
    assert_true(same_dict(before, now));
    gr_release(now);
    gr_release(before);
    gr_release(d);
    gr_release(other);
    gr_release(sgd);
    gr_release(opt);
    gr_release(wide);
    gr_release(net);
}

/* Momentum turned on, amsgrad turned on: the tensor that the next step would make is not there yet. */
static void options_changed_since_the_last_step(void **state) {
    (void)state;
    static const struct { const char *kind, *option; double v; } cases[] = {
        {"SGD", "momentum", 0.9}, {"Adam", "amsgrad", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gr_seed(ctx, 4);
        gr_layer *net = new_model(2), *other = new_model(2);
        gr_optim *opt = new_optim(net, cases[i].kind, NULL, 0), *again = new_optim(other, cases[i].kind, NULL, 0);
        uint64_t seed, draws;
        train(net, opt, 3);
        const gr_info *info = gr_optim_kind_info(gr_optim_kind_find(cases[i].kind));
        for (int g = 0; g < 2; g++)
            for (const gr_attr *a = info->attrs; a->name; a++) {
                char *at = (char *)gr_optim_attrs_peek(opt, g) + a->offset;
                if (strcmp(a->name, cases[i].option) != 0) continue;
                if (a->kind == GR_ATTR_BOOL) *(bool *)at = true;
                else *(double *)(void *)at = cases[i].v;
            }
        gr_dict *weights = copy_of(layer_state(net)), *rest = copy_of(optim_state(opt));
        gr_random_get(ctx, &seed, &draws);
        train(net, opt, 3);
        load_both(other, weights, again, rest);
        gr_random_set(ctx, seed, draws);
        train(other, again, 3);
        assert_same_state(layer_state(net), layer_state(other), cases[i].option);
        assert_same_state(optim_state(opt), optim_state(again), cases[i].option);
        gr_release(weights);
        gr_release(rest);
        gr_release(again);
        gr_release(opt);
        gr_release(other);
        gr_release(net);
    }
}

/* ---- lack of memory --------------------------------------------------------------------------------------- */

typedef struct failing { int64_t left; } failing; /* < 0: all succeed */

static void *failing_alloc(void *ud, void *p, size_t osize, size_t nsize) {
    failing *f = ud;
    (void)osize;
    if (nsize == 0) {
        free(p);
        return NULL;
    }
    if (f->left == 0) return NULL;
    if (f->left > 0) f->left--;
    return realloc(p, nsize);
}

/* An allocation fails in the middle of loading: what is there stays. */
static void a_failed_load_changes_nothing(void **state) {
    (void)state;
    gr_ctx *outer = ctx;
    failing f = {-1};
    gr_config cfg;
    gr_config_init(&cfg);
    cfg.alloc = failing_alloc;
    cfg.alloc_ud = &f;
    cfg.threads = 1;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    gr_layer *net = new_model(6), *other = new_model(6);
    gr_optim *opt = new_optim(net, "AdamW", NULL, 0), *again = new_optim(other, "AdamW", NULL, 0);
    train(net, opt, 2);
    train(other, again, 3);
    gr_dict *weights = saved(layer_state(net)), *rest = saved(optim_state(opt));
    gr_dict *have = copy_of(layer_state(other)), *have_rest = copy_of(optim_state(again));
    gr_state_part parts[] = {{.object = other, .state = weights}, {.object = again, .state = rest}};
    int failures = 0;
    for (int64_t n = 0;; n++) {
        gr_memory_trim(ctx);
        f.left = n;
        gr_status s = gr_state_load(ctx, 2, parts);
        f.left = -1;
        if (s == GR_OK) break;
        assert_int_equal(s, GR_ERR_MEMORY);
        gr_clear_error(ctx);
        failures++;
        assert_same_state(copy_of(gr_retain(have)), layer_state(other), "weights");
        assert_same_state(copy_of(gr_retain(have_rest)), optim_state(again), "state");
    }
    assert_true(failures > 0);
    assert_same_state(layer_state(net), layer_state(other), "weights");
    assert_same_state(optim_state(opt), optim_state(again), "state");
    void *all[] = {weights, rest, have, have_rest, again, opt, other, net};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) gr_release(all[i]);
    assert_int_equal(gr_ctx_free(ctx), 0);
    ctx = outer;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_layers_state_is_ordered_and_shared),
        cmocka_unit_test(loading_copies_in_place),
        cmocka_unit_test(what_does_not_fit_is_listed_and_nothing_loaded),
        cmocka_unit_test(partial_loading_takes_what_fits),
        cmocka_unit_test(tied_weights_are_one),
        cmocka_unit_test(an_optimizers_state_is_tensors),
        cmocka_unit_test(training_goes_on_bit_for_bit),
        cmocka_unit_test(a_wrong_optimizers_state_changes_nothing),
        cmocka_unit_test(options_changed_since_the_last_step),
        cmocka_unit_test(a_failed_load_changes_nothing),
    };
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
