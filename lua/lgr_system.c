/* What stock Lua cannot ask the system: a wall clock, the terminal, memory use of the process, folders. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lgr.h"

/* gr.clock() -> seconds of a clock that never goes back */
static int system_clock(lua_State *L) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    lua_pushnumber(L, (double)t.tv_sec + (double)t.tv_nsec * 1e-9);
    return 1;
}

/* gr.terminal() -> columns of the terminal stderr is, or nil */
static int system_terminal(lua_State *L) {
    struct winsize w;
    if (!isatty(2)) return 0;
    lua_pushinteger(L, ioctl(2, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80);
    return 1;
}

/* gr.peak_rss() -> bytes of resident memory the process had at most */
static int system_peak_rss(lua_State *L) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    lua_pushinteger(L, (lua_Integer)u.ru_maxrss * 1024);
    return 1;
}

/* gr.make_directory(path) -> true, also where it is there already; or nil and why not */
static int system_make_directory(lua_State *L) {
    const char *path = lgr_check_path(L, 1);
    struct stat st;
    if (mkdir(path, 0777) != 0 && !(errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))) {
        const char *why = strerror(errno);
        lua_pushnil(L);
        lua_pushfstring(L, "%s: cannot make this folder: %s", path, why);
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

static const luaL_Reg system_functions[] = {
    {"clock", system_clock}, {"terminal", system_terminal}, {"peak_rss", system_peak_rss},
    {"make_directory", system_make_directory}, {0}};

void lgr_open_system(lua_State *L, lgr_state *st) { lgr_set_functions(L, st, system_functions); }
