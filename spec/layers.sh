#!/bin/sh
# Who may include whom, and what a library must not do (design 1), as TAP. Run from the top, after a build:
#   GRADRUN_BUILD=build spec/layers.sh
B=${GRADRUN_BUILD:-build}; CC=${CC:-cc}; CXX=${CXX:-c++}; LUAINC=${LUAINC:-/usr/include/lua5.4}
n=0 failed=0

# check NAME VIOLATIONS: one a line, none if all is well
check() {
    n=$((n + 1))
    if [ -z "$2" ]; then echo "ok $n - $1"; return; fi
    failed=$((failed + 1))
    echo "not ok $n - $1"; echo "$2" | sed 's/^/# /'
}

# edges FILES: "from to", both without their folders, for each #include of a header of ours
edges() { grep -H '#include "' "$@" | sed 's|^\(.*\):.*"\(.*\)".*|\1 \2|' | sed 's|^runtime/||; s|^lua/||'; }

kernels=$(ls runtime/ops/*.c runtime/optims/*.c runtime/clips/*.c)
core=$(find runtime -name '*.[ch]')

# ---- includes -------------------------------------------------------------------------------------------
check "headers include no one in a circle" "$(edges runtime/*.h | awk '
    { to[$1] = to[$1] " " $2 }
    function walk(h, path,    list, k, i) {
        if (index(path, " " h " ")) { print "a circle:" path h; return }
        if (h in done) return
        k = split(to[h], list, " ")
        for (i = 1; i <= k; i++) walk(list[i], path h " ")
        done[h] = 1
    }
    END { for (h in to) walk(h, " ") }')"
check "gradrun.h, ctx.h, shape.h, tensor.h, op.h: each only what stands before it" "$(
    edges runtime/gradrun.h runtime/ctx.h runtime/shape.h runtime/tensor.h runtime/op.h | awk '
        BEGIN { k = split("gradrun.h ctx.h shape.h tensor.h op.h", order, " "); for (i = 1; i <= k; i++) rank[order[i]] = i }
        ($2 in rank) && rank[$2] >= rank[$1]')"
check "an op, optimizer or clip knows no tape and no layer" "$(edges $kernels | grep -E ' (tape|hook|layer)\.h$')"
check "a layer composes ops: it sees no kernels and no tape" "$(
    edges runtime/layers/*.c | grep -vE ' (layer|op|terms|draw|random)\.h$')"
check "files are read into tensors and nothing else" "$(
    edges runtime/io/*.[ch] | grep -vE ' (ctx|shape|tensor|dict|gather|gradrun)\.h$| io/')"
check "only blas.c includes blis.h" "$(grep -l 'blis\.h' $core | grep -v '^runtime/blas\.c$')"
check "only safetensors.c and the binding's JSON include jansson.h" "$(
    grep -l 'jansson\.h' $core lua/*.[ch] | grep -vE '^(runtime/io/safetensors|lua/lgr_json)\.c$')"
check "the core sees no Lua" "$(grep -nE '#include *<(lua|lauxlib|lualib)\.h' $core)"
check "the binding sees gradrun.h and Lua only" "$(
    edges lua/*.[ch] | grep -vE ' (gradrun|lgr[a-z_]*)\.h$'; grep -nE '\bgri_' lua/*.[ch])"

# ---- headers alone --------------------------------------------------------------------------------------
alone() { # alone COMPILER-AND-FLAGS < header names
    while read -r h; do
        printf '#include "%s"\n' "$h" > "$B/alone.c"
        $1 -fsyntax-only "$B/alone.c" 2>&1 | head -3
    done
}
warn="-Wall -Wextra -Werror"
check "each header of the core compiles alone" "$(ls runtime/*.h runtime/io/*.h | sed 's|runtime/||' |
    alone "$CC -std=c11 -D_GNU_SOURCE -fopenmp-simd $warn -Wno-unused-function -Iruntime -I$B/gen")"
check "each header of the binding compiles alone" "$(ls lua/*.h | sed 's|lua/||' |
    alone "$CC -std=c11 -D_GNU_SOURCE $warn -Iruntime -Ilua -I$LUAINC")"
check "gradrun.h is C99" "$(echo gradrun.h | alone "$CC -std=c99 -pedantic $warn -Iruntime")"
if command -v "$CXX" > /dev/null; then
    check "gradrun.h is C++17" "$(echo gradrun.h | alone "$CXX -x c++ -std=c++17 -pedantic $warn -Iruntime")"
fi

# ---- what is in the archive -----------------------------------------------------------------------------
never='printf|fprintf|vprintf|vfprintf|dprintf|__[a-z]*printf_chk|puts|putchar|fputs|fputc|putc|perror|stdout|stderr'
never="$never|exit|_exit|_Exit|quick_exit|abort|__assert_fail|longjmp|_longjmp|siglongjmp|signal|sigaction"
never="$never|setlocale|rand|srand|random|lua_.*|luaL_.*"
case $SAN in *sanitize*) ;; *) # sanitizers bring their own
    check "the core never prints, exits, aborts or jumps, and holds no Lua" "$(
        nm -A "$B/libcore.a" 2> /dev/null | awk '$(NF-1) == "U" { print $NF, $1 }' | grep -E "^($never) ")"
    check "the core has no mutable globals" "$(nm -f sysv "$B/libcore.a" 2> /dev/null | awk -F'|' '
        $7 ~ /^(\.data|\.bss|\*COM\*)/ && $7 !~ /^\.data\.rel\.ro/ { print $1, $7 }')"
    # a shared function compiled for AVX might be the one the linker keeps, for every processor
    check "objects built for AVX define nothing but their kernels" "$(
        for f in "$B"/kernel/avx*/*/*.o; do
            nm -g --defined-only "$f" | awk -v f="$f" 'NF == 3 && $3 !~ /^gri_kernel_/ { print f, $2, $3 }'
        done)" ;;
esac

# ---- text -----------------------------------------------------------------------------------------------
check "no file has more than 1000 lines" "$(find Makefile README.md runtime lua scripts spec -type f \
    \( -name '*.[chS]' -o -name '*.lua' -o -name '*.py' -o -name '*.sh' -o -name '*.md' -o -name Makefile \) 2> /dev/null |
    grep -v '^spec/parity/[a-z]*\.lua$' | xargs wc -l | awk '$2 != "total" && $1 > 1000')"
check "nothing is put off" "$(grep -rnE '\b(TODO|FIXME|XXX)\b' --include='*.[ch]' --include='*.lua' runtime lua scripts)"
if command -v luacheck > /dev/null; then
    check "luacheck finds nothing" "$(luacheck -q --no-color lua scripts spec | grep -vE '^(Checking|Total|$)')"
fi

echo "1..$n"
[ $failed = 0 ]
