#!/bin/sh
# Compiles the victims of the injection into a folder, each as -64, -64-static, -32 and -32-static
# (SwiftPM makes the first kind only), and what torture.sh and attacks.sh need. The last two need gcc-multilib, and are
# left out without it. Usage: build.sh FOLDER
# shellcheck disable=SC2086 # the flags are words
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1
flags='-std=gnu17 -O2 -Wall -Wextra -Werror -pthread'
mkdir -p "$out"
# Once for all that share the folder: whoever makes the stamp is the last to have changed anything.
torture=$here/../Torture
if [ -e "$out/stamp" ] &&
    [ -z "$(find "$here" "$torture" -newer "$out/stamp" -name '*.[ch]' -print -quit)" ]; then exit 0; fi
# <asm/…> is the same for both; gcc-multilib links it to /usr/include, and conflicts with cross compilers.
flags_32="$flags -m32 -idirafter /usr/include/x86_64-linux-gnu"
makes_32=true
echo 'int main(void) { return 0; }' | gcc -m32 -static -x c - -o "$out/probe" 2>/dev/null || makes_32=false
for name in victim-registers victim-sleeps victim-signals victim-odd; do
    gcc $flags "$here/$name/main.c" -o "$out/$name-64"
    gcc $flags -static "$here/$name/main.c" -o "$out/$name-64-static"
    $makes_32 || continue
    gcc $flags_32 "$here/$name/main.c" -o "$out/$name-32"
    gcc $flags_32 -static "$here/$name/main.c" -o "$out/$name-32-static"
done
gcc $flags "$torture/torture.c" -o "$out/torture"
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
! $makes_32 || touch "$out/stamp"
