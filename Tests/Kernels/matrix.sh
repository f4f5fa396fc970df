#!/bin/bash
# Boots kernels of Debian in qemu and runs sockalive on each of them: every kind of target and every method, list, probe
# and doctor; and after each the target's own word. Then targets with known values in all registers, under other models
# of processors. Where qemu or a kernel is not to be had, that is skipped, with the reason.
# Usage: matrix.sh SOCKALIVE [SUITE]…; SOCKALIVE is the static program. Without a SUITE all four are tried: bullseye (5.10),
# bookworm (6.1), trixie (6.12) and sid (the newest). MODELS=… are models of qemu -cpu; empty for none.
# ACCELERATION=kvm needs /dev/kvm, and tries the vector registers that qemu does not emulate (AVX-512, AMX).
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh
# shellcheck source=Tests/Kernels/boot.sh
. Tests/Kernels/boot.sh
sockalive=$(realpath "${1:?usage: matrix.sh SOCKALIVE [SUITE]...}")
shift
[ $# -gt 0 ] || set -- bullseye bookworm trixie sid
models=${MODELS-Haswell Skylake-Server SapphireRapids}
[ "$(uname -m)" = x86_64 ] || skip "the kernels are of x86-64"
install_missing qemu-system-x86 busybox-static cpio xz-utils zstd gcc libc6-dev debian-archive-keyring ||
    skip "qemu and busybox cannot be installed here"
install_missing gcc-multilib libc6-dev-x32 || true
file -b "$sockalive" 2>/dev/null | grep -q 'dynamically linked' && fail "$sockalive is not static"

root=$work/root
lay_out "$sockalive" "$(command -v busybox)"
strip "$root/sockalive"
# Victims of more kinds than the ordinary tests have.
Tests/Programs/build.sh "$work/programs"
flags='-std=gnu17 -O2 -Wall -Wextra -pthread'
# shellcheck disable=SC2086 # the flags are words
{
    gcc $flags -static Tests/Kernels/row.c -o "$root/row"
    for name in victim-odd victim-registers victim-sleeps; do
        gcc $flags -no-pie "Tests/Programs/$name/main.c" -o "$root/$name-64-nopie"
        for kind in 64 64-static 32 32-static; do
            [ ! -e "$work/programs/$name-$kind" ] || cp "$work/programs/$name-$kind" "$root/"
        done
        gcc $flags -mx32 -static "Tests/Programs/$name/main.c" -o "$root/$name-x32" 2>/dev/null || true
    done
}
[ -e "$root/victim-odd-32" ] || echo "no 32-bit rows: gcc makes no 32-bit programs here (gcc-multilib)"
[ -e "$root/victim-odd-x32" ] || echo "no x32 rows: gcc makes no x32 programs here (libc6-dev-x32)"
# What the dynamic ones load: "LIBRARY => PATH (ADDRESS)", and the loader itself.
for file in "$root"/victim-*; do ldd "$file" 2>/dev/null || true; done | grep -oE '/[^ ]+' | sort -u |
    while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
pack

# Emulated, unless ACCELERATION=kvm: a virtual machine inside of one may be slower than that, or not start.
machine=(qemu-system-x86_64 -accel "${ACCELERATION:-tcg}") append='console=ttyS0 no_timer_check syscall.x32=y'
processor=max
[ "${ACCELERATION:-tcg}" = tcg ] || processor=host
start_suites amd64 "$processor" "$@"
for model in $models; do
    [ -n "$last" ] || break
    if qemu-system-x86_64 -cpu help | grep -qw "$model"; then
        start "$model" "$last" "$model" registers
    else
        echo "skipped: this qemu has no -cpu $model"
    fi
done
print_rows
