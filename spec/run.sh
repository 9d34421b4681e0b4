#!/bin/sh
# Runs specs and test programs and counts: the last line is "N passed, N failed".
#
#   run.sh FILES    NAME.lua goes through busted in the gradrun under test; anything else is a program that
#                   writes TAP (cmocka's do when asked)
#
# GRADRUN_BUILD: where the build under test is. JOBS: how many at a time. LIMIT: seconds for each.
# Failed are: tests that say so, a program that ends by a signal or too late, that promises more tests than it
# runs, or that runs none. Exit code 1 if anything failed.
GRADRUN_BUILD=${GRADRUN_BUILD:-build}; LIMIT=${LIMIT:-280}; JOBS=${JOBS:-$(nproc)}
export GRADRUN_BUILD LIMIT
unset MAKEFLAGS MFLAGS MAKELEVEL # specs may run make themselves
out=$GRADRUN_BUILD/test

if [ "$1" = --one ]; then
    at=$out/$(basename "$2" .lua)
    start=$(date +%s)
    case $2 in
    *.lua) timeout -k 5 "$LIMIT" "$GRADRUN_BUILD/gradrun" spec/support/busted.lua "$2" ;;
    *) CMOCKA_MESSAGE_OUTPUT=TAP timeout -k 5 "$LIMIT" "$2" ;;
    esac > "$at.tap" 2> "$at.err" < /dev/null
    echo "$? $(($(date +%s) - start))" > "$at.rc"
    exit 0
fi

rm -rf "$out"; mkdir -p "$out"
printf '%s\n' "$@" | xargs -P "$JOBS" -n 1 sh "$0" --one

for f in "$@"; do
    at=$out/$(basename "$f" .lua)
    read -r code seconds < "$at.rc"
    awk -v name="$(basename "$f" .lua)" -v code="$code" -v seconds="$seconds" -v sum="$at.sum" '
        /^[ \t]*1\.\.[0-9]+/ { sub(/^[ \t]*1\.\./, ""); plan += $0; shown = 0; next }
        /^(not )?ok/ && /# SKIP/ { skipped++; shown = 0; next }
        /^ok/ { passed++; shown = 0; next }
        /^not ok/ { failed++; shown = 1 }
        shown { sub(/^not ok [0-9]+ - /, "FAILED "); print name ": " $0 > "/dev/stderr" }
        function crash(how) { crashed = 1; print name ": FAILED" how > "/dev/stderr" }
        END {
            if (code >= 124) crash(" to end by itself: " (code == 124 ? "time is up" : "exit code " code))
            else if (plan != passed + failed + skipped) crash(": " plan + 0 " tests announced, " passed + failed + skipped " run")
            else if (code != 0 && !failed) crash(": exit code " code)
            else if (!passed && !failed) crash(": nothing ran")
            printf "%s: %d passed, %d failed%s (%d s)\n", name, passed, failed + crashed, skipped ? ", " skipped " skipped" : "", seconds
            print passed + 0, failed + crashed > sum
        }' "$at.tap" 2> "$at.failures"
    if [ -s "$at.failures" ]; then tail -40 "$at.err" | sed 's/^/    /' >> "$at.failures"; fi
done
cat "$out"/*.failures # last, where one looks first
awk '{ p += $1; f += $2 } END { print p + 0 " passed, " f + 0 " failed"; exit f > 0 || p == 0 }' "$out"/*.sum
