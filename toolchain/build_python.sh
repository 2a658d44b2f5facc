#!/bin/sh
# Stands for a cross build's own Python, under its name, while that is still being built: configure asks it for nothing
# but its version. What else it may come to be asked it cannot tell; then nothing is kept of what configure found.
version=${0##*/python}

case "$*" in
    "-c import sys; print(f'{sys.version_info.major}.{sys.version_info.minor}')") echo "$version" ;;
    -V) echo "Python $version" ;;
    *)
        echo "$*" >>"$CROSSJIT_UNANSWERED"
        exit 1
        ;;
esac
