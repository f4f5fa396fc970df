#!/bin/sh
# Compiles all small C programs of the tests into a folder. The targets of the injection have four kinds: -64,
# -64-static, -32 and -32-static. The last two need gcc-multilib and are left out without it.
# Usage: build.sh FOLDER
# shellcheck disable=SC2086 # the flags are words
set -eu
here=$(cd "$(dirname "$0")" && pwd)
torture=$here/../Torture
lab=$here/../Lab
out=$1
flags='-std=gnu17 -O2 -Wall -Wextra -Werror -pthread'
# Both kinds use the same <asm/…>. gcc-multilib links it to /usr/include, and conflicts with cross compilers.
flags_32="$flags -m32 -idirafter /usr/include/x86_64-linux-gnu"
mkdir -p "$out"
# One build at a time, and only once for a folder: a running program cannot be written.
exec 9>"$out/lock"
flock 9
# What is built needs no compiler any more: it does not always start while the tests run.
is_built() { [ -z "$(find "$here" "$torture" "$lab" -newer "$out/stamp" -name '*.[chS]' -print -quit)" ]; }
[ "$(cat "$out/stamp" 2>/dev/null)" != true ] || ! is_built || exit 0
makes_32=true
echo 'int main(void) { return 0; }' | gcc -m32 -static -x c - -o "$out/probe" 2>/dev/null || makes_32=false
[ "$(cat "$out/stamp" 2>/dev/null)" != "$makes_32" ] || ! is_built || exit 0
for name in agent connect-pair deny-syscalls echo-peer hang hold-traced pid-churn read-keepalive \
    sock-ops-keepalive victim-echo; do
    gcc $flags -D_GNU_SOURCE -I "$here/common" "$here/$name"/*.[cS] -o "$out/$name"
done
gcc $flags -static "$here/self-connected/main.c" -o "$out/self-connected"
for name in victim-registers victim-sleeps victim-signals victim-odd; do
    gcc $flags "$here/$name/main.c" -o "$out/$name-64"
    gcc $flags -static "$here/$name/main.c" -o "$out/$name-64-static"
    $makes_32 || continue
    gcc $flags_32 "$here/$name/main.c" -o "$out/$name-32"
    gcc $flags_32 -static "$here/$name/main.c" -o "$out/$name-32-static"
done
gcc $flags "$lab/idle-client.c" -o "$out/idle-client-64"
gcc $flags -static "$lab/idle-client.c" -o "$out/idle-client-64-static"
! $makes_32 || gcc $flags_32 "$lab/idle-client.c" -o "$out/idle-client-32"
for name in torture supervisor kill-at; do gcc $flags "$torture/$name.c" -o "$out/$name"; done
gcc $flags -shared -fPIC "$torture/die-at.c" -o "$out/die-at.so" -ldl
if [ "$(uname -m)" = x86_64 ]; then
    # The addresses are those of common/attack.h.
    gcc $flags "$here/attack/main.c" "$here/attack/slow-pages.c" -o "$out/attack"
    gcc $flags -shared -fPIC "$here/attack/tell-at.c" -o "$out/tell-at.so" -ldl
    gcc $flags "$here/attacker/main.c" -o "$out/attacker"
    gcc $flags -static -no-pie -DFIXED -Wl,--section-start=.code=0x20000000 "$here/attacker/main.c" \
        -o "$out/attacker-static"
    gcc $flags -static -no-pie -fno-stack-protector -fcf-protection=none -Wl,--section-start=.win=0x20000000 \
        -Wl,--section-start=.area=0x30000000 "$here/privileged/main.c" -o "$out/ordinary"
fi
echo "$makes_32" >"$out/stamp"
