#!/bin/sh
# Unpack packages of any architecture into a root file system in which nothing was ever run, and do by hand what
# the packages' own scripts would have done.
#
# usage: extract.sh ARCHITECTURE ACCOUNT FOLDER PACKAGE...
#   ARCHITECTURE  Debian's name, such as arm64
#   RELEASE       (in the environment) the mirror's Release files, as release.sh prints them; see update.sh
#   LIBRARY_CACHE_FLAGS  (in the environment) for an architecture that is not the host's; see ldcache.pl
#   ACCOUNT       the unprivileged user to make, with uid 1000 and a home
set -eu
here=$(dirname "$0")
architecture=$1 account=$2 root=$3
shift 3
packages=$(echo "$@" | tr ' ' ',')
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")

# The mirrors are those of the base image.
set --
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    if [ -s "$list" ]; then set -- "$@" "$list"; fi
done

# Mounting is not allowed in an image build and not needed to unpack: mmdebstrap warns and goes on. Whether the
# architecture can be emulated does not matter either.
mkdir -p "$root"
packages_list=$(mktemp) release_line=$(mktemp)
export here packages_list release_line
valid=true
case $RELEASE in *' expired') valid=false ;; esac
# shellcheck disable=SC2016 # the hook's own shell expands them
mmdebstrap --mode=root --variant=extract --format=directory --arch="$architecture" --include="$packages" \
    --skip=check/qemu,check/empty \
    --aptopt="Acquire::Check-Valid-Until \"$valid\"" \
    --extract-hook='sh "$here/release.sh" "$1/var/lib/apt/lists" >"$release_line"' \
    --extract-hook='for deb in "$1"/var/cache/apt/archives/*.deb; do
        dpkg-deb --show --showformat="\${Package} \${Architecture} \${Version}\n" "$deb" >>"$packages_list"
    done' \
    "$suite" "$root" "$@"
found=$(cat "$release_line")
if [ "$found" != "${RELEASE% expired}" ]; then
    echo "crossjit: the mirror has other Release files by now: $found" >&2
    exit 1
fi
mkdir -p "$root/usr/share/crossjit"
echo "$RELEASE" >"$root/usr/share/crossjit/release"
LC_ALL=C sort "$packages_list" >"$root/usr/share/crossjit/packages"

cd "$root"
rm -rf dev/* etc/resolv.conf etc/hostname etc/fstab etc/apt var/lib/apt var/cache/apt var/log/apt
rm -rf usr/share/info usr/share/lintian usr/share/locale usr/share/man
find usr/share/doc ! -type d ! -name copyright -delete
find usr/share/doc -depth -type d -empty -delete
mkdir -p proc sys run tmp var/tmp home root etc/ssl
chmod 1777 tmp var/tmp
chmod 700 root

# base-passwd
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
echo "$account:x:1000:1000::/home/$account:/bin/bash" >>etc/passwd
echo "$account:x:1000:" >>etc/group
sed 's/:.*/:*:20000:0:99999:7:::/' etc/passwd >etc/shadow
sed 's/:.*/:*::/' etc/group >etc/gshadow
chown root:shadow etc/shadow etc/gshadow
chmod 640 etc/shadow etc/gshadow
mkdir -p "home/$account"
chown 1000:1000 "home/$account"

# base-files
[ -e etc/nsswitch.conf ] || cp /etc/nsswitch.conf etc/
[ -e etc/host.conf ] || echo 'multi on' >etc/host.conf
ln -sfn /run var/run

# tzdata
[ -e etc/localtime ] || ln -s /usr/share/zoneinfo/Etc/UTC etc/localtime
[ -e etc/timezone ] || echo Etc/UTC >etc/timezone

# ca-certificates: the bundle is the same for every architecture, and the host's has been made already
rm -rf etc/ssl/certs usr/share/ca-certificates
cp -a /etc/ssl/certs etc/ssl/
cp -a /usr/share/ca-certificates usr/share/

# openssl: where libssl looks for certificates
mkdir -p usr/lib/ssl
ln -sfn /etc/ssl/certs usr/lib/ssl/certs

# alternatives and diversions: name, and the program that it stands for
while read -r name program; do
    if [ ! -e "usr/bin/$name" ] && [ -e "usr/bin/$program" ]; then ln -s "$program" "usr/bin/$name"; fi
done <<'LINKS'
sh dash
awk mawk
which which.debianutils
cc gcc
c++ g++
LINKS

if [ "$architecture" = "$(dpkg --print-architecture)" ]; then
    ldconfig -r .
else
    perl "$here/ldcache.pl" "$LIBRARY_CACHE_FLAGS" .
fi
rm -rf var/cache/ldconfig
