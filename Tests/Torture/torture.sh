#!/bin/sh
# Kills the injector with SIGKILL, N times (2000) at random times and once at every step of an injection, and counts the
# harmed targets: root's own, another user's, and another user's undumpable ones, which are accessed with all rights.
# Needs gcc with 32-bit support (gcc-multilib), and root or CAP_SYS_PTRACE. Below 1000, the steps use three kinds of
# targets, not ten.
# Usage: Tests/Torture/torture.sh [N]; SOCKALIVE=PATH uses a built program, which is linked dynamically; VICTIMS=FOLDER
# the output of build.sh.
# shellcheck disable=SC2086 # the line is split into words
set -eu
cd "$(dirname "$0")/../.."
number=${1:-2000}
if [ -z "${SOCKALIVE:-}" ]; then
    swift build -c release --product sockalive >/dev/null
    SOCKALIVE=$(swift build -c release --show-bin-path)/sockalive
fi
out=${VICTIMS:-${TMPDIR:-/tmp}/sockalive-torture.$(id -u)}
Tests/Programs/build.sh "$out"

total=0 harmed=0 live=0 holding=0
# Only root can start victims of other users.
owners=own
[ "$(id -u)" != 0 ] || owners='own other undumpable'
nobody='setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all env'

run() { # MODE NUMBER VICTIM [ARGUMENT]
    mode=$1 what=$2 victim=$3
    shift 3
    launcher='' program=$out/$victim
    case ${owner:-own} in
    other) launcher=$nobody ;;
    undumpable)
        launcher=$nobody program=$out/unreadable-$victim
        # A user that may execute a program but not read it has no rights over its process (fs/exec.c, would_dump).
        [ -e "$program" ] || cp "$out/$victim" "$program"
        chmod 711 "$program"
        ;;
    esac
    # Harm is an ordinary result. Any other failure ends the run.
    line=$("$out/torture" "$mode" "$what" "$SOCKALIVE" $launcher "$program" "$@") || [ -n "$line" ]
    printf '%-10s %-8s %-34s %s\n' "${owner:-own}" "$mode" "$victim $*" "$line"
    # "harmed H of N, L hit a live injector, T while ..."
    set -- $line
    [ "${4%,}" -gt 0 ] || {
        echo "nothing was killed: a static program ($SOCKALIVE) loads no die-at.so" >&2
        exit 1
    }
    harmed=$((harmed + $2)) total=$((total + ${4%,})) live=$((live + $5)) holding=$((holding + ${10}))
}

set -- $owners
share=$(((number + 6 * $# - 1) / (6 * $#)))
for owner in $owners; do
    for bits in 64 32; do
        for how in spin poll; do run random "$share" "victim-registers-$bits" "$how"; done
        run random "$share" "victim-odd-$bits" threads
    done
done
printf 'harmed %d of %d; %d kills hit a live injector, %d of them while it held the target\n' \
    "$harmed" "$total" "$live" "$holding"
[ "$harmed" -eq 0 ] || exit 1
[ "$((live * 3))" -ge "$total" ] || { echo "too few kills hit a live injector" >&2; exit 1; }

for owner in $owners; do
    run steps "$out/die-at.so" victim-odd-64 threads
    [ "$owner" = own ] || [ "$number" -ge 1000 ] || continue
    run steps "$out/die-at.so" victim-registers-64 poll
    run steps "$out/die-at.so" victim-registers-32 spin
done
owner=own
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
