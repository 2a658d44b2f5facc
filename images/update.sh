#!/bin/sh
# Bring apt's lists up to date, and write down by which Release files they are. A Release that is older than it says it
# may be is refused first; the mirror may have no other, so it is taken then, and `expired` stands behind the digests.
#
# usage: update.sh FILE [EXPECTED [OPTION...]]
#   FILE      where to write that line
#   EXPECTED  the line that it has to be, lest the mirror has moved on; nothing if any will do
#   OPTION    more options for apt-get
set -eu
file=$1 expected=${2-}
[ $# -lt 2 ] || shift
shift

update() { LC_ALL=C apt-get -q -o APT::Update::Error-Mode=any "$@" update; }

said=$(mktemp)
expired=
if update "$@" >"$said" 2>&1; then
    cat "$said"
else
    cat "$said" >&2
    grep -q '^E: Release file for .* is expired' "$said" || exit 100
    echo 'Acquire::Check-Valid-Until "false";' >/etc/apt/apt.conf.d/90crossjit
    update "$@"
    expired=' expired'
fi
rm "$said"
found=$(sh "$(dirname "$0")/release.sh" /var/lib/apt/lists)$expired
if [ -n "$expected" ] && [ "$found" != "$expected" ]; then
    echo "crossjit: the mirror has other Release files by now: $found" >&2
    exit 1
fi
mkdir -p "$(dirname "$file")"
echo "$found" >"$file"
