#!/bin/bash
# Fetches from Debian sid what a program for arm64 is built of, into a cache, and prints its folder: sysroot (the C and
# C++ libraries and their headers; in usr/lib/swift_static those of Swift, with the interfaces of their modules), busybox,
# release (the version of that Swift). It stays there until the folder is removed.
set -eu
# shellcheck source=Tests/Kernels/debian.sh
. "$(dirname "$0")/debian.sh"
folder=$cache/swift-arm64
unless_cached "$folder"
use_suite sid arm64
release=$(apt-cache "${apt[@]}" show swiftlang 2>/dev/null | sed -n 's/^Version: //p' | head -1)
[ -n "$release" ] || { echo "sid has no swiftlang for arm64" >&2; exit 1; }
# Debian's name of the newest gcc is part of the names of its libraries.
gcc=$(apt-cache "${apt[@]}" pkgnames libstdc++- | sed -n 's/^libstdc++-\([0-9]*\)-dev$/\1/p' | sort -n | tail -1)
mkdir -p "$work/new/sysroot/usr/lib"
# Where linker scripts look for libraries.
ln -s usr/lib "$work/new/sysroot/lib"

for package in libc6 libc6-dev linux-libc-dev "libgcc-$gcc-dev" "libstdc++-$gcc-dev"; do
    deb=$(download "$package")
    dpkg-deb --fsys-tarfile "$deb" |
        tar -x -C "$work/new/sysroot" --wildcards --exclude='./usr/share*' --exclude='./usr/libexec*' './usr/*'
    rm "$deb"
done
deb=$(download busybox-static)
dpkg-deb --fsys-tarfile "$deb" | tar -x -O ./usr/bin/busybox >"$work/new/busybox"
chmod +x "$work/new/busybox"
rm "$deb"
# A module in binary form is for the compiler that made it. The interfaces are text, and for each newer one. Foundation has
# none. 500 MB, of which 40 are needed.
deb=$(download swiftlang)
dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/new/sysroot/usr/lib" --strip-components=5 --wildcards \
    --exclude='*/aarch64*.swift[dm]o*' --exclude='*Foundation*' --exclude='*_foundation_unicode*' \
    --exclude='*/swift_static/clang' --exclude='*/swift_static/shims*' --exclude='*/swift_static/embedded*' \
    './usr/libexec/swift/lib/swift_static/*'
rm "$deb"
for file in sysroot/usr/lib/aarch64-linux-gnu/libc.a sysroot/usr/include/linux/bpf.h busybox \
    "sysroot/usr/lib/gcc/aarch64-linux-gnu/$gcc/libgcc.a" "sysroot/usr/lib/gcc/aarch64-linux-gnu/$gcc/libstdc++.a" \
    sysroot/usr/lib/swift_static/linux/libswiftCore.a sysroot/usr/lib/swift_static/linux/aarch64/swiftrt.o \
    sysroot/usr/lib/swift_static/linux/Swift.swiftmodule/aarch64-unknown-linux-gnu.swiftinterface; do
    [ -s "$work/new/$file" ] || { echo "sid's packages have no $file any more" >&2; exit 1; }
done
keep "$folder" "$release"
