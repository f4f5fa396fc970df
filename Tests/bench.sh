#!/bin/bash
# Measures the time of sockalive, beside tools that do parts of its work: on a host with 1,000 processes and 10,000
# connections, on a process with up to 18,000 connections, and on a large host, of as many as this machine bears. Prints
# tables and writes Docs/Performance.md and its plots. It has no limits that fail: on a busy machine the figures mean
# little.
#
#   Tests/bench.sh            some minutes; installs missing packages
#   Tests/bench.sh --large    only the large host, as root: writes that section of the page, and its plot
#   Tests/bench.sh --smoke    some seconds, on a small host; only checks that all parts run, without figures
#
# SOCKALIVE=PROGRAM uses an existing build.
set -eu
cd "$(dirname "$0")/.."
# Processes, connections and network namespaces of the large host; and as many of each where another one grows.
large=(20000 200000 50) small=(200 400 1) targets=50 quarters=(1 2 4)
only=
case ${1:-} in
'' | --large)
    export ROUNDS=5
    only=${1:-}
    only=${only#--}
    docs=Docs host=(1000 10 3) counts=(100 1000 1800 5000 10000 18000) sockets=1000 seconds=30
    connects=(1000 10)
    ;;
--smoke)
    export ROUNDS=1
    docs='' host=(20 10 3) counts=(10 20) sockets=10 seconds=6
    connects=(100 1)
    large=(40 60 3) small=(20 40 1) targets=10 quarters=(4)
    ;;
*)
    echo "usage: Tests/bench.sh [--large|--smoke]" >&2
    exit 64
    ;;
esac

work=$(mktemp -d) world=
# Targets of another user start programs from this folder.
chmod 755 "$work"
# The command runs in the background and is killed by its PID: bash handles a signal only after a foreground command.
finish() {
    [ -z "$world" ] || kill -KILL "$world" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export BENCH=$work/bin RESULTS=$work/results
mkdir "$BENCH" "$RESULTS"

build() {
    local flags=(-std=gnu17 -O2 -Wall -Wextra -Werror) name
    # Stripped, as the README installs it. The stripped parts are not loaded in any case.
    if [ -z "${SOCKALIVE:-}" ]; then
        SOCKALIVE=$(static_program)
    fi
    strip -o "$BENCH/sockalive" "$SOCKALIVE"
    for name in busy-host keepalive connects; do gcc "${flags[@]}" "Tests/Bench/$name.c" -o "$BENCH/$name"; done
    cp "$BENCH/busy-host" "$BENCH/busy-host-64"
    # Both kinds use the same <asm/...>.
    bits=(64)
    if gcc "${flags[@]}" -m32 -idirafter /usr/include/x86_64-linux-gnu Tests/Bench/busy-host.c \
        -o "$BENCH/busy-host-32" 2>/dev/null; then bits+=(32); fi
    cp Tests/Bench/keepalive.py "$BENCH"
    # The interpreter itself, without the wrapper of a version manager.
    PYTHON=$(python3 -c 'import sys; print(sys.executable)')
    export PYTHON
}

scene() {
    echo "measuring: $*" >&2
    Tests/Bench/world.sh Tests/Bench/scenes.sh "$@" &
    world=$!
    wait "$world"
    world=
}

# The number in a file; one that no machine reaches where it has none.
number() {
    local words
    read -r words _ 2>/dev/null <"$1" && [[ $words =~ ^[0-9]+$ ]] && echo "$words" || echo $((1 << 62))
}

least() { printf '%s\n' "$@" | sort -n | head -1; }

# How many more tasks the cgroup of this process may have, and those above it.
cgroup_tasks() {
    local mount path left
    mount=$(cgroup_mount)
    path=$(sed -n 's/^0:://p' /proc/self/cgroup)
    left=$((1 << 62))
    while [ -n "$mount" ] && [ -n "${path%/}" ]; do
        left=$(least "$left" $(($(number "$mount$path/pids.max") - $(number "$mount$path/pids.current"))))
        path=${path%/*}
    done
    echo "$left"
}

# Half of the memory is left alone. A process takes 100 KiB of it, and a connection, whose two ends are both here, 8.
bearable() {
    local memory room=2000
    memory=$(awk '/^MemAvailable:/ { print int($2 / 2) }' /proc/meminfo)
    large[0]=$(least "${large[0]}" $((memory / 2 / 100)) $(($(cgroup_tasks) - room)) \
        $(($(number /proc/sys/kernel/pid_max) - room)) $(($(number /proc/sys/kernel/threads-max) - room)))
    large[1]=$(least "${large[1]}" $((memory / 2 / 8)) $(($(number /proc/sys/fs/file-max) / 2 - room)))
}

# Each of the three grows by itself, then all of them are there.
large_host() {
    local axis part of
    bearable
    scene large small "${small[@]}" "$targets"
    for axis in 0 1 2; do
        for part in "${quarters[@]}"; do
            of=("${small[@]}")
            of[axis]=$((large[axis] * part / 4))
            scene large "$axis-${of[axis]}" "${of[@]}" "$targets"
        done
    done
    scene large all "${large[@]}" "$targets"
}

# shellcheck source=Tests/lib.sh
. Tests/lib.sh
[ "$(uname -m)" != x86_64 ] || install_missing gcc-multilib
install_missing_to_build binutils gdb hyperfine iproute2 lsof net-tools procps python3 time util-linux
build
if [ "$only" = large ]; then
    [ "$(id -u)" = 0 ] || fail "only root may have so many processes"
    large_host
    python3 Tests/Bench/report.py "$RESULTS" Docs large
    exit
fi
scene busy "${host[@]}"
for count in "${counts[@]}"; do scene one "$count"; done
# The ptrace method is for x86-64.
if [ "$(uname -m)" = x86_64 ]; then
    for bit in "${bits[@]}"; do
        for rest in recv poll spin; do scene pause "$bit" "$rest" "$sockets"; done
    done
    # Only root can start targets of other users.
    if [ "$(id -u)" = 0 ]; then
        for owner in other undumpable; do
            for rest in recv spin; do scene pause 64 "$rest" "$sockets" "$owner"; done
        done
    fi
    scene probe "$sockets"
    scene remember "$sockets"
    scene gap
fi
[ "$(id -u)" != 0 ] || scene owner 10
# 1,000 connections a second, with a guard and without, by turns.
if [ "$(id -u)" = 0 ] && [ -n "$(cgroup_mount)" ]; then scene guard "${connects[@]}"; fi
if "$BENCH/sockalive" --help | grep -q '^  watch '; then scene watch "$seconds" "${host[@]}"; fi
# Only root may have so many processes.
[ "$(id -u)" != 0 ] || large_host
if [ -n "$docs" ]; then
    python3 Tests/Bench/report.py "$RESULTS" "$docs"
else
    python3 Tests/Bench/report.py "$RESULTS" "$work" >/dev/null
    echo "the benchmark runs"
fi
