#!/bin/bash
# Fetches a kernel of Debian and two of its modules into a cache, and prints its folder: vmlinuz, inet_diag.ko,
# tcp_diag.ko, release. A kernel stays there until the folder is removed. It uses an apt state of its own, and changes
# nothing of the machine.
# Usage: fetch.sh SUITE [ARCHITECTURE]; SUITE is bullseye (5.10), bookworm (6.1), trixie (6.12) or sid (the newest).
set -eu
suite=$1 architecture=${2:-amd64}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sockalive/kernels
folder=$cache/$suite-$architecture
[ ! -e "$folder/release" ] || { echo "$folder"; exit 0; }

mkdir -p "$cache"
# One at a time: other tests may want the same kernel.
exec 9>"$cache/lock"
flock 9
[ ! -e "$folder/release" ] || { echo "$folder"; exit 0; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || { echo "there is no $keyring (package debian-archive-keyring)" >&2; exit 1; }
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
# The machine's own mirror, if it is one of Debian.
mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -1) ||
    true
mkdir -p "$work/lists/partial" "$work/archives/partial"
: >"$work/status"
echo "deb [signed-by=$keyring] ${mirror:-http://deb.debian.org/debian} $suite main" >"$work/sources"
apt=(-qq -o "Dir::State=$work" -o "Dir::State::status=$work/status" -o "Dir::State::lists=$work/lists"
    -o "Dir::Etc::sourcelist=$work/sources" -o Dir::Etc::sourceparts=- -o "Dir::Cache=$work"
    -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o Acquire::Check-Valid-Until=false
    -o Acquire::Languages=none -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update >&2

# The newest image. From 7.x on it is empty, and depends on packages with the kernel and with its modules.
meta=linux-image-amd64
[ "$architecture" = amd64 ] || meta=linux-image-arm64
depends() { apt-cache "${apt[@]}" depends "$1" | sed -n 's/^ *Depends: \(linux-\(image\|binary\|modules\)-[0-9].*\)$/\1/p'; }
packages=$(depends "$meta")
[ -n "$packages" ] || { echo "$suite has no $meta" >&2; exit 1; }
for package in $packages; do packages="$packages $(depends "$package")"; done
cd "$work"
for package in $packages; do
    apt-get "${apt[@]}" download "$package" >&2
    deb=$(echo "${package}"_*.deb)
    dpkg-deb --fsys-tarfile "$deb" | tar -x --wildcards '*/vmlinu[xz]*' '*/kernel/net/ipv4/inet_diag.ko*' \
        '*/kernel/net/ipv4/tcp_diag.ko*' 2>/dev/null || true # not each package has all
    rm "$deb"
done
mkdir new
image=$(find . -name 'vmlinu[xz]*' | head -1)
release=$(find . -path '*/modules/*' -name tcp_diag.ko\* | sed 's,.*/modules/\([^/]*\)/.*,\1,' | head -1)
if [ -z "$image" ] || [ -z "$release" ]; then
    echo "no image or no modules in $(echo "$packages" | xargs)" >&2
    exit 1
fi
cp "$image" new/vmlinuz
for module in inet_diag tcp_diag; do
    file=$(find . -name "$module.ko*" | head -1)
    [ -n "$file" ] || { echo "no $module in $packages" >&2; exit 1; }
    case $file in
    *.xz) xz -dc "$file" >new/$module.ko ;;
    *.zst) zstd -qdc "$file" >new/$module.ko ;;
    *) cp "$file" new/$module.ko ;;
    esac
done
echo "$release" >new/release
rm -rf "$folder"
mv new "$folder"
echo "$folder"
