#!/bin/sh
# A wrapper for the compilers, installed under their names: runs the real one through ccache, or directly without a
# cache.
#
# On a miss, ccache preprocesses the source and then compiles it, which preprocesses it again. Keyed by the preprocessed
# text, an object can be reused when an unused macro differs: nearly all objects of `jit` are reused for `interp`, and
# many for `nojit`. For a small source, this is hardly worth the time. So there ccache uses its depend mode, with the
# headers that the compiler lists in an otherwise unused file beside the object. The object has the same bytes.
#
# -MMD does not list system headers. This is correct because ccache's key covers the image and all its packages
# (CCACHE_COMPILERCHECK), unless a command has other folders of system headers. An older ccache also misses files that
# assembly includes by .incbin, which CPython does not use.
compiler=/usr/bin/${0##*/}
own=$CROSSJIT_LLVM/bin/${0##*/} # of a machine that is its own toolchain, and has its clang elsewhere
[ -x "$compiler" ] || [ ! -x "$own" ] || compiler=$own

# If clang compiles CPython itself, the stencils' clang may be called by the same name.
case " $* " in
    *' -D_JIT_OPCODE='*) exec "${0%/*}/../../llvm/bin/${0##*/}" "$@" ;;
esac
command -v ccache >/dev/null || CCACHE_DISABLE=1 # a machine that is its own toolchain may lack it
[ -z "$CCACHE_DISABLE" ] || exec "$compiler" "$@"

small=16384 # bytes; above this, later variants lose more time than the first one saves
compiles='' source=''
for word; do
    case $word in
        -c) compiles=1 ;;
        # lists headers itself, does not compile, has other system headers, or hides its arguments
        -M* | -E | -S | -i* | -B* | --sysroot* | -Wp,* | -Xpreprocessor | @*) source='' && break ;;
        /dev/null) source='' && break ;; # no file can be written beside it
        -*) ;;
        *.c | *.cc | *.cpp | *.cxx)
            [ -z "$source" ] || { source='' && break; }
            source=$word
            ;;
    esac
done

# starting wc takes a millisecond, but the shell has no way to get a file's size
if [ "$compiles" ] && [ -f "$source" ] && [ "$(wc -c <"$source")" -lt "$small" ]; then
    export CCACHE_DEPEND=1
    exec ccache "$compiler" -MMD "$@"
fi
exec ccache "$compiler" "$@"
