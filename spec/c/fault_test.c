/* Each allocation failing in turn: an error that says so, nothing left behind, the context usable, what a failed
 * call must not touch untouched. Built on a core without free lists, where each allocation is the allocator's.
 *
 * Op cases run through Lua (spec/support/fault.lua), which reads them from the descriptors; a whole training step,
 * and steps whose failure must change nothing, run in C; a script runs, and checkpoints are saved and loaded, while
 * Lua's own allocations fail too. */
#include "model.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- an allocator that fails when told ---------------------------------------------------------------------- */

typedef struct fault {
    bool armed, forever, fired; /* forever: all from number `at` on, else that one alone */
    uint64_t seen, at;
    int64_t blocks;             /* alive */
} fault;

static void *fault_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
    fault *f = ud;
    if (nsize == 0) {
        if (ptr) f->blocks--;
        free(ptr);
        return NULL;
    }
    if (f->armed && (!ptr || nsize > osize)) { /* Lua relies on shrinking */
        f->seen++;
        if (f->seen == f->at || (f->forever && f->seen > f->at)) {
            f->fired = true;
            return NULL;
        }
    }
    void *p = realloc(ptr, nsize);
    if (p && !ptr) f->blocks++;
    return p;
}

static void fault_arm(fault *f, uint64_t at, bool forever) {
    f->armed = true;
    f->fired = false;
    f->forever = forever;
    f->seen = 0;
    f->at = at;
}

static bool fault_disarm(fault *f) {
    f->armed = false;
    return f->fired;
}

static gr_ctx *fault_ctx(fault *f) {
    gr_config cfg;
    gr_ctx *ctx;
    gr_config_init(&cfg);
    cfg.alloc = fault_alloc;
    cfg.alloc_ud = f;
    cfg.threads = 1;
    assert_int_equal(gr_ctx_new(&cfg, &ctx), GR_OK);
    return ctx;
}

static void assert_same_memory(gr_ctx *ctx, const gr_memory *before) {
    gr_memory m;
    gr_memory_get(ctx, &m);
    assert_int_equal(m.tensors, before->tensors);
    assert_int_equal(m.storages, before->storages);
    assert_int_equal(m.nodes, before->nodes);
    assert_int_equal(m.layers, before->layers);
    assert_int_equal(m.optims, before->optims);
    assert_int_equal(m.hooks, before->hooks);
    assert_int_equal(m.live, before->live);
}

/* ---- a training step in C ----------------------------------------------------------------------------------- */

static gr_status look_on(void *ud, gr_event *e) {
    (void)ud, (void)e;
    return GR_OK;
}

/* From nothing to one update, and everything let go again. */
static gr_status whole_step(gr_ctx *ctx) {
    gr_layer *net = NULL;
    gr_optim *opt = NULL;
    gr_tensor *loss = NULL;
    gr_hook *hook = NULL;
    gr_status s = model_new(ctx, 2, &net);
    if (s == GR_OK) s = gr_hook_add(ctx, net, GR_HOOK_FORWARD, "look", look_on, NULL, NULL, &hook);
    if (s == GR_OK) s = optim_new(net, &opt);
    if (s == GR_OK) s = model_loss(net, 3, &loss);
    if (s == GR_OK) s = gr_backward(loss, NULL);
    if (s == GR_OK) s = clip_all(net);
    if (s == GR_OK) s = gr_optim_step(opt);
    if (s == GR_OK) s = gr_optim_zero_grad(opt);
    gr_release(loss);
    gr_release(opt);
    gr_release(net);
    gr_release(hook);
    return s;
}

static void training_step_survives(void **unused) {
    (void)unused;
    for (int forever = 0; forever < 2; forever++) {
        uint64_t failures = 0;
        for (uint64_t n = 1;; n++) {
            fault f = {0};
            gr_memory before;
            gr_ctx *ctx = fault_ctx(&f);
            gr_memory_get(ctx, &before);
            fault_arm(&f, n, forever);
            gr_status s = whole_step(ctx);
            bool fired = fault_disarm(&f);
            assert_int_equal(s, fired ? GR_ERR_MEMORY : GR_OK);
            if (fired) assert_non_null(strstr(gr_errmsg(ctx), "memory"));
            assert_same_memory(ctx, &before);
            gr_clear_error(ctx);
            assert_int_equal(whole_step(ctx), GR_OK);
            assert_int_equal(gr_ctx_free(ctx), 0);
            assert_int_equal(f.blocks, 0);
            if (!fired) break;
            failures++;
        }
        assert_true(failures > 100);
    }
}

/* ---- failures that must change nothing ---------------------------------------------------------------------- */

typedef gr_status (*trained_body)(gr_layer *net, gr_optim *opt);

static gr_status body_backward(gr_layer *net, gr_optim *opt) {
    gr_tensor *loss;
    (void)opt;
    gr_status s = model_loss(net, 3, &loss);
    if (s != GR_OK) return s;
    s = gr_backward(loss, NULL);
    gr_release(loss);
    return s;
}

static gr_status body_step(gr_layer *net, gr_optim *opt) {
    (void)net;
    return gr_optim_step(opt);
}

static gr_status body_clip(gr_layer *net, gr_optim *opt) {
    (void)opt;
    return clip_all(net);
}

/* body on a model with gradients: when it fails, parameters, gradients and counters are what they were. */
static void changes_nothing(trained_body body, uint64_t least) {
    for (uint64_t n = 1;; n++) {
        fault f = {0};
        gr_layer *net;
        gr_optim *opt = NULL;
        gr_ctx *ctx = fault_ctx(&f);
        assert_int_equal(model_new(ctx, 2, &net), GR_OK);
        assert_int_equal(optim_new(net, &opt), GR_OK);
        assert_int_equal(body_backward(net, opt), GR_OK);
        uint64_t before = model_fingerprint(net, opt);
        gr_memory memory;
        gr_memory_get(ctx, &memory);
        fault_arm(&f, n, n % 2);
        gr_status s = body(net, opt);
        bool fired = fault_disarm(&f);
        assert_int_equal(s, fired ? GR_ERR_MEMORY : GR_OK);
        if (fired) {
            assert_true(model_fingerprint(net, opt) == before);
            assert_same_memory(ctx, &memory);
            gr_clear_error(ctx);
            assert_int_equal(body(net, opt), GR_OK);
        }
        assert_true(model_fingerprint(net, opt) != before);
        gr_release(net);
        gr_release(opt);
        assert_int_equal(gr_ctx_free(ctx), 0);
        assert_int_equal(f.blocks, 0);
        if (!fired) {
            assert_true(n > least);
            return;
        }
    }
}

static void failed_backward_changes_nothing(void **unused) {
    (void)unused;
    changes_nothing(body_backward, 20);
}

static void failed_step_changes_nothing(void **unused) {
    (void)unused;
    changes_nothing(body_step, 1);
}

static void failed_clip_changes_nothing(void **unused) {
    (void)unused;
    changes_nothing(body_clip, 0);
}

/* ---- scripts ------------------------------------------------------------------------------------------------ */

static const char training_script[] =
    "local gr = require 'gradrun'\n"
    "local nn = gr.nn\n"
    "gr.manual_seed(1)\n"
    "local Twice = nn.layer{name = 'Twice', init = function(self) self.fc = nn.Linear(4, 4) end,\n"
    "  forward = function(self, x) return self.fc(self.fc(x)) end}\n"
    "local square = gr.func{forward = function(ctx, x) ctx.x = x return x * x end,\n"
    "  backward = function(ctx, dy) return dy * ctx.x * 2 end}\n"
    "local net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), Twice(), nn.Linear(4, 1))\n"
    "local opt = gr.optim.SGD(net:parameters(), {lr = 0.1, momentum = 0.9})\n"
    "local h = net[1].weight:register_hook(function(g) return g * 0.5 end)\n"
    "local x = gr.tensor{{0, 1}, {1, 0}}\n"
    "for step = 1, 2 do\n"
    "  opt:zero_grad()\n"
    "  gr.scope(function() square(net(x) - gr.tensor{{1}, {0}}):mean():backward() end)\n"
    "  gr.clip.norm_(net:parameters(), 1)\n"
    "  opt:step()\n"
    "end\n"
    "h:remove()\n"
    "local reader = nn.LSTM(2, 3)\n"
    "local slow = gr.optim.RMSprop(reader:parameters(), {lr = gr.schedule.cosine(0.1, {steps = 5})})\n"
    "local set = {x = gr.rand(4, 2), y = gr.ones(4)}\n"
    "for a in gr.data.loader(set, {batch_size = 2, shuffle = true}):batches() do\n"
    "  (reader(a)):sum():backward()\n"
    "  slow:step()\n"
    "end\n"
    "assert(gr.save(save_to, {reader = reader, slow = slow, more = {1, 'two'}}))\n"
    "assert(gr.load(save_to, {reader = reader, slow = slow}))\n"
    "assert(#tostring(net) > 0 and #tostring(x[{1, {}}]) > 0)\n";

/* Lua's allocations fail too: between any two lines of the binding. All of them with FAULTS=all in the environment, as
 * make check-all has it; else fewer of the later ones, which are mostly alike. */
static void script_survives(void **unused) {
    (void)unused;
    const char *faults = getenv("FAULTS");
    uint64_t failures = 0, sparing = faults && strcmp(faults, "all") == 0 ? UINT64_MAX : 300;
    char path[] = "/tmp/gradrun-fault-XXXXXX", script[sizeof training_script + 100];
    int fd = mkstemp(path), length = snprintf(script, sizeof script, "local save_to = '%s'\n%s", path, training_script);
    assert_true(fd >= 0);
    close(fd);
    for (uint64_t n = 1;; n += 1 + n / sparing) {
        fault f = {0};
        gr_runtime_config cfg;
        gr_runtime *rt;
        gr_runtime_config_init(&cfg);
        cfg.alloc = fault_alloc;
        cfg.alloc_ud = &f;
        cfg.threads = 1;
        fault_arm(&f, n, false);
        gr_status s = gr_open(&cfg, &rt);
        if (s == GR_OK) {
            s = gr_run_buffer(rt, "=script", script, (size_t)length);
            bool fired = fault_disarm(&f);
            if (s != GR_OK && !fired) fail_msg("%s", gr_runtime_errmsg(rt));
            if (s != GR_OK && !strstr(gr_runtime_errmsg(rt), "memory")) fail_msg("%s", gr_runtime_errmsg(rt));
            assert_int_equal(gr_close(rt), 0);
        }
        assert_true(s == GR_OK || s == GR_ERR_MEMORY || s == GR_ERR_SCRIPT);
        assert_int_equal(f.blocks, 0);
        if (!f.fired) break;
        failures++;
    }
    unlink(path);
    assert_true(failures > 500);
}

/* ---- checkpoints ---------------------------------------------------------------------------------------------- */

static const char checkpoint_script[] =
    "local gr = require 'gradrun'\n"
    "local nn = gr.nn\n"
    "local counter = {}\n"
    "counter.__index = counter\n"
    "function counter:state_dict() return {n = self.n} end\n"
    "function counter:load_state_dict(state) self.n = state.n end\n"
    "local function make(seed, steps)\n"
    "  gr.manual_seed(seed)\n"
    "  local net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))\n"
    "  local opt = gr.optim.AdamW(net:parameters(), {lr = 0.01 * seed})\n"
    "  for _ = 1, steps do\n"
    "    opt:zero_grad()\n"
    "    net(gr.randn(4, 2)):sum():backward()\n"
    "    opt:step()\n"
    "  end\n"
    "  return {model = net, optimizer = opt, counter = setmetatable({n = seed}, counter)}\n"
    "end\n"
    "local a, b, first = make(1, 2), make(2, 3), make(2, 3)\n"
    "gr.save(path .. '.first', first)\n"
    "local function is(t, u)\n"
    "  local diff = gr.diff({t.model, t.optimizer}, {u.model, u.optimizer})\n"
    "  return diff.equal\n"
    "end\n"
    "function save() assert(gr.save(path, {a, b, list = {1, 2.5, 'x', {y = gr.ones(3)}}})) end\n"
    "function load()\n"
    "  assert(gr.load(path .. '.first', {model = a.model, optimizer = a.optimizer, counter = a.counter}))\n"
    "end\n"
    "function check_save()\n"
    "  assert(not io.open(path .. '.saving'))\n"
    "  local back = assert(gr.load(path))\n"
    "  assert(back == 'earlier' or is(back[1], a) and is(back[2], b) and back.list[4].y)\n"
    "  assert(gr.save(path, 'earlier'))\n"
    "end\n"
    "local original = make(1, 2)\n"
    "function check_load(whole)\n"
    "  local loaded = is(a, first)\n"
    "  assert(loaded or is(a, original))\n"
    "  assert(not whole or a.counter.n == (loaded and 2 or 1))\n"
    "  a.model:load_state_dict(original.model:state_dict())\n"
    "  a.optimizer:load_state_dict(original.optimizer:state_dict())\n"
    "  a.counter.n = 1\n"
    "end\n"
    "assert(gr.save(path, 'earlier'))\n";

static void called(gr_runtime *rt, const char *name, bool argument) {
    gr_value v = gr_value_bool(argument);
    if (gr_call(rt, name, 1, &v, 0, NULL) != GR_OK) fail_msg("%s: %s", name, gr_runtime_errmsg(rt));
}

/* A save that fails leaves the earlier file whole; a load that fails leaves the objects as they were. Where memory is
 * back at once, objects of scripts, too: putting those back may itself take some. */
static void checkpoint_survives(void **unused) {
    (void)unused;
    static const char *const calls[][2] = {{"save", "check_save"}, {"load", "check_load"}};
    char path[64], first[80];
    fault f = {0};
    gr_runtime_config cfg;
    gr_runtime *rt;
    strcpy(path, access("/dev/shm", W_OK) == 0 ? "/dev/shm/gradrun-fault-XXXXXX" : "/tmp/gradrun-fault-XXXXXX");
    close(mkstemp(path));
    snprintf(first, sizeof first, "%s.first", path);
    gr_runtime_config_init(&cfg);
    cfg.alloc = fault_alloc;
    cfg.alloc_ud = &f;
    cfg.threads = 1;
    gr_value name = gr_value_string(path);
    assert_int_equal(gr_open(&cfg, &rt), GR_OK);
    assert_int_equal(gr_set_global(rt, "path", &name), GR_OK);
    if (gr_run_buffer(rt, "=script", checkpoint_script, sizeof checkpoint_script - 1) != GR_OK)
        fail_msg("%s", gr_runtime_errmsg(rt));
    for (int c = 0; c < 4; c++) {
        const char *const *call = calls[c / 2];
        bool forever = c % 2;
        uint64_t n = 0, failures = 0;
        do {
            n += forever ? 1 + n / 100 : 1;
            fault_arm(&f, n, forever);
            gr_status s = gr_call(rt, call[0], 0, NULL, 0, NULL);
            fault_disarm(&f);
            if (s != GR_OK && !f.fired) fail_msg("%s: %s", call[0], gr_runtime_errmsg(rt));
            if (s != GR_OK && !strstr(gr_runtime_errmsg(rt), "memory")) fail_msg("%s", gr_runtime_errmsg(rt));
            failures += s != GR_OK;
            called(rt, call[1], !forever);
        } while (f.fired);
        if (failures < 50) fail_msg("%s: %d failures only", call[0], (int)failures);
    }
    assert_int_equal(gr_close(rt), 0);
    assert_int_equal(f.blocks, 0);
    assert_int_equal(unlink(path) | unlink(first), 0);
}

/* ---- op cases ----------------------------------------------------------------------------------------------- */

static fault op_fault;
static lua_State *op_lua;
static gr_runtime *op_runtime;

static int lua_arm(lua_State *L) {
    fault_arm(&op_fault, (uint64_t)luaL_checkinteger(L, 1), lua_toboolean(L, 2));
    return 0;
}

static int lua_disarm(lua_State *L) {
    lua_pushboolean(L, fault_disarm(&op_fault));
    return 1;
}

static int open_lua(void **unused) {
    (void)unused;
    gr_runtime_config cfg;
    gr_runtime_config_init(&cfg);
    cfg.alloc = fault_alloc; /* for tensors: the Lua state is ours */
    cfg.alloc_ud = &op_fault;
    cfg.threads = 1;
    op_lua = luaL_newstate();
    if (!op_lua) return -1;
    luaL_openlibs(op_lua);
    if (gr_attach(op_lua, &cfg, &op_runtime) != GR_OK) return -1;
    lua_createtable(op_lua, 0, 2);
    lua_pushcfunction(op_lua, lua_arm);
    lua_setfield(op_lua, -2, "arm");
    lua_pushcfunction(op_lua, lua_disarm);
    lua_setfield(op_lua, -2, "disarm");
    lua_setglobal(op_lua, "fault");
    static const char open[] = "package.path = './?.lua;' .. package.path; sweep = require 'spec.support.fault'";
    if (gr_run_buffer(op_runtime, "=open", open, sizeof open - 1) == GR_OK) return 0;
    print_error("%s\n", gr_runtime_errmsg(op_runtime));
    return -1;
}

static int close_lua(void **unused) {
    (void)unused;
    lua_pushnil(op_lua);
    lua_setglobal(op_lua, "sweep");
    int64_t left = gr_close(op_runtime);
    lua_close(op_lua);
    return left == 0 && op_fault.blocks == 0 ? 0 : -1;
}

static void op_survives(void **state) {
    gr_value name = gr_value_string(*state);
    if (gr_call(op_runtime, "sweep.op", 1, &name, 0, NULL) != GR_OK) fail_msg("%s", gr_runtime_errmsg(op_runtime));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_step_survives),        cmocka_unit_test(failed_backward_changes_nothing),
        cmocka_unit_test(failed_step_changes_nothing),   cmocka_unit_test(failed_clip_changes_nothing),
        cmocka_unit_test(script_survives),               cmocka_unit_test(checkpoint_survives),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL), n = gr_op_count();
    struct CMUnitTest *ops = calloc((size_t)n, sizeof *ops);
    if (!ops) return 1;
    for (int i = 0; i < n; i++) {
        const char *name = gr_op_info(gr_op_at(i))->name;
        ops[i] = (struct CMUnitTest){.name = name, .test_func = op_survives, .initial_state = (void *)(uintptr_t)name};
    }
    failed += _cmocka_run_group_tests("ops", ops, (size_t)n, open_lua, close_lua);
    free(ops);
    return failed != 0;
}
