#!/bin/sh
# Stands for the compilers, under their names: runs the real one through ccache, or by itself where there is no cache.
#
# What ccache has no answer for it preprocesses and then compiles, which preprocesses it once more. Found by what the
# first comes to, an object serves wherever a macro is other and not used: nearly all that was compiled for `jit` serves
# `interp`, and much of it `nojit`. For a small source that is hardly worth the time. So there ccache goes by the
# headers that the compiler names (its depend mode; they are written beside the object, where nobody looks for them).
# The object has the same bytes.
#
# With -MMD the system's headers are not named. That is right because ccache's key names the image and all its packages
# (CCACHE_COMPILERCHECK), as long as a command has no other folders for the system's. Nor does an older ccache then see
# what assembly takes in by .incbin, which nothing of CPython's does.
compiler=/usr/bin/${0##*/}

# Where CPython itself is compiled by clang, what stands for the stencils' clang may be called by that name, too.
case " $* " in
    *' -D_JIT_OPCODE='*) exec "${0%/*}/../../llvm/bin/${0##*/}" "$@" ;;
esac
[ -z "$CCACHE_DISABLE" ] || exec "$compiler" "$@"

small=16384 # bytes; with more, another variant loses more than the first one gains
compiles='' source=''
for word; do
    case $word in
        -c) compiles=1 ;;
        # names headers itself, does not compile, has other system headers, or hides what it has
        -M* | -E | -S | -i* | -B* | --sysroot* | -Wp,* | -Xpreprocessor | @*) source='' && break ;;
        /dev/null) source='' && break ;; # there can be nothing beside it
        -*) ;;
        *.c | *.cc | *.cpp | *.cxx)
            [ -z "$source" ] || { source='' && break; }
            source=$word
            ;;
    esac
done

# wc is a process, of one millisecond; the shell itself cannot tell a size
if [ "$compiles" ] && [ -f "$source" ] && [ "$(wc -c <"$source")" -lt "$small" ]; then
    export CCACHE_DEPEND=1
    exec ccache "$compiler" -MMD "$@"
fi
exec ccache "$compiler" "$@"
