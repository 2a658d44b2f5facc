#!/bin/sh
# Fetch a Debian source package from apt's own mirrors, check it, and unpack it in /work/source.
#
# usage: fetch.sh PACKAGE FILE=SHA256...
#   PACKAGE  the source package's name
#   FILE     one of its files; one of them is the .dsc
set -eu
package=$1
shift
mkdir -p /work/files
cd /work/files
# shellcheck disable=SC2016 # apt's own variable
mirrors=$(apt-get indextargets --format '$(REPO_URI)' | sort -u)
for each in "$@"; do
    file=${each%%=*}
    for mirror in $mirrors; do
        address=${mirror%/}/pool/main/$(echo "$package" | cut -c1)/$package/$(echo "$file" | sed 's/+/%2b/g')
        if /usr/lib/apt/apt-helper download-file "$address" "$file" "SHA256:${each#*=}"; then break; fi
    done
    if [ ! -s "$file" ]; then
        echo "crossjit: no mirror has $file with the digest that is expected; a snapshot of Debian may have it:" \
            "set CROSSJIT_SNAPSHOT and CROSSJIT_SNAPSHOT_MIRROR" >&2
        exit 1
    fi
done
dpkg-source --no-check --extract ./*.dsc /work/source
rm -rf /work/files
