#!/bin/sh
# Shows that a bare Debian needs nothing but git and a Python: bootstraps one into a privileged container, clones this
# repository into it and runs commands there. Nothing of it is left afterwards, neither container nor volume nor image.
set -eu

usage() {
    cat <<'END'
usage: tools/bare-debian.sh [option ...] [command ...]

Each command is one shell line, run in the clone's folder; the first that fails ends it, with its exit status.
Without any: './inv validate --arch aarch64' and './inv test'.

  --suite NAME     the Debian to bootstrap (default: bookworm)
  --user NAME      run as this new user, who has sudo without a password (default: root)
  --uncommitted    clone the working tree as it is now, instead of HEAD
  --keep           leave the container and its volume, and say how to enter it
  -h, --help       this

Handed in from this machine: its CA certificates, what apt and pip are configured with, proxies, CROSSJIT_JOBS, and the
folders that CROSSJIT_SOURCE_MIRROR names. binfmt_misc is the kernel's, so handlers that this machine has registered are
seen inside, too: to see QEMU registered from nothing, use a machine that has none.
END
}

suite=bookworm user=root uncommitted='' keep=''
while [ $# -gt 0 ]; do
    case $1 in
        --suite) suite=${2:?--suite wants a name} && shift 2 ;;
        --user) user=${2:?--user wants a name} && shift 2 ;;
        --uncommitted) uncommitted=yes && shift ;;
        --keep) keep=yes && shift ;;
        -h | --help) usage && exit ;;
        --) shift && break ;;
        -*) usage >&2 && exit 2 ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || set -- './inv validate --arch aarch64' './inv test'

for program in docker git mmdebstrap; do
    command -v "$program" >/dev/null || { echo "bare-debian: $program is not here" >&2 && exit 3; }
done

repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
name=crossjit-bare-$suite-$$
scratch=$(mktemp -d)

say() { printf '\n== %s\n' "$*" >&2; }

leave() {
    status=$?
    trap - EXIT
    if [ -n "$keep" ]; then
        say "left: docker exec -it $name bash; to remove it: docker rm -fv $name; docker volume rm $name; docker rmi $name"
    else
        docker rm -fv "$name" >/dev/null 2>&1 || :
        docker volume rm -f "$name" >/dev/null 2>&1 || :
        docker rmi -f "$name" >/dev/null 2>&1 || :
    fi
    rm -rf "$scratch"
    exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say "bootstrapping $suite"
# apt's own settings (proxies, date checks) go into the bootstrapped system, too; so does the mirror, where it is Debian's.
apt-config dump 2>/dev/null | grep -E '^Acquire::(Check-|https?::|Retries)' >"$scratch/apt.conf" || :
mirror=''
if grep -qx 'ID=debian' /etc/os-release; then
    # shellcheck disable=SC2016 # apt expands these, not the shell
    mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
        awk '$2 == "main" { print $1; exit }')
fi
# Without a mirror to name, mmdebstrap knows Debian's own. `-` is standard input, empty here, which it would wait for.
mmdebstrap --quiet --variant=minbase --aptopt="$scratch/apt.conf" \
    --include=ca-certificates,git,python3,python3-venv,sudo \
    "$suite" "$scratch/root.tar" ${mirror:+"deb $mirror $suite main"} </dev/null
docker import "$scratch/root.tar" "$name" >/dev/null
rm "$scratch/root.tar"

say "packing the repository"
git clone --quiet --no-checkout --shared "$repository" "$scratch/clone"
if [ -n "$uncommitted" ]; then
    git -C "$scratch/clone" --work-tree "$repository" add --all
    git -C "$scratch/clone" --work-tree "$repository" -c user.name=bare-debian -c user.email=bare@debian.invalid \
        commit --quiet --allow-empty --no-verify --message 'The working tree, uncommitted'
elif [ -n "$(git -C "$repository" status --porcelain)" ]; then
    echo "bare-debian: the working tree has changes that HEAD lacks; --uncommitted takes them along" >&2
fi
git -C "$scratch/clone" bundle create --quiet "$scratch/repository.bundle" HEAD

# Variables go in by name, so that no value shows in a process list; files that they name go in under the same path.
set_names=$(env | sed -n 's/^\(PIP_[A-Z_]*\|[A-Za-z]*_[Pp][Rr][Oo][Xx][Yy]\|SSL_CERT_FILE\|REQUESTS_CA_BUNDLE\|CURL_CA_BUNDLE\|GIT_SSL_CAINFO\|CROSSJIT_JOBS\)=.*/\1/p' | sort -u)
files=$(find /etc/pip.conf /etc/ssl/certs/ca-certificates.crt -maxdepth 0 2>/dev/null || :)
names=''
for variable in $set_names; do
    value=$(printenv "$variable")
    [ ! -d "$value" ] || continue # a folder of wheels, say: not there inside
    names="$names $variable"
    [ ! -f "$value" ] || files="$files
$value"
done

run_options=''
mirrors=''
for place in ${CROSSJIT_SOURCE_MIRROR:-}; do
    mirrors="$mirrors $place"
    [ ! -d "$place" ] || run_options="$run_options --volume $place:$place:ro"
done

say "starting $name"
# shellcheck disable=SC2086 # options are words
docker run --detach --init --privileged --name "$name" --hostname "bare-$suite" \
    --volume "$name:/var/lib/docker" $run_options "$name" sleep infinity >/dev/null

printf '%s\n' "$files" | sort -u | while read -r file; do
    [ -n "$file" ] || continue
    docker exec "$name" mkdir -p "$(dirname "$file")"
    docker exec --interactive "$name" sh -c 'cat > "$1" && chmod 644 "$1"' sh "$file" <"$file"
done
docker exec --interactive "$name" sh -c 'cat > /tmp/repository.bundle' <"$scratch/repository.bundle"

home=/root
if [ "$user" != root ]; then
    docker exec "$name" useradd --create-home --shell /bin/bash "$user"
    docker exec --interactive "$name" sh -c 'cat > /etc/sudoers.d/bare && chmod 440 /etc/sudoers.d/bare' <<END
$user ALL=(ALL) NOPASSWD: ALL
END
    home=/home/$user
fi
for config in "${XDG_CONFIG_HOME:-${HOME:-/nonexistent}/.config}/pip/pip.conf" "${HOME:-/nonexistent}/.pip/pip.conf"; do
    [ -f "$config" ] || continue
    docker exec --user "$user" "$name" mkdir -p "$home/.config/pip"
    docker exec --user "$user" --interactive "$name" sh -c 'cat > "$1"' sh "$home/.config/pip/pip.conf" <"$config"
    break
done

inside() { # folder, shell line
    folder=$1
    shift
    options="--user $user --workdir $folder --env HOME=$home --env USER=$user"
    for variable in $names; do options="$options --env $variable"; done
    [ -z "$mirrors" ] || set -- "export CROSSJIT_SOURCE_MIRROR='${mirrors# }'; $1"
    # shellcheck disable=SC2086 # options are words
    docker exec $options "$name" sh -c "$1"
}

say "$user@$name: git clone"
inside "$home" 'git -c advice.detachedHead=false clone --quiet /tmp/repository.bundle crossjit && cd crossjit && git log -1 --format="%h %s"'
for line in "$@"; do
    say "$user@$name: $line"
    started=$(date +%s)
    status=0
    inside "$home/crossjit" "$line" || status=$?
    say "exit status $status after $(($(date +%s) - started)) s: $line"
    [ "$status" -eq 0 ] || exit "$status"
done
