#!/bin/bash
# Fetches a kernel of Debian and two of its modules into a cache, and prints its folder: vmlinuz, inet_diag.ko,
# tcp_diag.ko, release. A kernel stays there until the folder is removed.
# Usage: fetch.sh SUITE [ARCHITECTURE]; SUITE is bullseye (5.10), bookworm (6.1), trixie (6.12) or sid (the newest).
set -eu
# shellcheck source=Tests/Kernels/debian.sh
. "$(dirname "$0")/debian.sh"
suite=$1 architecture=${2:-amd64}
folder=$cache/kernels/$suite-$architecture
unless_cached "$folder"
use_suite "$suite" "$architecture"

# The newest image. From 7.x on it is empty, and depends on packages with the kernel and with its modules.
meta=linux-image-$architecture
depends() { apt-cache "${apt[@]}" depends "$1" | sed -n 's/^ *Depends: \(linux-\(image\|binary\|modules\)-[0-9].*\)$/\1/p'; }
packages=$(depends "$meta")
[ -n "$packages" ] || { echo "$suite has no $meta" >&2; exit 1; }
for package in $packages; do packages="$packages $(depends "$package")"; done
cd "$work"
for package in $packages; do
    deb=$(download "$package")
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
keep "$folder" "$release"
