#!/bin/sh
# Print by which Release files apt's lists in a folder are: `suite=sha256` of each, in one line.
#
# usage: release.sh FOLDER
set -eu
for file in "$1"/*Release; do
    suite=${file##*_dists_}
    suite=${suite%_*Release}
    digest=$(sha256sum "$file")
    echo "$suite=${digest%% *}"
done | LC_ALL=C sort | paste -s -d ' '
