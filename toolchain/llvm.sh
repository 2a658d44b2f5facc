#!/bin/sh
# Stands for clang and LLVM's readers while CPython makes the JIT's stencils: some 700 times the same four programs, whose
# output is the same for the same input. Under every name it runs the real program of that name, from CROSSJIT_LLVM,
# unless CROSSJIT_CACHE has what that would print and write.
#
# A key is made of the arguments, the input file, the toolchain (CROSSJIT_TOOLCHAIN) and, for C, all headers of the
# source (a digest that cache.py has written). CPython works in a folder with a random name: it is taken out of the
# arguments for the key and out of the output for keeping, and put back. What fails is never kept.
tool=${0##*/}
case $tool in *-[0-9]*) real=$CROSSJIT_LLVM/bin/${tool%-*} ;; *) real=$CROSSJIT_LLVM/bin/$tool ;; esac

for input; do :; done # the last argument
output='' before=''
for argument; do
    [ "$before" != -o ] || output=$argument
    case $argument in *.c | *.s | *.ll) [ "$before" = -o ] || input=$argument ;; esac
    before=$argument
done

headers=/dev/null
case $input in
    *.c) headers=$CROSSJIT_HEADERS ;;
    *.s | *.ll | *.o) ;;
    *) exec "$real" "$@" ;;
esac
if [ -z "${CROSSJIT_CACHE:-}" ] || [ ! -r "$headers" ] || [ ! -r "$input" ]; then
    exec "$real" "$@"
fi

folder=${input%/*}
[ "$folder" != "$input" ] || folder=$PWD
key=$({
    printf '%s\n' "$tool" "$CROSSJIT_TOOLCHAIN" "$@" | sed 's|/tmp/tmp[a-z0-9_]*|@FOLDER@|g'
    cat "$headers" "$input"
} | sha256sum)
key=${key%% *}
rest=${key#??}
kept=$CROSSJIT_CACHE/llvm/${key%"$rest"}/$rest

if [ -z "$output" ]; then
    if [ -r "$kept" ]; then
        echo hit >>"$CROSSJIT_CACHE_LOG"
        exec sed "s|@FOLDER@|$folder|g" "$kept"
    fi
    new=$kept.$$
    mkdir -p "${kept%/*}"
    "$real" "$@" >"$new" || { status=$? && cat "$new" && rm -f "$new" && exit $status; }
    cat "$new"
    sed "s|$folder|@FOLDER@|g" "$new" >"$new.kept" && mv "$new.kept" "$kept"
    rm -f "$new"
else
    if [ -r "$kept" ]; then
        echo hit >>"$CROSSJIT_CACHE_LOG"
        exec cp "$kept" "$output"
    fi
    "$real" "$@" || exit
    # what names the folder is not the same the next time: assembly does, where a version maps no prefixes
    if ! grep -qF "$folder" "$output"; then
        mkdir -p "${kept%/*}"
        cp "$output" "$kept.$$" && mv "$kept.$$" "$kept"
    fi
fi
echo miss >>"$CROSSJIT_CACHE_LOG"
