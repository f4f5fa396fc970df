#!/bin/sh
# Kills the injector with SIGKILL, N times (2000) at random moments and once at every single step of an
# injection, and counts the targets harmed. Needs gcc with 32-bit support (gcc-multilib), and root or
# CAP_SYS_PTRACE. Below 1000 the steps are those of three kinds of targets, not ten.
# Usage: Tests/torture.sh [N]; SOCKALIVE=PATH takes a built program, VICTIMS=FOLDER what build.sh made.
# shellcheck disable=SC2086 # the line is split into words
set -eu
cd "$(dirname "$0")/.."
number=${1:-2000}
if [ -z "${SOCKALIVE:-}" ]; then
    swift build -c release --product sockalive >/dev/null
    SOCKALIVE=$(swift build -c release --show-bin-path)/sockalive
fi
out=${VICTIMS:-${TMPDIR:-/tmp}/sockalive-torture.$(id -u)}
Tests/Targets/build.sh "$out"

total=0 harmed=0 live=0 holding=0
run() { # MODE NUMBER VICTIM [ARGUMENT]
    mode=$1 what=$2 victim=$3
    shift 3
    # Harm is a result like another; anything else that fails ends the run.
    line=$("$out/torture" "$mode" "$what" "$SOCKALIVE" "$out/$victim" "$@") || [ -n "$line" ]
    printf '%-8s %-34s %s\n' "$mode" "$victim $*" "$line"
    # "harmed H of N, L hit a live injector, T while ..."
    set -- $line
    harmed=$((harmed + $2)) total=$((total + ${4%,})) live=$((live + $5)) holding=$((holding + ${10}))
}

share=$(((number + 5) / 6))
for bits in 64 32; do
    for how in spin poll; do run random "$share" "victim-registers-$bits" "$how"; done
    run random "$share" "victim-odd-$bits" threads
done
printf 'harmed %d of %d; %d kills hit a live injector, %d of them while it held the target\n' \
    "$harmed" "$total" "$live" "$holding"
[ "$harmed" -eq 0 ] || exit 1
[ "$((live * 3))" -ge "$total" ] || { echo "too few kills hit a live injector" >&2; exit 1; }

run steps "$out/die-at.so" victim-registers-64 poll
run steps "$out/die-at.so" victim-registers-32 spin
run steps "$out/die-at.so" victim-odd-64 threads
if [ "$number" -ge 1000 ]; then
    run steps "$out/die-at.so" victim-registers-64 spin
    run steps "$out/die-at.so" victim-registers-32 poll
    run steps "$out/die-at.so" victim-odd-64 rseq
    for victim in victim-registers-64-static victim-registers-32-static; do
        for how in spin poll; do run steps "$out/die-at.so" "$victim" "$how"; done
    done
fi
run target $(((number + 19) / 20)) victim-registers-64 spin
run target $(((number + 19) / 20)) victim-odd-32 threads
printf 'harmed in all %d of %d\n' "$harmed" "$total"
[ "$harmed" -eq 0 ]
