/* Runtimes, as a host sees them: values, errors, limits, interrupts, closing. Against the public header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <gradrun.h>
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

/* ---- a host's allocator: counts, and fails when told -------------------------------------------------------- */

typedef struct meter {
    long live, calls, fail_at; /* fail_at 0: never */
} meter;

static void *meter_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
    meter *m = ud;
    if (nsize == 0) {
        if (ptr) m->live -= (long)osize;
        free(ptr);
        return NULL;
    }
    size_t old = ptr ? osize : 0;
    if (nsize > old && ++m->calls == m->fail_at) return NULL;
    void *p = realloc(ptr, nsize);
    if (p) m->live += (long)nsize - (long)old;
    return p;
}

static gr_runtime *open_plain(void) {
    gr_runtime *rt = NULL;
    assert_int_equal(gr_open(NULL, &rt), GR_OK);
    return rt;
}

static gr_status run(gr_runtime *rt, const char *text) { return gr_run_buffer(rt, "host", text, strlen(text)); }

static void run_ok(gr_runtime *rt, const char *text) {
    if (run(rt, text) != GR_OK) fail_msg("%s", gr_runtime_errmsg(rt));
}

static void assert_says(gr_runtime *rt, const char *part) {
    if (!strstr(gr_runtime_errmsg(rt), part)) fail_msg("'%s' is not in: %s", part, gr_runtime_errmsg(rt));
}

static void assert_usable(gr_runtime *rt) {
    run_ok(rt, "assert(require('gradrun').ones(3):sum():item() == 3)");
    assert_string_equal(gr_runtime_errmsg(rt), "");
}

/* ---- errors ------------------------------------------------------------------------------------------------- */

static void errors_are_a_status_and_a_text(void **state) {
    (void)state;
    gr_runtime *rt = open_plain();
    assert_int_equal(run(rt, "x = = 1"), GR_ERR_SCRIPT);
    assert_string_equal(gr_runtime_errmsg(rt), "host:1: unexpected symbol near '='");
    assert_usable(rt);
    assert_int_equal(run(rt, "local function f() error('boom') end\nf()"), GR_ERR_SCRIPT);
    assert_says(rt, "host:1: boom\nstack traceback:");
    assert_says(rt, "host:2: in main chunk");
    assert_int_equal(run(rt, "error({})"), GR_ERR_SCRIPT);
    assert_says(rt, "(error object is a table value)");
    assert_int_equal(run(rt, "error(setmetatable({}, {__tostring = function() return 'mine' end}))"), GR_ERR_SCRIPT);
    assert_says(rt, "mine");
    assert_int_equal(run(rt, "local function f() return 1 + f() end f()"), GR_ERR_SCRIPT);
    assert_says(rt, "stack overflow");
    assert_int_equal(run(rt, "local gr = require 'gradrun'; gr.ones(2, 3):matmul(gr.ones(2, 3))"), GR_ERR_SCRIPT);
    assert_says(rt, "matmul");
    assert_int_equal(gr_run_file(rt, "/no/such/file.lua"), GR_ERR_IO);
    assert_says(rt, "/no/such/file.lua");
    assert_int_equal(run(rt, "\033Lua"), GR_ERR_SCRIPT);
    assert_says(rt, "binary chunk");
    assert_usable(rt);
    assert_int_equal(gr_close(rt), 0);
}

static void limits_are_errors(void **state) {
    (void)state;
    gr_runtime_config cfg;
    gr_runtime *rt;
    gr_runtime_config_init(&cfg);
    cfg.lua_bytes = 4 << 20;
    cfg.native_bytes = 1 << 20;
    assert_int_equal(gr_open(&cfg, &rt), GR_OK);
    assert_int_equal(run(rt, "local t = {} for i = 1, 1e9 do t[i] = i end"), GR_ERR_MEMORY);
    assert_says(rt, "not enough memory");
    assert_usable(rt);
    assert_int_equal(run(rt, "local s = 'x' while true do s = s .. s end"), GR_ERR_MEMORY);
    assert_int_equal(run(rt, "require('gradrun').zeros(1024, 1024)"), GR_ERR_SCRIPT);
    assert_says(rt, "a limit is set");
    assert_usable(rt);
    assert_int_equal(gr_close(rt), 0);
    cfg.isa = "abacus";
    assert_int_equal(gr_open(&cfg, &rt), GR_ERR_ARG);
    assert_null(rt);
}

/* ---- values ------------------------------------------------------------------------------------------------- */

static void values_cross_and_come_back(void **state) {
    (void)state;
    gr_runtime *rt = open_plain();
    gr_value args[5] = {gr_value_bool(true), gr_value_integer(INT64_MIN), gr_value_number(0.5),
                        gr_value_string("text"), {.kind = GR_VALUE_NIL}};
    gr_value r[7];
    run_ok(rt, "m = {n = {}} function m.n.same(...) return ... end");
    assert_int_equal(gr_call(rt, "m.n.same", 5, args, 7, r), GR_OK);
    assert_true(r[0].kind == GR_VALUE_BOOL && r[0].boolean);
    assert_true(r[1].kind == GR_VALUE_INTEGER && r[1].integer == INT64_MIN && r[1].number == -0x1p63);
    assert_true(r[2].kind == GR_VALUE_NUMBER && r[2].number == 0.5);
    assert_int_equal(r[3].kind, GR_VALUE_STRING);
    assert_string_equal(r[3].string, "text");
    for (int i = 4; i < 7; i++) assert_int_equal(r[i].kind, GR_VALUE_NIL);
    run_ok(rt, "function zero() return 'a\\0b', 1, 2 end");
    assert_int_equal(gr_call(rt, "zero", 0, NULL, 1, r), GR_OK);
    assert_int_equal(r[0].size, 3);
    assert_memory_equal(r[0].string, "a\0b", 4);
    gr_value rate = gr_value_number(0.25);
    run_ok(rt, "options = {}");
    assert_int_equal(gr_set_global(rt, "options.rate", &rate), GR_OK);
    run_ok(rt, "assert(options.rate == 0.25) options.rate = 'slow'");
    assert_int_equal(gr_get_global(rt, "options.rate", r), GR_OK);
    assert_string_equal(r[0].string, "slow");
    assert_int_equal(gr_close(rt), 0);
}

static void a_hosts_mistakes_are_named(void **state) {
    (void)state;
    gr_runtime *rt = open_plain(), *other = open_plain();
    gr_value r[2] = {gr_value_integer(7), gr_value_integer(8)}, bad = {.kind = GR_VALUE_STRING};
    gr_tensor *t;
    assert_int_equal(gr_call(rt, "nobody", 0, NULL, 0, NULL), GR_ERR_ARG);
    assert_string_equal(gr_runtime_errmsg(rt), "'nobody' is a nil value, not a function");
    assert_int_equal(gr_call(rt, "a.b", 0, NULL, 0, NULL), GR_ERR_ARG);
    assert_string_equal(gr_runtime_errmsg(rt), "'a' in 'a.b' is a nil value");
    assert_int_equal(gr_set_global(rt, "a..b", r), GR_ERR_ARG);
    assert_int_equal(gr_set_global(rt, "", r), GR_ERR_ARG);
    assert_int_equal(gr_set_global(rt, "x", &bad), GR_ERR_ARG);
    assert_int_equal(gr_tensor_scalar(gr_runtime_ctx_peek(other), GR_F32, 1, &t), GR_OK);
    bad = gr_value_tensor(t);
    assert_int_equal(gr_call(rt, "print", 1, &bad, 0, NULL), GR_ERR_ARG);
    assert_says(rt, "argument 1");
    assert_says(rt, "another context");
    gr_release(t);
    run_ok(rt, "function two() return require('gradrun').ones(2), {} end");
    assert_int_equal(gr_call(rt, "two", 0, NULL, 2, r), GR_ERR_ARG);
    assert_string_equal(gr_runtime_errmsg(rt), "'two': result 2 is a table, which is no value for a host");
    assert_true(r[0].integer == 7 && r[1].integer == 8);
    run_ok(rt, "function fails() error 'inside' end");
    assert_int_equal(gr_call(rt, "fails", 0, NULL, 0, NULL), GR_ERR_SCRIPT);
    assert_says(rt, "inside");
    assert_usable(rt);
    assert_int_equal(gr_close(rt), 0);
    assert_int_equal(gr_close(other), 0);
}

static void count_release(void *ud, void *data) { *(int *)ud += data != NULL; }

static void a_lent_buffer_is_the_hosts_own(void **state) {
    (void)state;
    gr_runtime *rt = open_plain();
    float data[6] = {1, 2, 3, 4, 5, 6};
    int released = 0;
    gr_tensor *t;
    gr_status s = gr_tensor_borrow(gr_runtime_ctx_peek(rt), GR_F32, 2, (int64_t[]){2, 3}, NULL, data, count_release,
                                   &released, &t);
    assert_int_equal(s, GR_OK);
    gr_value v = gr_value_tensor(t), r;
    assert_int_equal(gr_set_global(rt, "x", &v), GR_OK);
    gr_release(t);
    run_ok(rt, "x:mul_(2) function row(i) return x[i] end");
    assert_true(data[0] == 2 && data[5] == 12);
    v = gr_value_integer(2);
    assert_int_equal(gr_call(rt, "row", 1, &v, 1, &r), GR_OK);
    assert_int_equal(r.kind, GR_VALUE_TENSOR);
    assert_int_equal(gr_tensor_rank(r.tensor), 1);
    assert_int_equal(gr_tensor_dims_peek(r.tensor)[0], 3);
    assert_ptr_equal(gr_tensor_data_peek(r.tensor), data + 3);
    assert_int_equal(released, 0);
    assert_int_equal(gr_close(rt), 2); /* a tensor and its storage, still the host's */
    assert_int_equal(run(rt, "print 'no'"), GR_ERR_STATE);
    gr_release(r.tensor);
    assert_int_equal(released, 1);
    assert_int_equal(gr_close(rt), 0);
}

/* ---- output ------------------------------------------------------------------------------------------------- */

typedef struct heard {
    char out[256], err[1024];
} heard;

static void hear_out(void *ud, const char *text, size_t size) { strncat(((heard *)ud)->out, text, size); }
static void hear_err(void *ud, const char *text) { strcat(strcat(((heard *)ud)->err, text), "|"); }

static void output_goes_to_the_host(void **state) {
    (void)state;
    heard h = {{0}, {0}};
    gr_runtime_config cfg;
    gr_runtime *rt;
    gr_runtime_config_init(&cfg);
    cfg.write = hear_out;
    cfg.error = hear_err;
    cfg.ud = &h;
    assert_int_equal(gr_open(&cfg, &rt), GR_OK);
    run_ok(rt, "print(1, nil, setmetatable({}, {__tostring = function() return 'obj' end})) print()");
    assert_string_equal(h.out, "1\tnil\tobj\n\n");
    assert_int_equal(run(rt, "error('E', 0)"), GR_ERR_SCRIPT);
    run_ok(rt, "warn('w', '1') setmetatable({}, {__gc = function() error('in gc', 0) end}) collectgarbage()");
    assert_non_null(strstr(h.err, "E\nstack traceback"));
    assert_non_null(strstr(h.err, "|w1|"));
    assert_non_null(strstr(h.err, "in gc"));
    assert_int_equal(gr_close(rt), 0);
}

/* ---- interrupts --------------------------------------------------------------------------------------------- */

static gr_runtime *signalled;

static void on_alarm(int sig) {
    (void)sig;
    gr_runtime_interrupt(signalled);
}

/* Runs text with a signal 30 ms later; it must end with GR_ERR_INTERRUPT, and leave the runtime usable. The
 * thread sanitizer keeps signals back until the next system call, of which these loops make none. */
static void assert_stops(gr_runtime *rt, const char *text) {
#ifdef __SANITIZE_THREAD__
    return;
#endif
    struct itimerval in = {.it_value = {.tv_usec = 30000}};
    signalled = rt;
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &in, NULL);
    assert_int_equal(run(rt, text), GR_ERR_INTERRUPT);
    assert_says(rt, "interrupted");
    signal(SIGALRM, SIG_DFL);
    assert_usable(rt);
}

static void a_signal_stops_any_loop(void **state) {
    (void)state;
    gr_runtime *rt = open_plain();
    assert_stops(rt, "while true do end");
    assert_stops(rt, "while true do pcall(function() while true do end end) end");
    assert_stops(rt, "pcall(function() while true do end end)");
    assert_stops(rt, "return pcall(function() while true do end end)");
    assert_stops(rt, "coroutine.wrap(function() while true do end end)()");
    assert_stops(rt, "coroutine.resume(coroutine.create(function() "
                     "coroutine.wrap(function() while true do end end)() end))");
    assert_stops(rt, "local f = coroutine.wrap(function() while true do coroutine.yield() end end) "
                     "while true do f() end");
    assert_stops(rt, "while true do xpcall(function() while true do end end, function(m) return m .. '!' end) end");
    assert_stops(rt, "local gr = require 'gradrun' local x = gr.ones(64) while true do pcall(x.mul_, x, 1) end");
    assert_stops(rt, "local co = coroutine.create(function() "
                     "local x <close> = setmetatable({}, {__close = function() while true do end end}) coroutine.yield() end) coroutine.resume(co) coroutine.close(co)");
    /* A coroutine that was not running goes on as if nothing had happened. */
    run_ok(rt, "n = 0 f = coroutine.wrap(function() while true do n = n + 1 coroutine.yield(n) end end)");
    assert_stops(rt, "f() while true do end");
    run_ok(rt, "local before = n assert(f() == before + 1 and f() == before + 2)");
    assert_int_equal(gr_close(rt), 0);
}

static void *interrupt_soon(void *rt) {
    usleep(30000);
    gr_runtime_interrupt(rt);
    return NULL;
}

static gr_status run_interrupted(gr_runtime *rt, const char *text) {
    pthread_t thread;
    pthread_create(&thread, NULL, interrupt_soon, rt);
    gr_status s = run(rt, text);
    pthread_join(thread, NULL);
    return s;
}

static void another_thread_stops_native_work(void **state) {
    (void)state;
    gr_runtime *rt = open_plain();
    assert_int_equal(run_interrupted(rt, "local x = require('gradrun').ones(64) while true do x:mul_(1) end"),
                     GR_ERR_INTERRUPT);
    assert_usable(rt);
    assert_int_equal(gr_close(rt), 0);
}

static void another_thread_stops_lua_when_watched(void **state) {
    (void)state;
    gr_runtime_config cfg;
    gr_runtime *rt;
    gr_runtime_config_init(&cfg);
    cfg.watch = true;
    assert_int_equal(gr_open(&cfg, &rt), GR_OK);
    gr_status s = run_interrupted(rt, "while true do pcall(function() while true do end end) end");
    assert_int_equal(s, GR_ERR_INTERRUPT);
    s = run_interrupted(rt, "coroutine.wrap(function() while true do end end)()");
    assert_int_equal(s, GR_ERR_INTERRUPT);
    assert_usable(rt);
    assert_int_equal(gr_close(rt), 0);
}

static void an_early_interrupt_stops_the_next_run_only(void **state) {
    (void)state;
    gr_runtime *rt = open_plain();
    gr_runtime_interrupt(rt);
    assert_int_equal(run(rt, "while true do end"), GR_ERR_INTERRUPT);
    assert_usable(rt);
    assert_int_equal(gr_close(rt), 0);
}

/* ---- the host's own Lua state --------------------------------------------------------------------------------- */

static void attached_to_a_hosts_state(void **state) {
    (void)state;
    gr_runtime_config cfg;
    gr_runtime *rt, *again;
    meter m = {0};
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    gr_runtime_config_init(&cfg);
    cfg.alloc = meter_alloc;
    cfg.alloc_ud = &m;
    cfg.lua_bytes = 1;
    assert_int_equal(gr_attach(L, &cfg, &rt), GR_ERR_ARG);
    cfg.lua_bytes = 0;
    assert_int_equal(gr_attach(L, &cfg, &rt), GR_OK);
    assert_ptr_equal(gr_runtime_lua_peek(rt), L);
    assert_int_equal(lua_gettop(L), 0);
    assert_int_equal(lua_gc(L, LUA_GCINC, 0, 0, 0), LUA_GCINC);
    run_ok(rt, "x, d = require('gradrun').ones(5), require('gradrun').dict()");
    assert_stops(rt, "while true do end");
    assert_int_equal(luaL_dostring(L, "return x:sum():item()"), LUA_OK); /* it is the host's state as before */
    assert_int_equal(lua_tointeger(L, -1), 5);
    lua_pop(L, 1);
    assert_int_equal(gr_attach(L, NULL, &again), GR_OK);
    assert_ptr_equal(gr_runtime_ctx_peek(again), gr_runtime_ctx_peek(rt));
    assert_int_equal(gr_close(rt), 3); /* x and its storage, and d */
    run_ok(again, "x, d = nil");
    assert_int_equal(gr_close(again), 0);
    assert_int_equal(luaL_dostring(L, "y = require('gradrun').zeros(3) coroutine.wrap(function() end)()"), LUA_OK);
    lua_close(L);
    assert_int_equal(m.live, 0);
}

static int close_inside(lua_State *L) {
    lua_pushinteger(L, gr_close(signalled));
    return 1;
}

static int run_inside(lua_State *L) {
    lua_pushinteger(L, run(signalled, luaL_checkstring(L, 1)));
    return 1;
}

static void runs_within_runs(void **state) {
    (void)state;
    gr_runtime *rt = signalled = open_plain();
    lua_register(gr_runtime_lua_peek(rt), "close_inside", close_inside);
    lua_register(gr_runtime_lua_peek(rt), "run_inside", run_inside);
    run_ok(rt, "assert(close_inside() == -1)");
    run_ok(rt, "assert(run_inside('y = 1') == 0 and y == 1)");
    run_ok(rt, "assert(coroutine.wrap(function() return run_inside('error()') end)() ~= 0)");
    assert_stops(rt, "while true do run_inside('while true do end') end"); /* both are stopped */
    assert_int_equal(gr_close(rt), 0);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

static void each_allocation_may_fail(void **state) {
    (void)state;
    gr_runtime_config cfg;
    long at = 0;
    gr_status s;
    gr_runtime_config_init(&cfg);
    do {
        meter m = {.fail_at = ++at};
        gr_runtime *rt;
        cfg.alloc = meter_alloc;
        cfg.alloc_ud = &m;
        s = gr_open(&cfg, &rt);
        if (s == GR_OK) assert_int_equal(gr_close(rt), 0);
        else assert_int_equal(s, GR_ERR_MEMORY);
        assert_int_equal(m.live, 0);
        if (s == GR_OK && m.calls < at) break;
    } while (at < 100000);
    assert_int_equal(s, GR_OK);
    assert_true(at > 100);
}

/* Lua collects and tries again by itself, so a single failure often passes unseen. */
static void each_allocation_of_a_call_may_fail(void **state) {
    (void)state;
    meter m = {0};
    gr_runtime_config cfg;
    gr_runtime *rt;
    gr_runtime_config_init(&cfg);
    cfg.alloc = meter_alloc;
    cfg.alloc_ud = &m;
    assert_int_equal(gr_open(&cfg, &rt), GR_OK);
    run_ok(rt, "local gr = require 'gradrun' function f(a, s) return (a * 2):sum(), s .. 'x' end");
    gr_tensor *t;
    assert_int_equal(gr_tensor_scalar(gr_runtime_ctx_peek(rt), GR_F32, 3, &t), GR_OK);
    for (long n = 1; n <= 60; n++) {
        gr_value args[2] = {gr_value_tensor(t), gr_value_string("text")}, r[2];
        m.calls = 0;
        m.fail_at = n;
        gr_status s = gr_call(rt, "f", 2, args, 2, r);
        m.fail_at = 0;
        if (s == GR_OK) gr_release(r[0].tensor);
        else assert_true(s == GR_ERR_MEMORY || s == GR_ERR_SCRIPT);
    }
    gr_release(t);
    assert_usable(rt);
    assert_int_equal(gr_close(rt), 0);
    assert_int_equal(m.live, 0);
}

/* Lua does not finalize what finalizers make while it closes: it would be left over. */
static void finalizers_at_the_end_make_nothing(void **state) {
    (void)state;
    heard h = {{0}, {0}};
    gr_runtime_config cfg;
    gr_runtime *rt;
    gr_runtime_config_init(&cfg);
    cfg.error = hear_err;
    cfg.ud = &h;
    assert_int_equal(gr_open(&cfg, &rt), GR_OK);
    run_ok(rt, "local gr = require 'gradrun' local t = gr.ones(2) "
               "late = setmetatable({}, {__gc = function() local s = t[1] kept = s + gr.zeros(3) end})");
    assert_int_equal(gr_close(rt), 0);
    assert_non_null(strstr(h.err, "the runtime is closing"));
}

static void a_tensor_outlives_the_script_its_gradient_needs(void **state) {
    (void)state;
    static const char *const makers[] = {
        "w:register_hook(function(g) return g * 2 end) function make() return (w * w):sum() end",
        "local f = gr.func{forward = function(c, a) return a * 2 end, backward = function(c, dy) return dy end} "
        "function make() return f(w):sum() end"};
    for (int i = 0; i < 2; i++) {
        gr_runtime *rt = open_plain();
        gr_value y;
        run_ok(rt, "gr = require 'gradrun' w = gr.tensor({1, 2}, {requires_grad = true})");
        run_ok(rt, makers[i]);
        assert_int_equal(gr_call(rt, "make", 0, NULL, 1, &y), GR_OK);
        gr_ctx *ctx = gr_runtime_ctx_peek(rt);
        assert_true(gr_close(rt) > 0);
        assert_int_equal(gr_backward(y.tensor, NULL), GR_ERR_STATE);
        assert_non_null(strstr(gr_errmsg(ctx), "the script it was written in is closed"));
        gr_release(y.tensor);
        assert_int_equal(gr_close(rt), 0);
    }
}

static void a_hosts_backward_after_a_coroutine(void **state) {
    (void)state;
    gr_runtime *rt = open_plain();
    gr_value y, seen;
    run_ok(rt, "local gr = require 'gradrun' "
               "local w = gr.tensor({1, 2}, {requires_grad = true}) "
               "w:register_hook(function(g) seen, thread = g:sum():item(), coroutine.running() end) "
               "main = coroutine.running() "
               "function make() "
               "  local y coroutine.wrap(function() y = (w * w):sum() end)() "
               "  pcall(coroutine.wrap(function() y = y + 0 error() end)) "
               "  collectgarbage() return y "
               "end");
    assert_int_equal(gr_call(rt, "make", 0, NULL, 1, &y), GR_OK);
    assert_int_equal(gr_backward(y.tensor, NULL), GR_OK);
    gr_release(y.tensor);
    assert_int_equal(gr_get_global(rt, "seen", &seen), GR_OK);
    assert_true(seen.number == 6);
    run_ok(rt, "assert(thread == main)");
    assert_int_equal(gr_close(rt), 0);
}

static void gradients_that_hold_their_leaves_go_with_the_runtime(void **state) {
    (void)state;
    gr_runtime *rt = open_plain();
    gr_memory m;
    run_ok(rt, "local gr = require 'gradrun' "
               "for i = 1, 10 do "
               "  local w = gr.tensor({1, 2}, {requires_grad = true}) "
               "  local v = w * w "
               "  v:retain_grad(); "
               "  (v * v * v):sum():backward{create_graph = true} "
               "  local u = gr.tensor({1, 2}, {requires_grad = true}) "
               "  u.grad = u * 2 "
               "end collectgarbage() collectgarbage()");
    gr_memory_get(gr_runtime_ctx_peek(rt), &m);
    assert_true(m.nodes > 0);
    assert_int_equal(gr_close(rt), 0);
}

static void *train_alone(void *result) {
    gr_runtime *rt;
    if (gr_open(NULL, &rt) != GR_OK) return NULL;
    static const char text[] = "local gr = require 'gradrun' local x = gr.ones(300, 300) "
                               "for _ = 1, 20 do x = x:matmul(x) * (1 / 300) end total = x:sum():item()";
    gr_value v = {.kind = GR_VALUE_NIL};
    if (run(rt, text) == GR_OK) gr_get_global(rt, "total", &v);
    *(double *)result = gr_close(rt) == 0 ? v.number : -1;
    return NULL;
}

static void runtimes_run_side_by_side(void **state) {
    (void)state;
    pthread_t thread[3];
    double total[3] = {0};
    for (int i = 0; i < 3; i++) pthread_create(&thread[i], NULL, train_alone, &total[i]);
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < 3; i++) assert_true(total[i] > 89990 && total[i] < 90010);
}

static void opened_and_closed_often(void **state) {
    (void)state;
    meter m = {0};
    gr_runtime_config cfg;
    gr_runtime_config_init(&cfg);
    cfg.alloc = meter_alloc;
    cfg.alloc_ud = &m;
    struct rusage first = {0}, last;
    for (int i = 0; i < 1000; i++) {
        gr_runtime *rt;
        if (i == 100) getrusage(RUSAGE_SELF, &first);
        assert_int_equal(gr_open(&cfg, &rt), GR_OK);
        run_ok(rt, "local gr = require 'gradrun' local x = gr.ones(4):requires_grad_() kept = (x * x):sum()");
        assert_int_equal(gr_close(rt), 0);
        assert_int_equal(m.live, 0);
    }
    getrusage(RUSAGE_SELF, &last);
#ifndef __SANITIZE_ADDRESS__ /* it keeps what is freed for a while */
    assert_true(last.ru_maxrss - first.ru_maxrss < 1024); /* KiB: threads, their stacks, what is not m's */
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_a_status_and_a_text),
        cmocka_unit_test(limits_are_errors),
        cmocka_unit_test(values_cross_and_come_back),
        cmocka_unit_test(a_hosts_mistakes_are_named),
        cmocka_unit_test(a_lent_buffer_is_the_hosts_own),
        cmocka_unit_test(output_goes_to_the_host),
        cmocka_unit_test(a_signal_stops_any_loop),
        cmocka_unit_test(another_thread_stops_native_work),
        cmocka_unit_test(another_thread_stops_lua_when_watched),
        cmocka_unit_test(an_early_interrupt_stops_the_next_run_only),
        cmocka_unit_test(attached_to_a_hosts_state),
        cmocka_unit_test(runs_within_runs),
        cmocka_unit_test(each_allocation_may_fail),
        cmocka_unit_test(each_allocation_of_a_call_may_fail),
        cmocka_unit_test(finalizers_at_the_end_make_nothing),
        cmocka_unit_test(a_tensor_outlives_the_script_its_gradient_needs),
        cmocka_unit_test(a_hosts_backward_after_a_coroutine),
        cmocka_unit_test(gradients_that_hold_their_leaves_go_with_the_runtime),
        cmocka_unit_test(runtimes_run_side_by_side),
        cmocka_unit_test(opened_and_closed_often),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
