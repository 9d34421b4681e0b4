/* gradrun, the program: after Lua's own lua.c, with the modules inside, and stoppable everywhere. */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lualib.h>

#include "lgr_host.h"

#define MAIN_TWICE_NS 50000000 /* closer signals are one Ctrl-C: timeout(1) sends two */

typedef struct main_options {
    int script; /* position in argv of the script's name; argc if there is none */
    bool interactive, version, help, stat;
    const char *bad, *wants; /* an option that is wrong, and what it wants */
    gr_config config;
} main_options;

/* For the signal handler: the one thing here that is global. */
static struct {
    lgr_stop *stop;
    pthread_t thread;
    volatile sig_atomic_t running, stopped;
    volatile int64_t when;
} main_signal;

/* ---- messages ------------------------------------------------------------------------------------------- */

static void main_usage(FILE *f) {
    fputs("usage: gradrun [options] [script [args]]\n"
          "  -e STAT        run the statements STAT\n"
          "  -l MOD         require MOD into the global MOD; -l G=MOD into the global G\n"
          "  -i             go on interactively after the script\n"
          "  -v, --version  print versions, instruction set and threads\n"
          "  -h, --help     print this\n"
          "  --threads N    threads for the arithmetic, 1 to 64 (default: what the process may use)\n"
          "  --seed N       seed of the random numbers (default 0)\n"
          "  --             no more options\n"
          "  -              run standard input\n"
          "Alone on a terminal, gradrun is interactive; otherwise it runs standard input.\n",
          f);
}

static void main_version(lua_State *L) {
    const gr_ctx *ctx = lgr_state_of(L)->ctx;
    int threads = gr_threads(ctx);
    printf("gradrun %s (%s, BLIS %s, %s, %d thread%s)\n", gr_version(), LUA_RELEASE, gr_blas_version(), gr_isa(ctx),
           threads, threads == 1 ? "" : "s");
    fflush(stdout);
}

static void main_message(const char *text) {
    fflush(stdout);
    fprintf(stderr, "gradrun: %s\n", text);
    fflush(stderr);
}

/* Prints the error on top of the stack, if status is one, and pops it. */
static int main_report(lua_State *L, int status) {
    if (status != LUA_OK) {
        const char *text = lua_tostring(L, -1);
        main_message(text ? text : "an error in the message handler");
        lua_pop(L, 1);
    }
    return status;
}

/* ---- Ctrl-C --------------------------------------------------------------------------------------------- */

/* The first one stops the script, a second one the process. While a line is being read, the read itself ends. */
static void main_interrupt(int sig) {
    struct timespec t;
    if (!pthread_equal(pthread_self(), main_signal.thread)) {
        pthread_kill(main_signal.thread, sig);
        return;
    }
    if (!main_signal.running) return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t now = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    if (!main_signal.stopped) {
        main_signal.stopped = 1;
        main_signal.when = now;
        lgr_stop_raise(main_signal.stop);
    } else if (now - main_signal.when > MAIN_TWICE_NS) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
}

static void main_set_signal(void (*handler)(int)) {
    struct sigaction sa = {.sa_handler = handler}; /* no SA_RESTART: a read at the prompt is to end */
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

/* lua_pcall with a traceback, and with Ctrl-C. An interrupt counts even if the script caught it as its last
 * act: the error is then made here. The caller says when it is over, with lgr_stop_clear. */
static int main_call(lua_State *L, int n, int results) {
    int base = lua_gettop(L) - n;
    lua_pushcfunction(L, lgr_traceback);
    lua_insert(L, base);
    lgr_stop_enter(main_signal.stop, L);
    main_signal.stopped = 0;
    main_signal.running = 1;
    int status = lua_pcall(L, n, results, base);
    main_signal.running = 0;
    if (status == LUA_OK && main_signal.stopped) {
        lua_settop(L, base);
        lua_pushliteral(L, "interrupted");
        status = LUA_ERRRUN;
    }
    lua_remove(L, base);
    return status;
}

/* ---- the interactive loop ------------------------------------------------------------------------------- */

/* read(prompt): a line without its end; nil at the end of input; false after Ctrl-C. */
static int main_repl_read(lua_State *L) {
    luaL_Buffer b;
    fputs(luaL_checkstring(L, 1), stdout);
    fflush(stdout);
    luaL_buffinit(L, &b);
    for (bool some = false;; some = true) {
        char *part = luaL_prepbuffer(&b);
        clearerr(stdin);
        if (!fgets(part, LUAL_BUFFERSIZE, stdin)) {
            if (ferror(stdin)) {
                lua_pushboolean(L, 0);
                return 1;
            }
            if (!some) return 0;
            break;
        }
        size_t n = strlen(part);
        bool whole = n > 0 && part[n - 1] == '\n';
        luaL_addsize(&b, whole ? n - 1 : n);
        if (whole) break;
    }
    luaL_pushresult(&b);
    return 1;
}

/* call(f, ...): true and the results, or false, the error with its traceback. */
static int main_repl_call(lua_State *L) {
    int status = main_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    lgr_stop_clear(main_signal.stop, L);
    lua_pushboolean(L, status == LUA_OK);
    lua_insert(L, 1);
    return lua_gettop(L);
}

static int main_repl(lua_State *L) {
    static const luaL_Reg editor[] = {{"read", main_repl_read}, {"call", main_repl_call}, {NULL, NULL}};
    lua_getglobal(L, "require");
    lua_pushliteral(L, "gradrun.repl");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "run");
    luaL_newlib(L, editor);
    lua_call(L, 1, 0);
    return 0;
}

static int main_run_repl(lua_State *L) {
    lua_pushcfunction(L, lgr_traceback);
    lua_pushcfunction(L, main_repl);
    int status = main_report(L, lua_pcall(L, 0, 0, -2));
    lua_pop(L, 1);
    return status;
}

/* ---- scripts -------------------------------------------------------------------------------------------- */

static int main_chunk(lua_State *L, int status) {
    if (status == LUA_OK) status = main_call(L, 0, 0);
    return main_report(L, status);
}

/* G=MOD, or MOD for both. */
static int main_library(lua_State *L, char *global) {
    char *module = strchr(global, '=');
    if (module) *module++ = 0;
    lua_getglobal(L, "require");
    lua_pushstring(L, module ? module : global);
    int status = main_call(L, 1, 1);
    if (status == LUA_OK) lua_setglobal(L, global);
    return main_report(L, status);
}

static int main_script(lua_State *L, char **argv, int argc, int script) {
    const char *name = argv[script];
    if (strcmp(name, "-") == 0 && strcmp(argv[script - 1], "--") != 0) name = NULL; /* standard input */
    int status = luaL_loadfile(L, name), n = argc - script - 1;
    if (status == LUA_OK) {
        luaL_checkstack(L, n + 3, "too many arguments to script");
        for (int i = 1; i <= n; i++) lua_pushstring(L, argv[script + i]);
        status = main_call(L, n, 0);
    }
    return main_report(L, status);
}

/* As in lua: arg[0] is the script, or the program if there is none; what comes before counts downwards. */
static void main_arg_table(lua_State *L, char **argv, int argc, int script) {
    if (script == argc) script = 0;
    lua_createtable(L, argc - script - 1, script + 1);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

/* ---- options -------------------------------------------------------------------------------------------- */

static bool main_number(const char *text, uint64_t max, uint64_t *out) {
    char *end;
    if (!text || *text < '0' || *text > '9') return false;
    unsigned long long n = strtoull(text, &end, 10);
    *out = n;
    return *end == 0 && n <= max && !(n == ULLONG_MAX && strcmp(text, "18446744073709551615") != 0);
}

/* --NAME N or --NAME=N. Returns how many arguments that took; 0: it is not that option. */
static int main_long(main_options *o, char **argv, const char *name, uint64_t min, uint64_t max, uint64_t *out) {
    size_t n = strlen(name);
    if (strncmp(argv[0], name, n) != 0 || (argv[0][n] != 0 && argv[0][n] != '=')) return 0;
    bool joined = argv[0][n] == '=';
    if (!main_number(joined ? argv[0] + n + 1 : argv[1], max, out) || *out < min) {
        o->bad = argv[0];
        o->wants = max == 64 ? "a number from 1 to 64" : "a whole number from 0 to 18446744073709551615";
    }
    return joined ? 1 : 2;
}

/* The option at argv[0]. Returns how many arguments it takes. */
static int main_option(main_options *o, char **argv) {
    const char *a = argv[0];
    uint64_t n;
    int taken;
    if (strcmp(a, "-i") == 0) return o->interactive = true;
    if (strcmp(a, "-v") == 0 || strcmp(a, "--version") == 0) return o->version = true;
    if (strcmp(a, "-h") == 0 || strcmp(a, "--help") == 0) return o->help = true;
    if ((taken = main_long(o, argv, "--threads", 1, 64, &n)) > 0) {
        o->config.threads = (int)n;
        return taken;
    }
    if ((taken = main_long(o, argv, "--seed", 0, UINT64_MAX, &n)) > 0) {
        o->config.seed = n;
        return taken;
    }
    if (a[1] == 'e' || a[1] == 'l') {
        o->stat |= a[1] == 'e';
        if (a[2]) return 1;
        if (argv[1] && argv[1][0] != '-') return 2;
        o->wants = a[1] == 'e' ? "statements" : "a module's name";
    }
    o->bad = a;
    return 1;
}

static main_options main_read_options(int argc, char **argv) {
    main_options o = {.script = argc};
    gr_config_init(&o.config);
    int i = 1;
    while (i < argc && !o.bad && argv[i][0] == '-' && argv[i][1] != 0) {
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        i += main_option(&o, argv + i);
    }
    o.script = i < argc ? i : argc;
    return o;
}

/* -e and -l, in their order; everything was checked before. */
static bool main_run_options(lua_State *L, char **argv, int script) {
    for (int i = 1; i < script; i++) {
        char option = argv[i][1];
        if (strcmp(argv[i], "--threads") == 0 || strcmp(argv[i], "--seed") == 0) i++;
        if (option != 'e' && option != 'l') continue;
        char *text = argv[i][2] ? argv[i] + 2 : argv[++i];
        int status = option == 'l' ? main_library(L, text)
                                   : main_chunk(L, luaL_loadbuffer(L, text, strlen(text), "=(command line)"));
        if (status != LUA_OK) return false;
    }
    return true;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

typedef struct main_args {
    int argc;
    char **argv;
    const main_options *options;
    gr_ctx *ctx;
} main_args;

/* Everything in the Lua state; protected. Returns whether all went well. */
static int main_body(lua_State *L) {
    const main_args *m = lua_touserdata(L, 1);
    const main_options *o = m->options;
    bool terminal = isatty(STDIN_FILENO), script = o->script < m->argc, ok = true;
    bool nothing = !script && !o->stat && !o->version && !o->interactive;
    luaL_checkversion(L);
    luaL_openlibs(L);
    lua_gc(L, LUA_GCGEN, 0, 0);
    main_arg_table(L, m->argv, m->argc, o->script);
    lgr_open_modules(L, m->ctx);
    main_signal.stop = lgr_stop_open(L, false);
    main_signal.thread = pthread_self();
    main_set_signal(main_interrupt);
    if (o->version || o->interactive || (nothing && terminal)) main_version(L);
    ok = main_run_options(L, m->argv, o->script) && ok;
    if (ok && script) ok = main_script(L, m->argv, m->argc, o->script) == LUA_OK;
    if (ok && nothing && !terminal) ok = main_chunk(L, luaL_loadfile(L, NULL)) == LUA_OK;
    if (ok && (o->interactive || (nothing && terminal))) {
        lgr_stop_clear(main_signal.stop, L);
        ok = main_run_repl(L) == LUA_OK;
    }
    main_set_signal(SIG_DFL);
    lua_pushinteger(L, ok ? 0 : lgr_stop_clear(main_signal.stop, L) ? 130 : 1);
    return 1;
}

static int main_run(lua_State *L, main_args *m) {
    lua_pushcfunction(L, main_body);
    lua_pushlightuserdata(L, m);
    int status = main_report(L, lua_pcall(L, 1, 1, 0));
    return status == LUA_OK ? (int)lua_tointeger(L, -1) : EXIT_FAILURE;
}

/* warn(...), as lua has it: off until warn("@on"); a warning comes in pieces. */
typedef struct main_warning { bool on, inside; } main_warning;

static void main_warn(void *ud, const char *text, int more) {
    main_warning *w = ud;
    if (!w->inside && !more && *text == '@') {
        if (strcmp(text, "@on") == 0) w->on = true;
        if (strcmp(text, "@off") == 0) w->on = false;
        return;
    }
    if (w->on) fprintf(stderr, "%s%s%s", w->inside ? "" : "Lua warning: ", text, more ? "" : "\n");
    w->inside = more != 0;
}

int main(int argc, char **argv) {
    main_options options = main_read_options(argc, argv);
    main_args m = {.argc = argc, .argv = argv, .options = &options};
    if (options.bad) {
        if (options.wants) fprintf(stderr, "gradrun: option '%s' wants %s\n", options.bad, options.wants);
        else fprintf(stderr, "gradrun: there is no option '%s'\n", options.bad);
        main_usage(stderr);
        return EXIT_FAILURE;
    }
    if (options.help) {
        main_usage(stdout);
        return EXIT_SUCCESS;
    }
    gr_status s = gr_ctx_new(&options.config, &m.ctx);
    if (s != GR_OK) {
        const char *isa = getenv("GRADRUN_ISA");
        if (s == GR_ERR_ARG && isa) fprintf(stderr, "gradrun: GRADRUN_ISA=%s: this CPU has no such set\n", isa);
        else main_message(gr_status_str(s));
        return EXIT_FAILURE;
    }
    lgr_pool pool = {0};
    main_warning warning = {0};
    lua_State *L = lua_newstate(lgr_pool_alloc, &pool);
    if (!L) {
        main_message("not enough memory for a Lua state");
        return EXIT_FAILURE;
    }
    lua_setwarnf(L, main_warn, &warning);
    int code = main_run(L, &m);
    lgr_close(L);
    lgr_pool_free(&pool);
    gr_ctx_free(m.ctx);
    return code;
}
